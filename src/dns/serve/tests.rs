//! The server over real sockets, with answers by a test's script.
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Instant;

use futures_util::FutureExt as _;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::DNSClass;
use hickory_proto::rr::rdata::opt::EdnsOption;
use hickory_proto::rr::rdata::{MX, SRV, TXT};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Notify;

use super::*;
use crate::sys::Stream;

/// For one answer.
const DEADLINE: Duration = Duration::from_secs(10);

type Script = Box<dyn Fn(&ClientQuestion) -> DnsReply + Send + Sync>;

struct Scripted {
    script: Script,
    asked: Mutex<Vec<ClientQuestion>>,
    /// `slow.example` waits for it.
    gate: Arc<Notify>,
}

impl AnswerSource for Scripted {
    fn answer(&self, question: ClientQuestion) -> BoxFuture<'static, DnsReply> {
        let reply = (self.script)(&question);
        let slow = question.name.as_str() == "slow.example";
        self.asked.lock().unwrap().push(question);
        let gate = Arc::clone(&self.gate);
        async move {
            if slow {
                gate.notified().await;
            }
            reply
        }
        .boxed()
    }
}

struct Serving {
    scripted: Arc<Scripted>,
    udp: SocketAddr,
    tcp: SocketAddr,
}

impl Serving {
    async fn start(script: impl Fn(&ClientQuestion) -> DnsReply + Send + Sync + 'static) -> Self {
        let gate = Arc::new(Notify::new());
        let scripted =
            Arc::new(Scripted { script: Box::new(script), asked: Mutex::default(), gate });
        let handler = QuestionHandler::new(Arc::clone(&scripted) as Arc<dyn AnswerSource>);
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let serving = Self {
            scripted,
            udp: socket.local_addr().unwrap(),
            tcp: listener.local_addr().unwrap(),
        };
        tokio::spawn(serve_udp(socket, handler.clone(), std::future::pending()));
        tokio::spawn(async move {
            while let Ok((stream, peer)) = listener.accept().await {
                let stream = Stream::new(stream.into_std().unwrap().into()).unwrap();
                tokio::spawn(serve_tcp(stream, peer, handler.clone()));
            }
        });
        serving
    }

    async fn ask(&self, question: &Message) -> Message {
        let answer = self.ask_raw(&question.to_vec().unwrap()).await;
        Message::from_vec(&answer.unwrap()).unwrap()
    }

    /// The datagram that comes back, if one does.
    async fn ask_raw(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        client.send_to(bytes, self.udp).await.unwrap();
        let mut answer = vec![0; 65_535];
        let length = tokio::time::timeout(DEADLINE, client.recv(&mut answer)).await.ok()?.unwrap();
        answer.truncate(length);
        Some(answer)
    }

    fn asked(&self) -> Vec<ClientQuestion> {
        self.scripted.asked.lock().unwrap().clone()
    }
}

fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(rr::Name::from_ascii(name).unwrap(), kind));
    message
}

fn with_edns(name: &str, kind: RecordType, size: u16, version: u8) -> Message {
    let mut edns = Edns::new();
    edns.set_max_payload(size).set_version(version);
    let mut message = question(name, kind);
    message.set_edns(edns);
    message
}

fn addresses(count: u8, left: Duration) -> DnsReply {
    let addresses = (0..count).map(|last| IpAddr::from([10, 0, 0, last])).collect();
    DnsReply::Records { whole: None, aliases: Vec::new(), addresses, data: Vec::new(), left }
}

fn shown(message: &Message) -> Vec<String> {
    message.answers.iter().map(ToString::to_string).collect()
}

async fn many() -> Serving {
    Serving::start(|_| addresses(200, Duration::from_secs(60))).await
}

#[tokio::test]
async fn an_answer_is_an_answer_to_its_question() {
    let serving = Serving::start(|question| {
        let aliases = vec![rr::Name::from_ascii("a.elsewhere.example.").unwrap()];
        let whole =
            (question.name.as_str() == "db").then(|| Name::parse(b"db.lab.ts.net").unwrap());
        let (addresses, data) = (vec![IpAddr::from([10, 0, 0, 7])], Vec::new());
        DnsReply::Records { whole, aliases, addresses, data, left: Duration::from_millis(59_001) }
    });
    let serving = serving.await;
    let asked = question("DB.corp.example.", RecordType::A);
    let answer = serving.ask(&asked).await;
    assert_eq!(answer.metadata.id, asked.metadata.id);
    assert_eq!(answer.queries, asked.queries, "case and all");
    assert!(answer.metadata.recursion_available && answer.metadata.recursion_desired);
    assert!(!answer.metadata.authoritative && answer.edns.is_none());
    assert_eq!(
        shown(&answer),
        [
            "DB.corp.example. 60 IN CNAME a.elsewhere.example.",
            "a.elsewhere.example. 60 IN A 10.0.0.7"
        ]
    );
    let bare = serving.ask(&question("db.", RecordType::A)).await;
    assert_eq!(shown(&bare)[0], "db. 60 IN CNAME db.lab.ts.net.");
    let alias = serving.ask(&question("db.corp.example.", RecordType::CNAME)).await;
    assert_eq!(shown(&alias), ["db.corp.example. 60 IN CNAME a.elsewhere.example."]);
    let name = Name::parse(b"db.corp.example").unwrap();
    let (wanted, client) =
        (QuestionKind::Of(QueryKind::Addresses(IpFamily::V4)), IpAddr::from([127, 0, 0, 1]));
    let first = ClientQuestion { name, wanted, client };
    assert_eq!(serving.asked()[0], first);
}

#[tokio::test]
async fn d7_what_hardly_holds_any_more_holds_for_a_second() {
    let serving = Serving::start(|_| addresses(1, Duration::ZERO)).await;
    let answer = serving.ask(&question("db.example.", RecordType::A)).await;
    assert_eq!(shown(&answer), ["db.example. 1 IN A 10.0.0.0"]);
}

#[tokio::test]
async fn codes_say_what_is_the_matter() {
    let serving = Serving::start(|question| match question.name.as_str() {
        "none.example" => DnsReply::NoSuchName,
        "failed.example" => DnsReply::Failed(None),
        _ => DnsReply::NOTHING,
    });
    let serving = serving.await;
    let code = async |message: &Message| serving.ask(message).await.metadata.response_code;
    for (name, expected) in [
        ("none.example.", ResponseCode::NXDomain),
        ("failed.example.", ResponseCode::ServFail),
        ("empty.example.", ResponseCode::NoError),
    ] {
        assert_eq!(code(&question(name, RecordType::AAAA)).await, expected, "{name}");
    }
    let asked = serving.asked().len();
    for kind in [RecordType::AXFR, RecordType::IXFR] {
        assert_eq!(code(&question("x.example.", kind)).await, ResponseCode::NotImp, "{kind}");
    }
    let mut chaos = question("version.bind.", RecordType::TXT);
    chaos.queries[0].set_query_class(DNSClass::CH);
    assert_eq!(code(&chaos).await, ResponseCode::NotImp);
    let mut update = question("x.example.", RecordType::A);
    update.metadata.op_code = OpCode::Notify;
    assert_eq!(code(&update).await, ResponseCode::NotImp);
    let mut two = question("x.example.", RecordType::A);
    two.add_query(Query::query(rr::Name::from_ascii("y.example.").unwrap(), RecordType::A));
    assert_eq!(code(&two).await, ResponseCode::FormErr);
    let newer = serving.ask(&with_edns("x.example.", RecordType::A, 4096, 1)).await;
    // BADVERS and BADSIG are one number (RFC 6895 section 2.3).
    assert_eq!(u16::from(newer.metadata.response_code), u16::from(ResponseCode::BADVERS));
    for odd in ["1.2.3.4.", "xn--a.example."] {
        assert_eq!(code(&question(odd, RecordType::A)).await, ResponseCode::NXDomain, "{odd}");
    }
    let mut nul = question("x.example.", RecordType::A);
    nul.queries[0].set_name(rr::Name::from_labels([&b"db\0"[..], b"example"]).unwrap());
    assert_eq!(code(&nul).await, ResponseCode::NXDomain, "B4");
    assert_eq!(serving.asked().len(), asked, "nobody was asked for any of these");
    let other = serving.ask(&question("x.example.", RecordType::HTTPS)).await;
    assert_eq!((other.metadata.response_code, other.answers.len()), (ResponseCode::NoError, 0));
    assert_eq!(serving.asked()[asked].wanted, QuestionKind::Other);
}

#[tokio::test]
async fn d5_a_datagram_is_cut_to_its_size_and_says_so() {
    let serving = many().await;
    let asked = question("db.example.", RecordType::A).to_vec().unwrap();
    let plain = serving.ask_raw(&asked).await.unwrap();
    assert!(plain.len() <= 512, "{}", plain.len());
    assert!(Message::from_vec(&plain).unwrap().metadata.truncation);
    for (size, most) in [(600, 600), (4096, 1232), (100, 512)] {
        let asked = with_edns("db.example.", RecordType::A, size, 0).to_vec().unwrap();
        let cut = serving.ask_raw(&asked).await.unwrap();
        assert!(cut.len() <= most && cut.len() > most - 64, "{size}: {}", cut.len());
        let cut = Message::from_vec(&cut).unwrap();
        assert!(cut.metadata.truncation && !cut.answers.is_empty());
        assert_eq!(cut.edns.unwrap().max_payload(), size.clamp(512, 1232));
    }
    let small = Serving::start(|_| addresses(3, Duration::from_secs(9))).await;
    let whole = small.ask(&with_edns("db.example.", RecordType::A, 4096, 0)).await;
    assert!(!whole.metadata.truncation && whole.answers.len() == 3);
    assert_eq!(whole.edns.unwrap().max_payload(), 1232);
}

async fn over_tcp(stream: &mut TcpStream, message: &Message) -> Message {
    let bytes = message.to_vec().unwrap();
    let length = u16::try_from(bytes.len()).unwrap();
    stream.write_all(&[&length.to_be_bytes(), &bytes[..]].concat()).await.unwrap();
    let mut answer = vec![0; stream.read_u16().await.unwrap().into()];
    stream.read_exact(&mut answer).await.unwrap();
    Message::from_vec(&answer).unwrap()
}

#[tokio::test]
async fn d5_a_connection_gives_the_whole_answer_and_more_than_one() {
    let serving = many().await;
    let mut stream = TcpStream::connect(serving.tcp).await.unwrap();
    for kind in [RecordType::A, RecordType::A] {
        let asked = question("db.example.", kind);
        let answer = over_tcp(&mut stream, &asked).await;
        assert_eq!((answer.metadata.id, answer.answers.len()), (asked.metadata.id, 200));
        assert!(!answer.metadata.truncation);
    }
    // What is no DNS ends the connection.
    stream.write_all(b"\x00\x03GET").await.unwrap();
    assert_eq!(stream.read(&mut [0]).await.unwrap_or(0), 0);
}

#[tokio::test]
async fn d4_what_is_no_question_gets_no_answer_or_formerr() {
    let serving = Serving::start(|_| DnsReply::NOTHING).await;
    let mut response = question("db.example.", RecordType::A);
    response.metadata.message_type = MessageType::Response;
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut loops = question("db.example.", RecordType::A).to_vec().unwrap();
    loops[12..14].copy_from_slice(&[0xc0, 12]); // a name that points to itself
    for bytes in [vec![0; 3], response.to_vec().unwrap(), loops] {
        client.send_to(&bytes, serving.udp).await.unwrap();
    }
    let mut answer = [0; 512];
    let length = tokio::time::timeout(DEADLINE, client.recv(&mut answer)).await.unwrap().unwrap();
    let answer = Message::from_vec(&answer[..length]).unwrap();
    assert_eq!(answer.metadata.response_code, ResponseCode::FormErr, "only the loop is answered");
    assert!(serving.asked().is_empty());
}

#[tokio::test]
async fn r17_questions_that_wait_are_bounded_and_the_rest_is_told_at_once() {
    let serving = Serving::start(|_| addresses(1, Duration::from_secs(9))).await;
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let slow = question("slow.example.", RecordType::A).to_vec().unwrap();
    while serving.asked().len() < IN_FLIGHT {
        client.send_to(&slow, serving.udp).await.unwrap();
        tokio::task::yield_now().await;
    }
    let started = Instant::now();
    let told = serving.ask(&question("quick.example.", RecordType::A)).await;
    assert_eq!(told.metadata.response_code, ResponseCode::ServFail);
    assert!(started.elapsed() < Duration::from_secs(5));
    // Whoever of them is let go makes room.
    serving.scripted.gate.notify_waiters();
    let mut code = ResponseCode::ServFail;
    while code == ResponseCode::ServFail && started.elapsed() < DEADLINE {
        code = serving.ask(&question("quick.example.", RecordType::A)).await.metadata.response_code;
    }
    assert_eq!(code, ResponseCode::NoError);
}

#[tokio::test]
async fn other_kinds_are_asked_for_by_their_names() {
    let name = |text: &str| rr::Name::from_ascii(text).unwrap();
    let serving = Serving::start(move |question| {
        let data = match question.wanted {
            QuestionKind::Of(QueryKind::Txt) => RData::TXT(TXT::new(vec!["v=1".to_owned()])),
            QuestionKind::Of(QueryKind::Srv) => {
                RData::SRV(SRV::new(1, 2, 5432, name("db.corp.example.")))
            }
            QuestionKind::Of(QueryKind::Mx) => RData::MX(MX::new(10, name("mail.corp.example."))),
            _ => return DnsReply::NOTHING,
        };
        let (aliases, addresses, left) = (Vec::new(), Vec::new(), Duration::from_secs(7));
        DnsReply::Records { whole: None, aliases, addresses, data: vec![data], left }
    });
    let serving = serving.await;
    for (kind, expected) in [
        (RecordType::TXT, "_x._tcp.corp.example. 7 IN TXT v=1"),
        (RecordType::SRV, "_x._tcp.corp.example. 7 IN SRV 1 2 5432 db.corp.example."),
        (RecordType::MX, "_x._tcp.corp.example. 7 IN MX 10 mail.corp.example."),
    ] {
        let answer = serving.ask(&question("_x._tcp.corp.example.", kind)).await;
        assert_eq!(shown(&answer), [expected]);
    }
    for kind in [RecordType::SOA, RecordType::NS, RecordType::HTTPS, RecordType::SVCB] {
        let answer = serving.ask(&question("corp.example.", kind)).await;
        let told = (answer.metadata.response_code, answer.answers.len());
        assert_eq!(told, (ResponseCode::NoError, 0), "{kind}");
    }
    let any = serving.ask(&question("corp.example.", RecordType::ANY)).await;
    assert_eq!(any.answers.len(), 1, "{any}");
    assert_eq!(any.answers[0].record_type(), RecordType::HINFO, "RFC 8482");
}

#[tokio::test]
async fn who_speaks_edns_is_told_why() {
    let serving = Serving::start(|question| match question.name.as_str() {
        "denied.example" => DnsReply::Refused(ExtendedError::new(
            ExtendedErrorCode::Blocked,
            "refused by policy: x",
        )),
        _ => DnsReply::Failed(Some(ExtendedError::new(ExtendedErrorCode::NotReady, "y"))),
    });
    let serving = serving.await;
    let option = |answer: &Message| {
        let options = answer.edns.as_ref().unwrap().options().clone();
        options.as_ref().iter().map(|(_, option)| option.clone()).collect::<Vec<_>>()
    };
    let denied = serving.ask(&with_edns("denied.example.", RecordType::A, 1232, 0)).await;
    assert_eq!(denied.metadata.response_code, ResponseCode::NXDomain);
    let expected = [&[0, 15], &b"refused by policy: x"[..]].concat();
    assert_eq!(option(&denied), [EdnsOption::Unknown(15, expected)]);
    let failed = serving.ask(&with_edns("failed.example.", RecordType::A, 1232, 0)).await;
    assert_eq!(failed.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(option(&failed), [EdnsOption::Unknown(15, vec![0, 14, b'y'])]);
    let plain = serving.ask(&question("denied.example.", RecordType::A)).await;
    assert!(plain.edns.is_none());
}

#[tokio::test]
async fn r17_headers_that_promise_much_cost_nothing() {
    let serving = Serving::start(|_| DnsReply::NOTHING).await;
    let asked = question("db.example.", RecordType::A).to_vec().unwrap();
    for (at, count) in [(4, 0), (4, 65_535), (6, 1), (8, 65_535), (10, 65_535)] {
        let mut bytes = asked.clone();
        bytes[at..at + 2].copy_from_slice(&u16::to_be_bytes(count));
        let answer = serving.ask_raw(&bytes).await.unwrap();
        assert_eq!(answer.len(), 12, "{at} {count}");
        let answer = Message::from_vec(&answer).unwrap();
        assert_eq!(answer.metadata.response_code, ResponseCode::FormErr, "{at} {count}");
    }
    assert!(serving.asked().is_empty());
}

#[tokio::test]
async fn a_connection_s_questions_do_not_wait_for_each_other_and_are_bounded() {
    let serving = Serving::start(|_| addresses(1, Duration::from_secs(9))).await;
    let mut stream = TcpStream::connect(serving.tcp).await.unwrap();
    let framed = |name: &str| {
        let bytes = question(name, RecordType::A).to_vec().unwrap();
        [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), &bytes[..]].concat()
    };
    stream.write_all(&framed("slow.example.")).await.unwrap();
    stream.write_all(&framed("quick.example.")).await.unwrap();
    let length = tokio::time::timeout(DEADLINE, stream.read_u16()).await.unwrap().unwrap();
    let mut answer = vec![0; length.into()];
    stream.read_exact(&mut answer).await.unwrap();
    let first = Message::from_vec(&answer).unwrap();
    assert_eq!(first.queries[0].name().to_ascii(), "quick.example.");
    // The gate is never opened: the sixteen of the bound stay under way, the rest is not read.
    for _ in 0..40 {
        stream.write_all(&framed("slow.example.")).await.unwrap();
    }
    while serving.asked().len() < 17 {
        tokio::task::yield_now().await;
    }
    let wait = tokio::time::timeout(Duration::from_millis(100), stream.read_u16()).await;
    assert!(wait.is_err() && serving.asked().len() == 17, "{}", serving.asked().len());
}

#[tokio::test]
async fn strangers_and_the_too_busy_are_sent_away_cheaply() {
    let serving = Serving::start(|_| addresses(200, Duration::from_secs(9))).await;
    let handler = QuestionHandler::new(Arc::clone(&serving.scripted) as Arc<dyn AnswerSource>);
    let bytes = with_edns("db.example.", RecordType::A, 4096, 0).to_vec().unwrap();
    let peer = |text: &str| text.parse::<SocketAddr>().unwrap();
    for over in [MessageTransport::Datagram, MessageTransport::Stream] {
        let told = handler.answer_message(&bytes, peer("8.8.8.8:53"), over).await.unwrap();
        let told = Message::from_vec(&told).unwrap();
        assert_eq!(told.metadata.response_code, ResponseCode::Refused);
        assert!(told.answers.is_empty());
    }
    assert!(
        handler
            .answer_message(&[0; 12], peer("8.8.8.8:53"), MessageTransport::Datagram)
            .await
            .is_none()
    );
    let client = peer("10.0.0.1:5353");
    let mut cut = None;
    for _ in 0..100 {
        while handler.clients.admit(client.ip(), Instant::now()) == ClientAdmission::Now {}
        let answer =
            handler.answer_message(&bytes, client, MessageTransport::Datagram).await.unwrap();
        let answer = Message::from_vec(&answer).unwrap();
        if answer.answers.is_empty() {
            cut = Some(answer);
            break;
        }
    }
    let cut = cut.expect("a bound");
    assert!(cut.metadata.truncation, "by a connection it is answered");
    assert_eq!(cut.metadata.response_code, ResponseCode::NoError);
    let whole = handler.answer_message(&bytes, client, MessageTransport::Stream).await.unwrap();
    assert_eq!(Message::from_vec(&whole).unwrap().answers.len(), 200);
}

/// Bytes near a question: one with some of its bytes changed, and its end cut off.
fn near_a_question() -> impl Strategy<Value = Vec<u8>> {
    let changes = proptest::collection::vec((0usize..64, any::<u8>()), 0..6);
    (changes, 0usize..64, any::<bool>()).prop_map(|(changes, cut, edns)| {
        let mut bytes = match edns {
            true => with_edns("db.corp.example.", RecordType::TXT, 700, 0),
            false => question("db.corp.example.", RecordType::A),
        };
        bytes.metadata.id = 7;
        let mut bytes = bytes.to_vec().unwrap();
        let length = bytes.len();
        for (at, value) in changes {
            bytes[at % length] = value;
        }
        bytes.truncate(length.saturating_sub(cut.saturating_sub(32)));
        bytes
    })
}

proptest! {
    #[test]
    fn d4_whatever_comes_is_answered_within_bounds_or_not_at_all(
        bytes in prop_oneof![near_a_question(), proptest::collection::vec(any::<u8>(), 0..80)],
    ) {
        let gate = Arc::new(Notify::new());
        let script: Script = Box::new(|_| addresses(200, Duration::from_secs(9)));
        let scripted = Arc::new(Scripted { script, asked: Mutex::default(), gate });
        let handler = QuestionHandler::new(scripted as Arc<dyn AnswerSource>);
        let peer = "127.0.0.1:5353".parse().unwrap();
        for (over, most) in [(MessageTransport::Datagram, 1232), (MessageTransport::Stream, 65_535)] {
            let answer = handler.answer_message(&bytes, peer, over).now_or_never().unwrap();
            let Some(answer) = answer else { continue };
            prop_assert!((12..=most).contains(&answer.len()));
            prop_assert_eq!(&answer[..2], &bytes[..2]);
            prop_assert!(answer[2] & 0x80 != 0 && bytes[2] & 0x80 == 0);
            prop_assert!(Message::from_vec(&answer).is_ok());
        }
    }
}
