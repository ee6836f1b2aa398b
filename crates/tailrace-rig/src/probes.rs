//! What a tailscaled answers where versions differ or the fake could: asked alike of the real one (the
//! proof on a real tailnet) and of the fake (fake_self.rs), and kept in `crates/tailrace-rig/real/`.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::ipn_bus::IpnBus;
use super::source::source;
use super::wait::eventually_every;

/// For whatever is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// More notifications than a watcher's queue, its socket and what lies between hold.
const MORE_THAN_FITS: u32 = 1500;
/// A stream that has said nothing for so long has said what it had.
const DRAINED: Duration = Duration::from_millis(200);

/// A tailscaled that can be started again, in a tailnet whose peers come and go.
pub trait ProbedDaemon {
    /// Starts it with this `--state`.
    fn begin(&mut self, state: &str);
    /// Ends it: SIGKILL, or SIGTERM and a wait.
    fn end(&mut self, at_once: bool);
    fn socket(&self) -> PathBuf;
    /// A folder for its state file.
    fn folder(&self) -> PathBuf;
    /// The body of `start` that logs it in.
    fn options(&self) -> Value;
    /// A further node joins: the name `status` has for it.
    fn peer_comes(&mut self) -> &'static str;
    /// It is no longer online.
    fn peer_sleeps(&mut self);
    /// It is no node any more.
    fn peer_goes(&mut self);
}

/// Asks everything.
pub fn ask(daemon: &mut impl ProbedDaemon) -> Value {
    let mut report = Map::new();
    let mut told = |name: &str, value: Value| {
        report.insert(name.to_owned(), value);
    };
    daemon.begin("mem:");
    let probe = Probe { socket: daemon.socket(), nudges: 0.into() };
    probe.until("NeedsLogin");
    told("refusals", probe.refusals());
    told("dns-config without a netmap", probe.says("GET", "dns-config", ""));
    told("masks, logged out", probe.masks());
    told("status, logged out", probe.status());
    told("a watcher that lags", probe.lag());
    told("login", probe.login(&daemon.options()));
    told("status, running", probe.status());
    told("masks, running", probe.masks());
    told("peers", probe.peers(daemon));
    daemon.end(false);
    told("state file", state_file(daemon));
    Value::Object(report)
}

/// Compares a report with the one that is kept; `TAILRACE_WRITE_PROBES=1` keeps it in its place.
#[track_caller]
pub fn compare(version: &str, who: &str, report: &Value) {
    let path = source("crates/tailrace-rig/real").join(format!("{version}.json"));
    if std::env::var("TAILRACE_WRITE_PROBES").as_deref() == Ok("1") && who == "real" {
        let text = serde_json::to_string_pretty(report).expect("JSON") + "\n";
        return std::fs::write(&path, text).expect("the report's file");
    }
    let text = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let kept: Value = serde_json::from_slice(&text).expect("the report is JSON");
    let mut differences = Vec::new();
    differ("", &kept, report, &mut differences);
    assert!(
        differences.is_empty(),
        "the {who} tailscaled {version} is not as kept in {}:\n{}",
        path.display(),
        differences.join("\n")
    );
}

fn differ(at: &str, kept: &Value, now: &Value, differences: &mut Vec<String>) {
    let (Value::Object(a), Value::Object(b)) = (kept, now) else {
        if kept != now {
            differences.push(format!("{at}: kept {kept}, now {now}"));
        }
        return;
    };
    for name in a.keys().chain(b.keys()).collect::<BTreeSet<_>>() {
        let of = |map: &Map<String, Value>| map.get(name).cloned().unwrap_or(json!("(absent)"));
        differ(&format!("{at}/{name}"), &of(a), &of(b), differences);
    }
}

/// A running one.
struct Probe {
    socket: PathBuf,
    nudges: std::cell::Cell<u32>,
}

/// Fields that tell of the netmap.
const OF_NETMAP: [&str; 6] =
    ["NetMap", "SelfChange", "PeerChanges", "PeersChanged", "PeersRemoved", "PeerChangedPatch"];

impl Probe {
    fn raw(&self, request: &str) -> (u16, String) {
        let mut stream = UnixStream::connect(&self.socket).expect("LocalAPI's socket");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.write_all(request.as_bytes()).expect("LocalAPI");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("LocalAPI");
        let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer");
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        (status.expect("an HTTP status"), body.to_owned())
    }

    fn exchange(&self, method: &str, name: &str, body: &str) -> (u16, String) {
        let length = body.len();
        self.raw(&format!(
            "{method} /localapi/v0/{name} HTTP/1.0\r\nHost: local-tailscaled.sock\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        ))
    }

    /// Status and text of an answer.
    fn says(&self, method: &str, name: &str, body: &str) -> Value {
        let (status, said) = self.exchange(method, name, body);
        json!(format!("{status} {}", said.trim()).trim())
    }

    fn get(&self, name: &str) -> Value {
        let (status, body) = self.exchange("GET", name, "");
        assert_eq!(status, 200, "{name}: {body}");
        serde_json::from_str(&body).expect("JSON")
    }

    #[track_caller]
    fn wait(&self, what: &str, mut look: impl FnMut(&Value) -> bool) -> Value {
        eventually_every(Duration::from_millis(20), what, PATIENCE, || {
            UnixStream::connect(&self.socket).ok()?;
            let status = self.get("status");
            look(&status).then_some(status)
        })
    }

    fn until(&self, state: &str) -> Value {
        self.wait(&format!("the state {state}"), |status| status["BackendState"] == state)
    }

    fn patch(&self, prefs: &Value) {
        let (status, said) = self.exchange("PATCH", "prefs", &prefs.to_string());
        assert_eq!(status, 200, "PATCH prefs: {said}");
    }

    /// Changes a preference that matters to nobody, so that the bus says something; what it will say.
    fn nudge(&self) -> String {
        self.nudges.set(self.nudges.get() + 1);
        let user = format!("nobody-{}", self.nudges.get());
        self.patch(&json!({"OperatorUser": user, "OperatorUserSet": true}));
        user
    }

    /// What is said up to the answer to a nudge, that one last.
    fn until_nudged(&self, bus: &mut IpnBus) -> Vec<Value> {
        let user = self.nudge();
        let mut lines = Vec::new();
        while let Some(line) = bus.next_message() {
            let last = line["Prefs"]["OperatorUser"] == *user;
            lines.push(line);
            if last {
                return lines;
            }
        }
        panic!("the bus ended before {user}: {lines:?}")
    }

    /// What it does not take.
    fn refusals(&self) -> Value {
        let writes = ["start", "login-interactive", "logout", "disconnect-control", "check-prefs"];
        let mut said = Map::new();
        for name in writes.into_iter().chain(["nonesuch", "dial"]) {
            said.insert(format!("GET {name}"), self.says("GET", name, ""));
        }
        for name in ["start", "check-prefs"] {
            let answer = self.exchange("POST", name, "{").0;
            said.insert(format!("POST {name} with half a body"), json!(answer));
        }
        said.insert("POST dial without a target".to_owned(), self.says("POST", "dial", ""));
        let heads = [
            ("no Host", ""),
            ("an empty Host", "Host:\r\n"),
            ("another Host", "Host: localhost\r\n"),
            ("an Origin", "Host: local-tailscaled.sock\r\nOrigin: null\r\n"),
            ("a Referer", "Host: local-tailscaled.sock\r\nReferer: x\r\n"),
        ];
        for (name, fields) in heads {
            let request =
                format!("GET /localapi/v0/status HTTP/1.1\r\n{fields}Connection: close\r\n\r\n");
            said.insert(name.to_owned(), json!(self.raw(&request).0));
        }
        Value::Object(said)
    }

    /// What each mask is answered, and what a watcher is told first.
    fn masks(&self) -> Value {
        let bits = (0..21).map(|bit| 1_u64 << bit);
        let pairs = [4096, 8192, 1 << 14, 1 << 15, 1 << 17, 8, 1, 2 | 4 | 128, 4096 | 8192];
        let with_limit = pairs.into_iter().map(|bits| 256 | bits);
        let others =
            [0, 2 | 4 | 128 | 256 | 4096, 2 | 4 | 128 | 4096, 8 | 4096, 4096 | 32768, 1 << 63];
        let masks = bits.chain(with_limit).chain(others).map(|mask| mask.to_string());
        let texts = ["", "x", "-1", "0x2", "18446744073709551616"].map(str::to_owned);
        let answer = |mask: String| {
            // News that came by chance does not come twice.
            let mut answers = Vec::new();
            let said = loop {
                let said = self.mask(&mask);
                if answers.contains(&said) {
                    break said;
                }
                answers.push(said);
                assert!(answers.len() < 10, "mask {mask}: never the same: {answers:?}");
            };
            (mask, said)
        };
        masks.chain(texts).map(answer).collect::<Map<_, _>>().into()
    }

    fn mask(&self, mask: &str) -> Value {
        let mut bus = match IpnBus::ask(&self.socket, mask, PATIENCE) {
            Err((status, said)) => return json!(format!("{status} {said}")),
            Ok(bus) => bus,
        };
        let lines = self.until_nudged(&mut bus);
        let mut told = lines[..lines.len() - 1].iter().map(fields);
        let by_itself = [&["Version"][..], &["Health", "Version"], &["Engine", "Version"]];
        let first = told.find(|told| !by_itself.contains(&&strs(told)[..]));
        json!({"first": first.unwrap_or_default()})
    }

    /// The names in `status`: of peers only those of the first.
    fn status(&self) -> Value {
        let status = self.get("status");
        let peer = status["Peer"].as_object().and_then(|peers| peers.values().next()).cloned();
        let is_null = |name: &&String| status[name.as_str()].is_null();
        let map = status.as_object().expect("an object");
        json!({
            "": map.keys().collect::<BTreeSet<_>>(),
            "null": map.keys().filter(is_null).collect::<BTreeSet<_>>(),
            "Self": kinds(&status["Self"], &OF_STATUS),
            "Peer": peer.map(|peer| kinds(&peer, &OF_STATUS)),
            "CurrentTailnet": kinds(&status["CurrentTailnet"], &["Name", "MagicDNSSuffix", "MagicDNSEnabled"]),
            "without peers": {
                "Peer": kind(&self.get("status?peers=false")["Peer"]),
                "User": kind(&self.get("status?peers=false")["User"]),
            },
        })
    }

    /// A watcher that does not read, and then does.
    fn lag(&self) -> Value {
        let mut bus = IpnBus::open(&self.socket, 2, PATIENCE);
        (0..MORE_THAN_FITS).for_each(|_| drop(self.nudge()));
        bus.patience(DRAINED);
        let (mut lines, mut last) = (Vec::new(), None);
        let ended = loop {
            match bus.try_next() {
                Ok(None) => break true,
                Ok(Some(line)) => {
                    let user = line["Prefs"]["OperatorUser"].as_str().map(str::to_owned);
                    let goes_on = last.is_some() && user == last;
                    lines.push(line);
                    if goes_on {
                        break false;
                    }
                }
                Err(_) => last = Some(self.nudge()),
            }
        };
        let lost = lines.len() < usize::try_from(MORE_THAN_FITS).expect("a count");
        let said = lines.last().map(|line| line["ErrMessage"].clone());
        json!({"lost some": lost, "the stream ended": ended, "its last words": said})
    }

    /// States and fields on the way in.
    fn login(&self, options: &Value) -> Value {
        let mut bus = IpnBus::open(&self.socket, 2, PATIENCE);
        assert_eq!(self.exchange("POST", "start", &options.to_string()).0, 204);
        assert_eq!(self.exchange("POST", "login-interactive", "").0, 204);
        let (mut states, mut told) = (Vec::new(), BTreeSet::new());
        while let Some(line) = bus.next_message() {
            told.extend(fields(&line));
            if let Some(state) = line["State"].as_i64() {
                states.push(state);
            }
            if states.last() == Some(&6) {
                break;
            }
        }
        for by_itself in ["Health", "Engine", "ErrMessage", "DriveShares"] {
            told.remove(by_itself);
        }
        self.until("Running");
        json!({"states": states, "fields": told})
    }

    /// What watchers are told while a peer comes, sleeps, and goes.
    fn peers(&self, daemon: &mut impl ProbedDaemon) -> Value {
        let masks = [2, 8, 256, 2 | 4096, 2 | 32768, 4096 | 32768];
        let mut buses = masks.map(|mask| (mask, IpnBus::open(&self.socket, mask, PATIENCE)));
        // Without what each is told first.
        for (_, bus) in &mut buses {
            self.until_nudged(bus);
        }
        let name = daemon.peer_comes();
        let peer = |status: &Value| -> Option<Value> {
            let peers = status["Peer"].as_object()?;
            peers.values().find(|peer| peer["HostName"] == name).cloned()
        };
        self.wait("the peer, online", |it| peer(it).is_some_and(|it| it["Online"] == true));
        daemon.peer_sleeps();
        self.wait("the peer, asleep", |it| peer(it).is_some_and(|it| it["Online"] == false));
        daemon.peer_goes();
        self.wait("no peer any more", |it| peer(it).is_none());
        let mut said = Map::new();
        for (mask, bus) in &mut buses {
            let lines = self.until_nudged(bus);
            let told: BTreeSet<String> = lines.iter().flat_map(fields).collect();
            let told: BTreeSet<&str> =
                OF_NETMAP.into_iter().filter(|name| told.contains(*name)).collect();
            said.insert(mask.to_string(), shapes(&lines, &told));
        }
        Value::Object(said)
    }
}

/// Of a `tailcfg.Node`, and of what else stands in the fields above.
const OF_NODE: [&str; 9] = [
    "ID",
    "StableID",
    "Name",
    "Key",
    "Addresses",
    "AllowedIPs",
    "User",
    "MachineAuthorized",
    "NodeID",
];
const OF_STATUS: [&str; 17] = [
    "ID",
    "NodeID",
    "PublicKey",
    "HostName",
    "DNSName",
    "OS",
    "UserID",
    "TailscaleIPs",
    "AllowedIPs",
    "Addrs",
    "CurAddr",
    "Relay",
    "Online",
    "ExitNode",
    "Active",
    "InNetworkMap",
    "InMagicSock",
];
const OF_MAP: [&str; 4] = ["SelfNode", "Name", "Peers", "DNS"];

/// The fields that were told, each with the kinds of what it holds.
fn shapes(lines: &[Value], told: &BTreeSet<&str>) -> Value {
    let shape = |name: &&str| {
        let mut values = lines.iter().map(|line| &line[*name]).filter(|value| !value.is_null());
        let first = values.find(|it| it.as_array().is_none_or(|list| !list.is_empty()));
        let shape = match first {
            Some(Value::Array(list)) if list[0].is_object() => json!([kinds(&list[0], &OF_NODE)]),
            Some(Value::Array(list)) => json!([kind(&list[0])]),
            Some(map) if *name == "NetMap" => kinds(map, &OF_MAP),
            Some(node) => kinds(node, &OF_NODE),
            None => Value::Null,
        };
        ((*name).to_owned(), shape)
    };
    told.iter().map(shape).collect::<Map<_, _>>().into()
}

/// The names of what a line says.
fn fields(line: &Value) -> Vec<String> {
    let map = line.as_object().expect("a line is an object");
    let said = map.iter().filter(|(_, value)| !value.is_null());
    let mut names: Vec<String> = said.map(|(name, _)| name.clone()).collect();
    names.sort();
    names
}

fn strs(names: &[String]) -> Vec<&str> {
    names.iter().map(String::as_str).collect()
}

/// Of each name: what kind of value it has here.
fn kinds(value: &Value, names: &[&str]) -> Value {
    let of = |name: &&str| ((*name).to_owned(), json!(value.get(*name).map_or("absent", kind)));
    names.iter().map(of).collect::<Map<_, _>>().into()
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// A node that is kept in a file: what is in it, and what ends it.
fn state_file(daemon: &mut impl ProbedDaemon) -> Value {
    let folder = daemon.folder();
    let file = folder.join("state");
    let state = file.to_string_lossy().into_owned();
    let mut told = Map::new();
    daemon.begin(&state);
    let probe = Probe { socket: daemon.socket(), nudges: 0.into() };
    probe.until("NeedsLogin");
    told.insert("at first".to_owned(), look(&folder, &file));
    let inode = inode(&file);
    probe.login(&daemon.options());
    told.insert("logged in".to_owned(), look(&folder, &file));
    told.insert("it was replaced, not written".to_owned(), json!(inode != self::inode(&file)));
    let me = |status: &Value| (status["Self"]["DNSName"].clone(), status["TailscaleIPs"].clone());
    let before = me(&probe.until("Running"));
    for (name, at_once) in [("after SIGKILL", true), ("after SIGTERM", false)] {
        daemon.end(at_once);
        told.insert(format!("{name}, the file"), look(&folder, &file));
        daemon.begin(&state);
        let again = me(&probe.until("Running"));
        told.insert(format!("{name}, the same node"), json!(again == before));
    }
    probe.patch(&json!({"WantRunning": false, "WantRunningSet": true}));
    probe.until("Stopped");
    daemon.end(true);
    daemon.begin(&state);
    let stays = probe.wait("what it was", |it| it["BackendState"] != "NoState");
    told.insert("a node that was down, after SIGKILL".to_owned(), stays["BackendState"].clone());
    probe.patch(&json!({"WantRunning": true, "WantRunningSet": true}));
    told.insert("up again, the same node".to_owned(), json!(me(&probe.until("Running")) == before));
    assert_eq!(probe.exchange("POST", "logout", "").0, 204);
    probe.until("NeedsLogin");
    // What a log-out leaves is written after its answer.
    let mut left = json!(null);
    eventually_every(Duration::from_millis(20), "no node key any more", PATIENCE, || {
        left = look(&folder, &file);
        (left["node keys"] == 0).then_some(())
    });
    // 1.98 leaves a profile without a node key, 1.102 none.
    told.insert("logged out".to_owned(), left);
    daemon.end(true);
    daemon.begin(&state);
    let left = probe.wait("what it was", |it| it["BackendState"] != "NoState");
    told.insert("logged out, after SIGKILL".to_owned(), left["BackendState"].clone());
    daemon.end(false);
    Value::Object(told)
}

fn inode(file: &Path) -> u64 {
    std::fs::metadata(file).expect("the state file").ino()
}

/// Mode and keys of a state file, and what else is in its folder. A profile's key counts as any other's.
fn look(folder: &Path, file: &Path) -> Value {
    let mode = std::fs::metadata(file).expect("the state file").permissions().mode() & 0o7777;
    let text = std::fs::read(file).expect("the state file");
    let kept: Map<String, Value> = serde_json::from_slice(&text).expect("the state file is JSON");
    let plain = |key: &String| match key.strip_prefix("profile-") {
        Some(_) => "profile-*".to_owned(),
        None => key.clone(),
    };
    let keys: BTreeSet<String> = kept.keys().map(plain).collect();
    let profiles = kept.iter().filter(|(key, _)| key.starts_with("profile-"));
    let has_key = |profile: &Value| {
        let text = STANDARD.decode(profile.as_str().unwrap_or_default()).unwrap_or_default();
        let prefs: Value = serde_json::from_slice(&text).unwrap_or_default();
        let key = prefs["Config"]["PrivateNodeKey"].as_str().unwrap_or_default();
        key.trim_start_matches("privkey:").contains(|digit| digit != '0')
    };
    let node_keys = profiles.filter(|(_, profile)| has_key(profile)).count();
    let all = std::fs::read_dir(folder).expect("the folder").flatten();
    let beside: BTreeSet<String> = all
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name != "state")
        .collect();
    json!({"mode": format!("{mode:o}"), "keys": keys, "node keys": node_keys, "beside": beside})
}
