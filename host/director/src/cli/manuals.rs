//! `wvs manuals`: the manual pages, made from the same texts as `--help`.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Command, CommandFactory};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

use super::{CommandLine, DONE, fail};
use crate::run::VERSION;

/// Write the manual pages of wvs and its commands.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wvs manuals /usr/local/share/man/man1
  wvs manuals . && man ./wvs-run.1")]
pub(super) struct ManualsArgs {
    /// The folder to write them to, made if it is missing.
    folder: PathBuf,
}

pub(super) fn manuals(args: &ManualsArgs) -> u8 {
    match write_all(&args.folder) {
        Ok(()) => DONE,
        Err(error) => {
            fail(format_args!("cannot write manual pages to {}: {error}", args.folder.display()))
        }
    }
}

fn write_all(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let mut command = CommandLine::command().disable_help_subcommand(true);
    command.build();
    write_pages(&command, None, folder)
}

/// The page of a command, and those of its commands.
fn write_pages(command: &Command, parent: Option<&str>, folder: &Path) -> io::Result<()> {
    let name = command.get_display_name().unwrap_or(command.get_name());
    for command in command.get_subcommands().filter(|command| !command.is_hide_set()) {
        write_pages(command, Some(name), folder)?;
    }
    let man = Man::new(command.clone()).manual("WVS").source(format!("wvs {VERSION}"));
    let mut page = BufWriter::new(File::create(folder.join(man.get_filename()))?);
    write_page(&man, command, parent, &mut page)?;
    page.flush()
}

fn write_page(
    man: &Man,
    command: &Command,
    parent: Option<&str>,
    page: &mut dyn Write,
) -> io::Result<()> {
    man.render_title(page)?;
    man.render_name_section(page)?;
    man.render_synopsis_section(page)?;
    man.render_description_section(page)?;
    man.render_options_section(page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(page)?;
    }
    let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let mut rest = sections(&after);
    if let Some(parent) = parent {
        rest.control("SH", ["SEE ALSO"]);
        rest.text([roman(format!("{parent}(1)"))]);
    }
    rest.to_writer(page)
}

/// What stands behind a command's options in its help: paragraphs of examples, of the exit status, and of
/// more to know.
fn sections(after: &str) -> Roff {
    let mut page = Roff::new();
    let mut section = "";
    for paragraph in after.split("\n\n").filter(|paragraph| !paragraph.is_empty()) {
        let (heading, text) = if let Some(text) = paragraph.strip_prefix("Examples:\n") {
            ("EXAMPLES", text)
        } else if let Some(text) = paragraph.strip_prefix("Exit status: ") {
            ("EXIT STATUS", text)
        } else {
            ("NOTES", paragraph)
        };
        if heading == section {
            page.control("PP", []);
        } else {
            page.control("SH", [heading]);
            section = heading;
        }
        // Lines that are set in stand as they are, the others run on.
        for lines in text.lines().collect::<Vec<_>>().chunk_by(|a, b| is_set_in(a) == is_set_in(b))
        {
            let is_set_in = is_set_in(lines[0]);
            if is_set_in {
                page.control("nf", []);
            }
            for line in lines {
                page.text([roman(*line)]);
            }
            if is_set_in {
                page.control("fi", []);
            }
        }
    }
    page
}

fn is_set_in(line: &str) -> bool {
    line.starts_with(' ')
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn every_command_has_a_page_with_the_sections_of_its_help() {
        let folder = TempDir::new().unwrap();
        write_all(&folder.path().join("man1")).unwrap();
        let page = |name: &str| fs::read_to_string(folder.path().join("man1").join(name)).unwrap();
        let headings = |page: &str| {
            page.lines()
                .filter_map(|line| line.strip_prefix(".SH "))
                .map(|heading| heading.trim_matches('"').to_owned())
                .collect::<Vec<_>>()
        };
        let check = page("wvs-check.1");
        let first = ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXAMPLES", "EXIT STATUS"];
        assert_eq!(headings(&check), [&first[..], &["SEE ALSO"]].concat());
        assert!(check.contains("wvs check \\-c wvs.yaml\n"), "{check}");
        assert!(check.ends_with("\nwvs(1)\n"), "{check}");
        assert!(page("wvs-plugin-swap.1").ends_with("wvs\\-plugin(1)\n"));
        let command = CommandLine::command();
        let names = command.get_subcommands().map(Command::get_name);
        for name in names.map(|name| format!("wvs-{name}.1")).chain(["wvs.1".to_owned()]) {
            assert!(page(&name).starts_with(".ie"), "{name}");
        }
    }
}
