//! HAProxy on both sides with TLS between them; on a relay it passes the encrypted bytes on.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::Path;

use super::Start;
use crate::program::site::{LOCAL, Place, SERVICES};

/// From a service's port to where its tunnel comes out.
const TUNNEL: u16 = 20_000;
const HEAD: &str = "global\n maxconn 9000\n ssl-default-bind-options ssl-min-ver TLSv1.3\n \
    ssl-default-server-options ssl-min-ver TLSv1.3\ndefaults\n mode tcp\n maxconn 9000\n timeout connect 5s\n \
    timeout client 1h\n timeout server 1h\n";

pub(super) fn start(start: &mut Start<'_>, program: &Path) -> Result<(), String> {
    let server = start.site.server_ip;
    let (ca, of_client, of_server) =
        (start.keys.path("ca.pem"), start.keys.path("client.both"), start.keys.path("server.both"));
    let sections = |section: &dyn Fn(u16) -> String| SERVICES.map(section).concat();
    let through = |bind: String, to: String| format!("listen {bind}\n bind {bind}\n server it {to}\n");
    let far = sections(&|port| {
        through(format!("{server}:{}", port + TUNNEL), format!("127.0.0.1:{port}")).replacen(
            "\n server",
            &format!(" ssl crt {of_server} ca-file {ca} verify required\n server"),
            1,
        )
    });
    run(start, program, Place::Server, "server", &far)?;
    let next: IpAddr = if start.is_relayed() {
        let [towards_client, _] = start.site.relay_ips;
        let middle = sections(&|port| {
            through(format!("{towards_client}:{}", port + TUNNEL), format!("{server}:{}", port + TUNNEL))
        });
        run(start, program, Place::Relay, "relay", &middle)?;
        towards_client
    } else {
        server
    };
    let mut near = String::new();
    for port in SERVICES {
        let tls = format!("ssl verify required ca-file {ca} crt {of_client} verifyhost server.bench");
        near += &through(format!("127.0.0.1:{}", port + LOCAL), format!("{next}:{} {tls}", port + TUNNEL));
    }
    run(start, program, Place::Client, "client", &near)?;
    start.wait_listening(Place::Server, SERVICES[0] + TUNNEL)?;
    start.wait_listening(Place::Client, SERVICES[0] + LOCAL)
}

fn run(
    start: &mut Start<'_>,
    program: &Path,
    place: Place,
    name: &str,
    sections: &str,
) -> Result<(), String> {
    let mut text = HEAD.to_owned();
    let _ = writeln!(text, "{sections}");
    let config = start.write(&format!("{name}.cfg"), &text)?;
    start.spawn(place, name, program, &["-db", "-f", &config]);
    Ok(())
}
