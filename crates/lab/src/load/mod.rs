//! Many flows at a steady pace in both directions: every byte is checked, every silence is noted.

mod drive;

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::watch;

use self::drive::run;
use crate::net::Net;
use crate::report::Distribution;
use crate::wait::{in_parallel, until};

/// How long it may take until all flows are open and have bytes in both directions.
const OPEN_LIMIT: Duration = Duration::from_secs(20);
/// Connections made at a time.
const CONNECTS: usize = 20;
/// What a flow begins with: its number.
const NUMBER_LEN: usize = 8;

/// How much each end of a flow sends.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Bytes at a time
    pub bytes: usize,
    /// From one time to the next
    pub every: Duration,
}

/// Flows through proxies of one node to a service behind another.
#[derive(Debug)]
pub struct Load {
    ends: Arc<Vec<End>>,
    pace: Pace,
    /// Until when flows may end, once they are to
    deadline: watch::Sender<Option<Instant>>,
    start: Instant,
    running: JoinHandle<Vec<Outcome>>,
}

/// What is known of one end of a flow while it runs. Ends stand in pairs: the client's, then the service's.
#[derive(Debug, Default)]
struct End {
    sent: AtomicU64,
    received: AtomicU64,
    /// Microseconds since the start
    last_arrival: AtomicU64,
}

/// What one end has to say when it has ended.
#[derive(Debug)]
struct Outcome {
    end: usize,
    silences: Vec<Silence>,
    error: Option<String>,
}

/// A time in which nothing arrived at one end of a flow.
#[derive(Debug, Clone, Copy)]
struct Silence {
    from: Instant,
    until: Instant,
}

/// How all flows went.
#[derive(Debug)]
pub struct LoadReport {
    /// Flows there were
    pub flows: usize,
    /// What went wrong, one line for each end of a flow that it went wrong for
    pub lost: Vec<String>,
    /// Bytes that arrived, in both directions
    pub bytes: u64,
    pace: Pace,
    silences: Vec<Silence>,
}

impl Pace {
    /// 20 kB/s, in pieces of 400 bytes.
    pub const STEADY: Self = Self { bytes: 400, every: Duration::from_millis(20) };
}

impl Load {
    /// Opens `flows` flows from `client` through `proxy` to `service`, which is listened to in `server`, and waits until
    /// bytes arrive at both ends of each. Addresses are of IP.
    ///
    /// # Panics
    /// When they can't be opened in time.
    pub fn start(client: &Net, proxy: &str, server: &Net, service: &str, flows: usize, pace: Pace) -> Self {
        let address = |text: &str| text.parse::<SocketAddr>().expect("an IP address and a port");
        let (proxy, service) = (address(proxy), address(service));
        let listener = server.inside(|| TcpListener::bind(service)).expect("listen");
        let connect = |number: usize| connect(proxy, number).unwrap_or_else(|e| panic!("flow {number}: {e}"));
        let start = Instant::now();
        let accepting = std::thread::spawn(move || accept(&listener, flows));
        let clients = client.inside(|| in_parallel(flows, CONNECTS, connect));
        let servers = match accepting.join() {
            Ok(accepted) => {
                accepted.unwrap_or_else(|e| panic!("the flows do not arrive at the service: {e}"))
            }
            Err(panic) => std::panic::resume_unwind(panic),
        };
        let ends = Arc::new((0..2 * flows).map(|_| End::default()).collect::<Vec<_>>());
        let (deadline, told) = watch::channel(None);
        let streams: Vec<_> =
            clients.into_iter().zip(servers).flat_map(|(client, server)| [client, server]).collect();
        let running = std::thread::spawn({
            let ends = ends.clone();
            move || run(streams, &ends, &told, pace, start)
        });
        let load = Self { ends, pace, deadline, start, running };
        load.wait_flowing();
        load
    }

    /// Waits until bytes have arrived at every end that were sent after this was called.
    ///
    /// # Panics
    /// When they do not in time.
    pub fn wait_flowing(&self) -> Duration {
        self.wait_flowing_within(OPEN_LIMIT)
    }

    /// The same with a limit.
    ///
    /// # Panics
    /// When they do not in time.
    pub fn wait_flowing_within(&self, limit: Duration) -> Duration {
        let sent: Vec<_> = self.ends.iter().map(|end| end.sent.load(Ordering::Relaxed)).collect();
        // The other end of the pair receives what this one sends.
        let arrived = |n: usize| self.ends[n ^ 1].received.load(Ordering::Relaxed) > sent[n];
        until("all flows go on", limit, || (0..sent.len()).all(arrived))
    }

    /// At how many ends nothing has arrived for this long.
    pub fn silent_for(&self, time: Duration) -> usize {
        let now = self.start.elapsed();
        let silent = |end: &&End| {
            now.saturating_sub(Duration::from_micros(end.last_arrival.load(Ordering::Relaxed))) > time
        };
        self.ends.iter().filter(silent).count()
    }

    /// Lets all flows end in order. What was sent and does not arrive within `patience` is lost.
    ///
    /// # Panics
    /// When a byte differs from what was sent.
    pub fn finish(self, patience: Duration) -> LoadReport {
        self.deadline.send_replace(Some(Instant::now() + patience));
        let outcomes = match self.running.join() {
            Ok(outcomes) => outcomes,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        let mut report = LoadReport {
            flows: self.ends.len() / 2,
            lost: Vec::new(),
            bytes: 0,
            pace: self.pace,
            silences: Vec::new(),
        };
        for outcome in outcomes {
            let received = self.ends[outcome.end].received.load(Ordering::Relaxed);
            let sent = self.ends[outcome.end ^ 1].sent.load(Ordering::Relaxed);
            let side = if outcome.end.is_multiple_of(2) { "client" } else { "service" };
            let problem = outcome.error.or_else(|| (received != sent).then(|| "it ended early".to_owned()));
            if let Some(problem) = problem {
                let flow = outcome.end / 2;
                report
                    .lost
                    .push(format!("flow {flow}, at the {side}: {problem} ({received} of {sent} bytes)"));
            }
            report.bytes += received;
            report.silences.extend(outcome.silences);
        }
        report
    }
}

impl LoadReport {
    /// The longest silence at any end of any flow that touches this time: what an event cost the worst of them.
    pub fn worst_silence(&self, from: Instant, until: Instant) -> Duration {
        let touches = |silence: &&Silence| silence.from < until && silence.until > from;
        let length = |silence: &Silence| silence.until - silence.from;
        self.silences.iter().filter(touches).map(length).max().unwrap_or_default()
    }

    /// The same for each of these events, each until 2 s later.
    pub fn stalls(&self, events: &[Instant]) -> Vec<Duration> {
        events.iter().map(|event| self.worst_silence(*event, *event + Duration::from_secs(2))).collect()
    }

    /// The longest silence of all.
    pub fn longest_silence(&self) -> Duration {
        self.silences.iter().map(|silence| silence.until - silence.from).max().unwrap_or_default()
    }
}

/// One line of a report about a load that failures were tried under.
#[derive(Debug, Serialize)]
pub struct Stalls {
    /// Flows there were
    pub flows: usize,
    /// Flows that did not arrive whole
    pub lost: usize,
    /// Bytes that arrived
    pub bytes: u64,
    /// What each end of each flow is silent for when nothing fails
    pub pace_ms: f64,
    /// The worst flow's silence around each event
    pub stall_ms: Distribution,
    /// The longest silence at any time
    pub longest_ms: f64,
}

impl Stalls {
    /// Of a load and the times at which something failed.
    pub fn of(report: &LoadReport, events: &[Instant]) -> Self {
        Self {
            flows: report.flows,
            lost: report.lost.len(),
            bytes: report.bytes,
            pace_ms: report.pace.every.as_secs_f64() * 1000.0,
            stall_ms: Distribution::of(&report.stalls(events)),
            longest_ms: report.longest_silence().as_secs_f64() * 1000.0,
        }
    }
}

fn connect(proxy: SocketAddr, number: usize) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&proxy, OPEN_LIMIT)?;
    stream.set_nodelay(true)?;
    io::Write::write_all(&mut &stream, &(number as u64).to_be_bytes())?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

/// Accepts all flows, which come in any order, and returns them in the order of their numbers.
fn accept(listener: &TcpListener, flows: usize) -> io::Result<Vec<TcpStream>> {
    let mut accepted = Vec::new();
    let deadline = Instant::now() + OPEN_LIMIT;
    listener.set_nonblocking(true)?;
    while accepted.len() < flows {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                stream.set_read_timeout(Some(OPEN_LIMIT))?;
                let mut number = [0; NUMBER_LEN];
                io::Read::read_exact(&mut &stream, &mut number)?;
                stream.set_nodelay(true)?;
                stream.set_nonblocking(true)?;
                accepted.push((u64::from_be_bytes(number), stream));
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(e) => return Err(e),
        }
    }
    accepted.sort_by_key(|(number, _)| *number);
    Ok(accepted.into_iter().map(|(_, stream)| stream).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_silence_of_an_event_is_one_that_touches_it() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let silence = |from, until| Silence { from: at(from), until: at(until) };
        let silences = vec![silence(100, 160), silence(3000, 3500), silence(990, 1040)];
        let report = LoadReport { flows: 2, lost: Vec::new(), bytes: 0, pace: Pace::STEADY, silences };
        let ms = Duration::from_millis;
        // The last one began before the second event, and the second one is over 2 s later.
        assert_eq!(report.stalls(&[at(100), at(1000), at(2500)]), [ms(60), ms(50), ms(500)]);
        assert_eq!(report.longest_silence(), ms(500));
        assert_eq!(report.worst_silence(at(200), at(900)), Duration::ZERO);
    }
}
