//! A split-DNS name: remembered, and asked over an open connection on loopback.
#![allow(clippy::unwrap_used, missing_docs)]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use criterion::{Criterion, criterion_group, criterion_main};
use tailrace::dns::{DnsResolver, NameserverAddress, ResolveMode, ResolverSettings, TailnetZone};
use tailrace::policy::{self, Admitted, LocalAddresses, Policy, Rules};
use tailrace::target::{Name, Target};

fn admitted(target: &str) -> Admitted<Target> {
    let policy = Policy::new(Rules {
        mode: policy::Mode::Off,
        suffixes: Vec::new(),
        globs: Vec::new(),
        nets: Vec::new(),
        deny_nets: Vec::new(),
        require_sni: false,
    });
    let target = Target::parse_authority(target.as_bytes(), None).unwrap();
    policy.unwrap().judge_target(&LocalAddresses::default(), &target).1.unwrap()
}

/// A nameserver that knows one address for every name.
fn nameserver() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(move || drop(serve(stream.unwrap())));
        }
    });
    address
}

fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    loop {
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut message = vec![0; u16::from_be_bytes(length).into()];
        stream.read_exact(&mut message)?;
        let is_a = message[message.len() - 3] == 1;
        (message[2], message[3], message[7]) = (0x81, 0x80, u8::from(is_a));
        if is_a {
            message.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 0, 0, 4, 10, 0, 0, 1]);
        }
        let length = u16::try_from(message.len()).unwrap().to_be_bytes();
        stream.write_all(&[&length, message.as_slice()].concat())?;
    }
}

fn names(c: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let domain = Name::parse(b"corp.example").unwrap();
    let routes = vec![(domain, vec![NameserverAddress::Address(nameserver())])];
    let zone = Arc::new(ArcSwap::from_pointee(TailnetZone { routes, ..TailnetZone::default() }));
    let target = admitted("db.corp.example:443");
    for (what, cache_entries) in [("cached", 10_000), ("uncached", 0)] {
        let timeout = Duration::from_secs(3);
        let settings =
            ResolverSettings { mode: ResolveMode::Tailnet, timeout, cache_entries, mark: None };
        let names = DnsResolver::new(settings, Arc::clone(&zone), None);
        c.bench_function(&format!("split name, {what}"), |b| {
            b.iter(|| runtime.block_on(names.resolve(&target)).unwrap());
        });
    }
}

criterion_group!(benches, names);
criterion_main!(benches);
