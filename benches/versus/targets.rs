//! What is measured, and how each is started in front of the far end.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::peers;
use crate::process::{Running, limited, tools};

/// One line of the tables.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target {
    /// How it is called on the command line and in the figures.
    pub(crate) id: &'static str,
    /// How it is called in the tables.
    pub(crate) name: &'static str,
    pub(crate) speech: Speech,
    pub(crate) program: Program,
}

/// What runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    /// The client dials the far end itself.
    Nothing,
    /// A relay of `benches/bare`, with its further argument.
    Bare(&'static str, Option<&'static str>),
    /// Ours.
    Gateway { splice: bool },
    /// One of `benches/peers`.
    Peer(&'static str),
}

/// What a client says before its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speech {
    Nothing,
    Socks5,
    /// SOCKS5 with an address: Dante would look a name up itself.
    Socks5Address,
    Connect,
}

impl Speech {
    /// Whether these two ask in the same protocol.
    pub(crate) fn alike(self, other: Speech) -> bool {
        let plain = |speech| if speech == Speech::Socks5Address { Speech::Socks5 } else { speech };
        plain(self) == plain(other)
    }
}

const fn target(id: &'static str, name: &'static str, speech: Speech, program: Program) -> Target {
    Target { id, name, speech, program }
}

const OURS: Program = Program::Gateway { splice: true };

/// All of them, the references first.
pub(crate) const ALL: [Target; 17] = [
    target("direct", "no proxy at all", Speech::Nothing, Program::Nothing),
    target(
        "bare-copy",
        "bare copy relay, 64 kB buffer",
        Speech::Nothing,
        Program::Bare("copy", None),
    ),
    target(
        "bare-splice",
        "bare splice relay, 1 MiB pipes",
        Speech::Nothing,
        Program::Bare("splice", Some("1048576")),
    ),
    target("bare-proxy-socks5", "bare proxy, SOCKS5", Speech::Socks5, Program::Bare("proxy", None)),
    target(
        "bare-proxy-connect",
        "bare proxy, CONNECT",
        Speech::Connect,
        Program::Bare("proxy", None),
    ),
    target("tailrace-socks5", "**tailrace, SOCKS5**", Speech::Socks5, OURS),
    target("tailrace-connect", "**tailrace, CONNECT**", Speech::Connect, OURS),
    target(
        "tailrace-copy",
        "tailrace, SOCKS5, splice off",
        Speech::Socks5,
        Program::Gateway { splice: false },
    ),
    target(
        "haproxy",
        "HAProxy, TCP only, splice forced",
        Speech::Nothing,
        Program::Peer("haproxy"),
    ),
    target("sing-box-socks5", "sing-box, SOCKS5", Speech::Socks5, Program::Peer("sing-box")),
    target("sing-box-connect", "sing-box, CONNECT", Speech::Connect, Program::Peer("sing-box")),
    target("xray-socks5", "Xray, SOCKS5", Speech::Socks5, Program::Peer("xray")),
    target("xray-connect", "Xray, CONNECT", Speech::Connect, Program::Peer("xray")),
    target("dante", "Dante, SOCKS5", Speech::Socks5Address, Program::Peer("dante")),
    target("sthp", "sthp, CONNECT", Speech::Connect, Program::Peer("sthp")),
    target("tinyproxy", "tinyproxy, CONNECT", Speech::Connect, Program::Peer("tinyproxy")),
    target("privoxy", "Privoxy, CONNECT", Speech::Connect, Program::Peer("privoxy")),
];

/// The one of that id.
pub(crate) fn by_id(id: &str) -> Option<Target> {
    ALL.into_iter().find(|target| target.id == id)
}

impl Target {
    /// Whether its program is here.
    pub(crate) fn installed(&self) -> bool {
        match self.program {
            Program::Peer(name) => peers::binary(name).is_some(),
            _ => true,
        }
    }

    pub(crate) fn is_peer(&self) -> bool {
        matches!(self.program, Program::Peer(_))
    }
}

/// A target that runs.
pub(crate) struct Started {
    pub(crate) port: u16,
    pub(crate) speech: Speech,
    running: Option<Running>,
    /// Our own admin port.
    pub(crate) admin: Option<u16>,
    folder: TempDir,
}

impl Started {
    /// Starts it before `far`; `extra` are further settings of a gateway of ours.
    pub(crate) fn new(target: Target, far: u16, extra: &str) -> std::io::Result<Started> {
        let folder = tempfile::tempdir()?;
        let mut started =
            Started { port: far, speech: target.speech, running: None, admin: None, folder };
        let path = started.folder.path().to_owned();
        match target.program {
            Program::Nothing => {}
            Program::Bare(name, argument) => {
                let mut command = Command::new(tools().join(name));
                command.arg(far.to_string()).args(argument);
                let (running, port) = Running::told(command)?;
                (started.running, started.port) = (Some(running), port);
            }
            Program::Gateway { splice } => {
                let (port, admin) = (free_port(), free_port());
                let command = gateway(&path, [port, admin, far], splice, extra)?;
                started.running = Some(Running::start(command)?);
                (started.port, started.admin) = (port, Some(admin));
            }
            Program::Peer(name) => {
                started.port = free_port();
                let command = peers::command(name, &path, started.port, far)?;
                started.running = Some(Running::start(quiet(command))?);
            }
        }
        started.until_it_listens()?;
        Ok(started)
    }

    fn until_it_listens(&mut self) -> std::io::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(10);
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            if self.running.as_mut().is_some_and(Running::ended) {
                return Err(std::io::Error::other("it ended at once"));
            }
            if Instant::now() > deadline {
                return Err(std::io::Error::other("it does not listen"));
            }
            std::thread::park_timeout(Duration::from_micros(200));
        }
        Ok(())
    }

    /// Seconds that pass, and CPU seconds the target uses, while `work` runs.
    pub(crate) async fn cost<T>(&self, work: impl Future<Output = T>) -> (T, f64, f64) {
        let (before, began) = (self.cpu(), Instant::now());
        let done = work.await;
        let took = began.elapsed().as_secs_f64();
        (done, took, self.cpu() - before)
    }

    pub(crate) fn cpu(&self) -> f64 {
        self.running.as_ref().map_or(f64::NAN, Running::cpu)
    }

    pub(crate) fn pss(&self) -> f64 {
        self.running.as_ref().map_or(f64::NAN, Running::pss)
    }

    pub(crate) fn descriptors(&self) -> f64 {
        self.running.as_ref().map_or(f64::NAN, Running::descriptors)
    }

    /// Its own folder, `@FOLDER@` in the further settings.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// This program again, as the far end.
pub(crate) fn far_end() -> std::io::Result<(Running, u16)> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("far-end");
    Running::told(command)
}

/// A port nobody has; in a namespace of our own nobody else can take it meanwhile.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn quiet(mut command: Command) -> Command {
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// The gateway's own program: `TAILRACE_BIN`, or the one cargo built.
pub(crate) fn binary() -> PathBuf {
    std::env::var_os("TAILRACE_BIN")
        .map_or_else(|| env!("CARGO_BIN_EXE_tailrace").into(), PathBuf::from)
}

/// The gateway as a user starts it, its log thrown away.
fn gateway(
    folder: &Path,
    [port, admin, far]: [u16; 3],
    splice: bool,
    extra: &str,
) -> std::io::Result<Command> {
    let (config, run_dir) = (folder.join("config.toml"), folder.join("run"));
    let text = format!(
        "run_dir = {run_dir:?}\n{extra}\n\
         [listen]\nproxy = [\"127.0.0.1:{port}\"]\nadmin = \"127.0.0.1:{admin}\"\n\
         [upstream]\nkind = \"socks5\"\nsocks5 = \"127.0.0.1:{far}\"\nhalf_close = \"propagate\"\n\
         max_connections = 9500\n[limits]\nmax_connections = 9500\n\
         [dns]\nmode = \"upstream\"\n[relay]\nsplice = {splice}\n",
    );
    std::fs::write(&config, text.replace("@FOLDER@", &folder.to_string_lossy()))?;
    let mut command = limited(binary());
    command.arg("up").arg("--config").arg(config).env_clear();
    Ok(quiet(command))
}
