//! Every step of the demonstration: what is asked in which way, and what has to come of it.
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use super::client::{self, BytesMoved};
use super::table::StepEnd;
use super::world::{BULK, DemoWorld};
use super::{StepFailure, curl, redirected};

type StepAction = Pin<Box<dyn Future<Output = Result<StepEnd, StepFailure>> + Send>>;

/// A step of the demonstration, which is one row of its table.
pub(super) struct DemoStep {
    pub(super) way: &'static str,
    pub(super) what: &'static str,
    pub(super) action: StepAction,
}

fn step(
    way: &'static str,
    what: &'static str,
    action: impl Future<Output = Result<StepEnd, StepFailure>> + Send + 'static,
) -> DemoStep {
    DemoStep { way, what, action: Box::pin(action) }
}

/// A SOCKS5 dialogue that must end with reply `code`.
async fn socks5(
    proxy: SocketAddr,
    request: &[u8],
    code: u8,
) -> Result<tokio::net::TcpStream, StepFailure> {
    client::tunnel(proxy, &[(b"\x05\x01\x00", 2, b"\x05\x00"), (request, 10, &[5, code])]).await
}

const DB: &[u8] = b"\x05\x01\x00\x03\x0cdb.corp.demo\x15\x38";
const WEB: &[u8] = b"\x05\x01\x00\x03\x11grafana.corp.demo\x00\x50";

async fn carried(
    echo: impl Future<Output = Result<BytesMoved, StepFailure>>,
) -> Result<StepEnd, StepFailure> {
    echo.await.map(StepEnd::Carried)
}

/// All of them, in the order they are shown.
pub(super) async fn all(proxy: SocketAddr, world: Arc<DemoWorld>) -> Vec<DemoStep> {
    let mut steps = tunnels(proxy);
    steps.extend(forwards(proxy));
    steps.push(step("socks5", "download of 256 MiB", bulk(proxy)));
    steps.push(step("curl", "socks5h://", curl::fetch(proxy, "socks5h")));
    steps.push(step("curl", "http://", curl::fetch(proxy, "http")));
    steps.push(step("redirected", "nft REDIRECT, own namespace", redirected::show()));
    steps.extend(refusals(proxy, &world));
    steps
}

fn tunnels(proxy: SocketAddr) -> Vec<DemoStep> {
    let five = move |request: &'static [u8]| async move {
        carried(client::echo(socks5(proxy, request, 0).await?, 4096)).await
    };
    let other = move |ask: &'static [u8], length: usize, expected: &'static [u8]| async move {
        let stream = client::tunnel(proxy, &[(ask, length, expected)]).await?;
        carried(client::echo(stream, 4096)).await
    };
    let established = b"HTTP/1.1 200 Connection established\r\n\r\n";
    vec![
        step("socks5", "db.corp.demo by name", five(DB)),
        step("socks5", "203.0.113.9", five(b"\x05\x01\x00\x01\xcb\x00\x71\x09\x15\x38")),
        step(
            "socks5",
            "2001:db8::9",
            five(b"\x05\x01\x00\x04\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x09\x15\x38"),
        ),
        step("socks5", "user name as a label", async move {
            let dialogue: [(&[u8], usize, &[u8]); 3] = [
                (b"\x05\x01\x02", 2, b"\x05\x02"),
                (b"\x01\x07case-42\x00", 2, b"\x01\x00"),
                (DB, 10, b"\x05\x00"),
            ];
            carried(client::echo(client::tunnel(proxy, &dialogue).await?, 4096)).await
        }),
        step(
            "socks4",
            "203.0.113.9",
            other(b"\x04\x01\x15\x38\xcb\x00\x71\x09\x00", 8, b"\x00\x5a"),
        ),
        step(
            "socks4a",
            "db.corp.demo by name",
            other(b"\x04\x01\x15\x38\0\0\0\x01\0db.corp.demo\0", 8, b"\x00\x5a"),
        ),
        step(
            "connect",
            "db.corp.demo:5432",
            other(b"CONNECT db.corp.demo:5432 HTTP/1.1\r\n\r\n", established.len(), established),
        ),
    ]
}

fn forwards(proxy: SocketAddr) -> Vec<DemoStep> {
    const GET: &str = "GET http://grafana.corp.demo/a HTTP/1.1\r\nHost: grafana.corp.demo\r\n\r\n";
    const POST: &str = "POST http://grafana.corp.demo/b HTTP/1.1\r\nHost: grafana.corp.demo\r\n\
                        Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let asked = move |asks: &'static [&'static str], last: &'static str| async move {
        let answers = client::requests(proxy, asks).await?;
        match answers.last() {
            Some(answer) if answer.ends_with(last) => {
                let up = asks.iter().map(|ask| ask.len() as u64).sum();
                Ok(StepEnd::Carried((up, answers.iter().map(|answer| answer.len() as u64).sum())))
            }
            other => Err(format!("answered {other:?}")),
        }
    };
    vec![
        step("http forward", "two requests, one connection", asked(&[GET, GET], "GET /a HTTP/1.1")),
        step("http forward", "a chunked upload", asked(&[POST], "hello\r\n0\r\n\r\n")),
    ]
}

async fn bulk(proxy: SocketAddr) -> Result<StepEnd, StepFailure> {
    let ask = b"GET /bulk HTTP/1.1\r\nHost: grafana.corp.demo\r\n\r\n";
    let came = client::count_to_end(socks5(proxy, WEB, 0).await?, ask).await?;
    if came == BULK {
        Ok(StepEnd::Carried((ask.len() as u64, came)))
    } else {
        Err(format!("{came} of {BULK} bytes came"))
    }
}

/// What must not be carried; the last step asks the upstream whether it saw any of it.
fn refusals(proxy: SocketAddr, world: &Arc<DemoWorld>) -> Vec<DemoStep> {
    let said = move |ask: String, outcome: &'static str| async move {
        let answer = client::whole(proxy, ask.as_bytes()).await?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        if answer.contains(&format!("\"error\":\"{outcome}\"")) {
            let status = answer.split(' ').nth(1).unwrap_or_default().to_owned();
            Ok(StepEnd::Refused(format!("{outcome} ({status})")))
        } else {
            Err(format!("answered {}", answer.lines().next().unwrap_or("nothing")))
        }
    };
    let connect = |target: &str| format!("CONNECT {target} HTTP/1.1\r\n\r\n");
    let (before, last) = (Arc::clone(world), Arc::clone(world));
    let seen = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let noted = Arc::clone(&seen);
    vec![
        step("connect", "a closed port", said(connect("db.corp.demo:9"), "refused")),
        step("connect", "a host that is not there", said(connect("db.corp.demo:1"), "unreachable")),
        step("socks5", "a name outside the list", async move {
            noted.store(before.asked(), std::sync::atomic::Ordering::Relaxed);
            socks5(proxy, b"\x05\x01\x00\x03\x0cevil.example\x01\xbb", 2).await?;
            Ok(StepEnd::Refused("denied (02)".to_owned()))
        }),
        step("connect", "a name outside the list", said(connect("evil.example:443"), "denied")),
        step("connect", "the metadata service", said(connect("169.254.169.254:80"), "denied")),
        step("connect", "this gateway itself", said(connect(&proxy.to_string()), "loop")),
        step(
            "http forward",
            "two Host fields",
            said(
                "GET http://a.corp.demo/ HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".to_owned(),
                "bad_request",
            ),
        ),
        step("upstream", "saw none of the last five", async move {
            match last.asked() - seen.load(std::sync::atomic::Ordering::Relaxed) {
                0 => Ok(StepEnd::Refused("0 requests".to_owned())),
                n => Err(format!("it saw {n}")),
            }
        }),
    ]
}
