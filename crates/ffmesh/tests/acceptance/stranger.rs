//! One who speaks QUIC and TLS well and is no member: checks nothing, and shows what certificate it likes.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ffmesh_lab::{Net, Node};
use noq::crypto::rustls::QuicClientConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use tokio::time::timeout;

/// How long a node may take to refuse.
const LIMIT: Duration = Duration::from_secs(6);
/// Protocols that a member speaks on a link or session, and some that nobody does.
const MEMBERS: [&str; 4] = ["ffmesh-link/1", "ffmesh-session/1", "ffmesh", "h3"];
/// The protocol that anyone may speak.
const JOIN: &str = "ffmesh-join";

/// What a stranger shows of itself.
#[derive(Debug, Clone)]
pub(crate) struct Credentials(Option<(Vec<u8>, Vec<u8>)>);

impl Credentials {
    /// Nothing.
    pub(crate) fn none() -> Self {
        Self(None)
    }

    /// The certificate and key of a node.
    pub(crate) fn of(node: &Node) -> Self {
        let read = |name| std::fs::read(node.state_dir().join(name)).unwrap();
        Self(Some((read("node.crt"), read("node.key"))))
    }
}

/// A QUIC client in a namespace.
pub(crate) struct Stranger {
    net: Net,
    credentials: Credentials,
}

impl Stranger {
    pub(crate) fn in_net(net: &Net, credentials: Credentials) -> Self {
        Self { net: net.clone(), credentials }
    }

    /// No member's protocol gets anywhere: not one byte comes back.
    pub(crate) fn assert_refused_by(&mut self, server: &str) {
        for alpn in MEMBERS {
            let answer = self.run(async || self.exchange(server, alpn, b"\0\0\0\x02{}").await);
            assert!(answer.is_none(), "{server} answered a stranger who speaks {alpn}: {answer:?}");
        }
    }

    /// The protocol for joining is spoken, and nonsense in it is refused.
    pub(crate) fn assert_can_only_enrol_at(&mut self, server: &str) {
        for nonsense in [&b""[..], b"\0", b"\0\0\0\x02{}", b"\xff\xff\xff\xff", b"\0\0\0\x0cGET / HTTP/1"] {
            let answer = self.run(async || self.exchange(server, JOIN, nonsense).await).unwrap_or_default();
            let text = String::from_utf8_lossy(&answer);
            assert!(!text.contains("BEGIN CERTIFICATE"), "{nonsense:?} was answered with {text}");
        }
    }

    /// Connects, which must succeed, and talks.
    pub(crate) fn speak<T: Send>(
        &self,
        server: &str,
        alpn: &str,
        talk: impl AsyncFnOnce(noq::Connection) -> T + Send,
    ) -> T {
        self.run(async || {
            let endpoint = noq::Endpoint::client((Ipv4Addr::UNSPECIFIED, 0).into()).unwrap();
            let config = noq::ClientConfig::new(Arc::new(self.tls(alpn)));
            let connecting = endpoint.connect_with(config, server.parse().unwrap(), "stranger.test").unwrap();
            let connection = timeout(LIMIT, connecting).await.expect("an answer").expect("a connection");
            talk(connection).await
        })
    }

    /// Connects, sends on a new stream, and returns what comes back; none when the connection is refused.
    async fn exchange(&self, server: &str, alpn: &str, bytes: &[u8]) -> Option<Vec<u8>> {
        let endpoint = noq::Endpoint::client((Ipv4Addr::UNSPECIFIED, 0).into()).unwrap();
        let server: SocketAddr = server.parse().unwrap();
        let config = noq::ClientConfig::new(Arc::new(self.tls(alpn)));
        let exchange = async {
            let connecting = endpoint.connect_with(config, server, "stranger.test").unwrap();
            let connection = connecting.await.ok()?;
            let (mut send, mut receive) = connection.open_bi().await.ok()?;
            send.write_all(bytes).await.ok()?;
            let _ = send.finish();
            receive.read_to_end(1 << 20).await.ok()
        };
        timeout(LIMIT, exchange)
            .await
            .unwrap_or_else(|_| panic!("{server} neither answered nor refused {alpn}"))
    }

    fn tls(&self, alpn: &str) -> QuicClientConfig {
        let provider = Arc::new(ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Gullible(provider)));
        let mut config = match &self.credentials.0 {
            None => config.with_no_client_auth(),
            Some((certificate, key)) => {
                let certificates = CertificateDer::pem_slice_iter(certificate).map(Result::unwrap).collect();
                config
                    .with_client_auth_cert(certificates, PrivateKeyDer::from_pem_slice(key).unwrap())
                    .unwrap()
            }
        };
        config.alpn_protocols = vec![alpn.into()];
        QuicClientConfig::try_from(config).unwrap()
    }

    fn run<T: Send>(&self, job: impl AsyncFnOnce() -> T + Send) -> T {
        self.net.inside(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(job())
        })
    }
}

/// Believes every server.
#[derive(Debug)]
struct Gullible(Arc<CryptoProvider>);

impl ServerCertVerifier for Gullible {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.3 only".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
