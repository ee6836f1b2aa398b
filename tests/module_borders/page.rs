//! The borders as `docs/architecture.md` states them: the table below its heading *Module borders* is the only list
//! there is.

use std::collections::BTreeMap;

/// The page, from the crate's folder on.
pub(crate) const PAGE: &str = "docs/architecture.md";
/// The heading above the table.
const HEADING: &str = "\n## Module borders\n";
/// The row of what everybody may import.
const SHARED: &str = "every module, unless its row says *only*";
/// What a module may import that knows all others.
const EVERYTHING: &str = "every module";

/// What one module may import.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Border {
    /// It knows all others.
    pub(crate) everything: bool,
    /// It may not use the shared modules beyond `imports`.
    pub(crate) only: bool,
    /// `module::item` is that item alone, `module` is all of it.
    pub(crate) imports: Vec<String>,
}

/// The table.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Borders {
    pub(crate) shared: Vec<String>,
    pub(crate) of: BTreeMap<String, Border>,
}

impl Borders {
    /// Reads the first table below the heading of the page; the error names the row it cannot read.
    pub(crate) fn parse(page: &str) -> Result<Self, String> {
        let (_, below) = page.split_once(HEADING).ok_or("no heading *Module borders*")?;
        let below = below.split("\n## ").next().unwrap_or_default();
        let table = below.lines().skip_while(|line| !line.starts_with('|'));
        let rows = table.take_while(|line| line.starts_with('|')).skip(2);
        let mut borders = Self::default();
        for row in rows {
            let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
            let &[modules, imports] = &cells[..] else {
                return Err(format!("not two cells: {row}"));
            };
            let imports = without_remarks(imports);
            if modules == SHARED {
                borders.shared = quoted(&imports);
                continue;
            }
            let border = read_border(&imports).ok_or_else(|| format!("not understood: {row}"))?;
            for module in quoted(modules) {
                if borders.of.insert(module.clone(), border.clone()).is_some() {
                    return Err(format!("{module} has two rows"));
                }
            }
        }
        match borders.shared.is_empty() || borders.of.is_empty() {
            true => Err("no table, or none with a row of shared modules".to_owned()),
            false => Ok(borders),
        }
    }
}

/// The second cell of a row, without its remarks.
fn read_border(cell: &str) -> Option<Border> {
    let (only, imports) = match cell.strip_prefix("only ") {
        Some(rest) => (true, rest),
        None => (false, cell),
    };
    let everything = imports == EVERYTHING;
    let imported = quoted(imports);
    // An entry without its quotes must not count as none.
    let understood = everything || imports == "nothing" || imported.len() == entries(imports);
    understood.then_some(Border { everything, only, imports: imported })
}

/// How many entries a list with commas and one *and* has.
fn entries(list: &str) -> usize {
    list.replace(" and ", ", ").split(", ").filter(|entry| !entry.is_empty()).count()
}

/// What stands in backticks.
fn quoted(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// A cell without what is in parentheses.
fn without_remarks(cell: &str) -> String {
    let mut kept = String::new();
    let mut rest = cell;
    while let Some((before, remark)) = rest.split_once(" (") {
        kept.push_str(before);
        rest = remark.split_once(')').map_or("", |(_, after)| after);
    }
    kept + rest
}

#[test]
fn the_table_is_read_row_by_row() {
    let page = |rows: &str| {
        format!(
            "# A\n\n## Module borders\n\nText.\n\n| module | may import |\n|---|---|\n{rows}\n\n## B\n| `x` | `y` |\n"
        )
    };
    let shared = format!("| {SHARED} | `target`, `sys` |\n");
    let rows = "| `connection` | every module |\n| `dns`, `api` | `policy::A` (a `remark`), `b` and `c` (x) |\n\
                | `policy` | only `target` |\n| `target` | only nothing |\n| `admin` | nothing |";
    let borders = Borders::parse(&page(&(shared.clone() + rows))).unwrap();
    assert_eq!(borders.shared, ["target", "sys"]);
    let of = |module: &str| borders.of[module].clone();
    let border = |everything, only, imports: &[&str]| Border {
        everything,
        only,
        imports: imports.iter().map(|import| (*import).to_owned()).collect(),
    };
    assert_eq!(of("connection"), border(true, false, &[]));
    assert_eq!(of("dns"), border(false, false, &["policy::A", "b", "c"]));
    assert_eq!(of("api"), of("dns"));
    assert_eq!(of("policy"), border(false, true, &["target"]));
    assert_eq!(of("target"), border(false, true, &[]));
    assert_eq!(of("admin"), Border::default());
    assert_eq!(borders.of.len(), 6);
    let unread = [
        ("| `dns` | policy |", "not understood"),
        ("| `dns` | `policy`, lifecycle |", "not understood"),
        ("| `dns` | nothing |\n| `api`, `dns` | nothing |", "two rows"),
        ("| `dns` | nothing | x |", "not two cells"),
    ];
    for (rows, why) in unread {
        let error = Borders::parse(&page(&(shared.clone() + rows))).unwrap_err();
        assert!(error.contains(why), "{rows}: {error}");
    }
    assert!(Borders::parse(&page("| `dns` | nothing |")).is_err(), "no shared modules");
    assert!(Borders::parse("# A").is_err());
}
