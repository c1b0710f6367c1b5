//! What a link costs, and how busy a node is: figures steady enough to be told to the whole mesh.
//!
//! [`LinkMetric`] turns the samples of a link into the cost of its LINKS record:
//! windowed-minimum round trip time + loss penalty + configured cost. The minimum leaves queueing out, so load does
//! not move routes about (the ARPANET's delay metric did: Khanna and Zinky, "The revised ARPANET routing metric", 1989).
//! What the mesh is told changes only by more than a fifth and 5 ms. [`Load`] turns utilisation into one of four bands.

use std::collections::VecDeque;
use std::time::Duration;

use crate::time::Time;

/// How far back the least round trip time is taken from: as long as a better route has to stay better
/// ([`crate::select::HOLD`]), and long enough for a full queue to have been empty once.
pub const RTT_WINDOW: Duration = Duration::from_secs(30);
/// Samples of the window are kept as one least value for each span of this length, so that probes every 10 ms take
/// no more memory than PINGs every second.
const RTT_SPAN: Duration = Duration::from_secs(1);
/// A changed cost is told when it differs by more than this...
pub const MIN_CHANGE: u32 = 5_000;
/// ...and by more than one part in this many of what was told last.
pub const MIN_CHANGE_SHARE: u32 = 5;
/// A band of load or loss that a lower figure would leave is kept for this long.
pub const BAND_HOLD: Duration = Duration::from_secs(30);
/// Cost of a link that has not been measured yet, in microseconds: that of a link between continents, so that it
/// is used where nothing else leads on and does not take traffic from measured links.
pub const UNMEASURED: u32 = 200_000;

/// Loss from these shares on (per mille) costs this much (in microseconds), like a detour of as much.
///
/// In steps, so that a PING more or less does not change the cost: one lost of 64 (1.6 %) is nothing yet. The steps
/// are about what a stream pays for repairs over a link of 50 ms; the last one is worse than any detour on Earth.
const LOSS_PENALTIES: [(u16, u32); 5] =
    [(0, 0), (20, 20_000), (50, 60_000), (100, 200_000), (250, 1_000_000)];
/// Loss from which on a route counts as impaired: TCP over it crawls, whatever its delay.
pub const IMPAIRING_LOSS: u16 = 100;

/// The least value of a window of time.
#[derive(Debug, Clone, Default)]
struct WindowedMin {
    /// Spans with their least sample, oldest first, each less than those after it; at most 31.
    spans: VecDeque<(u64, u32)>,
}

impl WindowedMin {
    fn span(now: Time) -> u64 {
        now.0 / u64::try_from(RTT_SPAN.as_micros()).unwrap_or(1)
    }

    fn expire(&mut self, now: Time) {
        let window = RTT_WINDOW.as_secs() / RTT_SPAN.as_secs();
        while self.spans.front().is_some_and(|(span, _)| span + window < Self::span(now)) {
            self.spans.pop_front();
        }
    }

    fn sample(&mut self, value: u32, now: Time) {
        self.expire(now);
        let span = Self::span(now).max(self.spans.back().map_or(0, |(span, _)| *span));
        if self.spans.back().is_some_and(|(last, least)| *last == span && *least <= value) {
            return;
        }
        while self.spans.back().is_some_and(|(_, least)| *least >= value) {
            self.spans.pop_back();
        }
        self.spans.push_back((span, value));
    }

    /// The least sample of the window; the last one where all are older.
    fn get(&self, now: Time) -> Option<u32> {
        let window = RTT_WINDOW.as_secs() / RTT_SPAN.as_secs();
        let fresh = self.spans.iter().find(|(span, _)| span + window >= Self::span(now));
        fresh.or(self.spans.back()).map(|(_, least)| *least)
    }
}

/// A level that rises at once and falls only after [`BAND_HOLD`] below it: then to the highest one since.
#[derive(Debug, Clone, Copy, Default)]
struct Held {
    level: u8,
    /// Since when, and the highest of the lower levels seen since
    below: Option<(Time, u8)>,
}

impl Held {
    fn update(&mut self, level: u8, now: Time) -> u8 {
        if level >= self.level {
            (self.level, self.below) = (level, None);
            return self.level;
        }
        let (since, highest) =
            self.below.map_or((now, level), |(since, highest)| (since, highest.max(level)));
        self.below = Some((since, highest));
        if now - since >= BAND_HOLD {
            // The level that it falls to has to be left in the same way.
            self.level = highest;
            self.below = (level < highest).then_some((now, level));
        }
        self.level
    }
}

/// The cost of one link, as this end sees it.
#[derive(Debug, Clone)]
pub struct LinkMetric {
    configured: u32,
    rtt: WindowedMin,
    loss: Held,
    told: Option<u32>,
}

impl LinkMetric {
    /// A link that nothing is known of, with its configured cost in microseconds.
    pub fn new(configured: u32) -> Self {
        Self { configured, rtt: WindowedMin::default(), loss: Held::default(), told: None }
    }

    /// Takes in one round trip time.
    pub fn rtt(&mut self, rtt: Duration, now: Time) {
        self.rtt.sample(u32::try_from(rtt.as_micros()).unwrap_or(u32::MAX), now);
    }

    /// Takes in the share of packets lost lately, in per mille. Call it at least every few seconds while it is above 0.
    pub fn loss(&mut self, permille: u16, now: Time) {
        let level = LOSS_PENALTIES.iter().rposition(|(from, _)| *from <= permille).unwrap_or(0);
        self.loss.update(u8::try_from(level).unwrap_or_default(), now); // there are five
    }

    /// What the link costs at `now`, in microseconds.
    pub fn cost(&self, now: Time) -> u32 {
        let penalty = LOSS_PENALTIES.get(usize::from(self.loss.level)).map_or(0, |(_, penalty)| *penalty);
        self.rtt.get(now).unwrap_or(UNMEASURED).saturating_add(penalty).saturating_add(self.configured)
    }

    /// Another configured cost, in microseconds. Where it is another one the mesh is told, however little it differs; returns
    /// what to tell.
    pub fn configure(&mut self, configured: u32, now: Time) -> Option<u32> {
        if std::mem::replace(&mut self.configured, configured) == configured {
            return None;
        }
        self.told = Some(self.cost(now));
        self.told
    }

    /// What the mesh was told last.
    pub fn told(&self) -> Option<u32> {
        self.told
    }

    /// The cost to tell the mesh where it has changed by enough since it was told last (or never was); it then
    /// counts as told.
    pub fn advertise(&mut self, now: Time) -> Option<u32> {
        let cost = self.cost(now);
        if self.told.is_some_and(|told| !worth_telling(told, cost)) {
            return None;
        }
        self.told = Some(cost);
        self.told
    }
}

/// Whether a cost differs enough from the one told: by more than a fifth of it and by more than 5 ms.
pub fn worth_telling(told: u32, cost: u32) -> bool {
    told.abs_diff(cost) > MIN_CHANGE.max(told / MIN_CHANGE_SHARE)
}

/// How busy a node or a route is. Steers new flows only and is no part of any cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum LoadBand {
    /// Below a quarter
    #[default]
    Idle,
    /// A quarter to a half
    Light,
    /// A half to four fifths
    Busy,
    /// Four fifths or more
    Full,
}

impl LoadBand {
    /// All bands, the least busy first.
    pub const ALL: [Self; 4] = [Self::Idle, Self::Light, Self::Busy, Self::Full];

    /// The band of a utilisation in per mille.
    pub fn of(permille: u16) -> Self {
        match permille {
            0..250 => Self::Idle,
            250..500 => Self::Light,
            500..800 => Self::Busy,
            800.. => Self::Full,
        }
    }

    /// 0 to 3, as on the wire.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// The band of a number from the wire; what is above 3 is full.
    pub fn from_number(number: u8) -> Self {
        Self::ALL.get(usize::from(number)).copied().unwrap_or(Self::Full)
    }
}

/// The load band of this node: up at once, down after 30 s below.
#[derive(Debug, Clone, Default)]
pub struct Load(Held);

impl Load {
    /// Takes in the utilisation in per mille (of the busiest of processor and links) and returns the band.
    pub fn update(&mut self, permille: u16, now: Time) -> LoadBand {
        LoadBand::from_number(self.0.update(LoadBand::of(permille).number(), now))
    }

    /// The band.
    pub fn band(&self) -> LoadBand {
        LoadBand::from_number(self.0.level)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(n: u64) -> Time {
        Time(n * 1000)
    }

    fn link(samples: &[(u64, u32)]) -> LinkMetric {
        let mut link = LinkMetric::new(0);
        for (at, rtt) in samples {
            link.rtt(Duration::from_millis((*rtt).into()), ms(*at));
        }
        link
    }

    #[test]
    fn cost_is_least_rtt_and_loss_and_what_is_configured() {
        let mut link = LinkMetric::new(3_000);
        assert_eq!(link.cost(ms(0)), UNMEASURED + 3_000);
        link.rtt(Duration::from_millis(12), ms(0));
        link.rtt(Duration::from_millis(40), ms(100));
        assert_eq!(link.cost(ms(200)), 15_000);
        link.loss(30, ms(200));
        assert_eq!(link.cost(ms(200)), 35_000);
        let mut dear = LinkMetric::new(u32::MAX);
        dear.loss(1000, ms(0));
        assert_eq!(dear.cost(ms(0)), u32::MAX);
    }

    #[test]
    fn a_queue_does_not_count_for_half_a_minute_and_a_longer_way_does() {
        let mut link = link(&[(0, 10)]);
        for second in 1..30 {
            link.rtt(Duration::from_millis(80), ms(second * 1000));
            assert_eq!(link.cost(ms(second * 1000)), 10_000, "after {second} s");
        }
        link.rtt(Duration::from_millis(80), ms(31_500));
        assert_eq!(link.cost(ms(31_500)), 80_000);
        assert_eq!(link.cost(ms(500_000)), 80_000, "silence keeps the last one");
    }

    #[test]
    fn small_changes_are_not_told() {
        let mut link = link(&[(0, 10)]);
        assert_eq!(link.advertise(ms(0)), Some(10_000));
        assert_eq!(link.advertise(ms(0)), None);
        for (told, cost, worth) in [
            (10_000, 15_000, false),
            (10_000, 15_001, true),
            (10_000, 5_000, false),
            (10_000, 4_999, true),
            (100_000, 120_000, false),
            (100_000, 120_001, true),
            (0, 5_000, false),
            (u32::MAX, 0, true),
        ] {
            assert_eq!(worth_telling(told, cost), worth, "{told} to {cost}");
        }
    }

    #[test]
    fn another_configured_cost_is_told_however_small() {
        let mut link = LinkMetric::new(0);
        link.rtt(Duration::from_millis(20), Time(0));
        assert_eq!(link.advertise(Time(0)), Some(20_000));
        assert_eq!(link.configure(0, Time(1)), None);
        assert_eq!(link.configure(1_000, Time(1)), Some(21_000));
        assert_eq!(link.told(), Some(21_000));
    }

    #[test]
    fn loss_shows_at_once_and_is_forgotten_slowly() {
        let mut link = link(&[(0, 10)]);
        link.loss(300, ms(0));
        assert_eq!(link.cost(ms(0)), 1_010_000);
        for second in 0..30 {
            link.loss(16, ms(1000 + second * 1000));
            assert_eq!(link.cost(ms(second * 1000)), 1_010_000);
        }
        link.loss(0, ms(31_000));
        assert_eq!(link.cost(ms(31_000)), 10_000);
    }

    #[test]
    fn a_band_stands_for_half_a_minute() {
        let mut load = Load::default();
        assert_eq!(load.update(600, ms(0)), LoadBand::Busy);
        assert_eq!(load.update(100, ms(1000)), LoadBand::Busy);
        assert_eq!(load.update(300, ms(20_000)), LoadBand::Busy);
        assert_eq!(load.update(100, ms(30_999)), LoadBand::Busy);
        assert_eq!(load.update(100, ms(31_000)), LoadBand::Light, "the busiest of the time");
        assert_eq!(load.update(100, ms(61_000)), LoadBand::Idle);
        assert_eq!(load.update(1000, ms(61_001)), LoadBand::Full);
        assert_eq!(load.band(), LoadBand::Full);
    }

    #[test]
    fn bands_have_numbers() {
        for band in LoadBand::ALL {
            assert_eq!(LoadBand::from_number(band.number()), band);
        }
        assert_eq!(LoadBand::from_number(200), LoadBand::Full);
        assert_eq!(
            [0, 249, 250, 500, 799, 800, 2000].map(|load| LoadBand::of(load).number()),
            [0, 0, 1, 2, 2, 3, 3]
        );
    }

    proptest! {
        #[test]
        fn the_least_of_the_window_is_what_keeping_all_samples_finds(
            samples in prop::collection::vec((0u64..4000, 1u32..1000), 1..200),
        ) {
            let mut window = WindowedMin::default();
            let mut kept: Vec<(u64, u32)> = Vec::new();
            let mut now = 0;
            for (gap, value) in samples {
                now += gap;
                window.sample(value, ms(now));
                kept.push((now / 1000, value)); // in whole seconds, as it forgets them
                let expected = kept.iter().filter(|(at, _)| at + 30 >= now / 1000).map(|(_, value)| *value).min();
                prop_assert_eq!(window.get(ms(now)), expected);
                prop_assert!(window.spans.len() <= 31);
            }
        }

        #[test]
        fn a_wavering_load_lowers_the_band_at_most_once_in_half_a_minute(
            loads in prop::collection::vec(0u16..1000, 600),
        ) {
            let mut load = Load::default();
            let mut downs: Vec<u64> = Vec::new();
            let mut before = load.band();
            for (second, permille) in (0u64..).zip(loads) {
                let band = load.update(permille, ms(second * 1000));
                if band < before {
                    downs.push(second);
                }
                before = band;
            }
            prop_assert!(downs.windows(2).all(|pair| pair[1] - pair[0] >= 30), "{:?}", downs);
        }

        #[test]
        fn a_steady_link_is_told_once(base in 1u32..400_000, jitter in prop::collection::vec(0u32..50_000, 200)) {
            let mut link = LinkMetric::new(0);
            link.rtt(Duration::from_micros(base.into()), ms(0));
            let mut told = 0;
            for (second, extra) in (0u64..).zip(jitter) {
                // One sample in 20 finds no queue.
                let rtt = if second % 20 == 0 { base } else { base + extra };
                link.rtt(Duration::from_micros(rtt.into()), ms(second * 1000));
                told += u32::from(link.advertise(ms(second * 1000)).is_some());
            }
            prop_assert_eq!(told, 1);
        }
    }
}
