//! How a program is wrapped, in one line each: the best of what kernel and sandbox allow.
#![forbid(unsafe_code)]

use std::fmt;

use rustix::io::Errno;

use super::way::Gateway;

/// A rung of the ladder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Rung {
    /// seccomp user notification; whether sockets are duplicated, or replaced.
    Supervised { gateway: Gateway, duplicates: bool },
    /// An outer `run` does it.
    Nested,
    /// The proxy environment alone, and why nothing better.
    Environment { why: String },
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Supervised { gateway, duplicates } => {
                f.write_str("by seccomp user notification, ")?;
                f.write_str(match duplicates {
                    true => "on the program's own sockets (pidfd_getfd)",
                    false => "on sockets put in the place of the program's (no pidfd_getfd here)",
                })?;
                supervised(f, gateway)
            }
            Self::Nested => f.write_str("an outer tailrace run wraps this program already"),
            Self::Environment { why } => {
                write!(f, "by the proxy environment alone, for programs that heed it: {why}")
            }
        }
    }
}

fn supervised(f: &mut fmt::Formatter<'_>, gateway: &Gateway) -> fmt::Result {
    let proxy: Vec<String> = gateway.proxy.iter().map(ToString::to_string).collect();
    write!(f, ": TCP to {}, ", proxy.join(" or "))?;
    match gateway.dns {
        Some(dns) => write!(f, "DNS to {dns}"),
        None => f.write_str("names by this host's resolver (the gateway tells no DNS port)"),
    }
}

/// Why there is no supervisor.
pub(super) fn no_filter(errno: Errno) -> String {
    let why = match errno {
        Errno::BUSY => "another supervisor (a container runtime's, say) holds the listener",
        Errno::INVAL | Errno::NOSYS => "this kernel or sandbox has no seccomp user notification",
        Errno::PERM | Errno::ACCESS => "a sandbox forbids seccomp",
        _ => "the kernel takes no filter",
    };
    format!("{why} (seccomp: {errno})")
}
