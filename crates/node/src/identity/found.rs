//! `ffmesh init` and `ffmesh token create`.

use std::path::PathBuf;
use std::time::Duration;

use data_encoding::HEXLOWER;
use ffmesh_core::id::{MeshName, NodeId};
use jiff::Timestamp;
use rcgen::PublicKeyData;

use super::authority::{self, Authority, Settings, new_key};
use super::certificate::{Grant, KeyHash, MAX_GROUPS, random, to_pem};
use super::credentials::{AUTHORITIES_FILE, CERTIFICATE_FILE, Credentials, KEY_FILE};
use super::error::IdentityError;
use super::issuer;
use super::pins;
use super::token::{JoinToken, MAX_TOKEN_ADDRESSES, Secret, TokenId, address_text, interface_addresses};
use super::token_store::{self, StoredToken};
use crate::config::{Address, Quic};
use crate::state::StateDir;

/// How long node certificates live where `init` is not told otherwise.
pub const DEFAULT_CERT_TTL: Duration = Duration::from_hours(180 * 24);
/// The longest life of a node certificate: that of the authority.
pub const MAX_CERT_TTL: Duration = Duration::from_hours(10 * 365 * 24);
/// The longest life of a token.
pub const MAX_TOKEN_TTL: Duration = Duration::from_hours(365 * 24);
/// Most uses of a token; each is remembered in its file.
pub const MAX_TOKEN_USES: u32 = 10_000;

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
    /// How long node certificates live: 1 s to 10 years.
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

/// What `ffmesh token create` is asked for.
#[derive(Debug, Clone)]
pub struct TokenOptions {
    /// How long it can be used: 1 s to a year.
    pub ttl: Duration,
    /// How often it can be used: 1 to 10,000.
    pub uses: u32,
    /// The only id that may join with it; it may also replace that id's key.
    pub node: Option<NodeId>,
    /// Groups of the joining node: the same alphabet as ids, at most 32.
    pub groups: Vec<String>,
    /// Whether the joining node may relay.
    pub relay: bool,
    /// Other members that may be dialled for joining: they pass the request on.
    pub members: Vec<(NodeId, Address)>,
    /// `quic.advertise` of the configuration.
    pub advertise: Vec<Address>,
    /// `quic.listen_port` of the configuration; without it, the port given to `init`.
    pub listen_port: Option<u16>,
}

/// Founds a mesh: authority and this node's identity. Over an existing identity: an error, nothing changed.
///
/// A node has an identity as soon as `node.crt` exists, which is written last: after a crash half-way, `init` starts
/// over.
pub fn init(options: &InitOptions) -> Result<Founded, IdentityError> {
    if options.listen_port == 0 {
        return Err(IdentityError::InitOptions("the port to listen on is 1 to 65535".to_owned()));
    }
    let ttl = options.cert_ttl;
    if ttl < Duration::from_secs(1) || ttl > MAX_CERT_TTL {
        let why = "certificates live for 1 second to 10 years: choose another --cert-ttl";
        return Err(IdentityError::InitOptions(why.to_owned()));
    }
    let state = &options.state;
    refuse_existing(state)?;
    let _lock = state.lock()?;
    // Again under the lock: another process may have been faster.
    refuse_existing(state)?;

    let now = Timestamp::now();
    let node = options.node_id.clone().map_or_else(random_node_id, Ok)?;
    let mesh = options.mesh.clone().map_or_else(random_mesh_name, Ok)?;
    let authority = Authority::found(
        Settings {
            mesh: mesh.clone(),
            cert_ttl_s: ttl.as_secs(),
            advertise: options.advertise.iter().map(address_text).collect(),
            listen_port: options.listen_port,
        },
        now,
    )?;
    let key = new_key()?;
    let grant = Grant { node, groups: Vec::new(), relay: true, issuer: true, replaces: Vec::new() };
    let certificate = authority.issue(&grant, &key, now)?;
    let expires = authority.expiry(now);

    // Of an `init` that did not end, or of a mesh whose node.crt was removed. An authority's key is never destroyed, and
    // its bindings and tokens are none of the new one's.
    for old in [authority::KEY_FILE, issuer::DIR, token_store::DIR] {
        if state.has(old) {
            state.rename(old, &format!("{old}.before-{}", now.as_second()))?;
        }
    }
    state.remove(pins::FILE)?;
    authority.save(state)?;
    issuer::record(state, &grant, KeyHash::of_spki(&key.subject_public_key_info()), expires)?;
    state.write(KEY_FILE, key.serialize_pem().as_bytes())?;
    state.write(AUTHORITIES_FILE, to_pem([authority.certificate()]).as_bytes())?;
    state.write(CERTIFICATE_FILE, to_pem([&certificate]).as_bytes())?;
    Ok(Founded { node_id: grant.node, mesh, fingerprint: authority.fingerprint().to_string(), expires })
}

/// Members whose addresses are known: the upstreams of a configuration.
pub fn members(quic: &Quic) -> Vec<(NodeId, Address)> {
    quic.upstreams.iter().map(|upstream| (upstream.node_id.clone(), upstream.address.clone())).collect()
}

/// Makes a token in the state directory of an issuer, whether its node is running or not.
pub fn create_token(state: &StateDir, options: &TokenOptions) -> Result<ffmesh_api::Token, IdentityError> {
    let no = |why: String| Err(IdentityError::TokenOptions(why));
    if !(Duration::from_secs(1)..=MAX_TOKEN_TTL).contains(&options.ttl) {
        return no("it can live for 1 second to 365 days: choose another --ttl".to_owned());
    }
    if !(1..=MAX_TOKEN_USES).contains(&options.uses) {
        return no(format!("it can be used 1 to {MAX_TOKEN_USES} times: choose another --uses"));
    }
    let groups = checked_groups(&options.groups)?;
    let credentials = Credentials::load(state)?;
    let authority = Authority::load(state)?
        .ok_or_else(|| IdentityError::NotIssuer { path: state.path().join(authority::KEY_FILE) })?;

    let mut addresses = Vec::new();
    for address in authority.advertise().into_iter().chain(options.advertise.iter().cloned()) {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if addresses.is_empty() {
        addresses = interface_addresses(options.listen_port.unwrap_or(authority.listen_port()));
    }
    addresses.truncate(MAX_TOKEN_ADDRESSES);
    let mut nodes = vec![(credentials.node_id(), addresses)];
    let room = MAX_TOKEN_ADDRESSES - nodes[0].1.len();
    nodes.extend(
        options.members.iter().take(room).map(|(node, address)| (node.clone(), vec![address.clone()])),
    );

    let now = Timestamp::now();
    // Whole seconds, as the token carries them; rounded up, so that it lives at least as long as was asked for.
    let end =
        now.as_second().saturating_add(i64::try_from(options.ttl.as_secs()).unwrap_or(0)).saturating_add(1);
    let expires = Timestamp::from_second(end).unwrap_or(Timestamp::MAX);
    let token = JoinToken {
        id: TokenId(random()?),
        secret: Secret(random()?),
        authority: authority.fingerprint(),
        mesh: authority.mesh.clone(),
        expires,
        nodes,
    };
    let mut stored = StoredToken::new(&token.secret, expires, options.uses);
    stored.node.clone_from(&options.node);
    stored.groups = groups;
    stored.relay = options.relay;
    token_store::create(state, token.id, &stored, now)?;
    let text = token.to_string();
    Ok(ffmesh_api::Token { join: format!("ffmesh join {text} config.yaml"), token: text, expires })
}

/// Paths that the state directory's credentials are kept under, for messages.
pub fn credential_paths(state: &StateDir) -> Vec<PathBuf> {
    [KEY_FILE, CERTIFICATE_FILE, AUTHORITIES_FILE].map(|name| state.path().join(name)).into()
}

/// Whether the state directory holds an identity, complete or damaged.
pub fn is_enrolled(state: &StateDir) -> bool {
    state.has(CERTIFICATE_FILE)
}

/// The node whose identity the state directory holds; none where there is none.
///
/// # Errors
/// As [`Credentials::load`], but for [`IdentityError::NotEnrolled`].
pub fn enrolled_node(state: &StateDir) -> Result<Option<NodeId>, IdentityError> {
    match Credentials::load(state) {
        Ok(credentials) => Ok(Some(credentials.node_id())),
        Err(IdentityError::NotEnrolled { .. }) => Ok(None),
        Err(e) => Err(e),
    }
}

pub(super) fn refuse_existing(state: &StateDir) -> Result<(), IdentityError> {
    if !is_enrolled(state) {
        return Ok(());
    }
    let node = match Credentials::load(state) {
        Ok(credentials) => credentials.node_id().to_string(),
        Err(_) => "(unreadable)".to_owned(),
    };
    Err(IdentityError::AlreadyEnrolled { node, path: state.path().to_owned() })
}

/// 10 random hex digits, as the seed's ids.
pub(super) fn random_node_id() -> Result<NodeId, IdentityError> {
    let id = HEXLOWER.encode(&random::<5>()?);
    id.parse().map_err(|e| IdentityError::InitOptions(format!("the id {id} {e}")))
}

fn random_mesh_name() -> Result<MeshName, IdentityError> {
    let name = format!("mesh-{}", HEXLOWER.encode(&random::<4>()?));
    name.parse().map_err(|e| IdentityError::InitOptions(format!("the name {name} {e}")))
}

fn checked_groups(groups: &[String]) -> Result<Vec<String>, IdentityError> {
    let mut checked = Vec::new();
    for group in groups {
        let name: NodeId =
            group.parse().map_err(|source| IdentityError::Group { group: group.clone(), source })?;
        if !checked.iter().any(|known| known == name.as_str()) {
            checked.push(name.as_str().to_owned());
        }
    }
    if checked.len() > MAX_GROUPS {
        let why = format!("a node is in at most {MAX_GROUPS} groups, and {} were given", checked.len());
        return Err(IdentityError::TokenOptions(why));
    }
    Ok(checked)
}
