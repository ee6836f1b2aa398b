//! `tailrace connect`: bytes, ends and exit codes, as ssh, git and socat meet them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail loudly")]

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use tailrace_rig::wait::{PATIENCE, eventually_some};
use tailrace_rig::{
    ClosedPort, FakeUpstream, Gateway, Latch, Origin, Setup, UpstreamReply, sha256,
};

const NAME: &str = "db.corp.example";

/// A gateway chained into a fake that leads to `origin`.
fn leading_to(origin: &Origin) -> (FakeUpstream, Gateway) {
    let fake = FakeUpstream::with(NAME, origin.address());
    let gateway = Gateway::start(|s| {
        s.upstream(fake.address()).enforce(&["corp.example"]);
    });
    (fake, gateway)
}

fn command(setup: &Setup, words: &[&str]) -> Command {
    let file = setup.write();
    let mut all = vec!["connect", "--config", file.to_str().unwrap()];
    all.extend(words);
    let mut command = setup.command(&all);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn connect(gateway: &mut Gateway) -> Child {
    command(gateway.setup(), &[NAME, "22"]).spawn().unwrap()
}

fn ends(child: &mut Child) -> Option<i32> {
    let status = eventually_some("connect ends", PATIENCE, || child.try_wait().unwrap());
    status.code()
}

fn pipes(child: &mut Child) -> (ChildStdin, ChildStdout) {
    (child.stdin.take().unwrap(), child.stdout.take().unwrap())
}

fn said(child: &mut Child) -> String {
    let mut text = String::new();
    child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    text
}

/// Bytes of every value, more than any buffer on the way holds.
fn bytes() -> Vec<u8> {
    (0..(2 << 20) + 1).map(|at: usize| (at * 31 % 256) as u8).collect()
}

#[test]
fn every_byte_goes_both_ways_and_both_ends_are_good() {
    let origin = Origin::echo();
    let (fake, mut gateway) = leading_to(&origin);
    let mut child = connect(&mut gateway);
    let (mut input, mut output) = pipes(&mut child);
    let sent = bytes();
    let sum = sha256(&sent);
    let sender = std::thread::spawn(move || input.write_all(&sent).unwrap());
    let mut back = Vec::new();
    output.read_to_end(&mut back).unwrap();
    sender.join().unwrap();
    assert_eq!((back.len(), sha256(&back)), ((2 << 20) + 1, sum));
    assert_eq!(ends(&mut child), Some(0));
    assert_eq!(said(&mut child), "");
    let line = &gateway.wait_for_access(1)[0];
    assert_eq!([&line["inbound"], &line["outcome"]], ["connect", "fin_fin"]);
    gateway.settle_with(&fake, 1, 1);
}

#[test]
fn the_answer_may_come_after_the_end_of_input() {
    let origin = Origin::send_after_eof(bytes());
    let (_fake, mut gateway) = leading_to(&origin);
    let mut child = connect(&mut gateway);
    let (mut input, mut output) = pipes(&mut child);
    input.write_all(b"question").unwrap();
    drop(input);
    let mut answer = Vec::new();
    output.read_to_end(&mut answer).unwrap();
    assert_eq!(sha256(&answer), sha256(&bytes()));
    assert_eq!(ends(&mut child), Some(0));
}

#[test]
fn input_may_go_on_after_the_end_of_output() {
    let origin = Origin::start(|guest| {
        guest.send(b"banner");
        guest.fin();
        guest.read_to_end();
    });
    let (_fake, mut gateway) = leading_to(&origin);
    let mut child = connect(&mut gateway);
    let (mut input, mut output) = pipes(&mut child);
    let mut banner = Vec::new();
    output.read_to_end(&mut banner).unwrap();
    assert_eq!(banner, b"banner");
    assert!(child.try_wait().unwrap().is_none());
    input.write_all(&bytes()).unwrap();
    drop(input);
    assert_eq!(ends(&mut child), Some(0));
    assert_eq!(origin.only_visit().sha256(), sha256(&bytes()));
}

#[test]
fn what_is_cut_does_not_end_well() {
    let came = Latch::new();
    let origin = Origin::send_and_reset_at("half of it", &came);
    let (_fake, mut gateway) = leading_to(&origin);
    let mut child = connect(&mut gateway);
    // Standard input stays open all the while.
    let (_input, mut output) = pipes(&mut child);
    let mut half = [0; 10];
    output.read_exact(&mut half).unwrap();
    assert_eq!(&half, b"half of it");
    came.open();
    assert_eq!(output.read(&mut half).unwrap(), 0);
    assert_eq!(ends(&mut child), Some(1));
    assert!(said(&mut child).contains("was cut"));
    assert_eq!(gateway.outcome(1), "upstream_rst");
}

#[test]
fn a_cut_after_the_end_of_output_is_seen_without_input() {
    let origin = Origin::start(|guest| {
        guest.send(b"banner");
        guest.fin();
        guest.read_to_end();
    });
    let (_fake, mut gateway) = leading_to(&origin);
    let mut child = connect(&mut gateway);
    let (_input, mut output) = pipes(&mut child);
    output.read_to_end(&mut Vec::new()).unwrap();
    gateway.signal(rustix::process::Signal::TERM);
    gateway.signal(rustix::process::Signal::TERM);
    assert_eq!(ends(&mut child), Some(1));
}

#[test]
fn a_reader_that_leaves_is_a_reset_for_the_far_side() {
    let origin = Origin::echo();
    let (_fake, mut gateway) = leading_to(&origin);
    let mut child = connect(&mut gateway);
    let (mut input, output) = pipes(&mut child);
    drop(output);
    input.write_all(b"echo me").unwrap();
    assert_eq!(ends(&mut child), Some(1));
    assert!(said(&mut child).contains("standard output"));
    assert_eq!(gateway.outcome(1), "client_rst");
}

#[test]
fn a_refusal_is_a_sentence_and_1() {
    let fake = FakeUpstream::start();
    let mut gateway = Gateway::start(|s| {
        s.upstream(fake.address()).enforce(&["corp.example"]);
    });
    let ask = |gateway: &mut Gateway, host: &str| -> Output {
        command(gateway.setup(), &[host, "22"]).stdin(Stdio::null()).output().unwrap()
    };
    let denied = ask(&mut gateway, "evil.example");
    let sentence = String::from_utf8(denied.stderr).unwrap();
    assert_eq!((denied.status.code(), denied.stdout.len()), (Some(1), 0), "{sentence}");
    assert!(sentence.contains("evil.example:22 is not allowed by policy"), "{sentence}");
    fake.answer(UpstreamReply::Rep(5));
    let refused = ask(&mut gateway, NAME);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8(refused.stderr).unwrap().contains("(refused)"));
    gateway.settle_with(&fake, 2, 1);
}

#[test]
fn without_a_gateway_it_ends_69() {
    let closed = ClosedPort::new();
    let mut setup = Setup::new();
    setup.direct().set("listen.proxy", vec![closed.address().to_string()]);
    let output = command(&setup, &[NAME, "22"]).output().unwrap();
    assert_eq!(output.status.code(), Some(69), "{output:?}");
    assert!(String::from_utf8(output.stderr).unwrap().contains("tailrace up"));
}

#[test]
fn what_is_no_target_ends_64() {
    let setup = Setup::new();
    for words in [&["a..b", "22"][..], &[NAME, "0"], &[NAME, "ssh"], &[NAME], &["[::1", "22"]] {
        assert_eq!(command(&setup, words).output().unwrap().status.code(), Some(64), "{words:?}");
    }
}

#[test]
fn an_address_may_stand_in_brackets_or_not() {
    let fake = FakeUpstream::start();
    let mut gateway = Gateway::chained(&fake);
    for host in ["fd00::7", "[fd00::7]"] {
        command(gateway.setup(), &[host, "22"]).stdin(Stdio::null()).output().unwrap();
    }
    assert_eq!(fake.hosts(), ["fd00::7", "fd00::7"]);
}

#[test]
fn descriptors_that_do_not_block_are_waited_for_and_stay_as_they_are() {
    let origin = Origin::echo();
    let (_fake, mut gateway) = leading_to(&origin);
    let (from, mut input) = std::io::pipe().unwrap();
    let (output, to) = std::io::pipe().unwrap();
    for end in [rustix::fd::AsFd::as_fd(&from), rustix::fd::AsFd::as_fd(&to)] {
        fcntl_setfl(end, fcntl_getfl(end).unwrap() | OFlags::NONBLOCK).unwrap();
    }
    let mut command = command(gateway.setup(), &[NAME, "22"]);
    let mut child =
        command.stdin(from.try_clone().unwrap()).stdout(to.try_clone().unwrap()).spawn().unwrap();
    drop((command, to));
    let sent = bytes();
    let sum = sha256(&sent);
    let sender = std::thread::spawn(move || input.write_all(&sent).unwrap());
    let mut back = Vec::new();
    File::from(OwnedFd::from(output)).read_to_end(&mut back).unwrap();
    sender.join().unwrap();
    assert_eq!(sha256(&back), sum);
    assert_eq!(ends(&mut child), Some(0));
    assert!(fcntl_getfl(&from).unwrap().contains(OFlags::NONBLOCK));
}

#[test]
fn one_socket_for_both_as_socat_gives_half_closes_too() {
    let origin = Origin::start(|guest| {
        guest.send(b"banner");
        guest.fin();
        guest.read_to_end();
    });
    let (_fake, mut gateway) = leading_to(&origin);
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let mut command = command(gateway.setup(), &[NAME, "22"]);
    command.stdin(OwnedFd::from(theirs.try_clone().unwrap())).stdout(OwnedFd::from(theirs));
    let mut child = command.spawn().unwrap();
    drop(command);
    let mut banner = Vec::new();
    ours.read_to_end(&mut banner).unwrap();
    assert_eq!(banner, b"banner");
    ours.write_all(b"and on it goes").unwrap();
    ours.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(ends(&mut child), Some(0));
    assert_eq!(origin.only_visit().sha256(), sha256(b"and on it goes"));
}

#[test]
fn ssh_reaches_a_server_by_it() {
    if Command::new("ssh").arg("-V").output().is_err() {
        return tailrace_rig::skip("needs ssh");
    }
    let origin = Origin::start(|guest| {
        guest.send(b"SSH-2.0-canary\r\n");
        guest.read_n(4);
    });
    let (_fake, mut gateway) = leading_to(&origin);
    let file = gateway.setup().write();
    let binary = tailrace_rig::setup::binary();
    let proxy =
        format!("ProxyCommand='{}' connect --config '{}' %h %p", binary.display(), file.display());
    let mut ssh = Command::new("ssh");
    ssh.args(["-v", "-F", "none", "-o", &proxy, "-o", "BatchMode=yes", NAME, "true"]);
    let output = ssh.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("remote software version canary"), "{said}");
    assert_eq!(gateway.wait_for_access(1)[0]["host"], NAME);
}

/// `env` of a program in a folder whose name no shell and no ssh takes as it stands.
#[test]
fn git_finds_its_way_by_env_whatever_the_path() {
    if Command::new("git").arg("--version").output().is_err() {
        return tailrace_rig::skip("needs git");
    }
    let origin = Origin::start(|guest| {
        guest.send(b"SSH-2.0-canary\r\n");
        guest.read_n(4);
    });
    let (_fake, mut gateway) = leading_to(&origin);
    let folder = gateway.dir().join("it's 100%h");
    std::fs::create_dir(&folder).unwrap();
    let program = folder.join("tailrace");
    std::fs::copy(tailrace_rig::setup::binary(), &program).unwrap();
    let file = gateway.setup().write();
    let script =
        "eval \"$(\"$1\" env --config \"$2\")\" && git ls-remote ssh://db.corp.example/repo";
    let mut shell = Command::new("sh");
    shell.args(["-c", script, "sh"]).arg(&program).arg(&file);
    shell.env("GIT_TERMINAL_PROMPT", "0").env("HOME", gateway.dir()).stdin(Stdio::null());
    let said = String::from_utf8(shell.output().unwrap().stderr).unwrap();
    let line = gateway.wait_for_line(|line| line["host"] == NAME);
    assert_eq!(line["port"], 22, "{said}");
}
