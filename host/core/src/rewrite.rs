//! Network address translation: the octets of a packet that change, and the checksums over them.
//!
//! Read first: RFC 3022 section 4 (translation of headers), RFC 5508 section 4.2 (of ICMP errors).

use crate::connection::tuple::{Direction, Tuple};
use crate::connection::{Connection, Translation};
use crate::packet::address::{Address, IpHeader};
use crate::packet::checksum::Difference;
use crate::packet::{Icmp, Ip, Transport, TransportChecksum, icmp};
use crate::protocol::Protocol;
use crate::verdict::DropReason;

/// Rewrites a packet of `connection`: a client's to go to the real server, a server's to come from
/// the virtual address. Everything but addresses, ports and checksums stays as it is.
#[inline]
pub(crate) fn translate<A: Address>(
    header: &mut A::Header<'_>,
    transport: &mut Transport<'_>,
    checksum: TransportChecksum,
    connection: &Connection<A>,
    direction: Direction,
) {
    let translation = match direction {
        Direction::Original => connection.translation(),
        Direction::Reply => connection.translation().inverse(),
    };
    // A partial checksum is a sum over the addresses alone and not complemented, so that what would
    // update its complement is the change back (RFC 1071 section 1: -(-m - d) = m + d).
    let (ports, addresses) = match checksum {
        TransportChecksum::Complete => (translation.transport, translation.address),
        TransportChecksum::Partial => {
            (translation.address.inverse(), translation.address.inverse())
        }
    };
    match direction {
        Direction::Original => {
            let (rip, port) = (connection.reply().source, connection.reply().source_port);
            header.set_destination(rip, translation.address);
            match transport {
                Transport::Tcp(tcp) => tcp.set_destination_port(port, ports),
                Transport::Udp(udp) => udp.set_destination_port(port, ports),
                Transport::Echo(echo) => echo.update_checksum::<A>(addresses),
                Transport::IcmpError(_) | Transport::IcmpOther => {}
            }
        }
        Direction::Reply => {
            let original = connection.original();
            let (vip, port) = (original.destination, original.destination_port);
            header.set_source(vip, translation.address);
            match transport {
                Transport::Tcp(tcp) => tcp.set_source_port(port, ports),
                Transport::Udp(udp) => udp.set_source_port(port, ports),
                Transport::Echo(echo) => echo.update_checksum::<A>(addresses),
                Transport::IcmpError(_) | Transport::IcmpOther => {}
            }
        }
    }
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
    let Ok(Ip { header, protocol, payload, is_fragment, .. }) = A::parse_quote(quote) else {
        return Quote::Nothing;
    };
    let (source, destination) = (header.source(), header.destination());
    match quoted_ports::<A>(protocol, payload).filter(|_| !is_fragment) {
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

/// Rewrites an ICMP error about a packet that the director sent for `connection`, outside and
/// inside, so that whoever sent that packet recognises it. `direction` is the error's own.
///
/// An error about a client's packet, from the real server or a router before it, goes on as from the
/// virtual address and quotes the packet as the client sent it; one about a server's packet goes on
/// to the real server and quotes it as the server sent it.
pub(crate) fn translate_error<A: Address>(
    header: &mut A::Header<'_>,
    message: &mut [u8],
    connection: &Connection<A>,
    direction: Direction,
) -> Result<(), DropReason> {
    let (original, reply) = (connection.original(), connection.reply());
    let quote = message.get_mut(icmp::ERROR_HEADER..).ok_or(DropReason::IcmpQuote)?;
    let mut quoted = A::parse_quote(quote)?;
    let translation = connection.translation();
    match direction {
        Direction::Original => {
            let (from, to) = (header.destination(), reply.source);
            header.set_destination(to, Difference::between(from.sum(), to.sum()));
            quoted.header.set_source(to, translation.address);
            let ports = (0, reply.source_port);
            rewrite_quoted::<A>(quoted.protocol, quoted.payload, ports, translation);
        }
        Direction::Reply => {
            let (from, to) = (header.source(), original.destination);
            header.set_source(to, Difference::between(from.sum(), to.sum()));
            let translation = translation.inverse();
            quoted.header.set_destination(to, translation.address);
            let ports = (2, original.destination_port);
            rewrite_quoted::<A>(quoted.protocol, quoted.payload, ports, translation);
        }
    }
    drop(quoted);
    icmp::set_checksum(header.source(), header.destination(), message);
    Ok(())
}

/// Sets the port at an offset of a quoted transport header, and updates the header's checksum if
/// enough is quoted to have one.
fn rewrite_quoted<A: Address>(
    protocol: u8,
    payload: &mut [u8],
    (port_at, port): (usize, u16),
    translation: Translation,
) {
    let (has_ports, checksum_at, difference) = match protocol {
        6 => (true, 16, translation.transport),
        17 => (true, 6, translation.transport),
        // The identifier stays; ICMPv6's checksum covers the addresses, ICMP's does not.
        _ if A::IS_IPV6 => (false, 2, translation.address),
        _ => return,
    };
    if has_ports && let Some(field) = payload.get_mut(port_at..).and_then(<[u8]>::first_chunk_mut) {
        *field = port.to_be_bytes();
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
