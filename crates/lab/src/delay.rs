//! A long line: a forwarder of UDP packets that takes its time.

use std::collections::{HashMap, VecDeque};
use std::io::{self, ErrorKind, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use noq_udp::{EcnCodepoint, RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::bytes::RandomBytes;
use crate::net::Net;

/// How often it looks whether it is to end.
const LOOK: Duration = Duration::from_millis(50);
/// Sources that it keeps a socket for.
const SOURCES: usize = 64;
/// Batches taken from one socket before the others have their turn.
const TURN: usize = 32;
/// Asked of the kernel for each socket: some milliseconds at full speed while this process waits for a core.
const SOCKET_BUFFER: usize = 4 << 20;
/// Packets that stay together on a line with a rate: at 100 Mbit/s a batch of full size would take 5 ms.
const TOGETHER: usize = 8;
/// The longest batch that the kernel gives.
const BATCH: usize = 64 << 10;

/// What a line does to packets, in each direction for itself.
#[derive(Debug, Clone, Copy, Default)]
pub struct Line {
    /// How long a packet takes from one end to the other
    pub delay: Duration,
    /// Lost packets of a hundred, at random
    pub loss_percent: f64,
    /// Bits a second; no limit without it
    pub rate: Option<u64>,
    /// Bytes that may wait where there is a rate; what comes beyond is dropped
    pub queue: usize,
}

/// A forwarder in a namespace. It ends when this is dropped.
///
/// Like a NAT it gives each source a socket of its own towards the far end, so that replies find their way.
#[derive(Debug)]
pub struct DelayLine {
    stop: Arc<AtomicBool>,
    running: Option<JoinHandle<()>>,
}

impl DelayLine {
    /// From now on packets that arrive at `listen` in `net` go on to `to`, and replies back.
    ///
    /// # Panics
    /// When the address can't be bound.
    pub fn start(net: &Net, listen: &str, to: &str, line: Line) -> Self {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap_or_else(|e| panic!("{text}: {e}"));
        let (listen, to) = (address(listen), address(to));
        let net = net.clone();
        let near = net.inside(|| Socket::bind(listen)).unwrap_or_else(|e| panic!("bind {listen}: {e}"));
        let stop = Arc::new(AtomicBool::new(false));
        let running = std::thread::spawn({
            let stop = stop.clone();
            // New sockets belong to the namespace of the thread that makes them.
            move || net.inside(|| Forwarder::new(near, to, line).run(&stop))
        });
        Self { stop, running: Some(running) }
    }
}

impl Drop for DelayLine {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(running) = self.running.take() {
            let _ = running.join();
        }
    }
}

struct Socket {
    io: UdpSocket,
    state: UdpSocketState,
}

/// A batch on its way: packets of one size, the last may be shorter.
struct Batch {
    due: Instant,
    /// The socket that it leaves by, and where to
    socket: usize,
    to: SocketAddr,
    ecn: Option<EcnCodepoint>,
    contents: Vec<u8>,
    segment: usize,
}

/// One direction of the line.
struct Direction {
    batches: VecDeque<Batch>,
    /// When the last batch will have left the sender's end
    free: Instant,
    random: RandomBytes,
}

struct Forwarder {
    /// The near end, then one for each source
    sockets: Vec<Socket>,
    sources: Vec<SocketAddr>,
    by_source: HashMap<SocketAddr, usize>,
    to: SocketAddr,
    line: Line,
    there: Direction,
    back: Direction,
}

impl Socket {
    fn bind(address: SocketAddr) -> io::Result<Self> {
        let io = UdpSocket::bind(address)?;
        let state = UdpSocketState::new(UdpSockRef::from(&io))?;
        for set in [UdpSocketState::set_recv_buffer_size, UdpSocketState::set_send_buffer_size] {
            // The kernel may give less.
            let _ = set(&state, UdpSockRef::from(&io), SOCKET_BUFFER);
        }
        Ok(Self { io, state })
    }

    fn send(&self, batch: &Batch) {
        let most = self.state.max_gso_segments().get() * batch.segment;
        for contents in batch.contents.chunks(most.max(1)) {
            let transmit = Transmit {
                destination: batch.to,
                ecn: batch.ecn,
                contents,
                segment_size: (contents.len() > batch.segment).then_some(batch.segment),
                src_ip: None,
            };
            // A full buffer or an unreachable end loses packets, as any line does.
            let _ = self.state.send(UdpSockRef::from(&self.io), &transmit);
        }
    }
}

impl Direction {
    fn new(seed: u64) -> Self {
        Self { batches: VecDeque::new(), free: Instant::now(), random: RandomBytes::new(seed) }
    }

    /// Takes what arrived at the sender's end.
    fn take(&mut self, mut batch: Batch, line: &Line) {
        if line.loss_percent > 0.0 {
            let kept: Vec<_> = batch
                .contents
                .chunks(batch.segment)
                .filter(|_| !self.random.chance(line.loss_percent))
                .map(<[u8]>::to_vec)
                .collect();
            batch.contents = kept.concat();
            if batch.contents.is_empty() {
                return;
            }
        }
        let Some(rate) = line.rate else {
            batch.due = Instant::now() + line.delay;
            self.batches.push_back(batch);
            return;
        };
        for contents in batch.contents.chunks(batch.segment * TOGETHER) {
            let now = Instant::now();
            let start = self.free.max(now);
            #[allow(clippy::cast_precision_loss, reason = "a rate of a test has far fewer than 53 bits")]
            let seconds = |bytes: usize| Duration::from_secs_f64(bytes as f64 * 8.0 / rate as f64);
            if start - now > seconds(line.queue) {
                return;
            }
            self.free = start + seconds(contents.len());
            let contents = contents.to_vec();
            self.batches.push_back(Batch { due: self.free + line.delay, contents, ..batch });
        }
    }
}

impl Forwarder {
    fn new(near: Socket, to: SocketAddr, line: Line) -> Self {
        let (there, back) = (Direction::new(1), Direction::new(2));
        let (sockets, sources, by_source) = (vec![near], Vec::new(), HashMap::new());
        Self { sockets, sources, by_source, to, line, there, back }
    }

    fn run(mut self, stop: &AtomicBool) {
        let mut buffer = vec![0; BATCH];
        while !stop.load(Ordering::Relaxed) {
            for socket in 0..self.sockets.len() {
                for _ in 0..TURN {
                    if !self.receive(socket, &mut buffer) {
                        break;
                    }
                }
            }
            self.deliver();
            self.wait();
        }
    }

    /// Takes one batch from a socket. False when there is none.
    fn receive(&mut self, socket: usize, buffer: &mut [u8]) -> bool {
        let mut meta = [RecvMeta::default()];
        let from = &self.sockets[socket];
        match from.state.recv(UdpSockRef::from(&from.io), &mut [IoSliceMut::new(buffer)], &mut meta) {
            Ok(_) => {}
            // An error that an earlier packet met, such as an unreachable end, is no end of the line.
            Err(e) => return e.kind() != ErrorKind::WouldBlock,
        }
        let [RecvMeta { addr, len, stride, ecn, .. }] = meta;
        let (contents, segment, due) = (buffer[..len].to_vec(), stride.max(1), Instant::now());
        if socket == 0 {
            if let Some(socket) = self.socket_of(addr) {
                self.there.take(Batch { due, socket, to: self.to, ecn, contents, segment }, &self.line);
            }
        } else if addr == self.to {
            let to = self.sources[socket - 1];
            self.back.take(Batch { due, socket: 0, to, ecn, contents, segment }, &self.line);
        }
        true
    }

    fn socket_of(&mut self, source: SocketAddr) -> Option<usize> {
        if let Some(socket) = self.by_source.get(&source) {
            return Some(*socket);
        }
        if self.sources.len() >= SOURCES {
            return None;
        }
        let any = if self.to.is_ipv4() {
            IpAddr::from(Ipv4Addr::UNSPECIFIED)
        } else {
            Ipv6Addr::UNSPECIFIED.into()
        };
        self.sockets.push(Socket::bind(SocketAddr::new(any, 0)).ok()?);
        self.sources.push(source);
        self.by_source.insert(source, self.sources.len());
        Some(self.sources.len())
    }

    fn deliver(&mut self) {
        let now = Instant::now();
        for direction in [&mut self.there, &mut self.back] {
            while let Some(batch) = direction.batches.pop_front_if(|batch| batch.due <= now) {
                self.sockets[batch.socket].send(&batch);
            }
        }
    }

    /// Until a packet arrives or one is due.
    fn wait(&self) {
        let next =
            [&self.there, &self.back].into_iter().filter_map(|way| way.batches.front()).map(|b| b.due).min();
        let wait = next.map_or(LOOK, |due| due.saturating_duration_since(Instant::now()).min(LOOK));
        let Ok(wait) = Timespec::try_from(wait) else { return };
        let mut ready: Vec<_> = self.sockets.iter().map(|s| PollFd::new(&s.io, PollFlags::IN)).collect();
        let _ = poll(&mut ready, Some(&wait));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn direction_of(line: &Line, packets: usize) -> Direction {
        let mut direction = Direction::new(7);
        for _ in 0..packets {
            let contents = vec![1; 10_000];
            let to = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 1);
            direction
                .take(Batch { due: Instant::now(), socket: 0, to, ecn: None, contents, segment: 1000 }, line);
        }
        direction
    }

    fn bytes(direction: &Direction) -> usize {
        direction.batches.iter().map(|batch| batch.contents.len()).sum()
    }

    #[test]
    fn a_line_loses_about_as_many_packets_as_it_should() {
        let line = Line { loss_percent: 30.0, ..Line::default() };
        let left = bytes(&direction_of(&line, 1000));
        assert!((6_500_000..7_500_000).contains(&left), "{left} of 10,000,000");
        assert_eq!(bytes(&direction_of(&Line::default(), 10)), 100_000);
    }

    #[test]
    fn a_line_with_a_rate_delivers_at_it_and_drops_what_can_not_wait() {
        let delay = Duration::from_millis(20);
        // 1 MB/s: 100 kB wait for 0.1 s.
        let line = Line { delay, rate: Some(8_000_000), queue: 100_000, ..Line::default() };
        let start = Instant::now();
        let direction = direction_of(&line, 1000);
        let left = bytes(&direction);
        assert!((100_000..300_000).contains(&left), "{left}");
        let last = direction.batches.back().unwrap().due;
        assert!(last >= start + delay + Duration::from_millis(90), "{:?}", last - start);
    }
}
