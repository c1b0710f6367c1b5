//! What QUIC and sessions get of received buffers.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

#[tokio::test]
async fn packets_of_each_lane_come_from_their_slot_without_labels() {
    let labels = Labels::default();
    let mut socket = label_socket(&labels);
    let (end, _probes) = end(&labels, label(1), neighbor());
    for index in 0..MAX_SLOTS {
        let mut packets = vec![packet(label(1), Lane::Slot(index), &[7; 20]); 3];
        packets[2].truncate(LABEL_HEADER_LEN + 15); // the last packet of a batch may be shorter
        let got = receive(&mut socket, &[Buffer::of(&packets)]);
        assert_eq!(got, [(end.session.slot(index).into(), vec![7; 55], 20)]);
    }
}

#[tokio::test]
async fn a_buffer_of_several_circuits_lanes_and_links_is_cut_into_runs() {
    let labels = Labels::default();
    let mut socket = label_socket(&labels);
    let (a, _probes) = end(&labels, label(1), neighbor());
    let (b, _probes) = end(&labels, label(2), neighbor());
    let buffer = Buffer::of(&[
        packet(label(1), Lane::Slot(0), &[1; 20]),
        packet(label(1), Lane::Slot(0), &[1; 20]),
        vec![0x02; 29],
        packet(label(2), Lane::Slot(0), &[3; 20]),
        packet(label(2), Lane::Slot(1), &[4; 20]),
        packet(label(3), Lane::Slot(0), &[5; 20]),
        packet(label(1), Lane::Slot(0), &[6; 20]),
        vec![0x40; 3],
    ]);
    assert_eq!(
        receive(&mut socket, &[buffer]),
        [
            (a.session.slot(0).into(), vec![1; 40], 20),
            (mapped(neighbor()), vec![2; 29], 29),
            (b.session.slot(0).into(), vec![3; 20], 20),
            (b.session.slot(1).into(), vec![4; 20], 20),
            (mapped(neighbor()), packet(label(3), Lane::Slot(0), &[5; 20]), 29),
            (a.session.slot(0).into(), vec![6; 20], 20),
            (mapped(neighbor()), vec![0x40; 3], 3),
        ],
        "the label of nobody is QUIC's"
    );
}

#[tokio::test]
async fn a_label_counts_only_from_its_neighbors_address() {
    let labels = Labels::default();
    let mut socket = label_socket(&labels);
    let (end, _probes) = end(&labels, label(1), neighbor());
    let slot: SocketAddr = end.session.slot(0).into();
    let home = Buffer::of(&[packet(label(1), Lane::Slot(0), &[7; 20])]);
    let stranger: SocketAddr = "192.0.2.2:3334".parse().unwrap();
    let strange = Buffer { from: stranger, ..home.clone() };
    let mut source = |buffer: &Buffer| receive(&mut socket, std::slice::from_ref(buffer))[0].0;

    assert_eq!(source(&strange), mapped(stranger));
    assert_eq!(end.activity.heard(), Time(0));
    assert_eq!(
        source(&Buffer { from: mapped(neighbor()), ..home.clone() }),
        slot,
        "the IPv4 and the v4-mapped form are one address"
    );
    labels.move_link(8, stranger);
    assert_eq!(source(&home), slot, "another link's move is not this one's");
    labels.move_link(LINK, stranger);
    assert_eq!(source(&strange), slot, "labels follow a link that moved");
    assert_eq!(source(&home), mapped(neighbor()));
    labels.remove(label(1));
    assert_eq!(source(&strange), mapped(stranger));
}

#[tokio::test]
async fn a_packet_that_claims_to_come_from_a_slot_is_dropped() {
    let labels = Labels::default();
    let mut socket = label_socket(&labels);
    let from = labels.new_session().slot(0).into();
    let forged = Buffer { from, ..Buffer::of(&[vec![7; 29]]) };
    assert_eq!(
        receive(&mut socket, &[forged, Buffer::of(&[vec![8; 29]])]),
        [(mapped(neighbor()), vec![8; 29], 29)]
    );
}

#[tokio::test]
async fn probes_go_to_their_session_and_never_to_quic() {
    let labels = Labels::default();
    let mut socket = label_socket(&labels);
    let (end, mut probes) = end(&labels, label(1), neighbor());
    let before = now();
    let probe = |fill: u8| packet(label(1), Lane::Probe, &[fill; 20]);
    let got = receive(&mut socket, &[Buffer::of(&[probe(1), probe(2)])]);
    assert_eq!(got, []);
    for fill in [1, 2] {
        let received = probes.try_recv().unwrap();
        assert_eq!((received.circuit, received.bytes), (5, vec![fill; 20]));
        assert_eq!(received.at, end.activity.heard());
        assert!(received.at >= before);
    }
    assert_eq!(end.activity.heard_data(), Time(0), "a probe is no data");

    let data = packet(label(1), Lane::Slot(1), &[9; 20]);
    let got = receive(&mut socket, &[Buffer::of(&[probe(3), data.clone(), probe(4), data])]);
    assert_eq!(got, vec![(end.session.slot(1).into(), vec![9; 20], 20); 2]);
    assert!(end.activity.heard_data() >= before);
    assert_eq!(probes.try_recv().unwrap().bytes, [3; 20]);
    assert_eq!(probes.try_recv().unwrap().bytes, [4; 20]);
}

#[tokio::test]
async fn probes_that_are_too_long_or_too_many_are_dropped() {
    let labels = Labels::default();
    let mut socket = label_socket(&labels);
    let (_end, mut probes) = end(&labels, label(1), neighbor());
    let probe = |len| Buffer::of(&[packet(label(1), Lane::Probe, &vec![1; len])]);
    assert_eq!(receive(&mut socket, &[probe(0), probe(MAX_PROBE_LEN), probe(MAX_PROBE_LEN + 1)]), []);
    assert_eq!(probes.try_recv().unwrap().bytes.len(), 0);
    assert_eq!(probes.try_recv().unwrap().bytes.len(), MAX_PROBE_LEN);
    assert!(probes.try_recv().is_err());

    assert_eq!(receive(&mut socket, &vec![probe(1); 10]), []);
    assert_eq!(probes.len(), 4, "what the channel holds");
    drop(probes);
    assert_eq!(receive(&mut socket, &[probe(1)]), [], "nobody listens");
}

/// A packet of each owner that there can be. Label 1 and 2 end here, 3 passes, 4 is nobody's.
fn any_packet(number: u8, kind: u8, len: usize) -> Vec<u8> {
    let lane = match kind / 5 {
        3 => Lane::Probe,
        slot => Lane::Slot(slot),
    };
    let mut bytes = match kind % 5 {
        0 => vec![0x3f; len],
        owner => packet(label(owner.into()), lane, &vec![0; len - LABEL_HEADER_LEN]),
    };
    *bytes.last_mut().unwrap() = number;
    bytes
}

proptest! {
    /// Whatever the mixture and however many buffers are free: every packet gets to its owner, once, and in order.
    #[test]
    fn packets_of_each_owner_keep_their_order(
        buffers in prop::collection::vec(
            (10usize..40, prop::collection::vec(0u8..20, 1..20), any::<bool>()),
            1..6,
        ),
        spare in 0usize..40,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _guard = runtime.enter();
        let labels = Labels::default();
        let mut socket = label_socket(&labels);
        let sink = udp();
        runtime.block_on(socket.udp.writable());
        let (a, mut probes_a) = end(&labels, label(1), neighbor());
        let (b, _probes_b) = end(&labels, label(2), neighbor());
        labels.install_relay(label(3), LINK, neighbor(), hop(sink.local_addr().unwrap(), label(30)));

        let mut number = 0;
        let mut expected: HashMap<SocketAddr, Vec<Vec<u8>>> = HashMap::new();
        let (mut relayed, mut probes) = (Vec::new(), Vec::new());
        let mut received = Vec::new();
        for (len, kinds, is_short) in &buffers {
            let mut packets = Vec::new();
            for (i, kind) in kinds.iter().enumerate() {
                let len = if *is_short && i > 0 && i + 1 == kinds.len() { 10 } else { *len };
                let packet = any_packet(number, *kind, len);
                number += 1;
                let body = packet[LABEL_HEADER_LEN.min(len)..].to_vec();
                match (kind % 5, kind / 5) {
                    (1, 3) => probes.push(body),
                    (2, 3) => {}
                    (1, slot) => expected.entry(a.session.slot(slot).into()).or_default().push(body),
                    (2, slot) => expected.entry(b.session.slot(slot).into()).or_default().push(body),
                    (3, _) => relayed.push({
                        let mut packet = packet.clone();
                        label(30).swap_into(&mut packet);
                        packet
                    }),
                    _ => expected.entry(mapped(neighbor())).or_default().push(packet.clone()),
                }
                packets.push(packet);
            }
            received.push(Buffer::of(&packets));
        }
        let (runs, calls) = receive_with(&mut socket, &received, spare);
        let mut got: HashMap<SocketAddr, Vec<Vec<u8>>> = HashMap::new();
        for (source, bytes, stride) in &runs {
            got.entry(*source).or_default().extend(bytes.chunks(*stride).map(<[u8]>::to_vec));
        }
        prop_assert_eq!(got, expected);
        prop_assert!(calls <= 1 || runs.len() > spare, "there was room for all");

        let sent = runtime.block_on(datagrams(&sink, relayed.len()));
        prop_assert_eq!(sent.into_iter().map(|(bytes, _)| bytes).collect::<Vec<_>>(), relayed);
        prop_assert_eq!(labels.transit().dropped().map(|(_, count)| count).sum::<u64>(), 0);
        let mut heard = Vec::new();
        while let Ok(probe) = probes_a.try_recv() {
            heard.push(probe.bytes);
        }
        probes.truncate(4); // what the channel holds
        prop_assert_eq!(heard, probes);
    }

    /// Odd lengths and strides, headers cut off anywhere.
    #[test]
    fn odd_buffers_do_no_harm(
        buffers in prop::collection::vec(
            (prop::collection::vec((0u8..20, 10usize..60), 0..8), 0usize..100, 0usize..400),
            1..5,
        ),
        noise in prop::collection::vec(any::<u8>(), 0..200),
        spare in 0usize..3,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _guard = runtime.enter();
        let labels = Labels::default();
        let mut socket = label_socket(&labels);
        let _ends = [end(&labels, label(1), neighbor()), end(&labels, label(2), neighbor())];
        labels.install_relay(label(3), LINK, neighbor(), hop(udp().local_addr().unwrap(), label(30)));
        let received: Vec<Buffer> = buffers
            .iter()
            .map(|(packets, stride, cut)| {
                let mut bytes: Vec<u8> =
                    packets.iter().flat_map(|(kind, len)| any_packet(1, *kind, *len)).collect();
                bytes.extend(&noise);
                bytes.truncate(*cut);
                Buffer { bytes, stride: *stride, from: neighbor(), ecn: None }
            })
            .collect();
        for (_, bytes, stride) in receive_with(&mut socket, &received, spare).0 {
            prop_assert!(stride > 0 && bytes.len() <= 400);
        }
    }
}
