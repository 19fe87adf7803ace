//! `sh`, source hashing: the same client always gets the same server.
//!
//! **Rule.** A hash of the client's address leads to one of 256 buckets, each of which belongs to a
//! server. The buckets are filled in the order of the configuration: each server gets as many in a
//! row as its weight says, and round again until all are filled. The hash is the one of LVS, so a
//! client lands in the same bucket; an IPv6 address counts as the exclusive or of its four words.
//! (LVS's list is in the reverse order.)
//!
//! **Configuration.** `port: true`: the client's TCP or UDP port is added to its address, so that
//! connections of one client spread. `fallback: true`: see weight 0. As LVS's flags `sh-port` and
//! `sh-fallback`.
//!
//! **Weights** should be small numbers that add up to at most 256. Of larger ones only the first
//! 256 count: behind a server of weight 300 no other one gets a bucket.
//!
//! **Weight 0** takes a server out of the buckets, and its clients go to the others at once. LVS
//! leaves such a server one bucket in each round and refuses the clients that fall into it; we do
//! not. Any change of membership or weight fills the buckets anew and moves many clients.
//!
//! With `fallback`, a server that is down, draining or overloaded keeps the buckets that its
//! configured weight gives it. Nobody else's clients move, and its own look further, from the bucket
//! of twice the number on: the first whose server is available takes them. They come back when it
//! does. (In LVS this is so for overloaded servers only.)
//!
//! **Cost.** One multiplication and two loads, whatever the number of servers; reads no counters.
//!
//! **When.** Servers that keep something for each client (sessions, caches) where no persistence is
//! wanted, or several directors that must agree without talking. Clients behind one address share
//! one server.

#![no_std]

extern crate alloc;

use alloc::string::String;

use serde::Deserialize;
use wvs_sdk::{Pick, Request, Scheduler, Server, caps, hash};

const BUCKETS: usize = 256;

/// The scheduler `sh`. Its configuration is `{"fallback": false, "port": false}` by default.
#[derive(Debug)]
pub struct SourceHashing {
    config: Config,
    /// The index of each bucket's server; all alike `None` when no server has a weight above 0.
    buckets: [Option<u32>; BUCKETS],
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    fallback: bool,
    port: bool,
}

impl SourceHashing {
    /// How many buckets in a row a server gets.
    fn share(&self, server: &Server) -> u32 {
        if self.config.fallback && !server.is_available() {
            server.configured_weight
        } else {
            server.weight
        }
    }

    /// The server of a bucket.
    fn owner(&self, bucket: u8) -> Option<usize> {
        self.buckets[usize::from(bucket)].map(|index| index as usize)
    }

    /// The client's bucket.
    fn home(&self, request: &Request) -> u8 {
        hash::bucket(hash::client(request, self.config.port))
    }
}

impl Scheduler for SourceHashing {
    const CAPS: u32 = caps::PURE;

    fn new(text: &str) -> Result<Self, String> {
        let config = wvs_config::read("sh takes `fallback` and `port`, each true or false", text)?;
        Ok(Self { config, buckets: [None; BUCKETS] })
    }

    fn servers_changed(&mut self, servers: &[Server]) {
        let shares = (0..).zip(servers).map(|(index, server)| (index, self.share(server)));
        let mut owners = shares
            .filter(|(_, share)| *share > 0)
            .cycle()
            .flat_map(|(index, share)| core::iter::repeat_n(index, share as usize));
        self.buckets = core::array::from_fn(|_| owners.next());
    }

    fn schedule(&mut self, request: &Request, servers: &[Server]) -> Pick {
        let is_available = |index: &usize| servers.get(*index).is_some_and(Server::is_available);
        let home = self.home(request);
        let owner = self.owner(home).filter(is_available);
        if owner.is_some() || !self.config.fallback {
            return owner.into();
        }
        // The offset is added to the hash once more, as in LVS.
        let probes = (0..=u8::MAX).map(|offset| home.wrapping_mul(2).wrapping_add(offset));
        probes.filter_map(|bucket| self.owner(bucket)).find(is_available).into()
    }
}

wvs_sdk::no_std!();
wvs_sdk::export!(SourceHashing);

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::vec::Vec;
    use core::net::{IpAddr, Ipv4Addr};

    use super::*;

    fn servers(weights: &[u32]) -> Vec<Server> {
        let server = |&weight| Server { weight, ..Server::default() };
        weights.iter().map(server).collect()
    }

    fn filled(weights: &[u32]) -> SourceHashing {
        let mut sh = SourceHashing::new("").unwrap();
        sh.servers_changed(&servers(weights));
        sh
    }

    fn owned(sh: &SourceHashing, index: u32) -> usize {
        sh.buckets.iter().filter(|bucket| **bucket == Some(index)).count()
    }

    fn request(client: IpAddr) -> Request {
        let mut request = Request { family: 6, protocol: 6, ..Request::default() };
        match client {
            IpAddr::V4(address) => {
                request.family = 4;
                request.client_address[..4].copy_from_slice(&address.octets());
            }
            IpAddr::V6(address) => request.client_address = address.octets(),
        }
        request
    }

    #[test]
    fn clients_have_the_buckets_they_have_in_lvs() {
        let sh = filled(&[1]);
        for (client, expected) in [("10.0.0.1", 39), ("192.0.2.1", 50), ("::a00:1", 39)] {
            let request = Request { client_port: 1, ..request(client.parse().unwrap()) };
            assert_eq!(sh.home(&request), expected, "{client}");
        }
    }

    #[test]
    fn port_counts_when_the_configuration_says_so() {
        let request = request(Ipv4Addr::new(10, 0, 0, 1).into());
        let request = Request { client_port: 1024, ..request };
        for (config, expected) in [("", 39), (r#"{"port":true}"#, 73), (r#"{"port":false}"#, 39)] {
            assert_eq!(SourceHashing::new(config).unwrap().home(&request), expected, "{config}");
        }
    }

    #[test]
    fn fallback_moves_only_the_clients_of_who_is_not_available() {
        let mut sh = SourceHashing::new(r#"{"fallback":true}"#).unwrap();
        let up = |weight| Server { weight, configured_weight: weight, ..Server::default() };
        let mut servers = [up(2), up(3), up(4)];
        let clients = || (0..=255).map(|host| request(Ipv4Addr::new(192, 0, 2, host).into()));
        sh.servers_changed(&servers);
        let before: Vec<_> = clients().map(|request| sh.schedule(&request, &servers)).collect();
        let buckets = sh.buckets;

        servers[1].weight = 0;
        sh.servers_changed(&servers);
        assert_eq!(sh.buckets, buckets);
        let mut moved = [0; 3];
        for (request, before) in clients().zip(before) {
            let after = sh.schedule(&request, &servers);
            if before == Pick::Server(1) {
                let twice = sh.home(&request).wrapping_mul(2);
                let further = (0..=255).map(|offset| sh.owner(twice.wrapping_add(offset)).unwrap());
                let expected = further.into_iter().find(|index| *index != 1).unwrap();
                assert_eq!(after, Pick::Server(expected));
                moved[expected] += 1;
            } else {
                assert_eq!(after, before);
            }
        }
        assert!(moved[0] > 10 && moved[2] > 10, "{moved:?}");

        let down = servers.map(|server| Server { weight: 0, ..server });
        sh.servers_changed(&down);
        assert!(clients().all(|request| sh.schedule(&request, &down) == Pick::NoServer));
    }

    #[test]
    fn buckets_are_filled_by_weight_in_list_order() {
        let sh = filled(&[2, 3, 4]);
        let start: Vec<_> = sh.buckets[..20].iter().flatten().copied().collect();
        assert_eq!(start, [0, 0, 1, 1, 1, 2, 2, 2, 2, 0, 0, 1, 1, 1, 2, 2, 2, 2, 0, 0]);
        assert_eq!([owned(&sh, 0), owned(&sh, 1), owned(&sh, 2)], [58, 86, 112]);
    }

    #[test]
    fn weight_0_gets_no_bucket() {
        let sh = filled(&[1, 0, 1]);
        assert_eq!([owned(&sh, 0), owned(&sh, 1), owned(&sh, 2)], [128, 0, 128]);
    }

    #[test]
    fn without_available_servers_there_is_no_server() {
        for weights in [&[][..], &[0, 0]] {
            let mut sh = filled(weights);
            let request = request(Ipv4Addr::new(192, 0, 2, 1).into());
            assert_eq!(sh.schedule(&request, &servers(weights)), Pick::NoServer);
        }
    }

    #[test]
    fn weights_beyond_256_leave_the_rest_nothing() {
        let sh = filled(&[65_535, 1]);
        assert_eq!([owned(&sh, 0), owned(&sh, 1)], [256, 0]);
    }

    #[test]
    fn client_keeps_its_server() {
        let mut sh = filled(&[1, 1, 1]);
        let table = servers(&[1, 1, 1]);
        let first = sh.schedule(&request("2001:db8::7".parse().unwrap()), &table);
        assert!(matches!(first, Pick::Server(_)));
        for port in 1..100 {
            let again = Request { client_port: port, ..request("2001:db8::7".parse().unwrap()) };
            assert_eq!(sh.schedule(&again, &table), first);
        }
    }

    #[test]
    fn server_that_is_gone_since_means_no_server() {
        let mut sh = filled(&[1]);
        let request = request(Ipv4Addr::LOCALHOST.into());
        assert_eq!(sh.schedule(&request, &servers(&[0])), Pick::NoServer);
    }

    #[test]
    fn unknown_configuration_is_refused() {
        for text in [r#"{"prot":true}"#, r#"{"port":1}"#, "[]", "null", "{} {}"] {
            assert_eq!(
                SourceHashing::new(text).unwrap_err(),
                format!("sh takes `fallback` and `port`, each true or false; this is {text}")
            );
        }
    }
}
