//! What processes use of the machine, as `/proc` says.

use std::fs::read_to_string;

/// Ticks a second in `/proc`: Linux's USER_HZ, the same on all machines that Debian runs on.
pub const TICKS: f64 = 100.0;

/// Seconds that a process has had a core.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct CpuSeconds {
    /// By itself, in user space and in the kernel (`utime` and `stime`)
    pub own: f64,
    /// By children that it has waited for (`cutime` and `cstime`)
    pub waited_for: f64,
}

impl CpuSeconds {
    /// Of a process; none where it has ended.
    pub fn of(pid: u32) -> Option<Self> {
        let stat = read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name may have spaces; behind it come the fields from the third on, and these are the 14th to 17th.
        let (_, fields) = stat.rsplit_once(')')?;
        let ticks: Vec<f64> =
            fields.split_whitespace().skip(11).take(4).map_while(|ticks| ticks.parse().ok()).collect();
        let [user, system, child_user, child_system] = ticks[..] else { return None };
        Some(Self { own: (user + system) / TICKS, waited_for: (child_user + child_system) / TICKS })
    }
}

/// Bytes of memory that a process holds (`VmRSS`); none where it has ended.
pub fn memory_of(pid: u32) -> Option<u64> {
    let status = read_to_string(format!("/proc/{pid}/status")).ok()?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"))?;
    Some(kib.parse::<u64>().ok()? * 1024)
}
