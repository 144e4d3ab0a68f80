//! Every line of an event log is read as it was written, to the bit, and no bytes make the reader panic.
#![allow(clippy::wildcard_enum_match_arm, reason = "a test")]

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use decide::host::drain::Left;
use decide::host::rests::{Rest, Rests};
use decide::host::{Ask, Event, Start};
use decide::log::{Begin, FORM, Gave, Line};
use decide::migrate::Resolution;
use decide::migrate::hypervisor::{
    CopyFigures, CopyProgress, Endpoint, HypervisorReport as Report, Seen, Sighting, VmDefinition,
    Witness,
};
use decide::migrate::record::VmRecord;
use decide::placement::admission::Offered;
use decide::policy::rules::hours::{Hours, LocalTimes};
use decide::policy::rules::until::Until;
use decide::policy::rules::{Exclude, Excluded, Group, Kind, Own, Pin, Rules};
use decide::policy::settings::{Balance, Settings};
use decide::units::{
    BitsPerSec, Bytes, Cost, Epoch, Mib, MibPerSec, PacketsPerSec, Share, Time, VmId,
};
use decide::usage::history::{History, Whose};
use decide::usage::reading::{
    DiskCounters, End, Flow, FrameCounters, LinkCounters, Pressure, Reading, VcpuCounters,
    VmReading,
};
use decide::wire::message::Message;
use expect_test::expect;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use crate::round_trip::{
    body, definition, history, host, inventory, journal, move_id, move_records, ownership, run,
    text,
};
use crate::samples;

/// Any length, nanoseconds included.
fn duration() -> impl Strategy<Value = Duration> {
    (any::<u64>(), 0..1_000_000_000_u32).prop_map(|(secs, nanos)| Duration::new(secs, nanos))
}

fn address() -> impl Strategy<Value = SocketAddr> {
    prop_oneof![
        any::<(u32, u16)>()
            .prop_map(|(ip, port)| SocketAddr::from((Ipv4Addr::from_bits(ip), port))),
        any::<(u128, u16, u32, u32)>().prop_map(|(ip, port, flow, scope)| {
            SocketAddrV6::new(Ipv6Addr::from_bits(ip), port, flow, scope).into()
        }),
    ]
}

fn vm() -> impl Strategy<Value = VmId> {
    any::<u128>().prop_map(VmId)
}

fn words() -> impl Strategy<Value = String> {
    text(60)
}

fn rules(n: u32) -> Rules {
    let vms = vec![format!("web{n}"), "*".to_owned()];
    let kind = if n.is_multiple_of(2) { Kind::Affinity } else { Kind::AntiAffinity };
    let (hosts, labels) = (vec!["host1".to_owned()], Vec::new());
    let until = n.is_multiple_of(3).then_some(Until(u64::from(n)));
    let downtime = (n % 3 == 1).then(|| Duration::from_micros(u64::from(n) + 1));
    let auto_converge = (n % 4 > 1).then_some(n % 4 == 3);
    let copy_disks = (n % 5 > 2).then_some(n % 5 == 3);
    let balance = (n % 7 > 3).then_some(Balance::Off);
    let (priority, hours) = (Some(3), Some(Hours::Any));
    Rules {
        group: vec![Group { name: "web".to_owned(), kind, vms: vms.clone() }],
        pin: vec![Pin { vms: vms.clone(), hosts, labels, should: n.is_multiple_of(5) }],
        exclude: vec![Exclude { vms: vms.clone(), until }],
        vm: vec![Own {
            vms,
            priority,
            downtime,
            auto_converge,
            copy_disks,
            hours,
            balance,
            ..Own::default()
        }],
    }
}

fn settings() -> impl Strategy<Value = Settings> {
    let balance =
        prop_oneof![Just(Balance::Off), Just(Balance::Recommend), Just(Balance::Automatic)];
    let durations = [duration(), duration(), duration(), duration()];
    (balance, durations, any::<[u32; 11]>(), any::<(u64, Option<u64>, u64, i64)>()).prop_map(
        |(balance, durations, n, (drops, packets, reserve, gain))| {
            let mut it = Settings::default();
            it.mode.balance = balance;
            [it.hot.window, it.worth_it.vm_rest, it.worth_it.host_rest, it.copy.downtime] =
                durations;
            (it.hot.cpu_used, it.hot.cpu_pressure) = (Share(n[0]), Share(n[1]));
            (it.hot.memory_used, it.hot.nic_used) = (Share(n[2]), Share(n[3]));
            (it.target.cpu_used_max, it.target.memory_used_max) = (Share(n[4]), Share(n[5]));
            (it.limits.moves_per_host, it.limits.moves_per_day) = (n[6], n[7]);
            it.copy.bandwidth = Share(n[8]);
            (it.share.headroom, it.share.floor) = (Share(n[9]), Share(n[10]));
            it.limits.moves_per_cluster = (n[9] % 3 == 0).then_some(n[9]);
            it.limits.hours =
                Hours::parse("Mon-Fri 20:00-06:00 Europe/Berlin").expect("it is well formed");
            it.worth_it.measure_after = durations[0];
            it.mode.rules = it.mode.balance;
            it.rules = rules(n[10]);
            (it.host.labels, it.host.maintenance) = (vec!["rack-a".to_owned()], n[10] % 2 == 0);
            (it.share.cpu, it.share.network) = (n[9] % 2 == 0, n[10] % 2 == 0);
            it.hot.drops_per_second = drops;
            it.hot.packets_per_second = packets.map(PacketsPerSec);
            (it.target.memory_reserve, it.worth_it.gain_min) = (Mib(reserve), Cost(gain));
            it
        },
    )
}

fn link() -> impl Strategy<Value = LinkCounters> {
    any::<(u32, [u64; 5])>().prop_map(|(ifindex, n)| LinkCounters {
        ifindex,
        sent_packets: n[0],
        sent_bytes: Bytes(n[1]),
        received_packets: n[2],
        received_bytes: Bytes(n[3]),
        dropped: n[4],
    })
}

fn vm_reading() -> impl Strategy<Value = VmReading> {
    let more =
        (any::<Option<(u32, [u64; 2])>>(), any::<Option<[u64; 5]>>(), any::<Option<[u64; 12]>>());
    (vm(), proptest::option::of(link()), any::<[u64; 3]>(), more).prop_map(
        |(vm, link, n, (vcpus, disk, frames))| VmReading {
            vm,
            link,
            cpu_us: n[0],
            process_start: n[1],
            memory: Mib(n[2]),
            vcpus: vcpus.map(|(threads, [ran_us, waited_us])| VcpuCounters {
                threads,
                ran_us,
                waited_us,
            }),
            guest_memory: disk.map(|n| Mib(n[3])),
            disk: disk.map(disk_counters),
            disk_age: Duration::from_micros(disk.map_or(0, |n| n[3])),
            dirty: disk.map(|n| MibPerSec(n[4])),
            frames: frames.map(|n| FrameCounters {
                sent: n[0],
                sent_bytes: Bytes(n[1]),
                received: n[2],
                received_bytes: Bytes(n[3]),
                sizes: n[4..].try_into().expect("twelve less four"),
            }),
        },
    )
}

fn disk_counters(n: [u64; 5]) -> DiskCounters {
    DiskCounters { read: Bytes(n[0]), written: Bytes(n[1]), requests: n[2] }
}

fn flow() -> impl Strategy<Value = Flow> {
    let end = || prop_oneof![vm().prop_map(End::Vm), Just(End::Outside), Just(End::Many)];
    (end(), end(), any::<[u64; 2]>()).prop_map(|(from, to, n)| Flow {
        from,
        to,
        frames: n[0],
        bytes: Bytes(n[1]),
    })
}

/// With floats of every bit pattern, also those that are no numbers.
fn reading() -> impl Strategy<Value = Reading> {
    let pressure = any::<[u64; 3]>().prop_map(|bits| {
        let [cpu, memory, io] = bits.map(f64::from_bits);
        Pressure { cpu, memory, io }
    });
    let (pressure, uplink) = (proptest::option::of(pressure), proptest::option::of(link()));
    let flows = proptest::option::of(vec(flow(), 0..4));
    let seen = (vec(vm_reading(), 0..4), flows);
    type Figures = ([u64; 3], u32, Option<u64>, Option<[u64; 5]>);
    (any::<Figures>(), pressure, uplink, seen).prop_map(
        |((n, cores, speed, disk), pressure, uplink, (vms, flows))| Reading {
            cpu_us: n[0],
            cores,
            memory_total: Mib(n[1]),
            memory_available: Mib(n[2]),
            pressure,
            uplink,
            uplink_speed: speed.map(BitsPerSec),
            disk: disk.map(disk_counters),
            flows,
            vms,
        },
    )
}

fn sighting() -> impl Strategy<Value = Sighting> {
    prop_oneof![
        (definition(), run(), proptest::option::of((any::<u64>(), host(), words()))).prop_map(
            |(definition, run, witness)| {
                let witness = witness.map(|(number, owner, name)| {
                    let epoch = Epoch { number, owner };
                    Witness { epoch, name }
                });
                Sighting::Found(Box::new(VmDefinition { witness, ..definition }), run)
            }
        ),
        (proptest::option::of(vm()), words()).prop_map(|(vm, why)| Sighting::Unusable(vm, why)),
        (vm(), words()).prop_map(|(vm, how)| Sighting::Gone(vm, how)),
        (vm(), run()).prop_map(|(vm, run)| Sighting::RunStateChanged(vm, run)),
    ]
}

fn seen() -> impl Strategy<Value = Seen> {
    prop_oneof![
        Just(Seen::Gone),
        Just(Seen::Running),
        Just(Seen::Paused),
        Just(Seen::Incoming),
        Just(Seen::IncomingComplete),
        Just(Seen::Copying),
        Just(Seen::PostMigrate),
        Just(Seen::Unknown),
    ]
}

fn progress() -> impl Strategy<Value = CopyProgress> {
    any::<([u64; 3], u32)>().prop_map(|(n, rounds)| CopyProgress {
        transferred: Bytes(n[0]),
        remaining: Bytes(n[1]),
        total: Bytes(n[2]),
        rounds,
    })
}

fn report() -> impl Strategy<Value = Report> {
    prop_oneof![
        (words(), any::<bool>()).prop_map(|(uri, multifd)| Report::Prepared(Endpoint {
            uri,
            multifd,
            certified: None
        })),
        words().prop_map(Report::PrepareFailed),
        progress().prop_map(Report::Progress),
        Just(Report::PreSwitchover),
        (words(), seen()).prop_map(|(why, seen)| Report::CopyFailed(why, seen)),
        (progress(), duration(), duration()).prop_map(|(progress, total, downtime)| {
            Report::SourceCompleted(CopyFigures { progress, total, downtime })
        }),
        Just(Report::IncomingCompleted),
        words().prop_map(Report::IncomingFailed),
        Just(Report::Fenced),
        Just(Report::Discarded),
        Just(Report::Resumed),
        (words(), seen()).prop_map(|(why, seen)| Report::ResumeFailed(why, seen)),
        Just(Report::IncomingGone),
        seen().prop_map(Report::Looked),
    ]
}

fn message() -> impl Strategy<Value = Message> {
    (host(), move_id(), body()).prop_map(|(from, move_id, body)| Message { from, move_id, body })
}

fn left() -> impl Strategy<Value = Left> {
    (words(), host()).prop_map(|(name, to)| Left { name, to })
}

fn rest() -> impl Strategy<Value = Rest> {
    any::<(u64, u64, u32)>().prop_map(|(until, insisted, unpaid)| Rest {
        until: Time(until),
        insisted_until: Time(insisted),
        unpaid,
    })
}

fn event() -> impl Strategy<Value = Event> {
    let ask = prop_oneof![
        (vm(), proptest::option::of(host())).prop_map(|(vm, to)| Ask::Move { vm, to }),
        (vm(), proptest::option::of(host())).prop_map(|(vm, to)| Ask::Force { vm, to }),
        vm().prop_map(|vm| Ask::Apply { vm }),
        move_id().prop_map(Ask::Cancel),
        (move_id(), any::<bool>(), proptest::option::of(host())).prop_map(
            |(move_id, keep, fenced)| {
                let resolution = if keep { Resolution::KeepHere } else { Resolution::GiveUp };
                Ask::Resolve { move_id, resolution, fenced }
            }
        ),
    ];
    prop_oneof![
        Just(Event::Tick),
        address().prop_map(Event::Join),
        reading().prop_map(Event::Reading),
        message().prop_map(Event::Message),
        (host(), message(), words()).prop_map(|(to, message, why)| Event::Undelivered {
            to,
            message,
            why
        }),
        (host(), move_id(), words()).prop_map(|(from, move_id, why)| Event::BadHistory {
            from,
            move_id,
            why
        }),
        (host(), proptest::result::maybe_ok(inventory(), words()))
            .prop_map(|(host, fetched)| Event::Inventory { host, fetched }),
        (address(), vec(any::<u8>(), 0..300))
            .prop_map(|(from, bytes)| Event::Gossip { from, bytes }),
        words().prop_map(Event::BadInput),
        sighting().prop_map(Event::Sighting),
        (move_id(), vm(), report()).prop_map(|(id, vm, report)| Event::Report(id, vm, report)),
        any::<(u64, u64)>().prop_map(|(number, generation)| Event::Stored { number, generation }),
        (any::<u64>(), words()).prop_map(|(number, why)| Event::StoreFailed { number, why }),
        (any::<u64>(), ask).prop_map(|(number, what)| Event::Asked { number, what }),
        any::<bool>().prop_map(|on| Event::Balancer { on }),
        (vm(), any::<(u8, u32)>()).prop_map(|(vm, (which, until))| {
            let until = Excluded::Until(Until(u64::from(until)));
            let excluded = [None, Some(Excluded::Always), Some(until)][usize::from(which % 3)];
            Event::Excluded { vm, excluded }
        }),
        proptest::option::of(btree_map(vm(), left(), 0..3)).prop_map(Event::Drain),
        (vec(any::<u64>().prop_map(Time), 0..3), btree_map(vm(), rest(), 0..3))
            .prop_map(|(made, vms)| Event::Rests(Rests { made, vms })),
        settings().prop_map(|settings| Event::Settings(Box::new(settings))),
        (any::<u64>(), btree_map(words(), any::<u16>(), 0..3))
            .prop_map(|(unix, zones)| Event::LocalTimes(LocalTimes { unix, zones })),
        (proptest::option::of(vm()), history(), any::<u32>()).prop_map(|(vm, history, at)| {
            let now = Time(u64::from(at) << 24);
            let history = History::of_aged(now, &history).expect("within every limit");
            Event::Recalled {
                whose: vm.map_or(Whose::Host, Whose::Vm),
                quarters: history.quarters().clone(),
                past: history.past().clone(),
            }
        }),
    ]
}

/// Which kind of event it is, from 0. A new kind goes here and into [`event`].
fn kind(event: &Event) -> usize {
    match event {
        Event::Tick => 0,
        Event::Join(_) => 1,
        Event::Reading(_) => 2,
        Event::Message(_) => 3,
        Event::Undelivered { .. } => 4,
        Event::Gossip { .. } => 5,
        Event::BadInput(_) => 6,
        Event::Sighting(_) => 7,
        Event::Report(..) => 8,
        Event::Stored { .. } => 9,
        Event::StoreFailed { .. } => 10,
        Event::Asked { .. } => 11,
        Event::Settings(_) => 12,
        Event::Recalled { .. } => 13,
        Event::Inventory { .. } => 14,
        Event::BadHistory { .. } => 15,
        Event::LocalTimes(_) => 16,
        Event::Balancer { .. } => 17,
        Event::Excluded { .. } => 18,
        Event::Drain(_) => 19,
        Event::Rests(_) => 20,
    }
}
const KINDS: usize = 21;

fn start() -> impl Strategy<Value = Start> {
    let record = (any::<(u64, u64)>(), ownership())
        .prop_map(|((floor, ran), ownership)| VmRecord { floor, ran, ownership });
    let (vms, moves) = (btree_map(vm(), record, 0..4), btree_map(move_id(), move_records(), 0..3));
    let some = || vec(words(), 0..3);
    let offered = (words(), some(), some(), some(), any::<bool>()).prop_map(
        |(driver, machines, accelerators, bridges, encrypts)| Offered {
            driver,
            machines,
            accelerators,
            bridges,
            encrypts,
        },
    );
    let journal = (journal(), proptest::option::of(words()));
    let who = (host(), words(), address(), journal);
    (who, any::<(u32, u32, u64)>(), vms, moves, offered, settings()).prop_map(
        |((id, name, address, (journal, doubt)), n, vms, moves, offered, settings)| Start {
            id,
            name,
            address,
            journal,
            doubt,
            incarnation: n.0,
            first_incarnation: n.1,
            vms,
            moves,
            offered,
            settings,
            seed: n.2,
        },
    )
}

fn time() -> impl Strategy<Value = Time> {
    any::<u64>().prop_map(Time)
}

fn line() -> impl Strategy<Value = Line> {
    let begin = (any::<(u32, u64)>(), words(), time(), start()).prop_map(
        |((form, unix_us), version, now, start)| {
            Line::Begin(Box::new(Begin { form, version, unix_us, now, start }))
        },
    );
    let gave = (vec(any::<u64>(), 0..5), proptest::option::of(time()))
        .prop_map(|(actions, deadline)| Line::Gave(Gave { actions, deadline }));
    prop_oneof![
        1 => begin,
        9 => (time(), event()).prop_map(|(now, event)| Line::Event { now, event }),
        1 => gave,
        1 => words().prop_map(|why| Line::End { why }),
    ]
}

proptest! {
    #[test]
    fn every_line_is_read_as_it_was_written(line in line()) {
        let written = serde_json::to_string(&line).unwrap();
        prop_assert!(!written.contains('\n'), "{written}");
        let read: Line = serde_json::from_str(&written).unwrap();
        prop_assert_eq!(serde_json::to_string(&read).unwrap(), written);
        // Some floats differ from themselves; the text, which has their bits, tells of them.
        let floats = matches!(&line, Line::Event { event: Event::Reading(it), .. } if it.pressure.is_some());
        prop_assert!(floats || read == line, "{line:?}");
    }

    #[test]
    fn no_damage_to_a_line_makes_the_reader_panic(
        line in line(), hits in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4), cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = serde_json::to_vec(&line).unwrap();
        for (at, value) in hits {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let _ = serde_json::from_slice::<Line>(&bytes);
        bytes.truncate(cut.index(bytes.len() + 1));
        let _ = serde_json::from_slice::<Line>(&bytes);
    }

    #[test]
    fn no_bytes_make_the_reader_of_a_line_panic(bytes in vec(any::<u8>(), 0..300)) {
        let _ = serde_json::from_slice::<Line>(&bytes);
    }
}

#[test]
fn every_kind_of_event_is_tried() {
    let mut runner = TestRunner::deterministic();
    let drawn = (0..1000).map(|_| kind(&event().new_tree(&mut runner).unwrap().current()));
    assert_eq!(drawn.collect::<BTreeSet<_>>(), (0..KINDS).collect());
}

fn written(line: &Line) -> String {
    serde_json::to_string(line).expect("every line has a form")
}

/// A log is kept and sent around: if this changes, older logs cannot be read. Raise `FORM`, or give the new part a default.
#[test]
fn the_form_of_lines_stays() {
    let start = Start {
        id: samples::HOST,
        name: "host1".to_owned(),
        address: "198.18.0.1:7946".parse().unwrap(),
        journal: decide::wire::message::JournalMark {
            id: decide::units::JournalId(7),
            generation: 3,
            opened: 2,
            life: 8,
        },
        doubt: None,
        incarnation: 5,
        first_incarnation: 4,
        vms: [(samples::VM, samples::vm_record())].into(),
        moves: [(samples::MOVE, samples::move_record())].into(),
        offered: Offered::default(),
        settings: Settings::default(),
        seed: 9,
    };
    let begin = Begin { form: FORM, version: "0.1.0".to_owned(), unix_us: 1, now: Time(2), start };
    expect![[r#"{"begin":{"form":8,"version":"0.1.0","unix_us":1,"now":2,"start":{"id":"11111111-1111-1111-1111-111111111111","name":"host1","address":["198.18.0.1",7946,0,0],"journal":{"id":"00000000-0000-0000-0000-000000000007","generation":3,"opened":2,"life":8},"doubt":null,"incarnation":5,"first_incarnation":4,"vms":{"aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa":{"floor":6,"ran":5,"ownership":{"Released":["22222222-2222-2222-2222-222222222222","11111111-1111-1111-1111-111111111111.3.7"]}}},"moves":{"11111111-1111-1111-1111-111111111111.3.7":{"vm":"aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa","peer":"22222222-2222-2222-2222-222222222222","epoch":5,"run":"Paused","journal":{"id":"00000000-0000-0000-0000-000000000077","generation":300,"opened":0,"life":0},"stage":"HandingOver","definition":{"vm":"aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa","name":"web1","memory":128,"vcpus":2,"needs":{"driver":"qemu","machine":"pc-i440fx-7.2","accelerator":"tcg","bridge":"br0"},"start":"tap = \"tap7\"\n","tags":[]},"doubtful":false}},"offered":{"driver":"","machines":[],"accelerators":[],"bridges":[],"encrypts":false},"settings":{"mode":{"balance":"recommend","trigger":"hot","rules":"recommend"},"hot":{"window":{"secs":120,"nanos":0},"cpu_used":800,"cpu_pressure":200,"memory_used":900,"nic_used":800,"drops_per_second":100,"packets_per_second":null},"spread":{"threshold":5,"gain_min":70000},"target":{"cpu_used_max":700,"memory_used_max":850,"memory_reserve":4096},"worth_it":{"gain_min":10000000,"traffic_apart":10000000,"vm_rest":{"secs":21600,"nanos":0},"host_rest":{"secs":300,"nanos":0},"measure_after":{"secs":300,"nanos":0}},"limits":{"moves_per_host":1,"moves_per_day":20,"moves_per_cluster":null,"hours":"any"},"copy":{"bandwidth":500,"downtime":{"secs":0,"nanos":100000000},"downtime_max":{"secs":0,"nanos":500000000},"multifd":false},"migration":{"encryption":null},"share":{"cpu":false,"network":false,"headroom":500,"floor":50},"vm_policy":{"when":null,"window":null,"order":null},"admission":{"accept":null},"migration_policy":{"order":null,"reject":null},"rules":{"group":[],"pin":[],"exclude":[],"vm":[]},"host":{"labels":[],"maintenance":false}},"seed":9}}}"#]].assert_eq(&written(&Line::Begin(Box::new(begin))));
    let event = Event::Gossip { from: "[fe80::1%3]:7946".parse().unwrap(), bytes: vec![1, 0xab] };
    expect![[
        r#"{"event":{"now":3,"event":{"Gossip":{"from":["fe80::1",7946,0,3],"bytes":"01ab"}}}}"#
    ]]
    .assert_eq(&written(&Line::Event { now: Time(3), event }));
    let gave = Gave { actions: vec![u64::MAX], deadline: Some(Time(4)) };
    expect![[r#"{"gave":{"actions":[18446744073709551615],"deadline":4}}"#]]
        .assert_eq(&written(&Line::Gave(gave)));
}
