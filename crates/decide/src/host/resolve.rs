//! Moves that cannot be settled without a person: what is known of them, and how they are ended.

use super::{Action, Host};
use crate::membership::HostState;
use crate::migrate::record::MoveRecord;
use crate::migrate::{Resolution, source, target};
use crate::units::{HostId, MoveId, Time, VmId};

/// An open move as a person must see it before deciding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsettled {
    /// The VM.
    pub vm: VmId,
    /// The other side.
    pub peer: HostId,
    /// What is known, one line each.
    pub known: Vec<String>,
    /// Whether each decision may be taken, or what speaks against it.
    pub choices: [(Resolution, Result<(), String>); 2],
}

impl Host {
    /// What is known of an open move; absent if none of this id is open here.
    pub fn unsettled(&self, now: Time, id: MoveId) -> Option<Unsettled> {
        let (record, side, phase) = self.open_record(id)?;
        let mut known = vec![
            format!("this host is the {side} of the move of {}", self.vm_name(record.vm)),
            format!(
                "it stands at: {phase}; the journal says {:?}, epoch {}",
                record.stage, record.epoch
            ),
        ];
        if record.doubtful {
            known.push(
                "this journal was set back while the move was open: what it says may be past"
                    .to_owned(),
            );
        }
        known.extend(self.last_words_of(now, record.peer));
        let of_move = self.alarms.iter().filter(|alarm| alarm.move_id == Some(id));
        known.extend(of_move.map(|alarm| format!("alarm: {}", alarm.reason)));
        let choices = [Resolution::KeepHere, Resolution::GiveUp];
        let choices = choices.map(|choice| (choice, self.may_resolve(id, choice)));
        Some(Unsettled { vm: record.vm, peer: record.peer, known, choices })
    }

    /// What the other side was last seen to be.
    fn last_words_of(&self, now: Time, peer: HostId) -> Vec<String> {
        let name = self.name_of(peer);
        let Some(view) = self.membership.view(peer) else {
            return vec![format!(
                "the other side, {name}, is not known to this agent since it started"
            )];
        };
        let state = match view.state {
            HostState::Alive => "answers",
            HostState::Suspect => "is suspected: somebody got no answer from it",
            HostState::Gone => "does not answer any more",
        };
        let age = now.since(view.heard).as_secs();
        let mut lines = vec![format!("the other side, {name}, {state}; last heard {age} s ago")];
        if self.journals.set_back(peer) {
            lines.push(format!(
                "the journal of {name} was set back: its word on this VM counts for nothing"
            ));
        }
        lines
    }

    fn open_record(&self, id: MoveId) -> Option<(&MoveRecord, &'static str, String)> {
        let out = self.outgoing.get(&id).and_then(|out| out.migrate.as_ref());
        if let Some(machine) = out {
            return Some((machine.record(), "source", format!("{:?}", machine.phase())));
        }
        let incoming = self.incoming.get(&id).filter(|incoming| !incoming.ended);
        let machine = incoming.and_then(|incoming| incoming.migrate.as_ref())?;
        Some((machine.record(), "target", format!("{:?}", machine.phase())))
    }

    fn may_resolve(&self, id: MoveId, resolution: Resolution) -> Result<(), String> {
        if let Some(machine) = self.outgoing.get(&id).and_then(|out| out.migrate.as_ref()) {
            return machine.may_resolve(resolution);
        }
        let incoming = self.incoming.get(&id).filter(|incoming| !incoming.ended);
        match incoming.and_then(|incoming| incoming.migrate.as_ref()) {
            Some(machine) => machine.may_resolve(resolution),
            None => {
                Err("no such move is open here, or it has not come as far as a copy".to_owned())
            }
        }
    }

    pub(super) fn resolve_by_hand(
        &mut self,
        now: Time,
        id: MoveId,
        resolution: Resolution,
        fenced: Option<HostId>,
        actions: &mut Vec<Action>,
    ) -> Result<MoveId, String> {
        self.may_resolve(id, resolution)?;
        let Some(peer) = self.open_record(id).map(|(record, ..)| record.peer) else {
            return Err(format!("no move {id} is open here"));
        };
        if resolution == Resolution::KeepHere {
            self.certain_of(peer, fenced)?;
        }
        if self.outgoing.contains_key(&id) {
            self.out(now, id, source::Event::Resolve(resolution), actions);
        } else {
            self.inward(now, id, target::Event::Resolve(resolution), actions);
        }
        Ok(id)
    }

    /// A VM is kept here only if somebody has made sure that it does not run on the other side.
    fn certain_of(&self, peer: HostId, fenced: Option<HostId>) -> Result<(), String> {
        let name = self.name_of(peer);
        if fenced == Some(peer) {
            return Ok(());
        }
        Err(format!(
            "the VM may run on {name}: switch {name} off, or end the VM there, then say so with --fenced {name}"
        ))
    }

    /// The alarms of a move are over with it.
    pub(super) fn end_alarms(&mut self, id: MoveId) {
        self.alarms.retain(|alarm| alarm.move_id != Some(id));
    }
}
