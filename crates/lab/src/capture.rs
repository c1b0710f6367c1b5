//! What passes a namespace, as one who reads along sees it.

use std::path::PathBuf;
use std::time::Duration;

use crate::net::Net;
use crate::process::Process;
use crate::wait::until;

/// How long a packet may take from the kernel into the file.
const FLUSH: Duration = Duration::from_millis(1200);

/// All packets of a namespace, written to a file by tcpdump(8) while this exists.
#[derive(Debug)]
pub struct Capture {
    process: Process,
    file: PathBuf,
}

impl Capture {
    /// Begins to read along on all interfaces of `net`, the loopback included. `filter` is of pcap-filter(7).
    ///
    /// # Panics
    /// When tcpdump does not start.
    pub fn start(net: &Net, dir: &std::path::Path, filter: &str) -> Self {
        let base = dir.join(format!("{}.pcap", net.name()));
        let mut command = net.command("tcpdump");
        // All of each packet, to the file at once, as root, with room for bursts.
        command
            .args(["-i", "any", "-s", "0", "-U", "-Z", "root", "-B", "65536", "-n", "-w"])
            .arg(&base)
            .arg(filter);
        let process = Process::start("tcpdump", command, &dir.join(format!("{}.tcpdump", net.name())));
        until("tcpdump listens", Duration::from_secs(10), || process.log().contains("listening on"));
        Self { process, file: base }
    }

    /// Ends it and returns everything it has read.
    ///
    /// # Panics
    /// When packets were missed, which would make a search of them worthless.
    pub fn finish(mut self) -> Vec<u8> {
        std::thread::sleep(FLUSH);
        self.process.terminate();
        assert!(self.process.wait(Duration::from_secs(10)).is_some(), "tcpdump does not end");
        let log = self.process.log();
        assert!(log.contains("\n0 packets dropped by kernel"), "tcpdump missed packets: {log}");
        std::fs::read(&self.file).expect("read what was captured")
    }
}

/// Whether `wanted` stands anywhere in `bytes`.
pub fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    let first = wanted[0];
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| *byte == first) {
        if rest[at..].starts_with(wanted) {
            return true;
        }
        rest = &rest[at + 1..];
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_is_found_wherever_it_stands() {
        assert!(contains(b"abab!", b"ab!"));
        assert!(contains(b"ab", b"ab"));
        assert!(!contains(b"abab", b"abb"));
        assert!(!contains(b"", b"a"));
    }
}
