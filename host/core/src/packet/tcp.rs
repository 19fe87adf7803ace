//! TCP headers.
//!
//! Read first: RFC 9293 section 3.1 (the header) and 3.10.7.1 (the reset for a segment that belongs
//! to no connection).

use super::address::Address;
use super::checksum::{Difference, Sum};
use crate::verdict::DropReason;

/// Closes one direction.
pub const FIN: u8 = 0x01;
/// Opens a connection.
pub const SYN: u8 = 0x02;
/// Ends a connection at once.
pub const RST: u8 = 0x04;
/// Acknowledges.
pub const ACK: u8 = 0x10;

/// The 20 octets that every TCP header has. Made by [`parse`], so no access can fail.
#[derive(Debug)]
pub struct TcpHeader<'a> {
    octets: &'a mut [u8; 20],
    /// Octets behind the header and its options.
    data: usize,
}

/// Reads the header at the start of a segment.
///
/// # Errors
/// [`DropReason::TcpHeader`] when it is cut off, or its data offset is below 5 or beyond the end.
#[inline]
pub fn parse(segment: &mut [u8]) -> Result<TcpHeader<'_>, DropReason> {
    let length = segment.len();
    let octets = segment.first_chunk_mut::<20>().ok_or(DropReason::TcpHeader)?;
    let offset = usize::from(octets[12] >> 4).saturating_mul(4);
    let data = length.checked_sub(offset).filter(|_| offset >= 20).ok_or(DropReason::TcpHeader)?;
    Ok(TcpHeader { octets, data })
}

/// The sum over a segment and its pseudo-header: intact as it stands; with the checksum field at 0
/// its complement is the checksum.
#[must_use]
pub fn sum<A: Address>(source: A, destination: A, segment: &[u8]) -> Sum {
    Sum::default().octets(segment).pseudo_header(source.sum(), destination.sum(), 6, segment.len())
}

impl TcpHeader<'_> {
    /// The source port.
    #[inline]
    #[must_use]
    pub fn source_port(&self) -> u16 {
        u16::from_be_bytes([self.octets[0], self.octets[1]])
    }

    /// The destination port.
    #[inline]
    #[must_use]
    pub fn destination_port(&self) -> u16 {
        u16::from_be_bytes([self.octets[2], self.octets[3]])
    }

    /// The sequence number.
    #[must_use]
    pub fn sequence(&self) -> u32 {
        u32::from_be_bytes([self.octets[4], self.octets[5], self.octets[6], self.octets[7]])
    }

    /// The acknowledgement number, meaningful with [`ACK`].
    #[must_use]
    pub fn acknowledgement(&self) -> u32 {
        u32::from_be_bytes([self.octets[8], self.octets[9], self.octets[10], self.octets[11]])
    }

    /// The flags FIN to CWR, lowest bit first.
    #[inline]
    #[must_use]
    pub fn flags(&self) -> u8 {
        self.octets[13]
    }

    /// How much of the sequence space the segment takes: its data, and one each for SYN and FIN.
    #[must_use]
    pub fn sequence_length(&self) -> u32 {
        let has = |flag| u32::from(self.flags() & flag != 0);
        let data = u32::try_from(self.data).unwrap_or(u32::MAX);
        data.wrapping_add(has(SYN)).wrapping_add(has(FIN))
    }

    /// Whether the segment asks for a new connection: SYN without ACK, FIN or RST.
    #[inline]
    #[must_use]
    pub fn is_opening(&self) -> bool {
        self.flags() & (SYN | ACK | FIN | RST) == SYN
    }

    /// Replaces the source port. `difference` is what the whole rewrite, addresses included,
    /// changes in the checksum's sum.
    #[inline]
    pub fn set_source_port(&mut self, port: u16, difference: Difference) {
        [self.octets[0], self.octets[1]] = port.to_be_bytes();
        self.update_checksum(difference);
    }

    /// Replaces the destination port; `difference` as for [`Self::set_source_port`].
    #[inline]
    pub fn set_destination_port(&mut self, port: u16, difference: Difference) {
        [self.octets[2], self.octets[3]] = port.to_be_bytes();
        self.update_checksum(difference);
    }

    #[inline]
    fn update_checksum(&mut self, difference: Difference) {
        let checksum = difference.update(u16::from_be_bytes([self.octets[16], self.octets[17]]));
        [self.octets[16], self.octets[17]] = checksum.to_be_bytes();
    }
}
