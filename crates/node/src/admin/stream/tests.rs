//! Event streams over a real Unix socket, with a double for the node.

use std::sync::Arc;
use std::time::Duration;

use ffmesh_api::{Change, Event, LogEntry, Sample};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio_stream::StreamExt;

use super::stream;
use crate::admin::MAX_STREAMS;
use crate::admin::tests::{Double, Served, serve_double};
use crate::events::{Events, MAX_WAITING};

const PATIENCE: Duration = Duration::from_secs(20);

/// A client of the stream, and what it has read.
struct Client {
    stream: UnixStream,
    read: String,
}

impl Client {
    async fn open(node: &Served, query: &str, headers: &str) -> Self {
        let mut stream = UnixStream::connect(&node.path).await.unwrap();
        let request = format!("GET /api/v1/events{query} HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        Self { stream, read: String::new() }
    }

    /// Reads on until this has come.
    async fn until(&mut self, part: &str) -> &str {
        let mut buffer = [0; 4096];
        while !self.read.contains(part) {
            let read = tokio::time::timeout(PATIENCE, self.stream.read(&mut buffer)).await;
            let read = read.unwrap_or_else(|_| panic!("no {part:?} in {:?}", self.read)).unwrap();
            assert!(read > 0, "it ended without {part:?}: {:?}", self.read);
            self.read.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
        }
        &self.read
    }

    /// The events so far.
    fn events(&self) -> Vec<Event> {
        let data = self.read.lines().filter_map(|line| line.strip_prefix("data: "));
        data.map(|data| serde_json::from_str(data).unwrap()).collect()
    }

    fn ids(&self) -> Vec<u64> {
        self.events().iter().map(|event| event.id).collect()
    }
}

fn proxy(name: &str) -> Change {
    Change::Proxy { name: name.to_owned() }
}

fn node() -> (Served, Events) {
    let double = Double::default();
    let events = double.events.clone();
    (serve_double(double), events)
}

#[tokio::test]
async fn says_at_once_that_it_is_connected_and_then_what_changes() {
    let (node, events) = node();
    events.publish(proxy("before"));
    let mut client = Client::open(&node, "", "").await;
    let head = client.until("retry: 1000").await;
    assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("content-type: text/event-stream"), "{head}");
    assert!(head.contains(": connected"), "{head}");
    events.publish(proxy("a\n\ndata: forged"));
    let read = client.until("forged").await;
    assert!(read.contains("id: 2\n") && read.contains("event: proxy\n"), "{read}");
    assert_eq!(client.events()[0].change, proxy("a\n\ndata: forged"));
    assert_eq!(client.ids(), [2], "one event, and none from before");
}

#[tokio::test]
async fn who_comes_back_misses_nothing() {
    let (node, events) = node();
    let mut client = Client::open(&node, "", "").await;
    client.until("connected").await;
    for name in ["a", "b"] {
        events.publish(proxy(name));
    }
    client.until("id: 2").await;
    drop(client);
    for name in ["c", "d"] {
        events.publish(proxy(name));
    }
    for (query, headers) in
        [("?after=2", ""), ("?after=0", "Last-Event-ID: 2\r\n"), ("", "last-event-id: 2\r\n")]
    {
        let mut client = Client::open(&node, query, headers).await;
        client.until("id: 4").await;
        assert_eq!(client.ids(), [3, 4], "{query} {headers}");
    }
    let mut client = Client::open(&node, "?after=0", "").await;
    client.until("id: 4").await;
    assert_eq!(client.ids(), [1, 2, 3, 4]);
    let mut client = Client::open(&node, "", "Last-Event-ID: 900\r\n").await;
    client.until("id: 4").await;
    assert_eq!(client.events()[0].change, Change::Lagged { missed: 0 }, "it saw another run of the node");
}

#[tokio::test]
async fn brings_the_kinds_that_were_asked_for() {
    let (node, events) = node();
    let mut client = Client::open(&node, "?kinds=service,sample", "").await;
    client.until("connected").await;
    events.publish(proxy("a"));
    events.publish(Change::Service { name: "b".to_owned() });
    events.publish(Change::Sample(Sample::default()));
    client.until("id: 3").await;
    assert_eq!(client.ids(), [2, 3]);
    for (query, headers, part) in [
        ("?kinds=proxy,proxies", "", "proxies"),
        ("?after=x", "", "after"),
        ("", "Last-Event-ID: x\r\n", "Last-Event-ID"),
        ("", "Last-Event-ID: -1\r\n", "Last-Event-ID"),
    ] {
        let mut client = Client::open(&node, query, headers).await;
        let read = client.until("\"error\"").await;
        assert!(read.starts_with("HTTP/1.1 400 ") && read.contains(part), "{read}");
    }
}

#[tokio::test]
async fn streams_are_limited_and_the_room_of_one_that_ended_is_free() {
    let (node, events) = node();
    let mut clients = Vec::new();
    for _ in 0..MAX_STREAMS {
        let mut client = Client::open(&node, "", "").await;
        client.until("connected").await;
        clients.push(client);
    }
    let mut refused = Client::open(&node, "", "").await;
    let read = refused.until("\"error\"").await;
    assert!(read.starts_with("HTTP/1.1 503 ") && read.contains("retry-after: 5"), "{read}");
    assert_eq!(node.get("/api/v1/status").await.0, 200, "the rest of the API is there");
    clients.pop();
    let begin = std::time::Instant::now();
    loop {
        events.publish(proxy("a"));
        let mut client = Client::open(&node, "", "").await;
        if client.until("\r\n\r\n").await.starts_with("HTTP/1.1 200 ") {
            break;
        }
        assert!(begin.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn who_reads_too_slowly_is_told_and_goes_on() {
    let events = Events::default();
    events.publish(proxy("a"));
    let permit = Arc::new(Semaphore::new(1)).acquire_owned().await.unwrap();
    let mut stream = Box::pin(stream(&events, Some(0), None, permit));
    for _ in 0..MAX_WAITING + 10 {
        events.publish(proxy("b"));
    }
    let mut next = async || format!("{:?}", stream.next().await.unwrap().unwrap());
    assert!(next().await.contains("connected"));
    assert!(next().await.contains("id: 1\\n"));
    let lagged = next().await;
    assert!(lagged.contains("event: lagged") && lagged.contains("id: 11\\n"), "{lagged}");
    assert!(next().await.contains("id: 12\\n"));
}

#[tokio::test]
async fn the_log_is_its_lines() {
    let (node, _) = node();
    let (status, body) = node.get("/api/v1/log").await;
    let lines: Vec<LogEntry> = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &*lines[0].line.message), (200, "evil\x1b[2J"));
    assert!(!body.contains('\x1b'), "{body:?}");
    let line: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(line[0]["fields"]["peer"], "b");
}
