//! IPv4 headers.
//!
//! Read first: RFC 791 section 3.1; RFC 1812 section 5.2.2 (what a router checks).

use core::hash::Hasher;
use core::net::{IpAddr, Ipv4Addr};

use super::address::{Address, IpHeader};
use super::checksum::{Difference, Sum};
use super::{Fragment, Icmp, Ip, icmp};
use crate::verdict::DropReason;

/// The 20 octets that every IPv4 header has. Made by [`parse`], so no access can fail.
#[derive(Debug)]
pub struct Ipv4Header<'a>(&'a mut [u8; 20]);

/// Splits a packet into header and payload. Options are skipped and left as they are; octets
/// beyond the total length belong to neither.
///
/// The header's checksum is not verified: the kernel did so before it handed the packet on, and
/// incremental updates keep a wrong one wrong.
///
/// # Errors
/// [`DropReason::Ipv4Header`], [`DropReason::Ipv4Length`].
#[inline]
pub fn parse(octets: &mut [u8]) -> Result<Ip<'_, Ipv4Addr>, DropReason> {
    let (header, rest) = octets.split_first_chunk_mut::<20>().ok_or(DropReason::Ipv4Header)?;
    let header = Ipv4Header(header);
    let options = header.length().checked_sub(20).ok_or(DropReason::Ipv4Header)?;
    let total = header.total_length();
    let payload = total.checked_sub(header.length()).ok_or(DropReason::Ipv4Length)?;
    let fragment = header.fragment();
    let rest = rest.get_mut(options..).ok_or(DropReason::Ipv4Header)?;
    let payload = rest.get_mut(..payload).ok_or(DropReason::Ipv4Length)?;
    Ok(Ip { protocol: header.protocol(), header, payload, length: total, fragment })
}

/// As [`parse`] for the beginning of a packet, whose payload goes as far as the octets do.
///
/// # Errors
/// [`DropReason::IcmpQuote`] for an impossible header.
pub fn parse_quote(octets: &mut [u8]) -> Result<Ip<'_, Ipv4Addr>, DropReason> {
    let length = octets.len();
    let (header, rest) = octets.split_first_chunk_mut::<20>().ok_or(DropReason::IcmpQuote)?;
    let header = Ipv4Header(header);
    let options = header.length().checked_sub(20).filter(|_| header.0[0] >> 4 == 4);
    let payload =
        options.and_then(|options| rest.get_mut(options..)).ok_or(DropReason::IcmpQuote)?;
    let fragment = header.fragment();
    Ok(Ip { protocol: header.protocol(), header, payload, length, fragment })
}

impl Ipv4Header<'_> {
    /// Octets of the header with its options, 0 to 60.
    fn length(&self) -> usize {
        usize::from(self.0[0] & 0x0f).saturating_mul(4)
    }

    fn total_length(&self) -> usize {
        usize::from(u16::from_be_bytes([self.0[2], self.0[3]]))
    }

    /// A fragment has more of them behind it, or an offset above 0, which counts in 8 octets.
    fn fragment(&self) -> Option<Fragment> {
        let flags_and_offset = u16::from_be_bytes([self.0[6], self.0[7]]);
        let (has_more, offset) = (flags_and_offset & 0x2000 != 0, flags_and_offset << 3);
        let identification = u32::from(u16::from_be_bytes([self.0[4], self.0[5]]));
        (has_more || offset != 0).then_some(Fragment { identification, offset, is_last: !has_more })
    }

    fn protocol(&self) -> u8 {
        self.0[9]
    }

    fn update_checksum(&mut self, difference: Difference) {
        let checksum = difference.update(u16::from_be_bytes([self.0[10], self.0[11]]));
        [self.0[10], self.0[11]] = checksum.to_be_bytes();
    }
}

impl IpHeader for Ipv4Header<'_> {
    type Address = Ipv4Addr;

    #[inline]
    fn hop_limit(&self) -> u8 {
        self.0[8]
    }

    #[inline]
    fn source(&self) -> Ipv4Addr {
        Ipv4Addr::new(self.0[12], self.0[13], self.0[14], self.0[15])
    }

    #[inline]
    fn destination(&self) -> Ipv4Addr {
        Ipv4Addr::new(self.0[16], self.0[17], self.0[18], self.0[19])
    }

    #[inline]
    fn set_source(&mut self, address: Ipv4Addr, difference: Difference) {
        [self.0[12], self.0[13], self.0[14], self.0[15]] = address.octets();
        self.update_checksum(difference);
    }

    #[inline]
    fn set_destination(&mut self, address: Ipv4Addr, difference: Difference) {
        [self.0[16], self.0[17], self.0[18], self.0[19]] = address.octets();
        self.update_checksum(difference);
    }
}

impl Address for Ipv4Addr {
    type Header<'a> = Ipv4Header<'a>;

    const IS_IPV6: bool = false;
    const ICMP: u8 = 1;

    #[inline]
    fn parse(octets: &mut [u8]) -> Result<Ip<'_, Self>, DropReason> {
        parse(octets)
    }

    fn parse_quote(octets: &mut [u8]) -> Result<Ip<'_, Self>, DropReason> {
        parse_quote(octets)
    }

    fn icmp(kind: u8, code: u8) -> Icmp {
        icmp::classify_v4(kind, code)
    }

    #[inline]
    fn sum(self) -> Sum {
        Sum::default().number(u32::from_be_bytes(self.octets()))
    }

    #[inline]
    fn hash_pair<H: Hasher>(source: Self, destination: Self, hasher: &mut H) {
        hasher.write_u64(u64::from(source.to_bits()) << 32 | u64::from(destination.to_bits()));
    }

    #[inline]
    fn from_ip(address: IpAddr) -> Option<Self> {
        match address {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        }
    }
}
