//! What is to be routed.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use wvs_core::service::Protocol;

/// What is to be routed through the director. Doubles do no harm.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteNeeds {
    /// The name of the director's TUN device.
    pub device: String,
    /// Addresses whose packets go to the director.
    pub vips: Vec<IpAddr>,
    /// Those among [`vips`](Self::vips) that have a service with full NAT, so that programs on this
    /// host can connect to them.
    pub full_nat_vips: Vec<IpAddr>,
    /// Addresses that stand in for clients with full NAT: packets to them go to the director, too.
    pub pools: Vec<IpAddr>,
    /// Real servers with NAT, whose replies have to be led to the director: protocol, RIP and port;
    /// port 0 for all ports. ICMP has none: 0 as well.
    pub servers: Vec<(Protocol, SocketAddr)>,
    /// Real servers with full NAT, which reply to an address of [`pools`](Self::pools).
    pub full_nat_servers: Vec<SocketAddr>,
}

impl RouteNeeds {
    /// Adds real servers that are reached by NAT, or by full NAT from the addresses of `pool`.
    pub fn add_servers(
        &mut self,
        protocol: Protocol,
        pool: Option<&[IpAddr]>,
        servers: impl Iterator<Item = SocketAddr>,
    ) {
        match pool {
            None => self.servers.extend(servers.map(|server| (protocol, server))),
            Some(pool) => {
                self.pools.extend(pool);
                self.full_nat_servers.extend(servers);
            }
        }
    }

    /// Adds all that `other` needs.
    pub fn add(&mut self, other: &Self) {
        self.vips.extend(&other.vips);
        self.full_nat_vips.extend(&other.full_nat_vips);
        self.pools.extend(&other.pools);
        self.servers.extend(&other.servers);
        self.full_nat_servers.extend(&other.full_nat_servers);
        self.tidy();
    }

    /// Has everything once, however many services need it.
    pub fn tidy(&mut self) {
        fn without_doubles<T: Ord>(list: &mut Vec<T>) {
            list.sort_unstable();
            list.dedup();
        }
        without_doubles(&mut self.vips);
        without_doubles(&mut self.full_nat_vips);
        without_doubles(&mut self.pools);
        without_doubles(&mut self.servers);
        without_doubles(&mut self.full_nat_servers);
    }

    /// Every address that is routed to the director.
    pub(super) fn own_addresses(&self) -> BTreeSet<IpAddr> {
        self.vips.iter().chain(&self.pools).copied().collect()
    }

    /// Every real server.
    pub(crate) fn all_servers(&self) -> impl Iterator<Item = SocketAddr> {
        let servers = self.servers.iter().map(|(_, server)| *server);
        servers.chain(self.full_nat_servers.iter().copied())
    }

    /// Whether anything of the family is to be routed.
    pub(super) fn has_family(&self, is_ipv6: bool) -> bool {
        let servers = self.all_servers().map(|server| server.ip());
        self.own_addresses().into_iter().chain(servers).any(|address| address.is_ipv6() == is_ipv6)
    }

    /// Whether there is a server of the family whose replies have to be led to the director.
    pub(super) fn has_nat(&self, is_ipv6: bool) -> bool {
        self.servers.iter().any(|(_, server)| server.is_ipv6() == is_ipv6)
    }
}
