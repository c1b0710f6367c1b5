//! Joining with a token.

use super::*;

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
