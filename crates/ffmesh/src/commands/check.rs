//! `ffmesh check`: what is wrong in a configuration file, each with its place.

use std::path::PathBuf;

use ffmesh_core::text::escape;
use ffmesh_node::config::{Config, Problem};
use serde::Serialize;

use crate::args::Show;
use crate::failure::{Failure, Outcome};
use crate::{output, place};

#[derive(Serialize)]
struct Report {
    file: PathBuf,
    ok: bool,
    errors: Vec<Entry>,
    warnings: Vec<Entry>,
}

/// A problem as JSON; without line and column when it is the file's as a whole.
#[derive(Serialize)]
struct Entry {
    line: Option<usize>,
    column: Option<usize>,
    key: String,
    message: String,
    /// All of it in one line
    text: String,
}

impl From<Problem> for Entry {
    fn from(problem: Problem) -> Self {
        let place = |n| (problem.line > 0).then_some(n);
        Self {
            line: place(problem.line),
            column: place(problem.column),
            text: problem.to_string(),
            key: problem.key,
            message: problem.message,
        }
    }
}

/// Exit status 2 when the file has errors; warnings alone are no error.
pub(crate) fn check(argument: Option<PathBuf>, show: &Show) -> Outcome {
    let file = place::file(argument, &show.choice)?;
    let (errors, warnings) = match Config::load(&file) {
        Ok(loaded) => {
            place::node_id(&show.choice, Some(&loaded.config))?;
            (Vec::new(), loaded.warnings)
        }
        Err(problems) => (problems.0, Vec::new()),
    };
    let entries = |problems: Vec<Problem>| problems.into_iter().map(Entry::from).collect();
    let report = Report { ok: errors.is_empty(), file, errors: entries(errors), warnings: entries(warnings) };
    if show.json {
        output::json(&report)?;
    } else {
        print(&report)?;
    }
    if report.ok { Ok(()) } else { Err(Failure::silent(2)) }
}

fn print(report: &Report) -> Outcome {
    for problem in &report.errors {
        output::line(&format!("error: {}", escape(&problem.text)))?;
    }
    for problem in &report.warnings {
        output::line(&format!("warning: {}", escape(&problem.text)))?;
    }
    let file = report.file.display();
    match (report.errors.len(), report.warnings.len()) {
        (0, 0) => output::line(&format!("{file} is valid")),
        (0, n) => output::line(&format!("{file} is valid, with {}", many(n, "warning"))),
        (n, _) => output::line(&format!("{file} has {}", many(n, "error"))),
    }
}

fn many(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}
