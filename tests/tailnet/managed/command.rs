//! `TS_AUTHKEY=… tailrace up -- curl http://grafana.corp.example:8080/`: one line from a key to an
//! answer, and the key nowhere to be read meanwhile.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::case::Case;
use crate::keys::Key;
use crate::managed::{Kind, bare, node};
use crate::tailnet::Tailnet;

/// By then the key is out of the environment the program was started with (docs/requirements.md, K2).
const HIDDEN_AFTER: Duration = Duration::from_secs(1);

/// Fresh nodes of each kind.
const LOGINS: usize = 3;

pub fn cases() -> Vec<Case> {
    let case = Case::new;
    vec![
        case("k1_one_line_from_a_key_to_an_answer", |t| Kind::both(|kind| one_line(t, kind))),
        case("up_ends_with_the_status_of_its_command", status),
        case("first_request_of_a_fresh_node_loses_no_handshake", |t| Kind::both(|k| fresh(t, k))),
    ]
}

fn one_line(tailnet: &Tailnet, kind: Kind) {
    let name = format!("line-{}", kind.label());
    let key = tailnet.control.key(Key::Good);
    let mut launch = bare(tailnet, &name).set("TS_AUTHKEY", &key);
    if kind == Kind::Localapi {
        launch = launch.set("TAILRACE_UPSTREAM_KIND", "localapi");
    }
    // No --proxy: curl finds it in the environment. The answer takes its time, for us to look round.
    let curl = ["up", "--", "curl", "--silent", "http://grafana.corp.example:8080/slow"];
    let mut command = launch.command(&curl);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let started = Instant::now();
    let mut child = tailnet.sandboxed.enter(|| command.spawn()).expect("tailrace up");
    let (mut looks, mut seen) = (0, Vec::new());
    while child.try_wait().expect("wait").is_none() {
        let hidden = started.elapsed() > HIDDEN_AFTER;
        seen.extend(readable(&key, hidden));
        looks += usize::from(hidden);
    }
    let output = child.wait_with_output().expect("tailrace up");
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{out}{err}");
    assert_eq!(out, "hello from 127.0.0.1:8080 to grafana.corp.example:8080\n", "{err}");
    assert!(looks > 3, "looked round {looks} times only");
    assert_eq!(seen, Vec::<String>::new(), "the key could be read");
    assert!(tailnet.control.node(&node(&name)).is_none(), "the node is still there");
    assert_eq!(holding(&key, &launch.run_dir), Vec::<String>::new(), "the key was written down");
}

/// Where in /proc the key stands: command lines always, environments once it should be hidden.
fn readable(key: &str, hidden: bool) -> Vec<String> {
    let files: &[&str] = if hidden { &["cmdline", "environ"] } else { &["cmdline"] };
    let processes = fs::read_dir("/proc").expect("/proc").flatten();
    let paths = processes.flat_map(|entry| files.iter().map(move |file| entry.path().join(file)));
    paths.filter(|path| holds(path, key)).map(|path| path.display().to_string()).collect()
}

/// The files below `folder` that hold the key.
fn holding(key: &str, folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let found = |entry: fs::DirEntry| {
        let path = entry.path();
        if path.is_dir() {
            return holding(key, &path);
        }
        if path.is_file() && holds(&path, key) {
            vec![path.display().to_string()]
        } else {
            Vec::new()
        }
    };
    entries.flat_map(found).collect()
}

fn holds(path: &Path, key: &str) -> bool {
    // A process may be gone by now.
    let bytes = fs::read(path).unwrap_or_default();
    bytes.windows(key.len()).any(|window| window == key.as_bytes())
}

fn status(tailnet: &Tailnet) {
    let launch = Kind::Tailscaled.launch(tailnet, "status");
    let script = "test -z \"$TS_AUTHKEY\" && test -n \"$HTTP_PROXY\" && exit 7";
    let said = launch.ask(tailnet, &["up", "--", "sh", "-c", script]);
    assert_eq!(said.code, 7, "{said:?}");
}

/// A handshake that is lost, because the peer has not heard of the new node yet, costs 5 s.
fn fresh(tailnet: &Tailnet, kind: Kind) {
    for login in 0..LOGINS {
        let launch = kind.launch(tailnet, &format!("fresh{login}-{}", kind.label()));
        // Of the nameserver and of the service it asks: both are the same peer.
        let url = "http://grafana.corp.example:8080/hello";
        let took = "%{stderr}%{time_total}";
        let said = launch.ask(tailnet, &["up", "--", "curl", "-sSf", "-w", took, url]);
        assert_eq!(said.code, 0, "login {login} over {}: {said:?}", kind.label());
        let took = said.err.lines().last().and_then(|line| line.trim().parse::<f64>().ok());
        let took = took.expect("curl's time");
        assert!(took < 4.5, "login {login} over {}: {took} s", kind.label());
    }
}
