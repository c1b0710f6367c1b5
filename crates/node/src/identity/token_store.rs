//! The tokens of an issuer: one file each, so that `ffmesh token create` works beside a running node.
//!
//! Only `create` makes files, and only the issuer's process changes them; either removes those that ended long ago.

use std::time::Duration;

use data_encoding::BASE64;
use ffmesh_core::id::NodeId;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::certificate::KeyHash;
use super::error::IdentityError;
use super::token::{Secret, TokenId};
use crate::state::StateDir;

/// Most tokens at once; those that have ended make room.
pub const MAX_TOKENS: usize = 1_000;
/// How long a token is remembered after its end, so that whoever uses it is told what is wrong with it.
pub const TOKEN_MEMORY: Duration = Duration::from_hours(7 * 24);
pub(super) const DIR: &str = "tokens";

/// A token as the issuer keeps it.
#[derive(Serialize, Deserialize)]
pub(super) struct StoredToken {
    secret: String,
    pub(super) expires: Timestamp,
    pub(super) uses: u32,
    /// The nodes that it was used by.
    #[serde(default)]
    pub(super) used: Vec<Use>,
    pub(super) node: Option<NodeId>,
    pub(super) groups: Vec<String>,
    pub(super) relay: bool,
}

/// One use of a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Use {
    pub(super) node: NodeId,
    pub(super) key: KeyHash,
}

impl StoredToken {
    pub(super) fn new(secret: &Secret, expires: Timestamp, uses: u32) -> Self {
        let secret = BASE64.encode(&secret.0);
        Self { secret, expires, uses, used: Vec::new(), node: None, groups: Vec::new(), relay: true }
    }

    pub(super) fn secret(&self) -> Option<Secret> {
        let bytes = BASE64.decode(self.secret.as_bytes()).ok()?;
        bytes.try_into().ok().map(Secret)
    }

    pub(super) fn used_up(&self) -> bool {
        self.used.len() >= usize::try_from(self.uses).unwrap_or(usize::MAX)
    }
}

fn file(id: TokenId) -> String {
    format!("{DIR}/{id}.json")
}

/// Stores a new token.
pub(super) fn create(
    state: &StateDir,
    id: TokenId,
    token: &StoredToken,
    now: Timestamp,
) -> Result<(), IdentityError> {
    clean(state, now)?;
    store(state, id, token)
}

/// Writes a token.
pub(super) fn store(state: &StateDir, id: TokenId, token: &StoredToken) -> Result<(), IdentityError> {
    let json = serde_json::to_vec(token).map_err(|e| IdentityError::TokenOptions(e.to_string()))?;
    Ok(state.write(&file(id), &json)?)
}

/// A token; none where it never was or is long forgotten.
pub(super) fn load(state: &StateDir, id: TokenId) -> Result<Option<StoredToken>, IdentityError> {
    let name = file(id);
    let Some(json) = state.read(&name)? else { return Ok(None) };
    serde_json::from_slice(&json)
        .map(Some)
        .map_err(|e| IdentityError::Damaged { path: state.path().join(name), why: e.to_string() })
}

/// Removes the tokens that ended more than [`TOKEN_MEMORY`] ago, and where there is no room, also those that ended
/// since, oldest first.
fn clean(state: &StateDir, now: Timestamp) -> Result<(), IdentityError> {
    let ids: Vec<TokenId> =
        state.list(DIR)?.iter().filter_map(|name| name.strip_suffix(".json")?.parse().ok()).collect();
    let mut left = ids.len();
    let mut ended = Vec::new();
    for id in ids {
        match load(state, id) {
            Ok(Some(token)) if token.expires < now || token.used_up() => ended.push((token.expires, id)),
            _ => {}
        }
    }
    ended.sort_by_key(|(expires, _)| *expires);
    for (expires, id) in ended {
        let forgotten = expires.checked_add(TOKEN_MEMORY).is_ok_and(|end| end < now);
        if forgotten || left >= MAX_TOKENS {
            state.remove(&file(id))?;
            left -= 1;
        }
    }
    if left >= MAX_TOKENS {
        let dir = state.path().join(DIR);
        return Err(IdentityError::TokenOptions(format!(
            "there are already {MAX_TOKENS} tokens that can still be used; remove some of the files in {}",
            dir.display()
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_bound_and_ended_tokens_make_room() {
        let temp = tempfile::tempdir().unwrap();
        let state = StateDir::at(temp.path());
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let at = |seconds: i64| Timestamp::from_second(1_800_000_000 + seconds).unwrap();
        let token = |expires| StoredToken::new(&Secret([7; 16]), expires, 1);
        std::fs::create_dir(temp.path().join(DIR)).unwrap();
        for n in 0..1_000_u64 {
            let json = serde_json::to_vec(&token(at(3_600))).unwrap();
            std::fs::write(temp.path().join(file(TokenId(n.to_be_bytes()))), json).unwrap();
        }
        let id = |n: u64| TokenId(n.to_be_bytes());
        assert!(create(&state, id(2_000), &token(at(60)), now).is_err());
        let mut used = token(at(3_600));
        used.used.push(Use { node: "a".parse().unwrap(), key: KeyHash([0; 32]) });
        store(&state, id(5), &used).unwrap();
        create(&state, id(2_000), &token(at(60)), now).unwrap();
        assert!(load(&state, id(5)).unwrap().is_none());
        // A week after their end they are gone.
        create(&state, id(2_001), &token(at(9_000_000)), at(8 * 24 * 3_600)).unwrap();
        assert_eq!(state.list(DIR).unwrap().len(), 1);
    }

    #[test]
    fn it_reads_back_its_secret() {
        let token = StoredToken::new(&Secret([9; 16]), Timestamp::UNIX_EPOCH, 1);
        assert_eq!(token.secret(), Some(Secret([9; 16])));
    }
}
