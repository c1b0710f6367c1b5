//! The OpenAPI document says what the router does.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use http_body_util::BodyExt;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};

use super::Double;
use super::schema::{example, mismatch};
use crate::admin::{openapi, router, routes};

/// Set to write the document anew: `FFMESH_WRITE_OPENAPI=1 cargo test -p ffmesh-node openapi`.
const REWRITE: &str = "FFMESH_WRITE_OPENAPI";

fn document() -> Value {
    serde_json::to_value(openapi::split(routes::operations()).1).unwrap()
}

/// Every operation: path, method, description.
fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let paths = document["paths"].as_object().unwrap();
    let operations = paths.iter().flat_map(|(path, item)| {
        let methods = item.as_object().unwrap().iter();
        methods.map(|(method, operation)| (path.clone(), method.to_uppercase(), operation.clone()))
    });
    operations.collect()
}

#[test]
fn the_document_in_docs_is_that_of_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json");
    let text = serde_json::to_string_pretty(&document()).unwrap() + "\n";
    if std::env::var_os(REWRITE).is_some() {
        fs::write(&path, &text).unwrap();
    }
    let kept = fs::read_to_string(&path).unwrap();
    assert!(kept == text, "docs/openapi.json is not what the code makes: run the tests with {REWRITE}=1");
}

#[test]
fn every_route_is_in_the_document() {
    // The router shows its paths to no one but `Debug`.
    let (routes, document) = openapi::split(routes::operations());
    let shown = format!("{routes:?}");
    let routes: BTreeSet<&str> =
        shown.split('"').filter(|text| text.starts_with('/') && !is_fallback(text)).collect();
    let described: BTreeSet<&str> = document.paths.paths.keys().map(String::as_str).collect();
    assert!(routes.len() > 10, "{shown}");
    assert_eq!(routes, described);
}

/// What axum adds for the answer to all other paths.
fn is_fallback(path: &str) -> bool {
    path == "/" || path.contains("__private__")
}

#[test]
fn every_operation_is_described() {
    let document = document();
    for (path, method, operation) in operations(&document) {
        assert!(operation["summary"].is_string(), "{method} {path} has no summary");
        let open = operation["security"] == json!([{}]);
        let public = ["/healthz", "/readyz", "/api/v1/login"].contains(&&*path);
        assert_eq!(open, public, "{method} {path}: {}", operation["security"]);
    }
    let schemes: Vec<_> = document["components"]["securitySchemes"].as_object().unwrap().keys().collect();
    assert_eq!(schemes, ["session", "token"]);
}

/// A request for the operation, with the examples of its parameters and body.
fn request(document: &Value, path: &str, method: &str, operation: &Value) -> Request<Body> {
    let (mut uri, mut query) = (path.to_owned(), Vec::new());
    for parameter in operation["parameters"].as_array().into_iter().flatten() {
        let name = parameter["name"].as_str().unwrap();
        let value = parameter.get("example").cloned();
        let value = value.unwrap_or_else(|| example(document, &parameter["schema"]));
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        match parameter["in"].as_str().unwrap() {
            "path" => uri = uri.replace(&format!("{{{name}}}"), &value),
            "query" if parameter["required"] == true => query.push(format!("{name}={value}")),
            _ => {}
        }
    }
    if !query.is_empty() {
        uri = format!("{uri}?{}", query.join("&"));
    }
    let content = &operation["requestBody"]["content"]["application/json"];
    let body = match content.get("example") {
        Some(example) => example.to_string(),
        None if content["schema"].is_object() => example(document, &content["schema"]).to_string(),
        None => String::new(),
    };
    let request = Request::builder().uri(uri).method(method).header(header::HOST, "localhost");
    request.header(header::CONTENT_TYPE, "application/json").body(body.into()).unwrap()
}

#[tokio::test]
async fn every_operation_answers_as_the_document_says() {
    let document = document();
    let service =
        TowerToHyperService::new(router(Arc::new(Double { links_up: 1, ..Double::default() }), None));
    let (mut walked, mut with_body) = (0, 0);
    for (path, method, operation) in operations(&document) {
        let what = format!("{method} {path}");
        let response = service.call(request(&document, &path, &method, &operation)).await.unwrap();
        let status = response.status();
        assert_ne!(status, StatusCode::METHOD_NOT_ALLOWED, "{what}");
        assert_ne!(status, StatusCode::INTERNAL_SERVER_ERROR, "{what}");
        let responses = &operation["responses"];
        let declared = responses.get(status.as_str()).unwrap_or(&responses["default"]);
        assert!(status.is_client_error() || responses.get(status.as_str()).is_some(), "{what}: {status}");
        let content = response.headers().get(header::CONTENT_TYPE).map(|it| it.to_str().unwrap().to_owned());
        walked += 1;
        if content.as_deref() != Some("application/json") {
            // Text, or a stream without an end.
            let kind = content.as_deref().map(|it| it.split(';').next().unwrap().to_owned());
            let kinds = declared["content"].as_object().into_iter().flat_map(|it| it.keys().cloned());
            assert!(kind.iter().all(|kind| kinds.clone().any(|it| it.starts_with(kind))), "{what}: {kind:?}");
            continue;
        }
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap();
        let no_such_path = body["error"].as_str().is_some_and(|error| error.contains("no such path"));
        assert!(!no_such_path, "{what} does not exist");
        let schema = &declared["content"]["application/json"]["schema"];
        assert!(schema.is_object(), "{what}: {status} with a body that is not declared: {body}");
        assert_eq!(mismatch(&document, schema, &body), None, "{what}: {status} {body}");
        with_body += 1;
    }
    assert!(walked > 10 && with_body > 5, "{walked} walked, {with_body} with a body");
}

#[tokio::test]
async fn the_document_is_served() {
    let node = super::served(0);
    let (status, body) = node.get("/api/v1/openapi.json").await;
    assert_eq!((status, serde_json::from_str::<Value>(&body).unwrap()), (200, document()));
}
