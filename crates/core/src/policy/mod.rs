//! What may be dialled through a node, decided by the caller's authenticated identity.
//!
//! The egress resolves a name once, asks [`Policy::decide`] about each address that came out, and dials only
//! what was allowed. Nothing here resolves or dials.

mod address;
mod destination;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use address::Plain;
pub use destination::{Destination, DestinationError, Hosts, Ports};

use crate::id::{NameError, NodeId};
use crate::target::{Host, Target};

/// Who a rule speaks of: `*`, `group:NAME` or `node:ID`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// Every member
    Anyone,
    /// Members whose certificate names this group
    Group(String),
    /// One node
    Node(NodeId),
}

/// What a rule does with what it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// `allow`
    Allow,
    /// `deny`
    Deny,
}

/// One rule of the `access` section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Callers it speaks of.
    pub from: Vec<Subject>,
    /// What they ask for.
    pub to: Vec<Destination>,
    /// What it does then.
    pub action: Action,
}

/// A named service of this node, as far as the policy is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its name, for explanations.
    pub name: String,
    /// Where it is.
    pub target: Target,
    /// The addresses that the name in `target` has now; empty where it is no name, or they are not known yet.
    pub addresses: Vec<IpAddr>,
    /// Who may use it; `None` means every member.
    pub allow: Option<Vec<Subject>>,
}

/// FFMesh's own listeners on this node. No rule opens them: through a proxy of this node a caller would borrow
/// this node's identity.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Own {
    /// Bound TCP addresses. `0.0.0.0` stands for every IPv4 address of the host, `::` for every address.
    pub listeners: Vec<SocketAddr>,
    /// The addresses of the host's interfaces; loopback is known without being listed.
    pub addresses: Vec<IpAddr>,
    /// Paths of Unix sockets, the admin socket among them.
    pub unix: Vec<String>,
}

/// Who asks, by the certificate of the end-to-end session.
#[derive(Debug, Clone, Copy)]
pub struct Caller<'a> {
    /// The caller's node
    pub id: &'a NodeId,
    /// The groups that its certificate names
    pub groups: &'a [String],
}

/// The decision on one address or path.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// It may be dialled.
    Allow,
    /// It may not. The explanation is for this node's log; the caller learns only that policy refused.
    Deny(Denial),
}

/// Why something may not be dialled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// See [`Own`].
    #[error("it is a listener of FFMesh itself, which is never dialled through the mesh")]
    OwnListener,
    /// A translator in the network would turn the address into one that means something only there.
    #[error("it carries {0} inside an IPv6 address, which no translator may forward")]
    Translated(IpAddr),
    /// The address is in a special range and no rule names that range.
    #[error("it is {0}: that needs an access rule for exactly this address or range")]
    Special(&'static str),
    /// A rule with the action `deny`; counted from 1.
    #[error("access rule {0} denies it")]
    Rule(usize),
    /// No rule matched.
    #[error("no access rule allows it")]
    NoRule,
    /// There are no rules, and the target is not what is open without any.
    #[error("without an access section only loopback and named services of this node may be dialled")]
    NotLocal,
    /// The target is a named service whose `allow` leaves this caller out.
    #[error("service {0:?} does not list this caller in its allow")]
    Service(String),
}

/// What may be dialled through this node.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    access: Option<Vec<Rule>>,
    services: Vec<Service>,
    own: Own,
}

impl Policy {
    /// A policy of rules in order; without `access`, members may dial loopback and the named services.
    pub fn new(access: Option<Vec<Rule>>, services: Vec<Service>, own: Own) -> Self {
        Self { access, services, own }
    }

    /// Whether `caller` may dial `address` over TCP. `name` is the host name that it asked for, in lower case,
    /// where it asked for one that resolved to this address.
    pub fn decide(&self, caller: Caller<'_>, name: Option<&str>, address: SocketAddr) -> Verdict {
        let Plain { ip, translated } = address::plain(address.ip());
        let port = address.port();
        let special = address::special(ip);
        if self.own.covers(ip, port) {
            return Verdict::Deny(Denial::OwnListener);
        }
        if translated && (ip.is_loopback() || special.is_some()) {
            return Verdict::Deny(Denial::Translated(ip));
        }
        let services = self.services_at(name, ip, port);
        if let Some(denial) = refused_by_all(&services, caller) {
            return Verdict::Deny(denial);
        }
        let Some(rules) = &self.access else {
            return match special {
                Some(special) => Verdict::Deny(Denial::Special(special.what)),
                None if ip.is_loopback() || services.iter().any(|s| s.exact) => Verdict::Allow,
                None => Verdict::Deny(Denial::NotLocal),
            };
        };
        // A wide rule that would have allowed a special address makes the better explanation.
        let mut passed_over = false;
        let verdict = first_match(rules, caller, |destination, action| {
            let Destination::Port { hosts, ports } = destination else { return false };
            let hit = ports.contains(port)
                && match hosts {
                    Hosts::Any => true,
                    Hosts::Net(net) => net.contains(&ip),
                    Hosts::Name(wanted) => name == Some(wanted),
                };
            let Some(special) = special.filter(|_| hit && action == Action::Allow) else { return hit };
            let exact = matches!(hosts, Hosts::Net(net) if special.net.contains(net));
            passed_over |= !exact;
            exact
        });
        match (verdict, special) {
            (Verdict::Deny(Denial::NoRule), Some(special)) if passed_over => {
                Verdict::Deny(Denial::Special(special.what))
            }
            (verdict, _) => verdict,
        }
    }

    /// Whether `name` may be looked up for `caller`: only where one of its addresses could be allowed, so that nobody
    /// learns which names this node's resolver knows. `name` is in lower case.
    pub fn may_resolve(&self, caller: Caller<'_>, name: &str, port: u16) -> Verdict {
        let of_name =
            |s: &&Service| matches!(&s.target, Target::Port { host: Host::Name(own), .. } if own == name);
        let named: Vec<_> = self.services.iter().filter(of_name).collect();
        let at = |s: &&&Service| matches!(&s.target, Target::Port { port: at, .. } if *at == port);
        let here: Vec<_> = named.iter().filter(at).map(|service| Found { service, exact: true }).collect();
        if let Some(denial) = refused_by_all(&here, caller) {
            return Verdict::Deny(denial);
        }
        let Some(rules) = &self.access else {
            return if is_localhost(name) || !named.is_empty() {
                Verdict::Allow
            } else {
                Verdict::Deny(Denial::NotLocal)
            };
        };
        first_match(rules, caller, |destination, action| {
            let Destination::Port { hosts, ports } = destination else { return false };
            ports.contains(port)
                && match hosts {
                    Hosts::Any => true,
                    // The name may have an address in the network that is allowed, or one out of that denied.
                    Hosts::Net(_) => action == Action::Allow,
                    Hosts::Name(wanted) => wanted == name,
                }
        })
    }

    /// Whether `caller` may dial the Unix stream socket at `path`.
    pub fn decide_unix(&self, caller: Caller<'_>, path: &str) -> Verdict {
        // Components, so that `/run//a.sock` is `/run/a.sock`.
        let same =
            |own: &String| std::path::Path::new(own).components().eq(std::path::Path::new(path).components());
        if self.own.unix.iter().any(same) {
            return Verdict::Deny(Denial::OwnListener);
        }
        let at = |s: &&Service| matches!(&s.target, Target::Unix(own) if own == path);
        let services: Vec<_> =
            self.services.iter().filter(at).map(|service| Found { service, exact: true }).collect();
        if let Some(denial) = refused_by_all(&services, caller) {
            return Verdict::Deny(denial);
        }
        match &self.access {
            None if services.is_empty() => Verdict::Deny(Denial::NotLocal),
            None => Verdict::Allow,
            Some(rules) => first_match(
                rules,
                caller,
                |destination, _| matches!(destination, Destination::Unix(wanted) if wanted == path),
            ),
        }
    }

    /// The named services that a connection to this address reaches. A service on this machine is taken to be behind
    /// every address of the machine with its port, as its program may listen on all of them and `allow` must not be
    /// got round by `127.0.0.2`; one whose address is exactly this goes first. So is a name whose addresses are not
    /// known yet.
    fn services_at(&self, name: Option<&str>, ip: IpAddr, port: u16) -> Vec<Found<'_>> {
        let mut at_address = Vec::new();
        let mut beside = Vec::new();
        for service in &self.services {
            let Target::Port { host, port: at } = &service.target else { continue };
            if *at != port {
                continue;
            }
            let addresses = service.addresses.iter().map(|own| address::plain(*own).ip);
            let (exact, same, local) = match host {
                Host::Ip(own) => {
                    let own = address::plain(*own).ip;
                    (own == ip, own == ip, self.own.has(own))
                }
                Host::Name(own) => (
                    name == Some(own),
                    name == Some(own) || addresses.clone().any(|own| own == ip),
                    service.addresses.is_empty()
                        || is_localhost(own)
                        || addresses.clone().any(|own| self.own.has(own)),
                ),
            };
            if same {
                at_address.push(Found { service, exact });
            } else if local && self.own.has(ip) {
                beside.push(Found { service, exact: false });
            }
        }
        if at_address.is_empty() { beside } else { at_address }
    }
}

/// A service that a connection would reach.
struct Found<'a> {
    service: &'a Service,
    /// Its target is the very address or name that was asked for.
    exact: bool,
}

/// The denial where there are services and none of them takes the caller.
fn refused_by_all(services: &[Found<'_>], caller: Caller<'_>) -> Option<Denial> {
    let admits = |found: &Found<'_>| {
        found.service.allow.as_ref().is_none_or(|allow| allow.iter().any(|s| s.covers(caller)))
    };
    let first = services.first()?;
    (!services.iter().any(admits)).then(|| Denial::Service(first.service.name.clone()))
}

/// The decision of the first rule for this caller of which `hit` says that it speaks of the target.
fn first_match(
    rules: &[Rule],
    caller: Caller<'_>,
    mut hit: impl FnMut(&Destination, Action) -> bool,
) -> Verdict {
    for (i, rule) in rules.iter().enumerate() {
        let asks = rule.from.iter().any(|subject| subject.covers(caller));
        if asks && rule.to.iter().any(|destination| hit(destination, rule.action)) {
            return match rule.action {
                Action::Allow => Verdict::Allow,
                Action::Deny => Verdict::Deny(Denial::Rule(i + 1)),
            };
        }
    }
    Verdict::Deny(Denial::NoRule)
}

/// Names that mean loopback whatever DNS says (RFC 6761, section 6.3).
fn is_localhost(name: &str) -> bool {
    name == "localhost" || name.ends_with(".localhost")
}

impl Own {
    /// Whether a connection to this address stays on this machine. The system takes one to an unspecified address to
    /// be one to itself.
    fn has(&self, ip: IpAddr) -> bool {
        ip.is_loopback() || ip.is_unspecified() || self.addresses.iter().any(|a| address::plain(*a).ip == ip)
    }

    /// Whether a TCP connection to this address ends at one of these listeners.
    fn covers(&self, ip: IpAddr, port: u16) -> bool {
        self.listeners.iter().any(|listener| {
            let own = address::plain(listener.ip()).ip;
            listener.port() == port
                && (own == ip
                    || ip.is_unspecified()
                    || (own.is_unspecified() && (own.is_ipv6() || ip.is_ipv4()) && self.has(ip)))
        })
    }
}

impl Subject {
    /// Whether it speaks of `caller`.
    pub fn covers(&self, caller: Caller<'_>) -> bool {
        match self {
            Self::Anyone => true,
            Self::Group(group) => caller.groups.contains(group),
            Self::Node(id) => caller.id == id,
        }
    }
}

impl Verdict {
    /// Whether it is [`Verdict::Allow`].
    pub fn is_allow(&self) -> bool {
        *self == Self::Allow
    }
}

/// Why a subject was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubjectError {
    /// None of the three forms.
    #[error("names nobody: expected \"*\" for every member, group:NAME or node:ID")]
    Form,
    /// The group's name is empty or has control characters.
    #[error("has the group {0:?}: a group's name has 1 to 64 characters and no control characters")]
    Group(String),
    /// The node's id can't be one.
    #[error("has a node id that {0}")]
    Node(#[from] NameError),
}

impl FromStr for Subject {
    type Err = SubjectError;

    fn from_str(text: &str) -> Result<Self, SubjectError> {
        if text == "*" {
            return Ok(Self::Anyone);
        }
        match text.split_once(':') {
            Some(("group", name)) => {
                let fits = (1..=64).contains(&name.chars().count()) && !name.contains(char::is_control);
                if fits {
                    Ok(Self::Group(name.to_owned()))
                } else {
                    Err(SubjectError::Group(name.to_owned()))
                }
            }
            Some(("node", id)) => Ok(Self::Node(id.parse()?)),
            _ => Err(SubjectError::Form),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anyone => f.write_str("*"),
            Self::Group(name) => write!(f, "group:{name}"),
            Self::Node(id) => write!(f, "node:{id}"),
        }
    }
}
