//! A real agent records and is killed: what it wrote, gone through again, gives the same, bit for bit.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::UdpSocket;
use std::path::Path;

use api::MoveRequest;
use sim::replay::{Ending, Replayed, replay, unpacked};

use alone::{Agent, PORT};

mod alone;

/// Of this test alone.
const ADDRESS: &str = "127.78.0.1";
fn replayed(log: &Path) -> Replayed {
    replay(unpacked(File::open(log).expect("it is there")).expect("read")).expect("a log")
}

/// What comes by network, by the monitor, by the clock, and by hand.
async fn busy(agent: &Agent, told: usize) {
    agent.has_told(told).await;
    let socket = UdpSocket::bind((ADDRESS, 0)).expect("a socket");
    for noise in [&b"no gossip"[..], &[1, 0, 255, 3], &[7; 900]] {
        socket.send_to(noise, (ADDRESS, PORT)).expect("sent");
    }
    let wanted = MoveRequest {
        vm: "00000000-0000-0000-0000-000000000001".to_owned(),
        to: None,
        force: false,
    };
    agent.api().start_move(&wanted).await.expect_err("there is no such VM");
    agent.has_told(told + 2).await;
    agent.has_read(3).await;
}

#[tokio::test]
async fn what_a_killed_agent_recorded_gives_the_same_again() {
    let mut agent = Agent::new(ADDRESS);
    agent.start();
    busy(&agent, 0).await;
    agent.kill();
    let logs = agent.logs();
    assert_eq!(logs.len(), 1, "{logs:?}");
    let first = replayed(&logs[0]);
    assert!(first.same() && first.ending == Some(Ending::CutOff), "{first:?}");
    assert!(first.events > 5 && first.actions > 2, "{first:?}");

    // It starts again, with another log.
    agent.start();
    busy(&agent, 1).await;
    agent.kill();
    let logs = agent.logs();
    assert_eq!(logs.len(), 2, "{logs:?}");
    assert_eq!(replayed(&logs[0]).events, first.events);
    let second = replayed(&logs[1]);
    assert!(second.same() && second.events > 5, "{second:?}");

    // Cut anywhere, what is before the cut is still the same.
    let whole = fs::read(&logs[1]).expect("a log");
    let mut events = BTreeSet::new();
    for length in (0..whole.len()).step_by(whole.len() / 100) {
        let Ok(cut) = replay(unpacked(&whole[..length]).expect("read")) else { continue };
        assert!(cut.same() && cut.ending == Some(Ending::CutOff), "at {length}: {cut:?}");
        events.insert(cut.events);
    }
    assert!(events.len() >= 4 && events.last() <= Some(&second.events), "{events:?}");

    // A changed byte is found, unless it is one of a block's length: then the log seems cut off there.
    let tried: Vec<usize> = (0..whole.len()).step_by(whole.len() / 100).collect();
    let found = tried.iter().filter(|at| {
        let mut changed = whole.clone();
        changed[**at] ^= 0x10;
        let again = unpacked(&changed[..]).map_err(drop).and_then(|log| replay(log).map_err(drop));
        !again.is_ok_and(|again| {
            assert!(again.events <= second.events, "at {at}: {again:?}");
            again.same()
        })
    });
    let found = found.count();
    assert!(found * 10 > tried.len() * 8, "{found} of {}", tried.len());
}
