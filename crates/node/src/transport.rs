//! The QUIC endpoint: its settings, and the TLS configurations of each kind of connection.
//!
//! Three kinds of connection share the port, told apart by their ALPN (RFC 7301): links, sessions, and enrolment.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ffmesh_core::id::NodeId;
use ffmesh_core::label::LABEL_BIT;
use ffmesh_udp::Socket;
use noq::congestion::{Bbr3Config, ControllerFactory, CubicConfig, NewRenoConfig};
use noq::crypto::rustls::{NoInitialCipherSuite, QuicClientConfig, QuicServerConfig};
use noq::{
    ClientConfig, ConnectError, Connecting, ConnectionId, ConnectionIdGenerator, Endpoint, EndpointConfig,
    IdleTimeout, Incoming, MtuDiscoveryConfig, ServerConfig, TransportConfig, VarInt,
};
use rand::RngExt as _;

use crate::config::{Config, Congestion};
use crate::identity::{Credentials, JOIN_ALPN};
use crate::socket::{Dialling, LabelSocket, Labels, SlotAddr};

/// ALPN of links.
const LINK_ALPN: &[u8] = b"ffmesh-link/1";
/// ALPN of sessions.
const SESSION_ALPN: &[u8] = b"ffmesh-session/1";

/// How long a handshake may take, on either side.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Streams that one session may have open in each direction: flows, and probes beside them.
const MAX_STREAMS: u32 = 65_535;
/// Streams of a link: the control stream, and room for later kinds.
const MAX_LINK_STREAMS: u32 = 8;
/// Slots that a session may have, doubled: a slot that is opened anew overlaps with the old one.
const MAX_PATHS: u32 = 6;
/// How much longer than `mesh.hold` a session lives without a packet, so that its flows end first.
const HOLD_MARGIN: Duration = Duration::from_secs(30);
/// Round trip time assumed before it is measured: the first packets are sent again after three times this. Below
/// RFC 9002's 333 ms, as a lost first packet must not cost a second.
const INITIAL_RTT: Duration = Duration::from_millis(100);
/// Smallest UDP payload that QUIC needs (RFC 9000, section 14), which every path must carry.
const MIN_MTU: u16 = 1200;
/// Length of this node's connection IDs. With 63 random bits a collision within a node is out of the question.
const CONNECTION_ID_LEN: usize = 8;
/// Handshakes that may wait to be accepted.
const MAX_INCOMING: usize = 1024;

/// What an incoming connection asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A neighbour's link, from a real address.
    Link,
    /// A session, from a slot.
    Session(SlotAddr),
    /// An enrolment, from a real address, without a certificate.
    Join,
}

/// Why the endpoint could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// A socket call failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// TLS without AES-128-GCM, which protects QUIC's first packets.
    #[error("TLS settings do not fit QUIC: {0}")]
    Tls(#[from] NoInitialCipherSuite),
}

/// The node's QUIC endpoint.
#[derive(Debug, Clone)]
pub struct Transport {
    endpoint: Endpoint,
    labels: Labels,
    link_client: ClientConfig,
    session_client: ClientConfig,
    link_server: Arc<ServerConfig>,
    session_server: Arc<ServerConfig>,
    join_server: Arc<ServerConfig>,
}

impl Transport {
    /// An endpoint over a bound socket. Needs a tokio runtime.
    pub fn new(
        udp: Arc<Socket>,
        labels: Labels,
        credentials: &Credentials,
        config: &Config,
    ) -> Result<Self, TransportError> {
        let link = Arc::new(link_settings(config));
        let session = Arc::new(session_settings(config));
        let server = |alpn, settings: &Arc<TransportConfig>| {
            server(credentials.server_config(alpn), settings).map(Arc::new)
        };
        let client = |alpn, settings: &Arc<TransportConfig>| -> Result<_, TransportError> {
            let crypto = QuicClientConfig::try_from(credentials.client_config(alpn))?;
            let mut client = ClientConfig::new(Arc::new(crypto));
            client.transport_config(settings.clone());
            Ok(client)
        };
        let link_server = server(LINK_ALPN, &link)?;

        let mut endpoint = EndpointConfig::new(credentials.stateless_reset_key());
        // A greased packet would look like a labelled one.
        endpoint.grease_quic_bit(false);
        endpoint.cid_generator(Arc::new(|| Box::new(UnlabelledIds)));
        let endpoint = Endpoint::new_with_abstract_socket(
            endpoint,
            Some(link_server.as_ref().clone()),
            Box::new(LabelSocket::new(udp, labels.clone(), config.quic.mtu)),
            Arc::new(noq::TokioRuntime),
        )?;
        Ok(Self {
            endpoint,
            labels,
            link_client: client(LINK_ALPN, &link)?,
            session_client: client(SESSION_ALPN, &session)?,
            link_server,
            session_server: server(SESSION_ALPN, &session)?,
            join_server: Arc::new(self::server(credentials.join_server_config(), &link)?),
        })
    }

    /// Dials a link. The other side must prove to be `name` (a certificate's DNS name). Keep the guard for as long as
    /// the link is not accepted.
    pub fn connect_link(
        &self,
        address: SocketAddr,
        name: &str,
    ) -> Result<(Connecting, Dialling), ConnectError> {
        let dialling = self.labels.dialling(address);
        Ok((self.endpoint.connect_with(self.link_client.clone(), address, name)?, dialling))
    }

    /// Dials a session over a slot that points at a route.
    pub fn connect_session(&self, slot: SlotAddr, name: &str) -> Result<Connecting, ConnectError> {
        self.endpoint.connect_with(self.session_client.clone(), slot.into(), name)
    }

    /// The next connection that somebody asks for, and its kind. `None` once the endpoint is closed.
    pub async fn accept(&self) -> Option<(Incoming, Kind)> {
        let incoming = self.endpoint.accept().await?;
        let kind = match SlotAddr::of(incoming.remote_address()) {
            Some(slot) => Kind::Session(slot),
            None if asks_to_join(&incoming) => Kind::Join,
            None => Kind::Link,
        };
        Some((incoming, kind))
    }

    /// Accepts a connection as its kind demands.
    pub fn accept_as(&self, incoming: Incoming, kind: Kind) -> Result<Connecting, noq::ConnectionError> {
        let server = match kind {
            Kind::Link => &self.link_server,
            Kind::Session(_) => &self.session_server,
            Kind::Join => &self.join_server,
        };
        incoming.accept_with(server.clone())
    }

    /// Closes every connection, and waits until the neighbours have been told, up to `limit`.
    pub async fn close(&self, code: u32, reason: &str, limit: Duration) {
        self.endpoint.close(VarInt::from_u32(code), reason.as_bytes());
        let _ = tokio::time::timeout(limit, self.endpoint.wait_all_draining()).await;
    }
}

/// A link's name of `node` in `mesh`, as certificates have it.
pub fn server_name(credentials: &Credentials, node: &NodeId) -> String {
    node.dns_name(&credentials.mesh())
}

fn asks_to_join(incoming: &Incoming) -> bool {
    let alpns = incoming.decrypt().and_then(|initial| initial.alpns());
    alpns.is_some_and(|mut alpns| alpns.all(|alpn| alpn.is_ok_and(|alpn| alpn == JOIN_ALPN)))
}

fn server(
    crypto: Arc<rustls::ServerConfig>,
    settings: &Arc<TransportConfig>,
) -> Result<ServerConfig, NoInitialCipherSuite> {
    let mut server = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(crypto)?));
    server.transport_config(settings.clone());
    server.max_incoming(MAX_INCOMING);
    Ok(server)
}

fn link_settings(config: &Config) -> TransportConfig {
    let mut settings = TransportConfig::default();
    let idle = config.quic.keep_alive * 4 + Duration::from_secs(5);
    settings
        .max_concurrent_bidi_streams(MAX_LINK_STREAMS.into())
        .max_concurrent_uni_streams(MAX_LINK_STREAMS.into())
        // The probes of `link` notice a dead neighbour long before.
        .max_idle_timeout(IdleTimeout::try_from(idle).ok())
        .initial_rtt(INITIAL_RTT)
        .initial_mtu(MIN_MTU)
        .mtu_discovery_config(Some(mtu_discovery(config.quic.mtu)));
    settings
}

fn session_settings(config: &Config) -> TransportConfig {
    let quic = &config.quic;
    let controller: Arc<dyn ControllerFactory + Send + Sync> = match quic.congestion {
        Congestion::Auto | Congestion::Cubic => Arc::new(CubicConfig::default()),
        Congestion::Bbr => Arc::new(Bbr3Config::default()),
        Congestion::NewReno => Arc::new(NewRenoConfig::default()),
    };
    let idle = config.mesh.hold + HOLD_MARGIN;
    // Often enough that flows without traffic do not end with the session.
    let keep_alive = (idle / 4).clamp(Duration::from_secs(1), Duration::from_secs(25));
    let mut settings = TransportConfig::default();
    settings
        .max_concurrent_bidi_streams(MAX_STREAMS.into())
        .max_concurrent_uni_streams(0u32.into())
        .max_idle_timeout(IdleTimeout::try_from(idle).ok())
        .keep_alive_interval(Some(keep_alive))
        .stream_receive_window(quic.stream_window.into())
        // Bounded by `flow_memory` instead: with a bound here, flows whose readers stall would take the session's
        // credit away from all others.
        .receive_window(VarInt::MAX)
        .send_window(quic.send_window.into())
        .max_concurrent_multipath_paths(MAX_PATHS)
        .initial_rtt(INITIAL_RTT)
        .initial_mtu(MIN_MTU)
        .mtu_discovery_config(Some(mtu_discovery(quic.mtu)))
        .congestion_controller_factory(controller);
    settings
}

fn mtu_discovery(upper_bound: u16) -> MtuDiscoveryConfig {
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(upper_bound);
    discovery
}

/// Makes connection IDs with the bit clear that labels have set.
#[derive(Debug)]
struct UnlabelledIds;

impl ConnectionIdGenerator for UnlabelledIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id: [u8; CONNECTION_ID_LEN] = rand::rng().random();
        id[0] &= !LABEL_BIT;
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        CONNECTION_ID_LEN
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}
