//! Figures that tests measure, for people and for the benchmark.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

/// The environment variable that names a directory for reports.
const DIRECTORY: &str = "FFMESH_REPORT";

/// How times are distributed, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Distribution {
    /// How many there were
    pub count: usize,
    /// Half of them are at most this
    pub p50: f64,
    /// 90 of 100 are at most this
    pub p90: f64,
    /// 99 of 100 are at most this
    pub p99: f64,
    /// The greatest
    pub max: f64,
}

impl Distribution {
    /// Of these times.
    pub fn of(times: &[Duration]) -> Self {
        let mut times: Vec<_> = times.iter().map(|time| time.as_secs_f64() * 1000.0).collect();
        times.sort_by(f64::total_cmp);
        // The nearest rank: the smallest time that at least so many are not above.
        let rank = |percent: usize| {
            let rank = (times.len() * percent).div_ceil(100).max(1) - 1;
            times.get(rank).copied().unwrap_or_default()
        };
        Self { count: times.len(), p50: rank(50), p90: rank(90), p99: rank(99), max: rank(100) }
    }
}

impl fmt::Display for Distribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { count, p50, p90, p99, max } = self;
        write!(f, "{count} times: p50 {p50:.0} ms, p90 {p90:.0} ms, p99 {p99:.0} ms, max {max:.0} ms")
    }
}

/// Prints a figure, and writes it to `<name>.json` in the directory that `FFMESH_REPORT` names, if it names one.
///
/// # Panics
/// When it can't be written there.
pub fn report(name: &str, figure: &impl Serialize) {
    let text = serde_json::to_string_pretty(figure).expect("a figure is JSON");
    eprintln!("{name}: {text}");
    if let Some(dir) = std::env::var_os(DIRECTORY).filter(|dir| !dir.is_empty()) {
        std::fs::create_dir_all(&dir).expect("make the directory of reports");
        std::fs::write(Path::new(&dir).join(format!("{name}.json")), text + "\n").expect("write the report");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_the_nearest() {
        let times: Vec<_> = (1..=20).rev().map(Duration::from_millis).collect();
        let Distribution { count, p50, p90, p99, max } = Distribution::of(&times);
        assert_eq!(count, 20);
        let close = |a: f64, b: f64| (a - b).abs() < 1e-6;
        assert!(close(p50, 10.0) && close(p90, 18.0) && close(p99, 20.0) && close(max, 20.0));
        assert_eq!(Distribution::of(&[]).count, 0);
    }
}
