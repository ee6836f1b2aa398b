//! What the clients meet: a gateway with a forward, the servers' names and certificate, our own server.

use std::ffi::OsString;
use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::Value;

use crate::gateway::Gateway;
use crate::managed::Kind;
use crate::process::{Process, must, wait_for};
use crate::tailnet::Tailnet;

/// Names of the servers, all of them on `svc`: known to the tailnet's own nameserver only.
pub const NAMES: [&str; 9] = [
    "web.corp.example",
    "kube.corp.example",
    "rpc.corp.example",
    "db.corp.example",
    "cache.corp.example",
    "host.corp.example",
    "git.corp.example",
    "hub.corp.example",
    "temporal.corp.example",
];
/// Programs that take minutes to build and come by `tests/clients/install --more`.
pub const FURTHER: [&str; 2] = ["gh", "temporal"];
/// Ports of the servers.
const PORTS: [u16; 7] = [22, 443, 5432, 6379, 6443, 7233, 50051];

/// Kept for as long as there are clients.
pub struct Field {
    pub gateway: Gateway,
    /// What `tailrace env` prints.
    pub variables: Vec<(String, String)>,
    /// Where tests/clients/install put the programs.
    pub programs: PathBuf,
    /// Where it put those of [`FURTHER`] that it was asked for.
    further: Vec<PathBuf>,
    /// Certificates (`ca.pem`, `cert.pem`, `key.pem`), repositories (`git`) and settings of the programs.
    pub dir: PathBuf,
    pub servers: Servers,
    far: Process,
}

/// Those that only some cases need, each started by the first of them.
#[derive(Default)]
pub struct Servers {
    pub postgresql: OnceLock<Process>,
    pub redis: OnceLock<Process>,
    pub sshd: OnceLock<Process>,
    pub temporal: OnceLock<Process>,
}

impl Field {
    pub fn new(tailnet: &Tailnet) -> Field {
        let dir = tailnet.dir.path().join("clients");
        fs::create_dir(&dir).expect("a folder");
        certificates(&dir);
        for (file, address) in [("hosts-far", "127.0.0.1"), ("hosts-near", "")] {
            let names = if address.is_empty() { String::new() } else { NAMES.join(" ") };
            let text = format!("127.0.0.1 localhost\n{address} {names}\n");
            fs::write(dir.join(file), text).expect("a hosts file");
        }
        let programs = installed().expect("the clients: run tests/clients/install");
        let further = FURTHER.into_iter().filter_map(further).collect();
        repository(&dir.join("git"));
        let mut far = Command::new(programs.join("bin/far"));
        far.args(["cert.pem", "key.pem", "git"].map(|name| dir.join(name)));
        let far = tailnet.world.enter(|| Process::start("far", &mut far, &dir.join("far.log")));
        tailnet.world.enter(|| {
            for port in [443, 6443, 50051] {
                wait_for("our own server", || TcpStream::connect(("127.0.0.1", port)).ok());
            }
        });
        tailnet.control.open_ports(&PORTS);
        let gateway = gateway(tailnet, &dir);
        let said = gateway.launch.ask(tailnet, &["env", "--shell", "json"]);
        let variables: Value = serde_json::from_str(&said.out).expect("env is JSON");
        let variables = variables.as_object().expect("an object").iter();
        let servers = Servers::default();
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        let variables = variables.map(|(name, value)| (name.clone(), text(value))).collect();
        Field { gateway, variables, programs, further, dir, servers, far }
    }

    /// What gateway and server said last.
    pub fn evidence(&self) -> String {
        self.gateway.evidence() + &self.far.tail()
    }

    /// Folders with programs in them.
    pub fn folders(&self) -> impl Iterator<Item = PathBuf> {
        std::iter::once(self.programs.join("bin")).chain(self.further.iter().cloned())
    }

    /// A file of this folder's, where the programs expect it to be told.
    pub fn path(&self, name: &str) -> String {
        self.dir.join(name).to_string_lossy().into_owned()
    }
}

/// A gateway with its own tailscaled and a forward to PostgreSQL, carrying what the policy now opens.
fn gateway(tailnet: &Tailnet, dir: &Path) -> Gateway {
    let settings = dir.join("tailrace.toml");
    let forward = "[[forward]]\nlisten = \"127.0.0.1:5432\"\ntarget = \"db.corp.example:5432\"\n";
    fs::write(&settings, forward).expect("settings");
    let launch = Kind::Tailscaled.launch(tailnet, "clients").set("TAILRACE_CONFIG", settings);
    let gateway = launch.up(tailnet);
    gateway.wait(tailnet);
    let mut curl = Command::new("curl");
    curl.args(["--disable", "--silent", "--fail", "--proxy", &gateway.proxy, "--cacert"]);
    curl.arg(dir.join("ca.pem")).arg("https://web.corp.example/hello");
    wait_for("our own server through the gateway", || {
        tailnet.sandboxed.enter(|| curl.output()).is_ok_and(|it| it.status.success()).then_some(())
    });
    gateway
}

/// Where tests/clients/install has put the programs, if all are there.
pub fn installed() -> Option<PathBuf> {
    static FOLDER: OnceLock<Option<PathBuf>> = OnceLock::new();
    FOLDER.get_or_init(|| place(&["--where"])).clone()
}

/// The folder of one of the further programs, if it is there.
pub fn further(program: &str) -> Option<PathBuf> {
    place(&["--where", program])
}

/// What tests/clients/install says to such a question.
fn place(question: &[&str]) -> Option<PathBuf> {
    let output = Command::new(source().join("install")).args(question).output().ok()?;
    let folder = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    output.status.success().then(|| folder.into())
}

/// tests/clients in the checkout.
pub fn source() -> PathBuf {
    crate::source::source("tests/clients")
}

/// An authority, and a certificate of its for every name.
fn certificates(dir: &Path) {
    let mut ours = CertificateParams::default();
    ours.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ours.distinguished_name.push(DnType::CommonName, "authority");
    let key = KeyPair::generate().expect("a key");
    let ca = ours.self_signed(&key).expect("a certificate");
    let issuer = Issuer::new(ours, key);
    let key = KeyPair::generate().expect("a key");
    let names: Vec<String> = NAMES.map(str::to_owned).into();
    let params = CertificateParams::new(names).expect("names");
    let cert = params.signed_by(&key, &issuer).expect("a certificate");
    for (file, label, der) in [
        ("ca.pem", "CERTIFICATE", ca.der().as_ref()),
        ("cert.pem", "CERTIFICATE", cert.der().as_ref()),
        ("key.pem", "PRIVATE KEY", key.serialized_der()),
    ] {
        fs::write(dir.join(file), pem(label, der)).expect("a certificate's file");
    }
}

/// RFC 7468, 2.
fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines = text.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line) + "\n");
    format!("-----BEGIN {label}-----\n{}-----END {label}-----\n", lines.collect::<String>())
}

/// A bare repository with one commit, at `root/repo.git`.
fn repository(root: &Path) {
    let repo = root.join("repo.git");
    let repo = repo.to_string_lossy();
    must("git", &["init", "--quiet", "--bare", "--initial-branch=main", &repo]);
    fs::write(root.join("config"), "[safe]\n\tdirectory = *\n").expect("git's settings");
    let who = ["-c", "user.name=ops", "-c", "user.email=ops@corp.example", "-C", &repo];
    let git = |words: &[&str]| must("git", &[&who[..], words].concat()).trim().to_owned();
    fs::write(root.join("hello"), "hello from the repository\n").expect("a file");
    let blob = git(&["hash-object", "-w", &root.join("hello").to_string_lossy()]);
    git(&["update-index", "--add", "--cacheinfo", &format!("100644,{blob},hello")]);
    let tree = git(&["write-tree"]);
    let commit = git(&["commit-tree", "-m", "hello", &tree]);
    git(&["update-ref", "refs/heads/main", &commit]);
}

/// A program of Debian's that is not in everybody's PATH.
pub fn system(name: &str) -> OsString {
    let found = ["/usr/sbin", "/usr/bin", "/sbin"].map(|folder| Path::new(folder).join(name));
    let found = found.into_iter().find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("no {name}: run tests/clients/install")).into_os_string()
}
