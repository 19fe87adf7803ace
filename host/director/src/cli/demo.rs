//! `wvs demo`: the whole thing at work.

use std::io::{self, IsTerminal};
use std::path::PathBuf;

use clap::Args;

use super::{DONE, FAILED, fail, print_json};
use crate::demo::{self, Options};

/// Show a director at work on this machine, in network namespaces of its own.
///
/// Real connections, real wasm schedulers replaced under load, and one that fails.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wvs demo
  wvs demo --scheduler my.wasm    with a scheduler of your own
  wvs demo --keep                 and look around in it

Touches nothing outside the network namespaces that it makes, and leaves nothing behind. Needs root, \
or a kernel that lets users make namespaces. Ends with status 0 when everything was as expected.")]
pub(super) struct DemoArgs {
    /// A plugin to show in place of the built-in ones.
    #[arg(long, value_name = "FILE")]
    scheduler: Option<PathBuf>,

    /// Keep the director running until Ctrl-C.
    #[arg(long)]
    keep: bool,

    /// Write what was found out as JSON, for programs.
    #[arg(long, conflicts_with = "keep")]
    json: bool,
}

pub(super) fn demo(args: &DemoArgs) -> u8 {
    let options = Options { scheduler: args.scheduler.clone(), keep: args.keep, json: args.json };
    let is_terminal = io::stdout().is_terminal();
    match demo::run(&options, &mut io::stdout(), is_terminal) {
        Ok(report) => {
            let written = if args.json { print_json(&report) } else { DONE };
            if report.is_good() { written } else { FAILED }
        }
        Err(error) => fail(error),
    }
}
