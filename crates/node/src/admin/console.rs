//! The files of the web console. Anyone may have them: they hold no secret, and the page signs in by itself.

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use ffmesh_console::{Asset, asset, paths};

/// For files whose names change with their content: a year, as RFC 9111 has no "for ever".
const FOR_GOOD: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");
/// For the others: kept, and asked for by their tags before each use.
const ASK_FIRST: HeaderValue = HeaderValue::from_static("no-cache");

/// Answers for `/` and for each file of the console, by GET and HEAD. Every other path is left to the router that
/// this one is merged into.
pub(super) fn console<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let router = Router::new().route("/", get(file));
    paths().fold(router, |router, path| router.route(path, get(file)))
}

/// axum takes the body out of an answer to HEAD, and leaves the length of what GET would bring.
async fn file(request: Request) -> Response {
    match asset(request.uri().path()) {
        Some(asset) => answer(asset, request.headers()),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

fn answer(asset: Asset, wants: &HeaderMap) -> Response {
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    let keep = if asset.hashed { FOR_GOOD } else { ASK_FIRST };
    headers.insert(header::CACHE_CONTROL, keep);
    headers.insert(header::ETAG, HeaderValue::from_static(asset.etag));
    if asset.gzip.is_some() {
        headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    }
    if names(wants, &header::IF_NONE_MATCH, |tag| tag == "*" || tag.trim_start_matches("W/") == asset.etag) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return response;
    }
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(asset.content_type));
    let bytes = match asset.gzip {
        Some(gzip) if names(wants, &header::ACCEPT_ENCODING, takes_gzip) => {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            gzip
        }
        _ => asset.bytes,
    };
    *response.body_mut() = Body::from(bytes);
    response
}

/// Whether one of the words of a header, separated by commas, is what is looked for.
fn names(headers: &HeaderMap, name: &HeaderName, is_it: impl Fn(&str) -> bool) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|word| is_it(word.trim()))
}

/// `gzip` or `gzip;q=0.5`, but not `gzip;q=0` (RFC 9110, section 12.5.3).
fn takes_gzip(word: &str) -> bool {
    let (coding, weight) = word.split_once(';').unwrap_or((word, "q=1"));
    let weight = weight.trim().trim_start_matches("q=").trim().parse::<f32>();
    coding.trim().eq_ignore_ascii_case("gzip") && weight.is_ok_and(|weight| weight > 0.0)
}

#[cfg(test)]
mod tests {
    use axum::http::Method;
    use http_body_util::BodyExt;
    use hyper::service::Service;
    use hyper_util::service::TowerToHyperService;

    use super::*;

    async fn ask(
        method: Method,
        path: &str,
        headers: &[(HeaderName, &str)],
    ) -> (StatusCode, HeaderMap, Vec<u8>) {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        let request = request.body(Body::empty()).unwrap();
        let response = TowerToHyperService::new(console::<()>()).call(request).await.unwrap();
        let (head, body) = response.into_parts();
        (head.status, head.headers, body.collect().await.unwrap().to_bytes().to_vec())
    }

    fn compressed() -> &'static str {
        paths().find(|path| asset(path).is_some_and(|asset| asset.gzip.is_some())).unwrap_or("/")
    }

    #[tokio::test]
    async fn the_first_page_is_asked_for_again_each_time() {
        let (status, headers, body) = ask(Method::GET, "/", &[]).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(headers[header::CONTENT_TYPE], "text/html; charset=utf-8");
        assert_eq!(headers[header::CACHE_CONTROL], "no-cache");
        assert_eq!(body, asset("/").unwrap().bytes);
    }

    #[tokio::test]
    async fn every_file_is_served_with_its_type_and_what_may_be_kept() {
        for path in paths() {
            let (status, headers, body) = ask(Method::GET, path, &[]).await;
            let asset = asset(path).unwrap();
            assert_eq!(status, StatusCode::OK, "{path}");
            assert_eq!(headers[header::CONTENT_TYPE], asset.content_type, "{path}");
            assert_eq!(headers[header::CACHE_CONTROL] == "no-cache", !asset.hashed, "{path}");
            assert!(!headers.contains_key(header::CONTENT_ENCODING), "{path} came compressed, unasked");
            assert_eq!(body, asset.bytes, "{path}");
        }
    }

    #[tokio::test]
    async fn a_file_that_the_client_has_is_not_sent_again() {
        let etag = asset("/").unwrap().etag;
        for tags in [etag.to_owned(), format!("\"other\", W/{etag}"), "*".to_owned()] {
            let (status, headers, body) = ask(Method::GET, "/", &[(header::IF_NONE_MATCH, &tags)]).await;
            assert_eq!(status, StatusCode::NOT_MODIFIED, "{tags}");
            assert_eq!(headers[header::ETAG], etag);
            assert!(body.is_empty());
        }
        let (status, ..) = ask(Method::GET, "/", &[(header::IF_NONE_MATCH, "\"other\"")]).await;
        assert_eq!(status, StatusCode::OK);
    }

    #[tokio::test]
    async fn compressed_bytes_come_to_those_who_take_them() {
        let path = compressed();
        let Some(gzip) = asset(path).unwrap().gzip else {
            return assert!(!ffmesh_console::is_built(), "no file of the console is compressed");
        };
        for (accept, wanted) in [("br, gzip", true), ("GZIP;q=0.5", true), ("gzip;q=0", false), ("br", false)]
        {
            let (_, headers, body) = ask(Method::GET, path, &[(header::ACCEPT_ENCODING, accept)]).await;
            assert_eq!(headers.contains_key(header::CONTENT_ENCODING), wanted, "{accept}");
            assert_eq!(body == gzip, wanted, "{accept}");
            assert_eq!(headers[header::VARY], "accept-encoding");
        }
    }

    #[tokio::test]
    async fn head_says_what_get_would() {
        let (status, headers, body) = ask(Method::HEAD, "/", &[]).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(headers[header::CONTENT_LENGTH], asset("/").unwrap().bytes.len().to_string());
        assert!(body.is_empty());
    }

    #[tokio::test]
    async fn no_path_leads_out_of_the_table() {
        for path in [
            "/../Cargo.toml",
            "/assets/../index.html",
            "/assets/%2e%2e/index.html",
            "/assets",
            "/index.htm",
            "//",
        ] {
            let (status, ..) = ask(Method::GET, path, &[]).await;
            assert_eq!(status, StatusCode::NOT_FOUND, "{path}");
        }
        let (status, ..) = ask(Method::POST, "/", &[]).await;
        assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
    }
}
