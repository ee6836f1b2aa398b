//! Text that is safe to print: what a client sends never breaks a line, a JSON string or a terminal.
#![forbid(unsafe_code)]

use super::access_log::FIELD;

/// Appends `text` as a JSON string (RFC 8259 section 7) of printable ASCII alone, at most
/// [`FIELD`] bytes between its quotes; what does not fit is cut.
pub(super) fn write_json_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let plain = |b: u8| (b' '..=b'~').contains(&b) && !matches!(b, b'"' | b'\\');
    if text.len() <= FIELD && text.bytes().all(plain) {
        out.extend_from_slice(text.as_bytes()); // nearly always
    } else {
        write_escaped(out, text);
    }
    out.push(b'"');
}

fn write_escaped(out: &mut Vec<u8>, text: &str) {
    let room = out.len() + FIELD;
    for c in text.chars() {
        let before = out.len();
        write_character(out, c);
        if out.len() > room {
            out.truncate(before);
            break;
        }
    }
}

fn write_character(out: &mut Vec<u8>, c: char) {
    match c {
        '"' | '\\' => out.extend([b'\\', c as u8]),
        '\n' => out.extend(b"\\n"),
        '\r' => out.extend(b"\\r"),
        '\t' => out.extend(b"\\t"),
        ' '..='~' => out.push(c as u8),
        _ => {
            for unit in c.encode_utf16(&mut [0; 2]) {
                out.extend(format!("\\u{unit:04x}").bytes());
            }
        }
    }
}

/// Appends `text` for people: as it stands where it is one plain word, else as a JSON string.
pub(super) fn write_word(out: &mut Vec<u8>, text: &str) {
    let plain = |b: u8| b.is_ascii_graphic() && !matches!(b, b'"' | b'\\' | b'=');
    if !text.is_empty() && text.len() <= FIELD && text.bytes().all(plain) {
        out.extend(text.bytes());
    } else {
        write_json_string(out, text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        let mut out = Vec::new();
        write_json_string(&mut out, text);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a6_nothing_but_printable_ascii_comes_out_and_it_reads_back() {
        let backslashes = "\\".repeat(255);
        for text in
            ["x\n{\"level\":\"info\"}", "\u{1b}[2J", "\u{202e}gpj.exe", "\0", "𝄞", &backslashes]
        {
            let out = shown(text);
            assert!(out.bytes().all(|b| (b' '..=b'~').contains(&b)), "{out}");
            assert_eq!(serde_json::from_str::<String>(&out).unwrap(), text);
        }
    }

    #[test]
    fn a6_a_field_is_cut_between_characters() {
        for text in ["a".repeat(5000), "\u{202e}".repeat(5000), "𝄞".repeat(5000)] {
            let out = shown(&text);
            assert!(out.len() <= FIELD + 2, "{}", out.len());
            assert!(text.starts_with(&serde_json::from_str::<String>(&out).unwrap()));
        }
    }

    #[test]
    fn words_are_quoted_only_where_they_must_be() {
        let shown = |text: &str| {
            let mut out = Vec::new();
            write_word(&mut out, text);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(shown("db.corp.example:5432"), "db.corp.example:5432");
        assert_eq!(shown("two words"), "\"two words\"");
        assert_eq!(shown("\u{1b}"), "\"\\u001b\"");
        assert_eq!(shown(""), "\"\"");
    }
}
