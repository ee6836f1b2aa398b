//! ClientHellos to say: those of real programs in this folder, and rustls's for any name.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "each test binary uses a part")]

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

/// Every program's for `db.corp.example`, with its name.
pub fn captured() -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hellos");
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let hellos = paths.filter(|path| path.extension().is_some_and(|end| end == "bin"));
    let named = |path: std::path::PathBuf| {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        (name, std::fs::read(path).unwrap())
    };
    hellos.map(named).collect()
}

/// A ClientHello that asks for this name: always the same bytes.
pub fn hello_for(name: &str) -> Vec<u8> {
    static MADE: std::sync::Mutex<Vec<(String, Vec<u8>)>> = std::sync::Mutex::new(Vec::new());
    let mut made = MADE.lock().unwrap();
    if let Some((_, hello)) = made.iter().find(|(of, _)| of == name) {
        return hello.clone();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = ClientConfig::builder_with_provider(provider);
    let config = versions.with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    let server = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::new(config), server).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    made.push((name.to_owned(), hello.clone()));
    hello
}

/// The same ClientHello in records of at most `size` bytes.
pub fn in_records(hello: &[u8], size: usize) -> Vec<u8> {
    let record =
        |part: &[u8]| [&[0x16, 3, 1], &(part.len() as u16).to_be_bytes()[..], part].concat();
    hello[5..].chunks(size).flat_map(record).collect()
}

/// A ClientHello of one record and `length` bytes in all, by the padding extension (RFC 7685).
pub fn padded(name: &str, length: usize) -> Vec<u8> {
    let mut hello = hello_for(name);
    let padding = length - hello.len() - 4;
    hello.extend([&[0, 21], &(padding as u16).to_be_bytes()[..], &vec![0; padding]].concat());
    let body = hello.len() - 5;
    hello[3..5].copy_from_slice(&(body as u16).to_be_bytes());
    hello[6..9].copy_from_slice(&((body - 4) as u32).to_be_bytes()[1..]);
    // The extensions' length stands after the version, random, session id, suites and methods.
    let session = 9 + 2 + 32;
    let suites = session + 1 + usize::from(hello[session]);
    let methods = suites + 2 + usize::from(u16::from_be_bytes([hello[suites], hello[suites + 1]]));
    let extensions = methods + 1 + usize::from(hello[methods]);
    let all = (hello.len() - extensions - 2) as u16;
    hello[extensions..extensions + 2].copy_from_slice(&all.to_be_bytes());
    assert_eq!(hello.len(), length);
    hello
}
