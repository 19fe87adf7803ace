//! `lc`, least connections: each new connection goes to the server with the least load.
//!
//! **Rule.** A server's load is `active * 256 + inactive` connections, so that an inactive one
//! (closing, or UDP) counts a little. The server with the least load wins, of equals the first in
//! the order of the configuration. (In LVS it is the one added last: its list is in the reverse
//! order.) Servers of weight 0 are passed over, and how large a weight is does not matter otherwise;
//! when there are no others there is no server.
//!
//! **Cost.** One pass over the servers, and the director refreshes their counters before each
//! decision.
//!
//! **When.** Servers alike, connections that are not: as `wlc`, where weights only say who takes
//! part.

#![no_std]

extern crate alloc;

use alloc::string::String;

use wvs_sdk::{Pick, Request, Scheduler, Server, caps, load, no_config};

/// The scheduler `lc`. Takes no configuration.
#[derive(Debug, Default)]
pub struct LeastConnections;

impl Scheduler for LeastConnections {
    const CAPS: u32 = caps::COUNTERS;

    fn new(config: &str) -> Result<Self, String> {
        no_config("lc", config)?;
        Ok(Self)
    }

    fn schedule(&mut self, _request: &Request, servers: &[Server]) -> Pick {
        let available = servers.iter().enumerate().filter(|(_, server)| server.is_available());
        let least = available.min_by_key(|(_, server)| load::overhead(server));
        least.map(|(index, _)| index).into()
    }
}

wvs_sdk::no_std!();
wvs_sdk::export!(LeastConnections);

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    /// Picks from servers by weight, active and inactive connections.
    fn pick(list: &[(u32, u32, u32)]) -> Pick {
        let server =
            |&(weight, active, inactive)| Server { weight, active, inactive, ..Server::default() };
        let servers: Vec<_> = list.iter().map(server).collect();
        LeastConnections.schedule(&Request::default(), &servers)
    }

    #[test]
    fn least_load_wins_whatever_the_weight() {
        assert_eq!(pick(&[(1, 10, 0), (1, 9, 0), (1, 11, 0)]), Pick::Server(1));
        assert_eq!(pick(&[(1, 10, 0), (100, 11, 0)]), Pick::Server(0));
    }

    #[test]
    fn active_connection_counts_as_256_inactive_ones() {
        assert_eq!(pick(&[(1, 1, 0), (1, 0, 255)]), Pick::Server(1));
        assert_eq!(pick(&[(1, 1, 0), (1, 0, 257)]), Pick::Server(0));
    }

    #[test]
    fn of_equals_the_first_listed_wins() {
        assert_eq!(pick(&[(0, 0, 0), (1, 1, 0), (9, 0, 256)]), Pick::Server(1));
    }

    #[test]
    fn weight_0_is_never_picked() {
        assert_eq!(pick(&[(0, 0, 0), (1, u32::MAX, u32::MAX)]), Pick::Server(1));
        assert_eq!(pick(&[(0, 0, 0)]), Pick::NoServer);
        assert_eq!(pick(&[]), Pick::NoServer);
    }

    #[test]
    fn config_is_refused() {
        assert_eq!(LeastConnections::new("{}").unwrap_err(), "lc takes no configuration");
    }
}
