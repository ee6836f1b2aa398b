//! B1 to B12: every disguise of a host is judged as the host it is.

use super::*;

#[test]
fn b1_case_and_one_trailing_dot_are_the_canonical_name() {
    let origin = HttpOrigin::ok("same");
    let fake = FakeUpstream::with("db.corp.example", origin.address());
    fake.map("corp.example", origin.address());
    let mut gateway = enforcing(&fake);
    for host in ["CORP.example", "db.corp.example.", "DB.Corp.Example."] {
        for inbound in Inbound::NAMED {
            assert_eq!(
                fetch(gateway.proxy(), inbound, &format!("{host}:80")).body,
                b"same",
                "{host} {inbound:?}"
            );
        }
    }
    gateway.settle_with(&fake, 12, 12);
    let known = ["corp.example", "db.corp.example"];
    assert!(fake.hosts().iter().all(|h| known.contains(&h.as_str())), "{:?}", fake.hosts());
    assert!(gateway.access_lines().iter().all(|l| known.contains(&l["host"].as_str().unwrap())));
}

#[test]
fn b1_empty_labels_are_bad_request() {
    all_refused(&["db.corp.example..", ".db.corp.example", "db..corp.example", "."], "bad_request");
}

#[test]
fn b2_label_boundaries_hold() {
    all_refused(&["evilcorp.example", "corp.example.evil.com", "example", "orp.example"], "denied");
}

#[test]
fn b3_a_leading_dot_leaves_out_the_apex() {
    let origin = HttpOrigin::ok("in");
    let fake = FakeUpstream::with("db.corp.example", origin.address());
    fake.map("corp.example", origin.address());
    for (rule, apex) in
        [("corp.example", true), (".corp.example", false), ("*.corp.example", false)]
    {
        let gateway = Gateway::start(|s| {
            s.upstream(fake.address()).enforce(&[rule]);
        });
        for inbound in Inbound::NAMED {
            assert_eq!(fetch(gateway.proxy(), inbound, "db.corp.example:80").body, b"in", "{rule}");
            let (_, answer) = ask(gateway.proxy(), inbound, "corp.example:80");
            if apex {
                assert!(answer.is_ok(), "{rule}: {answer:?}");
            } else {
                assert_says(&answer, "denied");
            }
        }
    }
}

#[test]
fn b4_nul_in_a_name_is_never_matched_by_bytes() {
    let fake = FakeUpstream::start();
    let mut gateway = enforcing(&fake);
    let name = b"evil.com\0.corp.example";
    let text = String::from_utf8_lossy(name);
    assert_raw_refused(gateway.proxy(), Inbound::Socks5, &socks5_named(name, 80), "bad_request");
    for request in [
        format!("CONNECT {text}:80 HTTP/1.1\r\nHost: {text}\r\n\r\n"),
        format!("GET http://{text}/ HTTP/1.1\r\nHost: {text}\r\n\r\n"),
    ] {
        assert_http_refused(gateway.proxy(), request.as_bytes(), "bad_request");
    }
    // In SOCKS4a the NUL ends the name, which is then evil.com.
    assert_raw_refused(
        gateway.proxy(),
        Inbound::Socks4a,
        &socks4a_request(name, 80, b""),
        "denied",
    );
    gateway.settle_with(&fake, 4, 0);
}

#[test]
fn b5_hosts_are_never_percent_decoded() {
    all_refused(&["evil.com%00.corp.example", "corp%2eexample"], "bad_request");
    let fake = FakeUpstream::start();
    let mut gateway = enforcing(&fake);
    for inbound in Inbound::NAMED {
        // In a URL what stands before the `@` is no part of the host (B6), which is evil then.
        let outcome = if inbound == Inbound::Forward { "denied" } else { "bad_request" };
        gateway.assert_refused(inbound, "corp.example%23@evil:80", outcome);
    }
    gateway.settle_with(&fake, 4, 0);
}

#[test]
fn b6_the_host_is_what_stands_behind_the_last_at() {
    let requests = |urls: &[&str]| -> Vec<String> {
        let request = |u: &&str| format!("GET {u} HTTP/1.1\r\nHost: corp.example\r\n\r\n");
        urls.iter().map(request).collect()
    };
    let evil = requests(&[
        "http://corp.example@evil.com/",
        "http://corp.example:80@evil.com/",
        "http://x@corp.example@evil.com/",
        "http://evil.com#@corp.example/",
        "http://evil.com?@corp.example/",
        "http://evil.com/@corp.example/",
        "http://evil.com/\\@corp.example/",
    ]);
    all_http_refused(&evil.iter().map(String::as_str).collect::<Vec<_>>(), "denied");
    let origin = HttpOrigin::ok("in");
    let fake = FakeUpstream::with("corp.example", origin.address());
    let mut gateway = enforcing(&fake);
    let good = [
        "http://evil.com@corp.example/",
        "http://evil.com:80@corp.example/",
        "http://x@evil.com@corp.example/",
        "http://corp.example#@evil.com/",
        "http://corp.example/#@evil.com/",
        "http://corp.example?@evil.com/",
    ];
    for request in requests(&good) {
        let (_, answer) = ask_raw(gateway.proxy(), Inbound::Forward, request.as_bytes());
        assert_eq!(answer.http().body, b"in", "{request}");
    }
    gateway.settle_with(&fake, good.len() as u64, good.len());
    assert!(gateway.access_lines().iter().all(|line| line["host"] == "corp.example"));
}

#[test]
fn b6_an_authority_of_backslashes_or_other_bytes_is_bad_request() {
    let urls = [
        "http://evil.com\\@corp.example/",
        "http://corp.example\\@evil.com/",
        "http://corp.example\\.evil.com/",
        "http:///corp.example",
        "http://\u{e9}@corp.example/",
        "http://corp.example\u{ff0f}.evil.com/",
        "http://corp.example@/",
    ];
    let requests: Vec<String> =
        urls.iter().map(|u| format!("GET {u} HTTP/1.1\r\nHost: corp.example\r\n\r\n")).collect();
    all_http_refused(&requests.iter().map(String::as_str).collect::<Vec<_>>(), "bad_request");
    all_http_refused(&["CONNECT corp.example@evil.com:443 HTTP/1.1\r\n\r\n"], "bad_request");
}

#[test]
fn b7_only_ascii_names_and_true_a_labels() {
    let unicode = [
        "db\u{3002}corp.example",
        "db\u{ff0e}corp.example",
        "\u{24d2}orp.example",
        "co\u{ad}rp.example",
        "co\u{200d}rp.example",
    ];
    all_refused(&unicode, "bad_request");
    all_refused(
        &[
            "xn--corp-.example",
            "xn--corp-.corp.example",
            "XN--DB-.corp.example",
            "xn--.corp.example",
        ],
        "bad_request",
    );
}

#[test]
fn b7_a_true_a_label_passes() {
    let origin = HttpOrigin::ok("idn");
    let fake = FakeUpstream::with("xn--bcher-kva.corp.example", origin.address());
    let gateway = enforcing(&fake);
    for inbound in Inbound::NAMED {
        assert_eq!(fetch(gateway.proxy(), inbound, "xn--bcher-kva.corp.example:80").body, b"idn");
    }
}

#[test]
fn b8_numbers_are_a_strict_dotted_quad_or_nothing() {
    all_refused(
        &["2130706433", "0177.0.0.1", "0x7f.1", "127.1", "127.0.0.1.", "1.2.3.4.5", "256.1.1.1"],
        "bad_request",
    );
}

#[test]
fn b9_ipv4_inside_ipv6_is_judged_as_ipv4() {
    let fake = FakeUpstream::start();
    let mut gateway = in_mode(&fake, "enforce", |s| {
        s.set("policy.allowed_nets", vec!["0.0.0.0/0", "::/0"]);
    });
    let hosts = [
        "[::ffff:127.0.0.1]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "[::ffff:a9fe:a9fe]",
    ];
    let inbounds = [Inbound::Socks5, Inbound::Connect, Inbound::Forward];
    for host in hosts {
        for inbound in inbounds {
            gateway.assert_refused(inbound, &format!("{host}:80"), "denied");
        }
    }
    gateway.settle_with(&fake, (hosts.len() * inbounds.len()) as u64, 0);
}

#[test]
fn b10_zone_ids_are_bad_request() {
    let fake = FakeUpstream::start();
    let mut gateway = enforcing(&fake);
    for host in ["fe80::1%25.corp.example", "::1%.corp.example"] {
        for inbound in [Inbound::Connect, Inbound::Forward] {
            gateway.assert_refused(inbound, &format!("[{host}]:80"), "bad_request");
        }
        assert_raw_refused(
            gateway.proxy(),
            Inbound::Socks5,
            &socks5_named(host.as_bytes(), 80),
            "bad_request",
        );
        assert_raw_refused(
            gateway.proxy(),
            Inbound::Socks4a,
            &socks4a_request(host.as_bytes(), 80, b""),
            "bad_request",
        );
    }
    gateway.settle_with(&fake, 8, 0);
}

#[test]
fn b11_an_address_is_denied_by_suffix_rules_alone_and_the_log_says_what_to_do() {
    let fake = FakeUpstream::start();
    let mut gateway = enforcing(&fake);
    for inbound in Inbound::ALL {
        gateway.assert_refused(inbound, "192.0.2.7:80", "denied");
    }
    for inbound in [Inbound::Socks5, Inbound::Connect, Inbound::Forward] {
        gateway.assert_refused(inbound, "[2001:db8::7]:80", "denied");
    }
    gateway.settle_with(&fake, 8, 0);
    assert!(gateway.log().contains("socks5h"), "a hint how to ask by name");
}

#[test]
fn b12_an_address_in_text_is_an_address() {
    let origin = HttpOrigin::ok("by address");
    let fake = FakeUpstream::with("192.0.2.7", origin.address());
    let (named, named4) = (socks5_named(b"192.0.2.7", 80), socks4a_request(b"192.0.2.7", 80, b""));
    let mut gateway = enforcing(&fake);
    assert_raw_refused(gateway.proxy(), Inbound::Socks5, &named, "denied");
    assert_raw_refused(gateway.proxy(), Inbound::Socks4a, &named4, "denied");
    gateway.settle_with(&fake, 2, 0);
    let mut gateway = in_mode(&fake, "enforce", |s| {
        s.set("policy.allowed_nets", vec!["192.0.2.7/32"]);
    });
    for (inbound, request) in [(Inbound::Socks5, &named), (Inbound::Socks4a, &named4)] {
        let (wire, answer) = ask_raw(gateway.proxy(), inbound, request);
        assert!(answer.is_ok(), "{answer:?}");
        drop(wire);
    }
    gateway.settle_with(&fake, 2, 2);
    assert!(fake.requests().iter().all(|r| r.atyp == 1), "passed on as an address");
    assert!(gateway.access_lines().iter().all(|l| l["host"] == "192.0.2.7"));
}
