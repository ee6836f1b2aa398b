//! `tailrace up -- sh script`: every program of the list, in a script that knows of no proxy.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use serde_json::Value;

use crate::case::{Case, Need};
use crate::clients::field::{FURTHER, Field, further, source};
use crate::clients::further::{GH_SAYS, TEMPORAL_SAYS, serve_temporal};
use crate::clients::script::{Way, settings, with_hosts};
use crate::clients::table::{self, Row};
use crate::clients::{database, kube, remote, web};
use crate::gateway::Launch;
use crate::managed::Kind;
use crate::tailnet::Tailnet;

pub fn cases() -> Vec<Case> {
    vec![Case::new("program_all_in_a_script_of_up", script).needing(Need::AnotherUser)]
}

/// What one program of the script prints, and the host and inbound its connections are booked with.
struct Line {
    program: &'static str,
    way: Way,
    says: &'static str,
    host: &'static str,
    inbound: &'static str,
}

/// Seconds the whole script may take.
const LIMIT: &str = "240";

fn script(tailnet: &Tailnet) {
    let field = tailnet.clients();
    serve(tailnet, field);
    let launch = Kind::Tailscaled.launch(tailnet, "scripted");
    let folder = tempfile::tempdir_in(&field.dir).expect("a folder");
    let complaints = folder.path().join(".stderr");
    let mut command = prepared(tailnet, field, &launch, folder.path());
    command.stdin(Stdio::null()).stderr(fs::File::create(&complaints).expect("a file"));
    let output = tailnet.sandboxed.enter(|| command.output()).expect("unshare");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaints = fs::read_to_string(complaints).unwrap_or_default();
    let log = fs::read_to_string(launch.run_dir.join("tailrace.log")).unwrap_or_default();
    let evidence = || format!("{}\n{said}{complaints}{}", output.status, tail(&log));
    assert!(output.status.success(), "{}", evidence());
    let expected = lines();
    let whole: String = expected.iter().map(Line::section).collect();
    assert_eq!(said, whole, "{}", evidence());
    let access: Vec<Value> = log.lines().filter_map(|it| serde_json::from_str(it).ok()).collect();
    for line in expected {
        let booked = |it: &&Value| it["host"] == line.host && it["inbound"] == line.inbound;
        assert!(access.iter().any(|it| booked(&it)), "{}: {}", line.program, evidence());
        table::add(Row::new(line.program, None, line.way, None));
    }
}

/// Everything the script finds on the far side and beside it.
fn serve(tailnet: &Tailnet, field: &Field) {
    database::serve_postgresql(tailnet);
    database::serve_redis(tailnet);
    remote::serve(tailnet);
    kube::configure(field);
    web::prepare_java(field);
    if further("temporal").is_some() {
        serve_temporal(tailnet);
    }
}

/// `tailrace up -- sh everything.sh` with the settings of the launch and those of the programs.
fn prepared(
    tailnet: &Tailnet,
    field: &Field,
    launch: &Launch,
    folder: &Path,
) -> std::process::Command {
    // The shared gateway has 127.0.0.1, and libpq finds a line of .pgpass by the port it connects to.
    let file = field.path("scripted.toml");
    let forward = "[[forward]]\nlisten = \"127.0.0.2:5432\"\ntarget = \"db.corp.example:5432\"\n";
    fs::write(&file, forward).expect("settings");
    let both = field.path("both.pem");
    let pem = |path: &Path| fs::read_to_string(path).expect("a certificate");
    let authorities = pem(&tailnet.dir.path().join("ca.pem")) + &pem(&field.dir.join("ca.pem"));
    fs::write(&both, authorities).expect("a file");

    let up = launch.command(&[]);
    let program = Path::new(up.get_program());
    let mut command = with_hosts(field, "hosts-near", LIMIT);
    command.arg(program).args(["up", "--", "sh"]).arg(source().join("programs/everything.sh"));
    command.env_clear().envs(up.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.envs(settings(field));
    let path = settings(field).into_iter().find(|(name, _)| *name == "PATH").expect("PATH").1;
    let own = program.parent().expect("its folder");
    command.env("PATH", format!("{}:{path}", own.display()));
    command.env("TAILRACE_RUN_DIR", &launch.run_dir).env("TAILRACE_CONFIG", file);
    command.env("SSL_CERT_FILE", both); // tailscaled's authority is another one
    command.current_dir(folder);
    command
}

impl Line {
    /// As the script prints it.
    fn section(&self) -> String {
        let before = if self.way == Way::UpRun { "run " } else { "" };
        format!("== {before}{}\n{}", self.program, self.says)
    }
}

/// In the script's order.
fn lines() -> Vec<Line> {
    const HELLO: &str = "hello to web.corp.example\n";
    const REPOSITORY: &str = "hello from the repository\n";
    const AFAR: &str = "hello from afar\n";
    const SERVING: &str = "{\n  \"status\": \"SERVING\"\n}\n";
    const STREAM: &str = "line 1\nline 2\nline 3\n";
    let typed =
        |program, says, host| Line { program, way: Way::Up, says, host, inbound: "connect" };
    let forward = |program| Line { inbound: "forward", ..typed(program, "ops\n", DATABASE) };
    let run =
        |program, says, host| Line { program, way: Way::UpRun, says, host, inbound: "socks5" };
    const DATABASE: &str = "db.corp.example";
    let [web, kube, host] = ["web.corp.example", "kube.corp.example", "host.corp.example"];
    let mut all = vec![
        typed("curl", HELLO, web),
        typed("Go net/http, static", HELLO, web),
        typed("Python requests", HELLO, web),
        typed("Python httpx", HELLO, web),
        typed("Node fetch", HELLO, web),
        typed("Java HttpClient", HELLO, web),
        typed("git over https: clone, push", REPOSITORY, web),
        typed("git over ssh: clone, push", REPOSITORY, "git.corp.example"),
        typed("grpcurl", SERVING, "rpc.corp.example"),
        typed("kubectl get", "pod/web-0\n", kube),
        typed("kubectl logs -f", STREAM, kube),
        typed("kubectl exec -i", "there and back\n", kube),
        typed("kubectl port-forward", HELLO, kube),
        forward("psql, verify-full"),
        forward("Python psycopg, verify-full"),
        run("psql, verify-full", "ops\n", DATABASE),
        run("Python psycopg, verify-full", "ops\n", DATABASE),
        run("redis-cli", "OK\nhello\n", "cache.corp.example"),
        run("ssh", AFAR, host),
        run("scp", AFAR, host),
        run("sftp", AFAR, host),
    ];
    let hub = typed("gh api, gh pr list", GH_SAYS, "hub.corp.example");
    let named = "temporal: health, namespace, workflows";
    let temporal = typed(named, TEMPORAL_SAYS, "temporal.corp.example");
    let there = FURTHER.into_iter().zip([hub, temporal]);
    all.extend(there.filter(|(program, _)| further(program).is_some()).map(|(_, line)| line));
    all
}

/// The end of the gateway's log.
fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(25)..].join("\n")
}
