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
        /// The text.
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
    pub(super) fn allowing(&self, name: &Name) -> Option<String> {
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

/// Allowed names by glob. `*` stands for any run of characters within one label.
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
            // globset's separator is '/': with dots turned into it, `*` ends at a label's end.
            let path = text.replace('.', "/").to_ascii_lowercase();
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
    pub(super) fn allowing(&self, name: &Name) -> Option<String> {
        if self.texts.is_empty() {
            return None;
        }
        let hits = self.set.matches(name.as_str().replace('.', "/"));
        hits.first().and_then(|index| self.texts.get(*index)).map(|text| format!("glob {text}"))
    }
}

/// The network of `nets` that holds `address`, in its own form or as the IPv4 address it carries.
pub(super) fn holding(nets: &[IpNet], address: IpAddr) -> Option<&IpNet> {
    let carried = embedded_v4(address).map(IpAddr::V4);
    nets.iter()
        .find(|net| net.contains(&address) || carried.is_some_and(|carried| net.contains(&carried)))
}
