//! `fo`, weighted failover: everything goes to the best server there is.
//!
//! **Rule.** The server of the highest weight, of equals the first in the order of the
//! configuration. (In LVS it is the one added last: its list is in the reverse order.) Weight 0,
//! which is also what a server has that is down or overloaded, is no weight; when there is no other
//! there is no server.
//!
//! **Cost.** A look at what was found when the servers last changed; reads no counters.
//!
//! **When.** A server and its substitutes: weights are ranks.

#![no_std]

extern crate alloc;

use alloc::string::String;

use wvs_sdk::{Pick, Request, Scheduler, Server, caps, no_config};

/// The scheduler `fo`. Takes no configuration.
#[derive(Debug, Default)]
pub struct WeightedFailover {
    best: Option<usize>,
}

impl Scheduler for WeightedFailover {
    const CAPS: u32 = caps::PURE;

    fn new(config: &str) -> Result<Self, String> {
        no_config("fo", config)?;
        Ok(Self::default())
    }

    fn servers_changed(&mut self, servers: &[Server]) {
        let available = servers.iter().enumerate().filter(|(_, server)| server.is_available());
        // Backwards, because the last of equals counts as the greatest.
        let best = available.rev().max_by_key(|(_, server)| server.weight);
        self.best = best.map(|(index, _)| index);
    }

    fn schedule(&mut self, _request: &Request, _servers: &[Server]) -> Pick {
        self.best.into()
    }
}

wvs_sdk::no_std!();
wvs_sdk::export!(WeightedFailover);

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    fn pick(weights: &[u32]) -> Pick {
        let server = |&weight| Server { weight, ..Server::default() };
        let servers: Vec<_> = weights.iter().map(server).collect();
        let mut fo = WeightedFailover::new("").unwrap();
        fo.servers_changed(&servers);
        fo.schedule(&Request::default(), &servers)
    }

    #[test]
    fn highest_weight_takes_everything() {
        assert_eq!(pick(&[1, 3, 2]), Pick::Server(1));
        assert_eq!(pick(&[1, 0, 2]), Pick::Server(2), "the next one when it is down");
    }

    #[test]
    fn of_equals_the_first_listed_wins() {
        assert_eq!(pick(&[0, 3, 3]), Pick::Server(1));
    }

    #[test]
    fn weight_0_is_never_picked() {
        assert_eq!(pick(&[0, 0]), Pick::NoServer);
        assert_eq!(pick(&[]), Pick::NoServer);
    }

    #[test]
    fn config_is_refused() {
        assert_eq!(WeightedFailover::new("{}").unwrap_err(), "fo takes no configuration");
    }
}
