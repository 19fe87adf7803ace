//! A packet in the buffer it came in, and views of its headers.
//!
//! A view wraps an array of exactly the header's fixed octets, split off the packet once: from
//! there on no access can be out of bounds, and the compiler knows it.

pub mod address;
pub mod checksum;
pub mod icmp;
pub mod ipv4;
pub mod ipv6;
pub mod tcp;
pub mod udp;

use core::ops::Range;

use address::Address;
use icmp::EchoHeader;
use tcp::TcpHeader;
use udp::UdpHeader;

use crate::protocol::Protocol;
use crate::verdict::DropReason;

/// An IP packet at the start of a buffer that has room for the director's own answers.
#[derive(Debug)]
pub struct Packet<'a> {
    buffer: &'a mut [u8],
    length: usize,
    checksum: TransportChecksum,
}

/// What stands in the checksum field of a TCP or UDP header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TransportChecksum {
    /// The checksum.
    #[default]
    Complete,
    /// The sum of the pseudo-header alone, not complemented: whoever puts the packet on a wire adds
    /// the rest. Virtio calls it `VIRTIO_NET_HDR_F_NEEDS_CSUM` (virtio 1.2 section 5.1.6.2).
    Partial,
}

impl<'a> Packet<'a> {
    /// Octets of room that a buffer should have beyond the longest packet read into it, so that an
    /// ICMP error can be put in front of what it quotes. With less, there is no ICMP error.
    pub const HEADROOM: usize = 60;

    /// The first `length` octets of `buffer`, cut to what the buffer has.
    #[inline]
    #[must_use]
    pub fn new(buffer: &'a mut [u8], length: usize) -> Self {
        let length = length.min(buffer.len());
        Self { buffer, length, checksum: TransportChecksum::Complete }
    }

    /// The same packet with something else in its checksum field.
    #[inline]
    #[must_use]
    pub fn with_checksum(self, checksum: TransportChecksum) -> Self {
        Self { checksum, ..self }
    }

    /// What is in its checksum field.
    #[inline]
    #[must_use]
    pub const fn checksum(&self) -> TransportChecksum {
        self.checksum
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

    /// The IP version in the first octet, `None` for an empty packet.
    #[inline]
    #[must_use]
    pub(crate) fn version(&self) -> Option<u8> {
        self.octets().first().map(|octet| octet >> 4)
    }

    /// Puts `header` in front of the first `kept` octets and forgets the rest. `None`, and nothing
    /// changed, when the buffer is too small or the packet shorter than `kept`.
    pub(crate) fn put_before(&mut self, header: &[u8], kept: usize) -> Option<()> {
        let length = header.len().checked_add(kept)?;
        if length > self.buffer.len() || kept > self.length {
            return None;
        }
        self.buffer.copy_within(..kept, header.len());
        self.buffer.get_mut(..header.len())?.copy_from_slice(header);
        self.length = length;
        Some(())
    }
}

/// An IP packet split into its header and what the header carries.
#[derive(Debug)]
pub struct Ip<'a, A: Address> {
    /// The fixed header.
    pub header: A::Header<'a>,
    /// The protocol of the payload, behind any extension headers.
    pub protocol: u8,
    /// Exactly the payload, without octets beyond the packet's stated length.
    pub payload: &'a mut [u8],
    /// Octets of the whole packet as its header states them.
    pub length: usize,
    /// Which part of a packet it is, when it is not a whole one. Only the first one's payload begins
    /// with a header.
    pub fragment: Option<Fragment>,
}

/// Which part of a packet a fragment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// What all parts of the packet have in common; 16 bits of it with IPv4.
    pub identification: u32,
    /// Octets of the packet's payload before it, a multiple of 8.
    pub offset: u16,
    /// Whether no other part comes behind it.
    pub is_last: bool,
}

impl Fragment {
    /// Where it lies in the packet's payload with `length` octets of its own. `None` for what no
    /// sender cuts: an empty part, one of octets that are no multiple of 8 with others behind it, or
    /// one that ends beyond the longest packet.
    #[must_use]
    pub fn place(&self, length: usize) -> Option<Range<u32>> {
        let length = u16::try_from(length).ok()?;
        let end = self.offset.checked_add(length)?;
        let is_cut_well = length > 0 && (self.is_last || length.trailing_zeros() >= 3);
        is_cut_well.then_some(u32::from(self.offset)..u32::from(end))
    }
}

/// How much of a transport message is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// All of it.
    Whole,
    /// Its beginning, in the first fragment.
    First,
}

/// What an ICMP message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Icmp {
    /// Are you there?
    EchoRequest,
    /// I am.
    EchoReply,
    /// Something happened to a packet, which is quoted.
    Error,
    /// There is a better first hop: of interest on one link only.
    Redirect,
    /// Anything else.
    Other,
}

/// The header behind the IP header.
#[derive(Debug)]
pub enum Transport<'a> {
    /// A TCP segment.
    Tcp(TcpHeader<'a>),
    /// A UDP datagram.
    Udp(UdpHeader<'a>),
    /// An echo request or reply.
    Echo(EchoHeader<'a>),
    /// A whole ICMP error message.
    IcmpError(&'a mut [u8]),
    /// Another ICMP message.
    IcmpOther,
}

impl<'a> Transport<'a> {
    /// Reads the header of `protocol` at the start of `payload`.
    ///
    /// # Errors
    /// A drop reason for each way in which the header can be cut off or impossible, and
    /// [`DropReason::Protocol`] for protocols that are not load balanced.
    #[inline]
    pub fn parse<A: Address>(
        protocol: u8,
        payload: &'a mut [u8],
        extent: Extent,
    ) -> Result<Self, DropReason> {
        match protocol {
            6 => tcp::parse(payload).map(Self::Tcp),
            17 => udp::parse(payload, A::IS_IPV6, extent).map(Self::Udp),
            _ if protocol == A::ICMP => {
                let &[kind, code, ..] = &*payload else { return Err(DropReason::IcmpHeader) };
                match A::icmp(kind, code) {
                    Icmp::EchoRequest => icmp::parse_echo(payload, true).map(Self::Echo),
                    Icmp::EchoReply => icmp::parse_echo(payload, false).map(Self::Echo),
                    Icmp::Error => Ok(Self::IcmpError(payload)),
                    Icmp::Redirect => Err(DropReason::IcmpType),
                    Icmp::Other => Ok(Self::IcmpOther),
                }
            }
            _ => Err(DropReason::Protocol),
        }
    }

    /// The protocol with the source and destination port; an echo message has its identifier in
    /// place of the port of whoever asked, and 0 for the other one. `None` for ICMP that belongs to
    /// no connection by itself.
    #[inline]
    #[must_use]
    pub fn ports(&self) -> Option<(Protocol, u16, u16)> {
        match self {
            Self::Tcp(tcp) => Some((Protocol::Tcp, tcp.source_port(), tcp.destination_port())),
            Self::Udp(udp) => Some((Protocol::Udp, udp.source_port(), udp.destination_port())),
            Self::Echo(echo) if echo.is_request() => Some((Protocol::Icmp, echo.identifier(), 0)),
            Self::Echo(echo) => Some((Protocol::Icmp, 0, echo.identifier())),
            Self::IcmpError(_) | Self::IcmpOther => None,
        }
    }
}
