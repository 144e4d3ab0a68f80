//! One message of each kind and one record of each kind, with every field set to something of its own.

use std::time::Duration;

use decide::migrate::hypervisor::{CopyParameters, Endpoint, Needs, RunState, VmDefinition};
use decide::migrate::record::{MoveRecord, MoveStage, Ownership, VmRecord};
use decide::policy::settings::Encryption;
use decide::units::{
    BitsPerSec, Cost, Epoch, HostId, JournalId, Mib, MilliCores, MoveId, PacketsPerSec, VmId,
};
use decide::usage::history::aged::AgedHistory;
use decide::usage::history::{Aged, Sample};
use decide::usage::load::Load;
use decide::wire::message::{
    Body, Companion, Confirmation, JournalMark, Message, Request, Standing,
};

pub(crate) const HOST: HostId = HostId(0x1111_1111_1111_1111_1111_1111_1111_1111);
pub(crate) const OTHER: HostId = HostId(0x2222_2222_2222_2222_2222_2222_2222_2222);
pub(crate) const VM: VmId = VmId(0xaaaa_aaaa_aaaa_aaaa_aaaa_aaaa_aaaa_aaaa);
pub(crate) const MOVE: MoveId = MoveId { host: HOST, incarnation: 3, counter: 7 };
const EPOCH: Epoch = Epoch { number: 5, owner: HOST };
const JOURNAL: JournalMark =
    JournalMark { id: JournalId(0x77), generation: 300, opened: 0, life: 0 };

pub(crate) fn message(body: Body) -> Message {
    Message { from: HOST, move_id: MOVE, body }
}

pub(crate) fn needs() -> Needs {
    Needs {
        driver: "qemu".to_owned(),
        machine: "pc-i440fx-7.2".to_owned(),
        accelerator: "tcg".to_owned(),
        bridge: "br0".to_owned(),
    }
}

pub(crate) fn definition() -> VmDefinition {
    VmDefinition {
        vm: VM,
        name: "web1".to_owned(),
        memory: Mib(128),
        vcpus: 2,
        needs: needs(),
        start: "tap = \"tap7\"\n".to_owned(),
        tags: Vec::new(),
        local_disks: Mib(0),
        witness: None,
    }
}

pub(crate) fn request() -> Request {
    Request {
        attempt: 1,
        vm: VM,
        name: "web1".to_owned(),
        demand: Load {
            cpu: MilliCores(1500),
            memory: Mib(128),
            bits: BitsPerSec(90_000_000),
            packets: PacketsPerSec(250_000),
        },
        memory: Mib(128),
        needs: needs(),
        useful_max: Some(Cost::percent(12)),
        policy_hash: 0xfeed_beef_dead_cafe,
        asked: vec![OTHER],
        answer_within: Duration::from_millis(1500),
        epoch: 0,
        tags: Vec::new(),
        exchange: None,
        half_of: None,
        followers: Vec::new(),
        forced: false,
        joins: false,
        encryption: Encryption::Off,
    }
}

pub(crate) fn companion() -> Companion {
    let Request { demand, needs, .. } = request();
    Companion {
        vm: VmId(0xbb),
        name: "web2".to_owned(),
        demand,
        needs,
        tags: vec!["plb_affinity_web".to_owned()],
    }
}

pub(crate) fn confirmation() -> Confirmation {
    Confirmation {
        epoch: EPOCH,
        definition: definition(),
        copy: CopyParameters {
            bandwidth: BitsPerSec(500_000_000),
            downtime_max: Duration::from_millis(100),
            multifd: true,
            encrypted: false,
            auto_converge: false,
            copy_disks: false,
        },
        unpaid: 0,
        measured: false,
        measured_after: Duration::ZERO,
    }
}

pub(crate) fn aged(age_s: u64) -> Aged {
    Aged {
        age: Duration::from_secs(age_s),
        sample: Sample {
            cpu: MilliCores(1),
            memory: Mib(2),
            sent_packets: PacketsPerSec(3),
            received_packets: PacketsPerSec(4),
            sent_bits: BitsPerSec(5),
            received_bits: BitsPerSec(6),
            dropped: PacketsPerSec(7),
            ..Sample::default()
        },
    }
}

/// One body of each kind.
pub(crate) fn bodies() -> Vec<Body> {
    vec![
        Body::Request(Box::new(request())),
        Body::Acceptance {
            cost: Cost::percent(-3),
            reserved: Duration::from_secs(5),
            in_return: None,
            encrypted: false,
        },
        Body::Refusal { why: "no room: 128 MiB asked, 64 MiB free".to_owned(), known_epoch: None },
        Body::Release,
        Body::Confirmation(Box::new(confirmation())),
        Body::History(Box::new(AgedHistory {
            samples: vec![aged(2), aged(1)],
            ..AgedHistory::default()
        })),
        Body::Readiness {
            cost: Cost::percent(4),
            endpoint: Endpoint {
                uri: "tcp:198.18.0.2:49152".to_owned(),
                multifd: true,
                certified: None,
            },
            journal: JOURNAL,
        },
        Body::HandOver { vm: VM, epoch: EPOCH, run: RunState::Running, journal: JOURNAL },
        Body::Standing { vm: VM, epoch: EPOCH, standing: Standing::Void, journal: None },
        Body::Inquiry { vm: VM, epoch: EPOCH, journal: JOURNAL },
        Body::Measured { vm: VM, load: request().demand },
        Body::PayBack { vm: VM, paid: true },
    ]
}

pub(crate) fn vm_record() -> VmRecord {
    VmRecord { floor: 6, ran: 5, ownership: Ownership::Released(OTHER, MOVE) }
}

pub(crate) fn move_record() -> MoveRecord {
    MoveRecord {
        vm: VM,
        peer: OTHER,
        epoch: 5,
        run: RunState::Paused,
        journal: JOURNAL,
        stage: MoveStage::HandingOver,
        definition: Some(definition()),
        doubtful: false,
    }
}
