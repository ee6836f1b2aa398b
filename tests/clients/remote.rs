//! ssh, scp, sftp, and git over ssh, with sshd.

use std::fs;
use std::process::Command;

use crate::case::{Case, Need};
use crate::clients::field::system;
use crate::clients::script::{Script, Way};
use crate::clients::web::{GIT_VERSION, git_line};
use crate::process::{Process, must, wait_for};
use crate::tailnet::Tailnet;

const VERSION: &str = "ssh -V 2>&1 | sed 's/^OpenSSH_\\([^ ,]*\\).*/\\1/'";
/// As scripts write it; without the variable, nothing.
const PROXY: &str =
    r#"${TAILRACE_SSH_PROXY_COMMAND:+-o "ProxyCommand=$TAILRACE_SSH_PROXY_COMMAND"}"#;

pub fn cases() -> Vec<Case> {
    // sshd becomes another user before it believes one.
    vec![Case::new("program_ssh", ssh).needing(Need::AnotherUser)]
}

fn ssh(tailnet: &Tailnet) {
    serve(tailnet);
    let lines = [
        ("ssh", format!("ssh -F $FIELD/ssh_config {PROXY} host.corp.example cat $FIELD/greeting")),
        (
            "scp",
            format!(
                "scp -q -F $FIELD/ssh_config {PROXY} host.corp.example:$FIELD/greeting got && \
                 scp -q -F $FIELD/ssh_config {PROXY} got host.corp.example:$FIELD/sent && \
                 cat $FIELD/sent && rm $FIELD/sent"
            ),
        ),
        (
            "sftp",
            format!(
                "echo \"get $FIELD/greeting got\" | \
                 sftp -q -b - -F $FIELD/ssh_config {PROXY} host.corp.example >&2 && cat got"
            ),
        ),
    ];
    for (program, line) in lines {
        let (line, expected) = (line.as_str(), "hello from afar\n");
        let host = "host.corp.example";
        Script { program, version: VERSION, line, expected, host }
            .by(tailnet, &[Way::Connect, Way::Run]);
    }
    let setting = "export GIT_SSH_COMMAND=\"${GIT_SSH_COMMAND:-ssh} -F $FIELD/ssh_config\";";
    Script {
        program: "git over ssh: clone, push",
        version: GIT_VERSION,
        line: &format!("{setting} {}", git_line("ssh://git.corp.example$FIELD/git/repo.git")),
        expected: "hello from the repository\n",
        host: "git.corp.example",
    }
    .by(tailnet, &[Way::Connect, Way::Run]);
}

/// sshd from now on.
pub fn serve(tailnet: &Tailnet) {
    tailnet.clients().servers.sshd.get_or_init(|| sshd(tailnet));
}

/// An sshd with fresh keys, and a client's settings that go with it.
fn sshd(tailnet: &Tailnet) -> Process {
    let field = tailnet.clients();
    let path = |name: &str| field.path(name);
    for key in ["host_key", "id"] {
        must("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", &path(key)]);
    }
    fs::write(path("greeting"), "hello from afar\n").expect("a file");
    let public = fs::read_to_string(path("host_key.pub")).expect("a key");
    fs::write(path("known_hosts"), format!("host.corp.example,git.corp.example {public}"))
        .expect("known_hosts");
    let client = format!(
        "User root\nIdentityFile {}\nIdentitiesOnly yes\nUserKnownHostsFile {}\nBatchMode yes\n\
         StrictHostKeyChecking yes\n",
        path("id"),
        path("known_hosts")
    );
    fs::write(path("ssh_config"), client).expect("ssh_config");
    let server = format!(
        "ListenAddress 127.0.0.1:22\nHostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\n\
         PermitRootLogin prohibit-password\nPidFile none\nSubsystem sftp internal-sftp\n",
        path("host_key"),
        path("id.pub")
    );
    fs::write(path("sshd_config"), server).expect("sshd_config");
    fs::create_dir_all("/run/sshd").expect("/run/sshd, which sshd asks for");
    let mut command = Command::new(system("sshd"));
    command.args(["-D", "-e", "-f", &path("sshd_config")]);
    let log = field.dir.join("sshd.log");
    let server = tailnet.world.enter(|| Process::start("sshd", &mut command, &log));
    wait_for("sshd", || server.log().contains("Server listening").then_some(()));
    server
}
