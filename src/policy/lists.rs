//! The allow-lists compiled for look-up: suffixes by hash, globs and networks in order.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::net::IpAddr;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use ipnet::IpNet;

use super::suffix::Suffix;
use crate::target::{Name, embedded_v4};

/// Why rules do not compile.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// A glob that is none.
    #[error("allowed_hosts {glob:?} is no glob: {source}")]
    Glob {
        /// The glob as written.
        glob: String,
        /// What is wrong with it.
        source: globset::Error,
    },
}

/// Which names below and at a suffix are allowed: the suffixes as a map from name to "apex too".
#[derive(Debug, Default)]
pub(super) struct Suffixes(HashMap<Box<str>, bool>);

impl Suffixes {
    pub(super) fn new(list: Vec<Suffix>) -> Self {
        let mut map = HashMap::with_capacity(list.len());
        for suffix in list {
            // Written both ways, the wider one holds.
            *map.entry(suffix.name.as_str().into()).or_default() |= suffix.apex;
        }
        Self(map)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The suffix that allows `name`, as text. One look-up per label, nothing allocated on a miss.
    pub(super) fn allowing_suffix(&self, name: &Name) -> Option<String> {
        let whole = name.as_str();
        if let Some((suffix, true)) = self.0.get_key_value(whole) {
            return Some(format!("suffix {suffix}"));
        }
        let starts = whole.match_indices('.').map(|(dot, _)| dot + 1);
        starts
            .filter_map(|start| self.0.get_key_value(&whole[start..]))
            .next()
            .map(|(suffix, apex)| format!("suffix {}{suffix}", if *apex { "" } else { "." }))
    }
}

/// Allowed names by glob, matched against the whole name. `*` and `?` stay within one label; a
/// label `**` stands for any number of labels, none included.
#[derive(Debug)]
pub(super) struct Globs {
    set: GlobSet,
    texts: Vec<String>,
}

impl Globs {
    pub(super) fn new(texts: Vec<String>) -> Result<Self, PolicyError> {
        let mut builder = GlobSetBuilder::new();
        for text in &texts {
            let failed = |source| PolicyError::Glob { glob: text.clone(), source };
            let path = as_path(text);
            let glob = GlobBuilder::new(&path).literal_separator(true).build().map_err(failed)?;
            builder.add(glob);
        }
        let failed = |source| PolicyError::Glob { glob: texts.join(", "), source };
        Ok(Self { set: builder.build().map_err(failed)?, texts })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// The glob that allows `name`, as text.
    pub(super) fn allowing_glob(&self, name: &Name) -> Option<String> {
        if self.texts.is_empty() {
            return None;
        }
        let hits = self.set.matches(name.as_str().replace('.', "/"));
        hits.first().and_then(|index| self.texts.get(*index)).map(|text| format!("glob {text}"))
    }
}

/// globset's separator is '/': with dots turned into it, `*` ends where a label ends. A class that
/// says what is not meant (`[!x]`) would still take it, so there the separator is written in.
fn as_path(glob: &str) -> String {
    let path = glob.replace('.', "/").to_ascii_lowercase();
    let mut strict = String::with_capacity(path.len() + 1);
    let mut rest = path.as_str();
    while let Some((before, class)) = rest.split_once('[') {
        let negated = class.starts_with(['!', '^']);
        let first = usize::from(negated) + 1;
        // The first character belongs to the class even when it is a bracket.
        let Some((end, _)) = class.char_indices().skip(first).find(|(_, c)| *c == ']') else {
            break;
        };
        let slash = if negated { "/" } else { "" };
        strict.extend([before, "[", &class[..end], slash, "]"]);
        rest = &class[end + 1..];
    }
    strict + rest
}

/// The network of `nets` that holds `address` as it stands. Enough to allow, not to forbid.
pub(super) fn net_holding(nets: &[IpNet], address: IpAddr) -> Option<&IpNet> {
    nets.iter().find(|net| net.contains(&address))
}

/// The network of `nets` that holds `address`, or the IPv4 address it carries (B9).
pub(super) fn net_holding_any_form(nets: &[IpNet], address: IpAddr) -> Option<&IpNet> {
    let carried = embedded_v4(address).map(IpAddr::V4);
    net_holding(nets, address).or_else(|| net_holding(nets, carried?))
}
