//! Answers of the gateway as text for people: one line each, safe on a terminal.
#![forbid(unsafe_code)]

use serde_json::Value;

/// A value in one line; nothing is a dash.
pub(super) fn of(value: &Value) -> String {
    match value {
        Value::String(text) => plain(text),
        Value::Null => "-".to_owned(),
        Value::Array(items) => items.iter().map(of).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}

/// The text with everything escaped that could move a cursor or break a line: names in it are other
/// nodes' own.
pub(super) fn plain(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        // Bidirectional marks too: they show a text as another (Unicode TR36 section 2.6).
        let turns = matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        match c.is_control() || turns {
            true => shown.extend(c.escape_unicode()),
            false => shown.push(c),
        }
    }
    shown
}

/// A word, or a dash where there is none.
pub(super) fn or_dash(word: Option<&str>) -> String {
    word.map_or_else(|| "-".to_owned(), plain)
}

/// All of them in one line.
pub(super) fn texts<T: ToString>(items: &[T]) -> String {
    items.iter().map(|item| plain(&item.to_string())).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a6_nothing_reaches_the_terminal_but_text() {
        assert_eq!(of(&json!("a\u{1b}[2Jb\n\u{202e}c é")), "a\\u{1b}[2Jb\\u{a}\\u{202e}c é");
        assert_eq!(of(&json!(["a", null, 1, true])), "a - 1 true");
        assert_eq!(texts(&["a\n", "b"]), "a\\u{a} b");
    }
}
