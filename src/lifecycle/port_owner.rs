//! Who holds a listening port: for the sentence a person gets when ours is taken.
//!
//! Reads `/proc/net/tcp` (proc(5)) and the descriptors of the processes we may look into; nothing
//! to be found is no error.
#![forbid(unsafe_code)]

use std::fs;
use std::net::SocketAddr;

use crate::sys::{self, Program};

/// The state column of a listening socket (`TCP_LISTEN` in the kernel's `tcp_states.h`).
const LISTEN: &str = "0A";

/// The process that listens on `address`, where `/proc` shows it to us.
pub(crate) fn of(address: SocketAddr) -> Option<u32> {
    let table = if address.is_ipv4() { "/proc/net/tcp" } else { "/proc/net/tcp6" };
    let table = fs::read_to_string(table).ok()?;
    let inode = listening_inode(&table, address.port())?.parse().ok()?;
    sys::programs().into_iter().find(|pid| holds(*pid, inode))
}

fn listening_inode(table: &str, port: u16) -> Option<&str> {
    let port = format!(":{port:04X}");
    table.lines().skip(1).find_map(|line| {
        let mut fields = line.split_whitespace();
        let local = fields.nth(1)?;
        let state = fields.nth(1)?;
        let inode = fields.nth(5)?;
        (local.ends_with(&port) && state == LISTEN).then_some(inode)
    })
}

fn holds(pid: u32, inode: u32) -> bool {
    let Ok(descriptors) = Program::open(pid).and_then(|program| program.descriptors()) else {
        return false;
    };
    descriptors.numbers().into_iter().any(|number| descriptors.socket(number) == Some(inode))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn our_own_listener_is_ours() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(of(listener.local_addr().unwrap()), Some(std::process::id()));
    }

    #[test]
    fn a_table_without_the_port_names_nobody() {
        let table = "  sl  local_address rem_address   st\n\
                     0: 0100007F:1F90 00000000:0000 0A 0:0 0:0 0 0 0 4711 1\n";
        assert_eq!(listening_inode(table, 8080), Some("4711"));
        assert_eq!(listening_inode(table, 8081), None);
    }
}
