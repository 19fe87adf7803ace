//! Finding servers again after the list changed.

use alloc::collections::BinaryHeap;
use alloc::vec::Vec;

use crate::Server;

/// Where in the list each server stands, by identity.
///
/// Indices are good until the next [`servers_changed`](crate::Scheduler::servers_changed),
/// identities for as long as the server exists: what a scheduler remembers of a server, it keeps
/// by [`Server::id`] and looks up anew.
#[derive(Clone, Debug, Default)]
pub struct Roster {
    /// In the order of the identities.
    places: Vec<(u32, usize)>,
}

impl Roster {
    /// The places of `servers`.
    #[must_use]
    pub fn new(servers: &[Server]) -> Self {
        servers.iter().map(|server| server.id).collect()
    }

    /// The index of the server with this identity, `None` when it is gone.
    #[must_use]
    pub fn index(&self, id: u32) -> Option<usize> {
        let found = self.places.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        self.places.get(found).map(|(_, index)| *index)
    }
}

impl FromIterator<u32> for Roster {
    /// The places of servers whose identities stand in the order of the list.
    fn from_iter<I: IntoIterator<Item = u32>>(ids: I) -> Self {
        Self { places: sorted(ids.into_iter().zip(0..).collect()) }
    }
}

/// Sorts by a heap, whose code is a fifth of a sort's. And it is not to be copied to everybody who
/// calls it, none of them often: what a module has, the director must compile.
#[inline(never)]
fn sorted(places: Vec<(u32, usize)>) -> Vec<(u32, usize)> {
    BinaryHeap::from(places).into_sorted_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_found_wherever_they_went() {
        let servers = [7, 3, 9].map(|id| Server { id, ..Server::default() });
        let roster = Roster::new(&servers);
        assert_eq!([3, 7, 9, 8].map(|id| roster.index(id)), [Some(1), Some(0), Some(2), None]);
    }
}
