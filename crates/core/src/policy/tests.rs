use proptest::prelude::*;

use super::*;

/// A caller by its id and the names of its groups.
struct Member(NodeId, Vec<String>);

impl Member {
    fn new(id: &str, groups: &[&str]) -> Self {
        Self(id.parse().unwrap(), groups.iter().map(ToString::to_string).collect())
    }

    fn caller(&self) -> Caller<'_> {
        Caller { id: &self.0, groups: &self.1 }
    }
}

fn rule(from: &str, to: &[&str], action: Action) -> Rule {
    Rule {
        from: from.split(' ').map(|s| s.parse().unwrap()).collect(),
        to: to.iter().map(|d| d.parse().unwrap()).collect(),
        action,
    }
}

fn service(name: &str, target: &str, allow: Option<&str>) -> Service {
    Service {
        name: name.into(),
        target: target.parse().unwrap(),
        addresses: vec![],
        allow: allow.map(|list| list.split(' ').map(|s| s.parse().unwrap()).collect()),
    }
}

fn rules(rules: &[Rule]) -> Policy {
    Policy::new(Some(rules.to_vec()), vec![], Own::default())
}

fn allows(policy: &Policy, address: &str) -> bool {
    policy.decide(Member::new("anyone", &[]).caller(), None, address.parse().unwrap()).is_allow()
}

#[test]
fn without_rules_only_loopback_is_open() {
    let policy = Policy::default();
    for address in ["127.0.0.1:80", "127.1.2.3:80", "[::1]:80", "[::ffff:127.0.0.1]:80"] {
        assert!(allows(&policy, address), "{address}");
    }
    for address in [
        "10.0.0.1:80",
        "8.8.8.8:53",
        "[2001:db8::1]:80",
        "0.0.0.0:80",
        "[::]:80",
        "169.254.169.254:80",
        "[::ffff:169.254.169.254]:80",
        "[::127.0.0.1]:80",
        "[64:ff9b::7f00:1]:80",
        "[2002:7f00:1::]:80",
    ] {
        assert!(!allows(&policy, address), "{address}");
    }
    let member = Member::new("a", &[]);
    assert_eq!(policy.decide_unix(member.caller(), "/run/a.sock"), Verdict::Deny(Denial::NotLocal));
}

#[test]
fn without_rules_named_services_are_open_to_those_they_allow() {
    let services = vec![
        service("lan", "10.0.0.5:80", None),
        service("dev", "127.0.0.1:8080", Some("group:dev node:b")),
        service("db", "db.lan:5432", None),
        service("sock", "unix:/run/s.sock", Some("group:dev")),
    ];
    let policy = Policy::new(None, services, Own::default());
    let (a, b, dev) = (Member::new("a", &[]), Member::new("b", &[]), Member::new("c", &["dev"]));
    let decide = |m: &Member, name, address: &str| policy.decide(m.caller(), name, address.parse().unwrap());

    assert!(decide(&a, None, "10.0.0.5:80").is_allow());
    assert_eq!(decide(&a, None, "10.0.0.5:81"), Verdict::Deny(Denial::NotLocal));
    assert!(decide(&a, Some("db.lan"), "10.0.0.9:5432").is_allow());
    assert_eq!(decide(&a, None, "10.0.0.9:5432"), Verdict::Deny(Denial::NotLocal));
    // A name that DNS points at the metadata service opens nothing.
    assert!(matches!(decide(&a, Some("db.lan"), "169.254.169.254:5432"), Verdict::Deny(Denial::Special(_))));

    for address in ["127.0.0.1:8080", "127.0.0.2:8080", "[::1]:8080"] {
        assert_eq!(decide(&a, None, address), Verdict::Deny(Denial::Service("dev".into())), "{address}");
        assert!(decide(&b, None, address).is_allow());
        assert!(decide(&dev, Some("localhost"), address).is_allow());
    }
    assert!(policy.decide_unix(dev.caller(), "/run/s.sock").is_allow());
    assert_eq!(policy.decide_unix(a.caller(), "/run/s.sock"), Verdict::Deny(Denial::Service("sock".into())));
}

#[test]
fn a_services_list_holds_beside_rules_too() {
    let allow_all = rule("*", &["127.0.0.0/8:*"], Action::Allow);
    let services = vec![service("dev", "localhost:80", Some("group:dev"))];
    let policy = Policy::new(Some(vec![allow_all]), services, Own::default());
    assert!(!allows(&policy, "127.0.0.1:80"));
    assert!(allows(&policy, "127.0.0.1:81"));
}

#[test]
fn a_services_list_cannot_be_got_round_by_another_name_of_its_address() {
    let own = || Own { addresses: vec!["192.168.1.9".parse().unwrap()], ..Own::default() };
    let of = |target, addresses: &[&str]| Service {
        addresses: addresses.iter().map(|ip| ip.parse().unwrap()).collect(),
        ..service("s", target, Some("group:dev"))
    };
    let lan =
        || rule("*", &["10.0.0.0/8:*", "127.0.0.0/8:*", "192.168.0.0/16:*", "0.0.0.0:*"], Action::Allow);
    let (a, dev) = (Member::new("a", &[]), Member::new("d", &["dev"]));
    for (target, addresses, closed, open) in [
        // A name of this machine, as Debian has it in /etc/hosts.
        (
            "myhost:80",
            &["127.0.1.1"][..],
            &["127.0.0.1:80", "127.0.1.1:80", "192.168.1.9:80", "0.0.0.0:80"][..],
            "10.0.0.1:80",
        ),
        ("myhost:80", &["192.168.1.9"], &["127.0.0.1:80", "192.168.1.9:80"], "127.0.0.1:81"),
        ("192.168.1.9:80", &[], &["127.0.0.1:80", "[::ffff:192.168.1.9]:80"], "10.0.0.1:80"),
        ("db.lan:80", &["10.0.0.5", "::ffff:10.0.0.6"], &["10.0.0.5:80", "10.0.0.6:80"], "127.0.0.1:80"),
        // Not known yet: it may be this machine.
        ("db.lan:80", &[], &["127.0.0.1:80"], "10.0.0.1:80"),
    ] {
        for access in [Some(vec![lan()]), None] {
            let policy = Policy::new(access.clone(), vec![of(target, addresses)], own());
            let decide = |m: &Member, at: &str| policy.decide(m.caller(), None, at.parse().unwrap());
            for at in closed {
                assert!(!decide(&a, at).is_allow(), "{target} {at}");
                let special = at.starts_with("0.");
                assert!(special || access.is_none() || decide(&dev, at).is_allow(), "{target} {at}");
            }
            let local = open.starts_with("127.");
            assert_eq!(decide(&a, open).is_allow(), access.is_some() || local, "{target} {open}");
        }
    }
    // Its addresses are restricted, and not opened: without rules only the name is.
    let policy = Policy::new(None, vec![of("db.lan:80", &["10.0.0.5"])], own());
    let decide = |name| policy.decide(dev.caller(), name, "10.0.0.5:80".parse().unwrap());
    assert!(decide(Some("db.lan")).is_allow());
    assert_eq!(decide(None), Verdict::Deny(Denial::NotLocal));
}

#[test]
fn only_names_that_could_be_allowed_are_looked_up() {
    let services =
        || vec![service("db", "db.lan:5432", Some("group:dev")), service("web", "10.0.0.1:80", None)];
    let policy = Policy::new(None, services(), Own::default());
    let (a, dev) = (Member::new("a", &[]), Member::new("d", &["dev"]));
    let may = |policy: &Policy, m: &Member, name, port| policy.may_resolve(m.caller(), name, port);
    assert!(may(&policy, &a, "localhost", 80).is_allow() && may(&policy, &a, "x.localhost", 1).is_allow());
    assert!(may(&policy, &dev, "db.lan", 5432).is_allow());
    assert_eq!(may(&policy, &a, "db.lan", 5432), Verdict::Deny(Denial::Service("db".into())));
    assert_eq!(may(&policy, &a, "secret.lan", 80), Verdict::Deny(Denial::NotLocal));

    let policy = rules(&[
        rule("*", &["evil.example:*", "127.0.0.0/8:80"], Action::Deny),
        rule("*", &["10.0.0.0/8:80"], Action::Allow),
        rule("group:dev", &["git.lan:22"], Action::Allow),
        rule("*", &["*:81"], Action::Deny),
        rule("*", &["*:81-82"], Action::Allow),
    ]);
    assert_eq!(may(&policy, &a, "evil.example", 80), Verdict::Deny(Denial::Rule(1)));
    assert!(may(&policy, &a, "any.lan", 80).is_allow() && may(&policy, &a, "any.lan", 82).is_allow());
    assert_eq!(may(&policy, &a, "any.lan", 81), Verdict::Deny(Denial::Rule(4)));
    assert_eq!(may(&policy, &a, "git.lan", 22), Verdict::Deny(Denial::NoRule));
    assert!(may(&policy, &dev, "git.lan", 22).is_allow());
    assert_eq!(may(&policy, &dev, "localhost", 22), Verdict::Deny(Denial::NoRule));
}

#[test]
fn the_first_rule_that_matches_decides() {
    let policy = rules(&[
        rule("node:bad", &["*:*"], Action::Deny),
        rule("*", &["10.0.0.1:22"], Action::Deny),
        rule("group:dev", &["10.0.0.0/8:*"], Action::Allow),
        rule("*", &["10.0.0.0/8:80-90,443", "[fd00::/8]:80"], Action::Allow),
    ]);
    let decide = |m: &Member, address: &str| policy.decide(m.caller(), None, address.parse().unwrap());
    let (bad, dev, a) = (Member::new("bad", &["dev"]), Member::new("d", &["dev"]), Member::new("a", &[]));
    assert_eq!(decide(&bad, "10.0.0.2:80"), Verdict::Deny(Denial::Rule(1)));
    assert_eq!(decide(&dev, "10.0.0.1:22"), Verdict::Deny(Denial::Rule(2)));
    assert!(decide(&dev, "10.0.0.2:22").is_allow());
    assert_eq!(decide(&a, "10.0.0.2:22"), Verdict::Deny(Denial::NoRule));
    assert!(decide(&a, "10.0.0.2:85").is_allow());
    assert!(decide(&a, "[::ffff:10.0.0.2]:443").is_allow());
    assert!(decide(&a, "[64:ff9b::a00:2]:443").is_allow());
    assert!(decide(&a, "[fd00::1]:80").is_allow());
    // With rules, loopback needs one as well.
    assert_eq!(decide(&a, "127.0.0.1:80"), Verdict::Deny(Denial::NoRule));
    assert!(!allows(&rules(&[]), "127.0.0.1:80"));
}

#[test]
fn special_addresses_need_a_rule_that_names_them() {
    let wide = rules(&[rule(
        "*",
        &["*:*", "0.0.0.0/0:*", "[::/0]:*", "169.0.0.0/8:*", "[fd00::/8]:*", "100.64.0.0/10:*"],
        Action::Allow,
    )]);
    for address in [
        "169.254.169.254:80",
        "[::ffff:169.254.169.254]:80",
        "100.100.100.200:80",
        "224.0.0.1:80",
        "255.255.255.255:80",
        "0.0.0.0:80",
        "[::]:80",
        "[fe80::1]:80",
        "[ff02::1]:80",
        "[fd00:ec2::254]:80",
    ] {
        let verdict = wide.decide(Member::new("a", &[]).caller(), None, address.parse().unwrap());
        assert!(matches!(verdict, Verdict::Deny(Denial::Special(_))), "{address}: {verdict:?}");
    }
    for (to, address) in [
        ("169.254.0.0/16:*", "169.254.1.1:80"),
        ("169.254.169.254/32:80", "[::ffff:169.254.169.254]:80"),
        ("[fe80::/10]:*", "[fe80::1]:80"),
        ("[fd00:ec2::254]:80", "[fd00:ec2::254]:80"),
        ("100.100.100.200:80", "100.100.100.200:80"),
    ] {
        assert!(allows(&rules(&[rule("*", &[to], Action::Allow)]), address), "{to}");
    }
    // What a wide rule denies stays denied.
    let denied =
        rules(&[rule("*", &["0.0.0.0/0:*"], Action::Deny), rule("*", &["169.254.0.0/16:*"], Action::Allow)]);
    assert!(!allows(&denied, "169.254.1.1:80"));
}

#[test]
fn a_rule_for_a_name_matches_only_who_asks_for_it() {
    let policy = rules(&[
        rule("*", &["evil.example:*"], Action::Deny),
        rule("*", &["db.lan:5432"], Action::Allow),
        rule("*", &["10.0.0.0/8:80"], Action::Allow),
    ]);
    let a = Member::new("a", &[]);
    let decide = |name, address: &str| policy.decide(a.caller(), name, address.parse().unwrap());
    assert!(decide(Some("db.lan"), "192.168.1.1:5432").is_allow());
    assert_eq!(decide(Some("db.lan"), "192.168.1.1:80"), Verdict::Deny(Denial::NoRule));
    assert_eq!(decide(None, "192.168.1.1:5432"), Verdict::Deny(Denial::NoRule));
    assert_eq!(decide(Some("evil.example"), "10.0.0.1:80"), Verdict::Deny(Denial::Rule(1)));
    assert!(matches!(decide(Some("db.lan"), "169.254.169.254:5432"), Verdict::Deny(Denial::Special(_))));
}

#[test]
fn own_listeners_are_closed_to_every_rule() {
    let own = Own {
        listeners: vec![
            "0.0.0.0:1".parse().unwrap(),
            "[::]:2".parse().unwrap(),
            "127.0.0.1:3".parse().unwrap(),
        ],
        addresses: vec!["192.168.1.9".parse().unwrap(), "2001:db8::9".parse().unwrap()],
        unix: vec!["/run/ffmesh/admin.sock".into()],
    };
    let open = rule(
        "*",
        &["*:*", "0.0.0.0/8:*", "[::]:*", "unix:/run/ffmesh/admin.sock", "unix:/run/ffmesh//admin.sock"],
        Action::Allow,
    );
    let policy = Policy::new(Some(vec![open]), vec![], own);
    let a = Member::new("a", &[]);
    let verdict = |address: &str| policy.decide(a.caller(), None, address.parse().unwrap());
    for address in [
        "127.0.0.1:1",
        "127.9.9.9:1",
        "192.168.1.9:1",
        "[::ffff:192.168.1.9]:1",
        "0.0.0.0:1",
        "127.0.0.1:2",
        "[::1]:2",
        "192.168.1.9:2",
        "[2001:db8::9]:2",
        "127.0.0.1:3",
        "[::ffff:127.0.0.1]:3",
        "0.0.0.0:3",
        "[::]:3",
    ] {
        assert_eq!(verdict(address), Verdict::Deny(Denial::OwnListener), "{address}");
    }
    for address in ["[::1]:1", "192.168.1.8:1", "192.168.1.9:3", "127.0.0.2:3", "127.0.0.1:4"] {
        assert!(verdict(address).is_allow(), "{address}");
    }
    for path in ["/run/ffmesh/admin.sock", "/run/ffmesh//admin.sock"] {
        assert_eq!(policy.decide_unix(a.caller(), path), Verdict::Deny(Denial::OwnListener));
    }
}

#[test]
fn unix_sockets_need_a_rule_with_their_path() {
    let policy = rules(&[
        rule("*", &["*:*", "unix:/run/web.sock"], Action::Allow),
        rule("*", &["unix:/run/no.sock"], Action::Deny),
    ]);
    let a = Member::new("a", &[]);
    assert!(policy.decide_unix(a.caller(), "/run/web.sock").is_allow());
    assert_eq!(policy.decide_unix(a.caller(), "/run/other.sock"), Verdict::Deny(Denial::NoRule));
    assert_eq!(policy.decide_unix(a.caller(), "/run/no.sock"), Verdict::Deny(Denial::Rule(2)));
}

#[test]
fn subjects_read_back_what_they_print() {
    for text in ["*", "group:dev", "node:121a93d4e5"] {
        assert_eq!(text.parse::<Subject>().unwrap().to_string(), text);
    }
    for text in ["", "dev", "group:", "node:", "node:a.b", "user:x", "group:a\nb"] {
        assert!(text.parse::<Subject>().is_err(), "{text:?} was accepted");
    }
}

fn any_address() -> impl Strategy<Value = SocketAddr> {
    let v4 = any::<u32>().prop_map(|ip| IpAddr::V4(ip.into()));
    let near = prop::sample::select(vec![
        "127.0.0.1",
        "169.254.169.254",
        "10.0.0.1",
        "::1",
        "fe80::1",
        "::ffff:127.0.0.1",
        "64:ff9b::a9fe:a9fe",
    ])
    .prop_map(|ip| ip.parse().unwrap());
    let v6 = any::<u128>().prop_map(|ip| IpAddr::V6(ip.into()));
    (prop_oneof![v4, near, v6], 1..=u16::MAX).prop_map(SocketAddr::from)
}

proptest! {
    #[test]
    fn without_rules_nothing_but_loopback_is_ever_allowed(address in any_address()) {
        let verdict = Policy::default().decide(Member::new("a", &[]).caller(), None, address);
        let ip = address.ip().to_canonical();
        prop_assert_eq!(verdict.is_allow(), ip.is_loopback());
    }

    #[test]
    fn a_mapped_address_is_judged_as_the_ipv4_one(ip in any::<u32>(), port in 1..=u16::MAX, net in any::<u32>(), width in 0u8..=32) {
        let net = ipnet::Ipv4Net::new(net.into(), width).unwrap().trunc();
        let policy = rules(&[rule("*", &[&format!("{net}:*")], Action::Allow)]);
        let ip = std::net::Ipv4Addr::from(ip);
        let member = Member::new("a", &[]);
        let decide = |ip: IpAddr| policy.decide(member.caller(), None, (ip, port).into());
        prop_assert_eq!(decide(ip.into()), decide(ip.to_ipv6_mapped().into()));
    }

    #[test]
    fn a_wide_rule_never_opens_a_special_address(address in any_address()) {
        let policy = rules(&[rule("*", &["*:*", "0.0.0.0/0:*", "[::/0]:*"], Action::Allow)]);
        let verdict = policy.decide(Member::new("a", &[]).caller(), Some("any.name"), address);
        let ip = address::plain(address.ip()).ip;
        if address::special(ip).is_some() {
            prop_assert!(!verdict.is_allow());
        } else if !ip.is_loopback() {
            prop_assert!(verdict.is_allow());
        }
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,40}", near in "[0-9a-f:./*\\[\\],-]{0,24}") {
        for text in [text, near] {
            let _ = text.parse::<Destination>();
            let _ = text.parse::<Subject>();
            if let Ok(destination) = text.parse::<Destination>() {
                prop_assert_eq!(destination.to_string().parse(), Ok(destination));
            }
        }
    }
}
