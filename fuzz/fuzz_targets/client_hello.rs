//! ClientHellos: what rustls accepts we read alike, or say that we cannot; what was said stays said.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rustls::server::Acceptor;
use tailrace::inbound::client_hello::{self, ClientHello, MAX_HELLO, ServerName};
use tailrace::target::Host;

/// The name rustls reads; `None`: it accepts no ClientHello here.
fn rustls_reads(data: &[u8]) -> Option<Option<String>> {
    let mut acceptor = Acceptor::default();
    acceptor.read_tls(&mut &*data).ok()?;
    let accepted = acceptor.accept().ok()??;
    let name = accepted.client_hello().server_name().map(str::to_owned);
    Some(name.map(|name| name.trim_end_matches('.').to_ascii_lowercase()))
}

fuzz_target!(|data: &[u8]| {
    let read = client_hello::parse_client_hello(data);
    match &read {
        ClientHello::Incomplete => assert!(data.len() < MAX_HELLO),
        said => assert_eq!(client_hello::parse_client_hello(&[data, b"more"].concat()), *said),
    }
    let Some(theirs) = rustls_reads(data) else { return };
    match read {
        ClientHello::Tls(ServerName::Host(Host::Name(name))) => {
            assert_eq!(Some(name.to_string()), theirs)
        }
        // rustls takes an address for no name.
        ClientHello::Tls(ServerName::Absent | ServerName::Host(Host::Address(_))) => {
            assert_eq!(None, theirs);
        }
        ClientHello::Tls(ServerName::Unreadable(_)) => {}
        ClientHello::Incomplete | ClientHello::NotTls => panic!("rustls reads {theirs:?}"),
    }
});
