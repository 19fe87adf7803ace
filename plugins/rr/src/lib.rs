//! `rr`, round robin: each new connection goes to the server after the one that got the last.
//!
//! **Rule.** The next server in the order of the configuration, cyclic; servers of weight 0 are
//! passed over. How large a weight is does not matter. When no server has a weight above 0 there is
//! no server.
//!
//! **Changes of membership** keep the place by the servers' identities: a server added later waits
//! for its turn and nobody gets two in a row. When the last chosen server is gone, its nearest
//! predecessor that is still there counts as the last chosen. A successor of the same kind goes on
//! from there.
//!
//! **Cost.** One step, and one more for each server of weight 0 passed over; reads no counters.
//!
//! **When.** Servers alike, connections alike: short requests against equal machines. Where
//! connections live long or differ in weight, `wlc` spreads the load better.

#![no_std]

extern crate alloc;

use alloc::string::String;
use alloc::vec::Vec;

use wvs_sdk::{Pick, Request, Scheduler, Server, State, Turn, no_config, state};

/// The scheduler `rr`. Takes no configuration.
#[derive(Debug, Default)]
pub struct RoundRobin {
    turn: Turn,
}

/// The form of the [`State`]: the identities of [`Turn::last_turns`].
const MARK: [u8; 4] = *b"rr 1";

impl Scheduler for RoundRobin {
    const CAPS: u32 = 0;

    fn new(config: &str) -> Result<Self, String> {
        no_config("rr", config)?;
        Ok(Self::default())
    }

    fn servers_changed(&mut self, servers: &[Server]) {
        self.turn.servers_changed(servers);
    }

    fn schedule(&mut self, _request: &Request, servers: &[Server]) -> Pick {
        let (before, after) = self.turn.split(servers);
        let index = match after.iter().position(Server::is_available) {
            Some(distance) => before.len() + distance,
            None => match before.iter().position(Server::is_available) {
                Some(index) => index,
                None => return Pick::NoServer,
            },
        };
        self.turn.take(index);
        Pick::Server(index)
    }
}

impl State for RoundRobin {
    fn save(&self) -> Vec<u8> {
        state::to_octets(MARK, self.turn.last_turns().map(u64::from))
    }

    fn load(&mut self, state: &[u8]) -> bool {
        let Some(words) = state::from_octets(MARK, state) else { return false };
        self.turn.resume(words.filter_map(|id| u32::try_from(id).ok()));
        true
    }
}

wvs_sdk::no_std!();
wvs_sdk::export!(RoundRobin, State);

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
    fn place_is_kept_when_servers_come_and_go() {
        let (mut rr, old) = started(&[(1, 1), (2, 1), (3, 1), (4, 1)]);
        assert_eq!(picks(&mut rr, &old, 3), [1, 2, 3]);
        let new = servers(&[(7, 1), (1, 1), (2, 1), (8, 1), (4, 1)]);
        rr.servers_changed(&new);
        assert_eq!(picks(&mut rr, &new, 5), [8, 4, 7, 1, 2]);
    }

    #[test]
    fn successor_goes_on_where_its_predecessor_stopped() {
        let (mut old, _) = started(&[(1, 1), (2, 1), (3, 1)]);
        let (mut new, servers) = started(&[(5, 1), (1, 1), (2, 1), (3, 1)]);
        assert!(new.load(&old.save()));
        assert_eq!(picks(&mut new, &servers, 1), [5], "nobody had a turn yet");
        assert_eq!(picks(&mut old, &servers[1..], 2), [1, 2]);
        assert!(new.load(&old.save()));
        assert_eq!(picks(&mut new, &servers, 3), [3, 5, 1]);
    }

    #[test]
    fn state_of_others_is_refused() {
        let (mut rr, servers) = started(&[(1, 1), (2, 1)]);
        assert_eq!(picks(&mut rr, &servers, 1), [1]);
        for state in [&b""[..], b"wrr1", b"rr 1\x01"] {
            assert!(!rr.load(state));
        }
        assert_eq!(picks(&mut rr, &servers, 1), [2]);
    }

    #[test]
    fn config_is_refused() {
        assert_eq!(RoundRobin::new("{}").unwrap_err(), "rr takes no configuration");
    }
}
