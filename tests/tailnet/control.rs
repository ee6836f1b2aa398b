//! headscale: control server and relay of the tailnet, on the far side of the sandbox.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::namespace::Namespace;
use crate::process::{Process, must, wait_for};
use crate::stage::Programs;

/// Where nodes log in; the address is the far side's own.
pub const URL: &str = "https://10.99.0.1:8443";

/// A running headscale.
pub struct Control {
    program: PathBuf,
    config: PathBuf,
    pub server: Process,
}

impl Control {
    /// Starts headscale in `world` with its files in `dir`; makes its certificate (`dir/ca.pem`).
    pub fn start(programs: &Programs, world: &Namespace, dir: &Path) -> Control {
        certificate(dir);
        std::fs::write(dir.join("acl.hujson"), ACL).expect("acl.hujson");
        let config = dir.join("headscale.yaml");
        let text = CONFIG.replace("$DIR", &dir.to_string_lossy()).replace("$URL", URL);
        std::fs::write(&config, text).expect("headscale.yaml");
        let program = programs.folder.join("headscale");
        let mut command = Command::new(&program);
        command.arg("-c").arg(&config).arg("serve");
        command.env_clear().env("HOME", dir).env("PATH", std::env::var_os("PATH").unwrap());
        let log = dir.join("headscale.log");
        let server = world.enter(|| Process::start("headscale", &mut command, &log));
        let control = Control { program, config, server };
        wait_for("headscale's answer", || control.ask(&["users", "create", "ops"]).ok());
        world.enter(|| {
            wait_for("headscale's port", || std::net::TcpStream::connect("10.99.0.1:8443").ok())
        });
        control
    }

    /// A key for a node that carries `tag`.
    pub fn key(&self, tag: &str) -> String {
        let made = self.ask(&["preauthkeys", "create", "--ephemeral", "--tags", tag, "-o", "json"]);
        let made = made.unwrap_or_else(|e| panic!("no key for {tag}: {e}"));
        let json = made.find('{').map_or("", |at| &made[at..]);
        let key: serde_json::Value = serde_json::from_str(json).expect("headscale prints JSON");
        key["key"].as_str().expect("a key").to_owned()
    }

    /// headscale's own command line, over its Unix socket.
    fn ask(&self, arguments: &[&str]) -> Result<String, String> {
        let output =
            Command::new(&self.program).arg("-c").arg(&self.config).args(arguments).output();
        let output = output.map_err(|e| e.to_string())?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// A self-signed certificate for the control server, which tailscaled is told to trust.
fn certificate(dir: &Path) {
    let (key, cert) = (dir.join("key.pem"), dir.join("ca.pem"));
    must(
        "openssl",
        &[
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "30",
            "-subj",
            "/CN=tailnet",
            "-addext",
            "subjectAltName=IP:10.99.0.1",
            "-keyout",
            &key.to_string_lossy(),
            "-out",
            &cert.to_string_lossy(),
        ],
    );
}

/// The sandbox may reach some ports of the services and of the subnet behind them; 9100 is closed.
const ACL: &str = r#"{
 "tagOwners": {"tag:sandbox": ["ops@"], "tag:internal": ["ops@"]},
 "autoApprovers": {"routes": {"10.50.0.0/24": ["tag:internal"]}},
 "acls": [{"action": "accept", "src": ["tag:sandbox"],
           "dst": ["tag:internal:8080,9100", "10.50.0.0/24:8080"]}]
}"#;

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
  nameservers: {global: [], split: {}}
  search_domains: []
  extra_records: []
unix_socket: "$DIR/headscale.sock"
unix_socket_permission: "0700"
"#;
