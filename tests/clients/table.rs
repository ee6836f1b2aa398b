//! The table of `docs/clients.md`.

use std::fmt::Write as _;
use std::sync::Mutex;

use crate::clients::field::source;
use crate::clients::script::Way;

static ROWS: Mutex<Vec<Row>> = Mutex::new(Vec::new());

/// One program by one way, which worked.
pub struct Row {
    program: String,
    version: String,
    way: Way,
    extra: Option<f64>,
}

impl Row {
    /// `extra` is in milliseconds.
    pub fn new(program: &str, version: &str, way: Way, extra: Option<f64>) -> Row {
        Row { program: program.to_owned(), version: version.to_owned(), way, extra }
    }
}

/// Whether the table is to be written.
pub fn wanted() -> bool {
    std::env::var("TAILRACE_WRITE_CLIENTS").as_deref() == Ok("1")
}

pub fn add(row: Row) {
    ROWS.lock().expect("no panic here").push(row);
}

/// Writes the document, if that is wanted.
pub fn write() {
    let rows = ROWS.lock().expect("no panic here");
    if !wanted() || rows.is_empty() {
        return;
    }
    let mut text = HEAD.to_owned();
    for Row { program, version, way, extra } in rows.iter() {
        let extra = extra.map_or_else(String::new, |extra| format!("{extra:.0}"));
        let _ = writeln!(text, "| {program} | {version} | {} | works | {extra} |", way.label());
    }
    let path = source().join("../../docs/clients.md");
    std::fs::write(path, text).expect("docs/clients.md");
}

const HEAD: &str = "\
# Clients

Programs that were run through the gateway and a real tailnet (headscale, two userspace tailscaled)
against a real server, known by a name of split DNS. `tests/clients/install` brings them,
`cargo test --test tailnet program_` runs them, and
`TAILRACE_WRITE_CLIENTS=1 cargo test --release --test tailnet program_` wrote this page.

- **proxy setting**: with the variables of `tailrace env`, and nothing else.
- **run**: `tailrace run -- PROGRAM`, without any variable.
- **forward**: through a `[[forward]]` to the server's port, with the variables for it.
- **connect**: with `tailrace connect` as ssh's ProxyCommand, as `tailrace env` has it.

*Extra* is the time to the first byte of output less the time of the same line beside its server without
the gateway, run in turns; the median of five differences, in milliseconds. Programs that start slowly
vary by more than a way costs, so a small or negative number says no more than: not to be seen. It holds all that the way costs: starting `run` or
`connect`, asking for the name, and the tailnet's own round trips.

| program | version | way | result | extra, ms |
|---|---|---|---|---:|
";
