//! Plugins at work, and what changed about them.

use std::fmt::Write as _;

use super::{address, columns, count, printable};
use crate::config::units::{Percent, format_duration, format_size};
use crate::control::snapshot::{
    ChangeSnapshot, FuelSnapshot, GenerationSnapshot, PicksSnapshot, PluginSnapshot, SeatSnapshot,
    SwapSnapshot, TimeSnapshot, TrialSnapshot,
};

/// The plugins of several services, one in a line.
#[must_use]
pub fn table(seats: &[SeatSnapshot]) -> String {
    let head =
        ["SERVICE", "PLUGIN", "GEN", "PICKS", "FAULTS", "FUEL", "TIME", "QUARANTINE", "TRIAL"];
    let row = |seat: &SeatSnapshot| {
        let plugin = &seat.plugin;
        [
            seat.service.clone(),
            plugin.name.clone(),
            plugin.generation.to_string(),
            plugin.picks.to_string(),
            plugin.faults.to_string(),
            fuel(&plugin.fuel),
            time(&plugin.time),
            quarantine(plugin).unwrap_or_else(|| "-".to_owned()),
            seat.trial.as_ref().map_or_else(|| "-".to_owned(), trial_in_short),
        ]
    };
    columns(std::iter::once(head.map(str::to_owned)).chain(seats.iter().map(row)))
}

/// Everything about the plugins of one service.
#[must_use]
pub fn describe(seat: &SeatSnapshot) -> String {
    let SeatSnapshot { service, plugin, probation, record, past, swaps, rollback, trial } = seat;
    let mut text = format!("service {service}\n");
    // Writing to a String cannot fail.
    let _ = writeln!(text, "  at work: {} (generation {})", plugin.name, plugin.generation);
    describe_plugin(&mut text, plugin);
    let times = count(*swaps, "time", "times");
    let _ = writeln!(text, "  replaced {times}; probation of {probation} decisions");
    if let Some(octets) = record {
        let _ = writeln!(text, "  recorded: the latest {octets} octets; see `wvs plugin record`");
    }
    if let Some(rollback) = rollback {
        let fault = rollback.fault.as_deref().map_or_else(String::new, printable);
        let from = rollback.from;
        let _ = writeln!(text, "  went back by itself from generation {from}: {fault}");
    }
    if !past.is_empty() {
        let past: Vec<_> = past.iter().map(GenerationSnapshot::to_string).collect();
        let _ = writeln!(text, "  can go back to: {}", past.join(", "));
    }
    if let Some(trial) = trial {
        describe_trial(&mut text, trial);
    }
    text
}

fn describe_plugin(text: &mut String, plugin: &PluginSnapshot) {
    let PluginSnapshot { sha256, config, memory, .. } = plugin;
    let _ = writeln!(text, "    sha256 {sha256}");
    if let Some(config) = config {
        let _ = writeln!(text, "    config {}", printable(&config.to_string()));
    }
    let memory = format_size(u64::try_from(*memory).unwrap_or(u64::MAX));
    let _ = writeln!(
        text,
        "    {} picks, {} no server, {} left to the director, {} unavailable",
        plugin.picks, plugin.no_server, plugin.defers, plugin.unavailable
    );
    let _ = writeln!(
        text,
        "    fuel {}, time {}, memory {memory}, {}, {}",
        fuel(&plugin.fuel),
        time(&plugin.time),
        count(plugin.events, "event", "events"),
        count(plugin.ticks, "tick", "ticks"),
    );
    if plugin.log_lines + plugin.suppressed_lines > 0 {
        let lines = count(plugin.log_lines, "log line", "log lines");
        let _ = writeln!(text, "    {lines}, {} suppressed", plugin.suppressed_lines);
    }
    if plugin.faults > 0 {
        let kinds = plugin.faults_by_kind.iter().filter(|(_, faults)| **faults > 0);
        let kinds: Vec<_> = kinds.map(|(kind, faults)| format!("{kind} {faults}")).collect();
        let faults = count(plugin.faults, "fault", "faults");
        let _ = write!(text, "    {faults} ({})", kinds.join(", "));
        if let Some(fault) = &plugin.last_fault {
            let _ = write!(text, ", last: {}", printable(fault));
        }
        let _ = writeln!(text);
    }
    if plugin.quarantines + plugin.rebuilds > 0 {
        let _ = writeln!(
            text,
            "    {}, {}{}",
            count(plugin.quarantines, "quarantine", "quarantines"),
            count(plugin.rebuilds, "new instance", "new instances"),
            quarantine(plugin).map_or_else(String::new, |left| format!(", not asked for {left}")),
        );
    }
}

fn describe_trial(text: &mut String, trial: &TrialSnapshot) {
    let TrialSnapshot { candidate, share, decisions, obeyed, skew, picks, .. } = trial;
    let name = format!("{} (generation {})", candidate.name, candidate.generation);
    let _ = match &trial.stopped {
        Some(reason) => writeln!(text, "  trial of {name}: stopped after {}", printable(reason)),
        None => writeln!(text, "  trial of {name}: obeyed for {share} of the clients"),
    };
    describe_plugin(text, candidate);
    let agreement = Percent::of(trial.agreements, *decisions);
    let _ = writeln!(
        text,
        "    {}, same answer to {agreement}, {obeyed} obeyed; skew {skew}, stops above {} or at {}",
        count(*decisions, "decision", "decisions"),
        trial.skew_max,
        count(trial.faults_max, "fault", "faults"),
    );
    let total = |whose: fn(&PicksSnapshot) -> u64| picks.iter().map(whose).sum::<u64>();
    let (plugins, candidates) = (total(|picks| picks.plugin), total(|picks| picks.candidate));
    for picks in picks {
        let server = picks.server.map_or_else(
            || "a server that is gone".to_owned(),
            |server| address(server.ip(), server.port()),
        );
        let plugin = Percent::of(picks.plugin, plugins);
        let candidate = Percent::of(picks.candidate, candidates);
        let _ = writeln!(
            text,
            "      -> {server:<26} {plugin:>7} by the plugin, {candidate:>7} by the candidate"
        );
    }
}

/// What a change changed, in a line.
#[must_use]
pub fn change(change: &ChangeSnapshot) -> String {
    let text = match change {
        ChangeSnapshot::Swap { service, swap } => format!("{service}: {}", describe_swap(swap)),
        ChangeSnapshot::Reset { service, plugin } => {
            format!("{service}: {plugin} starts anew, its faults forgotten")
        }
        ChangeSnapshot::Shadow { service, candidate } => {
            format!("{service}: {candidate} is tried out, without being obeyed")
        }
        ChangeSnapshot::Canary { service, candidate, share } => {
            format!("{service}: {candidate} is obeyed for {share} of the clients")
        }
        ChangeSnapshot::TrialEnded { service, candidate } => {
            format!("{service}: the trial of {candidate} has ended")
        }
    };
    text + "\n"
}

pub(super) fn describe_swap(swap: &SwapSnapshot) -> String {
    let SwapSnapshot { from, to, is_state_carried, took_us } = swap;
    let state = if *is_state_carried { "with its state" } else { "from the start" };
    format!("{from} -> {to}, {state}, in {took_us} µs")
}

fn trial_in_short(trial: &TrialSnapshot) -> String {
    let TrialSnapshot { candidate, share, decisions, agreements, skew, .. } = trial;
    let PluginSnapshot { name, generation, .. } = candidate;
    match &trial.stopped {
        Some(reason) => format!("{name} gen {generation}: stopped, {}", printable(reason)),
        None => {
            let agreement = Percent::of(*agreements, *decisions);
            format!("{name} gen {generation}: {share} of clients, same {agreement}, skew {skew}")
        }
    }
}

/// Mean and most.
fn fuel(fuel: &FuelSnapshot) -> String {
    format!("{}/{}", fuel.mean, fuel.max)
}

fn time(time: &TimeSnapshot) -> String {
    format!("{}/{}", in_unit(time.mean_ns), in_unit(time.max_ns))
}

/// A time with about three digits.
fn in_unit(ns: u64) -> String {
    match ns {
        0..1_000 => format!("{ns}ns"),
        1_000..1_000_000 => format!("{}.{}µs", ns / 1_000, ns % 1_000 / 100),
        _ => format!("{}.{}ms", ns / 1_000_000, ns % 1_000_000 / 100_000),
    }
}

fn quarantine(plugin: &PluginSnapshot) -> Option<String> {
    let left = std::time::Duration::from_millis(plugin.quarantined_ms);
    (!left.is_zero()).then(|| format_duration(left))
}
