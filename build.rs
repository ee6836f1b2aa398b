//! Tells the binary which commit and target it was built from, for `--version`, and builds the shim
//! that `run` preloads where it cannot supervise.

use std::path::Path;
use std::process::Command;

fn main() {
    let target = std::env::var("TARGET").unwrap_or_else(|_| "unknown".to_owned());
    println!("cargo::rustc-env=BUILD_TARGET={target}");
    println!("cargo::rustc-env=BUILD_COMMIT={}", commit());
    if Path::new(".git/HEAD").exists() {
        println!("cargo::rerun-if-changed=.git/HEAD");
    }
    println!("cargo::rerun-if-changed=build.rs");
    shim();
}

/// Builds `src/wrap/preload.c`; where there is no C compiler for the target the binary goes without.
fn shim() {
    println!("cargo::rustc-check-cfg=cfg(preload)");
    println!("cargo::rerun-if-changed=src/wrap/preload.c");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("linux") {
        return;
    }
    let Ok(compiler) = cc::Build::new().cargo_metadata(false).try_get_compiler() else { return };
    let out = std::env::var("OUT_DIR").unwrap_or_default();
    // Linked against nothing: it finds what it calls in the program, whatever its libc.
    let built = compiler
        .to_command()
        .args(["-O2", "-shared", "-fPIC", "-nostdlib", "-fno-stack-protector", "-o"])
        .arg(Path::new(&out).join("preload.so"))
        .arg("src/wrap/preload.c")
        .status();
    match built.is_ok_and(|status| status.success()) {
        true => println!("cargo::rustc-cfg=preload"),
        false => println!("cargo::warning=no C compiler: `tailrace run` goes without its shim"),
    }
}

/// The commit, or "unknown" where the sources came without git.
fn commit() -> String {
    let asked = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output();
    let text = asked.ok().filter(|done| done.status.success()).map(|done| done.stdout);
    let text = text.and_then(|text| String::from_utf8(text).ok()).unwrap_or_default();
    if text.trim().is_empty() { "unknown".to_owned() } else { text.trim().to_owned() }
}
