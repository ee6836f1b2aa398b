//! `docs/requirements.md` and the tests agree: the page has every case that a test's name cites, and a test
//! cites every case of the page, unless that is marked as planned.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use crate::source::{File, below, root};

const PAGE: &str = "docs/requirements.md";
/// Begins the text of a case that is still to be built.
const PLANNED: &str = "*planned*";
/// What the rig checks after every case; its messages have the numbers: `(I1)`.
const INVARIANTS: char = 'I';
/// The files it checks them in.
const CHECKS: [&str; 2] =
    ["crates/tailrace-rig/src/answers.rs", "crates/tailrace-rig/src/resource_use.rs"];
/// Where unit tests are, beside the code: no page lists them.
const BESIDE_CODE: [&str; 3] = ["src/", "crates/tailrace-run/", "crates/tailrace-sys/"];

/// `P13`: a chapter's letter and a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Case {
    chapter: char,
    number: u32,
}

impl Case {
    /// Reads `P13`, or `p13` as in a test's name.
    fn parse(text: &str) -> Option<Self> {
        let mut characters = text.chars();
        let letter = characters.next().filter(char::is_ascii_alphabetic)?;
        let number = characters.as_str().parse().ok()?;
        Some(Self { chapter: letter.to_ascii_uppercase(), number })
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.chapter, self.number)
    }
}

/// The cases that a test's name begins with: `p17_p18_what_passes` has P17 and P18.
fn cases_of(name: &str) -> impl Iterator<Item = Case> {
    name.split('_').map_while(Case::parse)
}

/// The names of the tests in a source file.
fn tests(text: &str) -> Vec<&str> {
    let (mut found, mut is_test) = (Vec::new(), false);
    for line in text.lines().map(str::trim_start) {
        is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
        let name = line.trim_start_matches("pub ").trim_start_matches("async ");
        if let Some(name) = name.strip_prefix("fn ") {
            if is_test {
                found.push(name.split(['(', '<']).next().unwrap());
            }
            is_test = false;
        }
    }
    found
}

/// Which files cite a case.
type Cited = BTreeMap<Case, BTreeSet<String>>;

fn cited(files: &[File]) -> Cited {
    let mut cited = Cited::new();
    for file in files {
        let names = tests(&file.text);
        let by_name = names.iter().flat_map(|name| cases_of(name));
        let mut cases: Vec<Case> = by_name.collect();
        if CHECKS.contains(&file.path.as_str()) {
            let in_brackets = file.text.split('(').filter_map(|rest| rest.split(')').next());
            cases.extend(in_brackets.filter_map(Case::parse).filter(|c| c.chapter == INVARIANTS));
        }
        for case in cases {
            cited.entry(case).or_default().insert(file.path.clone());
        }
    }
    cited
}

#[derive(Default)]
struct Page {
    /// Each case, and whether it is planned.
    cases: BTreeMap<Case, bool>,
    /// The files that each chapter says it is proved in.
    proved_in: BTreeMap<char, Vec<String>>,
    complaints: Vec<String>,
}

impl Page {
    fn read(text: &str) -> Self {
        let (mut page, mut chapter, mut in_list) = (Self::default(), ' ', false);
        for line in text.lines() {
            if let Some(title) = line.strip_prefix("## ") {
                let letter = title.split_once(": ").and_then(|(letter, _)| letter.parse().ok());
                chapter = letter.unwrap_or(' ');
            }
            in_list = line.starts_with("Proved in: ") || (in_list && !line.is_empty());
            if in_list {
                let quoted = line.split('`').skip(1).step_by(2).map(str::to_owned);
                page.proved_in.entry(chapter).or_default().extend(quoted);
            }
            let row = line.strip_prefix("| ").and_then(|row| row.split_once(" | "));
            if let Some((Some(case), text)) = row.map(|(case, text)| (Case::parse(case), text)) {
                page.add(chapter, case, text.starts_with(PLANNED));
            }
        }
        page
    }

    fn add(&mut self, chapter: char, case: Case, planned: bool) {
        if case.chapter != chapter {
            self.complaints.push(format!("{case} is a row of chapter {chapter:?}"));
        }
        if self.cases.insert(case, planned).is_some() {
            self.complaints.push(format!("{case} is there twice"));
        }
    }
}

/// Where page and tests disagree.
fn disagreements(page: &str, cited: &Cited) -> Vec<String> {
    let page = Page::read(page);
    let mut found = page.complaints;
    for (case, files) in cited.iter().filter(|(case, _)| !page.cases.contains_key(case)) {
        found.push(format!("{files:?} cite {case}, which {PAGE} does not have"));
    }
    for (case, planned) in &page.cases {
        let (files, nowhere) = (cited.get(case), Vec::new());
        let listed = page.proved_in.get(&case.chapter).unwrap_or(&nowhere);
        let beside_code = |file: &String| BESIDE_CODE.iter().any(|place| file.starts_with(place));
        let told = |file: &String| listed.contains(file) || beside_code(file);
        match files {
            None if !planned => found.push(format!("no test's name cites {case} of {PAGE}")),
            Some(files) if *planned => {
                found.push(format!("{case} is marked as planned, but proved in {files:?}"));
            }
            Some(files) if !files.iter().any(told) => {
                found.push(format!("{case}: \"Proved in\" lists none of {files:?}"));
            }
            _ => {}
        }
    }
    for (chapter, files) in &page.proved_in {
        let proves = |file: &String| {
            cited.iter().any(|(case, by)| case.chapter == *chapter && by.contains(file))
        };
        let idle = files.iter().filter(|file| !proves(file));
        found.extend(idle.map(|file| format!("chapter {chapter}: {file} has no test of it")));
    }
    found
}

/// The cases that a text says this page has: `docs/requirements.md, D6`, one or several.
fn pointed_to(text: &str) -> Vec<Case> {
    let after = text.match_indices("requirements.md").map(|(at, word)| &text[at + word.len()..]);
    let words = after.flat_map(|rest| {
        let words = rest.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
        words.map_while(Case::parse)
    });
    words.collect()
}

#[test]
fn the_page_and_the_names_of_the_tests_agree() {
    let files = ["src", "crates", "tests"].into_iter().flat_map(|folder| below(folder, &["rs"]));
    let files: Vec<File> = files.collect();
    let page = std::fs::read_to_string(root().join(PAGE)).unwrap();
    let cited = cited(&files);
    assert!(cited.len() > 100, "the names of the tests are read");
    let found = disagreements(&page, &cited);
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// What is cited can be opened: pages of the repository, and cases that this page has.
#[test]
fn every_page_and_case_that_is_pointed_to_is_there() {
    let page = Page::read(&std::fs::read_to_string(root().join(PAGE)).unwrap());
    let mut missing = Vec::new();
    for file in below("", &["rs", "md", "toml", "yml"]) {
        let in_path = |c: char| c.is_alphanumeric() || "_./-".contains(c);
        for word in file.text.split(|c| !in_path(c)).filter(|word| word.ends_with(".md")) {
            let beside = Path::new(&file.path).parent().unwrap().join(word);
            let places = [word.into(), Path::new("docs").join(word), beside];
            let elsewhere = word.starts_with('/') || word == ".md";
            if !elsewhere && !places.iter().any(|place| root().join(place).is_file()) {
                missing.push(format!("{}: {word}", file.path));
            }
        }
        let cases = pointed_to(&file.text).into_iter().filter(|c| !page.cases.contains_key(c));
        missing.extend(cases.map(|case| format!("{}: {PAGE} has no {case}", file.path)));
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

#[test]
fn a_disagreement_is_seen() {
    let page = "## P: a chapter\n\nProved in: `tests/a.rs`,\n`tests/b.rs`\n\n| P1 | x |\n| P2 | *planned* x |\n";
    let case = |text: &str| Case::parse(text).unwrap();
    let cited = |pairs: &[(&str, &str)]| {
        let mut cited = Cited::new();
        for (text, file) in pairs {
            cited.entry(case(text)).or_default().insert((*file).to_owned());
        }
        cited
    };
    let all = [("P1", "tests/a.rs"), ("P1", "tests/b.rs")];
    assert_eq!(disagreements(page, &cited(&all)), [""; 0]);
    let disagreeing = [
        (page.to_owned(), vec![("P3", "src/a.rs")], "does not have"),
        (page.to_owned(), vec![("P2", "src/a.rs")], "planned"),
        (page.replace("*planned* ", ""), vec![], "no test's name cites P2"),
        (page.replace("*planned* ", ""), vec![("P2", "tests/c.rs")], "lists none"),
        (page.replace("`tests/b", "`tests/d.rs`, `tests/b"), vec![], "tests/d.rs has no test"),
        (format!("{page}| P1 | x |\n"), vec![], "twice"),
        (format!("{page}| B1 | x |\n"), vec![("B1", "src/a.rs")], "row of chapter 'P'"),
    ];
    for (page, more, words) in disagreeing {
        let found = disagreements(&page, &cited(&[&all[..], &more].concat()));
        assert!(found.len() == 1 && found[0].contains(words), "{words}: {found:?}");
    }
}

#[test]
fn cases_are_read_from_names_of_tests_and_from_citations() {
    let cases = |name| cases_of(name).map(|case| case.to_string()).collect::<Vec<_>>();
    assert_eq!(cases("p17_p18_what_passes"), ["P17", "P18"]);
    assert_eq!(cases("b9_a_carried_v4_address"), ["B9"]);
    assert_eq!(cases("socks5_p1_names"), [""; 0]);
    let text = "#[test]\n#[ignore]\nfn a1_x() {}\nfn a2_y() {}\n    #[tokio::test(flavor = \"f\")]\n    async fn a3_z() {}\n";
    assert_eq!(tests(text), ["a1_x", "a3_z"]);
    let text = "(docs/requirements.md, K2, K8). Then docs/requirements.md\n//! B17), and A1";
    let found: Vec<String> = pointed_to(text).iter().map(Case::to_string).collect();
    assert_eq!(found, ["K2", "K8", "B17"]);
}
