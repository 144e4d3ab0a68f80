//! Following events: told at once when one arrives, and nothing after the wait otherwise.

use std::time::Duration;

use agent::http::until_events;
use api::{EventFilter, FOLLOW_MAX};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::backend::{MOVE, Served, event};

#[tokio::test]
async fn a_follower_gets_each_event_once_and_as_it_comes() {
    let served = Served::start().await;
    served.backend.note(MOVE);
    served.backend.note(MOVE);
    let filter = EventFilter { after: Some(0), limit: Some(1), ..EventFilter::default() };
    let mut coming = served.client.follow(filter);
    assert_eq!(coming.next().await.unwrap(), [event(1, MOVE)]);
    assert_eq!(coming.next().await.unwrap(), [event(2, MOVE)]);
    let later = tokio::spawn(async move { coming.next().await });
    served.backend.awaited().await;
    served.backend.note(MOVE);
    let told = timeout(FOLLOW_MAX / 2, later).await.expect("told at once, not after the wait");
    assert_eq!(told.unwrap().unwrap(), [event(3, MOVE)]);
    let queries = served.backend.queries();
    assert!(queries.iter().all(|query| query.after.is_none() || query.wait == FOLLOW_MAX));
}

#[tokio::test]
async fn after_a_log_was_lost_a_follower_begins_anew() {
    let served = Served::start().await;
    (0..3).for_each(|_| served.backend.note(MOVE));
    let filter = EventFilter { after: Some(4711), ..EventFilter::default() };
    let refused = served.client.events(&filter).await.unwrap_err().to_string();
    assert!(refused.contains("no event 4711 here: the newest is 3 (events-reset)"), "{refused}");
    let mut coming = served.client.follow(filter);
    let told: Vec<u64> = coming.next().await.unwrap().iter().map(|event| event.seq).collect();
    assert_eq!(told, [1, 2, 3]);
}

#[tokio::test]
async fn a_follower_of_one_move_is_not_told_of_others() {
    let served = Served::start().await;
    let filter = EventFilter { move_id: Some(MOVE.to_owned()), ..EventFilter::default() };
    let mut coming = served.client.follow(filter);
    let told = tokio::spawn(async move { coming.next().await });
    served.backend.awaited().await;
    served.backend.note("another");
    served.backend.note(MOVE);
    assert_eq!(told.await.unwrap().unwrap(), [event(2, MOVE)]);
}

#[tokio::test]
async fn ending_the_agent_does_not_wait_for_followers() {
    let served = Served::start().await;
    let mut coming = served.client.follow(EventFilter::default());
    let follower = tokio::spawn(async move { coming.next().await });
    served.backend.awaited().await;
    let socket = served.socket.clone();
    timeout(FOLLOW_MAX / 2, served.stop()).await.expect("within the grace").unwrap();
    assert!(!socket.exists(), "the socket is removed");
    follower.abort();
}

#[tokio::test(start_paused = true)]
async fn without_events_the_answer_comes_after_the_wait() {
    let (_newest, changes) = watch::channel(0);
    let began = Instant::now();
    let events = until_events(changes, FOLLOW_MAX, async || Ok(vec![])).await.unwrap();
    assert_eq!((events, began.elapsed()), (vec![], FOLLOW_MAX));
}

#[tokio::test(start_paused = true)]
async fn changes_that_tell_nothing_do_not_lengthen_the_wait() {
    let (newest, changes) = watch::channel(0);
    let began = Instant::now();
    let ticking = async {
        loop {
            tokio::time::sleep(Duration::from_secs(3)).await;
            newest.send_modify(|seq| *seq += 1);
        }
    };
    tokio::select! {
        events = until_events(changes, FOLLOW_MAX, async || Ok(vec![])) => assert_eq!(events.unwrap(), []),
        () = ticking => unreachable!("ticks for ever"),
    }
    assert_eq!(began.elapsed(), FOLLOW_MAX);
}

#[tokio::test(start_paused = true)]
async fn an_event_that_comes_while_looking_is_not_missed() {
    let (newest, changes) = watch::channel(0);
    let began = Instant::now();
    let mut looked = 0;
    let events = until_events(changes, FOLLOW_MAX, || {
        looked += 1;
        let found = if looked == 1 { vec![] } else { vec![event(1, MOVE)] };
        newest.send_replace(1);
        async { Ok(found) }
    });
    assert_eq!(events.await.unwrap(), [event(1, MOVE)]);
    assert_eq!((looked, began.elapsed()), (2, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn who_does_not_follow_does_not_wait() {
    let (_newest, changes) = watch::channel(0);
    let began = Instant::now();
    assert_eq!(until_events(changes, Duration::ZERO, async || Ok(vec![])).await.unwrap(), []);
    assert_eq!(began.elapsed(), Duration::ZERO);
}
