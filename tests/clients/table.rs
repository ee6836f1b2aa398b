//! The table of `docs/clients.md`.

use std::fmt::Write as _;
use std::sync::Mutex;

use crate::clients::field::source;
use crate::clients::script::Way;
use crate::version::Version;

static ROWS: Mutex<Vec<Row>> = Mutex::new(Vec::new());

/// One program by one way, which worked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    program: String,
    version: Option<String>,
    way: String,
    extra: String,
}

impl Row {
    /// Without a version it is that of the program's other rows; `extra` is in milliseconds.
    pub fn new(program: &str, version: Option<&str>, way: Way, extra: Option<f64>) -> Row {
        Row {
            program: program.to_owned(),
            version: version.map(str::to_owned),
            way: way.label().to_owned(),
            extra: extra.map_or_else(String::new, |extra| format!("{extra:.0}")),
        }
    }

    /// As it stands in the document.
    fn read(line: &str) -> Option<Row> {
        let cells: Vec<&str> = line.strip_prefix("| ")?.split('|').map(str::trim).collect();
        let [program, version, way, "works", extra, ""] = cells[..] else { return None };
        let (program, version) = (program.to_owned(), Some(version.to_owned()));
        Some(Row { program, version, way: way.to_owned(), extra: extra.to_owned() })
    }
}

/// `old` with each fresh row in the place of the one it replaces, or behind its program's others.
fn merged(mut old: Vec<Row>, fresh: &[Row]) -> Vec<Row> {
    for row in fresh {
        let others = old.iter().rev().find(|it| it.program == row.program);
        let version = row.version.clone().or_else(|| others?.version.clone());
        let row = Row { version, ..row.clone() };
        let same = |it: &Row| it.program == row.program && it.way == row.way;
        match old.iter().position(same) {
            Some(at) => old[at] = row,
            None => {
                let last = old.iter().rposition(|it| it.program == row.program);
                old.insert(last.map_or(old.len(), |last| last + 1), row);
            }
        }
    }
    old
}

/// Whether the table is to be written.
pub fn wanted() -> bool {
    std::env::var("TAILRACE_WRITE_CLIENTS").as_deref() == Ok("1")
}

pub fn add(row: Row) {
    ROWS.lock().expect("no panic here").push(row);
}

/// Writes the document, if that is wanted and these rows are of the newest tailscaled. Rows of programs that
/// did not run now stay as they are.
pub fn write(version: Version) {
    let fresh = ROWS.lock().expect("no panic here");
    if !wanted() || !version.is_newest() || fresh.is_empty() {
        return;
    }
    let path = source().join("../../docs/clients.md");
    let old = std::fs::read_to_string(&path).unwrap_or_default();
    let old = old.lines().filter_map(Row::read).collect();
    let mut text = HEAD.to_owned();
    for Row { program, version, way, extra } in merged(old, &fresh) {
        let version = version.unwrap_or_default();
        let _ = writeln!(text, "| {program} | {version} | {way} | works | {extra} |");
    }
    std::fs::write(path, text).expect("docs/clients.md");
}

const HEAD: &str = "\
# Clients

Programs that were run through the gateway and a real tailnet (headscale, two userspace tailscaled)
against a real server, known by a name of split DNS. `tests/clients/install` brings them (`--more`: gh and
temporal too), `cargo test --test tailnet program_` runs them (`make test-more`: these two), and
`TAILRACE_WRITE_CLIENTS=1 cargo test --release --test tailnet program_` wrote this page; what did not run
then keeps its row.

- **proxy setting**: with the variables of `tailrace env`, and nothing else.
- **run**: `tailrace run -- PROGRAM`, without any variable.
- **forward**: through a `[[forward]]` to the server's port, with the variables for it.
- **connect**: with `tailrace connect` as ssh's ProxyCommand, as `tailrace env` has it.
- **up -- CMD**: as typed, in a shell script that `tailrace up -- sh` runs
  ([everything.sh](../tests/clients/programs/everything.sh)); nothing in it tells of a proxy.
- **up -- CMD, run**: the same with `tailrace run` before it. Neither is timed: each costs what the way
  costs that it comes down to.

*Extra* is the time to the first byte of output less the time of the same line beside its server without
the gateway, run in turns; the median of five differences, in milliseconds. Programs that start slowly
vary by more than a way costs, so a small or negative number says no more than: not to be seen. It holds
all that the way costs: starting `run` or `connect`, asking for the name, and the tailnet's own round trips.

| program | version | way | result | extra, ms |
|---|---|---|---|---:|
";
