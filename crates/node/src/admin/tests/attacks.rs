//! Clients that the TCP listener must not serve, or not for long, and the honest one beside them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::Double;
use crate::admin::limits::{MAX_HEAD, MAX_PER_SOURCE};
use crate::admin::{Auth, BODY_LIMIT, bind_tcp, serve_tcp};
use crate::config;
use crate::metrics::Counters;
use crate::state::StateDir;

/// A node that answers over TCP until it is dropped.
struct Door {
    _dir: tempfile::TempDir,
    address: SocketAddr,
    token: String,
    auth: Arc<Auth>,
    counters: Arc<Counters>,
    _tasks: JoinSet<()>,
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("{} {}", self.head, self.body))
    }

    fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(given, _)| given.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

/// A session as a browser keeps it.
struct Browser {
    cookie: String,
    csrf: String,
}

impl Browser {
    /// The name of its cookie.
    fn name(&self) -> &str {
        self.cookie.split('=').next().unwrap()
    }
}

fn door() -> Door {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::at(&dir.path().join("state"));
    let listener = bind_tcp("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let admin = config::Admin { listen: Some(address), hosts: vec!["console.example.com".into()] };
    let counters = Arc::new(Counters::default());
    let auth = Arc::new(Auth::new(&state, &admin, address, counters.clone()).unwrap());
    let token = std::fs::read_to_string(state.path().join("admin.token")).unwrap().trim().to_owned();
    let mut tasks = JoinSet::new();
    let control = Arc::new(Double { links_up: 1, ..Double::default() });
    tasks.spawn(serve_tcp(listener, control, auth.clone(), std::future::pending()));
    Door { _dir: dir, address, token, auth, counters, _tasks: tasks }
}

impl Door {
    /// Sends bytes and reads until the node closes.
    async fn raw(&self, request: &[u8]) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        // What the node does not want to read it need not take.
        stream.write_all(request).await.ok();
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply).await.ok();
        let reply = String::from_utf8(reply).unwrap();
        let (head, body) = reply.split_once("\r\n\r\n").unwrap_or((&reply, ""));
        let status = head.get(9..12).and_then(|status| status.parse().ok()).unwrap_or(0);
        Answer { status, head: head.to_owned(), body: body.to_owned() }
    }

    /// A request with these headers beside `Host`.
    async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let host = self.address.to_string();
        let default = [("Host", &*host)];
        let own = headers.iter().any(|(name, _)| *name == "Host");
        let headers = default.iter().filter(|_| !own).chain(headers);
        let headers: Vec<_> = headers.map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let headers = headers.concat();
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\n{headers}Connection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        self.raw(request.as_bytes()).await
    }

    async fn with_token(&self, method: &str, path: &str, body: &str) -> Answer {
        let token = format!("Bearer {}", self.token);
        self.ask(method, path, &[("Authorization", &token)], body).await
    }

    async fn log_in(&self) -> Browser {
        let login = json!({ "token": self.token }).to_string();
        let answer = self.ask("POST", "/api/v1/login", &[], &login).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let cookie = answer.header("set-cookie").unwrap();
        for word in ["ffmesh_session_", "HttpOnly", "SameSite=Strict", "Path=/"] {
            assert!(cookie.contains(word), "{cookie}");
        }
        let cookie = cookie.split(';').next().unwrap().to_owned();
        Browser { cookie, csrf: answer.json()["csrf_token"].as_str().unwrap().to_owned() }
    }

    async fn ping(&self, browser: &Browser, csrf: Option<&str>) -> u16 {
        let mut headers = vec![("Cookie", &*browser.cookie)];
        headers.extend(csrf.map(|csrf| ("X-CSRF-Token", csrf)));
        self.ask("POST", "/api/v1/ping", &headers, r#"{"node":"server"}"#).await.status
    }

    async fn assert_serves_the_honest(&self) {
        let answer = self.with_token("GET", "/api/v1/status", "").await;
        assert_eq!((answer.status, &answer.json()["node_id"]), (200, &json!("here")));
    }

    fn refusals(&self) -> u64 {
        self.counters.errors().iter().find(|error| error.kind == "admin").map_or(0, |error| error.count)
    }
}

#[tokio::test]
async fn only_the_token_opens_and_probes_need_none() {
    let door = door();
    let almost = format!("{}{}", &door.token[..42], if door.token.ends_with('A') { 'E' } else { 'A' });
    let wrong = [
        String::new(),
        "Bearer".into(),
        "Bearer wrong".into(),
        format!("Bearer {almost}"),
        format!("Bearer {}", &door.token[1..]),
        format!("Bearer {}x", door.token),
        format!("Basic {}", door.token),
        door.token.clone(),
    ];
    for authorization in &wrong {
        let answer = door.ask("GET", "/api/v1/status", &[("Authorization", authorization)], "").await;
        assert_eq!(
            (answer.status, answer.header("www-authenticate")),
            (401, Some("Bearer")),
            "{authorization}"
        );
        assert!(answer.json()["error"].is_string());
    }
    assert_eq!(door.refusals(), wrong.len() as u64);
    let query = format!("/api/v1/status?token={0}&access_token={0}", door.token);
    for path in
        [&query, "/api/v1/status", "/metrics", "/api/v1/none", "/none", "/api/v1//login", "/api/v1/login/"]
    {
        assert_eq!(door.ask("GET", path, &[], "").await.status, 401, "{path}");
    }
    assert_eq!(door.with_token("GET", "/api/v1/none", "").await.status, 404);
    for path in ["/healthz", "/readyz"] {
        assert_eq!(door.ask("GET", path, &[], "").await.status, 200, "{path}");
    }
    door.assert_serves_the_honest().await;
    let head = door.with_token("HEAD", "/api/v1/status", "").await;
    assert_eq!((head.status, &*head.body), (200, ""));
}

#[tokio::test]
async fn what_is_for_this_machine_alone_is_not_offered() {
    let door = door();
    for path in ["/api/v1/nc?node=server&target=127.0.0.1:22", "/api/v1/login-codes"] {
        assert_eq!(door.ask("POST", path, &[], "").await.status, 401, "{path}");
        assert_eq!(door.with_token("POST", path, "").await.status, 403, "{path}");
    }
}

#[tokio::test]
async fn pages_of_other_origins_and_names_are_refused() {
    let door = door();
    let token = format!("Bearer {}", door.token);
    let port = door.address.port();
    let with = async |headers: &[(&str, &str)]| {
        let headers = [&[("Authorization", &*token)], headers].concat();
        door.ask("GET", "/api/v1/status", &headers, "").await
    };
    for host in ["evil.example", "evil.example:9464", "localhost:1", "x.localhost", "<script>", "a\tb"] {
        let answer = with(&[("Host", host)]).await;
        assert!([421, 400].contains(&answer.status), "{host}: {}", answer.status);
    }
    let named = with(&[("Host", "evil.example")]).await;
    assert!(named.status == 421 && named.body.contains("admin.hosts"), "{}", named.body);
    for host in [&*format!("localhost:{port}"), "localhost", "console.example.com", "[::1]", "127.0.0.1"] {
        let origin = format!("https://{host}");
        let same = [("Host", host), ("Origin", &*origin), ("Sec-Fetch-Site", "same-origin")];
        assert_eq!(with(&same).await.status, 200, "{host}");
    }
    for origin in ["http://evil.example", "null", "https://localhost:1", ""] {
        let answer = with(&[("Origin", origin)]).await;
        assert_eq!((answer.status, answer.header("access-control-allow-origin")), (403, None), "{origin}");
    }
    for site in ["cross-site", "same-site", "else"] {
        assert_eq!(with(&[("Sec-Fetch-Site", site)]).await.status, 403, "{site}");
    }
    let link =
        [("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "navigate"), ("Sec-Fetch-Dest", "document")];
    assert_eq!(with(&link).await.status, 403, "data is no page");
    let hostless = door.raw(b"GET /healthz HTTP/1.0\r\n\r\n").await;
    assert_eq!(hostless.status, 400);
    let hostless = door.raw(b"GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n").await;
    assert_eq!(hostless.status, 400);
    let two = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
    assert_eq!(door.raw(two.as_bytes()).await.status, 400);
    let absolute = "GET http://evil.example/healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    assert_eq!(door.raw(absolute.as_bytes()).await.status, 421);
    for method in ["OPTIONS", "TRACE", "CONNECT", "PATCH", "NONE"] {
        let path = if method == "CONNECT" { "localhost:80" } else { "/api/v1/ping" };
        let preflight = [("Authorization", &*token), ("Access-Control-Request-Method", "POST")];
        let answer = door.ask(method, path, &preflight, "").await;
        assert!([400, 405].contains(&answer.status), "{method}: {}", answer.status);
        assert!(!answer.head.to_lowercase().contains("access-control-"), "{}", answer.head);
    }
}

#[tokio::test]
async fn every_answer_is_hardened() {
    let door = door();
    let answers = [
        door.with_token("GET", "/api/v1/status", "").await,
        door.ask("GET", "/api/v1/status", &[], "").await,
        door.ask("GET", "/", &[("Host", "evil.example")], "").await,
        door.ask("OPTIONS", "/", &[], "").await,
    ];
    for answer in answers {
        let csp = answer.header("content-security-policy").unwrap();
        assert!(csp.starts_with("default-src 'none';") && !csp.contains("unsafe"), "{csp}");
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("cross-origin-opener-policy", "same-origin"),
            ("cross-origin-resource-policy", "same-origin"),
            ("cache-control", "no-store"),
            ("content-type", "application/json"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{name}: {}", answer.head);
        }
    }
}

#[tokio::test]
async fn a_session_needs_its_own_csrf_token_and_ends() {
    let door = door();
    let (browser, other) = (door.log_in().await, door.log_in().await);
    let cookie = [("Cookie", &*browser.cookie)];
    assert_eq!(door.ask("GET", "/api/v1/status", &cookie, "").await.status, 200);
    let session = door.ask("GET", "/api/v1/session", &cookie, "").await;
    assert_eq!(session.json()["csrf_token"], json!(browser.csrf));
    for csrf in [None, Some(""), Some("wrong"), Some(&*other.csrf), Some(&*door.token)] {
        assert_eq!(door.ping(&browser, csrf).await, 403, "{csrf:?}");
    }
    assert_eq!(door.ping(&browser, Some(&browser.csrf)).await, 200);
    let beside = Browser { cookie: format!("a=b; {}=x; {}", browser.name(), browser.cookie), ..other };
    assert_eq!(door.ping(&beside, Some(&browser.csrf)).await, 200, "a foreign cookie beside it");
    let headers = [("Cookie", &*browser.cookie), ("X-CSRF-Token", &*browser.csrf)];
    let out = door.ask("POST", "/api/v1/logout", &headers, "").await;
    assert!(out.status == 204 && out.header("set-cookie").unwrap().contains("Max-Age=0"), "{}", out.head);
    assert_eq!(door.ping(&browser, Some(&browser.csrf)).await, 401);
    assert_eq!(door.ask("GET", "/api/v1/session", &cookie, "").await.status, 401);
    assert_eq!(door.with_token("GET", "/api/v1/session", "").await.status, 409, "the token is no session");
}

#[tokio::test]
async fn the_event_streams_of_a_session_end_with_it() {
    let door = door();
    let (browser, other) = (door.log_in().await, door.log_in().await);
    let mut streams = Vec::new();
    for access in [
        format!("Cookie: {}", browser.cookie),
        format!("Cookie: {}", other.cookie),
        format!("Authorization: Bearer {}", door.token),
    ] {
        let mut stream = TcpStream::connect(door.address).await.unwrap();
        let request = format!("GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n{access}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut said = Vec::new();
        while !String::from_utf8_lossy(&said).contains("connected") {
            assert!(stream.read_buf(&mut said).await.unwrap() > 0, "{said:?}");
        }
        streams.push(stream);
    }
    let headers = [("Cookie", &*browser.cookie), ("X-CSRF-Token", &*browser.csrf)];
    assert_eq!(door.ask("POST", "/api/v1/logout", &headers, "").await.status, 204);
    // A stream that goes on says nothing for a while: the last piece of the body tells that it has ended.
    let mut end = Vec::new();
    while !end.ends_with(b"0\r\n\r\n") {
        let read = tokio::time::timeout(Duration::from_secs(10), streams[0].read_buf(&mut end)).await;
        assert!(read.expect("the stream goes on").unwrap() > 0, "{end:?}");
    }
    for others in &streams[1..] {
        let error = others.try_read(&mut [0; 64]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    }
}

#[tokio::test]
async fn two_nodes_of_one_host_do_not_take_each_others_sessions() {
    let (one, other) = (door(), door());
    let (here, there) = (one.log_in().await, other.log_in().await);
    assert_ne!(here.name(), there.name());
    let both = format!("{}; {}", here.cookie, there.cookie);
    for door in [&one, &other] {
        assert_eq!(door.ask("GET", "/api/v1/status", &[("Cookie", &both)], "").await.status, 200);
    }
}

#[tokio::test]
async fn a_session_is_never_one_that_the_client_chose() {
    let door = door();
    let chosen = format!("{}=chosen-by-the-attacker-and-long-enough-12", door.log_in().await.name());
    let chosen = [("Cookie", &*chosen)];
    assert_eq!(door.ask("GET", "/api/v1/status", &chosen, "").await.status, 401);
    let login = json!({ "token": door.token }).to_string();
    let answer = door.ask("POST", "/api/v1/login", &chosen, &login).await;
    assert!(answer.status == 200 && !answer.head.contains("chosen"), "{}", answer.head);
    assert_eq!(door.ask("GET", "/api/v1/status", &chosen, "").await.status, 401);
}

#[tokio::test]
async fn wrong_logins_are_slowed_down_and_right_ones_are_not() {
    let door = door();
    let (mut refused, mut slowed) = (0, 0);
    for i in 0..30 {
        let login = json!({ "token": format!("wrong-{i}") }).to_string();
        let answer = door.ask("POST", "/api/v1/login", &[], &login).await;
        match answer.status {
            401 => refused += 1,
            429 => {
                let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
                assert!((1..=60).contains(&wait));
                slowed += 1;
            }
            other => panic!("{other}: {}", answer.body),
        }
    }
    assert!(refused >= 10 && slowed >= 10, "{refused} refused, {slowed} slowed down");
    assert_eq!(door.refusals(), 30);
    door.log_in().await;
    for wrong in ["{}", r#"{"token":"a","code":"b"}"#, r#"{"token":1}"#, r#"{"tokn":"a"}"#, "", "[", "null"] {
        assert_eq!(door.ask("POST", "/api/v1/login", &[], wrong).await.status, 400, "{wrong}");
    }
    let foreign = [("Origin", "http://evil.example")];
    let login = json!({ "token": door.token }).to_string();
    assert_eq!(door.ask("POST", "/api/v1/login", &foreign, &login).await.status, 403, "login CSRF");
}

#[tokio::test]
async fn a_code_opens_one_session() {
    let door = door();
    let code = door.auth.create_code();
    assert_eq!(code.url, format!("http://{}/#code={}", door.address, code.code));
    let login = json!({ "code": code.code }).to_string();
    assert_eq!(door.ask("POST", "/api/v1/login", &[], &login).await.status, 200);
    let again = door.ask("POST", "/api/v1/login", &[], &login).await;
    assert!(again.status == 401 && again.body.contains("ffmesh console"), "{}", again.body);
}

#[tokio::test]
async fn huge_heads_and_bodies_are_refused() {
    let door = door();
    let huge = "a".repeat(BODY_LIMIT + 1);
    assert_eq!(door.with_token("POST", "/api/v1/ping", &huge).await.status, 413);
    // A length that is only said: the answer comes without waiting for it.
    let said = format!(
        "POST /api/v1/login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n{huge}"
    );
    assert_eq!(door.raw(said.as_bytes()).await.status, 413);
    let chunk = format!("{:x}\r\n{huge}\r\n0\r\n\r\n", huge.len());
    let chunked = format!(
        "POST /api/v1/login HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}"
    );
    assert_eq!(door.raw(chunked.as_bytes()).await.status, 413);
    let long = "a".repeat(2 * MAX_HEAD);
    for head in [format!("GET /{long} HTTP/1.1\r\n"), format!("GET / HTTP/1.1\r\nA: {long}\r\n")] {
        let answer = door.raw(format!("{head}Host: localhost\r\n\r\n").as_bytes()).await;
        assert!([0, 400, 414, 431].contains(&answer.status), "{}", answer.status);
    }
    let many = (0..1000).map(|i| format!("A{i}: b\r\n")).collect::<Vec<_>>().concat();
    let many = door.raw(format!("GET / HTTP/1.1\r\nHost: localhost\r\n{many}\r\n").as_bytes()).await;
    assert!([0, 400, 431].contains(&many.status), "{}", many.status);
    door.assert_serves_the_honest().await;
}

#[tokio::test]
async fn requests_are_not_smuggled() {
    let door = door();
    let inner = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let both = format!(
        "POST /api/v1/login HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\nTransfer-Encoding: chunked\r\n\r\n\
         0\r\n\r\n{inner}",
        inner.len() + 5
    );
    let lengths =
        "POST /api/v1/login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab";
    let coding = "POST /api/v1/login HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip\r\n\r\n";
    for request in [both.as_str(), lengths, coding] {
        let answer = door.raw(request.as_bytes()).await;
        let answers = answer.body.matches("HTTP/1.1 ").count();
        assert!(answer.status == 400 && answers == 0, "{request}: {}\n{}", answer.head, answer.body);
    }
    let injected = door.with_token("GET", "/api/v1/flows?id=a%0d%0aSet-Cookie:%20a=b", "").await;
    assert!(injected.status == 200 && injected.header("set-cookie").is_none(), "{}", injected.head);
}

#[tokio::test]
async fn what_a_client_sends_comes_back_as_data_alone() {
    let door = door();
    for node in ["<script>alert(1)</script>", "\u{1b}[2J", "a\u{0}b"] {
        let answer = door.with_token("POST", "/api/v1/ping", &json!({ "node": node }).to_string()).await;
        assert_eq!((answer.status, answer.header("content-type")), (400, Some("application/json")));
        assert!(!answer.body.contains(['\u{1b}', '\u{0}']), "{:?}", answer.body);
        answer.json();
    }
}

#[tokio::test]
async fn silent_connections_keep_nobody_out() {
    let door = door();
    let mut silent = Vec::new();
    for i in 0..4 * MAX_PER_SOURCE {
        let mut stream = TcpStream::connect(door.address).await.unwrap();
        if i % 2 == 0 {
            stream.write_all(b"GET /api/v1/status HTTP/1.1\r\nHost: loc").await.unwrap();
        }
        silent.push(stream);
    }
    for _ in 0..10 {
        door.assert_serves_the_honest().await;
    }
    // The first ones had to make way.
    let mut byte = [0];
    let ended = tokio::time::timeout(Duration::from_secs(10), silent[0].read(&mut byte)).await.unwrap();
    assert!(!matches!(ended, Ok(1..)), "{ended:?}");
}

#[tokio::test]
async fn logins_that_are_never_finished_keep_nobody_out() {
    let door = door();
    let begun = b"POST /api/v1/login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\nExpect: 100-continue\r\n\r\n";
    let mut open = Vec::new();
    for _ in 0..2 * MAX_PER_SOURCE {
        let mut stream = TcpStream::connect(door.address).await.unwrap();
        stream.write_all(begun).await.unwrap();
        // `HTTP/1.1 100`: the node waits for the body now.
        stream.read_exact(&mut [0; 12]).await.unwrap();
        open.push(stream);
    }
    door.assert_serves_the_honest().await;
    assert_eq!(door.ask("GET", "/healthz", &[], "").await.status, 200);
    door.log_in().await;
}

#[tokio::test]
async fn slow_heads_and_bodies_are_cut_off() {
    let door = door();
    let mut head = TcpStream::connect(door.address).await.unwrap();
    head.write_all(b"GET /api/v1/status HTTP/1.1\r\nHost: localhost\r\n").await.unwrap();
    let mut body = TcpStream::connect(door.address).await.unwrap();
    let begun = b"POST /api/v1/login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{";
    body.write_all(begun).await.unwrap();
    door.assert_serves_the_honest().await;
    // Longer than either limit.
    let limit = Duration::from_secs(40);
    let (mut none, mut said) = (Vec::new(), Vec::new());
    tokio::time::timeout(limit, head.read_to_end(&mut none)).await.unwrap().ok();
    tokio::time::timeout(limit, body.read_to_end(&mut said)).await.unwrap().ok();
    let said = String::from_utf8(said).unwrap();
    assert!(said.starts_with("HTTP/1.1 408 "), "{said}");
}
