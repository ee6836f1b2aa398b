//! tailscaled's LocalAPI: HTTP/1.1 over its Unix socket (ipn/localapi/localapi.go).
#![forbid(unsafe_code)]

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::wire;
use crate::secret::Secret;

/// The one Host it accepts (client/tailscale/apitype.LocalAPIHost).
const AUTHORITY: &str = "local-tailscaled.sock";
/// For one question; all but the bus answer within milliseconds once the backend is up.
const PATIENCE: Duration = Duration::from_secs(5);
/// Biggest answer or line taken, in bytes: a netmap of ten thousand nodes is below it.
const MAX_ANSWER: usize = 64 << 20;
/// Longest part of an error's text kept.
const SAID: usize = 300;

/// A tailscaled behind a socket.
#[derive(Debug, Clone)]
pub(super) struct LocalApi {
    socket: PathBuf,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum LocalApiError {
    /// Nobody listens, or we may not.
    #[error("{0}")]
    Connect(io::Error),
    /// The conversation broke.
    #[error("{0}")]
    Http(#[from] hyper::Error),
    /// No answer in time.
    #[error("no answer to {path} within {PATIENCE:?}")]
    Late {
        /// What was asked.
        path: String,
    },
    /// An answer that is none of the good ones.
    #[error("{path} answered {status}: {said}")]
    Status {
        /// What was asked.
        path: String,
        /// The status.
        status: StatusCode,
        /// The body's beginning.
        said: String,
    },
    /// An answer that is not what it should be.
    #[error("{path} answered what is not understood: {source}")]
    Garbage {
        /// What was asked.
        path: String,
        /// Where it stops making sense.
        source: serde_json::Error,
    },
    /// An answer without end.
    #[error("{path} answered more than {MAX_ANSWER} bytes")]
    TooLarge {
        /// What was asked.
        path: String,
    },
}

/// The bus: what tailscaled says as it happens.
pub(super) struct IpnBus {
    body: Incoming,
    buffer: BytesMut,
}

impl LocalApi {
    pub(super) fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// Whether somebody accepts there now.
    pub(super) async fn accepts(&self) -> io::Result<()> {
        UnixStream::connect(&self.socket).await.map(drop)
    }

    /// The process behind the socket (`SO_PEERCRED`, unix(7)), where the system tells.
    pub(super) async fn process(&self) -> Option<u32> {
        let stream = UnixStream::connect(&self.socket).await.ok()?;
        stream.peer_cred().ok()?.pid().and_then(|pid| u32::try_from(pid).ok())
    }

    pub(super) async fn status(&self, peers: bool) -> Result<wire::Status, LocalApiError> {
        self.get(if peers { "status" } else { "status?peers=false" }).await
    }

    pub(super) async fn prefs(&self) -> Result<wire::Prefs, LocalApiError> {
        self.get("prefs").await
    }

    /// None before there is a netmap.
    ///
    /// # Errors
    /// [`LocalApiError::Status`] also from a version that does not know the question.
    pub(super) async fn dns_config(&self) -> Result<Option<wire::DnsConfig>, LocalApiError> {
        match self.get("dns-config").await {
            Ok(config) => Ok(Some(config)),
            Err(LocalApiError::Status { status: StatusCode::SERVICE_UNAVAILABLE, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What tailscaled has against these preferences.
    pub(super) async fn check_prefs(
        &self,
        prefs: &wire::NewPrefs,
    ) -> Result<Option<String>, LocalApiError> {
        let body = self.post("check-prefs", json("check-prefs", prefs)?).await?;
        let checked: wire::Checked = read("check-prefs", &body)?;
        Ok(Some(checked.error).filter(|error| !error.is_empty()))
    }

    /// Sets the preferences and gives the key. The one place where a key leaves this process; the
    /// buffer it leaves in is zeroed.
    pub(super) async fn start(
        &self,
        key: &Secret,
        prefs: &wire::NewPrefs,
    ) -> Result<(), LocalApiError> {
        let options = wire::Options { auth_key: key.expose(), update_prefs: prefs };
        // Its size is fixed beforehand: a buffer that grows leaves copies where it was.
        let mut text = Zeroizing::new(Vec::with_capacity(2 * key.expose().len() + 4096));
        serde_json::to_writer(&mut *text, &options)
            .map_err(|source| LocalApiError::Garbage { path: "start".to_owned(), source })?;
        self.post("start", Bytes::from_owner(text)).await.map(drop)
    }

    pub(super) async fn login_interactive(&self) -> Result<(), LocalApiError> {
        self.post("login-interactive", Bytes::new()).await.map(drop)
    }

    /// Stops tailscaled from asking the control server again and again.
    pub(super) async fn disconnect_control(&self) -> Result<(), LocalApiError> {
        self.post("disconnect-control", Bytes::new()).await.map(drop)
    }

    /// Changes these preferences and leaves the others.
    pub(super) async fn edit_prefs(
        &self,
        prefs: &wire::MaskedPrefs<'_>,
    ) -> Result<(), LocalApiError> {
        let body = json("prefs", prefs)?;
        self.whole(Method::PATCH, "prefs", body).await.map(drop)
    }

    /// Takes the node out of the tailnet: an ephemeral one is forgotten at once.
    pub(super) async fn logout(&self) -> Result<(), LocalApiError> {
        self.post("logout", Bytes::new()).await.map(drop)
    }

    /// Opens the bus. Its head is there once the watcher is registered: nothing later is missed.
    pub(super) async fn watch(&self, mask: u32) -> Result<IpnBus, LocalApiError> {
        let path = format!("watch-ipn-bus?mask={mask}");
        let answer = self.ask(Method::GET, &path, Bytes::new()).await?;
        Ok(IpnBus { body: answer.into_body(), buffer: BytesMut::new() })
    }

    /// Waits until a peer has answered over whatever path there is (`disco`, tailcfg.PingDisco). There
    /// is no limit of its own: dropping the future takes the question back.
    pub(super) async fn ping(&self, peer: IpAddr) -> Result<wire::Pong, LocalApiError> {
        let path = format!("ping?ip={peer}&type=disco");
        let body = self.post(&path, Bytes::new()).await?;
        read(&path, &body)
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, LocalApiError> {
        let body = self.whole(Method::GET, path, Bytes::new()).await?;
        read(path, &body)
    }

    async fn post(&self, path: &str, body: Bytes) -> Result<Bytes, LocalApiError> {
        self.whole(Method::POST, path, body).await
    }

    async fn whole(&self, method: Method, path: &str, body: Bytes) -> Result<Bytes, LocalApiError> {
        let exchange = async {
            let answer = self.ask(method, path, body).await?;
            collect(path, answer.into_body()).await
        };
        timeout(PATIENCE, exchange).await.unwrap_or_else(|_| Err(late(path)))
    }

    /// One question on a connection of its own; an answer that is no success is an error.
    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>, LocalApiError> {
        let exchange = async {
            let stream = UnixStream::connect(&self.socket).await.map_err(LocalApiError::Connect)?;
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            let mut request = Request::new(Full::new(body));
            *request.method_mut() = method;
            // Paths are ours: each is a valid URI.
            *request.uri_mut() = format!("/localapi/v0/{path}").parse().unwrap_or_default();
            request.headers_mut().insert(HOST, hyper::header::HeaderValue::from_static(AUTHORITY));
            Ok::<_, LocalApiError>(sender.send_request(request).await?)
        };
        let answer = timeout(PATIENCE, exchange).await.unwrap_or_else(|_| Err(late(path)))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let said = timeout(PATIENCE, collect(path, answer.into_body())).await;
        let said = said.ok().and_then(Result::ok).unwrap_or_default();
        let said = String::from_utf8_lossy(&said[..said.len().min(SAID)]).trim().to_owned();
        Err(LocalApiError::Status { path: path.to_owned(), status, said })
    }
}

impl LocalApiError {
    /// Whether tailscaled answered, and the answer is that it does not do this: another version of
    /// it, or a build without that part.
    pub(super) fn is_declined(&self) -> bool {
        matches!(self, Self::Status { .. })
    }

    /// Whether the socket is there and we may not write through it.
    pub(super) fn is_forbidden(&self) -> bool {
        match self {
            Self::Status { status, .. } => *status == StatusCode::FORBIDDEN,
            Self::Connect(error) => error.kind() == io::ErrorKind::PermissionDenied,
            _ => false,
        }
    }
}

impl IpnBus {
    /// The next thing said; none when tailscaled closed the bus. Lines that are none are passed over.
    pub(super) async fn next(&mut self) -> Result<Option<wire::Notify>, LocalApiError> {
        let mut searched = 0;
        loop {
            if let Some(at) = memchr::memchr(b'\n', &self.buffer[searched..]) {
                let line = self.buffer.split_to(searched + at);
                self.buffer.advance(1);
                searched = 0;
                match serde_json::from_slice(&line) {
                    Ok(notify) => return Ok(Some(notify)),
                    Err(error) => tracing::debug!(%error, "a line of the bus is not understood"),
                }
                continue;
            }
            searched = self.buffer.len();
            if searched > MAX_ANSWER {
                return Err(LocalApiError::TooLarge { path: "watch-ipn-bus".to_owned() });
            }
            match self.body.frame().await.transpose()? {
                None => return Ok(None),
                Some(frame) => {
                    self.buffer.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
                }
            }
        }
    }
}

async fn collect(path: &str, mut body: Incoming) -> Result<Bytes, LocalApiError> {
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await.transpose()? {
        whole.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
        if whole.len() > MAX_ANSWER {
            return Err(LocalApiError::TooLarge { path: path.to_owned() });
        }
    }
    Ok(whole.freeze())
}

fn json(path: &str, value: &impl serde::Serialize) -> Result<Bytes, LocalApiError> {
    let text = serde_json::to_vec(value);
    let garbage = |source| LocalApiError::Garbage { path: path.to_owned(), source };
    text.map(Bytes::from).map_err(garbage)
}

fn read<T: DeserializeOwned>(path: &str, body: &[u8]) -> Result<T, LocalApiError> {
    serde_json::from_slice(body)
        .map_err(|source| LocalApiError::Garbage { path: path.to_owned(), source })
}

fn late(path: &str) -> LocalApiError {
    LocalApiError::Late { path: path.to_owned() }
}
