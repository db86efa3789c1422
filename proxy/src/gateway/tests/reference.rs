//! The OpenAPI document: it has every route of the gateway, with its methods, and nothing else.

use std::collections::BTreeSet;

use http::Method;
use serde_json::Value;

use crate::gateway::tests::stack::{Stack, plain};

fn paths<'a>(all: impl Iterator<Item = &'a str>) -> BTreeSet<String> {
    all.map(plain).collect()
}

#[tokio::test]
async fn every_route_is_documented_with_its_methods() {
    let stack = Stack::start().await;
    let document: Value = stack.get("/openapi.json").await.json().await.unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    let documented = document["paths"].as_object().unwrap();
    assert!(stack.routes.len() > 100, "{}", stack.routes.len());
    // What Socket.IO sends is not for OpenAPI to describe.
    let described = stack.routes.iter().map(String::as_str).filter(|route| !route.contains("/socket.io"));
    assert_eq!(paths(documented.keys().map(String::as_str)), paths(described));
    for (path, item) in documented {
        for method in [Method::GET, Method::POST, Method::DELETE, Method::PUT, Method::PATCH] {
            let known = item.get(method.as_str().to_ascii_lowercase()).is_some();
            let url = format!("{}{}", stack.url, path.replace(['{', '}'], ""));
            let status = stack.client.request(method.clone(), url).send().await.unwrap().status();
            assert_eq!(status != 405, known, "{method} {path}: {status}");
        }
    }
}

#[tokio::test]
async fn the_reference_page_loads_the_document() {
    let stack = Stack::start().await;
    let page = stack.get("/docs").await;
    assert_eq!(page.headers()["content-type"], "text/html; charset=utf-8");
    assert!(page.text().await.unwrap().contains("/page/reference.js"));
    assert!(stack.get("/page/reference.js").await.text().await.unwrap().contains("/openapi.json"));
}
