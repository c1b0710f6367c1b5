//! What a session needs while it is open: circuits for its slots, and an end.

use std::sync::Arc;
use std::time::Duration;

use ffmesh_api::Change;
use ffmesh_core::reason::Reason;
use tokio::sync::watch;
use tokio::time::sleep_until;

use super::approach::Approach;
use super::steering::Steering;
use super::upkeep::{Facts, Step, Upkeep};
use super::{Session, SessionContext, end_text};
use crate::clock;
use crate::driver::RoutingTable;

/// How often it is looked whether flows are open.
const IDLE_LOOK: Duration = Duration::from_secs(3);
/// How long the circuits of a session that has ended stay: the packet that tells of the end travels over them.
const CIRCUIT_LINGER: Duration = Duration::from_secs(1);
/// Events and probes that are taken in before anything else is done.
const BATCH: usize = 32;

/// Serves a session to its end.
pub(super) async fn supervise(
    context: SessionContext,
    table: watch::Receiver<Arc<RoutingTable>>,
    session: Session,
    mut approach: Approach,
) {
    let node = session.peer().id.clone();
    let driver = context.driver.clone();
    if let Some(steering) = Steering::new(context.clone(), session.clone(), &approach) {
        run(&context, table, &session, steering, &mut approach).await;
    }
    let reason = session.0.connection.closed().await;
    let why = session.0.closed.get().map_or_else(|| end_text(&reason), |(_, text)| (*text).to_owned());
    tracing::info!(peer = %node, "session closed: {why}");
    // With a retired one ends nothing that others see: another took over.
    if !*session.0.retired.borrow() {
        context.changes.publish(Change::Session { node_id: node, open: false });
    }
    tokio::time::sleep(CIRCUIT_LINGER).await;
    drop(approach); // and with it where the slots point
    if let Some(id) = session.0.dialled {
        driver.leave(id).await;
    }
}

async fn run(
    context: &SessionContext,
    mut table: watch::Receiver<Arc<RoutingTable>>,
    session: &Session,
    mut steering: Steering,
    approach: &mut Approach,
) {
    let mut upkeep = Upkeep::default();
    let mut retired = session.0.retired.subscribe();
    let ends = &mut approach.ends;
    let mut offered = None;
    loop {
        let has_route = {
            let table = table.borrow_and_update();
            if offered.replace(table.generation) != Some(table.generation) {
                steering.offer(&table);
            }
            table.has_route(&session.peer().id)
        };
        let next = steering.poll().await;
        let facts = Facts {
            hold: *context.hold.borrow(),
            dialled: session.dialled(),
            has_route: has_route || steering.any_alive(),
            has_circuit: steering.has_circuit(),
            is_idle: session.is_idle(),
            is_ahead: context.ahead.borrow().contains(&session.peer().id),
            is_retired: *retired.borrow_and_update(),
            is_stale: session.is_stale(table.borrow().epoch(&session.peer().id)),
        };
        let look = clock::now() + IDLE_LOOK;
        let wake = match upkeep.step(clock::now(), facts) {
            Step::CloseStale => return session.close(Reason::Lost, "the node restarted"),
            Step::CloseRouteless => {
                return session.close(Reason::NoRoute, "no route for longer than mesh.hold");
            }
            Step::CloseRetired => return session.close(Reason::Done, "another session took over"),
            Step::CloseUnused => return session.close(Reason::Done, "not used any more"),
            Step::CloseForgotten => {
                return session.close(Reason::Lost, "the other node has no such session");
            }
            Step::Wait(wake) => wake.unwrap_or(look).min(look).min(next),
        };
        tokio::select! {
            _ = session.0.connection.closed() => return,
            changed = table.changed() => {
                if changed.is_err() {
                    return session.close(Reason::Drained, "the node is shutting down");
                }
            }
            _ = retired.changed() => {}
            Some(event) = ends.events.recv() => steering.on_event(event),
            () = ends.resumed.notified() => {}
            Some(probe) = ends.probes.recv() => steering.on_probe(&probe),
            () = sleep_until(clock::instant(wake)) => {}
        }
        for _ in 0..BATCH {
            if let Ok(event) = ends.events.try_recv() {
                steering.on_event(event);
            } else if let Ok(probe) = ends.probes.try_recv() {
                steering.on_probe(&probe);
            } else {
                break;
            }
        }
    }
}
