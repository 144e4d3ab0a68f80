//! What is refused, and in which words.

use std::time::Duration;

use decide::membership::inventory::{Inventory, Listed, ListedState};
use decide::migrate::hypervisor::{Endpoint, Needs, RunState};
use decide::units::{Cost, Epoch, JournalId, Mib};
use decide::usage::history::SAMPLES_MAX;
use decide::usage::history::aged::AgedHistory;
use decide::usage::history::past::{AgedStay, PAST_MAX};
use decide::usage::history::quarters::{AgedQuarters, QUARTERS_MAX};
use decide::wire::message::{Body, JournalMark, Request};
use decide::wire::{self, limits, proto};
use prost::Message as _;

use crate::samples::{
    MOVE, OTHER, VM, aged, bodies, confirmation, message, move_record, request, vm_record,
};

/// Why the receiver refuses it; and the sender's own check says the same.
fn refused(body: Body) -> String {
    let message = message(body);
    let why = wire::decode(&wire::encode(&message)).expect_err("beyond a limit");
    assert_eq!(limits::check(&message), Err(why.clone()));
    why.to_string()
}

fn of_request(change: impl FnOnce(&mut Request)) -> Body {
    let mut request = request();
    change(&mut request);
    Body::Request(Box::new(request))
}

fn of_history(change: impl FnOnce(&mut AgedHistory)) -> Body {
    let mut history = AgedHistory::default();
    change(&mut history);
    Body::History(Box::new(history))
}

fn stay(name: &str) -> AgedStay {
    AgedStay { age: Duration::from_secs(1), host: OTHER, name: name.to_owned(), move_id: MOVE }
}

#[test]
fn what_is_beyond_its_limit_is_refused_by_name() {
    assert_eq!(refused(of_request(|r| r.name = "n".repeat(256))), "request.name: 256, at most 255");
    assert_eq!(refused(of_request(|r| r.asked = vec![OTHER; 65])), "request.asked: 65, at most 64");
    assert_eq!(
        refused(of_request(|r| r.needs.bridge = "b".repeat(64))),
        "needs.bridge: 64, at most 63"
    );
    let mut long = confirmation();
    long.definition.start = "s".repeat(limits::START_MAX + 1);
    assert_eq!(
        refused(Body::Confirmation(Box::new(long))),
        "definition.start: 65537, at most 65536"
    );
    let mut high = confirmation();
    high.epoch.number = u64::MAX;
    assert_eq!(
        refused(Body::Confirmation(Box::new(high))),
        "epoch.number: 18446744073709551615, at most 9223372036854775807"
    );
    assert_eq!(
        refused(of_history(|h| h.samples = vec![aged(1); SAMPLES_MAX + 1])),
        "history.samples: 601, at most 600"
    );
    assert_eq!(
        refused(of_history(|h| h.quarters.rows = vec![None; QUARTERS_MAX + 1])),
        "history.quarters.rows: 2881, at most 2880"
    );
    assert_eq!(
        refused(of_history(|h| h.past = vec![stay("host1"); PAST_MAX + 1])),
        "history.past: 65, at most 64"
    );
    let uri = "u".repeat(limits::URI_MAX + 1);
    let journal = JournalMark { id: JournalId(1), generation: 1, opened: 0, life: 0 };
    let endpoint = Endpoint { uri, multifd: false, certified: None };
    assert_eq!(
        refused(Body::Readiness { cost: Cost(1), endpoint, journal }),
        "readiness.endpoint.uri: 8193, at most 8192"
    );
    let epoch = Epoch { number: limits::EPOCH_MAX + 1, owner: OTHER };
    let hand_over = Body::HandOver { vm: VM, epoch, run: RunState::Running, journal };
    assert_eq!(
        refused(hand_over),
        "epoch.number: 9223372036854775808, at most 9223372036854775807"
    );
}

#[test]
fn a_long_reason_is_cut_between_characters_and_arrives() {
    let why = "é".repeat(limits::WHY_MAX);
    let came =
        wire::decode(&wire::encode(&message(Body::Refusal { why, known_epoch: None }))).unwrap();
    assert_eq!(
        came.body,
        Body::Refusal { why: "é".repeat(limits::WHY_MAX / 2), known_epoch: None }
    );
}

/// Why a message is refused after `damage`.
fn damaged(body: Body, damage: impl FnOnce(&mut proto::Message)) -> String {
    let mut form = proto::Message::from(&message(body));
    damage(&mut form);
    wire::decode(&form.encode_to_vec()).expect_err("damaged").to_string()
}

#[test]
fn what_is_missing_is_named() {
    use proto::message::Body as Form;
    assert_eq!(damaged(Body::Release, |m| m.from.clear()), "from is missing");
    assert_eq!(damaged(Body::Release, |m| m.move_id = None), "move_id is missing");
    let free = |m: &mut proto::Message| {
        m.body = Some(Form::Acceptance(proto::Acceptance {
            reserved_us: Some(1),
            ..proto::Acceptance::default()
        }));
    };
    assert_eq!(damaged(Body::Release, free), "acceptance.cost is missing");
    let unheard_of = |m: &mut proto::Message| {
        let Some(Form::Request(it)) = &mut m.body else { panic!("not a request") };
        it.encryption = 7;
    };
    let wrong = damaged(bodies().swap_remove(0), unheard_of);
    assert_eq!(wrong, "request.encryption: unknown value 7, from a newer version?");
    let no_state = |m: &mut proto::Message| {
        let Some(Form::HandOver(it)) = &mut m.body else { panic!("not a hand-over") };
        it.run = 0;
    };
    assert_eq!(damaged(bodies().swap_remove(7), no_state), "hand_over.run is missing");
    let no_number = |m: &mut proto::Message| {
        let Some(Form::HandOver(it)) = &mut m.body else { panic!("not a hand-over") };
        it.epoch = Some(proto::Epoch { number: None, owner: vec![1; 16] });
    };
    assert_eq!(damaged(bodies().swap_remove(7), no_number), "epoch.number is missing");
}

#[test]
fn an_id_of_another_length_is_named() {
    assert_eq!(
        damaged(Body::Release, |m| m.from.truncate(15)),
        "from: an id of 15 bytes instead of 16"
    );
}

#[test]
fn what_a_newer_version_adds_is_passed_over_or_named() {
    use proto::message::Body as Form;
    // Field 9 of a message, and field 99 of a request: not known to this version.
    let mut newer = wire::encode(&message(Body::Release));
    newer.extend([9 << 3, 42]);
    assert_eq!(wire::decode(&newer), Ok(message(Body::Release)));
    // Kind 99 of body: not known either.
    let mut form = proto::Message::from(&message(Body::Release));
    form.body = None;
    let mut newer = form.encode_to_vec();
    newer.extend([0x9a, 0x06, 0x00]);
    let why = wire::decode(&newer).unwrap_err().to_string();
    assert_eq!(why, "unknown kind of message, from a newer version?");
    let no_such = |m: &mut proto::Message| {
        let Some(Form::Standing(it)) = &mut m.body else { panic!("not a standing") };
        it.standing = 77;
    };
    assert_eq!(
        damaged(bodies().swap_remove(8), no_such),
        "standing.standing: unknown value 77, from a newer version?"
    );
}

#[test]
fn a_record_of_another_form_is_refused() {
    let mut newer = wire::encode_vm_record(&vm_record());
    newer[0] = 2;
    assert_eq!(
        wire::decode_vm_record(&newer).unwrap_err().to_string(),
        "a record of form 2, this version reads 1: written by a newer version?"
    );
    assert_eq!(wire::decode_move_record(&[]).unwrap_err().to_string(), "an empty record");
    // A version byte and nothing else must not read as a record of zeros.
    assert_eq!(
        wire::decode_vm_record(&[1]).unwrap_err().to_string(),
        "vm_record.ownership is missing"
    );
    let mut cut = wire::encode_move_record(&move_record());
    cut.truncate(cut.len() / 2);
    assert!(wire::decode_move_record(&cut).is_err());
}

/// A request of the greatest figures, with a VM's name and needs of these lengths and `asked` hosts.
fn request_bytes(name: usize, need: usize, asked: usize) -> usize {
    let need = || "n".repeat(need);
    let mut request = request();
    request.attempt = u32::MAX;
    request.name = "n".repeat(name);
    request.needs = Needs { driver: need(), machine: need(), accelerator: need(), bridge: need() };
    request.demand.cpu.0 = u64::MAX;
    request.demand.memory.0 = u64::MAX;
    request.demand.bits.0 = u64::MAX;
    request.demand.packets.0 = u64::MAX;
    request.memory.0 = u64::MAX;
    request.useful_max = Some(Cost(i64::MIN));
    request.answer_within = Duration::from_micros(u64::MAX);
    request.asked = vec![OTHER; asked];
    // As many bytes of tags as may be, in as many as may be.
    request.tags =
        vec!["t".repeat(limits::RULE_TAGS_BYTES_MAX / limits::TAGS_MAX); limits::TAGS_MAX];
    let mut message = message(Body::Request(Box::new(request)));
    (message.move_id.incarnation, message.move_id.counter) = (u32::MAX, u32::MAX);
    assert_eq!(limits::check(&message), Ok(()));
    wire::encode(&message).len()
}

#[test]
fn a_request_to_a_sample_of_sixteen_fits_a_datagram_whatever_its_names() {
    let usual = wire::encode(&message(Body::Request(Box::new(request())))).len();
    let longest = request_bytes(limits::NAME_MAX, limits::NEED_MAX, 16);
    let all = request_bytes(limits::NAME_MAX, limits::NEED_MAX, limits::ASKED_MAX);
    expect_test::expect!["usual 159, longest 1262, asking 64 2126"]
        .assert_eq(&format!("usual {usual}, longest {longest}, asking 64 {all}"));
    assert!(longest < 1300);
}

#[test]
fn the_longest_message_is_far_below_the_limit() {
    let mut sample = aged(1);
    let age = Duration::from_micros(u64::MAX);
    sample.age = age;
    let most = &mut sample.sample;
    (most.cpu.0, most.memory.0, most.dropped.0) = (u64::MAX, u64::MAX, u64::MAX);
    (most.sent_packets.0, most.received_packets.0) = (u64::MAX, u64::MAX);
    (most.sent_bits.0, most.received_bits.0) = (u64::MAX, u64::MAX);
    (most.cpu_wait.0, most.disk.0, most.dirty.0) = (u64::MAX, u64::MAX, u64::MAX);
    let bytes = wire::encode(&message(of_history(|history| {
        history.samples = vec![sample; SAMPLES_MAX];
        history.quarters = AgedQuarters { newest_age: age, rows: vec![None; QUARTERS_MAX] };
        history.past = vec![AgedStay { age, ..stay(&"n".repeat(limits::NAME_MAX)) }; PAST_MAX];
    })));
    assert!(bytes.len() < limits::MESSAGE_MAX / 3 * 2, "{}", bytes.len());
}

#[test]
fn an_inventory_beyond_a_limit_is_refused_and_the_longest_is_far_below_that_of_a_message() {
    let listed = Listed {
        vm: VM,
        name: "n".repeat(limits::NAME_MAX),
        epoch: limits::EPOCH_MAX,
        state: ListedState::Running,
        memory: Mib(u64::MAX),
        tags: Vec::new(),
    };
    let labels = vec!["l".repeat(limits::TAG_MAX); limits::TAGS_MAX];
    let of = |vms: Vec<Listed>| Inventory {
        hash: u64::MAX,
        vms,
        left_out: u32::MAX,
        labels: labels.clone(),
    };
    let longest = wire::encode_inventory(&of(vec![listed.clone(); limits::LISTED_MAX]));
    // Each tag has a head of two bytes, and makes that of its VM one byte longer.
    let tags =
        limits::LISTED_TAGS_BYTES_MAX + 3 * limits::LISTED_TAGS_BYTES_MAX / "plb_pin_a".len();
    let with_tags = longest.len() + tags;
    assert!(with_tags < limits::MESSAGE_MAX, "{} and {with_tags} bytes", longest.len());
    assert!(wire::decode_inventory(&longest).is_ok());
    let refused = |vms| {
        wire::decode_inventory(&wire::encode_inventory(&of(vms))).expect_err("too much").to_string()
    };
    let many = vec![listed.clone(); limits::LISTED_MAX + 1];
    assert_eq!(refused(many), "inventory.vms: 513, at most 512");
    let named = Listed { name: "n".repeat(256), ..listed.clone() };
    assert_eq!(refused(vec![named]), "listed.name: 256, at most 255");
    let high = Listed { epoch: limits::EPOCH_MAX + 1, ..listed };
    assert_eq!(
        refused(vec![high]),
        "epoch.number: 9223372036854775808, at most 9223372036854775807"
    );
    let form = proto::Listed { vm: vec![1; 16], ..proto::Listed::default() };
    let form = proto::Inventory { vms: vec![form], ..proto::Inventory::default() };
    let why = wire::decode_inventory(&form.encode_to_vec()).expect_err("no state").to_string();
    assert_eq!(why, "listed.state is missing");
}
