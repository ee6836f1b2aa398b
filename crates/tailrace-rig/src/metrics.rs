//! `/metrics` as numbers, strict about the text format.

use std::collections::BTreeMap;

/// One scrape.
#[derive(Clone, Debug)]
pub struct Metrics {
    series: Vec<(String, BTreeMap<String, String>, f64)>,
}

impl Metrics {
    /// Parses the text format; panics at a line that is none of it.
    #[track_caller]
    pub fn parse(text: &str) -> Metrics {
        let lines = text.lines().filter(|l| !l.is_empty() && !l.starts_with('#'));
        Metrics { series: lines.map(parse_line).collect() }
    }

    /// The sum of all series of `name` that carry these labels; 0 where there is none.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.matching(name, labels).map(|(_, _, value)| value).sum()
    }

    /// Whether a series of that name exists.
    pub fn has(&self, name: &str) -> bool {
        self.series.iter().any(|(n, ..)| n == name)
    }

    /// Every series: name, labels, value.
    pub fn series(&self) -> &[(String, BTreeMap<String, String>, f64)] {
        &self.series
    }

    fn matching<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&'a str, &'a str)],
    ) -> impl Iterator<Item = &'a (String, BTreeMap<String, String>, f64)> {
        self.series.iter().filter(move |(n, has, _)| {
            n == name && labels.iter().all(|(key, value)| has.get(*key).is_some_and(|v| v == value))
        })
    }
}

#[track_caller]
fn parse_line(line: &str) -> (String, BTreeMap<String, String>, f64) {
    let bad = || -> ! { panic!("not a metric line: {line:?}") };
    let Some((series, value)) = line.rsplit_once(' ') else { bad() };
    let Ok(value) = value.parse() else { bad() };
    let Some((name, rest)) = series.split_once('{') else {
        return (series.to_owned(), BTreeMap::new(), value);
    };
    let Some(mut rest) = rest.strip_suffix('}') else { bad() };
    let mut labels = BTreeMap::new();
    while !rest.is_empty() {
        let Some((key, after)) = rest.split_once("=\"") else { bad() };
        let (text, left) = unquote(after);
        labels.insert(key.to_owned(), text);
        rest = left.strip_prefix(',').unwrap_or(left);
    }
    (name.to_owned(), labels, value)
}

/// The text up to the closing quote, unescaped, and what follows the quote.
fn unquote(from: &str) -> (String, &str) {
    let mut text = String::new();
    let mut chars = from.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (text, &from[at + 1..]),
            '\\' => match chars.next() {
                Some((_, 'n')) => text.push('\n'),
                Some((_, other)) => text.push(other),
                None => break,
            },
            _ => text.push(c),
        }
    }
    panic!("an unclosed label value: {from:?}")
}
