//! `evenkeeld libvirt-hook`: what libvirt asks before a domain starts here, by its hook `qemu`.
//!
//! ```text
//!   migrate (a copy comes) ─▶ mark `UUID.comes` ─┐
//!   prepare (it starts) ──────────────────────────┴▶ the mark is there: yes; else as the journal says
//! ```
//!
//! What another host owns is not started from what lies here. Who only heard of a VM, or of none, says yes: the hook refuses only what
//! this host's journal knows to be elsewhere. A copy that comes is no start: its guest waits until it is let run.
//!
//! **Boundary:** it asks neither libvirt, which waits for it, nor the agent, which may be away. It reads a copy of the journal.
//! **Invariant:** what cannot be read refuses nothing.

use std::fs;
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use decide::migrate::record::Ownership;
use decide::units::VmId;
use decide::wire;
use drivers::store::Journal;

use crate::config::Config;

/// Where the marks are: with those of the driver, gone after a boot.
const MARKS: &str = "/run/evenkeel/libvirt";
/// A start follows so soon on the word that a copy comes.
const COMES_MAX: Duration = Duration::from_secs(60);
/// A person's word that a VM may start here holds for so long.
const ALLOWED_MAX: Duration = Duration::from_secs(600);
/// libvirt's own limit for definitions is far below.
const DEFINITION_MAX: u64 = 16 << 20;

/// Answers libvirt's question about the domain whose definition comes by standard input.
///
/// # Errors
/// Why it may not start here, and what to do; libvirt passes that on.
pub fn run(config: &Path, operation: &str) -> Result<(), String> {
    match ask(config, Path::new(MARKS), operation) {
        Ok(answer) => answer,
        Err(why) => {
            // libvirt keeps this only where the hook refuses; what is wrong with the journal the agent itself says.
            tracing::warn!("evenkeel: the hook refuses nothing: {why:#}");
            Ok(())
        }
    }
}

fn ask(config: &Path, marks: &Path, operation: &str) -> anyhow::Result<Result<(), String>> {
    let mut definition = String::new();
    let stdin = std::io::stdin().lock();
    stdin.take(DEFINITION_MAX).read_to_string(&mut definition).context("reading the definition")?;
    let vm = uuid(&definition).context("the definition names no UUID")?;
    let comes = marks.join(format!("{vm}.comes"));
    if operation == "migrate" {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(marks)?;
        fs::write(&comes, "").with_context(|| comes.display().to_string())?;
        return Ok(Ok(()));
    }
    if taken(&comes, COMES_MAX)? {
        return Ok(Ok(()));
    }
    let allowed = marks.join(format!("{vm}.allowed"));
    Ok(match refusal(&Config::state(config), vm)? {
        Some(_) if taken(&allowed, ALLOWED_MAX)? => Ok(()),
        Some(why) => Err(format!(
            "evenkeel: {why}. Look where it runs (`evenkeel vms --all`) before you start it here: two running copies destroy its disk. If it \
             runs nowhere: `mkdir -p {} && touch {}`, and start it within ten minutes",
            marks.display(),
            allowed.display()
        )),
        None => Ok(()),
    })
}

/// Takes a mark away; whether it was there and not too old.
fn taken(mark: &PathBuf, max: Duration) -> anyhow::Result<bool> {
    let made = match fs::metadata(mark).and_then(|found| found.modified()) {
        Ok(made) => made,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error).with_context(|| mark.display().to_string()),
    };
    fs::remove_file(mark).with_context(|| mark.display().to_string())?;
    // A clock that was set back makes it no older.
    Ok(made.elapsed().unwrap_or_default() <= max)
}

/// Why the journal has this VM elsewhere; none if it has not.
fn refusal(state: &Path, vm: VmId) -> anyhow::Result<Option<String>> {
    let Some(records) = Journal::glance(state)? else { return Ok(None) };
    let Some(record) = records.vms.get(&vm) else { return Ok(None) };
    let record = wire::decode_vm_record(record).context("the journal's record of it")?;
    Ok(match record.ownership {
        Ownership::Owner | Ownership::Down => None,
        Ownership::Released(to, by) => Some(format!(
            "this VM was given to host {to} by move {by}, under epoch {}: it runs there, or is about to",
            record.floor
        )),
        Ownership::Away => Some(format!(
            "this VM is another host's: it has left this one, under epoch {}",
            record.floor
        )),
    })
}

/// The UUID in a definition, as libvirt writes it: before anything in which a text of others could stand.
fn uuid(definition: &str) -> anyhow::Result<VmId> {
    let (_, rest) = definition.split_once("<uuid>").context("no <uuid>")?;
    let (text, _) = rest.split_once("</uuid>").context("no </uuid>")?;
    let digits: String = text.trim().chars().filter(|c| *c != '-').collect();
    ensure!(digits.len() == 32, "{text:?} is no UUID");
    Ok(VmId(u128::from_str_radix(&digits, 16).with_context(|| text.to_owned())?))
}

#[cfg(test)]
mod tests {
    use decide::migrate::record::VmRecord;
    use decide::units::{HostId, JournalId, MoveId};
    use drivers::store::{Entry, Opening};

    use super::*;

    fn said(folder: &Path, vm: VmId) -> String {
        refusal(folder, vm).unwrap().unwrap_or_default()
    }

    #[test]
    fn only_what_the_journal_has_elsewhere_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(said(folder.path(), VmId(1)), "", "without a journal nothing is known");
        let opening = Opening {
            dir: folder.path(),
            witness: &folder.path().join("witness"),
            machine_id: "0123",
            fresh_id: JournalId(7),
            now: 1,
        };
        let mut journal = Journal::open(opening).unwrap().journal;
        let to = MoveId { host: HostId(9), incarnation: 1, counter: 2 };
        let of = |vm, ownership| {
            let record = VmRecord { floor: 5, ran: 4, ownership };
            Entry::Vm(VmId(vm), wire::encode_vm_record(&record))
        };
        let entries = [
            of(1, Ownership::Owner),
            of(2, Ownership::Down),
            of(3, Ownership::Away),
            of(4, Ownership::Released(HostId(9), to)),
        ];
        journal.write(&entries).unwrap();
        // The agent has it open: it is read all the same.
        for (vm, expected) in
            [(1, ""), (2, ""), (3, "another host's"), (4, "was given to host"), (5, "")]
        {
            let why = said(folder.path(), VmId(vm));
            assert!(why.contains(expected) && why.is_empty() == expected.is_empty(), "{vm}: {why}");
        }
        drop(journal);
        fs::write(folder.path().join("journal.redb"), "no journal").unwrap();
        assert!(refusal(folder.path(), VmId(3)).is_err(), "which refuses nothing: see `run`");
    }

    #[test]
    fn a_mark_holds_once_and_not_for_long() {
        let folder = tempfile::tempdir().unwrap();
        let mark = folder.path().join("mark");
        assert!(!taken(&mark, COMES_MAX).unwrap());
        fs::write(&mark, "").unwrap();
        assert!(taken(&mark, COMES_MAX).unwrap() && !taken(&mark, COMES_MAX).unwrap());
        fs::write(&mark, "").unwrap();
        let old = std::time::UNIX_EPOCH + Duration::from_secs(1);
        fs::File::options().write(true).open(&mark).unwrap().set_modified(old).unwrap();
        assert!(!taken(&mark, COMES_MAX).unwrap(), "too old");
    }

    #[test]
    fn the_uuid_is_read_as_libvirt_writes_it() {
        let text = "<domain type='kvm'>\n  <name>a&lt;uuid></name>\n  <uuid>ea9521d5-038f-469e-8c3c-7596f35a38e6</uuid>";
        assert_eq!(uuid(text).unwrap(), VmId(0xea95_21d5_038f_469e_8c3c_7596_f35a_38e6));
        assert!(uuid("<domain/>").is_err() && uuid("<uuid>1</uuid>").is_err());
    }
}
