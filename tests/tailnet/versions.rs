//! The inner runs, one for each version: side by side where the machine carries it, else in turn.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, ExitCode, ExitStatus};

use crate::process::wait_for_ever;
use crate::stage;
use crate::version::Version;

/// A tailnet under load keeps two cores busy (its bulk case does); each version gets that many.
const CORES: usize = 2;

/// The versions whose label is among the arguments; all of them where none is.
pub fn asked_for(arguments: &[String]) -> Vec<Version> {
    let named: Vec<Version> = arguments.iter().filter_map(|label| Version::of(label)).collect();
    if named.is_empty() { Version::all().to_vec() } else { named }
}

/// Runs each; fails when one of them does.
pub fn run(versions: &[Version], folder: &Path) -> ExitCode {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if versions.len() > 1 && cores >= CORES * versions.len() {
        return side_by_side(versions, folder);
    }
    in_turn(versions, folder)
}

/// One after the other, what each says as it says it.
pub fn in_turn(versions: &[Version], folder: &Path) -> ExitCode {
    let run = |version: &Version| stage::inner(*version, folder).status().expect("own program");
    together(versions.iter().map(run).collect())
}

/// All at once; what each said is printed whole when it has ended, never mixed with another's.
fn side_by_side(versions: &[Version], folder: &Path) -> ExitCode {
    let dir = tempfile::tempdir().expect("a folder");
    let path = |version: &Version| dir.path().join(version.label());
    let start = |version: &Version| -> Child {
        let out = File::create(path(version)).expect("a file");
        let mut command = stage::inner(*version, folder);
        command.stdout(out.try_clone().expect("a file")).stderr(out).spawn().expect("own program")
    };
    let mut running: Vec<(Version, Child)> = versions.iter().map(|v| (*v, start(v))).collect();
    let mut ended = Vec::new();
    while !running.is_empty() {
        let (at, status) = wait_for_ever(|| {
            let status = |it: &mut (Version, Child)| it.1.try_wait().expect("wait");
            running.iter_mut().enumerate().find_map(|(n, it)| Some((n, status(it)?)))
        });
        let (version, _) = running.remove(at);
        let said = std::fs::read(path(&version)).expect("what it said");
        std::io::stdout().write_all(&said).expect("standard output");
        ended.push(status);
    }
    together(ended)
}

/// Success if all succeeded, the first failure otherwise.
fn together(ended: Vec<ExitStatus>) -> ExitCode {
    let failure = ended.into_iter().find(|status| !status.success());
    failure.map_or(ExitCode::SUCCESS, |status| {
        ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(101))
    })
}
