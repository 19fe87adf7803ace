//! `sed`, shortest expected delay: each new connection goes where it will be one among the fewest
//! for the weight.
//!
//! **Rule.** The server with the least `(active + 1) / weight` wins, of equals the first in the
//! order of the configuration. (In LVS it is the one added last: its list is in the reverse order.)
//! The one that is added is the connection in hand, so a fast server is preferred even while all are
//! idle, where `wlc` sees equals. Inactive connections do not count. Servers of weight 0 are passed
//! over; when there are no others there is no server.
//!
//! **Cost.** One pass over the servers, and the director refreshes their counters before each
//! decision.
//!
//! **When.** Servers of very different speed with few connections each. Not for UDP: all of its
//! connections are inactive, so all would go to one server.

#![no_std]

extern crate alloc;

use alloc::string::String;

use wvs_sdk::{Pick, Request, Scheduler, Server, caps, load, no_config};

/// The scheduler `sed`. Takes no configuration.
#[derive(Debug, Default)]
pub struct ShortestExpectedDelay;

impl Scheduler for ShortestExpectedDelay {
    const CAPS: u32 = caps::COUNTERS;

    fn new(config: &str) -> Result<Self, String> {
        no_config("sed", config)?;
        Ok(Self)
    }

    fn schedule(&mut self, _request: &Request, servers: &[Server]) -> Pick {
        load::least_loaded(servers.iter().enumerate(), |server| u64::from(server.active) + 1).into()
    }
}

wvs_sdk::no_std!();
wvs_sdk::export!(ShortestExpectedDelay);

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    /// Picks from servers by weight and active connections.
    fn pick(list: &[(u32, u32)]) -> Pick {
        let server = |&(weight, active)| Server { weight, active, ..Server::default() };
        let servers: Vec<_> = list.iter().map(server).collect();
        ShortestExpectedDelay.schedule(&Request::default(), &servers)
    }

    #[test]
    fn connection_in_hand_counts() {
        assert_eq!(pick(&[(1, 0), (3, 0)]), Pick::Server(1), "1/1 against 1/3");
        assert_eq!(pick(&[(1, 0), (3, 1)]), Pick::Server(1), "1/1 against 2/3");
        assert_eq!(pick(&[(1, 0), (3, 3)]), Pick::Server(0), "1/1 against 4/3");
    }

    #[test]
    fn of_equals_the_first_listed_wins() {
        assert_eq!(pick(&[(1, 0), (3, 2)]), Pick::Server(0));
        assert_eq!(pick(&[(3, 2), (1, 0)]), Pick::Server(0));
    }

    #[test]
    fn inactive_connections_do_not_count() {
        let busy = Server { weight: 1, inactive: 1_000, ..Server::default() };
        let servers = [busy, Server { weight: 1, active: 1, ..Server::default() }];
        let pick = ShortestExpectedDelay.schedule(&Request::default(), &servers);
        assert_eq!(pick, Pick::Server(0));
    }

    #[test]
    fn weight_0_is_never_picked() {
        assert_eq!(pick(&[(0, 0), (1, u32::MAX)]), Pick::Server(1));
        assert_eq!(pick(&[(0, 0)]), Pick::NoServer);
        assert_eq!(pick(&[]), Pick::NoServer);
    }

    #[test]
    fn config_is_refused() {
        assert_eq!(ShortestExpectedDelay::new("{}").unwrap_err(), "sed takes no configuration");
    }
}
