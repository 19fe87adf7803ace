//! `wvs doctor`: what is wrong around a director, and what mends it.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::Path;

use clap::Args;
use serde::Serialize;

use super::{ConfigArg, DONE, FAILED, fail, print, print_json, refuse, runtime};
use crate::config::Reading;
use crate::doctor::{self, DirectorState, Probing, Report, Severity};
use crate::output::count;
use crate::run::VERSION;

/// Find what keeps a director from working, and the commands that mend it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wvs doctor -c wvs.yaml           before a start, or beside the running director
  wvs doctor -c wvs.yaml --probe   also ask every real server in a client's name
  wvs doctor -c wvs.yaml --json    for programs

Looks at rights, settings, routes, rules, addresses, MTUs, and at what the director that runs with \
this configuration has seen. It changes nothing: the commands are for you to give.

--probe sends each real server a SYN or a ping in the name of 192.0.2.1 or 2001:db8::1, which nobody \
has, and sees whether the answer comes back by this host; then pings as long as the way should carry. \
It needs root, or CAP_NET_RAW.

Exit status: 0 no errors found, though perhaps warnings; 1 errors found, or none could be looked for; \
2 wrong usage or a bad configuration.")]
pub(super) struct DoctorArgs {
    #[command(flatten)]
    config: ConfigArg,

    /// Ask every real server, to see whether its replies come back by this host.
    #[arg(long)]
    probe: bool,

    /// Ask in the name of this client instead, where servers have routes to some clients only.
    #[arg(long, value_name = "ADDRESS", requires = "probe")]
    client: Option<IpAddr>,

    /// Write everything as JSON.
    #[arg(long)]
    json: bool,
}

/// The answer of `wvs doctor --json`.
#[derive(Serialize)]
struct Answer<'r> {
    version: &'static str,
    file: &'r Path,
    #[serde(flatten)]
    report: &'r Report,
}

pub(super) fn doctor(args: &DoctorArgs) -> u8 {
    let file = &args.config.config;
    let reading = Reading::of_file(file);
    if !reading.is_usable() {
        return refuse(reading);
    }
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => return fail(format_args!("cannot start: {error}")),
    };
    let probing = Probing { is_wanted: args.probe, client: args.client };
    let report = match runtime.block_on(doctor::examine(reading.config(), file, probing)) {
        Ok(report) => report,
        Err(error) => return fail(error),
    };
    let written = if args.json {
        print_json(&Answer { version: VERSION, file, report: &report })
    } else {
        print(text(file, &report).as_bytes())
    };
    match written {
        DONE if report.has_errors() => FAILED,
        written => written,
    }
}

fn text(file: &Path, report: &Report) -> String {
    let mut text = String::new();
    for finding in &report.findings {
        let _ = writeln!(text, "{finding}\n");
    }
    let errors = report.findings.iter().filter(|of| of.severity == Severity::Error).count();
    let warnings = report.findings.len() - errors;
    let director = match report.director {
        DirectorState::Running => "the running director",
        DirectorState::Stopped => "this host, where no director is running",
        DirectorState::Unknown => "this host, whose director cannot be asked",
    };
    let found = if report.findings.is_empty() {
        "nothing is wrong".to_owned()
    } else {
        format!("{}, {}", count(errors, "error", "errors"), count(warnings, "warning", "warnings"))
    };
    let _ = writeln!(text, "{}: {found} with {director}", file.display());
    for unexamined in &report.unexamined {
        let _ = writeln!(text, "not examined: {unexamined}");
    }
    text
}
