//! What is wrong with a configuration file, and where.

use std::fmt;
use std::path::{Path, PathBuf};

/// Most problems of one file that are reported: who has more repairs these first.
const MAX_PROBLEMS: usize = 100;

/// One problem, displayed `file:line:column: key: message`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file, where the text came from one.
    pub file: Option<PathBuf>,
    /// Counted from 1; 0 where the problem is the file's as a whole.
    pub line: usize,
    /// In characters, counted from 1; 0 where the problem is the file's as a whole.
    pub column: usize,
    /// The key with its sections, such as `proxies[0].local_port` (items are counted from 0); empty where the
    /// problem is no key's.
    pub key: String,
    /// What is wrong, and what was expected.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.file {
            Some(file) => write!(f, "{}", file.display())?,
            None => f.write_str("configuration")?,
        }
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.message)
    }
}

impl From<&Problem> for ffmesh_api::Problem {
    fn from(problem: &Problem) -> Self {
        Self {
            file: problem.file.as_ref().map(|file| file.display().to_string()),
            line: problem.line as u64,
            column: problem.column as u64,
            key: problem.key.clone(),
            message: problem.message.clone(),
        }
    }
}

/// Why a file was not accepted: at least one problem, in the order of the file. Displayed one a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// A place in the text; both numbers count from 1, and are 0 for the file as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Place {
    pub(super) line: usize,
    pub(super) column: usize,
}

/// Collects what is found while a file is read.
pub(super) struct Report<'a> {
    file: Option<&'a Path>,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

impl<'a> Report<'a> {
    pub(super) fn new(file: Option<&'a Path>) -> Self {
        Self { file, problems: Vec::new(), warnings: Vec::new() }
    }

    pub(super) fn problem(&mut self, place: Place, key: &str, message: impl Into<String>) {
        let problem = self.at(place, key, message.into());
        self.problems.push(problem);
    }

    pub(super) fn warning(&mut self, place: Place, key: &str, message: impl Into<String>) {
        let warning = self.at(place, key, message.into());
        self.warnings.push(warning);
    }

    fn at(&self, Place { line, column }: Place, key: &str, message: String) -> Problem {
        Problem { file: self.file.map(Path::to_owned), line, column, key: key.to_owned(), message }
    }

    /// The warnings, or the problems where there are any.
    pub(super) fn finish(mut self) -> Result<Vec<Problem>, Problems> {
        let place = |p: &Problem| (p.line, p.column);
        self.problems.sort_by_key(place);
        self.warnings.sort_by_key(place);
        if self.problems.is_empty() {
            return Ok(self.warnings);
        }
        if let Some(more) = self.problems.len().checked_sub(MAX_PROBLEMS).filter(|more| *more > 0) {
            self.problems.truncate(MAX_PROBLEMS);
            let rest = self.at(Place::default(), "", format!("and {more} more problems"));
            self.problems.push(rest);
        }
        Err(Problems(self.problems))
    }
}
