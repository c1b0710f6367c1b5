//! The token file.

use std::io;

use super::{Fingerprint, fingerprint, random};
use crate::state::{StateDir, StateError};

/// In the state directory, mode 0600.
const TOKEN_FILE: &str = "admin.token";
/// A token that someone chose has as many characters as 128 random bits take in hexadecimal digits.
const MIN_TOKEN: usize = 32;

pub(super) fn load_or_make(state: &StateDir) -> Result<Fingerprint, StateError> {
    if let Some(kept) = state.read_secret(TOKEN_FILE)? {
        let token = kept.trim_ascii();
        if token.len() >= MIN_TOKEN && token.iter().all(u8::is_ascii_graphic) {
            return Ok(fingerprint(token));
        }
        return Err(StateError::Io {
            action: "use",
            path: state.path().join(TOKEN_FILE),
            source: io::Error::new(
                io::ErrorKind::InvalidData,
                "it is no token of 32 or more printable characters; remove it, and the node makes a new one",
            ),
        });
    }
    let token = random();
    state.write(TOKEN_FILE, format!("{token}\n").as_bytes())?;
    Ok(fingerprint(token.as_bytes()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_token_is_made_once_and_kept_private() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::at(&dir.path().join("state"));
        let made = load_or_make(&state).unwrap();
        let path = state.path().join(TOKEN_FILE);
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!((text.trim().len(), fingerprint(text.trim().as_bytes())), (43, made));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(load_or_make(&state).unwrap(), made);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(load_or_make(&state), Err(StateError::Exposed { .. })));
    }

    #[test]
    fn what_anyone_could_guess_is_no_token() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::at(&dir.path().join("state"));
        for weak in ["", "\n", "secret", "with spaces in it and long enough to be a token"] {
            state.write(TOKEN_FILE, weak.as_bytes()).unwrap();
            let error = load_or_make(&state).unwrap_err().to_string();
            assert!(error.contains("is no token"), "{error}");
        }
    }
}
