//! Counts are exact: they agree with what was sent, and with the driver, to the frame and byte.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use decide::units::Bytes;
use decide::usage::reading::End;
use drivers::monitor::{Attach, Counting};

use crate::bed::{bed, dropped, flow, flows, frame, inside, monitor, of, run, vm, watched};

const ALL: [u8; 6] = [0xff; 6];

fn counts_every_frame_once(attach: Attach) {
    let taps = bed(3);
    let vms = watched(&taps);
    let mut monitor = monitor();
    monitor.count_frames(&Counting { attach, ..Counting::default() }).unwrap();
    let before = monitor.read(&vms).unwrap();
    assert_eq!(flows(&before), []);

    // One of each class of sizes, and its upper bound; a tap's MTU is 1500, so the largest come as super-packets only.
    for size in [60, 64, 65, 128, 129, 256, 257, 512, 513, 1024, 1025, 1514] {
        for _ in 0..10 {
            taps[1].send(&taps[1].frame(taps[2].address, size));
        }
    }
    (0..5).for_each(|_| taps[1].send(&taps[1].frame(ALL, 100)));
    (0..7).for_each(|_| taps[2].send(&taps[2].frame(taps[0].address, 200)));
    (0..9).for_each(|_| taps[0].send(&taps[0].frame(taps[1].address, 300)));
    // The driver counts what a guest has taken.
    assert_eq!([1, 2, 3].map(|tap: usize| taps[tap].receive()), [9, 125, 5]);
    let after = monitor.read(&vms).unwrap();

    let sizes = [60, 64, 65, 128, 129, 256, 257, 512, 513, 1024, 1025, 1514];
    let bytes = 10 * sizes.iter().sum::<u64>();
    let (link, frames) = of(&after, 1);
    assert_eq!((frames.sent, frames.sent_bytes), (125, Bytes(bytes + 500)));
    assert_eq!((frames.received, frames.received_bytes), (9, Bytes(2700)));
    assert_eq!(frames.sizes, [20, 25, 20, 29, 20, 20, 0, 0]);
    assert_eq!(
        (link.sent_packets, link.sent_bytes),
        (125, frames.sent_bytes),
        "as the driver says"
    );
    assert_eq!((link.received_packets, link.received_bytes), (9, Bytes(2700)));
    let (link, frames) = of(&after, 2);
    assert_eq!((frames.sent, frames.received), (7, 125));
    assert_eq!((link.sent_packets, link.received_packets), (7, 125));
    assert_eq!(of(&after, 3).1.received, 5, "what goes to all reaches VM 3 too");
    let expected = [
        flow(vm(1), vm(2), 120, bytes),
        flow(vm(1), End::Many, 5, 500),
        flow(vm(2), End::Outside, 7, 1400),
        flow(End::Outside, vm(1), 9, 2700),
    ];
    assert_eq!(flows(&after), expected);
}

#[test]
fn every_frame_is_counted_once() {
    if inside("counts::every_frame_is_counted_once") {
        counts_every_frame_once(Attach::Newest);
    }
}

#[test]
fn every_frame_is_counted_once_where_there_is_no_tcx() {
    if !inside("counts::every_frame_is_counted_once_where_there_is_no_tcx") {
        return;
    }
    counts_every_frame_once(Attach::Clsact);
}

#[test]
fn filters_that_a_killed_agent_left_count_nothing_twice() {
    if !inside("counts::filters_that_a_killed_agent_left_count_nothing_twice") {
        return;
    }
    let taps = bed(2);
    let vms = watched(&taps);
    let counting = Counting { attach: Attach::Clsact, ..Counting::default() };
    let mut killed = monitor();
    killed.count_frames(&counting).unwrap();
    killed.read(&vms).unwrap();
    // Its filters stay, as they do when a process is killed; the lock that it also keeps makes the next one count without pins.
    std::mem::forget(killed);
    let mut monitor = monitor();
    monitor.count_frames(&counting).unwrap();
    monitor.read(&vms).unwrap();
    (0..10).for_each(|_| taps[1].send(&taps[1].frame(taps[2].address, 100)));
    assert_eq!(flows(&monitor.read(&vms).unwrap()), [flow(vm(1), vm(2), 10, 1000)]);
    let filters = std::process::Command::new("tc")
        .args(["filter", "show", "dev", "tap1", "ingress"])
        .output();
    let filters = String::from_utf8(filters.unwrap().stdout).unwrap();
    assert_eq!(filters.matches("name evenkeel_in").count(), 1, "{filters}");
}

/// The kernel itself cuts super-packets for a tap that does not take them: what its driver counts then is the truth.
#[test]
fn super_packets_are_counted_as_the_kernel_cuts_them() {
    if !inside("counts::super_packets_are_counted_as_the_kernel_cuts_them") {
        return;
    }
    let mut taps = bed(2);
    taps.push(crate::bed::Tap::new(3, false));
    let vms = watched(&taps);
    let mut monitor = monitor();
    monitor.count_frames(&Counting::default()).unwrap();
    let mut before = monitor.read(&vms).unwrap();
    // Options or none; a last frame that is full, one byte, or in between.
    for (options, size) in [(0, 1460), (12, 1448), (40, 1000)] {
        for payload in [2 * size, 10 * size, 10 * size + 1, 10 * size - 1, 43 * size + 99] {
            let to = |tap: usize| {
                let size = u16::try_from(size).unwrap();
                (0..3).for_each(|_| {
                    taps[1].send_super_packet(taps[tap].address, options, payload, size)
                });
            };
            to(2);
            to(3);
            let taken = (taps[2].receive(), taps[3].receive());
            let case = format!("{options} bytes of options, {payload} bytes, {size} a frame");
            let after = monitor.read(&vms).unwrap();
            let grown = |vm: u128| {
                let ((was, old), (is, new)) = (of(&before, vm), of(&after, vm));
                let driver = (
                    is.received_packets - was.received_packets,
                    is.received_bytes.0 - was.received_bytes.0,
                );
                let ours =
                    (new.received - old.received, new.received_bytes.0 - old.received_bytes.0);
                let mut sizes = new.sizes;
                sizes.iter_mut().zip(old.sizes).for_each(|(new, old)| *new -= old);
                (driver, ours, sizes)
            };
            let (whole, as_one, sizes_of_one) = grown(2);
            let (cut, as_cut, sizes_of_cut) = grown(3);
            let frames = u64::try_from(payload.div_ceil(size)).unwrap() * 3;
            assert_eq!(whole.0, 3, "{case}: the driver counts super-packets");
            assert_eq!(cut.0, frames, "{case}: the driver counts frames");
            assert_eq!(as_cut, cut, "{case}");
            assert_eq!(as_one, cut, "{case}");
            assert_eq!(sizes_of_one, sizes_of_cut, "{case}");
            assert_eq!(sizes_of_one.iter().sum::<u64>(), frames, "{case}");
            let (was, is) = (of(&before, 1).1, of(&after, 1).1);
            assert_eq!(is.sent - was.sent, 2 * frames, "{case}: as they come in");
            assert_eq!(is.sent_bytes.0 - was.sent_bytes.0, 2 * cut.1, "{case}");
            assert_eq!(taken, (3, frames), "{case}");
            before = after;
        }
    }
    let to = |tap| flows(&before).iter().find(|flow| flow.to == vm(tap)).copied().unwrap();
    assert_eq!((to(2).frames, to(2).bytes), (to(3).frames, to(3).bytes));
    assert_eq!(to(3).frames, of(&before, 3).0.received_packets);
    assert_eq!(to(3).bytes, of(&before, 3).0.received_bytes);
}

#[test]
fn counts_are_exact_while_another_tap_floods() {
    if !inside("counts::counts_are_exact_while_another_tap_floods") {
        return;
    }
    let taps = bed(3);
    let vms = watched(&taps);
    let mut monitor = monitor();
    monitor.count_frames(&Counting::default()).unwrap();
    monitor.read(&vms).unwrap();
    let (done, flooded) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let flood = scope.spawn(|| {
            let frame = taps[3].frame(taps[2].address, 64);
            while !done.load(Ordering::Relaxed) {
                taps[3].send(&frame);
                flooded.fetch_add(1, Ordering::Relaxed);
            }
        });
        while flooded.load(Ordering::Relaxed) < 1000 {
            std::thread::yield_now();
        }
        for round in 0..2000 {
            taps[1].send(&taps[1].frame(taps[2].address, 1000));
            taps[1].send_super_packet(taps[2].address, 12, 14_480, 1448);
            if round % 50 == 0 {
                monitor.read(&vms).unwrap();
                taps[2].receive();
            }
        }
        done.store(true, Ordering::Relaxed);
        flood.join().unwrap();
    });
    taps[2].receive();
    let flooded = flooded.into_inner();
    let after = monitor.read(&vms).unwrap();
    let (of_one, of_flood) = ((2000 + 20_000, 2000 * (1000 + 10 * (66 + 1448))), flooded);
    let expected =
        [flow(vm(1), vm(2), of_one.0, of_one.1), flow(vm(3), vm(2), of_flood, of_flood * 64)];
    assert_eq!(flows(&after), expected);
    assert_eq!(of(&after, 1).1.sent, of_one.0);
    let (link, frames) = of(&after, 3);
    assert_eq!((frames.sent, link.sent_packets), (flooded, flooded), "as the driver says");
    let (link, frames) = of(&after, 2);
    assert_eq!(frames.received, of_one.0 + flooded);
    // The driver counts a super-packet as one, and what found the guest's queue full apart.
    assert_eq!(link.received_packets + dropped(&taps[2]), 4000 + flooded);
    println!("{flooded} frames of a flood, {} dropped by the tap", dropped(&taps[2]));
}

#[test]
fn a_forged_address_changes_no_row_but_the_forgers_own() {
    if !inside("counts::a_forged_address_changes_no_row_but_the_forgers_own") {
        return;
    }
    let taps = bed(3);
    // Now the bridge believes what it last heard, as bridges do.
    for tap in [1, 2, 3] {
        run(&format!("bridge fdb del 02:00:00:00:00:0{tap} dev tap{tap} master"));
        taps[tap].send(&taps[tap].frame(ALL, 60));
    }
    let vms = watched(&taps);
    let mut monitor = monitor();
    monitor.count_frames(&Counting::default()).unwrap();
    monitor.read(&vms).unwrap();
    (0..10).for_each(|_| taps[1].send(&taps[1].frame(taps[2].address, 100)));
    let honest = [flow(vm(1), vm(2), 10, 1000)];
    assert_eq!(flows(&monitor.read(&vms).unwrap()), honest);

    // VM 3 says it is VM 1, to VM 2.
    (0..20).for_each(|_| taps[3].send(&frame(taps[1].address, taps[2].address, 100)));
    let forged = [honest[0], flow(vm(3), vm(2), 20, 2000)];
    assert_eq!(flows(&monitor.read(&vms).unwrap()), forged);

    // From now on the bridge gives VM 3 what is meant for VM 1: that is where it is counted.
    (0..5).for_each(|_| taps[2].send(&taps[2].frame(taps[1].address, 100)));
    let stolen = [forged[0], flow(vm(2), vm(3), 5, 500), forged[1]];
    assert_eq!(flows(&monitor.read(&vms).unwrap()), stolen);
    assert_eq!(taps[3].receive(), 2 + 5, "VM 3 received them, and what the others sent to all");
}
