//! The TCP listener of the API.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use http_body_util::BodyExt;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{debug, warn};

use super::auth::Auth;
use super::guard::{Client, guarded};
use super::limits::{Answering, Connections, MAX_HEAD, Place, WRITE_TIMEOUT};
use super::patience::Patience;
use super::server::{ACCEPT_PAUSE, HEAD_TIMEOUT, SHUTDOWN_GRACE};
use super::{Control, router};
use crate::ingress::holder;

/// `admin.listen` cannot be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot bind the admin API to {listen} (admin.listen): {reason}")]
pub struct ListenError {
    /// Where it was to listen
    pub listen: SocketAddr,
    /// Why it cannot, and what to do
    pub reason: String,
}

/// Binds the address of the API.
pub fn bind_tcp(listen: SocketAddr) -> Result<TcpListener, ListenError> {
    let bound = std::net::TcpListener::bind(listen).and_then(|listener| {
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    });
    bound.map_err(|error| ListenError { listen, reason: explain(listen, &error) })
}

/// Says what there is to say about an address that others can reach.
pub fn warn_of_clear_text(listen: SocketAddr) {
    if !listen.ip().to_canonical().is_loopback() {
        warn!(
            %listen, "the admin API can be reached by other machines, and its token travels in clear: listen on \
            127.0.0.1 and put a proxy with TLS or `ssh -L` in front"
        );
    }
}

fn explain(listen: SocketAddr, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            let holder = holder::of_tcp_port(listen.port()).unwrap_or_else(|| "another program".to_owned());
            format!("{holder} listens there; choose another port, or stop it")
        }
        io::ErrorKind::AddrNotAvailable => {
            format!("{} is no address of this machine; choose another", listen.ip())
        }
        io::ErrorKind::PermissionDenied if listen.port() < 1024 => {
            format!("{error}; ports below 1024 need root or the capability CAP_NET_BIND_SERVICE")
        }
        _ => error.to_string(),
    }
}

/// Serves the API to who has the token or a session, until `shutdown` is ready; then requests that are being answered
/// get 2 s.
pub async fn serve_tcp(
    listener: TcpListener,
    control: Arc<dyn Control>,
    auth: Arc<Auth>,
    shutdown: impl Future<Output = ()>,
) {
    let api = TowerToHyperService::new(guarded(router(control, Some(auth.clone())), auth));
    let open = Arc::new(Connections::default());
    let (stop, stopping) = watch::channel(());
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let (stream, client) = tokio::select! {
            accepted = accept(&listener) => accepted,
            Some(_) = connections.join_next() => continue,
            () = &mut shutdown => break,
        };
        let Some(place) = open.admit(client.ip()) else {
            debug!(client = %client.ip(), "no room for one more admin connection");
            continue;
        };
        connections.spawn(serve_connection(stream, client, api.clone(), place, stopping.clone()));
    }
    drop((listener, stop));
    let ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(SHUTDOWN_GRACE, ended).await.is_err() {
        debug!("admin requests over TCP were cut off");
    }
}

async fn serve_connection(
    stream: TcpStream,
    client: SocketAddr,
    api: TowerToHyperService<Router>,
    place: Arc<Place>,
    mut stopping: watch::Receiver<()>,
) {
    let own = place.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Client(client.ip().to_canonical()));
        // The guard marks it for who is let in.
        request.extensions_mut().insert(own.clone());
        let response = api.call(request);
        async move {
            let mut response = response.await?;
            let answering = response.extensions_mut().remove::<Arc<Answering>>();
            // The place is kept until the last byte of the body is on its way.
            Ok::<_, Infallible>(response.map(|body: Body| {
                body.map_frame(move |frame| {
                    let _until_dropped = &answering;
                    frame
                })
            }))
        }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(MAX_HEAD);
    let stream = TokioIo::new(Patience::new(stream, WRITE_TIMEOUT));
    let mut connection = pin!(http.serve_connection(stream, service));
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = place.cut() => return,
        _ = stopping.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, client = %client.ip(), "admin connection failed");
    }
}

async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                warn!(%error, "the admin API cannot accept connections; trying again");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_that_is_taken_is_named_with_its_holder() {
        let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let listen = held.local_addr().unwrap();
        let error = bind_tcp(listen).unwrap_err().to_string();
        assert!(error.contains(&listen.to_string()) && error.contains("listens there"), "{error}");
        #[cfg(target_os = "linux")]
        assert!(error.contains(&format!("(process {})", std::process::id())), "{error}");
        let elsewhere = bind_tcp("192.0.2.1:1".parse().unwrap()).unwrap_err().to_string();
        assert!(elsewhere.contains("192.0.2.1 is no address of this machine"), "{elsewhere}");
    }
}
