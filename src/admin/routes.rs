//! The paths and their answers. Exact paths only: nothing is decoded, normalised or guessed.
#![forbid(unsafe_code)]

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::{Method, Response, StatusCode, Uri};
use serde::Serialize;

use super::query_parameters::{self, BadQuery};
use super::{Readiness, View};
use crate::api::{ErrorAnswer, HealthAnswer, NotReadyAnswer, ReadyAnswer};

/// An answer whose whole body is in memory before its head is sent.
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
        "/healthz" => Ok(object(StatusCode::OK, &HealthAnswer { status: "ok".into() })),
        "/readyz" => Ok(readiness(view.readiness())),
        path => match path.strip_prefix("/api/v1/") {
            Some(name) => api(view, name, uri.query()).await,
            None => Ok(not_found()),
        },
    };
    answered.unwrap_or_else(|why| error(StatusCode::BAD_REQUEST, "bad_request", &why))
}

/// The API proper. Unlike scrapers and probes, who asks it knows its parameters.
async fn api(view: &dyn View, name: &str, query: Option<&str>) -> Result<Answer, BadQuery> {
    Ok(match name {
        "status" => object(StatusCode::OK, &view.status(query_parameters::switch(query, "peers")?)),
        "connections" => {
            query_parameters::none(query)?;
            object(StatusCode::OK, &view.connections())
        }
        "explain" => match query_parameters::only(query, "target")? {
            Some(target) => object(StatusCode::OK, &view.explain(&target).await?),
            None => return Err("explain what? Give ?target=HOST or ?target=HOST:PORT".to_owned()),
        },
        _ => not_found(),
    })
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

fn readiness(readiness: Readiness) -> Answer {
    match readiness {
        Readiness::Ready => {
            let ready = ReadyAnswer { status: "ready".into(), pending: Vec::new() };
            object(StatusCode::OK, &ready)
        }
        Readiness::NotReady { error, message, pending } => {
            let missing = NotReadyAnswer { error: error.into(), message, pending };
            object(StatusCode::SERVICE_UNAVAILABLE, &missing)
        }
    }
}

fn error(status: StatusCode, error: &'static str, message: &str) -> Answer {
    object(status, &ErrorAnswer { error: error.into(), message: message.to_owned() })
}

/// Every answer has its keys in alphabetical order, as a [`serde_json::Value`] keeps them.
fn object(status: StatusCode, answer: &impl Serialize) -> Answer {
    match serde_json::to_value(answer) {
        Ok(value) => with_type(status, "application/json", format!("{value}\n")),
        // Only a map whose keys are no texts cannot be written, and no answer has one.
        Err(_) => with_type(StatusCode::INTERNAL_SERVER_ERROR, "application/json", String::new()),
    }
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
