use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ffmesh_core::policy::{Action, Rule};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener};

use super::network::Pending;
use super::*;

/// A network whose names and addresses do as they are told; loopback addresses are real.
#[derive(Default)]
struct Stage {
    names: Vec<(&'static str, Vec<SocketAddr>)>,
    /// Addresses that fail in this way; `None` never answers.
    broken: Vec<(IpAddr, Option<ErrorKind>)>,
    system: System,
    dialled: Arc<Mutex<Vec<SocketAddr>>>,
    looked_up: Arc<Mutex<Vec<String>>>,
}

impl Network for Stage {
    fn resolve(&self, name: &str, _: u16) -> Pending<Vec<SocketAddr>> {
        self.looked_up.lock().unwrap().push(name.to_owned());
        let found = self.names.iter().find(|(known, _)| *known == name).map(|(_, found)| found.clone());
        Box::pin(async move {
            match found {
                // A name that is known to have no address stands for a resolver that hangs.
                Some(found) if found.is_empty() => std::future::pending().await,
                Some(found) => Ok(found),
                None => Err(io::Error::other("no such name")),
            }
        })
    }

    fn connect(&self, address: SocketAddr) -> Pending<TcpStream> {
        self.dialled.lock().unwrap().push(address);
        match self.broken.iter().find(|(ip, _)| *ip == address.ip()) {
            Some((_, Some(kind))) => {
                let error = io::Error::from(*kind);
                Box::pin(async { Err(error) })
            }
            Some((_, None)) => Box::pin(std::future::pending()),
            None if address.ip().is_loopback() => self.system.connect(address),
            None => panic!("{address} is outside of the test"),
        }
    }
}

/// 192.0.2.0/24 and 2001:db8::/32 are for documentation (RFC 5737, RFC 3849); the stage never dials them.
const SILENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const CLOSED: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));
const LOST: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));

fn allow(to: &[&str]) -> Policy {
    let to = to.iter().map(|d| d.parse().unwrap()).collect();
    let rule = Rule { from: vec!["*".parse().unwrap()], to, action: Action::Allow };
    Policy::new(Some(vec![rule]), vec![], Own::default())
}

fn stage(names: &[(&'static str, &[SocketAddr])]) -> Stage {
    Stage {
        names: names.iter().map(|(name, found)| (*name, found.to_vec())).collect(),
        broken: vec![
            (SILENT, None),
            (CLOSED, Some(ErrorKind::ConnectionRefused)),
            (LOST, Some(ErrorKind::HostUnreachable)),
        ],
        ..Stage::default()
    }
}

async fn dial(egress: &Egress, target: &str) -> Result<Stream, Refusal> {
    let id = "caller".parse().unwrap();
    egress.dial(&Caller { id: &id, groups: &[] }, &target.parse().unwrap()).await
}

async fn refused(egress: &Egress, target: &str) -> Refusal {
    dial(egress, target).await.expect_err(target)
}

async fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

#[tokio::test]
async fn dials_an_address() {
    let (listener, port) = listener().await;
    let egress = Egress::new(Policy::default());
    let Stream::Tcp(mut out) = dial(&egress, &format!("127.0.0.1:{port}")).await.unwrap() else {
        panic!("no TCP stream");
    };
    assert!(out.nodelay().unwrap());
    let (mut accepted, _) = listener.accept().await.unwrap();
    accepted.write_all(b"hi").await.unwrap();
    let mut got = [0; 2];
    out.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"hi");
    // A mapped form is the same address.
    assert!(dial(&egress, &format!("[::ffff:127.0.0.1]:{port}")).await.is_ok());
}

#[tokio::test]
async fn resolves_localhost_by_the_system() {
    let (_listener, port) = listener().await;
    let egress = Egress::new(Policy::default());
    assert!(dial(&egress, &format!("localhost:{port}")).await.is_ok());
}

#[tokio::test]
async fn a_closed_port_is_refused() {
    let (listener, port) = listener().await;
    drop(listener);
    let refusal = refused(&Egress::new(Policy::default()), &format!("127.0.0.1:{port}")).await;
    assert_eq!(refusal.reason, Reason::Refused);
    assert!(refusal.detail.starts_with(&format!("127.0.0.1:{port}: ")), "{}", refusal.detail);
}

#[tokio::test]
async fn what_policy_denies_is_not_dialled() {
    let name: &[SocketAddr] = &[(SILENT, 80).into(), (IpAddr::from([169, 254, 169, 254]), 80).into()];
    let stage = stage(&[("lan", name)]);
    let dialled = Arc::clone(&stage.dialled);
    let looked_up = Arc::clone(&stage.looked_up);
    let egress = Egress::with_network(Policy::default(), Arc::new(stage));
    for target in [
        "192.0.2.1:80",
        "169.254.169.254:80",
        "lan:80",
        "nowhere:80",
        "[64:ff9b::7f00:1]:80",
        "unix:/run/x.sock",
    ] {
        assert_eq!(refused(&egress, target).await.reason, Reason::Denied, "{target}");
    }
    assert_eq!(*looked_up.lock().unwrap(), [""; 0], "who may not dial it learns nothing about a name");
    egress.set_policy(allow(&["10.0.0.0/8:80"]));
    let detail = refused(&egress, "lan:80").await.detail;
    assert!(dialled.lock().unwrap().is_empty());
    assert!(detail.starts_with("it resolves to 192.0.2.1: "), "{detail}");
}

#[tokio::test]
async fn of_a_name_only_allowed_addresses_are_dialled() {
    let (_listener, port) = listener().await;
    let name: &[SocketAddr] = &[(SILENT, port).into(), ([127, 0, 0, 1], port).into()];
    let stage = stage(&[("both", name)]);
    let dialled = Arc::clone(&stage.dialled);
    let egress = Egress::with_network(allow(&["127.0.0.0/8:*"]), Arc::new(stage));
    assert!(dial(&egress, &format!("both:{port}")).await.is_ok());
    assert_eq!(*dialled.lock().unwrap(), [([127, 0, 0, 1], port).into()]);
}

#[tokio::test]
async fn a_policy_can_be_replaced() {
    let (_listener, port) = listener().await;
    let egress = Egress::new(Policy::default());
    let target = format!("127.0.0.1:{port}");
    assert!(dial(&egress, &target).await.is_ok());
    egress.set_policy(Policy::new(None, vec![], own(vec![target.parse().unwrap()], &[]).unwrap()));
    assert_eq!(refused(&egress, &target).await.reason, Reason::Denied);
}

#[tokio::test]
async fn a_silent_address_holds_up_the_next_for_a_moment_only() {
    let (_listener, port) = listener().await;
    let name: &[SocketAddr] = &[(SILENT, port).into(), (CLOSED, port).into(), ([127, 0, 0, 1], port).into()];
    let egress = Egress::with_network(allow(&["*:*"]), Arc::new(stage(&[("dual", name)])));
    let start = Instant::now();
    assert!(dial(&egress, &format!("dual:{port}")).await.is_ok());
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(240), "the first had no time for itself: {took:?}");
    assert!(took < Duration::from_secs(3), "{took:?}");
}

#[tokio::test]
async fn a_failed_attempt_starts_the_next_at_once() {
    let (_listener, port) = listener().await;
    let name: &[SocketAddr] = &[(CLOSED, port).into(), ([127, 0, 0, 1], port).into()];
    let egress = Egress::with_network(allow(&["*:*"]), Arc::new(stage(&[("dual", name)])));
    let start = Instant::now();
    assert!(dial(&egress, &format!("dual:{port}")).await.is_ok());
    assert!(start.elapsed() < Duration::from_millis(240), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_silent_target_times_out() {
    let egress = Egress::with_network(allow(&["*:*"]), Arc::new(stage(&[])));
    let start = Instant::now();
    let refusal = refused(&egress, "192.0.2.1:80").await;
    assert_eq!(refusal, Refusal::new(Reason::Timeout, "192.0.2.1:80: no answer in 10 s"));
    assert_eq!(start.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn the_most_useful_outcome_is_reported() {
    let at = |ip: IpAddr| SocketAddr::new(ip, 80);
    let names: &[(&str, &[SocketAddr])] = &[
        ("closed-and-silent", &[at(SILENT), at(CLOSED)]),
        ("silent-and-lost", &[at(LOST), at(SILENT)]),
        ("lost", &[at(LOST)]),
    ];
    let egress = Egress::with_network(allow(&["*:*"]), Arc::new(stage(names)));
    for (name, reason) in [
        ("closed-and-silent", Reason::Refused),
        ("silent-and-lost", Reason::Timeout),
        ("lost", Reason::Unroutable),
    ] {
        let refusal = refused(&egress, &format!("{name}:80")).await;
        assert_eq!(refusal.reason, reason, "{refusal}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_that_does_not_resolve_is_unroutable() {
    let egress = Egress::with_network(allow(&["*:*"]), Arc::new(stage(&[("hangs", &[])])));
    assert_eq!(refused(&egress, "nowhere:80").await.reason, Reason::Unroutable);
    let start = Instant::now();
    let refusal = refused(&egress, "hangs:80").await;
    assert_eq!(refusal, Refusal::new(Reason::Unroutable, "the resolver did not answer in 5 s"));
    assert_eq!(start.elapsed().as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn one_caller_cannot_dial_without_bound() {
    let egress = Arc::new(Egress::with_network(allow(&["*:*"]), Arc::new(stage(&[]))));
    let mut dials = tokio::task::JoinSet::new();
    for _ in 0..=MAX_DIALS_PER_CALLER {
        let egress = Arc::clone(&egress);
        dials.spawn(async move { refused(&egress, "192.0.2.1:80").await.reason });
    }
    let reasons = dials.join_all().await;
    assert_eq!(reasons.iter().filter(|reason| **reason == Reason::Limit).count(), 1);
    assert!(egress.dials.0.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn one_caller_cannot_take_all_lookups() {
    let stage = stage(&[("hangs", &[]), ("lost", &[(LOST, 80).into()])]);
    let looked_up = Arc::clone(&stage.looked_up);
    let egress = Arc::new(Egress::with_network(allow(&["*:*"]), Arc::new(stage)));
    let mut dials = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let egress = Arc::clone(&egress);
        dials.spawn(async move { refused(&egress, "hangs:80").await.reason });
    }
    assert!(dials.join_all().await.iter().all(|reason| *reason == Reason::Unroutable));
    // They still hang, so this caller gets no more of them; another does.
    assert_eq!(refused(&egress, "hangs:80").await.reason, Reason::Unroutable);
    assert_eq!(looked_up.lock().unwrap().len(), MAX_LOOKUPS_PER_CALLER);
    let other = "other".parse().unwrap();
    let dialled = egress.dial(&Caller { id: &other, groups: &[] }, &"lost:80".parse().unwrap()).await;
    assert_eq!(dialled.expect_err("lost").detail, "192.0.2.2:80: host unreachable");
}

#[tokio::test]
async fn the_hosts_of_restricted_services_are_looked_up() {
    let text = "services: [{ name: a, address: 'localhost:80', allow: ['node:a'] }, { name: b, address: 'b.invalid:80' }]";
    let config = Config::parse(text, None).unwrap().config;
    let none = ServiceAddresses::default();
    assert!(none.lack(&config.services) && none.are_old());
    let found = resolve_services(config.services.clone(), none).await;
    assert!(!found.lack(&config.services) && !found.are_old());
    assert!(found.of(&config.services[0].target).contains(&Ipv4Addr::LOCALHOST.into()));
    assert!(found.of(&config.services[1].target).is_empty());
}

#[test]
fn shortages_are_limits() {
    for code in [libc::EMFILE, libc::ENFILE, libc::ENOBUFS] {
        assert_eq!(reason(&io::Error::from_raw_os_error(code)), Reason::Limit);
    }
    for code in [libc::ENETUNREACH, libc::EHOSTUNREACH, libc::EACCES, libc::EADDRNOTAVAIL] {
        assert_eq!(reason(&io::Error::from_raw_os_error(code)), Reason::Unroutable);
    }
    assert_eq!(reason(&io::Error::from_raw_os_error(libc::ETIMEDOUT)), Reason::Timeout);
}

#[tokio::test]
async fn dials_unix_sockets() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let target = |name: &str| format!("unix:{}", path(name));
    let egress =
        Egress::new(allow(&[&target("good"), &target("gone"), &target("file"), &target("datagram")]));
    let listener = UnixListener::bind(path("good")).unwrap();
    let Stream::Unix(mut out) = dial(&egress, &target("good")).await.unwrap() else {
        panic!("no Unix stream");
    };
    out.write_all(b"hi").await.unwrap();
    let mut got = [0; 2];
    listener.accept().await.unwrap().0.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"hi");
    drop(listener);

    std::fs::write(path("file"), "").unwrap();
    let _datagram = tokio::net::UnixDatagram::bind(path("datagram")).unwrap();
    for name in ["good", "gone", "file", "datagram"] {
        assert_eq!(refused(&egress, &target(name)).await.reason, Reason::Refused, "{name}");
    }
    assert_eq!(refused(&egress, &target("other")).await.reason, Reason::Denied);
}

#[tokio::test]
async fn a_full_unix_backlog_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    socket.bind(&socket2::SockAddr::unix(&path).unwrap()).unwrap();
    socket.listen(0).unwrap();
    let target = format!("unix:{}", path.display());
    let egress = Egress::new(allow(&[&target]));
    let _first = dial(&egress, &target).await.unwrap();
    let accept = async {
        sleep(Duration::from_millis(100)).await;
        socket.accept().unwrap()
    };
    let (second, _accepted) = tokio::join!(dial(&egress, &target), accept);
    assert!(second.is_ok(), "{second:?}");
}

#[test]
fn a_configuration_gives_its_policy() {
    let text = "services: [{ name: web, address: '10.0.0.1:80', allow: ['node:a'] }]";
    let config = Config::parse(text, None).unwrap().config;
    let policy = policy(&config, &config.services, Own::default(), &ServiceAddresses::default());
    let decide = |id: &str| {
        let id: NodeId = id.parse().unwrap();
        policy.decide(Caller { id: &id, groups: &[] }, None, ([10, 0, 0, 1], 80).into()).is_allow()
    };
    assert!(decide("a"));
    assert!(!decide("b"));
}
