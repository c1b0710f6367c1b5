//! Names of nodes and meshes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest [`NodeId`] and [`MeshName`] in bytes: a DNS label (RFC 1035, section 2.3.4), as both stand in
/// the certificate's DNS name `<node>.<mesh>.ffmesh`.
pub const MAX_NAME_LEN: usize = 63;

/// Why a name was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The name has no characters.
    #[error("is empty: a name has 1 to 63 characters out of a-z, 0-9, _ and -")]
    Empty,
    /// The name is longer than [`MAX_NAME_LEN`].
    #[error("has {0} characters: a name has 1 to 63 out of a-z, 0-9, _ and -")]
    TooLong(usize),
    /// The name has a character outside the alphabet.
    #[error("has the character {0:?}: a name has only a-z, 0-9, _ and -")]
    Character(char),
    /// The name starts or ends with a hyphen.
    #[error("starts or ends with a hyphen: the first and last character are out of a-z, 0-9 and _")]
    Hyphen,
}

fn checked(text: &str) -> Result<Box<str>, NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    let name = text.to_ascii_lowercase();
    if let Some(c) = name.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '_' | '-')) {
        return Err(NameError::Character(c));
    }
    if name.len() > MAX_NAME_LEN {
        return Err(NameError::TooLong(name.len()));
    }
    if name.starts_with('-') || name.ends_with('-') {
        return Err(NameError::Hyphen);
    }
    Ok(name.into_boxed_str())
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(std::sync::Arc<str>);

        impl $name {
            /// The name in lower case.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                checked(text).map(|name| Self(name.into()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.as_ref().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name! {
    /// The name of a node, unique in its mesh and bound to the node's key by its certificate.
    ///
    /// 1 to 63 characters out of `a-z`, `0-9`, `_` and `-`, not starting or ending with a hyphen; upper
    /// case is folded to lower case.
    NodeId
}

name! {
    /// The name of a mesh; the same alphabet as [`NodeId`].
    MeshName
}

impl NodeId {
    /// The node's DNS name in certificates: `<node>.<mesh>.ffmesh`.
    pub fn dns_name(&self, mesh: &MeshName) -> String {
        format!("{self}.{mesh}.ffmesh")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folds_case_and_keeps_the_seeds_ids() {
        assert_eq!("FFB213D4E5".parse::<NodeId>().unwrap().as_str(), "ffb213d4e5");
        assert_eq!("parent-node-id".parse::<NodeId>().unwrap().as_str(), "parent-node-id");
        assert_eq!("_".parse::<NodeId>().unwrap().as_str(), "_");
    }

    #[test]
    fn refuses_what_is_no_dns_label() {
        for (text, error) in [
            ("", NameError::Empty),
            ("a.b", NameError::Character('.')),
            ("主节点", NameError::Character('主')),
            ("-a", NameError::Hyphen),
            ("a-", NameError::Hyphen),
        ] {
            assert_eq!(text.parse::<NodeId>(), Err(error), "{text:?}");
        }
        assert!("a".repeat(63).parse::<NodeId>().is_ok());
        assert_eq!("a".repeat(64).parse::<NodeId>(), Err(NameError::TooLong(64)));
    }
}
