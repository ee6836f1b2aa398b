//! A gateway without listeners, put together for a test: its settings are read as written, and everything between the
//! accepted socket and the access line is the gateway's own. Only the upstream is a stand-in, a SOCKS5 server of the
//! test that also speaks for the tailnet's nameserver.
#![forbid(unsafe_code)]

mod explain;
mod walk;

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::{assemble, build, tailnet};
use crate::config::{self, Config, ProcessEnvironment};
use crate::connection::{self, DnsResponder, GatewayState};
use crate::dns::serve::{AnswerSource as _, ClientQuestion, QuestionKind};
use crate::dns::{IpFamily, QueryKind};
use crate::lifecycle::drain::Drain;
use crate::lifecycle::run_dir::Listening;
use crate::listener::{self, Bound};
use crate::policy::LocalAddresses;
use crate::record::{self, Telemetry};
use crate::tailnet::{
    Netmap, OwnNode, TailnetDns, TailnetNameserver, TailnetPeer, TailnetPhase, TailnetState,
};
use crate::target::{Host, Name, Target};
use crate::upstream::Endpoint;

/// The node's only nameserver, a peer.
const NAMESERVER: &str = "100.64.0.53";
/// The whole name that has the first synthetic address, where there are some and policy lets it be told.
const SYNTHETIC_NAME: &str = "svc.lab.ts.net";

#[derive(Debug, Clone, Copy, PartialEq)]
enum Protocol {
    Socks5,
    Connect,
    Http,
    /// As netfilter would send it here: by address, and nothing is said.
    Redirected,
}

/// One gateway, and what is asked of it.
#[derive(Debug, Clone)]
struct Case {
    settings: Settings,
    running: bool,
    /// The addresses of svc.lab.ts.net in the netmap.
    service: Vec<&'static str>,
    online: bool,
    /// Whether a peer routes 10.50.0.0/16.
    routed: bool,
    /// What the nameserver says of every name; none: there is no such name.
    answers: Option<Vec<&'static str>>,
    asked: &'static str,
    protocol: Protocol,
}

#[derive(Debug, Clone)]
struct Settings {
    mode: &'static str,
    suffixes: Vec<&'static str>,
    nets: Vec<&'static str>,
    deny_nets: Vec<&'static str>,
    outside_tailnet: &'static str,
    dns_mode: &'static str,
    synthetic: bool,
}

fn target(text: &str) -> Target {
    Target::parse_authority(text.as_bytes(), None).unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn config(settings: &Settings, folder: &Path) -> Config {
    let Settings { mode, suffixes, nets, deny_nets, outside_tailnet, dns_mode, synthetic } =
        settings;
    let range = if *synthetic { "198.18.0.0/15" } else { "" };
    let (run_dir, log) = (folder.join("run"), folder.join("log"));
    let text = format!(
        "run_dir = {run_dir:?}\n\
         [listen]\nproxy = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\ndns = \"127.0.0.1:0\"\n\
         [upstream]\nkind = \"tailscaled\"\nsocks5 = \"127.0.0.1:1080\"\npool = 0\noutside_tailnet = {outside_tailnet:?}\n\
         [tailnet]\nmanage = false\nsocket = \"/nowhere/tailscaled.sock\"\n\
         [dns]\nmode = {dns_mode:?}\ncache_entries = 0\nsynthetic = {range:?}\n\
         [policy]\nmode = {mode:?}\nallowed_host_suffixes = {suffixes:?}\nallowed_nets = {nets:?}\n\
         deny_nets = {deny_nets:?}\n\
         [record]\nprocess = false\n[log]\nformat = \"json\"\nto = {log:?}\n"
    );
    let env = ProcessEnvironment::from_pairs([("HOME", "/")]);
    let written = config::parse(Some((Path::new("f"), &text)), &env, &[]);
    let checked = config::check_config(&written, &env);
    checked.unwrap_or_else(|problems| panic!("{:?}\n{text}", problems.lines())).config
}

fn peer(host: &str, addresses: &[&str], routes: &[&str], online: bool) -> TailnetPeer {
    TailnetPeer {
        name: Name::parse(format!("{host}.lab.ts.net").as_bytes()).ok(),
        host: host.to_owned(),
        addresses: addresses.iter().map(|address| ip(address)).collect(),
        routes: routes.iter().map(|net| net.parse().unwrap()).collect(),
        online,
    }
}

fn tailnet_state(case: &Case) -> TailnetState {
    let routes: &[&str] = if case.routed { &["10.50.0.0/16"] } else { &[] };
    let peers = vec![
        peer("dns", &[NAMESERVER], &[], true),
        peer("svc", &case.service, &[], case.online),
        peer("router", &["100.64.0.5"], routes, true),
    ];
    let name = |text: &str| Name::parse(text.as_bytes()).unwrap();
    let nameserver = || vec![TailnetNameserver::Address(SocketAddr::new(ip(NAMESERVER), 53))];
    let dns = TailnetDns {
        routes: vec![(name("corp.example"), nameserver())],
        resolvers: nameserver(),
        records: Vec::new(),
    };
    let netmap = Netmap::new(Some(name("lab.ts.net")), true, peers, dns);
    TailnetState {
        phase: if case.running { TailnetPhase::Running } else { TailnetPhase::NeedsLogin },
        first_login: false,
        netmap: Arc::new(netmap),
        node: Some(OwnNode {
            name: "node.lab.ts.net".to_owned(),
            addresses: vec![ip("100.64.0.9")],
            tags: Vec::new(),
            key_expiry: None,
        }),
        ..TailnetState::starting()
    }
}

/// A gateway of these settings in this tailnet, whose upstream is at `upstream`.
fn gateway_state(
    case: &Case,
    config: &Config,
    upstream: SocketAddr,
) -> (Arc<GatewayState>, record::AccessWriter) {
    let (lines, writer) = record::log::open_log(&config.log).unwrap();
    let states = tailnet::States::of(config).unwrap();
    let naming = build::ResolverFactory::new(Some(&states), None);
    let bound = Listening {
        proxy: vec![SocketAddr::from(([127, 0, 0, 1], 1055))],
        tproxy: Vec::new(),
        admin: SocketAddr::from(([127, 0, 0, 1], 9155)),
        forward: Vec::new(),
        dns: None,
        dns_clients: None,
    };
    let live =
        build::Live { splice: Arc::default(), upstream_process: Arc::new(ArcSwapOption::empty()) };
    let telemetry = Telemetry::new(lines);
    let state = tailnet_state(case);
    let gateway_state = assemble(config, telemetry, &bound, &live, &naming, Some(&states)).unwrap();
    naming.through(&gateway_state);
    naming.zone.store(Arc::new(tailnet::zone(&state)));
    gateway_state.local_addresses.store(Arc::new(LocalAddresses {
        listeners: bound.all(),
        internal: vec![upstream],
        addresses: vec![ip("127.0.0.1"), ip("100.64.0.9")],
        names: vec![Name::parse(b"node.lab.ts.net").unwrap()],
        reach_loopback: true,
    }));
    states.publish(Arc::new(state));
    gateway_state.upstream.set_endpoint(Some(Endpoint::Port(upstream)));
    (gateway_state, writer)
}

/// A SOCKS5 server that reaches every target and has nothing to say there, but for the nameserver.
async fn stand_in(answers: Option<Vec<&'static str>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(carry(stream, answers.clone()));
        }
    });
    address
}

/// None: the gateway has hung up.
async fn carry(mut stream: TcpStream, answers: Option<Vec<&'static str>>) -> Option<()> {
    stream.read_exact(&mut [0; 3]).await.ok()?;
    stream.write_all(&[5, 0]).await.ok()?;
    let mut head = [0; 4];
    stream.read_exact(&mut head).await.ok()?;
    let length = match head[3] {
        1 => 4,
        4 => 16,
        _ => stream.read_u8().await.ok()?.into(),
    };
    let mut host = vec![0; length + 2];
    stream.read_exact(&mut host).await.ok()?;
    stream.write_all(&[5, 0, 0, 1, 127, 0, 0, 1, 0, 80]).await.ok()?;
    if head[3] != 1 || host != [100, 64, 0, 53, 0, 53] {
        return Some(());
    }
    loop {
        let mut question = vec![0; stream.read_u16().await.ok()?.into()];
        stream.read_exact(&mut question).await.ok()?;
        let answer = dns_answer_to(question, answers.as_deref());
        stream.write_u16(answer.len().try_into().unwrap()).await.ok()?;
        stream.write_all(&answer).await.ok()?;
    }
}

/// The answer of RFC 1035 section 4.1 to a question without any additional record.
fn dns_answer_to(mut message: Vec<u8>, answers: Option<&[&'static str]>) -> Vec<u8> {
    let kind = message[message.len() - 3]; // 1: A, 28: AAAA
    let no_such_name = u8::from(answers.is_none()) * 3;
    (message[2], message[3]) = (0x81, 0x80 | no_such_name);
    for address in answers.unwrap_or_default().iter().map(|address| ip(address)) {
        let (of_kind, data) = match address {
            IpAddr::V4(v4) => (1, v4.octets().to_vec()),
            IpAddr::V6(v6) => (28, v6.octets().to_vec()),
        };
        if of_kind == kind {
            message[7] += 1;
            message.extend([0xc0, 12, 0, kind, 0, 1, 0, 0, 1, 0, 0, data.len() as u8]);
            message.extend(data);
        }
    }
    message
}

/// What a client of this protocol says to ask for the target.
fn request(protocol: Protocol, asked: &Target) -> Vec<u8> {
    match protocol {
        Protocol::Redirected => Vec::new(),
        Protocol::Connect => {
            format!("CONNECT {asked} HTTP/1.1\r\nHost: {asked}\r\n\r\n").into_bytes()
        }
        Protocol::Http => {
            format!("GET http://{asked}/ HTTP/1.1\r\nHost: {asked}\r\n\r\n").into_bytes()
        }
        Protocol::Socks5 => {
            let mut bytes = vec![5, 1, 0, 5, 1, 0];
            match &asked.host {
                Host::Address(IpAddr::V4(v4)) => {
                    bytes.push(1);
                    bytes.extend(v4.octets());
                }
                Host::Address(IpAddr::V6(v6)) => {
                    bytes.push(4);
                    bytes.extend(v6.octets());
                }
                Host::Name(name) => {
                    bytes.extend([3, name.as_str().len() as u8]);
                    bytes.extend(name.as_str().bytes());
                }
            }
            bytes.extend(asked.port.get().to_be_bytes());
            bytes
        }
    }
}

/// Takes one client from its socket to its access line.
async fn connect(gateway_state: &Arc<GatewayState>, case: &Case) {
    let asked = target(case.asked);
    let original_dst = asked.host.address().map(|ip| SocketAddr::new(ip, asked.port.get()));
    let original_dst = original_dst.filter(|_| case.protocol == Protocol::Redirected);
    let bound = Bound::new(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = bound.address();
    let drain = Drain::new();
    let (served, guards) = (Arc::clone(gateway_state), Arc::clone(&drain));
    let handle = move |accepted: listener::Accepted| {
        let accepted = listener::Accepted { original_dst, ..accepted };
        connection::spawn_connection(Arc::clone(&served), accepted, guards.guard());
    };
    let accept = listener::accept_loop(
        bound,
        listener::Limits::new(10, 0),
        vec![address],
        |errno| panic!("{errno}"),
        handle,
        std::future::pending::<()>(),
    );
    let accepting = tokio::spawn(accept);
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(&request(case.protocol, &asked)).await.unwrap();
    let mut reply = Vec::new();
    let _or_reset = client.read_to_end(&mut reply).await;
    drop(client);
    drain.finished().await;
    accepting.abort();
}

/// Asks for the first synthetic address, as a DNS client would.
async fn assign_synthetic(gateway_state: &Arc<GatewayState>) {
    let question = ClientQuestion {
        name: Name::parse(SYNTHETIC_NAME.as_bytes()).unwrap(),
        wanted: QuestionKind::Of(QueryKind::Addresses(IpFamily::V4)),
        client: ip("127.0.0.1"),
    };
    DnsResponder::new(Arc::clone(gateway_state)).answer(question).await;
}

/// Whatever `ask` learns of the gateway before a connection is made, and the access line of that connection.
fn ask_and_connect<T>(case: &Case, ask: impl AsyncFnOnce(&GatewayState) -> T) -> (T, Value) {
    let folder = tempfile::tempdir().unwrap();
    let config = config(&case.settings, folder.path());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (asked, writer, telemetry) = runtime.block_on(async {
        let upstream = stand_in(case.answers.clone()).await;
        let (gateway_state, writer) = gateway_state(case, &config, upstream);
        if case.settings.synthetic {
            assign_synthetic(&gateway_state).await;
        }
        let asked = ask(&gateway_state).await;
        let connected =
            tokio::time::timeout(Duration::from_secs(10), connect(&gateway_state, case));
        connected.await.unwrap_or_else(|_| panic!("no end of {case:?}"));
        (asked, writer, Arc::clone(&gateway_state.telemetry))
    });
    assert!(writer.close_with(&telemetry.counters(), Duration::from_secs(5)));
    let log = std::fs::read_to_string(folder.path().join("log")).unwrap();
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let mut lines = lines.filter(|line| line.get("outcome").is_some());
    let line = lines.next().unwrap_or_else(|| panic!("no access line: {log}"));
    assert!(lines.next().is_none(), "{log}");
    (asked, line)
}
