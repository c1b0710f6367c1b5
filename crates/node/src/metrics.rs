//! What is counted over the whole node.

use std::sync::atomic::{AtomicU64, Ordering};

use ffmesh_api::ErrorCount;

/// Kinds of errors, a fixed set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// A link went down that should not have
    LinkDown,
    /// A connection was refused at its handshake
    Handshake,
    /// A node came with another key than its id is bound to
    KeyConflict,
    /// A flow was refused by policy
    Denied,
    /// A flow was not connected for another reason
    FlowFailed,
    /// A flow ended by a reset
    FlowReset,
    /// A limit was reached
    Limit,
    /// A peer sent something malformed
    Protocol,
    /// A listener could not accept
    Accept,
    /// Enrolment was refused
    Enrolment,
    /// A record of the link-state database was refused
    Record,
    /// A client of the admin API was refused: wrong token, code or session
    Admin,
}

const KINDS: [(ErrorKind, &str); 12] = [
    (ErrorKind::LinkDown, "link_down"),
    (ErrorKind::Handshake, "handshake"),
    (ErrorKind::KeyConflict, "key_conflict"),
    (ErrorKind::Denied, "denied"),
    (ErrorKind::FlowFailed, "flow_failed"),
    (ErrorKind::FlowReset, "flow_reset"),
    (ErrorKind::Limit, "limit"),
    (ErrorKind::Protocol, "protocol"),
    (ErrorKind::Accept, "accept"),
    (ErrorKind::Enrolment, "enrolment"),
    (ErrorKind::Record, "record"),
    (ErrorKind::Admin, "admin"),
];

/// The node's counters.
#[derive(Debug, Default)]
pub struct Counters {
    errors: [AtomicU64; KINDS.len()],
}

impl Counters {
    /// Counts one error.
    pub fn error(&self, kind: ErrorKind) {
        self.errors[kind as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// The errors that occurred, most frequent first.
    pub fn errors(&self) -> Vec<ErrorCount> {
        let counts =
            KINDS.iter().map(|(kind, word)| (word, self.errors[*kind as usize].load(Ordering::Relaxed)));
        let mut errors: Vec<_> = counts
            .filter(|(_, count)| *count > 0)
            .map(|(word, count)| ErrorCount { kind: (*word).to_owned(), count })
            .collect();
        errors.sort_by_key(|error| std::cmp::Reverse(error.count));
        errors
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_own_counter() {
        let counters = Counters::default();
        for (i, (kind, _)) in KINDS.iter().enumerate() {
            for _ in 0..=i {
                counters.error(*kind);
            }
        }
        let errors = counters.errors();
        assert_eq!(errors.len(), KINDS.len());
        assert_eq!((errors[0].kind.as_str(), errors[0].count), ("admin", 12));
    }
}
