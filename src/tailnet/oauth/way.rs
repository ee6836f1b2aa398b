//! The way to the API's server: straight or through a proxy, with TLS where the URL says so.
#![forbid(unsafe_code)]

use std::error::Error;
use std::future::poll_fn;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hyper::Uri;
use hyper::header::HeaderValue;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower_service::Service;
use url::{Host, Url};

use super::OauthError;

/// A connection to the server, as tokio reads and writes it.
pub(super) type HttpConnection = TokioIo<MaybeHttpsStream<TokioIo<TcpStream>>>;

/// How to get there.
pub(super) enum ControlRoute {
    Straight(HttpsConnector<HttpConnector>),
    Proxied(HttpsConnector<Tunnel<HttpConnector>>),
}

impl ControlRoute {
    /// The way to `server`; a server on this host is asked without the proxy.
    pub(super) fn to(server: &Url, proxy: Option<&str>) -> Result<Self, OauthError> {
        let near = is_loopback(server);
        if server.scheme() == "http" && !near {
            let server = self::server(server);
            tracing::warn!(server, "the OAuth secret is sent unencrypted: use an https baseURL");
        }
        let tls = HttpsConnectorBuilder::new().with_native_roots().map_err(OauthError::Roots)?;
        let https = tls.https_or_http().enable_http1();
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        Ok(match proxy.filter(|_| !near) {
            None => Self::Straight(https.wrap_connector(tcp)),
            Some(proxy) => Self::Proxied(https.wrap_connector(tunnel(proxy, tcp)?)),
        })
    }

    /// Opens a connection.
    pub(super) async fn open(&self, server: &Url) -> Result<HttpConnection, OauthError> {
        let uri = origin(server)?;
        let opened = match self {
            Self::Straight(connector) => call(connector.clone(), uri).await,
            Self::Proxied(connector) => call(connector.clone(), uri).await,
        };
        let why = |error: Box<dyn Error + Send + Sync>| OauthError::Unreachable {
            server: self::server(server),
            why: chain(&*error),
        };
        opened.map(TokioIo::new).map_err(why)
    }
}

async fn call<C: Service<Uri>>(mut connector: C, uri: Uri) -> Result<C::Response, C::Error> {
    poll_fn(|cx| connector.poll_ready(cx)).await?;
    connector.call(uri).await
}

/// Host and port, for people and for `Host`.
pub(super) fn server(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or(host.to_owned(), |port| format!("{host}:{port}"))
}

/// The server with its port written out: a tunnel takes a missing one for 443.
fn origin(url: &Url) -> Result<Uri, OauthError> {
    let port = url.port_or_known_default().ok_or(OauthError::BadBase)?;
    let host = url.host_str().ok_or(OauthError::BadBase)?;
    format!("{}://{host}:{port}/", url.scheme()).parse().map_err(|_| OauthError::BadBase)
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

/// A tunnel by CONNECT through an `http://[user[:password]@]host[:port]` proxy.
fn tunnel(proxy: &str, tcp: HttpConnector) -> Result<Tunnel<HttpConnector>, OauthError> {
    let bad = |why| {
        // What stands before an @ may be a password.
        let shown = proxy.rsplit('@').next().unwrap_or_default().to_owned();
        OauthError::BadProxy { proxy: shown, why }
    };
    let url = Url::parse(proxy).map_err(|_| bad("it is no URL"))?;
    if url.scheme() != "http" {
        return Err(bad("only http:// proxies are known here"));
    }
    let tunnel = Tunnel::new(origin(&url).map_err(|_| bad("it names no host"))?, tcp);
    if (url.username(), url.password()) == ("", None) {
        return Ok(tunnel);
    }
    let decode = |text: &str| percent_encoding::percent_decode_str(text).collect::<Vec<u8>>();
    let mut pair = decode(url.username());
    pair.push(b':');
    pair.extend(decode(url.password().unwrap_or_default()));
    let credentials = format!("Basic {}", BASE64_STANDARD.encode(pair));
    let value = HeaderValue::try_from(credentials).map_err(|_| bad("its password is none"))?;
    Ok(tunnel.with_auth(value))
}

/// An error with all its causes: the outermost one alone says little.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn hosts_are_shown_and_dialled_with_their_ports() {
        let origin = |text| origin(&url(text)).unwrap().to_string();
        assert_eq!(origin("https://api.tailscale.com"), "https://api.tailscale.com:443/");
        assert_eq!(origin("http://[::1]/x"), "http://[::1]:80/");
        assert_eq!(server(&url("https://h:8443/")), "h:8443");
        assert!(is_loopback(&url("http://127.9.9.9")) && is_loopback(&url("http://[::1]:1")));
        assert!(!is_loopback(&url("http://10.0.0.1")));
    }

    #[test]
    fn k7_a_proxys_password_is_not_shown() {
        for proxy in
            ["https://u:CANARY@p:1", "socks5://u:CANARY@p", "u:CANARY@p:1", "http://u:CANARY@"]
        {
            let error = ControlRoute::to(&url("https://x"), Some(proxy)).err().unwrap().to_string();
            assert!(!error.contains("CANARY"), "{error}");
        }
        assert!(ControlRoute::to(&url("http://127.0.0.1:1"), Some("no proxy at all")).is_ok());
    }
}
