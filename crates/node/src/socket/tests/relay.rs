//! Circuits that pass this node.

use noq::AsyncUdpSocket as _;

use super::*;

fn dropped(labels: &Labels) -> Vec<(&'static str, u64)> {
    labels.transit().dropped().filter(|(_, count)| *count > 0).collect()
}

async fn relay(labels: &Labels) -> LabelSocket {
    let socket = label_socket(labels);
    socket.udp.writable().await;
    socket
}

/// Sends packets of one length, but for the last, to `to`.
fn send(socket: &Socket, to: SocketAddr, packets: &[Vec<u8>], ecn: Option<EcnCodepoint>) {
    let contents = packets.concat();
    let batch = Batch { to, from: None, ecn, header: &[], contents: &[&contents], segment: packets[0].len() };
    socket.try_send(&batch).unwrap();
}

#[tokio::test]
async fn packets_pass_with_another_label_and_are_otherwise_the_same() {
    let labels = Labels::default();
    let mut node = relay(&labels).await;
    let (a, b) = (udp(), udp());
    a.writable().await;
    let (from, to) = (a.local_addr().unwrap(), b.local_addr().unwrap());
    for (link, neighbor) in [(LINK, "a"), (LINK + 1, "b")] {
        labels.link_up(link, &neighbor.parse().unwrap());
    }
    labels.install_relay(label(1), LINK, from, hop(to, label(2)));
    let address = canonical(node.local_addr().unwrap());
    let lanes = [Lane::Slot(0), Lane::Slot(1), Lane::Slot(2), Lane::Probe];
    let packets = |label| -> Vec<_> {
        let full = |(fill, lane)| packet(label, lane, &[fill; 1000]);
        let short = packet(label, Lane::Slot(0), b"short");
        (0u8..).zip(lanes.into_iter().cycle().take(9)).map(full).chain([short]).collect()
    };

    let quic = tokio::spawn(async move {
        let mut storage = vec![vec![0; 1 << 16]; 32];
        let mut bufs: Vec<_> = storage.iter_mut().map(|bytes| IoSliceMut::new(bytes)).collect();
        let mut meta = vec![RecvMeta::default(); 32];
        let count = std::future::poll_fn(|cx| node.poll_recv(cx, &mut bufs, &mut meta)).await.unwrap();
        (count, meta[0].len)
    });
    for ecn in [None, Some(EcnCodepoint::Ect0), Some(EcnCodepoint::Ce)] {
        send(&a, address, &packets(label(1)), ecn);
        let expected: Vec<_> = packets(label(2)).into_iter().map(|packet| (packet, ecn)).collect();
        assert_eq!(datagrams(&b, 10).await, expected);
    }
    let transit = labels.transit();
    assert_eq!((transit.packets, transit.bytes), (30, 3 * (9 * 1009 + 14)));
    let bytes = transit.bytes;
    assert_eq!(labels.peer_bytes(), [("a".to_owned(), bytes, 0), ("b".to_owned(), 0, bytes)]);
    assert_eq!(dropped(&labels), []);
    // It goes on receiving by itself, and the first packet that QUIC sees is QUIC's.
    send(&a, address, &[vec![0x40; 50]], None);
    let got = tokio::time::timeout(Duration::from_secs(5), quic).await.expect("QUIC got nothing").unwrap();
    assert_eq!(got, (1, 50));
}

#[tokio::test]
async fn relaying_takes_turns_with_other_tasks() {
    let labels = Labels::default();
    let mut node = relay(&labels).await;
    let (a, b) = (udp(), udp());
    a.writable().await;
    labels.install_relay(label(1), LINK, a.local_addr().unwrap(), hop(b.local_addr().unwrap(), label(2)));
    let address = canonical(node.local_addr().unwrap());
    let count = MAX_ROUNDS as u64 + 2;
    for _ in 0..count {
        send(&a, address, &[packet(label(1), Lane::Slot(0), b"one")], None);
    }
    // With one buffer, each round brings one packet. It goes on by itself: nothing more is sent.
    let mut buffer = [0; 100];
    let mut done = Vec::new();
    let all = std::future::poll_fn(|cx| {
        let mut bufs = [IoSliceMut::new(&mut buffer)];
        assert!(node.poll_recv(cx, &mut bufs, &mut [RecvMeta::default()]).is_pending());
        done.push(labels.transit().packets);
        if labels.transit().packets == count { Poll::Ready(()) } else { Poll::Pending }
    });
    tokio::time::timeout(Duration::from_secs(5), all).await.expect("it has stopped");
    assert!(done.windows(2).all(|pair| pair[1] - pair[0] <= MAX_ROUNDS as u64), "{done:?}");
    assert!(done.len() > 1);
}

#[tokio::test]
async fn what_one_receive_brings_for_a_hop_leaves_in_one_send() {
    let labels = Labels::default();
    let mut node = relay(&labels).await;
    let (b, c) = (udp(), udp());
    labels.install_relay(label(1), LINK, neighbor(), hop(b.local_addr().unwrap(), label(11)));
    labels.install_relay(label(2), LINK, neighbor(), hop(b.local_addr().unwrap(), label(12)));
    let to_c = Hop { link: 9, ..hop(c.local_addr().unwrap(), label(13)) };
    labels.install_relay(label(3), LINK, neighbor(), to_c);
    let of = |l: u64, fill| packet(label(l), Lane::Slot(0), &[fill; 100]);
    let mut short = of(1, 8);
    short.truncate(30);
    let buffers = [
        Buffer::of(&[of(1, 1), of(1, 2), of(3, 1), of(2, 3)]),
        Buffer::of(&[of(3, 2)]),
        Buffer::of(&[of(2, 4), of(1, 5), of(3, 3), short.clone()]),
        Buffer::of(&[of(1, 9)]),
    ];
    assert_eq!(receive(&mut node, &buffers), []);
    let expected = [of(11, 1), of(11, 2), of(12, 3), of(12, 4), of(11, 5), {
        label(11).swap_into(&mut short);
        short
    }];
    let got: Vec<_> = datagrams(&b, 7).await.into_iter().map(|(bytes, _)| bytes).collect();
    assert_eq!(got[..6], expected);
    assert_eq!(got[6], of(11, 9));
    let got: Vec<_> = datagrams(&c, 3).await.into_iter().map(|(bytes, _)| bytes).collect();
    assert_eq!(got, [of(13, 1), of(13, 2), of(13, 3)]);
    assert_eq!(labels.transit().sends, 3, "two to b, as a short packet ends a send, and one to c");
    assert_eq!(labels.transit().packets, 10);
}

#[tokio::test]
async fn transit_and_own_packets_may_share_a_buffer() {
    let labels = Labels::default();
    let mut node = relay(&labels).await;
    let b = udp();
    let (end, mut probes) = end(&labels, label(1), neighbor());
    labels.install_relay(label(2), LINK, neighbor(), hop(b.local_addr().unwrap(), label(12)));
    let own = packet(label(1), Lane::Slot(2), &[1; 20]);
    let transit = packet(label(2), Lane::Slot(2), &[2; 20]);
    let probe = packet(label(2), Lane::Probe, &[3; 20]);
    let plain = vec![4; 29];
    let slot: SocketAddr = end.session.slot(2).into();
    let buffers = [
        Buffer::of(&[transit.clone(), own.clone(), plain.clone(), transit.clone()]),
        Buffer::of(&[probe.clone(), probe.clone()]),
        Buffer::of(&[own.clone(), probe, own]),
    ];
    let got = receive(&mut node, &buffers);
    let of_slot = || (slot, vec![1; 20], 20);
    assert_eq!(got, [of_slot(), (mapped(neighbor()), plain, 29), of_slot(), of_slot()]);
    let got = datagrams(&b, 5).await;
    let fills: Vec<u8> = got.iter().map(|(bytes, _)| bytes[LABEL_HEADER_LEN]).collect();
    assert_eq!(fills, [2, 2, 3, 3, 3]);
    assert!(got.iter().all(|(bytes, _)| Label::of_packet(bytes).unwrap().0 == label(12)));
    assert!(probes.try_recv().is_err(), "a probe on its way to another node");
}

#[tokio::test]
async fn a_circuit_follows_the_links_that_it_passes() {
    let labels = Labels::default();
    let mut node = relay(&labels).await;
    let (b, moved_b) = (udp(), udp());
    labels.install_relay(label(1), LINK, neighbor(), hop(b.local_addr().unwrap(), label(11)));
    let home = Buffer::of(&[packet(label(1), Lane::Slot(0), &[7; 20])]);
    let stranger: SocketAddr = "192.0.2.2:3334".parse().unwrap();
    let strange = Buffer { from: stranger, ..home.clone() };

    let got = receive(&mut node, std::slice::from_ref(&strange));
    assert_eq!(got, [(mapped(stranger), home.bytes.clone(), 29)], "a stranger's is QUIC's, as it came");
    assert_eq!(labels.transit().packets, 0);
    assert_eq!(receive(&mut node, std::slice::from_ref(&home)), []);
    datagrams(&b, 1).await;

    labels.move_link(LINK, stranger);
    assert_eq!(receive(&mut node, &[home]).len(), 1);
    assert_eq!(receive(&mut node, std::slice::from_ref(&strange)), []);
    datagrams(&b, 1).await;

    labels.move_link(8, moved_b.local_addr().unwrap());
    assert_eq!(receive(&mut node, std::slice::from_ref(&strange)), []);
    datagrams(&moved_b, 1).await;

    labels.remove(label(1));
    assert_eq!(receive(&mut node, &[strange]).len(), 1);
    assert_eq!(labels.transit().packets, 3);
}

#[tokio::test]
async fn a_link_has_no_more_relayed_than_it_may() {
    let labels = Labels::new(TransitLimit { packets: 100, bytes: 1_000_000 }); // 10 at once
    let mut node = relay(&labels).await;
    let b = udp();
    let of = |l: u64, count| Buffer::of(&vec![packet(label(l), Lane::Slot(0), &[7; 20]); count]);
    for l in [1, 2] {
        labels.install_relay(label(l), LINK, neighbor(), hop(b.local_addr().unwrap(), label(11)));
    }
    labels.install_relay(label(3), LINK + 1, neighbor(), hop(b.local_addr().unwrap(), label(11)));
    assert_eq!(receive(&mut node, &[of(1, 6), of(2, 10)]), [], "circuits of one link share its limit");
    assert_eq!((labels.transit().packets, dropped(&labels)), (6, vec![("limit", 10)]));
    assert_eq!(receive(&mut node, &[of(3, 10)]), []);
    assert_eq!((labels.transit().packets, dropped(&labels)), (16, vec![("limit", 10)]), "another link");
    // What was relayed for a link goes with its last circuit.
    labels.remove(label(1));
    labels.remove(label(2));
    labels.install_relay(label(1), LINK, neighbor(), hop(b.local_addr().unwrap(), label(11)));
    assert_eq!(receive(&mut node, &[of(1, 10)]), []);
    assert_eq!(labels.transit().packets, 26);
}

#[tokio::test]
async fn what_cannot_be_sent_is_dropped_and_counted() {
    let labels = Labels::default();
    let mut node = label_socket(&labels);
    let b = udp();
    labels.install_relay(label(1), LINK, neighbor(), hop(b.local_addr().unwrap(), label(11)));
    let of = |len| packet(label(1), Lane::Slot(0), &vec![7; len]);
    // Longer than a UDP datagram over IPv4 can be.
    assert_eq!(receive(&mut node, &[Buffer::of(&[of(65_520)]), Buffer::of(&[of(20)])]), []);
    assert_eq!(dropped(&labels), [("send_error", 1)]);
    assert_eq!(labels.transit().packets, 1, "what comes behind goes on");
    assert_eq!(datagrams(&b, 1).await[0].0.len(), 29);
}

#[tokio::test]
async fn circuits_without_packets_are_idle() {
    let labels = Labels::default();
    let mut node = relay(&labels).await;
    let b = udp();
    let start = now();
    for l in [1, 2] {
        labels.install_relay(label(l), LINK, neighbor(), hop(b.local_addr().unwrap(), label(11)));
    }
    let (_end, _probes) = end(&labels, label(3), neighbor());
    assert_eq!(labels.idle_relays(start), [], "a new one had its time not yet");
    let installed = now();
    let later = loop {
        match clock::now() {
            now if now > installed => break now,
            _ => std::thread::yield_now(),
        }
    };
    let idle = |before| {
        let mut idle = labels.idle_relays(before);
        idle.sort_by_key(|label| String::from(*label));
        idle
    };
    assert_eq!(idle(later), [label(1), label(2)], "an end is none that passes");
    receive(&mut node, &[Buffer::of(&[packet(label(2), Lane::Probe, b"")])]);
    assert_eq!(idle(later), [label(1)]);
}
