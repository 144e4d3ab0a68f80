//! Answers as QEMU 10 gave them, shortened where they repeat themselves.

use serde_json::json;

use super::*;

fn figures() -> Figures {
    Figures::new(VmId(0), Duration::from_secs(5))
}

impl Figures {
    fn hear(&mut self, question: Question, answer: &Option<Value>) {
        self.take(question, answer.as_ref());
    }
}

#[test]
fn a_thread_that_vcpus_share_is_told_once() {
    let mut figures = figures();
    let cpu = |index: u32, thread: u32| {
        json!({"thread-id": thread, "props": {"core-id": index, "thread-id": 0, "socket-id": 0},
               "qom-path": "/machine/unattached/device[0]", "cpu-index": index, "target": "x86_64"})
    };
    figures.hear(Question::Threads, &Some(json!([cpu(0, 25185), cpu(1, 25184)])));
    assert_eq!(figures.told.vcpu_threads, [25184, 25185]);
    figures.hear(Question::Threads, &Some(json!([cpu(0, 31), cpu(1, 31)])));
    assert_eq!(figures.told.vcpu_threads, [31]);
    figures.hear(Question::Threads, &None);
    assert!(figures.told.vcpu_threads.is_empty());
}

#[test]
fn disks_are_summed_and_what_lies_below_them_is_not() {
    let mut figures = figures();
    let stats = |rd: u64, wr: u64| {
        json!({"rd_bytes": rd, "wr_bytes": wr, "rd_operations": 3, "wr_operations": 2,
               "flush_operations": 7, "timed_stats": [], "account_failed": false})
    };
    let disk = json!({"device": "virtio0", "qdev": "/machine/peripheral-anon/device[1]/virtio-backend",
        "stats": stats(1000, 20), "parent": {"node-name": "#block010", "stats": stats(999, 999)}});
    let cd = json!({"device": "ide1-cd0", "stats": stats(5, 0)});
    figures.hear(Question::Disks, &Some(json!([disk, cd])));
    let (_, told) = figures.told.disk.expect("there are disks");
    assert_eq!((told.read, told.written, told.requests), (Bytes(1005), Bytes(20), 10));
    figures.hear(Question::Disks, &Some(json!([])));
    assert_eq!(figures.told.disk, None, "none to tell of");
}

#[test]
fn a_balloon_is_found_polled_and_believed_as_long_as_the_guest_speaks() {
    let mut figures = figures();
    let devices = json!([{"name": "type", "type": "string"},
        {"name": "device[0]", "type": "child<virtio-balloon-pci>"}]);
    figures.hear(Question::Devices(DEVICES[1]), &Some(devices));
    assert_eq!(figures.balloon.as_deref(), Some("/machine/peripheral-anon/device[0]"));
    assert_eq!(figures.left, [Question::Polling]);
    figures.left.clear();
    figures.hear(Question::Polling, &Some(json!(10)));
    assert!(figures.left.is_empty(), "somebody polls already");
    figures.hear(Question::Polling, &Some(json!(0)));
    assert_eq!(figures.left, [Question::Poll]);

    let stats = |total: u64, available: u64, update: u64| {
        Some(json!({"stats": {"stat-total-memory": total, "stat-available-memory": available,
            "stat-free-memory": 1, "stat-disk-caches": u64::MAX}, "last-update": update}))
    };
    for (stats, expected) in [
        (stats(u64::MAX, u64::MAX, 0), None),
        (stats(160 << 20, 100 << 20, 0), None),
        (stats(160 << 20, u64::MAX, 1), None),
        (stats(160 << 20, 170 << 20, 2), None),
        (stats(160 << 20, 100 << 20, 3), Some(Mib(60))),
    ] {
        figures.hear(Question::GuestMemory, &stats);
        assert_eq!(figures.told.guest_memory, expected);
    }
    for told in [true, true, true, false] {
        figures.hear(Question::GuestMemory, &stats(160 << 20, 100 << 20, 3));
        assert_eq!(figures.told.guest_memory.is_some(), told, "nothing new");
    }
}

#[test]
fn memory_is_measured_only_if_no_copy_is_under_way_and_read_once_it_is() {
    let mut figures = figures();
    for (status, asks) in [("active", false), ("setup", false), ("completed", true)] {
        figures.left.clear();
        figures.hear(Question::Copying, &Some(json!({"status": status})));
        assert_eq!(figures.left == [Question::Measure], asks, "{status}");
    }
    let rate = |status: &str, rate: Option<i64>| {
        let mut answer = json!({"status": status, "sample-pages": 512, "calc-time": 1,
            "mode": "page-sampling", "calc-time-unit": "second", "start-time": 1_795_532_218});
        if let Some(rate) = rate {
            answer["dirty-rate"] = json!(rate);
        }
        Some(answer)
    };
    figures.hear(Question::Measure, &None);
    figures.hear(Question::DirtyRate, &rate("measuring", None));
    assert!(figures.measuring && figures.told.dirty.is_none());
    figures.hear(Question::DirtyRate, &rate("measured", Some(48)));
    assert_eq!((figures.measuring, figures.told.dirty), (false, Some(MibPerSec(48))));
    figures.hear(Question::DirtyRate, &rate("measured", Some(-1)));
    assert_eq!(figures.told.dirty, None);
}

#[test]
fn an_order_ends_what_was_being_asked_and_a_paused_guest_is_not_measured() {
    let mut figures = figures();
    figures.plan(false);
    assert_eq!(
        figures.left[0],
        Question::Threads,
        "a new process is asked for what changes seldom"
    );
    figures.measuring = true;
    figures.give_way();
    assert!(figures.left.is_empty() && !figures.measuring);
    let mut planned = |runs: bool| {
        let mut asked = Vec::new();
        for _ in 0..SELDOM {
            figures.left.clear();
            figures.plan(runs);
            asked.extend(figures.left.iter().copied());
        }
        let times = |question| asked.iter().filter(|one| **one == question).count();
        (times(Question::Disks), times(Question::Threads), times(Question::Copying))
    };
    assert_eq!(planned(true), (12, 1, 1));
    assert_eq!(planned(false), (12, 1, 0));
}
