//! Expiry: no timer per connection and none per packet. A packet notes the time; a sweep that
//! visits a bounded number of connections at each tick finds those that were silent for too long.
//!
//! The sweep walks a list of its own, the roll, instead of the connection table: packets then
//! never wait for it, and it can stop and go on anywhere.

use core::array;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};

use super::Connection;
use crate::packet::address::Address;
use crate::time::Moment;

/// Pieces of the roll, each behind a lock of its own: opening a connection waits at most for the
/// visit of one batch in one piece.
const SEGMENTS: usize = 256;

/// Connections visited under one lock.
const BATCH: usize = 64;

/// Calls in which a sweep gets around the whole roll, as long as that is within [`VISITS_MAX`].
const CALLS_PER_ROUND: usize = 20;

/// Fewest and most connections visited by one call. At the most, with a call every 100 ms, a
/// million connections are visited within 6.4 s and four million within 26 s: that much later than
/// its timeout may a connection leave.
const VISITS_MIN: usize = 1_024;
/// See [`VISITS_MIN`].
const VISITS_MAX: usize = 16_384;

/// Closed connections that the roll of an otherwise empty table may hold.
const CLOSED_MAX: usize = 256;

/// Connections visited when one is added to a roll with too many closed ones: more than one of them
/// is closed then, on average, so that a flood clears up behind itself however fast it comes.
const VISITS_PER_ADDITION: usize = 4;

/// Every connection of a table, in the order in which a sweep gets to them.
#[derive(Debug)]
pub(crate) struct Roll<A: Address> {
    segments: [Mutex<Vec<Arc<Connection<A>>>>; SEGMENTS],
    /// Where the next connection goes: segments take turns, so that all stay about as long.
    next: AtomicUsize,
    length: AtomicUsize,
    cursor: Mutex<Cursor>,
}

/// Where the sweep goes on.
#[derive(Debug, Default)]
struct Cursor {
    segment: usize,
    position: usize,
}

impl<A: Address> Default for Roll<A> {
    fn default() -> Self {
        Self {
            segments: array::from_fn(|_| Mutex::default()),
            next: AtomicUsize::new(0),
            length: AtomicUsize::new(0),
            cursor: Mutex::default(),
        }
    }
}

impl<A: Address> Roll<A> {
    /// Adds a connection. It leaves when a sweep finds that it was closed or expired, or when there
    /// are many closed ones beside the `live` ones of the moment, both families' together.
    pub(crate) fn add(&self, connection: Arc<Connection<A>>, live: usize) {
        let next = self.next.fetch_add(1, Relaxed).checked_rem(SEGMENTS).unwrap_or(0);
        if let Some(segment) = self.segments.get(next) {
            segment.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
            self.length.fetch_add(1, Relaxed);
        }
        let length_max = live.saturating_add(live / 2).saturating_add(CLOSED_MAX);
        if self.length() > length_max {
            self.visit(VISITS_PER_ADDITION, |_| false);
        }
    }

    /// Connections on it, closed ones that no sweep has met yet among them.
    pub(crate) fn length(&self) -> usize {
        self.length.load(Relaxed)
    }

    /// Visits the next connections, at most [`VISITS_MAX`]; hands each expired one to `remove` and
    /// forgets it and those that were closed before. Returns how many `remove` said it removed.
    /// A call while another one runs does nothing.
    pub(crate) fn sweep(&self, now: Moment, remove: impl Fn(&Arc<Connection<A>>) -> bool) -> usize {
        let length = self.length();
        let visits = length.div_ceil(CALLS_PER_ROUND).clamp(VISITS_MIN, VISITS_MAX).min(length);
        let mut removed = 0_usize;
        self.visit(visits, |connection| {
            let is_expired = connection.is_expired(now);
            if is_expired && remove(connection) {
                removed = removed.saturating_add(1);
            }
            is_expired
        });
        removed
    }

    /// Visits the next connections and forgets those that are over, which `is_over` says, or were
    /// closed before.
    fn visit(&self, visits: usize, mut is_over: impl FnMut(&Arc<Connection<A>>) -> bool) {
        let mut cursor = match self.cursor.try_lock() {
            Ok(cursor) => cursor,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        let (mut visited, mut ends) = (0_usize, 0_usize);
        // An end of a segment costs a visit of its own, so that empty ones are no endless loop.
        while visited < visits && ends <= SEGMENTS {
            let Some(segment) = self.segments.get(cursor.segment) else {
                *cursor = Cursor::default();
                continue;
            };
            let mut segment = segment.lock().unwrap_or_else(PoisonError::into_inner);
            for _ in 0..BATCH.min(visits.saturating_sub(visited)) {
                let Some(connection) = segment.get(cursor.position) else { break };
                visited = visited.saturating_add(1);
                if is_over(connection) || connection.is_closed() {
                    segment.swap_remove(cursor.position);
                    self.length.fetch_sub(1, Relaxed);
                } else {
                    cursor.position = cursor.position.saturating_add(1);
                }
            }
            if cursor.position >= segment.len() {
                // After a flood: give the memory back.
                if segment.len() < segment.capacity().div_ceil(4) {
                    let twice = segment.len().saturating_mul(2);
                    segment.shrink_to(twice);
                }
                *cursor = Cursor { segment: cursor.segment.saturating_add(1), position: 0 };
                ends = ends.saturating_add(1);
            }
        }
    }

    /// At most `limit` connections that were not closed and that `is_wanted` says yes to, in no order.
    /// Opening one waits for the visit of a batch at most; one that moves meanwhile may be missed.
    pub(crate) fn list(
        &self,
        limit: usize,
        is_wanted: impl Fn(&Connection<A>) -> bool,
    ) -> Vec<Arc<Connection<A>>> {
        let mut list = Vec::new();
        for segment in &self.segments {
            let mut position = 0_usize;
            while list.len() < limit {
                let segment = segment.lock().unwrap_or_else(PoisonError::into_inner);
                let batch = segment.get(position..).unwrap_or_default();
                if batch.is_empty() {
                    break;
                }
                let wanted = |connection: &&Arc<Connection<A>>| {
                    !connection.is_closed() && is_wanted(connection)
                };
                list.extend(batch.iter().take(BATCH).filter(wanted).cloned());
                position = position.saturating_add(BATCH);
            }
        }
        list.truncate(limit);
        list
    }

    /// Every connection that was not closed.
    pub(crate) fn snapshot(&self) -> Vec<Arc<Connection<A>>> {
        let mut all = Vec::new();
        for segment in &self.segments {
            let segment = segment.lock().unwrap_or_else(PoisonError::into_inner);
            all.extend(segment.iter().filter(|connection| connection.state().is_some()).cloned());
        }
        all
    }
}
