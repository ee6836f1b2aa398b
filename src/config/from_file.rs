//! The settings file: TOML with the place of every key and value kept.
#![forbid(unsafe_code)]

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::config_problem::{Origin, plain, quoted};
use super::keys::{self, FORWARD, Key, Kind};
use super::raw_config::{
    Item, RawConfig, RawForward, RawValue, sized, split, timed, unknown, within, word,
};
use crate::secret::find_key;

/// The file's name and the byte each line starts at.
struct SourcePositions<'a> {
    path: Arc<Path>,
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> SourcePositions<'a> {
    fn new(path: &Path, text: &'a str) -> Self {
        let after = text.match_indices('\n').map(|(at, _)| at + 1);
        Self { path: path.into(), text, starts: std::iter::once(0).chain(after).collect() }
    }

    /// Line and column of a byte offset; columns count characters.
    fn origin_at(&self, offset: usize) -> Origin {
        let line = self.starts.partition_point(|start| *start <= offset).max(1);
        let start = self.starts.get(line - 1).copied().unwrap_or(0);
        let before = self.text.as_bytes().get(start..offset.min(self.text.len())).unwrap_or(&[]);
        // Bytes that continue a character (10xxxxxx) are no columns of their own.
        let column = before.iter().filter(|byte| **byte & 0xC0 != 0x80).count() + 1;
        Origin::File { path: Arc::clone(&self.path), line, column }
    }

    fn origin_of(&self, span: &Range<usize>) -> Origin {
        self.origin_at(span.start)
    }
}

/// Reads a whole file into what is written.
pub(super) fn read_file_text(path: &Path, text: &str, written: &mut RawConfig) {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let places = SourcePositions::new(path, text);
    if let Some((at, _)) = find_key(text) {
        let what = "holds a literal tailnet key: put it in a file of its own and name that file";
        written.fail(places.origin_at(at), what);
    }
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut last = 0;
    for error in &errors {
        let origin = places.origin_at(error.span().map_or(0, |span| span.start));
        let Origin::File { line, .. } = origin else { continue };
        // One slip makes the parser complain several times on its line; the first says it.
        if line != last {
            written.fail(origin, format!("broken TOML: {}", plain(error.message())));
        }
        last = line;
    }
    // What could be recovered of a broken file is guesswork: further complaints would mislead.
    match errors.is_empty() {
        true => read_top_level(table.get_ref(), &places, written),
        false => written.doubt(),
    }
}

fn read_top_level(table: &DeTable<'_>, places: &SourcePositions<'_>, written: &mut RawConfig) {
    for (name, value) in table {
        let path: &str = name.get_ref();
        match value.get_ref() {
            DeValue::Array(items) if path == "forward" => read_forwards(items, places, written),
            DeValue::Table(inner) if keys::is_section(path) => {
                read_section(path, inner, places, written);
            }
            _ if path == "forward" => {
                written.fail(places.origin_of(&name.span()), "write each as [[forward]]");
            }
            other if keys::is_section(path) => {
                let what = format!("{path} is a table, not {}", name_of(other));
                written.fail(places.origin_of(&value.span()), what);
            }
            _ => read_setting(path, name, value, places, written),
        }
    }
}

fn read_section(
    name: &str,
    table: &DeTable<'_>,
    places: &SourcePositions<'_>,
    written: &mut RawConfig,
) {
    for (key, value) in table {
        read_setting(&format!("{name}.{}", key.get_ref()), key, value, places, written);
    }
}

fn read_setting<S>(
    path: &str,
    name: &Spanned<S>,
    value: &Spanned<DeValue<'_>>,
    places: &SourcePositions<'_>,
    written: &mut RawConfig,
) {
    let Some(key) = Key::of_path(path) else {
        return written.fail(places.origin_of(&name.span()), unknown(path));
    };
    let read = typed_value(key, value.get_ref(), &value.span(), places);
    written.put(key, read, places.origin_of(&value.span()));
}

fn read_forwards(items: &DeArray<'_>, places: &SourcePositions<'_>, written: &mut RawConfig) {
    for item in items.iter() {
        let DeValue::Table(table) = item.get_ref() else {
            written.fail(places.origin_of(&item.span()), "write each as [[forward]]");
            continue;
        };
        let forward = read_forward(table, places.origin_of(&item.span()), places, written);
        written.forwards.push(forward);
    }
}

fn read_forward(
    table: &DeTable<'_>,
    origin: Origin,
    places: &SourcePositions<'_>,
    written: &mut RawConfig,
) -> RawForward {
    let mut forward = RawForward { origin, listen: None, target: None, broken: false };
    for (name, value) in table {
        let key: &str = name.get_ref();
        let text = match value.get_ref() {
            DeValue::String(text) => Ok(text.trim().to_owned()),
            other => Err(format!("forward.{} wants a string, not {}", plain(key), name_of(other))),
        };
        let place = places.origin_of(&value.span());
        let text = text.map(|text| Item { text, origin: place.clone() });
        match (key, text) {
            ("listen", Ok(item)) => forward.listen = Some(item),
            ("target", Ok(item)) => forward.target = Some(item),
            ("listen" | "target", Err(what)) => {
                forward.broken = true;
                written.fail(place, what);
            }
            _ => {
                forward.broken = true;
                written.fail(places.origin_of(&name.span()), unknown_of_forward(key));
            }
        }
    }
    forward
}

fn unknown_of_forward(key: &str) -> String {
    let nearest = FORWARD.iter().min_by_key(|known| strsim::damerau_levenshtein(known, key));
    let (key, nearest) = (quoted(&format!("forward.{key}")), nearest.unwrap_or(&FORWARD[0]));
    format!("unknown key {key}: did you mean forward.{nearest}?")
}

/// Reads a TOML value by its key's kind.
fn typed_value(
    key: Key,
    value: &DeValue<'_>,
    span: &Range<usize>,
    places: &SourcePositions<'_>,
) -> Result<RawValue, String> {
    let wrong = |wants: &str| Err(format!("wants {wants}, not {}", name_of(value)));
    match (key.kind(), value) {
        (Kind::Text, DeValue::String(text)) => Ok(RawValue::Text(text.trim().to_owned())),
        (Kind::List | Kind::ListOrText, DeValue::Array(array)) => {
            list_items(array, places).map(RawValue::List)
        }
        (Kind::ListOrText, DeValue::String(text)) => {
            Ok(RawValue::List(split(text, &places.origin_of(span))))
        }
        (Kind::Switch, DeValue::Boolean(on)) => Ok(RawValue::Switch(*on)),
        (Kind::SwitchOrAuto, DeValue::Boolean(on)) => Ok(RawValue::Text(on.to_string())),
        (Kind::SwitchOrAuto, DeValue::String(text)) => word(&["auto", "true", "false"], text),
        (Kind::Word(words), DeValue::String(text)) => word(words, text),
        (Kind::Number(least, most), DeValue::Integer(number)) => {
            match i128::from_str_radix(number.as_str(), number.radix()) {
                Ok(number) => within(number, least, most),
                Err(_) => Err(format!("wants a number from {least} to {most}: this is too large")),
            }
        }
        (Kind::Duration | Kind::DurationOrZero, DeValue::String(text)) => timed(key.kind(), text),
        (Kind::Size(least, most), DeValue::String(text)) => sized(text, least, most),
        (Kind::Text | Kind::Word(_), _) => wrong("a string"),
        (Kind::List, _) => wrong("a list of strings"),
        (Kind::ListOrText, _) => wrong("a list of strings or one string with commas"),
        (Kind::Switch, _) => wrong("true or false"),
        (Kind::SwitchOrAuto, _) => wrong("true, false or \"auto\""),
        (Kind::Number(..), _) => wrong("a whole number"),
        (Kind::Duration | Kind::DurationOrZero, _) => wrong("a duration such as \"7s\""),
        (Kind::Size(..), _) => wrong("a size such as \"64KiB\""),
    }
}

/// The items of a list; blank ones are dropped.
fn list_items(array: &DeArray<'_>, places: &SourcePositions<'_>) -> Result<Vec<Item>, String> {
    let mut items = Vec::new();
    for value in array.iter() {
        let DeValue::String(text) = value.get_ref() else {
            return Err(format!(
                "wants a list of strings, not one with {}",
                name_of(value.get_ref())
            ));
        };
        if !text.trim().is_empty() {
            let origin = places.origin_of(&value.span());
            items.push(Item { text: text.trim().to_owned(), origin });
        }
    }
    Ok(items)
}

fn name_of(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("the string {}", quoted(text)),
        DeValue::Integer(number) => format!("the number {}", plain(number.as_str())),
        DeValue::Float(number) => format!("the number {}", plain(number.as_str())),
        DeValue::Boolean(on) => format!("the switch {on}"),
        DeValue::Datetime(_) => "a date".to_owned(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}
