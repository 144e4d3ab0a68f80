//! From the protobuf form to the meaning and back. Going out cannot fail; coming in names the field that is wrong.

use std::time::Duration;

use super::error::BadMessage;
use super::message::{
    Body, Companion, Confirmation, Exchange, JournalMark, Message, Request, Standing,
};
use super::{limits, proto};
use crate::migrate::hypervisor::{CopyParameters, Endpoint, Needs, RunState, VmDefinition};
use crate::placement::exchange::Side;
use crate::policy::settings::Encryption;
use crate::units::{
    BitsPerSec, Cost, Epoch, HostId, JournalId, Mib, MilliCores, MoveId, PacketsPerSec, VmId,
};
use crate::usage::load::{Capacity, Load};

pub(super) type Result<T> = std::result::Result<T, BadMessage>;

impl From<&Message> for proto::Message {
    fn from(message: &Message) -> Self {
        proto::Message {
            from: id_out(message.from.0),
            move_id: Some(message.move_id.into()),
            body: Some((&message.body).into()),
        }
    }
}

impl TryFrom<proto::Message> for Message {
    type Error = BadMessage;

    fn try_from(message: proto::Message) -> Result<Self> {
        let message = Message {
            from: HostId(id_in(&message.from, "from")?),
            move_id: need(message.move_id, "move_id")?.try_into()?,
            body: message.body.ok_or(BadMessage::UnknownKind)?.try_into()?,
        };
        limits::check(&message)?;
        Ok(message)
    }
}

impl From<&Body> for proto::message::Body {
    fn from(body: &Body) -> Self {
        match body {
            Body::Request(request) => Self::Request(request.as_ref().into()),
            Body::Acceptance { cost, reserved, in_return, encrypted } => {
                Self::Acceptance(proto::Acceptance {
                    cost: Some(cost.0),
                    reserved_us: Some(micros(*reserved)),
                    in_return: in_return.as_deref().map(Into::into),
                    encrypted: *encrypted,
                })
            }
            Body::Refusal { why, known_epoch } => Self::Refusal(proto::Refusal {
                why: limits::cut(why, limits::WHY_MAX).to_owned(),
                known_epoch: *known_epoch,
            }),
            Body::Release => Self::Release(proto::Release {}),
            Body::Confirmation(it) => Self::Confirmation(proto::Confirmation {
                epoch: Some(it.epoch.into()),
                definition: Some((&it.definition).into()),
                copy: Some(it.copy.into()),
                unpaid: it.unpaid,
                measured: it.measured,
                measured_after_us: micros(it.measured_after),
            }),
            Body::History(history) => Self::History(super::history::encode(history)),
            Body::Readiness { cost, endpoint, journal } => Self::Readiness(proto::Readiness {
                cost: Some(cost.0),
                endpoint: Some(proto::Endpoint {
                    uri: endpoint.uri.clone(),
                    multifd: endpoint.multifd,
                    certified: endpoint.certified.map(|it| it.to_string()).unwrap_or_default(),
                }),
                journal: Some((*journal).into()),
            }),
            Body::HandOver { vm, epoch, run, journal } => Self::HandOver(proto::HandOver {
                vm: id_out(vm.0),
                epoch: Some((*epoch).into()),
                run: proto::RunState::from(*run).into(),
                journal: Some((*journal).into()),
            }),
            Body::Inquiry { vm, epoch, journal } => Self::Inquiry(proto::Inquiry {
                vm: id_out(vm.0),
                epoch: Some((*epoch).into()),
                journal: Some((*journal).into()),
            }),
            Body::Standing { vm, epoch, standing, journal } => {
                Self::Standing(proto::StandingUnder {
                    vm: id_out(vm.0),
                    epoch: Some((*epoch).into()),
                    standing: proto::Standing::from(*standing).into(),
                    journal: journal.map(Into::into),
                })
            }
            Body::Measured { vm, load } => {
                Self::Measured(proto::Measured { vm: id_out(vm.0), load: Some((*load).into()) })
            }
            Body::PayBack { vm, paid } => {
                Self::PayBack(proto::PayBack { vm: id_out(vm.0), paid: *paid })
            }
        }
    }
}

impl TryFrom<proto::message::Body> for Body {
    type Error = BadMessage;

    fn try_from(body: proto::message::Body) -> Result<Self> {
        use proto::message::Body as Form;
        Ok(match body {
            Form::Request(it) => Body::Request(Box::new(it.try_into()?)),
            Form::Acceptance(it) => Body::Acceptance {
                cost: Cost(need(it.cost, "acceptance.cost")?),
                reserved: Duration::from_micros(need(it.reserved_us, "acceptance.reserved_us")?),
                in_return: it.in_return.map(TryInto::try_into).transpose()?.map(Box::new),
                encrypted: it.encrypted,
            },
            Form::Refusal(it) => Body::Refusal {
                why: limits::cut(&it.why, limits::WHY_MAX).to_owned(),
                known_epoch: it.known_epoch,
            },
            Form::Release(_) => Body::Release,
            Form::Confirmation(it) => Body::Confirmation(Box::new(Confirmation {
                epoch: need(it.epoch, "confirmation.epoch")?.try_into()?,
                definition: need(it.definition, "confirmation.definition")?.try_into()?,
                copy: need(it.copy, "confirmation.copy")?.try_into()?,
                unpaid: it.unpaid,
                measured: it.measured,
                measured_after: Duration::from_micros(it.measured_after_us),
            })),
            Form::History(it) => Body::History(Box::new(super::history::decode(&it)?)),
            Form::Readiness(it) => {
                let endpoint = need(it.endpoint, "readiness.endpoint")?;
                let certified = Some(&*endpoint.certified).filter(|said| !said.is_empty());
                let certified = certified.map(|said| {
                    said.parse()
                        .map_err(|_odd| BadMessage::Malformed("readiness.endpoint.certified"))
                });
                Body::Readiness {
                    cost: Cost(need(it.cost, "readiness.cost")?),
                    endpoint: Endpoint {
                        uri: endpoint.uri,
                        multifd: endpoint.multifd,
                        certified: certified.transpose()?,
                    },
                    journal: need(it.journal, "readiness.journal")?.try_into()?,
                }
            }
            Form::HandOver(it) => Body::HandOver {
                vm: VmId(id_in(&it.vm, "hand_over.vm")?),
                epoch: need(it.epoch, "hand_over.epoch")?.try_into()?,
                run: run_state(it.run, "hand_over.run")?,
                journal: need(it.journal, "hand_over.journal")?.try_into()?,
            },
            Form::Inquiry(it) => Body::Inquiry {
                vm: VmId(id_in(&it.vm, "inquiry.vm")?),
                epoch: need(it.epoch, "inquiry.epoch")?.try_into()?,
                journal: need(it.journal, "inquiry.journal")?.try_into()?,
            },
            Form::Standing(it) => Body::Standing {
                vm: VmId(id_in(&it.vm, "standing.vm")?),
                epoch: need(it.epoch, "standing.epoch")?.try_into()?,
                standing: standing(it.standing)?,
                journal: it.journal.map(TryInto::try_into).transpose()?,
            },
            Form::Measured(it) => Body::Measured {
                vm: VmId(id_in(&it.vm, "measured.vm")?),
                load: need(it.load, "measured.load")?.into(),
            },
            Form::PayBack(it) => {
                Body::PayBack { vm: VmId(id_in(&it.vm, "pay_back.vm")?), paid: it.paid }
            }
        })
    }
}

impl From<&Request> for proto::Request {
    fn from(it: &Request) -> Self {
        proto::Request {
            attempt: it.attempt,
            vm: id_out(it.vm.0),
            name: it.name.clone(),
            demand: Some(it.demand.into()),
            memory_mib: Some(it.memory.0),
            needs: Some((&it.needs).into()),
            useful_max: it.useful_max.map(|cost| cost.0),
            policy_hash: it.policy_hash,
            asked: it.asked.iter().map(|host| id_out(host.0)).collect(),
            answer_within_us: Some(micros(it.answer_within)),
            epoch: it.epoch,
            tags: it.tags.clone(),
            exchange: it.exchange.map(Into::into),
            half_of: it.half_of.map(Into::into),
            followers: it.followers.iter().map(Into::into).collect(),
            forced: it.forced,
            joins: it.joins,
            encryption: proto::Encryption::from(it.encryption).into(),
        }
    }
}

impl TryFrom<proto::Request> for Request {
    type Error = BadMessage;

    fn try_from(it: proto::Request) -> Result<Self> {
        Ok(Request {
            attempt: it.attempt,
            vm: VmId(id_in(&it.vm, "request.vm")?),
            name: it.name,
            demand: need(it.demand, "request.demand")?.into(),
            memory: Mib(need(it.memory_mib, "request.memory_mib")?),
            needs: need(it.needs, "request.needs")?.into(),
            useful_max: it.useful_max.map(Cost),
            policy_hash: it.policy_hash,
            asked: it
                .asked
                .iter()
                .map(|host| id_in(host, "request.asked").map(HostId))
                .collect::<Result<_>>()?,
            answer_within: Duration::from_micros(need(
                it.answer_within_us,
                "request.answer_within_us",
            )?),
            epoch: it.epoch,
            tags: it.tags,
            exchange: it.exchange.map(TryInto::try_into).transpose()?,
            half_of: it.half_of.map(TryInto::try_into).transpose()?,
            followers: it.followers.into_iter().map(TryInto::try_into).collect::<Result<_>>()?,
            forced: it.forced,
            joins: it.joins,
            encryption: encryption(it.encryption)?,
        })
    }
}

impl From<Exchange> for proto::Exchange {
    fn from(it: Exchange) -> Self {
        let Side { lowest, highest, capacity } = it.side;
        proto::Exchange {
            lowest: Some(lowest.into()),
            highest: Some(highest.into()),
            capacity: Some(proto::Capacity {
                cpu_millicores: capacity.cpu.0,
                memory_mib: capacity.memory.0,
                bits_per_second: capacity.bits.map(|bits| bits.0),
                packets_per_second: capacity.packets.map(|packets| packets.0),
            }),
            room_mib: it.room.0,
            applied: it.applied,
        }
    }
}

impl TryFrom<proto::Exchange> for Exchange {
    type Error = BadMessage;

    fn try_from(it: proto::Exchange) -> Result<Self> {
        let capacity = need(it.capacity, "exchange.capacity")?;
        let capacity = Capacity {
            cpu: MilliCores(capacity.cpu_millicores),
            memory: Mib(capacity.memory_mib),
            bits: capacity.bits_per_second.map(BitsPerSec),
            packets: capacity.packets_per_second.map(PacketsPerSec),
        };
        let lowest = need(it.lowest, "exchange.lowest")?.into();
        let highest = need(it.highest, "exchange.highest")?.into();
        let side = Side { lowest, highest, capacity };
        Ok(Exchange { side, room: Mib(it.room_mib), applied: it.applied })
    }
}

impl From<&Companion> for proto::Companion {
    fn from(it: &Companion) -> Self {
        proto::Companion {
            vm: id_out(it.vm.0),
            name: it.name.clone(),
            demand: Some(it.demand.into()),
            needs: Some((&it.needs).into()),
            tags: it.tags.clone(),
        }
    }
}

impl TryFrom<proto::Companion> for Companion {
    type Error = BadMessage;

    fn try_from(it: proto::Companion) -> Result<Self> {
        Ok(Companion {
            vm: VmId(id_in(&it.vm, "companion.vm")?),
            name: it.name,
            demand: need(it.demand, "companion.demand")?.into(),
            needs: need(it.needs, "companion.needs")?.into(),
            tags: it.tags,
        })
    }
}

impl From<MoveId> for proto::MoveId {
    fn from(it: MoveId) -> Self {
        proto::MoveId { host: id_out(it.host.0), incarnation: it.incarnation, counter: it.counter }
    }
}

impl TryFrom<proto::MoveId> for MoveId {
    type Error = BadMessage;

    fn try_from(it: proto::MoveId) -> Result<Self> {
        let host = HostId(id_in(&it.host, "move_id.host")?);
        Ok(MoveId { host, incarnation: it.incarnation, counter: it.counter })
    }
}

impl From<Epoch> for proto::Epoch {
    fn from(it: Epoch) -> Self {
        proto::Epoch { number: Some(it.number), owner: id_out(it.owner.0) }
    }
}

impl TryFrom<proto::Epoch> for Epoch {
    type Error = BadMessage;

    fn try_from(it: proto::Epoch) -> Result<Self> {
        let number = need(it.number, "epoch.number")?;
        Ok(Epoch { number, owner: HostId(id_in(&it.owner, "epoch.owner")?) })
    }
}

impl From<JournalMark> for proto::JournalMark {
    fn from(it: JournalMark) -> Self {
        proto::JournalMark {
            id: id_out(it.id.0),
            generation: Some(it.generation),
            opened: it.opened,
            life: it.life,
        }
    }
}

impl TryFrom<proto::JournalMark> for JournalMark {
    type Error = BadMessage;

    fn try_from(it: proto::JournalMark) -> Result<Self> {
        Ok(JournalMark {
            id: JournalId(id_in(&it.id, "journal.id")?),
            generation: need(it.generation, "journal.generation")?,
            opened: it.opened,
            life: it.life,
        })
    }
}

impl From<&VmDefinition> for proto::VmDefinition {
    fn from(it: &VmDefinition) -> Self {
        proto::VmDefinition {
            vm: id_out(it.vm.0),
            name: it.name.clone(),
            memory_mib: Some(it.memory.0),
            vcpus: it.vcpus,
            needs: Some((&it.needs).into()),
            start: it.start.clone(),
            tags: it.tags.clone(),
            local_disks_mib: it.local_disks.0,
        }
    }
}

impl TryFrom<proto::VmDefinition> for VmDefinition {
    type Error = BadMessage;

    fn try_from(it: proto::VmDefinition) -> Result<Self> {
        Ok(VmDefinition {
            vm: VmId(id_in(&it.vm, "definition.vm")?),
            name: it.name,
            memory: Mib(need(it.memory_mib, "definition.memory_mib")?),
            vcpus: it.vcpus,
            needs: need(it.needs, "definition.needs")?.into(),
            start: it.start,
            tags: it.tags,
            local_disks: Mib(it.local_disks_mib),
            // What another host's definition says of who owns it is no evidence here.
            witness: None,
        })
    }
}

impl From<&Needs> for proto::Needs {
    fn from(it: &Needs) -> Self {
        proto::Needs {
            driver: it.driver.clone(),
            machine: it.machine.clone(),
            accelerator: it.accelerator.clone(),
            bridge: it.bridge.clone(),
        }
    }
}

impl From<proto::Needs> for Needs {
    fn from(it: proto::Needs) -> Self {
        let proto::Needs { driver, machine, accelerator, bridge } = it;
        Needs { driver, machine, accelerator, bridge }
    }
}

impl From<CopyParameters> for proto::CopyParameters {
    fn from(it: CopyParameters) -> Self {
        proto::CopyParameters {
            bandwidth_bits_per_second: Some(it.bandwidth.0),
            downtime_max_us: Some(micros(it.downtime_max)),
            multifd: it.multifd,
            encrypted: it.encrypted,
            copy_disks: it.copy_disks,
        }
    }
}

impl TryFrom<proto::CopyParameters> for CopyParameters {
    type Error = BadMessage;

    fn try_from(it: proto::CopyParameters) -> Result<Self> {
        let bandwidth = need(it.bandwidth_bits_per_second, "copy.bandwidth_bits_per_second")?;
        let downtime_max = need(it.downtime_max_us, "copy.downtime_max_us")?;
        Ok(CopyParameters {
            bandwidth: BitsPerSec(bandwidth),
            downtime_max: Duration::from_micros(downtime_max),
            multifd: it.multifd,
            encrypted: it.encrypted,
            auto_converge: false,
            copy_disks: it.copy_disks,
        })
    }
}

impl From<Load> for proto::Load {
    fn from(it: Load) -> Self {
        proto::Load {
            cpu_millicores: it.cpu.0,
            memory_mib: it.memory.0,
            bits_per_second: it.bits.0,
            packets_per_second: it.packets.0,
        }
    }
}

impl From<proto::Load> for Load {
    fn from(it: proto::Load) -> Self {
        Load {
            cpu: MilliCores(it.cpu_millicores),
            memory: Mib(it.memory_mib),
            bits: BitsPerSec(it.bits_per_second),
            packets: PacketsPerSec(it.packets_per_second),
        }
    }
}

impl From<RunState> for proto::RunState {
    fn from(it: RunState) -> Self {
        match it {
            RunState::Running => Self::Running,
            RunState::Paused => Self::Paused,
        }
    }
}

impl From<Standing> for proto::Standing {
    fn from(it: Standing) -> Self {
        match it {
            Standing::Running => Self::Running,
            Standing::OwnerNotResumed => Self::OwnerNotResumed,
            Standing::OwnerCopyGone => Self::OwnerCopyGone,
            Standing::Void => Self::Void,
            Standing::NotComplete => Self::NotComplete,
            Standing::Unknown => Self::Unknown,
        }
    }
}

impl From<Encryption> for proto::Encryption {
    fn from(it: Encryption) -> Self {
        match it {
            Encryption::Off => Self::Unspecified,
            Encryption::Preferred => Self::Preferred,
            Encryption::Required => Self::Required,
        }
    }
}

fn encryption(value: i32) -> Result<Encryption> {
    match proto::Encryption::try_from(value) {
        Ok(proto::Encryption::Unspecified) => Ok(Encryption::Off),
        Ok(proto::Encryption::Preferred) => Ok(Encryption::Preferred),
        Ok(proto::Encryption::Required) => Ok(Encryption::Required),
        Err(_unknown) => Err(BadMessage::UnknownValue { field: "request.encryption", value }),
    }
}

pub(super) fn run_state(value: i32, field: &'static str) -> Result<RunState> {
    match proto::RunState::try_from(value) {
        Ok(proto::RunState::Running) => Ok(RunState::Running),
        Ok(proto::RunState::Paused) => Ok(RunState::Paused),
        Ok(proto::RunState::Unspecified) => Err(BadMessage::Missing(field)),
        Err(_unknown) => Err(BadMessage::UnknownValue { field, value }),
    }
}

fn standing(value: i32) -> Result<Standing> {
    let field = "standing.standing";
    match proto::Standing::try_from(value) {
        Ok(proto::Standing::Running) => Ok(Standing::Running),
        Ok(proto::Standing::OwnerNotResumed) => Ok(Standing::OwnerNotResumed),
        Ok(proto::Standing::OwnerCopyGone) => Ok(Standing::OwnerCopyGone),
        Ok(proto::Standing::Void) => Ok(Standing::Void),
        Ok(proto::Standing::NotComplete) => Ok(Standing::NotComplete),
        Ok(proto::Standing::Unknown) => Ok(Standing::Unknown),
        Ok(proto::Standing::Unspecified) => Err(BadMessage::Missing(field)),
        Err(_unknown) => Err(BadMessage::UnknownValue { field, value }),
    }
}

pub(super) fn need<T>(value: Option<T>, field: &'static str) -> Result<T> {
    value.ok_or(BadMessage::Missing(field))
}

pub(super) fn id_out(id: u128) -> Vec<u8> {
    id.to_be_bytes().to_vec()
}

pub(super) fn id_in(bytes: &[u8], field: &'static str) -> Result<u128> {
    if bytes.is_empty() {
        return Err(BadMessage::Missing(field));
    }
    let id =
        bytes.try_into().map_err(|_length| BadMessage::BadId { field, length: bytes.len() })?;
    Ok(u128::from_be_bytes(id))
}

/// Whole microseconds; more than 584,000 years count as that.
pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
