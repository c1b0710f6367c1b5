//! One thread that sends and receives for all ends of a load.

use std::io::ErrorKind;
use std::net::{Shutdown, TcpStream};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio::net::TcpStream as Stream;
use tokio::sync::watch;
use tokio::time::sleep_until;

use super::{End, Outcome, Pace, Silence};
use crate::bytes::RandomBytes;

/// How often the flows are looked at whose turn it is to send.
const TICK: Duration = Duration::from_millis(1);
/// Silences shorter than so many intervals are the pace itself.
const NOTED: f64 = 1.5;

/// A flow's end as it is driven.
struct Driven {
    stream: Arc<Stream>,
    bytes: RandomBytes,
    rest: Vec<u8>,
    due: Instant,
    finished: bool,
}

/// Drives all ends from one thread until they have ended.
pub(super) fn run(
    streams: Vec<TcpStream>,
    ends: &Arc<Vec<End>>,
    deadline: &watch::Receiver<Option<Instant>>,
    pace: Pace,
    start: Instant,
) -> Vec<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let count = u32::try_from(streams.len()).expect("a load of a test is small");
        let now = Instant::now();
        let mut driven = Vec::new();
        let mut readers = tokio::task::JoinSet::new();
        for (number, stream) in streams.into_iter().enumerate() {
            let stream = Arc::new(Stream::from_std(stream).expect("within the runtime"));
            let reader = read(number, stream.clone(), ends.clone(), deadline.clone(), pace, start);
            readers.spawn(reader);
            // Their turns are spread over the interval.
            let due = now + pace.every * u32::try_from(number).unwrap_or_default() / count;
            let bytes = RandomBytes::new(number as u64);
            driven.push(Driven { stream, bytes, rest: Vec::new(), due, finished: false });
        }
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        while driven.iter().any(|end| !end.finished) {
            tick.tick().await;
            let (now, deadline) = (Instant::now(), *deadline.borrow());
            if deadline.is_some_and(|deadline| now > deadline) {
                break;
            }
            let stopping = deadline.is_some();
            for (end, state) in driven.iter_mut().zip(ends.iter()) {
                end.send(now, stopping, pace, state);
            }
        }
        readers.join_all().await
    })
}

impl Driven {
    /// Sends when it is its turn; at the end sends what is left and closes this direction.
    fn send(&mut self, now: Instant, stopping: bool, pace: Pace, state: &End) {
        if self.finished {
            return;
        }
        if self.rest.is_empty() && stopping {
            self.finished = true;
            let _ = SockRef::from(&*self.stream).shutdown(Shutdown::Write);
            return;
        }
        if now < self.due {
            return;
        }
        if self.rest.is_empty() {
            self.rest.resize(pace.bytes, 0);
            self.bytes.fill(&mut self.rest);
        }
        // What was missed is not made up for: a flow that could not send goes on at its pace.
        self.due = (self.due + pace.every).max(now);
        match self.stream.try_write(&self.rest) {
            Ok(count) => {
                self.rest.drain(..count);
                state.sent.fetch_add(count as u64, Ordering::Relaxed);
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            // The reader sees the error, too, and tells it.
            Err(_) => self.finished = true,
        }
    }
}

/// Reads one end until its other end has closed.
async fn read(
    end: usize,
    stream: Arc<Stream>,
    ends: Arc<Vec<End>>,
    mut deadline: watch::Receiver<Option<Instant>>,
    pace: Pace,
    start: Instant,
) -> Outcome {
    let mut outcome = Outcome { end, silences: Vec::new(), error: None };
    let mut bytes = RandomBytes::new(end as u64 ^ 1);
    let mut buffer = vec![0; 64 << 10];
    let mut last: Option<Instant> = None;
    let mut late = pin!(async move {
        // An error says that the load was dropped.
        if let Ok(Some(deadline)) = deadline.wait_for(Option::is_some).await.map(|deadline| *deadline) {
            sleep_until(deadline.into()).await;
        }
    });
    loop {
        let ready = tokio::select! {
            ready = stream.readable() => ready,
            () = &mut late => Err(ErrorKind::TimedOut.into()),
        };
        if let Err(e) = ready {
            outcome.error = Some(e.to_string());
            return outcome;
        }
        match stream.try_read(&mut buffer) {
            Ok(0) => return outcome,
            Ok(count) => {
                bytes.expect(&buffer[..count]);
                let now = Instant::now();
                if let Some(from) = last.filter(|last| now - *last > pace.every.mul_f64(NOTED)) {
                    outcome.silences.push(Silence { from, until: now });
                }
                last = Some(now);
                let micros = u64::try_from((now - start).as_micros()).unwrap_or(u64::MAX);
                ends[end].last_arrival.store(micros, Ordering::Relaxed);
                ends[end].received.fetch_add(count as u64, Ordering::Relaxed);
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(e) => {
                outcome.error = Some(e.to_string());
                return outcome;
            }
        }
    }
}
