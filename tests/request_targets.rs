//! B6 by property: of every head that is forwarded, the host that is judged is the one a strict reader of RFC
//! 3986 finds, and a second one of the URL standard; and what goes on reads the same under hyper.
#![allow(clippy::unwrap_used, reason = "a broken oracle should fail loudly")]

use std::cell::Cell;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv6Addr};

use http_body_util::Empty;
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tailrace::inbound::framing::MessageFraming;
use tailrace::inbound::head::{self, DEFAULT_MAX_HEAD, MessageHead, MessageKind};
use tailrace::inbound::http_forward::{self, ForwardRequest};
use tailrace::inbound::{ParseError, Parsed};
use tailrace::target::{Host, Target};
use tokio::io::AsyncWriteExt as _;

const CASES: u32 = 2_000;

/// A URL of the client's taken apart by RFC 3986 appendix B, and its authority by section 3.2. Knows nothing of
/// what Tailrace makes of it.
struct Strict<'a> {
    host: &'a [u8],
    port: Option<&'a [u8]>,
    /// Path and query.
    rest: &'a [u8],
    userinfo: Option<&'a [u8]>,
}

fn until<'a>(text: &'a [u8], ends: &[u8]) -> (&'a [u8], &'a [u8]) {
    text.split_at(text.iter().position(|byte| ends.contains(byte)).unwrap_or(text.len()))
}

fn strict(url: &[u8]) -> Option<Strict<'_>> {
    let (scheme, rest) = until(url, b":/?#");
    let authority = rest.strip_prefix(b"://").filter(|_| scheme.eq_ignore_ascii_case(b"http"))?;
    let (authority, rest) = until(authority, b"/?#");
    let (rest, _fragment) = until(rest, b"#");
    let (userinfo, place) = match authority.iter().rposition(|byte| *byte == b'@') {
        Some(at) => (Some(&authority[..at]), &authority[at + 1..]),
        None => (None, authority),
    };
    let (host, port) = match place {
        [b'[', inner @ ..] => {
            let end = inner.iter().position(|byte| *byte == b']')?;
            (&inner[..end], &inner[end + 1..])
        }
        _ => until(place, b":"),
    };
    let port = match port {
        [] => None,
        [b':', port @ ..] if port.iter().all(u8::is_ascii_digit) => Some(port),
        _ => return None,
    };
    let name = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%:".contains(byte);
    (!host.is_empty() && host.iter().all(name)).then_some(Strict { host, port, rest, userinfo })
}

/// A host as three readers can compare it.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    Name(String),
    Address(IpAddr),
}

impl Place {
    fn of_text(text: &str) -> Place {
        match text.parse::<IpAddr>() {
            Ok(address) => Place::Address(address.to_canonical()),
            Err(_) => Place::Name(text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase()),
        }
    }

    fn judged(target: &Target) -> Place {
        match &target.host {
            Host::Name(name) => Place::Name(name.to_string()),
            Host::Address(address) => Place::Address(*address),
        }
    }

    /// Bytes that are no text come in paths alone, where this reader wants them encoded.
    fn of_url(url: &[u8]) -> Option<(Place, u16)> {
        let text: String = url
            .iter()
            .map(|byte| match byte.is_ascii() {
                true => char::from(*byte).to_string(),
                false => format!("%{byte:02X}"),
            })
            .collect();
        let url = url::Url::parse(&text).ok()?;
        let place = match url.host()? {
            url::Host::Domain(name) => Place::of_text(name),
            url::Host::Ipv4(address) => Place::Address(address.into()),
            url::Host::Ipv6(address) => Place::Address(Ipv6Addr::to_canonical(&address)),
        };
        Some((place, url.port_or_known_default()?))
    }
}

/// Parts of a URL, right and nearly right, in any mixture.
fn urls() -> impl Strategy<Value = Vec<u8>> {
    let scheme = prop_oneof![9 => Just("http://"), 1 => Just("HTTP://"), 1 => Just("http:/"), 1 => Just("https://")];
    let host = || {
        prop_oneof![
            4 => "[a-z]{1,5}(\\.[a-z0-9_-]{1,5}){0,2}\\.?",
            2 => Just("db.corp.example".to_owned()),
            1 => Just("[2001:db8::7]".to_owned()),
            1 => Just("[::ffff:192.0.2.7]".to_owned()),
            1 => "[0-9]{1,3}(\\.[0-9]{1,3}){0,4}",
            1 => "0x[0-9a-f]{0,3}",
            1 => "[ -~é]{0,6}",
        ]
    };
    let user = prop_oneof![
        3 => Just(String::new()),
        2 => "[a-z]{0,4}(:[a-z%0-9]{0,4})?@",
        2 => (host(), 0u16..100).prop_map(|(host, port)| format!("{host}:{port}@")),
        1 => "[!-~é]{0,5}@",
    ];
    let port = prop_oneof![4 => Just(String::new()), 2 => "(:[0-9]{0,5})", 1 => ":[ -~]{0,3}"];
    let path = prop_oneof![
        2 => Just(Vec::new()),
        4 => "/[!-~]{0,8}".prop_map(String::into_bytes),
        2 => "[/?#\\\\@][!-~é€]{0,8}".prop_map(String::into_bytes),
        1 => proptest::collection::vec(any::<u8>(), 0..6),
    ];
    let tail = (path, prop_oneof![3 => Just(None), 1 => host().prop_map(Some)]);
    (scheme, user, host(), port, tail).prop_map(|(scheme, user, host, port, (path, again))| {
        let mut url =
            [scheme.as_bytes(), user.as_bytes(), host.as_bytes(), port.as_bytes()].concat();
        url.extend(path);
        // Another host where a careless reader may look for it.
        if let Some(again) = again {
            url.extend(b"@");
            url.extend(again.as_bytes());
        }
        url
    })
}

fn heads() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    let field = prop_oneof![
        4 => "[A-Za-z-]{1,10}: ?[!-~]{0,12}",
        1 => Just("Authorization: Bearer own".to_owned()),
        1 => Just("Connection: Upgrade, X-Hop".to_owned()),
        1 => Just("X-Hop: 1".to_owned()),
        1 => Just("Upgrade: tcp".to_owned()),
        1 => Just("Content-Length: 5".to_owned()),
        1 => Just("Content-Length: 0".to_owned()),
        1 => Just("Transfer-Encoding: chunked".to_owned()),
    ];
    let method = prop_oneof![3 => Just("GET"), 2 => Just("POST"), 1 => Just("OPTIONS")];
    let empty = 0usize..5;
    (empty, method, urls(), proptest::collection::vec(field, 0..6)).prop_map(
        |(empty, method, url, fields)| {
            let mut head = "\r\n".repeat(empty).into_bytes();
            head.extend(
                [method.as_bytes(), b" ", &url, b" HTTP/1.1\r\nHost: db.corp.example\r\n"].concat(),
            );
            fields.iter().for_each(|field| head.extend([field.as_bytes(), b"\r\n"].concat()));
            head.extend(b"\r\n");
            (head, url)
        },
    )
}

fn parsed(bytes: &[u8], most: usize) -> Option<MessageHead> {
    match head::parse_head(bytes, MessageKind::Request, most) {
        Ok(Parsed::Whole { value, .. }) => Some(value),
        _ => None,
    }
}

fn accepted(bytes: &[u8]) -> Option<ForwardRequest> {
    let read: Result<_, ParseError> =
        http_forward::parse_forward_request(&parsed(bytes, DEFAULT_MAX_HEAD)?);
    read.ok()
}

/// Runs `judge` on many heads; a part of them has to be accepted, or nothing was tried.
fn on_many(judge: impl Fn(&[u8], &ForwardRequest) -> Result<(), TestCaseError>) {
    let count = Cell::new(0);
    let mut runner = TestRunner::new(Config::with_cases(CASES));
    let run = runner.run(&heads(), |(head, url)| {
        let Some(request) = accepted(&head) else { return Ok(()) };
        count.set(count.get() + 1);
        judge(&url, &request)
    });
    assert!(run.is_ok(), "{}", run.unwrap_err());
    assert!(count.get() > CASES / 10, "only {} of {CASES} heads were accepted", count.get());
}

#[test]
fn b6_the_host_judged_is_the_one_that_strict_readers_find() {
    on_many(|url, request| {
        let Some(strict) = strict(url) else {
            return Err(TestCaseError::fail(format!("RFC 3986: {}", url.escape_ascii())));
        };
        let judged = (Place::judged(&request.target), request.target.port.get());
        let port = match strict.port {
            Some(port) => std::str::from_utf8(port).unwrap().parse().ok(),
            None => Some(80),
        };
        let host = Place::of_text(std::str::from_utf8(strict.host).unwrap());
        prop_assert_eq!(&(host, port.unwrap_or(0)), &judged);
        let Some(other) = Place::of_url(url) else {
            return Err(TestCaseError::fail(format!("URL standard: {}", url.escape_ascii())));
        };
        prop_assert_eq!(&other, &judged);
        // Path and query as they stand, and what the URL said of a user in its own field or nowhere.
        let onward = parsed(&request.head, 2 * DEFAULT_MAX_HEAD).unwrap();
        let sent = onward.second();
        let slash: &[u8] = if strict.rest.first() == Some(&b'/') { b"" } else { b"/" };
        let star = sent == b"*" && strict.rest.is_empty();
        prop_assert!(star || sent == [slash, strict.rest].concat(), "{}", sent.escape_ascii());
        if let Some(userinfo) = strict.userinfo.filter(|userinfo| !userinfo.is_empty()) {
            prop_assert_eq!(onward.values("authorization").count() >= 1, true, "{:?}", userinfo);
        }
        Ok(())
    });
}

/// What hyper's server makes of a head: line, fields and length of the body.
type Seen = (String, Vec<u8>, Vec<(String, Vec<u8>)>, (u64, Option<u64>));

fn under_hyper(runtime: &tokio::runtime::Runtime, head: &[u8]) -> Option<Seen> {
    let seen = std::sync::Mutex::new(None);
    runtime.block_on(async {
        let (mut near, far) = tokio::io::duplex(1 << 18);
        near.write_all(head).await.unwrap();
        near.shutdown().await.unwrap();
        let service = hyper::service::service_fn(|request: Request<Incoming>| {
            let target = request.uri().path_and_query().map_or("*", |it| it.as_str());
            let fields = request.headers().iter();
            let fields = fields.map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()));
            let size = request.body().size_hint();
            let method = request.method().to_string();
            let all = (method, target.into(), fields.collect(), (size.lower(), size.upper()));
            *seen.lock().unwrap() = Some(all);
            async { Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new())) }
        });
        let http = hyper::server::conn::http1::Builder::new();
        // A body that never comes ends in an error: by then the head has been read.
        let _ended = http.serve_connection(TokioIo::new(far), service).await;
    });
    seen.into_inner().unwrap()
}

#[test]
fn b6_what_is_sent_on_reads_the_same_under_hyper() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let read = Cell::new(0);
    on_many(|_, request| {
        let onward = parsed(&request.head, 2 * DEFAULT_MAX_HEAD).unwrap();
        let Some((method, target, mut fields, size)) = under_hyper(&runtime, &request.head) else {
            // Its type of a URI takes less than an origin may be sent.
            let uri = Uri::try_from(onward.second());
            prop_assert!(uri.is_err(), "hyper refuses {}", request.head.escape_ascii());
            return Ok(());
        };
        read.set(read.get() + 1);
        prop_assert_eq!(method.as_bytes(), onward.first());
        prop_assert_eq!(target, onward.second());
        let lower = |(name, value): (&[u8], &[u8])| {
            (String::from_utf8_lossy(name).to_ascii_lowercase(), value.to_vec())
        };
        let mut ours: Vec<_> = onward.fields().map(lower).collect();
        ours.sort();
        fields.sort();
        prop_assert_eq!(fields, ours);
        prop_assert_eq!(onward.values("host").count(), 1);
        let framed = match request.body {
            MessageFraming::None => (0, Some(0)),
            MessageFraming::Length(length) => (length, Some(length)),
            MessageFraming::Chunked | MessageFraming::UntilClose => (0, None),
        };
        prop_assert_eq!(size, framed);
        Ok(())
    });
    assert!(read.get() > CASES / 20, "hyper read only {} heads", read.get());
}
