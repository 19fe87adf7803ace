//! `twos`, the power of two choices: draws two servers by weight and takes the less loaded one.
//!
//! **Rule.** Two servers are drawn independently, each with a probability in proportion to its
//! weight; they may be the same. The one with the lesser `(active * 256 + inactive) / weight` takes
//! the connection, of equals the one drawn first. Servers of weight 0 are never drawn; when there
//! are no others there is no server.
//!
//! **The draw** divides the range of each half of the request's random number among the servers in
//! the order of the configuration. (LVS draws from one number more than the sum of the weights, which
//! favours the first server a little, and compares in 32 bits, which can overflow; we do neither.)
//!
//! **Cost.** Two binary searches, hardly more for many servers than for few; but the director
//! refreshes the counters of all before each decision.
//!
//! **When.** Nearly as even as `wlc`, without the herd that runs to the one best server where several
//! directors see the same servers.

#![no_std]

extern crate alloc;

use alloc::string::String;
use alloc::vec::Vec;

use wvs_sdk::{Pick, Request, Scheduler, Server, caps, load, no_config};

/// The scheduler `twos`. Takes no configuration.
#[derive(Debug, Default)]
pub struct TwoChoices {
    /// Where each server's share of the weights ends: `0..ends[0]` is the first's, and so on.
    ends: Vec<u64>,
}

impl Scheduler for TwoChoices {
    const CAPS: u32 = caps::COUNTERS;

    fn new(config: &str) -> Result<Self, String> {
        no_config("twos", config)?;
        Ok(Self::default())
    }

    fn servers_changed(&mut self, servers: &[Server]) {
        self.ends.clear();
        self.ends.extend(servers.iter().scan(0, |end, server| {
            *end += u64::from(server.weight);
            Some(*end)
        }));
    }

    fn schedule(&mut self, request: &Request, servers: &[Server]) -> Pick {
        let Some(total) = self.ends.last() else { return Pick::NoServer };
        let drawn = [request.random >> 32, request.random & 0xFFFF_FFFF].map(|half| {
            // Scaled to 0..total. A weight of 0 has an empty share, where no point lies.
            let point = (half * total) >> 32;
            self.ends.partition_point(|end| *end <= point)
        });
        let candidates = drawn.into_iter().filter_map(|index| Some((index, servers.get(index)?)));
        load::least_loaded(candidates, load::overhead).into()
    }
}

wvs_sdk::no_std!();
wvs_sdk::export!(TwoChoices);

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(list: &[(u32, u32)]) -> Vec<Server> {
        let server = |&(weight, active)| Server { weight, active, ..Server::default() };
        list.iter().map(server).collect()
    }

    /// Picks with the halves of the random number at these 32nds of their range.
    fn pick(list: &[(u32, u32)], first: u64, second: u64) -> Pick {
        let servers = servers(list);
        let mut twos = TwoChoices::new("").unwrap();
        twos.servers_changed(&servers);
        let random = (first << 27) << 32 | second << 27;
        twos.schedule(&Request { random, ..Request::default() }, &servers)
    }

    #[test]
    fn less_loaded_of_the_two_drawn_is_taken() {
        let list = [(1, 9), (1, 5), (1, 7), (1, 0)];
        assert_eq!(pick(&list, 0, 16), Pick::Server(2));
        assert_eq!(pick(&list, 16, 0), Pick::Server(2));
        assert_eq!(pick(&list, 8, 16), Pick::Server(1));
        assert_eq!(pick(&list, 0, 0), Pick::Server(0));
    }

    #[test]
    fn of_equals_the_one_drawn_first_is_taken() {
        let list = [(1, 5), (3, 15)];
        assert_eq!(pick(&list, 0, 8), Pick::Server(0));
        assert_eq!(pick(&list, 8, 0), Pick::Server(1));
    }

    #[test]
    fn servers_are_drawn_by_their_weights() {
        let list = [(3, 0), (0, 0), (5, 0)];
        let picks = (0..32).map(|at| pick(&list, at, at));
        assert_eq!(picks.filter(|pick| *pick == Pick::Server(0)).count(), 12);
        assert_eq!(pick(&list, 11, 11), Pick::Server(0));
        assert_eq!(pick(&list, 12, 12), Pick::Server(2));
        assert_eq!(pick(&list, 31, 31), Pick::Server(2), "no server beyond the last");
    }

    #[test]
    fn loads_beyond_32_bits_are_compared_rightly() {
        assert_eq!(pick(&[(60_000, u32::MAX), (60_000, u32::MAX - 1)], 0, 31), Pick::Server(1));
    }

    #[test]
    fn without_weights_there_is_no_server() {
        assert_eq!(pick(&[(0, 0), (0, 0)], 0, 31), Pick::NoServer);
        assert_eq!(pick(&[], 0, 0), Pick::NoServer);
    }

    #[test]
    fn config_is_refused() {
        assert_eq!(TwoChoices::new("{}").unwrap_err(), "twos takes no configuration");
    }
}
