//! How much of the API clients may take at once.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::routes::Failure;

/// Event streams at once: many times the people who look at one node. Fewer than connections of one source, so that
/// streams alone keep nobody out.
pub const MAX_STREAMS: usize = 64;
/// Requests that are being answered at once over TCP, bodies of answers not counted. Each may make an answer of some
/// megabytes.
pub(super) const MAX_REQUESTS: usize = 64;
/// Connections over TCP at once.
pub(super) const MAX_CONNECTIONS: usize = 256;
/// Of these, from one address (IPv6: from one /64, which is one network).
pub(super) const MAX_PER_SOURCE: usize = 128;
/// Largest head of a request; browsers send a few KiB.
pub(super) const MAX_HEAD: usize = 32 * 1024;
/// How long a client may take nothing of its answer.
pub(super) const WRITE_TIMEOUT: Duration = Duration::from_secs(20);
/// When a client that was turned away may come back.
const COME_BACK: Duration = Duration::from_secs(5);

/// Room for event streams.
#[derive(Clone, Debug)]
pub(super) struct Streams(Arc<Semaphore>);

impl Default for Streams {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_STREAMS)))
    }
}

impl Streams {
    /// Room for one, to be kept as long as the stream.
    ///
    /// # Errors
    /// 503 with `Retry-After` when all is taken.
    pub(super) fn take(&self) -> Result<OwnedSemaphorePermit, Failure> {
        let taken = |_| busy(format!("{MAX_STREAMS} event streams are open already"));
        Arc::clone(&self.0).try_acquire_owned().map_err(taken)
    }
}

/// What a client is told when there is no room.
pub(super) fn busy(what: impl std::fmt::Display) -> Failure {
    let again = COME_BACK.as_secs();
    let error = format!("{what}; try again in {again} s, or close what is not needed");
    Failure::new(StatusCode::SERVICE_UNAVAILABLE, error).retry_after(COME_BACK)
}

/// The connections that are open, each with where it comes from. When there is no room, one makes way that answers
/// nobody who was let in: who opens connections and says nothing, or never ends a login, keeps no one out.
#[derive(Debug, Default)]
pub(super) struct Connections {
    open: Mutex<HashMap<u64, Open>>,
    next: AtomicU64,
}

#[derive(Debug)]
struct Open {
    source: IpAddr,
    /// Since when it waits for a request of who is let in; none while one is answered.
    waits: Option<Instant>,
    cut: Arc<Notify>,
}

/// A connection's place among those that are open.
#[derive(Debug)]
pub(super) struct Place {
    connections: Arc<Connections>,
    id: u64,
    cut: Arc<Notify>,
}

/// Says that a request is being answered, until it is dropped.
#[derive(Debug)]
pub(super) struct Answering(Arc<Place>);

impl Connections {
    /// A place for a connection; none where all are busy.
    pub(super) fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Arc<Place>> {
        let source = source(address);
        let mut open = self.lock();
        let of_source = open.values().filter(|open| open.source == source).count();
        if of_source >= MAX_PER_SOURCE || open.len() >= MAX_CONNECTIONS {
            let whose = (of_source >= MAX_PER_SOURCE).then_some(source);
            let candidates = open.iter().filter(|(_, open)| whose.is_none_or(|source| open.source == source));
            let waiting = candidates.filter_map(|(id, open)| Some((open.waits?, *id)));
            let (_, oldest) = waiting.min()?;
            if let Some(gone) = open.remove(&oldest) {
                gone.cut.notify_one();
            }
        }
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let cut = Arc::new(Notify::new());
        open.insert(id, Open { source, waits: Some(Instant::now()), cut: cut.clone() });
        Some(Arc::new(Place { connections: self.clone(), id, cut }))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Ready when the connection has to make way.
    pub(super) async fn cut(&self) {
        self.cut.notified().await;
    }

    /// Keeps the place while a request is answered.
    pub(super) fn answering(self: &Arc<Self>) -> Answering {
        self.set(None);
        Answering(self.clone())
    }

    fn set(&self, waits: Option<Instant>) {
        if let Some(open) = self.connections.lock().get_mut(&self.id) {
            open.waits = waits;
        }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.set(Some(Instant::now()));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.lock().remove(&self.id);
    }
}

/// Whom an address belongs to: an IPv6 host has all of its /64.
fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(i: usize) -> IpAddr {
        IpAddr::from([10, 0, 0, u8::try_from(i).unwrap()])
    }

    #[test]
    fn streams_are_bounded_and_their_room_comes_back() {
        let streams = Streams::default();
        let mut taken: Vec<_> = (0..MAX_STREAMS).map(|_| streams.take().unwrap()).collect();
        for _ in 0..10_000 {
            assert!(streams.take().is_err());
        }
        taken.pop();
        assert!(streams.take().is_ok());
    }

    #[tokio::test]
    async fn one_that_waits_makes_way_and_one_that_is_answered_does_not() {
        let connections = Arc::new(Connections::default());
        let places: Vec<_> = (0..MAX_PER_SOURCE).map(|_| connections.admit(client(1)).unwrap()).collect();
        let busy: Vec<_> = places[1..].iter().map(Place::answering).collect();
        let next = connections.admit(client(1)).unwrap();
        places[0].cut().await;
        let busy_too = next.answering();
        assert!(connections.admit(client(1)).is_none(), "all of this source are busy");
        connections.admit(client(2)).unwrap();
        drop((busy_too, next));
        connections.admit(client(1)).unwrap();
        drop(busy);
        assert!(connections.lock().len() <= MAX_PER_SOURCE);
        drop(places);
        assert!(connections.lock().is_empty());
    }

    #[test]
    fn all_sources_together_are_bounded() {
        let connections = Arc::new(Connections::default());
        let places: Vec<_> = (0..10_000).filter_map(|i| connections.admit(client(i % 250))).collect();
        assert_eq!(connections.lock().len(), MAX_CONNECTIONS);
        drop(places);
    }

    #[test]
    fn a_network_of_ipv6_is_one_source() {
        let source = |text: &str| source(text.parse().unwrap());
        assert_eq!(source("2001:db8::1"), source("2001:db8::ffff:0:0:2"));
        assert_ne!(source("2001:db8::1"), source("2001:db8:0:1::1"));
        assert_eq!(source("::ffff:10.0.0.1"), source("10.0.0.1"));
    }
}
