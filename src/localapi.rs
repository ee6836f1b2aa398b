//! tailscaled's LocalAPI: HTTP/1.1 over its Unix socket (ipn/localapi/localapi.go).
#![forbid(unsafe_code)]

mod ipn_bus;

pub mod dial;
pub(crate) mod messages;

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper::StatusCode;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::time::timeout;
use zeroize::Zeroizing;

pub(crate) use self::ipn_bus::IpnBus;
use crate::http_client::{self, BodyFramingError, HttpClientError, HttpRequest, HttpResponse};
use crate::secret::Secret;

/// The one value of `Host` that tailscaled accepts (client/tailscale/apitype.LocalAPIHost, `validHost`).
const HOST: &str = "local-tailscaled.sock";
/// For one question; all but the bus answer within milliseconds once the backend is up.
const PATIENCE: Duration = Duration::from_secs(5);
/// Biggest answer or line taken, in bytes: a netmap of ten thousand nodes is below it.
const MAX_ANSWER: usize = 64 << 20;
/// Longest part of an error's text kept.
const SAID: usize = 300;

/// A tailscaled behind a socket.
#[derive(Debug, Clone)]
pub(crate) struct LocalApi {
    socket: PathBuf,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LocalApiError {
    /// Nobody listens, or we may not.
    #[error("{0}")]
    Connect(io::Error),
    /// The conversation broke.
    #[error("{0}")]
    Http(HttpClientError),
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

impl LocalApi {
    pub(crate) fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// Whether somebody accepts there now.
    pub(crate) async fn accepts(&self) -> io::Result<()> {
        UnixStream::connect(&self.socket).await.map(drop)
    }

    /// The process behind the socket (`SO_PEERCRED`, unix(7)), where the system tells.
    pub(crate) async fn peer_process(&self) -> Option<u32> {
        let stream = UnixStream::connect(&self.socket).await.ok()?;
        stream.peer_cred().ok()?.pid().and_then(|pid| u32::try_from(pid).ok())
    }

    pub(crate) async fn status(&self, peers: bool) -> Result<messages::NodeStatus, LocalApiError> {
        self.get(if peers { "status" } else { "status?peers=false" }).await
    }

    pub(crate) async fn prefs(&self) -> Result<messages::NodePrefs, LocalApiError> {
        self.get("prefs").await
    }

    /// None before there is a netmap.
    ///
    /// # Errors
    /// [`LocalApiError::Status`] also from a version that does not know the question.
    pub(crate) async fn dns_config(&self) -> Result<Option<messages::DnsConfig>, LocalApiError> {
        match self.get("dns-config").await {
            Ok(config) => Ok(Some(config)),
            Err(LocalApiError::Status { status: StatusCode::SERVICE_UNAVAILABLE, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What tailscaled has against these preferences.
    pub(crate) async fn check_prefs(
        &self,
        prefs: &messages::NewPrefs,
    ) -> Result<Option<String>, LocalApiError> {
        let body = self.post("check-prefs", &to_json("check-prefs", prefs)?).await?;
        let checked: messages::CheckedPrefs = parse_json("check-prefs", &body)?;
        Ok(Some(checked.error).filter(|error| !error.is_empty()))
    }

    /// Sets the preferences and gives the key. The one place where a key leaves this process; the
    /// buffer it leaves in is zeroed.
    pub(crate) async fn start(
        &self,
        key: &Secret,
        prefs: &messages::NewPrefs,
    ) -> Result<(), LocalApiError> {
        let options = messages::StartOptions { auth_key: key.expose(), update_prefs: prefs };
        // Its size is fixed beforehand: a buffer that grows leaves copies where it was.
        let mut text = Zeroizing::new(Vec::with_capacity(2 * key.expose().len() + 4096));
        serde_json::to_writer(&mut *text, &options)
            .map_err(|source| LocalApiError::Garbage { path: "start".to_owned(), source })?;
        self.post("start", &text).await.map(drop)
    }

    pub(crate) async fn login_interactive(&self) -> Result<(), LocalApiError> {
        self.post("login-interactive", b"").await.map(drop)
    }

    /// Stops tailscaled from asking the control server again and again.
    pub(crate) async fn disconnect_control(&self) -> Result<(), LocalApiError> {
        self.post("disconnect-control", b"").await.map(drop)
    }

    /// Changes these preferences and leaves the others.
    pub(crate) async fn edit_prefs(
        &self,
        prefs: &messages::MaskedPrefs<'_>,
    ) -> Result<(), LocalApiError> {
        let body = to_json("prefs", prefs)?;
        self.ask_for_body("PATCH", "prefs", Some(&body)).await.map(drop)
    }

    /// Takes the node out of the tailnet: an ephemeral one is forgotten at once.
    pub(crate) async fn log_out(&self) -> Result<(), LocalApiError> {
        self.post("logout", b"").await.map(drop)
    }

    /// Opens the bus. Its head is there once the watcher is registered: nothing later is missed.
    pub(crate) async fn watch_bus(&self, mask: u32) -> Result<IpnBus, LocalApiError> {
        let path = format!("watch-ipn-bus?mask={mask}");
        self.send_request("GET", &path, None).await.map(IpnBus::new)
    }

    /// Waits until a peer has answered over whatever path there is (`disco`, tailcfg.PingDisco). There
    /// is no limit of its own: dropping the future takes the question back.
    pub(crate) async fn ping(&self, peer: IpAddr) -> Result<messages::PingResult, LocalApiError> {
        let path = format!("ping?ip={peer}&type=disco");
        let body = self.post(&path, b"").await?;
        parse_json(&path, &body)
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, LocalApiError> {
        let body = self.ask_for_body("GET", path, None).await?;
        parse_json(path, &body)
    }

    async fn post(&self, path: &str, body: &[u8]) -> Result<Vec<u8>, LocalApiError> {
        self.ask_for_body("POST", path, Some(body)).await
    }

    /// One question and the whole of its answer, in time.
    async fn ask_for_body(
        &self,
        method: &str,
        path: &str,
        body: Option<&[u8]>,
    ) -> Result<Vec<u8>, LocalApiError> {
        let exchange = async {
            let response = self.send_request(method, path, body).await?;
            read_body(path, response).await
        };
        timeout(PATIENCE, exchange).await.unwrap_or_else(|_| Err(no_answer_in_time(path)))
    }

    /// One question on a connection of its own; an answer that is no success is an error.
    async fn send_request(
        &self,
        method: &str,
        path: &str,
        body: Option<&[u8]>,
    ) -> Result<HttpResponse<UnixStream>, LocalApiError> {
        let exchange = async {
            let stream = UnixStream::connect(&self.socket).await.map_err(LocalApiError::Connect)?;
            let target = &format!("/localapi/v0/{path}");
            let request = HttpRequest { method, target, host: HOST, fields: &[], body };
            http_client::send(stream, request).await.map_err(|error| of_http(path, error))
        };
        let response =
            timeout(PATIENCE, exchange).await.unwrap_or_else(|_| Err(no_answer_in_time(path)))?;
        // The reader of heads takes no status that is none.
        let status = StatusCode::from_u16(response.status()).unwrap_or_default();
        if status.is_success() {
            return Ok(response);
        }
        let said = timeout(PATIENCE, read_body(path, response)).await;
        let said = said.ok().and_then(Result::ok).unwrap_or_default();
        let said = String::from_utf8_lossy(&said[..said.len().min(SAID)]).trim().to_owned();
        Err(LocalApiError::Status { path: path.to_owned(), status, said })
    }
}

impl LocalApiError {
    /// Whether tailscaled answered, and the answer is that it does not do this: another version of
    /// it, or a build without that part.
    pub(crate) fn is_declined(&self) -> bool {
        matches!(self, Self::Status { .. })
    }

    /// Whether the socket is there and we may not write through it.
    pub(crate) fn is_forbidden(&self) -> bool {
        match self {
            Self::Status { status, .. } => *status == StatusCode::FORBIDDEN,
            Self::Connect(error) => error.kind() == io::ErrorKind::PermissionDenied,
            _ => false,
        }
    }
}

async fn read_body(
    path: &str,
    response: HttpResponse<UnixStream>,
) -> Result<Vec<u8>, LocalApiError> {
    let mut body = Vec::new();
    let read = response.read_whole_body(&mut body, MAX_ANSWER).await;
    read.map(|()| body).map_err(|error| of_http(path, error))
}

fn of_http(path: &str, error: HttpClientError) -> LocalApiError {
    match error {
        HttpClientError::Body(BodyFramingError::TooLarge { .. }) => {
            LocalApiError::TooLarge { path: path.to_owned() }
        }
        error => LocalApiError::Http(error),
    }
}

fn to_json(path: &str, value: &impl serde::Serialize) -> Result<Vec<u8>, LocalApiError> {
    let garbage = |source| LocalApiError::Garbage { path: path.to_owned(), source };
    serde_json::to_vec(value).map_err(garbage)
}

fn parse_json<T: DeserializeOwned>(path: &str, body: &[u8]) -> Result<T, LocalApiError> {
    serde_json::from_slice(body)
        .map_err(|source| LocalApiError::Garbage { path: path.to_owned(), source })
}

fn no_answer_in_time(path: &str) -> LocalApiError {
    LocalApiError::Late { path: path.to_owned() }
}
