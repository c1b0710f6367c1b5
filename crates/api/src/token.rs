//! Tokens, with which others join.

use ffmesh_core::id::NodeId;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `POST /api/v1/tokens`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenRequest {
    /// Seconds until it expires
    pub ttl_s: u64,
    /// How often it can be used
    pub uses: u32,
    /// The only id that may join with it; it may also replace that id's key
    #[schema(value_type = Option<String>)]
    pub node: Option<NodeId>,
    /// Groups of the joining node
    pub groups: Vec<String>,
    /// Whether the joining node may relay
    pub relay: bool,
}

/// A token that was made. The one place where its secret is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Token {
    /// `ffm1.…`
    pub token: String,
    /// The command for the other machine
    pub join: String,
    /// When it expires
    pub expires: Timestamp,
}
