//! Enrolment and mutual TLS, end to end over loopback.

mod issuing;
mod joining;
mod storage;
mod tls;
mod trust;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ffmesh_core::id::NodeId;
use jiff::Timestamp;
use noq::crypto::rustls::{QuicClientConfig, QuicServerConfig};

use super::client_socket::client_endpoint;
use super::enrol::{Answer, EnrolRequest, RefusalReason};
use super::token::address_of;
use super::*;
use crate::config::Address;
use crate::state::StateDir;

const LINK: &[u8] = b"ffmesh-link-test";
const HOUR: Duration = Duration::from_hours(1);

/// An issuer and the endpoint that serves its joins; ends with the test.
pub(crate) struct Mesh {
    temp: tempfile::TempDir,
    state: StateDir,
    issuer: Arc<Issuer>,
    pub(crate) credentials: Credentials,
    port: u16,
}

impl Mesh {
    pub(crate) fn found(cert_ttl: Duration) -> Self {
        Self::named("home", "founder", cert_ttl)
    }

    fn named(mesh: &str, node: &str, cert_ttl: Duration) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let state = StateDir::at(&temp.path().join(node));
        let options = InitOptions {
            state: state.clone(),
            node_id: Some(id(node)),
            mesh: Some(mesh.parse().unwrap()),
            advertise: Vec::new(),
            listen_port: 3334,
            cert_ttl,
        };
        init(&options).unwrap();
        let issuer = Arc::new(Issuer::load(&state).unwrap().unwrap());
        let credentials = Credentials::load(&state).unwrap();
        Self { temp, state, issuer, credentials, port: 0 }
    }

    /// Serves joins on a free port.
    pub(crate) fn serving(mut self) -> Self {
        let config = QuicServerConfig::try_from(self.credentials.join_server_config()).unwrap();
        let endpoint = server(noq::ServerConfig::with_crypto(Arc::new(config)));
        self.port = endpoint.local_addr().unwrap().port();
        let issuer = self.issuer.clone();
        tokio::spawn(async move {
            while let Some(incoming) = endpoint.accept().await {
                let issuer = issuer.clone();
                tokio::spawn(async move {
                    let Ok(connection) = incoming.await else { return };
                    let _ = serve_join(connection, async move |request| issuer.enrol(&request)).await;
                });
            }
        });
        self
    }

    fn token(&self, change: impl FnOnce(&mut TokenOptions)) -> String {
        let mut options = TokenOptions {
            members: Vec::new(),
            ttl: HOUR,
            uses: 1,
            node: None,
            groups: Vec::new(),
            relay: true,
            advertise: vec![address(&format!("127.0.0.1:{}", self.port.max(1)))],
            listen_port: None,
        };
        change(&mut options);
        create_token(&self.state, &options).unwrap().token
    }

    fn dir(&self, name: &str) -> StateDir {
        StateDir::at(&self.temp.path().join(name))
    }

    async fn join(&self, token: &str, node: &str) -> Result<Joined, IdentityError> {
        join(token, &JoinOptions { state: self.dir(node), node_id: Some(id(node)) }).await
    }

    pub(crate) async fn member(&self, node: &str) -> Credentials {
        self.join(&self.token(|_| {}), node).await.unwrap();
        Credentials::load(&self.dir(node)).unwrap()
    }
}

fn id(text: &str) -> NodeId {
    text.parse().unwrap()
}

fn address(text: &str) -> Address {
    address_of(text).unwrap()
}

fn server(config: noq::ServerConfig) -> noq::Endpoint {
    noq::Endpoint::server(config, SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap()
}

/// What each side of a handshake says: the identity of the other, or why not.
type Side = Result<PeerIdentity, String>;

/// Connects two members; `expected` is the id that the client has configured.
async fn connect(client: &Credentials, server: &Credentials, expected: &str) -> (Side, Side) {
    let config = client.client_config(LINK);
    connect_with(client, config, server, expected, LINK).await
}

async fn connect_with(
    client: &Credentials,
    config: Arc<rustls::ClientConfig>,
    accepting: &Credentials,
    expected: &str,
    alpn: &[u8],
) -> (Side, Side) {
    let tls = QuicServerConfig::try_from(accepting.server_config(alpn)).unwrap();
    let endpoint = server(noq::ServerConfig::with_crypto(Arc::new(tls)));
    let to = endpoint.local_addr().unwrap();
    let mesh = accepting.mesh();
    let accepted = tokio::spawn(async move {
        let incoming = endpoint.accept().await.unwrap();
        let from = incoming.remote_address();
        let side = match incoming.await {
            Ok(connection) => {
                let peer = PeerIdentity::of(&connection, &mesh).map_err(|e| e.to_string());
                connection.close(0_u32.into(), b"accepted");
                peer
            }
            Err(e) => Err(explain_connection_error(&e, &Expected::accepted(from))),
        };
        endpoint.wait_idle().await;
        side
    });
    let endpoint = client_endpoint(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let tls = Arc::new(QuicClientConfig::try_from(config).unwrap());
    let name = id(expected).dns_name(&client.mesh());
    let dialled = endpoint.connect_with(noq::ClientConfig::new(tls), to, &name).unwrap().await;
    let node = id(expected);
    let expected = Expected::dialled(to, &node);
    let side = match dialled {
        Ok(connection) => {
            let identity = PeerIdentity::of(&connection, &client.mesh()).map_err(|e| e.to_string());
            // The server's verdict on the client's certificate comes after the client's handshake.
            match connection.closed().await {
                noq::ConnectionError::ApplicationClosed(close) if &*close.reason == b"accepted" => identity,
                e => Err(explain_connection_error(&e, &expected)),
            }
        }
        Err(e) => Err(explain_connection_error(&e, &expected)),
    };
    endpoint.wait_idle().await;
    (side, accepted.await.unwrap())
}

fn contains(side: &Side, words: &str) {
    assert!(side.as_ref().is_err_and(|e| e.contains(words)), "{words:?} is not in {side:?}");
}

fn refused<T: std::fmt::Debug>(outcome: Result<T, IdentityError>, with: &str) -> String {
    match outcome.unwrap_err() {
        IdentityError::Refused { reason, message } if reason == with => message,
        other => panic!("expected {with}, got {other:?}"),
    }
}
