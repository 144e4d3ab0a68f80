//! What the API says of itself, held against its routes and against what it answers.

use std::collections::BTreeSet;

use agent::http::table;
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::UnixStream;

use crate::backend::{Fixed, MOVE, Served, VM};

async fn asked(served: &Served, path: &str) -> Value {
    let stream = UnixStream::connect(&served.socket).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get(path).header(header::HOST, "agent");
    let request = request.body(Empty::<Bytes>::new()).unwrap();
    let answer = sender.send_request(request).await.unwrap();
    assert_eq!(answer.status(), 200, "{path}");
    serde_json::from_slice(&answer.into_body().collect().await.unwrap().to_bytes()).unwrap()
}

/// What of `value` is not as `schema` says, with the place; none: it fits. Of JSON Schema, as much as the document uses.
fn wrong(document: &Value, schema: &Value, value: &Value, at: &str) -> Option<String> {
    if let Some(name) = schema["$ref"].as_str() {
        let schema = document.pointer(name.trim_start_matches('#'));
        return match schema {
            Some(schema) => wrong(document, schema, value, at),
            None => Some(format!("{at}: {name} is not described")),
        };
    }
    if let Some(one_of) = schema["oneOf"].as_array() {
        let fits = one_of.iter().any(|schema| wrong(document, schema, value, at).is_none());
        return (!fits).then(|| format!("{at}: {value} is none of {one_of:?}"));
    }
    if let Some(one_of) = schema["enum"].as_array() {
        return (!one_of.contains(value)).then(|| format!("{at}: {value} is none of {one_of:?}"));
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let named = &schema["type"];
    let allows = |kind: &str| {
        named == kind || named.as_array().is_some_and(|kinds| kinds.contains(&json!(kind)))
    };
    if !(allows(kind) || kind == "integer" && allows("number")) {
        return Some(format!("{at}: {value} is none of {named}"));
    }
    if let Value::Array(all) = value {
        return all.iter().find_map(|one| wrong(document, &schema["items"], one, at));
    }
    let object = value.as_object()?;
    let required = schema["required"].as_array().into_iter().flatten();
    let mut missing = required.filter_map(Value::as_str).filter(|name| !object.contains_key(*name));
    if let Some(name) = missing.next() {
        return Some(format!("{at}: {name} is missing"));
    }
    object.iter().find_map(|(name, value)| match schema["properties"].get(name) {
        None => Some(format!("{at}: {name} is not described")),
        Some(schema) => wrong(document, schema, value, &format!("{at}.{name}")),
    })
}

fn references(value: &Value, all: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            all.extend(object.get("$ref").and_then(Value::as_str).map(str::to_owned));
            object.values().for_each(|value| references(value, all));
        }
        Value::Array(array) => array.iter().for_each(|value| references(value, all)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[tokio::test]
async fn each_route_is_described_and_each_that_is_described_is_there() {
    let served = Served::start().await;
    let document = asked(&served, "/v1/openapi.json").await;
    let routes: BTreeSet<String> = table::<Fixed>()
        .into_iter()
        .map(|route| format!("{} {}", route.method, route.path.replace("{*", "{")))
        .collect();
    let paths = document["paths"].as_object().unwrap();
    let described: BTreeSet<String> = paths
        .iter()
        .flat_map(|(path, of)| of.as_object().unwrap().keys().map(move |method| (method, path)))
        .map(|(method, path)| format!("{} {path}", method.to_uppercase()))
        .collect();
    assert_eq!(described, routes);
    let mut all = BTreeSet::new();
    references(&document, &mut all);
    assert!(all.len() > 20, "{all:?}");
    for name in all {
        assert!(document.pointer(name.trim_start_matches('#')).is_some(), "{name} is missing");
    }
}

#[tokio::test]
async fn what_is_answered_is_as_it_is_described() {
    let served = Served::start().await;
    served.backend.note(MOVE);
    let document = asked(&served, "/v1/openapi.json").await;
    for (path, asks) in [
        ("/v1/me", "/v1/me".to_owned()),
        ("/v1/report", "/v1/report".to_owned()),
        ("/v1/overview", "/v1/overview".to_owned()),
        ("/v1/status", "/v1/status".to_owned()),
        ("/v1/hosts", "/v1/hosts".to_owned()),
        ("/v1/traffic", "/v1/traffic".to_owned()),
        ("/v1/vms/{vm}/history", format!("/v1/vms/{VM}/history")),
        ("/v1/exclusions", "/v1/exclusions".to_owned()),
        ("/v1/inventory", "/v1/inventory".to_owned()),
        ("/v1/cluster", "/v1/cluster".to_owned()),
        ("/v1/moves", "/v1/moves".to_owned()),
        ("/v1/moves/{id}", format!("/v1/moves/{MOVE}")),
        ("/v1/moves/{id}/resolve", format!("/v1/moves/{MOVE}/resolve")),
        ("/v1/events", "/v1/events".to_owned()),
        ("/v1/balancer", "/v1/balancer".to_owned()),
        ("/v1/drain", "/v1/drain".to_owned()),
        ("/v1/plan", "/v1/plan".to_owned()),
        ("/v1/why", "/v1/why".to_owned()),
        ("/v1/tokens", "/v1/tokens".to_owned()),
        ("/v1/audit", "/v1/audit".to_owned()),
    ] {
        let answer = asked(&served, &asks).await;
        let content = &document["paths"][path]["get"]["responses"]["200"]["content"];
        let schema = &content["application/json"]["schema"];
        assert!(schema.is_object(), "{path} has no schema");
        assert_eq!(wrong(&document, schema, &answer, path), None);
    }
    let me = json!({ "$ref": "#/components/schemas/Me" });
    let good = json!({ "who": "a", "role": "viewer", "here": true, "host": "b" });
    assert_eq!(wrong(&document, &me, &good, "me"), None);
    for (field, bad) in [("role", json!("king")), ("here", json!(1)), ("more", json!(1))] {
        let mut value = good.clone();
        value[field] = bad;
        assert!(wrong(&document, &me, &value, "me").is_some(), "{field}");
    }
    assert!(wrong(&document, &me, &json!({}), "me").is_some());
}
