//! Text that others wrote, made fit to be shown.

use std::fmt::{self, Write};

/// Longest text of a peer that is shown, in characters: a sentence or two, not a screen.
pub const MAX_FOREIGN: usize = 300;

/// Whether a character can do something to a terminal other than to appear on it: C0 and C1 control characters,
/// line separators, and those that turn the direction of writing.
pub fn is_unfit(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}'
        )
}

/// The text with every unfit character as `\u{1b}`.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    // Writing to a string does not fail.
    let _ = Escaping(&mut escaped).write_str(text);
    escaped
}

/// What a peer says, escaped and cut to [`MAX_FOREIGN`] characters.
pub fn foreign(text: impl fmt::Display) -> String {
    foreign_within(text, MAX_FOREIGN)
}

/// What a peer says, escaped and cut to `max` characters.
pub fn foreign_within(text: impl fmt::Display, max: usize) -> String {
    let text = text.to_string();
    match text.char_indices().nth(max) {
        Some((end, _)) => escape(&text[..end]) + "…",
        None => escape(&text),
    }
}

/// Writes what is written to it with [`escape`].
pub struct Escaping<'a>(pub &'a mut dyn Write);

impl fmt::Debug for Escaping<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Escaping")
    }
}

impl Write for Escaping<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some(at) = rest.find(is_unfit) {
            self.0.write_str(&rest[..at])?;
            let mut tail = rest[at..].chars();
            if let Some(c) = tail.next() {
                write!(self.0, "{}", c.escape_unicode())?;
            }
            rest = tail.as_str();
        }
        self.0.write_str(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_acts_on_a_terminal_is_escaped() {
        assert_eq!(escape("plain 主节点"), "plain 主节点");
        assert_eq!(
            escape("a\x1b[31m\nb\u{9b}\u{202e}\u{61c}"),
            "a\\u{1b}[31m\\u{a}b\\u{9b}\\u{202e}\\u{61c}"
        );
    }

    #[test]
    fn a_peers_text_is_cut() {
        let text = foreign(format!("\u{1b}{}", "主".repeat(1_000)));
        assert_eq!(text, format!("\\u{{1b}}{}…", "主".repeat(299)));
        assert_eq!(foreign("short"), "short");
    }
}
