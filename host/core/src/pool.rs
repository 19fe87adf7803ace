//! Pools: the addresses and ports that stand in for clients in front of real servers, with full NAT.

use core::net::IpAddr;
use core::ops::RangeInclusive;

use crate::connection::tuple::Endpoint;
use crate::packet::address::Address;
use crate::stats::Counter;

/// Addresses of the director, all of one family, each with the same range of ports.
///
/// A place in it is free for a real server as long as no connection to that server has it, so each
/// server can have as many connections as there are places. Each server's places are given out in
/// turn, so that one that was given back rests while all others are tried.
#[derive(Debug)]
pub struct Pool {
    addresses: Vec<IpAddr>,
    ports: RangeInclusive<u16>,
    exhausted: Counter,
}

/// A place in a [`Pool`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Local {
    /// Which of the pool's addresses.
    address: u16,
    /// A port, above 0: `Option<Local>` then takes no more room.
    port: core::num::NonZeroU16,
}

impl Pool {
    /// Addresses in a pool at most.
    pub const ADDRESSES_MAX: usize = 256;

    /// Places tried for one connection, so that a pool that is all but full costs a bounded time.
    pub(crate) const TRIES: usize = 256;

    /// Places looked at for a half-open connection that can make way, when none is free.
    pub(crate) const TRIES_FULL: usize = 16;

    /// A pool of every combination of an address and a port; port 0 and addresses beyond
    /// [`Self::ADDRESSES_MAX`] are left out.
    #[must_use]
    pub fn new(mut addresses: Vec<IpAddr>, ports: RangeInclusive<u16>) -> Self {
        addresses.truncate(Self::ADDRESSES_MAX);
        let ports = (*ports.start()).max(1)..=*ports.end();
        Self { addresses, ports, exhausted: Counter::default() }
    }

    /// Its addresses.
    #[must_use]
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// Its ports.
    #[must_use]
    pub fn ports(&self) -> RangeInclusive<u16> {
        self.ports.clone()
    }

    /// How many connections each real server can have through it.
    #[must_use]
    pub fn places(&self) -> usize {
        self.addresses.len().saturating_mul(self.ports.len())
    }

    /// Connections for which no free place was found.
    #[must_use]
    pub fn exhausted(&self) -> u64 {
        self.exhausted.get()
    }

    pub(crate) fn count_exhausted(&self) {
        self.exhausted.count();
    }

    /// The `turn`-th place, counted round and round: ports change last, so that neighbours in time
    /// are far apart.
    pub(crate) fn place(&self, turn: usize) -> Option<Local> {
        let address = turn.checked_rem(self.addresses.len())?;
        let port = turn.checked_div(self.addresses.len())?.checked_rem(self.ports.len())?;
        let port = self.ports.start().checked_add(u16::try_from(port).ok()?)?;
        Some(Local { address: u16::try_from(address).ok()?, port: port.try_into().ok()? })
    }

    /// The address and port of a place. `None` for another pool's, or in the other family.
    pub(crate) fn endpoint<A: Address>(&self, local: Local) -> Option<Endpoint<A>> {
        let address = self.addresses.get(usize::from(local.address))?;
        Some(Endpoint { address: A::from_ip(*address)?, port: local.port.get() })
    }
}

#[cfg(test)]
mod tests {
    use core::net::Ipv4Addr;
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_place_comes_once_a_round() {
        let addresses = (1..=3).map(|n| Ipv4Addr::new(192, 0, 2, n).into()).collect();
        let pool = Pool::new(addresses, 40_000..=40_009);
        assert_eq!(pool.places(), 30);
        let round = |start: usize| -> HashSet<(Ipv4Addr, u16)> {
            (start..start + 30)
                .map(|turn| pool.endpoint::<Ipv4Addr>(pool.place(turn).unwrap()).unwrap())
                .map(|endpoint| (endpoint.address, endpoint.port))
                .collect()
        };
        assert_eq!(round(0).len(), 30);
        assert_eq!(round(7), round(0));
    }

    #[test]
    fn pool_without_addresses_or_ports_has_no_place() {
        assert_eq!(Pool::new(Vec::new(), 1..=9).place(0), None);
        let ports = RangeInclusive::new(9, 1);
        assert_eq!(Pool::new(vec![Ipv4Addr::LOCALHOST.into()], ports).place(0), None);
    }
}
