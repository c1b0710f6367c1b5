//! Whether something that speaks QUIC answers at an address, how fast, and how long packets to it may be.
//!
//! A packet of a reserved version is answered with Version Negotiation (RFC 9000, section 6), whoever sends it: no key
//! is needed, and no connection comes about. What is looked at of it has no version (RFC 8999).

use std::collections::BTreeSet;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use ffmesh_udp::{Batch, RecvMeta, Socket};
use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep, timeout, timeout_at};

/// A version that is reserved so that nobody speaks it (RFC 9000, section 15).
const VERSION: u32 = 0x1a2a_3a4a;
/// Smallest packet that is answered, and smallest that QUIC needs (RFC 9000, section 14).
pub(super) const MIN_PACKET: u16 = 1200;
/// How long an answer is waited for.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// Between two packets that ask.
const PACE: Duration = Duration::from_millis(500);
/// Steps of length between the smallest packet and the longest.
const STEPS: u16 = 12;
/// Times that each length is tried.
const TRIES: u32 = 3;
/// How long the answers of one try are waited for, at least and beside the round trip.
const TRY_TIMEOUT: Duration = Duration::from_millis(300);
/// Length of the connection IDs.
const ID_LEN: usize = 8;

/// A packet of `len` bytes, with an ID that comes back in the answer.
fn question(id: [u8; ID_LEN], len: u16) -> Vec<u8> {
    const LEN: u8 = 8;
    const { assert!(LEN as usize == ID_LEN) }
    let mut packet = vec![0xc0];
    packet.extend(VERSION.to_be_bytes());
    packet.push(LEN);
    packet.extend(rand::random::<[u8; ID_LEN]>());
    packet.push(LEN);
    packet.extend(id);
    packet.resize(len.max(MIN_PACKET).into(), 0);
    packet
}

/// The ID that a Version Negotiation packet answers; none where it is none.
fn answered(packet: &[u8]) -> Option<[u8; ID_LEN]> {
    let (head, rest) = packet.split_first_chunk::<6>()?;
    let is_negotiation = head[0] & 0x80 != 0 && head[1..5] == [0; 4];
    (is_negotiation && usize::from(head[5]) == ID_LEN).then_some(())?;
    rest.first_chunk().copied()
}

/// The time until an answer came.
///
/// # Errors
/// `ConnectionRefused` where the machine there says that nothing listens, `TimedOut` where nothing is heard, and others
/// of this machine.
pub(super) async fn round_trip(to: SocketAddr) -> io::Result<Duration> {
    let socket = UdpSocket::bind(any(to)).await?;
    socket.connect(to).await?;
    let id = rand::random();
    let end = Instant::now() + ANSWER_TIMEOUT;
    let mut buffer = [0; 2048];
    loop {
        let sent = Instant::now();
        socket.send(&question(id, MIN_PACKET)).await?;
        let next = end.min(sent + PACE);
        while let Ok(received) = timeout_at(next, socket.recv(&mut buffer)).await {
            if answered(&buffer[..received?]) == Some(id) {
                return Ok(sent.elapsed());
            }
        }
        if Instant::now() >= end {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
}

fn any(to: SocketAddr) -> SocketAddr {
    let ip: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    SocketAddr::new(ip, 0)
}

/// The longest UDP payload, up to `most`, that gets to an address that answers, unfragmented; none where not even QUIC's
/// smallest does.
pub(super) async fn longest(to: SocketAddr, most: u16, rtt: Duration) -> io::Result<Option<u16>> {
    // It forbids fragments, and does not believe what routers say: what gets there counts.
    let socket = Socket::bind(Some(any(to).ip()), 0)?;
    let lengths = lengths(most);
    let base: [u8; ID_LEN - 2] = rand::random();
    let mut arrived = BTreeSet::new();
    for _ in 0..TRIES {
        for length in lengths.iter().filter(|length| !arrived.contains(*length)) {
            let mut id = [0; ID_LEN];
            id[..ID_LEN - 2].copy_from_slice(&base);
            id[ID_LEN - 2..].copy_from_slice(&length.to_be_bytes());
            let packet = question(id, *length);
            let batch =
                Batch { to, from: None, ecn: None, header: b"", contents: &[&packet], segment: packet.len() };
            let _ = timeout(PACE, socket.writable()).await;
            // What is longer than this machine's interface takes is an error, and one that does not arrive.
            let _ = socket.try_send(&batch);
        }
        let end = Instant::now() + TRY_TIMEOUT + rtt * 2;
        while let Ok(received) = timeout_at(end, receive(&socket)).await {
            let id = answered(&received?).filter(|id| id[..ID_LEN - 2] == base);
            arrived.extend(id.map(|id| u16::from_be_bytes([id[ID_LEN - 2], id[ID_LEN - 1]])));
            if arrived.len() == lengths.len() {
                return Ok(arrived.last().copied());
            }
        }
        sleep(Duration::ZERO).await;
    }
    Ok(arrived.last().copied())
}

fn lengths(most: u16) -> Vec<u16> {
    let more = most.saturating_sub(MIN_PACKET);
    let step =
        |n: u16| MIN_PACKET + u16::try_from(u32::from(more) * u32::from(n) / u32::from(STEPS)).unwrap_or(0);
    let lengths: BTreeSet<_> = (0..=STEPS).map(step).collect();
    lengths.into_iter().collect()
}

async fn receive(socket: &Socket) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; 64 << 10];
    let mut meta = [RecvMeta::default()];
    std::future::poll_fn(|cx| socket.poll_recv(cx, &mut [IoSliceMut::new(&mut buffer)], &mut meta)).await?;
    // Several answers may come in one buffer; the first is looked at, and the others are asked for again.
    buffer.truncate(meta[0].len.min(meta[0].stride.max(1)));
    Ok(buffer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_version_negotiation_with_our_id_is_an_answer() {
        let id = [7; ID_LEN];
        let mut answer = vec![0x80, 0, 0, 0, 0, 8];
        answer.extend(id);
        answer.extend([8, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 1]);
        assert_eq!(answered(&answer), Some(id));
        for cut in 0..14 {
            assert_eq!(answered(&answer[..cut]), None);
        }
        assert_eq!(answered(&question(id, MIN_PACKET)), None, "a question");
        answer[5] = 7;
        assert_eq!(answered(&answer), None, "an ID of another length");
    }

    #[test]
    fn a_question_is_as_long_as_it_should_and_the_lengths_have_both_ends() {
        assert_eq!(question([0; ID_LEN], 1452).len(), 1452);
        assert_eq!(question([0; ID_LEN], 10).len(), 1200);
        let all = lengths(1452);
        assert_eq!((all.first(), all.last(), all.len()), (Some(&1200), Some(&1452), 13));
        assert_eq!(lengths(1200), [1200]);
        assert_eq!(lengths(9000).last(), Some(&9000));
    }

    #[tokio::test]
    async fn who_answers_is_heard_and_who_is_not_there_refuses() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let to = server.local_addr().unwrap();
        let answering = tokio::spawn(async move {
            let mut buffer = [0; 2048];
            loop {
                let (len, from) = server.recv_from(&mut buffer).await.unwrap();
                if len > 1300 {
                    continue; // a narrow path
                }
                let mut answer = vec![0x80, 0, 0, 0, 0, 8];
                answer.extend(&buffer[15..23]);
                answer.extend([8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
                server.send_to(&answer, from).await.unwrap();
            }
        });
        let rtt = round_trip(to).await.unwrap();
        let longest = longest(to, 1452, rtt).await.unwrap().unwrap();
        assert!((1280..=1300).contains(&longest), "{longest}");
        answering.abort();
        let _ = answering.await; // its socket is closed
        assert_eq!(round_trip(to).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }
}
