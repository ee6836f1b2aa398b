//! The gateway runs its own tailscaled: from a key to an answer, and whatever may go wrong between.
//!
//! Every case holds for both ways to hand a connection to tailscaled, its SOCKS5 port and LocalAPI,
//! unless it is about one of them.

mod answered;
mod change;
mod command;
mod drain;
mod enforced;
pub mod figures;
mod recovery;
mod refused_key;
mod same_node;
mod sealed;
mod trace;
mod unreachable;

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use rustix::process::Pid;

use crate::case::Case;
use crate::control::URL;
use crate::curl::{Answer, Inbound};
use crate::gateway::{Gateway, Launch};
use crate::keys::Key;
use crate::policy::refused;
use crate::process::children;
use crate::tailnet::Tailnet;

/// How connections are handed to tailscaled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Through its SOCKS5 port: the default.
    Tailscaled,
    /// By LocalAPI `dial`: the default with an enforced policy, here asked for.
    Localapi,
}

/// The inbounds that take a name as it is.
const BY_NAME: [Inbound; 3] = [Inbound::Socks5Name, Inbound::Connect, Inbound::Forward];

pub fn cases() -> Vec<Case> {
    [
        answered::cases(),
        sealed::cases(),
        unreachable::cases(),
        refused_key::cases(),
        enforced::cases(),
        drain::cases(),
        command::cases(),
        trace::cases(),
        recovery::cases(),
        same_node::cases(),
        change::cases(), // last: it leaves its marks on the tailnet
    ]
    .concat()
}

impl Kind {
    const ALL: [Kind; 2] = [Kind::Tailscaled, Kind::Localapi];

    /// The access log's word for it.
    pub fn label(self) -> &'static str {
        match self {
            Kind::Tailscaled => "tailscaled",
            Kind::Localapi => "localapi",
        }
    }

    /// A gateway of this kind with a good key. Its node is `autoheal-` and the name.
    pub fn launch(self, tailnet: &Tailnet, name: &str) -> Launch {
        let launch = with_key(tailnet, name, &tailnet.control.key(Key::Good));
        match self {
            Kind::Tailscaled => launch,
            Kind::Localapi => launch.set("TAILRACE_UPSTREAM_KIND", "localapi"),
        }
    }

    /// The same, named after the kind and carrying connections.
    fn start(self, tailnet: &Tailnet, name: &str) -> Gateway {
        let gateway = self.launch(tailnet, &format!("{name}-{}", self.label())).up(tailnet);
        gateway.wait(tailnet);
        gateway
    }

    /// Does the same with both kinds at once: most of it is waiting.
    fn both(work: impl Fn(Kind) + Sync) {
        std::thread::scope(|scope| {
            let running = Kind::ALL.map(|kind| {
                scope.spawn({
                    let work = &work;
                    move || work(kind)
                })
            });
            for thread in running {
                if let Err(panic) = thread.join() {
                    std::panic::resume_unwind(panic);
                }
            }
        });
    }
}

/// A gateway that is to start tailscaled and log it in with this key.
fn with_key(tailnet: &Tailnet, name: &str, key: &str) -> Launch {
    bare(tailnet, name).set("TAILRACE_TAILNET_AUTH_KEY_FILE", key_file(tailnet, name, key))
}

/// The same without a key.
fn bare(tailnet: &Tailnet, name: &str) -> Launch {
    Launch::new(tailnet, name)
        .set("TAILRACE_ID", name)
        .set("TAILRACE_TAILNET_MANAGE", "true")
        .set("TAILRACE_TAILNET_TAILSCALED", tailnet.programs.join("tailscaled"))
        .set("TAILRACE_TAILNET_LOGIN_SERVER", URL)
        .set("SSL_CERT_FILE", tailnet.dir.path().join("ca.pem"))
}

fn key_file(tailnet: &Tailnet, name: &str, key: &str) -> PathBuf {
    let path = tailnet.dir.path().join(format!("key-{name}"));
    let mut options = std::fs::OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(&path);
    file.and_then(|mut file| writeln!(file, "{key}")).expect("the key file");
    path
}

/// The name of the node of the gateway of that name.
fn node(gateway: &str) -> String {
    format!("autoheal-{gateway}")
}

/// The tailscaled that this gateway runs.
fn tailscaled(gateway: &Gateway) -> Pid {
    let running = children(gateway.pid());
    let found: Vec<_> = running.iter().filter(|(_, name)| name == "tailscaled").collect();
    assert_eq!(found.len(), 1, "{} has these children: {running:?}", gateway.launch.name);
    found[0].0
}

/// A refusal on the wire: HTTP status, and SOCKS5 reply code (docs/requirements.md, Outcomes).
fn refused_with(inbound: Inbound, answer: &Answer, (status, reply): (u16, u8)) {
    refused(inbound, answer, status);
    if inbound == Inbound::Socks5Name {
        assert_eq!(answer.socks5_reply(), Some(reply), "{inbound:?}: {answer:?}");
    }
}
