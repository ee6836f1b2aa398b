//! The same bytes through Tailrace, Squid and tinyproxy to the same origin.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::{Made, there};
use tailrace_rig::wait::{PATIENCE, eventually, holds_within};
use tailrace_rig::{Gateway, HttpOrigin, HttpReply, RawConnection, accepts};

/// Another proxy, ended by its id.
struct Witness {
    child: Child,
    address: SocketAddr,
    folder: tempfile::TempDir,
}

/// Squid's shared memory is called by this, and outlives one that is killed.
const SERVICE: &str = "tailracewitness";

impl Witness {
    /// Starts it with a file of these settings, which name the port it shall have.
    #[track_caller]
    fn start(settings: impl Fn(u16, &Path) -> String, command: &[&str]) -> Witness {
        let folder = tempfile::tempdir().unwrap();
        // Squid becomes another user when root starts it.
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let any = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = any.local_addr().unwrap();
        drop(any);
        let file = folder.path().join("settings");
        std::fs::write(&file, settings(address.port(), folder.path())).unwrap();
        let child = Command::new(command[0])
            .args(&command[1..])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut witness = Witness { child, address, folder };
        eventually("the witness listens", 3 * PATIENCE, || {
            let over = witness.child.try_wait().unwrap();
            let log = witness.folder.path().join("cache.log");
            let log = std::fs::read_to_string(log).unwrap_or_default();
            assert!(over.is_none(), "{command:?} ended: {over:?}\n{log}");
            accepts(address)
        });
        witness
    }

    /// No cache, no log, nothing but the port.
    fn squid() -> Witness {
        let settings = |port, folder: &Path| {
            format!(
                "http_port 127.0.0.1:{port}\nhttp_access allow all\nvisible_hostname witness\n\
                 pid_filename none\ncache_log {0}/cache.log\naccess_log none\ncache deny all\n\
                 coredump_dir {0}\npinger_enable off\nshutdown_lifetime 0 seconds\n",
                folder.display()
            )
        };
        let service = format!("{SERVICE}{}", std::process::id());
        Witness::start(settings, &["squid", "-N", "-n", &service, "-f"])
    }

    fn tinyproxy() -> Witness {
        let settings = |port, folder: &Path| {
            let log = folder.join("log");
            format!(
                "Port {port}\nListen 127.0.0.1\nTimeout 60\nMaxClients 20\nAllow 127.0.0.1\n\
                 LogFile \"{}\"\n",
                log.display()
            )
        };
        Witness::start(settings, &["tinyproxy", "-d", "-c"])
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        if !holds_within(PATIENCE, || !matches!(self.child.try_wait(), Ok(None))) {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

/// What else a witness does than we do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Other {
    /// The same.
    No,
    /// It tells the origin the fragment too (RFC 9110 section 7.1 keeps it from servers).
    KeepsFragment,
    /// It drops credentials of the URL, so that the origin asks for them in vain.
    DropsCredentials,
    /// It sends a user name without the colon that RFC 7617 section 2 has behind it.
    NoColon,
}

struct Row {
    /// Its request line's URL, in which `{}` stands for the origin; before it what comes first.
    before: &'static str,
    url: &'static str,
    field: &'static str,
    path: &'static str,
    authorization: Option<&'static str>,
    squid: Other,
    tinyproxy: Other,
}

const fn row(url: &'static str, path: &'static str) -> Row {
    Row {
        before: "",
        url,
        field: "",
        path,
        authorization: None,
        squid: Other::No,
        tinyproxy: Other::No,
    }
}

const fn with_user(url: &'static str, authorization: &'static str) -> Row {
    let tinyproxy = Other::DropsCredentials;
    Row { authorization: Some(authorization), tinyproxy, ..row(url, "/") }
}

const ROWS: [Row; 10] = [
    Row { before: "\r\n", ..row("http://{}/", "/") },
    Row { before: "\r\n\r\n", ..row("http://{}/", "/") },
    with_user("http://u:p@{}/", "Basic dTpw"),
    Row { squid: Other::NoColon, ..with_user("http://u@{}/", "Basic dTo=") },
    with_user("http://:t@{}/", "Basic OnQ="),
    with_user("http://a%40b:%0d%0aX@{}/", "Basic YUBiOg0KWA=="),
    Row {
        field: "Authorization: Bearer own\r\n",
        tinyproxy: Other::No,
        ..with_user("http://u:p@{}/", "Bearer own")
    },
    row("http://{}/a\\b?c\\d", "/a\\b?c\\d"),
    row("http://{}/caf\u{e9}?\u{ff}", "/caf\u{e9}?\u{ff}"),
    Row {
        squid: Other::KeepsFragment,
        tinyproxy: Other::KeepsFragment,
        ..row("http://{}/f?g#h", "/f?g")
    },
];

impl Row {
    /// Characters up to U+00FF are a byte each.
    fn request(&self, origin: SocketAddr) -> Vec<u8> {
        let url = self.url.replace("{}", &origin.to_string());
        let text = format!(
            "{}GET {url} HTTP/1.1\r\nHost: {origin}\r\n{}Connection: close\r\n\r\n",
            self.before, self.field
        );
        text.chars().map(|c| u8::try_from(c).unwrap()).collect()
    }

    fn made(&self, other: Other) -> Made {
        let fragment = if other == Other::KeepsFragment { "#h" } else { "" };
        let authorization = match other {
            Other::DropsCredentials => None,
            Other::NoColon => Some("Basic dQ=="),
            Other::No | Other::KeepsFragment => self.authorization,
        };
        Made {
            line: format!("GET {}{fragment} HTTP/1.1", self.path),
            authorization: authorization.map(str::to_owned),
        }
    }
}

fn direct() -> Gateway {
    Gateway::start(|s| {
        s.direct().allow_loopback();
    })
}

/// An answer as Debian's own servers never send it, and others do.
const ANSWER: &str =
    "HTTP/1.1 200 OK\r\nX-A : b\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok";

fn origin() -> HttpOrigin {
    HttpOrigin::start(|_| HttpReply::Close(ANSWER.into()))
}

#[track_caller]
fn all_rows(proxy: SocketAddr, origin: &HttpOrigin, other: impl Fn(&Row) -> Other) {
    for row in &ROWS {
        let mut wire = RawConnection::dial(proxy);
        wire.send(row.request(origin.address()));
        let answer = wire.read_answer();
        assert_eq!((answer.status(), &answer.body[..]), (200, &b"ok"[..]), "{}", row.url);
        assert_eq!(answer.head.all("content-length"), ["2"], "{}", row.url);
        assert_eq!(answer.head.get("x-a"), Some("b"), "{}", row.url);
        assert_eq!(Made::last(origin), row.made(other(row)), "{}", row.url);
    }
}

#[test]
fn p21_b6_tailrace_does_what_is_usual() {
    let (mut gateway, origin) = (direct(), origin());
    all_rows(gateway.proxy(), &origin, |_| Other::No);
    gateway.settle_and_check(ROWS.len() as u64);
}

#[test]
fn p21_b6_squid_is_a_witness() {
    if there("squid", "-v", "squid") {
        let (witness, origin) = (Witness::squid(), origin());
        all_rows(witness.address, &origin, |row| row.squid);
        assert_connects(witness.address, &origin);
    }
}

#[test]
fn p21_b6_tinyproxy_is_a_witness() {
    if there("tinyproxy", "-v", "tinyproxy") {
        let (witness, origin) = (Witness::tinyproxy(), origin());
        // It passes an answer's fields on as they are and knows one length of two.
        for row in &ROWS {
            let mut wire = RawConnection::dial(witness.address);
            wire.send(row.request(origin.address()));
            let (said, _) = wire.rest();
            assert!(said.ends_with(b"ok"), "{}: {}", row.url, said.escape_ascii());
            assert_eq!(Made::last(&origin), row.made(row.tinyproxy), "{}", row.url);
        }
        assert_connects(witness.address, &origin);
    }
}

/// P19, as all three take it.
#[track_caller]
fn assert_connects(proxy: SocketAddr, origin: &HttpOrigin) {
    let mut wire = RawConnection::dial(proxy);
    wire.send(format!("CONNECT {} HTTP/1.1\r\nContent-Length: 0\r\n\r\n", origin.address()));
    assert_eq!(wire.read_head().status(), 200);
    wire.send("GET /tunnel HTTP/1.1\r\n\r\n");
    wire.expect(ANSWER);
    assert_eq!(Made::last(origin).line, "GET /tunnel HTTP/1.1");
}

#[test]
fn p19_tailrace_connects_as_the_witnesses_do() {
    let (mut gateway, origin) = (direct(), origin());
    assert_connects(gateway.proxy(), &origin);
    gateway.settle_and_check(1);
}
