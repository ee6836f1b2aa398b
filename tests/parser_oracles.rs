//! The parsers of `inbound` against other people's: what ours accepts, they read the same way.
//!
//! And against themselves: where the input is split makes no difference (R16, mistake 10), and what
//! they print they parse. Each of `fuzz/`'s parsers is held here too, without a nightly toolchain.

#![allow(clippy::unwrap_used, reason = "a broken oracle should fail loudly")]

use std::net::SocketAddr;
use std::path::Path;

use fast_socks5::Socks5Command;
use fast_socks5::client::{Config, Socks5Stream};
use fast_socks5::util::target_addr::TargetAddr;
use proptest::prelude::*;
use tailrace::config::{self, ProcessEnvironment};
use tailrace::inbound::framing::{self, MessageFraming};
use tailrace::inbound::head::{self, DEFAULT_MAX_HEAD, MessageHead, MessageKind};
use tailrace::inbound::{ParseError, Parsed, connect, http_forward, socks4, socks5};
use tailrace::outcome::Outcome;
use tailrace::policy::Suffix;
use tailrace::sys::redirected;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// What a request of fast-socks5's client looks like on the wire: greeting and request.
fn client_says(target: TargetAddr) -> (Vec<u8>, Vec<u8>) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let (near, mut far) = tokio::io::duplex(4096);
        let client = async {
            let mut stream = Socks5Stream::use_stream(near, None, Config::default()).await?;
            stream.request(Socks5Command::TCPConnect, target).await
        };
        let server = async {
            let mut greeting = vec![0; 3];
            far.read_exact(&mut greeting).await.unwrap();
            far.write_all(&[5, 0]).await.unwrap();
            let mut request = vec![0; 1024];
            let n = far.read(&mut request).await.unwrap();
            request.truncate(n);
            far.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await.unwrap();
            (greeting, request)
        };
        let (answered, said) = tokio::join!(client, server);
        answered.unwrap();
        said
    })
}

/// A parser's verdict with the value reduced to what can be compared.
fn verdict<T: std::fmt::Debug>(result: Result<Parsed<T>, ParseError>) -> Result<String, Outcome> {
    result.map(|parsed| format!("{parsed:?}")).map_err(|bad| bad.outcome)
}

/// Each prefix either waits for more or already says what the whole input says.
fn every_prefix_agrees<T: std::fmt::Debug>(
    input: &[u8],
    parse: impl Fn(&[u8]) -> Result<Parsed<T>, ParseError>,
) -> Result<(), TestCaseError> {
    let whole = verdict(parse(input));
    for end in 0..input.len() {
        let part = verdict(parse(&input[..end]));
        prop_assert!(
            part == Ok("Incomplete".into()) || part == whole,
            "{end} of {}: {part:?}, whole: {whole:?}",
            input.len()
        );
    }
    Ok(())
}

fn whole(input: &[u8], side: MessageKind) -> Option<(MessageHead, usize)> {
    match head::parse_head(input, side, DEFAULT_MAX_HEAD) {
        Ok(Parsed::Whole { value, used }) => Some((value, used)),
        _ => None,
    }
}

/// Nearly right heads, so that both verdicts come up often.
fn heads() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => "[A-Za-z-]{1,10}[ \t]{0,1}: ?[ -~]{0,16}\r\n".prop_map(String::into_bytes),
        4 => "[A-Za-z-]{1,10}: ?[ -~]{0,16}\r\n".prop_map(String::into_bytes),
        1 => Just(b"Host: h\r\n".to_vec()),
        1 => Just(b"Content-Length: 5\r\n".to_vec()),
        1 => Just(b"Transfer-Encoding: chunked\r\n".to_vec()),
        1 => Just(b"\r\n".to_vec()),
        1 => Just(b"\n".to_vec()),
        1 => Just(b" ".to_vec()),
        1 => proptest::collection::vec(any::<u8>(), 0..4),
    ];
    let first = prop_oneof![
        8 => "(\r\n){0,5}(GET|POST|CONNECT) (http://(u:p@)?h/[!-~é]{0,8}|h:[0-9]{1,5}) HTTP/1\\.[01]\r\n",
        8 => "HTTP/1\\.[01] [1-5][0-9][0-9]( [ -~]{0,9})?\r\n",
        1 => "[ -~]{0,20}\r\n",
    ];
    (first, proptest::collection::vec(piece, 0..8), any::<bool>()).prop_map(|(first, rest, end)| {
        let mut head = first.into_bytes();
        head.extend(rest.concat());
        if end {
            head.extend(b"\r\n");
        }
        head
    })
}

fn fields_agree(ours: &MessageHead, theirs: &[httparse::Header<'_>]) -> Result<(), TestCaseError> {
    let ours: Vec<_> = ours.fields().collect();
    let theirs: Vec<_> = theirs.iter().map(|h| (h.name.as_bytes(), h.value)).collect();
    prop_assert_eq!(ours, theirs);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn socks5_names_of_another_client_are_read(name in "[a-z]([a-z0-9-]{0,20}[a-z0-9])?(\\.[a-z]{1,10}){0,3}", port in 1u16..) {
        let (greeting, request) = client_says(TargetAddr::Domain(name.clone(), port));
        let method = Parsed::Whole { value: socks5::AuthMethod::None, used: 3 };
        prop_assert_eq!(socks5::parse_greeting(&greeting), Ok(method));
        // A name with a fake A-label is refused on purpose (B7).
        prop_assume!(!name.split('.').any(|label| label.starts_with("xn--")));
        let Ok(Parsed::Whole { value, used }) = socks5::parse_request(&request) else {
            return Err(TestCaseError::fail(format!("{name}:{port} refused")));
        };
        prop_assert_eq!(value.to_string(), format!("{name}:{port}"));
        prop_assert_eq!(used, request.len());
    }

    #[test]
    fn socks5_addresses_of_another_client_are_read(ip in any::<std::net::IpAddr>(), port in 1u16..) {
        let address = SocketAddr::new(ip, port);
        let (_, request) = client_says(TargetAddr::Ip(address));
        let Ok(Parsed::Whole { value, used }) = socks5::parse_request(&request) else {
            return Err(TestCaseError::fail(format!("{address} refused")));
        };
        prop_assert_eq!(value.to_string(), SocketAddr::new(ip.to_canonical(), port).to_string());
        prop_assert_eq!(used, request.len());
    }
}

proptest! {
    #[test]
    fn r16_socks_verdicts_do_not_hang_on_splits(
        version in prop_oneof![Just(4u8), Just(5u8), any::<u8>()],
        start in prop_oneof![
            Just(vec![1, 0, 80, 0, 0, 0, 7]), Just(vec![1, 0, 3]), Just(vec![1, 0, 1]),
            Just(vec![1, 0, 4]), Just(vec![]),
        ],
        body in proptest::collection::vec(any::<u8>(), 0..600),
    ) {
        let input = [vec![version], start, body].concat();
        every_prefix_agrees(&input, socks4::parse_request)?;
        every_prefix_agrees(&input, socks5::parse_greeting)?;
        every_prefix_agrees(&input, socks5::parse_request)?;
        every_prefix_agrees(&input[1..], |bytes| socks5::parse_user(&mut bytes.to_vec()))?;
    }

    #[test]
    fn r16_head_verdicts_do_not_hang_on_splits(input in heads()) {
        for side in [MessageKind::Request, MessageKind::Response] {
            for most in [DEFAULT_MAX_HEAD, 64] {
                every_prefix_agrees(&input, |bytes| head::parse_head(bytes, side, most))?;
            }
            every_prefix_agrees(&input, |bytes| head::parse_trailers(bytes, side))?;
        }
    }

    #[test]
    fn requests_we_accept_another_parser_reads_alike(input in heads()) {
        let Some((ours, used)) = whole(&input, MessageKind::Request) else { return Ok(()) };
        let mut fields = [httparse::EMPTY_HEADER; 128];
        let mut theirs = httparse::Request::new(&mut fields);
        prop_assert_eq!(theirs.parse(&input), Ok(httparse::Status::Complete(used)));
        prop_assert_eq!(ours.first(), theirs.method.unwrap().as_bytes());
        prop_assert_eq!(ours.second(), theirs.path.unwrap().as_bytes());
        fields_agree(&ours, theirs.headers)?;
    }

    #[test]
    fn responses_we_accept_another_parser_reads_alike(input in heads()) {
        let Some((ours, used)) = whole(&input, MessageKind::Response) else { return Ok(()) };
        let mut fields = [httparse::EMPTY_HEADER; 128];
        let mut theirs = httparse::Response::new(&mut fields);
        let mut settings = httparse::ParserConfig::default();
        settings.allow_spaces_after_header_name_in_responses(true); // as RFC 9112 section 5.1 wants it
        let read = settings.parse_response(&mut theirs, &input);
        prop_assert_eq!(read, Ok(httparse::Status::Complete(used)));
        let code = theirs.code.unwrap().to_string();
        prop_assert_eq!(ours.second(), code.as_bytes());
        fields_agree(&ours, theirs.headers)?;
    }

    #[test]
    fn what_goes_on_to_an_origin_is_strict_and_framed_as_judged(input in heads()) {
        let Some((head, _)) = whole(&input, MessageKind::Request) else { return Ok(()) };
        let _no_panic = connect::parse_connect(&head);
        let Ok(request) = http_forward::parse_forward_request(&head) else { return Ok(()) };
        let Some((onward, used)) = whole(&request.head, MessageKind::Request) else {
            return Err(TestCaseError::fail("not a head any more"));
        };
        prop_assert_eq!(used, request.head.len());
        let version = head::parse_version(onward.third()).unwrap();
        prop_assert_eq!(framing::of_request(&onward, version), Ok(request.body));
        prop_assert_eq!(onward.values("host").count(), 1);
        prop_assert_eq!(onward.values("proxy-authorization").count(), 0);
        prop_assert!(matches!(request.body, MessageFraming::None | MessageFraming::Length(_) | MessageFraming::Chunked));
        prop_assert!(onward.second().starts_with(b"/"));
    }
}

/// Settings that are nearly right.
fn settings() -> impl Strategy<Value = String> {
    let line = prop_oneof![
        "\\[(listen|upstream|policy|limits|dns|log|relay|nonsense)\\]\n",
        "(kind|mode|socks5|proxy|admin|idle_timeout|allowed_nets|level) = \"[ -~]{0,14}\"\n",
        "(max_connections|per_client|pool|head_timeout) = -?[0-9]{1,12}\n",
        "(allowed_host_suffixes|deny_nets|proxy) = \\[\"[a-z0-9.:/*]{0,14}\", [0-9\"]{0,3}\\]\n",
        "[ -~\u{1b}\u{202e}]{0,24}\n",
    ];
    proptest::collection::vec(line, 0..10).prop_map(|lines| lines.concat())
}

proptest! {
    #[test]
    fn settings_complaints_are_printable_lines(text in settings()) {
        let env = ProcessEnvironment::from_pairs([("HOME", "/nowhere")]);
        let written = config::parse(Some((Path::new("case.toml"), &text)), &env, &[]);
        if let Err(problems) = config::check_config(&written, &env) {
            let lines = problems.lines();
            prop_assert!(!lines.is_empty());
            prop_assert!(lines.iter().all(|line| line.starts_with("config: ")));
            prop_assert!(lines.iter().all(|line| !line.contains(char::is_control)), "{lines:?}");
        }
    }

    #[test]
    fn suffix_lists_print_what_they_parse(text in "([.*]{0,2}[a-zA-Z0-9.-]{0,12},? ?){0,5}") {
        if let Ok(list) = Suffix::parse_list(&text) {
            let printed: Vec<String> = list.iter().map(ToString::to_string).collect();
            prop_assert_eq!(Suffix::parse_list(&printed.join(",")), Ok(list));
        }
    }

    #[test]
    fn a_redirected_connection_is_never_one_of_ours(
        original in any::<Option<SocketAddr>>(), local in any::<SocketAddr>(),
        own in proptest::collection::vec(any::<SocketAddr>(), 0..3), pick in 0usize..5,
    ) {
        let original = match pick {
            0 => Some(local),
            1 => own.first().copied(),
            _ => original,
        };
        if let Some(to) = redirected(original, local, &own) {
            let same = |a: SocketAddr| (a.ip().to_canonical(), a.port()) == (to.ip(), to.port());
            prop_assert!(to.port() != 0 && !same(local) && !own.iter().copied().any(same));
            prop_assert_eq!(original.map(|o| (o.ip().to_canonical(), o.port())), Some((to.ip(), to.port())));
        }
    }
}
