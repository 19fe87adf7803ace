//! Counters. Each is written by the packet path and read by whoever wants to know.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::connection::tuple::Direction;
use crate::verdict::{DropReason, Verdict};

/// A count that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    #[inline]
    pub fn count(&self) {
        self.add(1);
    }

    /// Adds `n`.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// The count so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// What a real server has carried. Octets are those of the IP packets, as IPVS counts them.
#[derive(Debug, Default)]
pub struct Traffic {
    connections: Counter,
    in_packets: Counter,
    out_packets: Counter,
    in_octets: Counter,
    out_octets: Counter,
}

/// [`Traffic`] at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrafficTotals {
    /// Connections scheduled.
    pub connections: u64,
    /// Packets from clients.
    pub in_packets: u64,
    /// Packets to clients.
    pub out_packets: u64,
    /// Octets from clients.
    pub in_octets: u64,
    /// Octets to clients.
    pub out_octets: u64,
}

impl Traffic {
    pub(crate) fn count_connection(&self) {
        self.connections.count();
    }

    /// Counts a packet of so many octets.
    #[inline]
    pub(crate) fn count(&self, direction: Direction, octets: usize) {
        let octets = u64::try_from(octets).unwrap_or(u64::MAX);
        let (all_packets, all_octets) = match direction {
            Direction::Original => (&self.in_packets, &self.in_octets),
            Direction::Reply => (&self.out_packets, &self.out_octets),
        };
        all_packets.count();
        all_octets.add(octets);
    }

    /// The totals now.
    #[must_use]
    pub fn totals(&self) -> TrafficTotals {
        TrafficTotals {
            connections: self.connections.get(),
            in_packets: self.in_packets.get(),
            out_packets: self.out_packets.get(),
            in_octets: self.in_octets.get(),
            out_octets: self.out_octets.get(),
        }
    }
}

impl core::ops::AddAssign for TrafficTotals {
    fn add_assign(&mut self, other: Self) {
        self.connections = self.connections.saturating_add(other.connections);
        self.in_packets = self.in_packets.saturating_add(other.in_packets);
        self.out_packets = self.out_packets.saturating_add(other.out_packets);
        self.in_octets = self.in_octets.saturating_add(other.in_octets);
        self.out_octets = self.out_octets.saturating_add(other.out_octets);
    }
}

/// What became of packets: one counter for each verdict and each drop reason.
#[derive(Debug, Default)]
pub struct VerdictCounters {
    forwarded: Counter,
    replied: Counter,
    passed: Counter,
    held: Counter,
    drops: [Counter; DropReason::ALL.len()],
}

impl VerdictCounters {
    #[inline]
    pub(crate) fn count(&self, verdict: Verdict) {
        match verdict {
            Verdict::Forward => self.forwarded.count(),
            Verdict::Reply => self.replied.count(),
            Verdict::Pass => self.passed.count(),
            Verdict::Hold => self.held.count(),
            Verdict::Drop(reason) => {
                if let Some(counter) = self.drops.get(reason.index()) {
                    counter.count();
                }
            }
        }
    }

    /// Packets translated and sent on.
    #[must_use]
    pub fn forwarded(&self) -> u64 {
        self.forwarded.get()
    }

    /// Packets answered by the director itself.
    #[must_use]
    pub fn replied(&self) -> u64 {
        self.replied.get()
    }

    /// Packets sent on untouched because they concern no virtual service.
    #[must_use]
    pub fn passed(&self) -> u64 {
        self.passed.get()
    }

    /// Parts of packets that were kept until the first part comes.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.held.get()
    }

    /// Packets dropped for `reason`.
    #[must_use]
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops.get(reason.index()).map_or(0, Counter::get)
    }
}
