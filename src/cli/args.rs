//! The command line, as clap reads it.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::target::{Host, HostError, parse_port};

/// A gateway that lets any command-line tool reach private services on a tailnet.
#[derive(Debug, Parser)]
#[command(name = "tailrace", version = VERSION, arg_required_else_help = true)]
pub(super) struct Program {
    #[command(flatten)]
    pub(super) settings: Settings,
    #[command(subcommand)]
    pub(super) command: Command,
}

/// Version, commit and target, as `--version` prints them.
const VERSION: &str =
    concat!(env!("CARGO_PKG_VERSION"), " (", env!("BUILD_COMMIT"), ", ", env!("BUILD_TARGET"), ")");

/// Where settings come from; every command takes these.
#[derive(Debug, Clone, Args)]
pub(super) struct Settings {
    /// The configuration file [default: $TAILRACE_CONFIG, then /etc/tailrace/config.toml]
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// One setting, as policy.mode=enforce; wins over environment and file; may be repeated
    #[arg(long, global = true, value_name = "KEY=VALUE")]
    pub(super) set: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Start the gateway; with a program, run it behind the gateway and end with it
    Up {
        /// How long the gateway may take to be ready for the program, as 60s or 2m
        #[arg(long, default_value = "60s", value_parser = duration)]
        ready_timeout: Duration,
        /// A program and its arguments
        #[arg(last = true, value_name = "CMD")]
        command: Vec<OsString>,
    },
    /// Show the running gateway: tailnet, upstream, listeners, policy, counters
    Status {
        /// The other nodes of the tailnet too
        #[arg(long)]
        peers: bool,
        /// For programs
        #[arg(long)]
        json: bool,
    },
    /// Return when a connection would be carried; 75 at the deadline
    Wait {
        /// How long to wait, as 60s or 2m
        #[arg(long, default_value = "60s", value_parser = duration)]
        timeout: Duration,
    },
    /// Walk every link of the chain; say of the first broken one why, and what to do
    Doctor {
        /// For programs
        #[arg(long)]
        json: bool,
        /// A host to be reached through the gateway [default port: 443]
        #[arg(value_name = "HOST[:PORT]")]
        target: Option<String>,
    },
    /// Explain what becomes of a target: policy, resolver, addresses, route
    Explain {
        /// For programs
        #[arg(long)]
        json: bool,
        /// A host, with or without a port [default port: 443]
        #[arg(value_name = "HOST[:PORT]")]
        target: String,
    },
    /// Carry standard input and output through the gateway, as ssh's ProxyCommand
    #[command(after_help = CONNECT_HELP)]
    Connect {
        /// A name or an address
        #[arg(value_parser = host)]
        host: Host,
        /// A port
        #[arg(value_parser = port)]
        port: NonZeroU16,
    },
    /// Run a program that knows no proxy: its TCP connections and look-ups go through the gateway
    ///
    /// Needs no root and no capability. It is a convenience, not a fence. Programs that gain a
    /// privilege by being started (sudo) start without it.
    Run {
        /// Say how the program is wrapped and why, and at the end what was carried
        #[arg(long)]
        explain: bool,
        /// A program and its arguments
        #[arg(
            required = true,
            trailing_var_arg = true,
            allow_hyphen_values = true,
            value_name = "CMD"
        )]
        command: Vec<OsString>,
    },
    /// Print the proxy environment, ready for eval
    Env {
        /// In which words
        #[arg(long, value_enum, default_value_t = Shell::Sh)]
        shell: Shell,
    },
    /// Print an nft ruleset that leads every outgoing TCP connection here, but those of one user
    #[command(after_help = NFT_HELP)]
    Nft {
        /// Whose connections are left alone: the user the gateway and tailscaled run as
        #[arg(
            long,
            value_name = "N",
            required_unless_present = "undo",
            value_parser = clap::value_parser!(u32).range(..=i64::from(u32::MAX) - 1)
        )]
        uid: Option<u32>,
        /// Print the ruleset that takes the other one out again
        #[arg(long)]
        undo: bool,
    },
    /// Check or show the settings
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Ask the policy
    Policy {
        #[command(subcommand)]
        command: PolicyCommand,
    },
    /// Show the gateway at work, without account, tailscaled or root
    Demo {
        /// The part that runs in a network namespace of its own
        #[arg(long, hide = true)]
        redirected: bool,
    },
    /// Make a folder in memory for the gateway that asks for it
    #[command(name = crate::tailnet::memory_folder::COMMAND, hide = true)]
    MemoryFolder,
    /// Print shell completions
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man,
}

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Say everything that is wrong with the settings; 78 if anything is
    Check {
        /// The file to check instead of the one in force
        file: Option<PathBuf>,
    },
    /// Print the effective settings and where each came from
    Show {
        /// For programs
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum PolicyCommand {
    /// Print each host's verdict and why; 1 if any would be refused
    Test {
        /// For programs
        #[arg(long)]
        json: bool,
        /// Hosts, with or without a port
        #[arg(required = true, value_name = "HOST")]
        hosts: Vec<String>,
    },
}

/// In which words `env` speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Shell {
    /// POSIX shells, bash and zsh
    Sh,
    /// fish
    Fish,
    /// One object
    Json,
}

/// Where `connect` is of use.
const CONNECT_HELP: &str = "\
ssh -o ProxyCommand='tailrace connect %h %p' HOST
Ends 0 when both directions ended well, 1 when one was cut or the target was refused, 69 without a gateway.";

/// What to do with what `nft` prints.
const NFT_HELP: &str = "\
tailrace nft --uid N | nft -f -         leads connections here (root; again is no harm)
tailrace nft --undo | nft -f -          and no more
Both in the network namespace of the programs, where the gateway has to listen too.";

fn host(text: &str) -> Result<Host, HostError> {
    let inner = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    match inner.and_then(|inner| inner.parse::<Ipv6Addr>().ok()) {
        Some(v6) => Ok(Host::from(IpAddr::V6(v6))),
        None => Host::parse(text.as_bytes()),
    }
}

fn port(text: &str) -> Result<NonZeroU16, HostError> {
    parse_port(text.as_bytes())
}

fn duration(text: &str) -> Result<Duration, String> {
    crate::config::parse_duration(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Program::command().debug_assert();
    }
}
