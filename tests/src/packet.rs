//! Packets built and taken apart with `etherparse`, so that nothing of ours checks itself.

use std::net::{IpAddr, SocketAddr};

use etherparse::{
    Ipv4Header, NetHeaders, PacketBuilder, PacketBuilderStep, PacketHeaders, PayloadSlice,
    TransportHeader,
};

/// TCP's FIN flag.
pub const FIN: u8 = 0x01;
/// TCP's SYN flag.
pub const SYN: u8 = 0x02;
/// TCP's RST flag.
pub const RST: u8 = 0x04;
/// TCP's PSH flag.
pub const PSH: u8 = 0x08;
/// TCP's ACK flag.
pub const ACK: u8 = 0x10;
/// TCP's URG flag.
pub const URG: u8 = 0x20;

/// Time to live of built packets.
pub const HOP_LIMIT: u8 = 64;

fn ip(
    source: IpAddr,
    destination: IpAddr,
    hop_limit: u8,
) -> PacketBuilderStep<etherparse::IpHeaders> {
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            PacketBuilder::ipv4(source.octets(), destination.octets(), hop_limit)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            PacketBuilder::ipv6(source.octets(), destination.octets(), hop_limit)
        }
        (source, destination) => panic!("{source} and {destination} are of different families"),
    }
}

/// An address and port from text.
///
/// # Panics
/// When the text is none.
#[must_use]
pub fn at(text: &str) -> SocketAddr {
    text.parse().unwrap_or_else(|_| panic!("{text} is no address with a port"))
}

/// A TCP segment as a test wants it.
#[derive(Clone, Debug)]
pub struct Tcp<'a> {
    /// Source address and port.
    pub source: SocketAddr,
    /// Destination address and port.
    pub destination: SocketAddr,
    /// Flags, such as [`SYN`].
    pub flags: u8,
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgement number.
    pub acknowledgement: u32,
    /// Data.
    pub payload: &'a [u8],
    /// Time to live or hop limit.
    pub hop_limit: u8,
}

impl<'a> Tcp<'a> {
    /// A segment from one end to the other with these flags.
    #[must_use]
    pub fn new(source: SocketAddr, destination: SocketAddr, flags: u8) -> Self {
        Self {
            source,
            destination,
            flags,
            sequence: 1000,
            acknowledgement: if flags & ACK == 0 { 0 } else { 2000 },
            payload: &[],
            hop_limit: HOP_LIMIT,
        }
    }

    /// With data.
    #[must_use]
    pub const fn payload(mut self, payload: &'a [u8]) -> Self {
        self.payload = payload;
        self
    }

    /// The packet.
    #[must_use]
    pub fn build(&self) -> Vec<u8> {
        let mut header = etherparse::TcpHeader::new(
            self.source.port(),
            self.destination.port(),
            self.sequence,
            64_000,
        );
        header.acknowledgment_number = self.acknowledgement;
        header.fin = self.flags & FIN != 0;
        header.syn = self.flags & SYN != 0;
        header.rst = self.flags & RST != 0;
        header.psh = self.flags & PSH != 0;
        header.ack = self.flags & ACK != 0;
        header.urg = self.flags & URG != 0;
        let mut octets = Vec::new();
        ip(self.source.ip(), self.destination.ip(), self.hop_limit)
            .tcp_header(header)
            .write(&mut octets, self.payload)
            .expect("a vector takes everything");
        octets
    }
}

/// A TCP segment in one call.
#[must_use]
pub fn tcp(source: SocketAddr, destination: SocketAddr, flags: u8) -> Vec<u8> {
    Tcp::new(source, destination, flags).build()
}

/// A UDP datagram.
///
/// # Panics
/// When the ends are of different families.
#[must_use]
pub fn udp(source: SocketAddr, destination: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let mut octets = Vec::new();
    ip(source.ip(), destination.ip(), HOP_LIMIT)
        .udp(source.port(), destination.port())
        .write(&mut octets, payload)
        .expect("a vector takes everything");
    octets
}

/// An echo request or reply.
///
/// # Panics
/// When the ends are of different families.
#[must_use]
pub fn echo(source: IpAddr, destination: IpAddr, is_request: bool, identifier: u16) -> Vec<u8> {
    let ip = ip(source, destination, HOP_LIMIT);
    let step = match (source.is_ipv6(), is_request) {
        (false, true) => ip.icmpv4_echo_request(identifier, 1),
        (false, false) => ip.icmpv4_echo_reply(identifier, 1),
        (true, true) => return icmpv6(ip.icmpv6_echo_request(identifier, 1), b"are you there?"),
        (true, false) => return icmpv6(ip.icmpv6_echo_reply(identifier, 1), b"are you there?"),
    };
    let mut octets = Vec::new();
    step.write(&mut octets, b"are you there?").expect("a vector takes everything");
    octets
}

fn icmpv6(step: PacketBuilderStep<etherparse::Icmpv6Header>, payload: &[u8]) -> Vec<u8> {
    let mut octets = Vec::new();
    step.write(&mut octets, payload).expect("a vector takes everything");
    octets
}

/// An ICMP error of this type and code that quotes the beginning of a packet.
///
/// # Panics
/// When the ends are of different families.
#[must_use]
pub fn icmp_error(
    source: IpAddr,
    destination: IpAddr,
    [kind, code]: [u8; 2],
    quoted: &[u8],
) -> Vec<u8> {
    let ip = ip(source, destination, HOP_LIMIT);
    // Too big says the MTU (1280); the others say nothing here.
    let is_too_big = [kind, code] == if source.is_ipv6() { [2, 0] } else { [3, 4] };
    let rest = if is_too_big { [0, 0, 5, 0] } else { [0; 4] };
    let mut octets = Vec::new();
    if source.is_ipv6() {
        ip.icmpv6_raw(kind, code, rest).write(&mut octets, quoted)
    } else {
        ip.icmpv4_raw(kind, code, rest).write(&mut octets, quoted)
    }
    .expect("a vector takes everything");
    octets
}

/// What a receiver finds in a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Source address and port; an echo message's port is 0.
    pub source: SocketAddr,
    /// Destination address and port; an echo message's port is 0.
    pub destination: SocketAddr,
    /// What it carries.
    pub transport: SeenTransport,
    /// Data behind the transport header; for an ICMP error the quoted packet.
    pub payload: Vec<u8>,
    /// Time to live or hop limit.
    pub hop_limit: u8,
}

/// What a packet carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SeenTransport {
    /// A segment with these flags, sequence and acknowledgement number.
    Tcp {
        /// Flags such as [`SYN`].
        flags: u8,
        /// Sequence number.
        sequence: u32,
        /// Acknowledgement number.
        acknowledgement: u32,
    },
    /// A datagram.
    Udp,
    /// An ICMP or ICMPv6 message of this type and code, with the next four octets.
    Icmp {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
        /// What the header says besides.
        rest: [u8; 4],
    },
}

/// Takes a packet apart and checks every checksum in it, the IPv4 header's included.
///
/// # Panics
/// When the packet is none or one of its checksums is wrong.
#[must_use]
pub fn receive(octets: &[u8]) -> Seen {
    try_receive(octets).unwrap_or_else(|damage| panic!("{damage}\n{octets:02x?}"))
}

/// As [`receive`] for a packet that may have been damaged on its way.
///
/// # Errors
/// What is wrong with it, for people.
pub fn try_receive(octets: &[u8]) -> Result<Seen, String> {
    let right = |is_right: bool, what: &str| {
        if is_right { Ok(()) } else { Err(format!("{what} checksum")) }
    };
    let headers =
        PacketHeaders::from_ip_slice(octets).map_err(|error| format!("not a packet: {error}"))?;
    let (source, destination, hop_limit): (IpAddr, IpAddr, u8) = match headers.net {
        Some(NetHeaders::Ipv4(ip, _)) => {
            right(ip.header_checksum == ip.calc_header_checksum(), "IPv4 header")?;
            (ip.source.into(), ip.destination.into(), ip.time_to_live)
        }
        Some(NetHeaders::Ipv6(ip, _)) => (ip.source.into(), ip.destination.into(), ip.hop_limit),
        other => return Err(format!("neither IPv4 nor IPv6: {other:?}")),
    };
    let payload = match headers.payload {
        PayloadSlice::Tcp(payload)
        | PayloadSlice::Udp(payload)
        | PayloadSlice::Icmpv4(payload)
        | PayloadSlice::Icmpv6(payload) => payload,
        other => return Err(format!("unexpected payload: {other:?}")),
    };
    let (transport, ports) = match headers.transport {
        Some(TransportHeader::Tcp(tcp)) => {
            let expected = match (source, destination) {
                (IpAddr::V4(a), IpAddr::V4(b)) => {
                    tcp.calc_checksum_ipv4_raw(a.octets(), b.octets(), payload)
                }
                (IpAddr::V6(a), IpAddr::V6(b)) => {
                    tcp.calc_checksum_ipv6_raw(a.octets(), b.octets(), payload)
                }
                _ => unreachable!("one header has one family"),
            };
            right(Ok(tcp.checksum) == expected, "TCP")?;
            let bit = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
            let flags = bit(tcp.fin, FIN)
                | bit(tcp.syn, SYN)
                | bit(tcp.rst, RST)
                | bit(tcp.psh, PSH)
                | bit(tcp.ack, ACK)
                | bit(tcp.urg, URG);
            let (sequence, acknowledgement) = (tcp.sequence_number, tcp.acknowledgment_number);
            let ports = (tcp.source_port, tcp.destination_port);
            (SeenTransport::Tcp { flags, sequence, acknowledgement }, ports)
        }
        Some(TransportHeader::Udp(udp)) => {
            let expected = match (source, destination) {
                (IpAddr::V4(_), _) if udp.checksum == 0 => Ok(0),
                (IpAddr::V4(a), IpAddr::V4(b)) => {
                    udp.calc_checksum_ipv4_raw(a.octets(), b.octets(), payload)
                }
                (IpAddr::V6(a), IpAddr::V6(b)) => {
                    udp.calc_checksum_ipv6_raw(a.octets(), b.octets(), payload)
                }
                _ => unreachable!("one header has one family"),
            };
            right(Ok(udp.checksum) == expected, "UDP")?;
            (SeenTransport::Udp, (udp.source_port, udp.destination_port))
        }
        Some(TransportHeader::Icmpv4(icmp)) => {
            right(icmp.checksum == icmp.icmp_type.calc_checksum(payload), "ICMP")?;
            (icmp_of(&icmp.to_bytes()), (0, 0))
        }
        Some(TransportHeader::Icmpv6(icmp)) => {
            let (IpAddr::V6(a), IpAddr::V6(b)) = (source, destination) else {
                unreachable!("ICMPv6 is carried by IPv6")
            };
            let expected = icmp.icmp_type.calc_checksum(a.octets(), b.octets(), payload);
            right(Ok(icmp.checksum) == expected, "ICMPv6")?;
            (icmp_of(&icmp.to_bytes()), (0, 0))
        }
        other => return Err(format!("unexpected transport: {other:?}")),
    };
    Ok(Seen {
        source: SocketAddr::new(source, ports.0),
        destination: SocketAddr::new(destination, ports.1),
        transport,
        payload: payload.to_vec(),
        hop_limit,
    })
}

fn icmp_of(header: &[u8]) -> SeenTransport {
    SeenTransport::Icmp {
        kind: header[0],
        code: header[1],
        rest: [header[4], header[5], header[6], header[7]],
    }
}

/// A packet cut into fragments that carry at most `octets` of its payload each, a multiple of 8.
/// It must have no IPv4 options and no IPv6 extension headers.
///
/// # Panics
/// When it is none of ours.
#[must_use]
pub fn cut(packet: &[u8], octets: usize, identification: u16) -> Vec<Vec<u8>> {
    assert!(octets > 0 && octets.is_multiple_of(8));
    let is_ipv4 = packet[0] >> 4 == 4;
    let (header, payload) = packet.split_at(if is_ipv4 { 20 } else { 40 });
    let last = payload.len().div_ceil(octets) - 1;
    let fragment = |(number, part): (usize, &[u8])| {
        let place = u16::try_from(number * octets / 8).expect("no longer than a packet");
        let mut fragment = header.to_vec();
        if is_ipv4 {
            let length = u16::try_from(20 + part.len()).expect("no longer than a packet");
            fragment[2..4].copy_from_slice(&length.to_be_bytes());
            fragment[4..6].copy_from_slice(&identification.to_be_bytes());
            let more = if number < last { 0x2000 } else { 0 };
            fragment[6..8].copy_from_slice(&(more | place).to_be_bytes());
            let checksum =
                Ipv4Header::from_slice(&fragment).expect("a header").0.calc_header_checksum();
            fragment[10..12].copy_from_slice(&checksum.to_be_bytes());
        } else {
            let length = u16::try_from(8 + part.len()).expect("no longer than a packet");
            fragment[4..6].copy_from_slice(&length.to_be_bytes());
            let next = std::mem::replace(&mut fragment[6], 44);
            let [p0, p1] = (place << 3 | u16::from(number < last)).to_be_bytes();
            let [i0, i1] = identification.to_be_bytes();
            fragment.extend([next, 0, p0, p1, 0, 0, i0, i1]);
        }
        fragment.extend(part);
        fragment
    };
    payload.chunks(octets).enumerate().map(fragment).collect()
}

/// The packet that fragments are of, whatever their order.
///
/// # Panics
/// When they are not all of one packet without a gap.
#[must_use]
pub fn join(fragments: &[Vec<u8>]) -> Vec<u8> {
    let is_ipv4 = fragments[0][0] >> 4 == 4;
    let place = |fragment: &Vec<u8>| {
        let at = if is_ipv4 { 6 } else { 42 };
        let word = u16::from_be_bytes([fragment[at], fragment[at + 1]]);
        usize::from(if is_ipv4 { word << 3 } else { word & 0xfff8 })
    };
    let mut fragments = fragments.to_vec();
    fragments.sort_by_key(place);
    let mut packet = fragments[0][..if is_ipv4 { 20 } else { 40 }].to_vec();
    let mut payload: Vec<u8> = Vec::new();
    for fragment in &fragments {
        assert_eq!(place(fragment), payload.len(), "a gap");
        payload.extend(&fragment[if is_ipv4 { 20 } else { 48 }..]);
    }
    if is_ipv4 {
        let length = u16::try_from(20 + payload.len()).expect("no longer than a packet");
        packet[2..4].copy_from_slice(&length.to_be_bytes());
        packet[6..8].fill(0);
        let checksum = Ipv4Header::from_slice(&packet).expect("a header").0.calc_header_checksum();
        packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    } else {
        let length = u16::try_from(payload.len()).expect("no longer than a packet");
        packet[4..6].copy_from_slice(&length.to_be_bytes());
        packet[6] = fragments[0][40];
    }
    packet.extend(payload);
    packet
}
