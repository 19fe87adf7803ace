//! `wvs check`: everything that is wrong with a configuration.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::{ConfigArg, REFUSED, complain, fail, print, print_json, refuse, runtime};
use crate::config::{Config, ConnectionLogConfig, LogTarget, Problem, Reading, RoutingMode};
use crate::control::snapshot::ReloadSnapshot;
use crate::control::{self, AskError, Message, PREVIEW};
use crate::output::{self, count};
use crate::run::route_needs;
use crate::{deployment, route};

/// Check a configuration, and try its plugins, without touching anything.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wvs check -c wvs.yaml
  wvs check -c wvs.yaml --json
  wvs check -c wvs.yaml --diff   what a reload would change at the running director

Exit status: 0 when the configuration can be run, 2 when not. Problems are written to standard \
error, with --json to standard output. What would refuse a start on this host only, as it is now, \
is a warning.")]
pub(super) struct CheckArgs {
    #[command(flatten)]
    config: ConfigArg,

    /// Write the problems as JSON to standard output; with --diff what would change.
    #[arg(long)]
    json: bool,

    /// Say what a reload would change at the running director if its file were this one.
    #[arg(long)]
    diff: bool,

    /// With --diff, the director's control socket [default: the configuration's].
    #[arg(long, value_name = "PATH", requires = "diff")]
    socket: Option<PathBuf>,
}

/// The answer of `wvs check --json`.
#[derive(Serialize)]
struct Report<'r> {
    file: &'r Path,
    is_usable: bool,
    problems: &'r [Problem],
    /// What would refuse a start on this host, as it is now.
    on_this_host: &'r [String],
}

pub(super) fn check(args: &CheckArgs) -> u8 {
    if args.diff {
        return diff(args);
    }
    let reading = match deployment::check(&args.config.config) {
        Ok(reading) => reading,
        Err(error) => return fail(error),
    };
    let is_usable = reading.is_usable();
    let on_this_host = if is_usable { look_at_host(reading.config()) } else { Vec::new() };
    if args.json {
        let report = Report {
            file: reading.file(),
            is_usable,
            problems: reading.problems(),
            on_this_host: &on_this_host,
        };
        let code = print_json(&report);
        return if is_usable { code } else { REFUSED };
    }
    if !reading.problems().is_empty() {
        complain(&reading);
    }
    if !is_usable {
        return REFUSED;
    }
    for sentence in &on_this_host {
        complain(format_args!("a warning for this host: {sentence}"));
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

/// What a reload would change. The director reads and tries everything itself: it knows best what
/// plugins and paths mean where it runs.
fn diff(args: &CheckArgs) -> u8 {
    let reading = Reading::of_file(&args.config.config);
    if !reading.is_usable() {
        return refuse(reading);
    }
    let text = reading.text().to_owned();
    let socket = args.socket.clone().unwrap_or_else(|| reading.config().socket.clone());
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => return fail(error),
    };
    let asked = control::tell::<ReloadSnapshot>(&socket, PREVIEW, Message::Text(text));
    match runtime.block_on(asked) {
        Ok(preview) if args.json => print_json(&preview),
        Ok(preview) => print(output::reload::list(&preview).as_bytes()),
        Err(error @ AskError::Refused { .. }) => refuse(error),
        Err(error) => fail(error),
    }
}

/// What would refuse a start on this host, as it is now.
fn look_at_host(config: &Config) -> Vec<String> {
    let mut unfit = Vec::new();
    let group = config.admin.group.as_deref().map(control::group_of);
    unfit.extend(group.and_then(Result::err).map(|error| error.to_string()));
    if let Some(ConnectionLogConfig { target: LogTarget::File(file), .. }) = &config.connection_log
        && let Some(folder) = file.parent().filter(|folder| *folder != Path::new(""))
        && !folder.is_dir()
    {
        let (file, folder) = (file.display(), folder.display());
        unfit.push(format!("no folder {folder} for the connection log {file}: make it"));
    }
    // Unless routes are none of the director's business.
    if config.routing != RoutingMode::Off
        && let Ok(runtime) = runtime()
    {
        // Nothing where the kernel does not say.
        let routes = runtime.block_on(route::check(&route_needs(config))).unwrap_or_default();
        unfit.extend(routes.iter().map(ToString::to_string));
    }
    unfit
}
