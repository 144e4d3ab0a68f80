//! A VM's tags, read and written where its own definition has them.
//!
//! The words are checked here, as whoever reads tags checks them; the driver writes, on top of what then stands there.
//!
//! **Invariant:** only tags of ours (`evenkeel:KEY=VALUE`) are changed, and only of the keys that were named.

use std::sync::Arc;
use std::time::Duration;

use api::{Problem, VmTag, VmTags, VmTagsRequest};
use decide::policy::rules::unreadable;
use decide::units::VmId;
use decide::wire::limits::{TAG_MAX, TAGS_MAX};
use drivers::hypervisor::TagsError;

use crate::answers::{Answers, vm_here};
use crate::steering::Steering;

/// How long a driver may take; longer than a hypervisor that hangs is waited for.
const WRITTEN_MAX: Duration = Duration::from_secs(50);
const HINT: &str = "docs/configuration.md lists the words of tags";

/// The tags of a VM on this host, as they were read last.
pub(crate) async fn of_vm(answers: &Answers, wanted: String) -> Result<VmTags, Problem> {
    let look = move |at_work: &mut Steering| -> Result<VmTags, Problem> {
        let vm = vm_here(at_work, &wanted)?;
        let here = at_work.host.vms().get(&vm);
        let tags = here.map(|here| here.definition.tags.clone()).unwrap_or_default();
        Ok(view(at_work, vm, tags))
    };
    answers.look(look).await?
}

/// Changes them.
pub(crate) async fn set(
    answers: &Answers,
    wanted: String,
    request: VmTagsRequest,
) -> Result<VmTags, Problem> {
    let wrong = |why: String| Problem::new(422, "bad-tags", why, HINT);
    check(&request).map_err(wrong)?;
    let found = answers.look(move |at_work| {
        let vm = vm_here(at_work, &wanted)?;
        Ok::<_, Problem>((vm, Arc::clone(&at_work.hypervisor)))
    });
    let (vm, hypervisor) = found.await??;
    let told = hypervisor.change_tags(vm, Box::new(move |before| changed(before, &request.set)));
    let unknown = || {
        let why = "it is not known whether the tags were written: the hypervisor does not answer";
        Problem::new(504, "no-answer", why, "look again: evenkeel vm show VM")
    };
    let told = tokio::time::timeout(WRITTEN_MAX, told).await.map_err(|_late| unknown())?;
    let tags = told.map_err(|_dropped| unknown())?.map_err(|error| match error {
        TagsError::Wrong(why) => wrong(why),
        TagsError::Refused(why) => Problem::new(409, "not-written", why, "nothing was changed"),
        TagsError::Failed(why) => {
            Problem::new(502, "not-written", why, "look whether it was: evenkeel vm show VM")
        }
    })?;
    answers.look(move |at_work| view(at_work, vm, tags)).await
}

fn view(at_work: &Steering, vm: VmId, tags: Vec<String>) -> VmTags {
    let host = &at_work.host;
    VmTags { vm: host.vm_name(vm), vm_id: vm.to_string(), host: host.name().to_owned(), tags }
}

/// Whether a request can be understood, whatever the VM has.
fn check(VmTagsRequest { set }: &VmTagsRequest) -> Result<(), String> {
    if set.is_empty() || set.len() > TAGS_MAX {
        return Err(format!("1 to {TAGS_MAX} keys can be set at once, not {}", set.len()));
    }
    for VmTag { key, values } in set {
        // What takes a value says so; whether the key is one at all is seen without it.
        let bare = unreadable(&[tag(key, "")]).into_iter().chain(unreadable(&[tag(key, "x")]));
        let plain = !key.is_empty() && key.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
        if !plain || bare.into_iter().any(|why| why.contains("this word is not known")) {
            return Err(format!("{key:?} is no key of a rule"));
        }
        if values.len() > TAGS_MAX {
            return Err(format!("{key}: {TAGS_MAX} values at most"));
        }
    }
    Ok(())
}

fn tag(key: &str, value: &str) -> String {
    if value.is_empty() { format!("evenkeel:{key}") } else { format!("evenkeel:{key}={value}") }
}

/// The tags after the change.
fn changed(before: Vec<String>, set: &[VmTag]) -> Result<Vec<String>, String> {
    let mut tags = before;
    for VmTag { key, values } in set {
        let bare = tag(key, "");
        tags.retain(|old| *old != bare && !old.starts_with(&format!("{bare}=")));
        tags.extend(values.iter().map(|value| tag(key, value)));
    }
    tags.sort_unstable();
    tags.dedup();
    if let Some(why) = unreadable(&tags).into_iter().next() {
        return Err(why);
    }
    if let Some(long) = tags.iter().find(|tag| tag.len() > TAG_MAX) {
        return Err(format!("tag {long:?} is longer than {TAG_MAX} bytes"));
    }
    if tags.iter().any(|tag| tag.chars().any(char::is_control)) {
        return Err("a tag holds no control characters".to_owned());
    }
    if tags.len() > TAGS_MAX {
        return Err(format!("it would have {} tags, and {TAGS_MAX} is the most", tags.len()));
    }
    Ok(tags)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(key: &str, values: &[&str]) -> VmTag {
        let values = values.iter().map(|&value| value.to_owned()).collect();
        VmTag { key: key.to_owned(), values }
    }

    fn after(before: &[&str], set: &[VmTag]) -> Result<Vec<String>, String> {
        changed(before.iter().map(|&tag| tag.to_owned()).collect(), set)
    }

    #[test]
    fn a_key_replaces_what_there_is_of_it_and_nothing_else() {
        let before = ["evenkeel:pin=host1", "evenkeel:pin-label=ssd", "plb_pin_host9", "theirs"];
        assert_eq!(
            after(&before, &[set("pin", &["host3", "host2"])]).unwrap(),
            [
                "evenkeel:pin-label=ssd",
                "evenkeel:pin=host2",
                "evenkeel:pin=host3",
                "plb_pin_host9",
                "theirs"
            ]
        );
        assert_eq!(
            after(&before, &[set("pin", &[]), set("exclude", &[""])]).unwrap(),
            ["evenkeel:exclude", "evenkeel:pin-label=ssd", "plb_pin_host9", "theirs"]
        );
    }

    #[test]
    fn what_cannot_be_read_is_not_written() {
        for (key, value, said) in [
            ("pin", "", "write it as evenkeel:pin=NAME"),
            ("priority", "many", "-100 to 100"),
            ("downtime", "fast", "evenkeel:downtime"),
            ("pin", &"x".repeat(100), "longer than"),
            ("pin", "a\nb", "control characters"),
        ] {
            let why = after(&[], &[set(key, &[value])]).unwrap_err();
            assert!(why.contains(said), "{key}={value}: {why}");
        }
        let many: Vec<String> = (0..=TAGS_MAX).map(|n| format!("host{n}")).collect();
        let many = VmTag { key: "pin".to_owned(), values: many };
        assert!(after(&[], &[many]).unwrap_err().contains("is the most"));
    }

    #[test]
    fn a_request_names_keys_that_are_rules() {
        for good in ["pin", "exclude", "hours", "anti-affinity", "priority", "prefer-label"] {
            let request = VmTagsRequest { set: vec![set(good, &[])] };
            assert_eq!(check(&request), Ok(()), "{good}");
        }
        for bad in ["colour", "", "pin=a", "Pin", "pin a"] {
            let request = VmTagsRequest { set: vec![set(bad, &["x"])] };
            assert!(check(&request).unwrap_err().contains("no key of a rule"), "{bad}");
        }
        assert!(check(&VmTagsRequest::default()).is_err());
    }
}
