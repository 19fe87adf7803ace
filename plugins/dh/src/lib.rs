//! `dh`, destination hashing: everything to one virtual address goes to one server.
//!
//! **Rule.** A hash of the virtual address leads to one of 256 buckets, which the servers own in
//! turns, in the order of the configuration: the first, 257th .. owns the first bucket. The hash is
//! the one of LVS, whose list is in the reverse order. How large a weight is does not matter, but
//! the server of a bucket with weight 0 gets nothing and nobody takes its place: there is no server,
//! and the client is refused.
//!
//! **Changes of membership** deal the buckets anew; changes of weight do not, so what a server held
//! comes back to it.
//!
//! **Cost.** One multiplication and one division, whatever the number of servers; reads no counters.
//! Beyond 256 servers the rest have no bucket.
//!
//! **When.** Virtual services of many addresses before servers that each serve some of them, such as
//! caches. A service of one address has all its connections on one server.

#![no_std]

extern crate alloc;

use alloc::string::String;

use wvs_sdk::{Pick, Request, Scheduler, Server, caps, hash, no_config};

/// The scheduler `dh`. Takes no configuration.
#[derive(Debug, Default)]
pub struct DestinationHashing;

impl Scheduler for DestinationHashing {
    const CAPS: u32 = caps::PURE;

    fn new(config: &str) -> Result<Self, String> {
        no_config("dh", config)?;
        Ok(Self)
    }

    fn schedule(&mut self, request: &Request, servers: &[Server]) -> Pick {
        let bucket = usize::from(hash::bucket(hash::fold(request.vip())));
        let owner = bucket.checked_rem(servers.len());
        owner.filter(|index| servers[*index].is_available()).into()
    }
}

wvs_sdk::no_std!();
wvs_sdk::export!(DestinationHashing);

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    fn pick(weights: &[u32], vip: [u8; 4]) -> Pick {
        let server = |&weight| Server { weight, ..Server::default() };
        let servers: Vec<_> = weights.iter().map(server).collect();
        let mut request = Request { family: 4, ..Request::default() };
        request.virtual_address[..4].copy_from_slice(&vip);
        DestinationHashing.schedule(&request, &servers)
    }

    #[test]
    fn servers_own_the_buckets_in_turns_whatever_their_weight() {
        // The buckets are 50, 148, 39 and 137.
        assert_eq!(pick(&[1, 9, 1], [192, 0, 2, 1]), Pick::Server(50 % 3));
        assert_eq!(pick(&[1, 9, 1], [192, 0, 2, 2]), Pick::Server(148 % 3));
        assert_eq!(pick(&[1, 9, 1], [10, 0, 0, 1]), Pick::Server(39 % 3));
        assert_eq!(pick(&[1; 300], [10, 0, 0, 2]), Pick::Server(137));
    }

    #[test]
    fn nobody_takes_the_place_of_a_server_of_weight_0() {
        assert_eq!(pick(&[0, 1, 1], [10, 0, 0, 1]), Pick::NoServer);
        assert_eq!(pick(&[1, 0, 0], [10, 0, 0, 1]), Pick::Server(0));
        assert_eq!(pick(&[], [10, 0, 0, 1]), Pick::NoServer);
    }

    #[test]
    fn client_does_not_matter() {
        let servers = [1; 5].map(|weight| Server { weight, ..Server::default() });
        let picks = (0..=255).map(|client| {
            let request = Request { family: 4, client_address: [client; 16], ..Request::default() };
            DestinationHashing.schedule(&request, &servers)
        });
        assert!(picks.into_iter().all(|pick| pick == Pick::Server(0)));
    }

    #[test]
    fn config_is_refused() {
        assert_eq!(DestinationHashing::new("{}").unwrap_err(), "dh takes no configuration");
    }
}
