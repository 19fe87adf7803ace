//! UDP headers.
//!
//! Read first: RFC 768; RFC 8200 section 8.1 (no zero checksum over IPv6).

use super::Extent;
use super::checksum::Difference;
use crate::verdict::DropReason;

/// The 8 octets of a UDP header. Made by [`parse`], so no access can fail.
#[derive(Debug)]
pub struct UdpHeader<'a>(&'a mut [u8; 8]);

/// Reads the header at the start of a datagram.
///
/// # Errors
/// [`DropReason::UdpHeader`] when it is cut off or its length is below 8 or, of a whole datagram, beyond
/// the end,
/// [`DropReason::UdpChecksum`] for a zero checksum over IPv6.
#[inline]
pub fn parse(
    datagram: &mut [u8],
    is_ipv6: bool,
    extent: Extent,
) -> Result<UdpHeader<'_>, DropReason> {
    let available = match extent {
        Extent::Whole => datagram.len(),
        Extent::First => usize::MAX,
    };
    let header = datagram.first_chunk_mut::<8>().map(UdpHeader).ok_or(DropReason::UdpHeader)?;
    if !(8..=available).contains(&header.length()) {
        return Err(DropReason::UdpHeader);
    }
    if is_ipv6 && header.checksum() == 0 {
        return Err(DropReason::UdpChecksum);
    }
    Ok(header)
}

impl UdpHeader<'_> {
    /// The source port.
    #[inline]
    #[must_use]
    pub fn source_port(&self) -> u16 {
        u16::from_be_bytes([self.0[0], self.0[1]])
    }

    /// The destination port.
    #[inline]
    #[must_use]
    pub fn destination_port(&self) -> u16 {
        u16::from_be_bytes([self.0[2], self.0[3]])
    }

    fn length(&self) -> usize {
        usize::from(u16::from_be_bytes([self.0[4], self.0[5]]))
    }

    fn checksum(&self) -> u16 {
        u16::from_be_bytes([self.0[6], self.0[7]])
    }

    /// Replaces the source port. `difference` is what the whole rewrite, addresses included,
    /// changes in the checksum's sum.
    #[inline]
    pub fn set_source_port(&mut self, port: u16, difference: Difference) {
        [self.0[0], self.0[1]] = port.to_be_bytes();
        self.update_checksum(difference);
    }

    /// Replaces the destination port; `difference` as for [`Self::set_source_port`].
    #[inline]
    pub fn set_destination_port(&mut self, port: u16, difference: Difference) {
        [self.0[2], self.0[3]] = port.to_be_bytes();
        self.update_checksum(difference);
    }

    #[inline]
    fn update_checksum(&mut self, difference: Difference) {
        [self.0[6], self.0[7]] = difference.update_udp(self.checksum()).to_be_bytes();
    }
}
