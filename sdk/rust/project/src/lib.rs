//! my-scheduler: weighted least connections.
//!
//! Each new connection goes to the server with the least load for its weight, of equals to the
//! first in the order of the configuration. An active connection counts as 256 inactive ones.

// Without the standard library a module is small and loads in a few milliseconds. What allocates is
// in `alloc`.
#![no_std]

extern crate alloc;

use alloc::string::String;

use wvs_sdk::{Pick, Request, Scheduler, Server, no_config};

pub struct LeastLoaded;

fn load(server: &Server) -> u64 {
    u64::from(server.active) * 256 + u64::from(server.inactive)
}

impl Scheduler for LeastLoaded {
    fn new(config: &str) -> Result<Self, String> {
        no_config("my-scheduler", config)?;
        Ok(Self)
    }

    fn schedule(&mut self, _request: &Request, servers: &[Server]) -> Pick {
        let mut best = Pick::NoServer;
        // Stands for an infinite load: any load on any weight above 0 is less, and weight 0 never.
        let (mut least_load, mut least_weight) = (1, 0);
        for (index, server) in servers.iter().enumerate() {
            let (load, weight) = (load(server), u64::from(server.weight));
            // Nothing is divided: a / b < c / d is compared as a * d < c * b. No product
            // overflows, since a load stays below 2^41 and a weight below 2^16.
            if load * least_weight < least_load * weight {
                best = Pick::Server(index);
                (least_load, least_weight) = (load, weight);
            }
        }
        best
    }
}

wvs_sdk::no_std!();
wvs_sdk::export!(LeastLoaded);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn least_load_for_the_weight_wins() {
        let server = |weight, active| Server { weight, active, ..Server::default() };
        let pick = |servers: &[Server]| LeastLoaded.schedule(&Request::default(), servers);
        assert_eq!(pick(&[server(1, 10), server(3, 20)]), Pick::Server(1));
        assert_eq!(pick(&[server(1, 5), server(1, 5)]), Pick::Server(0));
        assert_eq!(pick(&[server(0, 0), server(1, 9)]), Pick::Server(1));
        assert_eq!(pick(&[server(0, 0)]), Pick::NoServer);
    }
}
