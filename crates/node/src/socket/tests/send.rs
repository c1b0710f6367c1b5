//! What QUIC and sessions send.

use noq::AsyncUdpSocket as _;

use super::*;

#[tokio::test]
async fn a_slot_sends_over_the_circuit_that_it_points_at() {
    let labels = Labels::default();
    let socket = label_socket(&labels);
    let (b, c) = (udp(), udp());
    let session = labels.new_session();
    let mut sender = socket.create_sender();
    let mut send = async |slot| {
        let transmit = Transmit {
            destination: session.slot(slot).into(),
            ecn: None,
            contents: &[7; 50],
            segment_size: Some(20),
            src_ip: None,
        };
        std::future::poll_fn(|cx| sender.as_mut().poll_send(&transmit, cx)).await.unwrap();
    };
    let way = |to: &Socket, l| Way { hop: hop(to.local_addr().unwrap(), label(l)), activity: Arc::default() };
    let expected = |l, slot| {
        let packets = [20, 20, 10].map(|len| packet(label(l), Lane::Slot(slot), &vec![7; len]));
        packets.map(|packet| (packet, None)).to_vec()
    };
    let (first, second) = (way(&b, 1), way(&c, 2));
    let before = now();

    send(0).await; // lost
    labels.point(session.slot(0), Some(first.clone()));
    labels.point(session.slot(2), Some(second.clone()));
    send(0).await;
    assert_eq!(datagrams(&b, 3).await, expected(1, 0));
    assert!(first.activity.sent_data() >= before);
    assert_eq!(second.activity.sent_data(), Time(0));
    send(2).await;
    assert_eq!(datagrams(&c, 3).await, expected(2, 2));

    labels.point(session.slot(0), Some(second));
    send(0).await;
    assert_eq!(datagrams(&c, 3).await, expected(2, 0));
    labels.move_link(8, b.local_addr().unwrap());
    send(0).await;
    assert_eq!(datagrams(&b, 3).await, expected(2, 0), "ways follow a link that moved");
    labels.point(session.slot(0), None);
    send(0).await;
    send(2).await;
    assert_eq!(datagrams(&b, 3).await, expected(2, 2), "nothing of the slot that points nowhere");
}

#[tokio::test]
async fn a_probe_stands_behind_the_label_of_its_hop() {
    let (udp_a, b) = (Arc::new(udp()), udp());
    let probes = ProbeSender::new(udp_a.clone());
    let to = hop(b.local_addr().unwrap(), label(1));
    probes.send(&to, &[0; MAX_PROBE_LEN + 1]);
    probes.send(&to, b"");
    probes.send(&to, &[7; MAX_PROBE_LEN]);
    let got: Vec<_> = datagrams(&b, 2).await.into_iter().map(|(bytes, _)| bytes).collect();
    assert_eq!(got, [packet(label(1), Lane::Probe, b""), packet(label(1), Lane::Probe, &[7; MAX_PROBE_LEN])]);
}
