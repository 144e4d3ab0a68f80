//! That this host is being drained, and what has left it since: kept first, then told to the loop.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::{DrainRequest, DrainView, LeavingVm, LeftVm, Problem, StoppedVm};
use decide::host::Event;
use decide::host::drain::{Drained, Left, Stand};
use decide::units::VmId;
use drivers::hypervisor::Other;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use crate::answers::{Answers, not_kept};
use crate::kept::Kept;
use crate::steering::{Steering, gone};
use crate::views;

/// In the folder of the journal.
pub(crate) const FILE: &str = "drain.json";

/// What is kept. What has left is kept until the next drain begins, so that it can be asked back later too.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OfDrain {
    draining: bool,
    left: BTreeMap<VmId, Left>,
}

/// One at a time.
pub(crate) type Shared = Arc<Mutex<Kept<OfDrain>>>;

/// Tells the loop what was kept.
pub(crate) fn resume(steering: &mut Steering, kept: &Kept<OfDrain>) -> anyhow::Result<()> {
    let OfDrain { draining, left } = kept.read()?;
    if draining {
        steering.handle(Event::Drain(Some(left)));
    }
    Ok(())
}

/// Keeps that a VM has left: sooner or later, since the loop cannot wait for it.
pub(crate) fn keep_left(shared: &Shared, vm: VmId, left: Left) {
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        let kept = shared.lock_owned().await;
        let written = tokio::task::spawn_blocking(move || {
            kept.change(|drain| drop(drain.left.insert(vm, left)))
        });
        match written.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%vm, "that it left is not kept: {error:#}"),
            Err(error) => tracing::error!(%vm, "that it left is not kept: {error}"),
        }
    });
}

/// How it goes.
pub(crate) async fn drain(answers: &Answers) -> Result<DrainView, Problem> {
    let kept = answers.said.drain.lock().await.read();
    let kept = kept.map_err(|error| not_kept(format!("{error:#}")))?;
    answers.look(move |at_work| view(at_work, &kept)).await
}

/// Begins or ends it. Whoever asks may go away at any time: the task keeps the lock until both are done.
pub(crate) async fn set(answers: &Answers, request: DrainRequest) -> Result<DrainView, Problem> {
    let wanted = request.host;
    let meant = answers.look(move |at_work| {
        let (name, id) = (at_work.host.name(), at_work.host.id().to_string());
        wanted
            .filter(|wanted| wanted != name && *wanted != id)
            .map(|other| (other, name.to_owned()))
    });
    if let Some((other, name)) = meant.await? {
        let title = format!("this agent drains its own host alone, which is {name}, not {other}");
        return Err(Problem::new(409, "elsewhere", title, "run `evenkeel drain` on that host"));
    }
    let shared = Arc::clone(&answers.said.drain).lock_owned().await;
    let answers = answers.clone();
    let done = tokio::spawn(async move {
        let on = request.on;
        // What the loop has seen leave may not have been kept: it could not, or its turn has not come.
        let seen = answers.look(|at_work| {
            let drained = at_work.host.drain(at_work.clock.now());
            drained.map(|drained| drained.left.clone()).unwrap_or_default()
        });
        let seen = seen.await?;
        let kept = tokio::task::spawn_blocking(move || {
            let kept = shared.change(|drain| {
                if on && !drain.draining {
                    drain.left.clear();
                }
                drain.left.extend(seen);
                drain.draining = on;
                drain.clone()
            });
            kept.map(|kept| (kept, shared))
        });
        let (kept, _until_it_is_said) = kept
            .await
            .map_err(|error| not_kept(error.to_string()))?
            .map_err(|error| not_kept(format!("{error:#}")))?;
        let say = move |at_work: &mut Steering| {
            at_work.handle(Event::Drain(on.then(|| kept.left.clone())));
            view(at_work, &kept)
        };
        answers.look(say).await
    });
    done.await.map_err(|_ended| gone())?
}

fn view(at_work: &mut Steering, kept: &OfDrain) -> DrainView {
    let now = at_work.clock.now();
    let places = views::inventory(at_work);
    let host = &at_work.host;
    let drained = host.drain(now);
    // What the loop has just seen leave may not be kept yet.
    let left = drained.as_ref().map_or(&kept.left, |drained| drained.left);
    let left = left.iter().map(|(vm, Left { name, to })| {
        let (vm_id, to) = (vm.to_string(), host.name_of(*to));
        let listed = places.iter().find(|place| place.id == vm_id && place.state != "released");
        let at = listed.map_or_else(|| to.clone(), |place| place.host.clone());
        LeftVm { vm: name.clone(), vm_id, to, at }
    });
    let here = drained.as_ref().map(|Drained { here, .. }| here.iter());
    let here = here.into_iter().flatten().map(|(vm, stand)| {
        let (state, move_id, why) = match stand {
            Stand::Moving(id) => ("moving", Some(id.to_string()), None),
            Stand::Next => ("next", None, None),
            Stand::Waits(why) => ("waits", None, Some(why.clone())),
            Stand::Stays(why) => ("stays", None, Some(why.clone())),
        };
        LeavingVm {
            vm: host.vm_name(*vm),
            vm_id: vm.to_string(),
            memory_mib: host.vms()[vm].definition.memory.0,
            state: state.to_owned(),
            move_id,
            why,
        }
    });
    let coming = drained.iter().flat_map(|drained| &drained.coming).map(|(vm, name)| {
        let why = "a copy of it is on its way here still: once it has arrived it leaves";
        unknown(*vm, name, "waits", why)
    });
    let others = at_work.hypervisor.others().into_iter();
    let known = |vm: VmId| host.vms().contains_key(&vm) || host.is_coming(vm);
    let (run, stopped): (Vec<Other>, Vec<Other>) =
        others.filter(|other| !known(other.vm)).partition(|other| other.runs);
    let run = run.iter().filter(|_| drained.is_some()).map(|Other { vm, name, .. }| {
        let why = "it runs here, but Evenkeel has not adopted it: `evenkeel events` says why";
        unknown(*vm, name, "stays", why)
    });
    DrainView {
        host: host.name().to_owned(),
        draining: drained.is_some(),
        looking: drained.as_ref().is_some_and(|drained| drained.looking),
        left: left.collect(),
        here: here.chain(coming).chain(run).collect(),
        stopped: stopped
            .into_iter()
            .map(|Other { vm, name, .. }| StoppedVm { vm: name, vm_id: vm.to_string() })
            .collect(),
    }
}

/// A VM that this host does not have, though something of it is here.
fn unknown(vm: VmId, name: &str, state: &str, why: &str) -> LeavingVm {
    LeavingVm {
        vm: name.to_owned(),
        vm_id: vm.to_string(),
        memory_mib: 0,
        state: state.to_owned(),
        move_id: None,
        why: Some(why.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use decide::units::HostId;

    use super::*;

    #[test]
    fn what_has_left_is_found_again_after_the_drain_too() {
        let folder = tempfile::tempdir().unwrap();
        let kept = || Kept::<OfDrain>::within(folder.path(), FILE);
        assert_eq!(kept().read().unwrap(), OfDrain::default(), "none was begun");
        kept().change(|drain| drain.draining = true).unwrap();
        let left = Left { name: "web".to_owned(), to: HostId(7) };
        kept().change(|drain| drain.left.insert(VmId(1), left.clone())).unwrap();
        kept().change(|drain| drain.draining = false).unwrap();
        let found = kept().read().unwrap();
        assert_eq!((found.draining, found.left), (false, [(VmId(1), left)].into()));
    }
}
