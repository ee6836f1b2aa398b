//! A connection to the API's server: directly or through a proxy, with TLS where the URL says so.
#![forbid(unsafe_code)]

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures_util::FutureExt as _;
use futures_util::future::select_ok;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio_rustls::TlsConnector;
use url::{Host, Url};
use zeroize::Zeroizing;

use super::OauthError;
use crate::http_client::{self, HttpClientError, HttpRequest};
use crate::tls_client;

/// Head start of the address family that the resolver named first (RFC 8305 section 5 has 250 ms as its default).
const HEAD_START: Duration = Duration::from_millis(250);

/// A connection to the server, whatever it runs over.
pub(super) trait ByteStream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> ByteStream for S {}

/// How to reach one server.
pub(super) struct ApiConnector {
    host: Host,
    port: u16,
    proxy: Option<HttpProxy>,
    /// None: the server is asked without TLS.
    tls: Option<TlsConnector>,
    /// Host and port, for people.
    shown: String,
}

/// An HTTP proxy that is asked for a tunnel by CONNECT.
struct HttpProxy {
    host: Host,
    port: u16,
    /// The value of `Proxy-Authorization`.
    credentials: Option<Zeroizing<String>>,
}

impl ApiConnector {
    /// The way to `server`; a server on this host is asked without the proxy.
    pub(super) fn new(server: &Url, proxy: Option<&str>) -> Result<Self, OauthError> {
        let near = is_loopback(server);
        let shown = server_label(server);
        let tls = server.scheme() == "https";
        if !tls && !near {
            tracing::warn!(
                server = shown,
                "the OAuth secret is sent unencrypted: use an https baseURL"
            );
        }
        let (host, port) = endpoint(server).ok_or(OauthError::BadBase)?;
        let proxy = proxy.filter(|_| !near).map(HttpProxy::parse).transpose()?;
        let config = || tls_client::config(tls_client::system_roots()?);
        let tls = tls.then(config).transpose().map_err(OauthError::Roots)?;
        let tls = tls.map(|config| TlsConnector::from(Arc::new(config)));
        Ok(Self { host, port, proxy, tls, shown })
    }

    /// Connects by TCP, through the proxy if one is set; then TLS, if the server's URL is `https`.
    pub(super) async fn open(&self) -> Result<Box<dyn ByteStream>, OauthError> {
        self.connect().await.map_err(|error| OauthError::Unreachable {
            server: self.shown.clone(),
            why: error.to_string(),
        })
    }

    async fn connect(&self) -> io::Result<Box<dyn ByteStream>> {
        let stream = match &self.proxy {
            None => connect_tcp(&self.host, self.port).await?,
            Some(proxy) => proxy.open_tunnel(&self.host, self.port).await?,
        };
        let Some(tls) = &self.tls else { return Ok(Box::new(stream)) };
        let name = match &self.host {
            Host::Domain(name) => ServerName::try_from(name.clone()).map_err(io::Error::other)?,
            Host::Ipv4(ip) => std::net::IpAddr::V4(*ip).into(),
            Host::Ipv6(ip) => std::net::IpAddr::V6(*ip).into(),
        };
        Ok(Box::new(tls.connect(name, stream).await?))
    }
}

impl HttpProxy {
    /// Reads `http://[user[:password]@]host[:port]`; user and password become a Basic credential (RFC 7617).
    fn parse(proxy: &str) -> Result<Self, OauthError> {
        let bad = |why| {
            // What stands before an @ may be a password.
            let shown = proxy.rsplit('@').next().unwrap_or_default().to_owned();
            OauthError::BadProxy { proxy: shown, why }
        };
        let url = Url::parse(proxy).map_err(|_| bad("it is no URL"))?;
        if url.scheme() != "http" {
            return Err(bad("only http:// proxies are known here"));
        }
        let (host, port) = endpoint(&url).ok_or_else(|| bad("it names no host"))?;
        if (url.username(), url.password()) == ("", None) {
            return Ok(Self { host, port, credentials: None });
        }
        let decode = |text: &str| percent_encoding::percent_decode_str(text).collect::<Vec<u8>>();
        let mut pair = Zeroizing::new(decode(url.username()));
        pair.push(b':');
        pair.extend(decode(url.password().unwrap_or_default()));
        let credentials = Zeroizing::new(format!("Basic {}", BASE64_STANDARD.encode(&*pair)));
        Ok(Self { host, port, credentials: Some(credentials) })
    }

    /// A tunnel to `host` (RFC 9110 section 9.3.6).
    async fn open_tunnel(&self, host: &Host, port: u16) -> io::Result<TcpStream> {
        let stream = connect_tcp(&self.host, self.port).await?;
        let authority = &format!("{host}:{port}");
        let credentials = self.credentials.as_ref();
        let credentials = credentials.map(|value| ("Proxy-Authorization", value.as_str()));
        let fields = credentials.as_slice();
        let request = HttpRequest {
            method: "CONNECT",
            target: authority,
            host: authority,
            fields,
            body: None,
        };
        let failed = |why: String| io::Error::other(format!("the proxy opens no tunnel: {why}"));
        let response = http_client::send(stream, request).await.map_err(|error| match error {
            HttpClientError::Io(error) => error,
            error => failed(error.to_string()),
        })?;
        match response.status() {
            200..300 => response
                .into_tunnel()
                .ok_or_else(|| failed("it sent more than an answer".to_owned())),
            407 => Err(failed("it wants another user and password (407)".to_owned())),
            status => Err(failed(format!("it answered {status}"))),
        }
    }
}

/// Connects to one of the host's addresses: the family that was named first, and from 250 ms on the other one too.
#[expect(clippy::disallowed_methods, reason = "the settings name this server, no client does")]
async fn connect_tcp(host: &Host, port: u16) -> io::Result<TcpStream> {
    let addresses: Vec<SocketAddr> = match host {
        Host::Domain(name) => lookup_host((name.as_str(), port)).await?.collect(),
        Host::Ipv4(ip) => vec![SocketAddr::from((*ip, port))],
        Host::Ipv6(ip) => vec![SocketAddr::from((*ip, port))],
    };
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == first_is_v6);
    let preferred = TcpStream::connect(&first[..]);
    if second.is_empty() {
        return preferred.await;
    }
    let fallback = async {
        tokio::time::sleep(HEAD_START).await;
        TcpStream::connect(&second[..]).await
    };
    let connected = select_ok([preferred.boxed(), fallback.boxed()]).await;
    connected.map(|(stream, _other)| stream)
}

/// Host and port, for people and for `Host`.
pub(super) fn server_label(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or(host.to_owned(), |port| format!("{host}:{port}"))
}

fn endpoint(url: &Url) -> Option<(Host, u16)> {
    Some((url.host()?.to_owned(), url.port_or_known_default()?))
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use rustls::{RootCertStore, ServerConfig};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn hosts_are_shown_and_dialled_with_their_ports() {
        let endpoint = |text| {
            let (host, port) = endpoint(&url(text)).unwrap();
            format!("{host}:{port}")
        };
        assert_eq!(endpoint("https://api.tailscale.com"), "api.tailscale.com:443");
        assert_eq!(endpoint("http://[::1]/x"), "[::1]:80");
        assert_eq!(server_label(&url("https://h:8443/")), "h:8443");
        assert!(is_loopback(&url("http://127.9.9.9")) && is_loopback(&url("http://[::1]:1")));
        assert!(!is_loopback(&url("http://10.0.0.1")));
    }

    #[test]
    fn k7_a_proxys_password_is_not_shown() {
        for proxy in
            ["https://u:CANARY@p:1", "socks5://u:CANARY@p", "u:CANARY@p:1", "http://u:CANARY@"]
        {
            let error =
                ApiConnector::new(&url("https://x"), Some(proxy)).err().unwrap().to_string();
            assert!(!error.contains("CANARY"), "{error}");
        }
        assert!(ApiConnector::new(&url("http://127.0.0.1:1"), Some("no proxy at all")).is_ok());
    }

    /// A TLS server for `api.example` that repeats what it hears; with `tunnel` it is first a proxy that answers so
    /// to CONNECT. Its port, and what trusts it.
    async fn tls_server(tunnel: Option<&'static str>) -> (u16, TlsConnector) {
        let made = rcgen::generate_simple_self_signed(["api.example".to_owned()]).unwrap();
        let certificate = CertificateDer::from(made.cert.der().to_vec());
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).unwrap();
        let ring = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(ring)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            loop {
                let mut stream = listener.accept().await.unwrap().0;
                if let Some(answer) = tunnel {
                    let mut asked = Vec::new();
                    while !asked.ends_with(b"\r\n\r\n") {
                        asked.push(stream.read_u8().await.unwrap());
                    }
                    assert!(asked.starts_with(b"CONNECT api.example:443 HTTP/1.1\r\n"));
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let mut heard = [0; 5];
                stream.read_exact(&mut heard).await.unwrap();
                stream.write_all(&heard).await.unwrap();
                stream.shutdown().await.unwrap();
            }
        });
        (port, TlsConnector::from(Arc::new(tls_client::config(roots).unwrap())))
    }

    fn through(proxy: u16, tls: &TlsConnector) -> ApiConnector {
        let proxy = HttpProxy::parse(&format!("http://127.0.0.1:{proxy}")).unwrap();
        let host = Host::Domain("api.example".to_owned());
        let shown = "api.example".to_owned();
        ApiConnector { host, port: 443, proxy: Some(proxy), tls: Some(tls.clone()), shown }
    }

    #[tokio::test]
    async fn tls_runs_to_the_server_itself_through_any_kind_of_good_answer() {
        for answer in
            ["HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.0 200 Connection established\r\nA: b\r\n\r\n"]
        {
            let (proxy, tls) = tls_server(Some(answer)).await;
            let mut stream = through(proxy, &tls).open().await.unwrap();
            stream.write_all(b"hello").await.unwrap();
            stream.flush().await.unwrap();
            let mut heard = Vec::new();
            stream.read_to_end(&mut heard).await.unwrap();
            assert_eq!(heard, b"hello", "{answer}");
        }
    }

    #[tokio::test]
    async fn whom_nobody_vouches_for_and_who_is_another_are_refused() {
        let (port, tls) = tls_server(None).await;
        let error = async |host: Host, tls: &TlsConnector| {
            let tls = Some(tls.clone());
            let direct = ApiConnector { host, port, proxy: None, tls, shown: "h".to_owned() };
            direct.open().await.err().unwrap().to_string()
        };
        let other = error(Host::Ipv4([127, 0, 0, 1].into()), &tls).await;
        assert!(other.contains("certificate not valid for name"), "{other}");
        let (_, stranger) = tls_server(None).await;
        let unknown = error(Host::Ipv4([127, 0, 0, 1].into()), &stranger).await;
        assert!(unknown.contains("certificate"), "{unknown}");
    }

    #[tokio::test]
    async fn a_proxy_that_opens_no_tunnel_is_told_of() {
        let cases = [
            ("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "user and password (407)"),
            ("HTTP/1.1 503 Busy\r\n\r\n", "it answered 503"),
            ("HTTP/1.1 200 OK\r\n\r\nSSH-2.0-x", "more than an answer"),
            ("SSH-2.0-x\r\n", "not HTTP/1.1"),
        ];
        for (answer, expected) in cases {
            let (proxy, tls) = tls_server(Some(answer)).await;
            let error = through(proxy, &tls).open().await.err().unwrap().to_string();
            assert!(error.contains("the proxy opens no tunnel"), "{error}");
            assert!(error.contains(expected), "{error}");
        }
    }

    #[tokio::test]
    async fn the_other_family_is_tried_when_one_leads_nowhere() {
        // Only 127.0.0.1 has a listener; where `localhost` has no IPv6 address there is but one to try.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let stream = connect_tcp(&Host::Domain("localhost".to_owned()), port).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), listener.local_addr().unwrap());
    }
}
