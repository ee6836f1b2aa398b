//! The processes of this host as `/proc` shows them to us (proc(5)): whose they are, which program
//! they run since when, and which sockets they hold.

use std::os::fd::OwnedFd;

use rustix::fs::{Dir, Mode, OFlags};
use rustix::io::Errno;
use rustix::path::DecInt;

use super::stat;

/// Long enough for the target of any link to a socket.
const SOCKET_LINK: usize = 32;

/// One process. Its folder is kept open: what is read through it is never of a later process that got
/// the same id.
#[derive(Debug)]
pub struct Program {
    id: u32,
    folder: OwnedFd,
}

impl Program {
    /// The process with this id.
    ///
    /// # Errors
    /// `ENOENT` if there is none, or none that we see.
    pub fn open(id: u32) -> Result<Self, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::open(format!("/proc/{id}"), flags, Mode::empty())?;
        Ok(Self { id, folder })
    }

    /// The id that its folder was opened by.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Its effective user; root's 0 for one that is closed to its user (`PR_SET_DUMPABLE`).
    ///
    /// # Errors
    /// What `fstat(2)` says.
    pub fn uid(&self) -> Result<u32, Errno> {
        Ok(rustix::fs::fstat(&self.folder)?.st_uid)
    }

    /// Its descriptors, where we may look at them.
    ///
    /// # Errors
    /// `EACCES` where we may not; `ENOENT` or `ESRCH` when it is gone.
    pub fn descriptors(&self) -> Result<Descriptors, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::openat(&self.folder, c"fd", flags, Mode::empty())?;
        Ok(Descriptors { folder })
    }

    /// The path of the file it runs, as the kernel knows it, without the note that it was deleted.
    pub fn executable(&self) -> Option<Vec<u8>> {
        let path = rustix::fs::readlinkat(&self.folder, c"exe", Vec::with_capacity(256)).ok()?;
        let mut path = path.into_bytes();
        let name = path.strip_suffix(b" (deleted)").unwrap_or(&path).len();
        path.truncate(name);
        Some(path)
    }

    /// When it was started, in seconds since boot (`starttime` in proc(5) stat).
    pub fn started(&self) -> Option<f64> {
        self.stat(start_time)
    }

    /// Who started it (`ppid` in proc(5) stat); 0 for nobody we see.
    pub fn parent(&self) -> Option<u32> {
        self.stat(|stat| stat::fields(stat)?.nth(1)?.parse().ok())
    }

    fn stat<T>(&self, read: impl FnOnce(&[u8]) -> Option<T>) -> Option<T> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.folder, c"stat", flags, Mode::empty()).ok()?;
        let mut stat = [0; 1024];
        let length = rustix::io::read(file, &mut stat[..]).ok()?;
        read(stat.get(..length)?)
    }
}

fn start_time(stat: &[u8]) -> Option<f64> {
    Some(stat::number(stat, 22)? / stat::TICKS)
}

/// The descriptors of one process.
#[derive(Debug)]
pub struct Descriptors {
    folder: OwnedFd,
}

impl Descriptors {
    /// The inode of the socket behind a descriptor; `None` where it is something else, or not there.
    pub fn socket(&self, number: u32) -> Option<u32> {
        // Only the link is read: following it could hang on a file system that does not answer.
        let mut link = [0; SOCKET_LINK];
        let path = DecInt::new(number);
        let length = rustix::fs::readlinkat_raw(&self.folder, path, &mut link[..]).ok()?;
        let inode = link.get(..length)?.strip_prefix(b"socket:[")?.strip_suffix(b"]")?;
        std::str::from_utf8(inode).ok()?.parse().ok()
    }

    /// All their numbers, in no order.
    pub fn numbers(&self) -> Vec<u32> {
        numbers(Dir::read_from(&self.folder))
    }
}

/// The ids of all processes we see, in no order.
pub fn programs() -> Vec<u32> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    numbers(rustix::fs::open(c"/proc", flags, Mode::empty()).and_then(Dir::new))
}

fn numbers(folder: Result<Dir, Errno>) -> Vec<u32> {
    let entries = folder.into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str().ok()?.parse().ok()).collect()
}

/// Whether we may look into processes of other users (`CAP_SYS_PTRACE`, ptrace(2)).
pub fn sees_other_users() -> bool {
    use rustix::thread::{CapabilitySet, capabilities};
    capabilities(None).is_ok_and(|own| own.effective.contains(CapabilitySet::SYS_PTRACE))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::net::TcpListener;
    use std::os::fd::AsRawFd as _;
    use std::os::unix::ffi::OsStrExt as _;

    use super::*;

    #[test]
    fn we_find_ourselves_and_our_sockets() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let number = u32::try_from(listener.as_raw_fd()).unwrap();
        assert!(programs().contains(&std::process::id()));
        let me = Program::open(std::process::id()).unwrap();
        assert_eq!(me.uid().unwrap(), rustix::process::geteuid().as_raw());
        let path = std::env::current_exe().unwrap();
        assert_eq!(me.executable().unwrap(), path.as_os_str().as_bytes());
        assert!(me.started().unwrap() > 0.0);
        assert_eq!(me.parent(), Some(std::os::unix::process::parent_id()));
        let descriptors = me.descriptors().unwrap();
        assert!(descriptors.numbers().contains(&number));
        let inode = rustix::fs::fstat(&listener).unwrap().st_ino;
        assert_eq!(descriptors.socket(number).map(u64::from), Some(inode));
        let file = fs::File::open(path).unwrap();
        assert_eq!(descriptors.socket(u32::try_from(file.as_raw_fd()).unwrap()), None);
        assert_eq!(descriptors.socket(u32::MAX), None);
    }

    #[test]
    fn a_name_with_brackets_and_blanks_does_not_shift_the_fields() {
        let stat = b"7 (a) b c) S 1 7 7 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 3 0 1234 0";
        assert_eq!(start_time(stat), Some(12.34));
        assert_eq!(start_time(b"7 (a"), None);
    }

    #[test]
    fn a_process_that_ended_is_gone_for_good() {
        let mut child = std::process::Command::new("cat")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let program = Program::open(child.id()).unwrap();
        assert!(program.started().is_some());
        drop(child.stdin.take());
        child.wait().unwrap();
        assert_eq!(program.started(), None);
        assert!(program.executable().is_none() && program.descriptors().is_err());
        assert!(Program::open(child.id()).is_err() || program.started().is_none());
    }
}
