//! Network address translation: the octets of a packet that change, and the checksums over them.
//!
//! Read first: RFC 3022 section 4 (translation of headers), RFC 5508 section 4.2 (of ICMP errors).

use crate::connection::tuple::{Endpoint, Tuple};
use crate::packet::address::{Address, IpHeader};
use crate::packet::checksum::{Difference, Sum};
use crate::packet::{Icmp, Ip, Transport, TransportChecksum, icmp};
use crate::protocol::Protocol;
use crate::verdict::DropReason;

/// What takes the place of the ends of a packet, where something does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rewrite<A> {
    /// Where it is to come from.
    pub source: Option<Endpoint<A>>,
    /// Where it is to go.
    pub destination: Option<Endpoint<A>>,
}

impl<A: Copy> Rewrite<A> {
    /// The same for a packet of the other direction.
    const fn inverted(self) -> Self {
        Self { source: self.destination, destination: self.source }
    }
}

/// One of the two ends of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Source,
    Destination,
}

/// Rewrites a packet: a client's to go to the real server, a server's to come from the virtual
/// address. Everything but addresses, ports and checksums stays as it is.
#[inline]
pub(crate) fn translate<A: Address>(
    header: &mut A::Header<'_>,
    transport: &mut Transport<'_>,
    checksum: TransportChecksum,
    rewrite: &Rewrite<A>,
) {
    if let Some(Endpoint { address, port }) = rewrite.source {
        let addresses = Difference::between(header.source().sum(), address.sum());
        header.set_source(address, addresses);
        set_end::<A>(transport, End::Source, port, addresses, checksum);
    }
    if let Some(Endpoint { address, port }) = rewrite.destination {
        let addresses = Difference::between(header.destination().sum(), address.sum());
        header.set_destination(address, addresses);
        set_end::<A>(transport, End::Destination, port, addresses, checksum);
    }
}

/// Sets the port of one end and updates the checksum, for a changed address too.
#[inline]
fn set_end<A: Address>(
    transport: &mut Transport<'_>,
    end: End,
    port: u16,
    addresses: Difference,
    checksum: TransportChecksum,
) {
    let difference = |from: u16| match checksum {
        TransportChecksum::Complete => addresses.and(between_ports(from, port)),
        // A sum over the addresses alone and not complemented: what would update its complement is
        // the change back (RFC 1071 section 1: -(-m - d) = m + d).
        TransportChecksum::Partial => addresses.inverse(),
    };
    match (transport, end) {
        (Transport::Tcp(tcp), End::Source) => {
            tcp.set_source_port(port, difference(tcp.source_port()));
        }
        (Transport::Tcp(tcp), End::Destination) => {
            tcp.set_destination_port(port, difference(tcp.destination_port()));
        }
        (Transport::Udp(udp), End::Source) => {
            udp.set_source_port(port, difference(udp.source_port()));
        }
        (Transport::Udp(udp), End::Destination) => {
            udp.set_destination_port(port, difference(udp.destination_port()));
        }
        (Transport::Echo(echo), end) => {
            // ICMP's checksum does not cover addresses, ICMPv6's does.
            let addresses = if A::IS_IPV6 { addresses } else { Difference::default() };
            match (checksum, echo.is_request() == (end == End::Source)) {
                (TransportChecksum::Partial, _) => echo.update_checksum(addresses.inverse()),
                (TransportChecksum::Complete, false) => echo.update_checksum(addresses),
                (TransportChecksum::Complete, true) => {
                    let identifiers = between_ports(echo.identifier(), port);
                    echo.set_identifier(port, addresses.and(identifiers));
                }
            }
        }
        (Transport::IcmpError(_) | Transport::IcmpOther, _) => {}
    }
}

#[inline]
const fn between_ports(from: u16, to: u16) -> Difference {
    Difference::between(Sum::ZERO.word(from), Sum::ZERO.word(to))
}

/// What an ICMP error says of the packet that it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Quote<A> {
    /// A packet with this tuple.
    Packet(Tuple<A>),
    /// A packet to this address; its ports are not quoted, or it has none that are translated.
    To(A),
    /// Not even that.
    Nothing,
}

/// Reads what an ICMP error quotes.
pub(crate) fn quote<A: Address>(message: &mut [u8]) -> Quote<A> {
    let quote = message.get_mut(icmp::ERROR_HEADER..).unwrap_or_default();
    let Ok(Ip { header, protocol, payload, fragment, .. }) = A::parse_quote(quote) else {
        return Quote::Nothing;
    };
    let (source, destination) = (header.source(), header.destination());
    match quoted_ports::<A>(protocol, payload)
        .filter(|_| fragment.is_none_or(|fragment| fragment.offset == 0))
    {
        Some((protocol, source_port, destination_port)) => {
            Quote::Packet(Tuple { source, destination, source_port, destination_port, protocol })
        }
        None => Quote::To(destination),
    }
}

/// Eight octets are all that an ICMP error must quote (RFC 792).
fn quoted_ports<A: Address>(protocol: u8, payload: &[u8]) -> Option<(Protocol, u16, u16)> {
    let &[a, b, c, d, e, f, _, _] = payload.first_chunk::<8>()?;
    let (first, second) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    match protocol {
        6 => Some((Protocol::Tcp, first, second)),
        17 => Some((Protocol::Udp, first, second)),
        _ if protocol == A::ICMP => {
            let identifier = u16::from_be_bytes([e, f]);
            match A::icmp(a, b) {
                Icmp::EchoRequest => Some((Protocol::Icmp, identifier, 0)),
                Icmp::EchoReply => Some((Protocol::Icmp, 0, identifier)),
                _ => None,
            }
        }
        _ => None,
    }
}

/// Rewrites an ICMP error about a packet that the director sent for a connection, outside and
/// inside, so that whoever sent that packet recognises it. `rewrite` is that of the connection's
/// packets in the direction of the error.
///
/// An error about a client's packet, from the real server or a router before it, goes on as from the
/// virtual address and quotes the packet as the client sent it; one about a server's packet goes on
/// to the real server and quotes it as the server sent it.
pub(crate) fn translate_error<A: Address>(
    header: &mut A::Header<'_>,
    message: &mut [u8],
    rewrite: &Rewrite<A>,
) -> Result<(), DropReason> {
    set_addresses(header, rewrite);
    let quote = message.get_mut(icmp::ERROR_HEADER..).ok_or(DropReason::IcmpQuote)?;
    let mut quoted = A::parse_quote(quote)?;
    let inverted = rewrite.inverted();
    let addresses = set_addresses(&mut quoted.header, &inverted);
    rewrite_quoted::<A>(quoted.protocol, quoted.payload, &inverted, addresses);
    drop(quoted);
    icmp::set_checksum(header.source(), header.destination(), message);
    Ok(())
}

/// Sets the addresses of a header; returns what that changes in a sum over them.
pub(crate) fn set_addresses<A: Address>(
    header: &mut A::Header<'_>,
    rewrite: &Rewrite<A>,
) -> Difference {
    let mut all = Difference::default();
    if let Some(Endpoint { address, .. }) = rewrite.source {
        let difference = Difference::between(header.source().sum(), address.sum());
        header.set_source(address, difference);
        all = all.and(difference);
    }
    if let Some(Endpoint { address, .. }) = rewrite.destination {
        let difference = Difference::between(header.destination().sum(), address.sum());
        header.set_destination(address, difference);
        all = all.and(difference);
    }
    all
}

/// Sets the ports of a quoted transport header, and updates the header's checksum if enough is
/// quoted to have one.
fn rewrite_quoted<A: Address>(
    protocol: u8,
    payload: &mut [u8],
    rewrite: &Rewrite<A>,
    addresses: Difference,
) {
    let (checksum_at, mut difference, ports) = match protocol {
        6 => (16, addresses, [(0, rewrite.source), (2, rewrite.destination)]),
        17 => (6, addresses, [(0, rewrite.source), (2, rewrite.destination)]),
        _ => {
            let of_addresses = if A::IS_IPV6 { addresses } else { Difference::default() };
            let identified = match *payload {
                [kind, code, ..] if A::icmp(kind, code) == Icmp::EchoRequest => rewrite.source,
                [kind, code, ..] if A::icmp(kind, code) == Icmp::EchoReply => rewrite.destination,
                _ => None,
            };
            (2, of_addresses, [(4, identified), (4, None)])
        }
    };
    for (at, end) in ports {
        if let Some(Endpoint { port, .. }) = end
            && let Some(field) = payload.get_mut(at..).and_then(<[u8]>::first_chunk_mut::<2>)
        {
            difference = difference.and(between_ports(u16::from_be_bytes(*field), port));
            *field = port.to_be_bytes();
        }
    }
    if let Some(field) = payload.get_mut(checksum_at..).and_then(<[u8]>::first_chunk_mut::<2>) {
        let checksum = u16::from_be_bytes(*field);
        let updated = match protocol {
            17 => difference.update_udp(checksum),
            _ => difference.update(checksum),
        };
        *field = updated.to_be_bytes();
    }
}
