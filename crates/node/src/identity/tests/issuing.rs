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
    let late = Timestamp::now() + DEFAULT_CERT_TTL / 2;
    let at = (late, std::time::Instant::now());
    let answer = mesh.issuer.renew_at(&a.renewal_request().unwrap(), &a.identity(), at, false);
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
fn what_a_token_may_cost_is_bounded() {
    let mesh = Mesh::found(DEFAULT_CERT_TTL);
    let used: JoinToken = mesh.token(|t| t.uses = 1).parse().unwrap();
    let key = authority::new_key().unwrap();
    let reason = |token: &JoinToken, node: &str| {
        let request = EnrolRequest::new(token.id, &token.secret, &id(node), &key, Timestamp::now()).unwrap();
        match Answer::parse(&mesh.issuer.enrol(&serde_json::to_vec(&request).unwrap())).unwrap() {
            Answer::Granted(_) => None,
            Answer::Refused(refusal) => Some(refusal.reason),
        }
    };
    // The same node again and again, as if no answer arrived: each is signed and stored anew.
    let begin = std::time::Instant::now();
    let asked = 100;
    let granted = (0..asked).filter(|_| reason(&used, "a").is_none()).count();
    let allowed = 6.0 + begin.elapsed().as_secs_f64();
    assert!(f64::from(u32::try_from(granted).unwrap()) <= allowed, "{granted} of {asked}");
    // What is refused without work takes nothing from anybody.
    let other: JoinToken = mesh.token(|t| t.node = Some(id("x"))).parse().unwrap();
    for _ in 0..500 {
        assert_eq!(reason(&used, "b"), Some(RefusalReason::TokenUsed));
        assert_eq!(reason(&other, "b"), Some(RefusalReason::WrongNode));
    }
    // Nor is another token touched, and one for many nodes lets them all in at once.
    let many: JoinToken = mesh.token(|t| t.uses = 20).parse().unwrap();
    assert!((0..20).all(|n| reason(&many, &format!("n{n}")).is_none()));
    let answer = Answer::parse(&mesh.issuer.enrol(b"{}")).unwrap();
    assert!(matches!(answer, Answer::Refused(r) if r.reason == RefusalReason::Malformed));
}

#[tokio::test]
async fn a_certificate_is_renewed_when_due_and_not_again_and_again() {
    let mesh = Mesh::found(DEFAULT_CERT_TTL).serving();
    let member = mesh.member("a").await;
    let (start, begin) = (Timestamp::now(), std::time::Instant::now());
    let days = |n: u64| Duration::from_hours(24 * n);
    let renew = |peer: &PeerIdentity, passed: Duration| {
        let at = (start + passed, begin + passed);
        let answer = mesh.issuer.renew_at(&member.renewal_request().unwrap(), peer, at, false);
        match Answer::parse(&answer).unwrap() {
            Answer::Granted(_) => Ok(()),
            Answer::Refused(refusal) => Err(refusal.reason),
        }
    };
    let peer = member.identity();
    assert_eq!(renew(&peer, days(70)), Err(RefusalReason::NotDue));
    assert_eq!(renew(&peer, days(73)), Ok(()));
    // Over a session that began before: once a minute at most.
    assert_eq!(renew(&peer, days(73) + Duration::from_secs(59)), Err(RefusalReason::NotDue));
    assert_eq!(renew(&peer, days(73) + Duration::from_secs(61)), Ok(()));
    assert_eq!(renew(&peer, days(181)), Err(RefusalReason::Expired));
    // Where the issuer has other groups on record, at once.
    let other = PeerIdentity { groups: vec!["dev".to_owned()], ..peer.clone() };
    assert_eq!(renew(&other, Duration::from_secs(9)), Err(RefusalReason::NotDue), "renewed a moment ago");
    assert_eq!(renew(&other, days(74)), Ok(()));

    // The node itself takes it for what it is.
    let answer = mesh.issuer.renew(&member.renewal_request().unwrap(), &peer);
    let error = member.install(&answer).unwrap_err();
    assert!(matches!(error, IdentityError::NotDue { .. }), "{error}");
}

#[tokio::test]
async fn async_callers_get_the_same_answers() {
    let mesh = Mesh::found(DEFAULT_CERT_TTL).serving();
    let token: JoinToken = mesh.token(|_| {}).parse().unwrap();
    let key = authority::new_key().unwrap();
    let request = EnrolRequest::new(token.id, &token.secret, &id("b"), &key, Timestamp::now()).unwrap();
    let answer = mesh.issuer.clone().answer_enrol(serde_json::to_vec(&request).unwrap()).await;
    assert!(matches!(Answer::parse(&answer).unwrap(), Answer::Granted(_)));
    let member = mesh.member("a").await;
    let answer = mesh.issuer.clone().answer_renew(member.renewal_request().unwrap(), member.identity()).await;
    assert!(matches!(member.install(&answer), Err(IdentityError::NotDue { .. })));
    let own = Arc::new(Credentials::load(&mesh.state).unwrap());
    assert!(mesh.issuer.clone().renew_own(own.clone()).await.unwrap() >= mesh.credentials.expires());
}

#[test]
fn a_peers_words_act_on_no_terminal() {
    let evil = "\u{1b}]0;x\u{7}\u{9b}31m\u{202e}".repeat(1_000);
    let error = Answer::parse(format!("{{\"{evil}\":1}}").as_bytes()).unwrap_err().to_string();
    assert!(!error.contains(ffmesh_core::text::is_unfit) && error.len() < 4_000, "{error:?}");
    let error =
        Answer::parse(serde_json::to_string(&serde_json::json!({ evil.as_str(): 1 })).unwrap().as_bytes());
    let error = error.unwrap_err().to_string();
    assert!(!error.contains(ffmesh_core::text::is_unfit) && error.len() < 4_000, "{error:?}");
    let Answer::Refused(refusal) = Answer::refused(RefusalReason::Other, evil, Timestamp::now()) else {
        panic!("granted")
    };
    let message = refusal.message();
    assert!(!message.contains(ffmesh_core::text::is_unfit), "{message:?}");
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
