//! Passive FTP (case B27): a client's second connection leads where its first one was asked to go, through
//! the gateway, on every rung.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};

use super::ftp_server::{FILE, FtpServer};
use super::programs::Program;
use super::{FAR, FAR_V6, Stage, text};
use tailrace_rig::wait::{PATIENCE, eventually};
use tailrace_rig::{FakeUpstream, Gateway, Origin, skip};

/// Fetches a file by ftplib, which sends PASV to an IPv4 server and EPSV to an IPv6 one.
const FTPLIB: &str = "import ftplib, io, sys
ftp, got = ftplib.FTP(), io.BytesIO()
ftp.connect(sys.argv[1], int(sys.argv[2]), 20)
ftp.login()
ftp.retrbinary('RETR ' + sys.argv[3], got.write)
print(got.getvalue().decode(), end='')
ftp.quit()";

/// What stands before `tailrace` on each rung.
fn rungs() -> Option<[(&'static str, Vec<&'static str>); 3]> {
    let deny = Program::Deny.path()?.to_str().unwrap();
    Some([
        ("duplicates", vec![]),
        ("replaces", vec![deny, "pidfd_getfd", "1", "--"]),
        ("shim", vec![deny, "seccomp", "22", "--"]),
    ])
}

/// A gateway in front of whatever listens on `here`, which FAR and FAR_V6 lead to by the same port.
fn stage(here: Ipv4Addr) -> Stage {
    let origin = Origin::echo();
    let fake = FakeUpstream::with(FAR, (here, 0).into());
    fake.map(FAR_V6, (here, 0).into());
    let gateway = Gateway::start(|s| {
        s.upstream(fake.address());
    });
    Stage { origin, fake, gateway }
}

/// The commands of each client, and which of the two ways of a passive connection it asks for.
fn clients(host: &str, port: u16, file: &str) -> Vec<(Vec<String>, &'static str)> {
    let literal = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let url = format!("ftp://{literal}:{port}/{file}");
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let curl = ["curl", "-gsS", "--max-time", "30"];
    let passive = if host.contains(':') { "EPSV" } else { "PASV" };
    let mut all = vec![
        (words(&[&curl[..], &[&url]].concat()), "EPSV"),
        (words(&["python3", "-c", FTPLIB, host, &port.to_string(), file]), passive),
    ];
    if passive == "PASV" {
        all.push((words(&[&curl[..], &["--disable-epsv", &url]].concat()), "PASV"));
    }
    all
}

#[test]
fn b27_passive_ftp_goes_through_the_gateway_on_every_rung() {
    let server = FtpServer::start();
    let mut stage = stage(HERE);
    let Some(rungs) = rungs() else { return };
    let port = server.control().port();
    for (rung, before) in rungs {
        for host in [FAR, FAR_V6] {
            for (client, passive) in clients(host, port, FILE.0) {
                let seen = stage.fake.requests().len();
                let client: Vec<&str> = client.iter().map(String::as_str).collect();
                let output = stage.command(&before, &client).output().unwrap();
                assert_eq!(text(&output.stdout), FILE.1, "{rung} {client:?}: {output:?}");
                let heard = server.heard();
                assert!(heard.iter().any(|command| command == passive), "{client:?}: {heard:?}");
                let asked = stage.fake.requests().split_off(seen);
                let [control, data] = &asked[..] else { panic!("{rung} {client:?}: {asked:?}") };
                assert_eq!((control.host.as_str(), control.port), (host, port));
                assert_eq!(data.host, host, "{rung} {client:?}");
                assert_ne!(data.port, port);
            }
        }
    }
}

/// A sandbox's environment names the gateway as the proxy of every protocol: curl would ask it for
/// `ftp://`, for which it is none.
#[test]
fn b27_a_proxy_for_everything_does_not_stand_in_the_way_of_ftp() {
    let server = FtpServer::start();
    let mut stage = stage(HERE);
    let Some(rungs) = rungs() else { return };
    let url = format!("ftp://{FAR}:{}/{}", server.control().port(), FILE.0);
    for (rung, before) in rungs {
        let proxy = format!("http://{}", stage.gateway.proxy());
        let mut command = stage.command(&before, &["curl", "-sS", "--max-time", "30", &url]);
        let output = command.env("ALL_PROXY", &proxy).env("all_proxy", proxy).output().unwrap();
        assert_eq!(text(&output.stdout), FILE.1, "{rung}: {output:?}");
        let mut command = stage.command(&before, &["sh", "-c", "echo $ALL_PROXY"]);
        let output = command.env("ALL_PROXY", "socks5h://192.0.2.1:1").output().unwrap();
        assert_eq!(text(&output.stdout), "socks5h://192.0.2.1:1\n", "another's: {rung}");
    }
}

/// Where the servers are: loopback, and not where clients would look.
const HERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// vsftpd on 127.0.0.2, for anonymous users; ends with this value.
struct Vsftpd {
    child: Child,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Vsftpd {
    fn start() -> Option<Vsftpd> {
        let program = ["/usr/sbin/vsftpd", "/usr/bin/vsftpd"];
        let program = program.into_iter().find(|path| std::path::Path::new(path).exists())?;
        let folder = tempfile::tempdir().unwrap();
        let files = folder.path().join("files");
        std::fs::create_dir(&files).unwrap();
        std::fs::write(files.join(FILE.0), FILE.1).unwrap();
        // Taken and let go: a port that is free now.
        let address = TcpListener::bind((HERE, 0)).unwrap().local_addr().unwrap();
        let settings = format!(
            "listen=YES\nlisten_ipv6=NO\nlisten_address={}\nlisten_port={}\nbackground=NO\n\
             run_as_launching_user=YES\nanonymous_enable=YES\nno_anon_password=YES\n\
             anon_root={}\nftp_username={}\npasv_address=192.0.2.77\nseccomp_sandbox=NO\n\
             isolate=NO\nisolate_network=NO\nconnect_from_port_20=NO\n",
            address.ip(),
            address.port(),
            files.display(),
            user(),
        );
        let config = folder.path().join("vsftpd.conf");
        std::fs::write(&config, settings).unwrap();
        let child = Command::new(program).arg(&config).stdin(Stdio::null()).spawn().unwrap();
        let server = Vsftpd { child, address, _folder: folder };
        eventually("vsftpd listens", PATIENCE, || {
            std::net::TcpStream::connect(server.address).is_ok()
        });
        Some(server)
    }
}

impl Drop for Vsftpd {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

/// The name of who runs this test.
fn user() -> String {
    let output = Command::new("id").arg("-un").output().unwrap();
    text(&output.stdout).trim().to_owned()
}

#[test]
fn b27_curl_and_ftplib_fetch_from_a_real_server() {
    let Some(server) = Vsftpd::start() else { return skip("needs vsftpd") };
    let mut stage = stage(HERE);
    let Some(rungs) = rungs() else { return };
    for (rung, before) in rungs {
        for host in [FAR, FAR_V6] {
            for (client, _) in clients(host, server.address.port(), FILE.0) {
                let client: Vec<&str> = client.iter().map(String::as_str).collect();
                let output = stage.command(&before, &client).output().unwrap();
                assert_eq!(text(&output.stdout), FILE.1, "{rung} {client:?}: {output:?}");
            }
        }
    }
    assert_eq!(stage.fake.requests().len(), 3 * (3 + 2) * 2, "two connections each, none past it");
}
