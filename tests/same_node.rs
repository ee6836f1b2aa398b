//! V7, V8, V10: a managed tailscaled that dies comes back as the node it was, nothing of that node is to be
//! had by other programs of the same user, and a copied folder joins as a new node.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail loudly")]

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use serde_json::Value;
use tailrace_rig::fake_tailnet::script::Event;
use tailrace_rig::wait::{PATIENCE, eventually};
use tailrace_rig::{FakeTailnet, Gateway};

/// Name and addresses of the node.
fn who(gateway: &Gateway) -> (Value, Value) {
    let status = gateway.status();
    (status["tailnet"]["name"].clone(), status["tailnet"]["addresses"].clone())
}

/// Kills tailscaled, and waits until the next one carries connections.
fn kill(tailnet: &FakeTailnet, gateway: &mut Gateway) {
    let starts = tailnet.starts().len();
    tailnet.kill(Signal::KILL);
    tailnet.wait_start(starts + 1);
    gateway.wait_ready();
}

fn resumed(tailnet: &FakeTailnet) -> usize {
    tailnet.events().iter().filter(|event| matches!(event, Event::Resumed)).count()
}

/// A gateway that keeps its node's identity so.
fn keeping(tailnet: &FakeTailnet, state: &str) -> Gateway {
    let state = state.to_owned();
    tailnet.gateway(|s| {
        s.set("tailnet.state", state.as_str());
    })
}

#[test]
fn v7_a_killed_tailscaled_is_the_same_node_and_the_key_is_used_once() {
    let tailnet = FakeTailnet::new();
    let mut gateway = tailnet.gateway(|_| ());
    assert_eq!(gateway.status()["tailnet"]["identity"], "memory");
    let before = who(&gateway);
    for restarts in 1..=3 {
        kill(&tailnet, &mut gateway);
        assert_eq!(who(&gateway), before, "after {restarts} restarts");
        assert_eq!((tailnet.logins().len(), resumed(&tailnet)), (1, restarts));
    }
    let ports: Vec<Option<String>> = tailnet
        .starts()
        .iter()
        .map(|start| start.process.argv.iter().find(|word| word.starts_with("--port=")).cloned())
        .collect();
    assert!(ports[0].is_some() && ports.iter().all(|port| *port == ports[0]), "{ports:?}");
    gateway.signal(Signal::TERM);
    gateway.wait_exit(PATIENCE);
    assert_eq!(tailnet.logouts(), 1, "it is logged out, once, at the end");
}

#[test]
fn v7_an_ephemeral_state_is_a_new_node_each_time() {
    let tailnet = FakeTailnet::new();
    let mut gateway = keeping(&tailnet, "ephemeral");
    assert_eq!(gateway.status()["tailnet"]["identity"], "ephemeral");
    let before = who(&gateway);
    kill(&tailnet, &mut gateway);
    let after = who(&gateway);
    assert!(before.0 != after.0 && before.1 != after.1, "{before:?} and {after:?}");
    assert_eq!((tailnet.logins().len(), resumed(&tailnet)), (2, 0));
    let argv = tailnet.wait_start(2).process.argv;
    assert!(argv.contains(&"--state=mem:".to_owned()), "{argv:?}");
}

/// What a program of the same user can open below `/proc` of this process: memory and descriptors.
fn open_to_us(process: u32) -> Vec<PathBuf> {
    let proc = PathBuf::from(format!("/proc/{process}"));
    let doors = ["mem", "environ", "fd", "root", "cwd", "exe", "map_files"];
    doors.iter().map(|door| proc.join(door)).filter(|door| opens(door)).collect()
}

fn opens(path: &Path) -> bool {
    match path.file_name().and_then(|name| name.to_str()) {
        Some("fd" | "map_files" | "root" | "cwd") => fs::read_dir(path).is_ok(),
        _ => fs::File::open(path).is_ok(),
    }
}

#[test]
fn v8_what_is_kept_is_closed_to_other_programs_of_the_same_user() {
    if rustix::process::geteuid().is_root() {
        return; // root reads everything; the suite runs this again as nobody
    }
    let tailnet = FakeTailnet::new();
    let gateway = tailnet.gateway(|_| ());
    assert_eq!(gateway.status()["tailnet"]["identity"], "memory");
    assert_eq!(open_to_us(std::process::id()).len(), 7, "the looks themselves work");
    for process in [gateway.pid(), tailnet.pid()] {
        assert_eq!(open_to_us(process), [] as [PathBuf; 0], "process {process}");
    }
}

#[test]
fn v8_a_killed_gateway_leaves_nothing_of_its_node() {
    let tailnet = FakeTailnet::new();
    let mut gateway = tailnet.gateway(|_| ());
    let run_dir = gateway.dir().to_owned();
    gateway.signal(Signal::KILL);
    gateway.wait_exit(PATIENCE);
    tailnet.wait_end(1, PATIENCE);
    for folder in [run_dir.as_path(), Path::new("/dev/shm")] {
        for file in files_below(folder) {
            let text = fs::read(&file).unwrap_or_default();
            let found = memchr::memmem::find(&text, b"_machinekey").is_some();
            assert!(!found, "{} holds a node's keys", file.display());
        }
    }
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let entries: Vec<_> = fs::read_dir(folder).into_iter().flatten().flatten().collect();
    entries
        .iter()
        .flat_map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => files_below(&entry.path()),
            Ok(kind) if kind.is_file() => vec![entry.path()],
            _ => Vec::new(),
        })
        .collect()
}

#[test]
fn v10_a_folder_is_the_same_node_and_a_copy_with_another_id_is_not() {
    let tailnet = FakeTailnet::new();
    let folder = tempfile::tempdir().unwrap();
    let (own, copy) = (folder.path().join("own"), folder.path().join("copy"));
    let begin = |folder: &Path, id: &str| {
        tailnet.gateway(|s| {
            s.set("tailnet.state", folder.to_string_lossy().into_owned());
            s.set("tailnet.hostname", "box");
            s.env("TAILRACE_ID", id);
        })
    };
    let mut first = begin(&own, "1");
    let before = who(&first);
    first.signal(Signal::TERM);
    first.wait_exit(PATIENCE);
    assert_eq!(tailnet.logouts(), 0, "the node outlives the gateway");
    let copied = std::process::Command::new("cp").arg("-a").arg(&own).arg(&copy).status().unwrap();
    assert!(copied.success());
    let again = begin(&own, "1");
    assert_eq!((who(&again), tailnet.logins().len()), (before.clone(), 1), "no second login");
    let clone = begin(&copy, "2");
    let cloned = who(&clone);
    assert!(before.0 != cloned.0 && before.1 != cloned.1, "{before:?} and {cloned:?}");
    assert_eq!(tailnet.logins().len(), 2);
    eventually("it says so", PATIENCE, || clone.log().contains("TAILRACE_ID changed"));
}
