//! Records that are no addresses, and reverse names.

use std::io::Write as _;
use std::net::{TcpListener, UdpSocket};
use std::sync::{Arc, Mutex};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;

use crate::fixture::{self, Nameserver, ask, ask_by_tcp, code, shown};
use tailrace_rig::{Gateway, netns, system_nameserver};

#[test]
fn txt_srv_and_mx_are_asked_of_the_domain_s_nameserver() {
    let nameserver = Nameserver::start(&["10.50.0.7"]);
    let tailnet = fixture::tailnet(&nameserver);
    let gateway = tailnet.gateway(|_| {});
    let dns = gateway.private_dns();
    for ask in [ask, ask_by_tcp] {
        let of = |name: &str, kind| shown(&ask(dns, name, kind));
        assert_eq!(of("x.corp.example.", RecordType::TXT), ["x.corp.example. TXT v=1 all"]);
        assert_eq!(
            of("_pg._tcp.corp.example.", RecordType::SRV),
            ["_pg._tcp.corp.example. SRV 1 2 5432 db.corp.example."]
        );
        assert_eq!(
            of("alias.corp.example.", RecordType::MX),
            [
                "alias.corp.example. CNAME end.corp.example.",
                "end.corp.example. MX 10 mail.corp.example."
            ]
        );
        assert_eq!(of("db.lab.ts.net.", RecordType::TXT), [""; 0]);
        for kind in [RecordType::HTTPS, RecordType::SVCB, RecordType::SOA, RecordType::NS] {
            let answer = ask(dns, "x.corp.example.", kind);
            assert_eq!((code(&answer), answer.answers.len()), (ResponseCode::NoError, 0), "{kind}");
        }
        let any = ask(dns, "x.corp.example.", RecordType::ANY);
        assert_eq!(any.answers[0].record_type(), RecordType::HINFO, "RFC 8482");
    }
    assert_eq!(nameserver.asked().len(), 3, "each once, and the rest of nobody");
}

#[test]
fn addresses_of_the_tailnet_have_names_and_private_ones_stay_here() {
    let nameserver = Nameserver::start(&["10.50.0.7"]);
    let tailnet = fixture::tailnet(&nameserver);
    let gateway = tailnet.gateway(|_| {});
    let dns = gateway.private_dns();
    let of = |name: &str| ask(dns, name, RecordType::PTR);
    assert_eq!(
        shown(&of("1.0.64.100.in-addr.arpa.")),
        ["1.0.64.100.in-addr.arpa. PTR db.lab.ts.net."]
    );
    let v6 = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.e.1.a.c.5.1.1.a.7.d.f.ip6.arpa.";
    assert_eq!(shown(&of(v6)), [format!("{v6} PTR db.lab.ts.net.")]);
    let own = of("9.0.64.100.in-addr.arpa.");
    assert!(shown(&own)[0].ends_with(".lab.ts.net."), "{own}");
    assert_eq!(shown(&of("1.0.0.127.in-addr.arpa.")), ["1.0.0.127.in-addr.arpa. PTR localhost."]);
    for nobody in
        ["77.0.64.100.in-addr.arpa.", "1.1.168.192.in-addr.arpa.", "7.0.50.10.in-addr.arpa."]
    {
        assert_eq!(code(&of(nobody)), ResponseCode::NXDomain, "{nobody}");
    }
    assert_eq!(nameserver.asked(), [""; 0]);
}

/// What a resolver was asked, by datagrams and by connections.
#[derive(Default)]
struct Asked {
    udp: Mutex<Vec<String>>,
    tcp: Mutex<Vec<String>>,
}

/// This host's resolver: a text record of everything, for `big.…` by TCP alone.
fn resolver(at: &str) -> Arc<Asked> {
    let (udp, tcp) = (UdpSocket::bind(at).unwrap(), TcpListener::bind(at).unwrap());
    let asked = Arc::new(Asked::default());
    let noted = Arc::clone(&asked);
    std::thread::spawn(move || {
        let mut bytes = [0; 1500];
        while let Ok((length, client)) = udp.recv_from(&mut bytes) {
            let question = Message::from_vec(&bytes[..length]).unwrap();
            let name = question.queries[0].name().to_ascii();
            let mut answer = fixture::answer(&question, &[]);
            if name.starts_with("big.") {
                answer.answers.clear();
                answer.metadata.truncation = true;
            }
            noted.udp.lock().unwrap().push(name);
            udp.send_to(&answer.to_vec().unwrap(), client).unwrap();
        }
    });
    let noted = Arc::clone(&asked);
    std::thread::spawn(move || {
        for stream in tcp.incoming() {
            let mut stream = stream.unwrap();
            while let Some(question) = fixture::next(&mut stream) {
                noted.tcp.lock().unwrap().push(question.queries[0].name().to_ascii());
                let answer = fixture::answer(&question, &[]);
                stream.write_all(&fixture::framed(&answer)).unwrap();
            }
        }
    });
    asked
}

#[test]
fn d5_d9_this_host_s_resolvers_are_asked_for_the_rest_and_for_nothing_internal() {
    netns::inside(|| {
        let asked = resolver("127.0.0.1:53");
        system_nameserver::resolve_by("nameserver 127.0.0.1\n");
        let nameserver = Nameserver::start(&["10.50.0.7"]);
        let tailnet = fixture::tailnet(&nameserver);
        let direct = Gateway::start(|s| {
            s.direct();
        });
        for gateway in [tailnet.gateway(|_| {}), direct] {
            let dns = gateway.private_dns();
            let txt = |name: &str| ask(dns, name, RecordType::TXT);
            assert_eq!(shown(&txt("www.example.")), ["www.example. TXT v=1 all"]);
            assert_eq!(shown(&txt("big.example.")), ["big.example. TXT v=1 all"], "by TCP");
            assert_eq!(code(&txt("none.example.")), ResponseCode::NXDomain);
            let private = ask(dns, "1.1.168.192.in-addr.arpa.", RecordType::PTR);
            assert_eq!(code(&private), ResponseCode::NXDomain);
        }
        assert_eq!(*asked.tcp.lock().unwrap(), ["big.example."; 2]);
        let asked = asked.udp.lock().unwrap().clone();
        assert!(asked.iter().all(|name| name.ends_with(".example.")), "{asked:?}");
        assert!(!asked.iter().any(|name| name.contains("corp")), "{asked:?}");
    });
}
