//! OpenSSH with local forwardings, through a relay by ProxyJump.

use std::net::IpAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use ffmesh_lab::run;

use super::Start;
use crate::program::site::{LOCAL, Place, SERVICES};

const PORT: u16 = 2222;

pub(super) fn start(start: &mut Start<'_>, program: &Path) -> Result<(), String> {
    let server = start.site.server_ip;
    let relay = start.is_relayed().then_some(start.site.relay_ips[0]);
    let identity = new_key(start, "identity")?;
    daemon(start, Place::Server, "server", server, &identity)?;
    let mut jump = String::new();
    if let Some(relay) = relay {
        daemon(start, Place::Relay, "relay", relay, &identity)?;
        jump = format!(" ProxyJump relay\nHost relay\n HostName {relay}\n");
    }
    let config = format!(
        "Host server\n HostName {server}\n{jump}Host *\n User root\n Port {PORT}\n IdentityFile {identity}\n \
         BatchMode yes\n StrictHostKeyChecking no\n UserKnownHostsFile /dev/null\n ExitOnForwardFailure yes\n"
    );
    let config = start.write("client.config", &config)?;
    let forwards = SERVICES.map(|port| format!("127.0.0.1:{}:127.0.0.1:{port}", port + LOCAL));
    let mut arguments = vec!["-F", &config, "-N"];
    for forward in &forwards {
        arguments.extend(["-L", forward]);
    }
    arguments.push("server");
    start.spawn(Place::Client, "client", program, &arguments);
    start.wait_listening(Place::Client, SERVICES[2] + LOCAL)
}

fn daemon(start: &mut Start<'_>, place: Place, name: &str, at: IpAddr, identity: &str) -> Result<(), String> {
    let host_key = new_key(start, &format!("{name}.host"))?;
    let config = format!(
        "Port {PORT}\nListenAddress {at}\nHostKey {host_key}\nAuthorizedKeysFile {identity}.pub\nPidFile none\n\
         UsePAM no\nStrictModes no\nUseDNS no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\n"
    );
    let config = start.write(&format!("{name}.config"), &config)?;
    // Without it sshd refuses to start.
    std::fs::create_dir_all("/run/sshd").map_err(|e| format!("can't make /run/sshd: {e}"))?;
    let program = start.programs.find("sshd").ok_or("sshd is not installed")?;
    start.spawn(place, name, &program, &["-D", "-e", "-f", &config]);
    start.wait_listening(place, PORT)
}

fn new_key(start: &Start<'_>, name: &str) -> Result<String, String> {
    let path = start.dir.join(name).to_string_lossy().into_owned();
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-t", "ed25519", "-N", "", "-f", &path]);
    let outcome = run(command, Duration::from_secs(10));
    if outcome.is_success() { Ok(path) } else { Err(format!("ssh-keygen: {}", outcome.said())) }
}
