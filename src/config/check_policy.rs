//! What the policy lists mean. A rule that could never match is an error, not a silent rule.
#![forbid(unsafe_code)]

use std::net::IpAddr;

use globset::GlobBuilder;
use ipnet::IpNet;

use super::check::ConfigCheck;
use super::config_problem::quoted;
use super::keys::{self, Setting};
use super::raw_config::Item;
use super::setting_types::TextList;
use super::settings::{Policy, PolicyMode};
use crate::policy::suffix::{Suffix, SuffixError};
use crate::target::HostError;

const SUFFIXES: Setting<TextList> = keys::POLICY_ALLOWED_HOST_SUFFIXES;
const GLOBS: Setting<TextList> = keys::POLICY_ALLOWED_HOSTS;
const NETS: Setting<TextList> = keys::POLICY_ALLOWED_NETS;

/// Reads `[policy]`; mode enforce with three empty lists is a problem, since it would refuse everything.
pub(super) fn check_policy(check: &mut ConfigCheck<'_>) -> Policy {
    let mode = check.written.get(keys::POLICY_MODE);
    let lists = [SUFFIXES, GLOBS, NETS];
    let is_empty =
        |list: Setting<TextList>| check.written.get(list).is_empty() && !check.is_broken(list);
    let none = lists.into_iter().all(is_empty);
    if mode == PolicyMode::Enforce && none {
        let what = format!(
            "policy.mode = \"enforce\" with {SUFFIXES}, {GLOBS} and {NETS} all empty would refuse \
             everything: allow something, or use \"log\""
        );
        check.add_problem(check.written.origin(keys::POLICY_MODE), what);
    }
    Policy {
        mode,
        suffixes: read_list(check, SUFFIXES, read_suffix),
        globs: read_list(check, GLOBS, read_glob),
        nets: read_list(check, NETS, read_net),
        deny_nets: read_list(check, keys::POLICY_DENY_NETS, read_net),
        require_sni: check.written.get(keys::POLICY_REQUIRE_SNI),
    }
}

/// Reads every item of a list; what cannot be read becomes a problem at its own place.
fn read_list<T>(
    check: &mut ConfigCheck<'_>,
    setting: Setting<TextList>,
    read: fn(&str) -> Result<T, String>,
) -> Vec<T> {
    let items: &[Item] = check.written.get(setting);
    let mut values = Vec::with_capacity(items.len());
    for item in items {
        match read(&item.text) {
            Ok(value) => values.push(value),
            Err(why) => check.add_problem(item.origin.clone(), format!("{setting}: {why}")),
        }
    }
    values
}

fn read_suffix(text: &str) -> Result<Suffix, String> {
    Suffix::parse(text).map_err(|why| match why {
        SuffixError::Empty { .. } => {
            format!("{} names no domain: write it like .corp.example", quoted(text))
        }
        SuffixError::Address { .. } => {
            format!("{} is an address: put it in {NETS}", quoted(text))
        }
        SuffixError::Name { source, .. } => {
            format!("{} would never match: {}", quoted(text), host_error_reason(&source))
        }
    })
}

/// Why a text is no host, without the text: that is shown once, bounded and without keys.
pub(super) fn host_error_reason(why: &HostError) -> &'static str {
    match why {
        HostError::Empty => "it is empty",
        HostError::Character { .. } => "a host has only ASCII letters, digits, '.', '_' and '-'",
        HostError::Length { .. } => {
            "a label is empty or longer than 63 bytes, or all of it longer than 253"
        }
        HostError::Number { .. } => "it looks like an address",
        HostError::ALabel { .. } => "an xn-- label in it decodes to no international name",
        HostError::Port { .. } => "it has a port",
        HostError::Brackets { .. } => "it has brackets",
    }
}

/// Letters of host names and of globs; anything else is in no host name.
fn is_glob_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "._-*?[]{},!".contains(c)
}

fn read_glob(text: &str) -> Result<String, String> {
    let bare = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    if bare.is_empty() || !bare.chars().all(is_glob_char) {
        return Err(format!("{} would never match a host name", quoted(text)));
    }
    if bare.split('.').any(str::is_empty) {
        return Err(format!("{} has an empty label and would never match", quoted(text)));
    }
    let glob = GlobBuilder::new(&bare.replace('.', "/")).literal_separator(true).build();
    glob.map_err(|why| format!("{} is no glob: {}", quoted(text), why.kind()))?;
    Ok(bare)
}

fn read_net(text: &str) -> Result<IpNet, String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(address.to_canonical()));
    }
    let no_net =
        || format!("{} is no network: write one such as 10.0.0.0/8 or fd00::/8", quoted(text));
    let net: IpNet = text.parse().map_err(|_| no_net())?;
    if net.addr() != net.network() {
        return Err(format!(
            "{} has bits set beyond its prefix: did you mean {}?",
            quoted(text),
            net.trunc()
        ));
    }
    // Addresses are judged in canonical form, so an IPv4-mapped network would never match.
    match net {
        IpNet::V6(v6) if v6.prefix_len() >= 96 && v6.addr().to_ipv4_mapped().is_some() => {
            Err(format!("{} is IPv4 in IPv6 form: write it as an IPv4 network", quoted(text)))
        }
        net => Ok(net),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_and_nets_that_never_match_are_refused() {
        for bad in ["a b", "http://x", "a..b", "ü*", "", ".", "[a", "{a"] {
            assert!(read_glob(bad).is_err(), "{bad}");
        }
        assert_eq!(read_glob("Grafana-*.x.").as_deref(), Ok("grafana-*.x"));
        for bad in ["10.0.0.1/8", "10.0.0.0/33", "x", "::ffff:10.0.0.0/104", "fe80::1/10"] {
            assert!(read_net(bad).is_err(), "{bad}");
        }
        assert_eq!(read_net("10.1.2.3").map(|n| n.to_string()).as_deref(), Ok("10.1.2.3/32"));
    }
}
