//! Whom a packet is from and to, as far as its first octets say.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use wvs_core::packet::Icmp;
use wvs_core::packet::address::{Address, IpHeader};
use wvs_core::service::{Protocol, Service, ServiceAddress};
use wvs_core::services::Services;

/// Octets of an ICMP error in front of the packet that it quotes.
const ERROR_HEADER: usize = 8;

/// Source and destination of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Parties {
    /// `None` for one that is not load balanced.
    pub(super) protocol: Option<Protocol>,
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    /// Of both; a later fragment and an ICMP error have none, and an echo message has 0.
    pub(super) ports: Option<(u16, u16)>,
    pub(super) is_error: bool,
}

impl Parties {
    /// The packet's and, if it is an ICMP error, those of the packet that it quotes. Nothing for what
    /// is no IP. Octets behind the headers are not needed, and none is changed.
    pub(super) fn of(octets: &mut [u8]) -> [Option<Self>; 2] {
        match octets.first().map(|first| first >> 4) {
            Some(4) => Self::of_family::<Ipv4Addr>(octets),
            Some(6) => Self::of_family::<Ipv6Addr>(octets),
            _ => [None; 2],
        }
    }

    fn of_family<A: Address>(octets: &mut [u8]) -> [Option<Self>; 2] {
        let Some((outer, payload)) = Self::of_packet::<A>(octets) else { return [None; 2] };
        let quoted = payload.get_mut(ERROR_HEADER..).filter(|_| outer.is_error);
        let quoted = quoted.and_then(|quoted| Some(Self::of_packet::<A>(quoted)?.0));
        [Some(outer), quoted]
    }

    fn of_packet<A: Address>(octets: &mut [u8]) -> Option<(Self, &mut [u8])> {
        let ip = A::parse_quote(octets).ok()?;
        let protocol = match ip.protocol {
            6 => Some(Protocol::Tcp),
            17 => Some(Protocol::Udp),
            icmp if icmp == A::ICMP => Some(Protocol::Icmp),
            _ => None,
        };
        let mut ports = None;
        let mut is_error = false;
        if ip.fragment.is_none_or(|fragment| fragment.offset == 0) {
            match (protocol, &*ip.payload) {
                (Some(Protocol::Tcp | Protocol::Udp), &[s0, s1, d0, d1, ..]) => {
                    ports = Some((u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1])));
                }
                (Some(Protocol::Icmp), &[kind, code, ..]) => match A::icmp(kind, code) {
                    Icmp::EchoRequest | Icmp::EchoReply => ports = Some((0, 0)),
                    Icmp::Error => is_error = true,
                    Icmp::Redirect | Icmp::Other => {}
                },
                _ => {}
            }
        }
        let (source, destination) = (ip.header.source().into(), ip.header.destination().into());
        Some((Self { protocol, source, destination, ports, is_error }, ip.payload))
    }

    /// The service that it is from or to.
    pub(super) fn service<'s>(&self, services: &'s Services) -> Option<&'s Service> {
        let (protocol, (from, to)) = (self.protocol?, self.ports?);
        let find = |vip, port| services.find(&ServiceAddress { protocol, vip, port });
        let service = find(self.destination, to).or_else(|| find(self.source, from))?;
        Some(service)
    }

    /// Source and port, if there are ports.
    pub(super) fn from(&self) -> Option<SocketAddr> {
        Some((self.source, self.ports?.0).into())
    }

    /// Destination and port, if there are ports.
    pub(super) fn to(&self) -> Option<SocketAddr> {
        Some((self.destination, self.ports?.1).into())
    }
}
