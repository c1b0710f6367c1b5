//! What went wrong.

use std::fmt;

use ffmesh_core::reason::Reason;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Any error of the API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Error {
    /// A sentence that says what failed, why, and what to do next
    pub error: String,
    /// Why a flow or ping was refused
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub reason: Option<Reason>,
    /// What is wrong with a configuration that was not applied
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
    /// Whether what the path names is not there; for the status code
    #[serde(skip)]
    pub missing: bool,
}

impl Error {
    /// One that says `error` and no more.
    pub fn new(error: impl Into<String>) -> Self {
        Self { error: error.into(), reason: None, problems: Vec::new(), missing: false }
    }

    /// One of something that is not there.
    pub fn missing(error: impl Into<String>) -> Self {
        Self { missing: true, ..Self::new(error) }
    }

    /// One of a flow or ping that was refused.
    pub fn because(reason: Reason, error: impl Into<String>) -> Self {
        Self { reason: Some(reason), ..Self::new(error) }
    }
}

/// What is wrong at one place of a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// The file; none for what came through the API
    pub file: Option<String>,
    /// Line, from 1; 0 for the file as a whole
    pub line: u64,
    /// Column in characters, from 1; 0 for the file as a whole
    pub column: u64,
    /// The key, such as `proxies[0].local_port`
    pub key: String,
    /// What is wrong and what was expected
    pub message: String,
}

/// `file:line:column: key: message`, as `ffmesh check` has it.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.file.as_deref().unwrap_or("configuration"))?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.message)
    }
}
