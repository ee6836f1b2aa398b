//! Which paths of this crate a piece of code names, in `use` and in line.

/// Every path that starts at the crate or goes up by `super`, from the crate's root on, groups
/// spread out: `crate::a::{B, c::D}` is `a::B` and `a::c::D`. Leading `super`s are dropped, so that
/// one that climbs to the root shows the module it reaches.
pub(crate) fn imports(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for start in ["crate::", "super::"] {
        for (at, _) in code.match_indices(start) {
            let before = code[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
                continue;
            }
            spread("", after_supers(&code[at + start.len()..]), &mut found);
        }
    }
    found
}

fn after_supers(mut text: &str) -> &str {
    while let Some(rest) = text.strip_prefix("super::") {
        text = rest;
    }
    text
}

/// Reads one path or group at the start of `text`, below `prefix`.
fn spread(prefix: &str, text: &str, found: &mut Vec<String>) {
    let text = text.trim_start();
    if let Some(group) = text.strip_prefix('{') {
        for part in parts(group) {
            spread(prefix, part, found);
        }
        return;
    }
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let (segment, rest) = text.split_at(end);
    let path = match (prefix, segment) {
        ("", segment) => segment.to_owned(),
        (prefix, "self" | "") => prefix.to_owned(),
        (prefix, segment) => format!("{prefix}::{segment}"),
    };
    match rest.strip_prefix("::") {
        Some(rest) => spread(&path, rest, found),
        None => found.push(path),
    }
}

/// The members of a group, up to the brace that closes it.
fn parts(group: &str) -> Vec<&str> {
    let (mut depth, mut start, mut parts) = (0, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                parts.push(&group[start..at]);
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&group[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.retain(|part| !part.trim().is_empty());
    parts
}

#[test]
fn groups_are_spread_and_supers_climbed() {
    let code = "use crate::{\n    a::{self, B, c::*},\n    d,\n};\npub(crate) fn f() -> crate::e::F \
                { super::super::g::h() } use crate::i as j;";
    assert_eq!(imports(code), ["a", "a::B", "a::c", "d", "e::F", "i", "g::h"]);
}
