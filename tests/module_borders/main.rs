//! Modules keep their borders: they import only what the map in `docs/architecture.md` names. And the tests keep
//! to `docs/requirements.md`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail loudly")]

mod imports;
mod page;
mod requirements;
mod source;

use std::collections::BTreeSet;

use imports::imports;
use page::{Borders, PAGE};
use source::{File, below, code, files, root};

/// The crate's roots: they declare the modules.
const ROOTS: [&str; 2] = ["lib", "main"];

/// The borders that the page states.
fn borders() -> Borders {
    let page = std::fs::read_to_string(root().join(PAGE)).unwrap();
    Borders::parse(&page).unwrap_or_else(|error| panic!("{PAGE}: {error}"))
}

impl Borders {
    /// The entry of the page that lets `module` import `path`, itself included.
    fn entry(&self, module: &str, path: &str) -> Option<&str> {
        let imports = self.of.get(module).map_or(&[][..], |border| &border.imports);
        imports.iter().map(String::as_str).find(|entry| {
            path == *entry || path.strip_prefix(entry).is_some_and(|rest| rest.starts_with("::"))
        })
    }

    /// Whether `module` may import `path`.
    fn allow(&self, module: &str, path: &str) -> bool {
        let top = path.split("::").next().unwrap_or_default();
        let (everything, only) =
            self.of.get(module).map_or((false, false), |border| (border.everything, border.only));
        everything
            || (!only && self.shared.iter().any(|shared| shared == top))
            || self.entry(module, path).is_some()
    }
}

/// The imports of a file that no entry allows.
fn complaints(borders: &Borders, file: &File, modules: &BTreeSet<String>) -> Vec<String> {
    let module = file.module();
    if ROOTS.contains(&module) {
        return Vec::new();
    }
    let mut found = imports(&code(&file.text));
    found.retain(|path| {
        let top = path.split("::").next().unwrap_or_default();
        modules.contains(top) && top != module && !borders.allow(module, path)
    });
    found.iter().map(|path| format!("{}: {path}", file.path)).collect()
}

/// The folders and files below `src`, and `sys`, which is another crate under that name.
fn modules(files: &[File]) -> BTreeSet<String> {
    files.iter().map(|file| file.module().to_owned()).chain(["sys".to_owned()]).collect()
}

#[test]
fn modules_import_only_what_the_page_allows() {
    let (files, borders) = (files(), borders());
    let modules = modules(&files);
    let complaints: Vec<String> =
        files.iter().flat_map(|file| complaints(&borders, file, &modules)).collect();
    assert!(complaints.is_empty(), "{PAGE} does not allow:\n{}", complaints.join("\n"));
}

#[test]
fn every_module_has_a_row_and_every_entry_is_used() {
    let (files, borders) = (files(), borders());
    let mut modules = modules(&files);
    modules.retain(|module| !ROOTS.contains(&module.as_str()));
    let rows: BTreeSet<String> = borders.of.keys().cloned().collect();
    assert_eq!(rows, modules, "the rows of {PAGE}, and the modules there are");
    let imported: Vec<(&str, String)> = files
        .iter()
        .flat_map(|file| imports(&code(&file.text)).into_iter().map(|path| (file.module(), path)))
        .collect();
    let used: BTreeSet<(&str, &str)> = imported
        .iter()
        .filter_map(|(module, path)| Some((*module, borders.entry(module, path)?)))
        .collect();
    for (module, border) in &borders.of {
        for entry in &border.imports {
            let is_used = used.contains(&(module.as_str(), entry.as_str()));
            assert!(is_used, "{module} no longer imports {entry}: take it out of {PAGE}");
        }
    }
    for shared in &borders.shared {
        assert!(modules.contains(shared), "{shared}, which everybody may use, is no module");
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
    for file in files().iter().filter(|f| f.module() == "policy") {
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
        .filter(|f| f.module() != "policy" && code(&f.text).contains("Admitted::new"))
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
fn an_import_across_a_border_is_seen() {
    let borders = borders();
    let modules: BTreeSet<String> = borders.of.keys().cloned().collect();
    let forbidden = [
        ("src/relay.rs", "use crate::policy::Admitted;"),
        ("src/relay.rs", "use crate::{sys::Stream, record::Record};"),
        ("src/dns/system.rs", "use crate::policy::{Admitted, Policy};"),
        ("src/upstream/a/b.rs", "use super::super::super::inbound::Kind;"),
        ("src/policy/judge.rs", "fn f() { crate::sys::tune(); }"),
        ("src/target.rs", "use crate::sys::Stream;"),
    ];
    for (path, text) in forbidden {
        let file = File { path: path.to_owned(), text: text.to_owned() };
        assert_eq!(complaints(&borders, &file, &modules).len(), 1, "{path}: {text}");
    }
    let allowed = [
        ("src/dns.rs", "use crate::policy::Admitted; use crate::target::{Host, Name};"),
        ("src/relay.rs", "// use crate::policy::Policy;\nlet s = \"crate::policy::Policy\";"),
        (
            "src/relay.rs",
            "use crate::lifecycle::connection_cut::{Cut, CutReason}; use crate::relay::X;",
        ),
    ];
    for (path, text) in allowed {
        let file = File { path: path.to_owned(), text: text.to_owned() };
        assert_eq!(complaints(&borders, &file, &modules), Vec::<String>::new(), "{text}");
    }
}
