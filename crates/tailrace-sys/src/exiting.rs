//! Whether a process is on its way out, before anybody has reaped it: when the kernel closes the
//! sockets of a killed process their peers get a mere FIN, as from a good end.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::io::Errno;

use super::stat;

/// `PF_EXITING` (linux/sched.h): set before the kernel closes what the process holds.
const PF_EXITING: u64 = 0x4;

/// A process under watch.
#[derive(Debug)]
pub struct Exiting {
    /// `/proc/PID/stat` (proc(5)), opened once: it never comes to mean a later process.
    stat: File,
}

impl Exiting {
    /// Watches a process that has not been reaped yet.
    ///
    /// # Errors
    /// What `open(2)` says, `NotFound` when there is no such process.
    pub fn of(pid: u32) -> io::Result<Self> {
        Ok(Self { stat: File::open(format!("/proc/{pid}/stat"))? })
    }

    /// Whether it exits or is gone. One system call.
    pub fn exiting(&self) -> bool {
        let mut stat = [0; 512];
        match self.stat.read_at(&mut stat, 0) {
            Ok(length) => parse_stat(&stat[..length]).unwrap_or(false),
            Err(error) => Errno::from_io_error(&error) == Some(Errno::SRCH),
        }
    }
}

fn parse_stat(stat: &[u8]) -> Option<bool> {
    let mut fields = stat::fields(stat)?;
    let dead = matches!(fields.next()?, "Z" | "X" | "x");
    let flags: u64 = fields.nth(5)?.parse().ok()?; // ppid, pgrp, session, tty_nr, tpgid before it
    Some(dead || flags & PF_EXITING != 0)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn t1_the_name_does_not_shift_the_fields() {
        let stat = |name: &str, state: char, flags: u32| {
            format!("7 ({name}) {state} 1 7 7 0 -1 {flags} 100 0 0 0 250 50 0 0 20 0 3 0 1200 0\n")
        };
        for name in ["tailscaled", "a b", "a) Z 1 (b", ")", "\u{fc}) X"] {
            assert_eq!(parse_stat(stat(name, 'S', 0x0040_0000).as_bytes()), Some(false), "{name}");
            assert_eq!(parse_stat(stat(name, 'R', 0x0040_0004).as_bytes()), Some(true), "{name}");
            assert_eq!(parse_stat(stat(name, 'Z', 0).as_bytes()), Some(true), "{name}");
        }
        assert_eq!(parse_stat(b""), None);
        assert_eq!(parse_stat(b"7 (x) S 1 7"), None);
    }

    #[test]
    fn t1_a_process_lives_is_a_zombie_and_is_gone() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let watch = Exiting::of(child.id()).unwrap();
        assert!(!watch.exiting());
        child.kill().unwrap();
        let id = rustix::process::Pid::from_child(&child);
        let flags = rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT;
        rustix::process::waitid(rustix::process::WaitId::Pid(id), flags).unwrap();
        assert!(watch.exiting(), "a zombie");
        child.wait().unwrap();
        assert!(watch.exiting(), "gone");
        assert!(!Exiting::of(std::process::id()).unwrap().exiting());
    }
}
