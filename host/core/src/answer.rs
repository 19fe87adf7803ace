//! The packets that the director sends in its own name: a TUN has no local stack behind it that
//! would refuse, unreachable or echo for it.
//!
//! Read first: RFC 9293 section 3.10.7.1 (resets), RFC 1812 section 4.3.2 and RFC 4443 section 2.4
//! (when and how to send ICMP errors).

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::packet::address::{Address, IpHeader};
use crate::packet::checksum::Sum;
use crate::packet::{Extent, Ip, Packet, Transport, icmp, tcp};
use crate::time::Moment;
use crate::verdict::DropReason;

/// What to tell the sender of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// TCP: there is no such connection.
    Reset,
    /// ICMP: nobody is at that port.
    PortUnreachable,
    /// ICMP: the packet has travelled far enough; from this virtual address.
    TimeExceeded(IpAddr),
    /// ICMP: the answer to an echo request.
    Echo,
}

/// Time to live of the director's own packets, as Linux has it.
const HOP_LIMIT: u8 = 64;

impl Answer {
    /// Puts the answer in the packet's place.
    ///
    /// # Errors
    /// [`DropReason::SourceAddress`] when nobody can be reached at the packet's source,
    /// [`DropReason::IcmpChecksum`] for an echo request that is not intact, and
    /// [`DropReason::ReplyLimit`] when the buffer lacks [`Packet::HEADROOM`].
    pub(crate) fn put<A: AnswerFamily>(self, packet: &mut Packet<'_>) -> Result<(), DropReason> {
        let (source, destination, length) = {
            let Ip { header, payload, length, .. } = A::parse(packet.octets_mut())?;
            let (source, destination) = (header.source(), header.destination());
            if self == Self::Echo && !icmp::sum(source, destination, payload).is_intact() {
                return Err(DropReason::IcmpChecksum);
            }
            (source, destination, length)
        };
        if !is_unicast(source.into()) {
            return Err(DropReason::SourceAddress);
        }
        let put = match self {
            Self::Reset => put_reset(packet, destination, source),
            Self::PortUnreachable => {
                put_error(packet, destination, source, A::PORT_UNREACHABLE, length)
            }
            Self::TimeExceeded(from) => A::from_ip(from)
                .and_then(|from| put_error(packet, from, source, A::TIME_EXCEEDED, length)),
            Self::Echo => put_echo_reply(packet, destination, source),
        };
        put.ok_or(DropReason::ReplyLimit)
    }
}

/// The reset for a segment that belongs to no connection.
fn put_reset<A: AnswerFamily>(packet: &mut Packet<'_>, from: A, to: A) -> Option<()> {
    let mut reset = {
        let Ip { protocol, payload, .. } = A::parse(packet.octets_mut()).ok()?;
        let Ok(Transport::Tcp(segment)) = Transport::parse::<A>(protocol, payload, Extent::First)
        else {
            return None;
        };
        let (sequence, acknowledgement, flags) = if segment.flags() & tcp::ACK != 0 {
            (segment.acknowledgement(), 0, tcp::RST)
        } else {
            let next = segment.sequence().wrapping_add(segment.sequence_length());
            (0, next, tcp::RST | tcp::ACK)
        };
        let [p0, p1] = segment.destination_port().to_be_bytes();
        let [q0, q1] = segment.source_port().to_be_bytes();
        let [s0, s1, s2, s3] = sequence.to_be_bytes();
        let [a0, a1, a2, a3] = acknowledgement.to_be_bytes();
        let offset = 5 << 4;
        [p0, p1, q0, q1, s0, s1, s2, s3, a0, a1, a2, a3, offset, flags, 0, 0, 0, 0, 0, 0]
    };
    [reset[16], reset[17]] = tcp::sum(from, to, &reset).checksum().to_be_bytes();
    packet.put_before(&reset, 0)?;
    A::put_header(packet, from, to, 6, reset.len())
}

/// An ICMP error that quotes as much of the packet as the family allows.
fn put_error<A: AnswerFamily>(
    packet: &mut Packet<'_>,
    from: A,
    to: A,
    [kind, code]: [u8; 2],
    length: usize,
) -> Option<()> {
    packet.put_before(&[kind, code, 0, 0, 0, 0, 0, 0], length.min(A::ERROR_QUOTE_MAX))?;
    icmp::set_checksum(from, to, packet.octets_mut());
    let octets = packet.octets().len();
    A::put_header(packet, from, to, A::ICMP, octets)
}

/// The echo request's own data on its way back.
fn put_echo_reply<A: AnswerFamily>(packet: &mut Packet<'_>, from: A, to: A) -> Option<()> {
    let (start, end) = {
        let Ip { payload, length, .. } = A::parse(packet.octets_mut()).ok()?;
        *payload.first_mut()? = A::ECHO_REPLY;
        icmp::set_checksum(from, to, payload);
        (length.checked_sub(payload.len())?, length)
    };
    // Options and extension headers are not sent back.
    packet.octets_mut().get_mut(..end)?.copy_within(start.., 0);
    A::put_header(packet, from, to, A::ICMP, end.checked_sub(start)?)
}

/// What differs between the families in answers.
pub(crate) trait AnswerFamily: Address {
    /// Type and code.
    const PORT_UNREACHABLE: [u8; 2];
    /// Type and code.
    const TIME_EXCEEDED: [u8; 2];
    /// Type.
    const ECHO_REPLY: u8;
    /// Octets of the packet that an error quotes at most.
    const ERROR_QUOTE_MAX: usize;

    /// Puts a header in front of the first `octets` of the packet. `None` when there is no room.
    fn put_header(
        packet: &mut Packet<'_>,
        source: Self,
        destination: Self,
        protocol: u8,
        octets: usize,
    ) -> Option<()>;
}

impl AnswerFamily for Ipv4Addr {
    const PORT_UNREACHABLE: [u8; 2] = [3, 3];
    const TIME_EXCEEDED: [u8; 2] = [11, 0];
    const ECHO_REPLY: u8 = 0;
    /// RFC 1812 section 4.3.2.3: the whole error within 576 octets.
    const ERROR_QUOTE_MAX: usize = 576 - 20 - icmp::ERROR_HEADER;

    fn put_header(
        packet: &mut Packet<'_>,
        source: Self,
        destination: Self,
        protocol: u8,
        octets: usize,
    ) -> Option<()> {
        let [l0, l1] = u16::try_from(octets.checked_add(20)?).ok()?.to_be_bytes();
        let [s0, s1, s2, s3] = source.octets();
        let [d0, d1, d2, d3] = destination.octets();
        let (version, dont_fragment, ttl) = (0x45, 0x40, HOP_LIMIT);
        // It is not to be fragmented, so its identification may be 0 (RFC 6864 section 4.1).
        let mut header = [
            version,
            0,
            l0,
            l1,
            0,
            0,
            dont_fragment,
            0,
            ttl,
            protocol,
            0,
            0,
            s0,
            s1,
            s2,
            s3,
            d0,
            d1,
            d2,
            d3,
        ];
        [header[10], header[11]] = Sum::default().octets(&header).checksum().to_be_bytes();
        packet.put_before(&header, octets)
    }
}

impl AnswerFamily for Ipv6Addr {
    const PORT_UNREACHABLE: [u8; 2] = [1, 4];
    const TIME_EXCEEDED: [u8; 2] = [3, 0];
    const ECHO_REPLY: u8 = 129;
    /// RFC 4443 section 2.4 (c): the whole error within the smallest MTU of IPv6.
    const ERROR_QUOTE_MAX: usize = 1280 - 40 - icmp::ERROR_HEADER;

    fn put_header(
        packet: &mut Packet<'_>,
        source: Self,
        destination: Self,
        protocol: u8,
        octets: usize,
    ) -> Option<()> {
        let [l0, l1] = u16::try_from(octets).ok()?.to_be_bytes();
        packet.put_before(&destination.octets(), octets)?;
        packet.put_before(&source.octets(), octets.checked_add(16)?)?;
        let start = [0x60, 0, 0, 0, l0, l1, protocol, HOP_LIMIT];
        packet.put_before(&start, octets.checked_add(32)?)
    }
}

/// Whether somebody can be answered at this address.
#[must_use]
pub(crate) const fn is_unicast(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            // 0.0.0.0/8 is "this network", 240.0.0.0/4 reserved with the broadcast address in it.
            let [first, ..] = v4.octets();
            first != 0 && first < 224 && !v4.is_loopback()
        }
        IpAddr::V6(v6) => !v6.is_unspecified() && !v6.is_loopback() && !v6.is_multicast(),
    }
}

/// At most so many a second, counted by the second.
#[derive(Debug)]
pub(crate) struct RateLimit {
    per_second: u32,
    /// The second in the high half, how many were allowed in it in the low half.
    window: AtomicU64,
}

impl RateLimit {
    pub(crate) const fn new(per_second: u32) -> Self {
        Self { per_second, window: AtomicU64::new(0) }
    }

    /// Whether one more is within the limit; if so it is counted.
    pub(crate) fn allows(&self, now: Moment) -> bool {
        let second = now.as_millis().checked_div(1000).unwrap_or(0) & 0xffff_ffff;
        self.window
            .try_update(Relaxed, Relaxed, |window| {
                let used = if window >> 32 == second { window & 0xffff_ffff } else { 0 };
                (used < u64::from(self.per_second)).then_some(second << 32 | used.saturating_add(1))
            })
            .is_ok()
    }
}
