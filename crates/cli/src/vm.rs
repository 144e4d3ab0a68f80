//! `evenkeel vm`: a VM's own rules, where its definition has them.

use anyhow::Context;
use api::client::Client;
use api::{VmTag, VmTagsRequest};
use clap::Subcommand;

use crate::screen::Screen;
use crate::show;

const VM_SET_HELP: &str = "\
Written into the VM's own definition, for now and its next start: with libvirt into the domain's <metadata>, where nothing of others is
touched. They are read at once and go with the VM. With the driver qemu its file is yours: the answer names it.

Keys, as in tags (evenkeel:KEY=VALUE): affinity, anti-affinity, pin, pin-label, prefer, prefer-label (names, several with commas),
exclude, exclude=2026-12-24T18:00Z, priority=N, downtime=200ms, auto-converge=yes, copy-disks=yes, rest=12h, hours='Mon-Fri 20:00-06:00 UTC',
balance=MODE, rules=MODE (off, recommend or automatic, in place of [mode] where that is not off). A key replaces all that the VM has of it;
KEY= takes it away. Words of ProxLB (plb_…) and tags of others stay.

Examples:
  evenkeel vm set web pin=host1,host2 priority=5
  evenkeel vm set web pin=
  evenkeel vm set db exclude
  evenkeel vm set web balance=automatic";

const VM_SHOW_HELP: &str = "\
Its tags, one a line, as they stand in its definition; `evenkeel vms VM` tells the rules that they make with those of the configuration.

Example:
  evenkeel vm show web";

/// What about a VM's own rules.
#[derive(Debug, Subcommand)]
pub(crate) enum VmCommand {
    /// What stands in the VM's definition.
    #[command(after_help = VM_SHOW_HELP)]
    Show {
        /// Name or UUID of a VM on this host.
        vm: String,
    },
    /// Set rules there.
    #[command(after_help = VM_SET_HELP)]
    Set {
        /// Name or UUID of a VM on this host.
        vm: String,
        /// What to set.
        #[arg(value_name = "KEY=VALUE", required = true)]
        rules: Vec<String>,
    },
}

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
