//! IPv6 headers and the extension headers behind them.
//!
//! Read first: RFC 8200 sections 3 and 4; RFC 6946 (atomic fragments).

use core::hash::Hasher;
use core::net::{IpAddr, Ipv6Addr};

use super::address::{Address, IpHeader};
use super::checksum::{Difference, Sum};
use super::{Fragment, Icmp, Ip, icmp};
use crate::verdict::DropReason;

/// The 40 octets of every IPv6 header. Made by [`parse`], so no access can fail.
#[derive(Debug)]
pub struct Ipv6Header<'a>(&'a mut [u8; 40]);

/// Extension headers walked before a packet is refused. RFC 8200 knows eight kinds; real traffic
/// has one or two.
pub const EXTENSIONS_MAX: usize = 8;

/// There is nothing behind this header (RFC 8200 section 4.7).
const NO_NEXT_HEADER: u8 = 59;

/// Splits a packet into header and payload, which begins behind the extension headers. Octets
/// beyond the payload length belong to neither.
///
/// # Errors
/// [`DropReason::Ipv6Header`], [`DropReason::Ipv6Length`], and [`DropReason::Ipv6Extensions`] for
/// headers that are cut off or more than [`EXTENSIONS_MAX`].
#[inline]
pub fn parse(octets: &mut [u8]) -> Result<Ip<'_, Ipv6Addr>, DropReason> {
    let (header, rest) = octets.split_first_chunk_mut::<40>().ok_or(DropReason::Ipv6Header)?;
    let header = Ipv6Header(header);
    let payload = header.payload_length();
    let length = payload.saturating_add(40);
    let payload = rest.get_mut(..payload).ok_or(DropReason::Ipv6Length)?;
    let (protocol, payload, fragment) = skip_extensions(header.next_header(), payload)?;
    Ok(Ip { protocol, header, payload, length, fragment })
}

/// Walks from a next-header number to the first header that is no extension. Of a fragment that is
/// not the first one, to its content: no header stands there. An atomic fragment is a whole packet
/// (RFC 6946).
fn skip_extensions(
    mut next: u8,
    mut rest: &mut [u8],
) -> Result<(u8, &mut [u8], Option<Fragment>), DropReason> {
    const HOP_BY_HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const FRAGMENT: u8 = 44;
    const AUTHENTICATION: u8 = 51;
    const DESTINATION: u8 = 60;

    let mut fragment = None;
    for _ in 0..=EXTENSIONS_MAX {
        let octets = match (next, &*rest) {
            (HOP_BY_HOP | ROUTING | DESTINATION, &[_, length, ..]) => {
                usize::from(length).saturating_add(1).saturating_mul(8)
            }
            // RFC 4302 section 2.2: in units of four octets, minus two.
            (AUTHENTICATION, &[_, length, ..]) => {
                usize::from(length).saturating_add(2).saturating_mul(4)
            }
            // The offset is in units of 8 octets, above three bits of which the last tells of more.
            (FRAGMENT, &[following, _, high, low, i0, i1, i2, i3, ..]) => {
                let word = u16::from_be_bytes([high, low]);
                let (offset, has_more) = (word & 0xfff8, word & 1 != 0);
                if offset != 0 || has_more {
                    if fragment.is_some() {
                        return Err(DropReason::Ipv6Extensions);
                    }
                    let identification = u32::from_be_bytes([i0, i1, i2, i3]);
                    fragment = Some(Fragment { identification, offset, is_last: !has_more });
                }
                if offset != 0 {
                    return Ok((following, rest.get_mut(8..).unwrap_or_default(), fragment));
                }
                8
            }
            (HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION, _) => {
                return Err(DropReason::Ipv6Extensions);
            }
            _ => return Ok((next, rest, fragment)),
        };
        let &mut [following, ..] = rest else { return Err(DropReason::Ipv6Extensions) };
        rest = rest.get_mut(octets..).ok_or(DropReason::Ipv6Extensions)?;
        next = following;
    }
    Err(DropReason::Ipv6Extensions)
}

/// As [`parse`] for the beginning of a packet, whose payload goes as far as the octets do.
///
/// # Errors
/// [`DropReason::IcmpQuote`] for an impossible header.
pub fn parse_quote(octets: &mut [u8]) -> Result<Ip<'_, Ipv6Addr>, DropReason> {
    let length = octets.len();
    let (header, rest) = octets.split_first_chunk_mut::<40>().ok_or(DropReason::IcmpQuote)?;
    let header = Ipv6Header(header);
    if header.0[0] >> 4 != 6 {
        return Err(DropReason::IcmpQuote);
    }
    // Where the quote ends within the extension headers, the addresses are still of use.
    let (protocol, payload, fragment) =
        skip_extensions(header.next_header(), rest).unwrap_or((NO_NEXT_HEADER, &mut [], None));
    Ok(Ip { protocol, header, payload, length, fragment })
}

impl Ipv6Header<'_> {
    fn payload_length(&self) -> usize {
        usize::from(u16::from_be_bytes([self.0[4], self.0[5]]))
    }

    fn next_header(&self) -> u8 {
        self.0[6]
    }
}

impl IpHeader for Ipv6Header<'_> {
    type Address = Ipv6Addr;

    #[inline]
    fn hop_limit(&self) -> u8 {
        self.0[7]
    }

    #[inline]
    fn source(&self) -> Ipv6Addr {
        let (_, addresses) = self.0.split_at(8);
        addresses
            .first_chunk::<16>()
            .map_or(Ipv6Addr::UNSPECIFIED, |octets| Ipv6Addr::from(*octets))
    }

    #[inline]
    fn destination(&self) -> Ipv6Addr {
        self.0.last_chunk::<16>().map_or(Ipv6Addr::UNSPECIFIED, |octets| Ipv6Addr::from(*octets))
    }

    #[inline]
    fn set_source(&mut self, address: Ipv6Addr, _: Difference) {
        let (_, addresses) = self.0.split_at_mut(8);
        if let Some(source) = addresses.first_chunk_mut::<16>() {
            *source = address.octets();
        }
    }

    #[inline]
    fn set_destination(&mut self, address: Ipv6Addr, _: Difference) {
        if let Some(destination) = self.0.last_chunk_mut::<16>() {
            *destination = address.octets();
        }
    }
}

impl Address for Ipv6Addr {
    type Header<'a> = Ipv6Header<'a>;

    const IS_IPV6: bool = true;
    const ICMP: u8 = 58;

    #[inline]
    fn parse(octets: &mut [u8]) -> Result<Ip<'_, Self>, DropReason> {
        parse(octets)
    }

    fn parse_quote(octets: &mut [u8]) -> Result<Ip<'_, Self>, DropReason> {
        parse_quote(octets)
    }

    fn icmp(kind: u8, code: u8) -> Icmp {
        icmp::classify_v6(kind, code)
    }

    #[inline]
    fn sum(self) -> Sum {
        self.segments().into_iter().fold(Sum::default(), Sum::word)
    }

    #[inline]
    fn hash_pair<H: Hasher>(source: Self, destination: Self, hasher: &mut H) {
        hasher.write_u128(source.to_bits());
        hasher.write_u128(destination.to_bits());
    }

    #[inline]
    fn from_ip(address: IpAddr) -> Option<Self> {
        match address {
            IpAddr::V4(_) => None,
            IpAddr::V6(address) => Some(address),
        }
    }
}
