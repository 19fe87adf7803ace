//! What would become of a packet: the director's decision without a packet, and without anything
//! changing.
//!
//! It says in order what [`admission`](crate::admission) would find. A property test holds the two
//! against each other.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use wvs_abi::Request;

use crate::admission::request;
use crate::answer::is_unicast;
use crate::connection::Connection;
use crate::connection::state::State;
use crate::connection::table::Tabled;
use crate::connection::tuple::{Direction, Tuple};
use crate::director::{ClosedPort, Director};
use crate::protocol::Protocol;
use crate::real_server::RealServer;
use crate::service::{OnNoServer, OnStray, Service, ServiceAddress};
use crate::time::Moment;
use crate::verdict::DropReason;

/// Source and destination of the packet in question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// What the ports are ports of.
    pub protocol: Protocol,
    /// Whom it is from; the port of an echo request is its identifier.
    pub from: SocketAddr,
    /// Whom it is to; the port of an echo request is 0.
    pub to: SocketAddr,
}

/// What would become of a packet.
#[derive(Debug)]
pub struct Explanation {
    /// The connection that it belongs to.
    pub connection: Option<KnownConnection>,
    /// What becomes of a packet that opens a connection, where the one that is known does not take
    /// that, too.
    pub opening: Option<Fate>,
    /// What becomes of a TCP segment in the middle of a connection, where none is known.
    pub stray: Option<Fate>,
}

/// A connection of the table.
#[derive(Debug)]
pub struct KnownConnection {
    /// The client.
    pub client: SocketAddr,
    /// What it connected to.
    pub virtual_address: SocketAddr,
    /// The pool's place that stands in for the client, with full NAT.
    pub local: Option<SocketAddr>,
    /// The real server.
    pub server: Arc<RealServer>,
    /// Which way the packet in question goes.
    pub direction: Direction,
    /// Its state.
    pub state: Option<State>,
    /// The generation of the scheduler that placed it; 0 for the director itself.
    pub generation: u16,
    /// Milliseconds since it was opened.
    pub age_ms: u64,
    /// Milliseconds until it expires if no packet comes by.
    pub expires_in_ms: u64,
    /// Whether a client's SYN would begin the next connection in its place.
    pub is_over: bool,
}

/// What becomes of a packet that belongs to no connection.
#[derive(Clone, Debug)]
pub enum Fate {
    /// It is sent on as it came.
    Passed,
    /// It is not sent.
    Dropped(DropReason),
    /// The director answers.
    Answered(Reply),
    /// A scheduler is asked.
    Scheduled(Scheduling),
}

/// The director's own answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// A TCP reset.
    Reset,
    /// An ICMP error: port unreachable.
    PortUnreachable,
    /// An echo reply.
    Echo,
}

/// What a scheduler would be asked.
#[derive(Clone, Debug)]
pub struct Scheduling {
    /// The virtual service.
    pub service: Arc<Service>,
    /// The request, if it were the next one.
    pub request: Request,
}

impl Director {
    /// Says what would become of a packet now. Reads only; the scheduler is not asked. Cost: two
    /// looks into the table and the service's lock.
    #[must_use]
    pub fn explain(&self, question: &Question, now: Moment) -> Explanation {
        match (question.from.ip(), question.to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                self.explain_tuple::<Ipv4Addr>(&tuple(question, from, to), now)
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                self.explain_tuple::<Ipv6Addr>(&tuple(question, from, to), now)
            }
            // No packet is from one family to the other.
            _ => Explanation {
                connection: None,
                opening: Some(Fate::Dropped(DropReason::NotIp)),
                stray: None,
            },
        }
    }

    fn explain_tuple<A: Tabled>(&self, tuple: &Tuple<A>, now: Moment) -> Explanation {
        let found = A::table(&self.connections).find(tuple);
        let connection = found.map(|found| known(&found, tuple, now));
        let takes_first = connection.as_ref().is_some_and(|connection| match tuple.protocol {
            Protocol::Tcp => !(connection.is_over && connection.direction == Direction::Original),
            // With an identifier of 0 both directions of an echo look alike.
            Protocol::Icmp => connection.direction == Direction::Original,
            Protocol::Udp => true,
        });
        let is_tcp = tuple.protocol == Protocol::Tcp;
        Explanation {
            opening: (!takes_first).then(|| self.fate(tuple, true, now)),
            stray: (is_tcp && connection.is_none()).then(|| self.fate(tuple, false, now)),
            connection,
        }
    }

    /// What becomes of a packet that belongs to no connection, the first of one or a TCP segment
    /// from its middle.
    fn fate<A: Tabled>(&self, tuple: &Tuple<A>, is_first: bool, now: Moment) -> Fate {
        let (source, vip) = (tuple.source.into(), tuple.destination.into());
        let protocol = tuple.protocol;
        if !self.services.is_vip(vip) {
            let is_ours = match protocol {
                Protocol::Icmp if self.services.is_local(vip) => {
                    return Fate::Dropped(DropReason::IcmpType);
                }
                Protocol::Icmp => false,
                Protocol::Tcp | Protocol::Udp => {
                    let from = (source, tuple.source_port).into();
                    self.services.is_real_server(protocol, from) || self.services.is_local(vip)
                }
            };
            return if is_ours { Fate::Dropped(DropReason::NoConnection) } else { Fate::Passed };
        }
        let address = ServiceAddress { protocol, vip, port: tuple.destination_port };
        let Some(service) = self.services.find(&address) else {
            return self.fate_at_closed_port(source, protocol);
        };
        if !is_first {
            match service.on_stray() {
                OnStray::Reset => return answered(source, Reply::Reset),
                OnStray::Drop => return Fate::Dropped(DropReason::Stray),
                OnStray::Pickup => {}
            }
        }
        if !is_unicast(source) || self.services.is_vip(source) || self.services.is_local(source) {
            return Fate::Dropped(DropReason::SourceAddress);
        }
        if !self.connections.has_room::<A>() {
            return Fate::Dropped(DropReason::TableFull);
        }
        let request = service.next_request(request(tuple, now));
        Fate::Scheduled(Scheduling { service: Arc::clone(service), request })
    }

    fn fate_at_closed_port(&self, source: IpAddr, protocol: Protocol) -> Fate {
        match (protocol, self.config.closed_port) {
            (Protocol::Icmp, _) if self.config.answer_echo => answered(source, Reply::Echo),
            (Protocol::Icmp, _) => Fate::Dropped(DropReason::Echo),
            (_, ClosedPort::Drop) => Fate::Dropped(DropReason::ClosedPort),
            (Protocol::Tcp, ClosedPort::Reject) => answered(source, Reply::Reset),
            (Protocol::Udp, ClosedPort::Reject) => answered(source, Reply::PortUnreachable),
        }
    }

    /// Why a connection of this packet could not be placed at `server`, if it could not.
    #[must_use]
    pub fn obstacle(&self, question: &Question, server: &RealServer) -> Option<DropReason> {
        let real = server.address();
        // A pool gives another place for each.
        if server.terms().pool().is_some() {
            return None;
        }
        let reply = Question { protocol: question.protocol, from: real, to: question.from };
        let reply = match question.protocol {
            Protocol::Icmp => Question { from: (real.ip(), 0).into(), ..reply },
            Protocol::Tcp | Protocol::Udp => reply,
        };
        let holder_is_over = match (reply.from.ip(), reply.to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                self.is_over_at::<Ipv4Addr>(&tuple(&reply, from, to))
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                self.is_over_at::<Ipv6Addr>(&tuple(&reply, from, to))
            }
            _ => return Some(DropReason::NoServer),
        };
        (holder_is_over == Some(false)).then_some(DropReason::ReplyTupleTaken)
    }

    /// Whether the connection that has this tuple may make way; `None` without one.
    fn is_over_at<A: Tabled>(&self, tuple: &Tuple<A>) -> Option<bool> {
        A::table(&self.connections).look(tuple, |entry| entry.connection().is_over())
    }
}

impl Fate {
    /// What becomes of a first packet to `service` that no server can take.
    #[must_use]
    pub fn without_server(service: &Service, question: &Question) -> Self {
        let reply = match (service.on_no_server(), question.protocol) {
            (OnNoServer::Drop, _) => return Self::Dropped(DropReason::NoServer),
            (OnNoServer::Reset, Protocol::Tcp) => Reply::Reset,
            (OnNoServer::Reset | OnNoServer::Icmp, _) => Reply::PortUnreachable,
        };
        answered(question.from.ip(), reply)
    }
}

/// The answer, unless nobody can be reached at the source.
fn answered(source: IpAddr, reply: Reply) -> Fate {
    if is_unicast(source) {
        Fate::Answered(reply)
    } else {
        Fate::Dropped(DropReason::SourceAddress)
    }
}

fn tuple<A>(question: &Question, source: A, destination: A) -> Tuple<A> {
    let Question { protocol, from, to } = question;
    let (source_port, destination_port) = (from.port(), to.port());
    Tuple { source, destination, source_port, destination_port, protocol: *protocol }
}

fn known<A: Tabled>(connection: &Connection<A>, tuple: &Tuple<A>, now: Moment) -> KnownConnection {
    let original = connection.original();
    let end = |address: A, port| SocketAddr::new(address.into(), port);
    KnownConnection {
        client: end(original.source, original.source_port),
        virtual_address: end(original.destination, original.destination_port),
        local: connection.local().map(|local| end(local.address, local.port)),
        server: Arc::clone(connection.server()),
        direction: connection.direction(tuple),
        state: connection.state(),
        generation: connection.generation(),
        age_ms: now.millis_since(connection.opened()),
        expires_in_ms: connection.expires_in_ms(now),
        is_over: connection.is_over(),
    }
}
