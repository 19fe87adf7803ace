//! `sh`, source hashing: the same client always gets the same server.
//!
//! **Rule.** A hash of the client's address leads to one of 256 buckets, each of which belongs to a
//! server. The buckets are filled in the order of the configuration: each server gets as many in a
//! row as its weight says, and round again until all are filled. The hash is the one of LVS, so a
//! client lands in the same bucket; an IPv6 address counts as the exclusive or of its four words.
//!
//! **Weights** should be small numbers that add up to at most 256. Of larger ones only the first
//! 256 count: behind a server of weight 300 no other one gets a bucket.
//!
//! **Weight 0** takes a server out of the buckets, and its clients go to the others at once. LVS
//! leaves such a server one bucket in each round and refuses the clients that fall into it; we do
//! not. Any change of membership or weight fills the buckets anew and moves many clients.
//!
//! **Cost.** One multiplication and two loads, whatever the number of servers; reads no counters.
//!
//! **When.** Servers that keep something for each client (sessions, caches) where no persistence is
//! wanted, or several directors that must agree without talking. Clients behind one address share
//! one server.

use std::net::IpAddr;

use wvs_sdk::{Pick, Request, Scheduler, Server, caps};

const BUCKETS: usize = 256;

/// The scheduler `sh`. Takes no configuration.
#[derive(Debug)]
pub struct SourceHashing {
    /// The index of each bucket's server; all alike `None` when no server has a weight above 0.
    buckets: [Option<u32>; BUCKETS],
}

/// The bucket of a client.
fn bucket(client: IpAddr) -> usize {
    let word = match client {
        IpAddr::V4(address) => address.to_bits(),
        IpAddr::V6(address) => {
            let bits = address.to_bits();
            let folded = bits ^ (bits >> 64);
            // The other half of what was folded is cut off.
            #[expect(clippy::cast_possible_truncation, reason = "the lowest word is meant")]
            let word = (folded ^ (folded >> 32)) as u32;
            word
        }
    };
    // Multiplicative hashing: 2^32 / golden ratio, the top octet is the bucket.
    let [.., top] = word.wrapping_mul(0x61C8_8647).to_le_bytes();
    usize::from(top)
}

impl Scheduler for SourceHashing {
    const CAPS: u32 = caps::PURE;

    fn new(config: &str) -> Result<Self, String> {
        if config.is_empty() {
            Ok(Self { buckets: [None; BUCKETS] })
        } else {
            Err("sh takes no configuration".into())
        }
    }

    fn servers_changed(&mut self, servers: &[Server]) {
        let available = || (0..).zip(servers).filter(|(_, server)| server.is_available());
        let mut shares = available()
            .cycle()
            .flat_map(|(index, server)| std::iter::repeat_n(index, server.weight as usize));
        self.buckets = std::array::from_fn(|_| shares.next());
    }

    fn schedule(&mut self, request: &Request, servers: &[Server]) -> Pick {
        let Some(index) = self.buckets[bucket(request.client())] else { return Pick::NoServer };
        let index = index as usize;
        if servers.get(index).is_some_and(Server::is_available) {
            Pick::Server(index)
        } else {
            Pick::NoServer
        }
    }
}

wvs_sdk::export!(SourceHashing);

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

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
        let mut request = Request { family: 6, ..Request::default() };
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
        let vectors = [
            ("192.0.2.1", 50),
            ("192.0.2.2", 148),
            ("10.0.0.1", 39),
            ("10.0.0.2", 137),
            ("198.51.100.7", 171),
        ];
        for (client, expected) in vectors {
            assert_eq!(bucket(client.parse().unwrap()), expected, "{client}");
        }
    }

    #[test]
    fn ipv6_address_counts_as_the_xor_of_its_words() {
        // 0a00_0001 in each of the words alone, then 0a00_0001 ^ 0a00_0002 ^ 0a00_0002.
        for client in ["a00:1::", "0:0:a00:1::", "::a00:1:0:0", "::a00:1", "::a00:2:a00:2:a00:1"] {
            assert_eq!(bucket(client.parse().unwrap()), 39, "{client}");
        }
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
    fn config_is_refused() {
        assert_eq!(SourceHashing::new("{}").unwrap_err(), "sh takes no configuration");
    }
}
