//! Why a flow ended, and what each reason means on the wire.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a flow ended or was refused. One word each in the log, the API, the metrics and SYN_ACK_DATA.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Reason {
    /// Both directions were closed in order.
    Done,
    /// One end reset the connection.
    Reset,
    /// The target refused the connection.
    Refused,
    /// The egress node has no route to the target's address, or its name does not resolve.
    Unroutable,
    /// No node of this name is known.
    UnknownNode,
    /// The node is known, but no route leads to it.
    NoRoute,
    /// The egress node's policy does not let this caller dial this target.
    Denied,
    /// The target did not answer in time.
    Timeout,
    /// The node is draining and takes no new flows.
    Drained,
    /// A limit of a node was reached.
    Limit,
    /// The node at the other end restarted or was closed.
    Lost,
    /// The flow was idle for longer than its proxy allows.
    Idle,
    /// The request was malformed or asks for something that the other node does not offer.
    Unsupported,
}

impl Reason {
    /// Every reason, for tables and metrics.
    pub const ALL: [Self; 13] = [
        Self::Done,
        Self::Reset,
        Self::Refused,
        Self::Unroutable,
        Self::UnknownNode,
        Self::NoRoute,
        Self::Denied,
        Self::Timeout,
        Self::Drained,
        Self::Limit,
        Self::Lost,
        Self::Idle,
        Self::Unsupported,
    ];

    /// The reason's word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Reset => "reset",
            Self::Refused => "refused",
            Self::Unroutable => "unroutable",
            Self::UnknownNode => "unknown_node",
            Self::NoRoute => "no_route",
            Self::Denied => "denied",
            Self::Timeout => "timeout",
            Self::Drained => "drained",
            Self::Limit => "limit",
            Self::Lost => "lost",
            Self::Idle => "idle",
            Self::Unsupported => "unsupported",
        }
    }

    /// The application error code of RESET_STREAM and STOP_SENDING (RFC 9000, section 19.4) for this reason.
    pub fn code(self) -> u32 {
        let position = Self::ALL.iter().position(|reason| *reason == self).unwrap_or_default();
        u32::try_from(position).unwrap_or_default() // there are 13
    }

    /// The reason of an application error code; an unknown code is a [`Reason::Reset`].
    pub fn from_code(code: u64) -> Self {
        usize::try_from(code).ok().and_then(|i| Self::ALL.get(i)).copied().unwrap_or(Self::Reset)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_words_are_one_to_one() {
        for reason in Reason::ALL {
            assert_eq!(Reason::from_code(reason.code().into()), reason);
            assert_eq!(serde_json::to_string(&reason).unwrap(), format!("\"{reason}\""));
        }
        assert_eq!(Reason::from_code(u64::MAX), Reason::Reset);
    }
}
