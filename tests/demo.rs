//! `tailrace demo`, as a newcomer runs it: the built binary, its table and its exit code.

use std::process::{Command, Stdio};

/// The table's rows for one inbound: marked, in the way's column.
fn rows<'a>(table: &'a str, way: &str) -> Vec<&'a str> {
    let of_way = |line: &&str| {
        let unmarked = line.split_once(' ').map(|(_mark, rest)| rest);
        unmarked.is_some_and(|rest| rest.starts_with(&format!("{way} ")))
    };
    table.lines().filter(of_way).collect()
}

#[test]
fn demo_drives_every_inbound_and_says_that_all_held() {
    let output = Command::new(tailrace_rig::setup::binary())
        .arg("demo")
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let table = String::from_utf8_lossy(&output.stdout);
    let whole = format!("{table}\n{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{whole}");
    assert!(!table.contains('✗'), "{whole}");
    for way in ["socks5", "socks4", "socks4a", "connect", "http forward"] {
        let carried = rows(&table, way).iter().any(|row| row.contains("carried"));
        assert!(carried, "nothing carried by {way}:\n{whole}");
    }
    for way in ["curl", "redirected"] {
        let told = !rows(&table, way).is_empty();
        assert!(told, "neither carried nor a reason why not, by {way}:\n{whole}");
    }
    for reason in ["denied (403)", "denied (02)", "loop (508)", "refused (502)"] {
        assert!(table.contains(&format!("refused: {reason}")), "{reason} is missing:\n{whole}");
    }
    for moved in [
        "tailrace_connections_total{inbound=\"socks5\",outcome=\"fin_fin\"}",
        "tailrace_connections_total{inbound=\"connect\",outcome=\"denied\"}",
        "tailrace_policy_decisions_total{mode=\"enforce\",verdict=\"deny\"}",
        "tailrace_relayed_bytes_total{inbound=\"socks5\",direction=\"down\"}",
    ] {
        assert!(table.contains(moved), "{moved} did not move:\n{whole}");
    }
    assert!(!whole.contains('\u{1b}'), "a progress line where there is no terminal:\n{whole}");
}
