//! `wlc`, weighted least connections: each new connection goes to the server with the least load
//! for its weight.
//!
//! **Rule.** A server's load is `active * 256 + inactive` connections, so that an inactive one
//! (closing, or UDP) counts a little. The server with the least load per weight wins, of equals the
//! first in the order of the configuration. (In LVS it is the one added last: its list is in the
//! reverse order.) Servers of weight 0 are passed over; when there are no others there is no server.
//!
//! **Cost.** One pass over the servers, and the director refreshes their counters before each
//! decision.
//!
//! **When.** The choice when nothing speaks for another one, and the default of LVS: it follows
//! connections that live long and servers that are slow.

#![no_std]

extern crate alloc;

use alloc::string::String;

use wvs_sdk::{Pick, Request, Scheduler, Server, caps, load, no_config};

/// The scheduler `wlc`. Takes no configuration.
#[derive(Debug, Default)]
pub struct WeightedLeastConnections;

impl Scheduler for WeightedLeastConnections {
    const CAPS: u32 = caps::COUNTERS;

    fn new(config: &str) -> Result<Self, String> {
        no_config("wlc", config)?;
        Ok(Self)
    }

    fn schedule(&mut self, _request: &Request, servers: &[Server]) -> Pick {
        load::least_loaded(servers.iter().enumerate(), load::overhead).into()
    }
}

wvs_sdk::no_std!();
wvs_sdk::export!(WeightedLeastConnections);

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    /// Servers by weight, active and inactive connections.
    fn servers(list: &[(u32, u32, u32)]) -> Vec<Server> {
        let server =
            |&(weight, active, inactive)| Server { weight, active, inactive, ..Server::default() };
        list.iter().map(server).collect()
    }

    fn pick(list: &[(u32, u32, u32)]) -> Pick {
        WeightedLeastConnections.schedule(&Request::default(), &servers(list))
    }

    #[test]
    fn least_load_per_weight_wins() {
        assert_eq!(pick(&[(1, 10, 0), (1, 9, 0), (1, 11, 0)]), Pick::Server(1));
        assert_eq!(pick(&[(1, 10, 0), (3, 20, 0)]), Pick::Server(1));
        assert_eq!(pick(&[(1, 10, 0), (3, 31, 0)]), Pick::Server(0));
    }

    #[test]
    fn active_connection_counts_as_256_inactive_ones() {
        assert_eq!(pick(&[(1, 1, 0), (1, 0, 255)]), Pick::Server(1));
        assert_eq!(pick(&[(1, 1, 0), (1, 0, 256)]), Pick::Server(0));
        assert_eq!(pick(&[(1, 1, 0), (1, 0, 257)]), Pick::Server(0));
    }

    #[test]
    fn of_equals_the_first_listed_wins() {
        assert_eq!(pick(&[(1, 5, 0), (1, 5, 0)]), Pick::Server(0));
        assert_eq!(pick(&[(2, 10, 0), (1, 5, 0)]), Pick::Server(0));
        assert_eq!(pick(&[(9, 0, 0), (1, 0, 0)]), Pick::Server(0));
    }

    #[test]
    fn weight_0_is_never_picked() {
        assert_eq!(pick(&[(0, 0, 0), (1, 1000, 1000)]), Pick::Server(1));
        assert_eq!(pick(&[(1, 1000, 1000), (0, 0, 0)]), Pick::Server(0));
        assert_eq!(pick(&[(0, 0, 0), (0, 0, 0)]), Pick::NoServer);
        assert_eq!(pick(&[]), Pick::NoServer);
    }

    #[test]
    fn largest_counts_and_weights_do_not_overflow() {
        let most = u32::MAX;
        assert_eq!(pick(&[(65_535, most, most), (65_535, most, most - 1)]), Pick::Server(1));
        assert_eq!(pick(&[(1, most, most), (65_535, most, most)]), Pick::Server(1));
    }

    #[test]
    fn config_is_refused() {
        let refused = WeightedLeastConnections::new("{}").unwrap_err();
        assert_eq!(refused, "wlc takes no configuration");
    }
}
