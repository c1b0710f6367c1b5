//! Speed tests: bytes over the mesh to another node and back, with no service behind it.
//!
//! On one stream, behind SYN_DATA: how long each direction lasts (milliseconds, 4 bytes), then payload, whose end is a
//! reset with `done`: what waits on a slow way need not arrive. Back come SYN_ACK_DATA, what arrived (bytes and
//! microseconds, 8 bytes each), and payload in turn. All numbers are big endian.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ffmesh_api as api;
use ffmesh_core::id::NodeId;
use ffmesh_core::reason::Reason;
use ffmesh_core::wire::{FlowProtocol, Message, SynAckData, SynData, VERSION, encode};
use noq::{ReadError, RecvStream, SendStream, VarInt, WriteError};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::carry::{End, read_end, write_end};
use super::entry::{Flow, FlowStart};
use super::open::{OpenContext, first_choice, new_id, ping, stream};
use super::serve::{ANSWER_TIMEOUT, ServeContext, malformed, refuse};
use super::table::{DRAINED, Flows};
use super::{HEAD_TIMEOUT, HeadError, read_head, write_head};
use crate::session::Session;

/// The proxy name of speed tests, on both nodes.
const SPEEDTEST: &str = "speedtest";
/// Longest time that one direction may last: it takes the whole line from others.
pub const MAX_DURATION: Duration = Duration::from_secs(30);
/// How long after its time a direction may still end: what is under way arrives, and a failover may be.
const GRACE: Duration = Duration::from_secs(5);
/// How long the other node may take or send nothing.
const STALL: Duration = Duration::from_secs(5);
/// Tests that a node serves at once, and that it asks others for: more would only measure each other.
const MAX_TESTS: usize = 4;
/// Bytes of one write or read.
const CHUNK: usize = 64 << 10;
/// What is sent. Its content does not matter: it travels encrypted and is not compressed.
static PAYLOAD: [u8; CHUNK] = [0; CHUNK];
/// Echoes before the load.
const IDLE_ECHOES: usize = 5;
/// All of them, so that a bad way does not keep the test from its beginning.
const IDLE_LIMIT: Duration = Duration::from_secs(6);
/// Between two echoes under load.
const ECHO_PACE: Duration = Duration::from_millis(200);
/// Bytes of the answer about what arrived.
const REPORT_LEN: usize = 16;

/// Payload bytes that arrived, and the time from the first to the last of them.
pub type Arrived = (u64, Duration);

/// What a speed test found.
#[derive(Debug, Clone)]
pub struct Measured {
    /// To the other node, as that one counted it
    pub up: Arrived,
    /// From the other node
    pub down: Arrived,
    /// The least round trip time before
    pub rtt_idle: Option<Duration>,
    /// The mean round trip time meanwhile
    pub rtt_loaded: Option<Duration>,
    /// The route that is first choice at the end
    pub route: Vec<NodeId>,
}

/// The speed tests that a node serves, or those that it asks others for. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Speedtests(Arc<Mutex<BTreeSet<NodeId>>>);

/// A test that is being served.
#[derive(Debug)]
struct Permit {
    tests: Speedtests,
    peer: NodeId,
}

impl Speedtests {
    /// Leave to test: one test a node, and [`MAX_TESTS`] in all.
    fn enter(&self, peer: &NodeId) -> Option<Permit> {
        let mut tests = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entered = tests.len() < MAX_TESTS && tests.insert(peer.clone());
        entered.then(|| Permit { tests: self.clone(), peer: peer.clone() })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.tests.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.peer);
    }
}

/// Measures the throughput to a node and back. Takes up to twice `duration` and 20 s; a drain ends it.
pub async fn measure(
    context: &OpenContext,
    tests: &Speedtests,
    node: &NodeId,
    duration: Duration,
) -> Result<Measured, (Reason, String)> {
    let busy = format!(
        "this node has a speed test with {node} under way, or with {MAX_TESTS} nodes: try again when they have ended"
    );
    let _permit = tests.enter(node).ok_or((Reason::Limit, busy))?;
    // A node that cannot be reached is told of, and no flow that failed.
    let session = context.sessions.to(node).await.map_err(|error| (error.reason, error.detail))?;
    let flow = context.flows.begin(FlowStart {
        id: new_id(),
        role: api::Role::Ingress,
        proxy: SPEEDTEST.into(),
        peer: node.clone(),
        target: SPEEDTEST.to_owned(),
        client: None,
    });
    let measured = tokio::select! {
        measured = run(context, &session, &flow, node, duration) => measured,
        (reason, detail) = stopped(&context.flows, &flow) => Err((reason, Some(detail))),
    };
    let (reason, detail) = match &measured {
        Ok(_) => (Reason::Done, None),
        Err((reason, detail)) => (*reason, detail.clone()),
    };
    context.flows.end(&flow, reason, detail);
    measured.map_err(|(reason, detail)| (reason, detail.unwrap_or_else(|| reason.to_string())))
}

/// Waits until the test has to end before its time: nobody waits for one with the node's end.
async fn stopped(flows: &Flows, flow: &Flow) -> (Reason, String) {
    tokio::select! {
        verdict = flow.cancelled() => verdict,
        () = flows.drain_begins() => (Reason::Drained, DRAINED.to_owned()),
    }
}

async fn run(
    context: &OpenContext,
    session: &Session,
    flow: &Flow,
    node: &NodeId,
    duration: Duration,
) -> Result<Measured, End> {
    context.flows.admit(flow).map_err(|(reason, detail)| (reason, Some(detail)))?;
    let _counted = session.flow();
    let mut idle = Vec::new();
    let pinging = async {
        while idle.len() < IDLE_ECHOES {
            idle.extend(echo(context, node).await);
        }
    };
    let _ = timeout(IDLE_LIMIT, pinging).await;

    let (mut send, mut recv) = stream(session).await?;
    open(session, flow, &mut send, &mut recv, duration).await?;
    let mut loaded = Vec::new();
    let transfers = async {
        let written = send_payload(&mut send, duration, |bytes| flow.count_up(bytes)).await;
        let written = written.map_err(|stop| stop.end(session))?;
        let _ = send.reset(VarInt::from_u32(Reason::Done.code()));
        let up = read_report(session, &mut recv).await?;
        if up.0 > written {
            return Err((Reason::Unsupported, Some(format!("{node} counted more bytes than were sent"))));
        }
        let down = receive_payload(&mut recv, duration, |bytes| flow.count_down(bytes)).await;
        Ok::<_, End>((up, down.map_err(|stop| stop.end(session))?))
    };
    let (up, down) = tokio::select! {
        transferred = transfers => transferred?,
        never = keep_echoing(context, node, &mut loaded) => match never {},
    };
    let count = u32::try_from(loaded.len()).unwrap_or(u32::MAX);
    Ok(Measured {
        up,
        down,
        rtt_idle: idle.into_iter().min(),
        rtt_loaded: (count > 0).then(|| loaded.iter().sum::<Duration>() / count),
        route: first_choice(&context.sessions, node),
    })
}

/// Asks for the test, and waits until it may begin.
async fn open(
    session: &Session,
    flow: &Flow,
    send: &mut SendStream,
    recv: &mut RecvStream,
    duration: Duration,
) -> Result<(), End> {
    let node = flow.peer();
    let syn = Message::SynData(SynData {
        version: VERSION,
        protocol: FlowProtocol::Speedtest,
        target: None,
        flow_id: flow.id().to_owned(),
        proxy: SPEEDTEST.to_owned(),
    });
    let ms = u32::try_from(duration.as_millis()).unwrap_or(u32::MAX);
    let head = [encode(node, &syn), ms.to_be_bytes().to_vec()].concat();
    let answered = async {
        send.write_all(&head).await.map_err(|e| write_end(session, &e))?;
        read_head(recv).await.map_err(|e| match e {
            HeadError::Read(e) => read_end(session, &e),
            other => (Reason::Unsupported, Some(other.to_string())),
        })
    };
    let no_answer = (Reason::Timeout, Some(format!("no answer from {node} within {HEAD_TIMEOUT:?}")));
    match timeout(HEAD_TIMEOUT, answered).await.map_err(|_| no_answer)?? {
        // Nothing but payload comes before the report, which is awaited.
        (Message::SynAckData(ack), _) if ack.result => {
            flow.connected();
            Ok(())
        }
        (Message::SynAckData(ack), _) => Err(refusal(node, ack.reason.unwrap_or(Reason::Unsupported))),
        (other, _) => Err((Reason::Unsupported, Some(format!("message of type {}", other.number())))),
    }
}

fn refusal(node: &NodeId, reason: Reason) -> End {
    let detail = match reason {
        Reason::Unsupported => {
            format!("the version of ffmesh that {node} runs has no speed test: update it there")
        }
        Reason::Limit => format!(
            "{node} is busy with a speed test with this node, or with as many as it serves at once, or has all its \
             flows: try again later"
        ),
        Reason::Drained => format!("{node} is shutting down: try again when it is back"),
        other => format!("{node} refused the speed test: {other}"),
    };
    (reason, Some(detail))
}

async fn echo(context: &OpenContext, node: &NodeId) -> Option<Duration> {
    let pong = ping(context, node).await.ok();
    if pong.is_none() {
        sleep(ECHO_PACE).await; // one that is refused at once must not be asked in a tight loop
    }
    Some(Duration::from_secs_f64(pong?.rtt_ms / 1e3))
}

async fn keep_echoing(context: &OpenContext, node: &NodeId, times: &mut Vec<Duration>) -> Infallible {
    loop {
        times.extend(echo(context, node).await);
        sleep(ECHO_PACE).await;
    }
}

async fn read_report(session: &Session, recv: &mut RecvStream) -> Result<Arrived, End> {
    let mut report = [0; REPORT_LEN];
    match timeout(GRACE + STALL, AsyncReadExt::read_exact(recv, &mut report)).await {
        Ok(Ok(_)) => Ok(parse_report(report)),
        Ok(Err(e)) => Err(Stop::Broken(e).end(session)),
        Err(_) => Err(Stop::Stalled.end(session)),
    }
}

fn report((bytes, time): Arrived) -> [u8; REPORT_LEN] {
    let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    ((u128::from(bytes) << 64) | u128::from(us)).to_be_bytes()
}

fn parse_report(bytes: [u8; REPORT_LEN]) -> Arrived {
    let both = u128::from_be_bytes(bytes);
    let half = |bits: u128| u64::try_from(bits & u128::from(u64::MAX)).unwrap_or(u64::MAX);
    (half(both >> 64), Duration::from_micros(half(both)))
}

/// Serves a test that the other node asks for.
pub(super) async fn serve(
    context: &ServeContext,
    session: &Session,
    syn: SynData,
    mut send: SendStream,
    mut recv: RecvStream,
    first: Vec<u8>,
) {
    let peer = &session.peer().id;
    let Ok(Some(duration)) = timeout(HEAD_TIMEOUT, read_duration(&mut recv, &first)).await else {
        return malformed(context, peer, send, recv, "speed test without a duration from 1 ms to 30 s");
    };
    let flow = context.flows.begin(FlowStart {
        id: syn.flow_id,
        role: api::Role::Egress,
        proxy: SPEEDTEST.into(),
        peer: peer.clone(),
        target: SPEEDTEST.to_owned(),
        client: None,
    });
    let admitted = context.flows.admit(&flow).and_then(|()| {
        let busy = || (Reason::Limit, format!("it has a speed test under way, or {MAX_TESTS} nodes have"));
        context.speedtests.enter(peer).ok_or_else(busy)
    });
    let _permit = match admitted {
        Ok(permit) => permit,
        Err((reason, detail)) => {
            context.flows.end(&flow, reason, Some(detail));
            return refuse(peer, send, recv, reason).await;
        }
    };
    flow.connected();
    let end = tokio::select! {
        end = transfer(session, &flow, &mut send, &mut recv, duration) => end,
        (reason, detail) = stopped(&context.flows, &flow) => (reason, Some(detail)),
    };
    let code = VarInt::from_u32(end.0.code());
    let (_, _) = (send.reset(code), recv.stop(code)); // one that has ended already has said so
    context.flows.end(&flow, end.0, end.1);
}

async fn transfer(
    session: &Session,
    flow: &Flow,
    send: &mut SendStream,
    recv: &mut RecvStream,
    duration: Duration,
) -> End {
    let transferred = async {
        let ack = Message::SynAckData(SynAckData { result: true, reason: None });
        answer(session, write_head(send, &session.peer().id, &ack)).await?;
        let up = receive_payload(recv, duration, |bytes| flow.count_up(bytes)).await;
        let up = up.map_err(|stop| stop.end(session))?;
        answer(session, send.write_all(&report(up))).await?;
        let down = send_payload(send, duration, |bytes| flow.count_down(bytes)).await;
        down.map_err(|stop| stop.end(session))
    };
    match transferred.await {
        Ok(_) => (Reason::Done, None),
        Err(end) => end,
    }
}

async fn answer(session: &Session, written: impl Future<Output = Result<(), WriteError>>) -> Result<(), End> {
    match timeout(ANSWER_TIMEOUT, written).await {
        Ok(written) => written.map_err(|e| write_end(session, &e)),
        Err(_) => Err(Stop::Stalled.end(session)),
    }
}

/// How long each direction is to last; none where that is nothing, or out of bounds.
async fn read_duration(recv: &mut (impl AsyncRead + Unpin), first: &[u8]) -> Option<Duration> {
    let mut ms = [0; 4];
    let known = first.len();
    ms.get_mut(..known)?.copy_from_slice(first); // no payload comes before it is asked for
    recv.read_exact(&mut ms[known..]).await.ok()?;
    let duration = Duration::from_millis(u32::from_be_bytes(ms).into());
    (!duration.is_zero() && duration <= MAX_DURATION).then_some(duration)
}

/// Why payload stopped before its time.
#[derive(Debug)]
enum Stop {
    /// The other node takes or sends nothing any more
    Stalled,
    /// It sends on and on
    Overlong,
    /// The stream broke
    Broken(io::Error),
}

impl Stop {
    fn end(self, session: &Session) -> End {
        let peer = &session.peer().id;
        match self {
            Self::Stalled => (Reason::Timeout, Some(format!("nothing went on with {peer} for {STALL:?}"))),
            Self::Overlong => (Reason::Unsupported, Some(format!("{peer} sent longer than was asked for"))),
            Self::Broken(e) => match e.get_ref() {
                Some(inner) if inner.is::<ReadError>() => {
                    inner.downcast_ref().map_or((Reason::Reset, None), |e| read_end(session, e))
                }
                Some(inner) if inner.is::<WriteError>() => {
                    inner.downcast_ref().map_or((Reason::Reset, None), |e| write_end(session, e))
                }
                _ => (Reason::Reset, Some(e.to_string())),
            },
        }
    }
}

/// Sends payload for as long as it is told, and returns how much. It does not end the stream.
async fn send_payload(
    send: &mut (impl AsyncWrite + Unpin),
    duration: Duration,
    count: impl Fn(usize),
) -> Result<u64, Stop> {
    let end = Instant::now() + duration;
    let mut written = 0;
    while Instant::now() < end {
        let stalled = Instant::now() + STALL;
        match timeout_at(end.min(stalled), send.write(&PAYLOAD)).await {
            Ok(Ok(bytes)) => {
                written += bytes as u64;
                count(bytes);
            }
            Ok(Err(e)) => return Err(Stop::Broken(e)),
            Err(_) if stalled < end => return Err(Stop::Stalled),
            Err(_) => break,
        }
    }
    Ok(written)
}

/// Takes payload to its end, which is FIN or a reset with `done`.
async fn receive_payload(
    recv: &mut (impl AsyncRead + Unpin),
    duration: Duration,
    count: impl Fn(usize),
) -> Result<Arrived, Stop> {
    let end = Instant::now() + duration + GRACE;
    let mut buffer = vec![0; CHUNK];
    let (mut bytes, mut first, mut last) = (0, None, Instant::now());
    loop {
        let stalled = Instant::now() + STALL;
        let read = match timeout_at(end.min(stalled), recv.read(&mut buffer)).await {
            Ok(Ok(0)) => break,
            Ok(Ok(read)) => read,
            Ok(Err(e)) if is_done(&e) => break,
            Ok(Err(e)) => return Err(Stop::Broken(e)),
            Err(_) => return Err(if stalled < end { Stop::Stalled } else { Stop::Overlong }),
        };
        last = Instant::now();
        first.get_or_insert(last);
        bytes += read as u64;
        count(read);
    }
    Ok((bytes, first.map_or(Duration::ZERO, |first| last - first)))
}

fn is_done(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    matches!(inner, Some(ReadError::Reset(code)) if *code == VarInt::from_u32(Reason::Done.code()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::FlowLimits;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn one_test_a_node_and_few_in_all() {
        let tests = Speedtests::default();
        let id = |n: usize| format!("n{n}").parse::<NodeId>().unwrap();
        let mut permits: Vec<_> = (0..MAX_TESTS).map(|n| tests.enter(&id(n)).unwrap()).collect();
        assert!(tests.enter(&id(MAX_TESTS)).is_none(), "one more than may be");
        permits.pop();
        assert!(tests.enter(&id(0)).is_none(), "the same node twice");
        drop(tests.enter(&id(MAX_TESTS)).unwrap());
        drop(permits);
        assert!(tests.0.lock().unwrap().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_test_ends_when_the_node_drains() {
        let limits = FlowLimits { flows: 1, memory: 1, window: 1 };
        let flows = Flows::new(limits, Arc::default());
        let flow = flows.begin(FlowStart {
            id: new_id(),
            role: api::Role::Egress,
            proxy: SPEEDTEST.into(),
            peer: "b".parse().unwrap(),
            target: SPEEDTEST.to_owned(),
            client: None,
        });
        let mut stopped = std::pin::pin!(stopped(&flows, &flow));
        assert!(timeout(SECOND, &mut stopped).await.is_err());
        flows.drain();
        assert_eq!(stopped.await.0, Reason::Drained);
    }

    #[test]
    fn a_report_is_read_as_it_was_written() {
        for arrived in [(0, Duration::ZERO), (12_345_678, SECOND), (u64::MAX, Duration::from_micros(7))] {
            assert_eq!(parse_report(report(arrived)), arrived);
        }
        assert_eq!(report((1, Duration::from_micros(2)))[..9], [0, 0, 0, 0, 0, 0, 0, 1, 0]);
    }

    #[tokio::test]
    async fn a_duration_is_four_bytes_within_bounds() {
        async fn read(first: &[u8], mut rest: &[u8]) -> Option<Duration> {
            read_duration(&mut rest, first).await
        }
        assert_eq!(read(&[], &3_000_u32.to_be_bytes()).await, Some(3 * SECOND));
        assert_eq!(read(&[0, 0], &[0, 1]).await, Some(Duration::from_millis(1)));
        assert_eq!(read(&30_000_u32.to_be_bytes(), &[]).await, Some(MAX_DURATION));
        for (first, rest) in
            [(&[0; 4][..], &[][..]), (&[0, 0, 0x75, 0x31], &[]), (&[1; 5], &[]), (&[0], &[1])]
        {
            assert_eq!(read(first, rest).await, None, "{first:?} {rest:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn payload_is_counted_over_the_time_that_it_took() {
        let (mut near, mut in_line) = tokio::io::duplex(CHUNK);
        let (mut out_of_line, mut far) = tokio::io::duplex(CHUNK);
        let line = async move {
            sleep(SECOND).await; // the clock begins with the first byte
            let mut chunk = vec![0; CHUNK];
            while let Ok(read @ 1..) = in_line.read(&mut chunk).await {
                sleep(SECOND / 10).await;
                out_of_line.write_all(&chunk[..read]).await.unwrap();
            }
        };
        let sending = async move { send_payload(&mut near, 3 * SECOND, |_| {}).await.unwrap() };
        let receiving = receive_payload(&mut far, 3 * SECOND, |_| {});
        let ((), written, received) = tokio::join!(line, sending, receiving);
        let (bytes, time) = received.unwrap();
        assert_eq!(written, bytes);
        assert!((19 * CHUNK as u64..=23 * CHUNK as u64).contains(&bytes), "{bytes} bytes");
        assert!((SECOND * 9 / 5..=SECOND * 11 / 5).contains(&time), "{time:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_is_cut() {
        let (mut near, _far) = tokio::io::duplex(10);
        let start = Instant::now();
        assert!(matches!(send_payload(&mut near, MAX_DURATION, |_| {}).await, Err(Stop::Stalled)));
        assert!(start.elapsed() <= 2 * STALL, "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn who_sends_nothing_or_without_end_is_cut() {
        let (_near, mut far) = tokio::io::duplex(10);
        let start = Instant::now();
        assert!(matches!(receive_payload(&mut far, MAX_DURATION, |_| {}).await, Err(Stop::Stalled)));
        assert!(start.elapsed() <= 2 * STALL, "{:?}", start.elapsed());

        let (mut near, mut far) = tokio::io::duplex(10);
        let dripping = async {
            loop {
                near.write_all(b"x").await.unwrap();
                sleep(SECOND).await;
            }
        };
        let start = Instant::now();
        let received = tokio::select! {
            received = receive_payload(&mut far, SECOND, |_| {}) => received,
            () = dripping => unreachable!(),
        };
        assert!(matches!(received, Err(Stop::Overlong)));
        assert!(start.elapsed() <= SECOND + GRACE + SECOND, "{:?}", start.elapsed());
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        let node = "b".parse().unwrap();
        let text = |reason| refusal(&node, reason).1.unwrap();
        assert!(text(Reason::Unsupported).contains("update it"));
        assert!(text(Reason::Limit).contains("try again later"));
        assert!(text(Reason::Drained).contains("shutting down"));
    }
}
