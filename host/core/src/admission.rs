//! Admission: what becomes of a packet that belongs to no connection.
//!
//! Where a host with IPVS hands such a packet to its local stack, a director on a TUN has none and
//! answers itself; see [`Answer`].

use std::sync::Arc;

use wvs_abi::{Request, encode_address};

use crate::answer::{Answer, is_unicast};
use crate::connection::Connection;
use crate::connection::table::{Entry, Refusal, Tabled};
use crate::connection::tuple::{Direction, Endpoint, Tuple};
use crate::director::{ClosedPort, Decision, Director, Incoming, pass_unless_vip};
use crate::packet::address::Address;
use crate::packet::{Transport, tcp};
use crate::pool::{Local, Pool};
use crate::protocol::Protocol;
use crate::real_server::RealServer;
use crate::rewrite::Rewrite;
use crate::service::{OnNoServer, OnStray, Placement, Service, ServiceAddress};
use crate::services::Services;
use crate::time::Moment;
use crate::verdict::DropReason;

/// What comes of a packet that belongs to no connection.
pub(crate) enum Opened<A: Address> {
    Connection(Arc<Connection<A>>),
    /// It belongs to no connection and opens none, but it is of or for this server.
    Datagram(Arc<RealServer>, Direction, Rewrite<A>),
    Decision(Decision),
}

impl Director {
    /// Opens a connection for a packet that belongs to none, if it may open one; otherwise says what
    /// becomes of it.
    pub(crate) fn open<A: Tabled>(
        &self,
        services: &Services,
        incoming: &Incoming<'_, A>,
        now: Moment,
    ) -> Result<Opened<A>, DropReason> {
        let Incoming { tuple, transport, .. } = incoming;
        let vip = tuple.destination.into();
        let port = tuple.destination_port;
        let may_open = match transport {
            Transport::Echo(echo) => echo.is_request(),
            _ => true,
        };
        if !services.is_vip(vip) || !may_open {
            let source = (tuple.source.into(), tuple.source_port).into();
            return match tuple.protocol {
                // A late echo reply would show the client its real server, as any late reply would.
                Protocol::Icmp if !may_open && services.is_real_server(Protocol::Icmp, source) => {
                    Err(DropReason::NoConnection)
                }
                Protocol::Icmp => {
                    pass_unless_vip(services, tuple.destination, DropReason::IcmpType)
                        .map(Opened::Decision)
                }
                Protocol::Tcp | Protocol::Udp => {
                    if let Some((server, rewrite)) = answer_of_one_packet(services, tuple) {
                        if let Some(Endpoint { address, .. }) = rewrite.source
                            && incoming.may_travel_no_further()
                        {
                            let exceeded = Answer::TimeExceeded(address.into());
                            return Ok(Opened::Decision(Decision::Answer(exceeded)));
                        }
                        return Ok(Opened::Datagram(server, Direction::Reply, rewrite));
                    }
                    // Only a real server's own could show its address to a client.
                    let is_ours =
                        services.is_real_server(tuple.protocol, source) || services.is_local(vip);
                    if is_ours {
                        Err(DropReason::NoConnection)
                    } else {
                        Ok(Opened::Decision(Decision::Pass))
                    }
                }
            };
        }
        let address = ServiceAddress { protocol: tuple.protocol, vip, port };
        let Some(service) = services.find(&address) else {
            return self.refuse_closed_port(transport).map(Opened::Decision);
        };
        if let Transport::Tcp(segment) = transport
            && !segment.is_opening()
        {
            match service.settings().on_stray {
                _ if segment.flags() & tcp::RST != 0 => return Err(DropReason::Stray),
                OnStray::Reset => return Ok(Opened::Decision(Decision::Answer(Answer::Reset))),
                OnStray::Drop => return Err(DropReason::Stray),
                OnStray::Pickup => {}
            }
        }
        let source = tuple.source.into();
        if !is_unicast(source) || services.is_vip(source) || services.is_local(source) {
            return Err(DropReason::SourceAddress);
        }
        if incoming.may_travel_no_further() {
            return Ok(Opened::Decision(Decision::Answer(Answer::TimeExceeded(vip))));
        }
        let is_one_packet = service.settings().is_one_packet;
        if !is_one_packet && !self.connections.make_room::<A>() {
            return Err(DropReason::TableFull);
        }
        let Some(placement) = service.place(source, request(tuple, now), now) else {
            return refuse_for_lack(service, transport, DropReason::NoServer).map(Opened::Decision);
        };
        let Placement { server, generation, .. } = placement;
        if is_one_packet {
            let destination = server.real_for(port).ok_or(DropReason::NoServer)?;
            let rewrite = Rewrite { source: None, destination: Some(destination) };
            server.traffic().count_connection();
            server.terms().templates.renew(source, &server, now);
            return Ok(Opened::Datagram(server, Direction::Original, rewrite));
        }
        match self.connect(tuple, &server, generation, now) {
            // As clear to the client as having no server: with another one it might have worked.
            Err(DropReason::PoolExhausted) => {
                refuse_for_lack(service, transport, DropReason::PoolExhausted).map(Opened::Decision)
            }
            Ok(connection) => Ok(Opened::Connection(connection)),
            Err(reason) => Err(reason),
        }
    }

    /// Puts a new connection of `tuple` to `server` into the table.
    fn connect<A: Tabled>(
        &self,
        tuple: &Tuple<A>,
        server: &Arc<RealServer>,
        generation: u16,
        now: Moment,
    ) -> Result<Arc<Connection<A>>, DropReason> {
        let open = |local| Connection::open(*tuple, Arc::clone(server), generation, local, now);
        let Some(pool) = server.terms().pool() else {
            return match self.insert(None, open)? {
                Ok(connection) => Ok(connection),
                Err(Refusal::Full) => Err(DropReason::TableFull),
                Err(Refusal::ReplyTaken) => Err(DropReason::ReplyTupleTaken),
            };
        };
        let real = server.real_for::<A>(tuple.destination_port).ok_or(DropReason::NoServer)?;
        let table = A::table(&self.connections);
        let taken = usize::try_from(server.connections()).unwrap_or(usize::MAX);
        let is_full = taken >= pool.places();
        // Turns come round to the places that were given out first, so that this is an old one.
        let mut half_open = None;
        for _ in 0..if is_full { Pool::TRIES_FULL } else { Pool::TRIES } {
            let Some(local) = pool.place(server.take_turn()) else { break };
            let Some(seen_as) = pool.endpoint::<A>(local) else { break };
            let reply = Tuple {
                source: real.address,
                destination: seen_as.address,
                source_port: real.port,
                destination_port: seen_as.port,
                protocol: tuple.protocol,
            };
            match table.look(&reply, |entry| entry.connection().is_half_open()) {
                Some(true) if is_full => {
                    half_open = Some((local, reply));
                    break;
                }
                Some(true) => _ = half_open.get_or_insert((local, reply)),
                Some(false) => {}
                None => match self.insert(Some(local), open)? {
                    Ok(connection) => return Ok(connection),
                    Err(Refusal::Full) => return Err(DropReason::TableFull),
                    Err(Refusal::ReplyTaken) => {}
                },
            }
        }
        // As in a full table: a flood of SYNs must not keep the places from everybody else.
        if let Some((local, reply)) = half_open
            && let Some(holder) = table.find(&reply)
            && self.connections.evict(&holder)
            && let Ok(connection) = self.insert(Some(local), open)?
        {
            return Ok(connection);
        }
        pool.count_exhausted();
        Err(DropReason::PoolExhausted)
    }

    /// As [`connect`](Self::connect) with this place in the pool; `open` makes the connection.
    fn insert<A: Tabled>(
        &self,
        local: Option<Local>,
        open: impl Fn(Option<Local>) -> Option<Connection<A>>,
    ) -> Result<Result<Arc<Connection<A>>, Refusal>, DropReason> {
        let connect = || open(local).ok_or(DropReason::NoServer);
        let connection = connect()?;
        let reply = connection.reply();
        Ok(match self.connections.insert(connection) {
            // The client used this port for another service on the same server. If that is over,
            // this one may have the tuple. A place in a pool rests until it has expired.
            Err(Refusal::ReplyTaken) if local.is_none() && self.makes_way(&reply) => {
                self.connections.replace(&reply);
                self.connections.insert(connect()?)
            }
            placed => placed,
        })
    }

    /// Whether the connection that has `tuple` may make way for another one.
    fn makes_way<A: Tabled>(&self, tuple: &Tuple<A>) -> bool {
        let look = |entry: &Entry<A>| entry.connection().makes_way();
        A::table(&self.connections).look(tuple, look) == Some(true)
    }

    /// To a virtual address, but to no service.
    fn refuse_closed_port(&self, transport: &Transport<'_>) -> Result<Decision, DropReason> {
        match (transport, self.config.closed_port) {
            (Transport::Echo(_), _) if self.config.answer_echo => {
                Ok(Decision::Answer(Answer::Echo))
            }
            (Transport::Echo(_), _) => Err(DropReason::Echo),
            // A reset is never answered by another one (RFC 9293 section 3.5.2).
            (Transport::Tcp(segment), _) if segment.flags() & tcp::RST != 0 => {
                Err(DropReason::ClosedPort)
            }
            (Transport::Tcp(_), ClosedPort::Reject) => Ok(Decision::Answer(Answer::Reset)),
            (_, ClosedPort::Reject) => Ok(Decision::Answer(Answer::PortUnreachable)),
            (_, ClosedPort::Drop) => Err(DropReason::ClosedPort),
        }
    }
}

/// The server and what becomes of its datagram, if it is of a service that opens no connections.
pub(crate) fn answer_of_one_packet<A: Address>(
    services: &Services,
    tuple: &Tuple<A>,
) -> Option<(Arc<RealServer>, Rewrite<A>)> {
    let client = tuple.destination.into();
    if tuple.protocol != Protocol::Udp || services.is_vip(client) || services.is_local(client) {
        return None;
    }
    let source = (tuple.source.into(), tuple.source_port).into();
    let (server, seen_as) = services.one_packet(source)?;
    let address = A::from_ip(seen_as.ip())?;
    let port = if seen_as.port() == 0 { tuple.source_port } else { seen_as.port() };
    let source = Some(Endpoint { address, port });
    Some((Arc::clone(server), Rewrite { source, destination: None }))
}

/// What the scheduler is told of a first packet.
pub(crate) fn request<A: Address>(tuple: &Tuple<A>, now: Moment) -> Request {
    Request {
        family: if A::IS_IPV6 { 6 } else { 4 },
        protocol: tuple.protocol.number(A::IS_IPV6),
        client_port: tuple.source_port,
        virtual_port: tuple.destination_port,
        client_address: encode_address(tuple.source.into()),
        virtual_address: encode_address(tuple.destination.into()),
        now_ms: now.as_millis(),
        ..Request::default()
    }
}

/// Refuses a connection that nobody can take, as the service is told to.
fn refuse_for_lack(
    service: &Service,
    transport: &Transport<'_>,
    reason: DropReason,
) -> Result<Decision, DropReason> {
    match (service.settings().on_no_server, transport) {
        (OnNoServer::Drop, _) => Err(reason),
        (OnNoServer::Reset, Transport::Tcp(_)) => Ok(Decision::Answer(Answer::Reset)),
        (OnNoServer::Reset | OnNoServer::Icmp, _) => Ok(Decision::Answer(Answer::PortUnreachable)),
    }
}
