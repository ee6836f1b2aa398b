//! The tailnet: `world` with the control server and a node `svc` that carries the services, `box`
//! with the sandbox's node. `box` reaches only the control server by itself.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use rustix::process::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::clients::Field;
use crate::control::{ADDRESS, Control, NAMES, SVC, URL};
use crate::gateway::Gateway;
use crate::keys::Key;
use crate::localapi;
use crate::managed::Kind;
use crate::nameserver::Nameserver;
use crate::namespace::Namespace;
use crate::origin::Origin;
use crate::process::{Process, must, wait_for};
use crate::stage::Programs;
use crate::trace::WIRE;
use crate::version::Version;

/// tailscaled's SOCKS5 port in the sandbox.
pub const UPSTREAM: &str = "127.0.0.1:1080";
/// Its HTTP proxy, where it is asked for.
pub const HTTP_PROXY: &str = "127.0.0.1:1081";
/// The port every service answers at.
pub const PORT: u16 = 8080;
/// A service behind the subnet route; `box` has no other way to it.
pub const BEHIND_ROUTE: &str = "10.50.0.7";
/// No peer and no subnet route leads there.
pub const UNROUTED: &str = "10.60.0.9";
/// The services answer here too, and the policy does not open it at first.
pub const LATER: u16 = 8181;

/// Everything that runs. Fields are dropped in this order.
pub struct Tailnet {
    gateway: OnceLock<Gateway>,
    managed: [OnceLock<Gateway>; 2],
    clients: OnceLock<Field>,
    pub origin: Origin,
    /// Knows the internal domains; reached through `svc`.
    pub nameserver: Nameserver,
    /// What a leaked question would reach: the resolver of `/etc/resolv.conf`.
    pub public: Nameserver,
    /// svc's address in the tailnet.
    pub svc: String,
    /// The key that the sandbox's node used up.
    pub used_up: String,
    sandbox: Process,
    services: Process,
    pub control: Control,
    pub sandboxed: Namespace,
    pub world: Namespace,
    /// Of tailscaled, everywhere in this tailnet.
    pub version: Version,
    /// Where tailscaled and its command line are.
    pub programs: PathBuf,
    pub dir: TempDir,
}

impl Tailnet {
    /// Builds it and waits until the sandbox's node sees `svc` and its subnet route. `more` are further flags
    /// of that node's tailscaled.
    pub fn start(programs: &Programs, more: &[&str]) -> Tailnet {
        let dir = tempfile::Builder::new().prefix("tailrace-tailnet-").tempdir().expect("a folder");
        // Another user may walk through it: what is closed further in is closed by itself.
        let open = std::fs::Permissions::from_mode(0o711);
        std::fs::set_permissions(dir.path(), open).expect("its mode");
        let (world, sandboxed) = (Namespace::new(), Namespace::new());
        wire(&world, &sandboxed);
        resolve_by(ADDRESS, dir.path());
        let origin = world.enter(|| Origin::start(dir.path(), &["127.0.0.1", BEHIND_ROUTE]));
        let (nameserver, public) =
            world.enter(|| (Nameserver::internal(), Nameserver::public(ADDRESS)));
        let control = Control::start(programs, &world, dir.path());
        let services = node(programs, &world, dir.path(), "svc", &[]);
        let prefs = preferences("svc", json!({"AdvertiseRoutes": ["10.50.0.0/24"]}));
        localapi::login(&socket(dir.path(), "svc"), &control.services_key(), &prefs);
        let socks = format!("--socks5-server={UPSTREAM}");
        let sandbox = node(programs, &sandboxed, dir.path(), "box", &[&[&*socks], more].concat());
        let prefs = preferences("sandbox", json!({"ShieldsUp": true}));
        let used_up = control.key(Key::Single);
        localapi::login(&socket(dir.path(), "box"), &used_up, &prefs);
        let svc = peer(&socket(dir.path(), "box"), "svc");
        assert_eq!(svc, SVC, "the first address dealt out");
        for host in ["svc", BEHIND_ROUTE] {
            wait_for("tailscaled to carry", || carries(&sandboxed, host).then_some(()));
        }
        Tailnet {
            gateway: OnceLock::new(),
            managed: Default::default(),
            clients: OnceLock::new(),
            origin,
            nameserver,
            public,
            svc,
            used_up,
            sandbox,
            services,
            control,
            sandboxed,
            world,
            version: programs.version,
            programs: programs.folder.clone(),
            dir,
        }
    }

    /// The gateway most cases share: any target, tailscaled's port as upstream.
    pub fn gateway(&self) -> &Gateway {
        self.gateway.get_or_init(|| Gateway::start(self, "shared", UPSTREAM, &[]))
    }

    /// The gateway that runs its own tailscaled, one for each kind.
    pub fn managed(&self, kind: Kind) -> &Gateway {
        self.managed[kind as usize].get_or_init(|| {
            let gateway = kind.launch(self, &format!("shared-{}", kind.label())).up(self);
            gateway.wait(self);
            gateway
        })
    }

    /// What the client programs need, started when the first of them asks.
    pub fn clients(&self) -> &Field {
        self.clients.get_or_init(|| Field::new(self))
    }

    /// The tailscaled that nobody manages.
    pub fn sandbox_pid(&self) -> Pid {
        self.sandbox.pid()
    }

    /// LocalAPI's socket of the node that nobody manages.
    pub fn sandbox_socket(&self) -> PathBuf {
        socket(self.dir.path(), "box")
    }

    /// What the parts said last, for a failed case.
    pub fn evidence(&self) -> String {
        let gateways = self.managed.iter().chain([&self.gateway]).filter_map(OnceLock::get);
        let said: String = gateways.map(Gateway::evidence).collect();
        let clients = self.clients.get().map(Field::evidence).unwrap_or_default();
        said + &clients + &self.sandbox.tail() + &self.services.tail() + &self.control.tail()
    }
}

/// Programs of this mount namespace ask `address` for names, as those of a machine on a network do.
fn resolve_by(address: &str, dir: &Path) {
    let file = dir.join("resolv.conf");
    std::fs::write(&file, format!("nameserver {address}\noptions timeout:2 attempts:1\n"))
        .expect("resolv.conf");
    must("mount", &["--bind", &file.to_string_lossy(), "/etc/resolv.conf"]);
}

/// Joins the two namespaces and gives `world` addresses only a subnet route leads to.
fn wire(world: &Namespace, sandboxed: &Namespace) {
    world.must("ip", &["link", "add", "far", "type", "veth", "peer", "name", WIRE]);
    world.must("ip", &["link", "set", WIRE, "netns", &sandboxed.pid()]);
    world.must("ip", &["addr", "add", "10.99.0.1/24", "dev", "far"]);
    world.must("ip", &["link", "set", "far", "up"]);
    for address in [BEHIND_ROUTE, NAMES] {
        world.must("ip", &["addr", "add", &format!("{address}/32"), "dev", "lo"]);
    }
    sandboxed.enter(|| {
        must("ip", &["addr", "add", "10.99.0.2/24", "dev", WIRE]);
        must("ip", &["link", "set", WIRE, "up"]);
    });
}

fn socket(dir: &Path, name: &str) -> std::path::PathBuf {
    dir.join(name).join("s.sock")
}

/// Starts a userspace tailscaled with nothing of our environment.
fn node(programs: &Programs, place: &Namespace, dir: &Path, name: &str, more: &[&str]) -> Process {
    let home = dir.join(name);
    std::fs::create_dir(&home).expect("a folder for tailscaled");
    let mut command = Command::new(programs.folder.join("tailscaled"));
    command.args(["--tun=userspace-networking", "--state=mem:", "--no-logs-no-support"]);
    command.arg(format!("--statedir={}", home.display()));
    command.arg(format!("--socket={}", socket(dir, name).display())).args(more);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).env("HOME", &home);
    command.env("SSL_CERT_FILE", dir.join("ca.pem"));
    // Without it tailscaled asks the router for ports, and the whole network for a router (UPnP).
    command.env("TS_DISABLE_PORTMAPPER", "1");
    let log = dir.join(format!("{name}.log"));
    place.enter(|| Process::start(&format!("tailscaled {name}"), &mut command, &log))
}

/// Whether tailscaled's own port reaches the origin: only then is a failure the gateway's.
fn carries(sandboxed: &Namespace, host: &str) -> bool {
    let url = format!("http://{host}:{PORT}/hello");
    let mut curl = Command::new("curl");
    curl.args(["--disable", "--silent", "--fail", "--socks5-hostname", UPSTREAM, &url]);
    sandboxed.enter(|| curl.output()).is_ok_and(|output| output.status.success())
}

/// Whole preferences: `start` replaces all of them.
pub fn preferences(hostname: &str, more: Value) -> Value {
    let mut prefs = json!({
        "ControlURL": URL, "WantRunning": true, "LoggedOut": false, "RouteAll": true,
        "CorpDNS": true, "Hostname": hostname, "NoStatefulFiltering": true, "NetfilterMode": 0,
        "AutoUpdate": {"Check": false, "Apply": null},
    });
    if let (Value::Object(prefs), Value::Object(more)) = (&mut prefs, more) {
        prefs.extend(more);
    }
    prefs
}

/// The address of the peer of that name, once it is online and its subnet route is approved.
fn peer(socket: &Path, name: &str) -> String {
    wait_for("svc as a peer, with its route", || {
        let status = localapi::status(socket);
        let peers = status["Peer"].as_object()?;
        let peer = peers.values().find(|p| p["HostName"] == name)?;
        let routed = peer["PrimaryRoutes"].as_array()?.iter().any(|r| r == "10.50.0.0/24");
        let online = peer["Online"] == true;
        let address = peer["TailscaleIPs"].as_array()?.first()?.as_str()?;
        (routed && online).then(|| address.to_owned())
    })
}
