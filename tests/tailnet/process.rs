//! Programs the proof starts: logged to a file, ended with the value that holds them.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::wait::eventually_every;

/// How long anything here may take before the proof gives up on it.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A running program.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with both its outputs in `log`; call it inside the namespace it belongs to.
    pub fn start(name: &str, command: &mut Command, log: &Path) -> Process {
        let out = File::create(log).expect("a log file");
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone().expect("a log file"))
            .stderr(out)
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start {name}: {e}"));
        Process { name: name.to_owned(), child, log: log.to_owned() }
    }

    pub fn log(&self) -> String {
        std::fs::read(&self.log)
            .map(|b| String::from_utf8_lossy(&b).into_owned())
            .unwrap_or_default()
    }

    /// The last lines of its log, under its name.
    pub fn tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let from = lines.len().saturating_sub(25);
        format!("---- {}\n{}\n", self.name, lines[from..].join("\n"))
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap_or_else(|e| panic!("signal to {}: {e}", self.name));
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        wait_for(&format!("the end of {}", self.name.clone()), || self.ended())
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("wait")
    }

    /// Whether it has ended; its status is still there to be asked for.
    pub fn is_over(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid()));
        stat.ok().and_then(|stat| Some(stat.rsplit_once(')')?.1.starts_with(" Z"))).unwrap_or(true)
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Asks until there is an answer.
#[track_caller]
pub fn wait_for<T>(what: &str, ask: impl FnMut() -> Option<T>) -> T {
    eventually_every(Duration::from_millis(20), what, PATIENCE, ask)
}

/// The same without a limit, for what limits itself.
pub fn wait_for_ever<T>(ask: impl FnMut() -> Option<T>) -> T {
    eventually_every(Duration::from_millis(50), "its end", Duration::MAX, ask)
}

/// Runs a command that has to succeed; its standard output.
pub fn must(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|e| panic!("cannot run {program}: {e}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The processes whose parent is `parent`, with the names the kernel has for them.
pub fn children(parent: Pid) -> Vec<(Pid, String)> {
    let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
    let read = |entry: std::fs::DirEntry| {
        let pid = entry.file_name().to_str()?.parse().ok().and_then(Pid::from_raw)?;
        // pid (name) state ppid …: the name may hold anything, so its end is the last bracket.
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        let (head, rest) = stat.rsplit_once(')')?;
        let name = head.split_once('(')?.1.to_owned();
        let of = rest.split_whitespace().nth(1)?.parse().ok().and_then(Pid::from_raw)?;
        (of == parent).then_some((pid, name))
    };
    processes.filter_map(read).collect()
}
