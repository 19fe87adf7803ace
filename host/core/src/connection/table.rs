//! The connection table: every connection once, found under both of its tuples.

use core::net::{Ipv4Addr, Ipv6Addr};
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::Arc;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

use super::Connection;
use super::expiry::Roll;
use super::tuple::Tuple;
use crate::packet::address::Address;
use crate::stats::Counter;
use crate::time::Moment;

/// Locks that a table is divided among. More threads than any director has queues.
const SHARDS: usize = 64;

/// The tables of both families, under one limit.
#[derive(Debug)]
pub struct Tables {
    v4: Table<Ipv4Addr>,
    v6: Table<Ipv6Addr>,
    connections_max: usize,
    live: AtomicUsize,
    counters: TableCounters,
}

/// How the connection table fared.
#[derive(Debug, Default)]
pub struct TableCounters {
    /// Connections opened.
    pub opened: Counter,
    /// Connections that were silent for too long.
    pub expired: Counter,
    /// Connections that made way for a new one with the same tuple.
    pub replaced: Counter,
}

/// An address family with a table of its own.
pub(crate) trait Tabled: Address {
    /// The family's connections.
    fn table(tables: &Tables) -> &Table<Self>;
}

impl Tabled for Ipv4Addr {
    #[inline]
    fn table(tables: &Tables) -> &Table<Self> {
        &tables.v4
    }
}

impl Tabled for Ipv6Addr {
    #[inline]
    fn table(tables: &Tables) -> &Table<Self> {
        &tables.v6
    }
}

/// The connections of one family. No method hands out a lock: what is found is shared.
#[derive(Debug)]
pub struct Table<A: Address> {
    index: DashMap<Tuple<A>, Arc<Connection<A>>, Hasher>,
    roll: Roll<A>,
}

/// Fast, and keyed by a seed that clients do not know, so that they cannot choose their tuples to
/// fall into one bucket.
type Hasher = foldhash::quality::FixedState;

/// Why a connection was not put into the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The limit is reached.
    Full,
    /// Another connection has the same reply tuple.
    ReplyTaken,
}

impl Tables {
    /// Empty tables for at most `connections_max` connections together.
    pub(crate) fn new(connections_max: usize, hash_seed: u64) -> Self {
        let hasher = Hasher::with_seed(hash_seed);
        Self {
            v4: Table::new(hasher.clone()),
            v6: Table::new(hasher),
            connections_max,
            live: AtomicUsize::new(0),
            counters: TableCounters::default(),
        }
    }

    /// The connections over IPv4.
    #[must_use]
    pub const fn v4(&self) -> &Table<Ipv4Addr> {
        &self.v4
    }

    /// The connections over IPv6.
    #[must_use]
    pub const fn v6(&self) -> &Table<Ipv6Addr> {
        &self.v6
    }

    /// Connections at this moment.
    pub(crate) fn live(&self) -> usize {
        self.live.load(Relaxed)
    }

    /// Whether another connection would be refused: the limit is reached, or so many connections
    /// made way for others so fast that the sweep is behind with forgetting them.
    pub(crate) fn is_full<A: Tabled>(&self) -> bool {
        let on_roll_max = self.connections_max.saturating_mul(2).saturating_add(1024);
        self.live() >= self.connections_max || A::table(self).roll.length() >= on_roll_max
    }

    pub(crate) fn counters(&self) -> &TableCounters {
        &self.counters
    }

    /// Puts a connection in place. The answer is the connection that has the tuple from now on:
    /// this one, or the one that another thread opened for it a moment earlier.
    pub(crate) fn insert<A: Tabled>(
        &self,
        connection: Connection<A>,
    ) -> Result<Arc<Connection<A>>, Refusal> {
        let connection = Arc::new(connection);
        if self.live.fetch_add(1, Relaxed) >= self.connections_max {
            self.live.fetch_sub(1, Relaxed);
            connection.close();
            return Err(Refusal::Full);
        }
        let table = A::table(self);
        match table.index(&connection) {
            Ok(None) => {
                self.counters.opened.count();
                connection.server.traffic().count_connection();
                table.roll.add(Arc::clone(&connection));
                Ok(connection)
            }
            other => {
                if connection.close() {
                    self.live.fetch_sub(1, Relaxed);
                }
                other.map(|winner| winner.unwrap_or(connection))
            }
        }
    }

    /// Takes a connection out so that its tuples are free. True for exactly one caller.
    fn remove<A: Tabled>(&self, connection: &Connection<A>) -> bool {
        let is_first = connection.close();
        if is_first {
            A::table(self).unindex(connection);
            self.live.fetch_sub(1, Relaxed);
        }
        is_first
    }

    /// Takes out the connection that has `tuple` to make way for a new one, if it is over.
    pub(crate) fn replace<A: Tabled>(&self, tuple: &Tuple<A>) {
        if let Some(connection) = A::table(self).find(tuple)
            && connection.is_over()
            && self.remove(&connection)
        {
            self.counters.replaced.count();
        }
    }

    /// Takes out what expired of a bounded number of connections; see [`Roll::sweep`].
    pub(crate) fn sweep(&self, now: Moment) -> usize {
        let expired =
            self.sweep_family::<Ipv4Addr>(now).saturating_add(self.sweep_family::<Ipv6Addr>(now));
        self.counters.expired.add(u64::try_from(expired).unwrap_or(u64::MAX));
        expired
    }

    fn sweep_family<A: Tabled>(&self, now: Moment) -> usize {
        A::table(self).roll.sweep(now, |connection| self.remove(connection))
    }
}

impl<A: Address> Table<A> {
    fn new(hasher: Hasher) -> Self {
        Self { index: DashMap::with_hasher_and_shard_amount(hasher, SHARDS), roll: Roll::default() }
    }

    /// The connection that has `tuple` as its original or its reply. Cost: one hash, one shared
    /// lock for the look, one reference count.
    #[inline]
    #[must_use]
    pub fn find(&self, tuple: &Tuple<A>) -> Option<Arc<Connection<A>>> {
        self.index.get(tuple).map(|found| Arc::clone(found.value()))
    }

    /// What `look` makes of the connection that has `tuple`, as [`find`](Self::find) but without a
    /// reference count, which every packet of the connection would have to fetch and write. `look`
    /// must not come back to the table: it runs under the shared lock.
    #[inline]
    #[must_use]
    pub(crate) fn look<R>(
        &self,
        tuple: &Tuple<A>,
        look: impl FnOnce(&Connection<A>) -> R,
    ) -> Option<R> {
        self.index.get(tuple).map(|found| look(found.value()))
    }

    /// Every connection of the moment, in no order. For listings and tests: it copies them all.
    #[must_use]
    pub fn snapshot(&self) -> Vec<Arc<Connection<A>>> {
        self.roll.snapshot()
    }

    /// Indexes under the reply tuple, then under the original: whoever has the original won, and no
    /// packet finds a connection whose replies would not be found. `Ok(Some(winner))` when another
    /// thread was first with the original; then nothing of this connection remains.
    fn index(
        &self,
        connection: &Arc<Connection<A>>,
    ) -> Result<Option<Arc<Connection<A>>>, Refusal> {
        while let Some(holder) = self.occupy(connection.reply, connection) {
            if holder.is_closed() {
                self.unindex(&holder);
            } else if holder.original != connection.original {
                return Err(Refusal::ReplyTaken);
            } else if let Some(winner) = self.find(&connection.original)
                && !winner.is_closed()
            {
                return Ok(Some(winner));
            } else {
                // The same client's same packet on another thread, with the same choice of server:
                // in a moment it has the original too, or gave up for a third one.
                core::hint::spin_loop();
            }
        }
        while let Some(holder) = self.occupy(connection.original, connection) {
            if holder.is_closed() {
                self.unindex(&holder);
            } else {
                self.unindex(connection);
                return Ok(Some(holder));
            }
        }
        // Found by its reply tuple and closed before it had its original: nobody else looks there.
        if connection.is_closed() {
            self.unindex(connection);
            return Err(Refusal::ReplyTaken);
        }
        Ok(None)
    }

    /// Puts the connection under a free tuple, or tells whose it is. The lock on the entry is held for
    /// this call only: never two at once.
    fn occupy(
        &self,
        tuple: Tuple<A>,
        connection: &Arc<Connection<A>>,
    ) -> Option<Arc<Connection<A>>> {
        match self.index.entry(tuple) {
            Entry::Vacant(entry) => {
                entry.insert(Arc::clone(connection));
                None
            }
            Entry::Occupied(entry) => Some(Arc::clone(entry.get())),
        }
    }

    /// Takes the connection's entries out, the original first. What is another one's stays.
    fn unindex(&self, connection: &Connection<A>) {
        let is_same = |_: &Tuple<A>, other: &Arc<Connection<A>>| {
            core::ptr::eq(Arc::as_ptr(other), connection)
        };
        self.index.remove_if(&connection.original, is_same);
        self.index.remove_if(&connection.reply, is_same);
    }
}
