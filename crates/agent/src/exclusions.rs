//! VMs that a person has this host leave where they are: kept first, then told to the loop.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::{ExcludeRequest, Exclusion, Problem};
use decide::host::Event;
use decide::host::exclusions::EXCLUDED_MAX;
use decide::policy::rules::Excluded;
use decide::policy::rules::until::Until;
use decide::units::VmId;
use serde::{Deserialize, Serialize};

use crate::answers::{Answers, not_kept, vm_here};
use crate::clock::unix_seconds;
use crate::kept::Kept;
use crate::steering::{Steering, gone};
use crate::why;

/// In the folder of the journal.
pub(crate) const FILE: &str = "excluded.json";
/// Whoever wants more wants it for good.
const LONGEST: u64 = 10 * 365 * 86_400;

/// What is kept of one VM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OfVm {
    /// Its name, for a VM that has left since.
    name: String,
    until: Option<Until>,
}

/// What is kept: the VMs that are excluded by hand.
pub(crate) type OfVms = BTreeMap<VmId, OfVm>;

/// Tells the loop what was kept.
pub(crate) fn resume(steering: &mut Steering, kept: &Kept<OfVms>) -> anyhow::Result<()> {
    for (vm, OfVm { until, .. }) in current(kept.read()?) {
        steering.handle(Event::Excluded { vm, excluded: Some(excluded(until)) });
    }
    Ok(())
}

fn excluded(until: Option<Until>) -> Excluded {
    until.map_or(Excluded::Always, Excluded::Until)
}

/// Those that have not ended.
fn current(all: OfVms) -> OfVms {
    let now = Until(u64::from(unix_seconds()));
    all.into_iter().filter(|(_, one)| one.until.is_none_or(|until| until > now)).collect()
}

/// Excludes a VM on this host.
pub(crate) async fn exclude(
    answers: &Answers,
    wanted: String,
    request: ExcludeRequest,
) -> Result<Exclusion, Problem> {
    if request.for_seconds.is_some_and(|seconds| seconds > LONGEST) {
        let title = format!("a VM is excluded for {} days at most", LONGEST / 86_400);
        return Err(Problem::new(
            422,
            "too-long",
            title,
            "leave the time out: then it is for good",
        ));
    }
    let found = answers.look(move |at_work| {
        let vm = vm_here(at_work, &wanted)?;
        Ok((vm, at_work.host.vm_name(vm)))
    });
    let (vm, name) = found.await??;
    let now = u64::from(unix_seconds());
    let until = request.for_seconds.map(|seconds| Until(now + seconds));
    keep(answers, vm, OfVm { name, until }, true).await
}

/// Ends a VM's exclusion, on this host or not.
pub(crate) async fn include(answers: &Answers, wanted: String) -> Result<Exclusion, Problem> {
    let kept = answers.said.exclusions.lock().await.read();
    let kept = kept.map_err(|error| not_kept(format!("{error:#}")))?;
    let found = answers.look(move |at_work| {
        let named = |(vm, one): &(&VmId, &OfVm)| one.name == wanted || vm.to_string() == wanted;
        let left = kept.iter().find(named).map(|(vm, one)| (*vm, one.name.clone()));
        let here = why::find_vm(at_work, &wanted).map(|vm| (vm, at_work.host.vm_name(vm)));
        here.or(left).ok_or_else(|| why::no_such_vm(&wanted))
    });
    let (vm, name) = found.await??;
    keep(answers, vm, OfVm { name, until: None }, false).await
}

/// What is excluded by hand, by name.
pub(crate) async fn all(answers: &Answers) -> Result<Vec<Exclusion>, Problem> {
    let kept = answers.said.exclusions.lock().await.read();
    let kept = current(kept.map_err(|error| not_kept(format!("{error:#}")))?);
    let view = move |at_work: &mut Steering| -> Vec<Exclusion> {
        kept.iter().map(|(vm, one)| view(at_work, *vm, &one.name)).collect()
    };
    let mut all = answers.look(view).await?;
    all.sort_by(|a, b| (&a.vm, &a.vm_id).cmp(&(&b.vm, &b.vm_id)));
    Ok(all)
}

/// Keeps it, then tells the loop. Whoever asks may go away at any time: the task keeps the lock until both are done.
async fn keep(answers: &Answers, vm: VmId, one: OfVm, on: bool) -> Result<Exclusion, Problem> {
    let exclusions = Arc::clone(&answers.said.exclusions).lock_owned().await;
    let answers = answers.clone();
    let done = tokio::spawn(async move {
        let (name, said) = (one.name.clone(), on.then(|| excluded(one.until)));
        let kept = tokio::task::spawn_blocking(move || {
            let kept = exclusions.change(|all| {
                *all = current(std::mem::take(all));
                let full = all.len() >= EXCLUDED_MAX && !all.contains_key(&vm);
                match on {
                    true if full => return Err(too_many()),
                    true => drop(all.insert(vm, one)),
                    false => drop(all.remove(&vm)),
                }
                Ok(())
            });
            kept.map(|changed| changed.map(|()| exclusions))
        });
        let _until_it_is_said = kept
            .await
            .map_err(|error| not_kept(error.to_string()))?
            .map_err(|error| not_kept(format!("{error:#}")))??;
        let say = move |at_work: &mut Steering| {
            at_work.handle(Event::Excluded { vm, excluded: said });
            view(at_work, vm, &name)
        };
        answers.look(say).await
    });
    done.await.map_err(|_ended| gone())?
}

fn too_many() -> Problem {
    let title = format!("{EXCLUDED_MAX} VMs are excluded by hand on this host");
    Problem::new(
        409,
        "too-many",
        title,
        "include some, or exclude by `[rules]`, which take patterns",
    )
}

fn view(at_work: &Steering, vm: VmId, name: &str) -> Exclusion {
    let host = &at_work.host;
    let here = host.vms().get(&vm);
    let excluded = host.exclusions().get(&vm);
    Exclusion {
        vm: here.map_or_else(|| name.to_owned(), |here| here.definition.name.clone()),
        vm_id: vm.to_string(),
        host: host.name().to_owned(),
        here: here.is_some(),
        excluded: excluded.is_some(),
        until: excluded.and_then(|excluded| match excluded {
            Excluded::Always => None,
            Excluded::Until(until) => Some(until.to_string()),
        }),
        rule: here.and_then(|here| here.rules.may_leave(host.local_times()).err()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_excluded_is_found_at_the_next_start_unless_its_time_has_come() {
        let folder = tempfile::tempdir().unwrap();
        let kept = || Kept::<OfVms>::within(folder.path(), FILE);
        let now = u64::from(unix_seconds());
        for (vm, until) in [(1, None), (2, Some(Until(now + 60))), (3, Some(Until(now - 1)))] {
            let one = OfVm { name: format!("vm{vm}"), until };
            kept().change(|all| all.insert(VmId(vm), one)).unwrap();
        }
        let found = current(kept().read().unwrap());
        assert_eq!(found.keys().copied().collect::<Vec<_>>(), [VmId(1), VmId(2)]);
        assert_eq!(found[&VmId(2)].until, Some(Until(now + 60)));
    }
}
