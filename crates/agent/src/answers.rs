//! What the HTTP API is answered: looks at the host between two events, and the event log.

use std::sync::Arc;

use api::{
    Applied, AppliedVm, ApplyRequest, Balancer, BalancerRequest, BestHost, BestHostRequest,
    ClusterView, DrainRequest, DrainView, Event, ExcludeRequest, Exclusion, FlowView,
    HistoryFilter, HistoryView, HostView, MoveRequest, MoveStarted, MoveView, Overview, Plan,
    Problem, Report, Resolve, Status, Unsettled, VmPlace, VmTags, VmTagsRequest, VmView, Why,
};
use decide::host::{self, Ask};
use decide::units::{HostId, MoveId, VmId};
use drivers::store::{Events, Noted};
use tokio::sync::{mpsc, oneshot, watch};
use trust::keys::Keys;

use crate::cluster;
use crate::draining;
use crate::exclusions;
use crate::http::{About, Backend, EventQuery, until_events};
use crate::metrics;
use crate::net::{Looked, Looks, To};
use crate::overview::{self, Reports};
use crate::posting::Posts;
use crate::said::Said;
use crate::steering::{Question, Steering, gone};
use crate::{histories, tags, then, views, why};

/// Events of one move or VM are looked for among this many of the newest.
const LOOKED_AT: usize = 20_000;
/// Where all are wanted: more than can be asked for are read in one go, since some may be of a form that is not known here.
const READ: usize = 2000;
/// Events told with a `why`.
const TOLD: usize = 50;

/// The loop, as the API sees it.
#[derive(Clone, Debug)]
pub(crate) struct Answers {
    questions: mpsc::Sender<Question>,
    events: Arc<Events>,
    newest: watch::Receiver<u64>,
    pub(crate) said: Said,
    reports: Reports,
    pub(crate) posts: Arc<Posts>,
    keys: Option<Arc<Keys>>,
}

impl Answers {
    pub(crate) fn new(
        questions: mpsc::Sender<Question>,
        events: Arc<Events>,
        newest: watch::Receiver<u64>,
        said: Said,
        looks: Looks,
        posts: Arc<Posts>,
        keys: Option<Arc<Keys>>,
    ) -> Answers {
        Answers { questions, events, newest, said, reports: Reports::new(looks), posts, keys }
    }

    pub(crate) fn looks(&self) -> &Looks {
        &self.reports.looks
    }

    pub(crate) async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&mut Steering) -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let (say, hear) = oneshot::channel();
        let question: Question = Box::new(move |at_work| {
            // Nobody waits any more only if the client went away.
            let _ = say.send(look(at_work));
        });
        self.questions.send(question).await.map_err(|_ended| gone())?;
        hear.await.map_err(|_ended| gone())
    }

    async fn ask(
        &self,
        what: impl FnOnce(&Steering) -> Result<Ask, Problem> + Send + 'static,
    ) -> Result<MoveId, Problem> {
        let (reply, answer) = oneshot::channel();
        let asked =
            self.look(move |at_work| what(at_work).map(|ask| at_work.ask(ask, reply))).await?;
        asked?;
        let answer = answer.await.map_err(|_ended| gone())?;
        answer.map_err(|why| Problem::new(409, "refused", why, "`evenkeel why` tells more"))
    }

    /// Events of the log that `wanted` picks, oldest first; looked for in so many at the most, or as many as are asked for.
    async fn found(
        &self,
        query: &EventQuery,
        among: usize,
        wanted: impl Fn(&Event) -> bool + Send + 'static,
    ) -> Result<Vec<Event>, Problem> {
        let (events, after, limit) = (Arc::clone(&self.events), query.after, query.limit);
        let many = among.max(limit);
        let read = tokio::task::spawn_blocking(move || {
            let noted = match after {
                Some(after) => events.events(after.saturating_add(1), many),
                None => events.latest(many),
            }?;
            let wanted = |noted| event(noted).filter(&wanted);
            Ok(match after {
                Some(_) => noted.iter().filter_map(wanted).take(limit).collect(),
                None => {
                    let mut newest: Vec<Event> =
                        noted.iter().rev().filter_map(wanted).take(limit).collect();
                    newest.reverse();
                    newest
                }
            })
        });
        let unreadable =
            |why: String| Problem::new(500, "events-unreadable", why, "look into the agent's log");
        let read = read.await.map_err(|error| unreadable(error.to_string()))?;
        read.map_err(|error: drivers::store::StoreError| unreadable(error.to_string()))
    }

    async fn moved(&self, id: String) -> Result<MoveView, Problem> {
        let view = self.look({
            let id = id.clone();
            move |at_work| {
                let story =
                    at_work.host.stories().rev().find(|story| story.move_id.to_string() == id);
                story.map(|story| views::one_move(at_work, story))
            }
        });
        view.await?.ok_or_else(|| no_such_move(&id))
    }
}

impl Backend for Answers {
    async fn status(&self) -> Result<Status, Problem> {
        let status = self.look(|at_work| views::status(at_work)).await?;
        Ok(self.posts.failing(status))
    }

    async fn metrics(&self) -> Result<String, Problem> {
        let held = self.keys.as_ref().map(|keys| keys.held());
        let certificates =
            held.map(|held| vec![("host", held.identity.ends.0), ("ca", held.ca_ends.0)]);
        let looked = self.look(|at_work| metrics::Looked {
            totals: at_work.totals.clone(),
            status: views::status(at_work),
            hosts: views::hosts(at_work),
            vms: views::vms(at_work),
            certificates: certificates.unwrap_or_default(),
        });
        let mut looked = looked.await?;
        looked.status = self.posts.failing(looked.status);
        looked.text().map_err(|error| {
            Problem::new(500, "no-metrics", format!("{error:#}"), "look into the agent's log")
        })
    }

    async fn hosts(&self) -> Result<Vec<HostView>, Problem> {
        self.look(|at_work| views::hosts(at_work)).await
    }

    async fn vms(&self) -> Result<Vec<VmView>, Problem> {
        self.look(|at_work| views::vms(at_work)).await
    }

    async fn traffic(&self) -> Result<Vec<FlowView>, Problem> {
        let traffic = self.look(|at_work| views::traffic(&at_work.host)).await?;
        traffic.ok_or_else(|| {
            Problem::new(
                503,
                "not-counted",
                "traffic between VMs is not counted on this host",
                "the log of evenkeeld says why, if it is not just starting",
            )
        })
    }

    async fn history(&self, about: About, filter: HistoryFilter) -> Result<HistoryView, Problem> {
        let asked = histories::Asked::of(&filter)?;
        let mut view = self.look(move |at_work| histories::begun(at_work, &about, asked)).await??;
        if let Some(reply) = view.stored.take() {
            let read = reply.await.map_err(|_ended| gone())?;
            view.read(read.map_err(histories::unreadable)?);
        }
        Ok(view.told(filter.metric.as_deref()))
    }

    async fn inventory(&self) -> Result<Vec<VmPlace>, Problem> {
        self.look(|at_work| views::inventory(at_work)).await
    }

    async fn cluster(&self) -> Result<ClusterView, Problem> {
        self.look(|at_work| cluster::known(&at_work.host, at_work.clock.now())).await
    }

    async fn report(&self) -> Result<Report, Problem> {
        let newest = *self.newest.borrow();
        let mut report = self.look(move |at_work| overview::report(at_work, newest)).await?;
        report.status = self.posts.failing(report.status);
        Ok(report)
    }

    async fn overview(&self) -> Result<Overview, Problem> {
        let (own, seen) = (self.report().await?, self.hosts().await?);
        Ok(self.reports.overview(own, seen).await)
    }

    async fn at(&self, host: String, path: String) -> Result<Looked, Problem> {
        let wanted = host.clone();
        let called = self.look(move |at_work| {
            let own = &at_work.host;
            if wanted == own.name() || wanted == own.id().to_string() {
                return Ok(None);
            }
            let to = find_host(at_work, &wanted)?;
            let peer = at_work.host.membership().hosts().find(|view| view.peer.host == to);
            Ok(Some(peer.map(|view| To { host: to, at: view.peer.address })))
        });
        let unreachable = |why: String| {
            let title = format!("the agent of {host} does not answer: {why}");
            let hint = format!(
                "`evenkeel hosts` tells when {host} was heard last; look whether it and its agent run"
            );
            Problem::new(502, "host-unreachable", title, hint)
        };
        let looks = &self.reports.looks;
        let Some(called) = called.await?? else {
            return looks.ask_own(&path).await.map_err(unreachable);
        };
        let called = called.ok_or_else(|| unreachable("it is not known any more".to_owned()))?;
        looks.ask(called, &path).await.map_err(unreachable)
    }

    async fn moves(&self) -> Result<Vec<MoveView>, Problem> {
        self.look(|at_work| views::moves(at_work)).await
    }

    async fn one_move(&self, id: String) -> Result<MoveView, Problem> {
        self.moved(id).await
    }

    async fn events(&self, query: EventQuery) -> Result<Vec<Event>, Problem> {
        until_events(self.newest.clone(), query.wait, || {
            let of_move = query.move_id.clone();
            let among = if of_move.is_some() { LOOKED_AT } else { READ };
            self.found(&query, among, move |event| of_move.is_none() || event.move_id == of_move)
        })
        .await
    }

    async fn why(&self, about: Option<String>) -> Result<Why, Problem> {
        let ground = self.look(move |at_work| why::ground(at_work, about.as_deref())).await??;
        let query =
            EventQuery { after: None, limit: TOLD, move_id: None, wait: std::time::Duration::ZERO };
        let (of_move, of_vm) = (ground.move_id.clone(), ground.vm.clone());
        let events = self.found(&query, LOOKED_AT, move |event| match (&of_move, &of_vm) {
            (Some(_), _) => event.move_id == of_move,
            (None, Some(_)) => event.vm == of_vm,
            (None, None) => true,
        });
        let events = events.await?;
        Ok(ground.told(events))
    }

    async fn why_at(&self, at: String) -> Result<Why, Problem> {
        let (host, now) = self
            .look(|at_work| (at_work.host.name().to_owned(), at_work.clock.timestamp()))
            .await?;
        let at = then::moment(now, &at)?;
        let all = EventQuery {
            after: None,
            limit: LOOKED_AT,
            move_id: None,
            wait: std::time::Duration::ZERO,
        };
        Ok(then::told(&host, at, &self.found(&all, LOOKED_AT, |_| true).await?))
    }

    async fn why_not(&self, vm: String, to: String) -> Result<Why, Problem> {
        let (ground, name) = self
            .look(move |at_work| {
                let vm = vm_here(at_work, &vm)?;
                let to = find_host(at_work, &to)?;
                Ok((why::why_not(at_work, vm, to), at_work.host.name_of(to)))
            })
            .await??;
        let query =
            EventQuery { after: None, limit: TOLD, move_id: None, wait: std::time::Duration::ZERO };
        let vm = ground.vm.clone();
        let events = self
            .found(&query, LOOKED_AT, move |event| {
                event.vm == vm && event.peer.as_ref() == Some(&name)
            })
            .await?;
        Ok(ground.told(events))
    }

    async fn balancer(&self) -> Result<Balancer, Problem> {
        self.look(|at_work| views::balancer(at_work)).await
    }

    async fn switch_balancer(&self, request: BalancerRequest) -> Result<Balancer, Problem> {
        let on = request.on;
        let switch = Arc::clone(&self.said.switch).lock_owned().await;
        // Whoever asks may go away at any time: the task keeps the lock until both sides are done.
        let answers = self.clone();
        let done = tokio::spawn(async move {
            let kept = tokio::task::spawn_blocking(move || switch.turn(on).map(|()| switch)).await;
            let _until_it_is_said = kept
                .map_err(|error| not_kept(error.to_string()))?
                .map_err(|error| not_kept(format!("{error:#}")))?;
            let say = move |at_work: &mut Steering| {
                at_work.handle(host::Event::Balancer { on });
                views::balancer(at_work)
            };
            answers.look(say).await
        });
        done.await.map_err(|_ended| gone())?
    }

    async fn exclude(&self, vm: String, request: ExcludeRequest) -> Result<Exclusion, Problem> {
        exclusions::exclude(self, vm, request).await
    }

    async fn include(&self, vm: String) -> Result<Exclusion, Problem> {
        exclusions::include(self, vm).await
    }

    async fn vm_tags(&self, vm: String) -> Result<VmTags, Problem> {
        tags::of_vm(self, vm).await
    }

    async fn set_vm_tags(&self, vm: String, request: VmTagsRequest) -> Result<VmTags, Problem> {
        tags::set(self, vm, request).await
    }

    async fn exclusions(&self) -> Result<Vec<Exclusion>, Problem> {
        exclusions::all(self).await
    }

    async fn drain(&self) -> Result<DrainView, Problem> {
        draining::drain(self).await
    }

    async fn set_drain(&self, request: DrainRequest) -> Result<DrainView, Problem> {
        draining::set(self, request).await
    }

    async fn best_host(&self, request: BestHostRequest) -> Result<Vec<BestHost>, Problem> {
        self.look(move |at_work| views::best_hosts(at_work, &request)).await?
    }

    async fn plan(&self, numbered: bool) -> Result<Plan, Problem> {
        self.look(move |at_work| views::plan(at_work, numbered)).await
    }

    async fn shown_plan(&self) -> Result<Plan, Problem> {
        self.look(|at_work| at_work.shown.last(at_work.clock.now())).await?
    }

    async fn apply(&self, request: ApplyRequest) -> Result<Applied, Problem> {
        let plan = self.plan(false).await?;
        let (host, nothing) = (plan.host, plan.held.filter(|_| plan.moves.is_empty()));
        let all = request.vms.is_empty();
        let wanted: Vec<String> = match all {
            true => plan.moves.into_iter().map(|planned| planned.vm_id).collect(),
            false => request.vms,
        };
        let mut vms = Vec::new();
        for wanted in wanted {
            let name = wanted.clone();
            let found = self.look(move |at_work| {
                let vm = vm_here(at_work, &name)?;
                Ok((vm, at_work.host.vm_name(vm)))
            });
            let (vm, applied) = match found.await? {
                Ok((vm, name)) => (name, self.ask(move |_| Ok(Ask::Apply { vm })).await),
                Err(problem) => (wanted, Err(problem)),
            };
            let (move_id, refused) = match applied {
                Ok(move_id) => (Some(move_id.to_string()), None),
                // The agent stops: nobody knows what becomes of the rest.
                Err(problem) if problem.status >= 500 => return Err(problem),
                Err(problem) => (None, Some(problem.title)),
            };
            vms.push(AppliedVm { vm, move_id, refused });
        }
        Ok(Applied { host, vms, nothing: nothing.filter(|_| all) })
    }

    async fn start_move(&self, request: MoveRequest) -> Result<MoveStarted, Problem> {
        let move_id = self.ask(move |at_work| {
            let vm = vm_here(at_work, &request.vm)?;
            let to = request.to.as_deref().map(|to| find_host(at_work, to)).transpose()?;
            Ok(if request.force { Ask::Force { vm, to } } else { Ask::Move { vm, to } })
        });
        let move_id = move_id.await?;
        let overridden = self.look(move |at_work| {
            let story = at_work.host.stories().rev().find(|story| story.move_id == move_id);
            story.map(|story| story.overridden.clone())
        });
        let overridden = overridden.await?.unwrap_or_default();
        Ok(MoveStarted { move_id: move_id.to_string(), overridden })
    }

    async fn cancel(&self, id: String) -> Result<MoveView, Problem> {
        let wanted = id.clone();
        self.ask(move |at_work| find_move(at_work, &wanted).map(Ask::Cancel)).await?;
        self.moved(id).await
    }

    async fn unsettled(&self, id: String) -> Result<Unsettled, Problem> {
        self.look(move |at_work| {
            let move_id = find_move(at_work, &id)?;
            views::unsettled(at_work, move_id).ok_or_else(|| {
                Problem::new(
                    409,
                    "nothing-open",
                    format!("move {id} is over here, or has not come as far as a copy"),
                    "`evenkeel why` tells how it went",
                )
            })
        })
        .await?
    }

    async fn resolve(&self, id: String, resolve: Resolve) -> Result<MoveView, Problem> {
        let wanted = id.clone();
        self.ask(move |at_work| {
            let move_id = find_move(at_work, &wanted)?;
            let fenced =
                resolve.fenced.as_deref().map(|name| fenced_host(at_work, name)).transpose()?;
            Ok(Ask::Resolve { move_id, resolution: views::resolution(resolve.decision), fenced })
        })
        .await?;
        self.moved(id).await
    }
}

pub(crate) fn not_kept(why: String) -> Problem {
    let hint = "the agent goes on as before; its next start goes by what is on disk";
    Problem::new(500, "not-kept", why, hint)
}

fn event(noted: &Noted) -> Option<Event> {
    let event: Event = serde_json::from_slice(&noted.record).ok()?;
    Some(Event { seq: noted.seq, ..event })
}

fn find_move(at_work: &Steering, id: &str) -> Result<MoveId, Problem> {
    let mut stories = at_work.host.stories().rev();
    let found = stories.find(|story| story.move_id.to_string() == id);
    found.map(|story| story.move_id).ok_or_else(|| no_such_move(id))
}

pub(crate) fn vm_here(at_work: &Steering, name: &str) -> Result<VmId, Problem> {
    let unknown = || why::elsewhere(at_work, name).unwrap_or_else(|| why::no_such_vm(name));
    why::find_vm(at_work, name).ok_or_else(unknown)
}

fn find_host(at_work: &Steering, to: &str) -> Result<HostId, Problem> {
    let mut hosts = at_work.host.membership().hosts();
    let found = hosts.find(|view| view.peer.name == to || view.peer.host.to_string() == to);
    found.map(|view| view.peer.host).ok_or_else(|| {
        Problem::new(
            404,
            "no-such-host",
            format!("no other host {to:?} is known"),
            "`evenkeel hosts` lists them",
        )
    })
}

/// A host that is down may not be known any more since the agent started: then it goes by its id.
fn fenced_host(at_work: &Steering, name: &str) -> Result<HostId, Problem> {
    name.parse().or_else(|_not_an_id| find_host(at_work, name))
}

fn no_such_move(id: &str) -> Problem {
    Problem::new(
        404,
        "no-such-move",
        format!("no move {id:?} from or to this host"),
        "`evenkeel moves` lists them",
    )
}
