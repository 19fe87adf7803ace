//! A small network on this machine: a client, a director and real servers, each in a network
//! namespace of its own.
//!
//! ```text
//!  client ── 10.10.0.0/24 ── director ──┬── 10.20.1.0/24 ── server 1
//!            fd00:10::/64               │   fd00:20:1::/64
//!                                       └── 10.20.2.0/24 ── server 2 ...
//! ```
//!
//! Nothing outside is touched and nothing is left behind: the namespaces have no names and are
//! held by this process alone, so that they vanish with it, however it ends. The servers' and the
//! client's default route is the director.

mod namespace;
mod wiring;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub use namespace::{Host, isolate};

use crate::sysctl;

/// Addresses of the client, so that it can pass for so many clients.
pub const CLIENTS: u8 = 16;

/// Real servers at most.
pub const SERVERS_MAX: u8 = 250;

/// The virtual address to give to the director, IPv4.
pub const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 30, 0, 1));

/// The virtual address to give to the director, IPv6.
pub const VIP6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0x30, 0, 0, 0, 0, 0, 1));

/// Why there is no lab.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// Neither root nor user namespaces.
    #[error(
        "the kernel does not allow network namespaces here ({step}: {source}): run as root, or \
         allow them to users (`sysctl -w user.max_user_namespaces=10000`, on Ubuntu also \
         `sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`), or in a container to the \
         container (docker: `--privileged`)"
    )]
    Forbidden {
        /// What was tried.
        step: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Something else went wrong.
    #[error("cannot {step} for {host}: {source}")]
    Failed {
        /// What was tried.
        step: &'static str,
        /// The host it was for.
        host: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// More servers than the lab has addresses for.
    #[error("a lab has at most {SERVERS_MAX} servers")]
    TooManyServers,
}

/// The network.
#[derive(Debug)]
pub struct Lab {
    /// With the addresses [`client_address`].
    pub client: Host,
    /// Where the director is to run. It does not forward packets yet.
    pub director: Host,
    /// Number i has the address [`server_address`]`(i)`, counted from 1.
    pub servers: Vec<Host>,
}

impl Lab {
    /// Builds a network with so many servers. [`isolate`] should have been called before, as the
    /// first thing in the process.
    ///
    /// # Errors
    /// See [`LabError`]. Nothing is left behind.
    pub fn build(servers: u8) -> Result<Self, LabError> {
        if servers > SERVERS_MAX {
            return Err(LabError::TooManyServers);
        }
        let lab = Self {
            client: Host::new("client".to_owned())?,
            director: Host::new("director".to_owned())?,
            servers: (1..=servers)
                .map(|number| Host::new(format!("server{number}")))
                .collect::<Result<_, _>>()?,
        };
        for host in lab.hosts() {
            host.prepare()?;
            wiring::set_up_loopback(host)?;
        }
        let clients = (1..=CLIENTS)
            .flat_map(|number| [false, true].map(|is_ipv6| client_address(number, is_ipv6)));
        let gateways = [false, true].map(|is_ipv6| gateway(client_address(1, is_ipv6)));
        wiring::connect(&lab.director, "clients", gateways, &lab.client, clients.collect())?;
        for (number, server) in (1..).zip(&lab.servers) {
            let addresses = [false, true].map(|is_ipv6| server_address(number, is_ipv6));
            let gateways = addresses.map(gateway);
            wiring::connect(&lab.director, server.name(), gateways, server, addresses.to_vec())?;
        }
        lab.hosts().try_for_each(wiring::wait_until_up)?;
        Ok(lab)
    }

    /// Every host.
    pub fn hosts(&self) -> impl Iterator<Item = &Host> {
        [&self.client, &self.director].into_iter().chain(&self.servers)
    }
}

/// One of the client's addresses, `number` from 1 to [`CLIENTS`].
#[must_use]
pub fn client_address(number: u8, is_ipv6: bool) -> IpAddr {
    let host = 10 + u16::from(number);
    if is_ipv6 {
        IpAddr::V6(Ipv6Addr::new(0xfd00, 0x10, 0, 0, 0, 0, 0, host))
    } else {
        IpAddr::V4(Ipv4Addr::new(10, 10, 0, 10 + number))
    }
}

/// The address of a server, `number` from 1.
#[must_use]
pub fn server_address(number: u8, is_ipv6: bool) -> IpAddr {
    if is_ipv6 {
        IpAddr::V6(Ipv6Addr::new(0xfd00, 0x20, u16::from(number), 0, 0, 0, 0, 2))
    } else {
        IpAddr::V4(Ipv4Addr::new(10, 20, number, 2))
    }
}

/// The virtual address of the family.
#[must_use]
pub const fn vip(is_ipv6: bool) -> IpAddr {
    if is_ipv6 { VIP6 } else { VIP }
}

/// The director's address on the network of `address`.
fn gateway(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            Ipv4Addr::new(a, b, c, 1).into()
        }
        IpAddr::V6(address) => {
            let [a, b, c, ..] = address.segments();
            Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 1).into()
        }
    }
}

impl Host {
    /// Settings that interfaces made later take over, the same whatever this machine's own are.
    fn prepare(&self) -> Result<(), LabError> {
        let settings = [
            ("net/ipv4/ip_forward", "0"),
            ("net/ipv4/conf/all/rp_filter", "0"),
            ("net/ipv4/conf/default/rp_filter", "2"),
            ("net/ipv6/conf/all/disable_ipv6", "0"),
            ("net/ipv6/conf/default/disable_ipv6", "0"),
            // Addresses work at once: nobody else can have them.
            ("net/ipv6/conf/default/accept_dad", "0"),
        ];
        self.run(|| {
            settings.into_iter().try_for_each(|(name, value)| {
                // A kernel without IPv6 says so when it is to get an address.
                match sysctl::write(name, value) {
                    Err(error)
                        if name.starts_with("net/ipv6")
                            && error.kind() == io::ErrorKind::NotFound =>
                    {
                        Ok(())
                    }
                    result => result,
                }
            })
        })
        .map_err(|source| LabError::Failed {
            step: "change kernel settings",
            host: self.name().to_owned(),
            source,
        })
    }
}
