//! How a gateway under test is configured and started.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use tempfile::TempDir;

pub use super::built::gateway as binary;
use super::gateway::Gateway;
use super::wait::{PATIENCE, eventually_some};

/// Settings, environment and limits of one gateway, in a folder of its own.
pub struct Setup {
    pub(super) dir: TempDir,
    settings: toml::Table,
    raw: Option<Vec<u8>>,
    env: BTreeMap<String, OsString>,
    arguments: Vec<String>,
    prelude: Option<String>,
}

impl Setup {
    /// Port 0 everywhere, JSON log on stderr, no pool, and nothing from the caller's environment.
    pub fn new() -> Setup {
        let dir = tempfile::Builder::new()
            .prefix("tailrace-")
            .tempdir()
            .expect("rig: no temporary folder");
        let mut setup = Setup {
            settings: toml::Table::new(),
            raw: None,
            env: BTreeMap::new(),
            arguments: Vec::new(),
            prelude: None,
            dir,
        };
        setup.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        setup.env("HOME", setup.dir.path().as_os_str().to_owned());
        setup.set("run_dir", setup.run_dir().to_string_lossy().into_owned());
        setup.set("listen.proxy", vec!["127.0.0.1:0"]);
        setup.set("listen.admin", "127.0.0.1:0");
        setup.set("log.format", "json");
        setup.set("log.level", "info");
        setup.set("upstream.pool", 0);
        setup
    }

    /// Sets one setting by its path, `policy.mode`.
    #[track_caller]
    pub fn set(&mut self, path: &str, value: impl Into<toml::Value>) -> &mut Setup {
        let mut keys: Vec<&str> = path.split('.').collect();
        let last = keys.pop().unwrap();
        let mut table = &mut self.settings;
        for key in keys {
            let entry = table.entry(key).or_insert_with(|| toml::Table::new().into());
            table = entry.as_table_mut().expect("rig: a table");
        }
        table.insert(last.into(), value.into());
        self
    }

    /// Takes a setting out again, so that its default counts.
    pub fn unset(&mut self, path: &str) -> &mut Setup {
        let (section, key) = path.split_once('.').unwrap_or(("", path));
        let table = if section.is_empty() {
            Some(&mut self.settings)
        } else {
            self.settings.get_mut(section).and_then(|t| t.as_table_mut())
        };
        table.map(|t| t.remove(key));
        self
    }

    /// Chains into this SOCKS5 server, names passed on. The fake keeps half-closed connections, so
    /// FIN is propagated (`auto` would defer it with this kind; `unset` it to test that).
    pub fn upstream(&mut self, to: std::net::SocketAddr) -> &mut Setup {
        self.set("upstream.kind", "socks5")
            .set("upstream.socks5", to.to_string())
            .set("upstream.half_close", "propagate")
            .set("dns.mode", "upstream")
    }

    /// Dials from this host. Loopback must be taken from `deny_nets` for tests' origins.
    pub fn direct(&mut self) -> &mut Setup {
        self.set("upstream.kind", "direct").set("dns.mode", "system").allow_loopback()
    }

    /// Empties `deny_nets`, so that 127.0.0.1 may be a target.
    pub fn allow_loopback(&mut self) -> &mut Setup {
        self.set("policy.deny_nets", toml::Value::Array(Vec::new()))
    }

    /// `mode = "enforce"` with these suffixes.
    pub fn enforce(&mut self, suffixes: &[&str]) -> &mut Setup {
        self.set("policy.mode", "enforce").set("policy.allowed_host_suffixes", suffixes.to_vec())
    }

    /// The configuration file, byte for byte, instead of the settings above.
    pub fn raw(&mut self, bytes: impl Into<Vec<u8>>) -> &mut Setup {
        self.raw = Some(bytes.into());
        self
    }

    /// An environment variable.
    pub fn env(&mut self, name: &str, value: impl Into<OsString>) -> &mut Setup {
        self.env.insert(name.into(), value.into());
        self
    }

    /// A further argument of `up`.
    pub fn argument(&mut self, argument: &str) -> &mut Setup {
        self.arguments.push(argument.into());
        self
    }

    /// Soft and hard limit of open files.
    pub fn nofile(&mut self, limit: u64) -> &mut Setup {
        self.prelude(&format!("ulimit -n {limit}"))
    }

    /// Soft limit of open files alone; the hard one stays.
    pub fn soft_nofile(&mut self, limit: u64) -> &mut Setup {
        self.prelude(&format!("ulimit -S -n {limit}"))
    }

    /// A shell command run before the binary, in the same process.
    pub fn prelude(&mut self, command: &str) -> &mut Setup {
        self.prelude = Some(command.into());
        self
    }

    /// The folder of this gateway.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Its run directory.
    pub fn run_dir(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    /// Where [`Setup::write`] puts the configuration.
    pub fn config(&self) -> PathBuf {
        self.dir.path().join("config.toml")
    }

    /// The configuration file's text.
    pub fn text(&self) -> Vec<u8> {
        self.raw
            .clone()
            .unwrap_or_else(|| toml::to_string(&self.settings).expect("rig: settings").into_bytes())
    }

    /// Writes the configuration, mode 0600, in one step: a gateway that reads it meanwhile must not find an
    /// empty one, which is as good as any.
    pub fn write(&self) -> PathBuf {
        let mut new = tempfile::NamedTempFile::new_in(self.dir()).expect("rig: no temporary file");
        new.write_all(&self.text()).expect("rig: cannot write the configuration");
        new.persist(self.config()).expect("rig: cannot place the configuration");
        self.config()
    }

    /// The command line of the binary with this environment and these limits.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = match &self.prelude {
            None => Command::new(binary()),
            Some(first) => {
                let mut shell = Command::new("sh");
                shell.arg("-c").arg(format!("{first} && exec \"$0\" \"$@\"")).arg(binary());
                shell
            }
        };
        command.args(arguments).env_clear().envs(&self.env).current_dir(self.dir());
        command.stdin(Stdio::null());
        command
    }

    /// `up --config F` and the further arguments.
    pub fn up(&self) -> Command {
        let config = self.write();
        let mut command = self.command(&["up", "--config"]);
        command.arg(config).args(&self.arguments);
        command
    }

    /// Starts the gateway and waits until it listens.
    #[track_caller]
    pub fn start(self) -> Gateway {
        Gateway::launch(self)
    }

    /// Runs `up` where it should not start; its output once it has ended, within 10 s.
    #[track_caller]
    pub fn fail(&self) -> Output {
        run(self.up())
    }

    /// Runs another command of the binary (`status`, `config check`, …) to its end, within 10 s.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> Output {
        run(self.command(arguments))
    }
}

/// Runs a command to its end, and kills it by its id when it has not ended in time.
#[track_caller]
pub fn run(mut command: Command) -> Output {
    let child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("rig: cannot start");
    let pid = rustix::process::Pid::from_child(&child);
    let (done, wait) = std::sync::mpsc::channel();
    std::thread::spawn(move || done.send(child.wait_with_output()));
    match wait.recv_timeout(PATIENCE + Duration::from_secs(10)) {
        Ok(output) => output.expect("rig: cannot wait"),
        Err(_) => {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            panic!("did not end in time: {command:?}");
        }
    }
}

/// Waits for a file and parses it as JSON.
#[track_caller]
pub fn json_file(path: &Path) -> serde_json::Value {
    eventually_some(&format!("{} is there", path.display()), PATIENCE, || {
        serde_json::from_slice(&std::fs::read(path).ok()?).ok()
    })
}
