//! `nq`, never queue: an idle server takes the connection, however slow it is.
//!
//! **Rule.** The first server without active connections in the order of the configuration, whatever
//! its weight; if there is none, the one with the least `(active + 1) / weight`, of equals the first,
//! as `sed` has it. (LVS's list is in the reverse order: there the one added last is the first.)
//! Inactive connections do not count. Servers of weight 0 are passed over; when there are no others
//! there is no server.
//!
//! **Cost.** One pass over the servers, a second one when none is idle, and the director refreshes
//! their counters before each decision.
//!
//! **When.** As `sed`, where a slow server at once is better than a fast one with somebody ahead. Not
//! for UDP: all of its connections are inactive, so all would go to the first server.

#![no_std]

extern crate alloc;

use alloc::string::String;

use wvs_sdk::{Pick, Request, Scheduler, Server, caps, load, no_config};

/// The scheduler `nq`. Takes no configuration.
#[derive(Debug, Default)]
pub struct NeverQueue;

impl Scheduler for NeverQueue {
    const CAPS: u32 = caps::COUNTERS;

    fn new(config: &str) -> Result<Self, String> {
        no_config("nq", config)?;
        Ok(Self)
    }

    fn schedule(&mut self, _request: &Request, servers: &[Server]) -> Pick {
        let delay = |server: &Server| u64::from(server.active) + 1;
        let idle = servers.iter().position(|server| server.active == 0 && server.is_available());
        idle.or_else(|| load::least_loaded(servers.iter().enumerate(), delay)).into()
    }
}

wvs_sdk::no_std!();
wvs_sdk::export!(NeverQueue);

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    /// Picks from servers by weight and active connections.
    fn pick(list: &[(u32, u32)]) -> Pick {
        let server = |&(weight, active)| Server { weight, active, ..Server::default() };
        let servers: Vec<_> = list.iter().map(server).collect();
        NeverQueue.schedule(&Request::default(), &servers)
    }

    #[test]
    fn first_idle_server_wins_whatever_its_weight() {
        assert_eq!(pick(&[(100, 1), (1, 0), (50, 0)]), Pick::Server(1));
    }

    #[test]
    fn without_idle_servers_the_shortest_expected_delay_wins() {
        assert_eq!(pick(&[(1, 1), (3, 2)]), Pick::Server(1), "2/1 against 3/3");
        assert_eq!(pick(&[(1, 1), (3, 5)]), Pick::Server(0), "of equals the first");
    }

    #[test]
    fn weight_0_is_never_picked() {
        assert_eq!(pick(&[(0, 0), (1, 7)]), Pick::Server(1));
        assert_eq!(pick(&[(0, 0)]), Pick::NoServer);
        assert_eq!(pick(&[]), Pick::NoServer);
    }

    #[test]
    fn config_is_refused() {
        assert_eq!(NeverQueue::new("{}").unwrap_err(), "nq takes no configuration");
    }
}
