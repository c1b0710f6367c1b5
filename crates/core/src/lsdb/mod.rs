//! The link-state database: what every node of the mesh says about itself, signed, the newest of each.
//!
//! Two kinds of record per origin, NODE and LINKS. The idea is OSPF's (RFC 2328, sections 12 and 13) with IS-IS's
//! freedom of contents; differences: records are signed by their origin, versions are (boot epoch, sequence)
//! so that a restart needs no memory, and databases are compared by fingerprints instead of lists.
//!
//! - [`record`]: records, their bounds and their bytes
//! - [`database`]: which record stays, ages, purges, limits
//! - [`digest`]: fingerprints of parts of a database, by which two neighbours find where they differ
//! - [`own`]: this node's own records
//! - [`trust`]: keys and signatures, brought by the caller
//! - [`names`]: numbers for ids

mod bytes;
pub mod database;
pub mod digest;
#[cfg(test)]
pub(crate) mod fake;
pub mod names;
pub mod own;
pub mod record;
pub mod trust;

pub use database::{Database, Key, MAX_AGE, News, Outcome, REFRESH, Refusal};
pub use names::Name;
pub use record::{
    Content, Head, Kind, Listed, MAX_COST, MAX_RECORD_LEN, MAX_SIGNATURE_LEN, NodeInfo, Parts, RecordError,
    Service, Version,
};
pub use trust::{KeyHash, Signer, Verdict, Verifier};
