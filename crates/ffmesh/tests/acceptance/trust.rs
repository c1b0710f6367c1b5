//! Who is let in, and who is not: with the reason on both sides, and no harm done.

use std::time::Duration;

use ffmesh_lab::{Lab, Node, until};

use crate::FFMESH;
use crate::pair::{CLIENT, Family, Pair, SERVER, Setup};
use crate::stranger::{Credentials, Stranger};

#[test]
fn an_upstream_with_another_id_than_configured_is_refused_and_both_ids_are_named() {
    let Some(mut pair) = Pair::new("wrong-id", Family::V4) else { return };
    let from = pair.server.log_len();
    let mut other = enrolled(&pair, "eeee0005", "somebody-else");
    other.start();
    other.wait_log(0, &["somebody-else", SERVER]);
    pair.server.wait_log(from, &["warn"]);
    let peers = other.peers();
    let error =
        peers.iter().find_map(|p| p.last_error.as_deref()).unwrap_or_else(|| panic!("no error: {peers:?}"));
    assert!(error.contains("somebody-else") && error.contains(SERVER), "{error}");
    assert!(!pair.server.sees("eeee0005"));
    // It dials again and again, and lives.
    std::thread::sleep(Duration::from_secs(2));
    assert!(other.is_running());
    pair.assert_healthy();
}

#[test]
fn a_node_without_credentials_does_not_start_and_names_both_commands_that_get_them() {
    let Some(lab) = Lab::new("bare") else { return };
    let lab = lab.with_program(FFMESH);
    let node = lab.node(&lab.net("a"), "aaaa", "quic: { listen_port: 3334 }\n");
    let outcome = node.run(&[&node.config().to_string_lossy()]);
    assert_eq!(outcome.code, Some(1), "{}", outcome.said());
    assert!(outcome.said().contains("ffmesh init"), "{}", outcome.said());
    assert!(outcome.said().contains("ffmesh join"), "{}", outcome.said());
}

#[test]
fn a_token_that_has_expired_or_was_used_is_refused_with_its_reason() {
    let Some(mut pair) = Pair::new("tokens", Family::V4) else { return };
    let expired = pair.server.token(&["--ttl", "1s"]);
    let used = pair.server.token(&[]);
    stranger_node(&pair, "eeee0005").join(&used);
    std::thread::sleep(Duration::from_secs(2));
    for (token, reason, id) in [(&expired, "expired", "eeee0006"), (&used, "used", "eeee0007")] {
        let from = pair.server.log_len();
        let node = stranger_node(&pair, id);
        let outcome = node.try_join(token);
        assert_eq!(outcome.code, Some(1), "{}", outcome.said());
        assert!(outcome.stderr.contains(reason), "{}", outcome.said());
        pair.server.wait_log(from, &[reason]);
        let left: Vec<_> = std::fs::read_dir(node.state_dir()).into_iter().flatten().flatten().collect();
        assert!(!left.iter().any(|file| file.file_name() == "node.crt"), "{left:?}");
        let secret = token.strip_prefix("ffm1.").unwrap();
        assert!(!pair.server.log().contains(secret), "a token is in the log");
        assert!(!outcome.said().contains(secret), "a token is in an error");
    }
    let stranger = stranger_node(&pair, "eeee0008");
    for nonsense in ["", "ffm1.", "ffm1.AAAA", "ffm2.xyz", "主节点", &used[..used.len() - 3]] {
        let outcome = stranger.try_join(nonsense);
        assert!(matches!(outcome.code, Some(1 | 2)), "{nonsense:?}: {}", outcome.said());
        assert!(!outcome.said().contains("panicked"), "{}", outcome.said());
    }
    pair.assert_healthy();
}

#[test]
fn an_id_that_is_bound_to_another_key_is_refused_unless_the_token_names_it() {
    let Some(mut pair) = Pair::new("impostor", Family::V4) else { return };
    let from = pair.server.log_len();
    let mut impostor = stranger_in(&pair, CLIENT, "impostor");
    let outcome = impostor.try_join(&pair.server.token(&[]));
    assert_eq!(outcome.code, Some(1), "{}", outcome.said());
    assert!(outcome.stderr.contains(CLIENT), "{}", outcome.said());
    pair.server.wait_log(from, &[CLIENT]);
    pair.assert_healthy();

    // The owner of the mesh may replace a machine that was lost.
    pair.client.kill();
    impostor.join(&pair.server.token(&["--node", CLIENT]));
    impostor.start();
    impostor.wait_for_peer(SERVER);
    // And now the old machine is the impostor.
    let from = pair.server.log_len();
    pair.client.spawn();
    pair.server.wait_log(from, &[CLIENT, "key"]);
    assert!(impostor.sees(SERVER), "the impostor took the place of the node");
    assert!(pair.server.is_running());
}

#[test]
fn a_member_of_another_mesh_is_refused_on_both_sides() {
    let Some(mut pair) = Pair::new("foreign", Family::V4) else { return };
    let mut foreign = stranger_node(&pair, "ffff0006");
    foreign.init(&["--advertise", "10.71.2.2:3334", "--mesh", "elsewhere"]);
    let from = pair.server.log_len();
    foreign.start();
    // As the one that dials, it does not trust the server ...
    foreign.wait_log(0, &["warn", SERVER]);
    pair.server.wait_log(from, &["warn"]);
    assert!(!foreign.sees(SERVER));
    until("it says why", Duration::from_secs(5), || {
        foreign.peers().iter().any(|peer| peer.last_error.as_deref().is_some_and(|error| !error.is_empty()))
    });
    // ... and when it does, the server does not trust it.
    let from = pair.server.log_len();
    let mut stranger = Stranger::in_net(foreign.net(), Credentials::of(&foreign));
    stranger.assert_refused_by("10.71.2.1:3334");
    pair.server.wait_log(from, &["10.71.2.2", "certificate"]);
    assert!(pair.server.peers().iter().all(|peer| peer.node_id.as_str() == CLIENT));
    pair.assert_healthy();
}

#[test]
fn a_stranger_without_a_certificate_is_refused() {
    let Some(mut pair) = Pair::new("stranger", Family::V4) else { return };
    let from = pair.server.log_len();
    let net = pair.lab.net("stranger");
    pair.lab.wire(pair.server.net(), &["10.71.2.1/24"], &net, &["10.71.2.2/24"]);
    let mut stranger = Stranger::in_net(&net, Credentials::none());
    stranger.assert_refused_by("10.71.2.1:3334");
    pair.server.wait_log(from, &["10.71.2.2", "certificate"]);
    stranger.assert_can_only_enrol_at("10.71.2.1:3334");
    assert!(pair.server.peers().iter().all(|peer| peer.node_id.as_str() == CLIENT));
    pair.assert_healthy();
}

#[test]
fn datagrams_of_any_bytes_do_no_harm() {
    let Some(mut pair) = Pair::new("garbage", Family::V4) else { return };
    let held = pair.client.net().connect(&pair.proxy("echo")).unwrap();
    held.echo(b"before").unwrap();
    // From the client's own address as well as from a stranger's.
    let net = pair.lab.net("stranger");
    pair.lab.wire(pair.server.net(), &["10.71.2.1/24"], &net, &["10.71.2.2/24"]);
    for (net, server) in [(&net, "10.71.2.1:3334"), (pair.client.net(), "10.71.1.2:3334")] {
        net.inside(|| {
            let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
            for seed in 0..5_000_u64 {
                let length = (seed * 7 % 1473) as usize;
                let mut bytes = ffmesh_lab::RandomBytes::take(seed, length);
                // All kinds of first byte: long headers, short headers, labels.
                if let Some(first) = bytes.first_mut() {
                    *first = seed.to_le_bytes()[0];
                }
                let _ = socket.send_to(&bytes, server);
            }
        });
    }
    held.echo(b"after").unwrap();
    pair.assert_healthy();
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    let setup = Setup::default();
    let Some(mut pair) = Pair::stopped("readable", Family::V4, &setup) else { return };
    let key = pair.client.state_dir().join("node.key");
    let mode =
        |mode| std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    mode(0o644);
    let outcome = pair.client.run(&[&pair.client.config().to_string_lossy()]);
    assert_eq!(outcome.code, Some(1), "{}", outcome.said());
    assert!(outcome.said().contains("node.key"), "{}", outcome.said());
    mode(0o600);
    pair.server.start();
    pair.client.start();
    pair.client.wait_for_peer(SERVER);
    pair.assert_healthy();
}

/// A node that is not enrolled, on a network of its own with the server, which it has as an upstream.
fn stranger_node(pair: &Pair, id: &str) -> Node {
    stranger_in(pair, id, id)
}

/// The same in a namespace of another name than its id's.
fn stranger_in(pair: &Pair, id: &str, name: &str) -> Node {
    with_upstream(pair, id, name, SERVER)
}

/// A member whose upstream, at the server's address, is configured as `upstream`.
fn enrolled(pair: &Pair, id: &str, upstream: &str) -> Node {
    let node = with_upstream(pair, id, id, upstream);
    node.join(&pair.server.token(&[]));
    node
}

fn with_upstream(pair: &Pair, id: &str, name: &str, upstream: &str) -> Node {
    let net = pair.lab.net(name);
    // Each has a network of its own: a /30 out of the addresses left of the pair's.
    let third = 2 + pair.lab.nets() - 3;
    let (server, node) = (format!("10.71.{third}.1"), format!("10.71.{third}.2"));
    pair.lab.wire(pair.server.net(), &[&format!("{server}/24")], &net, &[&format!("{node}/24")]);
    // Tokens name the server by its address towards the client.
    net.run("ip", &["route", "add", "10.71.1.2/32", "via", &server]);
    let yaml = format!(
        "quic:\n  listen_port: 3334\n  upstreams:\n    \
         - {{ name: server, node_id: \"{upstream}\", address: \"{server}:3334\" }}\n"
    );
    pair.lab.node_in(&net, id, name, &yaml)
}
