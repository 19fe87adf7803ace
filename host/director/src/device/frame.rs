//! A packet as the device hands it over: with the virtio header in front, where there is one.
//!
//! Read first: virtio 1.2 section 5.1.6 (`struct virtio_net_hdr`).

use wvs_core::packet::{Packet, TransportChecksum};

/// Flags, kind of segmentation, and four numbers of two octets each. All but the flags are the
/// kernel's affair: a packet keeps its length and its place, so they stay true.
pub(super) const VIRTIO_HEADER_OCTETS: usize = 10;

/// The transport checksum is still to be finished.
const NEEDS_CHECKSUM: u8 = 1;

/// The longest IP packet without jumbo payloads, which is one of IPv6.
pub(crate) const PACKET_OCTETS_MAX: usize = 40 + 65_535;

/// A buffer for one packet, its virtio header before it so that one call reads or writes both.
#[derive(Debug)]
pub(super) struct Frame {
    octets: Box<[u8]>,
    header: usize,
}

impl Frame {
    /// An empty one. The MTU can be raised under a running director, so there is room for any
    /// packet.
    pub(super) fn new(has_virtio_header: bool) -> Self {
        let header = if has_virtio_header { VIRTIO_HEADER_OCTETS } else { 0 };
        let octets = vec![0; header + PACKET_OCTETS_MAX + Packet::HEADROOM].into_boxed_slice();
        Self { octets, header }
    }

    /// Where to read to.
    #[inline]
    pub(super) fn room(&mut self) -> &mut [u8] {
        &mut self.octets[..self.header + PACKET_OCTETS_MAX]
    }

    /// The packet, after so many octets were read. Empty when that was not even a header.
    #[inline]
    pub(super) fn packet(&mut self, read: usize) -> Packet<'_> {
        let checksum = match self.header {
            VIRTIO_HEADER_OCTETS if self.octets[0] & NEEDS_CHECKSUM != 0 => {
                TransportChecksum::Partial
            }
            _ => TransportChecksum::Complete,
        };
        let length = read.saturating_sub(self.header);
        Packet::new(&mut self.octets[self.header..], length).with_checksum(checksum)
    }

    /// Where to put a packet that was never read into this frame.
    #[inline]
    pub(super) fn packet_room(&mut self) -> &mut [u8] {
        &mut self.octets[self.header..]
    }

    /// What to write for a packet that is now `length` octets long.
    #[inline]
    pub(super) fn written(&self, length: usize) -> &[u8] {
        &self.octets[..self.header + length]
    }

    /// The same for a packet that the director made itself: complete, and nothing to be cut up,
    /// whatever stood in its place.
    pub(super) fn written_as_complete(&mut self, length: usize) -> &[u8] {
        self.octets[..self.header].fill(0);
        self.written(length)
    }

    /// The packet in what was written.
    #[inline]
    pub(super) fn written_packet(&mut self, length: usize) -> &mut [u8] {
        &mut self.octets[self.header..self.header + length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Flags, kind, header length, segment size, checksum start and offset.
    const HEADER: [u8; 10] = [1, 1, 54, 0, 0xb4, 5, 20, 0, 16, 0];

    fn frame_with(header: &[u8], packet: &[u8]) -> (Frame, usize) {
        let mut frame = Frame::new(!header.is_empty());
        let octets = [header, packet].concat();
        frame.room()[..octets.len()].copy_from_slice(&octets);
        (frame, octets.len())
    }

    #[test]
    fn header_in_front_is_no_part_of_the_packet_and_goes_back_as_it_came() {
        let (mut frame, read) = frame_with(&HEADER, b"a packet");
        let mut packet = frame.packet(read);
        assert_eq!(packet.octets(), b"a packet");
        packet.octets_mut()[0] = b'A';
        assert_eq!(frame.written(8), [&HEADER[..], b"A packet"].concat());
    }

    #[test]
    fn answer_in_the_place_of_a_packet_goes_out_with_a_header_of_zeros() {
        let (mut frame, _) = frame_with(&HEADER, b"an answer");
        assert_eq!(frame.written_as_complete(9), [&[0; 10][..], b"an answer"].concat());
    }

    #[test]
    fn without_headers_every_octet_is_the_packets() {
        let (mut frame, read) = frame_with(&[], &HEADER);
        assert_eq!(frame.packet(read).octets(), HEADER);
        assert_eq!(frame.written(10), HEADER);
        assert_eq!(frame.written_as_complete(10), HEADER);
    }

    #[test]
    fn only_the_flag_says_that_a_checksum_is_unfinished() {
        let checksum = |header: &[u8]| {
            let (mut frame, read) = frame_with(header, b"packet");
            format!("{:?}", frame.packet(read))
        };
        assert!(checksum(&HEADER).contains("Partial"));
        let mut validated = HEADER;
        validated[0] = 2;
        assert!(checksum(&validated).contains("Complete"));
        assert!(checksum(&[]).contains("Complete"));
    }

    #[test]
    fn less_than_a_header_is_an_empty_packet() {
        let mut frame = Frame::new(true);
        for read in 0..=VIRTIO_HEADER_OCTETS {
            assert_eq!(frame.packet(read).octets(), b"");
        }
    }

    #[test]
    fn longest_packet_leaves_room_for_an_answer() {
        for has_virtio_header in [false, true] {
            let mut frame = Frame::new(has_virtio_header);
            let read = frame.room().len();
            assert_eq!(frame.packet(read).octets().len(), PACKET_OCTETS_MAX);
            assert_eq!(frame.octets.len() - read, Packet::HEADROOM);
        }
    }
}
