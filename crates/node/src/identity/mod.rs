//! Keys, the authority, enrolment, renewal, and the TLS configurations made of them.

use std::path::PathBuf;
use std::time::Duration;

use ffmesh_core::id::{MeshName, NodeId};
use jiff::Timestamp;

use crate::config::Address;
use crate::state::StateDir;

/// Why something about identity failed. Each message says what to do next.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The state directory has no credentials.
    #[error("not enrolled")]
    NotEnrolled,
}

/// What `ffmesh init` is asked for.
#[derive(Debug, Clone)]
pub struct InitOptions {
    /// Where the credentials go.
    pub state: StateDir,
    /// The node's id; 10 random hex digits without one.
    pub node_id: Option<NodeId>,
    /// The mesh's name; made up without one.
    pub mesh: Option<MeshName>,
    /// What goes into tokens, in this order.
    pub advertise: Vec<Address>,
    /// Port that the node listens on, for tokens when nothing is advertised.
    pub listen_port: u16,
    /// How long node certificates live.
    pub cert_ttl: Duration,
}

/// What `ffmesh init` made.
#[derive(Debug, Clone)]
pub struct Founded {
    /// This node
    pub node_id: NodeId,
    /// The mesh
    pub mesh: MeshName,
    /// SHA-256 of the authority's public key, hex
    pub fingerprint: String,
    /// End of this node's certificate
    pub expires: Timestamp,
}

/// Founds a mesh: authority and this node's identity. Over an existing identity: an error, nothing changed.
pub fn init(options: &InitOptions) -> Result<Founded, IdentityError> {
    let _ = options;
    Err(IdentityError::NotEnrolled)
}

/// What `ffmesh token create` is asked for.
#[derive(Debug, Clone)]
pub struct TokenOptions {
    /// How long it can be used.
    pub ttl: Duration,
    /// How often it can be used, from 1.
    pub uses: u32,
    /// The only id that may join with it; it may also replace that id's key.
    pub node: Option<NodeId>,
    /// Groups of the joining node.
    pub groups: Vec<String>,
    /// Whether the joining node may relay.
    pub relay: bool,
    /// `quic.advertise` of the configuration.
    pub advertise: Vec<Address>,
    /// `quic.listen_port` of the configuration; without it, the port given to `init`.
    pub listen_port: Option<u16>,
}

/// Makes a token in the state directory of an issuer, whether its node is running or not.
pub fn create_token(state: &StateDir, options: &TokenOptions) -> Result<ffmesh_api::Token, IdentityError> {
    let _ = (state, options);
    Err(IdentityError::NotEnrolled)
}

/// What `ffmesh join` is asked for.
#[derive(Debug, Clone)]
pub struct JoinOptions {
    /// Where the credentials go.
    pub state: StateDir,
    /// The node's id; 10 random hex digits without one.
    pub node_id: Option<NodeId>,
}

/// What `ffmesh join` got.
#[derive(Debug, Clone)]
pub struct Joined {
    /// This node
    pub node_id: NodeId,
    /// The mesh
    pub mesh: MeshName,
    /// The nodes of the token and where they are, for `quic.upstreams`; the one that answered comes first.
    pub upstreams: Vec<(NodeId, Address)>,
    /// Groups that the certificate names
    pub groups: Vec<String>,
    /// End of this node's certificate
    pub expires: Timestamp,
}

/// Enrols this node with a token. Over an existing identity: an error, nothing changed.
pub async fn join(token: &str, options: &JoinOptions) -> Result<Joined, IdentityError> {
    let _ = (token, options);
    Err(IdentityError::NotEnrolled)
}

/// Paths that the state directory's credentials are kept under, for messages.
pub fn credential_paths(state: &StateDir) -> Vec<PathBuf> {
    vec![state.path().join("node.key"), state.path().join("node.crt"), state.path().join("ca.crt")]
}
