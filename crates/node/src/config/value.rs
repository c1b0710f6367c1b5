//! Single values: text to a checked type, or a sentence that says what was expected.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ffmesh_core::id::NodeId;
use ffmesh_core::policy;
use ffmesh_core::target::Target;

use super::keys::meant;
use super::yaml::shown;
use super::{Address, Listen};

/// Longest name of a proxy, service or upstream in characters.
const MAX_NAME: usize = 64;

type Parsed<T> = Result<T, String>;

pub(super) fn node_id(text: &str) -> Parsed<NodeId> {
    text.trim().parse().map_err(|error| format!("{} {error}", quoted(text)))
}

/// Free text for people: letters of any script, spaces.
pub(super) fn name(text: &str) -> Parsed<String> {
    let length = text.chars().count();
    if length > MAX_NAME {
        return Err(format!("has {length} characters: expected at most {MAX_NAME}"));
    }
    if text.chars().any(char::is_control) {
        return Err(format!("{} has a control character: expected printable text", quoted(text)));
    }
    if text.trim().is_empty() {
        return Err("is blank: expected a name".into());
    }
    Ok(text.to_owned())
}

pub(super) fn whole<T: TryFrom<u64>>(text: &str, range: RangeInclusive<u64>) -> Parsed<T> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let number = text.parse().ok().filter(|n| digits && range.contains(n)).and_then(|n| T::try_from(n).ok());
    number.ok_or_else(|| {
        format!("{}: expected a whole number from {} to {}", quoted(text), range.start(), range.end())
    })
}

pub(super) fn port(text: &str) -> Parsed<u16> {
    whole(text, 1..=65_535)
}

pub(super) fn flag(text: &str) -> Parsed<bool> {
    match text {
        "true" | "True" | "TRUE" => Ok(true),
        "false" | "False" | "FALSE" => Ok(false),
        _ => Err(format!("{}: expected true or false", quoted(text))),
    }
}

/// One of a few words.
pub(super) fn word<T: Copy>(text: &str, words: &[(&str, T)]) -> Parsed<T> {
    if let Some((_, value)) = words.iter().find(|(word, _)| word.eq_ignore_ascii_case(text)) {
        return Ok(*value);
    }
    let all: Vec<_> = words.iter().map(|(word, _)| *word).collect();
    let hint = meant(text, &all).map(|word| format!(", did you mean `{word}`?")).unwrap_or_default();
    Err(format!("{}: expected one of {}{hint}", quoted(text), all.join(", ")))
}

/// `200ms`, `5s`, `10m`, `2h`, `7d` or several of them (`1h30m`), largest first or not.
pub(super) fn duration(text: &str, range: RangeInclusive<Duration>) -> Parsed<Duration> {
    let expected = || {
        let (least, most) = (span(*range.start()), span(*range.end()));
        format!("expected a duration such as 200ms, 5s or 10m, from {least} to {most}")
    };
    let wrong = || format!("{}: {}", quoted(text), expected());
    let mut total = Duration::ZERO;
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let (digits, after) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len()));
        let (unit, after) =
            after.split_at(after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len()));
        let number: u32 = digits.parse().map_err(|_| wrong())?;
        let unit = match unit {
            "ms" => Duration::from_millis(1),
            "s" => Duration::from_secs(1),
            "m" => Duration::from_mins(1),
            "h" => Duration::from_hours(1),
            "d" => Duration::from_hours(24),
            "" if number == 0 => Duration::ZERO,
            "" => return Err(format!("{} has no unit: {}", quoted(text), expected())),
            _ => return Err(wrong()),
        };
        total = unit.checked_mul(number).and_then(|part| total.checked_add(part)).ok_or_else(wrong)?;
        rest = after.trim_start();
    }
    if range.contains(&total) { Ok(total) } else { Err(wrong()) }
}

/// A duration as the file writes it.
pub(crate) fn span(duration: Duration) -> String {
    let ms = duration.as_millis();
    for (unit, name) in [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")] {
        if ms.is_multiple_of(unit) && (ms > 0 || name == "s") {
            return format!("{}{name}", ms / unit);
        }
    }
    format!("{ms}ms")
}

/// Bytes: a whole number alone or with `KiB`, `MiB`, `GiB`, `TiB`, `kB`, `MB` or `GB`.
pub(super) fn size<T: TryFrom<u64>>(text: &str, range: RangeInclusive<u64>) -> Parsed<T> {
    let wrong = || {
        let (least, most) = (bytes(*range.start()), bytes(*range.end()));
        format!("{}: expected a size such as 4MiB or a number of bytes, from {least} to {most}", quoted(text))
    };
    let trimmed = text.trim();
    let end = trimmed.find(|c: char| !c.is_ascii_digit()).unwrap_or(trimmed.len());
    let (digits, unit) = trimmed.split_at(end);
    let unit: u64 = match unit.trim_start() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        _ => return Err(wrong()),
    };
    let total = digits.parse::<u64>().ok().and_then(|n| n.checked_mul(unit)).filter(|n| range.contains(n));
    total.and_then(|n| T::try_from(n).ok()).ok_or_else(wrong)
}

/// A size as the file writes it.
pub(super) fn bytes(n: u64) -> String {
    for (unit, name) in [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")] {
        if n >= unit && n.is_multiple_of(unit) {
            return format!("{}{name}", n / unit);
        }
    }
    n.to_string()
}

/// An address to listen on.
pub(super) fn ip(text: &str) -> Parsed<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    bare.parse().map_err(|_| {
        let why = if bare.contains('%') {
            " has a zone, which is not supported"
        } else if bare.parse::<SocketAddr>().is_ok() {
            " has a port, which has a key of its own"
        } else {
            ""
        };
        format!("{}{why}: expected an IP address such as 127.0.0.1, ::1, 0.0.0.0 or ::", quoted(text))
    })
}

/// `local_address`: an address, or a Unix socket, which has no port.
pub(super) fn local_address(text: &str) -> Parsed<Result<IpAddr, Listen>> {
    if !text.starts_with("unix:") {
        return ip(text).map(Ok).map_err(|message| format!("{message}, or unix:/path"));
    }
    match target(text)? {
        Target::Unix(path) => Ok(Err(Listen::Unix(PathBuf::from(path)))),
        Target::Port { .. } => Err(format!("{}: expected unix:/path", quoted(text))),
    }
}

pub(super) fn socket(text: &str) -> Parsed<SocketAddr> {
    text.parse().ok().filter(|socket: &SocketAddr| socket.port() != 0).ok_or_else(|| {
        let expected = "expected an IP address and a port such as 127.0.0.1:9464 or [::1]:9464";
        format!("{}: {expected}", quoted(text))
    })
}

/// A name by which a machine is addressed, in lower case (RFC 1123, section 2.1; `_` is seen in practice).
pub(super) fn host_name(text: &str) -> Parsed<String> {
    let name = text.trim_end_matches('.').to_ascii_lowercase();
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > 253 || !name.chars().all(fits) {
        return Err(format!(
            "{}: expected a host name without a port such as console.example.com",
            quoted(text)
        ));
    }
    Ok(name)
}

pub(super) fn target(text: &str) -> Parsed<Target> {
    if !text.starts_with("unix:") && text.contains('%') {
        return Err(format!("{} has a zone, which is not supported: {HOST_PORT}", quoted(text)));
    }
    text.parse().map_err(|error| format!("{} {error}", quoted(text)))
}

const HOST_PORT: &str = "expected host:port or [v6 address]:port";

/// `host:port` of a node.
pub(super) fn address(text: &str) -> Parsed<Address> {
    match target(text)? {
        Target::Port { host, port } => Ok(Address { host, port }),
        Target::Unix(_) => {
            Err(format!("{} is a Unix socket, and links are made over UDP: {HOST_PORT}", quoted(text)))
        }
    }
}

/// Parses by the type's own rules; its errors are the end of a sentence about the value.
pub(super) fn own<T: FromStr<Err: std::fmt::Display>>(text: &str) -> Parsed<T> {
    text.parse().map_err(|error| format!("{} {error}", quoted(text)))
}

pub(super) fn subject(text: &str) -> Parsed<policy::Subject> {
    own(text)
}

pub(super) fn state_dir(text: &str) -> Parsed<PathBuf> {
    if text.starts_with('~') {
        return Err(format!(
            "{} starts with ~, which only a shell replaces: write the whole path",
            quoted(text)
        ));
    }
    if text.contains('\0') {
        return Err(format!("{} has a NUL: expected a path", quoted(text)));
    }
    Ok(PathBuf::from(text))
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", shown(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_durations() {
        let most = Duration::from_hours(24)..=Duration::from_hours(24 * 7);
        let any = Duration::ZERO..=*most.end();
        for (text, ms) in [("200ms", 200), ("5s", 5_000), ("10m", 600_000), ("1h30m", 5_400_000), ("0", 0)] {
            assert_eq!(duration(text, any.clone()), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "5", "s", "5 s x", "-5s", "1.5s", "8d", "99999999999s", "5秒", "5S"] {
            assert!(duration(text, any.clone()).is_err(), "{text:?} was accepted");
        }
        assert!(duration("1h", most).unwrap_err().ends_with("from 1d to 7d"));
    }

    #[test]
    fn reads_sizes() {
        let any = 1024..=1 << 40;
        for (text, n) in [("4MiB", 4 << 20), ("4 MiB", 4 << 20), ("65536", 65_536), ("2GB", 2_000_000_000)] {
            assert_eq!(size::<u64>(text, any.clone()), Ok(n), "{text}");
        }
        for text in ["", "4M", "MiB", "1.5GiB", "-1", "18446744073709551616", "9999999999GiB", "1"] {
            assert!(size::<u64>(text, any.clone()).is_err(), "{text:?} was accepted");
        }
        assert!(size::<u64>("1", any).unwrap_err().ends_with("from 1KiB to 1TiB"));
    }
}
