//! What must not happen while nothing is wrong, and what it costs.

use super::net::{Net, ms};
use super::seconds;

#[test]
fn nothing_is_declared_dead_in_ten_minutes_of_loss_jitter_and_naps() {
    let mixes = [[1, 1, 1], [10, 10, 10], [40, 40, 40], [200, 200, 200], [1, 80, 200], [10, 40, 80]];
    for (seed, rtts) in mixes.into_iter().enumerate() {
        let mut net = Net::new(&rtts, seed as u64);
        for road in &mut net.roads {
            (road.loss, road.jitter) = (10, road.rtt / 10); // 2 % there and back
        }
        net.sends = [true, seed % 2 == 0];
        (net.naps, net.nap, net.sound) = (5, ms(200), seed % 3 != 0);
        net.run(ms(600_000));
        assert_eq!(net.deaths(), [], "{rtts:?}");
        assert_eq!(net.decider.failovers(), 0);
        assert!(net.changes().is_empty());
        assert!((0..3).all(|route| net.alive(route)));
    }
}

#[test]
fn nor_by_two_per_cent_each_way() {
    for (seed, rtt) in [1, 20, 100].into_iter().enumerate() {
        let mut net = Net::new(&[rtt; 3], seed as u64);
        for road in &mut net.roads {
            (road.loss, road.jitter) = (20, ms(3));
        }
        net.sends = [true; 2];
        net.run(ms(600_000));
        assert_eq!(net.deaths(), [], "{rtt}");
        assert!(net.changes().is_empty());
    }
}

#[test]
fn nor_while_idle() {
    for (seed, rtt) in [1, 80, 200].into_iter().enumerate() {
        let mut net = Net::new(&[rtt; 3], seed as u64);
        for road in &mut net.roads {
            (road.loss, road.jitter) = (20, road.rtt / 10);
        }
        (net.naps, net.nap, net.sound) = (20, ms(200), true);
        net.run(ms(600_000));
        assert_eq!(net.deaths(), [], "{rtt}");
    }
}

#[test]
fn few_asks_between_naps_show_little() {
    for seed in 100..104 {
        let mut net = Net::new(&[1, 80, 200], seed);
        for road in &mut net.roads {
            (road.loss, road.jitter) = (5, road.rtt / 5);
        }
        net.sends = [true; 2];
        (net.naps, net.nap) = (20, ms(200));
        net.run(ms(120_000));
        assert_eq!(net.deaths(), [], "{seed}");
    }
}

#[test]
fn pauses_of_a_node_condemn_no_circuit() {
    for rtts in [[10, 80, 40], [80, 10, 2]] {
        for pause in [5, 10, 15, 20, 25, 30, 35, 40, 50, 70, 100, 200, 1000] {
            for (node, phase) in (0..2).flat_map(|node| [(node, 0), (node, 3), (node, 7)]) {
                let mut net = Net::busy(&rtts, 3);
                net.sound = true;
                net.run(ms(phase));
                net.asleep[node] = net.now + ms(pause);
                net.run(ms(pause + 1500));
                assert_eq!(net.deaths(), [], "{rtts:?} {pause} {node} {phase}");
            }
        }
    }
}

#[test]
fn asks_are_as_many_as_the_intervals_say() {
    let mut net = Net::new(&[10, 10, 10], 1);
    net.run(ms(5000));
    let (from, asks) = (net.now, net.asks[0]);
    net.run(ms(60_000));
    assert_eq!((net.asks[0] - asks) / seconds(&net, from), 3 * 2, "idle");
    net.sends = [true, false];
    net.run(ms(2000));
    let (from, asks) = (net.now, net.asks[0]);
    net.run(ms(60_000));
    assert_eq!((net.asks[0] - asks) / seconds(&net, from), 3 * 100, "busy");
    net.roads[2].cut = [true; 2];
    net.run(ms(2000));
    let (from, asks) = (net.now, net.asks[0]);
    net.run(ms(20_000));
    assert_eq!((net.asks[0] - asks) / seconds(&net, from), 2 * 100 + 20, "one dead");
    net.sends = [false; 2];
    net.run(ms(2000));
    let (from, asks) = (net.now, net.asks[0]);
    net.run(ms(4000));
    assert_eq!((net.asks[0] - asks) / seconds(&net, from), 2 * 2 + 20, "idle, one dead");
    assert_eq!(net.asks[1], 0, "the Follower has no reason to ask");
}
