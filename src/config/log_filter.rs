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

/// What this crate's own events are named by.
const OURS: &str = "tailrace";
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
    let nearest = words.iter().min_by_key(|known| strsim::damerau_levenshtein(word, known));
    format!(
        "wants one of {}, or directives such as info,tailrace::dns=debug, not {}: did you mean {}?",
        words.join(", "),
        quoted(text),
        nearest.unwrap_or(&"")
    )
}

impl LogFilter {
    /// Reads a level or directives. Where no directive gives all modules a level, that is `info`.
    ///
    /// # Errors
    /// [`BadFilter`], naming the first directive that is none.
    pub fn parse(text: &str) -> Result<Self, BadFilter> {
        let (mut own, mut modules) = (None, Vec::new());
        for directive in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            match directive.split_once('=') {
                Some((module, level)) => {
                    modules.push((named(module, directive)?, leveled(level, directive)?));
                }
                // A module alone is all of it; a level that is mistyped is no module.
                None if directive.starts_with(OURS) || directive.contains("::") => {
                    modules.push((named(directive, directive)?, LevelFilter::TRACE));
                }
                None if own.is_some() => {
                    return Err(BadFilter::TwoLevels { text: directive.to_owned() });
                }
                None => own = Some(leveled(directive, directive)?),
            }
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

fn leveled(word: &str, directive: &str) -> Result<LevelFilter, BadFilter> {
    let known = LEVELS.iter().find(|(known, _)| known.eq_ignore_ascii_case(word.trim()));
    let bad = || BadFilter::Level { text: directive.to_owned() };
    known.map(|(_, level)| *level).ok_or_else(bad)
}

/// A path of Rust modules; spans and fields (`[connection{id=1}]`) are not filtered by.
fn named(module: &str, directive: &str) -> Result<String, BadFilter> {
    let module = module.trim();
    let is_part = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    match module.split("::").all(is_part) {
        true => Ok(module.to_owned()),
        false => Err(BadFilter::Module { text: directive.to_owned() }),
    }
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
            ("", "did you mean"),
            (" , ", "did you mean"),
        ] {
            let why = LogFilter::parse(text).unwrap_err().to_string();
            assert!(why.contains(words), "{text}: {why}");
        }
    }
}
