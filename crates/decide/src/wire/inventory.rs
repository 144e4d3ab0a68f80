//! The protobuf form of an inventory, and its limits.

use super::convert::{id_in, id_out};
use super::error::BadMessage;
use super::limits::{EPOCH_MAX, LISTED_MAX, NAME_MAX, at_most, check_tags, too_high};
use super::proto;
use crate::membership::inventory::{Inventory, Listed, ListedState};
use crate::units::{Mib, VmId};

impl From<&Inventory> for proto::Inventory {
    fn from(inventory: &Inventory) -> Self {
        proto::Inventory {
            hash: inventory.hash,
            vms: inventory.vms.iter().map(Into::into).collect(),
            left_out: inventory.left_out,
            labels: inventory.labels.clone(),
        }
    }
}

impl From<&Listed> for proto::Listed {
    fn from(listed: &Listed) -> Self {
        proto::Listed {
            vm: id_out(listed.vm.0),
            name: listed.name.clone(),
            epoch: listed.epoch,
            state: match listed.state {
                ListedState::Running => proto::ListedState::Running,
                ListedState::Paused => proto::ListedState::Paused,
                ListedState::Released => proto::ListedState::Released,
                ListedState::Down => proto::ListedState::Down,
                ListedState::Doubtful => proto::ListedState::Doubtful,
            }
            .into(),
            memory_mib: listed.memory.0,
            tags: listed.tags.clone(),
        }
    }
}

impl TryFrom<proto::Inventory> for Inventory {
    type Error = BadMessage;

    fn try_from(form: proto::Inventory) -> Result<Inventory, BadMessage> {
        at_most("inventory.vms", form.vms.len(), LISTED_MAX)?;
        check_tags("inventory.labels", &form.labels)?;
        let vms = form.vms.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?;
        let (hash, left_out, labels) = (form.hash, form.left_out, form.labels);
        Ok(Inventory { hash, vms, left_out, labels })
    }
}

impl TryFrom<proto::Listed> for Listed {
    type Error = BadMessage;

    fn try_from(form: proto::Listed) -> Result<Listed, BadMessage> {
        at_most("listed.name", form.name.len(), NAME_MAX)?;
        if form.epoch > EPOCH_MAX {
            return Err(too_high(form.epoch));
        }
        let field = "listed.state";
        let state = match proto::ListedState::try_from(form.state) {
            Ok(proto::ListedState::Running) => ListedState::Running,
            Ok(proto::ListedState::Paused) => ListedState::Paused,
            Ok(proto::ListedState::Released) => ListedState::Released,
            Ok(proto::ListedState::Down) => ListedState::Down,
            Ok(proto::ListedState::Doubtful) => ListedState::Doubtful,
            Ok(proto::ListedState::Unspecified) => return Err(BadMessage::Missing(field)),
            Err(_unknown) => return Err(BadMessage::UnknownValue { field, value: form.state }),
        };
        let vm = VmId(id_in(&form.vm, "listed.vm")?);
        check_tags("listed.tags", &form.tags)?;
        let proto::Listed { name, epoch, memory_mib, tags, .. } = form;
        Ok(Listed { vm, name, epoch, state, memory: Mib(memory_mib), tags })
    }
}
