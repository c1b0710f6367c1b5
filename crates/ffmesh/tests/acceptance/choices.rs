//! Choices of the user: Unix sockets at either end, where a node keeps its state, which node a command talks to.

use std::path::Path;
use std::time::Duration;

use ffmesh_api::Status;
use ffmesh_lab::{End, Lab, Outcome, RandomBytes, Service, run};

use crate::FFMESH;
use crate::pair::{Family, Pair, SERVER, Setup};

#[test]
fn unix_sockets_work_at_both_ends_and_each_with_tcp() {
    let Some(mut pair) = Pair::stopped("unix", Family::V4, &Setup::default()) else { return };
    let path = |name: &str| pair.lab.dir().join(name).display().to_string();
    let (entry, mixed, service, other) = (path("in"), path("mixed"), path("service"), path("other"));
    let node = format!("target_node_id: \"{SERVER}\"");
    let proxies = format!(
        "  - {{ name: both, local_address: \"unix:{entry}\", {node}, target_address: \"unix:{service}\" }}\n  \
           - {{ name: enters, local_address: \"unix:{mixed}\", {node}, target_address: \"127.0.0.1:7001\" }}\n  \
           - {{ name: leaves, local_port: 17101, {node}, target_address: \"unix:{service}\" }}\n  \
           - {{ name: closed, local_port: 17102, {node}, target_address: \"unix:{other}\" }}\n"
    );
    let server = format!(
        "access:\n  - {{ from: [\"*\"], to: [\"unix:{service}\", \"127.0.0.0/8:*\"], action: allow }}\n"
    );
    pair.configure(&Setup { proxies: &proxies, server: &server, ..Setup::default() });
    pair.start();
    let _services = [&service, &other].map(|path| Service::echo(pair.server.net(), &format!("unix:{path}")));
    let bytes = RandomBytes::take(61, 5 << 20);
    for address in [&format!("unix:{entry}"), &format!("unix:{mixed}"), "127.0.0.1:17101"] {
        let conn = pair.client.net().connect(address).unwrap();
        conn.echo(&bytes).unwrap();
        conn.finish().unwrap();
        assert_eq!(conn.end(), End::Closed, "{address}");
    }
    assert_eq!(pair.client.net().timed_end_of("127.0.0.1:17102").unwrap().0, End::Reset);
    // A killed node leaves its sockets behind; they don't hinder the next start.
    pair.client.kill();
    pair.client.start();
    pair.client.wait_for_peer(SERVER);
    pair.client.net().connect(&format!("unix:{entry}")).unwrap().echo(b"again").unwrap();
    assert_eq!(pair.client.stop().code(), Some(0));
    assert!(!Path::new(&entry).exists(), "a stopped node leaves its socket behind");
}

#[test]
fn standard_input_and_output_reach_a_target_with_nc() {
    let Some(pair) = Pair::new("nc", Family::V4) else { return };
    let config = pair.client.config();
    let script =
        format!("printf 'a line' | {FFMESH} nc {SERVER} 127.0.0.1:7001 --config {}", config.display());
    let echo = pair.client.net().run("sh", &["-c", &script]);
    assert_eq!((echo.code, echo.stdout.as_str()), (Some(0), "a line"), "{}", echo.stderr);
    let refused = pair.client.ask(&["nc", SERVER, "127.0.0.1:7009"]);
    assert_eq!(refused.code, Some(1), "{}", refused.said());
    assert!(refused.stderr.contains("refused"), "{}", refused.said());
}

#[test]
fn the_state_directory_is_taken_from_flag_environment_file_and_default_in_this_order() {
    let Some(lab) = Lab::new("state") else { return };
    let lab = lab.with_program(FFMESH);
    let net = lab.net("a");
    let dir = |name: &str| lab.dir().join(name).display().to_string();
    // The default for root is under /var/lib, which is the lab's own here.
    let var = dir("var");
    std::fs::create_dir(&var).unwrap();
    let ffmesh = |environment: Option<&str>, arguments: &[&str]| -> Outcome {
        let mut command = net.command("unshare");
        let script = "mount --bind \"$0\" /var/lib && exec \"$@\"";
        command.args(["--mount", "sh", "-c", script, &var, FFMESH]).args(arguments);
        command.env_remove("FFMESH_STATE_DIR");
        if let Some(dir) = environment {
            command.env("FFMESH_STATE_DIR", dir);
        }
        run(command, Duration::from_secs(20))
    };
    let config = dir("node.yaml");
    let has_key = |dir: &str| Path::new(dir).join("node.key").exists();
    let (flag, environment, file) = (dir("flag"), dir("environment"), dir("file"));
    let default = format!("{var}/ffmesh/by-default");
    let all = [&flag, &environment, &file, &default];

    let text = format!("node_id: by-default\nstate_dir: {file}\nquic: {{ listen_port: 3334 }}\n");
    std::fs::write(&config, &text).unwrap();
    let inits: [(&[&str], Option<&str>, bool); 4] = [
        (&["--state-dir", &flag], Some(&environment), true),
        (&[], Some(&environment), true),
        (&[], None, true),
        (&[], None, false),
    ];
    for (number, (arguments, environment, in_file)) in inits.into_iter().enumerate() {
        if !in_file {
            std::fs::write(&config, "node_id: by-default\nquic: { listen_port: 3334 }\n").unwrap();
        }
        let outcome = ffmesh(environment, &[&["init", &config], arguments].concat());
        assert!(outcome.is_success(), "{}", outcome.said());
        for (other, dir) in all.iter().enumerate() {
            assert_eq!(has_key(dir), other <= number, "{dir} after init {number}");
        }
    }

    // A node in the default directory is found by its id, its file, and its directory.
    let mut command = net.command("unshare");
    command.args([
        "--mount",
        "sh",
        "-c",
        "mount --bind \"$0\" /var/lib && exec \"$@\"",
        &var,
        FFMESH,
        "up",
        &config,
    ]);
    command.env_remove("FFMESH_STATE_DIR");
    let _node = ffmesh_lab::Process::start("by-default", command, &lab.dir().join("log"));
    let found = |arguments: &[&str]| {
        let outcome = ffmesh(None, &[&["status", "--json"], arguments].concat());
        outcome
            .is_success()
            .then(|| serde_json::from_str::<Status>(&outcome.stdout).unwrap().node_id.to_string())
    };
    let default_dir = "/var/lib/ffmesh/by-default";
    ffmesh_lab::until("the node answers", Duration::from_secs(10), || {
        found(&["--config", &config]).is_some()
    });
    for choice in [["--node", "by-default"], ["--config", &config], ["--state-dir", default_dir]] {
        assert_eq!(found(&choice).as_deref(), Some("by-default"), "{choice:?}");
    }
    let nobody = ffmesh(None, &["status", "--node", "nobody"]);
    assert_eq!(nobody.code, Some(1), "{}", nobody.said());
    assert!(nobody.stderr.contains("nobody"), "{}", nobody.said());
}
