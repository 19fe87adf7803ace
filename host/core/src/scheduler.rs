//! What the director asks of a scheduler, and the one native rule it falls back on.

use core::any::Any;
use std::sync::Arc;

use wvs_abi::Request;

use crate::event::Event;
use crate::real_server::RealServer;

/// A scheduler's answer to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pick {
    /// The server at this index of the list that the scheduler was given.
    Server(usize),
    /// No server may take the connection.
    NoServer,
    /// The scheduler cannot say, or failed: the director decides with
    /// [`weighted_least_connections`].
    Defer,
}

/// Chooses the real server for the first packet of a connection.
///
/// The director calls it synchronously, one call at a time, behind the virtual service's lock.
/// A scheduler must return soon and must not panic; whatever goes wrong inside it is
/// [`Pick::Defer`]. Its answers are checked: an index beyond the list or a server of weight 0
/// counts as [`Pick::Defer`]. `servers` are always all of the service's, in the order of the
/// configuration.
pub trait Scheduler: Any + Send {
    /// Picks for `request` from `servers`.
    fn schedule(&mut self, request: &Request, servers: &[Arc<RealServer>]) -> Pick;

    /// Tells that membership or weights of `servers` changed. Also called once before the first
    /// [`schedule`](Self::schedule).
    fn servers_changed(&mut self, servers: &[Arc<RealServer>]);

    /// The number of the scheduler that gave the last answer, which connections remember; 0 means
    /// the director itself.
    fn generation(&self) -> u16 {
        0
    }

    /// Whether it wants to be told of events.
    fn wants_events(&self) -> bool {
        false
    }

    /// Tells of an event.
    fn event(&mut self, event: &Event, servers: &[Arc<RealServer>]) {
        let _ = (event, servers);
    }

    /// Does what is to be done from time to time. `request` has nothing but the time, a random
    /// number and the service's number. Returns after how many milliseconds it wants to be called
    /// again, `None` for never.
    fn tick(&mut self, request: &Request, servers: &[Arc<RealServer>]) -> Option<u64> {
        let _ = (request, servers);
        None
    }
}

/// The director's own rule for when a scheduler has no answer: of the servers that `may` take the
/// connection, the one with the least `active * 256 + inactive` for its weight, the first listed
/// among equals; `None` when none of them has a weight above 0.
///
/// The comparison is cross-multiplied, so no weight is ever divided by. Cost: one pass.
#[must_use]
pub fn weighted_least_connections(
    servers: &[Arc<RealServer>],
    may: impl Fn(&RealServer) -> bool,
) -> Option<usize> {
    let mut least: Option<(usize, u64, u64)> = None;
    for (index, server) in servers.iter().enumerate() {
        let weight = u64::from(server.weight());
        if weight == 0 || !may(server) {
            continue;
        }
        let overhead = server.overhead();
        // Strictly less: of equals the first listed stays. Counts below 2^32 and weights below
        // 2^16 keep both products under 2^57.
        let is_less = least.is_none_or(|(_, least_overhead, least_weight)| {
            overhead.saturating_mul(least_weight) < least_overhead.saturating_mul(weight)
        });
        if is_less {
            least = Some((index, overhead, weight));
        }
    }
    least.map(|(index, ..)| index)
}
