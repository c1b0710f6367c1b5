//! What the process takes of the machine. Several nodes in one process share these figures.

use std::fmt;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use crate::metrics::{counter, gauge};

/// Where Linux says so.
const STATUS: &str = "/proc/self/status";
const STAT: &str = "/proc/self/stat";
const FILES: &str = "/proc/self/fd";
const UPTIME: &str = "/proc/stat";

/// Processor time so far.
pub fn processor_time() -> Duration {
    let clock = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(clock).unwrap_or_default()
}

/// Resident memory in bytes; none where the system does not say.
pub fn resident_memory() -> Option<u64> {
    kibibytes(&std::fs::read_to_string(STATUS).ok()?, "VmRSS")
}

/// The process, as metrics with the names that all programs use. What the system does not say is left out.
#[derive(Debug)]
pub struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        let cpu = processor_time().as_secs_f64();
        counter(encoder, "process_cpu_seconds", "Processor time that the process has taken", cpu)?;
        let status = std::fs::read_to_string(STATUS).unwrap_or_default();
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let gauges = [
            ("process_resident_memory_bytes", "Memory in use", kibibytes(&status, "VmRSS")),
            ("process_virtual_memory_bytes", "Address space in use", kibibytes(&status, "VmSize")),
            ("process_threads", "Threads", field(&status, "Threads")),
            ("process_open_fds", "Open files and sockets", open_files()),
            ("process_max_fds", "Most files and sockets that may be open", limit),
        ];
        for (name, help, value) in gauges {
            if let Some(value) = value {
                gauge(encoder, name, help, value)?;
            }
        }
        match start_time() {
            Some(start) => {
                gauge(encoder, "process_start_time_seconds", "When the process began, in Unix time", start)
            }
            None => Ok(()),
        }
    }
}

/// The number behind `name:`.
fn field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

fn kibibytes(status: &str, name: &str) -> Option<u64> {
    Some(field(status, name)? * 1024)
}

fn open_files() -> Option<u64> {
    // Linux 6.2 and later say so at once; before, they are counted.
    match std::fs::metadata(FILES).ok()?.len() {
        0 => Some(std::fs::read_dir(FILES).ok()?.count() as u64),
        count => Some(count),
    }
}

/// Unix time in seconds.
fn start_time() -> Option<f64> {
    let uptime = std::fs::read_to_string(UPTIME).ok()?;
    let boot: u32 = uptime.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    let stat = std::fs::read_to_string(STAT).ok()?;
    // The name of the program, in brackets, may hold anything. Behind it, the 20th field is the start (proc(5)).
    let ticks: u32 = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
    let per_second = u32::try_from(rustix::param::clock_ticks_per_second()).ok()?.max(1);
    Some(f64::from(boot) + f64::from(ticks) / f64::from(per_second))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_usual_figures_are_there_and_make_sense() {
        let text = crate::metrics::tests::text(Process);
        let value = |name: &str| -> f64 {
            let line = text.lines().find(|line| line.split(' ').next() == Some(name));
            let line = line.unwrap_or_else(|| panic!("{name} is missing in\n{text}"));
            line.rsplit_once(' ').unwrap().1.parse().unwrap()
        };
        assert!(value("process_cpu_seconds_total") > 0.0);
        assert!(value("process_resident_memory_bytes") > 1e6);
        assert!(value("process_virtual_memory_bytes") >= value("process_resident_memory_bytes"));
        assert!(value("process_threads") >= 2.0);
        assert!(value("process_open_fds") >= 3.0 && value("process_open_fds") <= value("process_max_fds"));
        let age = jiff::Timestamp::now().as_duration().as_secs_f64() - value("process_start_time_seconds");
        assert!((-2.0..86_400.0).contains(&age), "{age}");
    }
}
