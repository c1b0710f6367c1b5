//! `ffmesh console`.

use std::net::{IpAddr, SocketAddr};

use ffmesh_api as api;

use crate::args::Show;
use crate::client::Client;
use crate::failure::Outcome;
use crate::{output, place};

/// Prints the link that opens the console.
pub(crate) async fn console(show: &Show) -> Outcome {
    let node = place::node(&show.choice)?;
    // An empty object: there is nothing to choose.
    let code: api::LoginCode = Client::new(&node).post("login-codes", &serde_json::json!({})).await?;
    if show.json {
        return output::json(&code);
    }
    output::line(&code.url)?;
    output::remark("open it within a minute; it works once");
    if let Some(port) = loopback_port(&code.url) {
        // To stderr: stdout is the link alone.
        output::remark(&format!(
            "from another machine: `ssh -L {port}:127.0.0.1:{port} THIS-MACHINE` there, and the same link"
        ));
    }
    Ok(())
}

/// The port of a link that only this machine can open.
fn loopback_port(url: &str) -> Option<u16> {
    let address: SocketAddr = url.strip_prefix("http://")?.split('/').next()?.parse().ok()?;
    (address.ip() == IpAddr::from([127, 0, 0, 1])).then_some(address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_link_to_loopback_needs_a_tunnel() {
        assert_eq!(loopback_port("http://127.0.0.1:9464/#code=a"), Some(9464));
        for other in ["http://10.0.0.1:9464/#code=a", "http://console.example.com:9464/#code=a", ""] {
            assert_eq!(loopback_port(other), None, "{other}");
        }
    }
}
