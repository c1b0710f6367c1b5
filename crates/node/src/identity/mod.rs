//! Keys, the authority, enrolment, renewal, and the TLS configurations made of them.
//!
//! [`init`] makes an authority (a private CA) and the first node's certificate; a token ([`create_token`]) lets another
//! node ask an [`Issuer`] for one ([`join()`]); what a certificate says of a node is [`PeerIdentity`].
//! [`Credentials`] are the loaded key and certificate, and make the TLS configurations of every connection.
//! [`RecordSigner`] and [`Certificates`] are what the link-state database signs and checks with.
//!
//! Files in the state directory, all 0600; `node.crt` is written last and is what makes an identity:
//!
//! | File | holds |
//! | --- | --- |
//! | `node.key`, `node.crt` | this node's key and certificate, PEM |
//! | `ca.crt` | the authorities that it trusts, PEM |
//! | `authority.key`, `.crt`, `.json` | the authority, on issuers |
//! | `tokens/<id>.json` | tokens, on issuers |
//! | `issued/<node>.json` | whose id it is, on issuers |
//! | `known_nodes.json` | the keys of the nodes that this node has met |

mod authority;
mod certificate;
mod client_socket;
mod credentials;
mod enrol;
mod error;
mod explain;
mod found;
mod issuer;
mod join;
mod pins;
mod renewal;
mod serve;
mod token;
mod token_store;
mod trust;

#[cfg(test)]
pub(crate) mod tests;

pub use certificate::{CLOCK_TOLERANCE, KeyHash, KeyHashError, MAX_GROUPS, PeerIdentity, PeerIdentityError};
pub use credentials::Credentials;
pub use enrol::{JOIN_ALPN, MAX_CLOCK_SKEW, MAX_ENROL_LEN, MAX_JOIN_CONNECTIONS, unavailable};
pub use error::IdentityError;
pub use explain::{Expected, explain_connection_error};
pub use found::{
    DEFAULT_CERT_TTL, Founded, InitOptions, MAX_CERT_TTL, MAX_TOKEN_TTL, MAX_TOKEN_USES, TokenOptions,
    create_token, credential_paths, enrolled_node, init, is_enrolled, members,
};
pub use issuer::{Issuer, MAX_NODES};
pub use join::{JOIN_TIMEOUT, JoinOptions, Joined, join};
pub use pins::{KeyConflict, KnownKeys, MAX_KNOWN_NODES};
pub use renewal::{Renewal, Standing};
pub use serve::{ServeJoinError, serve_join};
pub use token::{JoinToken, MAX_TOKEN_ADDRESSES, MAX_TOKEN_LEN, TokenError, TokenId};
pub use token_store::{MAX_TOKENS, TOKEN_MEMORY};
pub use trust::{CertificateError, Certificates, MAX_CERTIFICATES, RecordSigner};
