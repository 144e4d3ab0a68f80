//! `evenkeel vm`: a VM's own rules, where its definition has them.

use anyhow::Context;
use api::client::Client;
use api::{VmTag, VmTagsRequest};

use crate::args::VmCommand;
use crate::screen::Screen;
use crate::show;

/// Keys whose values are names, of which several are written with commas.
const NAMES: [&str; 6] =
    ["affinity", "anti-affinity", "pin", "pin-label", "prefer", "prefer-label"];

/// Shows or changes a VM's rules.
///
/// # Errors
///
/// When the agent says no or cannot be asked, or standard output cannot be written.
pub(crate) async fn run(
    client: &Client,
    screen: &mut Screen,
    wanted: VmCommand,
) -> anyhow::Result<()> {
    let tags = match wanted {
        VmCommand::Show { vm } => client.vm_tags(&vm).await?,
        VmCommand::Set { vm, rules } => {
            let set = rules.iter().map(|rule| parse(rule)).collect::<anyhow::Result<_>>()?;
            client.set_vm_tags(&vm, &VmTagsRequest { set }).await?
        }
    };
    screen.show(&tags, |tags, _| show::vm_tags(tags))
}

/// `key=value`, `key=a,b` for names, `key` for what needs no value, `key=` to take it away.
fn parse(rule: &str) -> anyhow::Result<VmTag> {
    let (key, value) = rule.split_once('=').map_or((rule, None), |(key, value)| (key, Some(value)));
    (!key.is_empty()).then_some(()).with_context(|| format!("{rule:?}: write key=value"))?;
    let values: Vec<&str> = match value {
        None => vec![""],
        Some("") => Vec::new(),
        Some(names) if NAMES.contains(&key) => names.split(',').map(str::trim).collect(),
        Some(one) => vec![one],
    };
    let values = values.into_iter().map(str::to_owned).collect();
    Ok(VmTag { key: key.to_owned(), values })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_written_as_key_and_value() {
        for (rule, key, values) in [
            ("pin=host1,host2", "pin", &["host1", "host2"][..]),
            ("hours=Mon,Tue 20:00-06:00 UTC", "hours", &["Mon,Tue 20:00-06:00 UTC"]),
            ("exclude", "exclude", &[""]),
            ("pin=", "pin", &[]),
            ("priority=5", "priority", &["5"]),
        ] {
            let read = parse(rule).unwrap();
            assert_eq!(
                (read.key.as_str(), &read.values[..]),
                (key, &values.iter().map(|v| (*v).to_owned()).collect::<Vec<_>>()[..])
            );
        }
        assert!(parse("=host1").is_err());
    }
}
