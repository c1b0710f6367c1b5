//! What a session needs while it is open: a route for its slot, and an end.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use ffmesh_core::reason::Reason;
use noq::PathId;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::{FIRST_SLOT, Session, SessionContext};
use crate::driver::RoutingTable;

/// Between attempts to set up a circuit where there is a route.
const REPOINT_INTERVAL: Duration = Duration::from_millis(500);
/// How long a retired session stays without flows: time enough for the other node to learn that it is retired.
const RETIRED_LINGER: Duration = Duration::from_secs(30);

/// Serves a session to its end.
pub(super) async fn supervise(
    context: SessionContext,
    mut table: watch::Receiver<Arc<RoutingTable>>,
    session: Session,
) {
    let node = session.peer().id.clone();
    let mut retired = session.0.retired.subscribe();
    let mut routeless: Option<Instant> = None;
    let mut repoint_at: Option<Instant> = None;
    let mut idle_since: Option<Instant> = None;
    loop {
        let routes = {
            let table = table.borrow_and_update();
            // A node that started anew has forgotten the session.
            if let (Some(epoch), Some(then)) = (table.epoch(&node), session.0.epoch)
                && epoch != then
            {
                drop(table);
                session.close(Reason::Lost, "the node restarted");
                break;
            }
            table.routes(&node)
        };
        routeless = if routes.is_empty() { Some(routeless.unwrap_or_else(Instant::now)) } else { None };
        if routeless.is_some_and(|since| since.elapsed() >= context.hold) {
            session.close(Reason::NoRoute, "no route for longer than mesh.hold");
            break;
        }
        let idle =
            *retired.borrow_and_update() && session.0.flows.load(std::sync::atomic::Ordering::Relaxed) == 0;
        idle_since = if idle { Some(idle_since.unwrap_or_else(Instant::now)) } else { None };
        if session.dialled() && idle_since.is_some_and(|since| since.elapsed() >= RETIRED_LINGER) {
            session.close(Reason::Done, "another session took over");
            break;
        }
        if let Some(route) = routes.into_iter().next()
            && repoint_at.is_none_or(|at| at <= Instant::now())
        {
            let pointed = point(&context, &session, route).await;
            repoint_at = if pointed { None } else { Some(Instant::now() + REPOINT_INTERVAL) };
        }

        let hold_end = routeless.map(|since| since + context.hold);
        let look_again = retired.borrow().then(|| Instant::now() + RETIRED_LINGER / 10);
        let wake = [hold_end, repoint_at, look_again].into_iter().flatten().min();
        tokio::select! {
            _ = session.0.connection.closed() => break,
            changed = table.changed() => if changed.is_err() { break },
            _ = retired.changed() => {}
            () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
        }
    }
    let reason = session.0.connection.closed().await;
    tracing::info!(peer = %node, "session closed: {}", super::end_text(&reason));
    if let Some((_, circuit)) = &session.0.dialled {
        let circuit = circuit.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(circuit) = circuit {
            context.driver.close_circuit(circuit).await;
        }
    }
}

/// Points the slot of a dialled session at a route, if it is not there. Returns whether it is now.
async fn point(context: &SessionContext, session: &Session, route: crate::driver::Route) -> bool {
    let Some((slot, circuit)) = &session.0.dialled else { return true };
    let current = circuit.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if current.as_ref().is_some_and(|current| current.route == route) {
        return true;
    }
    let node = &session.peer().id;
    match context.driver.open_circuit(route, session.0.id, FIRST_SLOT, *slot).await {
        Ok(new) => {
            tracing::info!(peer = %node, "session goes on over a new circuit");
            circuit.lock().unwrap_or_else(PoisonError::into_inner).replace(new);
            if let Some(old) = current {
                context.driver.close_circuit(old).await;
            }
            // Its acknowledgement starts loss detection at once; recovery would wait for a backed-off timer.
            if let Some(path) = session.0.connection.path(PathId::ZERO) {
                let _ = path.ping();
            }
            true
        }
        Err(e) => {
            tracing::debug!(peer = %node, "no new circuit yet: {e}");
            false
        }
    }
}
