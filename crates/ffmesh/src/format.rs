//! Numbers and texts as people read them, and durations as they write them.

use std::fmt::{self, Write};
use std::time::Duration;

use jiff::Timestamp;

/// `1.2 GiB`: three digits at most before the unit.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    #[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
    let mut value = bytes as f64;
    let mut unit = 0;
    // 1023.95 would be shown as 1024.0.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// `1,234,567`
pub(crate) fn count(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.char_indices() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `850ms`, `4.2s`, `3m 20s`, `5h 3m`, `12d 4h`
pub(crate) fn duration(duration: Duration) -> String {
    let ms = duration.as_millis();
    let s = duration.as_secs();
    match s {
        0 => format!("{ms}ms"),
        1..10 => format!("{}.{}s", s, (ms % 1000) / 100),
        10..60 => format!("{s}s"),
        60..3_600 => format!("{}m {}s", s / 60, s % 60),
        3_600..86_400 => format!("{}h {}m", s / 3_600, s % 3_600 / 60),
        _ => format!("{}d {}h", s / 86_400, s % 86_400 / 3_600),
    }
}

/// How long ago `then` was; `0ms` when the clocks say it is still to come.
pub(crate) fn age(then: Timestamp, now: Timestamp) -> String {
    duration(Duration::try_from(now.duration_since(then)).unwrap_or_default())
}

/// `2026-11-22 10:50 UTC (in 180d 0h)`
pub(crate) fn expiry(end: Timestamp, now: Timestamp) -> String {
    let when = end.strftime("%Y-%m-%d %H:%M UTC");
    match Duration::try_from(end.duration_since(now)) {
        Ok(left) => format!("{when} (in {})", duration(left)),
        Err(_) => format!("{when} (expired {} ago)", age(end, now)),
    }
}

/// `0.42 ms`, `12.3 ms`, `140 ms`
pub(crate) fn milliseconds(ms: f64) -> String {
    if ms < 10.0 {
        format!("{ms:.2} ms")
    } else if ms < 100.0 {
        format!("{ms:.1} ms")
    } else {
        format!("{ms:.0} ms")
    }
}

/// `0 %`, `< 0.1 %`, `0.4 %`, `12 %` of a share from 0 to 1.
pub(crate) fn share(share: f64) -> String {
    let percent = share * 100.0;
    if percent > 0.0 && percent < 0.05 {
        "< 0.1 %".to_owned()
    } else if percent > 0.0 && percent < 9.95 {
        format!("{percent:.1} %")
    } else {
        format!("{percent:.0} %")
    }
}

/// Reads `90s`, `10m`, `1h30m`, `180d`, `2w`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    const EXPECTED: &str = "expected a number with a unit out of s, m, h, d, w, such as 90s, 1h30m or 180d";
    let mut rest = text;
    let mut total = 0_u64;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, tail) = rest.split_at(digits);
        let mut tail = tail.chars();
        let unit = match tail.next() {
            Some('s') => 1,
            Some('m') => 60,
            Some('h') => 3_600,
            Some('d') => 86_400,
            Some('w') => 604_800,
            _ => return Err(EXPECTED.to_owned()),
        };
        let number: u64 = number.parse().map_err(|_| EXPECTED.to_owned())?;
        total = number.checked_mul(unit).and_then(|s| total.checked_add(s)).ok_or("is too long")?;
        rest = tail.as_str();
    }
    if total == 0 {
        return Err(format!("must be longer than 0; {EXPECTED}"));
    }
    Ok(Duration::from_secs(total))
}

/// A text of someone else, fit for a terminal: control characters and those that turn the direction of writing
/// become `\u{1b}`.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    // Writing to a string does not fail.
    let _ = Escaping(&mut escaped).write_str(text);
    escaped
}

/// Writes what is written to it with [`escape`].
pub(crate) struct Escaping<'a>(pub(crate) &'a mut dyn Write);

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

/// Whether a character can do something to a terminal other than to appear on it.
pub(crate) fn is_unfit(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// A word for the shell: quoted when it needs to be.
pub(crate) fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+[]".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_keep_three_digits() {
        for (n, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_048_575, "1.0 MiB"),
            (1_610_612_736, "1.5 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(bytes(n), text);
        }
    }

    #[test]
    fn counts_are_grouped() {
        for (n, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(count(n), text);
        }
    }

    #[test]
    fn durations_show_two_units() {
        for (ms, text) in [
            (0, "0ms"),
            (850, "850ms"),
            (4_250, "4.2s"),
            (59_999, "59s"),
            (200_000, "3m 20s"),
            (18_180_000, "5h 3m"),
            (1_051_200_000, "12d 4h"),
        ] {
            assert_eq!(duration(Duration::from_millis(ms)), text);
        }
    }

    #[test]
    fn expiry_says_how_long_or_since_when() {
        let now = Timestamp::UNIX_EPOCH;
        let end = now + Duration::from_hours(48);
        assert_eq!(expiry(end, now), "1970-01-03 00:00 UTC (in 2d 0h)");
        assert_eq!(expiry(now, end), "1970-01-01 00:00 UTC (expired 2d 0h ago)");
        assert_eq!(age(end, now), "0ms");
    }

    #[test]
    fn reads_durations_with_units_only() {
        for (text, s) in [("90s", 90), ("1h30m", 5_400), ("180d", 15_552_000), ("2w", 1_209_600)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs(s)));
        }
        for text in
            ["", "0s", "5", "h", "-1h", "1.5h", "1h ", "1y", "99999999999999999999w", "9999999999999999w"]
        {
            assert!(parse_duration(text).is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn nothing_reaches_the_terminal_but_text() {
        assert_eq!(escape("plain 主节点"), "plain 主节点");
        assert_eq!(escape("a\x1b[31m\nb\u{9b}\u{202e}"), "a\\u{1b}[31m\\u{a}b\\u{9b}\\u{202e}");
    }

    #[test]
    fn shell_words_survive_a_shell() {
        assert_eq!(shell_word("/etc/ffmesh/a.yaml"), "/etc/ffmesh/a.yaml");
        assert_eq!(shell_word("my node's.yaml"), r"'my node'\''s.yaml'");
        assert_eq!(shell_word(""), "''");
    }

    #[test]
    fn shares_and_times_keep_what_matters() {
        assert_eq!(
            [0.0, 0.000_01, 0.004, 0.0996, 0.5].map(share),
            ["0 %", "< 0.1 %", "0.4 %", "10 %", "50 %"]
        );
        assert_eq!(milliseconds(0.424), "0.42 ms");
        assert_eq!(milliseconds(140.2), "140 ms");
    }
}
