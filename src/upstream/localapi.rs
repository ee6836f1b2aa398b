//! What is said to tailscaled's LocalAPI to have it dial, and reading what it says
//! (tailscale, ipn/localapi/localapi.go, `serveDial`, and `validHost` for the Host it takes).
//!
//! Pure: bytes in, values out.
#![forbid(unsafe_code)]

use std::fmt::Display;

use super::Unparsed;

/// The longest head of an answer; tailscaled's have about 300 bytes.
pub const MAX_HEAD: usize = 8 * 1024;

/// Most of a failure's text that is read.
pub const MAX_TEXT: usize = 4 * 1024;

/// Most header fields of an answer.
const MAX_FIELDS: usize = 64;

/// Longest piece of tailscaled's own words that is passed on.
const MAX_WORDS: usize = 200;

/// Asks for the state without its peers: answered only by a tailscaled that works.
pub const STATUS: &[u8] =
    b"GET /localapi/v0/status?peers=false HTTP/1.1\r\nHost: local-tailscaled.sock\r\n\r\n";

/// The head of an answer, as far as a dial cares.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Head {
    /// The status.
    pub status: u16,
    /// `Upgrade: ts-dial`.
    pub upgraded: bool,
    /// `Dial-Self: true`: the target is none of the tailnet's.
    pub dial_self: bool,
    /// `Content-Length`.
    pub length: Option<usize>,
    /// `Transfer-Encoding`, which long answers have: never that of a dial.
    pub chunked: bool,
    /// The head's own length; behind a 101 follow the far side's bytes.
    pub used: usize,
}

/// Why tailscaled could not connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The far side refused.
    Refused,
    /// It did not answer.
    Expired,
    /// The host is not there.
    HostUnreachable,
    /// No route to that network.
    NoRoute,
    /// The name has no address; tailscaled's words.
    Unresolved(String),
    /// Something else; tailscaled's words.
    Other(String),
}

/// The request to dial `host`, a name or an address without brackets.
pub fn request(host: &impl Display, port: u16) -> Vec<u8> {
    format!(
        "POST /localapi/v0/dial HTTP/1.1\r\nHost: local-tailscaled.sock\r\n\
         Connection: upgrade\r\nUpgrade: ts-dial\r\nDial-Host: {host}\r\nDial-Port: {port}\r\n\
         Content-Length: 0\r\n\r\n"
    )
    .into_bytes()
}

/// Reads the head of an answer (RFC 9112): strict, because both sides of it are known.
///
/// # Errors
/// [`Unparsed`], as early as whole lines tell.
pub fn parse_head(bytes: &[u8]) -> Result<Head, Unparsed> {
    let bad = Unparsed::Bad("its answer is not HTTP/1.1");
    let (mut at, mut head, mut lines) = (0, None, 0);
    loop {
        let Some(line) = line(&bytes[at..])? else {
            let begun = START.len().min(bytes.len());
            return match bytes.len() < MAX_HEAD && bytes[..begun] == START[..begun] {
                true => Err(Unparsed::Incomplete),
                false => Err(bad),
            };
        };
        at += line.len() + 2;
        lines += usize::from(!line.is_empty());
        if at > MAX_HEAD || lines > 1 + MAX_FIELDS {
            return Err(Unparsed::Bad("the head of its answer has no end"));
        }
        match &mut head {
            None => head = Some(first_line(line).ok_or(bad)?),
            Some(head) if line.is_empty() => return Ok(Head { used: at, ..*head }),
            Some(head) => field(head, line)?,
        }
    }
}

/// What a status other than those of a dial means.
pub(super) fn unwanted(status: u16) -> &'static str {
    match status {
        403 => "LocalAPI forbids it (403): see which user tailscaled lets in",
        404 => "its LocalAPI does not know the question (404): use a newer tailscaled",
        500..=599 => "its LocalAPI failed (5xx): see its own log",
        _ => "its LocalAPI answered with a status we do not know",
    }
}

/// What the text of a 502 says; the phrases are those of tailscaled's network stack (gVisor,
/// pkg/tcpip/errors.go).
pub fn failure(text: &[u8]) -> Failure {
    let said = words(text);
    if let Some(why) = said.strip_prefix("resolve failure:") {
        return Failure::Unresolved(why.trim().to_owned());
    }
    let says = |phrase| said.contains(phrase);
    if says("connection was refused") {
        Failure::Refused
    } else if says("operation timed out") {
        Failure::Expired
    } else if says("no route to host") {
        Failure::HostUnreachable
    } else if says("network is unreachable") {
        Failure::NoRoute
    } else {
        Failure::Other(said.trim_start_matches("dial failure:").trim().to_owned())
    }
}

const START: &[u8] = b"HTTP/1.1 ";

/// The first whole line, without its CRLF.
fn line(bytes: &[u8]) -> Result<Option<&[u8]>, Unparsed> {
    let Some(end) = memchr::memchr(b'\n', bytes) else { return Ok(None) };
    match bytes[..end].strip_suffix(b"\r") {
        Some(line) if !line.contains(&b'\r') && !line.contains(&0) => Ok(Some(line)),
        _ => Err(Unparsed::Bad("a line of its answer does not end as HTTP has it")),
    }
}

fn first_line(line: &[u8]) -> Option<Head> {
    let rest = line.strip_prefix(START)?;
    let (digits, reason) = rest.split_at_checked(3)?;
    let good = (1..=5).contains(&digits[0].wrapping_sub(b'0'))
        && (reason.is_empty() || reason[0] == b' ')
        && reason.iter().all(|byte| is_text(*byte));
    let status = u16::try_from(number(digits)?).ok()?;
    good.then_some(Head { status, ..Head::default() })
}

/// Digits and nothing else.
fn number(text: &[u8]) -> Option<usize> {
    let digits = text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text).ok().filter(|_| digits)?.parse().ok()
}

fn field(head: &mut Head, line: &[u8]) -> Result<(), Unparsed> {
    let bad = Unparsed::Bad("a header field of its answer is none");
    let colon = memchr::memchr(b':', line).ok_or(bad)?;
    let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
    if name.is_empty() || !name.iter().all(|byte| is_token(*byte)) {
        return Err(bad);
    }
    if !value.iter().all(|byte| is_text(*byte)) {
        return Err(bad);
    }
    let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
    if is("content-length") {
        let none = Unparsed::Bad("its Content-Length is none");
        let length = number(value).ok_or(none)?;
        return head.length.replace(length).map_or(Ok(()), |_| Err(none));
    }
    if is("transfer-encoding") {
        head.chunked = true;
    } else if is("upgrade") {
        head.upgraded = value.eq_ignore_ascii_case(b"ts-dial");
    } else if is("dial-self") {
        head.dial_self = value == b"true";
    }
    Ok(())
}

/// `tchar` of RFC 9110 section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// What a field's value and a reason may hold (RFC 9110 section 5.5).
fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// A text as one printable line.
fn words(text: &[u8]) -> String {
    let printable = |byte: &u8| if (b' '..=b'~').contains(byte) { char::from(*byte) } else { ' ' };
    let line: String = text.iter().take(MAX_WORDS).map(printable).collect();
    line.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const UPGRADED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n\
        Tailscale-Version: 1.98.9\r\nUpgrade: ts-dial\r\n\r\n";
    const SELF: &[u8] = b"HTTP/1.1 200 OK\r\nDial-Addr: 10.99.0.1:80\r\nDial-Self: true\r\n\
        Content-Length: 0\r\n\r\n";
    const FAILED: &[u8] =
        b"HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/plain; charset=utf-8\r\n\
        X-Content-Type-Options: nosniff\r\nContent-Length: 59\r\n\r\n";

    fn head(status: u16, bytes: &[u8]) -> Head {
        Head { status, used: bytes.len(), ..Head::default() }
    }

    #[test]
    fn the_three_answers_of_a_dial() {
        let early = [UPGRADED, b"SSH-2.0-x\r\n"].concat();
        assert_eq!(parse_head(&early), Ok(Head { upgraded: true, ..head(101, UPGRADED) }));
        let own = Head { dial_self: true, length: Some(0), ..head(200, SELF) };
        assert_eq!(parse_head(SELF), Ok(own));
        assert_eq!(parse_head(FAILED), Ok(Head { length: Some(59), ..head(502, FAILED) }));
    }

    #[test]
    fn a_request_names_the_host_bare() {
        let ip: std::net::IpAddr = "fd7a::1".parse().unwrap();
        let said = String::from_utf8(request(&ip, 443)).unwrap();
        assert!(said.contains("\r\nDial-Host: fd7a::1\r\nDial-Port: 443\r\n"), "{said}");
        assert!(
            said.starts_with("POST /localapi/v0/dial HTTP/1.1\r\nHost: local-tailscaled.sock\r\n")
        );
        assert!(said.ends_with("\r\n\r\n"));
    }

    #[test]
    fn texts_keep_their_meaning() {
        let dial = |why: &str| {
            failure(format!("dial failure: connect tcp 100.64.0.1:9: {why}\n").as_bytes())
        };
        assert_eq!(dial("connection was refused"), Failure::Refused);
        assert_eq!(dial("operation timed out"), Failure::Expired);
        assert_eq!(dial("no route to host"), Failure::HostUnreachable);
        assert_eq!(dial("network is unreachable"), Failure::NoRoute);
        assert_eq!(dial("x\ny"), Failure::Other("connect tcp 100.64.0.1:9: x y".into()));
        let name = failure(b"resolve failure: lookup a.b: no such host\n");
        assert_eq!(name, Failure::Unresolved("lookup a.b: no such host".into()));
        let long = failure(&[b'a'; 5_000]);
        assert_eq!(long, Failure::Other("a".repeat(MAX_WORDS)));
    }

    #[test]
    fn u8_what_is_not_such_an_answer_is_bad() {
        let bad: [&[u8]; 18] = [
            b"\x05\x00",
            b"HTTP/1.0 200 OK\r\n",
            b"http/1.1 200 OK\r\n",
            b"HTTP/1.1  200 OK\r\n",
            b"HTTP/1.1 20 OK\r\n",
            b"HTTP/1.1 2000 OK\r\n",
            b"HTTP/1.1 900 OK\r\n",
            b"HTTP/1.1 200 OK\n",
            b"HTTP/1.1 200 O\rK\r\n",
            b"HTTP/1.1 200 OK\r\n\n",
            b"HTTP/1.1 200 OK\r\nno colon\r\n",
            b"HTTP/1.1 200 OK\r\n: nameless\r\n",
            b"HTTP/1.1 200 OK\r\nA : b\r\n",
            b"HTTP/1.1 200 OK\r\nA: b\r\n folded\r\n",
            b"HTTP/1.1 200 OK\r\nA: \x01\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: +5\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n",
        ];
        for bytes in bad {
            assert!(matches!(parse_head(bytes), Err(Unparsed::Bad(_))), "{}", bytes.escape_ascii());
        }
        let endless =
            [b"HTTP/1.1 200 OK\r\n".to_vec(), b"A: b\r\n".repeat(MAX_FIELDS + 1)].concat();
        assert!(matches!(parse_head(&endless), Err(Unparsed::Bad(_))));
        let wide = [b"HTTP/1.1 200 ".to_vec(), vec![b'a'; MAX_HEAD]].concat();
        assert!(matches!(parse_head(&wide), Err(Unparsed::Bad(_))));
    }

    fn answer() -> impl Strategy<Value = Vec<u8>> {
        let field = ("[A-Za-z-]{1,12}", "[ -~]{0,30}")
            .prop_map(|(name, value)| format!("{name}: {value}\r\n"));
        (100u16..600, "[ -~]{0,20}", proptest::collection::vec(field, 0..8)).prop_map(
            |(status, reason, fields)| {
                format!("HTTP/1.1 {status} {reason}\r\n{}\r\n", fields.concat()).into_bytes()
            },
        )
    }

    /// What httparse reads of it; it takes more than we do.
    fn oracle(bytes: &[u8]) -> Option<(u16, usize)> {
        let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
        let mut response = httparse::Response::new(&mut fields);
        match response.parse(bytes) {
            Ok(httparse::Status::Complete(used)) => response.code.map(|code| (code, used)),
            _ => None,
        }
    }

    proptest! {
        #[test]
        fn u6_every_split_gives_the_same_answer(
            start in prop_oneof![Just(UPGRADED), Just(SELF), Just(FAILED)],
            early in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let bytes = [start, &early].concat();
            for end in 0..start.len() {
                prop_assert_eq!(parse_head(&bytes[..end]), Err(Unparsed::Incomplete));
            }
            for end in start.len()..=bytes.len() {
                prop_assert_eq!(parse_head(&bytes[..end]).map(|head| head.used), Ok(start.len()));
            }
        }

        #[test]
        fn whole_answers_are_read_as_httparse_reads_them(bytes in answer()) {
            match parse_head(&bytes) {
                Ok(head) => prop_assert_eq!(Some((head.status, head.used)), oracle(&bytes)),
                Err(why) => prop_assert!(matches!(why, Unparsed::Bad(_)), "{why:?}"),
            }
        }

        #[test]
        fn any_bytes_are_judged_for_good(
            bytes in proptest::collection::vec(any::<u8>(), 0..400), cut in 0usize..400
        ) {
            match (parse_head(&bytes[..cut.min(bytes.len())]), parse_head(&bytes)) {
                (Err(Unparsed::Incomplete), _) => {}
                (Err(Unparsed::Bad(_)), whole) => {
                    prop_assert!(matches!(whole, Err(Unparsed::Bad(_))), "{whole:?}");
                }
                (part, whole) => prop_assert_eq!(part, whole),
            }
        }
    }
}
