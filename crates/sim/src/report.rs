//! What a run found, as a table and as JSON.

use std::time::Duration;

use comfy_table::{Table, presets};
use serde::Serialize;

/// Times in milliseconds.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Spread {
    pub(crate) count: usize,
    pub(crate) median: f64,
    pub(crate) p99: f64,
    pub(crate) worst: f64,
}

impl Spread {
    /// Of these times.
    pub(crate) fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let at = |percent: usize| {
            let place = (times.len() * percent / 100).min(times.len().saturating_sub(1));
            times.get(place).map_or(0.0, |time| time.as_secs_f64() * 1000.0)
        };
        Self { count: times.len(), median: at(50), p99: at(99), worst: at(100) }
    }
}

/// One line of the report.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Line {
    /// What was measured
    pub(crate) what: String,
    #[serde(flatten)]
    pub(crate) value: Value,
    /// What it must not exceed, in the unit of the value
    pub(crate) limit: Option<f64>,
}

/// A measured value.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub(crate) enum Value {
    /// Milliseconds of the virtual clock
    Times { ms: Spread },
    /// Milliseconds of this machine, which has other things to do as well: the median is what counts
    Real { cpu_ms: Spread },
    /// A number and its unit
    Number { value: f64, unit: &'static str },
}

/// A run.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    pub(crate) nodes: usize,
    pub(crate) degree: usize,
    pub(crate) seed: u64,
    pub(crate) lines: Vec<Line>,
    /// What went wrong; empty where nothing did
    pub(crate) failures: Vec<String>,
}

impl Report {
    pub(crate) fn times(&mut self, what: &str, times: Vec<Duration>, limit: Option<f64>) {
        self.lines.push(Line { what: what.to_owned(), value: Value::Times { ms: Spread::of(times) }, limit });
    }

    pub(crate) fn real(&mut self, what: &str, times: Vec<Duration>, limit: Option<f64>) {
        let value = Value::Real { cpu_ms: Spread::of(times) };
        self.lines.push(Line { what: what.to_owned(), value, limit });
    }

    pub(crate) fn number(&mut self, what: &str, value: f64, unit: &'static str, limit: Option<f64>) {
        self.lines.push(Line { what: what.to_owned(), value: Value::Number { value, unit }, limit });
    }

    /// Lines that are over their limit.
    pub(crate) fn over(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(|line| {
            let value = match &line.value {
                Value::Times { ms } => ms.worst,
                Value::Real { cpu_ms } => cpu_ms.median,
                Value::Number { value, .. } => *value,
            };
            line.limit.is_some_and(|limit| value > limit)
        })
    }

    pub(crate) fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING).set_header(["", "median", "p99", "worst", "limit", "n"]);
        for line in &self.lines {
            let limit = line.limit.map_or(String::new(), |limit| format!("{limit}"));
            let [median, p99, worst, count] = match &line.value {
                Value::Times { ms } | Value::Real { cpu_ms: ms } => {
                    let [median, p99, worst] =
                        [ms.median, ms.p99, ms.worst].map(|time| format!("{time:.2} ms"));
                    [median, p99, worst, ms.count.to_string()]
                }
                Value::Number { value, unit } => {
                    [String::new(), String::new(), format!("{value:.2} {unit}"), String::new()]
                }
            };
            table.add_row([line.what.clone(), median, p99, worst, limit, count]);
        }
        table
    }
}
