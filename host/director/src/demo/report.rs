//! What was found out.

use serde::Serialize;

use super::act::Goal;
use crate::lab::CLIENTS;

/// How many held connections a server may have more or less than its weight's share: closed
/// connections that are not yet forgotten weigh in, as in IPVS.
const HELD_TOLERANCE: u64 = 4;

/// What a demo found out.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Requests, each over a connection of its own.
    pub requests: u64,
    /// Requests that got no answer or a wrong one.
    pub failed: u64,
    /// The first failure, in words.
    pub first_failure: Option<String>,
    /// Connections whose server a plugin chose.
    pub connections_placed_by_plugins: u64,
    /// Connections whose server the director chose because the plugin had no answer.
    pub connections_placed_by_fallback: u64,
    /// How often the scheduler was replaced under load.
    pub replacements: usize,
    /// How long it took, in seconds.
    pub seconds: f64,
    pub(super) acts: Vec<ActReport>,
}

/// One scheduler's work. Requests that were under way when it began or ended are not among its
/// requests, but their connections may be among those that it placed; the [`Report`] has all.
#[derive(Clone, Debug, Serialize)]
pub(super) struct ActReport {
    pub(super) scheduler: String,
    pub(super) goal: Goal,
    pub(super) servers: Vec<ServerReport>,
    /// Clients that had the same server each time.
    pub(super) faithful_clients: usize,
    pub(super) failed: u64,
    pub(super) placed_by_plugin: u64,
    pub(super) placed_by_fallback: u64,
    pub(super) faults: u64,
    /// Calls that ran out of fuel.
    pub(super) cut_off: u64,
    pub(super) quarantines: u64,
    /// The latest fault, in a sentence.
    pub(super) last_fault: Option<String>,
    /// Why a plugin on probation gave way to the one before, in a sentence.
    pub(super) gave_way: Option<String>,
}

/// One server's part.
#[derive(Clone, Debug, Serialize)]
pub(super) struct ServerReport {
    pub(super) name: String,
    pub(super) weight: u32,
    pub(super) requests: u64,
    /// Clients that it answered.
    pub(super) clients: u64,
    /// Connections held open.
    pub(super) held: u64,
}

impl Report {
    /// Whether everything was as expected: of each scheduler, and that clients and director counted
    /// the same connections.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.failed == 0 && self.is_complete() && self.acts.iter().all(ActReport::is_good)
    }

    /// Whether the director placed exactly the connections that clients made.
    pub(super) fn is_complete(&self) -> bool {
        let placed = self.connections_placed_by_plugins + self.connections_placed_by_fallback;
        self.requests == placed
    }
}

impl ActReport {
    pub(super) fn requests(&self) -> u64 {
        self.servers.iter().map(|server| server.requests).sum()
    }

    pub(super) fn held(&self) -> u64 {
        self.servers.iter().map(|server| server.held).sum()
    }

    /// Connections that it placed for requests under way at either end of the act.
    pub(super) fn under_way(&self) -> u64 {
        let placed = self.placed_by_plugin + self.placed_by_fallback;
        placed.saturating_sub(self.requests() + self.held() + self.failed)
    }

    /// By how many requests the busiest server is ahead of the least busy one.
    pub(super) fn spread(&self) -> u64 {
        let requests = || self.servers.iter().map(|server| server.requests);
        requests().max().unwrap_or(0) - requests().min().unwrap_or(0)
    }

    /// The connections that a server should hold by its weight, rounded down.
    fn held_by_weight(&self, server: &ServerReport) -> u64 {
        let weights: u64 = self.servers.iter().map(|server| u64::from(server.weight)).sum();
        self.held() * u64::from(server.weight) / weights.max(1)
    }

    /// Whether the scheduler did what was expected of it.
    pub(super) fn is_good(&self) -> bool {
        let is_healthy = self.faults == 0 && self.placed_by_fallback == 0;
        let as_expected = match self.goal {
            // Each client may have one request under way at either end, which is not in the count.
            Goal::EqualShares => is_healthy && self.spread() <= 2 * u64::from(CLIENTS),
            Goal::HeldByWeight => {
                is_healthy
                    && self.held() > 0
                    && self.servers.iter().all(|server| {
                        server.held.abs_diff(self.held_by_weight(server)) <= HELD_TOLERANCE
                    })
            }
            Goal::OneServerPerClient => is_healthy && self.faithful_clients == usize::from(CLIENTS),
            Goal::GaveWay => is_healthy && self.gave_way.is_some(),
            Goal::Survived => {
                self.cut_off > 0 && self.quarantines > 0 && self.placed_by_fallback > 0
            }
            Goal::PlacedByPlugin => is_healthy,
        };
        as_expected && self.failed == 0 && self.requests() > 0
    }
}
