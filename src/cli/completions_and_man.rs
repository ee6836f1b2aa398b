//! `tailrace completions` and `tailrace man`, both made from the command line itself.
#![forbid(unsafe_code)]

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::{Command, CommandFactory as _};

use super::args::Program;
use super::exit;

pub(super) fn completions(shell: clap_complete::Shell) -> ExitCode {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Program::command(), "tailrace", &mut text);
    print(&text)
}

/// One page: the program, then each command.
pub(super) fn man() -> ExitCode {
    let command = Program::command();
    let mut text = Vec::new();
    let rendered = clap_mangen::Man::new(command.clone()).render(&mut text);
    let rendered = rendered.and_then(|()| sections(&command, "tailrace", &mut text));
    match rendered {
        Ok(()) => print(&text),
        Err(error) => {
            eprintln!("tailrace: the manual page could not be made: {error}");
            ExitCode::from(exit::FAILED)
        }
    }
}

fn sections(command: &Command, name: &str, text: &mut Vec<u8>) -> io::Result<()> {
    for sub in command.get_subcommands() {
        let name = format!("{name} {}", sub.get_name());
        let page = clap_mangen::Man::new(sub.clone());
        writeln!(text, ".SH {}", name.to_uppercase())?;
        page.render_description_section(text)?;
        page.render_options_section(text)?;
        sections(sub, &name, text)?;
    }
    Ok(())
}

/// All at once; a reader that has seen enough, `head` say, has ended us by then.
fn print(text: &[u8]) -> ExitCode {
    let _full_disk = io::stdout().write_all(text);
    ExitCode::SUCCESS
}
