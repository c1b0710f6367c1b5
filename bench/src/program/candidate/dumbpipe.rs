//! dumbpipe: a listener and a connector for each service, found by their addresses and not by iroh's servers.

use std::path::Path;

use super::Start;
use crate::program::site::{LOCAL, Place, SERVICES};

/// From a service's port to the UDP port of its ends.
const UDP: u16 = 20_000;

pub(super) fn start(start: &mut Start<'_>, program: &Path) -> Result<(), String> {
    let (server, client) = (start.site.server_ip, start.site.client_ip);
    let name = |side: &str, port: u16| format!("{side}{port}");
    for port in SERVICES {
        let (host, at) = (format!("127.0.0.1:{port}"), format!("{server}:{}", port + UDP));
        let arguments = ["listen-tcp", "--host", &host, "--ipv4-addr", &at];
        start.spawn(Place::Server, &name("listen", port), program, &arguments);
    }
    for port in SERVICES {
        let ticket = start.wait_word(&name("listen", port), "endpoint");
        let (host, at) = (format!("127.0.0.1:{}", port + LOCAL), format!("{client}:{}", port + UDP));
        let arguments = ["connect-tcp", "--addr", &host, "--ipv4-addr", &at, &ticket];
        start.spawn(Place::Client, &name("connect", port), program, &arguments);
    }
    SERVICES.iter().try_for_each(|port| start.wait_listening(Place::Client, port + LOCAL))
}
