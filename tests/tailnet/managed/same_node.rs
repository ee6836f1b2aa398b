//! A node stays itself: over deaths of its tailscaled, a pause of the sandbox, and in a folder of its own;
//! and nothing of it is left where it should not be.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::case::Case;
use crate::curl::{Curl, Inbound};
use crate::gateway::{Gateway, Launch};
use crate::keys::Key;
use crate::managed::{Kind, key_file, node, tailscaled};
use crate::process::wait_for;
use crate::tailnet::Tailnet;

/// How long a paused sandbox is paused.
const PAUSE: Duration = Duration::from_secs(90);
/// In which the first request after it is answered.
const AFTER_PAUSE: Duration = Duration::from_secs(3);

pub fn cases() -> Vec<Case> {
    let case = Case::new;
    vec![
        case("v7_a_killed_tailscaled_is_the_same_node_by_a_single_use_key", |t| {
            Kind::both(|kind| killed_twice(t, kind));
        }),
        case("v7_an_ephemeral_state_is_another_node_each_time", another_node),
        case("v8_sigterm_logs_out_and_sigkill_leaves_nothing_of_the_node", leaves_nothing),
        case("v9_a_sandbox_paused_for_90_s_answers_at_once", |t| {
            Kind::both(|kind| paused(t, kind));
        }),
        case("v10_a_folder_is_the_same_node_and_its_copy_a_new_one", folder_and_copy),
    ]
}

/// Name and addresses of the node, as the gateway knows them.
fn who(tailnet: &Tailnet, gateway: &Gateway) -> (Value, Value) {
    let status = gateway.status(tailnet);
    (status["tailnet"]["name"].clone(), status["tailnet"]["addresses"].clone())
}

fn answers(tailnet: &Tailnet, gateway: &Gateway) {
    let answer =
        Curl::new(gateway, Inbound::Forward, "grafana.corp.example", "/hello").run(tailnet);
    assert_eq!((answer.exit, answer.status), (0, 200), "{answer:?}");
}

/// Names of every node that the control server has of this gateway.
fn nodes_of(tailnet: &Tailnet, name: &str) -> Vec<String> {
    let nodes = tailnet.control.nodes().into_iter();
    nodes.map(|node| node.name).filter(|it| it.starts_with(&node(name))).collect()
}

/// Kills tailscaled and waits until another one carries connections.
fn kill(tailnet: &Tailnet, gateway: &Gateway) {
    let before = tailscaled(gateway);
    kill_process(before, Signal::KILL).expect("a signal to the managed tailscaled");
    wait_for("another tailscaled", || {
        let status = gateway.status(tailnet);
        let process = status["tailnet"]["process"].as_i64()?;
        (process != i64::from(before.as_raw_nonzero().get())).then_some(())
    });
    gateway.wait(tailnet);
}

fn killed_twice(tailnet: &Tailnet, kind: Kind) {
    let name = format!("same-{}", kind.label());
    let key = tailnet.control.key(Key::Single);
    let gateway = kind
        .launch(tailnet, &name)
        .set("TAILRACE_TAILNET_AUTH_KEY_FILE", key_file(tailnet, &name, &key))
        .up(tailnet);
    gateway.wait(tailnet);
    let before = who(tailnet, &gateway);
    for restarts in 1..=2 {
        kill(tailnet, &gateway);
        assert_eq!(who(tailnet, &gateway), before, "after {restarts} restarts");
        answers(tailnet, &gateway);
    }
    assert_eq!(nodes_of(tailnet, &name), [node(&name)], "no second node is left behind");
    gateway.stop();
    tailnet.control.until_gone(&node(&name));
}

/// The same without what is kept: it shows that the case above can fail.
fn another_node(tailnet: &Tailnet) {
    let name = "forgetful";
    let gateway = Kind::Tailscaled
        .launch(tailnet, name)
        .set("TAILRACE_TAILNET_STATE", "ephemeral")
        .up(tailnet);
    gateway.wait(tailnet);
    let before = who(tailnet, &gateway);
    kill(tailnet, &gateway);
    let after = who(tailnet, &gateway);
    assert!(before.0 != after.0 && before.1 != after.1, "{before:?} and {after:?}");
    gateway.stop();
}

fn leaves_nothing(tailnet: &Tailnet) {
    for signal in [Signal::TERM, Signal::KILL] {
        let name = format!("leaves-nothing-{}", signal.as_raw());
        let gateway = Kind::Localapi.launch(tailnet, &name).up(tailnet);
        gateway.wait(tailnet);
        let (daemon, run_dir) = (tailscaled(&gateway), gateway.launch.run_dir.clone());
        let state = state_argument(daemon);
        assert!(state.starts_with("/proc/self/fd/"), "{state}");
        let kept =
            format!("/proc/{}/fd/{}", daemon.as_raw_nonzero(), &state["/proc/self/fd/".len()..]);
        let kept = fs::read(kept).expect("the state, as root");
        assert!(memchr::memmem::find(&kept, b"_machinekey").is_some(), "it holds the node's keys");
        match signal {
            Signal::TERM => {
                let started = Instant::now();
                gateway.begin_to_stop();
                tailnet.control.until_gone(&node(&name));
                let took = started.elapsed();
                assert!(took < Duration::from_secs(5), "the node left after {took:?}");
                gateway.ended();
            }
            _ => {
                kill_process(gateway.pid(), signal).expect("a signal to the gateway");
                drop(gateway);
                // Nobody waits for an orphan here: a zombie has no command line.
                let line = format!("/proc/{}/cmdline", daemon.as_raw_nonzero());
                wait_for("tailscaled's end", || {
                    fs::read(&line).unwrap_or_default().is_empty().then_some(())
                });
            }
        }
        for folder in [&run_dir, Path::new("/dev/shm"), Path::new("/run/shm")] {
            no_state_below(folder);
        }
    }
}

fn state_argument(daemon: Pid) -> String {
    let line =
        fs::read(format!("/proc/{}/cmdline", daemon.as_raw_nonzero())).expect("a command line");
    let line = String::from_utf8_lossy(&line).into_owned();
    let mut words = line.split('\0');
    words.find_map(|word| word.strip_prefix("--state=")).expect("--state=").to_owned()
}

/// No file there holds a node's keys.
fn no_state_below(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let (path, kind) = (entry.path(), entry.file_type().expect("a kind"));
        if kind.is_dir() {
            no_state_below(&path);
        } else if kind.is_file() {
            let text = fs::read(&path).unwrap_or_default();
            let found = memchr::memmem::find(&text, b"_machinekey").is_some();
            assert!(!found, "{} holds a node's keys", path.display());
        }
    }
}

/// Gateway and tailscaled are stopped, as all of a paused sandbox is.
fn paused(tailnet: &Tailnet, kind: Kind) {
    let gateway = kind.start(tailnet, "paused");
    answers(tailnet, &gateway);
    let before = who(tailnet, &gateway);
    let all = [gateway.pid(), tailscaled(&gateway)];
    for process in all {
        kill_process(process, Signal::STOP).expect("a signal");
    }
    crate::wait::pause(PAUSE);
    for process in all {
        kill_process(process, Signal::CONT).expect("a signal");
    }
    let started = Instant::now();
    answers(tailnet, &gateway);
    let took = started.elapsed();
    assert!(took < AFTER_PAUSE, "the first request after the pause took {took:?}");
    wait_for("the line about it", || {
        gateway.log().contains("this process or machine was paused").then_some(())
    });
    answers(tailnet, &gateway);
    assert_eq!(who(tailnet, &gateway), before);
    assert_eq!(gateway.status(tailnet)["tailnet"]["restarts"], 0);
    gateway.stop();
}

fn folder_and_copy(tailnet: &Tailnet) {
    let (own, copy) = (tailnet.dir.path().join("state-own"), tailnet.dir.path().join("state-copy"));
    let launch = |run: &str, id: &str, folder: &Path, key: Key| -> Launch {
        let key = tailnet.control.key(key);
        Kind::Tailscaled
            .launch(tailnet, run)
            .set("TAILRACE_ID", id)
            .set("TAILRACE_TAILNET_STATE", folder)
            .set("TAILRACE_TAILNET_AUTH_KEY_FILE", key_file(tailnet, run, &key))
    };
    let first = launch("folder-1", "folder", &own, Key::Single).up(tailnet);
    first.wait(tailnet);
    let before = who(tailnet, &first);
    first.stop();
    assert_eq!(nodes_of(tailnet, "folder"), [node("folder")], "it is not logged out");
    copy_folder(&own, &copy);
    // A key of nobody: the identity is all it has.
    let again = launch("folder-2", "folder", &own, Key::Garbage).up(tailnet);
    again.wait(tailnet);
    assert_eq!(who(tailnet, &again), before, "the same folder is the same node");
    let second = launch("folder-3", "folder", &own, Key::Garbage).ask(tailnet, &["up"]);
    assert_eq!(second.code, 75, "{second:?}");
    assert!(second.err.contains("in use by another gateway"), "{second:?}");
    let cloned = launch("folder-4", "clone", &copy, Key::Single).up(tailnet);
    cloned.wait(tailnet);
    let clone = who(tailnet, &cloned);
    assert!(before.0 != clone.0 && before.1 != clone.1, "{before:?} and {clone:?}");
    answers(tailnet, &again);
    answers(tailnet, &cloned);
    assert!(cloned.log().contains("TAILRACE_ID changed"));
    cloned.stop();
    again.stop();
}

fn copy_folder(from: &Path, to: &Path) {
    let copied = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(copied.expect("cp").success());
}
