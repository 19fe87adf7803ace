//! `rr`, round robin: each new connection goes to the server after the one that got the last.
//!
//! **Rule.** The next server in the order of the configuration, cyclic; servers of weight 0 are
//! passed over. How large a weight is does not matter. When no server has a weight above 0 there is
//! no server.
//!
//! **Changes of membership** keep the place by the servers' identities: a server added later waits
//! for its turn and nobody gets two in a row. When the last chosen server is gone, its nearest
//! predecessor that is still there counts as the last chosen.
//!
//! **Cost.** One step, and one more for each server of weight 0 passed over; reads no counters.
//!
//! **When.** Servers alike, connections alike: short requests against equal machines. Where
//! connections live long or differ in weight, `wlc` spreads the load better.

use wvs_sdk::{Pick, Request, Scheduler, Server};

/// The scheduler `rr`. Takes no configuration.
#[derive(Debug, Default)]
pub struct RoundRobin {
    /// The identities behind the indices, to find the place again after a change.
    ids: Vec<u32>,
    /// Where to look first: the index after the last chosen server.
    next: usize,
}

impl Scheduler for RoundRobin {
    const CAPS: u32 = 0;

    fn new(config: &str) -> Result<Self, String> {
        if config.is_empty() {
            Ok(Self::default())
        } else {
            Err("rr takes no configuration".into())
        }
    }

    fn servers_changed(&mut self, servers: &[Server]) {
        let mut places: Vec<(u32, usize)> =
            servers.iter().enumerate().map(|(index, server)| (server.id, index)).collect();
        places.sort_unstable();
        let place = |id: &u32| {
            let found = places.binary_search_by_key(id, |(id, _)| *id).ok()?;
            places.get(found).map(|(_, index)| *index)
        };
        // The last chosen and its predecessors, nearest first.
        let chosen = self.ids.iter().take(self.next).rev();
        self.next = chosen.filter_map(place).next().map_or(0, |index| index + 1);
        self.ids = servers.iter().map(|server| server.id).collect();
    }

    fn schedule(&mut self, _request: &Request, servers: &[Server]) -> Pick {
        let (before, after) = servers.split_at(self.next.min(servers.len()));
        let index = match after.iter().position(Server::is_available) {
            Some(distance) => before.len() + distance,
            None => match before.iter().position(Server::is_available) {
                Some(index) => index,
                None => return Pick::NoServer,
            },
        };
        self.next = index + 1;
        Pick::Server(index)
    }
}

wvs_sdk::export!(RoundRobin);

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(list: &[(u32, u32)]) -> Vec<Server> {
        let server = |&(id, weight)| Server { id, weight, ..Server::default() };
        list.iter().map(server).collect()
    }

    /// The identities of the next `n` picks.
    fn picks(rr: &mut RoundRobin, servers: &[Server], n: usize) -> Vec<u32> {
        let pick = |_| match rr.schedule(&Request::default(), servers) {
            Pick::Server(index) => servers[index].id,
            other => panic!("{other:?}"),
        };
        (0..n).map(pick).collect()
    }

    fn started(list: &[(u32, u32)]) -> (RoundRobin, Vec<Server>) {
        let mut rr = RoundRobin::new("").unwrap();
        let servers = servers(list);
        rr.servers_changed(&servers);
        (rr, servers)
    }

    #[test]
    fn servers_take_turns_whatever_their_weight() {
        let (mut rr, servers) = started(&[(1, 1), (2, 9), (3, 100)]);
        assert_eq!(picks(&mut rr, &servers, 7), [1, 2, 3, 1, 2, 3, 1]);
    }

    #[test]
    fn weight_0_is_passed_over() {
        let (mut rr, servers) = started(&[(1, 0), (2, 1), (3, 0), (4, 1), (5, 0)]);
        assert_eq!(picks(&mut rr, &servers, 5), [2, 4, 2, 4, 2]);
    }

    #[test]
    fn no_weight_above_0_means_no_server() {
        let (mut rr, servers) = started(&[(1, 0), (2, 0)]);
        assert_eq!(rr.schedule(&Request::default(), &servers), Pick::NoServer);
        assert_eq!(rr.schedule(&Request::default(), &[]), Pick::NoServer);
    }

    #[test]
    fn place_is_kept_when_servers_come_and_go_around_it() {
        let (mut rr, old) = started(&[(1, 1), (2, 1), (3, 1)]);
        assert_eq!(picks(&mut rr, &old, 2), [1, 2]);
        let new = servers(&[(7, 1), (2, 1), (8, 1), (3, 1)]);
        rr.servers_changed(&new);
        assert_eq!(picks(&mut rr, &new, 4), [8, 3, 7, 2]);
    }

    #[test]
    fn removed_server_gives_its_place_to_its_nearest_predecessor() {
        let (mut rr, old) = started(&[(1, 1), (2, 1), (3, 1), (4, 1)]);
        assert_eq!(picks(&mut rr, &old, 3), [1, 2, 3]);
        // 3 was last and is gone, and so is 2: the place is after 1.
        let new = servers(&[(1, 1), (4, 1)]);
        rr.servers_changed(&new);
        assert_eq!(picks(&mut rr, &new, 3), [4, 1, 4]);
    }

    #[test]
    fn place_survives_two_changes_without_a_pick_between() {
        let (mut rr, old) = started(&[(1, 1), (2, 1), (3, 1)]);
        assert_eq!(picks(&mut rr, &old, 2), [1, 2]);
        rr.servers_changed(&servers(&[(1, 1), (3, 1)]));
        let new = servers(&[(1, 1), (5, 1), (3, 1)]);
        rr.servers_changed(&new);
        assert_eq!(picks(&mut rr, &new, 3), [5, 3, 1]);
    }

    #[test]
    fn without_a_surviving_predecessor_the_first_is_next() {
        let (mut rr, old) = started(&[(1, 1), (2, 1), (3, 1)]);
        assert_eq!(picks(&mut rr, &old, 1), [1]);
        let new = servers(&[(2, 1), (3, 1)]);
        rr.servers_changed(&new);
        assert_eq!(picks(&mut rr, &new, 3), [2, 3, 2]);
    }

    #[test]
    fn config_is_refused() {
        assert_eq!(RoundRobin::new("{}").unwrap_err(), "rr takes no configuration");
    }
}
