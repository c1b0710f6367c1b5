//! The QUIC endpoint: its settings, and the TLS configurations of each kind of connection.
//!
//! Three kinds of connection share the port, told apart by their ALPN (RFC 7301): links, sessions, and enrolment.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ffmesh_core::id::NodeId;
use ffmesh_core::label::{LABEL_BIT, LABEL_HEADER_LEN};
use ffmesh_udp::Socket;
use noq::congestion::{Bbr3Config, ControllerFactory, CubicConfig, NewRenoConfig};
use noq::crypto::rustls::{NoInitialCipherSuite, QuicClientConfig, QuicServerConfig};
use noq::{
    ClientConfig, ConnectError, Connecting, ConnectionId, ConnectionIdGenerator, Endpoint, EndpointConfig,
    FourTuple, IdleTimeout, Incoming, MtuDiscoveryConfig, NetworkChangeHint, PathId, ServerConfig,
    TransportConfig, VarInt,
};
use rand::RngExt as _;

use crate::config::{Config, Congestion};
use crate::congestion::AutoConfig;
use crate::identity::{Credentials, JOIN_ALPN};
use crate::socket::{Dialling, LabelSocket, Labels, ProbeSender, SlotAddr, TurnRuntime};

/// ALPN of links.
const LINK_ALPN: &[u8] = b"ffmesh-link/1";
/// ALPN of sessions.
const SESSION_ALPN: &[u8] = b"ffmesh-session/1";

/// How long a handshake may take, on either side.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Streams that one session may have open in each direction: flows, and probes beside them.
const MAX_STREAMS: u32 = 65_535;
/// Unread bytes that a link may hold: a few of the longest control messages.
const LINK_WINDOW: u32 = 256 << 10;
/// Unread bytes that an enrolment may hold: its one request. Who sends it has proved nothing yet.
const JOIN_WINDOW: u32 = (64 << 10) + 64;
/// Probes of a link that may wait.
const LINK_DATAGRAMS: usize = 16 << 10;
/// Slots that a session may have, doubled: a slot that is opened anew overlaps with the old one.
const MAX_PATHS: u32 = 6;
/// How much longer than `mesh.hold` a session lives without a packet, so that its flows end first.
const HOLD_MARGIN: Duration = Duration::from_secs(30);
/// Sessions live for this long without a packet also where `mesh.hold` is less at the start: it may be set to more later.
const LEAST_IDLE: Duration = Duration::from_mins(10);
/// How long an enrolment may be silent.
const JOIN_IDLE: Duration = Duration::from_secs(10);
/// Round trip time assumed before it is measured: the first packets are sent again after three times this. Below
/// RFC 9002's 333 ms, as a lost first packet must not cost a second.
const INITIAL_RTT: Duration = Duration::from_millis(100);
/// Smallest UDP payload that QUIC needs (RFC 9000, section 14), which every path must carry.
const MIN_MTU: u16 = 1200;
/// UDP payload that is taken at least: that of IPv4 on Ethernet.
const DEFAULT_PAYLOAD: u16 = 1472;
/// Length of this node's connection IDs. With 63 random bits a collision within a node is out of the question.
const CONNECTION_ID_LEN: usize = 8;
/// How long those who ask all connections to look for what was lost wait for each other.
const PROBE_PAUSE: Duration = Duration::from_millis(20);
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
    /// `quic.mtu` is out of QUIC's bounds.
    #[error("quic.mtu does not fit QUIC: {0}")]
    Mtu(#[from] noq::ConfigError),
    /// TLS without AES-128-GCM, which protects QUIC's first packets.
    #[error("TLS settings do not fit QUIC: {0}")]
    Tls(#[from] NoInitialCipherSuite),
}

/// The node's QUIC endpoint.
#[derive(Debug, Clone)]
pub struct Transport {
    endpoint: Endpoint,
    labels: Labels,
    probes: ProbeSender,
    /// Whether all connections are about to look for what was lost
    probing: Arc<AtomicBool>,
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
        let server = |alpn, settings: &Arc<TransportConfig>, migration| {
            server(credentials.server_config(alpn), settings, migration).map(Arc::new)
        };
        let client = |alpn, settings: &Arc<TransportConfig>| -> Result<_, TransportError> {
            let crypto = QuicClientConfig::try_from(credentials.client_config(alpn))?;
            let mut client = ClientConfig::new(Arc::new(crypto));
            client.transport_config(settings.clone());
            Ok(client)
        };
        let link_server = server(LINK_ALPN, &link, true)?;

        let mut endpoint = EndpointConfig::new(credentials.stateless_reset_key());
        // A greased packet would look like a labelled one.
        endpoint.grease_quic_bit(false);
        endpoint.cid_generator(Arc::new(|| Box::new(UnlabelledIds)));
        let probes = ProbeSender::new(udp.clone());
        // What this node takes; the receive buffers are made for it.
        endpoint.max_udp_payload_size(config.quic.mtu.max(DEFAULT_PAYLOAD))?;
        let endpoint = Endpoint::new_with_abstract_socket(
            endpoint,
            Some(link_server.as_ref().clone()),
            Box::new(LabelSocket::new(udp, labels.clone(), config.quic.mtu)),
            Arc::new(TurnRuntime),
        )?;
        Ok(Self {
            endpoint,
            labels,
            probes,
            probing: Arc::default(),
            link_client: client(LINK_ALPN, &link)?,
            session_client: client(SESSION_ALPN, &session)?,
            link_server,
            // A session's packets come over its slots and from nowhere else.
            session_server: server(SESSION_ALPN, &session, false)?,
            join_server: Arc::new(self::server(
                credentials.join_server_config(),
                &Arc::new(join_settings()),
                false,
            )?),
        })
    }

    /// The address that the node's UDP port is bound to, never v4-mapped.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.endpoint.local_addr().map(ffmesh_udp::canonical)
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

    /// Sends probes of circuits over this endpoint's socket.
    pub fn probes(&self) -> &ProbeSender {
        &self.probes
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

    /// Makes every connection look at once for what was lost, however long it has waited already: QUIC backs off up to
    /// 2 s between its probes.
    ///
    /// As it is for all of them, those who ask within [`PROBE_PAUSE`] share it.
    pub fn probe_now(&self) {
        if !self.probing.swap(true, Ordering::Relaxed) {
            let this = self.clone();
            tokio::spawn(async move {
                tokio::time::sleep(PROBE_PAUSE).await;
                this.probing.store(false, Ordering::Relaxed);
                this.look_for_losses();
            });
        }
    }

    fn look_for_losses(&self) {
        self.endpoint.handle_network_change(Some(Arc::new(SamePaths)));
    }

    /// Closes every connection at once, without waiting.
    pub fn close_now(&self, code: u32, reason: &str) {
        self.endpoint.close(VarInt::from_u32(code), reason.as_bytes());
    }

    /// Closes every connection, and waits until the neighbours have been told, up to `limit`.
    pub async fn close(&self, code: u32, reason: &str, limit: Duration) {
        self.close_now(code, reason);
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
    migration: bool,
) -> Result<ServerConfig, NoInitialCipherSuite> {
    let mut server = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(crypto)?));
    server.transport_config(settings.clone());
    server.max_incoming(MAX_INCOMING);
    server.migration(migration);
    Ok(server)
}

fn link_settings(config: &Config) -> TransportConfig {
    let mut settings = TransportConfig::default();
    let idle = config.quic.keep_alive * 4 + Duration::from_secs(5);
    settings
        .max_concurrent_bidi_streams(1u32.into())
        .max_concurrent_uni_streams(0u32.into())
        .stream_receive_window(LINK_WINDOW.into())
        .receive_window(LINK_WINDOW.into())
        .send_window((4 * LINK_WINDOW).into())
        .datagram_receive_buffer_size(Some(LINK_DATAGRAMS))
        .datagram_send_buffer_size(LINK_DATAGRAMS)
        // The probes of `link` notice a dead neighbour long before.
        .max_idle_timeout(IdleTimeout::try_from(idle).ok())
        .initial_rtt(INITIAL_RTT)
        .initial_mtu(MIN_MTU)
        .mtu_discovery_config(Some(mtu_discovery(config.quic.mtu)));
    settings
}

fn join_settings() -> TransportConfig {
    let mut settings = TransportConfig::default();
    settings
        .max_concurrent_bidi_streams(1u32.into())
        .max_concurrent_uni_streams(0u32.into())
        .max_idle_timeout(IdleTimeout::try_from(JOIN_IDLE).ok())
        .stream_receive_window(JOIN_WINDOW.into())
        .receive_window(JOIN_WINDOW.into())
        .send_window(JOIN_WINDOW.into())
        .datagram_receive_buffer_size(None);
    settings
}

fn session_settings(config: &Config) -> TransportConfig {
    let quic = &config.quic;
    let controller: Arc<dyn ControllerFactory + Send + Sync> = match quic.congestion {
        Congestion::Auto => Arc::new(AutoConfig),
        Congestion::Cubic => Arc::new(CubicConfig::default()),
        Congestion::Bbr => Arc::new(Bbr3Config::default()),
        Congestion::NewReno => Arc::new(NewRenoConfig::default()),
    };
    let idle = config.mesh.hold.max(LEAST_IDLE) + HOLD_MARGIN;
    // Often enough that flows without traffic do not end with the session.
    let keep_alive = (idle / 4).clamp(Duration::from_secs(1), Duration::from_secs(25));
    let mut settings = TransportConfig::default();
    settings
        .max_concurrent_bidi_streams(MAX_STREAMS.into())
        .max_concurrent_uni_streams(0u32.into())
        .max_idle_timeout(IdleTimeout::try_from(idle).ok())
        .keep_alive_interval(Some(keep_alive))
        .stream_receive_window(quic.stream_window.into())
        // The last bound: `flow_memory` resets stalled flows long before they take the session's credit from others.
        .receive_window(VarInt::from_u64(quic.flow_memory.saturating_mul(2)).unwrap_or(VarInt::MAX))
        .datagram_receive_buffer_size(None)
        .send_window(quic.send_window.into())
        .max_concurrent_multipath_paths(MAX_PATHS)
        .initial_rtt(INITIAL_RTT)
        .initial_mtu(MIN_MTU)
        // Each packet of a session has a label before it.
        .mtu_discovery_config(Some(mtu_discovery(session_mtu(quic.mtu))))
        .congestion_controller_factory(controller);
    settings
}

/// Largest packet of a session in a UDP payload of `mtu` bytes.
fn session_mtu(mtu: u16) -> u16 {
    const LABEL: u16 = 9;
    const { assert!(LABEL as usize == LABEL_HEADER_LEN) }
    mtu.saturating_sub(LABEL).max(MIN_MTU)
}

fn mtu_discovery(upper_bound: u16) -> MtuDiscoveryConfig {
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(upper_bound);
    discovery
}

/// Says that no path needs to be replaced by a new one.
#[derive(Debug)]
struct SamePaths;

impl NetworkChangeHint for SamePaths {
    fn is_path_recoverable(&self, _: PathId, _: FourTuple) -> bool {
        true
    }
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

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use ffmesh_core::id::NodeId;
    use ffmesh_core::label::Label;
    use noq::Connection;
    use tokio::time::timeout;

    use super::*;
    use crate::identity::{InitOptions, init};
    use crate::socket::{CircuitEnd, Hop, Way};
    use crate::state::StateDir;

    struct End {
        transport: Transport,
        labels: Labels,
        address: SocketAddr,
        credentials: Credentials,
    }

    /// Two ends with one identity, which is all the same to QUIC.
    fn ends(config: &Config) -> (tempfile::TempDir, [End; 2]) {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::at(dir.path());
        init(&InitOptions {
            state: state.clone(),
            node_id: Some("node".parse().unwrap()),
            mesh: None,
            advertise: Vec::new(),
            listen_port: 1,
            cert_ttl: Duration::from_hours(1),
        })
        .unwrap();
        let end = || {
            let udp = Arc::new(Socket::bind(Some(Ipv4Addr::LOCALHOST.into()), 0).unwrap());
            let address = udp.local_addr().unwrap();
            let (labels, credentials) = (Labels::default(), Credentials::load(&state).unwrap());
            let transport = Transport::new(udp, labels.clone(), &credentials, config).unwrap();
            End { transport, labels, address, credentials }
        };
        let ends = [end(), end()];
        (dir, ends)
    }

    fn end_of_circuit(labels: &Labels, from: SocketAddr) -> (SlotAddr, Label) {
        let (session, label) = (labels.new_session(), Label::from_random(rand::random()));
        let (probes, _) = tokio::sync::mpsc::channel(1);
        let end = CircuitEnd { session, circuit: 1, activity: Arc::default(), probes };
        labels.install_end(label, 1, from, end);
        (session.slot(0), label)
    }

    /// A session from the first end to the second, over labels put in place by hand.
    async fn session(a: &End, b: &End) -> (Connection, Connection) {
        let (slot_a, label_a) = end_of_circuit(&a.labels, b.address);
        let (slot_b, label_b) = end_of_circuit(&b.labels, a.address);
        let way =
            |to, label| Some(Way { hop: Hop { to, from: None, label, link: 1 }, activity: Arc::default() });
        a.labels.point(slot_a, way(b.address, label_b));
        b.labels.point(slot_b, way(a.address, label_a));
        let node: NodeId = "node".parse().unwrap();
        let dialled = a.transport.connect_session(slot_a, &server_name(&a.credentials, &node)).unwrap();
        let (incoming, kind) = b.transport.accept().await.unwrap();
        assert_eq!(kind, Kind::Session(slot_b));
        let accepted = b.transport.accept_as(incoming, kind).unwrap();
        let (dialled, accepted) = tokio::join!(dialled, accepted);
        (dialled.unwrap(), accepted.unwrap())
    }

    /// What noq-proto 1.4.0 fails: it ends the connection of a stream with more than 2,048 unread small frames.
    #[tokio::test(flavor = "multi_thread")]
    async fn an_unread_stream_of_small_writes_harms_no_other() {
        let mut config = Config::default();
        config.quic.stream_window = 32 << 20;
        let (_dir, [a, b]) = ends(&config);
        let (dialled, accepted) = session(&a, &b).await;

        let (mut unread, _) = dialled.open_bi().await.unwrap();
        for _ in 0..20_000 {
            unread.write_all(&[7; 100]).await.unwrap();
            tokio::task::yield_now().await; // so that many of them travel in packets of their own
        }
        let (_, mut later) = accepted.accept_bi().await.unwrap();
        unread.write_all(&vec![7; 8 << 20]).await.unwrap();
        unread.finish().unwrap();

        let (mut other, mut echo) = dialled.open_bi().await.unwrap();
        other.write_all(b"still here?").await.unwrap();
        other.finish().unwrap();
        let answer = async {
            let (mut send, mut recv) = accepted.accept_bi().await.unwrap();
            let bytes = recv.read_to_end(100).await.unwrap();
            send.write_all(&bytes).await.unwrap();
            send.finish().unwrap();
        };
        let limit = Duration::from_secs(20);
        let (_, echoed) = tokio::join!(timeout(limit, answer), timeout(limit, echo.read_to_end(100)));
        assert_eq!(echoed.expect("the other stream hangs").unwrap(), b"still here?");
        let bytes = timeout(limit, later.read_to_end(16 << 20)).await.expect("the stream hangs").unwrap();
        assert_eq!(bytes.len(), 2_000_000 + (8 << 20));
        assert!(bytes.iter().all(|byte| *byte == 7));
        assert!(dialled.close_reason().is_none() && accepted.close_reason().is_none());
    }

    #[test]
    fn connection_ids_are_no_labels() {
        for _ in 0..1_000 {
            let id = UnlabelledIds.generate_cid();
            let packet = [&[0x40][..], &id, &[0; 20]].concat();
            assert_eq!(Label::of_packet(&packet), None);
        }
    }
}
