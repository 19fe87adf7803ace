//! `wvs plugin simulate --replay`: what a director recorded, put to a plugin again.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Serialize;
use wvs_plugin::recording::{Answer, Recording, Subject};
use wvs_plugin::{Difference, Host, ReplayReport};

use super::super::source::{PluginSource, Trouble, unreadable};
use super::{SERVERS_SHOWN_MAX, many};
use crate::cli::{FAILED, print, print_json};
use crate::config::read_at_most;
use crate::output::grouped;

/// Octets of a recording that is read.
const RECORDING_OCTETS_MAX: usize = 1 << 30;

/// The answer of `wvs plugin simulate --replay --json`.
#[derive(Serialize)]
struct Report {
    plugin: String,
    recording: PathBuf,
    /// What was recorded, by generation.
    recorded: Vec<Recorded>,
    decisions: u64,
    differences: u64,
    other_module: u64,
    inexact: u64,
    first_difference: Option<FirstDifference>,
}

/// A plugin in the recording.
#[derive(PartialEq, Eq, Serialize)]
struct Recorded {
    name: String,
    generation: u16,
    is_same_module: bool,
}

/// The first decision that comes out otherwise.
#[derive(Serialize)]
struct FirstDifference {
    decision: u64,
    client: SocketAddr,
    now_ms: u64,
    recorded: String,
    replayed: String,
    servers: Vec<Server>,
}

/// A server as the plugin saw it.
#[derive(Serialize)]
struct Server {
    id: u32,
    weight: u32,
    active: u32,
    inactive: u32,
}

/// Puts the recording at `path` to the plugin and says how it did.
pub(super) fn replay(plugin: &PluginSource, path: &Path, is_json: bool) -> u8 {
    let report = match run(plugin, path) {
        Ok(report) => report,
        Err(trouble) => return trouble.tell(),
    };
    let told = if is_json { print_json(&report) } else { print(tell(&report).as_bytes()) };
    if report.differences == 0 { told } else { FAILED }
}

fn run(plugin: &PluginSource, path: &Path) -> Result<Report, Trouble> {
    let octets =
        read_at_most(path, RECORDING_OCTETS_MAX).map_err(|cause| unreadable(path, &cause))?;
    let recording = Recording::read(&octets)
        .map_err(|error| Trouble::refused(format_args!("{}: {error}", path.display())))?;
    let host = Host::new().map_err(Trouble::failed)?;
    let module = plugin.load_within(&host, recording.limits())?;
    let replayed = recording
        .replay(&module)
        .map_err(|error| Trouble::failed(format_args!("{plugin}: {error}")))?;
    let ReplayReport { decisions, differences, first_difference, other_module, inexact } = replayed;
    let mut recorded = Vec::new();
    for segment in &recording.segments {
        let Subject { name, generation, sha256, .. } = &segment.heading.subject;
        let is_same_module = sha256 == module.sha256();
        let name = name.clone();
        let entry = Recorded { name, generation: *generation, is_same_module };
        if !recorded.contains(&entry) {
            recorded.push(entry);
        }
    }
    Ok(Report {
        plugin: plugin.to_string(),
        recording: path.to_owned(),
        recorded,
        decisions,
        differences,
        other_module,
        inexact,
        first_difference: first_difference.map(Into::into),
    })
}

impl From<Difference> for FirstDifference {
    fn from(difference: Difference) -> Self {
        let Difference { decision, request, servers, recorded, replayed } = difference;
        let name = |answer| match answer {
            Answer::Server(index) => match servers.get(index as usize) {
                Some(server) => format!("server {index}, whose id is {}", server.id),
                None => format!("server {index}"),
            },
            Answer::NoServer => "no server".to_owned(),
            Answer::Defer => "left to the director".to_owned(),
            Answer::Fault => "a fault".to_owned(),
        };
        let servers_seen = servers.iter().map(|server| Server {
            id: server.id,
            weight: server.weight,
            active: server.active,
            inactive: server.inactive,
        });
        Self {
            decision,
            client: SocketAddr::new(request.client(), request.client_port),
            now_ms: request.now_ms,
            recorded: name(recorded),
            replayed: name(replayed),
            servers: servers_seen.collect(),
        }
    }
}

fn tell(report: &Report) -> String {
    let Report { plugin, recording, decisions, differences, .. } = report;
    let mut text = format!(
        "{plugin}: {} of {}, {} answered otherwise\n",
        many(*decisions, "decision", "decisions"),
        recording.display(),
        grouped(*differences),
    );
    for Recorded { name, generation, is_same_module } in &report.recorded {
        let same = if *is_same_module { "the same module" } else { "another module" };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  recorded: {name}, generation {generation}, {same}");
    }
    if report.inexact > 0 {
        let _ = writeln!(
            text,
            "  {} may differ for another reason: the recording does not reach back to the plugin's \
             start",
            many(report.inexact, "decision", "decisions"),
        );
    }
    if let Some(first) = &report.first_difference {
        let _ = writeln!(
            text,
            "  they first differ at decision {}, for {} at {} ms:\n    recorded  {}\n    now       {}\n  \
             over these servers:",
            grouped(first.decision),
            first.client,
            grouped(first.now_ms),
            first.recorded,
            first.replayed,
        );
        for server in first.servers.iter().take(SERVERS_SHOWN_MAX) {
            let Server { id, weight, active, inactive } = server;
            let _ = writeln!(
                text,
                "    id {id}  weight {weight}, {active} active, {inactive} inactive"
            );
        }
    }
    text
}
