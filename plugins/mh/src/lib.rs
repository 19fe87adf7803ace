//! `mh`, Maglev hashing: the same client always gets the same server, and servers that come or go
//! move hardly anybody else's clients.
//!
//! **Rule.** A hash of the client's address leads to one of 4093 slots, each of which belongs to a
//! server. Every server has an order of its own, from a hash of its address and port, in which it
//! wants the slots. In the order of the configuration they take turns at claiming the next one that
//! is still free, as many at a time as their weight says, until none is left. (Weights count in
//! units of their greatest common divisor, halved until the largest is below 64.) Hashes, table and
//! clients' slots are those of LVS on 64-bit machines with the default size, given the same order of
//! servers; LVS's list is in the reverse order of ours, which decides over a few slots.
//!
//! **Configuration.** `port: true`: the client's TCP or UDP port is added to its address, so that
//! connections of one client spread. `fallback: true`: see weight 0. As LVS's flags `mh-port` and
//! `mh-fallback`.
//!
//! **Weight 0** moves no slot: a server that is quiesced, down, draining or overloaded keeps those
//! that its last weight above 0 gave it, or else its configured one. Its clients get no server, or
//! with `fallback` the server of another slot, found by hashing on, the same one each time; they come
//! back when it does.
//!
//! **Cost.** One hash, whatever the number of servers; with `fallback` one more for each slot of an
//! unavailable server. Reads no counters. The table takes 8 KiB. Beyond 4093 servers the rest have
//! no slot.
//!
//! **When.** As `sh`, where servers change while clients must stay, or there are many of them.

#![no_std]

extern crate alloc;

mod siphash;

use alloc::string::String;
use alloc::vec::Vec;

use serde::Deserialize;
use wvs_sdk::{Pick, Request, Roster, Scheduler, Server, ServerInfo, caps, hash, load};

/// A prime, so that every skip leads through all slots.
const SLOTS: u16 = 4093;

/// The largest number of turns has so many bits.
const TURN_BITS: u32 = 6;

/// The scheduler `mh`. Its configuration is `{"fallback": false, "port": false}` by default.
#[derive(Debug)]
pub struct MaglevHashing {
    config: Config,
    /// Address and port of each server as one word.
    addresses: Vec<u32>,
    /// The last weight above 0 of each server.
    weights: Vec<LastWeight>,
    /// The index of each slot's server; empty when no server ever had a weight above 0.
    slots: Vec<u16>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    fallback: bool,
    port: bool,
}

#[derive(Clone, Copy, Debug)]
struct LastWeight {
    id: u32,
    weight: u32,
}

/// A server's way through the slots.
struct Claimant {
    index: u16,
    /// The next slot that it wants.
    slot: u16,
    skip: u16,
    /// Slots that it claims at a time.
    turns: u32,
}

/// A hash within `0..modulus`.
fn modulo(hash: u32, modulus: u16) -> u16 {
    #[expect(clippy::cast_possible_truncation, reason = "below the modulus")]
    let rest = (hash % u32::from(modulus)) as u16;
    rest
}

/// `slot` and `skip` slots further, round the end.
fn advance(slot: u16, skip: u16) -> u16 {
    let next = slot + skip;
    if next < SLOTS { next } else { next - SLOTS }
}

impl MaglevHashing {
    fn remember_weights(&mut self, servers: &[Server]) {
        let roster: Roster = self.weights.iter().map(|last| last.id).collect();
        let last_weight = |server: &Server| {
            let remembered = roster.index(server.id).map_or(0, |index| self.weights[index].weight);
            let candidates = [server.weight, remembered, server.configured_weight];
            let weight = candidates.into_iter().find(|weight| *weight > 0).unwrap_or(0);
            LastWeight { id: server.id, weight }
        };
        self.weights = servers.iter().map(last_weight).collect();
    }

    fn claimants(&self) -> Vec<Claimant> {
        let unit = load::weight_unit(self.weights.iter().map(|last| last.weight));
        let most = self.weights.iter().map(|last| last.weight).max().unwrap_or(0) / unit;
        let bits = u32::BITS - most.leading_zeros();
        let halvings = bits.saturating_sub(TURN_BITS);
        let claimant = |(index, (last, address)): (u16, (&LastWeight, &u32))| Claimant {
            index,
            slot: modulo(siphash::FIRST.of(*address), SLOTS),
            skip: modulo(siphash::SECOND.of(*address), SLOTS - 1) + 1,
            turns: ((last.weight / unit) >> halvings).max(u32::from(last.weight > 0)),
        };
        let claimants = (0..SLOTS).zip(self.weights.iter().zip(&self.addresses)).map(claimant);
        claimants.filter(|claimant| claimant.turns > 0).collect()
    }

    fn deal(&mut self) {
        const FREE: u16 = u16::MAX;
        let mut claimants = self.claimants();
        self.slots.clear();
        if claimants.is_empty() {
            return;
        }
        self.slots.resize(SLOTS.into(), FREE);
        let mut free = SLOTS;
        loop {
            for claimant in &mut claimants {
                for _ in 0..claimant.turns {
                    while self.slots[usize::from(claimant.slot)] != FREE {
                        claimant.slot = advance(claimant.slot, claimant.skip);
                    }
                    self.slots[usize::from(claimant.slot)] = claimant.index;
                    free -= 1;
                    if free == 0 {
                        return;
                    }
                }
            }
        }
    }
}

impl Scheduler for MaglevHashing {
    const CAPS: u32 = caps::PURE | caps::SERVER_INFO;

    fn new(text: &str) -> Result<Self, String> {
        let config = wvs_config::read("mh takes `fallback` and `port`, each true or false", text)?;
        Ok(Self { config, addresses: Vec::new(), weights: Vec::new(), slots: Vec::new() })
    }

    fn server_info_changed(&mut self, info: &[ServerInfo]) {
        let word = |info: &ServerInfo| hash::fold(info.ip()).wrapping_add(info.port.into());
        self.addresses = info.iter().map(word).collect();
    }

    fn servers_changed(&mut self, servers: &[Server]) {
        self.remember_weights(servers);
        self.deal();
    }

    fn schedule(&mut self, request: &Request, servers: &[Server]) -> Pick {
        let client = hash::client(request, self.config.port);
        let slot =
            |offset: u16| modulo(siphash::FIRST.of(client.wrapping_add(offset.into())), SLOTS);
        let owner = |slot: u16| {
            let index = usize::from(*self.slots.get(usize::from(slot))?);
            servers.get(index)?.is_available().then_some(index)
        };
        let home = slot(0);
        let found = owner(home);
        if found.is_some() || !self.config.fallback || self.slots.is_empty() {
            return found.into();
        }
        let mut offsets = (home..SLOTS).chain(0..home);
        offsets.find_map(|offset| owner(slot(offset))).into()
    }
}

wvs_sdk::no_std!();
wvs_sdk::export!(MaglevHashing);

#[cfg(test)]
mod tests {
    use alloc::vec;
    use core::net::{IpAddr, Ipv4Addr};

    use super::*;

    /// The servers 10.0.0.N:80 of these N and weights.
    fn servers(list: &[(u8, u32)]) -> (Vec<Server>, Vec<ServerInfo>) {
        let server = |&(host, weight): &(u8, u32)| {
            let mut info = ServerInfo { port: 80, family: 4, ..ServerInfo::default() };
            info.address[..4].copy_from_slice(&[10, 0, 0, host]);
            let id = host.into();
            (Server { id, weight, configured_weight: weight, ..Server::default() }, info)
        };
        list.iter().map(server).unzip()
    }

    fn tell(mh: &mut MaglevHashing, list: &[(u8, u32)]) -> Vec<Server> {
        let (servers, info) = servers(list);
        mh.server_info_changed(&info);
        mh.servers_changed(&servers);
        servers
    }

    fn started(config: &str, list: &[(u8, u32)]) -> (MaglevHashing, Vec<Server>) {
        let mut mh = MaglevHashing::new(config).unwrap();
        let servers = tell(&mut mh, list);
        (mh, servers)
    }

    fn owned(mh: &MaglevHashing, index: u16) -> usize {
        mh.slots.iter().filter(|slot| **slot == index).count()
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

    /// The last octet of the server that a client gets, 0 for none.
    fn pick(mh: &mut MaglevHashing, servers: &[Server], client: &str) -> u32 {
        match mh.schedule(&request(client.parse().unwrap()), servers) {
            Pick::Server(index) => servers[index].id,
            _ => 0,
        }
    }

    #[test]
    fn clients_have_the_slots_they_have_in_lvs() {
        for (client, expected) in [("10.0.0.1", 3711), ("10.0.0.2", 1884), ("192.0.2.1", 2891)] {
            let word = hash::client(&request(client.parse().unwrap()), false);
            assert_eq!(modulo(siphash::FIRST.of(word), SLOTS), expected, "{client}");
        }
    }

    #[test]
    fn table_is_the_one_of_lvs() {
        let (mut mh, servers) = started("", &[(3, 1), (2, 1), (1, 1)]);
        assert_eq!([0, 1, 2].map(|index| owned(&mh, index)), [1365, 1364, 1364]);
        for (client, server) in
            [("192.0.2.1", 3), ("192.0.2.2", 2), ("192.0.2.3", 2), ("198.51.100.7", 1)]
        {
            assert_eq!(pick(&mut mh, &servers, client), server, "{client}");
        }
    }

    #[test]
    fn order_of_servers_decides_over_five_slots() {
        let (mh, _) = started("", &[(3, 1), (2, 1), (1, 1)]);
        let (reverse, _) = started("", &[(1, 1), (2, 1), (3, 1)]);
        let differing = mh.slots.iter().zip(&reverse.slots).filter(|(a, b)| **a != 2 - **b);
        assert_eq!(differing.count(), 5);
    }

    #[test]
    fn removed_server_moves_four_slots_of_others() {
        let (mh, _) = started("", &[(3, 1), (2, 1), (1, 1)]);
        let (without, _) = started("", &[(3, 1), (1, 1)]);
        let of_others = mh.slots.iter().zip(&without.slots).filter(|(before, _)| **before != 1);
        let moved = of_others.filter(|(before, after)| **before / 2 != **after);
        assert_eq!(moved.count(), 4);
    }

    #[test]
    fn slots_follow_the_weights() {
        let (mh, _) = started("", &[(1, 1), (2, 2), (3, 4)]);
        assert_eq!([0, 1, 2].map(|index| owned(&mh, index)), [585, 1170, 2338]);
        // In units of 100, the same.
        let (hundreds, _) = started("", &[(1, 100), (2, 200), (3, 400)]);
        assert_eq!(mh.slots, hundreds.slots);
        // 65535 is 2^16 - 1: ten halvings make it 63, and nobody falls below a turn.
        let (extreme, _) = started("", &[(1, 1), (2, 65_535)]);
        assert_eq!([0, 1].map(|index| owned(&extreme, index)), [64, 4029]);
    }

    #[test]
    fn weight_0_moves_no_slot() {
        let (mut mh, mut servers) = started("", &[(1, 2), (2, 3), (3, 4)]);
        let before = mh.slots.clone();
        let clients = || (0..=255).map(|host| request(Ipv4Addr::new(192, 0, 2, host).into()));
        let picks: Vec<_> = clients().map(|request| mh.schedule(&request, &servers)).collect();
        servers[1].weight = 0;
        mh.servers_changed(&servers);
        assert_eq!(mh.slots, before);
        for (request, pick) in clients().zip(picks) {
            let expected = if pick == Pick::Server(1) { Pick::NoServer } else { pick };
            assert_eq!(mh.schedule(&request, &servers), expected);
        }
        // Whatever becomes of its configured weight.
        servers[1].configured_weight = 0;
        mh.servers_changed(&servers);
        assert_eq!(mh.slots, before);
        // A director that starts now knows only that.
        let (mut late, _) = started("", &[(1, 2), (2, 0), (3, 4)]);
        assert_eq!(owned(&late, 1), 0);
        servers[1].configured_weight = 3;
        late.servers_changed(&servers);
        assert_eq!(late.slots, before);
    }

    #[test]
    fn fallback_moves_only_the_clients_of_who_is_not_available() {
        let (mut mh, mut servers) = started(r#"{"fallback":true}"#, &[(1, 1), (2, 1), (3, 1)]);
        let clients = || (0..=255).map(|host| request(Ipv4Addr::new(192, 0, 2, host).into()));
        let picks: Vec<_> = clients().map(|request| mh.schedule(&request, &servers)).collect();
        servers[1].weight = 0;
        mh.servers_changed(&servers);
        let mut moved = [0; 3];
        for (request, before) in clients().zip(picks) {
            let after = mh.schedule(&request, &servers);
            assert_eq!(mh.schedule(&request, &servers), after, "the same one each time");
            match after {
                Pick::Server(index) if before == Pick::Server(1) => moved[index] += 1,
                _ => assert_eq!(after, before),
            }
        }
        assert!(moved[0] > 20 && moved[1] == 0 && moved[2] > 20, "{moved:?}");
        servers.iter_mut().for_each(|server| server.weight = 0);
        assert!(clients().all(|request| mh.schedule(&request, &servers) == Pick::NoServer));
    }

    #[test]
    fn port_spreads_the_connections_of_a_client() {
        let (mut mh, servers) = started(r#"{"port":true}"#, &[(1, 1), (2, 1), (3, 1)]);
        let mut picked = [0; 3];
        let request = request(Ipv4Addr::LOCALHOST.into());
        for client_port in 1..=300 {
            match mh.schedule(&Request { client_port, ..request }, &servers) {
                Pick::Server(index) => picked[index] += 1,
                other => panic!("{other:?}"),
            }
        }
        assert!(picked.into_iter().all(|count| count > 70), "{picked:?}");
    }

    #[test]
    fn without_servers_there_is_no_server() {
        for config in ["", r#"{"fallback":true}"#] {
            let (mut mh, servers) = started(config, &[(1, 0)]);
            assert_eq!(pick(&mut mh, &servers, "192.0.2.1"), 0);
            let servers = tell(&mut mh, &[]);
            assert_eq!(pick(&mut mh, &servers, "192.0.2.1"), 0);
        }
    }

    #[test]
    fn more_servers_than_slots_leave_the_rest_nothing() {
        let mut mh = MaglevHashing::new("").unwrap();
        let info: Vec<_> = (0..4_100)
            .map(|port| ServerInfo { port, family: 4, ..ServerInfo::default() })
            .collect();
        let servers = vec![Server { weight: 1, ..Server::default() }; info.len()];
        mh.server_info_changed(&info);
        mh.servers_changed(&servers);
        assert!((0..SLOTS).all(|index| owned(&mh, index) == 1));
    }

    #[test]
    fn unknown_configuration_is_refused() {
        assert_eq!(
            MaglevHashing::new(r#"{"fallbak":true}"#).unwrap_err(),
            r#"mh takes `fallback` and `port`, each true or false; this is {"fallbak":true}"#
        );
    }
}
