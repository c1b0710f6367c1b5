#![expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
//! A line with a queue, loss, and several senders, on a virtual clock: what windows do there.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::{Duration, Instant};

use super::window::{Acked, Sign, Window};

const PACKET: u64 = 1452;
/// Packets acknowledged after one that make it lost (RFC 9002, section 6.1.1).
const REORDERED: u64 = 3;
/// How long a sender waits for any acknowledgement.
const PATIENCE: Duration = Duration::from_millis(500);
/// Spans in which arrivals are counted.
const SPAN: Duration = Duration::from_millis(100);

/// The way from the senders to their receivers, and back.
#[derive(Clone, Copy)]
pub(super) struct Line {
    pub(super) mbit: f64,
    pub(super) rtt: Duration,
    /// Bytes that may wait before the line
    pub(super) buffer: f64,
    /// Part of the packets that get lost whatever the load
    pub(super) loss: f64,
}

impl Line {
    /// A line with a buffer of `depth` bandwidth-delay products.
    pub(super) fn new(mbit: f64, rtt: u64, depth: f64, loss: f64) -> Self {
        let rtt = Duration::from_millis(rtt);
        Self { mbit, rtt, buffer: depth * mbit * 125_000.0 * rtt.as_secs_f64(), loss }
    }

    fn bytes_per_second(&self) -> f64 {
        self.mbit * 125_000.0
    }
}

pub(super) trait Controller {
    fn acked(&mut self, now: Instant, acked: Acked);
    fn lost(&mut self, now: Instant, sent: Instant, bytes: u64);
    fn silent(&mut self, now: Instant);
    fn window(&self) -> u64;
}

impl Controller for Window {
    fn acked(&mut self, now: Instant, acked: Acked) {
        Self::acked(self, now, acked);
    }

    fn lost(&mut self, now: Instant, sent: Instant, bytes: u64) {
        self.congested(now, sent, Sign::Lost(bytes));
    }

    fn silent(&mut self, now: Instant) {
        self.congested(now, now, Sign::Persistent);
    }

    fn window(&self) -> u64 {
        self.size()
    }
}

/// CUBIC as TCP has it, by itself and as short as can be: a competitor, and what `Window` is held against.
pub(super) struct Tcp {
    size: f64,
    threshold: f64,
    plateau: f64,
    k: f64,
    reno: f64,
    epoch: Option<Instant>,
    reduced: Option<Instant>,
    shortest: Duration,
}

impl Tcp {
    pub(super) fn new() -> Self {
        Self {
            size: 10.0,
            threshold: f64::INFINITY,
            plateau: 0.0,
            k: 0.0,
            reno: 0.0,
            epoch: None,
            reduced: None,
            shortest: Duration::MAX,
        }
    }
}

impl Controller for Tcp {
    fn acked(&mut self, now: Instant, acked: Acked) {
        if self.reduced.is_some_and(|reduced| acked.sent <= reduced) {
            return;
        }
        let (rtt, packets) = (now - acked.sent, acked.bytes as f64 / PACKET as f64);
        self.shortest = self.shortest.min(rtt);
        if self.size < self.threshold {
            self.size += packets;
            if rtt > self.shortest + (self.shortest / 8).max(Duration::from_millis(4)) && self.size > 16.0 {
                self.threshold = self.size;
            }
            return;
        }
        let epoch = *self.epoch.get_or_insert_with(|| {
            self.plateau = self.plateau.max(self.size);
            self.k = ((self.plateau - self.size) / 0.4).cbrt();
            self.reno = self.size;
            now
        });
        let t = (now - epoch + rtt).as_secs_f64();
        let target = (self.plateau + 0.4 * (t - self.k).powi(3)).clamp(self.size, 1.5 * self.size);
        self.reno += 0.53 * packets / self.size;
        self.size = (self.size + (target - self.size) / self.size * packets).max(self.reno);
    }

    fn lost(&mut self, now: Instant, sent: Instant, _: u64) {
        if self.reduced.is_some_and(|reduced| sent <= reduced) {
            return;
        }
        self.plateau = if self.size < self.plateau { 0.85 * self.size } else { self.size };
        self.size = (0.7 * self.size).max(2.0);
        self.threshold = self.size;
        self.epoch = None;
        self.reduced = Some(now);
    }

    fn silent(&mut self, _: Instant) {
        self.threshold = (0.7 * self.size).max(2.0);
        self.size = 1.0;
        self.epoch = None;
    }

    fn window(&self) -> u64 {
        (self.size * PACKET as f64) as u64
    }
}

/// One sender with endless data.
pub(super) struct Flow {
    pub(super) controller: Box<dyn Controller>,
    /// When it begins
    pub(super) begins: Duration,
}

/// What a sender knows of its packets.
struct Sender {
    flow: Flow,
    /// Number and time of each packet in flight, in order
    in_flight: VecDeque<(u64, Instant)>,
    next: u64,
    /// When the pacer lets the next packet go
    paced: Instant,
    rtt: Duration,
    heard: Instant,
    wakes: Option<Instant>,
    arrived: Vec<u64>,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A packet of a sender is acknowledged
    Acked(usize, u64),
    /// A sender may send
    Wake(usize),
}

/// Senders on one line.
pub(super) struct Sim {
    pub(super) line: Line,
    start: Instant,
    now: Instant,
    senders: Vec<Sender>,
    events: BinaryHeap<Reverse<(Instant, u64, Event)>>,
    count: u64,
    /// When the queue will be empty
    idle: Instant,
    random: u64,
}

impl Sim {
    pub(super) fn new(line: Line, start: Instant, flows: Vec<Flow>) -> Self {
        let senders = flows.into_iter().map(|flow| Sender {
            in_flight: VecDeque::new(),
            next: 0,
            paced: start + flow.begins,
            rtt: Duration::from_millis(100),
            heard: start + flow.begins,
            wakes: None,
            arrived: Vec::new(),
            flow,
        });
        let senders = senders.collect();
        let random = 0x9e37_79b9_7f4a_7c15;
        let mut sim = Self {
            line,
            start,
            now: start,
            senders,
            events: BinaryHeap::new(),
            count: 0,
            idle: start,
            random,
        };
        for i in 0..sim.senders.len() {
            sim.wake(i, sim.senders[i].paced);
        }
        sim
    }

    /// Lets time pass until `end` after the start.
    pub(super) fn run(&mut self, end: Duration) {
        let end = self.start + end;
        while let Some(Reverse((at, ..))) = self.events.peek()
            && *at <= end
        {
            let Some(Reverse((at, _, event))) = self.events.pop() else { return };
            self.now = at;
            match event {
                Event::Acked(i, number) => self.acked(i, number),
                Event::Wake(i) if self.senders[i].wakes == Some(at) => {
                    self.senders[i].wakes = None;
                    self.send(i);
                }
                Event::Wake(_) => {}
            }
        }
        self.now = end;
    }

    /// Mbit/s that arrived from sender `i` between two times after the start.
    pub(super) fn mbit(&self, i: usize, from: Duration, to: Duration) -> f64 {
        let spans = |time: Duration| (time.as_millis() / SPAN.as_millis()) as usize;
        let arrived: u64 = self.senders[i].arrived.iter().take(spans(to)).skip(spans(from)).sum();
        arrived as f64 / 125_000.0 / to.saturating_sub(from).as_secs_f64()
    }

    pub(super) fn window(&self, i: usize) -> u64 {
        self.senders[i].flow.controller.window()
    }

    fn acked(&mut self, i: usize, number: u64) {
        let now = self.now;
        let span = ((now - self.start).as_millis() / SPAN.as_millis()) as usize;
        let sender = &mut self.senders[i];
        sender.heard = now;
        if sender.arrived.len() <= span {
            sender.arrived.resize(span + 1, 0);
        }
        sender.arrived[span] += PACKET;
        if let Ok(at) = sender.in_flight.binary_search_by_key(&number, |(number, _)| *number)
            && let Some((_, sent)) = sender.in_flight.remove(at)
        {
            sender.rtt = (sender.rtt * 7 + (now - sent)) / 8;
            let in_flight = sender.in_flight.len() as u64 * PACKET;
            sender.flow.controller.acked(now, Acked { sent, bytes: PACKET, in_flight });
        }
        let lost = sender.in_flight.partition_point(|(other, _)| other + REORDERED <= number);
        if let Some((_, sent)) = sender.in_flight.drain(..lost).next_back() {
            sender.flow.controller.lost(now, sent, lost as u64 * PACKET);
        }
        self.send(i);
    }

    fn send(&mut self, i: usize) {
        let now = self.now;
        loop {
            let sender = &mut self.senders[i];
            if !sender.in_flight.is_empty() && now >= sender.heard + PATIENCE {
                sender.in_flight.clear();
                sender.heard = now;
                sender.flow.controller.silent(now);
            }
            let window = sender.flow.controller.window();
            if (sender.in_flight.len() as u64 + 1) * PACKET > window {
                let patience = sender.heard + PATIENCE;
                return self.wake(i, patience);
            }
            if now < sender.paced {
                let paced = sender.paced;
                return self.wake(i, paced);
            }
            let pace = sender.rtt.mul_f64(PACKET as f64 / (1.25 * window as f64));
            // Ten packets at once, as the pacer of QUIC does.
            sender.paced = sender.paced.max(now.checked_sub(pace * 10).unwrap_or(now)) + pace;
            let number = sender.next;
            sender.next += 1;
            if sender.in_flight.is_empty() {
                sender.heard = now;
            }
            sender.in_flight.push_back((number, now));
            self.pass(i, number);
        }
    }

    /// A packet meets the queue, the line, and what is behind it.
    fn pass(&mut self, i: usize, number: u64) {
        let rate = self.line.bytes_per_second();
        let waits = self.idle.saturating_duration_since(self.now);
        if waits.as_secs_f64() * rate + PACKET as f64 > self.line.buffer.max(PACKET as f64 * 10.0) {
            return;
        }
        self.idle = self.idle.max(self.now) + Duration::from_secs_f64(PACKET as f64 / rate);
        if self.random() < self.line.loss {
            return;
        }
        self.schedule(self.idle + self.line.rtt, Event::Acked(i, number));
    }

    fn wake(&mut self, i: usize, at: Instant) {
        let sender = &mut self.senders[i];
        if sender.wakes.is_none_or(|wakes| at < wakes) {
            sender.wakes = Some(at);
            self.schedule(at, Event::Wake(i));
        }
    }

    fn schedule(&mut self, at: Instant, event: Event) {
        self.count += 1;
        self.events.push(Reverse((at, self.count, event)));
    }

    /// Xorshift: between 0 and 1.
    fn random(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as f64 / (1u64 << 53) as f64
    }
}
