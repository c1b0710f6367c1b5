//! When the file is to be applied that is looked at each second.

use crate::config::Problems;

/// What the file holds, or why it cannot be read.
pub(super) type Content = Result<Vec<u8>, Problems>;

/// What is known of the file. Only what is in it counts, so it may be renamed over or be a link to elsewhere.
#[derive(Debug, Default)]
pub(super) struct Watch {
    tried: Option<Content>,
    seen: Option<Content>,
}

impl Watch {
    /// Takes in what the file holds now. Whether it is to be applied: it is not what was tried last, and it was the same at
    /// the last look, so nobody is just writing it.
    pub(super) fn sees(&mut self, content: Content) -> bool {
        let settled = self.seen.as_ref() == Some(&content);
        let new = self.tried.as_ref() != Some(&content);
        self.seen = Some(content);
        settled && new
    }

    /// This was applied, or refused: it is not tried again.
    pub(super) fn tried(&mut self, content: Content) {
        self.tried = Some(content);
    }

    /// Whether something was.
    pub(super) fn has_tried(&self) -> bool {
        self.tried.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Problem;

    fn content(text: &str) -> Content {
        if text == "gone" { Err(gone()) } else { Ok(text.as_bytes().to_vec()) }
    }

    fn gone() -> Problems {
        let message = "there is no such file".to_owned();
        Problems(vec![Problem { file: None, line: 0, column: 0, key: String::new(), message }])
    }

    #[test]
    fn a_change_is_applied_once_and_when_it_has_settled() {
        let mut watch = Watch::default();
        watch.tried(content("a"));
        assert!(!watch.sees(content("a")));
        assert!(!watch.sees(content("a")), "it is in force");
        assert!(!watch.sees(content("b")), "somebody may be writing");
        assert!(!watch.sees(content("bc")));
        assert!(watch.sees(content("bc")));
        watch.tried(content("bc"));
        assert!(!watch.sees(content("bc")), "also where it was refused");
        assert!(!watch.sees(content("a")));
        assert!(watch.sees(content("a")), "back to what it was");
    }

    #[test]
    fn a_file_that_is_gone_is_told_once() {
        let mut watch = Watch::default();
        watch.tried(content("a"));
        assert!(!watch.sees(content("gone")));
        assert!(!watch.sees(content("a")), "an editor has replaced it");
        assert!(!watch.sees(content("gone")));
        assert!(watch.sees(content("gone")));
        watch.tried(content("gone"));
        assert!(!watch.sees(content("gone")));
    }
}
