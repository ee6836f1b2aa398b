//! The two stages by example, and by proptest.
#![forbid(unsafe_code)]

use std::path::Path;

use proptest::prelude::*;

use super::*;

fn problems(text: &str, env: &[(&str, &str)], sets: &[(&str, &str)]) -> Vec<String> {
    read(text, env, sets).map_or_else(|problems| problems.lines(), |_| Vec::new())
}

fn read(text: &str, env: &[(&str, &str)], sets: &[(&str, &str)]) -> Result<Config, Problems> {
    let env = ProcessEnvironment::from_pairs(env.iter().copied());
    let flags: Vec<SettingFlag> = sets
        .iter()
        .map(|(key, value)| SettingFlag::from_assignment(&format!("{key}={value}")))
        .collect();
    let written = parse(Some((Path::new("f"), text)), &env, &flags);
    check_config(&written, &env).map(|checked| checked.config)
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
        "limits.max_head = \"64\"",
        "limits.max_head = \"64KB\"",
        "limits.max_head = 65536",
        "limits.max_head = \"1023B\"",
        "limits.max_head = \"1025KiB\"",
        "limits.max_head = \"-1KiB\"",
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
fn p24_the_longest_head_is_a_size() {
    for (text, bytes) in
        [("", 65_536), ("max_head = \"1KiB\"", 1024), ("max_head = \"1MiB\"", 1 << 20)]
    {
        let config = read(&format!("{FINE}[limits]\n{text}\n"), &[], &[]).unwrap();
        assert_eq!(config.limits.max_head, bytes, "{text}");
    }
    let env = [("TAILRACE_LIMITS_MAX_HEAD", "100KiB")];
    assert_eq!(read(FINE, &env, &[]).unwrap().limits.max_head, 100 << 10);
    let line = only("limits.max_head = \"2MiB\"");
    assert!(
        line.ends_with("limits.max_head wants a size from 1KiB to 1MiB, not \"2MiB\""),
        "{line}"
    );
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
    assert!(only("listen.dns = \"0.0.0.0:53\"").contains("allow_remote"));
    assert!(only("listen.dns = \"127.0.0.1:9155\"").contains("listen.admin"));
    assert!(only("listen.dns = \"localhost\"").contains("an address and a port"));
    let own = problems("upstream.socks5 = \"127.0.0.1:1055\"\n", &[], &[]);
    assert!(own.len() == 1 && own[0].contains("that is this gateway"), "{own:?}");
    let fine = "upstream.socks5 = \"10.0.0.5:1055\"\nlisten.proxy = [\"127.0.0.1:0\", \"[::1]:0\"]\n\
                listen.admin = \"127.0.0.1:0\"\n";
    assert_eq!(problems(fine, &[], &[]), [""; 0]);
}

#[test]
fn f7_f10_forwards() {
    let forward = |listen: &str, target: &str| {
        format!("[[forward]]\nlisten = \"{listen}\"\ntarget = \"{target}\"\n")
    };
    let found = |more: &str| problems(&format!("{FINE}{more}"), &[], &[]);
    let two = forward("127.0.0.2:5432", "DB.corp.example.:5432")
        + &forward("127.0.0.3:5432", "[fd00::1]:5432");
    let read = read(&format!("{FINE}{two}"), &[], &[]).unwrap().forwards;
    let shown = read.iter().map(|f| format!("{} {}", f.listen, f.target)).collect::<Vec<_>>();
    assert_eq!(shown, ["127.0.0.2:5432 db.corp.example:5432", "127.0.0.3:5432 [fd00::1]:5432"]);
    for (text, at, words) in [
        (forward("0.0.0.0:5432", "a:1"), "4:10", "allow_remote"),
        (forward("127.0.0.1:1055", "a:1"), "4:10", "listen.proxy"),
        (forward("127.0.0.1:9155", "a:1"), "4:10", "listen.admin"),
        (forward("db:5432", "a:1"), "4:10", "wants an address and a port"),
        (forward("127.0.0.1:1", "a"), "5:10", "db.corp.example:5432, not"),
        (forward("127.0.0.1:1", "127.1:1"), "5:10", "looks like an address"),
        (forward("127.0.0.1:1", "a:0"), "5:10", "port"),
        (forward("127.0.0.1:1", "a:1") + &forward("127.0.0.1:1", "b:1"), "7:10", "its own"),
        ("[[forward]]\nlisten = \"127.0.0.1:1\"\n".to_owned(), "3:1", "has no target"),
        (forward("127.0.0.1:1", "a:1") + "tarket = \"b:1\"\n", "6:1", "forward.target?"),
        ("[[forward]]\nlisten = 1\ntarget = \"a:1\"\n".to_owned(), "4:10", "wants a string"),
    ] {
        let found = found(&text);
        assert!(found.len() == 1 && found[0].contains(words), "{text}: {found:?}");
        assert!(found[0].starts_with(&format!("config: f:{at}: ")), "{text}: {found:?}");
    }
    let socks5 = "run_dir = \"/r\"\nupstream.socks5 = \"127.0.0.1:5432\"\n";
    let own = problems(&format!("{socks5}{}", forward("127.0.0.1:5432", "a:1")), &[], &[]);
    assert!(own.len() == 1 && own[0].contains("forward.listen"), "{own:?}");
    assert_eq!(found(&(forward("127.0.0.1:0", "a:1") + &forward("127.0.0.1:0", "a:1"))), [""; 0]);
}

#[test]
fn f8_a_literal_key_is_named_and_not_shown() {
    let text = format!("{FINE}tailnet.auth_key_file = \"tskey-auth-CANARY\"\n");
    let env = [("TAILRACE_TAILNET_AUTH_KEY_FILE", "tskey-auth-CANARY")];
    let found = problems(&text, &env, &[("tailnet.hostname", "tskey-auth-CANARY")]);
    assert!(found.iter().any(|line| line.starts_with("config: f:3:")), "{found:?}");
    assert!(!found.concat().contains("CANARY"), "{found:?}");
}

/// A9: whatever is wrong with a value, and wherever it stands, its password is in no line.
#[test]
fn a9_no_problem_shows_the_credentials_of_a_value() {
    let bad = [
        ("tailnet.control_proxy", "socks9://u:CANARY@h:1"),
        ("tailnet.login_server", "u:CANARY@h:1"),
        ("upstream.socks5", "u:CANARY@h:1"),
        ("upstream.kind", "socks5://u:CANARY@h:1"),
        ("listen.proxy", "127.0.0.1:0,http://u:CANARY@h:1"),
        ("listen.admin", "u:CANARY@127.0.0.1:1"),
        ("listen.admin_hosts", "u:CANARY@h"),
        ("policy.allowed_hosts", "http://CANARY@h/"),
        ("policy.allowed_host_suffixes", "http://u:CANARY@h/"),
        ("policy.allowed_nets", "u:CANARY@10.0.0.0/8"),
        ("dns.synthetic", "u:CANARY@10.0.0.0/8"),
        ("log.level", "u:CANARY@h"),
        ("log.to", "u:CANARY@h"),
        ("tailnet.hostname", "u:CANARY@h"),
        ("tailnet.tags", "u:CANARY@h"),
        ("tailnet.state", "u:CANARY@h"),
        ("limits.max_head", "u:CANARY@h"),
        ("limits.idle_timeout", "u:CANARY@h"),
        ("limits.per_client", "u:CANARY@h"),
        ("relay.splice", "u:CANARY@h"),
        ("no.such", "u:CANARY@h"),
        ("tailnet.control_proxy:u:CANARY@h", ""),
    ];
    for (path, value) in bad {
        let key = Key::of_path(path);
        let in_file = key.map(|_| format!("{path} = {value:?}\n")).unwrap_or_default();
        let variable = key.map(Key::variable);
        let env: Vec<_> = variable.iter().map(|variable| (variable.as_str(), value)).collect();
        let run_dir = "run_dir = \"/r\"\n";
        let ways = [
            problems(&format!("{run_dir}{in_file}"), &[], &[]),
            problems(run_dir, &env, &[]),
            problems(run_dir, &[], &[(path, value)]),
        ];
        assert!(!ways[2].is_empty(), "{path}");
        assert!(key.is_none() || ways.iter().all(|lines| !lines.is_empty()), "{path}: {ways:?}");
        assert!(!ways.concat().concat().contains("CANARY"), "{path}: {ways:?}");
    }
    let found = problems(
        &format!("{FINE}[[forward]]\nlisten = \"u:CANARY@h:1\"\ntarget = \"u:CANARY@h:1\"\n"),
        &[],
        &[],
    );
    assert!(found.len() == 2 && !found.concat().contains("CANARY"), "{found:?}");
    let found = problems(FINE, &[], &[("upstream.socks5", "u:CANARY@h:1")]);
    assert!(
        found[0].contains("flag --set upstream.socks5=[redacted]@h:1: upstream.socks5 wants"),
        "{found:?}"
    );
}

#[test]
fn a_word_far_from_all_known_ones_has_no_suggestion() {
    assert!(
        only("policy.mode = \"Enforced\"").ends_with("not \"Enforced\": did you mean enforce?")
    );
    assert!(only("policy.mode = \"nothing\"").ends_with("not \"nothing\""));
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
fn synthetic_addresses_mean_nothing_else() {
    let only = |text: &str| {
        let found = problems(&format!("run_dir = \"/r\"\n{text}\n"), &[], &[]);
        assert_eq!(found.len(), 1, "{text}: {found:?}");
        found[0].clone()
    };
    let range = |text: &str| only(&format!("dns.synthetic = \"{text}\""));
    for (text, why) in [
        ("100.96.0.0/12", "the tailnet's own addresses"),
        ("100.0.0.0/8", "100.64.0.0/10"),
        ("127.1.0.0/16", "loopback"),
        ("240.0.0.0/8", "reserved"),
        ("198.18.0.0/31", "/8 to /28"),
        ("fd00::/64", "an IPv4 network"),
        ("198.18.0.1/15", "did you mean 198.18.0.0/15?"),
    ] {
        assert!(range(text).contains(why), "{text}: {}", range(text));
    }
    let denied = "dns.synthetic = \"198.18.0.0/15\"\npolicy.deny_nets = [\"198.19.0.0/24\"]";
    assert!(only(denied).contains("198.19.0.0/24 of policy.deny_nets"), "{}", only(denied));
    let listener = "dns.synthetic = \"10.7.0.0/16\"\nlisten.allow_remote = true\n\
                    listen.dns = \"10.7.0.1:53\"";
    assert!(only(listener).contains("the listener 10.7.0.1:53"), "{}", only(listener));
    let tproxy =
        listener.replace("listen.dns = \"10.7.0.1:53\"", "listen.tproxy = [\"10.7.0.1:1056\"]");
    assert!(only(&tproxy).contains("the listener 10.7.0.1:1056"), "{}", only(&tproxy));
    let config = read(&format!("{FINE}dns.synthetic = \"198.18.0.0/15\"\n"), &[], &[]);
    assert!(config.is_err_and(|problems| problems.to_string().contains("dns.mode")), "no tailnet");
    let tailnet = "run_dir = \"/r\"\ndns.synthetic = \"198.18.0.0/15\"\n";
    let config = read(tailnet, &[], &[]).unwrap();
    assert_eq!(config.dns.synthetic, Some("198.18.0.0/15".parse().unwrap()));
}

/// The kind that `text` and the environment come to.
fn kind(text: &str, env: &[(&str, &str)]) -> UpstreamKind {
    read(&format!("run_dir = \"/r\"\n{text}"), env, &[]).unwrap().upstream.kind
}

#[test]
fn auto_takes_the_kind_from_what_there_is() {
    use UpstreamKind::{LocalApi, Socks5, Tailscaled};
    let port = "127.0.0.1:1080".parse().unwrap();
    let socks5 = "upstream.socks5 = \"127.0.0.1:1080\"\n";
    let socket = "tailnet.socket = \"/s\"\n";
    let enforce = "policy.mode = \"enforce\"\npolicy.allowed_hosts = [\"a\"]\n";
    let key = [("TS_AUTHKEY", "tskey-auth-x")];
    assert_eq!(kind("", &[]), LocalApi, "unmanaged, no port known");
    assert_eq!(kind(socket, &[]), LocalApi);
    assert_eq!(kind(socks5, &[]), Socks5(port));
    assert_eq!(kind(&format!("{socks5}{socket}"), &[]), Tailscaled(Some(port)));
    assert_eq!(kind("", &key), Tailscaled(None), "managed");
    assert_eq!(kind(enforce, &key), LocalApi, "managed and enforced: sealed");
    assert_eq!(kind("upstream.kind = \"tailscaled\"\n", &key), Tailscaled(None));
    assert_eq!(kind(&format!("upstream.kind = \"socks5\"\n{socks5}"), &key), Socks5(port));
}

#[test]
fn the_key_s_sources_in_their_order() {
    let key = |text: &str, env: &[(&str, &str)]| {
        let config = read(&format!("run_dir = \"/r\"\n{text}"), env, &[]).unwrap();
        config.tailnet.and_then(|tailnet| tailnet.key)
    };
    let file = "tailnet.auth_key_file = \"/k\"\n";
    let env = [("TS_AUTHKEY", "tskey-auth-x"), ("TS_AUTHKEY_FILE", "/e")];
    assert_eq!(key(file, &env), Some(KeySource::File("/k".into())));
    assert_eq!(key("", &env), Some(KeySource::Environment));
    assert_eq!(key("", &env[1..]), Some(KeySource::File("/e".into())));
    assert_eq!(key("", &[(KEY_FD, "5")]), Some(KeySource::Environment));
    let credentials = tempfile::tempdir().unwrap();
    std::fs::write(credentials.path().join("tailrace.authkey"), "x").unwrap();
    let dir = credentials.path().to_str().unwrap();
    let credential = credentials.path().join("tailrace.authkey");
    assert_eq!(key("", &[("CREDENTIALS_DIRECTORY", dir)]), Some(KeySource::File(credential)));
    assert_eq!(key("", &[]), None);
}

#[test]
fn tailscaled_gets_its_way_to_control_and_never_through_us() {
    let of = |env: &[(&str, &str)]| {
        let config = read("run_dir = \"/r\"\n", env, &[]).unwrap();
        config.tailnet.unwrap().environment
    };
    let env = [
        ("HTTPS_PROXY", "http://proxy:3128"),
        ("no_proxy", "a.example"),
        ("SSL_CERT_FILE", "/ca"),
        ("SECRET", "x"),
    ];
    let expected =
        [("HTTPS_PROXY", "http://proxy:3128"), ("NO_PROXY", "a.example"), ("SSL_CERT_FILE", "/ca")];
    assert_eq!(of(&env), expected.map(|(name, value)| (name, value.to_owned())));
    for ours in ["http://127.0.0.1:1055", "http://localhost:1055", "http://[::1]:1055/"] {
        assert_eq!(of(&[("HTTPS_PROXY", ours)]), [], "{ours}");
    }
}

#[test]
fn f3_impossible_tailnets() {
    let fine = "run_dir = \"/r\"\n";
    for (line, words) in [
        ("tailnet.manage = true", "needs a key"),
        ("tailnet.hostname = \"a.b\"", "no host name"),
        ("tailnet.tags = [\"tag:1x\"]", "no tag"),
        ("tailnet.login_server = \"control.example\"", "wants a URL"),
        ("tailnet.control_proxy = \"proxy:3128\"", "wants a URL"),
        ("tailnet.socket = \"relative\"", "absolute path"),
        ("upstream.kind = \"tailscaled\"", "needs upstream.socks5"),
        ("upstream.outside_tailnet = \"never\"", "wants one of"),
    ] {
        let found = problems(&format!("{fine}{line}\n"), &[], &[]);
        assert!(found.len() == 1 && found[0].contains(words), "{line}: {found:?}");
    }
    let long =
        problems(&format!("run_dir = \"/{}\"\n", "r".repeat(120)), &[("TS_AUTHKEY", "x")], &[]);
    assert!(long.len() == 1 && long[0].contains("longer path"), "{long:?}");
    let oauth = problems(fine, &[("TS_AUTHKEY", "tskey-client-x")], &[]);
    assert!(oauth.len() == 1 && oauth[0].contains("needs tailnet.tags"), "{oauth:?}");
    let direct = "upstream.kind = \"direct\"\ndns.mode = \"tailnet\"\n";
    let found = problems(&format!("{fine}{direct}"), &[], &[]);
    assert!(found.len() == 1 && found[0].contains("know the tailnet's names"), "{found:?}");
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
        key in 0..Key::ALL.len(),
        value in "[-0-9a-z.,:/\\[\\]*\"' \\nüé]{0,40}",
    ) {
        let path = Key::ALL[key].path();
        drop(read(&format!("{path} = {value}\n"), &[], &[(path, &value)]));
        let variable = Key::ALL[key].variable();
        drop(read(&format!("{path} = {value:?}\n"), &[(&variable, &value)], &[]));
    }
}

/// `config.toml` at the root says the truth: every key, each with its default.
#[test]
fn the_sample_file_has_every_key_with_its_default() {
    let sample = include_str!("../../config.toml");
    let sound = read(&sample.replace("run_dir = \"\"", "run_dir = \"/r\""), &[], &[]).unwrap();
    assert_eq!(sound, read("run_dir = \"/r\"\n", &[], &[]).unwrap());
    let env = ProcessEnvironment::default();
    let written = parse(Some((Path::new("f"), sample)), &env, &[]);
    for entry in written.entries() {
        let path = entry.key.path();
        if entry.key != Key::DnsMode {
            assert_ne!(entry.origin, Origin::Default, "{path} is missing");
            assert_eq!(entry.raw, raw_config::default_of(entry.key), "{path}");
        }
    }
}
