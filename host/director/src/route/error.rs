//! What can be in the way of routes.

use std::net::{IpAddr, SocketAddr};
use std::{fmt, io};

use super::plan::Tables;
use crate::sysctl::LedgerError;

/// What an address of the director's is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// What clients connect to.
    Vip,
    /// What stands in for clients in front of real servers.
    Pool,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vip => "virtual address",
            Self::Pool => "pool address",
        })
    }
}

/// Why routing could not be set up or taken back.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// A VIP or an address of a pool is one of this host.
    #[error(
        "the {role} {address} is also an address of this host, which would answer in the \
         director's place: remove it there (`ip address show to {address}` says where it is)"
    )]
    IsLocal {
        /// The address.
        address: IpAddr,
        /// What it is to be.
        role: Role,
    },
    /// A VIP or an address of a pool is multicast, broadcast or the like.
    #[error("the {role} {address} is no address of a single host: use a unicast address")]
    IsNotUnicast {
        /// The address.
        address: IpAddr,
        /// What it is to be.
        role: Role,
    },
    /// Somebody else routes exactly a VIP or an address of a pool.
    #[error(
        "this host has a route to exactly {address} already (`ip route show {address}`): remove it, \
         or set `routing: off` and route to the director yourself"
    )]
    IsRouted {
        /// The address.
        address: IpAddr,
    },
    /// A real server is an address of this host.
    #[error(
        "the real server {server} is an address of this host: replies of the host itself do not \
         pass the director; use `forward: fullnat`, or a server on another host"
    )]
    ServerIsLocal {
        /// RIP and port.
        server: SocketAddr,
    },
    /// A real server has the address of a VIP or of a pool.
    #[error("the real server {server} has a virtual address: packets would go round in circles")]
    ServerIsVip {
        /// RIP and port.
        server: SocketAddr,
    },
    /// No way to a real server.
    #[error(
        "no route to the real server {server} ({source}): correct its address or add a route to it"
    )]
    NoRoute {
        /// RIP and port.
        server: SocketAddr,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Another director on this host has the server's replies.
    #[error(
        "replies of the real server {server} go to another director on this host already, by the \
         rule `{rule}`: use another port or address of the server for this director"
    )]
    ServerIsTaken {
        /// RIP and port.
        server: SocketAddr,
        /// The other director's rule.
        rule: String,
    },
    /// Not allowed to change routes.
    #[error(
        "no right to change routes (tried `{step}`): run as root or with the capability \
         CAP_NET_ADMIN, or set `routing: print` and set them yourself"
    )]
    NoRights {
        /// The command that would do the same.
        step: String,
    },
    /// The kernel refused a step.
    #[error("the kernel refused `{step}`: {source}")]
    Refused {
        /// The command that would do the same.
        step: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The device to route to does not exist.
    #[error("there is no network device {device} to route to")]
    NoDevice {
        /// Its name.
        device: String,
    },
    /// Somebody uses all table numbers that could be ours.
    #[error(
        "the routing tables {first} to {last} are all in use: remove what `ip rule show protocol \
         119` lists of directors that are no more",
        first = Tables::FIRST, last = Tables::LAST
    )]
    NoTables,
    /// No conversation with the kernel.
    #[error("cannot talk to the kernel about routes: {source}")]
    Netlink {
        /// What happened.
        source: io::Error,
    },
    /// A setting could not be changed or put back.
    #[error(transparent)]
    Setting(#[from] LedgerError),
}
