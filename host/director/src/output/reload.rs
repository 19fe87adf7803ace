//! What a reload changed, or would change.

use std::fmt::Write as _;

use super::plugins::describe_swap;
use super::{address, count};
use crate::control::snapshot::{
    ReloadSnapshot, SchedulerReload, ServerChange, ServerReload, ServiceFate, ServiceReload,
    TrialReload,
};

/// What a reload changed, a line for each thing.
#[must_use]
pub fn list(reload: &ReloadSnapshot) -> String {
    let ReloadSnapshot { settings, services } = reload;
    if settings.is_empty() && services.is_empty() {
        return "nothing to change\n".to_owned();
    }
    let mut text = String::new();
    if !settings.is_empty() {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "other {}", settings.join(", "));
    }
    text.extend(services.iter().map(describe_reload));
    text
}

fn describe_reload(reload: &ServiceReload) -> String {
    let ServiceReload {
        service,
        fate,
        settings,
        servers,
        scheduler,
        undone,
        trial,
        probation,
        record,
    } = reload;
    let mut text = match fate {
        ServiceFate::Changed => String::new(),
        ServiceFate::Added => format!("{service}: added\n"),
        ServiceFate::Removed => format!("{service}: removed; its connections go on\n"),
        ServiceFate::Replaced => {
            format!("{service}: replaced by another one; its connections go on with the old one\n")
        }
    };
    // Writing to a String cannot fail.
    if !settings.is_empty() {
        let _ = writeln!(text, "{service}: other {}", settings.join(", "));
    }
    for ServerReload { server, change } in servers {
        let server = address(server.ip(), server.port());
        let _ = writeln!(text, "{service}: {server} {}", describe_server(change));
    }
    if let Some(scheduler) = scheduler {
        let _ = match scheduler {
            SchedulerReload::Done(swap) => writeln!(text, "{service}: {}", describe_swap(swap)),
            SchedulerReload::Planned { from, to } => {
                writeln!(text, "{service}: {from} gives way to {}", to.plugin)
            }
        };
    }
    if let Some(undone) = undone {
        let _ = writeln!(text, "{service}: {undone} was put to work at run time, against the file");
    }
    if let Some(trial) = trial {
        let _ = match trial {
            TrialReload::Begun { candidate, share } => {
                writeln!(text, "{service}: {candidate} is tried out, obeyed for {share}")
            }
            TrialReload::Share { candidate, from, to } => {
                writeln!(text, "{service}: {candidate} is obeyed for {to}, not {from}")
            }
            TrialReload::Ended { candidate, is_undone } => {
                let against = if *is_undone { ", begun at run time," } else { "" };
                writeln!(text, "{service}: the trial of {candidate}{against} has ended")
            }
        };
    }
    if let Some(probation) = probation {
        let _ = writeln!(text, "{service}: a probation of {probation} decisions from now on");
    }
    let _ = match record {
        None => Ok(()),
        Some(0) => writeln!(text, "{service}: no decisions are recorded any more"),
        Some(octets) => {
            writeln!(text, "{service}: decisions are recorded from now on, {octets} octets of them")
        }
    };
    text
}

fn describe_server(change: &ServerChange) -> String {
    match change {
        ServerChange::Added { weight } => format!("added with weight {weight}"),
        ServerChange::Removed { connections: 0 } => "removed".to_owned(),
        ServerChange::Removed { connections } => {
            format!("removed; {} go on", count(*connections, "connection", "connections"))
        }
        ServerChange::Weight { from, to } => format!("has weight {to}, not {from}"),
        ServerChange::Settings { keys } => format!("other {}", keys.join(", ")),
        ServerChange::WeightUndone { weight } => {
            format!("had been given weight {weight} at run time, against the file")
        }
        ServerChange::DrainUndone => {
            "serves again; it had been drained at run time, against the file".to_owned()
        }
    }
}
