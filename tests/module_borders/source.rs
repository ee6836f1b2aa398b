//! The sources as the tests of the borders read them.

use std::fs;
use std::path::PathBuf;

/// One source file.
pub(crate) struct File {
    /// From the crate's folder on: `src/policy.rs`.
    pub(crate) path: String,
    pub(crate) text: String,
}

impl File {
    /// The module it belongs to: the folder, or a file of its own directly under `src`.
    pub(crate) fn module(&self) -> &str {
        let inner = self.path.strip_prefix("src/").unwrap();
        let module = inner.split('/').next().unwrap();
        module.strip_suffix(".rs").unwrap_or(module)
    }
}

/// Every `src/**/*.rs`.
pub(crate) fn files() -> Vec<File> {
    let found = below("src", &["rs"]);
    assert!(found.len() > 20, "the sources are where the crate was built");
    found
}

/// Where the sources are.
pub(crate) fn root() -> PathBuf {
    // At run time: the suite is also run from a copy of the sources.
    std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| ".".into(), PathBuf::from)
}

/// The files below a folder of the crate whose names end so, in order; not those that are built or hidden.
pub(crate) fn below(folder: &str, extensions: &[&str]) -> Vec<File> {
    let root = root();
    let mut found = Vec::new();
    let mut folders = vec![root.join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() {
                if name != "target" && !name.starts_with('.') {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|e| extensions.iter().any(|end| e == *end)) {
                let text = fs::read_to_string(&path).unwrap();
                let path = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
                found.push(File { path, text });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// The text without comments and without what strings hold.
pub(crate) fn code(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let skipped = match first {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            '"' => string(rest, '"'),
            'r' if rest.starts_with("r#\"") => rest.find("\"#").map_or(rest.len(), |end| end + 2),
            // A character, not a lifetime.
            '\'' if rest.starts_with("'\\") => string(rest, '\''),
            '\'' if rest.chars().nth(2) == Some('\'') => {
                2 + rest.chars().nth(1).unwrap().len_utf8()
            }
            _ => 0,
        };
        if skipped == 0 {
            code.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            rest = &rest[skipped..];
        }
    }
    code
}

/// Length of a literal that starts here and ends at the next `quote` no backslash escapes.
fn string(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

#[test]
fn comments_and_strings_are_no_code() {
    let text = "a // b\n\"c \\\" // d\" e /* f */ '\"' g 'x: r#\"h \" i\"# j \"http://k\" l";
    let words: Vec<String> = code(text).split_whitespace().map(str::to_owned).collect();
    assert_eq!(words, ["a", "e", "g", "'x:", "j", "l"]);
}
