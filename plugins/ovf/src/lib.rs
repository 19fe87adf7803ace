//! `ovf`, weighted overflow: everything goes to the best server until it is full, then to the next.
//!
//! **Rule.** Of the servers with at most as many active connections as their weight says, the one of
//! the highest weight; of equals the first in the order of the configuration. (In LVS it is the one
//! added last: its list is in the reverse order.) So a server takes up to one more than its weight.
//! Servers of weight 0 are passed over. When all others are full there is no server, and the client
//! is refused.
//!
//! **Cost.** One pass over the servers, and the director refreshes their counters before each
//! decision.
//!
//! **When.** As few servers at work as the load needs. Not for UDP: all of its connections are
//! inactive, so no server is ever full.

#![no_std]

extern crate alloc;

use alloc::string::String;

use wvs_sdk::{Pick, Request, Scheduler, Server, caps, no_config};

/// The scheduler `ovf`. Takes no configuration.
#[derive(Debug, Default)]
pub struct WeightedOverflow;

impl Scheduler for WeightedOverflow {
    const CAPS: u32 = caps::COUNTERS;

    fn new(config: &str) -> Result<Self, String> {
        no_config("ovf", config)?;
        Ok(Self)
    }

    fn schedule(&mut self, _request: &Request, servers: &[Server]) -> Pick {
        let has_room = |server: &Server| server.is_available() && server.active <= server.weight;
        let with_room = servers.iter().enumerate().filter(|(_, server)| has_room(server));
        // Backwards, because the last of equals counts as the greatest.
        let best = with_room.rev().max_by_key(|(_, server)| server.weight);
        best.map(|(index, _)| index).into()
    }
}

wvs_sdk::no_std!();
wvs_sdk::export!(WeightedOverflow);

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    /// Picks from servers by weight and active connections.
    fn pick(list: &[(u32, u32)]) -> Pick {
        let server = |&(weight, active)| Server { weight, active, ..Server::default() };
        let servers: Vec<_> = list.iter().map(server).collect();
        WeightedOverflow.schedule(&Request::default(), &servers)
    }

    #[test]
    fn highest_weight_takes_everything_until_it_is_full() {
        assert_eq!(pick(&[(2, 0), (5, 0)]), Pick::Server(1));
        assert_eq!(pick(&[(2, 0), (5, 5)]), Pick::Server(1), "one more than the weight");
        assert_eq!(pick(&[(2, 0), (5, 6)]), Pick::Server(0));
    }

    #[test]
    fn of_equals_the_first_listed_wins() {
        assert_eq!(pick(&[(1, 0), (3, 2), (3, 0)]), Pick::Server(1));
    }

    #[test]
    fn when_all_are_full_there_is_no_server() {
        assert_eq!(pick(&[(2, 3), (5, 6)]), Pick::NoServer);
    }

    #[test]
    fn weight_0_is_never_picked() {
        assert_eq!(pick(&[(0, 0)]), Pick::NoServer);
        assert_eq!(pick(&[]), Pick::NoServer);
    }

    #[test]
    fn config_is_refused() {
        assert_eq!(WeightedOverflow::new("{}").unwrap_err(), "ovf takes no configuration");
    }
}
