//! The demo's web service: a page with a clock that is one long answer, a download and an echo.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use ffmesh_core::id::NodeId;
use hyper::body::{Frame, SizeHint};
use serde::Deserialize;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use crate::failure::Outcome;

/// Largest download: enough to measure with, too little to fill a disk by accident.
const MAX_MIB: u64 = 65_536;
const DEFAULT_MIB: u64 = 100;
/// From one line of the stream to the next: short, so that a stall is seen.
const TICK: Duration = Duration::from_millis(100);
/// One piece of a download.
static PIECE: [u8; 64 * 1024] = [0; 64 * 1024];

/// Starts the service on a free port of 127.0.0.1. It ends with the process.
pub(super) async fn start(node: NodeId) -> Outcome<SocketAddr> {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let router = Router::new()
        .route("/", get(page))
        .route("/stream", get(stream))
        .route("/big", get(big))
        .route("/echo", post(async |body: Body| body))
        .route("/healthz", get(async || "ok\n"))
        .with_state(node);
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(address)
}

async fn page(State(node): State<NodeId>) -> Html<String> {
    // A node's id has only letters, digits, - and _: nothing to escape.
    Html(
        include_str!("page.html").replace("{node}", node.as_str()).replace("{mib}", &DEFAULT_MIB.to_string()),
    )
}

/// Lines without end, numbered from 1, each with the seconds since the first.
async fn stream() -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        // A browser would otherwise wait for enough of it to guess its type.
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    let mut pace = interval(TICK);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    (headers, Body::new(Ticks { started: Instant::now(), pace, number: 0 })).into_response()
}

/// The body of the stream.
struct Ticks {
    started: Instant,
    pace: Interval,
    number: u64,
}

impl HttpBody for Ticks {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        ready!(self.pace.poll_tick(context));
        self.number += 1;
        let line = format!("{} {:.1} s\n", self.number, self.started.elapsed().as_secs_f64());
        Poll::Ready(Some(Ok(Frame::data(line.into()))))
    }
}

#[derive(Deserialize)]
struct Size {
    mib: Option<u64>,
}

async fn big(Query(size): Query<Size>) -> Response {
    let mib = size.mib.unwrap_or(DEFAULT_MIB);
    if mib > MAX_MIB {
        return (StatusCode::BAD_REQUEST, format!("at most {MAX_MIB} MiB\n")).into_response();
    }
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"big\""),
    ];
    (headers, Body::new(Zeros { left: mib << 20 })).into_response()
}

/// A body of zeros.
struct Zeros {
    left: u64,
}

impl HttpBody for Zeros {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let length = usize::try_from(self.left).unwrap_or(usize::MAX).min(PIECE.len());
        self.left -= length as u64;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&PIECE[..length])))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
    use tokio::net::TcpStream;

    use super::*;

    async fn get(path: &str) -> BufReader<TcpStream> {
        let address = start("server".parse().unwrap()).await.unwrap();
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        BufReader::new(stream)
    }

    #[tokio::test]
    async fn the_stream_counts_without_end() {
        let mut lines = get("/stream").await.lines();
        let (mut numbers, mut chunked) = (Vec::new(), false);
        while numbers.len() < 5 {
            let line = lines.next_line().await.unwrap().expect("the stream goes on");
            chunked |= line.eq_ignore_ascii_case("transfer-encoding: chunked");
            if line.ends_with(" s") {
                numbers.push(line.split(' ').next().unwrap().parse::<u64>().unwrap());
            }
        }
        assert!(chunked);
        assert_eq!(numbers, [1, 2, 3, 4, 5]);
    }

    #[tokio::test]
    async fn the_page_names_the_node_and_loads_nothing_from_elsewhere() {
        let mut page = String::new();
        get("/").await.read_to_string(&mut page).await.unwrap();
        assert!(page.contains("<strong>server</strong>") && page.contains("100 MiB"), "{page}");
        assert!(!page.contains("{node}") && !page.contains("{mib}"), "{page}");
        assert!(!page.contains("http:") && !page.contains("https:"), "{page}");
    }
}
