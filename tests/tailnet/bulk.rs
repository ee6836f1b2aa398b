//! 200 MiB each way arrive bit for bit through tailscaled, over each inbound.

use crate::case::Case;
use crate::curl::{Curl, Inbound};
use crate::origin::BULK;
use crate::tailnet::Tailnet;

pub fn cases() -> Vec<Case> {
    let case = Case::new;
    vec![
        case("download_200_mib_exact_over_socks5", |t| download(t, Inbound::Socks5Name)),
        case("upload_200_mib_exact_over_socks5", |t| upload(t, Inbound::Socks5Name)),
        case("download_200_mib_exact_over_connect", |t| download(t, Inbound::Connect)),
        case("upload_200_mib_exact_over_connect", |t| upload(t, Inbound::Connect)),
        case("download_200_mib_exact_over_http_forward", |t| download(t, Inbound::Forward)),
        case("upload_200_mib_exact_over_http_forward", |t| upload(t, Inbound::Forward)),
    ]
}

fn download(tailnet: &Tailnet, inbound: Inbound) {
    let mark = tailnet.gateway().mark();
    let sum = Curl::new(tailnet.gateway(), inbound, "svc", "/bulk").sum(tailnet);
    assert_eq!(sum, (BULK, tailnet.origin.sum.clone()));
    let line = tailnet.gateway().access_after(mark);
    assert_eq!(line["outcome"], inbound.good_end(), "{line}");
    assert!(line["bytes_down"].as_u64() >= Some(BULK), "{line}");
}

fn upload(tailnet: &Tailnet, inbound: Inbound) {
    let mark = tailnet.gateway().mark();
    let file = tailnet.origin.file.to_string_lossy().into_owned();
    let answer = Curl::new(tailnet.gateway(), inbound, "svc", "/upload")
        .with(&["--upload-file", &file])
        .run(tailnet);
    assert_eq!((answer.exit, answer.status), (0, 200), "{answer:?}");
    assert_eq!(answer.body, format!("{BULK} {}\n", tailnet.origin.sum));
    let line = tailnet.gateway().access_after(mark);
    assert_eq!(line["outcome"], inbound.good_end(), "{line}");
    assert!(line["bytes_up"].as_u64() >= Some(BULK), "{line}");
}
