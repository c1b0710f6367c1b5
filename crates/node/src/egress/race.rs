//! Happy eyeballs (RFC 8305, sections 4 and 5): several addresses are tried, each a little later than the one
//! before, and the first connection wins.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ffmesh_core::reason::Reason;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::{DIAL_TIMEOUT, Network, Refusal, reason};

/// How long an attempt has for itself (RFC 8305, section 8, recommends 250 ms).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// Most addresses of a name that are tried: both families get their chance within the first two seconds.
const MAX_ADDRESSES: usize = 8;

/// The first connection to one of `addresses`, which are in the order of preference.
pub(super) async fn connect(
    network: &Arc<dyn Network>,
    addresses: Vec<SocketAddr>,
    deadline: Instant,
) -> Result<TcpStream, Refusal> {
    if let [address] = addresses[..] {
        // No race: no task of its own.
        return match timeout_at(deadline, network.connect(address)).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(summary(&addresses, &[(address, error)])),
            Err(_) => Err(summary(&addresses, &[])),
        };
    }
    let addresses = interleaved(addresses);
    let mut waiting = addresses.iter().copied();
    // Dropped with what is still under way as soon as one has won.
    let mut attempts = JoinSet::new();
    let mut failures: Vec<(SocketAddr, io::Error)> = Vec::new();
    loop {
        if let Some(address) = waiting.next() {
            let attempt = network.connect(address);
            attempts.spawn(async move { (address, attempt.await) });
        }
        let next = Instant::now() + ATTEMPT_DELAY;
        let until = if waiting.len() > 0 { deadline.min(next) } else { deadline };
        match timeout_at(until, attempts.join_next()).await {
            Ok(Some(Ok((_, Ok(stream))))) => return Ok(stream),
            Ok(Some(Ok((address, Err(error))))) => failures.push((address, error)),
            Ok(Some(Err(error))) => return Err(Refusal::new(Reason::Limit, error.to_string())),
            Ok(None) => return Err(summary(&addresses, &failures)),
            Err(_) if until == deadline => return Err(summary(&addresses, &failures)),
            Err(_) => {}
        }
    }
}

/// `addresses` with the families taking turns, the preferred one first, and no more than are tried.
fn interleaved(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (preferred, other): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|a| a.is_ipv6() == first);
    let (mut preferred, mut other) = (preferred.into_iter(), other.into_iter());
    let mut turns = Vec::new();
    while turns.len() < MAX_ADDRESSES {
        let before = turns.len();
        turns.extend(preferred.next());
        turns.extend(other.next());
        if turns.len() == before {
            break;
        }
    }
    turns.truncate(MAX_ADDRESSES);
    turns
}

/// One refusal out of all attempts; addresses without a failure gave no answer.
fn summary(addresses: &[SocketAddr], failures: &[(SocketAddr, io::Error)]) -> Refusal {
    let silence = || (Reason::Timeout, format!("no answer in {} s", DIAL_TIMEOUT.as_secs()));
    let mut outcomes: Vec<_> = addresses
        .iter()
        .map(|address| {
            let failure = failures.iter().find(|(failed, _)| failed == address);
            let (why, text) = failure.map_or_else(silence, |(_, error)| (reason(error), error.to_string()));
            (why, format!("{address}: {text}"))
        })
        .collect();
    // What says most goes first: a shortage here, a host that is there, one that may be, none.
    outcomes.sort_by_key(|(why, _)| match why {
        Reason::Limit => 0,
        Reason::Refused => 1,
        Reason::Timeout => 2,
        _ => 3,
    });
    let why = outcomes.first().map_or(Reason::Unroutable, |(why, _)| *why);
    let texts: Vec<_> = outcomes.into_iter().map(|(_, text)| text).collect();
    Refusal::new(why, texts.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns() {
        let list = |text: &str| text.split(' ').map(|a| a.parse().unwrap()).collect::<Vec<SocketAddr>>();
        assert_eq!(
            interleaved(list("[::1]:1 [::2]:1 [::3]:1 1.1.1.1:1 1.1.1.2:1")),
            list("[::1]:1 1.1.1.1:1 [::2]:1 1.1.1.2:1 [::3]:1")
        );
        assert_eq!(interleaved(list("1.1.1.1:1 1.1.1.2:1 [::1]:1")), list("1.1.1.1:1 [::1]:1 1.1.1.2:1"));
        let many = (1..=20).map(|i| SocketAddr::from(([1, 1, 1, i], 1))).collect();
        assert_eq!(interleaved(many).len(), MAX_ADDRESSES);
    }
}
