//! What the issuer grants and refuses.

use super::*;

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
    let granted = attempts.into_iter().map(|t| t.join().unwrap()).filter(|g| *g).count();
    assert_eq!(granted, 1);
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
    let token: JoinToken = mesh.token(|t| t.node = Some(id("a"))).parse().unwrap();
    let key = authority::new_key().unwrap();
    let request = EnrolRequest::new(token.id, &token.secret, &id("b"), &key, Timestamp::now()).unwrap();
    let request = serde_json::to_vec(&request).unwrap();
    let begin = std::time::Instant::now();
    let asked = 2_000;
    let busy = (0..asked).filter(|_| {
        let answer = Answer::parse(&mesh.issuer.enrol(&request)).unwrap();
        matches!(answer, Answer::Refused(r) if r.reason == RefusalReason::Busy)
    });
    let answered = asked - u32::try_from(busy.count()).unwrap();
    assert!(f64::from(answered) <= 201.0 + 50.0 * begin.elapsed().as_secs_f64(), "{answered}");
    // Strangers do not count.
    let answer = Answer::parse(&mesh.issuer.enrol(b"{}")).unwrap();
    assert!(matches!(answer, Answer::Refused(r) if r.reason == RefusalReason::Malformed));
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
