//! What goes out comes in again, for every message and record; and no bytes make the reader panic.

use std::time::Duration;

use decide::membership::inventory::{Inventory, Listed, ListedState};
use decide::migrate::hypervisor::{CopyParameters, Endpoint, Needs, RunState, VmDefinition};
use decide::migrate::record::{MoveRecord, MoveStage, Ownership, VmRecord};
use decide::placement::exchange::Side;
use decide::policy::settings::Encryption;
use decide::units::{
    BitsPerSec, BytesPerSec, Cost, Epoch, HostId, JournalId, Mib, MibPerSec, MilliCores, MoveId,
    PacketsPerSec, VmId,
};
use decide::usage::history::aged::AgedHistory;
use decide::usage::history::code::Code;
use decide::usage::history::past::{AgedStay, PAST_MAX};
use decide::usage::history::quarters::{AgedQuarters, QUARTERS_MAX, Quarter};
use decide::usage::history::{Aged, SAMPLES_MAX, Sample};
use decide::usage::load::{Capacity, Load};
use decide::wire::message::{
    Body, Companion, Confirmation, Exchange, JournalMark, Message, Request, Standing,
};
use decide::wire::{self, limits};
use proptest::array::uniform8;
use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;

use crate::samples::{bodies, message, move_record, vm_record};

pub(crate) fn text(max: usize) -> impl Strategy<Value = String> {
    ".{0,60}".prop_map(move |text| text[..text.floor_char_boundary(max)].to_owned())
}

pub(crate) fn duration() -> impl Strategy<Value = Duration> {
    any::<u64>().prop_map(Duration::from_micros)
}

pub(crate) fn host() -> impl Strategy<Value = HostId> {
    any::<u128>().prop_map(HostId)
}

pub(crate) fn move_id() -> impl Strategy<Value = MoveId> {
    (host(), any::<u32>(), any::<u32>()).prop_map(|(host, incarnation, counter)| MoveId {
        host,
        incarnation,
        counter,
    })
}

fn epoch() -> impl Strategy<Value = Epoch> {
    (0..=limits::EPOCH_MAX, host()).prop_map(|(number, owner)| Epoch { number, owner })
}

pub(crate) fn journal() -> impl Strategy<Value = JournalMark> {
    any::<(u128, u64, u64, u64)>().prop_map(|(id, generation, opened, life)| JournalMark {
        id: JournalId(id),
        generation,
        opened,
        life,
    })
}

pub(crate) fn run() -> impl Strategy<Value = RunState> {
    prop_oneof![Just(RunState::Running), Just(RunState::Paused)]
}

fn needs() -> impl Strategy<Value = Needs> {
    let word = || text(limits::NEED_MAX);
    (word(), word(), word(), word()).prop_map(|(driver, machine, accelerator, bridge)| Needs {
        driver,
        machine,
        accelerator,
        bridge,
    })
}

pub(crate) fn inventory() -> impl Strategy<Value = Inventory> {
    let state = prop_oneof![
        Just(ListedState::Running),
        Just(ListedState::Paused),
        Just(ListedState::Released),
        Just(ListedState::Down),
        Just(ListedState::Doubtful),
    ];
    let listed = (any::<(u128, u64)>(), text(255), 0..=limits::EPOCH_MAX, state, tags()).prop_map(
        |((vm, memory), name, epoch, state, tags)| Listed {
            vm: VmId(vm),
            name,
            epoch,
            state,
            memory: Mib(memory),
            tags,
        },
    );
    (any::<u64>(), vec(listed, 0..4), any::<u32>(), tags())
        .prop_map(|(hash, vms, left_out, labels)| Inventory { hash, vms, left_out, labels })
}

fn tags() -> impl Strategy<Value = Vec<String>> {
    vec(text(limits::TAG_MAX), 0..4)
}

pub(crate) fn definition() -> impl Strategy<Value = VmDefinition> {
    (any::<(u128, u64, u32, u64)>(), text(255), needs(), text(limits::START_MAX), tags()).prop_map(
        |((vm, memory, vcpus, local_disks), name, needs, start, tags)| VmDefinition {
            vm: VmId(vm),
            name,
            memory: Mib(memory),
            vcpus,
            needs,
            start,
            tags,
            local_disks: Mib(local_disks),
            witness: None,
        },
    )
}

fn request() -> impl Strategy<Value = Request> {
    let figures = any::<(u32, u128, [u64; 6], Option<i64>)>();
    let asked = vec(host(), 0..=limits::ASKED_MAX);
    let waits = (duration(), 0..=limits::EPOCH_MAX);
    let tags = vec(text(limits::TAG_MAX), 0..3);
    let exchange = (option::of(exchange()), option::of(move_id()));
    let exchange = (exchange, vec(companion(), 0..=limits::FOLLOWERS_MAX));
    (figures, text(255), needs(), asked, waits, tags, exchange).prop_map(
        |(
            (attempt, vm, n, useful_max),
            name,
            needs,
            asked,
            (answer_within, epoch),
            tags,
            ((exchange, half_of), followers),
        )| {
            Request {
                attempt,
                vm: VmId(vm),
                name,
                demand: Load {
                    cpu: MilliCores(n[0]),
                    memory: Mib(n[1]),
                    bits: BitsPerSec(n[2]),
                    packets: PacketsPerSec(n[3]),
                },
                memory: Mib(n[4]),
                needs,
                useful_max: useful_max.map(Cost),
                policy_hash: n[5],
                asked,
                answer_within,
                epoch,
                tags,
                exchange,
                half_of,
                followers,
                forced: attempt % 2 == 0,
                joins: attempt % 3 == 0,
                encryption: match attempt % 3 {
                    0 => Encryption::Off,
                    1 => Encryption::Preferred,
                    _ => Encryption::Required,
                },
            }
        },
    )
}

fn load() -> impl Strategy<Value = Load> {
    any::<[u64; 4]>().prop_map(|n| Load {
        cpu: MilliCores(n[0]),
        memory: Mib(n[1]),
        bits: BitsPerSec(n[2]),
        packets: PacketsPerSec(n[3]),
    })
}

fn exchange() -> impl Strategy<Value = Exchange> {
    let capacity = any::<([u64; 2], [Option<u64>; 2])>();
    (load(), load(), capacity, any::<u64>()).prop_map(|(lowest, highest, (n, known), room)| {
        let [bits, packets] = known;
        let capacity = Capacity {
            cpu: MilliCores(n[0]),
            memory: Mib(n[1]),
            bits: bits.map(BitsPerSec),
            packets: packets.map(PacketsPerSec),
        };
        let applied = room % 2 == 1;
        Exchange { side: Side { lowest, highest, capacity }, room: Mib(room), applied }
    })
}

fn companion() -> impl Strategy<Value = Companion> {
    let tags = vec(text(limits::TAG_MAX), 0..3);
    (any::<u128>(), text(limits::NAME_MAX), load(), needs(), tags).prop_map(
        |(vm, name, demand, needs, tags)| Companion { vm: VmId(vm), name, demand, needs, tags },
    )
}

fn confirmation() -> impl Strategy<Value = Confirmation> {
    (epoch(), definition(), any::<(u64, bool, bool, bool)>(), duration()).prop_map(
        |(epoch, definition, (bandwidth, multifd, encrypted, copy_disks), downtime_max)| {
            Confirmation {
                epoch,
                definition,
                copy: CopyParameters {
                    bandwidth: BitsPerSec(bandwidth),
                    downtime_max,
                    multifd,
                    encrypted,
                    auto_converge: false,
                    copy_disks,
                },
                unpaid: u32::from(multifd),
                measured: !multifd,
                measured_after: downtime_max,
            }
        },
    )
}

fn aged() -> impl Strategy<Value = Aged> {
    (duration(), any::<[u64; 10]>()).prop_map(|(age, n)| Aged {
        age,
        sample: Sample {
            cpu: MilliCores(n[0]),
            memory: Mib(n[1]),
            sent_packets: PacketsPerSec(n[2]),
            received_packets: PacketsPerSec(n[3]),
            sent_bits: BitsPerSec(n[4]),
            received_bits: BitsPerSec(n[5]),
            dropped: PacketsPerSec(n[6]),
            cpu_wait: MilliCores(n[7]),
            disk: BytesPerSec(n[8]),
            dirty: MibPerSec(n[9]),
        },
    })
}

/// In order and over, as every history is that is sent.
pub(crate) fn history() -> impl Strategy<Value = AgedHistory> {
    let code = || (0..=Code::MAX.bits()).prop_map(|bits| Code::from_bits(bits).expect("a code"));
    let quarter = uniform8(code()).prop_map(Quarter::from_codes);
    let ages = |most: usize| btree_set(0u64..1 << 50, 0..most);
    let aged_at = |age: u64| Duration::from_micros(age);
    let samples = (ages(SAMPLES_MAX), aged()).prop_map(move |(ages, one)| {
        ages.into_iter().rev().map(|age| Aged { age: aged_at(age), ..one }).collect()
    });
    let quarters = (900_000_000u64..1 << 40, vec(option::of(quarter), 0..QUARTERS_MAX / 40))
        .prop_map(move |(age, rows)| match rows.is_empty() {
            true => AgedQuarters::default(),
            false => AgedQuarters { newest_age: aged_at(age), rows },
        });
    let stay = (any::<u128>(), text(limits::NAME_MAX), move_id());
    let past = (ages(PAST_MAX), stay).prop_map(move |(ages, (host, name, move_id))| {
        let host = HostId(host);
        let stay = |age| AgedStay { age: aged_at(age), host, name: name.clone(), move_id };
        ages.into_iter().rev().map(stay).collect()
    });
    (samples, quarters, past).prop_map(|(samples, quarters, past)| AgedHistory {
        samples,
        quarters,
        past,
    })
}

fn standing() -> impl Strategy<Value = Standing> {
    prop_oneof![
        Just(Standing::Running),
        Just(Standing::OwnerNotResumed),
        Just(Standing::OwnerCopyGone),
        Just(Standing::Void),
        Just(Standing::NotComplete),
        Just(Standing::Unknown),
    ]
}

pub(crate) fn body() -> impl Strategy<Value = Body> {
    let cost = || any::<i64>().prop_map(Cost);
    let vm = || any::<u128>().prop_map(VmId);
    prop_oneof![
        request().prop_map(|it| Body::Request(Box::new(it))),
        (cost(), duration(), option::of(companion()), any::<bool>()).prop_map(
            |(cost, reserved, in_return, encrypted)| {
                let in_return = in_return.map(Box::new);
                Body::Acceptance { cost, reserved, in_return, encrypted }
            }
        ),
        (text(limits::WHY_MAX), option::of(0..=limits::EPOCH_MAX))
            .prop_map(|(why, known_epoch)| Body::Refusal { why, known_epoch }),
        Just(Body::Release),
        confirmation().prop_map(|it| Body::Confirmation(Box::new(it))),
        history().prop_map(|it| Body::History(Box::new(it))),
        (cost(), text(255), any::<bool>(), option::of(any::<std::net::IpAddr>()), journal())
            .prop_map(|(cost, uri, multifd, certified, journal)| {
                Body::Readiness { cost, endpoint: Endpoint { uri, multifd, certified }, journal }
            }),
        (vm(), epoch(), run(), journal()).prop_map(|(vm, epoch, run, journal)| Body::HandOver {
            vm,
            epoch,
            run,
            journal
        }),
        (vm(), epoch(), journal()).prop_map(|(vm, epoch, journal)| Body::Inquiry {
            vm,
            epoch,
            journal
        }),
        (vm(), epoch(), standing(), option::of(journal())).prop_map(
            |(vm, epoch, standing, journal)| Body::Standing { vm, epoch, standing, journal }
        ),
        request().prop_map(|it| Body::Measured { vm: it.vm, load: it.demand }),
        (vm(), any::<bool>()).prop_map(|(vm, paid)| Body::PayBack { vm, paid }),
    ]
}

pub(crate) fn ownership() -> impl Strategy<Value = Ownership> {
    prop_oneof![
        Just(Ownership::Owner),
        (host(), move_id()).prop_map(|(host, move_id)| Ownership::Released(host, move_id)),
        Just(Ownership::Away),
        Just(Ownership::Down),
    ]
}

fn stage() -> impl Strategy<Value = MoveStage> {
    prop_oneof![
        Just(MoveStage::Copying),
        Just(MoveStage::HandingOver),
        Just(MoveStage::TakingBack),
        Just(MoveStage::Prepared),
        Just(MoveStage::Owning),
        Just(MoveStage::Voiding),
    ]
}

pub(crate) fn move_records() -> impl Strategy<Value = MoveRecord> {
    (any::<(u128, u64, bool)>(), host(), run(), journal(), stage(), definition()).prop_map(
        |((vm, epoch, doubtful), peer, run, journal, stage, definition)| MoveRecord {
            vm: VmId(vm),
            peer,
            epoch,
            run,
            journal,
            stage,
            definition: Some(definition),
            doubtful,
        },
    )
}

/// What is sent on has none of it.
#[test]
fn no_quarters_have_no_age() {
    use prost::Message as _;
    let quarters = wire::proto::Quarters { newest_age_us: Some(900_000_000), rows: Vec::new() };
    let history = wire::proto::History { quarters: Some(quarters), ..Default::default() };
    let whole = wire::proto::WholeHistory { recent: history.encode_to_vec(), ..Default::default() };
    let read = wire::decode_history(&whole.encode_to_vec()).unwrap();
    assert_eq!(read.recent, AgedHistory::default());
    assert_eq!(wire::decode_history(&wire::encode_history(&read)), Ok(read));
}

proptest! {
    #[test]
    fn every_message_comes_in_as_it_went_out(from in host(), move_id in move_id(), body in body()) {
        let message = Message { from, move_id, body };
        prop_assert_eq!(wire::decode(&wire::encode(&message)), Ok(message));
    }

    #[test]
    fn every_inventory_comes_in_as_it_went_out(inventory in inventory()) {
        prop_assert_eq!(wire::decode_inventory(&wire::encode_inventory(&inventory)), Ok(inventory));
    }

    #[test]
    fn no_bytes_make_the_reader_of_inventories_panic(bytes in vec(any::<u8>(), 0..300)) {
        let _ = wire::decode_inventory(&bytes);
    }

    #[test]
    fn every_record_is_read_as_it_was_written(
        (floor, ran) in any::<(u64, u64)>(), ownership in ownership(), open in move_records(),
    ) {
        let vm = VmRecord { floor, ran, ownership };
        prop_assert_eq!(wire::decode_vm_record(&wire::encode_vm_record(&vm)), Ok(vm));
        prop_assert_eq!(wire::decode_move_record(&wire::encode_move_record(&open)), Ok(open));
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in vec(any::<u8>(), 0..300)) {
        let _ = wire::decode(&bytes);
        let _ = wire::decode_vm_record(&bytes);
        let _ = wire::decode_move_record(&bytes);
    }

    /// Damaged messages get further into the reader than noise does.
    #[test]
    fn no_damage_makes_the_reader_panic(
        kind in 0..9usize, hits in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4), cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = wire::encode(&message(bodies().swap_remove(kind)));
        for (at, value) in hits {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let _ = wire::decode(&bytes);
        bytes.truncate(cut.index(bytes.len() + 1));
        if let Ok(read) = wire::decode(&bytes) {
            // Whatever is let in can be sent on.
            prop_assert_eq!(wire::decode(&wire::encode(&read)), Ok(read));
        }
        let mut records = [wire::encode_vm_record(&vm_record()), wire::encode_move_record(&move_record())];
        for bytes in &mut records {
            bytes.truncate(cut.index(bytes.len() + 1));
            let _ = wire::decode_vm_record(bytes);
            let _ = wire::decode_move_record(bytes);
        }
    }
}
