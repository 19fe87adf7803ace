//! Fragments: datagrams that were cut up on their way, of which only the first piece has ports.
//!
//! Read first: RFC 791 section 3.2, RFC 8200 section 4.5 (what they are); RFC 1858 and RFC 3128 (tiny
//! ones, which hide a header), RFC 5722 (overlapping ones).
//!
//! They are followed, not put together: the first piece goes the way of a whole packet, and the
//! others take the same. IPv6 would leave no choice, since a router may not cut up what it put
//! together, and what goes through in pieces needs no memory for the whole. Pieces that come before
//! the first one are held until it comes, and then sent after it.
//!
//! Whole packets never come by here.

mod datagrams;

pub(crate) use datagrams::{Datagram, Fragments};
use datagrams::{Fate, Place};
pub use datagrams::{FragmentTotals, HELD_OCTETS_MAX, KNOWN_MAX, LIFETIME, WAITING_MAX};

use core::net::{Ipv4Addr, Ipv6Addr};

use crate::answer::Answer;
use crate::connection::Tick;
use crate::connection::table::Tabled;
use crate::connection::tuple::{Endpoint, Tuple};
use crate::director::{Decision, Director};
use crate::packet::address::{Address, IpHeader};
use crate::packet::{Extent, Fragment, Ip, Transport, TransportChecksum};
use crate::rewrite::{Rewrite, set_addresses};
use crate::services::Services;
use crate::time::Moment;
use crate::verdict::DropReason;

/// Octets of a TCP header that no piece but the first may have any of (RFC 3128).
const TCP_HEADER: u16 = 20;

/// Nobody leaves the checksum of a part to the device.
const COMPLETE: TransportChecksum = TransportChecksum::Complete;

impl Director {
    /// Decides on a piece of a packet.
    pub(crate) fn decide_fragment<A: Tabled>(
        &self,
        services: &Services,
        octets: &mut [u8],
        fragment: Fragment,
        now: Moment,
    ) -> Result<Decision, DropReason> {
        let (datagram, length) = {
            let Ip { header, protocol, payload, .. } = A::parse(octets)?;
            if protocol == 6 && (1..TCP_HEADER).contains(&fragment.offset) {
                return Err(DropReason::Fragment);
            }
            let datagram = Datagram {
                source: header.source(),
                destination: header.destination(),
                identification: fragment.identification,
                protocol: if A::IS_IPV6 { 0 } else { protocol },
            };
            (datagram, payload.len())
        };
        if !may_concern(services, &datagram) {
            return match fragment.offset {
                0 => self.decide_whole(services, A::parse(octets)?, Extent::First, COMPLETE, now),
                _ => Ok(Decision::Pass),
            };
        }
        let place = fragment.place(length).ok_or(DropReason::Fragment)?;
        let fragments = A::table(&self.connections).fragments();
        match fragments.place(datagram, place, fragment.is_last, octets, now)? {
            Place::First => self.decide_first(services, octets, datagram, now),
            Place::Known(fate) => follow(octets, &fate, now),
            Place::Held => Ok(Decision::Hold),
        }
    }

    /// Decides on the first piece as on a whole packet, and thereby on the others.
    fn decide_first<A: Tabled>(
        &self,
        services: &Services,
        octets: &mut [u8],
        datagram: Datagram<A>,
        now: Moment,
    ) -> Result<Decision, DropReason> {
        let tuple = first_tuple::<A>(octets);
        let decision = A::parse(octets)
            .and_then(|ip| self.decide_whole::<A>(services, ip, Extent::First, COMPLETE, now));
        let table = A::table(&self.connections);
        let connection = |tuple: &Tuple<A>| {
            table.look(tuple, |entry| entry.connection().clone()).map(|connection| {
                let direction = connection.direction(tuple);
                Fate::Connection(connection, direction)
            })
        };
        let fate = match &decision {
            Ok(Decision::Forward) => match tuple.as_ref().and_then(connection) {
                Some(fate) => fate,
                // Where the first piece was sent is where it goes now.
                None if tuple.is_some() => {
                    let Ip { header, .. } = A::parse(octets)?;
                    Fate::Datagram { source: header.source(), destination: header.destination() }
                }
                None => Fate::Refused,
            },
            Ok(Decision::Pass) => Fate::Passed,
            _ => Fate::Refused,
        };
        table.fragments().settle(datagram, fate.clone(), now, |held| {
            matches!(follow(held, &fate, now), Ok(Decision::Forward | Decision::Pass))
        });
        match decision {
            // The answer would have to have all the data.
            Ok(Decision::Answer(Answer::Echo)) => Err(DropReason::Fragment),
            decision => decision,
        }
    }

    /// Puts a piece that was held, and whose time has come, into `buffer`, which should be as long
    /// as the longest packet: its length, `None` when there is none. To be called after
    /// [`process`](Self::process) until there is none. It is to be sent like a forwarded packet.
    #[inline]
    pub fn next_released(&self, buffer: &mut [u8]) -> Option<usize> {
        let v4 = Ipv4Addr::table(&self.connections).fragments().next_released(buffer);
        v4.or_else(|| Ipv6Addr::table(&self.connections).fragments().next_released(buffer))
    }

    /// How fragments fared.
    #[must_use]
    pub fn fragments(&self) -> FragmentTotals {
        let v4 = Ipv4Addr::table(&self.connections).fragments().totals();
        v4.and(Ipv6Addr::table(&self.connections).fragments().totals())
    }
}

/// Whether a piece without ports may be of a packet to or from a service.
fn may_concern<A: Address>(services: &Services, datagram: &Datagram<A>) -> bool {
    let destination = datagram.destination.into();
    services.is_vip(destination)
        || services.is_local(destination)
        || services.is_rip(datagram.source.into())
}

/// The tuple of a first piece.
fn first_tuple<A: Address>(octets: &mut [u8]) -> Option<Tuple<A>> {
    let Ip { header, protocol, payload, .. } = A::parse(octets).ok()?;
    let (source, destination) = (header.source(), header.destination());
    let transport = Transport::parse::<A>(protocol, payload, Extent::First).ok()?;
    let (protocol, source_port, destination_port) = transport.ports()?;
    Some(Tuple { source, destination, source_port, destination_port, protocol })
}

/// Sends a later piece the way of the first one.
fn follow<A: Address>(
    octets: &mut [u8],
    fate: &Fate<A>,
    now: Moment,
) -> Result<Decision, DropReason> {
    match fate {
        Fate::Connection(connection, direction) => {
            let Ip { mut header, length, .. } = A::parse(octets)?;
            if header.hop_limit() <= 1 {
                // Nobody is told about a later piece (RFC 1122 section 3.2.2).
                return Err(DropReason::Fragment);
            }
            set_addresses(&mut header, &connection.rewrite(*direction));
            connection.touch(Tick::of(now));
            connection.server().traffic().count(*direction, length);
            Ok(Decision::Forward)
        }
        Fate::Datagram { source, destination } => {
            let Ip { mut header, .. } = A::parse(octets)?;
            if header.hop_limit() <= 1 {
                return Err(DropReason::Fragment);
            }
            let end = |address| Some(Endpoint { address, port: 0 });
            let rewrite = Rewrite { source: end(*source), destination: end(*destination) };
            set_addresses(&mut header, &rewrite);
            Ok(Decision::Forward)
        }
        Fate::Passed => Ok(Decision::Pass),
        Fate::Refused => Err(DropReason::Fragment),
    }
}
