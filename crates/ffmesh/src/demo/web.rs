//! The demo's web service: a page, a download and an echo.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};

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

use crate::failure::Outcome;

/// Largest download: enough to measure with, too little to fill a disk by accident.
const MAX_MIB: u64 = 65_536;
const DEFAULT_MIB: u64 = 100;
/// One piece of a download.
static PIECE: [u8; 64 * 1024] = [0; 64 * 1024];

/// Starts the service on a free port of 127.0.0.1. It ends with the process.
pub(super) async fn start(node: NodeId) -> Outcome<SocketAddr> {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let router = Router::new()
        .route("/", get(page))
        .route("/big", get(big))
        .route("/echo", post(async |body: Body| body))
        .route("/healthz", get(async || "ok\n"))
        .with_state(node);
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(address)
}

async fn page(State(node): State<NodeId>) -> Html<String> {
    // A node's id has only letters, digits, - and _: nothing to escape.
    Html(format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>FFMesh demo</title>\n\
         <style>:root{{color-scheme:light dark}}body{{font:1.1rem/1.6 system-ui,sans-serif;max-width:34rem;\
         margin:12vh auto;padding:0 1rem}}code{{font-size:.95em}}</style>\n\
         <h1>FFMesh demo</h1>\n\
         <p>This page was served behind the node <strong>{node}</strong> and came to you through the mesh.</p>\n\
         <ul>\n<li><a href=\"/big\">/big</a>: a download of {DEFAULT_MIB} MiB; <code>/big?mib=1024</code> for another size\n\
         <li><code>/echo</code>: sends back what is posted to it\n</ul>\n</html>\n"
    ))
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
