//! What tailscaled cannot reach, and tailscaled not being there.

use std::io::Write as _;
use std::net::Shutdown;

use crate::case::Case;
use crate::client::{self, End};
use crate::curl::{Curl, Inbound};
use crate::gateway::Gateway;
use crate::policy::refused;
use crate::tailnet::{Tailnet, UPSTREAM};

/// Nothing listens there, and the ACL lets the question through: tailscaled answers at once.
const CLOSED: u16 = 9100;
/// The ACL drops it: tailscaled gives up after five seconds.
const FORBIDDEN: u16 = 9999;

pub fn cases() -> Vec<Case> {
    let case = Case::new;
    vec![
        case("closed_port_is_upstream_failed", closed_port),
        case("port_the_acl_forbids_is_upstream_failed", forbidden_port),
        case("unknown_name_is_upstream_failed", unknown_name),
        case("c6_keep_alive_origin_is_let_go_when_its_client_has_left", left_behind),
        case("c6_answer_comes_after_the_clients_fin", late_answer),
        case("c12_half_closed_client_is_let_go_after_the_linger", half_closed),
        case("no_tailscaled_is_upstream_down", no_tailscaled),
    ]
}

fn closed_port(tailnet: &Tailnet) {
    for inbound in Inbound::BY_PROXY {
        let host = if inbound.carries_names() { "svc" } else { &tailnet.svc };
        fails(tailnet, inbound, &format!("http://{host}:{CLOSED}/"));
    }
}

fn forbidden_port(tailnet: &Tailnet) {
    fails(tailnet, Inbound::Connect, &format!("http://{}:{FORBIDDEN}/", tailnet.svc));
}

fn unknown_name(tailnet: &Tailnet) {
    for inbound in Inbound::BY_PROXY.into_iter().filter(|i| i.carries_names()) {
        fails(tailnet, inbound, "http://nobody.lab.ts.net:8080/");
    }
}

/// tailscaled's SOCKS5 port answers every failure with the same byte: the general one.
fn fails(tailnet: &Tailnet, inbound: Inbound, url: &str) {
    let gateway = tailnet.gateway();
    let mark = gateway.mark();
    let answer = Curl::at(gateway, inbound, url).run(tailnet);
    refused(inbound, &answer, 502);
    if inbound == Inbound::Forward {
        let body: serde_json::Value = serde_json::from_str(&answer.body).expect("a JSON body");
        assert_eq!(body["error"], "upstream_failed", "{body}");
    }
    let line = gateway.access_after(mark);
    assert_eq!(line["outcome"], "upstream_failed", "{line}");
}

/// curl leaves for good, the origin would stay: no answer can get lost any more, so the FIN goes on.
fn left_behind(tailnet: &Tailnet) {
    let gateway = tailnet.gateway();
    for inbound in [Inbound::Socks5Name, Inbound::Connect] {
        let mark = gateway.mark();
        let answer = Curl::new(gateway, inbound, "svc", "/hello").run(tailnet);
        assert_eq!((answer.exit, answer.status), (0, 200), "{inbound:?}: {answer:?}");
        assert_eq!(gateway.access_after(mark)["outcome"], "fin_fin", "{inbound:?}");
    }
}

/// Through this tailscaled a FIN that went on at once would cut the answer off.
fn late_answer(tailnet: &Tailnet) {
    let gateway = tailnet.gateway();
    let mark = gateway.mark();
    let (answer, end) = ask_and_shut(tailnet, gateway, "/slow", "Connection: close\r\n");
    assert!(answer.contains("hello from 127.0.0.1:8080"), "{answer}");
    assert_eq!(end, End::Fin);
    assert_eq!(gateway.access_after(mark)["outcome"], "fin_fin");
}

/// The FIN of a client that listens on is held back, but not for ever.
fn half_closed(tailnet: &Tailnet) {
    let linger = [("TAILRACE_LIMITS_HALF_CLOSE_TIMEOUT", "1s")];
    let gateway = Gateway::start(tailnet, "linger", UPSTREAM, &linger);
    let (answer, end) = ask_and_shut(tailnet, &gateway, "/hello", "");
    assert!(answer.contains("hello from 127.0.0.1:8080"), "{answer}");
    assert_eq!(end, End::Fin);
    assert_eq!(gateway.access_after(0)["outcome"], "half_close_idle");
    gateway.stop();
}

/// A request and a FIN behind it, as `nc -N` sends them.
fn ask_and_shut(tailnet: &Tailnet, gateway: &Gateway, path: &str, more: &str) -> (String, End) {
    let stream = tailnet.sandboxed.enter(|| client::tunnel(&gateway.proxy, "svc"));
    let mut stream = stream.expect("a tunnel");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: svc\r\n{more}\r\n").expect("a request");
    stream.shutdown(Shutdown::Write).expect("a FIN");
    client::rest(&stream)
}

/// The gateway stands while its upstream falls: every inbound says so, and nothing goes another way.
fn no_tailscaled(tailnet: &Tailnet) {
    let stand_in = crate::counter::Counter::start(tailnet);
    let gateway = Gateway::start(tailnet, "fallen", &stand_in.address, &[]);
    stand_in.stop(tailnet);
    for inbound in Inbound::BY_PROXY {
        let mark = gateway.mark();
        let host = if inbound.carries_names() { "svc" } else { &tailnet.svc };
        let answer = Curl::new(&gateway, inbound, host, "/hello").run(tailnet);
        refused(inbound, &answer, 503);
        assert_eq!(gateway.access_after(mark)["outcome"], "upstream_down", "{inbound:?}");
    }
    gateway.stop();
}
