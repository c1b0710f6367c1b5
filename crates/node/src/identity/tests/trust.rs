//! Signatures of records, and the certificates that they are checked by.

use ffmesh_core::lsdb::{self, Signer, Verdict, Verifier};
use rcgen::KeyPair;

use super::*;
use crate::identity::authority::Authority;
use crate::identity::certificate::Grant;
use crate::identity::pins::KnownKeys;

const BODY: &[u8] = b"what a node says";

fn grant(node: &str) -> Grant {
    Grant { node: id(node), groups: vec!["lab".to_owned()], relay: true, issuer: false, replaces: Vec::new() }
}

/// A key and its certificate, as DER.
struct Member {
    key: KeyPair,
    der: Vec<u8>,
}

impl Member {
    fn of(mesh: &Mesh, grant: &Grant, key: KeyPair, issued: Timestamp) -> Self {
        let authority = Authority::load(&mesh.state).unwrap().unwrap();
        let der = authority.issue(grant, &key, issued).unwrap().to_vec();
        Self { key, der }
    }

    fn named(mesh: &Mesh, node: &str) -> Self {
        Self::of(mesh, &grant(node), authority::new_key().unwrap(), Timestamp::now())
    }

    /// As a node has it in its state directory.
    fn credentials(&self, mesh: &Mesh, dir: &str) -> Credentials {
        let state = mesh.dir(dir);
        std::fs::create_dir_all(state.path()).unwrap();
        state.write("node.key", self.key.serialize_pem().as_bytes()).unwrap();
        state.write("ca.crt", &std::fs::read(mesh.state.path().join("ca.crt")).unwrap()).unwrap();
        state.write("node.crt", certificate::to_pem([&self.der.clone().into()]).as_bytes()).unwrap();
        Credentials::load(&state).unwrap()
    }

    fn signer(&self, mesh: &Mesh) -> RecordSigner {
        let identity = PeerIdentity::parse(&self.der).unwrap();
        RecordSigner::new(&self.credentials(mesh, &identity.key.to_string())).unwrap()
    }
}

fn certificates(mesh: &Mesh) -> Certificates {
    with_limit(mesh, MAX_CERTIFICATES)
}

fn with_limit(mesh: &Mesh, limit: usize) -> Certificates {
    let known_keys = Arc::new(KnownKeys::load(&mesh.dir("pins")).unwrap());
    let own = Arc::new(Credentials::load(&mesh.state).unwrap());
    Certificates::with_limit(own, known_keys, limit).unwrap()
}

fn verdict(certificates: &Certificates, origin: &str, signer: &RecordSigner) -> Verdict {
    certificates.verify(&id(origin), &signer.key(), BODY, &signer.sign(BODY))
}

#[test]
fn only_what_a_node_has_signed_as_a_record_is_genuine() {
    let mesh = Mesh::found(DEFAULT_CERT_TTL);
    let mut certificates = certificates(&mesh);
    let p256 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let a = Member::named(&mesh, "a");
    for member in [&a, &Member::of(&mesh, &grant("b"), p256, Timestamp::now())] {
        let identity = PeerIdentity::parse(&member.der).unwrap();
        let (node, signer) = (identity.id.clone(), member.signer(&mesh));
        let (key, signature) = (signer.key(), signer.sign(BODY));
        assert!(signature.len() <= lsdb::MAX_SIGNATURE_LEN);
        assert_eq!((key.0, KeyHash::from(key)), (identity.key.0, identity.key));
        assert_eq!(certificates.verify(&node, &key, BODY, &signature), Verdict::Unknown);
        assert_eq!((certificates.may_relay(&key), certificates.certificate(&key)), (false, None));

        assert_eq!(certificates.learn(&member.der), Some(key));
        assert_eq!(certificates.verify(&node, &key, BODY, &signature), Verdict::Genuine);
        assert_eq!(certificates.identity_of(&identity.key), Some(identity.clone()));
        assert_eq!(certificates.certificate(&key).as_deref(), Some(&*member.der));
        assert!(certificates.may_relay(&key));

        let forged = |origin: &NodeId, body: &[u8], signature: &[u8]| {
            assert_eq!(certificates.verify(origin, &key, body, signature), Verdict::Forged);
        };
        forged(&id("c"), BODY, &signature);
        forged(&node, b"what a node sayS", &signature);
        forged(&node, b"", &signature);
        for at in 0..signature.len() {
            let mut changed = signature.clone();
            changed[at] ^= 1;
            forged(&node, BODY, &changed);
            forged(&node, BODY, &signature[..at]);
        }
        // The key signs other things as well.
        let scheme = [rustls::SignatureScheme::ED25519, rustls::SignatureScheme::ECDSA_NISTP256_SHA256];
        let credentials = member.credentials(&mesh, "other");
        let other = credentials.signing_key().choose_scheme(&scheme).unwrap().sign(BODY).unwrap();
        forged(&node, BODY, &other);
    }
    assert_eq!(verdict(&certificates, "b", &a.signer(&mesh)), Verdict::Forged);
}

#[test]
fn what_is_no_certificate_of_this_mesh_is_not_learnt() {
    let mesh = Mesh::found(DEFAULT_CERT_TTL);
    let certificates = certificates(&mesh);
    let (namesake, away) = (Mesh::found(DEFAULT_CERT_TTL), Mesh::named("away", "founder", DEFAULT_CERT_TTL));
    let good = Member::named(&mesh, "a").der;
    let refused = |der: &[u8]| certificates.insert(der).unwrap_err();

    assert!(matches!(refused(&Member::named(&namesake, "a").der), CertificateError::Invalid(_)));
    assert!(matches!(refused(&Member::named(&away, "a").der), CertificateError::Identity(_)));
    let authority = Authority::load(&mesh.state).unwrap().unwrap();
    assert!(matches!(refused(authority.certificate()), CertificateError::Identity(_)));
    assert_eq!(refused(&vec![0x30; 17 << 10]), CertificateError::Long);
    for len in [0, 1, good.len() / 2, good.len() - 1] {
        refused(&good[..len]);
    }
    // Whatever is changed, the authority has not signed it.
    for at in 0..good.len() {
        let mut changed = good.clone();
        changed[at] ^= 0x10;
        refused(&changed);
    }
    let later = Timestamp::now().checked_add(HOUR).unwrap();
    let early = Member::of(&mesh, &grant("a"), authority::new_key().unwrap(), later);
    assert!(matches!(refused(&early.der), CertificateError::Invalid(_)));
    let p384 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let other = Member::of(&mesh, &grant("a"), p384, Timestamp::now());
    assert_eq!(refused(&other.der), CertificateError::Key);
    certificates.insert(&good).unwrap();
}

#[test]
fn a_certificate_that_has_ended_is_asked_for_anew() {
    let mesh = Mesh::found(HOUR);
    let certificates = certificates(&mesh);
    let issued = Timestamp::now();
    let a = Member::named(&mesh, "a");
    let signer = a.signer(&mesh);
    let (key, signature) = (signer.key(), signer.sign(BODY));
    let at = |time| certificates.verify_at(&id("a"), &key, BODY, &signature, time);
    let after = |hours: i64| issued.checked_add(jiff::Span::new().hours(hours)).unwrap();
    let tolerance = jiff::Span::new().minutes(4);

    certificates.insert(&a.der).unwrap();
    let ending = after(1).checked_add(tolerance).unwrap();
    assert_eq!(
        (at(issued), at(ending), at(after(2))),
        (Verdict::Genuine, Verdict::Genuine, Verdict::Unknown)
    );
    // Also where it is the one that is known: a neighbour that has nothing newer could be asked for ever.
    assert!(matches!(certificates.insert_at(&a.der, after(2)), Err(CertificateError::Expired { .. })));
    assert_eq!(certificates.insert_at(&a.der, ending), Ok(key.into()));

    let renewed = Member::of(&mesh, &grant("a"), a.key, after(1));
    certificates.insert_at(&renewed.der, after(1)).unwrap();
    assert_eq!(at(ending), Verdict::Genuine);
    // The older one does not come back.
    certificates.insert(&a.der).unwrap();
    assert_eq!(certificates.certificate(&key), Some(renewed.der));
}

#[tokio::test]
async fn the_own_certificate_is_always_the_one_in_force() {
    let mesh = Mesh::found(Duration::from_secs(10)).serving();
    let credentials = Arc::new(mesh.member("a").await);
    let known_keys = Arc::new(KnownKeys::load(&mesh.dir("pins")).unwrap());
    let certificates = Certificates::new(credentials.clone(), known_keys).unwrap();
    let signer = RecordSigner::new(&credentials).unwrap();
    assert_eq!(verdict(&certificates, "a", &signer), Verdict::Genuine);
    let first = certificates.certificate(&signer.key()).unwrap();

    let due = credentials.renewal().due_at().duration_since(Timestamp::now());
    tokio::time::sleep(Duration::try_from(due).unwrap_or_default() + Duration::from_secs(1)).await;
    let answer = mesh.issuer.renew(&credentials.renewal_request().unwrap(), &credentials.identity());
    credentials.install(&answer).unwrap();
    let second = certificates.certificate(&signer.key()).unwrap();
    assert_eq!((second != first, &*second), (true, &*credentials.certificate()));
    assert_eq!(certificates.identity_of(&credentials.identity().key), Some(credentials.identity()));
    assert_eq!(verdict(&certificates, "a", &signer), Verdict::Genuine);
}

#[test]
fn a_key_that_another_one_has_replaced_signs_no_more_records() {
    let mesh = Mesh::found(DEFAULT_CERT_TTL);
    let certificates = certificates(&mesh);
    let old = Member::named(&mesh, "a");
    let replaced = PeerIdentity::parse(&old.der).unwrap().key;
    let new_grant = Grant { replaces: vec![replaced], ..grant("a") };
    let new = Member::of(&mesh, &new_grant, authority::new_key().unwrap(), Timestamp::now());
    let second = Member::named(&mesh, "a");
    for member in [&old, &new, &second] {
        certificates.insert(&member.der).unwrap();
    }
    let verdict = |member: &Member| verdict(&certificates, "a", &member.signer(&mesh));
    assert_eq!(verdict(&old), Verdict::Genuine);
    assert_eq!(verdict(&second), Verdict::Forged, "another key for the same id");
    assert_eq!(verdict(&new), Verdict::Genuine, "the authority says that it replaces the known one");
    assert_eq!(verdict(&old), Verdict::Forged, "the replaced one has no way back");
}

#[test]
fn a_leaf_may_not_relay() {
    let mesh = Mesh::found(DEFAULT_CERT_TTL);
    let certificates = certificates(&mesh);
    let leaf = Grant { relay: false, ..grant("leaf") };
    let leaf = Member::of(&mesh, &leaf, authority::new_key().unwrap(), Timestamp::now());
    let key = certificates.insert(&leaf.der).unwrap();
    assert_eq!(verdict(&certificates, "leaf", &leaf.signer(&mesh)), Verdict::Genuine);
    assert!(!certificates.may_relay(&key.into()));
}

#[test]
fn there_is_room_for_so_many_and_those_that_have_ended_make_room() {
    let mesh = Mesh::found(HOUR);
    let certificates = with_limit(&mesh, 4); // its own is the first
    let insert = |node: &str, after: i64| {
        let now = Timestamp::now().checked_add(jiff::Span::new().hours(after)).unwrap();
        let member = Member::of(&mesh, &grant(node), authority::new_key().unwrap(), now);
        (certificates.insert_at(&member.der, now), member)
    };
    let (_, first) = insert("n1", 0);
    insert("n2", 0).0.unwrap();
    insert("n3", 0).0.unwrap();
    assert_eq!(insert("n4", 0).0, Err(CertificateError::Full));
    // What is there can still be renewed, and asked for again.
    certificates.insert(&first.der).unwrap();
    let now = Timestamp::now().checked_add(jiff::Span::new().minutes(1)).unwrap();
    let renewed = Member::of(&mesh, &grant("n1"), first.key, now);
    certificates.insert_at(&renewed.der, now).unwrap();
    insert("n5", 2).0.unwrap();
}

#[tokio::test]
async fn a_peers_certificate_is_learnt_from_its_connection() {
    let mesh = Mesh::found(DEFAULT_CERT_TTL).serving();
    let member = mesh.member("a").await;
    let certificates = certificates(&mesh);
    let tls = QuicServerConfig::try_from(mesh.credentials.server_config(LINK)).unwrap();
    let accepting = server(noq::ServerConfig::with_crypto(Arc::new(tls)));
    let dialling = client_endpoint(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let tls = Arc::new(QuicClientConfig::try_from(member.client_config(LINK)).unwrap());
    let to = accepting.local_addr().unwrap();
    let dial = dialling.connect_with(noq::ClientConfig::new(tls), to, "founder.home.ffmesh").unwrap();
    let (_dialled, accepted) = tokio::join!(dial, async { accepting.accept().await.unwrap().await });
    let key = certificates.insert_peer(&accepted.unwrap()).unwrap();
    assert_eq!(certificates.identity_of(&key), Some(member.identity()));
}

/// Prints what signatures and certificates cost: `cargo test -p ffmesh-node --release trust -- --ignored --nocapture`.
#[test]
#[ignore = "measures"]
fn costs() {
    let mesh = Mesh::found(DEFAULT_CERT_TTL);
    let certificates = certificates(&mesh);
    let members: Vec<_> = (0..1_000).map(|n| Member::named(&mesh, &format!("n{n}"))).collect();
    let each = |what: &str, begin: std::time::Instant| {
        println!("{what}: {:.1} µs", begin.elapsed().as_secs_f64() * 1e6 / 1_000.0);
    };
    let begin = std::time::Instant::now();
    for member in &members {
        certificates.insert(&member.der).unwrap();
    }
    each("learn", begin);
    let begin = std::time::Instant::now();
    for member in &members {
        certificates.insert(&member.der).unwrap();
    }
    each("learn again", begin);
    let (signer, body) = (members[0].signer(&mesh), [7; 500]);
    let begin = std::time::Instant::now();
    for _ in 0..1_000 {
        std::hint::black_box(signer.sign(&body));
    }
    each("sign", begin);
    let signature = signer.sign(&body);
    let begin = std::time::Instant::now();
    for _ in 0..1_000 {
        assert_eq!(certificates.verify(&id("n0"), &signer.key(), &body, &signature), Verdict::Genuine);
    }
    each("verify", begin);
}
