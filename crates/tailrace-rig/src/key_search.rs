//! Looking for a key where no key may be (docs/requirements.md, chapter K).

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

use super::fake_tailnet::FakeTailnet;
use super::gateway::Gateway;

/// Memory looked at in one go.
const PIECE: usize = 1 << 20;

/// What betrays a key: all of it, and the part after the first half.
fn needles(key: &str) -> [&str; 2] {
    [key, &key[key.len() / 2..]]
}

/// Whether the bytes hold the key or its second half.
pub fn holds(bytes: &[u8], key: &str) -> bool {
    needles(key).iter().any(|n| memchr::memmem::find(bytes, n.as_bytes()).is_some())
}

/// The files of /proc that show it, of any process.
pub fn in_proc(key: &str, files: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        if !entry.file_name().to_string_lossy().bytes().all(|b| b.is_ascii_digit()) {
            continue;
        }
        for file in files {
            let path = entry.path().join(file);
            if std::fs::read(&path).is_ok_and(|bytes| holds(&bytes, key)) {
                found.push(path.display().to_string());
            }
        }
    }
    found
}

/// The regular files below a folder that hold it.
pub fn in_files(folder: &Path, key: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(in_files(&path, key)),
            Ok(kind) if kind.is_file() && std::fs::read(&path).is_ok_and(|b| holds(&b, key)) => {
                found.push(path.display().to_string());
            }
            _ => {}
        }
    }
    found
}

/// Where a process's memory holds the whole key; none if this user may not look.
pub fn in_memory(pid: u32, key: &str) -> Option<Vec<String>> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).ok()?;
    let mut memory = File::open(format!("/proc/{pid}/mem")).ok()?;
    let mut found = Vec::new();
    for map in maps.lines().filter(|m| m.split(' ').nth(1).is_some_and(|p| p.starts_with('r'))) {
        let (from, to) = map.split_once(' ')?.0.split_once('-')?;
        let (from, to) = (u64::from_str_radix(from, 16).ok()?, u64::from_str_radix(to, 16).ok()?);
        // In pieces that overlap; some maps ([vvar]) cannot be read.
        let mut piece = vec![0; PIECE + key.len()];
        for at in (from..to).step_by(PIECE) {
            let length = piece.len().min((to - at) as usize);
            let piece = &mut piece[..length];
            let read = memory.seek(SeekFrom::Start(at)).and_then(|_| memory.read_exact(piece));
            if read.is_ok() && memchr::memmem::find(piece, key.as_bytes()).is_some() {
                found.push(map.to_owned());
            }
        }
    }
    Some(found)
}

impl FakeTailnet {
    /// Asserts that no key of this tailnet is in a command line, an environment, a file or log of
    /// the gateway, or in anything it answers.
    #[track_caller]
    pub fn assert_secret(&self, gateway: &mut Gateway) {
        let paths = ["/metrics", "/api/v1/status", "/api/v1/connections", "/readyz"];
        let said = match gateway.alive() {
            true => paths.map(|path| gateway.admin_get(path).body).concat(),
            false => Vec::new(),
        };
        for key in self.keys() {
            assert!(!holds(&said, &key), "{}", String::from_utf8_lossy(&said));
            let shown = in_proc(&key, &["cmdline", "environ"]);
            assert!(shown.is_empty(), "a key is in {shown:?}");
            let written = in_files(gateway.dir(), &key);
            assert!(written.is_empty(), "a key is in {written:?}");
        }
    }
}
