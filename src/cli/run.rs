//! `tailrace run`: a program whose connections go through the running gateway.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use tailrace_run::{GatewayAccess, ProgramToRun, ProxyAnswer, ProxyClient, UserNotices};

use super::args::Settings;
use super::gateway_discovery::{self, Given};
use super::{display_text, exit, line_output};
use crate::api::StatusAnswer;
use crate::lifecycle::command::CommandError;
use crate::lifecycle::environment;
use crate::lifecycle::run_dir::{Listening, RunDir};
use crate::upstream::Unparsed;
use crate::upstream::socks5::{self, Parsed, Reply};

/// Beyond the gateway's own limit for a connection, for its answer to arrive.
const GRACE: Duration = Duration::from_secs(2);
/// When the gateway's settings are not ours to read: more than any sound `upstream.connect_timeout`.
const LONG: Duration = Duration::from_secs(60);

/// SOCKS5, as it is spoken to upstreams.
#[derive(Debug)]
struct Socks5Client;

impl ProxyClient for Socks5Client {
    fn request(&self, target: SocketAddr) -> Vec<u8> {
        [&socks5::GREETING[..], &socks5::request_address(target)].concat()
    }

    fn parse(&self, received: &[u8]) -> ProxyAnswer {
        let reply = socks5::parse_method(received)
            .and_then(|()| socks5::parse_reply(&received[socks5::METHOD..]));
        match reply {
            Ok(Parsed { reply: Reply::Connected(_), used }) => {
                ProxyAnswer::Connected(socks5::METHOD + used)
            }
            Ok(Parsed { reply: Reply::Refused(reason), .. }) => ProxyAnswer::Refused(reason),
            Err(Unparsed::Incomplete) => ProxyAnswer::Incomplete,
            Err(Unparsed::Bad(_)) => ProxyAnswer::Malformed,
        }
    }
}

pub(super) fn run(settings: &Settings, explain: bool, command: Vec<OsString>) -> ExitCode {
    let mut command = command.into_iter();
    let Some(program) = command.next() else { return ExitCode::from(exit::USAGE) };
    let gateway = match gateway(settings) {
        Ok(gateway) => gateway,
        Err(code) => return code,
    };
    let say = |text: &str| {
        line_output::error(format_args!("tailrace run: {}", display_text::plain(text)))
    };
    let explained = |text: &str| {
        if explain {
            say(text);
        }
    };
    // Not the run directory, which may be another user's.
    let user = rustix::process::geteuid().as_raw();
    let folder = std::env::temp_dir().join(format!("tailrace-run-{user}"));
    let program = ProgramToRun {
        program,
        arguments: command.collect(),
        withheld: withheld(),
        proxy_variables: environment::preferred(&gateway.proxy)
            .map(environment::proxied)
            .unwrap_or_default(),
        private_folder: &|| private_folder(&folder),
    };
    match tailrace_run::run(&program, gateway, UserNotices { warn: &say, explain: &explained }) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let error = CommandError::of(&program.program, error);
            line_output::error(format_args!("tailrace: {error}"));
            ExitCode::from(error.exit_code())
        }
    }
}

/// Variables that are private, and those that would lead psql elsewhere (to a `[[forward]]` listener).
fn withheld() -> Vec<OsString> {
    let private = std::env::vars_os().filter(|(n, v)| environment::is_private(n, v));
    private.map(|(name, _)| name).chain(["PGHOSTADDR".into(), "PGPORT".into()]).collect()
}

/// The folder, once it is this user's alone.
fn private_folder(folder: &Path) -> io::Result<PathBuf> {
    RunDir::open(folder).map_err(io::Error::other)?;
    Ok(folder.to_owned())
}

/// The running gateway, as it says itself.
fn gateway(settings: &Settings) -> Result<GatewayAccess, ExitCode> {
    let found = gateway_discovery::gateway(settings)
        .map_err(|problems| gateway_discovery::misconfigured(&problems))?;
    let status = gateway_discovery::object::<StatusAnswer>(&found, "/api/v1/status");
    let Listening { proxy, dns, .. } =
        status.map_err(|why| gateway_discovery::unanswered(&found, &why))?.listeners;
    let limit = Given::new(settings).load().map(|it| it.checked.config.upstream.connect_timeout);
    Ok(GatewayAccess {
        proxy: if proxy.is_empty() { found.proxy } else { proxy },
        admin: found.admin,
        dns: found.dns.or(dns),
        connect_timeout: limit.map_or(LONG, |limit| limit + GRACE),
        direct: environment::direct_addresses(),
        client: &Socks5Client,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_known_once_it_is_whole_and_what_follows_is_left() {
        let whole = b"\x05\0\x05\0\0\x01\x7f\0\0\x01\0\x50hello";
        for end in 0..12 {
            assert_eq!(Socks5Client.parse(&whole[..end]), ProxyAnswer::Incomplete, "{end}");
        }
        assert_eq!(Socks5Client.parse(whole), ProxyAnswer::Connected(12));
        let asked = Socks5Client.request("10.0.0.1:80".parse().unwrap());
        assert_eq!(asked, *b"\x05\x01\x00\x05\x01\x00\x01\x0a\0\0\x01\0\x50");
    }

    #[test]
    fn refusals_are_told_from_what_is_no_answer() {
        for rep in 1..=8 {
            let refusal = [5, 0, 5, rep, 0, 1, 0, 0, 0, 0, 0, 0];
            assert_eq!(Socks5Client.parse(&refusal), ProxyAnswer::Refused(rep));
        }
        for garbage in [&b"HTTP/1.1 200 OK\r\n\r\n"[..], &[5, 0xff], &[5, 0, 4]] {
            assert_eq!(Socks5Client.parse(garbage), ProxyAnswer::Malformed, "{garbage:?}");
        }
    }

    #[test]
    fn the_library_s_folder_is_made_and_is_no_link_of_a_stranger_s() {
        let folder = tempfile::tempdir().unwrap();
        let ours = folder.path().join("ours");
        assert_eq!(private_folder(&ours).unwrap(), ours);
        assert!(ours.is_dir());
        std::os::unix::fs::symlink(&ours, folder.path().join("link")).unwrap();
        assert!(private_folder(&folder.path().join("link")).is_err());
    }
}
