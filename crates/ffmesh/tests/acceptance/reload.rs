//! Another configuration while the node runs, and proxies and services that are added at run time.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::Duration;

use ffmesh_api::{Config, Flow, Origin, Proxy, Reload, Role};
use ffmesh_core::reason::Reason;
use ffmesh_lab::{End, Load, Node, Pace, RandomBytes, Service, until};
use serde_json::{Value, json};

use crate::pair::{CLIENT, Family, Pair, SERVER, Setup, proxy};
use crate::{diamond, mesh, relay_in_use};

/// How long a file that is looked at may take to be applied: two looks, on a busy machine.
const NOTICED: Duration = Duration::from_secs(15);

/// More of the client's proxies: one line each.
fn more(entries: &[(&str, u16, u16)]) -> String {
    let line = |(name, port, target): &(&str, u16, u16)| {
        proxy(Family::V4, name, *port, SERVER, &format!("127.0.0.1:{target}"))
    };
    entries.iter().map(line).collect()
}

fn reload(node: &Node) -> Reload {
    node.json(&["reload"])
}

/// A request to the node's API, by its socket: status and body.
fn request(node: &Node, method: &str, path: &str, body: &str) -> (u32, Value) {
    let socket = node.state_dir().join("admin.sock");
    let (socket, url) = (socket.to_string_lossy(), format!("http://localhost/api/v1/{path}"));
    let (code, json) = ("\n%{http_code}", "content-type: application/json");
    let answer = node.net().run(
        "curl",
        &["-sS", "-X", method, "--unix-socket", &socket, "-w", code, "-H", json, "-d", body, &url],
    );
    assert!(answer.is_success(), "{}", answer.said());
    let (body, code) = answer.stdout.rsplit_once('\n').expect("a status code");
    (code.parse().unwrap(), serde_json::from_str(body).unwrap_or(Value::Null))
}

fn find(node: &Node, name: &str) -> Option<Proxy> {
    node.proxies().into_iter().find(|proxy| proxy.name == name)
}

#[test]
fn a_download_goes_on_while_everything_around_it_changes() {
    const PIECE: usize = 1 << 20;
    const PIECES: usize = 24;
    let before = Setup {
        proxies: &more(&[("turned", 18_101, 7_002), ("removed", 18_102, 7_001)]),
        server: "access:\n  - { from: [\"*\"], to: [\"127.0.0.0/8:*\"], action: allow }\n",
        ..Setup::default()
    };
    let Some(pair) = Pair::with("reload", Family::V4, &before) else { return };
    let net = pair.client.net();
    let held = net.connect("127.0.0.1:18102").unwrap();
    held.echo(b"through a proxy that goes").unwrap();
    let download = net.connect(&pair.proxy("source")).unwrap();
    download.send(&Service::request(7, (PIECE * PIECES) as u64)).unwrap();
    let mut expected = RandomBytes::new(7);
    let mut some = |pieces: usize| {
        for _ in 0..pieces {
            expected.expect(&download.receive(PIECE).unwrap());
        }
    };
    some(2);

    let after = Setup {
        proxies: &more(&[("added", 18_103, 7_001), ("turned", 18_101, 7_001)]),
        server: "access:\n  - { from: [\"node:somebody\"], to: [\"127.0.0.0/8:*\"], action: deny }\n  \
                 - { from: [\"*\"], to: [\"127.0.0.0/8:*\"], action: allow }\n",
        ..Setup::default()
    };
    pair.configure(&after);
    let file = std::fs::read_to_string(pair.client.config()).unwrap();
    std::fs::write(pair.client.config(), file.replace("10.71.1.99:3334", "10.71.1.98:3334")).unwrap();
    let changed = reload(&pair.client);
    some(2);
    assert_eq!(
        changed.changed,
        [
            "proxies.added: added",
            "proxies.turned: changed",
            "proxies.removed: removed",
            "quic.upstreams.absent: changed"
        ]
    );
    assert_eq!((changed.needs_restart, changed.failed), (vec![], vec![]));
    assert_eq!(reload(&pair.server).changed, ["access"]);
    some(2);

    for address in ["127.0.0.1:18103", "127.0.0.1:18101"] {
        net.connect(address).unwrap().echo(b"it leads to the echo").unwrap();
    }
    assert!(net.connect("127.0.0.1:18102").is_err(), "a removed proxy still listens");
    held.echo(b"what was open goes on").unwrap();
    assert!(pair.client.peers().iter().any(|peer| peer.address.as_deref() == Some("10.71.1.98:3334")));
    assert_eq!(reload(&pair.client), Reload { warnings: reload(&pair.client).warnings, ..Reload::default() });
    some(PIECES - 6);
    assert_eq!(download.end(), End::Closed);
}

#[test]
fn a_file_with_problems_changes_nothing_and_says_where() {
    let Some(mut pair) = Pair::new("reload-bad", Family::V4) else { return };
    let before = pair.client.proxies();
    let from = pair.client.log_len();
    pair.client.configure("proxies:\n  - { name: a, local_port: 0 }\nwatch: maybe\n");
    let (file, state) = (pair.client.config(), pair.client.state_dir());
    let places = [(4, 28, "proxies[0].local_port"), (5, 8, "watch")];
    let state = state.to_string_lossy();
    // The command finds it itself, and so does the node.
    for choice in [["--config", &file.to_string_lossy()], ["--state-dir", &state]] {
        let outcome = pair.client.run(&[&["reload"], &choice[..]].concat());
        assert_eq!(outcome.code, Some(1), "{}", outcome.said());
        for (line, column, key) in places {
            let place = format!("{}:{line}:{column}: {key}: ", file.display());
            assert!(outcome.stderr.contains(&place), "no {place:?} in {}", outcome.stderr);
        }
    }
    let line = pair.client.wait_log(from, &["error", "config.yaml:4:28: proxies[0].local_port"]);
    assert!(!line.is_empty());
    let (status, error) = request(&pair.client, "POST", "reload", "");
    assert_eq!((status, error["problems"].as_array().map(Vec::len)), (422, Some(4)), "{error}");
    let now: Vec<Proxy> = serde_json::from_value(request(&pair.client, "GET", "proxies", "").1).unwrap();
    assert_eq!(now, before);
    pair.configure(&Setup::default());
    pair.assert_healthy();
}

#[test]
fn what_takes_a_restart_is_named_and_the_rest_is_applied() {
    let Some(mut pair) = Pair::new("reload-restart", Family::V4) else { return };
    let good = std::fs::read_to_string(pair.client.config()).unwrap();
    let new = good.replace("quic:\n", "quic:\n  mtu: 1300\n  max_flows: 77\n")
        + "log: { level: debug, format: json }\n";
    std::fs::write(pair.client.config(), new).unwrap();
    let from = pair.client.log_len();
    let changed = reload(&pair.client);
    assert_eq!(changed.changed, ["quic.max_flows", "log.level"]);
    assert_eq!(changed.needs_restart, ["quic.mtu", "log.format"]);
    assert!(!pair.client.wait_log(from, &["log.level is debug now"]).is_empty());
    let config: Config = serde_json::from_value(request(&pair.client, "GET", "config", "").1).unwrap();
    assert_eq!(config.needs_restart, changed.needs_restart);
    assert_eq!(
        (&config.values["quic"]["mtu"], &config.values["quic"]["max_flows"]),
        (&json!(1452), &json!(77))
    );
    let text = pair.client.ask(&["reload"]);
    assert_eq!(
        (text.code, text.stdout.contains("takes a restart: quic.mtu\n")),
        (Some(0), true),
        "{}",
        text.said()
    );
    pair.client.stop();
    pair.client.start();
    let config: Config = serde_json::from_value(request(&pair.client, "GET", "config", "").1).unwrap();
    assert_eq!((config.needs_restart, &config.values["quic"]["mtu"]), (vec![], &json!(1300)));
}

#[test]
fn a_watched_file_is_applied_when_it_changes() {
    let watched = Setup { client: "watch: true\n", ..Setup::default() };
    let Some(pair) = Pair::with("reload-watch", Family::V4, &watched) else { return };
    let with = |port: u16, client: &str| {
        let proxies = more(&[("new", port, 7_001)]);
        pair.configure(&Setup { proxies: &proxies, client, ..Setup::default() });
    };
    let listens = |port: u16| pair.client.net().connect(&format!("127.0.0.1:{port}")).is_ok();
    with(18_101, "watch: true\n");
    until("the file is applied", NOTICED, || listens(18_101));

    // Another file is renamed over it, then a link takes its place.
    let (file, dir) = (pair.client.config(), pair.client.config().parent().unwrap().to_owned());
    let put = |from: &Path| std::fs::rename(from, &file).unwrap();
    let whole = std::fs::read_to_string(&file).unwrap();
    std::fs::write(dir.join("next"), whole.replace("18101", "18102")).unwrap();
    put(&dir.join("next"));
    until("a renamed file is applied", NOTICED, || listens(18_102) && !listens(18_101));
    std::fs::write(dir.join("linked"), whole.replace("18101", "18103")).unwrap();
    std::os::unix::fs::symlink(dir.join("linked"), dir.join("link")).unwrap();
    put(&dir.join("link"));
    until("a link is followed", NOTICED, || listens(18_103));

    let from = pair.client.log_len();
    std::fs::write(&file, whole.replace("18101", "none")).unwrap();
    until("the bad file is told", NOTICED, || pair.client.log()[from..].contains("expected a whole number"));
    sleep(Duration::from_secs(4));
    assert_eq!(pair.client.log()[from..].matches("expected a whole number").count(), 1);
    assert!(listens(18_103));

    // Watching ends as the file says.
    with(18_104, "watch: false\n");
    until("the last change is applied", NOTICED, || listens(18_104));
    with(18_105, "watch: false\n");
    sleep(Duration::from_secs(4));
    assert!(!listens(18_105), "a file is applied that nobody watches");
    assert_eq!(reload(&pair.client).changed, ["proxies.new: changed"]);
    assert!(listens(18_105));
}

#[test]
fn what_was_added_at_run_time_survives_a_restart_and_is_told_apart() {
    let Some(mut pair) = Pair::new("runtime", Family::V4) else { return };
    let spec = |name: &str, port: u16| {
        json!({ "name": name, "local_port": port, "target_node_id": SERVER, "target_address": "127.0.0.1:7001" })
            .to_string()
    };
    let node = &pair.client;
    let (status, added) = request(node, "POST", "proxies", &spec("extra", 18_101));
    assert_eq!((status, &added["origin"]), (201, &json!("runtime")), "{added}");
    node.net().connect("127.0.0.1:18101").unwrap().echo(b"added").unwrap();
    for (method, path, body, expected, part) in [
        ("POST", "proxies", spec("extra", 18_102), 409, "extra"),
        ("POST", "proxies", spec("echo", 18_102), 409, "configuration file"),
        ("POST", "proxies", spec("other", 17_001), 409, "\"echo\""),
        ("POST", "proxies", spec("other", 0), 422, "proxy"),
        ("PUT", "proxies/echo", spec("echo", 18_102), 409, "config.yaml"),
        ("DELETE", "proxies/echo", String::new(), 409, "config.yaml"),
        ("DELETE", "proxies/nothing", String::new(), 404, "nothing"),
        ("POST", "services", json!({ "name": "s", "address": "x" }).to_string(), 422, "service"),
    ] {
        let (status, error) = request(node, method, path, &body);
        assert_eq!(status, expected, "{method} {path} {body}: {error}");
        assert!(
            error["error"].as_str().is_some_and(|text| text.contains(part)),
            "{method} {path} {body}: {error}"
        );
    }
    // A port that another program has is no proxy.
    let _holder = node.net().inside(|| std::net::TcpListener::bind("127.0.0.1:18109").unwrap());
    let (status, error) = request(node, "POST", "proxies", &spec("taken", 18_109));
    assert_eq!((status, find(node, "taken")), (409, None), "{error}");
    assert_eq!(request(node, "POST", "services", r#"{"name":"db","address":"127.0.0.1:5432"}"#).0, 201);

    let (status, _) = request(node, "PUT", "proxies/extra", &spec("renamed", 18_103));
    assert_eq!(status, 200);
    assert!(node.net().connect("127.0.0.1:18101").is_err());
    pair.client.stop();
    pair.client.start();
    pair.client.wait_for_peer(SERVER);
    let node = &pair.client;
    node.net().connect("127.0.0.1:18103").unwrap().echo(b"still there").unwrap();
    let origins: Vec<_> = node.proxies().iter().map(|proxy| (proxy.name.clone(), proxy.origin)).collect();
    assert_eq!(origins.iter().filter(|(_, origin)| *origin == Origin::Runtime).count(), 1, "{origins:?}");
    assert_eq!(find(node, "renamed").unwrap().origin, Origin::Runtime);
    let config: Config = serde_json::from_value(request(node, "GET", "config", "").1).unwrap();
    assert!(!config.values.to_string().contains("renamed"), "it is not of the file");

    // The file goes first.
    let proxies = more(&[("of-file", 18_103, 7_002)]);
    pair.configure(&Setup { proxies: &proxies, ..Setup::default() });
    assert_eq!(reload(&pair.client).failed, Vec::<String>::new());
    let (of_file, renamed) = (find(&pair.client, "of-file").unwrap(), find(&pair.client, "renamed").unwrap());
    assert!(of_file.error.is_none() && renamed.error.is_some_and(|error| error.contains("of-file")));
    pair.configure(&Setup::default());
    reload(&pair.client);
    pair.client.net().connect("127.0.0.1:18103").unwrap().echo(b"again").unwrap();
    assert_eq!(request(&pair.client, "DELETE", "proxies/renamed", "").0, 204);
    assert!(pair.client.net().connect("127.0.0.1:18103").is_err());
}

#[test]
fn taking_access_away_ends_that_flow_and_no_other() {
    let rules =
        |to: &str| format!("access:\n  - {{ from: [\"node:{CLIENT}\"], to: [{to}], action: allow }}\n");
    let before = rules("\"127.0.0.1:7001\", \"127.0.0.1:7002\"");
    let Some(mut pair) =
        Pair::with("reload-access", Family::V4, &Setup { server: &before, ..Setup::default() })
    else {
        return;
    };
    let net = pair.client.net();
    let (loses, keeps) =
        (net.connect(&pair.proxy("digest")).unwrap(), net.connect(&pair.proxy("echo")).unwrap());
    loses.send(b"for a digest that never comes").unwrap();
    keeps.echo(b"before").unwrap();
    let is_open = |flow: &Flow| flow.role == Role::Egress && flow.connected;
    until("both are connected", NOTICED, || {
        pair.server.flows().open.iter().filter(|flow| is_open(flow)).count() == 2
    });
    let after = rules("\"127.0.0.1:7001\"");
    pair.configure(&Setup { server: &after, ..Setup::default() });
    let pid = pair.server.process().pid().to_string();
    assert!(pair.server.net().run("kill", &["-HUP", &pid]).is_success());
    assert_eq!(loses.end(), End::Reset);
    let record = pair.server.wait_for_record(Role::Egress, "digest", Reason::Denied);
    assert!(record.connected && record.detail.is_some_and(|detail| detail.contains("access was taken away")));
    pair.client.wait_for_record(Role::Ingress, "digest", Reason::Denied);
    keeps.echo(b"after").unwrap();
    assert_eq!(pair.client.net().timed_end_of(&pair.proxy("digest")).unwrap().0, End::Reset);
    keeps.finish().unwrap();
    assert_eq!(keeps.end(), End::Closed);
}

#[test]
fn two_proxies_swap_their_ports_and_no_client_is_refused() {
    let proxies = more(&[("one", 18_101, 7_001), ("two", 18_102, 7_002)]);
    let Some(pair) = Pair::with("reload-swap", Family::V4, &Setup { proxies: &proxies, ..Setup::default() })
    else {
        return;
    };
    let done = AtomicBool::new(false);
    let tried = std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            let mut tried = 0;
            while !done.load(Ordering::Relaxed) {
                for address in ["127.0.0.1:18101", "127.0.0.1:18102"] {
                    pair.client.net().connect(address).unwrap_or_else(|e| panic!("{address}: {e}"));
                    tried += 1;
                }
            }
            tried
        });
        for swapped in [true, false, true] {
            let (one, two) = if swapped { (18_102, 18_101) } else { (18_101, 18_102) };
            let proxies = more(&[("one", one, 7_001), ("two", two, 7_002)]);
            pair.configure(&Setup { proxies: &proxies, ..Setup::default() });
            let changed = reload(&pair.client);
            assert_eq!(changed.changed, ["proxies.one: changed", "proxies.two: changed"]);
            assert_eq!(changed.failed, Vec::<String>::new());
        }
        done.store(true, Ordering::Relaxed);
        client.join().unwrap()
    });
    assert!(tried > 2, "{tried} connections");
    pair.client.net().connect("127.0.0.1:18102").unwrap().echo(b"the echo is here now").unwrap();
}

#[test]
fn a_port_that_is_taken_keeps_the_old_one_and_is_tried_again() {
    let proxies = |port| more(&[("moves", port, 7_001)]);
    let Some(pair) =
        Pair::with("reload-taken", Family::V4, &Setup { proxies: &proxies(18_101), ..Setup::default() })
    else {
        return;
    };
    let holder = pair.client.net().inside(|| std::net::TcpListener::bind("127.0.0.1:18102").unwrap());
    pair.configure(&Setup { proxies: &proxies(18_102), ..Setup::default() });
    let outcome = pair.client.ask(&["reload", "--json"]);
    let changed: Reload = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!((outcome.code, changed.failed.len()), (Some(1), 1), "{}", outcome.said());
    assert!(changed.failed[0].contains("127.0.0.1:18102"), "{changed:?}");
    pair.client.net().connect("127.0.0.1:18101").unwrap().echo(b"as before").unwrap();
    let error = find(&pair.client, "moves").unwrap().error.unwrap();
    assert!(error.contains("still listens on 127.0.0.1:18101"), "{error}");
    drop(holder);
    until("it has moved", NOTICED, || find(&pair.client, "moves").unwrap().error.is_none());
    pair.client.net().connect("127.0.0.1:18102").unwrap().echo(b"at last").unwrap();
    assert!(pair.client.net().connect("127.0.0.1:18101").is_err());
}

#[test]
fn an_upstream_that_is_removed_is_left_without_losing_a_flow() {
    // Without sessions with the relays themselves: those want the links, too.
    let Some(mesh) = mesh("reload-upstream", &diamond().relay_only("r1").relay_only("r2")) else { return };
    let (proxy, service) = (mesh.proxy("b", "load"), mesh.service("load"));
    let load = Load::start(mesh.net("a"), &proxy, mesh.net("b"), &service, 30, Pace::STEADY);
    until("both relays are known", Duration::from_secs(10), || mesh.node("a").routes_to("b").len() == 2);
    let used = relay_in_use(&mesh, "a", "b");
    let other = if used == "r1" { "r2" } else { "r1" };
    let whole = std::fs::read_to_string(mesh.node("a").config()).unwrap();
    let rewrite = |line: &dyn Fn(&str) -> Option<String>| {
        let lines: Vec<_> = whole.lines().filter_map(line).collect();
        std::fs::write(mesh.node("a").config(), lines.join("\n")).unwrap();
        reload(mesh.node("a")).changed
    };

    let is_upstream = |line: &str, node: &str| line.contains(&format!("node_id: \"{node}\", address:"));
    let changed = rewrite(&|line| {
        let line = line.to_owned();
        Some(if is_upstream(&line, other) { line.replace("cost: 0", "cost: 500") } else { line })
    });
    assert_eq!(changed, [format!("quic.upstreams.{other}: changed")]);
    until("the cost counts", Duration::from_secs(10), || {
        let routes = mesh.node("a").routes_to("b");
        let through = routes.iter().find(|route| route.path[1].as_str() == other);
        through.and_then(|route| route.cost_ms).is_some_and(|cost| cost >= 500.0)
    });

    let changed = rewrite(&|line| (!is_upstream(line, &used)).then(|| line.to_owned()));
    assert_eq!(
        changed,
        [format!("quic.upstreams.{used}: removed"), format!("quic.upstreams.{other}: changed")]
            .into_iter()
            .rev()
            .collect::<Vec<_>>()
    );
    until("traffic has moved", Duration::from_secs(10), || {
        mesh.node("a").routes_to("b").first().is_some_and(|route| route.path[1].as_str() == other)
    });
    until("the link is closed", Duration::from_secs(20), || !mesh.node("a").sees(&used));
    load.wait_flowing();
    // And back.
    std::fs::write(mesh.node("a").config(), &whole).unwrap();
    assert_eq!(reload(mesh.node("a")).changed, [format!("quic.upstreams.{used}: added")]);
    mesh.node("a").wait_for_peer(&used);
    let outcome = load.finish(Duration::from_secs(20));
    assert_eq!(outcome.lost, Vec::<String>::new());
    let longest = outcome.longest_silence();
    assert!(longest < Duration::from_secs(2), "a flow was silent for {longest:?}");
}
