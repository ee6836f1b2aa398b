//! The parsers on what clients really send: one head or request from bytes to value.
#![allow(clippy::unwrap_used, missing_docs)]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use tailrace::inbound::client_hello;
use tailrace::inbound::head::{self, DEFAULT_MAX_HEAD, MessageKind};
use tailrace::inbound::sniff;
use tailrace::inbound::{socks4, socks5};
use tailrace::target::Host;

const CURL: &[u8] = b"GET http://grafana.corp.example.com/api/health HTTP/1.1\r\n\
    Host: grafana.corp.example.com\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n\
    Accept-Encoding: gzip, deflate\r\nProxy-Connection: Keep-Alive\r\nX-Request-Id: 0123456789\r\n\r\n";
const CONNECT: &[u8] = b"CONNECT db.corp.example.com:443 HTTP/1.1\r\n\
    Host: db.corp.example.com:443\r\nUser-Agent: curl/8.5.0\r\n\r\n";
const CHROME: &[u8] = include_bytes!("../tests/hellos/chrome-utls.bin");
const HELLO_OF_CURL: &[u8] = include_bytes!("../tests/hellos/curl.bin");
const REDIRECTED: &[u8] = b"GET /api/health HTTP/1.1\r\nHost: grafana.corp.example.com\r\n\
    User-Agent: curl/8.5.0\r\nAccept: */*\r\n\r\n";
const SSH: &[u8] = b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u7\r\n";
const SOCKS5: &[u8] = b"\x05\x01\x00\x03\x13db.corp.example.com\x01\xbb";
const SOCKS4A: &[u8] = b"\x04\x01\x01\xbb\x00\x00\x00\x01user\0db.corp.example.com\0";

fn parsers(c: &mut Criterion) {
    c.bench_function("head, curl's GET", |b| {
        b.iter(|| {
            head::parse_head(black_box(CURL), MessageKind::Request, DEFAULT_MAX_HEAD).unwrap()
        });
    });
    c.bench_function("head, CONNECT", |b| {
        b.iter(|| {
            head::parse_head(black_box(CONNECT), MessageKind::Request, DEFAULT_MAX_HEAD).unwrap()
        });
    });
    c.bench_function("SOCKS5 request", |b| {
        b.iter(|| socks5::parse_request(black_box(SOCKS5)).unwrap());
    });
    c.bench_function("SOCKS4a request", |b| {
        b.iter(|| socks4::parse_request(black_box(SOCKS4A)).unwrap())
    });
    c.bench_function("ClientHello, curl's", |b| {
        b.iter(|| client_hello::parse_client_hello(black_box(HELLO_OF_CURL)))
    });
    c.bench_function("ClientHello, Chrome's", |b| {
        b.iter(|| client_hello::parse_client_hello(black_box(CHROME)))
    });
    c.bench_function("ClientHello, Chrome's over 19 records", |b| {
        let record = |part: &[u8]| [&[22, 3, 1, 0, part.len() as u8], part].concat();
        let records: Vec<u8> = CHROME[5..].chunks(100).flat_map(record).collect();
        b.iter(|| client_hello::parse_client_hello(black_box(&records)));
    });
    c.bench_function("no ClientHello", |b| {
        b.iter(|| client_hello::parse_client_hello(black_box(SSH)))
    });
    c.bench_function("first bytes, HTTP Host", |b| {
        b.iter(|| sniff::sniff(black_box(REDIRECTED)));
    });
    c.bench_function("first bytes, ssh", |b| b.iter(|| sniff::sniff(black_box(SSH))));
    c.bench_function("host, a name", |b| {
        b.iter(|| Host::parse(black_box(b"db.corp.example.com")).unwrap());
    });
    c.bench_function("host, an address", |b| {
        b.iter(|| Host::parse(black_box(b"100.101.102.103")).unwrap());
    });
}

criterion_group!(benches, parsers);
criterion_main!(benches);
