//! A network namespace, and doing things in it from this process.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::process::{Child, Command, Stdio};
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::process::{must, wait_for};

/// One namespace, kept by a process that does nothing until this value is dropped.
pub struct Namespace {
    holder: Child,
    net: File,
}

impl Namespace {
    pub fn new() -> Namespace {
        let holder = Command::new("unshare")
            .args(["--net", "--", "sleep", "infinity"])
            .stdin(Stdio::null())
            .spawn()
            .expect("unshare");
        let path = format!("/proc/{}/ns/net", holder.id());
        let own = std::fs::read_link("/proc/self/ns/net").expect("own namespace");
        wait_for("a network namespace", || {
            std::fs::read_link(&path).ok().filter(|theirs| *theirs != own)
        });
        let net = File::open(&path).expect("the namespace's file");
        let namespace = Namespace { holder, net };
        namespace.must("ip", &["link", "set", "lo", "up"]);
        namespace
    }

    /// The process id `ip link set … netns` understands.
    pub fn pid(&self) -> String {
        self.holder.id().to_string()
    }

    /// Does `work` on a thread in this namespace; threads and processes it starts stay there.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            move_into_link_name_space(self.net.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("setns");
            work()
        };
        match thread::scope(|scope| scope.spawn(inside).join()) {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Runs a command here that has to succeed; its standard output.
    pub fn must(&self, program: &str, arguments: &[&str]) -> String {
        self.enter(|| must(program, arguments))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
