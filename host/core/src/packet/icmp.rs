//! ICMP and ICMPv6 messages.
//!
//! Read first: RFC 792, RFC 4443 (the messages); RFC 5508 sections 4 and 5 (what a NAT does to them).

use super::Icmp;
use super::address::Address;
use super::checksum::{Difference, Sum};
use crate::verdict::DropReason;

/// Octets before what an ICMP error quotes.
pub const ERROR_HEADER: usize = 8;

/// Kinds of ICMP for IPv4 (RFC 792).
#[must_use]
pub const fn classify_v4(kind: u8, _code: u8) -> Icmp {
    match kind {
        0 => Icmp::EchoReply,
        8 => Icmp::EchoRequest,
        // Unreachable, source quench, time exceeded, parameter problem.
        3 | 4 | 11 | 12 => Icmp::Error,
        5 => Icmp::Redirect,
        _ => Icmp::Other,
    }
}

/// Kinds of ICMPv6 (RFC 4443 section 2.1: below 128 are errors; RFC 4861 section 4.5: redirects).
#[must_use]
pub const fn classify_v6(kind: u8, _code: u8) -> Icmp {
    match kind {
        0..=127 => Icmp::Error,
        128 => Icmp::EchoRequest,
        129 => Icmp::EchoReply,
        137 => Icmp::Redirect,
        _ => Icmp::Other,
    }
}

/// The 8 octets in front of an echo message's data. Made by [`parse_echo`], so no access can fail.
#[derive(Debug)]
pub struct EchoHeader<'a> {
    octets: &'a mut [u8; 8],
    is_request: bool,
}

/// Reads the header at the start of an echo message.
///
/// # Errors
/// [`DropReason::IcmpHeader`] when it is cut off.
pub fn parse_echo(message: &mut [u8], is_request: bool) -> Result<EchoHeader<'_>, DropReason> {
    let octets = message.first_chunk_mut::<8>().ok_or(DropReason::IcmpHeader)?;
    Ok(EchoHeader { octets, is_request })
}

impl EchoHeader<'_> {
    /// A request rather than a reply.
    #[must_use]
    pub const fn is_request(&self) -> bool {
        self.is_request
    }

    /// What tells one series of requests from another.
    #[must_use]
    pub fn identifier(&self) -> u16 {
        u16::from_be_bytes([self.octets[4], self.octets[5]])
    }

    /// Replaces the identifier. `difference` is what the whole rewrite changes in the checksum's sum.
    #[inline]
    pub fn set_identifier(&mut self, identifier: u16, difference: Difference) {
        [self.octets[4], self.octets[5]] = identifier.to_be_bytes();
        self.update_checksum(difference);
    }

    /// Updates the checksum for what changes in its sum.
    #[inline]
    pub fn update_checksum(&mut self, difference: Difference) {
        let checksum = difference.update(u16::from_be_bytes([self.octets[2], self.octets[3]]));
        [self.octets[2], self.octets[3]] = checksum.to_be_bytes();
    }
}

/// The sum over an ICMP message between two addresses: with the pseudo-header for ICMPv6 (RFC 4443
/// section 2.3), without for ICMP. It is intact as it stands; with the checksum field at 0 its
/// complement is the checksum.
#[must_use]
pub fn sum<A: Address>(source: A, destination: A, message: &[u8]) -> Sum {
    let sum = Sum::default().octets(message);
    if A::IS_IPV6 {
        sum.pseudo_header(source.sum(), destination.sum(), A::ICMP, message.len())
    } else {
        sum
    }
}

/// Computes and stores the checksum of a whole message. Nothing happens to one of less than four
/// octets, which has none.
pub fn set_checksum<A: Address>(source: A, destination: A, message: &mut [u8]) {
    if let Some(field) = message.get_mut(2..4) {
        field.fill(0);
    }
    let checksum = sum(source, destination, message).checksum();
    if let Some(field) = message.get_mut(2..4) {
        field.copy_from_slice(&checksum.to_be_bytes());
    }
}
