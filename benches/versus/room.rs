//! A room of its own for each measurement: this program again, in fresh network and process
//! namespaces where they can be had.
//!
//! A fresh network namespace has no TIME_WAIT sockets of the target before: those who bind before
//! they connect run out of ports otherwise.

use std::process::{Command, Stdio};

use crate::measure::{Figures, Wanted};
use crate::targets::Target;

/// Where measurements happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    /// Fresh namespaces for each target.
    Fresh,
    /// This host's loopback.
    Shared,
}

const FRESH: [&str; 6] = ["--net", "--pid", "--fork", "--mount-proc", "--kill-child", "--"];
const LOOPBACK_UP: &str = "ip link set lo up && exec \"$@\"";

impl Room {
    /// The best there is here.
    pub(crate) fn find() -> Room {
        let mut command = Command::new("unshare");
        command.args(FRESH).args(["sh", "-c", LOOPBACK_UP, "sh", "true"]);
        let works = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
        if works.is_ok_and(|status| status.success()) { Room::Fresh } else { Room::Shared }
    }

    /// For the page.
    pub(crate) fn described(self) -> &'static str {
        match self {
            Room::Fresh => "each target in a fresh network namespace",
            Room::Shared => {
                "all targets on one loopback (no root, no namespaces: those who bind before they \
                 connect may suffer from earlier targets' TIME_WAIT sockets)"
            }
        }
    }

    /// Runs this program with those words inside; its standard output.
    fn run(self, words: &[&str]) -> Result<String, String> {
        let own = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut command = match self {
            Room::Fresh => {
                let mut unshare = Command::new("unshare");
                unshare.args(FRESH).args(["sh", "-c", LOOPBACK_UP, "sh"]).arg(own);
                unshare
            }
            Room::Shared => Command::new(own),
        };
        command.args(words).stdin(Stdio::null()).stderr(Stdio::inherit());
        let output = command.output().map_err(|error| error.to_string())?;
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => Err(format!("{} ended with {}", words.join(" "), output.status)),
        }
    }

    /// The figures it tells then; none when it failed, which is said.
    pub(crate) fn figures(self, words: &[&str]) -> Figures {
        let figures = self.run(words).and_then(|text| {
            serde_json::from_str(&text)
                .map_err(|error| format!("{}: {error} in {text:?}", words.join(" ")))
        });
        figures.unwrap_or_else(|why| {
            eprintln!("  {why}");
            Figures::new()
        })
    }

    /// One round of one target.
    pub(crate) fn measure(self, target: Target, wanted: Wanted) -> Figures {
        let wanted = match wanted {
            Wanted::All => "all",
            Wanted::Beside => "beside",
        };
        self.figures(&["inside", target.id, wanted])
    }
}

/// Raises this process's own descriptor limit as far as it goes: it holds both ends of thousands.
pub(crate) fn raise_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let most = getrlimit(Resource::Nofile).maximum;
    let _lowered_at_worst = setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most });
}
