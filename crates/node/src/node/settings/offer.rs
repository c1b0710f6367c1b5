//! What this node listens on and offers: the file's proxies and services, and those that were added at run time.

use std::net::SocketAddr;

use ffmesh_api::Origin;
use ffmesh_core::id::NodeId;

use crate::config::{Config, Proxy, ProxyTarget, Service};
use crate::session::MAX_AHEAD;

/// A proxy or a service of this node.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::node) struct Offered<T> {
    pub(in crate::node) item: T,
    pub(in crate::node) origin: Origin,
    /// Why it does not listen, or is not offered
    pub(in crate::node) error: Option<String>,
}

impl<T> Offered<T> {
    fn new(item: T, origin: Origin, error: Option<String>) -> Self {
        Self { item, origin, error }
    }
}

/// The file's proxies, then the others. One of those that is in the way of the file, or of one before it, does not listen.
pub(super) fn proxies<'a>(
    config: &Config,
    runtime: impl IntoIterator<Item = &'a Proxy>,
) -> Vec<Offered<Proxy>> {
    let unserved = |proxy: &Proxy| (!proxy.is_served()).then(|| UNSERVED.to_owned());
    let of_file = config.proxies.iter();
    let mut all: Vec<_> =
        of_file.map(|proxy| Offered::new(proxy.clone(), Origin::File, unserved(proxy))).collect();
    for proxy in runtime {
        let error = proxy_conflict(proxy, &all, config.admin.listen).or_else(|| unserved(proxy));
        all.push(Offered::new(proxy.clone(), Origin::Runtime, error));
    }
    all
}

/// The file's services, then the others. One of those that has a name of the file's is not offered.
pub(super) fn services<'a>(
    config: &Config,
    runtime: impl IntoIterator<Item = &'a Service>,
) -> Vec<Offered<Service>> {
    let of_file = config.services.iter();
    let mut all: Vec<_> = of_file.map(|service| Offered::new(service.clone(), Origin::File, None)).collect();
    for service in runtime {
        let error = service_conflict(service, &all);
        all.push(Offered::new(service.clone(), Origin::Runtime, error));
    }
    all
}

/// The other nodes that proxies lead to, each once, as many as sessions are kept with before a flow asks.
pub(super) fn nodes_ahead<'a>(own: &NodeId, proxies: impl Iterator<Item = &'a Proxy>) -> Vec<NodeId> {
    let mut nodes = Vec::new();
    for proxy in proxies {
        if let Some(ProxyTarget::Address { node, .. }) = &proxy.target
            && node != own
            && !nodes.contains(node)
            && nodes.len() < MAX_AHEAD
        {
            nodes.push(node.clone());
        }
    }
    nodes
}

/// What is said of a proxy of a kind that does not listen.
pub(super) const UNSERVED: &str = "this version does not serve proxies of this kind";

/// What keeps a proxy from standing beside others, and what to do.
pub(super) fn proxy_conflict(
    proxy: &Proxy,
    others: &[Offered<Proxy>],
    admin: Option<SocketAddr>,
) -> Option<String> {
    if let Some(other) = others.iter().find(|other| other.item.name == proxy.name) {
        let whose = whose(other.origin);
        return Some(format!("a proxy {whose} is called {:?}: choose another name", proxy.name));
    }
    let listens = others.iter().filter(|other| other.error.is_none());
    if let Some(other) = listens.clone().find(|other| other.item.overlaps(proxy)) {
        let (whose, name, listen) = (whose(other.origin), &other.item.name, &other.item.listen);
        return Some(format!(
            "{} is taken: the proxy {name:?} {whose} listens on {listen}; choose another local_port or local_address",
            proxy.listen
        ));
    }
    let admin = admin.filter(|admin| proxy.overlaps_tcp(*admin))?;
    Some(format!("{} is taken by admin.listen, {admin}; choose another local_port", proxy.listen))
}

/// The same of a service.
pub(super) fn service_conflict(service: &Service, others: &[Offered<Service>]) -> Option<String> {
    let other = others.iter().find(|other| other.item.name == service.name)?;
    let whose = whose(other.origin);
    Some(format!("a service {whose} is called {:?}: choose another name", service.name))
}

fn whose(origin: Origin) -> &'static str {
    match origin {
        Origin::File => "of the configuration file",
        Origin::Runtime => "that was added at run time",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(name: &str, local: &str) -> Proxy {
        let text =
            format!("{{ name: {name}, {local}, target_node_id: b, target_address: \"127.0.0.1:80\" }}");
        Proxy::parse(&text).unwrap_or_else(|problems| panic!("{problems}"))
    }

    #[test]
    fn what_is_in_the_way_of_the_file_does_not_listen() {
        let config = Config {
            proxies: vec![
                proxy("web", "local_port: 80"),
                proxy("all", "local_port: 90, local_address: \"::\""),
            ],
            admin: crate::config::Admin { listen: "127.0.0.1:9464".parse().ok(), ..Default::default() },
            ..Config::default()
        };
        let runtime = [
            proxy("web", "local_port: 81"),
            proxy("same", "local_port: 80"),
            proxy("under", "local_port: 90"),
            proxy("admin", "local_port: 9464"),
            proxy("free", "local_port: 81"),
            proxy("late", "local_port: 81"),
        ];
        let all = proxies(&config, &runtime);
        let errors: Vec<_> = all.iter().map(|offered| offered.error.as_deref().unwrap_or_default()).collect();
        assert_eq!(errors[..2], ["", ""]);
        for (error, part) in
            errors[2..].iter().zip(["\"web\"", "\"web\"", "\"all\"", "admin.listen", "", "\"free\""])
        {
            assert!(error.contains(part) && error.is_empty() == part.is_empty(), "{error:?} has no {part:?}");
        }
        assert!(all.iter().skip(2).all(|offered| offered.origin == Origin::Runtime));
    }

    #[test]
    fn sessions_ahead_are_with_each_other_node_once_and_bounded() {
        let to = |node: &str| {
            let text = format!(
                "{{ name: p, local_port: 80, target_node_id: {node}, target_address: \"127.0.0.1:80\" }}"
            );
            Proxy::parse(&text).unwrap_or_else(|problems| panic!("{problems}"))
        };
        let own: NodeId = "a".parse().unwrap();
        let some = ["b", "a", "c", "b"].map(to);
        let nodes = nodes_ahead(&own, some.iter());
        assert_eq!(nodes.iter().map(NodeId::as_str).collect::<Vec<_>>(), ["b", "c"]);
        let many: Vec<_> = (0..MAX_AHEAD + 5).map(|n| to(&format!("n{n}"))).collect();
        let nodes = nodes_ahead(&own, many.iter());
        assert_eq!(nodes.len(), MAX_AHEAD);
        assert_eq!(nodes[0].as_str(), "n0", "those that stand first in the file");
    }

    #[test]
    fn a_kind_that_is_not_served_is_told() {
        let udp = proxy("u", "local_port: 1, protocol: udp");
        assert_eq!(proxies(&Config::default(), [&udp])[0].error.as_deref(), Some(UNSERVED));
    }

    #[test]
    fn a_service_has_its_name_alone() {
        let service =
            |name: &str| Service::parse(&format!("{{ name: {name}, address: \"127.0.0.1:80\" }}")).unwrap();
        let config = Config { services: vec![service("web")], ..Config::default() };
        let runtime = [service("web"), service("db")];
        let all = services(&config, &runtime);
        let offered: Vec<_> = all.iter().map(|offered| offered.error.is_none()).collect();
        assert_eq!(offered, [true, false, true]);
    }
}
