//! Messages, records of the journal, and inventories: whatever is let in can be sent on, and means the same there.

use decide::membership::inventory::{Inventory, Listed, ListedState};
use decide::placement::exchange::Side;
use decide::units::{BitsPerSec, Mib, MilliCores, PacketsPerSec, VmId};
use decide::usage::history::aged::AgedHistory;
use decide::usage::history::code::Code;
use decide::usage::history::past::AgedStay;
use decide::usage::history::quarters::{AgedQuarters, Quarter};
use decide::usage::load::Capacity;
use decide::wire;
use decide::wire::limits;
use decide::wire::message::{Body, Exchange, Message, Request};
use fuzz::Samples;

use crate::samples::{
    HOST, MOVE, VM, aged, bodies, companion, message, move_record, request, vm_record,
};

/// One of each kind, and those with all that may be left out.
fn messages() -> Vec<Message> {
    let load = request().demand;
    let capacity = Capacity {
        cpu: MilliCores(8000),
        memory: Mib(65_536),
        bits: Some(BitsPerSec(1)),
        packets: Some(PacketsPerSec(2)),
    };
    let side = Side { lowest: load, highest: load, capacity };
    let full = Request {
        tags: vec!["plb_pin_host1".to_owned()],
        exchange: Some(Exchange { side, room: Mib(7), applied: true }),
        half_of: Some(MOVE),
        followers: vec![companion(), companion()],
        joins: true,
        ..request()
    };
    let stay = AgedStay {
        age: std::time::Duration::from_secs(9),
        host: HOST,
        name: "host1".to_owned(),
        move_id: MOVE,
    };
    let quarters = AgedQuarters {
        newest_age: std::time::Duration::from_secs(900),
        rows: vec![None, Some(Quarter::from_codes([Code::default(); 8]))],
    };
    let history = AgedHistory { samples: vec![aged(2), aged(1)], quarters, past: vec![stay] };
    let more = [Body::Request(Box::new(full)), Body::History(Box::new(history))];
    bodies().into_iter().chain(more).map(message).collect()
}

#[test]
fn damaged_messages_and_records_are_refused_or_mean_the_same_when_sent_on() {
    let listed = Listed {
        vm: VM,
        name: "web1".to_owned(),
        epoch: 5,
        state: ListedState::Paused,
        memory: Mib(128),
        tags: vec!["evenkeel:pin=a".to_owned()],
    };
    let vms = vec![listed.clone(), Listed { vm: VmId(3), ..listed }];
    let inventory = Inventory { hash: 7, vms, left_out: 1, labels: vec!["rack".to_owned()] };
    let mut genuine: Vec<Vec<u8>> = messages().iter().map(wire::encode).collect();
    genuine.push(wire::encode_inventory(&inventory));
    genuine.push(wire::encode_vm_record(&vm_record()));
    genuine.push(wire::encode_move_record(&move_record()));
    Samples::bytes(genuine).damaged(|bytes| {
        if let Ok(read) = wire::decode(bytes) {
            assert_eq!(limits::check(&read), Ok(()), "what is let in keeps the limits");
            let again = wire::encode(&read);
            assert!(again.len() <= limits::MESSAGE_MAX);
            assert_eq!(wire::decode(&again), Ok(read));
        }
        if let Ok(read) = wire::decode_inventory(bytes) {
            assert_eq!(wire::decode_inventory(&wire::encode_inventory(&read)), Ok(read));
        }
        if let Ok(read) = wire::decode_vm_record(bytes) {
            assert_eq!(wire::decode_vm_record(&wire::encode_vm_record(&read)), Ok(read));
        }
        if let Ok(read) = wire::decode_move_record(bytes) {
            assert_eq!(wire::decode_move_record(&wire::encode_move_record(&read)), Ok(read));
        }
    });
}
