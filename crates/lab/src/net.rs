//! A network namespace.

use std::io;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::conn::{Conn, End};
use crate::lab::{ip, namespace_path, write_namespace_file};
use crate::process::{Outcome, run};

/// A network namespace of a [`Lab`](crate::Lab), which removes it at its end. Clones are the same namespace.
#[derive(Debug, Clone)]
pub struct Net(Arc<Names>);

#[derive(Debug)]
struct Names {
    unique: String,
    short: String,
}

impl Net {
    pub(crate) fn make(unique: String, short: String) -> Self {
        assert!(short.len() <= 11, "{short} is too long: interfaces have names of at most 15 characters");
        ip(&["netns", "add", &unique]);
        // No name server: a name that is not in the hosts file does not resolve, at once.
        write_namespace_file(&unique, "resolv.conf", "nameserver 127.0.0.1\noptions attempts:1 timeout:1\n");
        let net = Self(Arc::new(Names { unique, short }));
        net.inside(|| {
            for (key, value) in [("disable_ipv6", "0"), ("accept_dad", "0")] {
                for interface in ["all", "default", "lo"] {
                    let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{interface}/{key}"), value);
                }
            }
        });
        net.ip(&["link", "set", "lo", "up"]);
        net
    }

    /// Its name for ip(8), unique on this machine.
    pub fn name(&self) -> &str {
        &self.0.unique
    }

    /// The interface of the wire to another namespace.
    pub fn interface_to(&self, other: &Self) -> String {
        format!("to-{}", other.0.short)
    }

    /// A command whose process runs in here and sees the names of [`Net::hosts`].
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", self.name(), program]);
        command
    }

    /// Runs a command in here to its end, which comes within a minute.
    ///
    /// # Panics
    /// When it does not end.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Outcome {
        let mut command = self.command(program);
        command.args(arguments);
        run(command, Duration::from_mins(1))
    }

    /// Runs `work` on a thread in here. Sockets and threads made by it stay in here for their life.
    ///
    /// # Panics
    /// When `work` does.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let enter = || {
            let namespace = std::fs::File::open(namespace_path(self.name())).expect("the namespace exists");
            let namespace = std::os::fd::AsFd::as_fd(&namespace);
            move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network))
                .expect("enter the namespace");
            work()
        };
        std::thread::scope(|scope| match scope.spawn(enter).join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }

    /// Connects from in here to `127.0.0.1:80`, `[::1]:80` or `unix:/path`.
    pub fn connect(&self, address: &str) -> io::Result<Conn> {
        self.inside(|| Conn::open(address))
    }

    /// How a connection ends to which nothing is sent, and the time that it took. One that is reset at once may say so
    /// while it is being made.
    pub fn timed_end_of(&self, address: &str) -> io::Result<(End, Duration)> {
        let start = Instant::now();
        let end = match self.connect(address) {
            Ok(conn) => conn.end(),
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => End::Reset,
            Err(e) => return Err(e),
        };
        Ok((end, start.elapsed()))
    }

    /// Gives the processes in here a hosts file: these names, and `localhost`.
    ///
    /// A name given twice has two addresses. Processes that run already see it when there was such a file as they
    /// started.
    pub fn hosts(&self, entries: &[(&str, &str)]) {
        let mut text = "127.0.0.1 localhost\n::1 localhost\n".to_owned();
        for (name, address) in entries {
            text += &[*address, " ", *name, "\n"].concat();
        }
        write_namespace_file(self.name(), "hosts", &text);
    }

    /// Takes the IPv4 address of the loopback away, so that nothing but IPv6 works in here.
    pub fn without_ipv4(&self) {
        self.ip(&["-4", "address", "flush", "dev", "lo"]);
    }

    /// Takes the interface of a wire down or up. Addresses stay, IPv6 ones too.
    pub fn set_link(&self, to: &Self, up: bool) {
        let interface = self.interface_to(to);
        self.inside(|| {
            let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{interface}/keep_addr_on_down"), "1");
        });
        self.ip(&["link", "set", &interface, if up { "up" } else { "down" }]);
    }

    /// ip(8) in here.
    pub(crate) fn ip(&self, arguments: &[&str]) -> String {
        ip(&[&["-netns", self.name()], arguments].concat())
    }
}
