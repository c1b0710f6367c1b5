//! Tokens, joining, and certificates that renew themselves.

use std::thread::sleep;
use std::time::{Duration, Instant};

use ffmesh_api::{PeerState, Token};
use ffmesh_lab::{Lab, Service, until};

use crate::FFMESH;
use crate::pair::{CLIENT, Family, Pair, SERVER, Setup};

const LISTENS: &str = "quic: { listen_port: 3334 }\n";

#[test]
fn tokens_are_made_before_while_and_just_as_the_node_starts() {
    let Some(lab) = Lab::new("when") else { return };
    let lab = lab.with_program(FFMESH);
    let (a, b) = (lab.net("a"), lab.net("b"));
    lab.wire(&a, &["10.71.1.1/24"], &b, &["10.71.1.2/24"]);
    let mut founder = lab.node(&a, "aaaa", LISTENS);
    founder.init(&["--advertise", "10.71.1.1:3334"]);
    let before = founder.token(&[]);
    founder.spawn();
    let starting: Vec<_> = (0..5).map(|_| founder.token(&[])).collect();
    founder.wait_ready();
    let running = founder.json::<Token>(&["token", "create", "--ttl", "10m", "--group", "dev"]);
    assert!(running.token.starts_with("ffm1."), "{running:?}");
    assert!(running.join.contains(&running.token), "{running:?}");
    assert!(!running.token.contains(char::is_whitespace));
    founder.stop();
    let after = founder.token(&["--uses", "2"]);
    founder.start();

    let tokens = [before, running.token, after.clone(), after].into_iter().chain(starting);
    for (number, token) in tokens.enumerate() {
        lab.node(&b, &format!("node-{number}"), "").join(&token);
    }
    let once_more =
        lab.node(&b, "node-x", "").try_join(&founder.token(&["--uses", "1", "--node", "another"]));
    assert_eq!(once_more.code, Some(1), "{}", once_more.said());
    assert!(once_more.stderr.contains("another"), "{}", once_more.said());
}

#[test]
fn joining_writes_a_configuration_that_works_and_never_touches_one_that_exists() {
    let Some(lab) = Lab::new("written") else { return };
    let lab = lab.with_program(FFMESH);
    let (a, b) = (lab.net("a"), lab.net("b"));
    lab.wire(&a, &["10.71.1.1/24"], &b, &["10.71.1.2/24"]);
    let mut founder = lab.node(&a, "aaaa", &format!("# mine\n{LISTENS}"));
    let member = lab.node(&b, "bbbb", LISTENS);
    let written = std::fs::read(founder.config()).unwrap();
    founder.init(&["--advertise", "10.71.1.1:3334"]);
    founder.start();
    assert_eq!(std::fs::read(founder.config()).unwrap(), written);

    // No file, and so no id: both are made.
    std::fs::remove_file(member.config()).unwrap();
    let state = member.state_dir();
    let (config, state) = (member.config().display().to_string(), state.display().to_string());
    let join = member.run(&["join", &founder.token(&[]), &config, "--state-dir", &state]);
    assert!(join.is_success(), "{}", join.said());
    let text = std::fs::read_to_string(&config).unwrap();
    assert!(text.contains("aaaa") && text.contains("10.71.1.1:3334"), "{text}");
    assert!(member.run(&["check", &config]).is_success());
    // Where the state is was said on the command line; the file may say it, too, or not.
    let mut command = b.command(FFMESH);
    command.args(["up", &config, "--state-dir", &state]);
    let process = ffmesh_lab::Process::start("bbbb", command, &lab.dir().join("bbbb.log"));
    until("the new node is linked", Duration::from_secs(10), || founder.status().links_up == 1);
    let id = founder.peers()[0].node_id.to_string();
    assert!(id.len() == 10 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{id}");
    drop(process);

    // Over an existing identity: nothing changes.
    let key = std::fs::read(member.state_dir().join("node.key")).unwrap();
    for command in [vec!["init", &config], vec!["join", &founder.token(&[]), &config]] {
        let again = member.run(&[&command[..], &["--state-dir", &state]].concat());
        assert_eq!(again.code, Some(1), "{command:?}: {}", again.said());
    }
    assert_eq!(std::fs::read(member.state_dir().join("node.key")).unwrap(), key);
    assert_eq!(std::fs::read_to_string(&config).unwrap(), text);
}

#[test]
fn a_member_that_is_no_issuer_passes_a_request_on() {
    let Some(lab) = Lab::new("passed-on") else { return };
    let lab = lab.with_program(FFMESH);
    let (a, b, c) = (lab.net("a"), lab.net("b"), lab.net("c"));
    lab.wire(&a, &["10.71.1.1/24"], &b, &["10.71.1.2/24"]);
    lab.wire(&b, &["10.71.2.1/24"], &c, &["10.71.2.2/24"]);
    // The tokens name the member, too: it is all that the newcomer can reach.
    let advertises = "quic: { listen_port: 3334, advertise: [\"10.71.2.1:3334\"] }\n";
    let mut founder = lab.node(&a, "aaaa", advertises);
    let upstream = |id: &str, address: &str| {
        format!(
            "quic:\n  listen_port: 3334\n  upstreams:\n    - {{ node_id: {id}, address: \"{address}:3334\" }}\n\
             proxies:\n  - {{ name: echo, local_port: 17001, target_node_id: {id}, target_address: \"127.0.0.1:7001\" }}\n"
        )
    };
    let mut member = lab.node(&b, "bbbb", &upstream("aaaa", "10.71.1.1"));
    let mut newcomer = lab.node(&c, "cccc", &upstream("bbbb", "10.71.2.1"));
    founder.init(&["--advertise", "10.71.1.1:3334"]);
    founder.start();
    member.join(&founder.token(&[]));
    member.start();
    member.wait_for_peer("aaaa");
    assert!(!member.status().issuer);
    assert!(founder.status().issuer);

    let token = founder.token(&["--uses", "1"]);
    newcomer.join(&token);
    newcomer.start();
    newcomer.wait_for_peer("bbbb");
    let _echo = Service::echo(&b, "127.0.0.1:7001");
    c.connect("127.0.0.1:17001").unwrap().echo(b"a member like any other").unwrap();

    // A refusal comes back the same way.
    let from = founder.log_len();
    let late = lab.node(&c, "dddd", "").try_join(&token);
    assert_eq!(late.code, Some(1), "{}", late.said());
    assert!(late.stderr.contains("used"), "{}", late.said());
    founder.wait_log(from, &["used"]);

    // Without an issuer there is a clear error, and no hang.
    founder.stop();
    let start = Instant::now();
    let orphan = lab.node(&c, "eeee", "").try_join(&token);
    assert_eq!(orphan.code, Some(1), "{}", orphan.said());
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
    assert!(member.is_running());
}

#[test]
fn short_lived_certificates_renew_themselves_under_open_flows() {
    const LIFE: Duration = Duration::from_secs(20);
    let setup =
        Setup { init: &["--cert-ttl", "20s"], both: "mesh: { drain_timeout: 1s }\n", ..Setup::default() };
    let Some(mut pair) = Pair::with("renewal", Family::V4, &setup) else { return };
    let first = [&pair.client, &pair.server].map(|node| node.status().certificate_expires);
    let since = pair.client.peers().into_iter().find(|p| p.node_id.as_str() == SERVER).unwrap().since;
    let held = pair.client.net().connect(&pair.proxy("echo")).unwrap();
    let start = Instant::now();
    while start.elapsed() < LIFE * 3 / 2 {
        held.echo(b"the flow goes on").unwrap();
        assert!(pair.echoes_within(Duration::from_secs(3)), "no new flow after {:?}", start.elapsed());
        sleep(Duration::from_millis(500));
    }
    for (node, first) in [&pair.client, &pair.server].into_iter().zip(first) {
        let now = node.status().certificate_expires;
        assert!(now > first, "{} still has its first certificate, until {first}", node.id());
    }
    let peers = pair.client.peers();
    let link = peers.iter().find(|p| p.node_id.as_str() == SERVER).unwrap();
    // A link ends with the certificate that opened it, and is made anew at once with the renewed one.
    assert_eq!(link.state, PeerState::Up);
    assert!(link.since > since, "the link of an expired certificate is still up");
    held.echo(b"and the flow has not noticed").unwrap();
    // A node that starts now shows a renewed certificate.
    pair.client.stop();
    pair.client.start();
    pair.client.wait_for_peer(SERVER);
    pair.server.wait_for_peer(CLIENT);
    pair.assert_healthy();
}
