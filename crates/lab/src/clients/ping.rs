//! Pings a guest at a steady pace.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket as StdUdpSocket};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::locked;
use crate::hosts::Namespace;

const ECHO_REQUEST: u8 = 8;
const ECHO_REPLY: u8 = 0;
/// How long answers are waited for after the last ping.
const LAST_ANSWER: Duration = Duration::from_secs(1);

/// What became of pings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Pings {
    /// Sent so far.
    pub sent: u32,
    /// Answered so far.
    pub answered: u32,
    /// Longest time between an answer and the next one, in milliseconds; the pace itself is in it.
    pub gap_ms: u64,
    /// Longest time to an answer, in milliseconds.
    pub round_trip_max_ms: u64,
}

impl Pings {
    /// Sent and not answered; while pinging, those under way count too.
    pub fn lost(&self) -> u32 {
        self.sent - self.answered
    }
}

/// Pings until stopped.
#[derive(Debug)]
pub struct Pinger {
    pings: Arc<Mutex<Pings>>,
    stop: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Pinger {
    /// Pings `to` from `client`, one ping each `pace`.
    pub fn start(client: &Namespace, to: Ipv4Addr, pace: Duration) -> anyhow::Result<Pinger> {
        let open = || -> io::Result<StdUdpSocket> {
            // A ping socket: the kernel fills in identifier and checksum, and hands over our own answers only.
            let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::ICMPV4))?;
            socket.connect(&SocketAddrV4::new(to, 0).into())?;
            socket.set_nonblocking(true)?;
            Ok(socket.into())
        };
        let socket =
            client.inside(open)?.and_then(UdpSocket::from_std).context("opening a ping socket")?;
        let (pings, stop) = (Arc::default(), Arc::new(Notify::new()));
        let course = Course {
            socket,
            pings: Arc::clone(&pings),
            waiting: BTreeMap::new(),
            last_answer: None,
        };
        let task = tokio::spawn(course.run(pace, Arc::clone(&stop)));
        Ok(Pinger { pings, stop, task })
    }

    /// Figures so far.
    pub fn so_far(&self) -> Pings {
        *locked(&self.pings)
    }

    /// Sends no more, waits up to a second for what is under way, and gives the figures.
    pub async fn stop(self) -> anyhow::Result<Pings> {
        self.stop.notify_one();
        self.task.await.context("pinging")?;
        Ok(*locked(&self.pings))
    }
}

struct Course {
    socket: UdpSocket,
    pings: Arc<Mutex<Pings>>,
    waiting: BTreeMap<u16, Instant>,
    last_answer: Option<Instant>,
}

impl Course {
    async fn run(mut self, pace: Duration, stop: Arc<Notify>) {
        let mut ticks = interval(pace);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut sequence = 0_u16;
        let mut packet = [0; 256];
        loop {
            tokio::select! {
                () = stop.notified() => break,
                _ = ticks.tick() => {
                    sequence = sequence.wrapping_add(1);
                    self.send(sequence).await;
                }
                got = self.socket.recv(&mut packet) => self.heard(got, &packet),
            }
        }
        let stopped = Instant::now();
        self.waiting.retain(|_sequence, sent| stopped - *sent < LAST_ANSWER);
        let _what_is_missing_is_lost = timeout(LAST_ANSWER, async {
            while !self.waiting.is_empty() {
                let got = self.socket.recv(&mut packet).await;
                self.heard(got, &packet);
            }
        })
        .await;
        // Silent to the end: the silence that was seen counts.
        if let Some(before) = self.last_answer.filter(|_| self.waiting.contains_key(&sequence)) {
            self.note_gap(before, stopped);
        }
    }

    async fn send(&mut self, sequence: u16) {
        let [high, low] = sequence.to_be_bytes();
        let mut packet = [0; 64];
        packet[0] = ECHO_REQUEST;
        packet[6] = high;
        packet[7] = low;
        self.waiting.insert(sequence, Instant::now());
        locked(&self.pings).sent += 1;
        // A ping that the network refuses is a lost ping.
        let _lost = self.socket.send(&packet).await;
    }

    /// An error says that some ping was not delivered: that one stays unanswered.
    fn heard(&mut self, got: io::Result<usize>, packet: &[u8]) {
        let (Ok(8..), [ECHO_REPLY, _, _, _, _, _, high, low, ..]) = (got, packet) else { return };
        let Some(sent) = self.waiting.remove(&u16::from_be_bytes([*high, *low])) else { return };
        let now = Instant::now();
        {
            let mut pings = locked(&self.pings);
            pings.answered += 1;
            pings.round_trip_max_ms = pings.round_trip_max_ms.max(milliseconds(now - sent));
        }
        if let Some(before) = self.last_answer.replace(now) {
            self.note_gap(before, now);
        }
    }

    fn note_gap(&self, before: Instant, now: Instant) {
        let mut pings = locked(&self.pings);
        pings.gap_ms = pings.gap_ms.max(milliseconds(now.saturating_duration_since(before)));
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
