//! What the parent, the terminal and the children of a wrapped program see: as without the wrapping.

use std::io::Read as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};

use super::programs::Program;
use super::{FAR, Stage, text};
use tailrace_rig::setup::binary;
use tailrace_rig::skip;
use tailrace_rig::wait::{PATIENCE, eventually, eventually_some};

#[test]
fn b27_exit_status_and_signal_are_the_program_s() {
    let mut stage = Stage::new();
    for code in [0, 1, 42, 255] {
        let output = stage.run(&["sh", "-c", &format!("exit {code}")]);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
    }
    for signal in [libc::SIGTERM, libc::SIGKILL, libc::SIGINT, libc::SIGSEGV] {
        // Whoever runs this may ignore SIGINT, as a shell's background jobs do.
        let script = format!("kill -{signal} $$");
        let mut command = stage.command(&["env", "--default-signal=INT"], &["sh", "-c", &script]);
        let output = command.output().unwrap();
        assert_eq!(output.status.signal(), Some(signal), "{output:?}");
    }
    for (program, code) in [("/nonexistent/x", 127), ("no-such-program", 127), ("/etc", 126)] {
        let output = stage.run(&["--", program]);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert!(text(&output.stderr).contains(program), "{output:?}");
    }
}

#[test]
fn b27_its_arguments_input_and_children_are_its_own() {
    let mut stage = Stage::new();
    let output =
        stage.run(&["--", "sh", "-c", "echo \"$@\"; cat; echo err >&2", "x", "--explain", "-- a"]);
    assert_eq!(
        (text(&output.stdout), text(&output.stderr)),
        ("--explain -- a\n".into(), "err\n".into())
    );
    // It finds no child it did not start: waiting for any ends at once.
    let script = "import os\ntry: os.wait()\nexcept ChildProcessError: print('none')";
    assert_eq!(text(&stage.run(&["python3", "-c", script]).stdout), "none\n");
    // Nor a descriptor.
    let bare = std::process::Command::new("ls").arg("/proc/self/fd").stdin(Stdio::null()).output();
    let output = stage.run(&["ls", "/proc/self/fd"]);
    assert_eq!(text(&output.stdout), text(&bare.unwrap().stdout));
}

#[test]
fn b27_private_variables_stay_here() {
    let mut stage = Stage::new();
    let mut command = stage.command(&[], &["env"]);
    command
        .env("TS_AUTHKEY", "x")
        .env("PGHOSTADDR", "127.0.0.1")
        .env("PGPORT", "1")
        .env("MINE", "1");
    let seen = text(&command.output().unwrap().stdout);
    assert!(seen.contains("MINE=1") && !seen.contains("TS_") && !seen.contains("PG"), "{seen}");
}

#[test]
fn b27_signals_reach_the_program_once() {
    let mut stage = Stage::new();
    let script = "trap 'echo usr1' USR1; trap 'echo term; exit 9' TERM; echo ready; \
                  while :; do sleep 0.02; done";
    let mut command = stage.command(&[], &["sh", "-c", script]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    let mut line = |wanted: &str| {
        let mut seen = vec![0; wanted.len()];
        out.read_exact(&mut seen).unwrap();
        assert_eq!(text(&seen), wanted);
    };
    line("ready\n");
    kill_process(Pid::from_child(&child), Signal::USR1).unwrap();
    line("usr1\n");
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    line("term\n");
    assert_eq!(child.wait().unwrap().code(), Some(9));
}

#[test]
fn b27_a_reader_sees_the_program_close_its_output() {
    let mut stage = Stage::new();
    let mut command = stage.command(&[], &["sh", "-c", "exec >&-; read line; exit 5"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut seen = String::new();
    child.stdout.take().unwrap().read_to_string(&mut seen).unwrap();
    assert!(child.try_wait().unwrap().is_none());
    drop(child.stdin.take());
    assert_eq!(child.wait().unwrap().code(), Some(5));
}

#[test]
fn b27_what_it_leaves_running_still_connects() {
    let mut stage = Stage::new();
    let Some(probe) = Program::Probe.path() else { return };
    let file = stage.gateway.dir().join("left");
    let script = format!(
        "(read go; {} blocking {FAR} 80 >{}) >/dev/null 2>&1 <fifo & exit 4",
        probe.display(),
        file.display()
    );
    let fifo = stage.gateway.dir().join("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let output = stage.run(&["sh", "-c", &script]);
    assert_eq!(output.status.code(), Some(4), "run ends with its program: {output:?}");
    std::fs::write(fifo, "go\n").unwrap();
    eventually("the one left behind has connected", PATIENCE, || {
        std::fs::read_to_string(&file).is_ok_and(|said| said == "ok\n")
    });
}

#[test]
fn b27_nobody_has_to_wait_for_its_supervisor() {
    let mut stage = Stage::new();
    // Stands for a process 1 that waits for its own child alone.
    let process_1 = "import ctypes, os, sys\n\
                     assert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0 # PR_SET_CHILD_SUBREAPER\n\
                     child = os.spawnvp(os.P_NOWAIT, sys.argv[1], sys.argv[1:])\n\
                     os.waitpid(child, 0)\n\
                     try: print('left:', os.wait())\n\
                     except ChildProcessError: print('nobody')";
    for program in [&["true"][..], &["sh", "-c", "kill -9 $$"], &["--", "/nonexistent/x"]] {
        let output = stage.command(&["python3", "-c", process_1], program).output().unwrap();
        assert_eq!(text(&output.stdout), "nobody\n", "{program:?}: {output:?}");
    }
}

/// Children of a process.
fn children(pid: u32) -> Vec<u32> {
    let list = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    list.unwrap_or_default().split(' ').filter_map(|pid| pid.parse().ok()).collect()
}

fn kill(pid: u32) {
    kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), Signal::KILL).unwrap();
}

#[test]
fn b27_killing_run_kills_its_program() {
    let mut stage = Stage::new();
    let mut child = stage.command(&[], &["sleep", "600"]).spawn().unwrap();
    let program = eventually_some("its program runs", PATIENCE, || {
        let supervisor = *children(child.id()).first()?;
        children(supervisor).first().copied()
    });
    kill(child.id());
    child.wait().unwrap();
    eventually("it is gone", PATIENCE, || {
        !std::path::Path::new(&format!("/proc/{program}")).exists()
    });
}

#[test]
fn b27_a_killed_supervisor_leaves_no_program_hanging() {
    let mut stage = Stage::new();
    let Some(probe) = Program::Probe.path() else { return };
    stage.fake.answer_for(FAR, super::UpstreamReply::Silent);
    let script = format!("{0} denied {FAR} 80; {0} denied {FAR} 81; exit 6", probe.display());
    let mut command = stage.command(&[], &["sh", "-c", &script]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let fake = &stage.fake;
    eventually("the connection is under way", PATIENCE, || fake.requests().len() == 1);
    kill(children(child.id())[0]);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(6), "{output:?}");
    let line = format!("errno {}\nok\n", libc::ENOSYS);
    assert_eq!(text(&output.stdout), line.repeat(2));
    assert!(text(&output.stderr).contains("the supervisor was killed"), "{output:?}");
}

#[test]
fn b27_terminal_and_job_control() {
    let mut stage = Stage::new();
    if std::process::Command::new("python3").arg("-V").output().is_err() {
        return skip("needs python3");
    }
    let script = stage.gateway.dir().join("terminal.py");
    std::fs::write(&script, include_str!("terminal.py")).unwrap();
    let output = std::process::Command::new("python3")
        .arg(script)
        .current_dir(stage.gateway.dir())
        .args([binary(), stage.gateway.setup().config()])
        .output()
        .unwrap();
    assert_eq!(text(&output.stdout), "ok\n", "{output:?}");
}
