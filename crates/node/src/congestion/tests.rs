//! What the window does on lines of all kinds, beside others and by itself.

use std::time::{Duration, Instant};

use super::sim::{Flow, Line, Sim, Tcp};
use super::window::{Acked, Sign, Window};

const MTU: u16 = 1452;
const INITIAL: u64 = 14_720;
/// What two sessions and a TCP connection share
const SHARED: f64 = 100.0;

fn start() -> Instant {
    Instant::now() + secs(1000)
}

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn auto(begins: u64) -> Flow {
    Flow { controller: Box::new(Window::new(start() + secs(begins), INITIAL, MTU)), begins: secs(begins) }
}

fn tcp(begins: u64) -> Flow {
    Flow { controller: Box::new(Tcp::new()), begins: secs(begins) }
}

/// Mbit/s of each flow between two times on a line.
fn shares(line: Line, flows: Vec<Flow>, from: Duration, to: Duration) -> Vec<f64> {
    let count = flows.len();
    let mut sim = Sim::new(line, start(), flows);
    sim.run(to);
    (0..count).map(|i| sim.mbit(i, from, to)).collect()
}

#[test]
fn random_loss_costs_no_more_than_what_is_lost() {
    for (mbit, loss) in [(500.0, 0.001), (500.0, 0.005), (500.0, 0.01), (50.0, 0.005)] {
        let line = Line::new(mbit, 40, 1.0, loss);
        let got = shares(line, vec![auto(0)], secs(1), secs(8))[0];
        assert!(got > 0.95 * mbit, "{got:.0} of {mbit} Mbit/s at a loss of {loss}");
        let got = shares(line, vec![tcp(0)], secs(1), secs(8))[0];
        assert!(got < 0.8 * mbit, "the line is no test: plain CUBIC gets {got:.0} of {mbit} Mbit/s");
    }
}

#[test]
fn a_line_is_full_within_half_a_second() {
    for loss in [0.0, 0.005] {
        let got = shares(Line::new(500.0, 40, 1.0, loss), vec![auto(0)], ms(500), secs(1))[0];
        assert!(got > 450.0, "{got:.0} of 500 Mbit/s at a loss of {loss}");
    }
}

#[test]
fn two_sessions_leave_a_tcp_connection_a_fifth_and_take_one_each() {
    for depth in [0.5, 1.0, 2.0, 4.0] {
        let line = Line::new(SHARED, 40, depth, 0.0);
        let got = shares(line, vec![auto(0), auto(0), tcp(0)], Duration::ZERO, secs(20));
        assert!(got.iter().all(|mbit| *mbit > SHARED / 5.0), "buffer of {depth}: {got:.0?}");
        assert!(got.iter().sum::<f64>() > 0.9 * SHARED, "buffer of {depth}: {got:.0?}");
    }
}

#[test]
fn who_comes_later_gets_its_share_with_time() {
    for depth in [1.0, 4.0] {
        let line = Line::new(SHARED, 40, depth, 0.0);
        for flows in
            [vec![auto(0), auto(5), tcp(5)], vec![auto(0), auto(0), tcp(5)], vec![tcp(0), auto(5), auto(5)]]
        {
            let got = shares(line, flows, secs(40), secs(80));
            assert!(got.iter().all(|mbit| *mbit > SHARED / 6.0), "buffer of {depth}: {got:.0?}");
        }
    }
}

#[test]
fn slow_start_ends_before_a_deep_buffer_is_full() {
    let mut sim = Sim::new(Line::new(SHARED, 40, 4.0, 0.0), start(), vec![auto(0)]);
    sim.run(secs(1));
    // 500 kB are on the line, 2 MB fit into the buffer; plain slow start doubles until it has lost some.
    assert!((450_000..2_000_000).contains(&sim.window(0)), "{} bytes", sim.window(0));
}

#[test]
fn a_line_that_drops_at_once_is_not_flooded() {
    // No queue to be seen, and losses of what is sent too much.
    let mut sim = Sim::new(Line::new(SHARED, 40, 0.02, 0.0), start(), vec![auto(0)]);
    sim.run(secs(10));
    assert!(sim.window(0) < 650_000, "{} bytes where 500,000 fit", sim.window(0));
    assert!(sim.mbit(0, secs(2), secs(10)) > 0.75 * SHARED);
}

#[test]
fn a_longer_way_is_filled_again() {
    let mut sim = Sim::new(Line::new(SHARED, 10, 4.0, 0.0), start(), vec![auto(0)]);
    sim.run(secs(3));
    sim.line.rtt = ms(80);
    sim.run(secs(30));
    let got = sim.mbit(0, secs(20), secs(30));
    assert!(got > 0.9 * SHARED, "{got:.0} Mbit/s");
}

/// A window that has been used to the full for a second, without a queue.
fn used() -> (Window, Instant) {
    let mut now = start();
    let mut window = Window::new(now, INITIAL, MTU);
    for _ in 0..1000 {
        now += ms(1);
        acknowledge(&mut window, now, 1.0);
    }
    (window, now)
}

/// One packet arrives, 40 ms after it was sent, with that part of the window in flight.
fn acknowledge(window: &mut Window, now: Instant, used: f64) {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    let in_flight = (window.size() as f64 * used) as u64;
    window.acked(now, Acked { sent: now.checked_sub(ms(40)).unwrap(), bytes: MTU.into(), in_flight });
}

#[test]
fn a_window_that_is_not_used_does_not_grow() {
    let (mut window, mut now) = used();
    for threshold in [false, true] {
        if threshold {
            window.congested(now, now, Sign::Marked);
            now += ms(1);
        }
        let before = window.size();
        for _ in 0..2000 {
            now += ms(1);
            acknowledge(&mut window, now, 0.3);
        }
        assert_eq!(window.size(), before);
        for _ in 0..2000 {
            now += ms(1);
            acknowledge(&mut window, now, 1.0);
        }
        assert!(window.size() > before);
    }
}

#[test]
fn marks_and_heavy_loss_are_answered_as_cubic_does_and_once_a_round() {
    for sign in [Sign::Marked, Sign::Lost(200 * 1452)] {
        let (mut window, now) = used();
        let before = window.size();
        window.congested(now, now, sign);
        assert!(window.size().abs_diff(before * 7 / 10) <= 1, "{sign:?}");
        window.congested(now + ms(1), now, sign);
        assert!(window.size().abs_diff(before * 7 / 10) <= 1, "again for what was sent before, {sign:?}");
        window.congested(now + ms(2), now + ms(1), sign);
        assert!(window.size() < before / 2, "{sign:?}");
    }
}

#[test]
fn a_single_loss_without_a_queue_changes_nothing() {
    let (mut window, now) = used();
    let before = window.size();
    window.congested(now, now, Sign::Lost(1452));
    assert_eq!(window.size(), before);
}

#[test]
fn a_loss_with_a_queue_takes_out_what_waits() {
    for (rtt, part) in [(44, 40.0 / 44.0), (50, 0.8), (200, 0.7)] {
        let (mut window, mut now) = used();
        for _ in 0..2 * rtt {
            now += ms(1);
            let sent = now.checked_sub(ms(rtt)).unwrap();
            window.acked(now, Acked { sent, bytes: 1452, in_flight: 0 });
        }
        #[expect(clippy::cast_precision_loss)]
        let before = window.size() as f64;
        window.congested(now, now, Sign::Lost(1452));
        #[expect(clippy::cast_precision_loss)]
        let left = window.size() as f64 / before;
        assert!((left - part).abs() < 0.01, "{left} is left at a round trip of {rtt} ms");
    }
}

#[test]
fn persistent_congestion_leaves_two_packets_and_what_arrives_after_all_undoes_it() {
    let (mut window, now) = used();
    let before = window.size();
    window.congested(now, now, Sign::Persistent);
    assert_eq!(window.size(), 2 * u64::from(MTU));
    assert!(window.threshold().is_some_and(|threshold| threshold.abs_diff(before * 7 / 10) <= 1));
    window.nothing_lost();
    assert_eq!(window.size(), before);
    window.nothing_lost();
    assert_eq!(window.size(), before, "there is nothing more to undo");
}

#[test]
fn a_loss_that_was_none_does_not_undo_an_earlier_one() {
    let (mut window, now) = used();
    window.congested(now, now, Sign::Lost(200 * 1452));
    let after = window.size();
    window.congested(now + ms(2), now + ms(1), Sign::Lost(1452));
    assert_eq!(window.size(), after, "the second is no congestion");
    window.nothing_lost();
    assert_eq!(window.size(), after);
}
