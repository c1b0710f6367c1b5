//! What goes wrong with identities.

use std::path::PathBuf;

use ffmesh_core::id::{NameError, NodeId};
use jiff::Timestamp;

use super::token::TokenError;
use crate::state::StateError;

/// Why something about identity failed. Each message says what to do next.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The state directory has no credentials.
    #[error(
        "this node has no identity in {}: found a mesh with `ffmesh init CONFIG`, or join one with \
         `ffmesh join TOKEN CONFIG`, where TOKEN comes from `ffmesh token create` on a node of the mesh",
        path.display()
    )]
    NotEnrolled {
        /// The state directory
        path: PathBuf,
    },
    /// The state directory already has credentials.
    #[error(
        "{} already holds the identity of node {node}: nothing was changed; to start anew, choose another directory \
         with --state-dir, or move this one away",
        path.display()
    )]
    AlreadyEnrolled {
        /// The node that lives there
        node: String,
        /// The state directory
        path: PathBuf,
    },
    /// The state directory cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// A stored key or certificate cannot be used.
    #[error("{} cannot be used: {why}; restore it from a backup, or move {} away and enrol again", path.display(), path.parent().unwrap_or(path).display())]
    Damaged {
        /// The file
        path: PathBuf,
        /// What is wrong with it
        why: String,
    },
    /// The configuration names another node than the credentials.
    #[error(
        "the configuration says node_id {configured}, but the credentials in {} are those of {enrolled}: correct \
         node_id, or choose the right directory with --state-dir",
        path.display()
    )]
    OtherNode {
        /// `node_id` of the configuration
        configured: NodeId,
        /// The certificate's node
        enrolled: NodeId,
        /// The state directory
        path: PathBuf,
    },
    /// This node's certificate has expired.
    #[error(
        "the certificate of {node} expired at {expires}: check this machine's clock; if it is right, run `ffmesh token \
         create --node {node}` on an issuer, remove {} here and run `ffmesh join` with the token",
        path.display()
    )]
    Expired {
        /// This node
        node: NodeId,
        /// End of its certificate
        expires: Timestamp,
        /// `node.crt`
        path: PathBuf,
    },
    /// This node has no authority, so it cannot enrol others.
    #[error("this node is no issuer ({} is missing): run this on the node where `ffmesh init` was run", path.display())]
    NotIssuer {
        /// `authority.key`
        path: PathBuf,
    },
    /// A token was asked for that cannot be made.
    #[error("no token was made: {0}")]
    TokenOptions(String),
    /// A group's name is no name.
    #[error("the group {group:?} {source}")]
    Group {
        /// What was given
        group: String,
        /// What is wrong with it
        source: NameError,
    },
    /// An option of `init` is impossible.
    #[error("no mesh was founded: {0}")]
    InitOptions(String),
    /// The token is no token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The issuer refused to enrol this node.
    #[error("the mesh refused this node ({reason}): {message}")]
    Refused {
        /// One word
        reason: String,
        /// The issuer's sentence
        message: String,
    },
    /// The issuer renews this certificate later; the one that this node has is good, and nothing is wrong.
    #[error("the certificate is not to be renewed yet: {message}")]
    NotDue {
        /// The issuer's sentence
        message: String,
    },
    /// No node of the token could be reached.
    #[error(
        "no node of the token could be reached from here:{report}\nCheck that one of them is running and that its UDP port is open, then run the command again"
    )]
    Unreachable {
        /// One line for each address: `\n  node at address: why`
        report: String,
    },
    /// This machine's clock differs too much from the issuer's.
    #[error(
        "this machine's clock is {amount} {direction} that of the issuer: set the clock (for example with NTP) and run \
         the command again"
    )]
    ClockSkew {
        /// `2h 5m`
        amount: String,
        /// `behind` or `ahead of`
        direction: &'static str,
    },
    /// The issuer answered with something else than a certificate for this node.
    #[error("the issuer's answer cannot be used: {0}; check that both nodes run the same version of ffmesh")]
    Answer(String),
    /// The cryptographic library failed.
    #[error("cannot {action}: {why}")]
    Crypto {
        /// What was tried
        action: &'static str,
        /// What the library says
        why: String,
    },
}

impl IdentityError {
    pub(super) fn crypto(action: &'static str) -> impl FnOnce(rcgen::Error) -> Self {
        move |e| Self::Crypto { action, why: e.to_string() }
    }
}
