//! How a command ends badly, and what that means for the exit status.

use std::fmt;

use ffmesh_core::text::escape;

/// Why a command failed: a message that says what failed, why, and what to do next, over as many lines as it
/// takes. What comes from a peer in it is escaped by whoever puts it there.
#[derive(Debug)]
pub(crate) struct Failure {
    status: u8,
    message: String,
}

/// How a command ends.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// It was asked for properly and did not work: exit status 1.
    pub(crate) fn failed(message: impl fmt::Display) -> Self {
        Self { status: 1, message: message.to_string() }
    }

    /// It was asked for in the wrong way, or the configuration is wrong: exit status 2.
    pub(crate) fn usage(message: impl fmt::Display) -> Self {
        Self { status: 2, message: message.to_string() }
    }

    /// Nothing is left to say, as the command's output has said it.
    pub(crate) fn silent(status: u8) -> Self {
        Self { status, message: String::new() }
    }

    /// The process's exit status.
    pub(crate) fn status(&self) -> u8 {
        self.status
    }

    /// What to tell, line by line fit for a terminal, should somebody have forgotten to escape a peer's words.
    pub(crate) fn printable(&self) -> String {
        let lines: Vec<_> = self.message.lines().map(escape).collect();
        lines.join("\n")
    }

    /// What to tell; empty when the output has said it.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::failed(error)
    }
}

impl From<ffmesh_node::identity::IdentityError> for Failure {
    fn from(error: ffmesh_node::identity::IdentityError) -> Self {
        Self::failed(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_lines_carry_nothing_that_acts_on_a_terminal() {
        let failure = Failure::failed("first\n  a\u{1b}]0;x\u{7}\u{9b}\u{202e}\n");
        assert_eq!(failure.printable(), "first\n  a\\u{1b}]0;x\\u{7}\\u{9b}\\u{202e}");
    }
}
