//! What a session needs while it is open: a route for its slot, and an end. `upkeep` decides, this carries it out.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ffmesh_core::reason::Reason;
use noq::{Connection, PathId};
use tokio::sync::watch;
use tokio::time::sleep_until;

use super::upkeep::{Facts, Step, Upkeep};
use super::{Session, SessionContext, end_text, lock};
use crate::clock;
use crate::driver::{Route, RoutingTable};
use crate::transport::Transport;

/// How often a retired session looks whether its flows have ended.
const RETIRED_LOOK: Duration = Duration::from_secs(3);

/// After this long without a route, probes have been backed off too far to be waited for.
const LONG_OUTAGE: Duration = Duration::from_millis(500);
/// Before each ping over a new route.
const AWAKEN_DELAYS: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(30), Duration::from_millis(100), Duration::from_millis(300)];
/// How long the circuit of a session that has ended stays.
const CIRCUIT_LINGER: Duration = Duration::from_secs(1);

/// Serves a session to its end.
pub(super) async fn supervise(
    context: SessionContext,
    mut table: watch::Receiver<Arc<RoutingTable>>,
    session: Session,
) {
    let node = session.peer().id.clone();
    let mut upkeep = Upkeep::new(context.hold);
    let mut retired = session.0.retired.subscribe();
    let mut pointed = context.labels.pointed();
    let mut hop = None;
    let mut unpointed_since = None;
    loop {
        let (route, is_stale) = {
            let table = table.borrow_and_update();
            (table.routes(&node).into_iter().next(), session.is_stale(table.epoch(&node)))
        };
        let is_retired = *retired.borrow_and_update();
        pointed.borrow_and_update();
        let new_hop = context.labels.hop(session.0.slot);
        if new_hop != hop && new_hop.is_some() {
            let outage = unpointed_since.map_or(Duration::ZERO, |since| clock::now() - since);
            tokio::spawn(awaken(context.transport.clone(), session.0.connection.clone(), outage));
        }
        hop = new_hop;
        unpointed_since = if hop.is_some() { None } else { unpointed_since.or(Some(clock::now())) };

        let facts = Facts {
            dialled: session.dialled(),
            has_route: route.is_some(),
            is_pointed: hop.is_some() && is_on(&session, route.as_ref()),
            is_idle: is_retired && session.0.flows.load(Ordering::Relaxed) == 0,
            is_stale,
        };
        let wake = match upkeep.step(clock::now(), facts) {
            Step::CloseStale => break session.close(Reason::Lost, "the node restarted"),
            Step::CloseRouteless => {
                break session.close(Reason::NoRoute, "no route for longer than mesh.hold");
            }
            Step::CloseRetired => break session.close(Reason::Done, "another session took over"),
            Step::CloseForgotten => break session.close(Reason::Lost, "the other node has no such session"),
            Step::Point => {
                if let Some(route) = route {
                    point(&context, &session, route).await;
                }
                continue;
            }
            Step::Wait(wake) => wake.map(clock::instant),
        };
        let look = is_retired.then(|| tokio::time::Instant::now() + RETIRED_LOOK);
        let wake = [wake, look].into_iter().flatten().min();
        tokio::select! {
            _ = session.0.connection.closed() => break,
            changed = table.changed() => if changed.is_err() { break },
            _ = retired.changed() => {}
            _ = pointed.changed() => {}
            () = sleep_until(wake.unwrap_or_else(tokio::time::Instant::now)), if wake.is_some() => {}
        }
    }
    let reason = session.0.connection.closed().await;
    let why = session.0.closed.get().map_or_else(|| end_text(&reason), |(_, text)| (*text).to_owned());
    tracing::info!(peer = %node, "session closed: {why}");
    let circuit = session.0.dialled.as_ref().and_then(|dialled| lock(&dialled.circuit).take());
    if let Some(circuit) = circuit {
        // The packet that tells of the end travels over it.
        tokio::time::sleep(CIRCUIT_LINGER).await;
        context.driver.close_circuit(circuit).await;
    }
}

/// Starts loss detection over a new route: the acknowledgement of a ping shows what was lost, where recovery would wait
/// for a backed-off timer. Both sides do so, as in a download only the accepting one has something to send; and several
/// times, as the other side's labels may be in place a little later.
async fn awaken(transport: Transport, connection: Connection, outage: Duration) {
    for (turn, delay) in AWAKEN_DELAYS.into_iter().enumerate() {
        tokio::time::sleep(delay).await;
        // A sender whose window is full of lost packets cannot even ping before its next probe is due.
        if turn == 1 && outage >= LONG_OUTAGE {
            transport.probe_now();
        }
        match connection.path(PathId::ZERO) {
            Some(path) if path.ping().is_ok() => {}
            _ => return, // the session has ended
        }
    }
}

/// Whether a dialled session's circuit takes this route; an accepted session takes what it is given.
fn is_on(session: &Session, route: Option<&Route>) -> bool {
    session.0.dialled.as_ref().is_none_or(|dialled| {
        lock(&dialled.circuit).as_ref().is_some_and(|circuit| Some(&circuit.route) == route)
    })
}

/// Points the slot of a dialled session at a route.
async fn point(context: &SessionContext, session: &Session, route: Route) {
    let Some(dialled) = &session.0.dialled else { return };
    let node = &session.peer().id;
    match context.driver.open_circuit(route, dialled.id, session.0.slot).await {
        Ok(new) => {
            tracing::info!(peer = %node, "session goes on over a new circuit");
            let old = lock(&dialled.circuit).replace(new);
            if let Some(old) = old {
                context.driver.close_circuit(old).await;
            }
        }
        Err(e) => tracing::debug!(peer = %node, "no new circuit yet: {e}"),
    }
}
