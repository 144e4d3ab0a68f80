//! Spans in the JSON of OTLP/HTTP: `opentelemetry-proto`, `trace/v1/trace.proto`, by the rules of the OTLP specification for
//! JSON: names in camel case, ids in hex, 64-bit numbers as text, enums as numbers.

use data_encoding::HEXLOWER;
use hyper::body::Bytes;
use serde::{Serialize, Serializer};

/// Of one span; the SDKs' own limit.
const EVENTS_MAX: usize = 128;
/// `SPAN_KIND_INTERNAL`.
const INTERNAL: u32 = 1;
const OK: u32 = 1;
const ERROR: u32 = 2;

/// One span.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Span {
    #[serde(serialize_with = "hex")]
    pub(super) trace_id: [u8; 16],
    #[serde(serialize_with = "hex")]
    pub(super) span_id: [u8; 8],
    #[serde(serialize_with = "hex_or_none", skip_serializing_if = "Option::is_none")]
    pub(super) parent_span_id: Option<[u8; 8]>,
    pub(super) name: &'static str,
    kind: u32,
    /// Nanoseconds since 1970.
    #[serde(serialize_with = "digits")]
    pub(super) start_time_unix_nano: u64,
    #[serde(serialize_with = "digits")]
    pub(super) end_time_unix_nano: u64,
    pub(super) attributes: Vec<Attribute>,
    pub(super) events: Vec<SpanEvent>,
    dropped_events_count: u32,
    pub(super) status: Status,
}

impl Span {
    /// One that begins then and has not ended.
    pub(super) fn new(trace_id: [u8; 16], span_id: [u8; 8], name: &'static str, at: u64) -> Span {
        Span {
            trace_id,
            span_id,
            parent_span_id: None,
            name,
            kind: INTERNAL,
            start_time_unix_nano: at,
            end_time_unix_nano: at,
            attributes: Vec::new(),
            events: Vec::new(),
            dropped_events_count: 0,
            status: Status::default(),
        }
    }

    pub(super) fn happened(&mut self, event: SpanEvent) {
        if self.events.len() < EVENTS_MAX {
            self.events.push(event);
        } else {
            self.dropped_events_count += 1;
        }
    }

    /// It is over; a clock that was set back makes no time negative.
    pub(super) fn end(&mut self, at: u64) {
        self.end_time_unix_nano = at.max(self.start_time_unix_nano);
    }
}

/// Something that happened within a span.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SpanEvent {
    #[serde(serialize_with = "digits")]
    pub(super) time_unix_nano: u64,
    pub(super) name: String,
    pub(super) attributes: Vec<Attribute>,
}

/// Unset, or as OTLP numbers it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Status {
    pub(super) code: u32,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) message: String,
}

impl Status {
    pub(super) fn ok() -> Status {
        Status { code: OK, message: String::new() }
    }

    pub(super) fn error(message: &str) -> Status {
        Status { code: ERROR, message: message.to_owned() }
    }
}

/// A name and what it is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Attribute {
    pub(super) key: &'static str,
    pub(super) value: Value,
}

/// `AnyValue`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) enum Value {
    #[serde(rename = "stringValue")]
    Text(String),
    #[serde(rename = "doubleValue")]
    Real(f64),
    #[serde(rename = "intValue", serialize_with = "digits")]
    Whole(u64),
}

pub(super) fn text(key: &'static str, value: impl Into<String>) -> Attribute {
    Attribute { key, value: Value::Text(value.into()) }
}

/// The body of a request: `ExportTraceServiceRequest`, of one resource and one scope.
pub(super) fn body(resource: Vec<Attribute>, spans: Vec<Span>) -> Option<Bytes> {
    let scope = Scope { name: "evenkeel", version: env!("CARGO_PKG_VERSION") };
    let resource = Resource { attributes: resource };
    let request = Request {
        resource_spans: [ResourceSpans { resource, scope_spans: [ScopeSpans { scope, spans }] }],
    };
    serde_json::to_vec(&request).ok().map(Bytes::from)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    resource_spans: [ResourceSpans; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ResourceSpans {
    resource: Resource,
    scope_spans: [ScopeSpans; 1],
}

#[derive(Serialize)]
struct Resource {
    attributes: Vec<Attribute>,
}

#[derive(Serialize)]
struct ScopeSpans {
    scope: Scope,
    spans: Vec<Span>,
}

#[derive(Serialize)]
struct Scope {
    name: &'static str,
    version: &'static str,
}

fn hex<S: Serializer>(id: &impl AsRef<[u8]>, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&HEXLOWER.encode(id.as_ref()))
}

fn hex_or_none<S: Serializer>(id: &Option<[u8; 8]>, to: S) -> Result<S::Ok, S::Error> {
    hex(&id.unwrap_or_default(), to)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives it so")]
fn digits<S: Serializer>(number: &u64, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(number)
}
