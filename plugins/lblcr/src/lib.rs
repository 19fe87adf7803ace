//! `lblcr`, locality-based least connections with replication: as `lblc`, but a virtual address that
//! is much asked for gets more servers.
//!
//! **Rule.** Each virtual address has a set of servers. Of those whose weight is above 0, the one with
//! the least `(active * 256 + inactive) / weight` takes the connection, of equals the one that joined
//! first. If there is none, or it is overloaded - it has more active connections than its weight says
//! while another server of the service has less than half of its own - then the least loaded server
//! of all takes the connection and joins the set; of equals the first in the order of the
//! configuration. (In LVS it is the one added last: its list is in the reverse order.) When no weight
//! is above 0 there is no server.
//!
//! **Shrinking.** A set of several servers that did not change for the time of `expiration` loses the
//! most loaded one, of equals the one that joined first, when it is next asked for.
//!
//! **Weights** are numbers of connections that a server can well bear.
//!
//! **Configuration.** `expiration`: the seconds after which a set shrinks, and an address that nobody
//! asked for is forgotten; 86400, a day, by default, as LVS's sysctl `lblcr_expiration`. At most 512
//! addresses with 4096 servers in their sets are remembered; a further one makes the address forgotten
//! that was not asked for the longest. (LVS bears 16384 addresses and sweeps them out from time to
//! time.) A successor of the same kind goes on with what was remembered.
//!
//! **Cost.** A binary search and a pass over the set; one over the servers when one joins or the best
//! of the set has more connections than its weight. The director refreshes the counters before each
//! decision.
//!
//! **When.** As `lblc`, where one address can be too much for one server.

#![no_std]

extern crate alloc;

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::num::NonZeroU32;

use serde::Deserialize;
use wvs_sdk::{Affinity, Pick, Request, Roster, Scheduler, Server, State, caps, load};

/// Addresses that are remembered at most.
const ADDRESSES_MAX: usize = 512;

/// Members of all sets together at most: one set may hold every server that a service can have.
const MEMBERS_MAX: usize = 4096;

/// The scheduler `lblcr`. Its configuration is `{"expiration": 86400}` by default.
#[derive(Debug)]
pub struct LocalityBasedReplicated {
    addresses: Affinity<Set>,
    servers: Roster,
    expiration_ms: u64,
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

/// The servers of an address.
#[derive(Clone, Debug)]
struct Set {
    /// In the order in which they joined.
    members: Vec<Member>,
    modified_ms: u64,
}

#[derive(Clone, Copy, Debug)]
struct Member {
    id: u32,
    index: usize,
}

/// The form of the [`State`]: for each address when its set was modified, the number of its members
/// and their identities.
const MARK: [u8; 4] = *b"lbr1";

impl Set {
    /// The members that are there, with their indices.
    fn servers<'s>(&self, servers: &'s [Server]) -> impl Iterator<Item = (usize, &'s Server)> {
        self.members.iter().filter_map(|member| Some((member.index, servers.get(member.index)?)))
    }

    /// The member that is the most loaded for its weight, of those with one above 0.
    fn most_loaded(&self, servers: &[Server]) -> Option<usize> {
        let mut most = None;
        // Stands for a load below any other.
        let (mut most_load, mut most_weight) = (0, 0);
        for (index, server) in self.servers(servers).filter(|(_, server)| server.is_available()) {
            let (load, weight) = (load::overhead(server), u64::from(server.weight));
            if most.is_none() || load * most_weight > most_load * weight {
                most = Some(index);
                (most_load, most_weight) = (load, weight);
            }
        }
        most
    }

    /// Lets the most loaded member go if the set is due to shrink.
    fn shrink(&mut self, servers: &[Server], now_ms: u64, expiration_ms: u64) {
        if self.members.len() > 1
            && now_ms.saturating_sub(self.modified_ms) > expiration_ms
            && let Some(most) = self.most_loaded(servers)
        {
            self.members.retain(|member| member.index != most);
            self.modified_ms = now_ms;
        }
    }

    /// Finds the members again in a list that changed.
    fn find(&mut self, roster: &Roster) {
        self.members.retain_mut(|member| match roster.index(member.id) {
            Some(index) => {
                member.index = index;
                true
            }
            None => false,
        });
    }
}

impl LocalityBasedReplicated {
    /// Makes a server one of the address's.
    fn join(&mut self, vip: IpAddr, now_ms: u64, member: Member) {
        while self.addresses.values().map(|set| set.members.len()).sum::<usize>() >= MEMBERS_MAX {
            self.addresses.forget_least_recent();
        }
        match self.addresses.get(vip, now_ms) {
            Some(set) if set.members.iter().any(|known| known.id == member.id) => {}
            Some(set) => {
                set.members.push(member);
                set.modified_ms = now_ms;
            }
            None => {
                let set = Set { members: vec![member], modified_ms: now_ms };
                self.addresses.insert(vip, now_ms, set);
            }
        }
    }
}

impl Scheduler for LocalityBasedReplicated {
    const CAPS: u32 = caps::COUNTERS;

    fn new(text: &str) -> Result<Self, String> {
        let Config { expiration } =
            wvs_config::read("lblcr takes `expiration`, seconds from 1 up", text)?;
        let expiration_ms = u64::from(expiration.get()) * 1000;
        let addresses = Affinity::new(ADDRESSES_MAX, expiration_ms);
        Ok(Self { addresses, servers: Roster::default(), expiration_ms })
    }

    fn servers_changed(&mut self, servers: &[Server]) {
        self.servers = Roster::new(servers);
        for set in self.addresses.values_mut() {
            set.find(&self.servers);
        }
    }

    fn schedule(&mut self, request: &Request, servers: &[Server]) -> Pick {
        let (vip, now_ms) = (request.vip(), request.now_ms);
        let known = self.addresses.get(vip, now_ms);
        if let Some(set) = known {
            let least = load::least_loaded(set.servers(servers), load::overhead);
            set.shrink(servers, now_ms, self.expiration_ms);
            if let Some(index) = least
                && !load::is_overloaded(&servers[index], servers)
            {
                return Pick::Server(index);
            }
        }
        let least = load::least_loaded(servers.iter().enumerate(), load::overhead);
        if let Some(index) = least {
            self.join(vip, now_ms, Member { id: servers[index].id, index });
        }
        least.into()
    }
}

impl State for LocalityBasedReplicated {
    fn save(&self) -> Vec<u8> {
        self.addresses.save(MARK, |set| {
            let ids = set.members.iter().map(|member| u64::from(member.id));
            [set.modified_ms, set.members.len() as u64].into_iter().chain(ids).collect()
        })
    }

    fn load(&mut self, state: &[u8]) -> bool {
        self.addresses.load(MARK, state, |words| {
            let modified_ms = words.next()?;
            let mut members = Vec::new();
            for _ in 0..words.next()? {
                let id = u32::try_from(words.next()?).ok()?;
                members.extend(self.servers.index(id).map(|index| Member { id, index }));
            }
            Some(Set { members, modified_ms })
        })
    }
}

wvs_sdk::no_std!();
wvs_sdk::export!(LocalityBasedReplicated, State);

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

    fn started(config: &str) -> LocalityBasedReplicated {
        let mut lblcr = LocalityBasedReplicated::new(config).unwrap();
        lblcr.servers_changed(&servers(&[(9, 0); 4]));
        lblcr
    }

    /// Picks for the one virtual address at a time and loads.
    fn pick(
        lblcr: &mut LocalityBasedReplicated,
        now_ms: u64,
        list: &[(u32, u32)],
    ) -> Option<usize> {
        match lblcr.schedule(&request(1, now_ms), &servers(list)) {
            Pick::Server(index) => Some(index),
            _ => None,
        }
    }

    /// The identities in the set of the one virtual address.
    fn set(lblcr: &LocalityBasedReplicated) -> Vec<u32> {
        let set = lblcr.addresses.values().next();
        set.iter().flat_map(|set| &set.members).map(|member| member.id).collect()
    }

    #[test]
    fn set_grows_while_its_best_is_overloaded() {
        let mut lblcr = started("");
        assert_eq!(pick(&mut lblcr, 0, &[(9, 3), (9, 1), (9, 2)]), Some(1));
        assert_eq!(pick(&mut lblcr, 1, &[(9, 0), (9, 9), (9, 0)]), Some(1));
        assert_eq!(pick(&mut lblcr, 2, &[(9, 5), (9, 10), (9, 5)]), Some(1), "nobody has room");
        assert_eq!(set(&lblcr), [2]);
        assert_eq!(pick(&mut lblcr, 3, &[(9, 4), (9, 10), (9, 5)]), Some(0));
        assert_eq!(set(&lblcr), [2, 1]);
        // The least loaded of the set, not of all.
        assert_eq!(pick(&mut lblcr, 4, &[(9, 4), (9, 3), (9, 0)]), Some(1));
        assert_eq!(pick(&mut lblcr, 5, &[(9, 2), (9, 3), (9, 0)]), Some(0));
        assert_eq!(pick(&mut lblcr, 6, &[(9, 3), (9, 3), (9, 0)]), Some(1), "who joined first");
        assert_eq!(set(&lblcr), [2, 1]);
    }

    #[test]
    fn server_joins_only_once() {
        let mut lblcr = started("");
        assert_eq!(pick(&mut lblcr, 0, &[(9, 0), (9, 1)]), Some(0));
        // Overloaded, and yet the least loaded for its weight: the other one is full of inactive
        // ones.
        let mut full = servers(&[(9, 10), (9, 4)]);
        full[1].inactive = 10_000;
        assert_eq!(lblcr.schedule(&request(1, 1), &full), Pick::Server(0));
        assert_eq!(set(&lblcr), [1]);
    }

    #[test]
    fn set_that_did_not_change_for_long_shrinks_by_its_most_loaded() {
        let mut lblcr = started(r#"{"expiration":10}"#);
        assert_eq!(pick(&mut lblcr, 0, &[(9, 0), (9, 1), (9, 2)]), Some(0));
        assert_eq!(pick(&mut lblcr, 1, &[(9, 10), (9, 0), (9, 2)]), Some(1));
        assert_eq!(pick(&mut lblcr, 2, &[(9, 10), (9, 10), (9, 2)]), Some(2));
        assert_eq!(set(&lblcr), [1, 2, 3]);
        let loads = [(9, 1), (3, 2), (9, 3)];
        for now_ms in [9_000, 10_002] {
            assert_eq!(pick(&mut lblcr, now_ms, &loads), Some(0));
            assert_eq!(set(&lblcr), [1, 2, 3], "at {now_ms}");
        }
        assert_eq!(pick(&mut lblcr, 10_003, &loads), Some(0));
        assert_eq!(set(&lblcr), [1, 3], "2 of 3 are more than 3 of 9");
        assert_eq!(pick(&mut lblcr, 20_003, &loads), Some(0));
        assert_eq!(set(&lblcr), [1, 3], "the change counts, not the use");
        assert_eq!(pick(&mut lblcr, 20_004, &loads), Some(0));
        assert_eq!(set(&lblcr), [1]);
        assert_eq!(pick(&mut lblcr, 30_004, &loads), Some(0));
        assert_eq!(pick(&mut lblcr, 40_004, &loads), Some(0));
        assert_eq!(set(&lblcr), [1], "the last one stays");
        // Nobody asked for it: the least loaded of all.
        assert_eq!(pick(&mut lblcr, 50_005, &[(9, 1), (9, 0)]), Some(1));
        assert_eq!(set(&lblcr), [2]);
    }

    #[test]
    fn members_of_weight_0_are_passed_over() {
        let mut lblcr = started("");
        assert_eq!(pick(&mut lblcr, 0, &[(9, 0), (9, 1)]), Some(0));
        assert_eq!(pick(&mut lblcr, 1, &[(0, 0), (9, 1)]), Some(1));
        assert_eq!(set(&lblcr), [1, 2]);
        assert_eq!(pick(&mut lblcr, 2, &[(9, 0), (9, 1)]), Some(0), "back again");
        assert_eq!(pick(&mut lblcr, 3, &[(0, 0), (0, 0)]), None);
        assert_eq!(pick(&mut lblcr, 4, &[]), None);
    }

    #[test]
    fn servers_that_are_gone_leave_their_sets() {
        let mut lblcr = started("");
        assert_eq!(pick(&mut lblcr, 0, &[(9, 0), (9, 1)]), Some(0));
        assert_eq!(pick(&mut lblcr, 1, &[(9, 10), (9, 1)]), Some(1));
        let left = [Server { id: 7, weight: 9, ..Server::default() }, servers(&[(9, 3); 2])[1]];
        lblcr.servers_changed(&left);
        assert_eq!(set(&lblcr), [2]);
        assert_eq!(lblcr.schedule(&request(1, 2), &left), Pick::Server(1));
    }

    #[test]
    fn sets_are_limited_in_number_and_members() {
        let mut lblcr = started("");
        let many = servers(&vec![(1, 0); MEMBERS_MAX]);
        lblcr.servers_changed(&many);
        let members = |lblcr: &LocalityBasedReplicated| {
            lblcr.addresses.values().map(|set| set.members.len()).sum::<usize>()
        };
        let member = |index: usize| Member { id: many[index].id, index };
        let vip = |n: usize| IpAddr::from(u128::try_from(n).unwrap().to_be_bytes());
        // One set may hold all.
        for index in 0..MEMBERS_MAX {
            lblcr.join(vip(1), 0, member(index));
        }
        assert_eq!(members(&lblcr), MEMBERS_MAX);
        assert!(lblcr.save().len() <= 65_536);
        // The next one ends it, and then there are many small ones.
        for n in 0..10 * ADDRESSES_MAX {
            for index in 0..20 {
                lblcr.join(vip(n), n as u64, member(index));
            }
            assert!(members(&lblcr) <= MEMBERS_MAX);
        }
        for n in 0..ADDRESSES_MAX {
            lblcr.join(vip(100_000 + n), 100_000, member(n % 8));
        }
        assert!(lblcr.addresses.values().count() <= ADDRESSES_MAX);
        assert!(lblcr.save().len() <= 65_536);
    }

    #[test]
    fn successor_knows_the_sets() {
        let mut old = started("");
        assert_eq!(pick(&mut old, 0, &[(9, 0), (9, 1)]), Some(0));
        assert_eq!(pick(&mut old, 1, &[(9, 10), (9, 1)]), Some(1));
        let mut new = started("");
        assert!(new.load(&old.save()));
        assert_eq!(set(&new), [1, 2]);
        assert_eq!(pick(&mut new, 2, &[(9, 3), (9, 2), (9, 0)]), Some(1));
        // A successor that has other servers knows the ones that are left.
        new.servers_changed(&servers(&[(9, 0)]));
        assert!(new.load(&old.save()));
        assert_eq!(set(&new), [1]);
        assert!(!new.load(b"lbl1"));
        assert!(!new.load(&old.save()[..60]));
    }

    #[test]
    fn unknown_configuration_is_refused() {
        for text in [r#"{"expiration":0}"#, r#"{"expiration":"24h"}"#, r#"{"expires":1}"#] {
            assert_eq!(
                LocalityBasedReplicated::new(text).unwrap_err(),
                format!("lblcr takes `expiration`, seconds from 1 up; this is {text}")
            );
        }
    }
}
