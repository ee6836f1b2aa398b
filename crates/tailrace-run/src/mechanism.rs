//! How a program is wrapped, in one line each: the best of what kernel and sandbox allow.
#![forbid(unsafe_code)]

use std::ffi::CStr;
use std::fmt;

use rustix::io::Errno;

use super::routing::GatewayAccess;

/// How the connections of a program are led to the gateway, from the best to the least.
#[derive(Debug, Clone)]
pub(super) enum RunMechanism {
    /// seccomp user notification; whether sockets are duplicated, or replaced.
    Supervised { gateway: GatewayAccess, duplicates: bool },
    /// An outer `run` does it.
    Nested,
    /// The shim, and why no supervisor.
    Preload { why: String },
    /// The proxy environment alone, why no supervisor, and why not the shim either.
    Environment { why: String, nor: String },
}

impl fmt::Display for RunMechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Supervised { gateway, duplicates } => {
                f.write_str("by seccomp user notification, ")?;
                f.write_str(match duplicates {
                    true => "on the program's own sockets (pidfd_getfd)",
                    false => "on sockets put in the place of the program's (no pidfd_getfd here)",
                })?;
                write_supervised(f, gateway)
            }
            Self::Nested => f.write_str("an outer tailrace run wraps this program already"),
            Self::Preload { why } => write!(
                f,
                "by a shim that dynamic programs load (LD_PRELOAD), and the proxy environment: {why}"
            ),
            Self::Environment { why, nor } => {
                write!(f, "by the proxy environment alone, for programs that heed it: {why}; {nor}")
            }
        }
    }
}

fn write_supervised(f: &mut fmt::Formatter<'_>, gateway: &GatewayAccess) -> fmt::Result {
    let proxy: Vec<String> = gateway.proxy.iter().map(ToString::to_string).collect();
    write!(f, ": TCP to {}, ", proxy.join(" or "))?;
    match gateway.dns {
        Some(dns) => write!(f, "DNS to {dns}"),
        None => f.write_str("names by this host's resolver (the gateway tells no DNS port)"),
    }
}

/// Whether a kernel of this release (uname(2)) can let calls pass and replace descriptors: Linux 5.9.
/// An older one takes the filter and leaves callers hanging.
pub(super) fn is_recent(release: &CStr) -> bool {
    let text = release.to_string_lossy();
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= (5, 9),
        _ => false,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_by_number() {
        for recent in [c"6.18.44-fc", c"5.9.0", c"5.15.0-91-generic", c"10.0"] {
            assert!(is_recent(recent), "{recent:?}");
        }
        for old in [c"4.4.0", c"5.8.18", c"5.4.0-1.el8", c"5", c""] {
            assert!(!is_recent(old), "{old:?}");
        }
    }
}
