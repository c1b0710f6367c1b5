//! Who uses the machine: processes with their children, and what is left for strangers.

use std::collections::HashSet;
use std::fs::read_to_string;
use std::time::Instant;

use ffmesh_lab::{CpuSeconds, TICKS, memory_of};

/// These processes and all that descend from them.
fn with_children(pids: &[u32]) -> HashSet<u32> {
    let mut all = HashSet::new();
    let mut rest = pids.to_vec();
    while let Some(pid) = rest.pop() {
        if !all.insert(pid) {
            continue;
        }
        for thread in std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let children = read_to_string(thread.path().join("children")).unwrap_or_default();
            rest.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        }
    }
    all
}

/// Seconds of CPU of these processes, their children, and the children that they have waited for.
pub(crate) fn cpu_seconds(pids: &[u32]) -> f64 {
    let of_all = with_children(pids).into_iter().filter_map(CpuSeconds::of);
    of_all.map(|seconds| seconds.own + seconds.waited_for).sum()
}

/// Bytes of memory that these processes and their children hold.
#[expect(clippy::cast_precision_loss, reason = "memory of a machine is far below 2^52 bytes")]
pub(crate) fn memory(pids: &[u32]) -> f64 {
    with_children(pids).into_iter().filter_map(memory_of).sum::<u64>() as f64
}

/// A shorter time than this says nothing: the system counts in hundredths of a second.
const SHORTEST: f64 = 0.5;

/// Measures how many cores others use.
#[derive(Debug)]
pub(crate) struct Strangers {
    start: Instant,
    seconds: f64,
}

impl Strangers {
    pub(crate) fn watch() -> Self {
        Self { start: Instant::now(), seconds: seconds_of_strangers() }
    }

    /// Cores in use by others since, on average; 0 where it is too soon to say.
    pub(crate) fn cores(&self) -> f64 {
        let time = self.start.elapsed().as_secs_f64();
        if time < SHORTEST {
            return 0.0;
        }
        ((seconds_of_strangers() - self.seconds) / time).max(0.0)
    }
}

fn seconds_of_strangers() -> f64 {
    let stat = read_to_string("/proc/stat").unwrap_or_default();
    let fields: Vec<f64> =
        stat.lines().next().unwrap_or_default().split_whitespace().filter_map(|f| f.parse().ok()).collect();
    // user, nice, system, irq, softirq: neither idle nor waiting for a disk
    let busy: f64 = [0, 1, 2, 5, 6].iter().filter_map(|at| fields.get(*at)).sum();
    busy / TICKS - cpu_seconds(&[std::process::id()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_count() {
        let me = std::process::id();
        let before = (cpu_seconds(&[me]), memory(&[me]));
        assert!(before.1 > 0.0);
        let mut child = std::process::Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
        let start = Instant::now();
        while cpu_seconds(&[me]) - before.0 < 0.1 {
            assert!(start.elapsed().as_secs() < 30, "a busy child uses no CPU");
        }
        assert!(with_children(&[me]).contains(&child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!with_children(&[me]).contains(&child.id()));
    }
}
