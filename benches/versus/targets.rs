//! The programs measured, each a process of its own: started, asked for its port, looked at in
//! `/proc`, killed by its id.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    BareCopy,
    BareSplice,
    Socks5,
    Connect,
    CopyOnly,
    /// Does not look for its clients' programs.
    Unnamed,
}

/// What a client says before its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speech {
    Nothing,
    Socks5,
    Connect,
}

impl Kind {
    pub(crate) const ALL: [Kind; 5] =
        [Kind::BareCopy, Kind::BareSplice, Kind::Socks5, Kind::Connect, Kind::CopyOnly];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::BareCopy => "bare copy relay, 64 kB buffer",
            Kind::BareSplice => "bare splice relay, 1 MiB pipes",
            Kind::Socks5 => "tailrace, SOCKS5",
            Kind::Connect => "tailrace, CONNECT",
            Kind::CopyOnly => "tailrace, SOCKS5, splice off",
            Kind::Unnamed => "tailrace, SOCKS5, record.process off",
        }
    }
}

/// A process that tells its port on its first line.
pub(crate) struct Told {
    child: Child,
    port: u16,
}

impl Told {
    fn start(mut command: Command) -> Told {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().parse().unwrap_or_else(|_| panic!("no port from {command:?}"));
        Told { child, port }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How busy the machine is: the mean of the last minute (proc(5), loadavg).
pub(crate) fn load_average() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

/// This program again, as the far end.
pub(crate) fn far_end() -> Told {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg("far-end");
    Told::start(command)
}

/// One program under measurement.
pub(crate) struct Target {
    kind: Kind,
    process: Told,
    _folder: TempDir,
}

impl Target {
    pub(crate) fn start(kind: Kind, far: u16) -> Target {
        let folder = tempfile::tempdir().unwrap();
        let far_text = far.to_string();
        let process = match kind {
            Kind::BareCopy => bare("copy", &[&far_text], folder.path()),
            Kind::BareSplice => bare("splice", &[&far_text, "1048576"], folder.path()),
            _ => gateway(kind, far, folder.path()),
        };
        Target { kind, process, _folder: folder }
    }

    pub(crate) fn port(&self) -> u16 {
        self.process.port
    }

    pub(crate) fn speech(&self) -> Speech {
        match self.kind {
            Kind::BareCopy | Kind::BareSplice => Speech::Nothing,
            Kind::Connect => Speech::Connect,
            Kind::Socks5 | Kind::CopyOnly | Kind::Unnamed => Speech::Socks5,
        }
    }

    /// Seconds that pass and CPU seconds the target uses while `work` runs.
    pub(crate) async fn cost(&self, work: impl Future<Output = ()>) -> (f64, f64) {
        let (began, before) = (Instant::now(), self.cpu());
        work.await;
        (began.elapsed().as_secs_f64(), self.cpu() - before)
    }

    fn read(&self, file: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.process.child.id())).unwrap()
    }

    /// User and system seconds (proc(5) stat fields 14 and 15, 100 ticks a second).
    fn cpu(&self) -> f64 {
        let stat = self.read("stat");
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks = |n: usize| fields[n].parse::<f64>().unwrap();
        (ticks(11) + ticks(12)) / 100.0
    }

    /// Proportional set size in kB.
    pub(crate) fn pss(&self) -> f64 {
        let rollup = self.read("smaps_rollup");
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Open descriptors.
    pub(crate) fn descriptors(&self) -> f64 {
        let folder = format!("/proc/{}/fd", self.process.child.id());
        std::fs::read_dir(folder).unwrap().count() as f64
    }
}

/// Compiles a bare relay and starts it.
fn bare(name: &str, arguments: &[&str], folder: &Path) -> Told {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("benches/bare/{name}.c"));
    let binary = folder.join(name);
    let mut compile = Command::new("cc");
    compile.args(["-O2", "-o"]).arg(&binary).arg(source);
    assert!(compile.status().unwrap().success(), "{compile:?}: a C compiler is needed");
    let mut command = Command::new(binary);
    command.args(arguments);
    Told::start(command)
}

/// The gateway as a user starts it, its log thrown away.
fn gateway(kind: Kind, far: u16, folder: &Path) -> Told {
    let (splice, process) = (kind != Kind::CopyOnly, kind != Kind::Unnamed);
    let (config, run_dir) = (folder.join("config.toml"), folder.join("run"));
    let text = format!(
        "run_dir = {run_dir:?}\n[listen]\nproxy = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n\
         [upstream]\nkind = \"socks5\"\nsocks5 = \"127.0.0.1:{far}\"\nhalf_close = \"propagate\"\n\
         [dns]\nmode = \"upstream\"\n[relay]\nsplice = {splice}\n[record]\nprocess = {process}\n\
         [log]\nformat = \"json\"\n"
    );
    std::fs::write(&config, text).unwrap();
    let binary = std::env::var_os("TAILRACE_BIN")
        .map_or_else(|| env!("CARGO_BIN_EXE_tailrace").into(), PathBuf::from);
    let mut command = Command::new(binary);
    command.arg("up").arg("--config").arg(config).env_clear();
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let port = port_of(&run_dir.join("gateway.json"), child.id());
    Told { child, port }
}

fn port_of(file: &Path, pid: u32) -> u16 {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let text = std::fs::read(file).unwrap_or_default();
        let told = serde_json::from_slice::<serde_json::Value>(&text).unwrap_or_default();
        if told["pid"] == pid {
            let address = told["proxy"][0].as_str().unwrap();
            return address.rsplit(':').next().unwrap().parse().unwrap();
        }
        assert!(Instant::now() < deadline, "the gateway did not start");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}
