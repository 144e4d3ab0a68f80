//! Moves that a person asks for, and breaks off.

use std::collections::BTreeSet;

use super::outgoing::{ASK_ALL_BELOW, Departure};
use super::story::{Note, Step};
use super::{Action, Host};
use crate::membership::HostState;
use crate::migrate::source as migrate_source;
use crate::negotiate::source as negotiate_source;
use crate::units::{HostId, MoveId, Time, VmId};

impl Host {
    /// `force`: whatever rules say of where VMs are.
    pub(super) fn move_by_hand(
        &mut self,
        now: Time,
        vm: VmId,
        to: Option<HostId>,
        force: bool,
        actions: &mut Vec<Action>,
    ) -> Result<MoveId, String> {
        self.movable(vm)?;
        let mut overridden = self.rules_against(vm, to);
        if let (Some(why), false) = (overridden.first(), force) {
            return Err(why.clone());
        }
        if let Some(host) = to {
            let alive = self.membership.view(host).is_some_and(|v| v.state == HostState::Alive);
            if !alive {
                return Err(format!("{} is not alive", self.name_of(host)));
            }
        }
        let mut asked = to.map(|host| BTreeSet::from([host]));
        if force && to.is_none() && self.askable(now, vm).all().is_empty() {
            // Rules forbid each host: then any will do.
            let alive = || self.membership.alive();
            overridden.extend(alive().find_map(|view| self.ruled_out(vm, view)));
            asked = Some(alive().map(|view| view.peer.host).take(ASK_ALL_BELOW).collect());
        }
        overridden.extend(self.is_excluded(vm).err());
        let words =
            to.map_or("by hand".to_owned(), |host| format!("by hand, to {}", self.name_of(host)));
        let words = match &overridden[..] {
            [] => words,
            rules => format!("{words}, although {}", rules.join("; ")),
        };
        let policy = Note::new(Step::VmPolicy, format!("asked for {words}"));
        let any = Departure::new(vm, words, policy);
        Ok(self.begin_move(now, Departure { asked, forced: force, overridden, ..any }, actions))
    }

    pub(super) fn cancel_by_hand(
        &mut self,
        now: Time,
        id: MoveId,
        actions: &mut Vec<Action>,
    ) -> Result<MoveId, String> {
        let Some(out) = self.outgoing.get(&id) else {
            return Err(format!("no move {id} from this host is under way"));
        };
        let why = "cancelled by hand".to_owned();
        match out.migrate.as_ref().map(migrate_source::Source::phase) {
            None => self.asking(now, id, negotiate_source::Event::Cancel(why), actions),
            Some(phase) if phase.can_be_cancelled() => {
                self.out(now, id, migrate_source::Event::Cancel(why), actions)
            }
            Some(_) => {
                return Err(format!(
                    "move {id} is past the point of return: its target owns the VM or is about to"
                ));
            }
        }
        Ok(id)
    }
}
