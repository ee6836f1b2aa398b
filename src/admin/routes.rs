//! The paths and their answers. Exact paths only: nothing is decoded, normalised or guessed.
#![forbid(unsafe_code)]

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::{Method, Response, StatusCode};
use serde_json::{Value, json};

use super::View;

/// A whole answer.
pub(super) type Answer = Response<Full<Bytes>>;

/// The text format's own type (Prometheus exposition format 0.0.4).
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Answers a request that the guard let in.
pub(super) fn answer(view: &dyn View, method: &Method, path: &str) -> Answer {
    if method != Method::GET && method != Method::HEAD {
        return method_not_allowed();
    }
    match path {
        "/metrics" => with_type(StatusCode::OK, METRICS_TYPE, view.metrics()),
        "/healthz" => object(StatusCode::OK, &json!({"status": "ok"})),
        "/readyz" => readiness(&view.pending()),
        "/api/v1/status" => object(StatusCode::OK, &view.status()),
        "/api/v1/connections" => object(StatusCode::OK, &view.connections()),
        _ => error(
            StatusCode::NOT_FOUND,
            "not_found",
            "there is /metrics, /healthz, /readyz, /api/v1/status and /api/v1/connections",
        ),
    }
}

/// What a request gets that the guard did not let in.
pub(super) fn forbidden() -> Answer {
    let message = "this listener answers programs only, asked by its address, localhost or a name of listen.admin_hosts";
    error(StatusCode::FORBIDDEN, "forbidden", message)
}

fn method_not_allowed() -> Answer {
    let message = "nothing here can be changed: use GET";
    let mut answer = error(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message);
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    answer
}

fn readiness(pending: &[&'static str]) -> Answer {
    let (error, message) = match pending {
        [] => return object(StatusCode::OK, &json!({"status": "ready", "pending": []})),
        names if names.contains(&"drain") => ("draining", "the gateway is shutting down"),
        names if names.contains(&"upstream") => (
            "upstream_down",
            "the upstream cannot be reached: check that it runs where upstream.socks5 points",
        ),
        _ => ("starting", "the gateway is starting: wait for what is pending"),
    };
    let body = json!({"error": error, "message": message, "pending": pending});
    object(StatusCode::SERVICE_UNAVAILABLE, &body)
}

fn error(status: StatusCode, error: &str, message: &str) -> Answer {
    object(status, &json!({"error": error, "message": message}))
}

fn object(status: StatusCode, value: &Value) -> Answer {
    with_type(status, "application/json", format!("{value}\n"))
}

fn with_type(status: StatusCode, kind: &'static str, body: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}
