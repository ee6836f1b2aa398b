//! The programs measured, each a process of its own: started, looked at in `/proc`, ended by its id.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// Where [`compile`] puts the bare relays and the CPU clock.
pub(crate) fn tools() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("bare")
}

/// Compiles everything in `benches/bare`.
pub(crate) fn compile() {
    let (from, to) = (PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("benches/bare"), tools());
    std::fs::create_dir_all(&to).unwrap();
    for name in ["copy", "splice", "proxy", "cpu"] {
        let mut cc = Command::new("cc");
        cc.args(["-O2", "-o"]).arg(to.join(name)).arg(from.join(name).with_extension("c"));
        assert!(cc.status().unwrap().success(), "{cc:?}: a C compiler is needed");
    }
}

/// That program with 20,000 descriptors at most, ours and the peers alike.
pub(crate) fn limited(program: PathBuf) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 20000; exec \"$@\"", "sh"]).arg(program);
    command
}

/// A child, ended when it is dropped.
pub(crate) struct Running(Child);

impl Running {
    pub(crate) fn start(mut command: Command) -> std::io::Result<Running> {
        command.stdin(Stdio::null()).spawn().map(Running)
    }

    /// The same for one that tells its port on its first line.
    pub(crate) fn told(mut command: Command) -> std::io::Result<(Running, u16)> {
        command.stdout(Stdio::piped());
        let mut running = Running::start(command)?;
        let mut line = String::new();
        if let Some(out) = running.0.stdout.take() {
            BufReader::new(out).read_line(&mut line)?;
        }
        match line.trim().parse() {
            Ok(port) => Ok((running, port)),
            Err(_) => Err(std::io::Error::other(format!("no port in {line:?}"))),
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Whether it has ended.
    pub(crate) fn ended(&mut self) -> bool {
        self.0.try_wait().is_ok_and(|status| status.is_some())
    }

    /// User and system seconds of it and its descendants.
    pub(crate) fn cpu(&self) -> f64 {
        let pids = self.family().into_iter().map(|pid| pid.to_string());
        let out = Command::new(tools().join("cpu")).args(pids).output().unwrap();
        String::from_utf8_lossy(&out.stdout).trim().parse::<f64>().unwrap() / 1e9
    }

    /// Proportional set size in kB, of the whole family.
    pub(crate) fn pss(&self) -> f64 {
        let of = |pid: &u32| {
            let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
            let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
            line.trim().trim_end_matches(" kB").parse::<f64>().ok()
        };
        self.family().iter().filter_map(of).sum()
    }

    /// Open descriptors, of the whole family.
    pub(crate) fn descriptors(&self) -> f64 {
        let of =
            |pid: &u32| std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
        self.family().iter().map(of).sum::<usize>() as f64
    }

    /// Its id and those of its descendants (proc(5) stat field 4: the parent).
    fn family(&self) -> Vec<u32> {
        let mut children = BTreeMap::<u32, Vec<u32>>::new();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else {
                continue;
            };
            let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            let rest = stat.rsplit(')').next().unwrap_or_default();
            if let Some(parent) = rest.split_whitespace().nth(1).and_then(|p| p.parse().ok()) {
                children.entry(parent).or_default().push(pid);
            }
        }
        let mut family = vec![self.pid()];
        let mut next = 0;
        while let Some(pid) = family.get(next) {
            family.extend(children.get(pid).cloned().unwrap_or_default());
            next += 1;
        }
        family
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
