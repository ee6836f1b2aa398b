//! The real tailscaled asked what the fake is asked: both are held to the answers in `crates/tailrace-rig/real/`.

use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::case::Case;
use crate::keys::Key;
use crate::localapi;
use crate::probes::{self, ProbedDaemon};
use crate::process::Process;
use crate::tailnet::{Tailnet, preferences};

/// The peer that comes and goes: of the services' tag, so that the policy shows it to others.
const PEER: &str = "comer";

pub fn cases() -> Vec<Case> {
    vec![Case::new("tailscaled_answers_as_the_fake_of_its_version_does", |tailnet| {
        let dir = tailnet.dir.path().join("real");
        std::fs::create_dir(&dir).expect("a folder");
        let mut daemon = Real { tailnet, dir, running: None, peer: None, starts: 0 };
        let report = probes::ask(&mut daemon);
        probes::compare(tailnet.version.label(), "real", &report);
    })]
}

struct Real<'a> {
    tailnet: &'a Tailnet,
    dir: PathBuf,
    running: Option<Process>,
    peer: Option<Process>,
    starts: usize,
}

impl Real<'_> {
    /// One in `world`, from where the control server is reached as well.
    fn spawn(&self, home: &Path, state: &str) -> Process {
        std::fs::create_dir_all(home).expect("a folder for tailscaled");
        let mut command = Command::new(self.tailnet.programs.join("tailscaled"));
        command.args(["--tun=userspace-networking", "--no-logs-no-support"]);
        command.arg(format!("--state={state}")).arg(format!("--statedir={}", home.display()));
        command.arg(format!("--socket={}", home.join("s.sock").display()));
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).env("HOME", home);
        command.env("SSL_CERT_FILE", self.tailnet.dir.path().join("ca.pem"));
        command.env("TS_DISABLE_PORTMAPPER", "1");
        let log = home.join(format!("log-{}", self.starts));
        self.tailnet.world.enter(|| Process::start("tailscaled", &mut command, &log))
    }
}

impl ProbedDaemon for Real<'_> {
    fn begin(&mut self, state: &str) {
        self.starts += 1;
        self.running = Some(self.spawn(&self.dir.join("home"), state));
    }

    fn end(&mut self, at_once: bool) {
        let mut process = self.running.take().expect("a running one");
        if !at_once {
            process.signal(Signal::TERM);
            process.wait();
        }
        drop(process);
    }

    fn socket(&self) -> PathBuf {
        self.dir.join("home/s.sock")
    }

    fn folder(&self) -> PathBuf {
        let folder = self.dir.join("kept");
        std::fs::create_dir_all(&folder).expect("a folder");
        folder
    }

    fn options(&self) -> Value {
        let prefs = preferences("probed", json!({"ShieldsUp": true}));
        json!({"AuthKey": self.tailnet.control.key(Key::Good), "UpdatePrefs": prefs})
    }

    fn peer_comes(&mut self) -> &'static str {
        let home = self.dir.join(PEER);
        self.peer = Some(self.spawn(&home, "mem:"));
        let key = self.tailnet.control.services_key();
        localapi::login(&home.join("s.sock"), &key, &preferences(PEER, json!({})));
        PEER
    }

    fn peer_sleeps(&mut self) {
        self.peer = None;
    }

    fn peer_goes(&mut self) {
        self.tailnet.control.delete(PEER);
    }
}
