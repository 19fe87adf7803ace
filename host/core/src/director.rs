//! The packet's way through the director.

use crate::packet::Packet;
use crate::service::Services;
use crate::stats::{Counter, VerdictCounters};
use crate::time::Moment;
use crate::verdict::{DropReason, Verdict};

/// What happens to a packet to a port of a virtual address that no service has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClosedPort {
    /// TCP: a reset; anything else: ICMP port unreachable.
    #[default]
    Reject,
    /// Nothing.
    Drop,
}

/// A director's settings.
#[derive(Clone, Debug)]
pub struct DirectorConfig {
    /// Connections at once, both families together; the next one is refused.
    pub connections_max: usize,
    /// Answers of the director's own (resets, ICMP errors, echo replies) a second.
    pub replies_per_second: u32,
    /// Whether echo requests to a virtual address that has no ICMP service are answered.
    pub answer_echo: bool,
    /// See [`ClosedPort`].
    pub closed_port: ClosedPort,
    /// Seed of the connection table's hash: random when run, fixed in tests.
    pub hash_seed: u64,
}

/// How the connection table fared.
#[derive(Debug, Default)]
pub struct TableCounters {
    /// Connections opened.
    pub opened: Counter,
    /// Connections that expired or were replaced.
    pub closed: Counter,
}

/// A director: virtual services, connections and counters. Shared by reference between threads.
#[derive(Debug)]
pub struct Director {
    config: DirectorConfig,
    services: Services,
    verdicts: VerdictCounters,
    table: TableCounters,
}

impl Director {
    /// A director without connections.
    #[must_use]
    pub fn new(config: DirectorConfig, services: Services) -> Self {
        Self {
            config,
            services,
            verdicts: VerdictCounters::default(),
            table: TableCounters::default(),
        }
    }

    /// Decides on one packet and rewrites it in place.
    pub fn process(&self, packet: &mut Packet<'_>, now: Moment) -> Verdict {
        let _ = (packet.octets(), now);
        let verdict = Verdict::Drop(DropReason::NotIp);
        self.verdicts.count(verdict);
        verdict
    }

    /// Removes expired connections, visiting a bounded part of the table; the next call goes on
    /// where this one ended. To be called about every [`Self::SWEEP_INTERVAL_MILLIS`]. Returns how
    /// many connections expired.
    pub fn sweep(&self, now: Moment) -> usize {
        let _ = now;
        0
    }

    /// Milliseconds between two calls of [`Self::sweep`].
    pub const SWEEP_INTERVAL_MILLIS: u64 = 100;

    /// Connections at this moment.
    #[must_use]
    pub fn connections(&self) -> usize {
        0
    }

    /// Its settings.
    #[must_use]
    pub fn config(&self) -> &DirectorConfig {
        &self.config
    }

    /// Its virtual services.
    #[must_use]
    pub fn services(&self) -> &Services {
        &self.services
    }

    /// What became of the packets.
    #[must_use]
    pub fn verdicts(&self) -> &VerdictCounters {
        &self.verdicts
    }

    /// How the connection table fared.
    #[must_use]
    pub fn table(&self) -> &TableCounters {
        &self.table
    }
}
