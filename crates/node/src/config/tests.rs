use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use proptest::prelude::*;

use super::*;

const EXAMPLE: &str = include_str!("../../../../docs/config.example.yaml");
const SEEDS: [(&str, &str); 3] = [
    ("ffb213d4e5", include_str!("../../tests/seed/ffb213d4e5.yaml")),
    ("121a93d4e5", include_str!("../../tests/seed/121a93d4e5.yaml")),
    ("88b2c4d4e5", include_str!("../../tests/seed/88b2c4d4e5.yaml")),
];

fn parse(text: &str) -> Config {
    Config::parse(text, None).unwrap_or_else(|problems| panic!("{problems}")).config
}

/// The problems of `text` as a user reads them.
fn problems(text: &str) -> String {
    match Config::parse(text, Some(Path::new("c.yaml"))) {
        Ok(loaded) => panic!("{text:?} was accepted: {loaded:?}"),
        Err(problems) => problems.to_string(),
    }
}

fn warnings(text: &str) -> Vec<String> {
    let loaded = Config::parse(text, Some(Path::new("c.yaml"))).unwrap();
    loaded.warnings.iter().map(ToString::to_string).collect()
}

fn address_proxy(name: &str, port: u16, node: &str, target: &str) -> Proxy {
    Proxy {
        name: name.into(),
        listen: Listen::Port(Ipv4Addr::LOCALHOST.into(), port),
        protocol: Protocol::Tcp,
        target: Some(ProxyTarget::Address { node: node.parse().unwrap(), target: target.parse().unwrap() }),
        exit: None,
        idle_timeout: None,
    }
}

fn upstream(name: &str, node: &str, host: &str) -> Upstream {
    let address = Address { host: host.parse().unwrap(), port: 3334 };
    Upstream { name: name.into(), node_id: node.parse().unwrap(), address, cost: 0 }
}

#[test]
fn reads_the_seeds_files_without_a_warning() {
    for (id, text) in SEEDS {
        let loaded = Config::parse(text, None).unwrap();
        assert_eq!(loaded.warnings, [], "{id}");
        assert_eq!(loaded.config.node_id.unwrap().as_str(), id);
    }
    let [ff, client, server] = SEEDS.map(|(_, text)| parse(text));
    assert_eq!(
        ff.proxies,
        [
            address_proxy("web-service", 3333, "88b2c4d4e5", "127.0.0.1:80"),
            address_proxy("远程 SSH", 2222, "121a93d4e5", "127.0.0.1:22"),
        ]
    );
    assert_eq!(ff.quic, Quic { listen_port: Some(3334), ..Quic::default() });
    assert_eq!(
        client.proxies,
        [
            address_proxy("上级一的网页", 8001, "ffb213d4e5", "127.0.0.1:80"),
            address_proxy("上级二的网页", 8002, "88b2c4d4e5", "127.0.0.1:8080"),
        ]
    );
    let upstreams = vec![
        upstream("上级节点 一", "ffb213d4e5", "192.0.2.1"),
        upstream("上级节点 二", "88b2c4d4e5", "node2.example.com"),
    ];
    assert_eq!(client.quic, Quic { upstreams, ..Quic::default() });
    let upstreams = vec![upstream("upstream-1", "parent-node-id", "[2001:db8::1]")];
    assert_eq!(server.quic, Quic { listen_port: Some(3334), upstreams, ..Quic::default() });
    assert_eq!(server.proxies, []);
}

#[test]
fn reads_the_example() {
    let loaded = Config::parse(EXAMPLE, None).unwrap_or_else(|problems| panic!("{problems}"));
    let config = loaded.config;
    assert_eq!(config.proxies.len(), 4);
    assert_eq!(config.proxies.iter().filter(|proxy| proxy.is_served()).count(), 2);
    assert_eq!(config.proxies[1].listen, Listen::Unix("/run/ffmesh/docker.sock".into()));
    assert_eq!(config.proxies[3].exit, Some("88b2c4d4e5".parse().unwrap()));
    assert_eq!(config.access.as_ref().map(Vec::len), Some(3));
    assert_eq!(config.services[0].health_check, Some(Duration::from_secs(5)));
    // What it shows as defaults are the defaults.
    let shown = Quic {
        listen_port: Some(3334),
        listen_address: Some(Ipv6Addr::UNSPECIFIED.into()),
        advertise: config.quic.advertise.clone(),
        upstreams: config.quic.upstreams.clone(),
        ..Quic::default()
    };
    assert_eq!(config.quic, shown);
    assert_eq!((config.mesh, config.log, config.watch), (Mesh::default(), Log::default(), false));
}

#[test]
fn the_example_shows_every_key() {
    let all = [
        keys::ROOT,
        keys::PROXY,
        keys::SERVICE,
        keys::HEALTH_CHECK,
        keys::RULE,
        keys::QUIC,
        keys::UPSTREAM,
        keys::MESH,
        keys::ADMIN,
        keys::LOG,
    ];
    for key in all.concat() {
        let shown = EXAMPLE.lines().any(|line| {
            let line = line.trim_start().trim_start_matches("- ");
            line.starts_with(&format!("{key}:")) || line.contains(&format!("{{ {key}:"))
        });
        assert!(shown, "{key} is not in docs/config.example.yaml");
    }
}

#[test]
fn what_is_empty_is_not_set() {
    for text in
        ["", "---", "# only a comment\n", "{}", "\u{feff}", "null", "node_id: \"\"", "proxies:\nquic:\n"]
    {
        assert_eq!(parse(text), Config::default(), "{text:?}");
    }
    assert_eq!(parse("access: []").access, Some(vec![]));
    assert_eq!(parse("access:").access, None);
    assert_eq!(parse("\u{feff}watch: false"), Config::default());
}

#[test]
fn ids_are_text_however_they_look() {
    for id in ["1234567890", "88e2", "0x10", "010", "true", "1_000", "88E2"] {
        assert_eq!(parse(&format!("node_id: {id}")).node_id.unwrap().as_str(), id.to_lowercase(), "{id}");
    }
}

#[test]
fn listens_where_it_is_told() {
    let listen = |lines: &str| {
        let text = format!("proxies: [{{ {lines}, target_node_id: a, target_address: 'h:1' }}]");
        parse(&text).proxies[0].listen.clone()
    };
    let port = |ip: IpAddr| Listen::Port(ip, 80);
    assert_eq!(listen("local_port: 80"), port(Ipv4Addr::LOCALHOST.into()));
    assert_eq!(listen("local_port: '80', local_address: ''"), port(Ipv4Addr::LOCALHOST.into()));
    assert_eq!(listen("local_port: 80, local_address: 0.0.0.0"), port(Ipv4Addr::UNSPECIFIED.into()));
    assert_eq!(listen("local_port: 80, local_address: '::'"), port(Ipv6Addr::UNSPECIFIED.into()));
    assert_eq!(listen("local_address: 'unix:/run/a.sock'"), Listen::Unix("/run/a.sock".into()));
}

#[test]
fn upstreams_without_a_name_are_told_apart() {
    let lines = [
        "node_id: a",
        "node_id: a",
        "name: b, node_id: a",
        "node_id: b",
        "name: a-2, node_id: c",
        "node_id: a",
    ];
    let lines = lines.iter().enumerate().map(|(i, line)| format!("    - {{ {line}, address: 'h{i}:1' }}\n"));
    let config = parse(&format!("quic:\n  upstreams:\n{}", lines.collect::<String>()));
    let names: Vec<_> = config.quic.upstreams.iter().map(|upstream| upstream.name.as_str()).collect();
    assert_eq!(names, ["a", "a-3", "b", "b-2", "a-2", "a-4"]);
}

#[test]
fn aliases_repeat_what_they_name() {
    let config = parse(
        "proxies:\n  - &p { local_port: 1, target_node_id: &n a, target_address: 'h:1' }\n  - { local_port: 2, \
         target_node_id: *n, target_address: 'h:1' }\n",
    );
    assert_eq!(
        config.proxies,
        [address_proxy("proxy-1", 1, "a", "h:1"), address_proxy("proxy-2", 2, "a", "h:1")]
    );
}

/// A file and its problems word for word.
const WRONG: &[(&str, &str)] = &[
    (
        "proxies:\n  - name: web\n    local_prot: 3333\n    target_node_id: a\n    target_address: h:1\n",
        "c.yaml:2:5: proxies[0].local_port: is missing: expected the port to listen on, from 1 to 65535\n\
         c.yaml:3:5: proxies[0].local_prot: unknown key `local_prot`, did you mean `local_port`?",
    ),
    ("listen_port: 1", "c.yaml:1:1: listen_port: unknown key `listen_port`: it belongs under `quic`"),
    ("log: { colour: 1 }", "c.yaml:1:8: log.colour: unknown key `colour`: expected one of level, format"),
    (
        "node_id: a.b",
        "c.yaml:1:10: node_id: \"a.b\" has the character '.': a name has only a-z, 0-9, _ and -",
    ),
    ("node_id: [a]", "c.yaml:1:10: node_id: is a list: expected one value"),
    (
        "- a",
        "c.yaml:1:1: is a list: expected a section with the keys node_id, state_dir, proxies, services, access, quic, mesh, admin, log, watch",
    ),
    (
        "proxies:\n  name: web\n",
        "c.yaml:2:3: proxies: is a section: expected a list, a line that starts with `- ` for each item",
    ),
    ("watch: yes", "c.yaml:1:8: watch: \"yes\": expected true or false"),
    (
        "log: { level: wran }",
        "c.yaml:1:15: log.level: \"wran\": expected one of error, warn, info, debug, trace, did you mean `warn`?",
    ),
    (
        "quic: { listen_port: 70000, mtu: 1e3 }",
        "c.yaml:1:22: quic.listen_port: \"70000\": expected a whole number from 1 to 65535\n\
         c.yaml:1:34: quic.mtu: \"1e3\": expected a whole number from 1200 to 9000",
    ),
    (
        "mesh:\n  hold: 10\n  drain_timeout: 2h\n",
        "c.yaml:2:9: mesh.hold: \"10\" has no unit: expected a duration such as 200ms, 5s or 10m, from 0s to 1d\n\
         c.yaml:3:18: mesh.drain_timeout: \"2h\": expected a duration such as 200ms, 5s or 10m, from 0s to 1h",
    ),
    (
        "quic: { stream_window: 4M }",
        "c.yaml:1:24: quic.stream_window: \"4M\": expected a size such as 4MiB or a number of bytes, from 64KiB to 64MiB",
    ),
    (
        "node_id: a\nquic:\n  upstreams:\n    - { name: 上级, node_id: A, address: 'h' }\n",
        "c.yaml:4:28: quic.upstreams[0].node_id: \"a\" is this node's own id: expected the id of another node\n\
         c.yaml:4:40: quic.upstreams[0].address: \"h\" has no port: expected host:port, [v6 address]:port or unix:/path",
    ),
    (
        "quic: { upstreams: [{ node_id: b, address: '[fe80::1%eth0]:1' }] }",
        "c.yaml:1:44: quic.upstreams[0].address: \"[fe80::1%eth0]:1\" has a zone, which is not supported: expected host:port or [v6 address]:port",
    ),
    (
        "proxies:\n  - { local_port: 1, target_node_id: a, target_address: 'h:1' }\n  - { local_port: 1, local_address: '::', target_node_id: a, target_address: 'h:1' }\n",
        "c.yaml:3:19: proxies[1].local_port: listens on [::]:1, which overlaps with 127.0.0.1:1 of `proxies[0].local_port` on line 2",
    ),
    (
        "proxies:\n  - { name: a, local_port: 1, target_node_id: a, target_address: 'h:1' }\n  - { name: a, local_port: 1, target_node_id: a, target_address: 'h:1' }\n",
        "c.yaml:3:13: proxies[1].name: a second proxy \"a\": the first is `proxies[0].name` on line 2\n\
         c.yaml:3:28: proxies[1].local_port: listens on 127.0.0.1:1, which is taken by `proxies[0].local_port` on line 2",
    ),
    (
        "proxies:\n  - { local_address: \"unix:/a\\nb\", target_node_id: a, target_address: 'h:1' }\n  - { local_address: \"unix:/a\\nb\", target_node_id: a, target_address: 'h:1' }\n",
        "c.yaml:3:22: proxies[1].local_address: listens on unix:/a\\nb, which is taken by `proxies[0].local_address` on line 2",
    ),
    (
        "proxies: [{ local_port: 1, target_node_id: a, target_service: s }]",
        "c.yaml:1:44: proxies[0].target_node_id: has no meaning beside `target_service`: leave one of them out",
    ),
    (
        "proxies: [{ local_port: 1, local_address: 'unix:/a', target_node_id: a, target_address: 'unix:b' }]",
        "c.yaml:1:25: proxies[0].local_port: has no meaning beside a Unix socket in `local_address`: leave one of them out\n\
         c.yaml:1:89: proxies[0].target_address: \"unix:b\" has the path \"b\": expected an absolute path of at most 107 bytes",
    ),
    (
        "proxies: [{ local_port: 1, local_address: '127.0.0.1:1', target_node_id: a }]",
        "c.yaml:1:11: proxies[0].target_address: is missing: expected what that node dials, host:port or unix:/path\n\
         c.yaml:1:43: proxies[0].local_address: \"127.0.0.1:1\" has a port, which has a key of its own: expected an IP address such as 127.0.0.1, ::1, 0.0.0.0 or ::, or unix:/path",
    ),
    (
        "access: [{ from: all, to: ['10.0.0.1/8:80', '10.0.0.1'], action: permit }]",
        "c.yaml:1:18: access[0].from: \"all\" names nobody: expected \"*\" for every member, group:NAME or node:ID\n\
         c.yaml:1:28: access[0].to[0]: \"10.0.0.1/8:80\" has the network 10.0.0.1/8, whose address has bits beyond its prefix: did you mean 10.0.0.0/8?\n\
         c.yaml:1:45: access[0].to[1]: \"10.0.0.1\" has no ports: expected CIDR:ports, [v6 CIDR]:ports, name:ports, *:ports or unix:/path; * is every port\n\
         c.yaml:1:66: access[0].action: \"permit\": expected one of allow, deny",
    ),
    (
        "admin: { hosts: ['h:80'] }",
        "c.yaml:1:18: admin.hosts[0]: \"h:80\": expected a host name without a port such as console.example.com",
    ),
    (
        "admin: { listen: ':80' }",
        "c.yaml:1:18: admin.listen: \":80\": expected an IP address and a port such as 127.0.0.1:9464 or [::1]:9464",
    ),
    ("log:\n  level: info\nlog:\n", "c.yaml:3:1: log: duplicate key `log`: it stands on line 1 already"),
    (
        "state_dir: ~/ffmesh",
        "c.yaml:1:12: state_dir: \"~/ffmesh\" starts with ~, which only a shell replaces: write the whole path",
    ),
    ("node_id: !me a", "c.yaml:1:10: the tag `!me` means nothing here: leave it out"),
    ("watch: false\n---\nwatch: true\n", "c.yaml:2:1: a second document starts here: expected one in a file"),
    ("access: &a [*a]", "c.yaml:1:13: this alias repeats the value that it stands in"),
];

#[test]
fn says_what_is_wrong_and_where() {
    for (text, expected) in WRONG {
        assert_eq!(problems(text), *expected, "in {text:?}");
    }
}

#[test]
fn passes_on_what_the_parser_says() {
    let tab = problems("quic:\n\tlisten_port: 1\n");
    assert!(tab.starts_with("c.yaml:2:") && tab.ends_with("indent with spaces"), "{tab}");
    let star = problems("access:\n  - { from: [*], to: [], action: allow }\n");
    assert!(star.starts_with("c.yaml:2:") && star.ends_with("in quotes, as in \"*\""), "{star}");
    assert!(problems("node_id: \"a").starts_with("c.yaml:1:"));
}

#[test]
fn warns_of_each_thing_that_comes_later() {
    let text = "proxies:
  - { local_port: 1, protocol: udp, target_node_id: a, target_address: 'h:1' }
  - { local_port: 1, target_service: web }
services:
  - { name: web, address: 'h:1', health_check: {} }
admin: { listen: '127.0.0.1:2' }
watch: true
";
    let places =
        ["2:32: proxies[0].protocol", "3:38: proxies[1].target_service", "5:48: services[0].health_check"];
    let warnings = warnings(text);
    assert_eq!(
        warnings[0],
        "c.yaml:2:32: proxies[0].protocol: `udp` is not there yet in this version: this proxy will not listen"
    );
    assert_eq!(warnings.len(), places.len(), "{warnings:#?}");
    for (warning, place) in warnings.iter().zip(places) {
        assert!(warning.starts_with(&format!("c.yaml:{place}: ")), "{warning}");
    }
    assert_eq!(self::warnings("mesh: { transit: true, cost: 1 }\nwatch: true\n"), [""; 0]);
}

#[test]
fn an_entry_that_stands_alone_is_checked_as_in_the_file() {
    let json = r#"{"name":"主 \"a\"","local_port":81,"target_node_id":"b","target_address":"127.0.0.1:80"}"#;
    assert_eq!(Proxy::parse(json), Ok(address_proxy("主 \"a\"", 81, "b", "127.0.0.1:80")));
    let told = |problems: Problems| problems.to_string();
    for (text, said) in [
        (
            r#"{"local_port":0}"#,
            "configuration:1:15: local_port: \"0\": expected a whole number from 1 to 65535",
        ),
        (
            r#"{"local_port":1,"target_service":"w"}"#,
            "configuration:1:1: name: is missing: expected the name of the proxy",
        ),
        (
            r#"{"name":"a\u0007","local_port":1,"target_service":"w"}"#,
            "configuration:1:9: name: \"a\\u{7}\" has a control",
        ),
        ("", "configuration: is empty: expected a section"),
        ("[]", "configuration:1:1: is a list: expected a section with the keys name, local_port"),
    ] {
        let problems = told(Proxy::parse(text).unwrap_err());
        assert!(problems.contains(said), "{text}: {problems}");
    }
    assert_eq!(Service::parse("{name: web, address: '[::1]:5'}").unwrap().name, "web");
    let problems = told(Service::parse(r#"{"address":"x"}"#).unwrap_err());
    assert!(problems.contains("1:1: name: is missing") && problems.contains("1:12: address: "), "{problems}");
}

#[test]
fn proxies_overlap_as_the_system_sees_it() {
    let at = |listen: &str| {
        let text = format!("{{ name: a, {listen}, target_node_id: b, target_address: \"h:1\" }}");
        Proxy::parse(&text).unwrap_or_else(|problems| panic!("{problems}"))
    };
    let loopback = at("local_port: 80");
    for (other, overlaps) in [
        ("local_port: 80, local_address: '::'", true),
        ("local_port: 80, local_address: '0.0.0.0'", true),
        ("local_port: 80, local_address: '127.0.0.2'", false),
        ("local_port: 80, protocol: udp", false),
        ("local_port: 81", false),
        ("local_address: 'unix:/a'", false),
    ] {
        assert_eq!(loopback.overlaps(&at(other)), overlaps, "{other}");
    }
    assert!(loopback.overlaps_tcp("127.0.0.1:80".parse().unwrap()));
    assert!(at("local_address: 'unix:/a'").overlaps(&at("local_address: 'unix:/a'")));
}

#[test]
fn says_why_a_file_cannot_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let load = |name: &str, bytes: Option<&[u8]>| {
        let path = dir.path().join(name);
        if let Some(bytes) = bytes {
            std::fs::write(&path, bytes).unwrap();
        }
        let problems = Config::load(&path).unwrap_err().to_string();
        problems.strip_prefix(&path.display().to_string()).unwrap().to_owned()
    };
    assert_eq!(load("none.yaml", None), ": there is no such file: check the path");
    assert_eq!(load("", None), ": is a directory: name the file in it");
    assert_eq!(load("u16", Some(b"\xff\xfea\0")), ": is UTF-16: save it as UTF-8");
    assert_eq!(load("latin1", Some(b"a: 1\nb: \xe9")), ":2:4: is not UTF-8 from here on: save it as UTF-8");
    let large = load("large", Some(&vec![b'#'; (1 << 20) + 1]));
    assert_eq!(large, ": is larger than 1 MiB: this is no configuration of a node");
    std::fs::write(dir.path().join("good"), SEEDS[0].1).unwrap();
    let good = Config::load(&dir.path().join("good")).unwrap().config;
    assert_eq!(good.path, Some(dir.path().join("good")));
}

#[test]
fn bounds_what_a_small_file_can_become() {
    let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1..30 {
        let nine = vec![format!("*a{}", i - 1); 9].join(", ");
        writeln!(laughs, "a{i}: &a{i} [{nine}]").unwrap();
    }
    assert!(problems(&laughs).contains("more than 100000 values"));
    let mut deep = "a0: &a0 [x]\n".to_owned();
    for i in 1..1_000 {
        writeln!(deep, "a{i}: &a{i} [*a{}]", i - 1).unwrap();
    }
    assert!(problems(&deep).contains("nested deeper than 32 levels"));
    assert!(problems(&"[".repeat(1 << 19)).starts_with("c.yaml:1:"));
    assert!(problems(&"- ".repeat(1 << 19)).starts_with("c.yaml:1:"));
    let many = problems(&(0..500).fold(String::new(), |text, i| text + &format!("x{i}: 1\n")));
    assert!(many.ends_with("c.yaml: and 400 more problems"), "{many}");
}

/// A text with `cut` bytes at `at` replaced, brought back to UTF-8.
fn mutated(text: &str, edits: &[(usize, usize, Vec<u8>)]) -> String {
    let mut bytes = text.as_bytes().to_vec();
    for (at, cut, put) in edits {
        let at = at % (bytes.len() + 1);
        let end = (at + cut).min(bytes.len());
        bytes.splice(at..end, put.iter().copied());
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn edits() -> impl Strategy<Value = Vec<(usize, usize, Vec<u8>)>> {
    let near = prop::sample::select(b"\n\t :-#'\"[]{}&*!|>%@?,~0129ax\xff".to_vec());
    let put = prop::collection::vec(prop_oneof![near, any::<u8>()], 0..6);
    prop::collection::vec((any::<usize>(), 0usize..12, put), 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), text in "[ \\-:\n\\[\\]{}&*a-c0-9'\"|>#!]{0,80}") {
        let _ = Config::parse(&String::from_utf8_lossy(&bytes), None);
        let _ = Config::parse(&text, None);
    }

    #[test]
    fn no_edit_of_a_good_file_panics(which in 0usize..4, edits in edits()) {
        let text = SEEDS.get(which).map_or(EXAMPLE, |(_, text)| text);
        match Config::parse(&mutated(text, &edits), None) {
            Ok(_) => {}
            Err(problems) => {
                prop_assert!(!problems.0.is_empty());
                for problem in &problems.0 {
                    prop_assert!(!problem.to_string().contains(char::is_control), "{problem:?}");
                }
            }
        }
    }
}

#[test]
fn what_is_no_file_is_not_waited_for_when_it_is_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe.yaml");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let said = |path: &Path| read_again(path).unwrap_err().to_string();
    assert!(said(&pipe).contains("is no regular file"), "{}", said(&pipe));
    assert!(said(Path::new("/dev/zero")).contains("is no regular file"));
    assert!(said(dir.path()).contains("is a directory"), "{}", said(dir.path()));
    let file = dir.path().join("a.yaml");
    std::fs::write(&file, "watch: true\n").unwrap();
    assert_eq!(read_again(&file).unwrap(), b"watch: true\n");
}
