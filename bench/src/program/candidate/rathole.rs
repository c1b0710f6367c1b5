//! rathole with TLS: a reverse tunnel, so its server is where the load connects.

use std::fmt::Write as _;
use std::path::Path;

use super::Start;
use super::keys::PASSWORD;
use crate::program::site::{LOCAL, Place, SERVICES};

const PORT: u16 = 2333;

pub(super) fn start(start: &mut Start<'_>, program: &Path) -> Result<(), String> {
    let [towards_client, towards_server] = start.site.relay_ips;
    let (place, control, bind) = if start.is_relayed() {
        (Place::Relay, towards_server, towards_client.to_string())
    } else {
        (Place::Client, start.site.client_ip, "127.0.0.1".to_owned())
    };
    let (pkcs12, ca) = (start.keys.path("server.p12"), start.keys.path("ca.pem"));
    let mut server = format!(
        "[server]\nbind_addr = \"{control}:{PORT}\"\ndefault_token = \"bench\"\n[server.transport]\ntype = \"tls\"\n\
         [server.transport.tls]\npkcs12 = \"{pkcs12}\"\npkcs12_password = \"{PASSWORD}\"\n"
    );
    let mut client = format!(
        "[client]\nremote_addr = \"{control}:{PORT}\"\ndefault_token = \"bench\"\n[client.transport]\ntype = \"tls\"\n\
         [client.transport.tls]\ntrusted_root = \"{ca}\"\nhostname = \"server.bench\"\n"
    );
    for port in SERVICES {
        let _ = writeln!(server, "[server.services.s{port}]\nbind_addr = \"{bind}:{}\"", port + LOCAL);
        let _ = writeln!(client, "[client.services.s{port}]\nlocal_addr = \"127.0.0.1:{port}\"");
    }
    let server = start.write("server.toml", &server)?;
    start.spawn(place, "server", program, &["--server", &server]);
    // A client whose first try fails waits a second or more.
    start.wait_listening(place, PORT)?;
    let client = start.write("client.toml", &client)?;
    start.spawn(Place::Server, "client", program, &["--client", &client]);
    if start.is_relayed() {
        for address in [&mut start.iperf, &mut start.echo, &mut start.http] {
            address.set_ip(towards_client);
        }
    }
    // It listens for a service once its client has asked for that.
    for port in SERVICES {
        start.wait_listening(place, port + LOCAL)?;
    }
    Ok(())
}
