//! What tells one connection's packets from another's.

use core::fmt;
use core::hash::{Hash, Hasher};

use crate::packet::address::Address;
use crate::protocol::Protocol;

/// Source, destination and protocol of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple<A> {
    /// Source address.
    pub source: A,
    /// Destination address.
    pub destination: A,
    /// Source port; an echo request's identifier.
    pub source_port: u16,
    /// Destination port; an echo reply's identifier.
    pub destination_port: u16,
    /// What the ports are ports of.
    pub protocol: Protocol,
}

/// One end of a connection: address and port, or echo identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint<A> {
    /// The address.
    pub address: A,
    /// The port.
    pub port: u16,
}

impl<A: Copy> Tuple<A> {
    /// Where the packet comes from.
    #[inline]
    #[must_use]
    pub const fn source(&self) -> Endpoint<A> {
        Endpoint { address: self.source, port: self.source_port }
    }

    /// Where the packet goes.
    #[inline]
    #[must_use]
    pub const fn destination(&self) -> Endpoint<A> {
        Endpoint { address: self.destination, port: self.destination_port }
    }

    /// The same packet sent back.
    #[must_use]
    pub const fn inverted(&self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            protocol: self.protocol,
        }
    }
}

/// Every packet is looked up by one: in three words instead of one for each field and octet string.
impl<A: Address> Hash for Tuple<A> {
    #[inline]
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        A::hash_pair(self.source, self.destination, hasher);
        hasher.write_u32(u32::from(self.source_port) << 16 | u32::from(self.destination_port));
        hasher.write_u8(self.protocol.number(A::IS_IPV6));
    }
}

impl<A: fmt::Display> fmt::Display for Tuple<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { source, destination, source_port, destination_port, protocol } = self;
        write!(f, "{protocol} {source} {source_port} -> {destination} {destination_port}")
    }
}

/// Which way a packet of a connection goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the client, as the connection's original tuple.
    Original,
    /// From the real server, as its reply tuple.
    Reply,
}

impl Direction {
    /// The other one.
    #[must_use]
    pub const fn opposite(self) -> Self {
        match self {
            Self::Original => Self::Reply,
            Self::Reply => Self::Original,
        }
    }
}
