//! headscale: control server and relay of the tailnet, on the far side of the sandbox.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::namespace::Namespace;
use crate::process::{Process, must, wait_for};
use crate::stage::Programs;

/// Where nodes log in; the address is the far side's own.
pub const URL: &str = "https://10.99.0.1:8443";
/// The control server's address: all that the sandbox reaches by itself.
pub const ADDRESS: &str = "10.99.0.1";
/// What sandboxes may carry.
pub const SANDBOX: &str = "tag:sandbox";
/// Addresses are dealt out in order, and `svc` comes first: the DNS settings can name it beforehand.
pub const SVC: &str = "100.64.0.1";
pub const SVC_V6: &str = "fd7a:115c:a1e0::1";

/// The nameserver most questions go to, behind the subnet route; the service is one, too. Of connections to
/// itself the service's tailscaled (1.98.9) keeps the local ports, and refuses one that the kernel gives the
/// port of another ("could not register TCP mapping"): two busy ports there would now and then collide.
pub const NAMES: &str = "10.50.0.53";

/// Domains with a nameserver of their own, inside the tailnet.
const SPLIT: [(&str, &str); 2] = [("corp.example", NAMES), ("silent.example", SVC)];
/// Ports of the services that the policy opens at first; 9100 is closed.
const OPEN: [u16; 3] = [53, 8080, 9100];

/// A running headscale.
pub struct Control {
    program: PathBuf,
    dir: PathBuf,
    server: Mutex<Process>,
}

impl Control {
    /// Starts headscale in `world` with its files in `dir`; makes its certificate (`dir/ca.pem`).
    pub fn start(programs: &Programs, world: &Namespace, dir: &Path) -> Control {
        certificate(dir);
        write_policy(dir, &OPEN);
        write_config(dir, &SPLIT);
        write_records(dir, &[("grafana.lab.ts.net", SVC)]);
        let program = programs.headscale.clone();
        let server = Mutex::new(serve(&program, world, dir));
        let control = Control { program, dir: dir.to_owned(), server };
        wait_for("headscale's answer", || control.ask(&["users", "create", "ops"]).ok());
        control.wait(world);
        control
    }

    /// Ends headscale without a farewell, does `meanwhile`, and starts it with one more split-DNS
    /// domain: it reads that list at its start only.
    pub fn restart_with_domain(&self, world: &Namespace, domain: &str, meanwhile: impl FnOnce()) {
        let mut server = self.server.lock().expect("no panic here");
        server.kill();
        meanwhile();
        write_config(&self.dir, &[&SPLIT[..], &[(domain, SVC)]].concat());
        *server = serve(&self.program, world, &self.dir);
        drop(server);
        self.wait(world);
    }

    /// Opens these ports of the services, beside the usual ones, and no other.
    pub fn open_ports(&self, more: &[u16]) {
        write_policy(&self.dir, &[&OPEN[..], more].concat());
        self.server.lock().expect("no panic here").signal(Signal::HUP);
    }

    /// Adds a DNS record (headscale watches the file).
    pub fn add_record(&self, name: &str, address: &str) {
        write_records(&self.dir, &[("grafana.lab.ts.net", SVC), (name, address)]);
    }

    pub fn tail(&self) -> String {
        self.server.lock().map(|server| server.tail()).unwrap_or_default()
    }

    /// headscale's own command line, over its Unix socket; `Err` is what it complained of.
    pub fn ask(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = Command::new(&self.program);
        command.arg("-c").arg(config(&self.dir)).args(arguments);
        let output = command.output().map_err(|e| e.to_string())?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// The same, answered in JSON; log lines may stand before it.
    pub fn ask_json(&self, arguments: &[&str]) -> Value {
        let asked = [arguments, &["-o", "json"]].concat();
        let said = self.ask(&asked).unwrap_or_else(|e| panic!("headscale {arguments:?}: {e}"));
        let starts = ["{\n", "[\n", "null"].into_iter().filter_map(|start| said.find(start)).min();
        let json = starts.map_or("", |at| &said[at..]);
        serde_json::from_str(json)
            .unwrap_or_else(|e| panic!("headscale {arguments:?}: {e}: {said}"))
    }

    fn wait(&self, world: &Namespace) {
        let port = format!("{ADDRESS}:8443");
        world.enter(|| wait_for("headscale's port", || std::net::TcpStream::connect(&port).ok()));
    }
}

fn serve(program: &Path, world: &Namespace, dir: &Path) -> Process {
    let mut command = Command::new(program);
    command.arg("-c").arg(config(dir)).arg("serve");
    command.env_clear().env("HOME", dir).env("PATH", std::env::var_os("PATH").unwrap());
    world.enter(|| Process::start("headscale", &mut command, &dir.join("headscale.log")))
}

fn config(dir: &Path) -> PathBuf {
    dir.join("headscale.yaml")
}

/// A self-signed certificate for the control server, which tailscaled is told to trust.
fn certificate(dir: &Path) {
    let (key, cert) = (dir.join("key.pem"), dir.join("ca.pem"));
    let (key, cert) = (key.to_string_lossy(), cert.to_string_lossy());
    let subject = format!("subjectAltName=IP:{ADDRESS}");
    let new = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj"];
    let rest = ["/CN=tailnet", "-addext", &subject, "-keyout", &key, "-out", &cert];
    must("openssl", &[&new[..], &rest].concat());
}

/// The sandbox may reach some ports of the services, and one of the subnet behind them.
fn write_policy(dir: &Path, ports: &[u16]) {
    let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
    let policy = json!({
        "tagOwners": {SANDBOX: ["ops@"], "tag:internal": ["ops@"]},
        "autoApprovers": {"routes": {"10.50.0.0/24": ["tag:internal"]}},
        "acls": [{"action": "accept", "src": [SANDBOX],
                  "dst": [format!("tag:internal:{}", ports.join(",")), "10.50.0.0/24:53,8080"]}],
    });
    fs::write(dir.join("acl.hujson"), policy.to_string()).expect("acl.hujson");
}

fn write_records(dir: &Path, records: &[(&str, &str)]) {
    let record = |&(name, value)| json!({"name": name, "type": "A", "value": value});
    let records: Vec<Value> = records.iter().map(record).collect();
    fs::write(dir.join("records.json"), json!(records).to_string()).expect("records.json");
}

fn write_config(dir: &Path, split: &[(&str, &str)]) {
    let split: Vec<String> = split.iter().map(|(domain, at)| format!("{domain}: [{at}]")).collect();
    let text = CONFIG.replace("$DIR", &dir.to_string_lossy()).replace("$URL", URL);
    fs::write(config(dir), text.replace("$SPLIT", &split.join(", "))).expect("headscale.yaml");
}

const CONFIG: &str = r#"
server_url: $URL
listen_addr: 10.99.0.1:8443
metrics_listen_addr: 127.0.0.1:9090
grpc_listen_addr: 127.0.0.1:50443
noise: {private_key_path: "$DIR/noise.key"}
prefixes: {v4: 100.64.0.0/10, v6: "fd7a:115c:a1e0::/48", allocation: sequential}
derp:
  server:
    enabled: true
    region_id: 999
    region_code: here
    region_name: Here
    verify_clients: false
    stun_listen_addr: "10.99.0.1:3478"
    private_key_path: "$DIR/derp.key"
    automatically_add_embedded_derp_region: true
    ipv4: 10.99.0.1
  urls: []
  paths: []
  auto_update_enabled: false
disable_check_updates: true
node: {ephemeral: {inactivity_timeout: 5m}}
database: {type: sqlite, sqlite: {path: "$DIR/db.sqlite"}}
tls_cert_path: "$DIR/ca.pem"
tls_key_path: "$DIR/key.pem"
log: {level: info, format: text}
policy: {mode: file, path: "$DIR/acl.hujson"}
dns:
  magic_dns: true
  base_domain: lab.ts.net
  override_local_dns: false
  nameservers: {global: [], split: {$SPLIT}}
  search_domains: []
  extra_records_path: "$DIR/records.json"
unix_socket: "$DIR/headscale.sock"
unix_socket_permission: "0700"
"#;
