//! A configuration as JSON, with the keys and units of the file, and the defaults of what it leaves out.

use serde_json::{Value, json};

use super::value::{bytes, span};
use super::{Config, Congestion, Listen, LogFormat, Proxy, ProxyTarget, Quic, Service, Upstream};

impl Config {
    /// All keys and their values; null for what is not set and has no default. As JSON is YAML, a file with this in it
    /// says the same.
    pub fn values(&self) -> Value {
        json!({
            "node_id": self.node_id,
            "state_dir": self.state_dir.as_ref().map(|dir| dir.to_string_lossy()),
            "proxies": self.proxies.iter().map(proxy).collect::<Vec<_>>(),
            "services": self.services.iter().map(service).collect::<Vec<_>>(),
            "access": self.access.as_ref().map(|rules| rules.iter().map(rule).collect::<Vec<_>>()),
            "quic": quic(&self.quic),
            "mesh": {
                "transit": self.mesh.transit,
                "cost": self.mesh.cost,
                "hold": span(self.mesh.hold),
                "drain_timeout": span(self.mesh.drain_timeout),
            },
            "admin": { "listen": self.admin.listen, "hosts": self.admin.hosts },
            "log": {
                "level": self.log.level.to_string().to_ascii_lowercase(),
                "format": match self.log.format {
                    LogFormat::Text => "text",
                    LogFormat::Json => "json",
                },
            },
            "watch": self.watch,
        })
    }
}

fn proxy(proxy: &Proxy) -> Value {
    let mut value = json!({
        "name": proxy.name,
        "protocol": proxy.protocol.to_string(),
        "idle_timeout": proxy.idle_timeout.map(span),
    });
    match &proxy.listen {
        Listen::Port(ip, port) => {
            value["local_address"] = json!(ip);
            value["local_port"] = json!(port);
        }
        Listen::Unix(_) => value["local_address"] = json!(proxy.listen.to_string()),
    }
    match &proxy.target {
        Some(ProxyTarget::Address { node, target }) => {
            value["target_node_id"] = json!(node);
            value["target_address"] = json!(target.to_string());
        }
        Some(ProxyTarget::Service(service)) => value["target_service"] = json!(service),
        None => value["target_node_id"] = json!(proxy.exit),
    }
    value
}

fn service(service: &Service) -> Value {
    json!({
        "name": service.name,
        "address": service.target.to_string(),
        "protocol": service.protocol.to_string(),
        "allow": service.allow.as_ref().map(|allow| texts(allow)),
        "health_check": service.health_check.map(|interval| json!({ "interval": span(interval) })),
    })
}

fn rule(rule: &ffmesh_core::policy::Rule) -> Value {
    let action = match rule.action {
        ffmesh_core::policy::Action::Allow => "allow",
        ffmesh_core::policy::Action::Deny => "deny",
    };
    json!({ "from": texts(&rule.from), "to": texts(&rule.to), "action": action })
}

fn quic(quic: &Quic) -> Value {
    let congestion = match quic.congestion {
        Congestion::Auto => "auto",
        Congestion::Bbr => "bbr",
        Congestion::Cubic => "cubic",
        Congestion::NewReno => "newreno",
    };
    json!({
        "listen_port": quic.listen_port,
        "listen_address": quic.listen_address,
        "advertise": texts(&quic.advertise),
        "upstreams": quic.upstreams.iter().map(upstream).collect::<Vec<_>>(),
        "congestion": congestion,
        "keep_alive": span(quic.keep_alive),
        "stream_window": bytes(quic.stream_window.into()),
        "send_window": bytes(quic.send_window.into()),
        "mtu": quic.mtu,
        "max_flows": quic.max_flows,
        "flow_memory": bytes(quic.flow_memory),
        "max_links": quic.max_links,
    })
}

fn upstream(upstream: &Upstream) -> Value {
    let Upstream { name, node_id, address, cost } = upstream;
    json!({ "name": name, "node_id": node_id, "address": address.to_string(), "cost": cost })
}

fn texts<T: ToString>(items: &[T]) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::super::keys;
    use super::*;

    fn parse(text: &str) -> Config {
        Config::parse(text, None).unwrap_or_else(|problems| panic!("{problems}")).config
    }

    #[test]
    fn says_the_same_as_the_file() {
        let odd = "proxies:\n  - { local_port: 1, local_address: \"::\", protocol: udp, target_service: \"a \\\"b\\\" 主\" }\n\
                   services:\n  - { name: s, address: \"[::1]:5\", protocol: udp, allow: [\"*\", \"group:g\"] }\n\
                   access: []\nmesh: { hold: 1h30m, drain_timeout: 1500ms, transit: false }\n\
                   admin: { listen: \"[::1]:9\", hosts: [a.example] }\nlog: { level: trace, format: json }\nwatch: true\n\
                   quic: { congestion: newreno, stream_window: 65537, listen_address: \"127.0.0.1\", flow_memory: 1TiB }\n";
        let files = [
            "",
            odd,
            include_str!("../../../../docs/config.example.yaml"),
            include_str!("../../tests/seed/ffb213d4e5.yaml"),
            include_str!("../../tests/seed/121a93d4e5.yaml"),
            include_str!("../../tests/seed/88b2c4d4e5.yaml"),
        ];
        for file in files {
            let config = parse(file);
            let written = config.values().to_string();
            assert_eq!(parse(&written), config, "{written}");
        }
    }

    #[test]
    fn has_every_key_and_its_default() {
        let values = Config::default().values();
        let names = |value: &Value| -> Vec<String> {
            let mut names: Vec<_> = value.as_object().unwrap().keys().cloned().collect();
            names.sort();
            names
        };
        let known = |keys: &[&str]| {
            let mut keys: Vec<_> = keys.iter().map(|key| (*key).to_owned()).collect();
            keys.sort();
            keys
        };
        assert_eq!(names(&values), known(keys::ROOT));
        for (section, keys) in
            [("quic", keys::QUIC), ("mesh", keys::MESH), ("admin", keys::ADMIN), ("log", keys::LOG)]
        {
            assert_eq!(names(&values[section]), known(keys), "{section}");
        }
        assert_eq!(
            (&values["mesh"]["hold"], &values["quic"]["stream_window"]),
            (&json!("10m"), &json!("8MiB"))
        );
        assert_eq!((&values["log"]["level"], &values["quic"]["listen_port"]), (&json!("info"), &Value::Null));
    }
}
