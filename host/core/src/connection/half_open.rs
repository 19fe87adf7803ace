//! Half-open connections, oldest first: what has to go when a flood of SYNs comes in.

use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use super::{Advance, Connection};
use crate::packet::address::Address;

/// Connections that opened and no longer are half-open leave the queue when they come to its front,
/// at most so many for each that joins it.
const LEAVE_AT_ONCE: usize = 4;

/// The half-open connections of one family.
#[derive(Debug)]
pub(crate) struct HalfOpen<A: Address> {
    count: AtomicUsize,
    /// In the order in which they opened. Some of them are established or closed by now.
    queue: Mutex<VecDeque<Arc<Connection<A>>>>,
}

impl<A: Address> Default for HalfOpen<A> {
    fn default() -> Self {
        Self { count: AtomicUsize::new(0), queue: Mutex::default() }
    }
}

impl<A: Address> HalfOpen<A> {
    /// How many there are.
    #[inline]
    pub(crate) fn count(&self) -> usize {
        self.count.load(Relaxed)
    }

    /// Keeps count of a connection's states.
    #[inline]
    pub(crate) fn follow(&self, advance: Advance) {
        match (advance.was_half_open, advance.is_half_open) {
            (false, true) => _ = self.count.fetch_add(1, Relaxed),
            (true, false) => self.leave(),
            _ => {}
        }
    }

    /// Counts one less: it was closed.
    pub(crate) fn leave(&self) {
        self.count.fetch_sub(1, Relaxed);
    }

    /// Queues a connection that just became half-open. The queue is kept to `length_max`: who is
    /// still half-open when so many came after it is returned, to be evicted.
    pub(crate) fn join(
        &self,
        connection: Arc<Connection<A>>,
        length_max: usize,
    ) -> Option<Arc<Connection<A>>> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..LEAVE_AT_ONCE {
            if queue.front().is_none_or(|front| front.is_half_open()) {
                break;
            }
            queue.pop_front();
        }
        queue.push_back(connection);
        if queue.len() > length_max { queue.pop_front() } else { None }
    }

    /// Takes the oldest that is still half-open out of the queue.
    pub(crate) fn oldest(&self) -> Option<Arc<Connection<A>>> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let front = queue.pop_front()?;
            if front.is_half_open() {
                return Some(front);
            }
        }
    }
}
