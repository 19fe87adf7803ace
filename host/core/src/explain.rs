//! What would become of a packet: the director's decision without a packet, and without anything
//! changing.
//!
//! It says in order what `admission` would find. A property test holds the two against each other.

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
use crate::persistence::Template;
use crate::protocol::Protocol;
use crate::real_server::RealServer;
use crate::roster::{Member, Stage};
use crate::scheduler::{Pick, weighted_least_connections};
use crate::service::{OnNoServer, OnStray, Service, ServiceAddress};
use crate::services::Services;
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
    pub makes_way: bool,
    /// Whether its server was taken away from it: TCP is answered with a reset, and the client's next
    /// datagram is scheduled anew.
    pub is_forsaken: bool,
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
    /// It is a datagram of a server whose service opens no connections: the client gets it, from
    /// the virtual address.
    OnePacketReply,
    /// A server is chosen.
    Scheduled(Box<Scheduling>),
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

/// What the choice of a server would go by.
#[derive(Clone, Debug)]
pub struct Scheduling {
    /// The virtual service.
    pub service: Arc<Service>,
    /// Whether nothing but this one datagram goes to the server that is chosen.
    pub is_one_packet: bool,
    /// What is remembered of the client, if that counts: no scheduler is asked then.
    pub template: Option<Template>,
    /// Who serves.
    pub stage: Stage,
    /// The real servers in the order of the configuration, and how each stands.
    pub members: Vec<Member>,
    /// The sorry server.
    pub sorry: Option<Arc<RealServer>>,
    /// What the scheduler would be asked, if this were the next connection.
    pub request: Request,
    /// Servers with at most so much of their share, of 1024, would be spared for their slow start.
    pub(crate) spared_up_to: u32,
    /// The share of each member, of 1024.
    pub(crate) shares: Vec<u32>,
}

/// Who gets a new connection, and who says so.
#[derive(Clone, Debug)]
pub struct Choice {
    /// The server; `None` when nobody takes it.
    pub server: Option<Arc<RealServer>>,
    /// Who chose it.
    pub by: ChosenBy,
}

/// Who chooses a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChosenBy {
    /// The client was there before.
    Template,
    /// The scheduler.
    Scheduler,
    /// The director, for want of an answer of the scheduler's.
    Director,
    /// The director, to spare the scheduler's choice, which starts slowly.
    SlowStart,
    /// Nobody else is there.
    Sorry,
}

impl Scheduling {
    /// Whom the scheduler's answer comes to. It does not count where there is a template, or where the
    /// sorry server serves.
    #[must_use]
    pub fn choose(&self, pick: Pick) -> Choice {
        if let Some(template) = &self.template {
            return Choice { server: Some(Arc::clone(&template.server)), by: ChosenBy::Template };
        }
        let sorry = || Choice { server: self.sorry.clone(), by: ChosenBy::Sorry };
        if self.stage == Stage::Sorry {
            return sorry();
        }
        let servers: Vec<_> =
            self.members.iter().map(|member| Arc::clone(&member.server)).collect();
        let least_loaded = |other: Option<u32>| {
            let may = |server: &RealServer| other != Some(server.id());
            weighted_least_connections(&servers, may).and_then(|index| servers.get(index).cloned())
        };
        let index = match pick {
            Pick::Server(index) => Some(index),
            Pick::NoServer => return sorry(),
            Pick::Defer => None,
        };
        let picked = index.and_then(|index| servers.get(index)).filter(|it| it.weight() > 0);
        let Some(picked) = picked else {
            return match least_loaded(None) {
                Some(server) => Choice { server: Some(server), by: ChosenBy::Director },
                None => sorry(),
            };
        };
        let share = index.and_then(|index| self.shares.get(index)).copied().unwrap_or(u32::MAX);
        if share <= self.spared_up_to
            && let Some(other) = least_loaded(Some(picked.id()))
        {
            return Choice { server: Some(other), by: ChosenBy::SlowStart };
        }
        Choice { server: Some(Arc::clone(picked)), by: ChosenBy::Scheduler }
    }
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
            Protocol::Tcp => !(connection.makes_way && connection.direction == Direction::Original),
            // With an identifier of 0 both directions of an echo look alike.
            Protocol::Icmp => {
                connection.direction == Direction::Original && !connection.is_forsaken
            }
            Protocol::Udp => connection.direction == Direction::Reply || !connection.is_forsaken,
        });
        let services = &self.services();
        let is_tcp = tuple.protocol == Protocol::Tcp;
        Explanation {
            opening: (!takes_first).then(|| self.fate(services, tuple, true, now)),
            stray: (is_tcp && connection.is_none()).then(|| self.fate(services, tuple, false, now)),
            connection,
        }
    }

    /// What becomes of a packet that belongs to no connection, the first of one or a TCP segment
    /// from its middle.
    fn fate<A: Tabled>(
        &self,
        services: &Services,
        tuple: &Tuple<A>,
        is_first: bool,
        now: Moment,
    ) -> Fate {
        let (source, vip) = (tuple.source.into(), tuple.destination.into());
        let protocol = tuple.protocol;
        if !services.is_vip(vip) {
            let is_ours = match protocol {
                Protocol::Icmp if services.is_local(vip) => {
                    return Fate::Dropped(DropReason::IcmpType);
                }
                Protocol::Icmp => false,
                Protocol::Tcp | Protocol::Udp => {
                    let from: SocketAddr = (source, tuple.source_port).into();
                    // A datagram of a server whose service opens no connections.
                    if protocol == Protocol::Udp && services.one_packet(from).is_some() {
                        return Fate::OnePacketReply;
                    }
                    services.is_real_server(protocol, from) || services.is_local(vip)
                }
            };
            return if is_ours { Fate::Dropped(DropReason::NoConnection) } else { Fate::Passed };
        }
        let address = ServiceAddress { protocol, vip, port: tuple.destination_port };
        let Some(service) = services.find(&address) else {
            return self.fate_at_closed_port(source, protocol);
        };
        if !is_first {
            match service.settings().on_stray {
                OnStray::Reset => return answered(source, Reply::Reset),
                OnStray::Drop => return Fate::Dropped(DropReason::Stray),
                OnStray::Pickup => {}
            }
        }
        if !is_unicast(source) || services.is_vip(source) || services.is_local(source) {
            return Fate::Dropped(DropReason::SourceAddress);
        }
        if !service.settings().is_one_packet && !self.connections.could_make_room::<A>() {
            return Fate::Dropped(DropReason::TableFull);
        }
        Fate::Scheduled(Box::new(service.prospect(source, request(tuple, now), now)))
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
        let real = match server.address() {
            any_port if any_port.port() == 0 => (any_port.ip(), question.to.port()).into(),
            real => real,
        };
        // A pool gives another place for each.
        if server.terms().pool().is_some() {
            return None;
        }
        let reply = Question { protocol: question.protocol, from: real, to: question.from };
        let reply = match question.protocol {
            Protocol::Icmp => Question { from: (real.ip(), 0).into(), ..reply },
            Protocol::Tcp | Protocol::Udp => reply,
        };
        let makes_way = match (reply.from.ip(), reply.to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                self.makes_way_at::<Ipv4Addr>(&tuple(&reply, from, to))
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                self.makes_way_at::<Ipv6Addr>(&tuple(&reply, from, to))
            }
            _ => return Some(DropReason::NoServer),
        };
        (makes_way == Some(false)).then_some(DropReason::ReplyTupleTaken)
    }

    /// Whether the connection that has this tuple may make way; `None` without one.
    fn makes_way_at<A: Tabled>(&self, tuple: &Tuple<A>) -> Option<bool> {
        A::table(&self.connections).look(tuple, |entry| entry.connection().makes_way())
    }
}

impl Fate {
    /// What becomes of a first packet to `service` that no server can take.
    #[must_use]
    pub fn without_server(service: &Service, question: &Question) -> Self {
        let reply = match (service.settings().on_no_server, question.protocol) {
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
        makes_way: connection.makes_way(),
        is_forsaken: connection.is_forsaken(),
    }
}
