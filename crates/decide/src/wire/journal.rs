//! The journal's records as bytes: one byte for the version of the form, then protobuf. They stay on one host; the
//! limits of messages do not hold for them, since what is in the journal must be read whatever it is.

use super::convert::{id_in, id_out, need, run_state};
use super::error::BadMessage;
use super::proto;
use crate::migrate::record::{MoveRecord, MoveStage, Ownership, VmRecord};
use crate::units::{HostId, VmId};

/// Raised only when an older agent must not read the record at all; fields may be added without.
const VERSION: u8 = 1;

/// A record that cannot be read. It must not be taken for an absent one.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum BadRecord {
    /// Nothing there at all.
    #[error("an empty record")]
    Empty,
    /// Written by a version of another form.
    #[error("a record of form {0}, this version reads {VERSION}: written by a newer version?")]
    Version(u8),
    /// The form is known but the record is not whole.
    #[error(transparent)]
    Bad(#[from] BadMessage),
}

/// The bytes of what a VM is to this host.
pub fn encode_vm_record(record: &VmRecord) -> Vec<u8> {
    versioned(&proto::VmRecord::from(*record))
}

/// What a VM is to this host.
///
/// # Errors
/// If the bytes are damaged or from a newer version.
pub fn decode_vm_record(bytes: &[u8]) -> Result<VmRecord, BadRecord> {
    Ok(unversioned::<proto::VmRecord>(bytes)?.try_into()?)
}

/// The bytes of an open move.
pub fn encode_move_record(record: &MoveRecord) -> Vec<u8> {
    versioned(&proto::MoveRecord::from(record))
}

/// An open move.
///
/// # Errors
/// If the bytes are damaged or from a newer version.
pub fn decode_move_record(bytes: &[u8]) -> Result<MoveRecord, BadRecord> {
    Ok(unversioned::<proto::MoveRecord>(bytes)?.try_into()?)
}

fn versioned(record: &impl prost::Message) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1 + record.encoded_len());
    bytes.push(VERSION);
    bytes.extend(record.encode_to_vec());
    bytes
}

fn unversioned<R: prost::Message + Default>(bytes: &[u8]) -> Result<R, BadRecord> {
    match bytes.split_first() {
        None => Err(BadRecord::Empty),
        Some((&VERSION, record)) => Ok(R::decode(record).map_err(BadMessage::Garbled)?),
        Some((&version, _)) => Err(BadRecord::Version(version)),
    }
}

impl From<VmRecord> for proto::VmRecord {
    fn from(it: VmRecord) -> Self {
        use proto::vm_record::Ownership as Form;
        let ownership = match it.ownership {
            Ownership::Owner => Form::Owner(proto::Owner {}),
            Ownership::Released(to, move_id) => {
                Form::Released(proto::Released { to: id_out(to.0), move_id: Some(move_id.into()) })
            }
            Ownership::Away => Form::Away(proto::Away {}),
            Ownership::Down => Form::Down(proto::Down {}),
        };
        proto::VmRecord { floor: Some(it.floor), ran: Some(it.ran), ownership: Some(ownership) }
    }
}

impl TryFrom<proto::VmRecord> for VmRecord {
    type Error = BadMessage;

    fn try_from(it: proto::VmRecord) -> Result<Self, BadMessage> {
        use proto::vm_record::Ownership as Form;
        let ownership = match need(it.ownership, "vm_record.ownership")? {
            Form::Owner(_) => Ownership::Owner,
            Form::Released(released) => Ownership::Released(
                HostId(id_in(&released.to, "released.to")?),
                need(released.move_id, "released.move_id")?.try_into()?,
            ),
            Form::Away(_) => Ownership::Away,
            Form::Down(_) => Ownership::Down,
        };
        Ok(VmRecord {
            floor: need(it.floor, "vm_record.floor")?,
            ran: need(it.ran, "vm_record.ran")?,
            ownership,
        })
    }
}

impl From<&MoveRecord> for proto::MoveRecord {
    fn from(it: &MoveRecord) -> Self {
        proto::MoveRecord {
            vm: id_out(it.vm.0),
            peer: id_out(it.peer.0),
            epoch: Some(it.epoch),
            run: proto::RunState::from(it.run).into(),
            journal: Some(it.journal.into()),
            stage: proto::MoveStage::from(it.stage).into(),
            definition: it.definition.as_ref().map(Into::into),
            doubtful: it.doubtful,
        }
    }
}

impl TryFrom<proto::MoveRecord> for MoveRecord {
    type Error = BadMessage;

    fn try_from(it: proto::MoveRecord) -> Result<Self, BadMessage> {
        Ok(MoveRecord {
            vm: VmId(id_in(&it.vm, "move_record.vm")?),
            peer: HostId(id_in(&it.peer, "move_record.peer")?),
            epoch: need(it.epoch, "move_record.epoch")?,
            run: run_state(it.run, "move_record.run")?,
            journal: need(it.journal, "move_record.journal")?.try_into()?,
            stage: stage(it.stage)?,
            definition: it.definition.map(TryInto::try_into).transpose()?,
            doubtful: it.doubtful,
        })
    }
}

impl From<MoveStage> for proto::MoveStage {
    fn from(it: MoveStage) -> Self {
        match it {
            MoveStage::Copying => Self::Copying,
            MoveStage::HandingOver => Self::HandingOver,
            MoveStage::TakingBack => Self::TakingBack,
            MoveStage::Prepared => Self::Prepared,
            MoveStage::Owning => Self::Owning,
            MoveStage::Voiding => Self::Voiding,
        }
    }
}

fn stage(value: i32) -> Result<MoveStage, BadMessage> {
    let field = "move_record.stage";
    match proto::MoveStage::try_from(value) {
        Ok(proto::MoveStage::Copying) => Ok(MoveStage::Copying),
        Ok(proto::MoveStage::HandingOver) => Ok(MoveStage::HandingOver),
        Ok(proto::MoveStage::TakingBack) => Ok(MoveStage::TakingBack),
        Ok(proto::MoveStage::Prepared) => Ok(MoveStage::Prepared),
        Ok(proto::MoveStage::Owning) => Ok(MoveStage::Owning),
        Ok(proto::MoveStage::Voiding) => Ok(MoveStage::Voiding),
        Ok(proto::MoveStage::Unspecified) => Err(BadMessage::Missing(field)),
        Err(_unknown) => Err(BadMessage::UnknownValue { field, value }),
    }
}
