//! Through LocalAPI: a Unix socket that answers a dial as a script has it.
#![forbid(unsafe_code)]

use tokio::net::UnixListener;

use super::*;

const UPGRADED: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: ts-dial\r\n\
    Connection: upgrade\r\n\r\n";

/// A tailscaled that meets each question with the same bytes, written as said, and keeps the
/// questions.
struct Fake {
    folder: tempfile::TempDir,
    questions: Arc<std::sync::Mutex<Vec<String>>>,
    gone: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Fake {
    fn endpoint(&self) -> Endpoint {
        Endpoint::Socket(self.folder.path().join("s"))
    }

    fn upstream(&self, settings: UpstreamSettings) -> Arc<Upstream> {
        let upstream = Upstream::new(UpstreamSettings { kind: Kind::LocalApi, ..settings });
        upstream.set_endpoint(Some(self.endpoint()));
        upstream
    }

    fn question(&self) -> String {
        self.questions.lock().unwrap().last().cloned().unwrap_or_default()
    }
}

/// `piece`: bytes per write.
fn fake(answer: &str, piece: usize, close: bool) -> Fake {
    let folder = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(folder.path().join("s")).unwrap();
    let (questions, gone) =
        (Arc::<std::sync::Mutex<Vec<_>>>::default(), Arc::<AtomicUsize>::default());
    let (asked, left, answer) =
        (Arc::clone(&questions), Arc::clone(&gone), answer.as_bytes().to_vec());
    let task = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (asked, left, answer) = (Arc::clone(&asked), Arc::clone(&left), answer.clone());
            tokio::spawn(async move {
                let mut question = vec![0; 4_096];
                let length = stream.read(&mut question).await.unwrap();
                let question = String::from_utf8_lossy(&question[..length]).into_owned();
                asked.lock().unwrap().push(question);
                for piece in answer.chunks(piece.max(1)) {
                    stream.write_all(piece).await.unwrap();
                    tokio::task::yield_now().await;
                }
                while !close && matches!(stream.read(&mut [0; 64]).await, Ok(1..)) {}
                left.fetch_add(1, Relaxed);
            });
        }
    });
    Fake { folder, questions, gone, task }
}

async fn answered(answer: &str) -> Result<UpstreamConnection, UpstreamError> {
    ask(&fake(answer, 4_096, false).upstream(settings())).await
}

fn failed(text: &str) -> String {
    let length = text.len();
    format!("HTTP/1.1 502 Bad Gateway\r\nContent-Length: {length}\r\n\r\n{text}")
}

#[tokio::test]
async fn a_dial_is_one_question_and_early_bytes_are_the_far_sides() {
    for piece in [1, 7, 4_096] {
        let fake = fake(&format!("{UPGRADED}SSH-2.0-far\r\n"), piece, false);
        let connected = ask(&fake.upstream(settings())).await.unwrap();
        assert_eq!(connected.address, None);
        let mut got = connected.early.to_vec();
        while got.len() < 13 {
            let mut more = [0; 16];
            let n = connected.stream.read(&mut more).await.unwrap();
            got.extend_from_slice(&more[..n]);
        }
        assert_eq!(got, b"SSH-2.0-far\r\n");
        let question = fake.question();
        assert!(question.contains("\r\nDial-Host: db.corp.example\r\nDial-Port: 5432\r\n"));
    }
}

#[tokio::test]
async fn an_address_is_asked_for_bare_and_raced_like_any() {
    let fake = fake(UPGRADED, 4_096, false);
    let upstream = fake.upstream(settings());
    let list = ["[fd7a::9]:443".parse().unwrap(), "100.64.0.9:443".parse().unwrap()];
    let connected = upstream.connect_to(ConnectGoal::Addresses(&list)).await.unwrap();
    assert_eq!(connected.address, Some(list[0]));
    assert!(fake.question().contains("\r\nDial-Host: fd7a::9\r\n"));
}

#[tokio::test]
async fn its_words_become_outcomes() {
    let outcome = async |text: &str| answered(&failed(text)).await.unwrap_err().outcome();
    let dial = "dial failure: connect tcp 100.64.0.1:9:";
    assert_eq!(outcome(&format!("{dial} connection was refused\n")).await, Outcome::Refused);
    assert_eq!(outcome(&format!("{dial} operation timed out\n")).await, Outcome::ConnectTimeout);
    assert_eq!(outcome("resolve failure: no such host\n").await, Outcome::DnsError);
    assert_eq!(outcome(&format!("{dial} something else\n")).await, Outcome::UpstreamFailed);
    let error = answered(&failed("dial failure: odd\n")).await.unwrap_err().to_string();
    assert!(error.contains("(odd)"), "{error}");
}

#[tokio::test]
async fn u8_refusals_and_garbage_are_protocol_errors() {
    for answer in [
        "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: other\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 502 Bad\r\nTransfer-Encoding: chunked\r\n\r\n",
        "SSH-2.0-x\r\n",
    ] {
        let error = answered(answer).await.unwrap_err();
        assert_eq!(error.outcome(), Outcome::UpstreamProtocol, "{answer}: {error}");
    }
    let fake = fake("HTTP/1.1 101 Sw", 4_096, true);
    let error = ask(&fake.upstream(settings())).await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::UpstreamFailed, "{error}");
}

#[tokio::test]
async fn u4_silence_is_ours_to_end_and_no_fault_of_tailscaled() {
    let fake = fake("", 1, false);
    let connect_timeout = Duration::from_millis(50);
    let upstream = fake.upstream(UpstreamSettings { connect_timeout, ..settings() });
    upstream.current_endpoint().unwrap().health.note_alive();
    for round in 1..=4 {
        let error = ask(&upstream).await.unwrap_err();
        assert!(matches!(error, UpstreamError::Timeout { .. }), "{error}");
        until("the connection is closed", || fake.gone.load(Relaxed) == round).await;
    }
    assert!(upstream.is_up(), "an unanswered SYN says nothing of tailscaled");
}

/// The address named by tailscaled leads elsewhere: it must never be dialled.
fn outside() -> String {
    format!(
        "HTTP/1.1 200 OK\r\nDial-Addr: {}\r\nDial-Self: true\r\nContent-Length: 0\r\n\r\n",
        port_nobody_listens_on()
    )
}

#[tokio::test]
async fn what_is_outside_is_refused_or_dialled_from_here_as_admitted() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let fake = fake(&outside(), 4_096, false);
    let refused = fake.upstream(settings()).connect_to(ConnectGoal::Addresses(&[address])).await;
    let error = refused.unwrap_err();
    assert!(matches!(error, UpstreamError::Outside { address: Some(a) } if a == address));
    assert!(error.to_string().starts_with(&address.to_string()), "{error}");

    let allowed = fake.upstream(UpstreamSettings { outside: true, ..settings() });
    let connected = allowed.connect_to(ConnectGoal::Addresses(&[address])).await.unwrap();
    assert_eq!(connected.stream.peer_addr().unwrap(), address);
    until("tailscaled is let go", || fake.gone.load(Relaxed) == 2).await;

    let error = ask(&allowed).await.unwrap_err();
    assert!(
        matches!(error, UpstreamError::Outside { address: None }),
        "a name was never admitted as an address: {error}"
    );
}

#[tokio::test]
async fn t3_its_state_is_the_probe_and_no_pool_is_kept() {
    let good =
        fake("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n", 4_096, false);
    let upstream = good.upstream(UpstreamSettings { pool: 3, ..settings() });
    let keeper = tokio::spawn(Arc::clone(&upstream).keep_pool());
    until("it is up", || upstream.is_up()).await;
    assert_eq!(upstream.pool_counts(), (0, 0));
    assert!(good.question().starts_with("GET /localapi/v0/status?peers=false HTTP/1.1\r\n"));
    upstream.probe().await.unwrap();
    keeper.abort();
    let forbidden = fake("HTTP/1.1 403 Forbidden\r\n\r\n", 4_096, false);
    let error = forbidden.upstream(settings()).probe().await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::UpstreamProtocol);
    let silent = fake("", 1, false);
    let hurried = UpstreamSettings { local_timeout: Duration::from_millis(100), ..settings() };
    let error = silent.upstream(hurried).probe().await.unwrap_err();
    assert!(matches!(error, UpstreamError::LocalTimeout { .. }), "{error}");
}

#[tokio::test]
async fn u1_a_socket_nobody_listens_on_is_down() {
    let fake = fake("", 1, false);
    let upstream = fake.upstream(settings());
    fake.task.abort();
    until("the listener is gone", || fake.task.is_finished()).await;
    let error = ask(&upstream).await.unwrap_err();
    assert!(error.is_down() && error.to_string().contains("tailnet.socket"), "{error}");
}
