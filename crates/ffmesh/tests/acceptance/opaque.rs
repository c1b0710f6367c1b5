//! A relay can't read what it carries.

use ffmesh_lab::{Capture, Plan, RandomBytes, contains, require_programs};

use crate::mesh;

/// What is looked for: a piece this long out of what was sent, too long to stand anywhere by chance.
const PIECE: usize = 16;

#[test]
fn what_is_carried_never_appears_at_the_relay() {
    if !require_programs(&["tcpdump"]) {
        return;
    }
    let Some(mut mesh) = mesh("opaque", &Plan::chain(&["a", "r", "b"])) else { return };
    let at_relay = Capture::start(mesh.net("r"), mesh.lab.dir(), "udp or tcp");
    let at_egress = Capture::start(mesh.net("b"), mesh.lab.dir(), "tcp");
    let marker = RandomBytes::take(71, 100_000);
    let conn = mesh.connect("a", "b", "echo").unwrap();
    conn.echo(&marker).unwrap();
    let words = b"GET /secret HTTP/1.1\r\nCookie: a-word-that-nobody-else-says\r\n\r\n";
    conn.echo(words).unwrap();
    let (relay, egress) = (at_relay.finish(), at_egress.finish());

    // Where it is plain it is found, so the search works, and it went through the relay.
    let pieces: Vec<_> = marker.chunks(10_000).map(|chunk| &chunk[..PIECE]).chain([&words[..]]).collect();
    assert!(pieces.iter().all(|piece| contains(&egress, piece)), "the search finds nothing where it should");
    assert!(relay.len() > 2 * marker.len(), "only {} bytes passed the relay", relay.len());
    assert!(mesh.node("r").status().transit.bytes > 2 * marker.len() as u64);
    assert!(!pieces.iter().any(|piece| contains(&relay, piece)), "the relay could read along");
    // Nor does it say anything about it.
    assert!(!contains(mesh.node("r").log().as_bytes(), b"a-word-that-nobody-else-says"));
    assert!(mesh.node_mut("r").is_running());
}
