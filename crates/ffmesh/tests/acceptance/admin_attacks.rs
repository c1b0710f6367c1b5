//! The admin API of a real node over TCP: who gets in, and what those who do not can take from others.
//!
//! What each attack is answered with is tested in the node's own crate, against the same listener and guard.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use ffmesh_lab::{Lab, Node, until};
use serde_json::{Value, json};

use crate::FFMESH;

/// Where the API listens, in the node's namespace.
const LISTEN: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 9464);
/// How long an answer may take, whatever others do.
const PATIENCE: Duration = Duration::from_secs(10);
/// Streams that are asked for at once.
const STREAMS: usize = 10_000;
/// Time that asking for them may take: where the node lets connections wait, the rest is given up.
const OPENING: Duration = Duration::from_secs(30);
/// What they may make the node grow by, in bytes.
const GROWTH: u64 = 100 << 20;

/// A node with the API on TCP.
fn node(name: &str) -> Option<(Lab, Node)> {
    let lab = Lab::new(name)?.with_program(FFMESH);
    let net = lab.net("machine");
    let mut node = lab.node(&net, "here", "admin: { listen: \"127.0.0.1:9464\" }\n");
    node.init(&[]);
    node.start();
    Some((lab, node))
}

fn token(node: &Node) -> String {
    std::fs::read_to_string(node.state_dir().join("admin.token")).unwrap().trim().to_owned()
}

/// A connection from one of the machine's addresses.
fn connect(from: Ipv4Addr, limit: Duration) -> std::io::Result<TcpStream> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((from, 0)).into())?;
    socket.connect_timeout(&SocketAddr::from(LISTEN).into(), limit)?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn head(method: &str, path: &str, headers: &str, length: usize) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:9464\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n"
    )
}

/// Status, head and body of the answer.
fn ask(
    node: &Node,
    from: Ipv4Addr,
    method: &str,
    path: &str,
    headers: &str,
    body: &str,
) -> (u16, String, String) {
    node.net().inside(|| {
        let mut stream = connect(from, PATIENCE).unwrap();
        stream.write_all((head(method, path, headers, body.len()) + body).as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        (status.unwrap_or_else(|| panic!("{answer}")), head.to_owned(), body.to_owned())
    })
}

fn status_of(node: &Node, path: &str, headers: &str) -> u16 {
    ask(node, Ipv4Addr::LOCALHOST, "GET", path, headers, "").0
}

#[test]
fn only_the_token_or_a_session_opens_the_api_and_a_link_opens_one_session() {
    let Some((_lab, node)) = node("admin-doors") else { return };
    let token = token(&node);
    let file = node.state_dir().join("admin.token");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let bearer = |token: &str| format!("Authorization: Bearer {token}\r\n");
    let almost = format!("{}{}", &token[..token.len() - 1], if token.ends_with('x') { 'y' } else { 'x' });
    for path in ["/api/v1/status", "/api/v1/events", "/api/v1/nothing", "/metrics"] {
        for headers in [String::new(), bearer("wrong"), bearer(&almost), bearer(&token[1..])] {
            assert_eq!(status_of(&node, path, &headers), 401, "{path} {headers}");
        }
        assert_eq!(status_of(&node, &format!("{path}?token={token}"), ""), 401, "{path}");
    }
    assert_eq!(status_of(&node, "/api/v1/status", &bearer(&token)), 200);
    assert_eq!(status_of(&node, "/metrics", &bearer(&token)), 200);
    assert_eq!((status_of(&node, "/healthz", ""), status_of(&node, "/", "")), (200, 200));
    let foreign = bearer(&token) + "Origin: http://evil.example\r\n";
    assert_eq!(status_of(&node, "/api/v1/status", &foreign), 403);

    // The link of the command works once.
    let link: Value = node.json(&["console"]);
    let url = link["url"].as_str().unwrap();
    let code = url.split_once("/#code=").unwrap().1;
    let login = json!({ "code": code }).to_string();
    let post =
        |path: &str, headers: &str, body: &str| ask(&node, Ipv4Addr::LOCALHOST, "POST", path, headers, body);
    let (status, head, body) = post("/api/v1/login", "", &login);
    assert_eq!(status, 200, "{body}");
    assert_eq!(post("/api/v1/login", "", &login).0, 401, "a second time");
    let head = head.to_lowercase();
    let cookie = head.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap();
    let id = ask(&node, Ipv4Addr::LOCALHOST, "POST", "/api/v1/login", "", &login).1;
    assert!(!id.to_lowercase().contains("set-cookie"), "{id}");
    assert!(cookie.contains("httponly") && cookie.contains("samesite=strict"), "{cookie}");
    assert!(!body.contains(&token) && !node.log().contains(&token) && !node.log().contains(code));
}

#[test]
fn names_that_others_gave_come_back_as_data() {
    let Some((_lab, node)) = node("admin-names") else { return };
    let bearer = format!("Authorization: Bearer {}\r\n", token(&node));
    let evil = "<img src=x onerror=alert(1)>\u{202e}";
    let spec = json!({"name": evil, "address": "127.0.0.1:80"}).to_string();
    let (status, _, body) = ask(&node, Ipv4Addr::LOCALHOST, "POST", "/api/v1/services", &bearer, &spec);
    assert!([201, 422].contains(&status), "{body}");
    for path in ["/api/v1/services", "/api/v1/log", "/api/v1/nothing%3Cscript%3E"] {
        let (_, head, _) = ask(&node, Ipv4Addr::LOCALHOST, "GET", path, &bearer, "");
        let head = head.to_lowercase();
        assert!(head.contains("content-type: application/json"), "{path}: {head}");
        assert!(head.contains("x-content-type-options: nosniff"), "{path}: {head}");
        assert!(head.contains("default-src 'none'") && !head.contains("access-control"), "{path}: {head}");
    }
}

#[test]
fn changes_asked_for_all_at_once_are_each_done_or_refused() {
    let Some((_lab, node)) = node("admin-changes") else { return };
    let bearer = format!("Authorization: Bearer {}\r\n", token(&node));
    let (node, bearer) = (&node, &*bearer);
    // More than are answered at once: who is told to come back does.
    let ask_for = |path: &str, body: &str| loop {
        let (status, ..) = ask(node, Ipv4Addr::LOCALHOST, "POST", path, bearer, body);
        if status != 503 {
            return status;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    // As many ask for one name as for names of their own, while the file is applied again and again.
    let change = |i: u16| {
        if i % 4 < 2 {
            return (ask_for("/api/v1/reload", ""), None);
        }
        let (name, port) = (if i % 4 == 2 { "shared".to_owned() } else { format!("own-{i}") }, 20_000 + i);
        let spec = json!({"name": name, "local_port": port, "target_node_id": "there", "target_address": "127.0.0.1:80"});
        (ask_for("/api/v1/proxies", &spec.to_string()), Some((name, port)))
    };
    let answers: Vec<_> = std::thread::scope(|scope| {
        let asked: Vec<_> = (0..100).map(|i| scope.spawn(move || change(i))).collect();
        asked.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let mut added = Vec::new();
    for (status, proxy) in answers {
        match (status, proxy) {
            (200, None) | (409, Some(_)) => {}
            (201, Some(proxy)) => added.push(proxy),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(added.len(), 25 + 1, "each name of its own, and the shared one once: {added:?}");
    let (_, _, body) = ask(node, Ipv4Addr::LOCALHOST, "GET", "/api/v1/proxies", bearer, "");
    let listed: Vec<Value> = serde_json::from_str(&body).unwrap();
    let mut listed: Vec<_> = listed.iter().map(|proxy| proxy["name"].as_str().unwrap().to_owned()).collect();
    listed.sort();
    added.sort();
    let names: Vec<_> = added.iter().map(|(name, _)| name.clone()).collect();
    assert_eq!(listed, names, "what was said to be added is there, and nothing else");
    for (name, port) in &added {
        let connected = node.net().inside(|| TcpStream::connect((Ipv4Addr::LOCALHOST, *port)));
        assert!(connected.is_ok(), "{name} does not listen");
    }
}

/// Whether events come over it. One that was answered may have had to make way at the same moment.
fn is_open(stream: &TcpStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    let (mut stream, mut answer, mut buffer) = (stream, Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return false,
            Ok(read) => answer.extend(&buffer[..read]),
            Err(_) => return answer.starts_with(b"HTTP/1.1 200"),
        }
    }
}

#[test]
fn ten_thousand_event_streams_leave_the_node_to_others() {
    let Some((_lab, mut node)) = node("admin-streams") else { return };
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let all = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, all).unwrap();
    let bearer = format!("Authorization: Bearer {}\r\n", token(&node));
    let before = node.process().memory();
    let request = head("GET", "/api/v1/events", &bearer, 0);
    let mut local = Vec::new();
    for _ in 0..300 {
        let socket = UnixStream::connect(node.state_dir().join("admin.sock"));
        let Ok(mut socket) = socket else { break };
        let _ = socket.write_all(request.as_bytes());
        local.push(socket);
    }
    drop(local.split_off(100)); // more than all streams; the rest of the connections is for the commands
    let streams = node.net().inside(|| {
        let begin = Instant::now();
        let mut streams = Vec::new();
        while streams.len() < STREAMS && begin.elapsed() < OPENING {
            // Where there is no room the node closes the connection, or lets it wait.
            let Ok(mut stream) = connect(Ipv4Addr::LOCALHOST, Duration::from_millis(100)) else { continue };
            if stream.write_all(request.as_bytes()).is_ok() {
                streams.push(stream);
            }
        }
        streams
    });
    assert!(streams.len() > 300, "{} connections were made", streams.len());

    // The commands, and a client from another address, are served.
    let begin = Instant::now();
    assert_eq!(node.status().node_id.as_str(), "here");
    assert_eq!(ask(&node, Ipv4Addr::new(127, 0, 0, 2), "GET", "/api/v1/status", &bearer, "").0, 200);
    assert!(begin.elapsed() < PATIENCE * 2, "{:?}", begin.elapsed());
    let grown = node.process().memory().saturating_sub(before);
    assert!(grown < GROWTH, "{} connections cost {grown} bytes", streams.len());

    let open: Vec<_> = streams.into_iter().filter(is_open).collect();
    assert!((1..=64).contains(&open.len()), "{} streams are open", open.len());
    drop((open, local));
    until("a stream can be opened again", PATIENCE * 3, || {
        node.net().inside(|| {
            let mut stream = connect(Ipv4Addr::LOCALHOST, PATIENCE).unwrap();
            stream.write_all(request.as_bytes()).unwrap();
            let mut head = [0; 12];
            stream.read_exact(&mut head).is_ok() && &head[9..] == b"200"
        })
    });
}
