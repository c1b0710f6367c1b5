//! `ffmesh doctor` on machines where something is wrong, and where nothing is.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use ffmesh_lab::{Mesh, Plan};
use serde_json::Value;

use crate::{FFMESH, mesh, stopped_mesh};

/// What the whole of it may take.
const LIMIT: Duration = Duration::from_secs(20);

fn plan() -> Plan {
    Plan::new(&["b", "a"]).link("a", "b")
}

/// The findings at node `a`, which dials `b`, and the exit status.
fn findings(mesh: &Mesh) -> (bool, Vec<Value>) {
    let config = mesh.node("a").config();
    let start = Instant::now();
    let outcome = mesh.node("a").run(&["doctor", &config.to_string_lossy(), "--json"]);
    assert!(start.elapsed() < LIMIT, "{:?}", start.elapsed());
    let findings =
        serde_json::from_str(&outcome.stdout).unwrap_or_else(|e| panic!("{e}: {}", outcome.said()));
    (outcome.is_success(), findings)
}

/// The result of one finding, with what was found.
fn result<'a>(findings: &'a [Value], name: &str) -> (&'a str, &'a str) {
    let finding = findings.iter().find(|finding| finding["name"] == name);
    let finding = finding.unwrap_or_else(|| panic!("no finding {name}: {findings:#?}"));
    (finding["result"].as_str().unwrap(), finding["found"].as_str().unwrap())
}

fn assert_fails(mesh: &Mesh, name: &str, words: &str) {
    let (success, findings) = findings(mesh);
    let (result, found) = result(&findings, name);
    assert!(!success && result == "failed" && found.contains(words), "{found}: {findings:#?}");
}

#[test]
fn a_healthy_node_has_nothing_that_failed_whether_it_runs_or_not() {
    let Some(mut mesh) = mesh("doctor", &plan()) else { return };
    for running in [true, false] {
        if !running {
            mesh.node_mut("a").stop();
        }
        let (success, findings) = findings(&mesh);
        assert!(success, "{findings:#?}");
        for name in
            ["configuration", "state directory", "identity", "certificate", "upstream b", "proxy echo-b"]
        {
            assert_eq!(result(&findings, name).0, "ok", "{name}: {findings:#?}");
        }
        assert_eq!(result(&findings, "upstream b: MTU").0, "ok", "{findings:#?}");
        let clock = if running { "ok" } else { "skipped" };
        assert_eq!(result(&findings, "upstream b: clock").0, clock, "{findings:#?}");
        assert_eq!(findings.iter().filter(|finding| finding["result"] == "failed").count(), 0);
    }
    // A node that runs and does not answer is not one that is off.
    mesh.node_mut("a").start();
    std::fs::remove_file(mesh.node("a").state_dir().join("admin.sock")).unwrap();
    assert_fails(&mesh, "node", "does not answer");
    assert_eq!(result(&findings(&mesh).1, "proxy echo-b").0, "ok", "the port is its own");
    // The node has taken no harm.
    assert!(mesh.node_mut("b").is_running());
}

#[test]
fn what_is_in_the_way_is_named() {
    let Some(mut mesh) = stopped_mesh("doctor-sick", &plan()) else { return };
    // Nobody there.
    assert_fails(&mesh, "upstream b", "nothing listens");

    // UDP is blocked.
    mesh.node_mut("b").start();
    mesh.net("b").deafen();
    assert_fails(&mesh, "upstream b", "no answer");
    mesh.net("b").hear();
    assert_eq!(result(&findings(&mesh).1, "upstream b").0, "ok");

    // Another node is there than the file says.
    let address = mesh.address("a", "b");
    let other = format!("quic:\n  upstreams:\n    - {{ node_id: \"c\", address: \"{address}\" }}\n");
    let own = std::fs::read_to_string(mesh.node("a").config()).unwrap();
    mesh.node("a").configure(&other);
    assert_fails(&mesh, "upstream c", "is b, not c");
    // Without an identity nobody can tell.
    let (state, aside) = (mesh.node("a").state_dir(), mesh.node("a").state_dir().with_extension("aside"));
    std::fs::rename(&state, &aside).unwrap();
    assert_eq!(result(&findings(&mesh).1, "upstream c").0, "skipped");
    std::fs::rename(&aside, &state).unwrap();
    std::fs::write(mesh.node("a").config(), own).unwrap();

    // A port is taken.
    let address = mesh.proxy("b", "echo");
    let taken = mesh.net("a").inside(|| TcpListener::bind(&address)).unwrap();
    assert_fails(&mesh, "proxy echo-b", "(process ");
    drop(taken);

    // Hardly a file may be open.
    let config = mesh.node("a").config();
    let command = format!("ulimit -n 100; exec '{FFMESH}' doctor '{}'", config.display());
    let outcome = mesh.net("a").run("sh", &["-c", &command]);
    assert!(!outcome.is_success() && outcome.stdout.contains("FAILED   open files"), "{}", outcome.said());
}

#[test]
fn a_narrow_path_is_a_warning_and_one_too_narrow_for_quic_a_failure() {
    let Some(mut mesh) = stopped_mesh("doctor-mtu", &plan()) else { return };
    mesh.node_mut("b").start();
    let narrow = |mtu: &str| {
        for (from, to) in [("a", "b"), ("b", "a")] {
            let interface = mesh.net(from).interface_to(mesh.net(to));
            let set = mesh.net(from).run("ip", &["link", "set", &interface, "mtu", mtu]);
            assert!(set.is_success(), "{}", set.said());
        }
    };
    narrow("1300");
    let (success, found) = findings(&mesh);
    assert!(success, "{found:#?}");
    assert_eq!(result(&found, "upstream b: MTU").0, "warning", "{found:#?}");
    narrow("1100");
    assert_fails(&mesh, "upstream b: MTU", "do not get there whole");
}

#[test]
fn a_configuration_with_errors_is_status_2() {
    let Some(mesh) = stopped_mesh("doctor-bad", &plan()) else { return };
    mesh.node("a").configure("quic:\n  listen_prot: 1\n");
    let config = mesh.node("a").config();
    let outcome = mesh.node("a").run(&["doctor", &config.to_string_lossy()]);
    assert_eq!(outcome.code, Some(2), "{}", outcome.said());
    assert!(outcome.stdout.contains("listen_port"), "{}", outcome.said());
}
