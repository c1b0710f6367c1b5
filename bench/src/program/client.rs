//! What clients of the echo service do: connect, ping, wait.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ffmesh_lab::{Net, in_parallel};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a tunnel may take from its start until the first byte comes through.
const START: Duration = Duration::from_secs(20);
/// From one try to the next until then.
const RETRY: Duration = Duration::from_millis(50);
/// Connections opened at a time where many are to be open.
const OPENERS: usize = 16;
/// From one connection to the next where each has its turn: a prime, so that none is left out.
const STRIDE: usize = 7919;
/// Failed connections of a hundred with which a rate still counts.
const MOST_FAILED: usize = 1;

/// Times in microseconds at p50 and p99.
pub(crate) fn ranks(mut times: Vec<Duration>) -> Vec<f64> {
    times.sort_unstable();
    let rank = |percent: usize| times.get((times.len() * percent).div_ceil(100).max(1) - 1);
    [50, 99].map(|percent| rank(percent).map_or(f64::NAN, |time| time.as_secs_f64() * 1e6)).to_vec()
}

/// Connects and gets one byte back.
fn open(address: SocketAddr) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    echo(&mut stream)?;
    Ok(stream)
}

fn echo(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(b"x")?;
    stream.read_exact(&mut [0])
}

fn timed(mut job: impl FnMut() -> io::Result<()>, count: usize) -> Result<Vec<Duration>, String> {
    let one = |_| {
        let start = Instant::now();
        job().map(|()| start.elapsed())
    };
    (0..count).map(one).collect::<io::Result<_>>().map_err(|e| format!("an echo failed: {e}"))
}

/// Tries until a byte comes back.
pub(crate) fn warm_up(net: &Net, address: SocketAddr) -> Result<(), String> {
    net.inside(|| {
        let start = Instant::now();
        loop {
            match open(address) {
                Ok(_) => return Ok(()),
                Err(e) if start.elapsed() > START => return Err(format!("no byte came through: {e}")),
                Err(_) => std::thread::sleep(RETRY),
            }
        }
    })
}

/// The time of one connection until its first byte is back, in ms.
pub(crate) fn first_byte(net: &Net, address: SocketAddr) -> Result<f64, String> {
    let start = Instant::now();
    net.inside(|| open(address)).map_err(|e| format!("the first connection failed: {e}"))?;
    Ok(start.elapsed().as_secs_f64() * 1e3)
}

/// Connect, one byte there and back, close, one after the other.
pub(crate) fn connects(net: &Net, address: SocketAddr, count: usize) -> Result<Vec<f64>, String> {
    net.inside(|| timed(|| open(address).map(drop), count)).map(ranks)
}

/// The same from several threads at once for some time: how many a second.
pub(crate) fn connect_rate(
    net: &Net,
    address: SocketAddr,
    at_once: usize,
    time: Duration,
) -> Result<f64, String> {
    let failed = AtomicUsize::new(0);
    let start = Instant::now();
    let worker = |_| {
        let mut done = 0;
        while start.elapsed() < time {
            match open(address) {
                Ok(_) => done += 1,
                Err(_) => _ = failed.fetch_add(1, Ordering::Relaxed),
            }
        }
        done
    };
    let done: usize = net.inside(|| in_parallel(at_once, at_once, worker)).into_iter().sum();
    let seconds = start.elapsed().as_secs_f64();
    let failed = failed.into_inner();
    if failed * 100 > (done + failed) * MOST_FAILED {
        return Err(format!("{failed} of {} connections failed", done + failed));
    }
    Ok(f64::from(u32::try_from(done).unwrap_or(u32::MAX)) / seconds)
}

/// One byte there and back on one connection, again and again.
pub(crate) fn pings(net: &Net, address: SocketAddr, count: usize) -> Result<Vec<f64>, String> {
    net.inside(|| {
        let mut stream = open(address).map_err(|e| format!("can't connect: {e}"))?;
        timed(|| echo(&mut stream), count)
    })
    .map(ranks)
}

/// Opens connections that then say nothing, and holds them.
pub(crate) fn idle(net: &Net, address: SocketAddr, count: usize) -> Result<Vec<TcpStream>, String> {
    let open = |_| open(address);
    let opened: io::Result<_> = net.inside(|| in_parallel(count, OPENERS, open)).into_iter().collect();
    opened.map_err(|e| format!("not all of {count} connections could be opened: {e}"))
}

/// One byte there and back, each time over the next of these connections.
pub(crate) fn echoes_in_turn(streams: &mut [TcpStream], count: usize) -> Result<Vec<f64>, String> {
    let all = streams.len().max(1);
    let mut next = 0;
    let one = || {
        next = (next + STRIDE) % all;
        streams.get_mut(next).map_or(Ok(()), echo)
    };
    timed(one, count).map(ranks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_the_nearest() {
        let found = ranks((1..=200).map(Duration::from_micros).collect());
        assert!((found[0] - 100.0).abs() < 1e-6 && (found[1] - 198.0).abs() < 1e-6, "{found:?}");
    }
}
