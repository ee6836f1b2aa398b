//! What a sandbox forbids, and what `run` does then; and programs it cannot look into.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::nameserver::Nameserver;
use super::programs::Program;
use super::{BOTH, FAR, FAR_V6, Stage, text};
use tailrace_rig::setup::binary;
use tailrace_rig::{UpstreamReply, skip};

fn deny() -> Option<&'static str> {
    Program::Deny.path().map(|path| path.to_str().unwrap())
}

#[test]
fn b27_without_pidfd_getfd_the_socket_is_replaced() {
    let mut stage = Stage::new();
    let Some(deny) = deny() else { return };
    let before = [deny, "pidfd_getfd", "1", "--"];
    for program in BOTH {
        for way in ["blocking", "flags", "again", "threads", "forks"] {
            if way == "again" {
                stage.fake.answer_in_turn([UpstreamReply::Rep(5)]);
            }
            if stage.probe_under(&before, program, &[way, FAR, "80"]).is_none() {
                return;
            }
        }
        stage.probe_under(&before, program, &["blocking", FAR_V6, "80"]);
    }
    stage.probe_under(&before, Program::Go, &["many", &format!("{FAR}:80")]);
    let output = stage.command(&before, &["--explain", "true"]).output().unwrap();
    let said = text(&output.stderr);
    assert!(said.contains("no pidfd_getfd here"), "{said}");
    assert!(!stage.fake.requests().is_empty());
}

#[test]
fn b27_without_pidfd_getfd_names_are_redirected_too() {
    let mut stage = Stage::new();
    let Some(deny) = deny() else { return };
    let nameserver = Nameserver::of(&stage.gateway, FAR.parse().unwrap());
    let before = [deny, "pidfd_getfd", "1", "--"];
    for program in BOTH {
        let Some(said) = stage.probe_under(&before, program, &["datagrams", "192.0.2.53", "53"])
        else {
            return;
        };
        assert_eq!(said.matches(&format!("answer {FAR} from 192.0.2.53 port 53\n")).count(), 5);
        stage.probe_under(&before, program, &["resolve", "db.corp.example"]);
        stage.probe_under(&before, program, &["stream_dns", "192.0.2.53", "53"]);
    }
    assert!(nameserver.asked() >= 14);
}

#[test]
fn b27_memory_is_read_by_proc_where_its_call_is_forbidden() {
    let mut stage = Stage::new();
    let Some(deny) = deny() else { return };
    stage.probe_under(
        &[deny, "process_vm_readv", "1", "--"],
        Program::Probe,
        &["forks", FAR, "80"],
    );
}

#[test]
fn b27_a_kernel_without_killable_waits_restarts_calls() {
    let mut stage = Stage::new();
    let Some(deny) = deny() else { return };
    stage.fake.answer_for(
        FAR,
        UpstreamReply::Late(std::time::Duration::from_millis(60), Box::new(UpstreamReply::Connect)),
    );
    let wait_killable = (libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV).to_string();
    let before = [deny, "seccomp", "22", &wait_killable, "--"];
    for program in BOTH {
        if stage.probe_under(&before, program, &["interrupted", FAR, "80"]).is_none() {
            return;
        }
    }
    stage.probe_under(&before, Program::Go, &["many", &format!("{FAR}:80")]);
    assert_eq!(stage.fake.requests().len(), 102, "none is made twice");
}

#[test]
fn b27_without_seccomp_dynamic_programs_load_a_shim() {
    let mut stage = Stage::new();
    let Some(deny) = deny() else { return };
    let nameserver = Nameserver::of(&stage.gateway, FAR.parse().unwrap());
    let before = [deny, "seccomp", "22", "--"];
    for way in ["blocking", "registered", "options", "flags", "again", "threads", "forks"] {
        if way == "again" {
            stage.fake.answer_in_turn([UpstreamReply::Rep(5)]);
        }
        if stage.probe_under(&before, Program::Probe, &[way, FAR, "80"]).is_none() {
            return;
        }
    }
    for way in ["blocking", "registered", "only_v6"] {
        stage.probe_under(&before, Program::Probe, &[way, FAR_V6, "80"]);
    }
    stage.probe_under(&before, Program::Probe, &["stream_dns", "192.0.2.53", "53"]);
    let said = stage.probe_under(&before, Program::Probe, &["resolve", "db.corp.example"]).unwrap();
    assert_eq!(said, format!("db.corp.example is {FAR}\nok\n"));
    assert!(nameserver.asked() >= 2);
    let script = "import os\ntry: os.wait()\nexcept ChildProcessError: print('none')";
    let output = stage.command(&before, &["python3", "-c", script]).output().unwrap();
    assert_eq!(text(&output.stdout), "none\n", "no child is left to it: {output:?}");
    for (rep, errno) in [(5, libc::ECONNREFUSED), (4, libc::EHOSTUNREACH), (2, libc::EACCES)] {
        stage.fake.answer_for(FAR, UpstreamReply::Rep(rep));
        let said = stage.probe_under(&before, Program::Probe, &["denied", FAR, "80"]).unwrap();
        // What an upstream says of its own rules is no verdict of our policy.
        let errno = if rep == 2 { libc::ECONNREFUSED } else { errno };
        assert_eq!(said, format!("errno {errno}\nok\n"), "REP {rep}");
    }
}

#[test]
fn b27_explain_names_the_rung_and_why() {
    let mut stage = Stage::new();
    let Some(deny) = deny() else { return };
    let reasons = [
        (libc::EINVAL, "no seccomp user notification"),
        (libc::ENOSYS, "no seccomp user notification"),
        (libc::EBUSY, "holds the listener"),
        (libc::EPERM, "a sandbox forbids seccomp"),
    ];
    for (errno, why) in reasons {
        for (tmp, rung) in [("", "LD_PRELOAD"), ("/dev/null", "the proxy environment alone")] {
            let before = [deny, "seccomp", &errno.to_string(), "--"];
            let script = "echo $HTTPS_PROXY $ALL_PROXY; exit 3";
            let mut command = stage.command(&before, &["--explain", "sh", "-c", script]);
            if !tmp.is_empty() {
                command.env("TMPDIR", tmp);
            }
            let output = command.output().unwrap();
            assert_eq!(output.status.code(), Some(3), "{output:?}");
            let proxy = format!("http://{}", stage.gateway.proxy());
            // What the shim carries needs no proxy, and curl's ftp:// would ask one for it.
            let all = if rung == "LD_PRELOAD" { String::new() } else { format!(" {proxy}") };
            assert_eq!(text(&output.stdout), format!("{proxy}{all}\n"));
            let said = text(&output.stderr);
            assert!(said.contains(why) && said.contains(rung), "{output:?}");
        }
    }
}

#[test]
fn b27_a_nested_run_reuses_the_outer_one() {
    let mut stage = Stage::new();
    let Some(probe) = Program::Probe.path() else { return };
    let config = stage.gateway.setup().config();
    let (binary, config) = (binary(), config.to_str().unwrap().to_owned());
    let inner = [
        binary.to_str().unwrap(),
        "run",
        "--config",
        &config,
        "--explain",
        probe.to_str().unwrap(),
    ];
    let output = stage.run(&[&inner[..], &["blocking", FAR, "80"]].concat());
    assert_eq!(text(&output.stdout), "ok\n", "{output:?}");
    assert!(text(&output.stderr).contains("an outer tailrace run"), "{output:?}");
    assert_eq!(stage.fake.requests().len(), 1);
}

#[test]
fn b27_programs_closed_to_us_are_let_pass_and_counted() {
    let mut stage = Stage::new();
    let Some(probe) = Program::Probe.path() else { return };
    // Nobody listens there; the kernel itself says so.
    let words = ["--explain", probe.to_str().unwrap(), "undumpable", "127.0.0.1", "1"];
    let output = stage.run(&words);
    assert!(text(&output.stdout).starts_with("errno "), "{output:?}");
    let may_read_all = rustix::process::geteuid().is_root();
    let counted = if may_read_all { "passed unread 0" } else { "passed unread 1" };
    assert!(text(&output.stderr).contains(counted), "{output:?}");
}

#[test]
fn b27_another_user_finds_the_gateway_by_its_settings() {
    if !rustix::process::geteuid().is_root() {
        return skip("needs root to become another user");
    }
    let stage = Stage::new();
    let Some(probe) = Program::Probe.path() else { return };
    let open = tempfile::tempdir().unwrap();
    let place = |name: &str| open.path().join(name);
    for (from, to) in [(binary(), "tailrace"), (probe.to_owned(), "probe")] {
        std::fs::copy(from, place(to)).unwrap();
    }
    let settings = format!(
        "run_dir = \"{}\"\n[listen]\nproxy = [\"{}\"]\nadmin = \"{}\"\n",
        stage.gateway.dir().join("run").display(),
        stage.gateway.proxy(),
        stage.gateway.admin()
    );
    std::fs::write(place("config.toml"), settings).unwrap();
    std::fs::set_permissions(open.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let run = |way: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"]);
        command.arg(place("tailrace")).args(["run", "--explain", "--config"]);
        command.arg(place("config.toml")).arg(place("probe")).args(way).output().unwrap()
    };
    for way in ["blocking", "registered", "forks"] {
        let output = run(&[way, FAR, "80"]);
        assert_eq!(text(&output.stdout), "ok\n", "{way}: {output:?}");
    }
    assert_eq!(stage.fake.requests().len(), 202);
    let output = run(&["undumpable", "127.0.0.1", "1"]);
    assert!(text(&output.stderr).contains("passed unread 1"), "{output:?}");
}

#[test]
fn b27_a_program_that_would_gain_a_privilege_is_said_to_lose_it() {
    if !rustix::process::geteuid().is_root() {
        return skip("needs root to make a program set-user-ID to somebody else");
    }
    let mut stage = Stage::new();
    let file = stage.gateway.dir().join("tool");
    std::fs::write(&file, "#!/bin/sh\n").unwrap();
    std::os::unix::fs::chown(&file, Some(65534), Some(65534)).unwrap();
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o4755)).unwrap();
    let output = stage.run(&[file.to_str().unwrap()]);
    assert!(text(&output.stderr).contains("without its privilege"), "{output:?}");
}

#[test]
fn b27_no_gateway_is_69_and_nothing_runs() {
    let mut stage = Stage::new();
    stage.gateway.signal(rustix::process::Signal::TERM);
    stage.gateway.wait_exit(tailrace_rig::wait::PATIENCE);
    let output = stage.run(&["echo", "ran"]);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(69), String::new()));
}
