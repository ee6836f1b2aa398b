//! The other proxies: where `benches/peers/install` put them, and how each is started.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::limited;

/// Where they are, relative to the folder of the cache.
fn place(name: &str) -> &'static str {
    match name {
        "haproxy" => "root/usr/sbin/haproxy",
        "dante" => "root/usr/sbin/danted",
        "tinyproxy" => "root/usr/bin/tinyproxy",
        "privoxy" => "root/usr/sbin/privoxy",
        "sing-box" => "bin/sing-box",
        "xray" => "bin/xray",
        _ => "bin/sthp",
    }
}

fn sources() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("benches/peers")
}

fn cache() -> Option<PathBuf> {
    let told = Command::new(sources().join("install")).arg("--where").output().ok()?;
    Some(PathBuf::from(String::from_utf8_lossy(&told.stdout).trim()))
}

/// The program, if it is installed.
pub(crate) fn binary(name: &str) -> Option<PathBuf> {
    cache().map(|cache| cache.join(place(name))).filter(|path| path.exists())
}

/// The command that runs it in the foreground, listening on `port`, with `far` as its upstream.
pub(crate) fn command(name: &str, folder: &Path, port: u16, far: u16) -> std::io::Result<Command> {
    let binary = binary(name).ok_or(std::io::ErrorKind::NotFound)?;
    let mut command = limited(binary);
    let root = cache().unwrap_or_default().join("root");
    let folders = ["usr/lib", "lib"].map(|lib| root.join(lib));
    let libraries = folders.iter().map(|lib| {
        let lib = lib.display();
        format!("{lib}/x86_64-linux-gnu:{lib}/aarch64-linux-gnu")
    });
    let libraries = libraries.collect::<Vec<_>>().join(":");
    command.env_clear().env("LD_LIBRARY_PATH", libraries).current_dir(folder);
    let written = |file: &str| {
        let text = std::fs::read_to_string(sources().join(file))?;
        let text = text.replace("@PORT@", &port.to_string()).replace("@FAR@", &far.to_string());
        std::fs::write(folder.join(file), text)
    };
    match name {
        "haproxy" => {
            written("haproxy.cfg")?;
            command.args(["-db", "-f", "haproxy.cfg"]);
        }
        "dante" => {
            written("danted.conf")?;
            command.args(["-f", "danted.conf", "-p", "danted.pid"]);
        }
        "tinyproxy" => {
            written("tinyproxy.conf")?;
            command.args(["-d", "-c", "tinyproxy.conf"]);
        }
        "privoxy" => {
            written("privoxy.conf")?;
            command.args(["--no-daemon", "privoxy.conf"]);
        }
        "sing-box" => {
            written("sing-box.json")?;
            command.args(["run", "-c", "sing-box.json"]);
        }
        "xray" => {
            written("xray.json")?;
            command.args(["run", "-c", "xray.json"]);
        }
        _ => {
            command.arg("-p").arg(port.to_string());
            command.arg("-s").arg(format!("127.0.0.1:{far}"));
        }
    }
    Ok(command)
}
