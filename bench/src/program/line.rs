//! A long and lossy line for whatever protocol: frames from one interface leave by another later, or never.
//!
//! In user space and without the kernel's netem, which many kernels of machines in clouds lack. It costs part of a
//! core, the same for every candidate.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ffmesh_lab::{Net, RandomBytes};
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recvfrom, send, setsockopt,
    socket, sockopt,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// How often it looks whether it is to end.
const LOOK: Duration = Duration::from_millis(50);
/// Frames taken before those that are due have their turn.
const TURN: usize = 64;
/// Of each socket: 40 ms at some 1.5 Gbit/s while this process waits for a core.
const SOCKET_BUFFER: usize = 8 << 20;
/// The longest frame: interfaces here segment nothing, and have an MTU of 1500.
const FRAME: usize = 2048;
/// `sll_pkttype` of what this machine itself sends.
const OUTGOING: u8 = 4;

/// What it does to frames, in each direction for itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Distance {
    pub(crate) delay: Duration,
    pub(crate) loss_percent: f64,
}

/// A line between two interfaces of a namespace. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct LongLine {
    stop: Arc<AtomicBool>,
    running: Vec<JoinHandle<()>>,
}

impl LongLine {
    pub(crate) fn start(net: &Net, ends: &[String; 2], distance: Distance) -> Result<Self, String> {
        let open = |end: &str| {
            let socket = net.inside(|| open(end));
            socket.map(Arc::new).map_err(|e| format!("can't read along on {end}: {e}"))
        };
        let (a, b) = (open(&ends[0])?, open(&ends[1])?);
        let stop = Arc::new(AtomicBool::new(false));
        let way = |from: &Arc<OwnedFd>, to: &Arc<OwnedFd>, seed| {
            let way = Way { from: from.clone(), to: to.clone(), distance, random: RandomBytes::new(seed) };
            let stop = stop.clone();
            std::thread::spawn(move || way.run(&stop))
        };
        let running = vec![way(&a, &b, 1), way(&b, &a, 2)];
        Ok(Self { stop, running })
    }
}

impl Drop for LongLine {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for running in self.running.drain(..) {
            let _ = running.join();
        }
    }
}

/// A packet socket for all frames of an interface.
fn open(interface: &str) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll)?;
    setsockopt(&socket, sockopt::RcvBufForce, &SOCKET_BUFFER)?;
    setsockopt(&socket, sockopt::SndBufForce, &SOCKET_BUFFER)?;
    let address = nix::ifaddrs::getifaddrs()?
        .filter(|found| found.interface_name == interface)
        .find_map(|found| found.address?.as_link_addr().copied())
        .ok_or_else(|| io::Error::other("no such interface"))?;
    // Its protocol is none, and then that of the socket stays.
    bind(socket.as_raw_fd(), &address)?;
    Ok(socket)
}

/// One direction.
struct Way {
    from: Arc<OwnedFd>,
    to: Arc<OwnedFd>,
    distance: Distance,
    random: RandomBytes,
}

impl Way {
    fn run(mut self, stop: &AtomicBool) {
        let mut frames: VecDeque<(Instant, Vec<u8>)> = VecDeque::new();
        let mut buffer = [0; FRAME];
        while !stop.load(Ordering::Relaxed) {
            for _ in 0..TURN {
                let Ok((len, source)) = recvfrom::<LinkAddr>(self.from.as_raw_fd(), &mut buffer) else {
                    break;
                };
                if source.is_some_and(|source| source.pkttype() == OUTGOING)
                    || self.random.chance(self.distance.loss_percent)
                {
                    continue;
                }
                frames.push_back((Instant::now() + self.distance.delay, buffer[..len].to_vec()));
            }
            let now = Instant::now();
            while let Some((_, frame)) = frames.pop_front_if(|(due, _)| *due <= now) {
                // A full buffer loses frames, as any line does.
                let _ = send(self.to.as_raw_fd(), &frame, MsgFlags::empty());
            }
            let wait = frames
                .front()
                .map_or(LOOK, |(due, _)| due.saturating_duration_since(Instant::now()).min(LOOK));
            let Ok(wait) = Timespec::try_from(wait) else { return };
            let _ = poll(&mut [PollFd::new(&self.from.as_fd(), PollFlags::IN)], Some(&wait));
        }
    }
}
