//! The comma-separated suffix field: each suffix prints what it parses.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tailrace::policy::Suffix;

fuzz_target!(|text: &str| {
    let Ok(list) = Suffix::parse_list(text) else { return };
    let printed: Vec<String> = list.iter().map(ToString::to_string).collect();
    assert_eq!(Suffix::parse_list(&printed.join(",")), Ok(list));
});
