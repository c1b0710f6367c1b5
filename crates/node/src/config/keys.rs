//! Every key there is, and which one a wrong key was meant to be.

pub(super) const ROOT: &[&str] =
    &["node_id", "state_dir", "proxies", "services", "access", "quic", "mesh", "admin", "log", "watch"];
pub(super) const PROXY: &[&str] = &[
    "name",
    "local_port",
    "local_address",
    "protocol",
    "target_node_id",
    "target_address",
    "target_service",
    "idle_timeout",
];
pub(super) const SERVICE: &[&str] = &["name", "address", "protocol", "allow", "health_check"];
pub(super) const HEALTH_CHECK: &[&str] = &["interval"];
pub(super) const RULE: &[&str] = &["from", "to", "action"];
pub(super) const QUIC: &[&str] = &[
    "listen_port",
    "listen_address",
    "advertise",
    "upstreams",
    "congestion",
    "keep_alive",
    "stream_window",
    "send_window",
    "mtu",
    "max_flows",
    "flow_memory",
    "max_links",
];
pub(super) const UPSTREAM: &[&str] = &["name", "node_id", "address", "cost"];
pub(super) const MESH: &[&str] = &["transit", "cost", "hold", "drain_timeout"];
pub(super) const ADMIN: &[&str] = &["listen", "hosts"];
pub(super) const LOG: &[&str] = &["level", "format"];

const HOMES: [(&str, &[&str]); 9] = [
    ("at the top level", ROOT),
    ("to an item of `proxies`", PROXY),
    ("under `quic`", QUIC),
    ("to an item of `quic.upstreams`", UPSTREAM),
    ("to an item of `services`", SERVICE),
    ("to an item of `access`", RULE),
    ("under `mesh`", MESH),
    ("under `admin`", ADMIN),
    ("under `log`", LOG),
];

/// Where else the key `name` would be known.
pub(super) fn home(name: &str) -> Option<&'static str> {
    HOMES.iter().find(|(_, keys)| keys.contains(&name)).map(|(home, _)| *home)
}

/// The word of `known` that `given` was most likely meant to be.
pub(super) fn meant<'k>(given: &str, known: &[&'k str]) -> Option<&'k str> {
    // No key is longer; the distance takes time with the product of the lengths.
    if given.len() > 32 {
        return None;
    }
    let bare = |word: &str| -> Vec<char> {
        word.chars().filter(|c| !matches!(c, '_' | '-' | ' ')).flat_map(char::to_lowercase).collect()
    };
    let given = bare(given);
    let near = |word: &&'k str| {
        let word = bare(word);
        let distance = distance(&given, &word);
        (distance <= word.len().max(3) / 3).then_some(distance)
    };
    known.iter().filter_map(|word| Some((near(word)?, *word))).min_by_key(|(d, _)| *d).map(|(_, word)| word)
}

/// How many letters have to be added, left out, replaced or swapped with their neighbour (the optimal string
/// alignment distance).
fn distance(a: &[char], b: &[char]) -> usize {
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            if i == 0 || j == 0 {
                rows[i][j] = i.max(j);
                continue;
            }
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = least;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_meant() {
        for (given, key) in [
            ("local_prot", Some("local_port")),
            ("localPort", Some("local_port")),
            ("port", None),
            ("target_adress", Some("target_address")),
            ("target-node-id", Some("target_node_id")),
            ("nmae", Some("name")),
            ("zzz", None),
            ("", None),
        ] {
            assert_eq!(meant(given, PROXY), key, "{given}");
        }
        assert_eq!(home("upstreams"), Some("under `quic`"));
    }
}
