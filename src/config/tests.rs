//! The two stages by example, and by proptest.
#![forbid(unsafe_code)]

use std::path::Path;

use proptest::prelude::*;

use super::*;

fn problems(text: &str, env: &[(&str, &str)], sets: &[(&str, &str)]) -> Vec<String> {
    read(text, env, sets).map_or_else(|problems| problems.lines(), |_| Vec::new())
}

fn read(text: &str, env: &[(&str, &str)], sets: &[(&str, &str)]) -> Result<Config, Problems> {
    let env = Environment::of(env.iter().copied());
    let flags: Vec<Flag> =
        sets.iter().map(|(key, value)| Flag::set(&format!("{key}={value}"))).collect();
    let written = parse(Some((Path::new("f"), text)), &env, &flags);
    check(&written, &env).map(|checked| checked.config)
}

/// A file that is fine, so that only the line added to it is judged.
const FINE: &str = "run_dir = \"/r\"\nupstream.kind = \"direct\"\n";

fn only(line: &str) -> String {
    let found = problems(&format!("{FINE}{line}\n"), &[], &[]);
    assert_eq!(found.len(), 1, "{line}: {found:?}");
    found[0].clone()
}

#[test]
fn defaults_are_those_of_the_typed_settings() {
    let expected = Config::with_upstream(UpstreamKind::Direct, "/r".into());
    assert_eq!(read(FINE, &[], &[]).unwrap(), expected);
    let text = "run_dir = \"/r\"\nupstream.socks5 = \"127.0.0.1:1080\"\n";
    let server = UpstreamKind::Socks5("127.0.0.1:1080".parse().unwrap());
    assert_eq!(read(text, &[], &[]).unwrap(), Config::with_upstream(server, "/r".into()));
}

#[test]
fn f2_every_problem_at_once_each_at_its_place() {
    let text =
        "[policy]\nmdoe = \"log\"\n[limits]\n  idle_timeout = 5\n[upstream]\nkind = \"direct\"\n";
    let found = problems(text, &[("TAILRACE_LOG_LEVL", "x")], &[("dns.timeot", "1s")]);
    assert_eq!(
        found,
        [
            "config: f:2:1: unknown key \"policy.mdoe\": did you mean policy.mode?",
            "config: f:4:18: limits.idle_timeout wants a duration such as \"7s\", not the number 5",
            "config: environment TAILRACE_LOG_LEVL: unknown variable: did you mean TAILRACE_LOG_LEVEL?",
            "config: flag --set dns.timeot=1s: unknown key \"dns.timeot\": did you mean dns.timeout?",
        ]
    );
}

#[test]
fn f1_broken_toml_is_one_line_per_broken_line() {
    let found = problems("[policy\nmode = \"log\"\n", &[], &[]);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("config: f:1:"), "{found:?}");
}

#[test]
fn f3_impossible_values() {
    for line in [
        "limits.head_timeout = \"0s\"",
        "limits.head_timeout = \"-1s\"",
        "limits.head_timeout = \"99999999999999h\"",
        "limits.max_connections = 0",
        "limits.max_connections = -1",
        "limits.max_connections = 99999999999999999999999",
        "limits.max_connections = \"5\"",
        "relay.splice = \"yes\"",
        "policy.mode = \"enforced\"",
        "listen.proxy = \"127.0.0.1:1\"",
        "listen.proxy = [1]",
        "listen.proxy = []",
        "listen.admin = \"localhost:1\"",
        "policy = 1",
        "log.to = \"stdrr\"",
    ] {
        assert!(only(line).starts_with("config: f:3:"), "{}", only(line));
    }
}

#[test]
fn f4_suffixes_that_never_match() {
    let long = format!("{}ab", "a.".repeat(126));
    for bad in [".", "*", "*.", "a..b", "a b", "ünïcode", "1.2.3.4", "http://x", &long] {
        let line = only(&format!("policy.allowed_host_suffixes = [\"ok.example\", \"{bad}\"]"));
        assert!(line.starts_with("config: f:3:47: policy.allowed_host_suffixes: "), "{line}");
    }
}

#[test]
fn the_comma_separated_field_goes_in_unchanged() {
    let text = format!(
        "{FINE}policy.allowed_host_suffixes = \".Internal.example.com, .ts.net,, *.x , y.z\"\n"
    );
    let names: Vec<(String, bool)> = read(&text, &[], &[])
        .unwrap()
        .policy
        .suffixes
        .into_iter()
        .map(|suffix| (suffix.name.to_string(), suffix.apex))
        .collect();
    let all = [("internal.example.com", false), ("ts.net", false), ("x", false), ("y.z", true)];
    assert_eq!(names, all.map(|(name, apex)| (name.to_owned(), apex)));
}

#[test]
fn f5_enforce_needs_something_allowed() {
    assert!(only("policy.mode = \"enforce\"").contains("all empty"));
    let broken = only("policy = { mode = \"enforce\", allowed_hosts = [\"a b\"] }");
    assert!(broken.contains("would never match"), "{broken}");
}

#[test]
fn f7_f10_listeners() {
    assert!(only("listen.proxy = [\"0.0.0.0:1055\"]").contains("allow_remote"));
    assert!(only("listen.admin = \"127.0.0.1:1055\"").contains("listen.proxy"));
    let own = problems("upstream.socks5 = \"127.0.0.1:1055\"\n", &[], &[]);
    assert!(own.len() == 1 && own[0].contains("that is this gateway"), "{own:?}");
    let fine = "upstream.socks5 = \"10.0.0.5:1055\"\nlisten.proxy = [\"127.0.0.1:0\", \"[::1]:0\"]\n\
                listen.admin = \"127.0.0.1:0\"\n";
    assert_eq!(problems(fine, &[], &[]), [""; 0]);
}

#[test]
fn f8_a_literal_key_is_named_and_not_shown() {
    let text = format!("{FINE}tailnet.auth_key_file = \"tskey-auth-CANARY\"\n");
    let env = [("TAILRACE_TAILNET_AUTH_KEY_FILE", "tskey-auth-CANARY")];
    let found = problems(&text, &env, &[("tailnet.hostname", "tskey-auth-CANARY")]);
    assert!(found.iter().any(|line| line.starts_with("config: f:3:")), "{found:?}");
    assert!(!found.concat().contains("CANARY"), "{found:?}");
}

#[test]
fn f11_flag_over_environment_over_file_over_default() {
    let mode = |text: &str, env: &[(&str, &str)], sets: &[(&str, &str)]| {
        read(text, env, sets).unwrap().policy.mode
    };
    let file = format!("{FINE}policy.mode = \"off\"\npolicy.allowed_hosts = [\"a\"]\n");
    let env = [("TAILRACE_POLICY_MODE", "enforce")];
    assert_eq!(mode(FINE, &[], &[]), PolicyMode::Log);
    assert_eq!(mode(&file, &[], &[]), PolicyMode::Off);
    assert_eq!(mode(&file, &env, &[]), PolicyMode::Enforce);
    assert_eq!(mode(&file, &env, &[("policy.mode", "log")]), PolicyMode::Log);
}

#[test]
fn later_features_say_so() {
    for line in [
        "tailnet.socket = \"/x\"",
        "listen.dns = \"127.0.0.1:53\"",
        "listen.tproxy = [\"127.0.0.1:1\"]",
        "policy.require_sni = true",
        "dns.synthetic = \"198.18.0.0/15\"",
        "dns.mode = \"tailnet\"",
        "upstream.outside_tailnet = \"refuse\"",
        "forward = [{ listen = \"127.0.0.1:1\", target = \"a:1\" }]",
    ] {
        let found = only(line);
        assert!(found.contains("not built yet in this version"), "{found}");
    }
    for text in ["", "upstream.kind = \"tailscaled\"\n", "upstream.kind = \"localapi\"\n"] {
        let found = problems(text, &[], &[]);
        assert!(found.len() == 1 && found[0].contains("upstream.kind = \"socks5\""), "{found:?}");
    }
}

#[test]
fn direct_never_passes_names_on() {
    let config = read(&format!("{FINE}dns.mode = \"upstream\"\n"), &[], &[]).unwrap();
    assert_eq!(config.dns.mode, DnsMode::System);
}

#[test]
fn kubernetes_service_links_are_no_settings() {
    let env = [("TAILRACE_PORT", "tcp://10.0.0.1:1055"), ("TAILRACE_SERVICE_HOST", "10.0.0.1")];
    assert_eq!(problems(FINE, &env, &[("run_dir", "/r")]), [""; 0]);
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in ".{0,400}") {
        drop(read(&text, &[], &[]));
    }

    #[test]
    fn arbitrary_values_never_panic(
        key in 0..keys::KEYS.len(),
        value in "[-0-9a-z.,:/\\[\\]*\"' \\nüé]{0,40}",
    ) {
        let path = keys::KEYS[key].path;
        drop(read(&format!("{path} = {value}\n"), &[], &[(path, &value)]));
        let variable = keys::KEYS[key].variable();
        drop(read(&format!("{path} = {value:?}\n"), &[(&variable, &value)], &[]));
    }
}

/// `config.toml` at the root says the truth: every key, each with its default.
#[test]
fn the_sample_file_has_every_key_with_its_default() {
    let sample = include_str!("../../config.toml");
    let sound = read(&sample.replace("run_dir = \"\"", "run_dir = \"/r\""), &[], &[]).unwrap();
    let server = UpstreamKind::Socks5("127.0.0.1:1080".parse().unwrap());
    assert_eq!(sound, Config::with_upstream(server, "/r".into()));
    let env = Environment::default();
    let written = parse(Some((Path::new("f"), sample)), &env, &[]);
    for entry in written.entries() {
        let path = entry.key.path;
        if !["upstream.socks5", "dns.mode"].contains(&path) {
            assert_ne!(entry.origin, Origin::Default, "{path} is missing");
            assert_eq!(entry.raw, written::default_of(entry.key), "{path}");
        }
    }
}
