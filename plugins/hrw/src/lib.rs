//! `hrw`, highest random weight, or weighted rendezvous hashing: the same client always gets the
//! same server, and a server that comes or goes moves its own clients and nobody else's.
//!
//! **Rule.** Client and server together are hashed to a number `u` between 0 and 1; the server with
//! the least `-ln(u) / weight` takes the client. Of the server, only its key counts, a hash of
//! address, port and protocol: so every director with the same servers decides alike, in whatever
//! order it lists them. Each server gets clients in proportion to its weight. Servers of weight 0 get
//! none; when there are no others there is no server. Everything is computed in integers, so it is
//! the same on every machine. LVS has no such scheduler.
//!
//! **Changes.** A server that goes, or whose weight becomes 0, gives its clients to the others by
//! their weights, and gets the same ones back later. A change of weight moves clients to or from that
//! server only.
//!
//! **Cost.** One pass over the servers with a hash of two multiplications each; a logarithm for the
//! few that can still win. Reads no counters.
//!
//! **When.** As `sh` or `mh`, where it matters that no other client moves, or that directors agree
//! without having the same history. With hundreds of servers `mh` is faster.

#![no_std]

extern crate alloc;

mod logarithm;

use alloc::collections::BinaryHeap;
use alloc::string::String;
use alloc::vec::Vec;
use core::cmp::Reverse;

use wvs_sdk::{Pick, Request, Scheduler, Server, caps, no_config};

use logarithm::minus_ln;

/// The scheduler `hrw`. Takes no configuration.
#[derive(Debug, Default)]
pub struct RendezvousHashing {
    /// The servers of a weight above 0, the heaviest first.
    candidates: Vec<Candidate>,
}

/// In the order of their fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    weight: Reverse<u32>,
    key: u64,
    index: u32,
}

impl Candidate {
    fn weight(&self) -> u64 {
        self.weight.0.into()
    }
}

/// An odd number without pattern: the golden ratio's fraction.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// A number all of whose upper bits depend on all bits of `value`.
#[inline]
fn mix(value: u64) -> u64 {
    let value = value.wrapping_mul(GOLDEN);
    (value ^ (value >> 32)).wrapping_mul(GOLDEN)
}

/// A hash of the client's address.
fn client(request: &Request) -> u64 {
    let octets = u128::from_be_bytes(request.client_address);
    #[expect(clippy::cast_possible_truncation, reason = "the halves are meant")]
    let [high, low] = [(octets >> 64) as u64, octets as u64];
    mix(mix(high).wrapping_add(low))
}

impl Scheduler for RendezvousHashing {
    const CAPS: u32 = caps::PURE;

    fn new(config: &str) -> Result<Self, String> {
        no_config("hrw", config)?;
        Ok(Self::default())
    }

    fn servers_changed(&mut self, servers: &[Server]) {
        let available = (0..).zip(servers).filter(|(_, server)| server.is_available());
        // A heap sorts with a fifth of the code of a sort.
        let heap: BinaryHeap<_> = available
            .map(|(index, server)| Candidate {
                weight: Reverse(server.weight),
                key: server.key,
                index,
            })
            .collect();
        self.candidates = heap.into_sorted_vec();
    }

    fn schedule(&mut self, request: &Request, _servers: &[Server]) -> Pick {
        let client = client(request);
        let Some(first) = self.candidates.first() else { return Pick::NoServer };
        let mut best = first;
        let mut highest = mix(client ^ first.key);
        let mut least = minus_ln(highest);
        for candidate in &self.candidates[1..] {
            let hash = mix(client ^ candidate.key);
            // Of two, the one with the higher weight and the higher hash wins. So whoever comes
            // later, with no higher weight, can win only with a hash higher than all before it.
            if hash > highest {
                highest = hash;
                let cost = minus_ln(hash);
                // A cost is below 2^38.
                if cost * best.weight() < least * candidate.weight() {
                    (best, least) = (candidate, cost);
                }
            }
        }
        Pick::Server(best.index as usize)
    }
}

wvs_sdk::no_std!();
wvs_sdk::export!(RendezvousHashing);

#[cfg(test)]
mod tests {
    use super::*;

    /// Servers by number and weight.
    fn servers(list: &[(u64, u32)]) -> Vec<Server> {
        let server =
            |&(number, weight)| Server { key: mix(mix(number)), weight, ..Server::default() };
        list.iter().map(server).collect()
    }

    fn request(client: u32) -> Request {
        let mut request = Request { family: 4, ..Request::default() };
        request.client_address[..4].copy_from_slice(&client.to_be_bytes());
        request
    }

    const CLIENTS: u32 = 10_000;

    /// The number of each client's server.
    fn picks(list: &[(u64, u32)]) -> Vec<u64> {
        let servers = servers(list);
        let mut hrw = RendezvousHashing::new("").unwrap();
        hrw.servers_changed(&servers);
        let pick = |client| match hrw.schedule(&request(0x0A00_0000 + client), &servers) {
            Pick::Server(index) => list[index].0,
            other => panic!("{other:?}"),
        };
        (0..CLIENTS).map(pick).collect()
    }

    fn share(picks: &[u64], number: u64) -> usize {
        picks.iter().filter(|pick| **pick == number).count()
    }

    #[test]
    fn clients_spread_by_the_weights() {
        let picks = picks(&[(1, 1), (2, 2), (3, 3), (4, 0), (5, 4)]);
        for (number, expected) in [(1, 1_000), (2, 2_000), (3, 3_000), (4, 0), (5, 4_000)] {
            let share = share(&picks, number);
            assert!(share.abs_diff(expected) < 150, "server {number}: {share}");
        }
    }

    #[test]
    fn clients_spread_evenly_over_many_servers() {
        let list: Vec<_> = (0..100).map(|number| (number, 7)).collect();
        let picks = picks(&list);
        assert!((0..100).all(|number| share(&picks, number).abs_diff(100) < 50));
    }

    #[test]
    fn order_of_servers_does_not_matter() {
        assert_eq!(picks(&[(1, 1), (2, 2), (3, 3)]), picks(&[(3, 3), (1, 1), (2, 2)]));
    }

    #[test]
    fn server_that_goes_moves_only_its_own_clients() {
        let before = picks(&[(1, 1), (2, 2), (3, 3)]);
        for after in [picks(&[(1, 1), (3, 3)]), picks(&[(1, 1), (2, 0), (3, 3)])] {
            let moved = |(before, after): &(&u64, &u64)| before != after;
            let moved: Vec<_> = before.iter().zip(&after).filter(moved).collect();
            assert!(moved.iter().all(|(before, _)| **before == 2));
            // To the others by their weights.
            let to_first = moved.iter().filter(|(_, after)| **after == 1).count();
            assert!((moved.len() / 4).abs_diff(to_first) < 100, "{to_first} of {}", moved.len());
        }
    }

    #[test]
    fn change_of_weight_moves_clients_to_that_server_only() {
        let before = picks(&[(1, 1), (2, 1), (3, 1)]);
        let after = picks(&[(1, 1), (2, 3), (3, 1)]);
        let moved = before.iter().zip(&after).filter(|(before, after)| before != after);
        let to: Vec<_> = moved.map(|(_, after)| *after).collect();
        assert!(to.iter().all(|number| *number == 2));
        assert!(to.len().abs_diff((6_000 - 3_333) as usize) < 200, "{}", to.len());
    }

    #[test]
    fn picks_are_the_same_on_every_machine() {
        // A change here would move the clients of every running director.
        let list = [(1, 1), (2, 2), (3, 3), (4, 4)];
        assert_eq!(picks(&list)[..16], [4, 2, 4, 3, 4, 2, 4, 3, 4, 4, 4, 4, 3, 3, 4, 3]);
    }

    #[test]
    fn ipv6_clients_are_told_apart_by_either_half() {
        let servers = servers(&(0..100).map(|number| (number, 1)).collect::<Vec<_>>());
        let mut hrw = RendezvousHashing::new("").unwrap();
        hrw.servers_changed(&servers);
        for octet in [0, 7, 8, 15] {
            let mut picked = alloc::collections::BTreeSet::new();
            for value in 0..=255 {
                let mut request = Request { family: 6, ..Request::default() };
                request.client_address[octet] = value;
                let Pick::Server(index) = hrw.schedule(&request, &servers) else { panic!() };
                picked.insert(index);
            }
            assert!(picked.len() > 80, "octet {octet}: {}", picked.len());
        }
    }

    #[test]
    fn without_weights_there_is_no_server() {
        let mut hrw = RendezvousHashing::new("").unwrap();
        for list in [&[][..], &[(1, 0), (2, 0)]] {
            let servers = servers(list);
            hrw.servers_changed(&servers);
            assert_eq!(hrw.schedule(&request(1), &servers), Pick::NoServer);
        }
    }

    #[test]
    fn config_is_refused() {
        assert_eq!(RendezvousHashing::new("{}").unwrap_err(), "hrw takes no configuration");
    }
}
