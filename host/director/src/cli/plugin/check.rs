//! `wvs plugin check`: whether a file is a plugin, and what it takes.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::sync::Arc;

use clap::Args;
use serde::Serialize;
use wvs_abi::description::{EXPORTS, Function};
use wvs_abi::{ABI_MAJOR, ABI_MINOR, caps, export};
use wvs_plugin::simulation::{Requests, Servers, Simulation};
use wvs_plugin::{Fault, Host, Instance, InstanceError, Module, RegionError};

use super::source::{PluginSource, Trouble, read_config};
use crate::cli::{FAILED, print, print_json};
use crate::logging::{self, LEVEL_DEFAULT, LogFormat};
use crate::output::{count, grouped};

/// How many servers the fuel of a decision is shown for.
const SIZES: [usize; 4] = [1, 16, 256, 1_024];

/// Decisions that are asked for at each size, and what they are made of.
const DECISIONS: usize = 256;
const SEED: u64 = 1;

/// Characters shown of a name, and names of a list.
const NAME_MAX: usize = 64;
const NAMES_MAX: usize = 8;

/// Check a plugin against the contract and try it, as a director does before it takes it.
///
/// Says what it exports and imports, and what memory and fuel it takes with 1 to 1,024 servers.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wvs plugin check my.wasm
  wvs plugin check my.wasm --config '{\"half_life\": \"5s\"}' --servers 3,1,1
  wvs plugin check my.wat --config @my.json --json
  wvs plugin check builtin:wlc

Exit status: 0 when a director would take it, 1 when not, 2 when a file cannot be read or an argument \
is wrong.")]
pub(super) struct CheckArgs {
    /// The plugin: a .wasm file, a .wat file, or a built-in scheduler's name.
    #[arg(value_name = "FILE")]
    plugin: PluginSource,

    /// Its configuration, as JSON or as @FILE with JSON in it.
    #[arg(long, value_name = "JSON|@FILE")]
    config: Option<String>,

    /// The servers it is tried with: their weights, or as `wvs plugin simulate --help` says.
    #[arg(long, value_name = "SPEC", default_value = "3,1,1")]
    servers: Servers,

    /// Write the answer as JSON.
    #[arg(long)]
    json: bool,
}

/// The answer of `wvs plugin check --json` for a plugin that is refused.
#[derive(Serialize)]
struct Refusal<'r> {
    plugin: String,
    is_good: bool,
    refusal: &'r str,
}

/// The answer for one that is not.
#[derive(Serialize)]
struct Report {
    plugin: String,
    is_good: bool,
    exports: Vec<ExportReport>,
    /// Exports that no director calls.
    other_exports: Vec<String>,
    imports: Vec<String>,
    caps: Vec<&'static str>,
    trial: TrialReport,
    memory: usize,
    memory_limit: usize,
    start_fuel: u64,
    start_fuel_limit: u64,
    decision_fuel_limit: u64,
    fuel: Vec<FuelReport>,
}

/// A function of the contract.
#[derive(Serialize)]
struct ExportReport {
    name: &'static str,
    signature: String,
    is_required: bool,
    is_there: bool,
}

#[derive(Serialize)]
struct TrialReport {
    servers: usize,
    picks: usize,
    no_server: usize,
    defers: usize,
}

/// What it takes with so many servers.
#[derive(Serialize)]
struct FuelReport {
    servers: usize,
    /// Why it does not take so many.
    refusal: Option<String>,
    /// Fuel of being told of them, if it wants to be.
    servers_changed: Option<u64>,
    decision_mean: f64,
    decision_max: u64,
}

pub(super) fn check(args: &CheckArgs) -> u8 {
    // What the plugin itself has to say.
    let _ = logging::start(LogFormat::default(), LEVEL_DEFAULT);
    match examine(args) {
        Ok(report) if args.json => print_json(&report),
        Ok(report) => print(tell(&report).as_bytes()),
        Err(trouble) if args.json && trouble.code == FAILED => {
            let plugin = args.plugin.to_string();
            let _ = print_json(&Refusal { plugin, is_good: false, refusal: &trouble.what });
            FAILED
        }
        Err(trouble) => trouble.tell(),
    }
}

fn examine(args: &CheckArgs) -> Result<Report, Trouble> {
    let plugin = &args.plugin;
    let config = read_config(args.config.as_deref())?;
    let config = config.as_deref();
    let host = Host::new().map_err(Trouble::failed)?;
    let module = plugin.load(&host)?;
    let refused = |error: InstanceError| Trouble::failed(format_args!("{plugin}: {error}"));
    let table = args.servers.table();
    let probe = module.probe_over(config, &table).map_err(refused)?;
    let start_fuel = Instance::new(&module, config).map_err(refused)?.start_fuel_used();
    let fuel = SIZES
        .into_iter()
        .map(|servers| measure(&module, config, servers))
        .collect::<Result<_, _>>()
        .map_err(|what| Trouble::failed(format_args!("{plugin}: {what}")))?;

    let names: HashSet<_> = module.exports().collect();
    let exports = EXPORTS.iter().map(|function| ExportReport {
        name: function.name,
        signature: signature(function),
        is_required: function.is_required,
        is_there: names.contains(function.name),
    });
    let is_of_contract =
        |name: &str| name == export::MEMORY || EXPORTS.iter().any(|function| function.name == name);
    let others = module.exports().filter(|name| !is_of_contract(name));
    let limits = module.limits();
    Ok(Report {
        plugin: plugin.to_string(),
        is_good: true,
        exports: exports.collect(),
        other_exports: others.map(str::to_owned).collect(),
        imports: module.imports().map(|(module, name)| format!("{module}.{name}")).collect(),
        caps: caps_names(probe.caps),
        trial: TrialReport {
            servers: table.servers.len(),
            picks: probe.picks,
            no_server: probe.no_server,
            defers: probe.defers,
        },
        memory: probe.memory,
        memory_limit: limits.memory,
        start_fuel,
        start_fuel_limit: limits.start_fuel.saturating_add(limits.setup_fuel),
        decision_fuel_limit: limits.fuel,
        fuel,
    })
}

/// What decisions over so many servers take; an error when the plugin fails at one.
fn measure(module: &Module, config: Option<&str>, n: usize) -> Result<FuelReport, String> {
    let failed = |what: &dyn std::fmt::Display| {
        format!("with {}: {what}", count(n as u64, "server", "servers"))
    };
    let servers: Servers = format!("{n}x1").parse().map_err(|error| failed(&error))?;
    let table = servers.table();
    let mut report = FuelReport {
        servers: n,
        refusal: None,
        servers_changed: None,
        decision_mean: 0.0,
        decision_max: 0,
    };
    let mut instance = Instance::new(module, config).map_err(|error| failed(&error))?;
    match instance.set_servers(&Arc::clone(&table)) {
        Ok(()) => {}
        Err(fault @ (Fault::ServersRefused(_) | Fault::Region(RegionError::Refused { .. }))) => {
            report.refusal = Some(fault.to_string());
            return Ok(report);
        }
        Err(fault) => return Err(failed(&fault)),
    }
    report.servers_changed =
        module.exports().any(|name| name == export::SERVERS_CHANGED).then(|| instance.fuel_used());
    let simulation = Simulation::new(servers, Requests::random(SEED, DECISIONS));
    let tally = simulation.run(module, config).map_err(|error| failed(&error))?.tally;
    if let Some(first) = &tally.first_fault {
        return Err(failed(&format_args!("request {}: {}", first.request, first.fault)));
    }
    (report.decision_mean, report.decision_max) = (tally.fuel_mean, tally.fuel_max);
    Ok(report)
}

fn signature(function: &Function) -> String {
    let Function { parameters, result, .. } = function;
    let result = if result.is_empty() { "()" } else { result };
    format!("({}) -> {result}", parameters.join(", "))
}

fn caps_names(bits: u32) -> Vec<&'static str> {
    let all = caps::DESCRIPTION.constants.iter();
    let has = all.filter(|constant| i64::from(bits) & constant.value != 0);
    has.map(|constant| constant.name).collect()
}

fn tell(report: &Report) -> String {
    // Writing to a String cannot fail.
    let mut text =
        format!("{}: good, version {ABI_MAJOR}.{ABI_MINOR} of the contract\n", report.plugin);
    let _ = writeln!(text, "exports\n  {}", export::MEMORY);
    for export in report.exports.iter().filter(|export| export.is_there) {
        let _ = writeln!(text, "  {} {}", export.name, export.signature);
    }
    let missing = report.exports.iter().filter(|export| !export.is_there);
    let missing: Vec<_> = missing.map(|export| export.name.to_owned()).collect();
    for (what, names) in [
        ("  optional and not there: ", &missing),
        ("  not the director's: ", &report.other_exports),
        ("imports: ", &report.imports),
    ] {
        if !names.is_empty() {
            let _ = writeln!(text, "{what}{}", list(names));
        }
    }
    if report.imports.is_empty() {
        text.push_str("imports: none\n");
    }
    let caps = if report.caps.is_empty() { "none".to_owned() } else { report.caps.join(", ") };
    let TrialReport { servers, picks, no_server, defers } = report.trial;
    let _ = writeln!(text, "caps: {caps}");
    let _ = writeln!(
        text,
        "trial: {} over {}: {picks} got a server, {no_server} got none, {defers} were left to the \
         director",
        count((picks + no_server + defers) as u64, "request", "requests"),
        count(servers as u64, "server", "servers"),
    );
    let _ = writeln!(
        text,
        "memory: {} of {} octets",
        grouped(report.memory as u64),
        grouped(report.memory_limit as u64)
    );
    let _ = writeln!(
        text,
        "fuel to start and take its configuration: {} of {}",
        grouped(report.start_fuel),
        grouped(report.start_fuel_limit)
    );
    let _ = writeln!(
        text,
        "fuel by servers:   told of them   a decision      at most   of the limit, {}",
        grouped(report.decision_fuel_limit)
    );
    for row in &report.fuel {
        let _ = write!(text, "  {:>13}", grouped(row.servers as u64));
        let _ = match &row.refusal {
            Some(refusal) => writeln!(text, "   not so many: {refusal}"),
            None => writeln!(
                text,
                "{:>15}{:>13}{:>13}{:>9.2} %",
                row.servers_changed.map_or_else(|| "-".to_owned(), grouped),
                format!("{:.0}", row.decision_mean),
                grouped(row.decision_max),
                row.decision_max as f64 * 100.0 / report.decision_fuel_limit as f64,
            ),
        };
    }
    text
}

/// The first few names, of which a module may have any number, in any characters.
fn list(names: &[String]) -> String {
    let shown = names.iter().take(NAMES_MAX).map(|name| {
        let char = |char: char| if char.is_ascii_graphic() { char } else { '?' };
        name.chars().take(NAME_MAX).map(char).collect::<String>()
    });
    let mut text = shown.collect::<Vec<_>>().join(", ");
    if names.len() > NAMES_MAX {
        let _ = write!(text, " and {} more", names.len() - NAMES_MAX);
    }
    text
}
