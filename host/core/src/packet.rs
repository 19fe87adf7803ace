//! A packet in the buffer it came in.

/// An IP packet at the start of a buffer that has room for the director's own answers.
#[derive(Debug)]
pub struct Packet<'a> {
    buffer: &'a mut [u8],
    length: usize,
}

impl<'a> Packet<'a> {
    /// Octets of room that a buffer should have beyond the longest packet read into it, so that an
    /// ICMP error can be put in front of what it quotes. With less, errors quote less.
    pub const HEADROOM: usize = 48;

    /// The first `length` octets of `buffer`, cut to what the buffer has.
    #[must_use]
    pub fn new(buffer: &'a mut [u8], length: usize) -> Self {
        let length = length.min(buffer.len());
        Self { buffer, length }
    }

    /// The packet's octets.
    #[inline]
    #[must_use]
    pub fn octets(&self) -> &[u8] {
        self.buffer.get(..self.length).unwrap_or_default()
    }

    /// The packet's octets, to be changed in place.
    #[inline]
    #[must_use]
    pub fn octets_mut(&mut self) -> &mut [u8] {
        self.buffer.get_mut(..self.length).unwrap_or_default()
    }
}
