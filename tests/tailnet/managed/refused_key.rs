//! A login that does not happen: every bad key, and a control server that is not there.

use crate::case::Case;
use crate::curl::{Curl, Inbound};
use crate::gateway::{Gateway, Launch};
use crate::keys::Key;
use crate::managed::{BY_NAME, bare, key_file, node, refused_with, with_key};
use crate::process::wait_for;
use crate::tailnet::Tailnet;

/// What is wrong with a login, and what is to be said of it.
struct Wrong<'a> {
    launch: Launch,
    /// The state of `/readyz` and of the metric.
    state: &'a str,
    /// How `up -- CMD` ends, and when at the latest.
    exit: i32,
    patience: &'a str,
    /// Parts of doctor's sentence: symptom, cause, fix.
    words: [&'a str; 3],
    /// The text of the key, which must stand nowhere.
    key: String,
}

const KEY: &str = "the key is refused";

pub fn cases() -> Vec<Case> {
    let case = Case::new;
    vec![
        case("t5_garbage_key_is_refused", |t| {
            key(
                t,
                "garbage",
                t.control.key(Key::Garbage),
                ["the key is invalid", "make a new one"],
            );
        }),
        case("t5_expired_key_is_refused", |t| {
            let words = ["the key has expired", "make a new one with a longer life"];
            key(t, "expired", t.control.key(Key::Expired), words);
        }),
        case("t5_used_up_key_is_refused", |t| {
            let words = ["the key is used up", "restarts need a reusable key"];
            key(t, "used-up", t.used_up.clone(), words);
        }),
        case("t5_tag_not_permitted_is_refused", tag),
        case("t5_a_good_key_and_sighup_mend_it", mended),
        case("control_server_down_is_unreachable", control_down),
    ]
}

fn key(tailnet: &Tailnet, name: &str, key: String, [cause, fix]: [&str; 2]) {
    let launch = with_key(tailnet, name, &key);
    let words = [KEY, cause, fix];
    fails(tailnet, Wrong { launch, state: "auth_failed", exit: 78, patience: "60s", words, key });
}

fn tag(tailnet: &Tailnet) {
    let key = tailnet.control.key(Key::Untagged);
    let launch = with_key(tailnet, "tags", &key).set("TAILRACE_TAILNET_TAGS", "tag:internal");
    let words = [KEY, "the tags are not permitted for this key", "leave tailnet.tags empty"];
    fails(tailnet, Wrong { launch, state: "auth_failed", exit: 78, patience: "60s", words, key });
}

/// Nothing listens there.
fn control_down(tailnet: &Tailnet) {
    let key = tailnet.control.key(Key::Good);
    let server = "https://10.99.0.1:8444";
    // It may come back: connections wait for it as for any first login.
    let launch = with_key(tailnet, "down", &key)
        .set("TAILRACE_TAILNET_LOGIN_SERVER", server)
        .set("TAILRACE_TAILNET_READY_WAIT", "2s");
    let words = [
        "no autoheal-* node appears in the tailnet",
        "the control server https://10.99.0.1:8444 cannot be reached",
        "open the way there",
    ];
    fails(tailnet, Wrong { launch, state: "unreachable", exit: 75, patience: "6s", words, key });
}

fn fails(tailnet: &Tailnet, wrong: Wrong<'_>) {
    let gateway = wrong.launch.clone().up(tailnet);
    let body = wait_for("the failed login", || not_ready(tailnet, &gateway, wrong.state));
    told(&wrong.words[1..], &body);
    requests(tailnet, &gateway, &wrong);
    let doctor = gateway.launch.ask(tailnet, &["doctor", "grafana.corp.example:8080"]);
    assert_eq!(doctor.code, 1, "{doctor:?}");
    told(&wrong.words, &doctor.out);
    let series = format!("tailrace_tailnet_state{{state=\"{}\"}}", wrong.state);
    assert_eq!(gateway.metric(tailnet, &series), 1, "{series}");
    let restarts = "tailrace_tailscaled_restarts_total{cause=\"exit\"}";
    assert_eq!(gateway.metric(tailnet, restarts), 0, "it is not started again for that");
    assert!(!gateway.log().contains(&wrong.key), "the key stands in the log");
    assert!(tailnet.control.node(&node(&gateway.launch.name)).is_none(), "there is a node");
    gateway.stop();
    // With a command: it ends with the sentence, and the command never ran.
    let command = ["up", "--ready-timeout", wrong.patience, "--", "echo", "it ran"];
    let said = wrong.launch.ask(tailnet, &command);
    assert_eq!((said.code, said.out.as_str()), (wrong.exit, ""), "{said:?}");
    told(&wrong.words[1..], &said.err);
}

/// The body of `/readyz` once it says so.
fn not_ready(tailnet: &Tailnet, gateway: &Gateway, state: &str) -> Option<String> {
    assert!(!gateway.is_over(), "the gateway has ended");
    let (code, body) = gateway.admin(tailnet, "/readyz");
    (code == 503 && body.contains(&format!("\"error\":\"{state}\""))).then_some(body)
}

fn requests(tailnet: &Tailnet, gateway: &Gateway, wrong: &Wrong<'_>) {
    for inbound in BY_NAME {
        let mark = gateway.mark();
        let answer = Curl::new(gateway, inbound, "grafana.corp.example", "/hello").run(tailnet);
        refused_with(inbound, &answer, (503, 1));
        if inbound == Inbound::Forward {
            told(&wrong.words[1..], &answer.body);
            assert!(!answer.body.contains(&wrong.key), "{}", answer.body);
        }
        assert_eq!(gateway.access_after(mark)["outcome"], "upstream_down", "{inbound:?}");
    }
}

fn told(words: &[&str], text: &str) {
    for words in words {
        assert!(text.contains(words), "no {words:?} in {text:?}");
    }
}

/// A refused key costs no restart: a good one in its file, and SIGHUP.
fn mended(tailnet: &Tailnet) {
    let key = tailnet.control.key(Key::Expired);
    let file = key_file(tailnet, "mended", &key);
    let launch = bare(tailnet, "mended").set("TAILRACE_TAILNET_AUTH_KEY_FILE", file);
    let gateway = launch.up(tailnet);
    wait_for("the failed login", || not_ready(tailnet, &gateway, "auth_failed"));
    key_file(tailnet, "mended", &tailnet.control.key(Key::Good));
    gateway.reload();
    gateway.wait(tailnet);
    let answer =
        Curl::new(&gateway, Inbound::Connect, "grafana.corp.example", "/hello").run(tailnet);
    assert_eq!((answer.exit, answer.status), (0, 200), "{answer:?}");
    gateway.stop();
}
