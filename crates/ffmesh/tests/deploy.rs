//! What `deploy/` gives to other programs is what these programs take: Prometheus's own tool reads the rules and runs
//! their tests, the dashboard's queries included; systemd's reads the unit.
//!
//! Without these programs a test says that it is skipped; in CI that is a failure.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use ffmesh_lab::require_programs;
use serde_json::Value;

const DASHBOARD: &str = include_str!("../../../deploy/grafana/ffmesh.json");
const ALERTS: &str = include_str!("../../../deploy/prometheus/alerts.yml");
/// Columns of Grafana's grid.
const GRID: u64 = 24;

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy")
}

#[track_caller]
fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    let said = [output.stdout.clone(), output.stderr.clone()].concat();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&said));
    output
}

fn promtool(args: &[&str]) -> Command {
    let mut command = Command::new("promtool");
    command.args(args).current_dir(deploy().join("prometheus"));
    command
}

#[test]
fn prometheus_takes_the_scrape_example_and_the_alerts_and_they_fire_as_they_should() {
    if !require_programs(&["promtool"]) {
        return;
    }
    run(&mut promtool(&["check", "config", "--syntax-only", "scrape.yml"]));
    run(&mut promtool(&["check", "rules", "alerts.yml"]));
    run(&mut promtool(&["test", "rules", "alerts_test.yml"]));
}

#[test]
fn each_alert_is_tested_and_says_what_to_do() {
    let tests = include_str!("../../../deploy/prometheus/alerts_test.yml");
    let (mut alerts, mut described) = (BTreeSet::new(), 0);
    for line in ALERTS.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("- alert: ") {
            assert!(alerts.insert(name), "{name} is there twice");
        }
        described += usize::from(line.starts_with("description: "));
    }
    assert_eq!(described, alerts.len());
    for alert in alerts {
        let fires = format!("labels: ALERTS{{alertname=\"{alert}\"");
        assert!(tests.contains(&fires), "no test in which {alert} fires");
    }
}

/// The panels that draw something.
fn panels() -> Vec<Value> {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    dashboard["panels"].as_array().unwrap().clone()
}

#[test]
fn the_panels_of_the_dashboard_have_their_places() {
    let (mut ids, mut taken) = (BTreeSet::new(), BTreeSet::new());
    for panel in panels() {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}: its id is taken");
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().unwrap());
        assert!(w > 0 && h > 0 && x + w <= GRID, "{title} leaves the grid");
        for place in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(taken.insert(place), "{title} covers another panel at {place:?}");
        }
        let is_row = panel["type"] == "row";
        assert!(is_row || panel["description"].as_str().is_some_and(|text| text.ends_with('.')), "{title}");
        assert!(is_row || panel["datasource"]["uid"] == "${datasource}", "{title} asks a source of its own");
    }
}

/// The queries of the dashboard, as Grafana sends them.
fn queries() -> Vec<String> {
    let targets = panels().into_iter().filter_map(|panel| panel["targets"].as_array().cloned()).flatten();
    let sent = |target: Value| {
        let expr = target["expr"].as_str().unwrap();
        expr.replace("$__rate_interval", "1m").replace("$node", ".*")
    };
    targets.map(sent).collect()
}

#[test]
fn prometheus_understands_the_queries_of_the_dashboard() {
    if !require_programs(&["promtool"]) {
        return;
    }
    let mut rules = "groups:\n  - name: dashboard\n    rules:\n".to_owned();
    for (number, query) in queries().iter().enumerate() {
        let query = serde_json::to_string(query).unwrap();
        let _ = writeln!(rules, "      - {{ record: \"panel_{number}\", expr: {query} }}");
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rules.yml");
    std::fs::write(&file, rules).unwrap();
    run(&mut promtool(&["check", "rules", file.to_str().unwrap()]));
}

/// What systemd before 254 does not know, and says that it ignores: see the unit.
const NEWER: [&str; 3] = ["notify-reload", "'RestartSteps'", "'RestartMaxDelaySec'"];

#[test]
fn systemd_understands_the_unit() {
    if !require_programs(&["systemd-analyze"]) {
        return;
    }
    let unit = std::fs::read_to_string(deploy().join("systemd/ffmesh@.service")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ffmesh@edge.service");
    // It looks whether the program is there.
    std::fs::write(&file, unit.replace("/usr/bin/ffmesh", env!("CARGO_BIN_EXE_ffmesh"))).unwrap();
    let output = run(Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&file));
    for line in String::from_utf8_lossy(&output.stderr).lines().filter(|line| line.contains("ffmesh@")) {
        assert!(NEWER.iter().any(|newer| line.contains(newer) && line.contains("ignoring")), "{line}");
    }
    // 1.6 as it is: what makes it more is meant to be seen.
    let security = ["security", "--offline=true", "--threshold=20", "--no-pager"];
    run(Command::new("systemd-analyze").args(security).arg(&file));
}
