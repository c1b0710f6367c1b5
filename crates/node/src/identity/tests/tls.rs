//! Handshakes: who connects, and how refusals read on either side.

use super::*;

/// Waits until `time` is past by the second, as certificates count.
async fn until(time: Timestamp) {
    let left = time.duration_since(Timestamp::now());
    tokio::time::sleep(Duration::try_from(left).unwrap_or_default() + Duration::from_millis(1_100)).await;
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
async fn certificates_end_and_a_renewed_one_is_used_from_the_next_handshake_on() {
    let mesh = Mesh::found(Duration::from_secs(10)).serving();
    let member = mesh.member("a").await;
    let first = member.expires();
    let now = Timestamp::now();
    assert_eq!(member.renewal().standing(now), Standing::Fresh);
    until(member.renewal().due_at()).await;
    assert!(member.renewal().due(Timestamp::now()).is_some());

    let answer = mesh.issuer.renew(&member.renewal_request().unwrap(), &member.identity());
    assert!(member.install(&answer).unwrap() > first);
    mesh.issuer.renew_self(&mesh.credentials).unwrap();
    assert!(mesh.credentials.identity().issuer);
    assert_eq!(Credentials::load(&mesh.dir("a")).unwrap().expires(), member.expires());
    until(first).await;
    assert!(first < Timestamp::now());
    let (server, client) = connect(&member, &mesh.credentials, "founder").await;
    assert_eq!((server.unwrap().id, client.unwrap().id), (id("founder"), id("a")));

    until(member.expires().max(mesh.credentials.expires())).await;
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
