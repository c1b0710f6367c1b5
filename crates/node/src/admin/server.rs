//! The accept loop of the Unix socket.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tracing::{debug, warn};

use super::auth::Auth;
use super::{Control, router};

/// How long a client may take to send a request's head. The clients are local; a slower one is stuck.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections served at once, those of `ffmesh nc` not counted: many times what people and scripts need, and
/// small beside the limit on open files.
pub const MAX_CONNECTIONS: usize = 256;
/// How long requests that are being answered may take when the node stops.
pub(super) const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);
/// Pause after `accept` failed, which it does at once again when files have run out.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves the admin API until `shutdown` is ready; then requests that are being answered get 2 s, and flows of
/// `ffmesh nc` that are still open are cut. `auth` makes login codes; none where the API is not offered over TCP.
pub async fn serve(
    listener: UnixListener,
    control: Arc<dyn Control>,
    auth: Option<Arc<Auth>>,
    shutdown: impl Future<Output = ()>,
) {
    let service = TowerToHyperService::new(router(control, auth));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);

    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let (stop, stopping) = watch::channel(());
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let (stream, permit) = tokio::select! {
            accepted = accept(&listener, &room) => accepted,
            Some(_) = connections.join_next() => continue,
            () = &mut shutdown => break,
        };
        let connection = http.serve_connection(TokioIo::new(stream), service.clone()).with_upgrades();
        let mut stopping = stopping.clone();
        connections.spawn(async move {
            let mut connection = pin!(connection);
            let ended = tokio::select! {
                ended = &mut connection => ended,
                _ = stopping.changed() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = ended {
                debug!(%error, "admin connection failed");
            }
            drop(permit);
        });
    }
    drop((listener, stop));
    let ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(SHUTDOWN_GRACE, ended).await.is_err() {
        debug!("admin requests were cut off");
    }
}

async fn accept(
    listener: &UnixListener,
    room: &Arc<Semaphore>,
) -> (UnixStream, Option<tokio::sync::OwnedSemaphorePermit>) {
    // The semaphore is never closed.
    let permit = Arc::clone(room).acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (stream, permit),
            Err(error) => {
                warn!(%error, "the admin socket cannot accept connections; trying again");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
