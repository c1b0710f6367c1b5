//! What the figures were measured on.

use std::fs::read_to_string;

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) memory_gib: u64,
    pub(crate) kernel: String,
}

impl Machine {
    pub(crate) fn this() -> Self {
        let value = |file: &str, key: &str| {
            let text = read_to_string(file).unwrap_or_default();
            text.lines()
                .find_map(|line| {
                    Some(line.strip_prefix(key)?.trim_start_matches([' ', '\t', ':']).to_owned())
                })
                .unwrap_or_default()
        };
        let memory = value("/proc/meminfo", "MemTotal");
        let kib: u64 = memory.split_whitespace().next().and_then(|kib| kib.parse().ok()).unwrap_or_default();
        Self {
            cpu: value("/proc/cpuinfo", "model name"),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_gib: (kib + (1 << 19)) >> 20,
            kernel: read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
        }
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { cpu, cores, memory_gib, kernel } = self;
        write!(f, "{cores} cores ({cpu}), {memory_gib} GiB, Linux {kernel}")
    }
}
