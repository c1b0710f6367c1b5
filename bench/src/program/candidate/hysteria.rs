//! Hysteria 2 as sing-box has it.

use std::net::IpAddr;
use std::path::Path;

use serde_json::{Value, json};

use super::Start;
use crate::program::site::{LOCAL, Place, SERVICES};

const PORT: u16 = 4443;
const PASSWORD: &str = "bench";

pub(super) fn start(start: &mut Start<'_>, program: &Path) -> Result<(), String> {
    let (key, certificate, ca) =
        (start.keys.path("server.key"), start.keys.path("server.pem"), start.keys.path("ca.pem"));
    let inbound = |at: IpAddr| {
        let tls = json!({"enabled": true, "alpn": ["h3"], "certificate_path": certificate, "key_path": key});
        json!({"type": "hysteria2", "listen": at, "listen_port": PORT, "users": [{"password": PASSWORD}], "tls": tls})
    };
    let outbound = |to: IpAddr| {
        let tls =
            json!({"enabled": true, "alpn": ["h3"], "server_name": "server.bench", "certificate_path": ca});
        json!({"type": "hysteria2", "server": to, "server_port": PORT, "password": PASSWORD, "tls": tls})
    };
    let server = start.site.server_ip;
    run(start, program, Place::Server, "server", &[inbound(server)], &json!({"type": "direct"}))?;
    let next = if start.is_relayed() {
        let [towards_client, _] = start.site.relay_ips;
        run(start, program, Place::Relay, "relay", &[inbound(towards_client)], &outbound(server))?;
        towards_client
    } else {
        server
    };
    let forwards = SERVICES.map(|port| {
        json!({
            "type": "direct", "tag": port.to_string(), "network": "tcp",
            "listen": "127.0.0.1", "listen_port": port + LOCAL,
            "override_address": "127.0.0.1", "override_port": port,
        })
    });
    run(start, program, Place::Client, "client", &forwards, &outbound(next))?;
    SERVICES.iter().try_for_each(|port| start.wait_listening(Place::Client, port + LOCAL))
}

fn run(
    start: &mut Start<'_>,
    program: &Path,
    place: Place,
    name: &str,
    inbounds: &[Value],
    outbound: &Value,
) -> Result<(), String> {
    let config = json!({"log": {"level": "error"}, "inbounds": inbounds, "outbounds": [outbound]});
    let config = start.write(&format!("{name}.json"), &config.to_string())?;
    start.spawn(place, name, program, &["run", "-c", &config]);
    Ok(())
}
