//! Modules keep their borders: they import only what the map in `docs/architecture.md` names. And the tests keep
//! to `docs/requirements.md`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail loudly")]

mod imports;
mod requirements;
mod source;

use std::collections::BTreeSet;

use imports::imports;
use source::{File, below, code, files};

/// Modules that belong to no room: everybody may use them whole. `sys` is a crate of its own.
const FREE: [&str; 9] = [
    "target",
    "outcome",
    "labels",
    "api",
    "secret",
    "sys",
    "expiring_cache",
    "http_client",
    "tls_client",
];
/// The two that know every room: one at start, one per connection.
const CARRIERS: [&str; 2] = ["gateway", "connection"];

/// What may cross a wall, per room. `room::item` is that item alone, `room` is all of it.
const CROSSINGS: &[(&str, &[&str])] = &[
    // Modules 1-7, in the order a connection walks through them.
    ("listener", &[]),
    ("inbound", &[]),
    ("policy", &[]),
    ("dns", &["policy::Admitted"]),
    ("upstream", &["policy::Admitted", "policy::Address", "localapi::dial"]),
    ("relay", &["lifecycle::connection_cut"]),
    ("record", &["relay::Meter", "lifecycle::connection_cut", "config"]),
    // Beside the path.
    (
        "tailnet",
        &[
            "config",
            "lifecycle::children",
            "lifecycle::port_owner",
            "lifecycle::program",
            "localapi",
        ],
    ),
    ("localapi", &[]),
    ("admin", &[]),
    ("config", &["policy::suffix"]),
    ("lifecycle", &[]),
    (
        "cli",
        &[
            "config",
            "gateway",
            "lifecycle",
            "policy",
            "record",
            "tailnet::explain",
            "tailnet::memory_folder",
            "upstream::Unparsed",
            "upstream::socks5",
        ],
    ),
    // What everybody may use depends on nobody.
    ("target", &[]),
    ("outcome", &[]),
    ("labels", &[]),
    ("api", &["lifecycle::run_dir"]),
    ("secret", &[]),
    ("expiring_cache", &[]),
    ("sys", &[]),
    ("http_client", &[]),
    ("tls_client", &[]),
];

fn allowed(room: &str) -> &'static [&'static str] {
    CROSSINGS.iter().find(|(name, _)| *name == room).map_or(&[], |(_, crossings)| crossings)
}

/// The crossing that lets `room` import `path`, itself included; `None`: a wall is in the way.
fn crossing(room: &str, path: &str) -> Option<&'static str> {
    allowed(room).iter().copied().find(|open| {
        path == *open || path.strip_prefix(open).is_some_and(|rest| rest.starts_with("::"))
    })
}

/// `policy`, `dns` and the parsers' crate-wide vocabulary ask nothing of the free modules but these.
fn is_free(room: &str, top: &str) -> bool {
    match room {
        // Pure: hosts in, verdicts out.
        "policy" => ["target", "labels"].contains(&top),
        "api" => top == "labels",
        "target" | "outcome" | "labels" | "secret" | "sys" | "http_client" | "tls_client" => false,
        _ => FREE.contains(&top),
    }
}

fn complaints(file: &File, modules: &BTreeSet<String>) -> Vec<String> {
    let room = file.room();
    if CARRIERS.contains(&room) || ["lib", "main"].contains(&room) {
        return Vec::new();
    }
    let mut found = imports(&code(&file.text));
    found.retain(|path| {
        let top = path.split("::").next().unwrap_or_default();
        modules.contains(top)
            && top != room
            && !is_free(room, top)
            && crossing(room, path).is_none()
    });
    found.iter().map(|path| format!("{}: {path}", file.path)).collect()
}

/// The folders and files below `src`, and `sys`, which is another crate under that name.
fn modules(files: &[File]) -> BTreeSet<String> {
    files.iter().map(|file| file.room().to_owned()).chain(["sys".to_owned()]).collect()
}

#[test]
fn rooms_import_only_what_the_map_names() {
    let files = files();
    let modules = modules(&files);
    let complaints: Vec<String> = files.iter().flat_map(|f| complaints(f, &modules)).collect();
    assert!(complaints.is_empty(), "imports through a wall:\n{}", complaints.join("\n"));
}

#[test]
fn every_room_is_on_the_map_and_every_crossing_is_used() {
    let files = files();
    for room in modules(&files) {
        let known = CROSSINGS.iter().any(|(name, _)| *name == room)
            || CARRIERS.contains(&room.as_str())
            || ["lib", "main"].contains(&room.as_str());
        assert!(known, "{room} is not on the map: say what it may import");
    }
    let used: BTreeSet<(&str, &str)> = files
        .iter()
        .flat_map(|f| imports(&code(&f.text)).into_iter().map(|path| (f.room(), path)))
        .filter_map(|(room, path)| Some((room, crossing(room, &path)?)))
        .collect();
    for (room, crossings) in CROSSINGS {
        for open in *crossings {
            assert!(used.contains(&(*room, *open)), "{room} no longer imports {open}: close it");
        }
    }
}

#[test]
fn policy_touches_no_socket_no_file_and_no_clock() {
    const FORBIDDEN: [&str; 10] = [
        "tokio",
        "std::io",
        "std::fs",
        "std::time",
        "std::env",
        "std::process",
        "std::thread",
        "TcpStream",
        "UdpSocket",
        "ToSocketAddrs",
    ];
    for file in files().iter().filter(|f| f.room() == "policy") {
        let code = code(&file.text);
        for word in FORBIDDEN {
            assert!(!code.contains(word), "{} uses {word}", file.path);
        }
    }
}

#[test]
fn only_policy_makes_permissions() {
    let makers: Vec<String> = files()
        .into_iter()
        .filter(|f| f.room() != "policy" && code(&f.text).contains("Admitted::new"))
        .map(|f| f.path)
        .collect();
    assert!(makers.is_empty(), "{makers:?}");
    let verdict = files().into_iter().find(|f| f.path == "src/policy/verdict.rs").unwrap();
    assert!(verdict.text.contains("pub struct Admitted<T>(T);"), "its field stays private");
}

/// `forbid` at the root of a crate holds for all of it, and no `allow` below takes it back.
#[test]
fn unsafe_lives_in_sys_alone() {
    let mut sources = files();
    sources.extend(below("crates", &["rs"]));
    let roots = |file: &&File| {
        ["lib.rs", "main.rs"].iter().any(|name| file.path.ends_with(&format!("src/{name}")))
    };
    let roots: Vec<&File> = sources.iter().filter(roots).collect();
    assert_eq!(roots.len(), 5, "each crate has one");
    for root in roots {
        let forbids = code(&root.text).contains("#![forbid(unsafe_code)]");
        assert_eq!(!forbids, root.path.starts_with("crates/tailrace-sys/"), "{}", root.path);
    }
}

/// Borders between crates are the compiler's; these two are crossed in one place each.
#[test]
fn the_other_crates_are_named_in_one_place() {
    for (name, place) in [("tailrace_sys", "src/lib.rs"), ("tailrace_run", "src/cli/run.rs")] {
        let files = files();
        let named = files.iter().filter(|file| code(&file.text).contains(name));
        let named: Vec<&str> = named.map(|file| file.path.as_str()).collect();
        assert_eq!(named, [place], "{name}");
    }
}

#[test]
fn every_file_says_what_it_is_for_and_holds_one_idea() {
    let mut sources = files();
    sources.extend(below("crates", &["rs"]));
    for file in sources {
        let name = file.path.rsplit('/').next().unwrap();
        assert!(
            !["utils.rs", "util.rs", "common.rs", "helpers.rs"].contains(&name),
            "{}",
            file.path
        );
        assert!(file.text.starts_with("//! "), "{} does not open with its purpose", file.path);
        let lines = file.text.lines().count();
        assert!(lines <= 500, "{} has {lines} lines: split it by idea", file.path);
    }
}

#[test]
fn a_hole_in_a_wall_is_seen() {
    let modules: BTreeSet<String> = CROSSINGS.iter().map(|(room, _)| (*room).to_owned()).collect();
    let holes = [
        ("src/relay.rs", "use crate::policy::Admitted;"),
        ("src/relay.rs", "use crate::{sys::Stream, record::Record};"),
        ("src/dns/system.rs", "use crate::policy::{Admitted, Policy};"),
        ("src/upstream/a/b.rs", "use super::super::super::inbound::Kind;"),
        ("src/policy/judge.rs", "fn f() { crate::sys::tune(); }"),
        ("src/target.rs", "use crate::sys::Stream;"),
    ];
    for (path, text) in holes {
        let file = File { path: path.to_owned(), text: text.to_owned() };
        assert_eq!(complaints(&file, &modules).len(), 1, "{path}: {text}");
    }
    let whole = [
        ("src/dns.rs", "use crate::policy::Admitted; use crate::target::{Host, Name};"),
        ("src/relay.rs", "// use crate::policy::Policy;\nlet s = \"crate::policy::Policy\";"),
        (
            "src/relay.rs",
            "use crate::lifecycle::connection_cut::{Cut, CutReason}; use crate::relay::X;",
        ),
    ];
    for (path, text) in whole {
        let file = File { path: path.to_owned(), text: text.to_owned() };
        assert_eq!(complaints(&file, &modules), Vec::<String>::new(), "{text}");
    }
}
