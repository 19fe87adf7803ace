//! What schedulers are told of connections, queued until they can be told.
//!
//! Connections open and end on threads that must not wait for a scheduler. What happened is
//! queued, and told under the service's lock before the next decision, or when the service is
//! looked after.

use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::stats::Counter;

/// Events that wait at most; later ones are lost and counted.
const WAITING_MAX: usize = 16_384;

/// Something that happened to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The number of the connection's real server.
    pub server_id: u32,
}

/// What can happen to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// It was opened.
    Bound,
    /// It is over.
    Unbound {
        /// Milliseconds from its first packet to its last, to about a second.
        lifetime_ms: u32,
    },
    /// Its real server answered the first packet with a reset.
    Refused,
    /// Its real server never answered.
    Unanswered,
}

/// The events of one virtual service, as long as its scheduler wants any.
#[derive(Debug, Default)]
pub struct EventQueue {
    are_wanted: AtomicBool,
    waiting: AtomicUsize,
    queue: Mutex<VecDeque<Event>>,
    lost: Counter,
}

impl EventQueue {
    /// Says whether events are wanted from now on. Those that wait are dropped if not.
    pub fn want(&self, are_wanted: bool) {
        self.are_wanted.store(are_wanted, Relaxed);
        if !are_wanted {
            let mut queue = self.lock();
            queue.clear();
            self.waiting.store(0, Relaxed);
        }
    }

    /// Events that were lost because too many waited.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.get()
    }

    /// Whether some wait. Cost: one load.
    #[inline]
    #[must_use]
    pub fn has_any(&self) -> bool {
        self.waiting.load(Relaxed) > 0
    }

    /// Queues an event, unless nobody wants it. Cost: one load then.
    #[inline]
    pub(crate) fn push(&self, kind: EventKind, server_id: u32) {
        if self.are_wanted.load(Relaxed) {
            self.push_wanted(Event { kind, server_id });
        }
    }

    #[cold]
    fn push_wanted(&self, event: Event) {
        let mut queue = self.lock();
        if queue.len() >= WAITING_MAX {
            self.lost.count();
            return;
        }
        queue.push_back(event);
        self.waiting.store(queue.len(), Relaxed);
    }

    /// The oldest event.
    pub(crate) fn pop(&self) -> Option<Event> {
        let mut queue = self.lock();
        let event = queue.pop_front();
        self.waiting.store(queue.len(), Relaxed);
        event
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Event>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_order_and_only_when_wanted() {
        let events = EventQueue::default();
        events.push(EventKind::Bound, 1);
        assert!(!events.has_any());
        events.want(true);
        events.push(EventKind::Bound, 1);
        events.push(EventKind::Refused, 2);
        assert!(events.has_any());
        assert_eq!(events.pop(), Some(Event { kind: EventKind::Bound, server_id: 1 }));
        assert_eq!(events.pop(), Some(Event { kind: EventKind::Refused, server_id: 2 }));
        assert_eq!(events.pop(), None);
        assert!(!events.has_any());
    }

    #[test]
    fn events_beyond_the_limit_are_lost_and_counted() {
        let events = EventQueue::default();
        events.want(true);
        for _ in 0..WAITING_MAX + 3 {
            events.push(EventKind::Bound, 1);
        }
        assert_eq!(events.lost(), 3);
        events.want(false);
        assert!(!events.has_any());
    }
}
