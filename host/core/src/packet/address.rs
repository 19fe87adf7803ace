//! What IPv4 and IPv6 have in common, so that everything behind the header is written once.

use core::fmt;
use core::hash::{Hash, Hasher};
use core::net::IpAddr;

use super::checksum::{Difference, Sum};
use super::{Icmp, Ip};
use crate::verdict::DropReason;

/// An IP address of one family: [`Ipv4Addr`](core::net::Ipv4Addr) or
/// [`Ipv6Addr`](core::net::Ipv6Addr).
pub trait Address:
    Copy + Eq + Hash + Into<IpAddr> + fmt::Debug + fmt::Display + Send + Sync + Sized + 'static
{
    /// The header that carries such addresses.
    type Header<'a>: IpHeader<Address = Self>;

    /// IPv6 rather than IPv4.
    const IS_IPV6: bool;

    /// The protocol number of this family's ICMP.
    const ICMP: u8;

    /// Splits a packet into header and payload.
    ///
    /// # Errors
    /// The family's own drop reasons; see [`ipv4::parse`](super::ipv4::parse) and
    /// [`ipv6::parse`](super::ipv6::parse).
    fn parse(octets: &mut [u8]) -> Result<Ip<'_, Self>, DropReason>;

    /// As [`parse`](Self::parse) for the beginning of a packet as an ICMP error quotes it: lengths
    /// may say more than is there, and the payload is what there is.
    ///
    /// # Errors
    /// [`DropReason::IcmpQuote`] when even the header is cut off or impossible.
    fn parse_quote(octets: &mut [u8]) -> Result<Ip<'_, Self>, DropReason>;

    /// What an ICMP message of this family is about.
    fn icmp(kind: u8, code: u8) -> Icmp;

    /// The sum of the address's octets.
    fn sum(self) -> Sum;

    /// Feeds two addresses to a hash, in as few words as they fit into.
    fn hash_pair<H: Hasher>(source: Self, destination: Self, hasher: &mut H);

    /// The address of this family, `None` for one of the other.
    fn from_ip(address: IpAddr) -> Option<Self>;
}

/// The part of an IP header that a director reads and writes.
pub trait IpHeader {
    /// The addresses it carries.
    type Address;

    /// Time to live or hop limit.
    fn hop_limit(&self) -> u8;

    /// The source address.
    fn source(&self) -> Self::Address;

    /// The destination address.
    fn destination(&self) -> Self::Address;

    /// Replaces the source address. `difference` is what that changes in a sum over the header.
    fn set_source(&mut self, address: Self::Address, difference: Difference);

    /// Replaces the destination address. `difference` is what that changes in a sum over the header.
    fn set_destination(&mut self, address: Self::Address, difference: Difference);
}
