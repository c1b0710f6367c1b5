//! What may be dialled through a node, decided by the caller's authenticated identity.

use crate::id::NodeId;

/// Who a rule speaks of: `*`, `group:NAME` or `node:ID`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// Every member
    Anyone,
    /// Members whose certificate names this group
    Group(String),
    /// One node
    Node(NodeId),
}

/// One rule of the `access` section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Callers it speaks of.
    pub from: Vec<Subject>,
}
