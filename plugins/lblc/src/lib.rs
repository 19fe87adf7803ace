//! `lblc`, locality-based least connections: a virtual address keeps its server until that has too
//! much to do.
//!
//! **Rule.** The server that a virtual address had last takes its connections, as long as its weight
//! is above 0 and it is not overloaded: that is when it has more active connections than its weight
//! says while another server has less than half of its own. Otherwise the address gets the server
//! with the least `(active * 256 + inactive) / weight`, of equals the first in the order of the
//! configuration. (In LVS it is the one added last: its list is in the reverse order.) When no weight
//! is above 0 there is no server.
//!
//! **Weights** are numbers of connections that a server can well bear.
//!
//! **Configuration.** `expiration`: the seconds after which an address that nobody asked for is
//! forgotten; 86400, a day, by default, as LVS's sysctl `lblc_expiration`. At most 512 addresses are
//! remembered; a further one makes the one forgotten that was not asked for the longest. (LVS bears
//! 16384 and sweeps them out from time to time. Its remembered server may also have reached its
//! threshold; ours has weight 0 then and loses its addresses.) A successor of the same kind goes on
//! with what was remembered.
//!
//! **Cost.** A binary search; a pass over the servers when a new one is chosen or the old one has
//! more connections than its weight. The director refreshes the counters before each decision.
//!
//! **When.** Virtual services of many addresses before servers that do better with what they had
//! before, such as caches.

#![no_std]

extern crate alloc;

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::num::NonZeroU32;

use serde::Deserialize;
use wvs_sdk::{Affinity, Pick, Request, Roster, Scheduler, Server, State, caps, load};

/// Addresses that are remembered at most.
const ADDRESSES_MAX: usize = 512;

/// The scheduler `lblc`. Its configuration is `{"expiration": 86400}` by default.
#[derive(Debug)]
pub struct LocalityBased {
    /// The identity of each address's server.
    addresses: Affinity<u32>,
    servers: Roster,
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    /// In seconds.
    expiration: NonZeroU32,
}

impl Default for Config {
    fn default() -> Self {
        const DAY: NonZeroU32 = NonZeroU32::new(86_400).unwrap();
        Self { expiration: DAY }
    }
}

/// The form of the [`State`]: the addresses with their servers' identities.
const MARK: [u8; 4] = *b"lbl1";

impl Scheduler for LocalityBased {
    const CAPS: u32 = caps::COUNTERS;

    fn new(text: &str) -> Result<Self, String> {
        let Config { expiration } =
            wvs_config::read("lblc takes `expiration`, seconds from 1 up", text)?;
        let expiration_ms = u64::from(expiration.get()) * 1000;
        let addresses = Affinity::new(ADDRESSES_MAX, expiration_ms);
        Ok(Self { addresses, servers: Roster::default() })
    }

    fn servers_changed(&mut self, servers: &[Server]) {
        self.servers = Roster::new(servers);
    }

    fn schedule(&mut self, request: &Request, servers: &[Server]) -> Pick {
        let (vip, now_ms) = (request.vip(), request.now_ms);
        let known = self.addresses.get(vip, now_ms);
        if let Some(index) = known.and_then(|id| self.servers.index(*id))
            && let Some(server) = servers.get(index)
            && server.is_available()
            && !load::is_overloaded(server, servers)
        {
            return Pick::Server(index);
        }
        let least = load::least_loaded(servers.iter().enumerate(), load::overhead);
        if let Some(index) = least {
            self.addresses.insert(vip, now_ms, servers[index].id);
        }
        least.into()
    }
}

impl State for LocalityBased {
    fn save(&self) -> Vec<u8> {
        self.addresses.save(MARK, |id| vec![u64::from(*id)])
    }

    fn load(&mut self, state: &[u8]) -> bool {
        self.addresses.load(MARK, state, |words| u32::try_from(words.next()?).ok())
    }
}

wvs_sdk::no_std!();
wvs_sdk::export!(LocalityBased, State);

#[cfg(test)]
mod tests {
    use alloc::format;

    use super::*;

    /// Servers by weight and active connections, with the identities 1, 2, 3 ..
    fn servers(list: &[(u32, u32)]) -> Vec<Server> {
        let server = |(id, &(weight, active))| Server { id, weight, active, ..Server::default() };
        (1..).zip(list).map(server).collect()
    }

    fn request(vip: u8, now_ms: u64) -> Request {
        let mut request = Request { family: 4, now_ms, ..Request::default() };
        request.virtual_address[..4].copy_from_slice(&[203, 0, 113, vip]);
        request
    }

    /// A virtual address and the servers at that time.
    type Step<'a> = (u8, &'a [(u32, u32)]);

    /// Picks for the steps in turn, a millisecond apart.
    fn picks(lblc: &mut LocalityBased, steps: &[Step<'_>]) -> Vec<Option<usize>> {
        let mut picks = Vec::new();
        for (now_ms, &(vip, list)) in (0..).zip(steps) {
            picks.push(match lblc.schedule(&request(vip, now_ms), &servers(list)) {
                Pick::Server(index) => Some(index),
                _ => None,
            });
        }
        picks
    }

    fn started(config: &str) -> LocalityBased {
        let mut lblc = LocalityBased::new(config).unwrap();
        lblc.servers_changed(&servers(&[(9, 0); 4]));
        lblc
    }

    #[test]
    fn address_keeps_its_server_while_that_is_not_overloaded() {
        let picks = picks(
            &mut started(""),
            &[
                (1, &[(9, 3), (9, 1), (9, 2)]),
                // The least loaded is another one by now.
                (1, &[(9, 3), (9, 9), (9, 0)]),
                (2, &[(9, 3), (9, 9), (9, 0)]),
                // More than its weight, but nobody has less than half.
                (1, &[(9, 5), (9, 10), (9, 5)]),
                // More than its weight, and the first has less than half.
                (1, &[(9, 4), (9, 10), (9, 5)]),
                // There it stays.
                (1, &[(9, 4), (9, 0), (9, 0)]),
                (2, &[(9, 4), (9, 0), (9, 0)]),
            ],
        );
        assert_eq!(picks, [1, 1, 2, 1, 0, 0, 2].map(Some));
    }

    #[test]
    fn address_leaves_a_server_of_weight_0() {
        let mut lblc = started("");
        let picks = picks(&mut lblc, &[(1, &[(9, 0), (9, 1)]), (1, &[(0, 0), (9, 1)])]);
        assert_eq!(picks, [Some(0), Some(1)]);
    }

    #[test]
    fn address_leaves_a_server_that_is_gone() {
        let mut lblc = started("");
        assert_eq!(picks(&mut lblc, &[(1, &[(9, 1), (9, 0)])]), [Some(1)]);
        let others = [Server { id: 7, weight: 9, ..Server::default() }, servers(&[(9, 0)])[0]];
        lblc.servers_changed(&others);
        assert_eq!(lblc.schedule(&request(1, 1), &others), Pick::Server(0));
    }

    #[test]
    fn without_weights_there_is_no_server() {
        assert_eq!(picks(&mut started(""), &[(1, &[(0, 0)]), (1, &[])]), [None, None]);
    }

    #[test]
    fn address_that_nobody_asked_for_is_forgotten() {
        let mut lblc = started(r#"{"expiration":2}"#);
        let mut pick = |now_ms, list| lblc.schedule(&request(1, now_ms), &servers(list));
        assert_eq!(pick(0, &[(9, 0), (9, 1)]), Pick::Server(0));
        assert_eq!(pick(2_000, &[(9, 2), (9, 1)]), Pick::Server(0));
        assert_eq!(pick(4_001, &[(9, 2), (9, 1)]), Pick::Server(1));
    }

    #[test]
    fn addresses_are_limited_in_number() {
        let mut lblc = started("");
        for (now_ms, vip) in (0..).zip(0..2_000_u16) {
            let mut request = request(0, now_ms);
            request.virtual_address[2..4].copy_from_slice(&vip.to_be_bytes());
            lblc.schedule(&request, &servers(&[(9, 0)]));
        }
        assert_eq!(lblc.addresses.values().count(), ADDRESSES_MAX);
        assert!(lblc.save().len() <= 65_536);
    }

    #[test]
    fn successor_knows_the_addresses() {
        let mut old = started("");
        picks(&mut old, &[(1, &[(9, 1), (9, 0)]), (2, &[(9, 0), (9, 1)])]);
        let mut new = started("");
        assert!(new.load(&old.save()));
        let loads: &[(u32, u32)] = &[(9, 1), (9, 1), (9, 0)];
        assert_eq!(picks(&mut new, &[(1, loads), (2, loads), (3, loads)]), [1, 0, 2].map(Some));
        assert!(!new.load(b"rr 1"));
        assert!(!new.load(&old.save()[..40]));
    }

    #[test]
    fn unknown_configuration_is_refused() {
        for text in [r#"{"expiration":0}"#, r#"{"expiration":"24h"}"#, r#"{"expires":1}"#] {
            assert_eq!(
                LocalityBased::new(text).unwrap_err(),
                format!("lblc takes `expiration`, seconds from 1 up; this is {text}")
            );
        }
    }
}
