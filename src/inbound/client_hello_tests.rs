//! ClientHellos by hand: names, records, broken ones and what only looks like one.
#![forbid(unsafe_code)]

use super::*;

/// A ClientHello message with these extensions, each with its length; `None`: not even a list of them.
fn message_with(extensions: Option<&[u8]>) -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0x13, 0x01, 1, 0]);
    if let Some(extensions) = extensions {
        body.extend((extensions.len() as u16).to_be_bytes());
        body.extend(extensions);
    }
    let length = (body.len() as u32).to_be_bytes();
    [&[CLIENT_HELLO], &length[1..], &body].concat()
}

fn record_of(fragment: &[u8]) -> Vec<u8> {
    [&[HANDSHAKE, 3, 1], &(fragment.len() as u16).to_be_bytes()[..], fragment].concat()
}

fn extension(kind: u16, data: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &(data.len() as u16).to_be_bytes(), data].concat()
}

fn names(entries: &[(u8, &[u8])]) -> Vec<u8> {
    let entry = |(kind, name): &(u8, &[u8])| {
        [&[*kind][..], &(name.len() as u16).to_be_bytes(), name].concat()
    };
    let list: Vec<u8> = entries.iter().flat_map(entry).collect();
    extension(SERVER_NAME, &[&(list.len() as u16).to_be_bytes()[..], &list].concat())
}

fn asking_for(name: &[u8]) -> Vec<u8> {
    let extensions =
        [extension(0x0a0a, b""), names(&[(HOST_NAME, name)]), extension(43, &[2, 3, 4])];
    message_with(Some(&extensions.concat()))
}

fn host(name: &str) -> ClientHello {
    ClientHello::Tls(ServerName::Host(Host::parse(name.as_bytes()).unwrap()))
}

#[track_caller]
fn assert_unreadable(bytes: &[u8]) {
    let hello = parse_client_hello(bytes);
    assert!(matches!(hello, ClientHello::Tls(ServerName::Unreadable(_))), "{hello:?}");
}

#[test]
fn a_name_in_one_record() {
    let hello = record_of(&asking_for(b"DB.corp.example"));
    for end in 0..hello.len() {
        assert_eq!(parse_client_hello(&hello[..end]), ClientHello::Incomplete, "{end}");
    }
    assert_eq!(parse_client_hello(&hello), host("db.corp.example"));
    let more = [&hello[..], b"early data"].concat();
    assert_eq!(parse_client_hello(&more), host("db.corp.example"));
    assert_eq!(parse_client_hello(&record_of(&asking_for(b"10.50.0.7"))), host("10.50.0.7"));
}

#[test]
fn a_name_over_records_of_every_size() {
    let message = asking_for(b"db.corp.example");
    for size in 1..=message.len() {
        let records: Vec<u8> = message.chunks(size).flat_map(record_of).collect();
        assert_eq!(parse_client_hello(&records), host("db.corp.example"), "{size}");
        assert_eq!(
            parse_client_hello(&records[..records.len() - 1]),
            ClientHello::Incomplete,
            "{size}"
        );
    }
    let empty = [record_of(b""), record_of(&message)].concat();
    assert_eq!(
        parse_client_hello(&empty),
        host("db.corp.example"),
        "OpenSSL steps over an empty record"
    );
}

#[test]
fn no_name() {
    assert_eq!(
        parse_client_hello(&record_of(&message_with(None))),
        ClientHello::Tls(ServerName::Absent)
    );
    assert_eq!(
        parse_client_hello(&record_of(&message_with(Some(b"")))),
        ClientHello::Tls(ServerName::Absent)
    );
    // CLIENT-HELLO of SSLv2 for TLS 1.0: three cipher specs, a challenge of 16 bytes.
    let sslv2 = [&[0x80, 34, 1, 3, 1, 0, 9, 0, 0, 0, 16][..], &[7; 25]].concat();
    for end in 0..11 {
        assert_eq!(parse_client_hello(&sslv2[..end]), ClientHello::Incomplete, "{end}");
    }
    assert_eq!(parse_client_hello(&sslv2), ClientHello::Tls(ServerName::Absent));
    assert_eq!(parse_client_hello(&[&[0x80, 35][..], &sslv2[2..]].concat()), ClientHello::NotTls);
}

#[test]
fn what_a_lenient_server_might_take_is_unreadable() {
    let (good, other) = ((HOST_NAME, &b"a.b"[..]), (1, &b"a.b"[..]));
    for extensions in [
        names(&[]),
        names(&[other]),
        names(&[good, good]),
        names(&[good, other]),
        names(&[(HOST_NAME, b"")]),
        names(&[(HOST_NAME, b"a\0.b")]),
        [names(&[good]), names(&[good])].concat(),
        extension(SERVER_NAME, b""),
        [names(&[good]), vec![0]].concat(),
    ] {
        assert_unreadable(&record_of(&message_with(Some(&extensions))));
    }
    let mut trailing = asking_for(b"a.b");
    trailing.push(0);
    trailing[3] += 1;
    assert_unreadable(&record_of(&trailing));
    let message = asking_for(b"a.b");
    let (first, rest) = message.split_at(20);
    assert_unreadable(
        &[&record_of(first), &[ALERT, 3, 1, 0, 2, 1, 0][..], &record_of(rest)].concat(),
    );
    assert_unreadable(&[&[ALERT, 3, 1, 0, 2, 1, 0][..], &record_of(&message)].concat());
    assert_unreadable(&[&[CHANGE_CIPHER_SPEC, 3, 3, 0, 1, 1][..], &record_of(&message)].concat());
}

#[test]
fn other_protocols_are_no_tls() {
    for bytes in [
        &b"SSH-2.0-x\r\n"[..],
        b"\x16\x02\x00",
        b"\x17\x03\x03\x00\x10",
        b"\x00\x00\x00\x08",
        // MongoDB: a little-endian length of 0x0316, 0x0315 and 0x0314, then the request's number.
        b"\x16\x03\x00\x00\x01\x00\x00\x00",
        b"\x16\x03\x00\x00\x00\x00\x00\x00",
        b"\x15\x03\x00\x00\x01\x00\x00\x00",
        b"\x14\x03\x00\x00\x01\x00\x00\x00",
        b"\x80\x00\x02",
        b"\xff\xfb\x01", // telnet
    ] {
        assert_eq!(
            parse_client_hello(bytes),
            ClientHello::NotTls,
            "{:?}",
            bytes.escape_ascii().to_string()
        );
    }
}

#[test]
fn sixteen_kib_and_no_more() {
    let with_padding = |padding: usize| {
        let extensions = [names(&[(HOST_NAME, b"a.b")]), extension(21, &vec![0; padding])];
        record_of(&message_with(Some(&extensions.concat())))
    };
    let bare = with_padding(0).len();
    let longest = with_padding(MAX_HELLO - bare);
    assert_eq!(longest.len(), MAX_HELLO);
    assert_eq!(parse_client_hello(&longest), host("a.b"));
    assert_eq!(parse_client_hello(&longest[..MAX_HELLO - 1]), ClientHello::Incomplete);
    assert_unreadable(&with_padding(MAX_HELLO - bare + 1));
    // Told by the header alone.
    assert_unreadable(&[HANDSHAKE, 3, 1, 0x40, 0, CLIENT_HELLO, 1, 0, 0]);
    let endless: Vec<u8> = std::iter::repeat_n(record_of(b""), MAX_HELLO).flatten().collect();
    assert_unreadable(&endless[..MAX_HELLO]);
}
