//! What the rules mean, case by case, and against a naive oracle.
#![forbid(unsafe_code)]

use std::num::NonZeroU16;

use proptest::prelude::*;

use super::*;

fn policy(mode: Mode, suffixes: &str, nets: &[&str]) -> Policy {
    Policy::new(Rules {
        mode,
        suffixes: Suffix::parse_list(suffixes).unwrap(),
        globs: vec!["grafana-*.ops.example".to_owned()],
        nets: nets.iter().map(|net| net.parse().unwrap()).collect(),
        deny_nets: vec!["127.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()],
        require_sni: false,
    })
    .unwrap()
}

fn local_addresses() -> LocalAddresses {
    LocalAddresses {
        listeners: vec!["127.0.0.1:1055".parse().unwrap()],
        internal: vec!["127.0.0.1:1080".parse().unwrap()],
        addresses: vec!["127.0.0.1".parse().unwrap(), "192.0.2.7".parse().unwrap()],
        names: vec![crate::target::Name::parse(b"sandbox").unwrap()],
        reach_loopback: false,
    }
}

fn verdict(policy: &Policy, target: &str) -> Result<Verdict, Refused> {
    let target = Target::parse_authority(target.as_bytes(), None).unwrap();
    let (decision, judged) = policy.judge_target(&local_addresses(), &target);
    assert_eq!(judged.is_err(), decision.verdict == Verdict::Deny);
    judged.map(|_| decision.verdict)
}

#[test]
fn b2_b3_whole_labels_and_the_apex() {
    let policy = policy(Mode::Enforce, "corp.example, .ts.net", &[]);
    for allowed in ["corp.example:1", "db.CORP.example.:1", "a.b.corp.example:1", "x.ts.net:1"] {
        assert_eq!(verdict(&policy, allowed), Ok(Verdict::Allow), "{allowed}");
    }
    for denied in ["evilcorp.example:1", "corp.example.evil.com:1", "ts.net:1", "example:1"] {
        assert_eq!(verdict(&policy, denied), Err(Refused::Denied), "{denied}");
    }
}

#[test]
fn a_glob_stays_within_its_label() {
    let policy = policy(Mode::Enforce, "corp.example", &[]);
    assert_eq!(verdict(&policy, "grafana-eu.ops.example:1"), Ok(Verdict::Allow));
    assert_eq!(verdict(&policy, "grafana-a.b.ops.example:1"), Err(Refused::Denied));
    assert_eq!(verdict(&policy, "x.grafana-eu.ops.example:1"), Err(Refused::Denied));
    assert_eq!(verdict(&policy, "grafana-eu.ops.example.evil.com:1"), Err(Refused::Denied));
}

#[test]
fn globs_know_labels() {
    let matches = |glob: &str, name: &str| {
        let globs = Globs::new(vec![glob.to_owned()]).unwrap();
        let Target { host, .. } =
            Target::parse_authority(name.as_bytes(), NonZeroU16::new(1)).unwrap();
        globs.allowing_glob(host.name().unwrap()).is_some()
    };
    assert!(matches("DB-[0-9].corp.example", "db-1.corp.example"));
    assert!(matches("db-[!x][^12].corp.example", "db-a3.corp.example"));
    assert!(matches("{a,b}.corp.example", "b.corp.example"));
    assert!(matches("**.corp.example", "x.y.corp.example"));
    assert!(matches("**.corp.example", "corp.example"));
    for (glob, name) in [
        ("*.corp.example", "a.b.corp.example"),
        ("*.corp.example", "corp.example"),
        ("db?corp.example", "db.corp.example"),
        ("db[!x]corp.example", "db.corp.example"),
        ("a[^b][!]]c.example", "a.xc.example"),
        ("a[^b][!]]c.example", "ax.c.example"),
        ("x[a[!b]y.example", "x.y.example"),
        ("db*", "db.corp.example"),
        ("*.example", "evil.com.example.org"),
    ] {
        assert!(!matches(glob, name), "{glob} {name}");
    }
    assert!(Globs::new(vec!["[".to_owned()]).is_err());
}

#[test]
fn b9_a_carried_v4_address_narrows_but_never_widens() {
    let enforce = policy(Mode::Enforce, "corp.example", &["10.0.0.0/8"]);
    assert_eq!(verdict(&enforce, "[::ffff:10.1.2.3]:1"), Ok(Verdict::Allow));
    for denied in ["[::10.1.2.3]:1", "[64:ff9b::a01:203]:1", "[2002:a01:203::1]:1"] {
        assert_eq!(verdict(&enforce, denied), Err(Refused::Denied), "{denied}");
    }
}

#[test]
fn b14_only_this_host_loops() {
    let policy = policy(Mode::Enforce, "corp.example, example", &["0.0.0.0/0"]);
    let mut local_addresses = local_addresses();
    local_addresses.internal = vec!["198.51.100.1:1080".parse().unwrap()];
    let judge = |text: &str| {
        let target = Target::parse_authority(text.as_bytes(), None).unwrap();
        policy.judge_target(&local_addresses, &target).1.map(|_| ())
    };
    assert_eq!(judge("198.51.100.1:1080"), Err(Refused::Loop));
    assert_eq!(judge("[64:ff9b::c633:6401]:1080"), Err(Refused::Loop));
    assert_eq!(judge("198.51.100.2:1080"), Ok(()));
    assert_eq!(judge("db.corp.example:1080"), Ok(()));
    assert_eq!(judge("198.51.100.1:1055"), Ok(()));
    assert_eq!(judge("db.corp.example:1055"), Ok(()));
}

#[test]
fn b9_b11_addresses_need_a_net_and_deny_nets_hold_in_every_mode() {
    let enforce = policy(Mode::Enforce, "corp.example", &["10.0.0.0/8"]);
    assert_eq!(verdict(&enforce, "10.1.2.3:1"), Ok(Verdict::Allow));
    assert_eq!(verdict(&enforce, "11.1.2.3:1"), Err(Refused::Denied));
    for mode in [Mode::Off, Mode::Log, Mode::Enforce] {
        let policy = policy(mode, "corp.example", &["0.0.0.0/0", "::/0"]);
        for denied in ["127.0.0.1:1", "[::ffff:127.0.0.1]:1", "[::127.0.0.1]:1"] {
            assert_eq!(verdict(&policy, denied), Err(Refused::Denied), "{denied}");
        }
        for denied in ["[64:ff9b::7f00:1]:1", "[2002:7f00:1::]:1", "[::1]:1"] {
            assert_eq!(verdict(&policy, denied), Err(Refused::Denied), "{denied}");
        }
    }
    let named = policy(Mode::Enforce, "corp.example", &[]);
    let target = Target::parse_authority(b"10.1.2.3:1", None).unwrap();
    let (decision, _) = named.judge_target(&local_addresses(), &target);
    assert!(decision.rule.unwrap().contains("use socks5h"));
}

#[test]
fn b14_our_own_ports_are_a_loop_in_every_mode() {
    for mode in [Mode::Off, Mode::Log, Mode::Enforce] {
        let policy = policy(mode, "corp.example", &[]);
        let ours = [
            "127.0.0.1:1055",
            "localhost:1055",
            "192.0.2.7:1055",
            "[::1]:1055",
            "127.0.0.1:1080",
            "sandbox:1080",
            "0.0.0.0:1055",
            "a.localhost:1055",
            "[::ffff:127.0.0.1]:1055",
        ];
        for target in ours {
            assert_eq!(verdict(&policy, target), Err(Refused::Loop), "{target}");
        }
    }
}

#[test]
fn log_mode_carries_and_says_what_enforcement_would_do() {
    let logging = policy(Mode::Log, "corp.example", &[]);
    assert_eq!(verdict(&logging, "evil.com:1"), Ok(Verdict::WouldDeny));
    assert_eq!(verdict(&logging, "db.corp.example:1"), Ok(Verdict::Allow));
    let rules = Rules {
        mode: Mode::Log,
        suffixes: vec![],
        globs: vec![],
        nets: vec![],
        deny_nets: vec![],
        require_sni: false,
    };
    assert_eq!(verdict(&Policy::new(rules).unwrap(), "evil.com:1"), Ok(Verdict::Allow));
}

#[test]
fn b22_each_answer_is_judged() {
    let policy = policy(Mode::Enforce, "corp.example", &[]);
    let target = Target::parse_authority(b"db.corp.example:1055", None).unwrap();
    let admitted = policy.judge_target(&local_addresses(), &target).1.unwrap();
    let judge =
        |ip: &str| policy.judge_address(&local_addresses(), &admitted, ip.parse().unwrap()).1;
    assert_eq!(judge("192.0.2.7").unwrap_err(), Refused::Loop);
    assert_eq!(judge("127.0.0.9").unwrap_err(), Refused::Loop);
    assert_eq!(judge("10.0.0.1").unwrap().get().socket_addr().to_string(), "10.0.0.1:1055");
}

#[test]
fn b17_the_server_that_tls_asks_for() {
    let host = |name: &str| Host::parse(name.as_bytes()).unwrap();
    let (good, evil, address) = (host("db.corp.example"), host("evil.com"), host("10.0.0.1"));
    let asked = [
        RequestedServer::Host(&good),
        RequestedServer::Host(&evil),
        RequestedServer::Host(&address),
        RequestedServer::Unreadable("broken"),
        RequestedServer::Nobody,
    ];
    let verdicts = |policy: &Policy| asked.map(|asked| policy.judge_server(asked).verdict);
    let rules = |mode, require_sni| {
        let policy = policy(mode, "corp.example", &[]);
        Policy { require_sni, ..policy }
    };
    use Verdict::{Allow, Deny, WouldDeny};
    assert_eq!(verdicts(&rules(Mode::Off, true)), [Allow; 5]);
    let lax = [Allow, WouldDeny, WouldDeny, WouldDeny, Allow];
    assert_eq!(verdicts(&rules(Mode::Log, false)), lax);
    assert_eq!(verdicts(&rules(Mode::Log, true))[4], WouldDeny);
    assert_eq!(verdicts(&rules(Mode::Enforce, false)), [Allow, Deny, Deny, Deny, Allow]);
    assert_eq!(verdicts(&rules(Mode::Enforce, true)), [Allow, Deny, Deny, Deny, Deny]);
    let unrestricted = Policy {
        suffixes: Suffixes::new(vec![]),
        globs: Globs::new(vec![]).unwrap(),
        ..rules(Mode::Log, false)
    };
    assert_eq!(verdicts(&unrestricted), [Allow; 5], "no lists, no restriction");
}

proptest! {
    #[test]
    fn suffixes_match_as_the_naive_way(
        name in "[ab]{1,2}(\\.[ab]{1,2}){0,4}",
        suffixes in proptest::collection::vec("\\.?[ab]{1,2}(\\.[ab]{1,2}){0,2}", 1..6),
    ) {
        let list: Vec<Suffix> = suffixes.iter().map(|s| Suffix::parse(s).unwrap()).collect();
        let naive = list.iter().any(|suffix| {
            let below = format!(".{}", suffix.name);
            name.ends_with(&below) || (suffix.apex && name == suffix.name.as_str())
        });
        let policy = policy(Mode::Enforce, &suffixes.join(","), &[]);
        prop_assert_eq!(verdict(&policy, &format!("{name}:1")).is_ok(), naive);
    }
}

fn policy_off() -> Policy {
    policy(Mode::Off, "", &[])
}

#[test]
fn b13_own_addresses_and_names_are_refused_in_every_mode_where_they_lead_to_loopback() {
    for mode in [Mode::Off, Mode::Log, Mode::Enforce] {
        let policy = policy(mode, "sandbox", &["192.0.2.0/24"]);
        let behind = LocalAddresses { reach_loopback: true, ..local_addresses() };
        for ours in ["192.0.2.7:5432", "[::ffff:192.0.2.7]:1", "[64:ff9b::c000:207]:1", "sandbox:1"]
        {
            let target = Target::parse_authority(ours.as_bytes(), None).unwrap();
            let (decision, judged) = policy.judge_target(&behind, &target);
            assert_eq!(judged.unwrap_err(), Refused::Denied, "{ours} in {mode:?}");
            assert!(decision.rule.unwrap().starts_with("own "), "{ours}");
        }
        assert_eq!(verdict(&policy, "192.0.2.7:5432"), Ok(Verdict::Allow), "by another way out");
        let target = Target::parse_authority(b"elsewhere.example:1", None).unwrap();
        let admitted = policy_off().judge_target(&behind, &target).1.unwrap();
        let answer = policy.judge_address(&behind, &admitted, "192.0.2.7".parse().unwrap());
        assert_eq!(answer.1.unwrap_err(), Refused::Denied, "a name that resolves to it");
        let loops = Target::parse_authority(b"192.0.2.7:1055", None).unwrap();
        assert_eq!(policy.judge_target(&behind, &loops).1.unwrap_err(), Refused::Loop);
    }
}
