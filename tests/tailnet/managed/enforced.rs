//! An enforced policy: the sealed way by itself, and nothing asked of anybody for a name it refuses.

use crate::case::Case;
use crate::curl::Curl;
use crate::managed::{BY_NAME, Kind, refused_with};
use crate::tailnet::Tailnet;

pub fn cases() -> Vec<Case> {
    vec![Case::new("enforced_policy_is_sealed_and_refuses_before_any_question", enforced)]
}

fn enforced(tailnet: &Tailnet) {
    let launch = Kind::Tailscaled.launch(tailnet, "enforced");
    let gateway = launch
        .set("TAILRACE_POLICY_MODE", "enforce")
        .set("TAILRACE_POLICY_ALLOWED_HOST_SUFFIXES", ".corp.example")
        .up(tailnet);
    gateway.wait(tailnet);
    let status = gateway.status(tailnet);
    assert_eq!(status["upstream"]["kind"], "localapi", "{status}");
    for inbound in BY_NAME {
        let mark = gateway.mark();
        let answer = Curl::new(&gateway, inbound, "grafana.corp.example", "/hello").run(tailnet);
        assert_eq!((answer.exit, answer.status), (0, 200), "{inbound:?}: {answer:?}");
        assert_eq!(gateway.access_after(mark)["upstream"], "localapi");
        for refused in ["grafana.silent.example", "svc", &tailnet.svc] {
            let (mark, asked) = (gateway.mark(), tailnet.nameserver.asked().len());
            let answer = Curl::new(&gateway, inbound, refused, "/hello").run(tailnet);
            refused_with(inbound, &answer, (403, 2));
            assert_eq!(gateway.access_after(mark)["outcome"], "denied", "{inbound:?} {refused}");
            assert_eq!(tailnet.nameserver.asked()[asked..], [""; 0], "{refused} was asked for");
        }
    }
    gateway.stop();
}
