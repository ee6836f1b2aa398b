//! Hosts, authorities and the targets of CONNECT: what is one, and what is none.
#![forbid(unsafe_code)]

use proptest::prelude::*;

use super::*;

fn name(text: &str) -> String {
    Host::parse(text.as_bytes()).expect(text).to_string()
}

#[test]
fn b1_case_and_one_trailing_dot_fold() {
    assert_eq!(name("CORP.example"), "corp.example");
    assert_eq!(name("db.corp.example."), "db.corp.example");
    for bad in ["db.corp.example..", ".corp.example", "db..corp.example", "."] {
        assert!(Host::parse(bad.as_bytes()).is_err(), "{bad}");
    }
}

#[test]
fn localhost_and_all_below_it_are_whoever_asks() {
    let is_localhost = |text: &str| Name::parse(text.as_bytes()).expect(text).is_localhost();
    for text in ["localhost", "LocalHost.", "db.localhost", "a.b.localhost"] {
        assert!(is_localhost(text), "{text}");
    }
    for text in ["localhost.corp.example", "notlocalhost", "localhost-1", "local"] {
        assert!(!is_localhost(text), "{text}");
    }
}

#[test]
fn b8_numbers_are_strict_quads_or_nothing() {
    assert_eq!(Host::parse(b"127.0.0.1"), Ok(Host::Address([127, 0, 0, 1].into())));
    let bad = ["2130706433", "0177.0.0.1", "0x7f.1", "127.1", "127.0.0.1.", "1.2.3.4.5", "0x7f"];
    for text in bad {
        assert!(matches!(Host::parse(text.as_bytes()), Err(HostError::Number { .. })), "{text}");
    }
}

#[test]
fn b7_only_true_a_labels_pass() {
    assert_eq!(name("xn--bcher-kva.example"), "xn--bcher-kva.example");
    for bad in ["xn--corp-.example", "xn--.example", "xn--corp.example", "xn--a-ecp.ru"] {
        assert!(matches!(Host::parse(bad.as_bytes()), Err(HostError::ALabel { .. })), "{bad}");
    }
    for bad in ["corp。example", "ⓒorp.example", "cor\u{ad}p.example", "cor\u{200d}p.example"] {
        assert!(Host::parse(bad.as_bytes()).is_err(), "{bad}");
    }
}

#[test]
fn p12_lengths_at_the_edge() {
    let label = "a".repeat(63);
    let longest = format!("{label}.{label}.{label}.{}", "a".repeat(61));
    assert_eq!(longest.len(), 253);
    assert!(Host::parse(longest.as_bytes()).is_ok());
    assert!(Host::parse(format!("{longest}a").as_bytes()).is_err());
    assert!(Host::parse(format!("{}.example", "a".repeat(64)).as_bytes()).is_err());
}

#[test]
fn b9_mapped_addresses_are_v4_and_embedded_ones_are_known() {
    assert_eq!(Host::parse(b"::ffff:127.0.0.1"), Ok(Host::Address([127, 0, 0, 1].into())));
    for text in ["::127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::"] {
        let address: IpAddr = text.parse().unwrap();
        assert!(carried_v4(address).eq([std::net::Ipv4Addr::LOCALHOST]), "{text}");
    }
}

#[test]
fn p17_bad_authorities() {
    let bad = [
        "h",
        "/",
        "*",
        "http://h/",
        "h:99999",
        "h:+80",
        "h:080",
        "h:080x",
        "[::1",
        "::1:80",
        "h:0",
        "h:",
        "[::1]80",
        "[::1%25.corp.example]:80",
        "[fe80::1%1]:80",
        "u@h:80",
        "h\\:80",
    ];
    for text in bad {
        assert!(Target::parse_authority(text.as_bytes(), None).is_err(), "{text}");
        if text != "::1:80" {
            assert!(Target::parse_connect(text.as_bytes()).is_err(), "{text}");
        }
    }
    let target = Target::parse_authority(b"[2001:db8::1]:443", None).unwrap();
    assert_eq!(target.to_string(), "[2001:db8::1]:443");
}

#[test]
fn p17_the_last_colon_parts_a_connects_port_from_an_address() {
    for (text, target) in [
        ("::1:443", "[::1]:443"),
        (":::80", "[::]:80"),
        ("2001:db8::7:65535", "[2001:db8::7]:65535"),
        ("1:2:3:4:5:6:7:8:9", "[1:2:3:4:5:6:7:8]:9"),
        ("::ffff:127.0.0.1:80", "127.0.0.1:80"),
        ("[::1]:443", "[::1]:443"),
        ("db:443", "db:443"),
    ] {
        assert_eq!(Target::parse_connect(text.as_bytes()).unwrap().to_string(), target);
    }
    let bad = [
        "::1",
        "::",
        "::1:",
        "::1:0",
        "::1:080",
        "::1:99999",
        "::1:+1",
        "1:2:3:4:5:6:7:8",
        "db:80:80",
        "fe80::1%1:80",
        "[::1]:80:80",
        "[::1:80",
        "::1]:80",
        "127.0.0.1:80:80",
    ];
    for text in bad {
        assert!(Target::parse_connect(text.as_bytes()).is_err(), "{text}");
    }
}

#[test]
fn p13_brackets_hold_an_ipv6_address() {
    let host = |text: &[u8]| Host::parse_bracketed(text).map(|host| host.to_string());
    for (text, canonical) in [
        (&b"[::1]"[..], "::1"),
        (b"::1", "::1"),
        (b"[::ffff:127.0.0.1]", "127.0.0.1"),
        (b"db.corp.example", "db.corp.example"),
    ] {
        assert_eq!(host(text).unwrap(), canonical);
    }
    for bad in [
        &b"[db]"[..],
        b"[127.0.0.1]",
        b"[::1",
        b"::1]",
        b"[]",
        b"[[::1]]",
        b"[::1]:80",
        b"[::1%1]",
        b"[::1].corp.example",
        b"[::1\0]",
    ] {
        assert!(host(bad).is_err(), "{}", bad.escape_ascii());
    }
}

proptest! {
    #[test]
    fn canonical_form_is_a_fixed_point(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(host) = Host::parse(&bytes) {
            let again = Host::parse(host.to_string().as_bytes());
            prop_assert_eq!(again, Ok(host));
        }
    }

    #[test]
    fn authorities_print_what_they_parse(text in "[a-z0-9.:\\[\\]-]{1,60}") {
        if let Ok(target) = Target::parse_authority(text.as_bytes(), None) {
            let again = Target::parse_authority(target.to_string().as_bytes(), None);
            prop_assert_eq!(again, Ok(target));
        }
    }
}
