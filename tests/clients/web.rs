//! Programs that speak HTTPS: curl, Go, Python, Node, Java, git and grpcurl.

use std::path::Path;

use crate::case::Case;
use crate::clients::Field;
use crate::clients::script::{Script, Way};
use crate::process::must;
use crate::tailnet::Tailnet;

const BOTH: [Way; 2] = [Way::Proxy, Way::Run];

pub fn cases() -> Vec<Case> {
    let case = Case::new;
    vec![
        case("program_curl", curl),
        case("program_go_static", go),
        case("program_python", python),
        case("program_node", node),
        case("program_java", java),
        case("program_git_over_https", git),
        case("program_grpcurl", grpcurl),
    ]
}

fn hello(tailnet: &Tailnet, program: &str, version: &str, line: &str) {
    let expected = "hello to web.corp.example\n";
    Script { program, version, line, expected, host: "web.corp.example" }.by(tailnet, &BOTH);
}

fn curl(tailnet: &Tailnet) {
    let version = "curl --version | awk 'NR == 1 {print $2}'";
    hello(tailnet, "curl", version, "curl -sSf https://web.corp.example/hello");
}

fn go(tailnet: &Tailnet) {
    let version =
        "strings -n 8 $PROGRAMS/bin/fetch | sed -n 's/^go\\(1[.0-9]*\\)$/\\1/p' | head -n 1";
    hello(tailnet, "Go net/http, static", version, "fetch https://web.corp.example/hello");
}

fn python(tailnet: &Tailnet) {
    for library in ["requests", "httpx"] {
        let version = format!(
            "$PROGRAMS/python/bin/python -c 'import {library}; print({library}.__version__)'"
        );
        let line = format!(
            "$PROGRAMS/python/bin/python $CLIENTS/programs/requested.py {library} \
             https://web.corp.example/hello"
        );
        hello(tailnet, &format!("Python {library}"), &version, &line);
    }
}

fn node(tailnet: &Tailnet) {
    let node = "$PROGRAMS/../node24/node_modules/node/bin/node";
    let line = format!("{node} $CLIENTS/programs/fetched.mjs https://web.corp.example/hello");
    hello(tailnet, "Node fetch", &format!("{node} --version | tr -d v"), &line);
}

/// Java's program, compiled, and a trust store as Java wants it.
pub fn prepare_java(field: &Field) {
    let source = super::field::source().join("programs/Sent.java");
    must("javac", &["-d", &field.path("java"), &source.to_string_lossy()]);
    let (ca, store) = (field.path("ca.pem"), field.path("ca.p12"));
    if Path::new(&store).exists() {
        return;
    }
    let import = ["-importcert", "-noprompt", "-file", &ca, "-keystore", &store];
    must("keytool", &[&import[..], &["-storetype", "PKCS12", "-storepass", "changeit"]].concat());
}

fn java(tailnet: &Tailnet) {
    prepare_java(tailnet.clients());
    let line = "java -Djavax.net.ssl.trustStore=$FIELD/ca.p12 \
                -Djavax.net.ssl.trustStorePassword=changeit -cp $FIELD/java Sent \
                https://web.corp.example/hello";
    let version = "java -version 2>&1 | sed -n 's/.*version \"\\(.*\\)\".*/\\1/p'";
    hello(tailnet, "Java HttpClient", version, line);
}

/// There and back: a clone is read, and a branch is pushed and seen by the next question.
pub fn git_line(url: &str) -> String {
    format!(
        "git clone --quiet {url} repo && cd repo && git push --quiet origin HEAD:refs/heads/$$ && \
         git ls-remote --exit-code {url} refs/heads/$$ >&2 && cat hello"
    )
}

pub const GIT_VERSION: &str = "git --version | awk '{print $3}'";

fn git(tailnet: &Tailnet) {
    Script {
        program: "git over https: clone, push",
        version: GIT_VERSION,
        line: &git_line("https://web.corp.example/git/repo.git"),
        expected: "hello from the repository\n",
        host: "web.corp.example",
    }
    .by(tailnet, &BOTH);
}

fn grpcurl(tailnet: &Tailnet) {
    Script {
        program: "grpcurl",
        version: "sed -n 's/^\\tgithub.com.fullstorydev.grpcurl v\\([^ ]*\\).*/\\1/p' $CLIENTS/go/go.mod",
        line: "grpcurl -cacert $FIELD/ca.pem rpc.corp.example:50051 grpc.health.v1.Health/Check",
        expected: "{\n  \"status\": \"SERVING\"\n}\n",
        host: "rpc.corp.example",
    }
    .by(tailnet, &BOTH);
}
