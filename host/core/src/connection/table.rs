//! The connection table: every connection once, found under both of its tuples.

use core::net::{Ipv4Addr, Ipv6Addr};
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::sync::Arc;

use dashmap::DashMap;

use super::expiry::Roll;
use super::half_open::HalfOpen;
use super::log::{ConnectionLog, End, EndReason, Loggable};
use super::tuple::{Direction, Tuple};
use super::{Closed, Connection, Tick};
use crate::event::EventKind;
use crate::fragment::Fragments;
use crate::packet::address::Address;
use crate::real_server::RealServer;
use crate::rewrite::Rewrite;
use crate::services::Services;
use crate::stats::Counter;
use crate::time::Moment;

/// Locks that a table is divided among. More threads than any director has queues, and so many that
/// a shard of a table with millions of entries still grows within about a millisecond.
const SHARDS: usize = 256;

/// The tables of both families, under one limit.
#[derive(Debug)]
pub struct Tables {
    v4: Table<Ipv4Addr>,
    v6: Table<Ipv6Addr>,
    limits: TableLimits,
    live: AtomicUsize,
    counters: TableCounters,
    log: ConnectionLog,
}

/// How large the tables may grow, both families together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableLimits {
    /// Connections at once; the next one is refused.
    pub connections: usize,
    /// Half-open TCP connections at once; the oldest makes way for the next one.
    pub half_open: usize,
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
    /// Half-open connections that made way for newer ones.
    pub evicted: Counter,
}

/// An address family with a table of its own.
pub(crate) trait Tabled: Loggable {
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
    index: DashMap<Tuple<A>, Entry<A>, Hasher>,
    roll: Roll<A>,
    half_open: HalfOpen<A>,
    fragments: Fragments<A>,
}

/// What stands under one of a connection's tuples: what packets of that direction need, so that for
/// most of them nothing else is fetched from memory, of which a busy director's caches hold little.
#[derive(Debug)]
pub(crate) struct Entry<A: Address> {
    connection: Arc<Connection<A>>,
    /// The real server's number, so that it is found without the connection.
    server_id: u32,
    memo: Memo,
}

/// The direction of an entry, and until when its packets have nothing to tell the connection.
#[derive(Debug)]
struct Memo(AtomicU32);

impl Memo {
    const REPLY: u32 = 1;
    /// What becomes of packets stands with the connection; otherwise the server tells.
    const PARTICULAR: u32 = 2;
    const KIND: u32 = Self::REPLY | Self::PARTICULAR;

    /// The connection is to be asked about the next packet.
    const fn new(direction: Direction, is_particular: bool) -> Self {
        let direction = match direction {
            Direction::Original => 0,
            Direction::Reply => Self::REPLY,
        };
        Self(AtomicU32::new(direction | if is_particular { Self::PARTICULAR } else { 0 }))
    }

    fn has(&self, kind: u32) -> bool {
        self.0.load(Relaxed) & kind != 0
    }

    /// In the upper 30 bits, which last for 34 years: the tick's number and 1; 0 is no tick.
    #[inline]
    const fn mark(tick: Tick) -> u32 {
        tick.number().wrapping_add(1) << 2
    }

    #[inline]
    fn set(&self, mark: u32) {
        self.0.store(self.0.load(Relaxed) & Self::KIND | mark, Relaxed);
    }
}

impl<A: Address> Entry<A> {
    fn new(connection: &Arc<Connection<A>>, direction: Direction) -> Self {
        Self {
            connection: Arc::clone(connection),
            server_id: connection.server.id(),
            memo: Memo::new(direction, connection.is_particular()),
        }
    }

    /// The connection.
    #[inline]
    pub(crate) fn connection(&self) -> &Arc<Connection<A>> {
        &self.connection
    }

    /// The way of packets with its tuple.
    #[inline]
    pub(crate) fn direction(&self) -> Direction {
        if self.memo.has(Memo::REPLY) { Direction::Reply } else { Direction::Original }
    }

    /// The real server.
    #[inline]
    pub(crate) fn server<'a>(&'a self, services: &'a Services) -> &'a RealServer {
        services.server(self.server_id).unwrap_or(&self.connection.server)
    }

    /// What becomes of the ends of packets with its tuple. `server` is [`Self::server`].
    #[inline]
    pub(crate) fn rewrite(&self, server: &RealServer) -> Rewrite<A> {
        let direction = self.direction();
        if self.memo.has(Memo::PARTICULAR) {
            return self.connection.rewrite(direction);
        }
        match direction {
            Direction::Original => Rewrite { source: None, destination: server.real() },
            Direction::Reply => Rewrite { source: server.terms().virtual_end(), destination: None },
        }
    }

    /// Whether the connection was told in this tick that such a packet came by, and has nothing to
    /// learn from another one.
    #[inline]
    pub(crate) fn is_noted(&self, now: Tick) -> bool {
        self.memo.0.load(Relaxed) & !Memo::KIND == Memo::mark(now)
    }

    /// Remembers that for the rest of the tick.
    #[inline]
    pub(crate) fn note(&self, now: Tick) {
        self.memo.set(Memo::mark(now));
    }

    /// The connection is to be asked again.
    #[inline]
    pub(crate) fn forget(&self) {
        self.memo.set(0);
    }
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
    /// Empty tables.
    pub(crate) fn new(limits: TableLimits, hash_seed: u64) -> Self {
        let hasher = Hasher::with_seed(hash_seed);
        Self {
            v4: Table::new(hasher.clone()),
            v6: Table::new(hasher),
            limits,
            live: AtomicUsize::new(0),
            counters: TableCounters::default(),
            log: ConnectionLog::default(),
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

    /// Half-open TCP connections at this moment.
    pub(crate) fn half_open(&self) -> usize {
        self.v4.half_open.count().saturating_add(self.v6.half_open.count())
    }

    pub(crate) fn counters(&self) -> &TableCounters {
        &self.counters
    }

    /// What is told of connections that open and end.
    #[must_use]
    pub const fn log(&self) -> &ConnectionLog {
        &self.log
    }

    /// Makes room for another connection: in a full table the oldest half-open one makes way for it.
    /// Whether there is room then.
    pub(crate) fn make_room<A: Tabled>(&self) -> bool {
        self.has_roll::<A>() && (self.live() < self.limits.connections || self.evict_oldest())
    }

    /// Whether [`make_room`](Self::make_room) would find or make room. Nothing changes.
    pub(crate) fn could_make_room<A: Tabled>(&self) -> bool {
        self.has_roll::<A>() && (self.live() < self.limits.connections || self.half_open() > 0)
    }

    /// So many connections may have made way for others so fast that the sweep is behind with
    /// forgetting them; then no other can be opened.
    fn has_roll<A: Tabled>(&self) -> bool {
        let on_roll_max = self.limits.connections.saturating_mul(2).saturating_add(1024);
        A::table(self).roll.length() < on_roll_max
    }

    /// Keeps count of a connection that became half-open with its first packet, and to the limit.
    pub(crate) fn limit_half_open<A: Tabled>(&self, connection: &Arc<Connection<A>>) {
        let length_max = self.limits.half_open.saturating_mul(4);
        let table = A::table(self);
        if let Some(oldest) = table.half_open.join(Arc::clone(connection), length_max) {
            self.evict(&oldest);
        }
        while self.half_open() > self.limits.half_open && self.evict_oldest() {}
    }

    /// Evicts the oldest half-open connection of the family that has more of them.
    fn evict_oldest(&self) -> bool {
        if self.v4.half_open.count() >= self.v6.half_open.count() {
            self.evict_oldest_of::<Ipv4Addr>()
        } else {
            self.evict_oldest_of::<Ipv6Addr>()
        }
    }

    fn evict_oldest_of<A: Tabled>(&self) -> bool {
        A::table(self).half_open.oldest().is_some_and(|oldest| self.evict(&oldest))
    }

    /// Takes a connection out if it is half-open; whether it did.
    pub(crate) fn evict<A: Tabled>(&self, connection: &Arc<Connection<A>>) -> bool {
        let is_evicted =
            connection.is_half_open() && self.remove(connection, |_| EndReason::Evicted).is_some();
        if is_evicted {
            self.counters.evicted.count();
        }
        is_evicted
    }

    /// Puts a connection in place. The answer is the connection that has the tuple from now on:
    /// this one, or the one that another thread opened for it a moment earlier.
    pub(crate) fn insert<A: Tabled>(
        &self,
        connection: Connection<A>,
    ) -> Result<Arc<Connection<A>>, Refusal> {
        let connection = Arc::new(connection);
        if self.live.fetch_add(1, Relaxed) >= self.limits.connections {
            self.live.fetch_sub(1, Relaxed);
            connection.close();
            return Err(Refusal::Full);
        }
        let client = connection.original.source.into();
        let (server, opened) = (connection.server(), connection.opened());
        server.terms().templates.bind(client, server, opened);
        let table = A::table(self);
        match table.index(&connection) {
            Ok(None) => {
                self.counters.opened.count();
                server.traffic().count_connection();
                server.terms().events.push(EventKind::Bound, server.id());
                self.log.note(&connection, None);
                table.roll.add(Arc::clone(&connection), self.live());
                Ok(connection)
            }
            other => {
                if connection.close().is_some() {
                    server.terms().templates.release(client, server, opened);
                    self.live.fetch_sub(1, Relaxed);
                }
                other.map(|winner| winner.unwrap_or(connection))
            }
        }
    }

    /// Takes a connection out so that its tuples are free. What it was, for exactly one caller;
    /// `reason` says from that why it ended.
    fn remove<A: Tabled>(
        &self,
        connection: &Arc<Connection<A>>,
        reason: impl Fn(&Closed) -> EndReason,
    ) -> Option<Closed> {
        let closed = connection.close()?;
        self.log.note(connection, Some(End { reason: reason(&closed), state: closed.state }));
        let server = connection.server();
        let unbound = EventKind::Unbound { lifetime_ms: connection.lifetime_ms() };
        server.terms().events.push(unbound, server.id());
        let client = connection.original.source.into();
        server.terms().templates.release(client, server, connection.opened());
        let table = A::table(self);
        if closed.was_half_open {
            table.half_open.leave();
        }
        table.unindex(connection);
        self.live.fetch_sub(1, Relaxed);
        Some(closed)
    }

    /// Takes out every connection: the director stops.
    pub(crate) fn remove_all(&self) {
        self.remove_all_of::<Ipv4Addr>();
        self.remove_all_of::<Ipv6Addr>();
    }

    fn remove_all_of<A: Tabled>(&self) {
        for connection in A::table(self).snapshot() {
            self.remove(&connection, |_| EndReason::Stopped);
        }
    }

    /// Takes out the connection that has `tuple` to make way for a new one, if it does.
    pub(crate) fn replace<A: Tabled>(&self, tuple: &Tuple<A>) {
        if let Some(connection) = A::table(self).find(tuple)
            && connection.makes_way()
            && self
                .remove(&connection, |_| {
                    connection.end_of_forsaken().unwrap_or(EndReason::Replaced)
                })
                .is_some()
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
        let table = A::table(self);
        table.fragments.sweep(now);
        table.roll.sweep(now, |connection| {
            let reason = |closed: &Closed| match EndReason::of_silence(
                closed.state,
                closed.was_unanswered,
            ) {
                EndReason::Closed => EndReason::Closed,
                silent => connection.end_of_forsaken().unwrap_or(silent),
            };
            let closed = self.remove(connection, reason);
            if closed.is_some_and(|closed| closed.was_unanswered) {
                let server = connection.server();
                server.observed().note_timeout();
                server.terms().events.push(EventKind::Unanswered, server.id());
            }
            closed.is_some()
        })
    }
}

impl<A: Address> Table<A> {
    fn new(hasher: Hasher) -> Self {
        Self {
            fragments: Fragments::new(hasher.clone()),
            index: DashMap::with_hasher_and_shard_amount(hasher, SHARDS),
            roll: Roll::default(),
            half_open: HalfOpen::default(),
        }
    }

    /// The connection that has `tuple` as its original or its reply. Cost: one hash, one shared
    /// lock for the look, one reference count.
    #[inline]
    #[must_use]
    pub fn find(&self, tuple: &Tuple<A>) -> Option<Arc<Connection<A>>> {
        self.look(tuple, |entry| Arc::clone(&entry.connection))
    }

    /// What `look` makes of the entry under `tuple`, as [`find`](Self::find) but without a reference
    /// count, which every packet of the connection would have to fetch and write. `look` must not
    /// come back to the table: it runs under the shared lock.
    #[inline]
    #[must_use]
    pub(crate) fn look<R>(&self, tuple: &Tuple<A>, look: impl FnOnce(&Entry<A>) -> R) -> Option<R> {
        self.index.get(tuple).map(|found| look(found.value()))
    }

    /// The half-open connections.
    #[inline]
    pub(crate) const fn half_open(&self) -> &HalfOpen<A> {
        &self.half_open
    }

    /// The datagrams that come in pieces.
    #[inline]
    pub(crate) const fn fragments(&self) -> &Fragments<A> {
        &self.fragments
    }

    /// At most `limit` connections of the moment that `is_wanted` says yes to, in no order. Packets
    /// never wait long for it, however many connections there are.
    #[must_use]
    pub fn list(
        &self,
        limit: usize,
        is_wanted: impl Fn(&Connection<A>) -> bool,
    ) -> Vec<Arc<Connection<A>>> {
        self.roll.list(limit, is_wanted)
    }

    /// Every connection of the moment, in no order. For tests: it copies them all.
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
        while let Some(holder) = self.occupy(connection, Direction::Reply) {
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
        while let Some(holder) = self.occupy(connection, Direction::Original) {
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
        connection: &Arc<Connection<A>>,
        direction: Direction,
    ) -> Option<Arc<Connection<A>>> {
        match self.index.entry(connection.tuple(direction)) {
            dashmap::Entry::Vacant(place) => {
                place.insert(Entry::new(connection, direction));
                None
            }
            dashmap::Entry::Occupied(place) => Some(Arc::clone(&place.get().connection)),
        }
    }

    /// Takes the connection's entries out, the original first. What is another one's stays.
    fn unindex(&self, connection: &Connection<A>) {
        let is_same = |_: &Tuple<A>, entry: &Entry<A>| {
            core::ptr::eq(Arc::as_ptr(&entry.connection), connection)
        };
        self.index.remove_if(connection.original(), is_same);
        self.index.remove_if(&connection.reply(), is_same);
    }
}

#[cfg(test)]
mod tests {
    use core::mem::size_of;

    use super::*;

    /// An entry stands twice in the index, which is between four and seven eighths full.
    #[test]
    fn connection_takes_little_memory() {
        assert_eq!(size_of::<(Tuple<Ipv4Addr>, Entry<Ipv4Addr>)>(), 32);
        assert_eq!(size_of::<(Tuple<Ipv6Addr>, Entry<Ipv6Addr>)>(), 56);
        // With the two reference counts in front of it.
        assert_eq!(size_of::<Connection<Ipv4Addr>>() + 16, 56);
        assert_eq!(size_of::<Connection<Ipv6Addr>>() + 16, 80);
    }
}
