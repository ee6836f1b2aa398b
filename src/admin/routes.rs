//! The paths and their answers. Exact paths only: nothing is decoded, normalised or guessed.
#![forbid(unsafe_code)]

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::{Method, Response, StatusCode, Uri};
use serde_json::{Value, json};

use super::query::{self, BadQuery};
use super::{Readiness, View};

/// A whole answer.
pub(super) type Answer = Response<Full<Bytes>>;

/// The text format's own type (Prometheus exposition format 0.0.4).
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Answers a request that the guard let in.
pub(super) async fn answer(view: &dyn View, method: &Method, uri: &Uri) -> Answer {
    if method != Method::GET && method != Method::HEAD {
        return method_not_allowed();
    }
    let answered = match uri.path() {
        "/metrics" => Ok(with_type(StatusCode::OK, METRICS_TYPE, view.metrics())),
        "/healthz" => Ok(object(StatusCode::OK, &json!({"status": "ok"}))),
        "/readyz" => Ok(readiness(&view.readiness())),
        path => match path.strip_prefix("/api/v1/") {
            Some(name) => api(view, name, uri.query()).await,
            None => Ok(not_found()),
        },
    };
    answered.unwrap_or_else(|why| error(StatusCode::BAD_REQUEST, "bad_request", &why))
}

/// The API proper. Unlike scrapers and probes, who asks it knows its parameters.
async fn api(view: &dyn View, name: &str, query: Option<&str>) -> Result<Answer, BadQuery> {
    let value = match name {
        "status" => view.status(query::switch(query, "peers")?),
        "connections" => {
            query::none(query)?;
            view.connections()
        }
        "explain" => match query::only(query, "target")? {
            Some(target) => view.explain(&target).await?,
            None => return Err("explain what? Give ?target=HOST or ?target=HOST:PORT".to_owned()),
        },
        _ => return Ok(not_found()),
    };
    Ok(object(StatusCode::OK, &value))
}

fn not_found() -> Answer {
    let message = "there is /metrics, /healthz, /readyz, /api/v1/status, /api/v1/connections and \
                   /api/v1/explain?target=HOST:PORT";
    error(StatusCode::NOT_FOUND, "not_found", message)
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

fn readiness(readiness: &Readiness) -> Answer {
    let Readiness { error, message, pending } = readiness;
    if readiness.is_ready() {
        return object(StatusCode::OK, &json!({"status": "ready", "pending": []}));
    }
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
