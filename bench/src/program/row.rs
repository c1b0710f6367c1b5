//! The rows of the table.

/// Which way a figure gets better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Better {
    More,
    Less,
}

/// A row: its key in files and options, what it says in the table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    pub(crate) key: &'static str,
    pub(crate) says: &'static str,
    pub(crate) better: Better,
    /// Decimal places
    pub(crate) places: usize,
}

const fn row(key: &'static str, says: &'static str, better: Better, places: usize) -> Row {
    Row { key, says, better, places }
}

use Better::{Less, More};

/// All rows, in the order of the table.
pub(crate) const ROWS: [Row; 29] = [
    row("bulk.up1", "direct, 1 connection, up, Mbit/s", More, 0),
    row("bulk.down1", "direct, 1 connection, down, Mbit/s", More, 0),
    row("bulk.up1.cpu", "the same, up, CPU s/GB of all nodes", Less, 2),
    row("bulk.down1.cpu", "the same, down, CPU s/GB of all nodes", Less, 2),
    row("bulk.up8", "direct, 8 connections, up, Mbit/s", More, 0),
    row("bulk.down8", "direct, 8 connections, down, Mbit/s", More, 0),
    row("bulk.up8.cpu", "the same, up, CPU s/GB of all nodes", Less, 2),
    row("bulk.down8.cpu", "the same, down, CPU s/GB of all nodes", Less, 2),
    row("offload.up1", "offloads off, 1 connection, up, Mbit/s", More, 0),
    row("offload.down1", "offloads off, 1 connection, down, Mbit/s", More, 0),
    row("relay.up1", "one relay, 1 connection, up, Mbit/s", More, 0),
    row("relay.down1", "one relay, 1 connection, down, Mbit/s", More, 0),
    row("relay.up1.cpu", "the same, up, CPU s/GB of all nodes", Less, 2),
    row("relay.up1.relay_cpu", "the same, up, CPU s/GB of the relay", Less, 2),
    row("relay.down1.relay_cpu", "the same, down, CPU s/GB of the relay", Less, 2),
    row("far.up1", "40 ms RTT, 0.5 % loss each way, 1 connection, up, Mbit/s", More, 0),
    row("far.down1", "40 ms RTT, 0.5 % loss each way, 1 connection, down, Mbit/s", More, 0),
    row("connect.p50", "connect + echo + close, p50, us", Less, 0),
    row("connect.p99", "connect + echo + close, p99, us", Less, 0),
    row("connect.rate", "new connections a second, 64 at once", More, 0),
    row("ping.p50", "1-byte ping on an open connection, p50, us", Less, 0),
    row("ping.p99", "1-byte ping on an open connection, p99, us", Less, 0),
    row("http.64", "HTTP 64 B, 100 connections, requests/s", More, 0),
    row("http.64.p99", "the same, p99, ms", Less, 1),
    row("http.16k", "HTTP 16 KiB, 100 connections, requests/s", More, 0),
    row("http.16k.p99", "the same, p99, ms", Less, 1),
    row("memory.connection", "memory per idle connection, all nodes, KiB", Less, 1),
    row("memory.node", "memory without connections, per node, MiB", Less, 1),
    row("first.byte", "first byte of the first flow at 40 ms RTT, ms", Less, 0),
];

/// Whether a key is chosen by one of these words: itself, or what stands before one of its dots.
pub(crate) fn is_chosen(key: &str, words: &[String]) -> bool {
    let fits =
        |word: &String| key.strip_prefix(word.as_str()).is_some_and(|r| r.is_empty() || r.starts_with('.'));
    words.is_empty() || words.iter().any(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_chosen_by_what_they_begin_with() {
        let words = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
        assert!(is_chosen("bulk.up1", &[]));
        assert!(is_chosen("bulk.up1", &words(&["relay", "bulk"])));
        assert!(is_chosen("bulk.up1.cpu", &words(&["bulk.up1"])));
        assert!(!is_chosen("bulk.up1", &words(&["bulk.up", "bul", "bulk.up1.cpu"])));
    }

    #[test]
    fn no_key_stands_twice() {
        for (n, row) in ROWS.iter().enumerate() {
            assert!(ROWS[n + 1..].iter().all(|other| other.key != row.key), "{}", row.key);
        }
    }
}
