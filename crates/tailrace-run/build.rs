//! Builds the library that `run` preloads where it cannot supervise.

use std::path::Path;

/// The library's source.
const SOURCE: &str = "src/preload.c";

/// Where there is no C compiler for the target the program goes without.
fn main() {
    println!("cargo::rustc-check-cfg=cfg(preload)");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={SOURCE}");
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
        .arg(SOURCE)
        .status();
    match built.is_ok_and(|status| status.success()) {
        true => println!("cargo::rustc-cfg=preload"),
        false => println!("cargo::warning=no C compiler: `tailrace run` goes without its library"),
    }
}
