//! Enrolment and mutual TLS, end to end over loopback.

use std::io::IoSliceMut;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use ffmesh_core::id::NodeId;
use jiff::Timestamp;
use noq::crypto::rustls::{QuicClientConfig, QuicServerConfig};

use super::enrol::{Answer, EnrolRequest, RefusalReason};
use super::token::address_of;
use super::*;
use crate::config::Address;
use crate::state::{StateDir, StateError};

const LINK: &[u8] = b"ffmesh-link-test";
const HOUR: Duration = Duration::from_hours(1);

/// An issuer and the endpoint that serves its joins; ends with the test.
struct Mesh {
    temp: tempfile::TempDir,
    state: StateDir,
    issuer: Arc<Issuer>,
    credentials: Credentials,
    port: u16,
}

impl Mesh {
    fn found(cert_ttl: Duration) -> Self {
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
    fn serving(mut self) -> Self {
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

    async fn member(&self, node: &str) -> Credentials {
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

/// noq 1.3.0 does not send a client's CONNECTION_CLOSE when the handshake fails and the socket reports the local
/// address of packets, since the path it compares with has none before the handshake is confirmed. A socket
/// that does not report it is the way around.
fn client_endpoint() -> noq::Endpoint {
    #[derive(Debug)]
    struct WithoutLocalAddress(Box<dyn noq::AsyncUdpSocket>);

    impl noq::AsyncUdpSocket for WithoutLocalAddress {
        fn create_sender(&self) -> Pin<Box<dyn noq::UdpSender>> {
            self.0.create_sender()
        }

        fn poll_recv(
            &mut self,
            cx: &mut Context<'_>,
            bufs: &mut [IoSliceMut<'_>],
            meta: &mut [noq::udp::RecvMeta],
        ) -> Poll<std::io::Result<usize>> {
            let received = self.0.poll_recv(cx, bufs, meta);
            meta.iter_mut().for_each(|meta| meta.dst_ip = None);
            received
        }

        fn local_addr(&self) -> std::io::Result<SocketAddr> {
            self.0.local_addr()
        }
    }

    let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let runtime = Arc::new(noq::TokioRuntime);
    let socket = WithoutLocalAddress(noq::Runtime::wrap_udp_socket(&*runtime, socket).unwrap());
    let config = noq::EndpointConfig::default();
    noq::Endpoint::new_with_abstract_socket(config, None, Box::new(socket), runtime).unwrap()
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
                connection.closed().await;
                peer
            }
            Err(e) => Err(explain_connection_error(&e, &Expected::accepted(from))),
        };
        endpoint.wait_idle().await;
        side
    });
    let endpoint = client_endpoint();
    let tls = Arc::new(QuicClientConfig::try_from(config).unwrap());
    let name = id(expected).dns_name(&client.mesh());
    let dialled = endpoint.connect_with(noq::ClientConfig::new(tls), to, &name).unwrap().await;
    let node = id(expected);
    let expected = Expected::dialled(to, &node);
    let side = match dialled {
        Ok(connection) => {
            let identity = PeerIdentity::of(&connection, &client.mesh()).map_err(|e| e.to_string());
            // The server's verdict on the client's certificate comes after the client's handshake.
            match tokio::time::timeout(Duration::from_millis(200), connection.closed()).await {
                Ok(e) => Err(explain_connection_error(&e, &expected)),
                Err(_) => {
                    connection.close(0_u32.into(), b"");
                    identity
                }
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

#[tokio::test]
async fn a_token_makes_a_member_and_members_connect() {
    let mesh = Mesh::found(DEFAULT_CERT_TTL).serving();
    let token = mesh.token(|t| t.groups = vec!["dev".to_owned(), "Ops".to_owned()]);
    let joined = mesh.join(&token, "a_b").await.unwrap();
    assert_eq!(joined.upstreams, [(id("founder"), address(&format!("127.0.0.1:{}", mesh.port)))]);
    assert_eq!((joined.groups, joined.clock_skew), (vec!["dev".to_owned(), "ops".to_owned()], None));

    let member = Credentials::load(&mesh.dir("a_b")).unwrap();
    let (server, client) = connect(&member, &mesh.credentials, "founder").await;
    let (server, client) = (server.unwrap(), client.unwrap());
    assert_eq!((server.id, server.issuer, server.relay), (id("founder"), true, true));
    assert_eq!((client.id.clone(), client.issuer, client.relay), (id("a_b"), false, true));
    assert_eq!(client.groups, ["dev", "ops"]);
    assert_eq!(client, member.identity());
    // And the other way round.
    let (server, client) = connect(&mesh.credentials, &member, "a_b").await;
    assert_eq!((server.unwrap().id, client.unwrap().id), (id("a_b"), id("founder")));
}

#[tokio::test]
async fn ids_of_every_form_work_as_names() {
    let mesh = Mesh::named("_", "_", DEFAULT_CERT_TTL).serving();
    let long = "x".repeat(63);
    for node in ["0", "1234567890", "a--b", "_a_", &long] {
        let member = mesh.member(node).await;
        let (server, client) = connect(&member, &mesh.credentials, "_").await;
        assert_eq!((server.unwrap().id, client.unwrap().id), (id("_"), id(node)));
        let (server, _) = connect(&mesh.credentials, &member, node).await;
        assert_eq!(server.unwrap().id, id(node));
    }
}

#[tokio::test]
async fn an_id_is_made_up_and_kept_where_none_is_given() {
    let mesh = Mesh::found(DEFAULT_CERT_TTL).serving();
    let options = JoinOptions { state: mesh.dir("x"), node_id: None };
    let joined = join(&mesh.token(|t| t.relay = false), &options).await.unwrap();
    assert_eq!(joined.node_id.as_str().len(), 10);
    assert_eq!(enrolled_node(&mesh.dir("x")).unwrap(), Some(joined.node_id));
    assert!(!Credentials::load(&mesh.dir("x")).unwrap().identity().relay);
    assert_eq!(enrolled_node(&mesh.dir("none")).unwrap(), None);
}

#[tokio::test]
async fn a_token_works_as_often_as_it_says() {
    let mesh = Mesh::found(DEFAULT_CERT_TTL).serving();
    let token = mesh.token(|t| t.uses = 2);
    mesh.join(&token, "a").await.unwrap();
    mesh.join(&token, "b").await.unwrap();
    let message = refused(mesh.join(&token, "c").await, "token_used");
    assert!(message.contains("2 times"), "{message}");
    assert!(!is_enrolled(&mesh.dir("c")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_not_used_twice_at_once() {
    let mesh = Mesh::found(DEFAULT_CERT_TTL);
    let token: JoinToken = mesh.token(|_| {}).parse().unwrap();
    let attempts: Vec<_> = (0..8)
        .map(|n| {
            let (issuer, token) = (mesh.issuer.clone(), token.clone());
            std::thread::spawn(move || {
                let key = authority::new_key().unwrap();
                let node = id(&format!("n{n}"));
                let request = EnrolRequest::new(token.id, &token.secret, &node, &key, Timestamp::now());
                let answer = issuer.enrol(&serde_json::to_vec(&request.unwrap()).unwrap());
                matches!(Answer::parse(&answer).unwrap(), Answer::Granted(_))
            })
        })
        .collect();
    let granted = attempts.into_iter().filter(|_| true).map(|t| t.join().unwrap()).filter(|g| *g).count();
    assert_eq!(granted, 1);
}

#[tokio::test]
async fn an_attempt_whose_answer_was_lost_is_repeated_for_free() {
    let mesh = Mesh::found(DEFAULT_CERT_TTL).serving();
    let token = mesh.token(|_| {});
    mesh.join(&token, "a").await.unwrap();
    // As if the answer had not arrived: the key is there, the certificate is not.
    std::fs::remove_file(mesh.dir("a").path().join("node.crt")).unwrap();
    mesh.join(&token, "a").await.unwrap();
    refused(mesh.join(&token, "b").await, "token_used");
}

#[tokio::test]
async fn an_expired_token_is_refused_as_such_for_a_week() {
    let mesh = Mesh::found(DEFAULT_CERT_TTL).serving();
    let token = mesh.token(|t| t.ttl = Duration::from_secs(1));
    tokio::time::sleep(Duration::from_millis(2_100)).await;
    let message = refused(mesh.join(&token, "a").await, "token_expired");
    assert!(message.contains("token create"), "{message}");
}

#[tokio::test]
async fn a_token_for_one_node_serves_no_other() {
    let mesh = Mesh::found(DEFAULT_CERT_TTL).serving();
    let token = mesh.token(|t| t.node = Some(id("a")));
    let message = refused(mesh.join(&token, "b").await, "wrong_node");
    assert!(message.contains("node a only") && message.contains('b'), "{message}");
    mesh.join(&token, "a").await.unwrap();
}

#[tokio::test]
async fn a_token_that_the_issuer_forgot_or_never_made_is_unknown() {
    let mesh = Mesh::found(DEFAULT_CERT_TTL).serving();
    let token = mesh.token(|_| {});
    let mut forged: JoinToken = token.parse().unwrap();
    forged.secret = token::Secret([0; 16]);
    refused(mesh.join(&forged.to_string(), "a").await, "unknown_token");
    std::fs::remove_dir_all(mesh.state.path().join("tokens")).unwrap();
    refused(mesh.join(&token, "a").await, "unknown_token");
    assert!(matches!(mesh.join("ffm1.garbage", "a").await, Err(IdentityError::Token(TokenError::Damaged))));
}

#[tokio::test]
async fn an_id_belongs_to_its_key_unless_a_token_names_it() {
    let mesh = Mesh::found(DEFAULT_CERT_TTL).serving();
    let old = mesh.member("a").await;
    let known = KnownKeys::load(&mesh.state).unwrap();
    known.check(&old.identity()).unwrap();
    let elsewhere = |dir: &str| JoinOptions { state: mesh.dir(dir), node_id: Some(id("a")) };

    let message = refused(join(&mesh.token(|_| {}), &elsewhere("impostor")).await, "id_taken");
    assert!(message.contains("token create --node a"), "{message}");
    let founder = JoinOptions { state: mesh.dir("f"), node_id: Some(id("founder")) };
    refused(join(&mesh.token(|_| {}), &founder).await, "id_taken");

    let token = mesh.token(|t| (t.node, t.uses) = (Some(id("a")), 2));
    join(&token, &elsewhere("new")).await.unwrap();
    let new = Credentials::load(&mesh.dir("new")).unwrap();
    assert_eq!(new.identity().replaces, [old.identity().key]);
    known.check(&new.identity()).unwrap();
    known.check(&old.identity()).unwrap_err();
    // The replaced key gets no new certificate.
    let answer = mesh.issuer.renew(&old.renewal_request().unwrap(), &old.identity());
    refused(old.install(&answer), "id_taken");
    // A second replacement keeps the whole line, for those that missed the first.
    join(&token, &elsewhere("newer")).await.unwrap();
    let newer = Credentials::load(&mesh.dir("newer")).unwrap();
    assert_eq!(newer.identity().replaces, [new.identity().key, old.identity().key]);
    // And the first of the two cannot go back with the token that it has used.
    std::fs::remove_file(mesh.dir("new").path().join("node.crt")).unwrap();
    refused(join(&token, &elsewhere("new")).await, "id_taken");
}

#[tokio::test]
async fn an_existing_identity_is_never_touched() {
    let mesh = Mesh::found(DEFAULT_CERT_TTL).serving();
    let files = |state: &StateDir| credential_paths(state).iter().map(std::fs::read).collect::<Vec<_>>();
    let read = |state: &StateDir| files(state).into_iter().map(Result::unwrap).collect::<Vec<_>>();
    let before = read(&mesh.state);
    let founder = JoinOptions { state: mesh.state.clone(), node_id: None };
    let error = join(&mesh.token(|_| {}), &founder).await.unwrap_err();
    assert!(matches!(&error, IdentityError::AlreadyEnrolled { node, .. } if node == "founder"), "{error}");
    let again = InitOptions {
        state: mesh.state.clone(),
        node_id: None,
        mesh: None,
        advertise: Vec::new(),
        listen_port: 3334,
        cert_ttl: HOUR,
    };
    assert!(matches!(init(&again), Err(IdentityError::AlreadyEnrolled { .. })));
    assert_eq!(read(&mesh.state), before);
}

#[tokio::test]
async fn nobody_can_answer_in_the_issuers_place() {
    let ours = Mesh::found(DEFAULT_CERT_TTL);
    let theirs = Mesh::found(DEFAULT_CERT_TTL).serving();
    // Same names, other authority: as if somebody sat at the token's address.
    let token = ours.token(|t| t.advertise = vec![address(&format!("127.0.0.1:{}", theirs.port))]);
    let error = ours.join(&token, "a").await.unwrap_err().to_string();
    assert!(error.contains("is not of the token's mesh"), "{error}");
    assert!(!is_enrolled(&ours.dir("a")));
}

#[tokio::test]
async fn a_dead_address_beside_a_live_one_costs_nothing() {
    let mesh = Mesh::found(DEFAULT_CERT_TTL).serving();
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let dead = address(&format!("127.0.0.1:{}", silent.local_addr().unwrap().port()));
    let token = mesh.token(|t| t.advertise.insert(0, dead.clone()));
    let begin = std::time::Instant::now();
    let joined = mesh.join(&token, "a").await.unwrap();
    assert!(begin.elapsed() < Duration::from_secs(4));
    assert_eq!(joined.upstreams[0].1.port, mesh.port);
    assert_eq!(joined.upstreams[1].1, dead);
}

#[tokio::test]
async fn when_nothing_answers_each_address_says_why() {
    let mesh = Mesh::found(DEFAULT_CERT_TTL);
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let dead = format!("127.0.0.1:{}", silent.local_addr().unwrap().port());
    let token = mesh.token(|t| t.advertise = vec![address(&dead), address("no-such-host.invalid:1")]);
    let error = mesh.join(&token, "a").await.unwrap_err().to_string();
    assert!(error.contains(&format!("founder at {dead}: no answer")), "{error}");
    assert!(error.contains("no-such-host.invalid:1: the name"), "{error}");
    // The way is still open.
    let mesh = mesh.serving();
    mesh.join(&mesh.token(|_| {}), "a").await.unwrap();
}

#[tokio::test]
async fn certificates_of_another_mesh_are_refused_in_both_terms() {
    let ours = Mesh::found(DEFAULT_CERT_TTL).serving();
    for name in ["home", "away"] {
        let theirs = Mesh::named(name, "founder", DEFAULT_CERT_TTL);
        let stranger = connect(&theirs.credentials, &ours.credentials, "founder").await;
        contains(&stranger.0, "belongs to another mesh");
        contains(&stranger.1, "different meshes");
    }
}

#[tokio::test]
async fn a_client_of_another_mesh_that_trusts_everyone_is_refused_too() {
    let ours = Mesh::found(DEFAULT_CERT_TTL);
    let theirs = Mesh::named("home", "founder", DEFAULT_CERT_TTL);
    // It knows our authority, but its certificate is of its own.
    let ca = ours.state.path().join("ca.crt");
    std::fs::copy(ca, theirs.state.path().join("ours.crt")).unwrap();
    let config = client_trusting(&ours, Some(&theirs));
    let (client, server) =
        connect_with(&theirs.credentials, config, &ours.credentials, "founder", LINK).await;
    contains(&client, "different meshes");
    contains(&server, "belongs to another mesh");
}

#[tokio::test]
async fn a_stranger_without_a_certificate_is_refused_in_both_terms() {
    let ours = Mesh::found(DEFAULT_CERT_TTL);
    let config = client_trusting(&ours, None);
    let (client, server) = connect_with(&ours.credentials, config, &ours.credentials, "founder", LINK).await;
    contains(&client, "demands a certificate");
    contains(&server, "presented no certificate");
}

/// A client that trusts our mesh and presents the certificate of `presents`, or none.
fn client_trusting(ours: &Mesh, presents: Option<&Mesh>) -> Arc<rustls::ClientConfig> {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let pem = |mesh: &Mesh, name: &str| CertificateDer::from_pem_file(mesh.state.path().join(name)).unwrap();
    let roots = credentials::roots(&[pem(ours, "ca.crt")]).unwrap();
    let builder = rustls::ClientConfig::builder_with_provider(credentials::tls_provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match presents {
        Some(mesh) => {
            let key = PrivateKeyDer::from_pem_file(mesh.state.path().join("node.key")).unwrap();
            // With the root hints of the server, rustls would send nothing from another authority; a resolver that
            // always answers does.
            let key = rustls::crypto::ring::sign::any_supported_type(&key).unwrap();
            let certified = rustls::sign::CertifiedKey::new(vec![pem(mesh, "node.crt")], key);
            builder.with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(certified)))
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![LINK.to_vec()];
    Arc::new(config)
}

#[tokio::test]
async fn a_wrong_configured_id_is_told_with_both_ids() {
    let mesh = Mesh::found(DEFAULT_CERT_TTL).serving();
    let member = mesh.member("a").await;
    let (client, server) = connect(&member, &mesh.credentials, "someone-else").await;
    contains(&client, "is founder, not someone-else as configured");
    contains(&server, "expected another node here");
}

#[tokio::test]
async fn another_protocol_is_told() {
    let mesh = Mesh::found(DEFAULT_CERT_TTL).serving();
    let member = mesh.member("a").await;
    let config = member.client_config(b"ffmesh-other");
    let (client, server) = connect_with(&member, config, &mesh.credentials, "founder", LINK).await;
    contains(&client, "does not speak this version");
    contains(&server, "does not speak this version");
}

#[tokio::test]
async fn certificates_end_and_are_renewed_without_touching_connections() {
    let mesh = Mesh::found(Duration::from_secs(4)).serving();
    let member = mesh.member("a").await;
    let first = member.expires();
    let now = Timestamp::now();
    assert_eq!(member.renewal().standing(now), Standing::Fresh);
    tokio::time::sleep(Duration::from_millis(2_200)).await;
    assert!(member.renewal().due(Timestamp::now()).is_some());

    let answer = mesh.issuer.renew(&member.renewal_request().unwrap(), &member.identity());
    assert!(member.install(&answer).unwrap() > first);
    mesh.issuer.renew_self(&mesh.credentials).unwrap();
    assert!(mesh.credentials.identity().issuer);
    assert_eq!(Credentials::load(&mesh.dir("a")).unwrap().expires(), member.expires());
    tokio::time::sleep(Duration::from_millis(2_200)).await;
    assert!(first < Timestamp::now());
    let (server, client) = connect(&member, &mesh.credentials, "founder").await;
    assert_eq!((server.unwrap().id, client.unwrap().id), (id("founder"), id("a")));

    tokio::time::sleep(Duration::from_millis(4_000)).await;
    let (client, server) = connect(&member, &mesh.credentials, "founder").await;
    contains(&client, "expired at");
    contains(&server, "as expired or not valid yet");
    assert!(matches!(member.check(None, Timestamp::now()), Err(IdentityError::Expired { .. })));
    // It loads all the same, and an issuer can renew itself.
    let founder = Credentials::load(&mesh.state).unwrap();
    mesh.issuer.renew_self(&founder).unwrap();
    founder.check(Some(&id("founder")), Timestamp::now()).unwrap();
    let error = founder.check(Some(&id("x")), Timestamp::now()).unwrap_err().to_string();
    assert!(error.contains("node_id x") && error.contains("founder"), "{error}");
}

#[tokio::test]
async fn a_renewal_is_for_ones_own_key_only() {
    let mesh = Mesh::found(DEFAULT_CERT_TTL).serving();
    let (a, b) = (mesh.member("a").await, mesh.member("b").await);
    let answer = mesh.issuer.renew(&a.renewal_request().unwrap(), &b.identity());
    refused(b.install(&answer), "malformed");
    let answer = mesh.issuer.renew(&a.renewal_request().unwrap(), &a.identity());
    assert!(matches!(b.install(&answer), Err(IdentityError::Answer(_))));
    assert_eq!(Credentials::load(&mesh.dir("b")).unwrap().node_id(), id("b"));
}

#[test]
fn clocks_that_differ_by_an_hour_are_named() {
    let mesh = Mesh::found(DEFAULT_CERT_TTL);
    let token: JoinToken = mesh.token(|t| t.uses = 9).parse().unwrap();
    let now = Timestamp::from_millisecond(Timestamp::now().as_millisecond()).unwrap();
    let answer = |minutes: i64, node: &str| {
        let clock = now + jiff::Span::new().minutes(minutes);
        let key = authority::new_key().unwrap();
        let request = EnrolRequest::new(token.id, &token.secret, &id(node), &key, clock).unwrap();
        Answer::parse(&mesh.issuer.enrol_at(&serde_json::to_vec(&request).unwrap(), now)).unwrap()
    };
    let refusal = |answer| match answer {
        Answer::Refused(refusal) => (refusal.reason, refusal.message()),
        Answer::Granted(_) => panic!("granted"),
    };
    assert!(matches!(answer(-4, "a"), Answer::Granted(_)));
    assert!(matches!(answer(50, "b"), Answer::Granted(_)));
    let (reason, message) = refusal(answer(-6, "c"));
    assert_eq!(reason, RefusalReason::ClockSkew);
    assert!(message.contains("6m 0s behind"), "{message}");
    let (reason, message) = refusal(answer(125, "d"));
    assert_eq!(reason, RefusalReason::ClockSkew);
    assert!(message.contains("2h 5m ahead"), "{message}");
}

#[test]
fn an_answer_is_bound_to_its_request() {
    let mesh = Mesh::found(DEFAULT_CERT_TTL);
    let token: JoinToken = mesh.token(|t| t.uses = 9).parse().unwrap();
    let key = authority::new_key().unwrap();
    let request = || EnrolRequest::new(token.id, &token.secret, &id("a"), &key, Timestamp::now()).unwrap();
    let (first, second) = (request(), request());
    let bytes = mesh.issuer.enrol(&serde_json::to_vec(&first).unwrap());
    let answer = Answer::parse(&bytes).unwrap();
    assert!(answer.is_authentic(&token.secret, &first));
    assert!(!answer.is_authentic(&token.secret, &second));
    assert!(!answer.is_authentic(&token::Secret([0; 16]), &first));
    // A request that was changed on its way is not the token holder's.
    let changed = serde_json::to_string(&first).unwrap().replace("\"node\":\"a\"", "\"node\":\"b\"");
    let answer = Answer::parse(&mesh.issuer.enrol(changed.as_bytes())).unwrap();
    assert!(matches!(answer, Answer::Refused(r) if r.reason == RefusalReason::UnknownToken));
    // Neither holds the secret.
    let secret = data_encoding::BASE64.encode(&token.secret.0);
    assert!(!serde_json::to_string(&first).unwrap().contains(&secret));
}

#[test]
fn requests_are_bounded_per_second() {
    let mesh = Mesh::found(DEFAULT_CERT_TTL);
    let busy = (0..300).filter(|_| {
        let answer = Answer::parse(&mesh.issuer.enrol(b"{}")).unwrap();
        matches!(answer, Answer::Refused(r) if r.reason == RefusalReason::Busy)
    });
    assert!(busy.count() > 50);
}

#[test]
fn a_half_written_identity_is_none_and_is_founded_anew() {
    let mesh = Mesh::found(DEFAULT_CERT_TTL);
    std::fs::remove_file(mesh.state.path().join("node.crt")).unwrap();
    let error = Credentials::load(&mesh.state).unwrap_err();
    assert!(
        error.to_string().contains("ffmesh init") && error.to_string().contains("ffmesh join"),
        "{error}"
    );
    let old = std::fs::read(mesh.state.path().join("authority.key")).unwrap();
    let options = InitOptions {
        state: mesh.state.clone(),
        node_id: None,
        mesh: None,
        advertise: vec![address("vps.example.com:3334")],
        listen_port: 3334,
        cert_ttl: HOUR,
    };
    let founded = init(&options).unwrap();
    assert_eq!(founded.node_id.as_str().len(), 10);
    assert!(founded.mesh.as_str().starts_with("mesh-"));
    Credentials::load(&mesh.state).unwrap();
    // The old authority's key was put aside, not lost.
    let kept = std::fs::read_dir(mesh.state.path()).unwrap().flatten().filter(|entry| {
        entry.file_name().to_string_lossy().starts_with("authority.key.before-")
            && std::fs::read(entry.path()).unwrap() == old
    });
    assert_eq!(kept.count(), 1);
    // What `init` was told goes into tokens.
    let token: JoinToken = mesh.token(|t| t.advertise.clear()).parse().unwrap();
    assert_eq!(token.nodes, [(founded.node_id, options.advertise)]);
}

#[test]
fn secrets_are_private_on_disk_and_exposed_ones_are_refused() {
    let mesh = Mesh::found(DEFAULT_CERT_TTL);
    mesh.token(|_| {});
    let mut dirs = vec![mesh.state.path().to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap().flatten() {
            let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
            if entry.path().is_dir() {
                assert_eq!(mode, 0o700, "{:?}", entry.path());
                dirs.push(entry.path());
            } else {
                assert_eq!(mode, 0o600, "{:?}", entry.path());
            }
        }
    }
    for name in ["node.key", "authority.key"] {
        let path = mesh.state.path().join(name);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let error = Credentials::load(&mesh.state).and_then(|_| Issuer::load(&mesh.state)).unwrap_err();
        assert!(matches!(error, IdentityError::State(StateError::Exposed { .. })), "{error}");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    let debug = format!("{:?}{:?}", mesh.credentials, mesh.issuer);
    assert!(!debug.to_lowercase().contains("key {") && !debug.contains("PRIVATE"), "{debug}");
}

#[test]
fn damaged_credentials_are_named() {
    let mesh = Mesh::found(DEFAULT_CERT_TTL);
    let other = Mesh::found(DEFAULT_CERT_TTL);
    for name in ["node.key", "node.crt", "ca.crt", "authority.crt", "authority.json"] {
        let path = mesh.state.path().join(name);
        let good = std::fs::read(&path).unwrap();
        let foreign = std::fs::read(other.state.path().join(name)).unwrap();
        for bad in [b"garbage".to_vec(), foreign] {
            if name == "authority.json" && bad != b"garbage" {
                continue;
            }
            std::fs::write(&path, bad).unwrap();
            let error = Credentials::load(&mesh.state).and_then(|_| Issuer::load(&mesh.state)).unwrap_err();
            assert!(matches!(error, IdentityError::Damaged { .. }), "{name}: {error}");
        }
        std::fs::write(&path, good).unwrap();
    }
}

#[tokio::test]
async fn impossible_options_and_non_issuers_are_told() {
    let mesh = Mesh::found(DEFAULT_CERT_TTL).serving();
    mesh.member("a").await;
    let options = TokenOptions {
        ttl: HOUR,
        uses: 1,
        node: None,
        groups: Vec::new(),
        relay: true,
        advertise: Vec::new(),
        listen_port: Some(4444),
    };
    let error =
        |state: &StateDir, options: TokenOptions| create_token(state, &options).unwrap_err().to_string();
    assert!(error(&mesh.dir("a"), options.clone()).contains("no issuer"));
    assert!(error(&mesh.dir("none"), options.clone()).contains("ffmesh init"));
    assert!(error(&mesh.state, TokenOptions { uses: 0, ..options.clone() }).contains("--uses"));
    assert!(error(&mesh.state, TokenOptions { ttl: Duration::ZERO, ..options.clone() }).contains("--ttl"));
    let groups = vec!["a b".to_owned()];
    assert!(error(&mesh.state, TokenOptions { groups, ..options.clone() }).contains("\"a b\""));
    let groups = (0..33).map(|n| format!("g{n}")).collect();
    assert!(error(&mesh.state, TokenOptions { groups, ..options.clone() }).contains("at most 32"));
    let token: JoinToken = create_token(&mesh.state, &options).unwrap().token.parse().unwrap();
    assert!(token.addresses().all(|(_, address)| address.port == 4444));
}

#[tokio::test]
async fn a_join_connection_that_asks_nothing_is_closed() {
    let mesh = Mesh::found(DEFAULT_CERT_TTL).serving();
    let client = |alpn: &[u8]| {
        let mut config = (*client_trusting(&mesh, None)).clone();
        config.alpn_protocols = vec![alpn.to_vec()];
        noq::ClientConfig::new(Arc::new(QuicClientConfig::try_from(config).unwrap()))
    };
    let endpoint = noq::Endpoint::client(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, mesh.port));
    let connect = || endpoint.connect_with(client(JOIN_ALPN), to, "founder.home.ffmesh").unwrap();

    let silent = connect().await.unwrap();
    let huge = connect().await.unwrap();
    let (mut send, _receive) = huge.open_bi().await.unwrap();
    send.write_all(&u32::MAX.to_be_bytes()).await.unwrap();
    let closed = huge.closed().await.to_string();
    assert!(closed.contains("more than 65536"), "{closed}");
    let garbage = connect().await.unwrap();
    let (mut send, mut receive) = garbage.open_bi().await.unwrap();
    send.write_all(b"\0\0\0\x02{]").await.unwrap();
    let answer = receive.read_to_end(10_000).await.unwrap();
    let answer = Answer::parse(&answer[4..]).unwrap();
    assert!(matches!(answer, Answer::Refused(r) if r.reason == RefusalReason::Malformed));
    let closed = silent.closed().await.to_string();
    assert!(closed.contains("no request"), "{closed}");
    // The join endpoint speaks nothing else.
    let error = endpoint.connect_with(client(LINK), to, "founder.home.ffmesh").unwrap().await.unwrap_err();
    let node = id("founder");
    assert!(explain_connection_error(&error, &Expected::dialled(to, &node)).contains("does not speak"));
}

#[test]
fn reset_keys_follow_from_the_node_key() {
    let (mesh, other) = (Mesh::found(DEFAULT_CERT_TTL), Mesh::found(DEFAULT_CERT_TTL));
    let sign = |credentials: &Credentials| {
        let mut out = [0; 32];
        credentials.stateless_reset_key().sign(b"cid", &mut out);
        out
    };
    assert_eq!(sign(&mesh.credentials), sign(&Credentials::load(&mesh.state).unwrap()));
    assert_ne!(sign(&mesh.credentials), sign(&other.credentials));
}

mod garbage {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_bytes_of_a_peer_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mesh: ffmesh_core::id::MeshName = "m".parse().unwrap();
            let _ = PeerIdentity::of_certificate(&bytes, &mesh);
            let _ = EnrolRequest::parse(&bytes);
            let _ = Answer::parse(&bytes);
        }

        #[test]
        fn no_changed_certificate_panics(changes in proptest::collection::vec((0_usize..2_000, any::<u8>()), 1..4)) {
            static CERTIFICATE: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
            let good = CERTIFICATE.get_or_init(|| {
                use rustls::pki_types::pem::PemObject;
                let mesh = Mesh::found(DEFAULT_CERT_TTL);
                let path = mesh.state.path().join("node.crt");
                rustls::pki_types::CertificateDer::from_pem_file(path).unwrap().to_vec()
            });
            let mut bytes = good.clone();
            for (at, to) in changes {
                let len = bytes.len();
                bytes[at % len] = to;
            }
            let _ = PeerIdentity::of_certificate(&bytes, &"home".parse().unwrap());
        }
    }
}
