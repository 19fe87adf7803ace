//! What is shown, in which order.

use std::path::Path;

use serde::Serialize;

use crate::operation::ProposedPlugin;

/// The plugin that fails.
const BROKEN: &str = include_str!("passes_its_trial_then_loops.wat");

/// One scheduler at work.
#[derive(Clone, Debug)]
pub(super) struct Act {
    pub(super) name: String,
    pub(super) what: &'static str,
    pub(super) goal: Goal,
    /// For how many decisions the scheduler before is kept at hand.
    pub(super) probation: u64,
    /// How the scheduler comes in; `None` for one that the configuration has.
    pub(super) plugin: Option<ProposedPlugin>,
}

/// What is expected of a scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Goal {
    /// As many requests for each server.
    EqualShares,
    /// Connections held open spread by weight.
    HeldByWeight,
    /// Each client has one server.
    OneServerPerClient,
    /// The plugin fails, and the one before takes its place in the same decision.
    GaveWay,
    /// The plugin fails, and nobody notices.
    Survived,
    /// The plugin places every connection.
    PlacedByPlugin,
}

impl Goal {
    pub(super) fn sentence(self) -> &'static str {
        match self {
            Self::EqualShares => "equal shares, whatever the weight",
            Self::HeldByWeight => "connections held open by weight, 3 : 2 : 1",
            Self::OneServerPerClient => "each client always the same server",
            Self::GaveWay => "the one before decides instead",
            Self::Survived => "no client notices",
            Self::PlacedByPlugin => "the plugin places every connection",
        }
    }
}

/// The acts of the demo.
pub(super) fn all() -> Vec<Act> {
    let built_in = |name: &str, what, goal| Act {
        name: name.to_owned(),
        what,
        goal,
        probation: 0,
        plugin: Some(ProposedPlugin::Named(name.to_owned())),
    };
    let broken = |name: &str, what, goal, probation| Act {
        name: name.to_owned(),
        what,
        goal,
        probation,
        plugin: Some(ProposedPlugin::Module {
            name: name.to_owned(),
            octets: wat::parse_str(BROKEN).expect("a module, as a test proves"),
        }),
    };
    vec![
        built_in("rr", "the servers in turn", Goal::EqualShares),
        built_in("wlc", "the least connections for the weight", Goal::HeldByWeight),
        built_in("sh", "by a hash of the client's address", Goal::OneServerPerClient),
        broken(
            "unproven",
            "passes its trial, but loops for ever at its 101st pick, on probation",
            Goal::GaveWay,
            1_000,
        ),
        broken("broken", "the same, without the one before at hand", Goal::Survived, 0),
    ]
}

/// The one act of a user's own plugin.
pub(super) fn of_user(file: &Path) -> Vec<Act> {
    let name = file.file_name().unwrap_or(file.as_os_str()).to_string_lossy().into_owned();
    let what = "your plugin";
    vec![Act { name, what, goal: Goal::PlacedByPlugin, probation: 0, plugin: None }]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_plugin_is_a_module() {
        assert!(wat::parse_str(BROKEN).is_ok());
    }
}
