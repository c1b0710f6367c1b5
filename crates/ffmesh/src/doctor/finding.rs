//! What a check found.

use serde::Serialize;

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    /// Nothing to do
    Ok,
    /// It works, and not as well as it could, or not for long
    Warning,
    /// It does not work
    Failed,
    /// It could not be looked at
    Skipped,
}

/// One check: what was looked at, how it ended, what was found, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    pub(crate) name: String,
    pub(crate) result: Verdict,
    pub(crate) found: String,
    /// None where there is nothing to do
    pub(crate) advice: Option<String>,
}

impl Finding {
    pub(crate) fn ok(name: impl Into<String>, found: impl Into<String>) -> Self {
        Self { name: name.into(), result: Verdict::Ok, found: found.into(), advice: None }
    }

    pub(crate) fn warning(
        name: impl Into<String>,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self { result: Verdict::Warning, advice: Some(advice.into()), ..Self::ok(name, found) }
    }

    pub(crate) fn failed(
        name: impl Into<String>,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self { result: Verdict::Failed, ..Self::warning(name, found, advice) }
    }

    pub(crate) fn skipped(name: impl Into<String>, found: impl Into<String>) -> Self {
        Self { result: Verdict::Skipped, ..Self::ok(name, found) }
    }
}
