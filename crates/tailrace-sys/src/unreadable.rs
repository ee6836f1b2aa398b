//! A copy of a program that may be run and not read, so that its process is not open to others of the same
//! user: the kernel makes a process undumpable whose executable its user cannot read (`would_dump` in
//! fs/exec.c), and `/proc/PID/mem`, `/proc/PID/fd`, ptrace(2) and core files then refuse that user.
#![forbid(unsafe_code)]

use std::fs::{File, Permissions};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rustix::fs::{MemfdFlags, Mode, OFlags, StatVfsMountFlags};

/// Makes such a copy of `program`: a file without a name, in `folder` where programs can be run from
/// there, in memory otherwise. Run it as `/proc/self/fd/N`.
///
/// To root every file is readable, and a script is read by its interpreter: nothing is made of those.
///
/// # Errors
/// What reading and writing say.
pub fn unreadable_copy(program: &Path, folder: &Path) -> io::Result<Option<OwnedFd>> {
    let mut source = File::open(program)?;
    if rustix::process::geteuid().is_root() || !is_elf(&source)? {
        return Ok(None);
    }
    let mut copy = nameless(folder)?;
    io::copy(&mut source, &mut copy)?;
    copy.set_permissions(Permissions::from_mode(0o111))?;
    // A file that somebody has open for writing cannot be run (ETXTBSY), and one that cannot be read
    // can be opened as a path alone (O_PATH, open(2)).
    let path = format!("/proc/self/fd/{}", copy.as_raw_fd());
    Ok(Some(rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?))
}

fn is_elf(file: &File) -> io::Result<bool> {
    use std::os::unix::fs::FileExt as _;
    let mut magic = [0; 4];
    match file.read_exact_at(&mut magic, 0) {
        Ok(()) => Ok(magic == *b"\x7fELF"),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

fn nameless(folder: &Path) -> io::Result<File> {
    let runs_programs = rustix::fs::statvfs(folder)
        .is_ok_and(|seen| !seen.f_flag.contains(StatVfsMountFlags::NOEXEC));
    if runs_programs {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        if let Ok(file) = rustix::fs::open(folder, flags, Mode::RUSR | Mode::WUSR) {
            return Ok(file.into());
        }
    }
    Ok(rustix::fs::memfd_create("tailscaled", MemfdFlags::CLOEXEC)?.into())
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn v8_a_copy_runs_and_its_memory_is_closed_to_its_user() {
        let folder = tempfile::tempdir().unwrap();
        let cat = Path::new("/bin/cat");
        let Some(copy) = unreadable_copy(cat, folder.path()).unwrap() else {
            assert!(rustix::process::geteuid().is_root(), "only root reads every file");
            return;
        };
        let run = |program: &Path| {
            let mut child =
                Command::new(program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
            // The program runs once it copies what it was given.
            use std::io::{Read as _, Write as _};
            child.stdin.as_mut().unwrap().write_all(b"x").unwrap();
            child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
            let memory = File::open(format!("/proc/{}/mem", child.id()));
            let descriptors = std::fs::read_dir(format!("/proc/{}/fd", child.id()));
            drop(child.stdin.take());
            assert!(child.wait().unwrap().success());
            (memory.is_ok(), descriptors.is_ok())
        };
        assert_eq!(run(cat), (true, true), "without the copy they are open");
        let copy = format!("/proc/self/fd/{}", copy.as_raw_fd());
        assert_eq!(run(Path::new(&copy)), (false, false));
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0, "it has no name");
    }

    #[test]
    fn a_script_stays_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("s");
        for text in ["#!/bin/sh\n", "", "ab"] {
            std::fs::write(&script, text).unwrap();
            assert!(unreadable_copy(&script, folder.path()).unwrap().is_none(), "{text:?}");
        }
    }
}
