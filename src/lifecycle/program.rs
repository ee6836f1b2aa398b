//! Where a program is, and whether this machine can run it: with the reason why not, which execvp(3) has
//! no words for.
#![forbid(unsafe_code)]

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Where a program is looked for when there is no `PATH` (execvp(3)).
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The binary's path, as execvp(3) would find it, but with the reason why not.
///
/// # Errors
/// Why it cannot be run; `NotFound` only when there is none of that name.
pub fn find(program: &Path) -> io::Result<PathBuf> {
    if program.components().count() > 1 || program.is_absolute() {
        return runnable(program).map(|()| program.to_owned());
    }
    let path = std::env::var_os("PATH").unwrap_or_else(|| PATH.into());
    let found = std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|file| runnable(file).is_ok());
    found.ok_or_else(|| {
        io::Error::new(io::ErrorKind::NotFound, "there is none of that name in PATH")
    })
}

fn runnable(file: &Path) -> io::Result<()> {
    let seen = std::fs::metadata(file)?;
    if !seen.is_file() || seen.permissions().mode() & 0o111 == 0 {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it is not executable"));
    }
    match of_this_machine(file) {
        true => Ok(()),
        false => Err(io::Error::other("it is no program for this machine")),
    }
}

/// Whether the kernel will run it: what it will not, execvp(3) hands to a shell, which makes nonsense
/// of it. A script, or the class, byte order and machine of this very program (elf(5)); a file that
/// cannot be read is the kernel's to judge.
fn of_this_machine(file: &Path) -> bool {
    use std::io::Read as _;
    let head = |path: &Path| -> io::Result<[u8; 20]> {
        let mut head = [0; 20];
        std::fs::File::open(path)?.read_exact(&mut head)?;
        Ok(head)
    };
    match (head(file), head(Path::new("/proc/self/exe"))) {
        (Ok(theirs), _) if theirs.starts_with(b"#!") => true,
        (Ok(theirs), Ok(ours)) => theirs[..6] == ours[..6] && theirs[18..] == ours[18..],
        (Err(error), _) => error.kind() == io::ErrorKind::PermissionDenied,
        (Ok(_), Err(_)) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t8_a_program_that_cannot_run_says_why() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tailscaled");
        let why = |file: &Path| find(file).unwrap_err().to_string();
        assert!(why(&file).contains("No such file"), "{}", why(&file));
        std::fs::write(&file, "x").unwrap();
        assert_eq!(why(&file), "it is not executable");
        assert!(why(Path::new("no-such-program-here")).contains("in PATH"));
        assert!(find(Path::new("sh")).is_ok());
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::write(&file, "#!/bin/sh\nexec /bin/true\n").unwrap();
        assert!(find(&file).is_ok());
        let mut foreign = std::fs::read("/proc/self/exe").unwrap()[..64].to_vec();
        foreign[18] ^= 0xff;
        for wrong in [&foreign[..], b"x", b"just some text, longer than a header"] {
            std::fs::write(&file, wrong).unwrap();
            assert_eq!(why(&file), "it is no program for this machine");
        }
    }
}
