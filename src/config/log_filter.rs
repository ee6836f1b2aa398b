//! `log.level`: one level, or directives that give modules levels of their own.
//!
//! The syntax is that of tracing's `EnvFilter` as far as it speaks of levels and modules: `info`,
//! `info,tailrace::dns=debug`, `off`. Filters by span and field are refused, not ignored.
#![forbid(unsafe_code)]

use std::fmt;

use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;

use super::config_problem::quoted;
use super::nearest_word::{nearest_word, suggestion};

/// What this crate's own events are named by.
const OURS: &str = "tailrace";
/// The crates of this project that a program is made of.
const CRATES: [&str; 3] = [OURS, "tailrace_run", "tailrace_sys"];
/// The modules of `src/lib.rs`, one of which follows `tailrace::`.
const MODULES: [&str; 23] = [
    "admin",
    "api",
    "cli",
    "config",
    "connection",
    "dns",
    "expiring_cache",
    "gateway",
    "http_client",
    "inbound",
    "labels",
    "lifecycle",
    "listener",
    "localapi",
    "outcome",
    "policy",
    "record",
    "relay",
    "secret",
    "tailnet",
    "target",
    "tls_client",
    "upstream",
];
/// How much of libraries is written unless a directive names them.
const LIBRARIES: LevelFilter = LevelFilter::WARN;
/// The words for a level.
const LEVELS: [(&str, LevelFilter); 6] = [
    ("error", LevelFilter::ERROR),
    ("warn", LevelFilter::WARN),
    ("info", LevelFilter::INFO),
    ("debug", LevelFilter::DEBUG),
    ("trace", LevelFilter::TRACE),
    ("off", LevelFilter::OFF),
];

/// What is written: which levels of which modules.
#[derive(Debug, Clone, PartialEq)]
pub struct LogFilter {
    targets: Targets,
    /// The level of access lines, and of every module of ours that no directive names.
    own: LevelFilter,
}

/// Why a text is no filter. The text is shown bounded and escaped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadFilter {
    /// Neither a level nor a module.
    #[error("{}", wants(.text))]
    Level {
        /// The directive as it was written, or the whole text when it holds none.
        text: String,
    },
    /// A module without a usable name.
    #[error("wants a module before the = such as tailrace::dns=debug, not {}", quoted(.text))]
    Module {
        /// The directive it stands in, with the level after the `=` where there is one.
        text: String,
    },
    /// A level where a module goes: `info=debug`.
    #[error(
        "has a level before the = of {}: write one level alone, or a module such as tailrace::dns=debug",
        quoted(.text)
    )]
    LevelAsModule {
        /// The directive it stands in.
        text: String,
    },
    /// A module that reads as one of ours, and which we do not have: it would never write anything.
    #[error("names no module of Tailrace by {}: {help}", quoted(.text))]
    UnknownModule {
        /// The directive it stands in.
        text: String,
        /// What was meant, or what there is.
        help: String,
    },
    /// Two levels for one module.
    #[error("gives one module two levels, the second one by {}: leave one out", quoted(.text))]
    ModuleTwice {
        /// The second of the two directives.
        text: String,
    },
    /// Two levels for everything.
    #[error("gives two levels for all modules, the second one {}: leave one out", quoted(.text))]
    TwoLevels {
        /// The second of the two levels, as it was written.
        text: String,
    },
}

fn wants(text: &str) -> String {
    let word = text.rsplit('=').next().unwrap_or_default();
    let words = LEVELS.map(|(word, _)| word);
    format!(
        "wants one of {}, or directives such as info,tailrace::dns=debug, not {}{}",
        words.join(", "),
        quoted(text),
        suggestion(word, &words)
    )
}

impl LogFilter {
    /// Reads a level or directives. Where no directive gives all modules a level, that is `info`.
    ///
    /// # Errors
    /// [`BadFilter`], naming the first directive that is none.
    pub fn parse(text: &str) -> Result<Self, BadFilter> {
        let mut own = None;
        let mut modules: Vec<(String, LevelFilter)> = Vec::new();
        for directive in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (module, level) = match directive.split_once('=') {
                Some((module, level)) => (named(module, directive)?, leveled(level, directive)?),
                // A module alone is all of it; a level that is mistyped is no module.
                None if directive.starts_with(OURS) || directive.contains("::") => {
                    (named(directive, directive)?, LevelFilter::TRACE)
                }
                None if own.is_some() => {
                    return Err(BadFilter::TwoLevels { text: directive.to_owned() });
                }
                None => {
                    own = Some(leveled(directive, directive)?);
                    continue;
                }
            };
            if modules.iter().any(|(earlier, _)| *earlier == module) {
                return Err(BadFilter::ModuleTwice { text: directive.to_owned() });
            }
            modules.push((module, level));
        }
        if own.is_none() && modules.is_empty() {
            return Err(BadFilter::Level { text: text.to_owned() });
        }
        Ok(Self::of(own.unwrap_or(LevelFilter::INFO), modules))
    }

    fn of(own: LevelFilter, modules: Vec<(String, LevelFilter)>) -> Self {
        let targets = Targets::new().with_default(own.min(LIBRARIES)).with_target(OURS, own);
        Self { targets: targets.with_targets(modules), own }
    }

    /// Whether access lines of this level are written.
    pub fn writes_access(&self, level: Level) -> bool {
        level <= self.own
    }

    /// Whether events or spans of this module are written.
    pub fn is_enabled(&self, target: &str, level: Level) -> bool {
        self.targets.would_enable(target, &level)
    }

    /// The most that any module writes.
    pub fn most(&self) -> LevelFilter {
        let modules = self.targets.iter().map(|(_, level)| level);
        modules.chain(self.targets.default_level()).max().unwrap_or(LevelFilter::OFF)
    }
}

impl Default for LogFilter {
    fn default() -> Self {
        Self::of(LevelFilter::INFO, Vec::new())
    }
}

impl From<Level> for LogFilter {
    fn from(level: Level) -> Self {
        Self::of(level.into(), Vec::new())
    }
}

impl fmt::Display for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.targets.fmt(f)
    }
}

fn level_of(word: &str) -> Option<LevelFilter> {
    let known = LEVELS.iter().find(|(known, _)| known.eq_ignore_ascii_case(word.trim()));
    known.map(|(_, level)| *level)
}

fn leveled(word: &str, directive: &str) -> Result<LevelFilter, BadFilter> {
    level_of(word).ok_or_else(|| BadFilter::Level { text: directive.to_owned() })
}

/// A path of Rust modules; spans and fields (`[connection{id=1}]`) are not filtered by.
fn named(module: &str, directive: &str) -> Result<String, BadFilter> {
    let (module, text) = (module.trim(), directive.to_owned());
    if level_of(module).is_some() {
        return Err(BadFilter::LevelAsModule { text });
    }
    let is_part = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    if !module.split("::").all(is_part) {
        return Err(BadFilter::Module { text });
    }
    match unknown_module_help(module) {
        Some(help) => Err(BadFilter::UnknownModule { text, help }),
        None => Ok(module.to_owned()),
    }
}

/// What to write in place of a path that reads as one of ours and is none. Of libraries, which come and go, nothing is
/// known, and of our modules only the first level, which is where slips are.
fn unknown_module_help(path: &str) -> Option<String> {
    let mut parts = path.split("::");
    let (first, second) = (parts.next().unwrap_or_default(), parts.next());
    let meant = nearest_word(first, &CRATES);
    if !CRATES.contains(&first) {
        let reads_as_ours = meant.is_some() || first.to_ascii_lowercase().starts_with(OURS);
        return reads_as_ours.then(|| match meant {
            Some(meant) => format!("did you mean {meant}?"),
            None => format!("it begins with one of {}", CRATES.join(", ")),
        });
    }
    let unknown = second.filter(|second| first == OURS && !MODULES.contains(second))?;
    Some(match nearest_word(unknown, &MODULES) {
        Some(meant) => format!("did you mean {OURS}::{meant}?"),
        None => format!("after {OURS}:: comes one of {}", MODULES.join(", ")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enabled(text: &str, target: &str) -> Option<Level> {
        let filter = LogFilter::parse(text).unwrap();
        let levels = [Level::TRACE, Level::DEBUG, Level::INFO, Level::WARN, Level::ERROR];
        levels.into_iter().find(|level| filter.is_enabled(target, *level))
    }

    #[test]
    fn one_level_is_ours_and_libraries_say_what_is_wrong() {
        assert_eq!(enabled("debug", "tailrace::dns"), Some(Level::DEBUG));
        assert_eq!(enabled("Trace", "hyper::client"), Some(Level::WARN));
        assert_eq!(enabled("error", "hyper::client"), Some(Level::ERROR));
        assert_eq!(enabled("off", "tailrace"), None);
        let filter = LogFilter::parse("warn").unwrap();
        assert!(filter.writes_access(Level::WARN) && !filter.writes_access(Level::INFO));
        assert_eq!(filter, LogFilter::from(Level::WARN));
    }

    #[test]
    fn a_directive_holds_for_its_module_and_those_below() {
        let text = "info, tailrace::dns=debug,tailrace::dns::cache=off ,hyper=trace";
        assert_eq!(enabled(text, "tailrace::connection"), Some(Level::INFO));
        assert_eq!(enabled(text, "tailrace::dns::routes"), Some(Level::DEBUG));
        assert_eq!(enabled(text, "tailrace::dns::cache"), None);
        assert_eq!(enabled(text, "hyper::client"), Some(Level::TRACE));
        assert_eq!(enabled(text, "rustls"), Some(Level::WARN));
        assert_eq!(LogFilter::parse(text).unwrap().most(), LevelFilter::TRACE);
        assert_eq!(enabled("tailrace::dns=debug", "tailrace::connection"), Some(Level::INFO));
        assert_eq!(enabled("warn,tailrace::dns", "tailrace::dns"), Some(Level::TRACE));
    }

    #[test]
    fn f3_what_is_no_filter_is_named_with_what_to_write() {
        for (text, words) in [
            ("verbose", "wants one of error, warn, info, debug, trace, off, or directives"),
            ("inof", "not \"inof\": did you mean info?"),
            ("info,tailrace::dns=debgu", "not \"tailrace::dns=debgu\": did you mean debug?"),
            ("info,warn", "gives two levels for all modules, the second one \"warn\""),
            ("=debug", "wants a module before the ="),
            ("tailrace[connection{id=1}]=debug", "wants a module before the ="),
            ("tailrace::dns[ask]=debug", "wants a module before the ="),
            ("", "not \"\""),
            (" , ", "not \" , \""),
            ("info=debug", "has a level before the = of \"info=debug\""),
            ("warn, OFF =debug", "has a level before the = of \"OFF =debug\""),
            ("hyper=info,hyper=off", "one module two levels, the second one by \"hyper=off\""),
            ("tailrace::dns=debug,tailrace::dns=off", "one module two levels"),
            ("tailrace::dns, tailrace::dns=off", "by \"tailrace::dns=off\": leave one out"),
            ("tailracex=debug", "by \"tailracex=debug\": did you mean tailrace?"),
            ("tailracex", "did you mean tailrace?"),
            ("Tailrace::dns=debug", "did you mean tailrace?"),
            ("tialrace=debug", "did you mean tailrace?"),
            ("tailrace_sis=debug", "did you mean tailrace_sys?"),
            ("tailrace_gateway=debug", "begins with one of tailrace, tailrace_run, tailrace_sys"),
            ("info,tailrace::dsn=debug", "by \"tailrace::dsn=debug\": did you mean tailrace::dns?"),
            ("tailrace::conection::decision", "did you mean tailrace::connection?"),
            ("tailrace::nosuch=debug", "after tailrace:: comes one of admin, api, "),
        ] {
            let why = LogFilter::parse(text).unwrap_err().to_string();
            assert!(why.contains(words), "{text}: {why}");
        }
    }

    #[test]
    fn a_level_far_from_what_was_written_is_not_suggested() {
        for text in ["loud", "on", "0", "5", ",", "", "verbose", "tailrace::dns=", "hyper=on"] {
            let why = LogFilter::parse(text).unwrap_err().to_string();
            assert!(why.contains("wants one of") && !why.contains("did you mean"), "{text}: {why}");
        }
    }

    #[test]
    fn libraries_and_all_below_our_modules_may_be_named() {
        for text in [
            "hyper=debug,rustls=warn,hickory_net::udp=trace,tail=info",
            "tailrace=debug,tailrace_sys::limits=debug,tailrace_run=off",
            "tailrace::connection::decision=debug,tailrace::dns::anything",
        ] {
            assert!(LogFilter::parse(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn the_modules_are_those_of_the_crate() {
        let lines = include_str!("../lib.rs").lines();
        let module = |line: &'static str| {
            let rest = line.strip_prefix("pub(crate) ").or_else(|| line.strip_prefix("pub "));
            rest.unwrap_or(line).strip_prefix("mod ")?.strip_suffix(';')
        };
        assert_eq!(lines.filter_map(module).collect::<Vec<_>>(), MODULES);
    }
}
