//! Who owns a domain, in its metadata: written where the journal says so, read by an agent whose journal knows less, and no change of the
//! domain. What others keep there stays.

use std::net::SocketAddr;

use anyhow::{Context, bail, ensure};
use decide::host::story::Step;
use decide::host::{Action, Event, Host, Start};
use decide::migrate::hypervisor::{
    HypervisorCommand as C, HypervisorReport as R, RunState, Sighting, Witness,
};
use decide::placement::admission::Offered;
use decide::policy::settings::Settings;
use decide::units::{Epoch, HostId, JournalId, Time, VmId};
use decide::wire::message::JournalMark;
use drivers::hypervisor::Hypervisor;
use drivers::hypervisor::libvirt::Libvirt;
use lab::hosts::Host as LabHost;
use lab::libvirt::{self, virsh};
use lab::sandbox;

use crate::hosts::{FAST, Pair, empty, until};

const OTHERS: &str = "<metadata><t:it xmlns:t='urn:theirs' epoch='9'><t:tag>kept</t:tag></t:it>\
    <e:vm xmlns:e='urn:evenkeel:vm'><e:tag>plb_pin_host1</e:tag></e:vm>MARK</metadata>";

fn witness(number: u64, host: u128) -> Witness {
    let epoch = Epoch { number, owner: HostId(host) };
    Witness { epoch, name: format!("host{host}") }
}

/// Its live definition, and that for its next start.
fn definitions(host: &LabHost, name: &str) -> [String; 2] {
    [&["dumpxml", name][..], &["dumpxml", "--inactive", name]]
        .map(|arguments| virsh(host, arguments).unwrap_or_default())
}

fn names(text: &str, Witness { epoch, name }: &Witness) -> bool {
    let words = [
        "urn:evenkeel:owner".to_owned(),
        format!("host=\"{}\"", epoch.owner),
        format!("name=\"{name}\""),
        format!("epoch=\"{}\"", epoch.number),
    ];
    let mut lines = text.lines();
    lines.any(|line| words.iter().all(|word| line.contains(word)))
}

async fn until_named(host: &LabHost, name: &str, witness: &Witness) -> anyhow::Result<()> {
    let both = || definitions(host, name).iter().all(|text| names(text, witness));
    until(&format!("both definitions of {name} name {witness:?}"), both).await?;
    for text in definitions(host, name) {
        ensure!(text.matches("urn:evenkeel:owner").count() == 1, "{text}");
        ensure!(text.contains("<t:tag>kept</t:tag>"), "{text}");
        ensure!(text.contains("<e:tag>plb_pin_host1</e:tag>"), "{text}");
    }
    Ok(())
}

#[test]
fn a_definition_names_its_owner_at_each_host_and_a_move_does_not_see_it() {
    let name = "witness::a_definition_names_its_owner_at_each_host_and_a_move_does_not_see_it";
    sandbox::test_with(true, name, || async {
        let mut pair = Pair::start().await?;
        let vm = VmId(0xb1);
        let metadata = OTHERS.replace("MARK", "");
        let text = empty(&pair.network, vm, 0)?.replace("<memory", &format!("{metadata}<memory"));
        libvirt::start(pair.host(&pair.a), "vm-b1", &text)?;
        let (told, _) = pair.a.finds(vm).await?;
        ensure!(told.witness.is_none(), "{told:?}");
        pair.a.driver().testify(vm, witness(1, 1));
        until_named(pair.host(&pair.a), "vm-b1", &witness(1, 1)).await?;
        // It is read anew when it pauses; its own mark is nothing to tell of.
        virsh(pair.host(&pair.a), &["suspend", "vm-b1"])?;
        ensure!(pair.a.sighting().await? == Sighting::RunStateChanged(vm, RunState::Paused));
        virsh(pair.host(&pair.a), &["resume", "vm-b1"])?;
        ensure!(pair.a.sighting().await? == Sighting::RunStateChanged(vm, RunState::Running));

        // What was told before it was written is what is copied.
        let endpoint = pair.b.prepare(&told, FAST).await?;
        pair.a.order(vm, C::StartCopy(endpoint, FAST));
        pair.a.driver().testify(vm, witness(2, 1));
        ensure!(pair.a.report().await? == R::PreSwitchover);
        ensure!(matches!(pair.a.ask(vm, C::SwitchOver).await?, R::SourceCompleted(_)));
        ensure!(pair.b.report().await? == R::IncomingCompleted);
        let live = virsh(pair.host(&pair.a), &["dumpxml", "vm-b1"])?;
        ensure!(names(&live, &witness(1, 1)), "written in the middle of a move: {live}");
        pair.a.expect(vm, C::Fence, R::Fenced).await?;
        pair.b.expect(vm, C::Resume(RunState::Running), R::Resumed).await?;
        pair.a.expect(vm, C::Discard, R::Discarded).await?;
        // Before it was read here.
        pair.b.driver().testify(vm, witness(2, 2));
        let (found, _) = pair.b.finds(vm).await?;
        ensure!(found.tags == ["plb_pin_host1"], "{found:?}");
        ensure!(!found.start.contains("urn:evenkeel:owner"), "{}", found.start);
        until_named(pair.host(&pair.b), "vm-b1", &witness(2, 2)).await
    });
}

#[test]
fn an_operators_definition_of_the_next_start_gets_the_mark_again_and_a_job_is_waited_for() {
    let name = "witness::an_operators_definition_of_the_next_start_gets_the_mark_again_and_a_job_is_waited_for";
    sandbox::test_with(true, name, || async {
        let mut pair = Pair::start().await?;
        let vm = VmId(0xb2);
        let metadata = OTHERS.replace("MARK", "");
        let text = empty(&pair.network, vm, 48)?.replace("<memory", &format!("{metadata}<memory"));
        libvirt::start(pair.host(&pair.a), "vm-b2", &text)?;
        let (told, _) = pair.a.finds(vm).await?;
        pair.a.driver().testify(vm, witness(4, 1));
        until_named(pair.host(&pair.a), "vm-b2", &witness(4, 1)).await?;
        // From a file that knows nothing of it.
        virsh(pair.host(&pair.a), &["define", "/run/evenkeel/vm-b2.xml"])?;
        until_named(pair.host(&pair.a), "vm-b2", &witness(4, 1)).await?;

        // Said in mid-copy, it is written once that is over.
        let endpoint = pair.b.prepare(&told, FAST).await?;
        pair.a.copy_until_progress(vm, endpoint).await?;
        pair.a.driver().testify(vm, witness(5, 1));
        match pair.a.ask(vm, C::CancelCopy).await? {
            R::CopyFailed(..) => {}
            other => bail!("{other:?}"),
        }
        until_named(pair.host(&pair.a), "vm-b2", &witness(5, 1)).await
    });
}

/// What decides, with an empty journal, and what it does with a VM here.
struct Agent {
    host: Host,
    alarms: usize,
}

impl Agent {
    fn new(id: u128) -> Agent {
        let journal = JournalMark { id: JournalId(id), generation: 0, opened: 0, life: 1 };
        let start = Start {
            id: HostId(id),
            name: format!("host{id}"),
            address: SocketAddr::from(([127, 0, 0, 1], 7946)),
            journal,
            doubt: None,
            incarnation: 1,
            first_incarnation: 1,
            vms: Default::default(),
            moves: Default::default(),
            offered: Offered { driver: "libvirt".to_owned(), ..Offered::default() },
            settings: Settings::default(),
            seed: 1,
        };
        Agent { host: Host::new(start, Time(1), &mut Vec::new()), alarms: 0 }
    }

    /// What it notes of a sighting. Its journal never fails.
    fn hears(&mut self, sighting: Sighting, driver: &Libvirt) -> Vec<String> {
        let (mut notes, mut events) = (Vec::new(), vec![Event::Sighting(sighting)]);
        while let Some(event) = events.pop() {
            let mut actions = Vec::new();
            self.host.handle(Time(1), event, &mut actions);
            for action in actions {
                match action {
                    Action::Persist { number, .. } => {
                        events.push(Event::Stored { number, generation: number });
                    }
                    Action::Testify(vm, witness) => driver.testify(vm, witness),
                    Action::Note(note) => {
                        self.alarms += usize::from(note.step == Step::Alarm);
                        notes.push(note.reason);
                    }
                    _ => {}
                }
            }
        }
        notes
    }
}

#[test]
fn an_empty_journal_goes_on_above_what_the_domain_says_and_leaves_what_it_cannot_judge() {
    let name = "witness::an_empty_journal_goes_on_above_what_the_domain_says_and_leaves_what_it_cannot_judge";
    sandbox::test_with(true, name, || async {
        let mut pair = Pair::start().await?;
        let (vm, mut agent) = (VmId(0xb3), Agent::new(1));
        let said = format!(
            "<o:owner xmlns:o='urn:evenkeel:owner' host='{}' name='host7' epoch='6'/>",
            HostId(7)
        );
        let metadata = OTHERS.replace("MARK", &said);
        let text = empty(&pair.network, vm, 0)?.replace("<memory", &format!("{metadata}<memory"));
        libvirt::start(pair.host(&pair.a), "vm-b3", &text)?;
        let found = pair.a.sighting().await?;
        let notes = agent.hears(found, pair.a.driver());
        let told = notes.last().context("it says nothing")?;
        ensure!(told.contains("names host7 as its owner under epoch 6"), "{told}");
        ensure!(told.contains("it goes on here under epoch 7"), "{told}");
        ensure!(agent.host.vms()[&vm].record.floor == 7, "{:?}", agent.host.vms());
        until_named(pair.host(&pair.a), "vm-b3", &witness(7, 1)).await?;

        // Somebody writes another owner under the same epoch: that stays until a person has looked.
        let at = ["metadata", "vm-b3", "--uri", "urn:evenkeel:owner", "--key", "o", "--live"];
        let set = format!("--set=<owner host='{}' name='host7' epoch='7'/>", HostId(7));
        virsh(pair.host(&pair.a), &[&at[..], &["--config", &set]].concat())?;
        let found = pair.a.sighting().await?;
        agent.hears(found, pair.a.driver());
        ensure!(agent.alarms == 1, "{:?}", agent.host.alarms());
        ensure!(agent.host.movable(vm).is_err());
        virsh(pair.host(&pair.a), &["suspend", "vm-b3"])?;
        ensure!(pair.a.sighting().await? == Sighting::RunStateChanged(vm, RunState::Paused));
        until_named(pair.host(&pair.a), "vm-b3", &witness(7, 7)).await?;
        let removed = [&at[..4], &["--live", "--config", "--remove"]].concat();
        virsh(pair.host(&pair.a), &removed)?;
        let found = pair.a.sighting().await?;
        agent.hears(found, pair.a.driver());
        ensure!(agent.host.alarms().is_empty(), "{:?}", agent.host.alarms());
        ensure!(agent.host.movable(vm).is_ok());
        until_named(pair.host(&pair.a), "vm-b3", &witness(7, 1)).await
    });
}
