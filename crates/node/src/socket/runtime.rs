//! Runs noq's tasks on tokio, in turns that send together.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Instant;

use noq::{AsyncTimer, AsyncUdpSocket, TokioRuntime};

use super::outbox::Outbox;
use super::{Writable, writable};

/// Polls of one turn. A connection makes 20 packets in each; three fill what one send can hold.
const MAX_POLLS: usize = 3;

/// The runtime under the node's QUIC endpoint: tokio's, but what a task sends in one turn leaves in as few system calls
/// as there can be.
#[derive(Debug)]
pub struct TurnRuntime;

impl noq::Runtime for TurnRuntime {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        TokioRuntime.new_timer(at)
    }

    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        tokio::spawn(Task::new(future));
    }

    fn wrap_udp_socket(&self, socket: std::net::UdpSocket) -> io::Result<Box<dyn AsyncUdpSocket>> {
        TokioRuntime.wrap_udp_socket(socket)
    }

    fn now(&self) -> Instant {
        TokioRuntime.now()
    }
}

/// One of noq's tasks.
struct Task {
    future: Pin<Box<dyn Future<Output = ()> + Send>>,
    outbox: Outbox,
    /// Whether the tasks that were ready before this one have had their turn
    yielded: bool,
    /// Set while the socket does not take what is in the outbox
    writable: Option<Writable>,
    wake: Arc<TurnWake>,
    waker: Waker,
}

impl Task {
    fn new(future: Pin<Box<dyn Future<Output = ()> + Send>>) -> Self {
        let wake = Arc::new(TurnWake::default());
        Self {
            future,
            outbox: Outbox::default(),
            yielded: false,
            writable: None,
            waker: wake.clone().into(),
            wake,
        }
    }

    /// Sends what waits, or sees to it that the task is woken when that can be done.
    fn flush(&mut self) {
        let mut cx = Context::from_waker(&self.waker);
        loop {
            if self.outbox.flush().is_ok() {
                self.writable = None;
                return;
            }
            let Some(udp) = self.outbox.socket() else { return };
            let writable = self.writable.get_or_insert_with(|| writable(udp));
            match writable.as_mut().poll(&mut cx) {
                Poll::Pending => return,
                Poll::Ready(()) => self.writable = None,
            }
        }
    }
}

impl Future for Task {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let task = self.get_mut();
        // Who is woken from a task is next as a rule. The flows that are ready come first, so that the little that each has
        // leaves together.
        if !std::mem::replace(&mut task.yielded, true) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        task.wake.begin(cx.waker());
        let mut polls = 0;
        loop {
            let Task { future, outbox, waker, .. } = task;
            let done = outbox.gather(|| future.as_mut().poll(&mut Context::from_waker(waker))).is_ready();
            polls += 1;
            if done {
                task.flush(); // what the socket does not take now is lost
                return Poll::Ready(());
            }
            // A task that wakes itself has more to send, which joins what waits.
            let goes_on = polls < MAX_POLLS && !task.outbox.is_empty() && task.wake.again();
            if !goes_on {
                task.flush();
                // What is much does not wait for more: it is in the processor's caches now. Who wakes itself is the last
                // anyway.
                task.yielded = task.outbox.was_bulk();
                task.yielded |= task.wake.end();
                return Poll::Pending;
            }
        }
    }
}

const IDLE: u8 = 0;
const POLLED: u8 = 1;
const WOKEN: u8 = 2;

/// Knows whether a task was woken during its turn.
#[derive(Debug, Default)]
struct TurnWake {
    state: AtomicU8,
    task: Mutex<Option<Waker>>,
}

impl TurnWake {
    fn begin(&self, waker: &Waker) {
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if !task.as_ref().is_some_and(|old| old.will_wake(waker)) {
            *task = Some(waker.clone());
        }
        drop(task);
        self.state.swap(POLLED, Ordering::AcqRel);
    }

    /// Whether the task was woken since its last poll began; it is to be polled again then.
    fn again(&self) -> bool {
        self.state.compare_exchange(WOKEN, POLLED, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// The turn is over. Who was woken meanwhile has another; returns whether that is so.
    fn end(&self) -> bool {
        let is_woken =
            self.state.compare_exchange(POLLED, IDLE, Ordering::AcqRel, Ordering::Acquire).is_err();
        if is_woken {
            self.wake_task();
        }
        is_woken
    }

    fn wake_task(&self) {
        let waker = self.task.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Wake for TurnWake {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.state.swap(WOKEN, Ordering::AcqRel) == IDLE {
            self.wake_task();
        }
    }
}
