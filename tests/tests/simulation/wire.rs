//! Packets as the shadow model reads them: written anew from the RFCs, with none of the director's
//! code, so that a slip in either shows.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use wvs_core::service::Protocol;
use wvs_core::verdict::DropReason;

/// A packet as far as the director must understand it.
#[derive(Clone, Debug)]
pub(crate) struct Wire {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) hop_limit: u8,
    /// Octets of the packet as its header states them.
    pub(crate) length: usize,
    /// Where the transport header begins.
    pub(crate) header: usize,
    pub(crate) body: Body,
}

/// What a packet carries.
#[derive(Clone, Debug)]
pub(crate) enum Body {
    Tcp(Segment),
    Udp { source_port: u16, destination_port: u16 },
    Echo { is_request: bool, identifier: u16, is_intact: bool },
    Error { is_intact: bool, quote: Quote },
    Redirect,
    OtherIcmp,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
    pub(crate) flags: u8,
    pub(crate) sequence: u32,
    pub(crate) acknowledgement: u32,
    pub(crate) data: u32,
}

/// What an ICMP error says of the packet that it is about.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Quote {
    Ends { protocol: Protocol, source: SocketAddr, destination: SocketAddr },
    Destination(IpAddr),
    Nothing,
}

pub(crate) const FIN: u8 = 1;
pub(crate) const SYN: u8 = 2;
pub(crate) const RST: u8 = 4;
pub(crate) const ACK: u8 = 16;

fn u16_at(octets: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([octets[at], octets[at + 1]])
}

fn u32_at(octets: &[u8], at: usize) -> u32 {
    u32::from(u16_at(octets, at)) << 16 | u32::from(u16_at(octets, at + 2))
}

fn v4_at(octets: &[u8], at: usize) -> IpAddr {
    Ipv4Addr::from(u32_at(octets, at)).into()
}

fn v6_at(octets: &[u8], at: usize) -> IpAddr {
    Ipv6Addr::from(<[u8; 16]>::try_from(&octets[at..at + 16]).unwrap()).into()
}

/// The plain sum of 16-bit words modulo 0xffff, in which both zeros are 0.
pub(crate) fn residue(parts: &[&[u8]]) -> u64 {
    let mut sum = 0;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0));
        }
    }
    sum % 0xffff
}

/// The pseudo-header of a transport packet of `length` octets.
pub(crate) fn pseudo_header(
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    length: usize,
) -> Vec<u8> {
    let mut octets = Vec::new();
    for address in [source, destination] {
        match address {
            IpAddr::V4(address) => octets.extend(address.octets()),
            IpAddr::V6(address) => octets.extend(address.octets()),
        }
    }
    octets.extend(u32::try_from(length).unwrap().to_be_bytes());
    octets.extend([0, 0, 0, protocol]);
    octets
}

impl Wire {
    /// Reads a packet, or says why the director should refuse it. Fragments and IPv6 extension
    /// headers are not made by the simulated network.
    pub(crate) fn of(octets: &[u8]) -> Result<Self, DropReason> {
        let (source, destination, hop_limit, protocol, header, length);
        match octets.first().map(|first| first >> 4) {
            Some(4) => {
                if octets.len() < 20 || octets[0] & 15 < 5 {
                    return Err(DropReason::Ipv4Header);
                }
                header = usize::from(octets[0] & 15) * 4;
                length = usize::from(u16_at(octets, 2));
                if length < header {
                    return Err(DropReason::Ipv4Length);
                } else if octets.len() < header {
                    return Err(DropReason::Ipv4Header);
                } else if octets.len() < length {
                    return Err(DropReason::Ipv4Length);
                }
                (source, destination) = (v4_at(octets, 12), v4_at(octets, 16));
                (hop_limit, protocol) = (octets[8], octets[9]);
            }
            Some(6) => {
                if octets.len() < 40 {
                    return Err(DropReason::Ipv6Header);
                }
                header = 40;
                length = 40 + usize::from(u16_at(octets, 4));
                if octets.len() < length {
                    return Err(DropReason::Ipv6Length);
                }
                (source, destination) = (v6_at(octets, 8), v6_at(octets, 24));
                (hop_limit, protocol) = (octets[7], octets[6]);
            }
            _ => return Err(DropReason::NotIp),
        }
        let body = Body::of(protocol, source, destination, &octets[header..length])?;
        Ok(Self { source, destination, hop_limit, length, header, body })
    }

    /// Protocol, source and destination, an echo message's identifier in place of the asker's port.
    pub(crate) fn ends(&self) -> Option<(Protocol, SocketAddr, SocketAddr)> {
        let (protocol, source_port, destination_port) = match self.body {
            Body::Tcp(segment) => (Protocol::Tcp, segment.source_port, segment.destination_port),
            Body::Udp { source_port, destination_port } => {
                (Protocol::Udp, source_port, destination_port)
            }
            Body::Echo { is_request: true, identifier, .. } => (Protocol::Icmp, identifier, 0),
            Body::Echo { is_request: false, identifier, .. } => (Protocol::Icmp, 0, identifier),
            Body::Error { .. } | Body::Redirect | Body::OtherIcmp => return None,
        };
        let source = SocketAddr::new(self.source, source_port);
        Some((protocol, source, SocketAddr::new(self.destination, destination_port)))
    }
}

impl Body {
    fn of(
        protocol: u8,
        source: IpAddr,
        destination: IpAddr,
        octets: &[u8],
    ) -> Result<Self, DropReason> {
        let is_ipv6 = source.is_ipv6();
        match protocol {
            6 => {
                let offset = octets.get(12).map_or(0, |octet| usize::from(octet >> 4) * 4);
                if octets.len() < 20 || offset < 20 || offset > octets.len() {
                    return Err(DropReason::TcpHeader);
                }
                Ok(Self::Tcp(Segment {
                    source_port: u16_at(octets, 0),
                    destination_port: u16_at(octets, 2),
                    sequence: u32_at(octets, 4),
                    acknowledgement: u32_at(octets, 8),
                    flags: octets[13],
                    data: u32::try_from(octets.len() - offset).unwrap(),
                }))
            }
            17 => {
                let length = octets.get(4..6).map_or(0, |length| usize::from(u16_at(length, 0)));
                if octets.len() < 8 || length < 8 || length > octets.len() {
                    return Err(DropReason::UdpHeader);
                }
                if is_ipv6 && u16_at(octets, 6) == 0 {
                    return Err(DropReason::UdpChecksum);
                }
                let (source_port, destination_port) = (u16_at(octets, 0), u16_at(octets, 2));
                Ok(Self::Udp { source_port, destination_port })
            }
            1 if !is_ipv6 => Self::of_icmp(octets, residue(&[octets]) == 0, false),
            58 if is_ipv6 => {
                let pseudo = pseudo_header(source, destination, 58, octets.len());
                Self::of_icmp(octets, residue(&[&pseudo, octets]) == 0, true)
            }
            _ => Err(DropReason::Protocol),
        }
    }

    fn of_icmp(octets: &[u8], is_intact: bool, is_ipv6: bool) -> Result<Self, DropReason> {
        if octets.len() < 2 {
            return Err(DropReason::IcmpHeader);
        }
        let kind = octets[0];
        let echo = if is_ipv6 { [128, 129] } else { [8, 0] };
        let (is_error, redirect) =
            if is_ipv6 { (kind < 128, 137) } else { ([3, 4, 11, 12].contains(&kind), 5) };
        if echo.contains(&kind) {
            if octets.len() < 8 {
                return Err(DropReason::IcmpHeader);
            }
            let identifier = u16_at(octets, 4);
            Ok(Self::Echo { is_request: kind == echo[0], identifier, is_intact })
        } else if is_error {
            let quote = Quote::of(octets.get(8..).unwrap_or_default(), is_ipv6);
            Ok(Self::Error { is_intact, quote })
        } else if kind == redirect {
            Ok(Self::Redirect)
        } else {
            Ok(Self::OtherIcmp)
        }
    }
}

impl Quote {
    fn of(octets: &[u8], is_ipv6: bool) -> Self {
        let least = if is_ipv6 { 40 } else { 20 };
        if octets.len() < least || octets[0] >> 4 != if is_ipv6 { 6 } else { 4 } {
            return Self::Nothing;
        }
        let (source, destination, protocol, header) = if is_ipv6 {
            (v6_at(octets, 8), v6_at(octets, 24), octets[6], 40)
        } else {
            let header = usize::from(octets[0] & 15) * 4;
            if header < 20 || octets.len() < header {
                return Self::Nothing;
            }
            if u16_at(octets, 6) & 0x1fff != 0 {
                return Self::Destination(v4_at(octets, 16));
            }
            (v4_at(octets, 12), v4_at(octets, 16), octets[9], header)
        };
        let rest = &octets[header..];
        if rest.len() < 8 {
            return Self::Destination(destination);
        }
        let (protocol, source_port, destination_port) = match (protocol, is_ipv6, rest[0]) {
            (6, ..) => (Protocol::Tcp, u16_at(rest, 0), u16_at(rest, 2)),
            (17, ..) => (Protocol::Udp, u16_at(rest, 0), u16_at(rest, 2)),
            (1, false, 8) | (58, true, 128) => (Protocol::Icmp, u16_at(rest, 4), 0),
            (1, false, 0) | (58, true, 129) => (Protocol::Icmp, 0, u16_at(rest, 4)),
            _ => return Self::Destination(destination),
        };
        Self::Ends {
            protocol,
            source: SocketAddr::new(source, source_port),
            destination: SocketAddr::new(destination, destination_port),
        }
    }
}
