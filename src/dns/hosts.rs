//! The hosts file: `getaddrinfo(3)` does not find its dotted names once they end in a dot.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, Read};
use std::net::IpAddr;
use std::path::Path;

use crate::target::Name;

/// Where the system keeps it (hosts(5)).
pub(super) const PATH: &str = "/etc/hosts";
/// More than any hosts file kept by hand; what lies beyond is not read.
const MOST_BYTES: u64 = 1024 * 1024;

/// The addresses `path` gives `name`, in its order. A file that is not there knows no name.
///
/// # Errors
/// Whatever reading it says.
pub(super) fn read_addresses(path: &Path, name: &Name) -> io::Result<Vec<IpAddr>> {
    let mut bytes = Vec::new();
    match File::open(path) {
        Ok(file) => file.take(MOST_BYTES).read_to_end(&mut bytes)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    Ok(parse_addresses(&bytes, name))
}

/// Each line: an address, then names; `#` starts a remark. A line that is none of that is skipped.
fn parse_addresses(file: &[u8], name: &Name) -> Vec<IpAddr> {
    file.split(|byte| *byte == b'\n')
        .filter_map(|line| std::str::from_utf8(line).ok())
        .filter_map(|line| parse_line(line, name))
        .collect()
}

fn parse_line(line: &str, name: &Name) -> Option<IpAddr> {
    let mut words = line.split('#').next()?.split_ascii_whitespace();
    let address = words.next()?.parse().ok()?;
    words.any(|word| is_same_name(word, name)).then_some(address)
}

fn is_same_name(word: &str, name: &Name) -> bool {
    word.strip_suffix('.').unwrap_or(word).eq_ignore_ascii_case(name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(file: &str, name: &str) -> Vec<String> {
        let name = Name::parse(name.as_bytes()).unwrap();
        parse_addresses(file.as_bytes(), &name).iter().map(IpAddr::to_string).collect()
    }

    #[test]
    fn whole_names_in_order_without_remarks() {
        let file = "10.0.0.1\tdb.corp.example db # x.example\n#10.0.0.2 db.corp.example\r\n\
                    fd00::1 DB.corp.example.\nnonsense db.corp.example\n10.0.0.3 xdb.corp.example";
        assert_eq!(found(file, "db.corp.example"), ["10.0.0.1", "fd00::1"]);
        assert!(found(file, "x.example").is_empty());
        assert!(found(file, "corp.example").is_empty());
    }

    #[test]
    fn bytes_that_are_no_text_spoil_only_their_line() {
        let name = Name::parse(b"a.example").unwrap();
        let found = parse_addresses(b"\xff\xfe a.example\n10.0.0.1 a.example\n", &name);
        assert_eq!(found, ["10.0.0.1".parse::<IpAddr>().unwrap()]);
    }

    #[test]
    fn a_missing_file_knows_no_name() {
        let name = Name::parse(b"a.example").unwrap();
        let folder = tempfile::tempdir().unwrap();
        assert!(read_addresses(&folder.path().join("hosts"), &name).unwrap().is_empty());
    }
}
