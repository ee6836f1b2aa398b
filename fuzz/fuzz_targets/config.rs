//! Settings files: whatever is in them, every complaint is one printable line with its place.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use tailrace::config::{ProcessEnvironment, check_config, parse, shown};

fuzz_target!(|text: &str| {
    let env = ProcessEnvironment::from_pairs([("HOME", "/nowhere")]);
    let written = parse(Some((Path::new("fuzz.toml"), text)), &env, &[]);
    match check_config(&written, &env) {
        Ok(checked) => assert!(!shown(&written, &checked.config).is_empty()),
        Err(problems) => {
            let lines = problems.lines();
            assert!(!lines.is_empty());
            assert!(lines.iter().all(|line| !line.contains(char::is_control)), "{lines:?}");
        }
    }
});
