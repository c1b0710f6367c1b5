//! What the program tells systemd (sd_notify(3)), over a socket as systemd has one.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::net::UdpSocket;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// How long a message may take.
const PATIENCE: Duration = Duration::from_secs(20);

struct Unit {
    dir: tempfile::TempDir,
    socket: UnixDatagram,
    node: Child,
}

impl Unit {
    /// A node that is run as systemd runs it, with `WATCHDOG_PID` where one is given.
    fn start(watchdog: Duration, watchdog_pid: Option<&str>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(dir.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let file = format!(
            "node_id: a\nquic: {{ listen_port: {port}, listen_address: 127.0.0.1 }}\nmesh: {{ drain_timeout: 7s }}\n"
        );
        std::fs::write(dir.path().join("a.yaml"), file).unwrap();
        assert!(ffmesh(dir.path()).args(["init", "a.yaml"]).output().unwrap().status.success());
        let mut command = ffmesh(dir.path());
        command.args(["up", "a.yaml"]).stdout(Stdio::null()).stderr(Stdio::null());
        command.env("NOTIFY_SOCKET", dir.path().join("notify"));
        command.env("WATCHDOG_USEC", watchdog.as_micros().to_string());
        if let Some(pid) = watchdog_pid {
            command.env("WATCHDOG_PID", pid);
        }
        let node = command.spawn().unwrap();
        Self { dir, socket, node }
    }

    /// The next message.
    fn next(&self) -> String {
        let mut message = [0; 1024];
        let length = self.socket.recv(&mut message).expect("a message in time");
        String::from_utf8_lossy(&message[..length]).trim_end().to_owned()
    }

    /// The next message that is not about the watchdog.
    fn next_state(&self) -> String {
        std::iter::repeat_with(|| self.next()).find(|message| message != "WATCHDOG=1").unwrap()
    }

    fn terminate(&self) {
        let pid = Pid::from_raw(i32::try_from(self.node.id()).unwrap()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        let _ = self.node.kill();
        let _ = self.node.wait();
    }
}

fn ffmesh(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ffmesh"));
    command.current_dir(dir).env("FFMESH_STATE_DIR", dir.join("state")).stdin(Stdio::null());
    for name in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "FFMESH_LOG"] {
        command.env_remove(name);
    }
    command
}

#[test]
fn a_node_says_that_it_is_ready_that_it_lives_and_that_it_ends() {
    let mut unit = Unit::start(Duration::from_secs(1), None);
    assert_eq!(unit.next(), "READY=1");
    for _ in 0..4 {
        assert_eq!(unit.next(), "WATCHDOG=1");
    }
    unit.terminate();
    assert_eq!(unit.next_state(), "STOPPING=1");
    // mesh.drain_timeout and 10 s, whatever TimeoutStopSec is.
    assert_eq!(unit.next_state(), "EXTEND_TIMEOUT_USEC=17000000");
    assert_eq!(unit.node.wait().unwrap().code(), Some(0));
}

#[test]
fn drain_ends_a_node_as_a_signal_does_and_a_watchdog_of_another_process_is_not_fed() {
    let mut unit = Unit::start(Duration::from_millis(30), Some("1"));
    assert_eq!(unit.next(), "READY=1");
    unit.socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut message = [0; 64];
    assert!(unit.socket.recv(&mut message).is_err(), "{}", String::from_utf8_lossy(&message));
    unit.socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let output = ffmesh(unit.dir.path()).args(["drain", "--json"]).output().unwrap();
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&said["ended"], &said["timeout_s"]), (&true.into(), &7.into()), "{output:?}");
    assert_eq!(unit.next(), "STOPPING=1");
    assert_eq!(unit.node.wait().unwrap().code(), Some(0));
    let output = ffmesh(unit.dir.path()).arg("drain").output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}
