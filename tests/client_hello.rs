//! ClientHellos of real programs (`tests/hellos`), whole, cut and in pieces; and rustls as a second opinion.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail loudly")]

#[path = "hellos/say.rs"]
mod hellos;

use hellos::captured;
use proptest::prelude::*;
use rustls::server::Acceptor;
use tailrace::inbound::client_hello::{self, ClientHello, MAX_HELLO, ServerName};
use tailrace::inbound::sniff::{self, SniffedProtocol};
use tailrace::target::Host;

const NAME: &str = "db.corp.example";

fn wanted(program: &str) -> ClientHello {
    match program.ends_with("-no-name") {
        true => ClientHello::Tls(ServerName::Absent),
        false => ClientHello::Tls(ServerName::Host(Host::parse(NAME.as_bytes()).unwrap())),
    }
}

/// The same handshake bytes in records of these sizes, the last one for the rest.
fn in_records(hello: &[u8], sizes: &[usize]) -> Vec<u8> {
    let mut rest = &hello[5..];
    let mut records = Vec::new();
    for size in sizes.iter().copied().chain([usize::MAX]) {
        let (now, later) = rest.split_at(size.min(rest.len()).min(0x4000));
        let length = (now.len() as u16).to_be_bytes();
        records.extend([&[0x16, 3, 1], &length[..], now].concat());
        rest = later;
        if rest.is_empty() {
            return records;
        }
    }
    panic!("a hello of more than a record");
}

/// What rustls makes of it: a name, none, or no hello it likes.
fn rustls_reads(bytes: &[u8]) -> Result<Option<String>, String> {
    let mut acceptor = Acceptor::default();
    acceptor.read_tls(&mut &bytes[..]).map_err(|error| error.to_string())?;
    match acceptor.accept() {
        Ok(Some(accepted)) => Ok(accepted.client_hello().server_name().map(str::to_owned)),
        Ok(None) => Err("more is needed".to_owned()),
        Err((error, _)) => Err(error.to_string()),
    }
}

/// Whatever rustls accepts, we read alike, or say that we cannot.
fn agree(bytes: &[u8]) -> Result<(), TestCaseError> {
    let Ok(theirs) = rustls_reads(bytes) else { return Ok(()) };
    let ours = match client_hello::parse_client_hello(bytes) {
        ClientHello::Tls(ServerName::Host(Host::Name(name))) => Some(name.to_string()),
        // rustls takes an address for no name.
        ClientHello::Tls(ServerName::Absent | ServerName::Host(Host::Address(_))) => None,
        ClientHello::Tls(ServerName::Unreadable(_)) => return Ok(()),
        other => return Err(TestCaseError::fail(format!("{other:?}, rustls: {theirs:?}"))),
    };
    let folded = theirs.map(|name| name.trim_end_matches('.').to_ascii_lowercase());
    prop_assert_eq!(ours, folded);
    Ok(())
}

#[test]
fn every_program_is_read_whole_and_waits_for_more_until_then() {
    let hellos = captured();
    assert!(hellos.len() >= 9, "{}", hellos.len());
    for (program, hello) in hellos {
        let end = 5 + usize::from(u16::from_be_bytes([hello[3], hello[4]]));
        for cut in 0..end {
            assert_eq!(
                client_hello::parse_client_hello(&hello[..cut]),
                ClientHello::Incomplete,
                "{program} at {cut}"
            );
            let said = if cut == 0 {
                SniffedProtocol::Incomplete
            } else {
                SniffedProtocol::IncompleteHello
            };
            assert_eq!(sniff::sniff(&hello[..cut]), said, "{program} at {cut}");
        }
        assert_eq!(client_hello::parse_client_hello(&hello), wanted(&program), "{program}");
        let named = (!program.ends_with("-no-name")).then(|| NAME.to_owned());
        assert_eq!(rustls_reads(&hello[..end]), Ok(named), "{program}");
    }
}

#[test]
fn every_program_is_read_over_two_records_cut_anywhere() {
    for (program, hello) in captured() {
        for cut in 1..hello.len() - 5 {
            assert_eq!(
                client_hello::parse_client_hello(&in_records(&hello, &[cut])),
                wanted(&program),
                "{program} {cut}"
            );
        }
    }
}

/// Programs to mutate: those whose record is the whole file.
fn any_hello() -> impl Strategy<Value = (String, Vec<u8>)> {
    proptest::sample::select(captured())
}

proptest! {
    #[test]
    fn records_of_any_sizes_make_no_difference(
        (program, hello) in any_hello(),
        sizes in proptest::collection::vec(1_usize..600, 0..40),
    ) {
        let records = in_records(&hello, &sizes);
        prop_assert_eq!(client_hello::parse_client_hello(&records), wanted(&program));
        agree(&records)?;
    }

    #[test]
    fn rustls_reads_no_other_name(
        (_, mut hello) in any_hello(),
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..6),
    ) {
        for (at, byte) in changes {
            let at = at.index(hello.len());
            hello[at] = byte;
        }
        agree(&hello)?;
    }

    #[test]
    fn anything_is_read_without_harm_and_never_later_than_16_kib(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        start in proptest::sample::select(vec![&b""[..], &[0x16, 3, 1], &[0x16, 3, 3, 0, 60, 1, 0, 0], &[0x80]]),
    ) {
        let bytes = [start, &bytes].concat();
        let said = sniff::sniff(&bytes);
        let waits = |said: &SniffedProtocol| matches!(said, SniffedProtocol::Incomplete | SniffedProtocol::IncompleteHello);
        if !waits(&said) {
            // What was said stays said, whatever follows.
            let more = [&bytes[..], b"more"].concat();
            prop_assert_eq!(&sniff::sniff(&more), &said);
        }
        let long = [&bytes[..], &vec![b'a'; MAX_HELLO]].concat();
        prop_assert!(!waits(&sniff::sniff(&long)));
    }
}
