//! The fake tailscaled as a program, which a gateway under test starts in the place of the real one.
//!
//! It is an example of the package `tailrace`, not a program of the rig's: cargo builds a package's examples with
//! its tests, but never the programs of a library that tests use.
#![forbid(unsafe_code)]

fn main() {
    tailrace_rig::fake::main();
}
