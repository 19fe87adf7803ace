//! `wvs import`: rules of other programs for LVS, as a configuration.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::{DONE, FAILED, complain, fail, print, refuse};
use crate::config::read_at_most;
use crate::import::{self, INPUT_OCTETS_MAX, Import, ImportError, Source};
use crate::output::count;

/// Make a configuration of another program's rules.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ipvsadm -S -n | wvs import ipvsadm > wvs.yaml
  wvs import keepalived /etc/keepalived/keepalived.conf -o wvs.yaml
  wvs check -c wvs.yaml

What has no equivalent is left out: it is named with its line in a comment of the configuration, and \
on standard error.

Exit status: 0 when a good configuration was written, 1 when it is too large for one or something \
cannot be read or written, 2 when there is no virtual service in the rules.")]
pub(super) struct ImportArgs {
    #[command(subcommand)]
    source: SourceCommand,
}

#[derive(Debug, Subcommand)]
enum SourceCommand {
    /// From what `ipvsadm -S -n` writes, or from lines of `ipvsadm -A` and `-a`.
    Ipvsadm(FileArgs),
    /// From the virtual servers of a keepalived.conf.
    Keepalived(FileArgs),
}

#[derive(Debug, Args)]
struct FileArgs {
    /// The rules [default: standard input].
    file: Option<PathBuf>,

    /// Where to write the configuration, a file that does not exist [default: standard output].
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(super) fn import(args: &ImportArgs) -> u8 {
    let (source, files) = match &args.source {
        SourceCommand::Ipvsadm(files) => (Source::Ipvsadm, files),
        SourceCommand::Keepalived(files) => (Source::Keepalived, files),
    };
    let name = match &files.file {
        Some(file) => file.display().to_string(),
        None => "standard input".to_owned(),
    };
    let octets = match read(files.file.as_deref()) {
        Ok(octets) => octets,
        Err(error) => return fail(format_args!("{name}: cannot be read: {error}")),
    };
    let Ok(text) = String::from_utf8(octets) else {
        return refuse(format_args!("{name}: not UTF-8; save the rules as UTF-8"));
    };
    let imported = match import::import(source, &name, &text) {
        Ok(imported) => imported,
        Err(error) => {
            if let ImportError::NoService { notes } = &error {
                notes.iter().for_each(complain);
            }
            return refuse(format_args!("{name}: {error}"));
        }
    };
    let Import { yaml, notes, services, servers, reading } = imported;
    notes.iter().for_each(complain);
    let done = if reading.is_usable() {
        DONE
    } else {
        complain(&reading);
        FAILED
    };
    let Some(output) = &files.output else { return print(yaml.as_bytes()).max(done) };
    let written = File::create_new(output).and_then(|mut file| file.write_all(yaml.as_bytes()));
    let output = output.display();
    match written {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return fail(format_args!("{output}: exists already; remove it, or give another name"));
        }
        Err(error) => return fail(format_args!("{output}: cannot be written: {error}")),
    }
    let (services, servers) =
        (count(services, "service", "services"), count(servers, "real server", "real servers"));
    complain(format_args!("{output}: {services}, {servers}"));
    done
}

/// The rules, cut off above the limit, which tells that there are more.
fn read(file: Option<&Path>) -> io::Result<Vec<u8>> {
    if let Some(file) = file {
        return read_at_most(file, INPUT_OCTETS_MAX);
    }
    let input = io::stdin();
    if input.is_terminal() {
        complain("reading rules from the terminal, up to Ctrl-D");
    }
    let limit = u64::try_from(INPUT_OCTETS_MAX).unwrap_or(u64::MAX).saturating_add(1);
    let mut octets = Vec::new();
    input.lock().take(limit).read_to_end(&mut octets)?;
    Ok(octets)
}
