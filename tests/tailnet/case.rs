//! Runs cases one after the other and reports them in libtest's words. A case's name begins with the version
//! of tailscaled that it runs on.
//!
//! A case that cannot run is `ignored` and named with its reason; with `TAILRACE_REQUIRE_ALL=1` it
//! fails.

use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, ExitCode};
use std::time::Instant;

use crate::stage::{Programs, have};
use crate::tailnet::Tailnet;
use crate::version::Version;

/// One thing to prove.
#[derive(Clone)]
pub struct Case {
    name: &'static str,
    on: Option<Version>,
    needs: Vec<Need>,
    run: fn(&Tailnet),
}

/// That without which a case is skipped.
#[derive(Clone, Copy)]
pub enum Need {
    Command(&'static str),
    /// Becoming uid 65534: not where only root is mapped into the namespace.
    AnotherUser,
    /// What tests/clients/install brings.
    Clients,
}

impl Case {
    pub fn new(name: &'static str, run: fn(&Tailnet)) -> Case {
        Case { name, on: None, needs: Vec::new(), run }
    }

    /// The same on this version.
    fn on(&self, version: Version) -> Case {
        Case { on: Some(version), ..self.clone() }
    }

    /// What it is reported and chosen by.
    fn title(&self) -> String {
        match self.on {
            Some(version) => format!("{} {}", version.label(), self.name),
            None => self.name.to_owned(),
        }
    }

    pub fn needing(mut self, need: Need) -> Case {
        self.needs.push(need);
        self
    }

    /// Why it cannot run here.
    fn missing(&self) -> Option<String> {
        self.needs.iter().find_map(|need| need.missing())
    }
}

impl Need {
    fn missing(self) -> Option<String> {
        match self {
            Need::Command(command) if have(command) => None,
            Need::Command(command) => Some(format!("needs the command {command}")),
            Need::AnotherUser if can_be_nobody() => None,
            Need::AnotherUser => Some("needs setpriv, and to be root outside".to_owned()),
            Need::Clients if crate::clients::installed().is_some() => None,
            Need::Clients => Some("needs the clients: run tests/clients/install".to_owned()),
        }
    }
}

/// What the arguments, read as libtest reads them, choose.
pub struct Chosen {
    pub cases: Vec<Case>,
    pub only_list: bool,
    filtered_out: usize,
}

impl Chosen {
    /// Of all cases on each of these versions.
    pub fn from_arguments(cases: &[Case], versions: &[Version], arguments: &[String]) -> Chosen {
        let on = |version: &Version| cases.iter().map(|case| case.on(*version)).collect::<Vec<_>>();
        let all: Vec<Case> = versions.iter().flat_map(on).collect();
        let exact = arguments.iter().any(|a| a == "--exact");
        let mut filters: Vec<&String> = Vec::new();
        let mut skips: Vec<&String> = Vec::new();
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            match argument.as_str() {
                "--skip" => skips.extend(rest.next()),
                "--test-threads" | "--color" | "--format" | "--logfile" => {
                    let _value = rest.next();
                }
                other if other.starts_with('-') => {}
                _ => filters.push(argument),
            }
        }
        let hit = |case: &Case, f: &String| match exact {
            true => case.title() == *f || case.name == f,
            false => case.title().contains(f.as_str()),
        };
        let cases: Vec<Case> = all
            .iter()
            .filter(|c| filters.is_empty() || filters.iter().any(|f| hit(c, f)))
            .filter(|c| !skips.iter().any(|s| hit(c, s)))
            .cloned()
            .collect();
        let only_list = arguments.iter().any(|a| a == "--list");
        Chosen { filtered_out: all.len() - cases.len(), cases, only_list }
    }

    /// The versions that a chosen case runs on.
    pub fn versions(&self) -> Vec<Version> {
        let chosen = |version: &&Version| self.cases.iter().any(|case| case.on == Some(**version));
        Version::all().iter().filter(chosen).copied().collect()
    }
}

/// Prints the names, as `--list` asks.
pub fn list(chosen: &Chosen) -> ExitCode {
    for case in &chosen.cases {
        println!("{}: test", case.title());
    }
    ExitCode::SUCCESS
}

/// Nothing can run here: every case is skipped for the same reason.
pub fn skip_all(chosen: &Chosen, why: &str) -> ExitCode {
    let started = Instant::now();
    let mut tally = Tally::default();
    println!("\nrunning {} tests", chosen.cases.len());
    for case in &chosen.cases {
        tally.skip(&case.title(), why);
    }
    tally.close(chosen, started)
}

/// Builds the tailnet and runs every chosen case in it.
pub fn run_all(chosen: &Chosen, programs: &Programs) -> ExitCode {
    if chosen.cases.is_empty() {
        return skip_all(chosen, "");
    }
    let started = Instant::now();
    let mut tally = Tally::default();
    println!("\nrunning {} tests", chosen.cases.len());
    let tailnet = catch_unwind(|| Tailnet::start(programs, &[]));
    for case in &chosen.cases {
        match (&tailnet, case.missing()) {
            (_, Some(why)) => tally.skip(&case.title(), &why),
            (Err(_), _) => tally.fail(&case.title(), "the tailnet did not come up (see above)"),
            (Ok(tailnet), None) => match catch_unwind(AssertUnwindSafe(|| (case.run)(tailnet))) {
                Ok(()) => tally.pass(&case.title()),
                Err(_) => tally.fail(&case.title(), &tailnet.evidence()),
            },
        }
    }
    drop(tailnet);
    tally.close(chosen, started)
}

fn can_be_nobody() -> bool {
    let mut setpriv = Command::new("setpriv");
    setpriv.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--", "true"]);
    setpriv.output().is_ok_and(|output| output.status.success())
}

#[derive(Default)]
struct Tally {
    passed: usize,
    ignored: usize,
    failures: Vec<String>,
}

impl Tally {
    fn pass(&mut self, name: &str) {
        self.passed += 1;
        println!("test {name} ... ok");
    }

    fn fail(&mut self, name: &str, why: &str) {
        self.failures.push(name.to_owned());
        println!("test {name} ... FAILED\n{why}");
    }

    fn skip(&mut self, name: &str, why: &str) {
        let line = format!("SKIPPED {name}: {why}\n");
        if std::env::var("TAILRACE_REQUIRE_ALL").as_deref() == Ok("1") {
            return self.fail(name, &format!("{line}TAILRACE_REQUIRE_ALL=1 allows no skip"));
        }
        self.ignored += 1;
        eprint!("{line}");
        if let Some(path) = std::env::var_os("TAILRACE_SKIP_LOG") {
            let log = std::fs::OpenOptions::new().append(true).create(true).open(path);
            let _ = log.and_then(|mut log| log.write_all(line.as_bytes()));
        }
        println!("test {name} ... ignored, {why}");
    }

    fn close(self, chosen: &Chosen, started: Instant) -> ExitCode {
        if !self.failures.is_empty() {
            println!("\nfailures:\n    {}", self.failures.join("\n    "));
        }
        println!(
            "\ntest result: {}. {} passed; {} failed; {} ignored; 0 measured; {} filtered out; \
             finished in {:.2}s\n",
            if self.failures.is_empty() { "ok" } else { "FAILED" },
            self.passed,
            self.failures.len(),
            self.ignored,
            chosen.filtered_out,
            started.elapsed().as_secs_f64()
        );
        if self.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(101) }
    }
}
