//! gh with a stand-in for a GitHub server, and temporal with its own development server.

use std::process::Command;

use crate::case::Case;
use crate::clients::field::{FURTHER, further};
use crate::clients::script::{Script, Way};
use crate::process::{Process, wait_for};
use crate::tailnet::Tailnet;

const BOTH: [Way; 2] = [Way::Proxy, Way::Run];

/// These run where their programs were built. `TAILRACE_MORE=1` asks for them: a missing one then fails.
pub fn cases() -> Vec<Case> {
    let cases = [Case::new("program_gh", gh), Case::new("program_temporal", temporal)];
    let asked = std::env::var("TAILRACE_MORE").as_deref() == Ok("1");
    let offered = |program: &str| asked || further(program).is_some();
    FURTHER.into_iter().zip(cases).filter(|(it, _)| offered(it)).map(|(_, case)| case).collect()
}

/// What the stand-in has to say to both lines of gh's.
pub const GH_SAYS: &str = "ops/repo\n7\tMend the pump\tmend\tOPEN\t2026-01-02T03:04:05Z\n";
/// What the development server has to say: it serves, and has one namespace by default.
pub const TEMPORAL_SAYS: &str = "SERVING\n\"default\"\n";

fn gh(tailnet: &Tailnet) {
    Script {
        program: "gh api, gh pr list",
        version: "gh --version | awk 'NR == 1 {print $3}'",
        line: "export GH_HOST=hub.corp.example GH_ENTERPRISE_TOKEN=none; \
               gh api repos/ops/repo --jq .full_name && gh pr list --repo ops/repo",
        expected: GH_SAYS,
        host: "hub.corp.example",
    }
    .by(tailnet, &BOTH);
}

fn temporal(tailnet: &Tailnet) {
    serve_temporal(tailnet);
    Script {
        program: "temporal: health, namespace, workflows",
        version: "temporal --version | awk '{print $3}'",
        line: "export TEMPORAL_ADDRESS=temporal.corp.example:7233; \
               temporal operator cluster health && \
               temporal operator namespace describe default -o json | \
               sed -n 's/^ *\"name\": \\(.*\\),$/\\1/p' && temporal workflow list >&2",
        expected: TEMPORAL_SAYS,
        host: "temporal.corp.example",
    }
    .by(tailnet, &BOTH);
}

/// Temporal's development server from now on.
pub fn serve_temporal(tailnet: &Tailnet) {
    tailnet.clients().servers.temporal.get_or_init(|| {
        let field = tailnet.clients();
        let folder = further("temporal").expect("temporal: run tests/clients/install --more");
        let mut command = Command::new(folder.join("temporal"));
        command.args(["server", "start-dev", "--headless", "--ip", "127.0.0.1", "--port", "7233"]);
        command.env("HOME", &field.dir);
        let log = field.dir.join("temporal.log");
        let server = tailnet.world.enter(|| Process::start("temporal", &mut command, &log));
        let mut health = Command::new(folder.join("temporal"));
        health.args(["operator", "cluster", "health"]).env("HOME", &field.dir);
        wait_for("temporal's server", || {
            let output = tailnet.world.enter(|| health.output()).expect("temporal");
            output.status.success().then_some(())
        });
        server
    });
}
