//! Which sockets a process has open, from its /proc entry.

use std::collections::BTreeSet;
use std::fs;

use rustix::process::Pid;

/// TCP ports it listens at, any address family (proc_pid_net(5): state 0A is LISTEN).
pub fn listening(pid: Pid) -> BTreeSet<u16> {
    let own = inodes(pid);
    let read = |table: &str| {
        let text = fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
        let port = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let (_, port) = words.get(1)?.rsplit_once(':')?;
            let is_ours = *words.get(3)? == "0A" && own.contains(*words.get(9)?);
            is_ours.then(|| u16::from_str_radix(port, 16).ok())?
        };
        text.lines().skip(1).filter_map(port).collect::<Vec<u16>>()
    };
    ["tcp", "tcp6"].into_iter().flat_map(read).collect()
}

/// Names of its Unix sockets; abstract ones begin with `@`.
pub fn named(pid: Pid) -> BTreeSet<String> {
    let own = inodes(pid);
    let text = fs::read_to_string(format!("/proc/{pid}/net/unix")).unwrap_or_default();
    let name = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        own.contains(*words.get(6)?).then(|| words.get(7).map(|name| (*name).to_owned()))?
    };
    text.lines().skip(1).filter_map(name).collect()
}

/// The inodes of its sockets: `/proc/pid/fd` holds links to `socket:[inode]`.
fn inodes(pid: Pid) -> BTreeSet<String> {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).expect("its descriptors").flatten();
    let inode = |entry: fs::DirEntry| {
        let link = fs::read_link(entry.path()).ok()?;
        Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
    };
    open.filter_map(inode).collect()
}
