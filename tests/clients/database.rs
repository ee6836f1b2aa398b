//! Programs that know no proxy: psql and psycopg with PostgreSQL, redis-cli with Redis.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::case::{Case, Need};
use crate::clients::field::system;
use crate::clients::script::{Script, Way};
use crate::process::{Process, must, wait_for};
use crate::tailnet::Tailnet;

/// Of the user `ops`.
pub const PASSWORD: &str = "correct-horse";

pub fn cases() -> Vec<Case> {
    let case = Case::new;
    vec![
        // The server refuses to be root.
        case("program_postgresql", postgresql).needing(Need::AnotherUser),
        case("program_redis_cli", redis),
    ]
}

fn postgresql(tailnet: &Tailnet) {
    serve_postgresql(tailnet);
    let variables = "export PGHOST=db.corp.example PGUSER=ops PGDATABASE=ops PGSSLMODE=verify-full \
                     PGPASSFILE=$FIELD/.pgpass;";
    let query = "'select usename, ssl from pg_stat_ssl natural join pg_stat_activity where pid = pg_backend_pid()'";
    Script {
        program: "psql, verify-full",
        version: "psql --version | awk '{print $3}'",
        line: &format!("{variables} psql --no-psqlrc -qAt -c {query}"),
        expected: "ops|t\n",
        host: "db.corp.example",
    }
    .by(tailnet, &[Way::Run, Way::Forward]);
    let python = "$PROGRAMS/python/bin/python";
    Script {
        program: "Python psycopg, verify-full",
        version: &format!("{python} -c 'import psycopg; print(psycopg.__version__)'"),
        line: &format!("{variables} {python} $CLIENTS/programs/queried.py {query}"),
        expected: "ops\n",
        host: "db.corp.example",
    }
    .by(tailnet, &[Way::Run, Way::Forward]);
}

/// PostgreSQL from now on, and the client's password for it.
pub fn serve_postgresql(tailnet: &Tailnet) {
    let field = tailnet.clients();
    let passwords = field.path(".pgpass");
    // By the true name, whatever the address.
    fs::write(&passwords, format!("db.corp.example:5432:ops:ops:{PASSWORD}\n")).expect("pgpass");
    must("chmod", &["600", &passwords]);
    field.servers.postgresql.get_or_init(|| postgresql_server(tailnet));
}

/// A fresh cluster that takes TLS with a password only.
fn postgresql_server(tailnet: &Tailnet) -> Process {
    let field = tailnet.clients();
    let dir = tailnet.dir.path().join("postgres");
    fs::create_dir(&dir).expect("a folder");
    for file in ["cert.pem", "key.pem"] {
        fs::copy(field.dir.join(file), dir.join(file)).expect("the certificate");
    }
    fs::write(dir.join("password"), PASSWORD).expect("a file");
    let path = |name: &str| dir.join(name).to_string_lossy().into_owned();
    must("chmod", &["600", &path("key.pem"), &path("password")]);
    must("chown", &["-R", "65534:65534", &path("")]);
    let bin = newest();
    let nobody = |program: &str, words: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]);
        command.arg(bin.join(program)).args(words).current_dir(&dir);
        command
    };
    let (data, password) = (path("data"), path("password"));
    let new =
        ["-D", &data, "-U", "ops", "--pwfile", &password, "--no-sync", "--no-locale", "-E", "UTF8"];
    let made = nobody("initdb", &new).output().expect("initdb");
    assert!(made.status.success(), "{made:?}");
    fs::write(
        dir.join("data/pg_hba.conf"),
        "hostssl all all all scram-sha-256\nlocal all all trust\n",
    )
    .expect("pg_hba.conf");
    let (cert, key) = (
        format!("ssl_cert_file={}", path("cert.pem")),
        format!("ssl_key_file={}", path("key.pem")),
    );
    let place = path("");
    let settings = ["listen_addresses=127.0.0.1", "port=5432", "ssl=on", "fsync=off", &cert, &key];
    let settings = settings.iter().flat_map(|setting| ["-c", setting]);
    let words: Vec<&str> = ["-D", &data, "-k", &place].into_iter().chain(settings).collect();
    let mut command = nobody("postgres", &words);
    let log = tailnet.dir.path().join("postgres.log");
    let server = tailnet.world.enter(|| Process::start("postgres", &mut command, &log));
    let create = ["-h", &place, "-U", "ops", "-d", "postgres", "-qc", "create database ops"];
    wait_for("PostgreSQL", || {
        let made = nobody("psql", &create).output().expect("psql");
        made.status.success().then_some(())
    });
    server
}

/// Debian keeps the server's programs apart, by version.
fn newest() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL: tests/clients/install");
    let mut found: Vec<PathBuf> = versions.flatten().map(|it| it.path().join("bin")).collect();
    found.sort();
    found.into_iter().rfind(|bin| bin.join("initdb").is_file()).expect("initdb")
}

/// Redis from now on.
pub fn serve_redis(tailnet: &Tailnet) {
    tailnet.clients().servers.redis.get_or_init(|| redis_server(tailnet));
}

fn redis_server(tailnet: &Tailnet) -> Process {
    let dir = tailnet.dir.path();
    let mut command = Command::new(system("redis-server"));
    command.args([
        "--bind",
        "127.0.0.1",
        "--port",
        "6379",
        "--save",
        "",
        "--requirepass",
        PASSWORD,
    ]);
    command.arg("--dir").arg(dir);
    let log = dir.join("redis.log");
    let server = tailnet.world.enter(|| Process::start("redis-server", &mut command, &log));
    wait_for("Redis", || server.log().contains("Ready to accept").then_some(()));
    server
}

fn redis(tailnet: &Tailnet) {
    serve_redis(tailnet);
    Script {
        program: "redis-cli",
        version: "redis-cli --version | awk '{print $2}'",
        line: &format!(
            "export REDISCLI_AUTH={PASSWORD}; redis-cli -h cache.corp.example set greeting hello && \
             redis-cli -h cache.corp.example get greeting"
        ),
        expected: "OK\nhello\n",
        host: "cache.corp.example",
    }
    .by(tailnet, &[Way::Run]);
}
