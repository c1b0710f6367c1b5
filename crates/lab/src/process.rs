//! Processes of a test: run to their end with a limit, or running in the background with a log.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::usage::{CpuSeconds, memory_of};

/// How often a process is asked whether it has ended.
const POLL: Duration = Duration::from_millis(5);
/// Lines of a log that a failed test prints.
const LOG_TAIL: usize = 200;

/// How a command ended, and what it said.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Its exit status; none when a signal ended it.
    pub code: Option<i32>,
    /// Standard output
    pub stdout: String,
    /// Standard error
    pub stderr: String,
}

impl Outcome {
    /// Whether it exited with status 0.
    pub fn is_success(&self) -> bool {
        self.code == Some(0)
    }

    /// Both outputs, for searching.
    pub fn said(&self) -> String {
        format!("{}\n{}", self.stdout, self.stderr)
    }
}

/// Runs a command to its end.
///
/// # Panics
/// When it can't be started, or is still running after `limit`.
pub fn run(mut command: Command, limit: Duration) -> Outcome {
    let shown = format!("{command:?}");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|e| panic!("{shown}: {e}"));
    let mut stdout = child.stdout.take().expect("piped");
    let mut stderr = child.stderr.take().expect("piped");
    let (stdout, stderr, status) = std::thread::scope(|scope| {
        let stdout = scope.spawn(move || read_text(&mut stdout));
        let stderr = scope.spawn(move || read_text(&mut stderr));
        let status = wait(&mut child, limit);
        if status.is_none() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let join = |reader: std::thread::ScopedJoinHandle<'_, String>| reader.join().unwrap_or_default();
        (join(stdout), join(stderr), status)
    });
    let Some(status) = status else {
        panic!("{shown} was still running after {limit:?}; it said:\n{stdout}\n{stderr}");
    };
    Outcome { code: status.code(), stdout, stderr }
}

/// A process in the background. It is ended when this is dropped; while a test panics its log is printed, too.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts a process whose output is appended to `log`.
    ///
    /// # Panics
    /// When it can't be started.
    pub fn start(name: &str, mut command: Command, log: &Path) -> Self {
        let file = File::options().create(true).append(true).open(log).expect("open the log");
        let copy = file.try_clone().expect("open the log");
        command.stdin(Stdio::null()).stdout(file).stderr(copy);
        let child = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        Self { name: name.to_owned(), child, log: log.to_owned(), ended: None }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it is still running.
    pub fn is_running(&mut self) -> bool {
        self.wait(Duration::ZERO).is_none()
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Ends it with SIGKILL.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        let _ = self.wait(Duration::from_secs(10));
    }

    /// Waits for its end; none when it is still running after `limit`.
    pub fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = wait(&mut self.child, limit);
        }
        self.ended
    }

    /// What it has said.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Bytes of memory that it holds (`VmRSS`).
    ///
    /// # Panics
    /// When it has ended.
    pub fn memory(&self) -> u64 {
        memory_of(self.pid()).expect("it is running")
    }

    /// Seconds that it has had a core, in user space and in the kernel (`utime` and `stime`).
    ///
    /// # Panics
    /// When it has ended.
    pub fn cpu_seconds(&self) -> f64 {
        CpuSeconds::of(self.pid()).expect("it is running").own
    }

    /// Whether a socket of its namespace is bound to this UDP port.
    pub fn listens_on_udp(&self, port: u16) -> bool {
        let wanted = format!(":{port:04X}");
        ["udp", "udp6"].iter().any(|table| {
            let table =
                std::fs::read_to_string(format!("/proc/{}/net/{table}", self.pid())).unwrap_or_default();
            table
                .lines()
                .any(|line| line.split_whitespace().nth(1).is_some_and(|local| local.ends_with(&wanted)))
        })
    }

    fn signal(&self, signal: Signal) {
        if self.ended.is_none()
            && let Some(pid) = i32::try_from(self.pid()).ok().and_then(Pid::from_raw)
        {
            let _ = kill_process(pid, signal);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(LOG_TAIL)..];
            eprintln!("--- {} said:\n{}\n---", self.name, tail.join("\n"));
        }
    }
}

fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let start = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if start.elapsed() < limit => std::thread::sleep(POLL),
            Ok(None) | Err(_) => return None,
        }
    }
}

fn read_text(from: &mut impl Read) -> String {
    let mut bytes = Vec::new();
    let _ = from.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}
