//! 200 MiB each way arrive bit for bit through tailscaled, over each inbound, and over LocalAPI.

use crate::case::Case;
use crate::curl::{Curl, Inbound};
use crate::gateway::Gateway;
use crate::managed::Kind;
use crate::origin::BULK;
use crate::tailnet::Tailnet;

pub fn cases() -> Vec<Case> {
    let case = Case::new;
    vec![
        case("download_200_mib_exact_over_socks5", |t| {
            download(t, t.gateway(), Inbound::Socks5Name);
        }),
        case("upload_200_mib_exact_over_socks5", |t| upload(t, t.gateway(), Inbound::Socks5Name)),
        case("download_200_mib_exact_over_connect", |t| download(t, t.gateway(), Inbound::Connect)),
        case("upload_200_mib_exact_over_connect", |t| upload(t, t.gateway(), Inbound::Connect)),
        case("download_200_mib_exact_over_http_forward", |t| {
            download(t, t.gateway(), Inbound::Forward);
        }),
        case("upload_200_mib_exact_over_http_forward", |t| {
            upload(t, t.gateway(), Inbound::Forward);
        }),
        case("download_200_mib_exact_over_localapi", |t| sealed(t, download)),
        case("upload_200_mib_exact_over_localapi", |t| sealed(t, upload)),
    ]
}

/// The upstream is a Unix socket then; the relay splices all the same.
fn sealed(tailnet: &Tailnet, carry: fn(&Tailnet, &Gateway, Inbound)) {
    let gateway = tailnet.managed(Kind::Localapi);
    for inbound in [Inbound::Connect, Inbound::Forward] {
        carry(tailnet, gateway, inbound);
    }
    for cause in ["pipe", "urgent", "error"] {
        let series = format!("tailrace_splice_fallback_total{{cause=\"{cause}\"}}");
        assert_eq!(gateway.metric(tailnet, &series), 0, "{series}");
    }
}

fn download(tailnet: &Tailnet, gateway: &Gateway, inbound: Inbound) {
    let mark = gateway.mark();
    let sum = Curl::new(gateway, inbound, "svc", "/bulk").sum(tailnet);
    assert_eq!(sum, (BULK, tailnet.origin.sum.clone()));
    let line = gateway.access_after(mark);
    assert_eq!(line["outcome"], inbound.good_end(), "{line}");
    assert!(line["bytes_down"].as_u64() >= Some(BULK), "{line}");
}

fn upload(tailnet: &Tailnet, gateway: &Gateway, inbound: Inbound) {
    let mark = gateway.mark();
    let file = tailnet.origin.file.to_string_lossy().into_owned();
    let answer =
        Curl::new(gateway, inbound, "svc", "/upload").with(&["--upload-file", &file]).run(tailnet);
    assert_eq!((answer.exit, answer.status), (0, 200), "{answer:?}");
    assert_eq!(answer.body, format!("{BULK} {}\n", tailnet.origin.sum));
    let line = gateway.access_after(mark);
    assert_eq!(line["outcome"], inbound.good_end(), "{line}");
    assert!(line["bytes_up"].as_u64() >= Some(BULK), "{line}");
}
