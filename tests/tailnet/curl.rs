//! curl in the sandbox, through one inbound of a gateway.

use std::process::{Command, Stdio};

use crate::gateway::Gateway;
use crate::origin;
use crate::tailnet::{PORT, Tailnet};

/// A way into the gateway, and what curl has to be told to take it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inbound {
    Socks5,
    Socks5Name,
    Socks4,
    Socks4a,
    Connect,
    Forward,
    /// Redirected by nft: curl knows nothing.
    Redirected,
}

impl Inbound {
    pub const BY_PROXY: [Inbound; 6] = [
        Inbound::Socks5,
        Inbound::Socks5Name,
        Inbound::Socks4,
        Inbound::Socks4a,
        Inbound::Connect,
        Inbound::Forward,
    ];

    /// The access log's word for it.
    pub fn label(self) -> &'static str {
        match self {
            Inbound::Socks5 | Inbound::Socks5Name => "socks5",
            Inbound::Socks4 | Inbound::Socks4a => "socks4",
            Inbound::Connect => "connect",
            Inbound::Forward => "http",
            Inbound::Redirected => "transparent",
        }
    }

    /// Whether the client hands the name over; otherwise it needs an address before it connects.
    pub fn carries_names(self) -> bool {
        use Inbound::{Connect, Forward, Socks4a, Socks5Name};
        matches!(self, Socks5Name | Socks4a | Connect | Forward)
    }

    /// The outcome of a good exchange.
    pub fn good_end(self) -> &'static str {
        if self == Inbound::Forward { "ok" } else { "fin_fin" }
    }

    fn arguments(self, proxy: &str) -> Vec<String> {
        let words: &[&str] = match self {
            Inbound::Socks5 => &["--socks5"],
            Inbound::Socks5Name => &["--socks5-hostname"],
            Inbound::Socks4 => &["--socks4"],
            Inbound::Socks4a => &["--socks4a"],
            Inbound::Connect => &["--proxytunnel", "--proxy"],
            Inbound::Forward => &["--proxy"],
            Inbound::Redirected => return Vec::new(),
        };
        words.iter().map(|w| (*w).to_owned()).chain([proxy.to_owned()]).collect()
    }
}

/// What came of it.
#[derive(Debug)]
pub struct Answer {
    /// curl's exit code; 97 is a SOCKS refusal, 56 a refused CONNECT.
    pub exit: i32,
    /// Status of the answer, then of a proxy's answer to CONNECT; 0 where there was none.
    pub status: u16,
    pub connect_status: u16,
    pub body: String,
    pub stderr: String,
}

impl Answer {
    /// The reply code of a SOCKS5 refusal, which curl puts in brackets behind its words.
    pub fn socks5_reply(&self) -> Option<u8> {
        let (_, end) = self.stderr.trim_end().rsplit_once('(')?;
        end.strip_suffix(')').and_then(|code| code.parse().ok())
    }
}

/// One curl run, to be completed.
pub struct Curl(Command);

impl Curl {
    /// `path` at `host`, port 8080, through `inbound`.
    pub fn new(gateway: &Gateway, inbound: Inbound, host: &str, path: &str) -> Curl {
        Curl::at(gateway, inbound, &format!("http://{host}:{PORT}{path}"))
    }

    /// Any URL. The origin keeps its side open, so that curl's is closed first: tailscaled in userspace mode
    /// remembers each connection that its own side closed for a minute, and loses a handshake in which the
    /// other side's random port comes again.
    pub fn at(gateway: &Gateway, inbound: Inbound, url: &str) -> Curl {
        Curl::through(&gateway.proxy, inbound, url)
    }

    /// Any URL by any proxy.
    pub fn through(proxy: &str, inbound: Inbound, url: &str) -> Curl {
        let mut command = Command::new("curl");
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap());
        command.args(["--disable", "--silent", "--show-error", "--max-time", "100"]);
        command.args(inbound.arguments(proxy)).arg(url);
        Curl(command)
    }

    pub fn with(mut self, arguments: &[&str]) -> Curl {
        self.0.args(arguments);
        self
    }

    /// Tells curl the address of `host`, for inbounds that carry none.
    pub fn resolving(self, host: &str, address: &str) -> Curl {
        self.with(&["--resolve", &format!("{host}:{PORT}:{address}")])
    }

    pub fn run(mut self, tailnet: &Tailnet) -> Answer {
        self.0.args(["--write-out", "\n%{http_code} %{http_connect}"]);
        let output =
            tailnet.sandboxed.enter(|| self.0.stdin(Stdio::null()).output()).expect("curl");
        let text = String::from_utf8_lossy(&output.stdout);
        let (body, codes) = text.rsplit_once('\n').unwrap_or(("", &text));
        let mut codes = codes.split(' ').map(|c| c.parse().unwrap_or(0));
        Answer {
            exit: output.status.code().unwrap_or(-1),
            status: codes.next().unwrap_or(0),
            connect_status: codes.next().unwrap_or(0),
            body: body.to_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Length and SHA-256 of the body; curl has to succeed.
    pub fn sum(mut self, tailnet: &Tailnet) -> (u64, String) {
        let spawned =
            tailnet.sandboxed.enter(|| self.0.stdin(Stdio::null()).stdout(Stdio::piped()).spawn());
        let mut child = spawned.expect("curl");
        let sum = origin::sum(child.stdout.take().expect("piped"));
        let status = child.wait().expect("curl");
        assert!(status.success(), "curl: {status} after {} bytes", sum.0);
        sum
    }
}
