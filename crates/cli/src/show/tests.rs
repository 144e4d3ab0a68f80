//! What people see, as they see it.

use api::{
    Event, FlowView, HostView, MoveStarted, MoveView, NextHourView, QueueView, ShareView, Status,
    Step, UplinkView, VmView, Why,
};
use expect_test::{Expect, expect};

use crate::screen::Look;

const PLAIN: Look = Look { wide: false, colour: false, width: None };
const WIDE: Look = Look { wide: true, colour: false, width: None };

#[expect(clippy::needless_pass_by_value, reason = "expectations are written in place")]
fn check(text: String, expected: Expect) {
    expected.assert_eq(&(text + "\n"));
}

fn status() -> Status {
    Status {
        version: "0.1.0".to_owned(),
        cluster: "prod".to_owned(),
        host: "host1".to_owned(),
        host_id: "00000000-0000-0000-0000-000000000001".to_owned(),
        balance: "automatic".to_owned(),
        balancer_on: true,
        request: "multicast".to_owned(),
        hosts_alive: 2,
        hosts_known: 3,
        vms: 2,
        moves_under_way: 1,
        hot: Some("52,000 packets/s, above packets_per_second = 20,000".to_owned()),
        disk_bytes_per_second: Some(2_500_000),
        uplink: Some(UplinkView {
            name: "eth0".to_owned(),
            driver: Some("mlx5_core".to_owned()),
            speed_bits_per_second: Some(25_000_000_000),
            duplex: Some("full".to_owned()),
            up: Some(true),
            losing_queues: vec![
                QueueView {
                    queue: "rx-3".to_owned(),
                    drops_per_second: 2.5,
                    failed_allocations_per_second: 0.1,
                },
                QueueView {
                    queue: "tx-0".to_owned(),
                    drops_per_second: 12.0,
                    failed_allocations_per_second: 0.0,
                },
            ],
        }),
        doing: "moving web to host2".to_owned(),
        config: Some("host.port waits for a restart".to_owned()),
        webhooks_failing: vec!["https://example.org/…: nothing delivered since 03:10".to_owned()],
        traces_failing: Some("http://collector:4318/…: it answers 503".to_owned()),
        alarms: vec!["db: its tap is missing".to_owned()],
    }
}

fn hosts() -> Vec<HostView> {
    let here = HostView {
        name: "host1".to_owned(),
        id: "00000000-0000-0000-0000-000000000001".to_owned(),
        address: "198.18.0.1:7171".to_owned(),
        state: "alive".to_owned(),
        local: true,
        age_seconds: Some(0.0),
        room_mib: Some(2048),
        able: vec!["qemu".to_owned(), "kvm".to_owned()],
        cpu_percent: 87.25,
        memory_percent: 41.0,
        packets_per_second: 52_000,
        bits_per_second: 94_100_000,
        vms: 12,
        hot: true,
    };
    let there = HostView {
        name: "a-host-with-a-long-name".to_owned(),
        id: "00000000-0000-0000-0000-000000000002".to_owned(),
        address: "198.18.0.2:7171".to_owned(),
        state: "suspect".to_owned(),
        local: false,
        age_seconds: None,
        room_mib: None,
        able: vec![],
        cpu_percent: 4.0,
        memory_percent: 100.0,
        packets_per_second: 0,
        bits_per_second: 0,
        vms: 0,
        hot: false,
    };
    vec![here, there]
}

fn vms() -> Vec<VmView> {
    let web = VmView {
        name: "web".to_owned(),
        id: "00000000-0000-0000-0000-0000000000aa".to_owned(),
        host: "host1".to_owned(),
        state: "moving".to_owned(),
        epoch: 3,
        memory_mib: 128,
        cpu_percent: 104.4,
        vcpu_percent: Some(97.0),
        cpu_wait_percent: Some(31.2),
        guest_memory_mib: Some(71),
        dirty_mib_per_second: Some(48),
        disk_bytes_per_second: Some(1_250_000),
        disk_requests_per_second: Some(310),
        share: Some(ShareView {
            cpu_weight: Some(60),
            receives_bits_per_second_max: Some(150_000_000),
            why: "at its peak it asked 400 mcores".to_owned(),
            trouble: None,
        }),
        sent_packets_per_second: 120,
        received_packets_per_second: 51_880,
        bits_per_second: 94_100_000,
        history_seconds: 7_500,
        next_hour: Some(NextHourView {
            cpu_mean_percent: 88.2,
            cpu_peak_percent: 140.0,
            mean_bits_per_second: 90_000_000,
            peak_bits_per_second: 120_000_000,
        }),
        excluded: None,
        rules: vec!["anti-affinity web".to_owned(), "priority 5".to_owned()],
        trouble: None,
    };
    let db = VmView {
        name: "db".to_owned(),
        id: "00000000-0000-0000-0000-0000000000bb".to_owned(),
        state: "running".to_owned(),
        memory_mib: 8192,
        guest_memory_mib: None,
        disk_bytes_per_second: None,
        disk_requests_per_second: None,
        share: None,
        next_hour: None,
        excluded: Some("for good, by hand".to_owned()),
        rules: vec![],
        trouble: Some("its tap is missing".to_owned()),
        ..web.clone()
    };
    vec![web, db]
}

fn moves() -> Vec<MoveView> {
    let done = MoveView {
        id: "1a2b3c4d.1.3".to_owned(),
        vm: "web".to_owned(),
        vm_id: "00000000-0000-0000-0000-0000000000aa".to_owned(),
        from: "host1".to_owned(),
        to: Some("host2".to_owned()),
        phase: "done".to_owned(),
        reason: "52,000 packets/s".to_owned(),
        overridden: vec![],
        began: "2026-03-01T17:12:03.250Z".to_owned(),
        ended: true,
        others_to_come: false,
        outcome: Some("relief 31 %".to_owned()),
        acceptances: 2,
        refusals: 1,
        copied_bytes: 137_363_456,
        total_bytes: 134_217_728,
        rounds: 3,
        encrypted: None,
        total_ms: Some(2310),
        downtime_ms: Some(158),
        promised_percent: None,
        measured_percent: None,
        paid: None,
    };
    let abandoned = MoveView {
        id: "1a2b3c4d.1.2".to_owned(),
        to: None,
        phase: "abandoned".to_owned(),
        outcome: Some("every host refused".to_owned()),
        acceptances: 0,
        refusals: 2,
        copied_bytes: 0,
        rounds: 0,
        encrypted: None,
        total_ms: None,
        downtime_ms: None,
        promised_percent: None,
        measured_percent: None,
        paid: None,
        ..done.clone()
    };
    vec![done, abandoned]
}

fn events() -> Vec<Event> {
    let acceptance = Event {
        seq: 41,
        time: "2026-03-01T17:12:03.250Z".to_owned(),
        host: "host1".to_owned(),
        move_id: Some("1a2b3c4d.1.3".to_owned()),
        vm: Some("web".to_owned()),
        step: Step::Acceptance,
        reason: "room for 1,200 s".to_owned(),
        peer: Some("host2".to_owned()),
        cost_percent: Some(3.1),
        copy: None,
    };
    let alarm = Event {
        seq: 42,
        move_id: None,
        vm: None,
        step: Step::Alarm,
        reason: "the disk is full".to_owned(),
        peer: None,
        cost_percent: None,
        ..acceptance.clone()
    };
    vec![acceptance, alarm]
}

fn why() -> Why {
    Why {
        about: "web".to_owned(),
        verdict: "it moved to host2, the cheapest of 2 that accepted".to_owned(),
        because: vec![
            "host1 was hot for 5 s".to_owned(),
            "relief 31 %, cost there 3.10 %".to_owned(),
        ],
        events: events(),
    }
}

#[test]
fn the_status() {
    check(
        super::status(&status(), PLAIN),
        expect![[r#"
            host          host1
            cluster       prod
            hosts         2 of 3 alive
            VMs here      2
            balance       automatic
            request by    multicast
            hot           52,000 packets/s, above packets_per_second = 20,000
            uplink loses  queue rx-3: 2.5 packets/s, 0.1 times/s no memory
            uplink loses  queue tx-0: 12.0 packets/s
            moves         1 under way
            doing         moving web to host2
            config        host.port waits for a restart
            webhook       https://example.org/…: nothing delivered since 03:10
            traces        http://collector:4318/…: it answers 503
            ALARM         db: its tap is missing
        "#]],
    );
    let quiet = status().uplink.map(|uplink| UplinkView { losing_queues: vec![], ..uplink });
    let calm = Status {
        hot: None,
        balancer_on: false,
        config: None,
        webhooks_failing: vec![],
        traces_failing: None,
        alarms: vec![],
        uplink: quiet,
        ..status()
    };
    check(
        super::status(&calm, WIDE),
        expect![[r#"
            host        host1
            host id     00000000-0000-0000-0000-000000000001
            version     0.1.0
            cluster     prod
            hosts       2 of 3 alive
            VMs here    2
            balance     automatic
            balancer    off on this host
            request by  multicast
            hot         no
            disks       2.3 MiB/s
            uplink      eth0, mlx5_core, 25.0 Gbit/s, full duplex
            moves       1 under way
            doing       moving web to host2
        "#]],
    );
}

#[test]
fn the_hosts() {
    check(
        super::hosts(&hosts(), PLAIN),
        expect![[r#"
            HOST                     STATE       CPU  MEMORY  PACKETS/s      TRAFFIC  VMS  HOT
            host1 (here)             alive    87.2 %  41.0 %      52.0k  94.1 Mbit/s   12  hot
            a-host-with-a-long-name  suspect       -       -          -            -    -  -
        "#]],
    );
    check(
        super::hosts(&hosts(), WIDE),
        expect![[r#"
            HOST                     STATE       CPU  MEMORY  PACKETS/s      TRAFFIC  VMS  HOT     ROOM  ABLE        AGE  ADDRESS          ID
            host1 (here)             alive    87.2 %  41.0 %      52.0k  94.1 Mbit/s   12  hot  2.0 GiB  qemu kvm  0.0 s  198.18.0.1:7171  00000000-0000-0000-0000-000000000001
            a-host-with-a-long-name  suspect       -       -          -            -    -  -          -                -  198.18.0.2:7171  00000000-0000-0000-0000-000000000002
        "#]],
    );
}

#[test]
fn the_vms() {
    check(
        super::vms(&vms(), PLAIN),
        expect![[r#"
        VM   STATE    CPU (1 core)   MEMORY  SENT PKT/s  RCVD PKT/s      TRAFFIC  TROUBLE
        web  moving        104.4 %  128 MiB         120       51.8k  94.1 Mbit/s
        db   running       104.4 %  8.0 GiB         120       51.8k  94.1 Mbit/s  its tap is missing
    "#]],
    );
    check(
        super::vms(&vms(), WIDE),
        expect![[r#"
            VM   STATE    CPU (1 core)   MEMORY  SENT PKT/s  RCVD PKT/s      TRAFFIC  CPU WAIT   VCPUS  GUEST MEM     DIRTIES       DISK  DISK REQ/s  NEXT HOUR CPU  ITS PEAK  HOST   EPOCH    HISTORY  EXCLUDED           RULES                          ID                                    TROUBLE
            web  moving        104.4 %  128 MiB         120       51.8k  94.1 Mbit/s    31.2 %  97.0 %   71.0 MiB  48.0 MiB/s  1.1 MiB/s         310         88.2 %   140.0 %  host1      3  2 h 5 min                     anti-affinity web; priority 5  00000000-0000-0000-0000-0000000000aa
            db   running       104.4 %  8.0 GiB         120       51.8k  94.1 Mbit/s    31.2 %  97.0 %             48.0 MiB/s                                                  host1      3  2 h 5 min  for good, by hand                                 00000000-0000-0000-0000-0000000000bb  its tap is missing
        "#]],
    );
}

#[test]
fn one_vm() {
    let [web, db] = &vms()[..] else { panic!("two") };
    check(
        super::vm(web, PLAIN),
        expect![[r#"
            VM           web
            id           00000000-0000-0000-0000-0000000000aa
            host         host1
            state        moving
            epoch        3
            CPU          104.4 % of a core
            its vCPUs    97.0 % of a core
            they waited  31.2 % of a core
            memory       128 MiB
            guest uses   71.0 MiB
            dirties      48.0 MiB/s
            sent         120 packets/s
            received     51.8k packets/s
            traffic      94.1 Mbit/s
            disk         1.1 MiB/s
            history      2 h 5 min
            next hour    CPU 88.2 % of a core, 140.0 % in its highest quarter; traffic 90.0 Mbit/s, 120 Mbit/s in its highest quarter
            rules        anti-affinity web; priority 5
            share        CPU weight 60, receives 150 Mbit/s at most: at its peak it asked 400 mcores
        "#]],
    );
    let mut db = db.clone();
    let given = web.share.clone().unwrap();
    db.share = Some(ShareView { trouble: Some("no cgroup".to_owned()), cpu_weight: None, ..given });
    check(
        super::vm(&db, PLAIN),
        expect![[r#"
            VM           db
            id           00000000-0000-0000-0000-0000000000bb
            host         host1
            state        running
            epoch        3
            CPU          104.4 % of a core
            its vCPUs    97.0 % of a core
            they waited  31.2 % of a core
            memory       8.0 GiB
            dirties      48.0 MiB/s
            sent         120 packets/s
            received     51.8k packets/s
            traffic      94.1 Mbit/s
            history      2 h 5 min
            share        receives 150 Mbit/s at most: at its peak it asked 400 mcores; NOT all given: no cgroup
            excluded     for good, by hand
            trouble      its tap is missing
        "#]],
    );
}

#[test]
fn the_moves() {
    check(
        super::moves(&moves(), PLAIN),
        expect![[r#"
        MOVE          BEGAN (UTC)          VM   FROM   TO     PHASE       COPIED    TOOK  DOWNTIME  OUTCOME
        1a2b3c4d.1.3  2026-03-01 17:12:03  web  host1  host2  done       131 MiB  2.31 s    158 ms  relief 31 %
        1a2b3c4d.1.2  2026-03-01 17:12:03  web  host1         abandoned      0 B                    every host refused
    "#]],
    );
    check(
        super::moves(&moves(), WIDE),
        expect![[r#"
            MOVE          BEGAN (UTC)          VM   FROM   TO     PHASE       COPIED    TOOK  DOWNTIME  ROUNDS  ACCEPTED  REFUSED  PROMISED  MEASURED  VM ID                                 REASON            OUTCOME
            1a2b3c4d.1.3  2026-03-01 17:12:03  web  host1  host2  done       131 MiB  2.31 s    158 ms       3         2        1                      00000000-0000-0000-0000-0000000000aa  52,000 packets/s  relief 31 %
            1a2b3c4d.1.2  2026-03-01 17:12:03  web  host1         abandoned      0 B                         0         0        2                      00000000-0000-0000-0000-0000000000aa  52,000 packets/s  every host refused
        "#]],
    );
}

#[test]
fn the_events() {
    check(
        super::events(&events(), PLAIN),
        expect![[r#"
        TIME (UTC)           STEP           VM          PEER            COST  MOVE           WHY
        2026-03-01 17:12:03  acceptance     web         host2         3.10 %  1a2b3c4d.1.3   room for 1,200 s
        2026-03-01 17:12:03  alarm                                                           the disk is full
    "#]],
    );
    check(
        super::events(&events(), WIDE),
        expect![[r#"
            TIME (UTC)              SEQ  NOTED BY    STEP           VM          PEER            COST  MOVE           WHY
            2026-03-01 17:12:03      41  host1       acceptance     web         host2         3.10 %  1a2b3c4d.1.3   room for 1,200 s
            2026-03-01 17:12:03      42  host1       alarm                                                           the disk is full
        "#]],
    );
}

#[test]
fn events_that_come_later_line_up_with_the_first() {
    let (first, later) = (&events()[..1], &events()[1..]);
    let first = super::events_as_they_come(first, true, PLAIN);
    let later = super::events_as_they_come(later, false, PLAIN);
    check(
        first + "\n" + &later,
        expect![[r#"
        TIME (UTC)           STEP           VM          PEER            COST  MOVE           WHY
        2026-03-01 17:12:03  acceptance     web         host2         3.10 %  1a2b3c4d.1.3   room for 1,200 s
        2026-03-01 17:12:03  alarm                                                           the disk is full
    "#]],
    );
}

#[test]
fn the_reasons() {
    check(
        super::why(&why(), PLAIN),
        expect![[r#"
        web: it moved to host2, the cheapest of 2 that accepted
          - host1 was hot for 5 s
          - relief 31 %, cost there 3.10 %

        TIME (UTC)           STEP           VM          PEER            COST  MOVE           WHY
        2026-03-01 17:12:03  acceptance     web         host2         3.10 %  1a2b3c4d.1.3   room for 1,200 s
        2026-03-01 17:12:03  alarm                                                           the disk is full
    "#]],
    );
    check(
        super::why(&Why { because: vec![], events: vec![], ..why() }, PLAIN),
        expect![[r#"
        web: it moved to host2, the cheapest of 2 that accepted
    "#]],
    );
}

#[test]
fn how_moves_begin_go_on_and_end() {
    let started = MoveStarted { move_id: "1a2b3c4d.1.3".to_owned(), overridden: vec![] };
    let [done, abandoned] = &moves()[..] else { unreachable!("there are two") };
    let copying = MoveView { phase: "copying".to_owned(), ended: false, ..done.clone() };
    let lines = [
        super::move_started("web", &started),
        super::step(&events()[0]),
        super::step(&events()[1]),
        super::cancel_told(&copying),
        super::move_ended(done),
        super::move_ended(abandoned),
        super::move_ended(&MoveView {
            rounds: 1,
            encrypted: None,
            total_ms: None,
            downtime_ms: None,
            ..done.clone()
        }),
    ];
    check(
        lines.join("\n"),
        expect![[r#"
        Move 1a2b3c4d.1.3 of web has begun. Follow it with `evenkeel events -f --move 1a2b3c4d.1.3`.
        acceptance     host2         3.10 %  room for 1,200 s
        alarm                                the disk is full
        Move 1a2b3c4d.1.3 of web (copying) is being cancelled. See `evenkeel moves` for how it ends.
        web moved from host1 to host2: 131 MiB in 3 rounds, took 2.31 s, paused 158 ms.
        web was not moved from host1: every host refused. See `evenkeel why 1a2b3c4d.1.2`.
        web moved from host1 to host2: 131 MiB in 1 round.
    "#]],
    );
}

#[test]
fn nothing_is_told_in_words() {
    let all = [
        super::hosts(&[], PLAIN),
        super::vms(&[], WIDE),
        super::moves(&[], PLAIN),
        super::events(&[], PLAIN),
    ];
    check(
        all.join("\n"),
        expect![[r#"
        No hosts are known.
        No VMs on this host.
        No moves yet.
        No events.
    "#]],
    );
}

#[test]
fn long_reasons_are_wrapped_to_the_terminal() {
    let look = Look { width: Some(100), ..PLAIN };
    let text = super::events(
        &[Event { reason: "the disk is full ".repeat(5), ..events()[0].clone() }],
        look,
    );
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    check(
        text,
        expect![[r#"
            TIME (UTC)           STEP           VM          PEER            COST  MOVE           WHY
            2026-03-01 17:12:03  acceptance     web         host2         3.10 %  1a2b3c4d.1.3   the disk is
                                                                                                 full the disk
                                                                                                 is full the
                                                                                                 disk is full
                                                                                                 the disk is
                                                                                                 full the disk
                                                                                                 is full
        "#]],
    );
}

#[test]
fn colours_only_where_they_are_wanted() {
    let colour = Look { colour: true, ..PLAIN };
    let plain =
        [super::hosts(&hosts(), PLAIN), super::vms(&vms(), PLAIN), super::events(&events(), PLAIN)];
    assert!(!plain.join("").contains('\u{1b}'));
    let shown = super::hosts(&hosts(), colour);
    assert!(shown.contains("\u{1b}[38;5;9mhot"), "{shown:?}");
    let shown = super::events(&events(), colour);
    assert!(shown.contains("\u{1b}[38;5;9malarm"), "{shown:?}");
}

#[test]
fn names_cannot_steer_the_terminal() {
    let evil = || "web\u{1b}[2J\nhost9".to_owned();
    let vm = VmView { name: evil(), trouble: Some(evil()), ..vms()[0].clone() };
    let event = Event { reason: evil(), vm: Some(evil()), ..events()[0].clone() };
    let moved = MoveView { vm: evil(), outcome: Some(evil()), ..moves()[0].clone() };
    let why =
        Why { about: evil(), verdict: evil(), because: vec![evil()], events: vec![event.clone()] };
    let shown = [
        super::vms(&[vm], WIDE),
        super::events(std::slice::from_ref(&event), PLAIN),
        super::step(&event),
        super::moves(std::slice::from_ref(&moved), WIDE),
        super::move_ended(&moved),
        super::why(&why, PLAIN),
    ];
    for text in shown {
        assert!(!text.contains('\u{1b}') && !text.contains("\nhost9"), "{text:?}");
    }
}

#[test]
fn traffic_says_who_speaks_with_whom() {
    let flow = |from: &str, from_id: Option<&str>, to: &str, to_id: Option<&str>, packets, bits| {
        FlowView {
            from: from.to_owned(),
            from_id: from_id.map(str::to_owned),
            to: to.to_owned(),
            to_id: to_id.map(str::to_owned),
            packets_per_second: packets,
            bits_per_second: bits,
        }
    };
    let (web, db) =
        ("00000000-0000-0000-0000-0000000000aa", "00000000-0000-0000-0000-0000000000bb");
    let flows = [
        flow("web", Some(web), "db", Some(db), 52_000, 416_000_000),
        flow("outside", None, "web", Some(web), 0, 600),
        flow("db", Some(db), "many", None, 1, 480),
    ];
    check(
        super::traffic(&flows, PLAIN),
        expect![[r#"
        FROM     TO    PACKETS/s     TRAFFIC
        web      db        52.0k  416 Mbit/s
        outside  web           0   600 bit/s
        db       many          1   480 bit/s
    "#]],
    );
    check(
        super::traffic(&flows, WIDE),
        expect![[r#"
        FROM     TO    PACKETS/s     TRAFFIC  PACKET SIZE  FROM ID                               TO ID
        web      db        52.0k  416 Mbit/s       1000 B  00000000-0000-0000-0000-0000000000aa  00000000-0000-0000-0000-0000000000bb
        outside  web           0   600 bit/s                                                     00000000-0000-0000-0000-0000000000aa
        db       many          1   480 bit/s         60 B  00000000-0000-0000-0000-0000000000bb
    "#]],
    );
    check(
        super::traffic(&[], PLAIN),
        expect![[r#"
        No VM on this host has sent or received of late.
    "#]],
    );
}
