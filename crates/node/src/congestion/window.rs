//! The congestion window: CUBIC (RFC 9438) that takes a loss without a queue for no congestion.

use std::time::{Duration, Instant};

use super::delay::Delay;

/// Part of the window that a reduction leaves at least (RFC 9438, section 4.6).
const BETA: f64 = 0.7;
/// How fast the cubic function grows, in packets per second cubed (RFC 9438, section 5).
const C: f64 = 0.4;
/// Packets a round that make CUBIC as fast as Reno (RFC 9438, section 4.3).
const ALPHA: f64 = 3.0 * (1.0 - BETA) / (1.0 + BETA);
/// The window grows to this multiple within a round at most (RFC 9438, section 4.4).
const MOST_GROWTH: f64 = 1.5;
/// How much faster time goes by for the cubic function without a queue: what the window leaves then, nobody waits for.
const HURRY: u32 = 2;
/// Beyond the old maximum, and without a queue, the line has more to give: growth in each round. Eight rounds and a
/// half double the window; what it overshoots by stays below what a buffer of a tenth of the line's delay takes.
const PROBE: f64 = 1.0 + 1.0 / 12.0;
/// Part of what is sent that may be lost without a queue. More is congestion that drops at once: a policer, or a
/// buffer too small to be seen (also what BBR takes, draft-ietf-ccwg-bbr, `BBR.LossThresh`).
const MOST_LOSS: f64 = 0.02;
/// Packets over which that part is told, or one round if that has more.
const LEAST_TALLY: f64 = 256.0;
/// Of fewer packets it is not told: four losses are never too many, however few arrived.
const FEW_PACKETS: f64 = 64.0;
/// Rounds of growing carefully before slow start ends (RFC 9406, `CSS_ROUNDS`).
const CAREFUL_ROUNDS: u32 = 5;
/// Part of a window on the way below which it ends at once: half of it is in the queue.
const FILLED: f64 = 0.5;
/// How much slower the window grows in them (RFC 9406, `CSS_GROWTH_DIVISOR`).
const CAREFUL_DIVISOR: f64 = 4.0;
/// A rise of the round trip from one round to the next that ends slow start: an eighth within these (RFC 9406).
const LEAST_RISE: Duration = Duration::from_millis(4);
const MOST_RISE: Duration = Duration::from_millis(16);
/// Packets that may always be in flight (RFC 9002, section 7.2).
const LEAST_PACKETS: f64 = 2.0;

/// What one acknowledgement brought.
#[derive(Debug, Clone, Copy)]
pub(super) struct Acked {
    /// When the last of the packets was sent
    pub(super) sent: Instant,
    /// Their bytes
    pub(super) bytes: u64,
    /// Bytes that are still in flight
    pub(super) in_flight: u64,
}

/// Why packets count as dropped for congestion, or may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    /// So many bytes are lost
    Lost(u64),
    /// A router has marked them (ECN)
    Marked,
    /// Nothing came through for some probe timeouts (RFC 9002, section 7.6)
    Persistent,
}

/// How many bytes may be in flight on one path.
#[derive(Debug, Clone)]
pub(super) struct Window {
    mtu: f64,
    shape: Shape,
    delay: Delay,
    tally: Tally,
    /// When the last reduction was; what was sent before tells nothing new
    reduced: Option<Instant>,
    /// What the last reduction changed, in case that nothing was lost
    undo: Option<Shape>,
}

/// Size of the window and how it grows.
#[derive(Debug, Clone)]
struct Shape {
    size: f64,
    /// Below it: slow start
    threshold: f64,
    /// Careful slow start: shortest round trip at its beginning, rounds since
    careful: Option<(Duration, u32)>,
    curve: Curve,
}

/// The cubic function since the last reduction.
#[derive(Debug, Clone)]
struct Curve {
    /// Window before the reduction: `W_max`
    plateau: f64,
    /// Time to get back there: `K`, seconds
    k: f64,
    /// Time in which the window was in use
    elapsed: Duration,
    /// When it last was
    used: Option<Instant>,
    /// What Reno would have: `W_est`
    reno: f64,
}

/// Bytes that arrived and that were lost of late.
#[derive(Debug, Clone, Default)]
struct Tally {
    arrived: f64,
    lost: f64,
}

impl Window {
    /// A window of `size` bytes.
    pub(super) fn new(now: Instant, size: u64, mtu: u16) -> Self {
        let size = float(size);
        let shape = Shape { size, threshold: f64::INFINITY, careful: None, curve: Curve::from(size) };
        Self {
            mtu: mtu.into(),
            shape,
            delay: Delay::new(now),
            tally: Tally::default(),
            reduced: None,
            undo: None,
        }
    }

    /// Bytes that may be in flight.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub(super) fn size(&self) -> u64 {
        self.shape.size as u64
    }

    /// Where slow start ends, once it has.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub(super) fn threshold(&self) -> Option<u64> {
        self.shape.threshold.is_finite().then_some(self.shape.threshold as u64)
    }

    /// Packets hold this many bytes from now on.
    pub(super) fn set_mtu(&mut self, mtu: u16) {
        self.mtu = mtu.into();
        self.shape.size = self.shape.size.max(self.least());
    }

    /// Packets arrived.
    pub(super) fn acked(&mut self, now: Instant, acked: Acked) {
        let begins = self.delay.sample(now, acked.sent);
        if self.is_old(acked.sent) {
            return;
        }
        let bytes = float(acked.bytes);
        self.tally.arrived(bytes, begins, self.mtu);
        let used = (float(acked.in_flight) + bytes) / self.shape.size;
        if self.shape.size < self.shape.threshold {
            self.slow_start(bytes, used, begins);
        } else {
            self.avoid_congestion(now, now.saturating_duration_since(acked.sent), bytes, used);
        }
    }

    /// Packets, the last of them sent at `sent`, may say that there is congestion.
    pub(super) fn congested(&mut self, now: Instant, sent: Instant, sign: Sign) {
        if self.is_old(sent) && sign != Sign::Persistent {
            return;
        }
        let keep = match sign {
            Sign::Persistent => return self.collapse(),
            Sign::Marked => BETA,
            Sign::Lost(bytes) => {
                self.tally.lost += float(bytes);
                if self.tally.is_high(self.mtu) { BETA } else { self.delay.on_the_way().max(BETA) }
            }
        };
        // A later loss that turns out to be none says nothing of earlier ones.
        self.undo = (keep < 1.0 && sign != Sign::Marked).then(|| self.shape.clone());
        if keep < 1.0 {
            self.shape.reduce(keep, self.mtu, self.least());
            self.tally = Tally::default();
            self.reduced = Some(now);
        }
    }

    /// Nothing was lost after all.
    pub(super) fn nothing_lost(&mut self) {
        if let Some(shape) = self.undo.take()
            && self.shape.size < shape.size
        {
            self.shape = shape;
            self.reduced = None;
        }
    }

    fn least(&self) -> f64 {
        LEAST_PACKETS * self.mtu
    }

    fn is_old(&self, sent: Instant) -> bool {
        self.reduced.is_some_and(|reduced| sent <= reduced)
    }

    /// HyStart++ (RFC 9406). `used` is the part of the window that was in flight. Half is enough: the rest is still being
    /// earned while the window doubles.
    fn slow_start(&mut self, bytes: f64, used: f64, begins: bool) {
        let shape = &mut self.shape;
        if used > 0.5 {
            shape.size += if shape.careful.is_some() { bytes / CAREFUL_DIVISOR } else { bytes };
        }
        if begins && let Some((_, rounds)) = &mut shape.careful {
            *rounds += 1;
            if *rounds >= CAREFUL_ROUNDS || self.delay.on_the_way() < FILLED {
                shape.threshold = shape.size;
            }
        }
        if let Some(round) = self.delay.round() {
            let last = self.delay.last_round().unwrap_or(Duration::MAX);
            let rise = (last / 8).clamp(LEAST_RISE, MOST_RISE);
            shape.careful = match shape.careful {
                None if round >= last.saturating_add(rise) => Some((round, 0)),
                // The rise was noise.
                Some((start, _)) if round < start => None,
                careful => careful,
            };
        }
        if shape.size >= shape.threshold {
            shape.careful = None;
            shape.curve = Curve::from(shape.size);
        }
    }

    fn avoid_congestion(&mut self, now: Instant, rtt: Duration, bytes: f64, used: f64) {
        let shape = &mut self.shape;
        let curve = &mut shape.curve;
        // A window that is not in use has proved nothing, and its time stands still (RFC 9438, section 5.8).
        if used < 0.75 {
            curve.used = None;
            return;
        }
        let since =
            curve.used.replace(now).map_or(Duration::ZERO, |used| now.saturating_duration_since(used));
        let is_free = self.delay.on_the_way() >= 1.0;
        curve.elapsed += since.min(rtt) * if is_free { HURRY } else { 1 };
        curve.reno += if curve.reno < curve.plateau { ALPHA } else { 1.0 } * self.mtu * bytes / shape.size;
        let t = curve.elapsed.as_secs_f64();
        let mut target = curve.plateau + C * self.mtu * (t + rtt.as_secs_f64() - curve.k).powi(3);
        let probe = is_free && t >= curve.k;
        if probe {
            target = target.max(shape.size * PROBE);
        }
        let target = target.clamp(shape.size, shape.size * MOST_GROWTH);
        shape.size = (shape.size + (target - shape.size) * bytes / shape.size).max(curve.reno);
        if probe {
            // Once a queue shows, growth goes on from here.
            *curve = Curve { used: curve.used, ..Curve::from(shape.size) };
        }
    }

    fn collapse(&mut self) {
        self.undo = Some(self.shape.clone());
        let least = self.least();
        self.shape.reduce(BETA, self.mtu, least);
        self.shape.size = least;
        self.tally = Tally::default();
        // What arrives from now on counts, whenever it was sent.
        self.reduced = None;
    }
}

impl Shape {
    fn reduce(&mut self, keep: f64, mtu: f64, least: f64) {
        // Fast convergence: who is shrinking leaves room (RFC 9438, section 4.7).
        let plateau =
            if self.size < self.curve.plateau { self.size * f64::midpoint(1.0, keep) } else { self.size };
        self.size = (self.size * keep).max(least);
        self.threshold = self.size;
        self.careful = None;
        self.curve = Curve::from(self.size);
        self.curve.plateau = plateau.max(self.size);
        self.curve.k = ((self.curve.plateau - self.size) / mtu / C).cbrt();
    }
}

impl Curve {
    /// A curve that starts at its plateau.
    fn from(size: f64) -> Self {
        Self { plateau: size, k: 0.0, elapsed: Duration::ZERO, used: None, reno: size }
    }
}

impl Tally {
    fn arrived(&mut self, bytes: f64, begins: bool, mtu: f64) {
        self.arrived += bytes;
        if begins && self.arrived + self.lost > LEAST_TALLY * mtu {
            self.arrived /= 2.0;
            self.lost /= 2.0;
        }
    }

    /// Whether more is lost than chance explains at a loss of `MOST_LOSS`: by three standard deviations.
    fn is_high(&self, mtu: f64) -> bool {
        let likely = MOST_LOSS * ((self.arrived + self.lost) / mtu).max(FEW_PACKETS);
        self.lost / mtu > likely + 3.0 * likely.sqrt()
    }
}

/// Windows stay far below 2^52 bytes.
#[expect(clippy::cast_precision_loss)]
fn float(bytes: u64) -> f64 {
    bytes as f64
}
