//! What a node binds before it serves, so that what is taken is known at once; and why a node does not start.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use ffmesh_udp::Socket;
use tokio::net::{TcpListener, UnixListener};

use super::settings::{self, Plan};
use crate::admin;
use crate::config::Config;
use crate::identity::{CertificateError, IdentityError};
use crate::ingress::{BindError, holder};
use crate::state::{StateDir, StateError};
use crate::store::StoreError;
use crate::transport::TransportError;

/// Why a node did not start. Nothing is left running.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Credentials are missing or cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The state directory cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The UDP port cannot be bound.
    #[error("cannot bind UDP port {port}: {reason}")]
    Udp {
        /// `quic.listen_port`, or 0
        port: u16,
        /// Why, and what to do
        reason: String,
    },
    /// A proxy cannot listen.
    #[error(transparent)]
    Proxy(#[from] BindError),
    /// The admin socket cannot be bound.
    #[error("cannot bind the admin socket {}: {error}", path.display())]
    Admin {
        /// Where
        path: PathBuf,
        /// What the system says
        error: io::Error,
    },
    /// The admin API cannot listen.
    #[error(transparent)]
    AdminListen(#[from] admin::ListenError),
    /// The state directory or the machine's addresses cannot be read.
    #[error("cannot use {} or read this machine's addresses: {error}", path.display())]
    Machine {
        /// The state directory
        path: PathBuf,
        /// What the system says
        error: io::Error,
    },
    /// This node's certificate would not be taken by others.
    #[error("this node's certificate cannot be used: {0}")]
    Certificate(#[from] CertificateError),
    /// The QUIC endpoint could not be made.
    #[error("cannot start QUIC: {0}")]
    Transport(#[from] TransportError),
}

/// What a node has bound before it serves.
pub(super) struct Bound {
    pub(super) udp: Socket,
    pub(super) udp_address: SocketAddr,
    pub(super) proxies: settings::Bound,
    pub(super) admin_path: PathBuf,
    pub(super) admin_socket: UnixListener,
    pub(super) admin_tcp: Option<TcpListener>,
}

impl Bound {
    /// Binds all, or nothing.
    pub(super) fn bind(config: &Config, plan: &Plan, state: &StateDir) -> Result<Self, StartError> {
        let port = config.quic.listen_port.unwrap_or(0);
        let failed = |error| StartError::Udp { port, reason: explain_udp(config, &error) };
        let udp = Socket::bind(config.quic.listen_address, port).map_err(failed)?;
        let udp_address = udp.local_addr().map_err(failed)?;
        let proxies = plan.bind()?;
        let admin_path = state.prepare_admin_socket()?;
        let admin_socket = admin::bind(&admin_path)
            .map_err(|error| StartError::Admin { path: admin_path.clone(), error })?;
        let admin_tcp = config.admin.listen.map(admin::bind_tcp).transpose()?;
        Ok(Self { udp, udp_address, proxies, admin_path, admin_socket, admin_tcp })
    }
}

impl StartError {
    pub(super) fn state(state: &StateDir, error: io::Error) -> Self {
        Self::Machine { path: state.path().to_owned(), error }
    }
}

fn explain_udp(config: &Config, error: &io::Error) -> String {
    let port = config.quic.listen_port.unwrap_or(0);
    match (error.kind(), config.quic.listen_address) {
        (io::ErrorKind::AddrInUse, _) => {
            let holder = holder::of_udp_port(port).unwrap_or_else(|| "another program".to_owned());
            format!("{holder} holds it; choose another quic.listen_port, or stop it")
        }
        (io::ErrorKind::AddrNotAvailable, Some(address)) => {
            format!(
                "{address} is no address of this machine; choose another quic.listen_address, or leave it out"
            )
        }
        (io::ErrorKind::PermissionDenied, _) if (1..1024).contains(&port) => {
            format!("{error}; ports below 1024 need root or the capability CAP_NET_BIND_SERVICE")
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Quic;

    #[test]
    fn a_udp_port_that_cannot_be_bound_is_explained_by_its_cause() {
        let held = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = held.local_addr().unwrap().port();
        let quic =
            Quic { listen_port: Some(port), listen_address: "192.0.2.1".parse().ok(), ..Quic::default() };
        let config = Config { quic, ..Config::default() };
        let said = |kind: io::ErrorKind| explain_udp(&config, &kind.into());
        let taken = said(io::ErrorKind::AddrInUse);
        assert!(taken.ends_with("holds it; choose another quic.listen_port, or stop it"), "{taken}");
        #[cfg(target_os = "linux")]
        assert!(taken.contains(&format!("(process {})", std::process::id())), "{taken}");
        let elsewhere = said(io::ErrorKind::AddrNotAvailable);
        assert!(elsewhere.starts_with("192.0.2.1 is no address of this machine"), "{elsewhere}");
        assert!(!said(io::ErrorKind::PermissionDenied).contains("1024"), "{port} is none of the low ports");
        let low = Config { quic: Quic { listen_port: Some(443), ..Quic::default() }, ..Config::default() };
        assert!(explain_udp(&low, &io::ErrorKind::PermissionDenied.into()).contains("ports below 1024"));
    }
}
