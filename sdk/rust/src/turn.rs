//! Whose turn it is.

use alloc::vec::Vec;

use crate::{Roster, Server};

/// A place in the list of servers that stays the same place when servers come and go.
///
/// A server added later waits for its turn and nobody gets two in a row. When the one that had the
/// last turn is gone, its nearest predecessor that is still there counts as the one.
#[derive(Clone, Debug, Default)]
pub struct Turn {
    /// The identities behind the indices, to find the place again after a change.
    ids: Vec<u32>,
    /// The index after the server that had the last turn; 0 before the first.
    next: usize,
}

impl Turn {
    /// Finds the place again in a list that changed.
    pub fn servers_changed(&mut self, servers: &[Server]) {
        let ids = servers.iter().map(|server| server.id).collect();
        let old = core::mem::replace(&mut self.ids, ids);
        self.resume(old.into_iter().take(self.next).rev());
    }

    /// The place after the first of `last_turns`, identities, that is among the servers.
    pub fn resume(&mut self, mut last_turns: impl Iterator<Item = u32>) {
        let roster: Roster = self.ids.iter().copied().collect();
        let last = last_turns.find_map(|id| roster.index(id));
        self.next = last.map_or(0, |index| index + 1);
    }

    /// The servers before and from the one whose turn is next.
    #[inline]
    #[must_use]
    pub fn split<'s>(&self, servers: &'s [Server]) -> (&'s [Server], &'s [Server]) {
        servers.split_at(self.next.min(servers.len()))
    }

    /// The server at `index` has its turn now.
    #[inline]
    pub fn take(&mut self, index: usize) {
        self.next = index + 1;
    }

    /// The identities of the server that had the last turn and of those before it, nearest first:
    /// what [`resume`](Self::resume) finds the place by.
    pub fn last_turns(&self) -> impl Iterator<Item = u32> {
        self.ids.iter().take(self.next).rev().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers<const N: usize>(ids: [u32; N]) -> [Server; N] {
        ids.map(|id| Server { id, ..Server::default() })
    }

    /// The identity of the server whose turn is next in `ids`, after 3 of 1 to 4 had its own.
    fn next_of<const N: usize>(changes: &[&[u32]], ids: [u32; N]) -> u32 {
        let mut turn = Turn::default();
        turn.servers_changed(&servers([1, 2, 3, 4]));
        turn.take(2);
        for ids in changes {
            let servers: Vec<_> = ids.iter().map(|id| servers([*id])[0]).collect();
            turn.servers_changed(&servers);
        }
        let servers = servers(ids);
        turn.servers_changed(&servers);
        let (before, after) = turn.split(&servers);
        after.iter().chain(before).next().unwrap().id
    }

    #[test]
    fn place_is_kept_when_servers_come_and_go_around_it() {
        assert_eq!(next_of(&[], [7, 3, 8, 4]), 8);
        assert_eq!(next_of(&[], [1, 2, 4, 3]), 1, "it goes with the server");
    }

    #[test]
    fn removed_server_gives_its_place_to_its_nearest_predecessor() {
        assert_eq!(next_of(&[], [1, 2, 4]), 4);
        assert_eq!(next_of(&[], [1, 4]), 4);
        assert_eq!(next_of(&[&[1, 2, 4]], [1, 2, 5, 4]), 5, "after two changes too");
    }

    #[test]
    fn without_a_surviving_predecessor_the_first_is_next() {
        assert_eq!(next_of(&[], [4, 5]), 4);
        assert_eq!(next_of(&[&[]], [1, 2, 3, 4]), 1);
    }

    #[test]
    fn place_is_found_by_the_last_turns() {
        let mut turn = Turn::default();
        turn.servers_changed(&servers([1, 2, 3]));
        assert_eq!(turn.last_turns().count(), 0);
        turn.take(1);
        assert_eq!(turn.last_turns().collect::<Vec<_>>(), [2, 1]);
        let mut successor = Turn::default();
        let servers = servers([9, 1, 3]);
        successor.servers_changed(&servers);
        successor.resume(turn.last_turns());
        assert_eq!(successor.split(&servers).1[0].id, 3);
    }
}
