//! Another process's memory, by process_vm_readv(2) and process_vm_writev(2), or proc(5) `mem` where
//! a sandbox forbids those.
#![allow(unsafe_code, reason = "the two system calls have no safe wrapper")]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;

/// Fills `into` from `address` in the memory of `pid`.
///
/// # Errors
/// `EFAULT` when not all of it can be read there, `EPERM` for a process that is closed to us
/// (ptrace(2), `PTRACE_MODE_ATTACH_REALCREDS`), `ESRCH` for one that is gone.
pub fn read_memory(pid: u32, address: u64, into: &mut [u8]) -> io::Result<()> {
    if into.is_empty() {
        return Ok(());
    }
    let local = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
    let remote = remote_range(address, into.len())?;
    // SAFETY: `local` is `into`, which is borrowed alone for the call; `remote` names memory that is
    // not ours, and the kernel checks it.
    let count = unsafe { libc::process_vm_readv(pid.cast_signed(), &local, 1, &remote, 1, 0) };
    match check_count(count, into.len()) {
        Err(error) if is_forbidden(&error) => open_memory(pid, false)?.read_exact_at(into, address),
        done => done,
    }
}

/// Writes `from` to `address` in the memory of `pid`.
///
/// # Errors
/// As of [`read_memory`].
pub fn write_memory(pid: u32, address: u64, from: &[u8]) -> io::Result<()> {
    if from.is_empty() {
        return Ok(());
    }
    let local = libc::iovec { iov_base: from.as_ptr().cast_mut().cast(), iov_len: from.len() };
    let remote = remote_range(address, from.len())?;
    // SAFETY: the kernel only reads `local`, which is `from`; `remote` names memory that is not ours,
    // and the kernel checks it.
    let count = unsafe { libc::process_vm_writev(pid.cast_signed(), &local, 1, &remote, 1, 0) };
    match check_count(count, from.len()) {
        Err(error) if is_forbidden(&error) => open_memory(pid, true)?.write_all_at(from, address),
        done => done,
    }
}

fn remote_range(address: u64, length: usize) -> io::Result<libc::iovec> {
    let address = usize::try_from(address).map_err(|_| fault())?;
    Ok(libc::iovec { iov_base: std::ptr::without_provenance_mut(address), iov_len: length })
}

fn check_count(count: isize, wanted: usize) -> io::Result<()> {
    match usize::try_from(count) {
        Ok(count) if count == wanted => Ok(()),
        Ok(_) => Err(fault()),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

fn fault() -> io::Error {
    io::Error::from_raw_os_error(libc::EFAULT)
}

fn is_forbidden(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EPERM | libc::ENOSYS))
}

fn open_memory(pid: u32, write: bool) -> io::Result<File> {
    OpenOptions::new().read(!write).write(write).open(format!("/proc/{pid}/mem"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_and_written_whole_or_not_at_all() {
        let (me, there) = (std::process::id(), *b"0123456789");
        let at = there.as_ptr() as u64;
        let mut seen = [0; 10];
        read_memory(me, at, &mut seen).unwrap();
        assert_eq!(seen, there);
        open_memory(me, false).unwrap().read_exact_at(&mut seen, at).unwrap();
        let mut target = [0_u8; 3];
        write_memory(me, target.as_mut_ptr() as u64, b"abc").unwrap();
        assert_eq!(std::hint::black_box(target), *b"abc");
        let error = read_memory(me, 8, &mut seen).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EFAULT));
        assert!(read_memory(u32::MAX >> 1, at, &mut seen).is_err());
    }
}
