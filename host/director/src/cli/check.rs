//! `wvs check`: everything that is wrong with a configuration.

use std::path::Path;

use clap::Args;
use serde::Serialize;

use super::{ConfigArg, REFUSED, complain, fail, print, print_json};
use crate::config::Problem;
use crate::deployment;
use crate::output::count;

/// Check a configuration, and try its plugins, without touching anything.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wvs check -c wvs.yaml
  wvs check -c wvs.yaml --json

Exit status: 0 when the configuration can be run, 2 when not. Problems are written to standard \
error, with --json to standard output.")]
pub(super) struct CheckArgs {
    #[command(flatten)]
    config: ConfigArg,

    /// Write the problems as JSON to standard output.
    #[arg(long)]
    json: bool,
}

/// The answer of `wvs check --json`.
#[derive(Serialize)]
struct Report<'r> {
    file: &'r Path,
    is_usable: bool,
    problems: &'r [Problem],
}

pub(super) fn check(args: &CheckArgs) -> u8 {
    let reading = match deployment::check(&args.config.config) {
        Ok(reading) => reading,
        Err(error) => return fail(error),
    };
    let is_usable = reading.is_usable();
    if args.json {
        let report = Report { file: reading.file(), is_usable, problems: reading.problems() };
        let code = print_json(&report);
        return if is_usable { code } else { REFUSED };
    }
    if !reading.problems().is_empty() {
        complain(&reading);
    }
    if !is_usable {
        return REFUSED;
    }
    let config = reading.config();
    let servers = config.services.iter().map(|service| service.servers.len()).sum::<usize>();
    let text = format!(
        "{}: good, {}, {}\n",
        args.config.config.display(),
        count(config.services.len(), "service", "services"),
        count(servers, "real server", "real servers"),
    );
    print(text.as_bytes())
}
