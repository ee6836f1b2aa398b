//! LocalAPI (ipn/localapi): HTTP on the Unix socket.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Either, Full};
use hyper::body::Incoming;
use hyper::header::{HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Version};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixListener;

use super::backend::Backend;
use super::bus::Bus;
use super::describe;
use super::relay::{self, Dialled};
use super::route::Way;
use super::script::{Answer, Asked, Bus as Fate, Call, Event, State};

/// The one Host there is (client/tailscale/apitype).
const HOST: &str = "local-tailscaled.sock";
const ROOT: &str = "/localapi/v0/";

type Reply = Response<Either<Full<Bytes>, Bus>>;

/// Serves for ever; having no descriptor left is no reason to end.
pub(super) async fn serve(listener: UnixListener, backend: Arc<Backend>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let backend = Arc::clone(&backend);
        tokio::spawn(async move {
            let service = hyper::service::service_fn(|request| answer(request, &backend));
            let http = hyper::server::conn::http1::Builder::new();
            let _ = http.serve_connection(TokioIo::new(stream), service).with_upgrades().await;
        });
    }
}

async fn answer(request: Request<Incoming>, backend: &Arc<Backend>) -> Result<Reply, Infallible> {
    let uri = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
    if request.uri().path() == "/server-status" {
        return Ok(json(&serde_json::json!({})));
    }
    if request.version() == Version::HTTP_11 && !request.headers().contains_key("host") {
        return Ok(text(StatusCode::BAD_REQUEST, "400 Bad Request: missing required Host header"));
    }
    if !is_allowed(request.headers()) {
        return Ok(text(StatusCode::FORBIDDEN, "invalid localapi request"));
    }
    let Some(name) = uri.strip_prefix(ROOT).map(str::to_owned) else {
        return Ok(text(StatusCode::NOT_FOUND, "404 page not found"));
    };
    let mut reply = if name.split('?').next() == Some("dial") {
        dial(request, backend, &name).await
    } else {
        let method = request.method().clone();
        let body = request.into_body().collect().await.map(|b| b.to_bytes()).unwrap_or_default();
        if name.starts_with("watch-ipn-bus") && backend.look().script.bus == Fate::Silent {
            std::future::pending::<()>().await;
        }
        if name == "logout" && method == Method::POST {
            backend.reach_control_for_logout().await;
        }
        call(&method, &name, &body, backend)
    };
    let version = backend.look().script.version.clone();
    let headers = reply.headers_mut();
    headers.insert("tailscale-cap", HeaderValue::from_static("138"));
    if let Ok(version) = HeaderValue::from_str(&version) {
        headers.insert("tailscale-version", version);
    }
    Ok(reply)
}

fn is_allowed(headers: &HeaderMap) -> bool {
    let is = |name: &str| headers.get(name).is_some_and(|v| !v.is_empty());
    let host = headers.get("host").map_or(&b""[..], HeaderValue::as_bytes);
    (host.is_empty() || host == HOST.as_bytes()) && !is("origin") && !is("referer")
}

fn call(method: &Method, name: &str, body: &Bytes, backend: &Arc<Backend>) -> Reply {
    let sent = String::from_utf8_lossy(body).into_owned();
    backend.tell(&Event::Api(Call {
        method: method.to_string(),
        name: name.to_owned(),
        body: sent,
    }));
    let (path, query) = name.split_once('?').unwrap_or((name, ""));
    if backend.look().script.lacks.iter().any(|lacking| lacking == path) {
        return text(StatusCode::NOT_FOUND, "404 page not found");
    }
    let strange = backend.look().script.strange;
    let json = |value: &Value| {
        let mut value = value.clone();
        if strange {
            describe::estrange(&mut value);
        }
        json(&value)
    };
    let writes = matches!(
        (path, method),
        ("start" | "login-interactive" | "logout" | "disconnect-control" | "check-prefs", _)
            | ("prefs", &Method::PATCH)
    );
    if writes && backend.look().script.read_only {
        return text(StatusCode::FORBIDDEN, "access denied");
    }
    if writes && path != "prefs" && method != Method::POST {
        return match path {
            "check-prefs" => text(StatusCode::METHOD_NOT_ALLOWED, "unsupported method"),
            "disconnect-control" => text(StatusCode::METHOD_NOT_ALLOWED, "use POST"),
            _ => text(StatusCode::BAD_REQUEST, "want POST"),
        };
    }
    match path {
        "status" => {
            let peers = !query.split('&').any(|q| q == "peers=false");
            json(&describe::status(&backend.look(), peers))
        }
        "prefs" if method == Method::PATCH => with_json(body, |masked| {
            backend.patch(masked);
            json(&backend.look().prefs)
        }),
        "prefs" => json(&backend.look().prefs),
        "check-prefs" => with_json(body, |_| match &backend.look().script.refuse_prefs {
            Some(why) => json(&serde_json::json!({"Error": why})),
            None => json(&serde_json::json!({})),
        }),
        "start" => with_json(body, |options| {
            backend.start(options);
            empty(StatusCode::NO_CONTENT)
        }),
        "login-interactive" => {
            backend.login();
            empty(StatusCode::NO_CONTENT)
        }
        "logout" if backend.look().script.logout_fails => {
            text(StatusCode::INTERNAL_SERVER_ERROR, "context deadline exceeded")
        }
        "logout" => {
            backend.logout();
            empty(StatusCode::NO_CONTENT)
        }
        "disconnect-control" => {
            backend.disconnect();
            empty(StatusCode::OK)
        }
        "dns-config" => {
            let inner = backend.look();
            match inner.has_netmap() {
                true => json(&inner.script.dns),
                false => text(StatusCode::SERVICE_UNAVAILABLE, "no netmap"),
            }
        }
        "watch-ipn-bus" => watch(query, backend),
        _ => text(StatusCode::NOT_FOUND, "404 page not found"),
    }
}

fn with_json(body: &Bytes, act: impl FnOnce(&Value) -> Reply) -> Reply {
    match serde_json::from_slice(body) {
        Ok(value) => act(&value),
        Err(error) => text(StatusCode::BAD_REQUEST, &error.to_string()),
    }
}

fn watch(query: &str, backend: &Arc<Backend>) -> Reply {
    let mask = query.split('&').find_map(|q| q.strip_prefix("mask="));
    let Ok(mask) = mask.filter(|mask| !mask.is_empty()).unwrap_or("0").parse() else {
        return text(StatusCode::BAD_REQUEST, "bad mask");
    };
    let (fate, dialect) = {
        let inner = backend.look();
        (inner.script.bus.clone(), inner.dialect())
    };
    match fate {
        Fate::Refused(status, words) => {
            return text(StatusCode::from_u16(status).unwrap(), &words);
        }
        Fate::Takes(bits) if mask & !bits != 0 => {
            return text(StatusCode::BAD_REQUEST, "unsupported IPN bus subscription bits");
        }
        Fate::Takes(_) | Fate::Normal | Fate::Silent | Fate::Closes(_) => {}
    }
    if let Some(words) = dialect.refuses(mask) {
        return text(StatusCode::BAD_REQUEST, &words);
    }
    let bus = backend.watch(mask);
    let reply = Response::builder().header("content-type", "application/json");
    reply.body(Either::Right(bus)).unwrap()
}

async fn dial(mut request: Request<Incoming>, backend: &Arc<Backend>, name: &str) -> Reply {
    let header = |name: &str| {
        let value = request.headers().get(name).and_then(|v| v.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    let (host, port, upgrade) = (header("dial-host"), header("dial-port"), header("upgrade"));
    let method = request.method().to_string();
    backend.tell(&Event::Api(Call { method, name: name.to_owned(), body: String::new() }));
    if request.method() != Method::POST {
        return text(StatusCode::METHOD_NOT_ALLOWED, "POST required");
    }
    if upgrade != "ts-dial" {
        return text(StatusCode::BAD_REQUEST, "bad ts-dial upgrade");
    }
    let (false, Ok(port)) = (host.is_empty(), port.parse()) else {
        return text(StatusCode::BAD_REQUEST, "missing Dial-Host or Dial-Port header");
    };
    let running = backend.look().state == State::Running;
    backend.tell(&Event::Dial(Asked { host: host.clone(), port, running }));
    let dialled = match backend.way(&host, port) {
        Way::NoSuchName => {
            let words = format!("resolve failure: lookup {host}: no such host");
            return text(StatusCode::BAD_GATEWAY, &words);
        }
        Way::Outside { to, .. } => {
            let reply = Response::builder().header("dial-self", "true");
            return reply.header("dial-addr", to.to_string()).body(nothing()).unwrap();
        }
        // A drop is not noticed here: the caller's patience decides.
        Way::Tailnet { to, answer: Answer::Silent, place } => {
            relay::dial(to, Answer::Hang, place).await
        }
        Way::Tailnet { to, answer, place } => relay::dial(to, answer, place).await,
    };
    if let Dialled::Failed(words) = &dialled {
        return text(StatusCode::BAD_GATEWAY, words);
    }
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        if let Ok(stream) = upgraded.await {
            let _ = relay::relay(TokioIo::new(stream), dialled, false).await;
        }
    });
    let reply = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS);
    reply.header("connection", "upgrade").header("upgrade", "ts-dial").body(nothing()).unwrap()
}

fn nothing() -> Either<Full<Bytes>, Bus> {
    Either::Left(Full::default())
}

fn empty(status: StatusCode) -> Reply {
    Response::builder().status(status).body(nothing()).unwrap()
}

fn text(status: StatusCode, text: &str) -> Reply {
    let reply = Response::builder().status(status).header("content-type", "text/plain");
    reply.body(Either::Left(format!("{text}\n").into())).unwrap()
}

fn json(value: &Value) -> Reply {
    // Go indents with a tab.
    let text = serde_json::to_string_pretty(value).unwrap();
    let reply = Response::builder().header("content-type", "application/json");
    reply.body(Either::Left(format!("{text}\n").into())).unwrap()
}
