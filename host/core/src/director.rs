//! The packet's way through the director.

use std::sync::Arc;

use wvs_abi::{Request, encode_address};

use crate::answer::{Answer, AnswerFamily, RateLimit, is_unicast};
use crate::connection::Connection;
use crate::connection::table::{Refusal, TableCounters, Tables};
use crate::connection::tcp_state;
use crate::connection::tuple::{Direction, Tuple};
use crate::packet::address::{Address, IpHeader};
use crate::packet::{Ip, Packet, Transport, icmp, tcp};
use crate::rewrite::{quoted_tuple, translate, translate_error};
use crate::service::{OnNoServer, OnStray, Protocol, Service, ServiceAddress, Services};
use crate::stats::VerdictCounters;
use crate::time::Moment;
use crate::verdict::{DropReason, Verdict};

/// What happens to a packet to a port of a virtual address that no service has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClosedPort {
    /// TCP: a reset; anything else: ICMP port unreachable.
    #[default]
    Reject,
    /// Nothing.
    Drop,
}

/// A director's settings.
#[derive(Clone, Debug)]
pub struct DirectorConfig {
    /// Connections at once, both families together; the next one is refused.
    pub connections_max: usize,
    /// Answers of the director's own (resets, ICMP errors, echo replies) a second.
    pub replies_per_second: u32,
    /// Whether echo requests to a virtual address that has no ICMP service are answered.
    pub answer_echo: bool,
    /// See [`ClosedPort`].
    pub closed_port: ClosedPort,
    /// Seed of the connection table's hash: random when run, fixed in tests.
    pub hash_seed: u64,
}

/// A director: virtual services, connections and counters. Shared by reference between threads.
#[derive(Debug)]
pub struct Director {
    config: DirectorConfig,
    services: Services,
    connections: Tables,
    replies: RateLimit,
    verdicts: VerdictCounters,
}

/// What is decided while the packet is taken apart.
enum Decision {
    Forward,
    Pass,
    Answer(Answer),
}

/// What comes of a packet that belongs to no connection.
enum Opened<A: Address> {
    Connection(Arc<Connection<A>>),
    Decision(Decision),
}

impl Director {
    /// Milliseconds between two calls of [`Self::sweep`].
    pub const SWEEP_INTERVAL_MILLIS: u64 = 100;

    /// A director without connections.
    #[must_use]
    pub fn new(config: DirectorConfig, services: Services) -> Self {
        let connections = Tables::new(config.connections_max, config.hash_seed);
        let replies = RateLimit::new(config.replies_per_second);
        Self { config, services, connections, replies, verdicts: VerdictCounters::default() }
    }

    /// Decides on one packet and rewrites it in place; then it is sent, or not, as the verdict says.
    ///
    /// Never fails and never waits, whatever the octets. A packet of an established connection
    /// costs one look into the table and meets no scheduler, no allocation and no lock that is held
    /// across calls.
    #[inline]
    pub fn process(&self, packet: &mut Packet<'_>, now: Moment) -> Verdict {
        let verdict = match packet.version() {
            Some(4) => self.process_family::<core::net::Ipv4Addr>(packet, now),
            Some(6) => self.process_family::<core::net::Ipv6Addr>(packet, now),
            _ => Verdict::Drop(DropReason::NotIp),
        };
        self.verdicts.count(verdict);
        verdict
    }

    #[inline]
    fn process_family<A: AnswerFamily>(&self, packet: &mut Packet<'_>, now: Moment) -> Verdict {
        match self.decide::<A>(packet.octets_mut(), now) {
            Ok(Decision::Forward) => Verdict::Forward,
            Ok(Decision::Pass) => Verdict::Pass,
            Ok(Decision::Answer(answer)) if !self.replies.allows(now) => {
                let _ = answer;
                Verdict::Drop(DropReason::ReplyLimit)
            }
            Ok(Decision::Answer(answer)) => match answer.put::<A>(packet) {
                Some(()) => Verdict::Reply,
                None => Verdict::Drop(DropReason::SourceAddress),
            },
            Err(reason) => Verdict::Drop(reason),
        }
    }

    /// The packet's way: parse, find or open the connection, state, rewrite.
    #[inline]
    fn decide<A: Address>(&self, octets: &mut [u8], now: Moment) -> Result<Decision, DropReason> {
        let Ip { mut header, protocol, payload, length } = A::parse(octets)?;
        let mut transport = match Transport::parse::<A>(protocol, payload)? {
            Transport::IcmpError(message) => return self.forward_error::<A>(header, message),
            transport => transport,
        };
        let Some((protocol, source_port, destination_port)) = transport.ports() else {
            return self.pass_unless_vip(header.destination(), DropReason::IcmpType);
        };
        let (source, destination) = (header.source(), header.destination());
        let tuple = Tuple { source, destination, source_port, destination_port, protocol };

        let connection = match self.find(&tuple, &transport) {
            Some(connection) => connection,
            None => match self.open(&tuple, &transport, now)? {
                Opened::Connection(connection) => connection,
                Opened::Decision(decision) => return Ok(decision),
            },
        };
        if header.hop_limit() <= 1 {
            // The kernel would say so about the translated packet, which its sender does not know.
            let vip = connection.original().destination.into();
            return Ok(Decision::Answer(Answer::TimeExceeded(vip)));
        }

        let direction = connection.direction(&tuple);
        if let Transport::Tcp(segment) = &transport {
            let flags = segment.flags();
            connection.advance(|state| tcp_state::next(state, direction, flags));
        }
        connection.touch(now);
        let traffic = connection.server().traffic();
        match direction {
            Direction::Original => traffic.count_in(length),
            Direction::Reply => traffic.count_out(length),
        }
        translate(&mut header, &mut transport, &connection, direction);
        Ok(Decision::Forward)
    }

    /// The connection that a packet belongs to. A SYN from a client whose last connection with this
    /// tuple is over belongs to none: the old one makes way, and the SYN is scheduled without loss.
    #[inline]
    fn find<A: Address>(
        &self,
        tuple: &Tuple<A>,
        transport: &Transport<'_>,
    ) -> Option<Arc<Connection<A>>> {
        let connection = A::table(&self.connections).find(tuple)?;
        if let Transport::Tcp(segment) = transport
            && segment.is_opening()
            && connection.state().is_none_or(|state| state.is_reusable())
            && connection.direction(tuple) == Direction::Original
        {
            self.connections.replace(&connection);
            return None;
        }
        Some(connection)
    }

    /// Opens a connection for a packet that belongs to none, if it may open one; otherwise says what
    /// becomes of it.
    fn open<A: Address>(
        &self,
        tuple: &Tuple<A>,
        transport: &Transport<'_>,
        now: Moment,
    ) -> Result<Opened<A>, DropReason> {
        let vip = tuple.destination.into();
        let port = tuple.destination_port;
        let may_open = match transport {
            Transport::Echo(echo) => echo.is_request(),
            _ => true,
        };
        if !self.services.is_vip(vip) || !may_open {
            return match tuple.protocol {
                Protocol::Icmp => self
                    .pass_unless_vip(tuple.destination, DropReason::IcmpType)
                    .map(Opened::Decision),
                Protocol::Tcp | Protocol::Udp => Err(DropReason::NoConnection),
            };
        }
        let address = ServiceAddress { protocol: tuple.protocol, vip, port };
        let Some(service) = self.services.find(&address) else {
            return self.refuse_closed_port(transport).map(Opened::Decision);
        };
        if let Transport::Tcp(segment) = transport
            && !segment.is_opening()
        {
            match service.on_stray() {
                _ if segment.flags() & tcp::RST != 0 => return Err(DropReason::Stray),
                OnStray::Reset => return Ok(Opened::Decision(Decision::Answer(Answer::Reset))),
                OnStray::Drop => return Err(DropReason::Stray),
                OnStray::Pickup => {}
            }
        }
        if !is_unicast(tuple.source.into()) || self.services.is_vip(tuple.source.into()) {
            return Err(DropReason::SourceAddress);
        }
        if self.connections.is_full() {
            return Err(DropReason::TableFull);
        }
        let Some(server) = service.pick(request(tuple, now)) else {
            return refuse_for_lack_of_servers(service, transport).map(Opened::Decision);
        };
        let open = || Connection::open(*tuple, Arc::clone(service), Arc::clone(server), now);
        let connection = open().ok_or(DropReason::NoServer)?;
        let reply = *connection.reply();
        match self.connections.insert(connection) {
            Ok(connection) => return Ok(Opened::Connection(connection)),
            Err(Refusal::Full) => return Err(DropReason::TableFull),
            Err(Refusal::ReplyTaken) => {}
        }
        // The client used this port for another service on the same server. If that is over, this
        // one may have the tuple.
        let holder = A::table(&self.connections).find(&reply);
        if let Some(holder) =
            holder.filter(|holder| holder.state().is_some_and(|s| s.is_reusable()))
        {
            self.connections.replace(&holder);
        }
        match open().map(|connection| self.connections.insert(connection)) {
            Some(Ok(connection)) => Ok(Opened::Connection(connection)),
            Some(Err(Refusal::Full)) => Err(DropReason::TableFull),
            Some(Err(Refusal::ReplyTaken)) | None => Err(DropReason::ReplyTupleTaken),
        }
    }

    /// An ICMP error about a packet that was translated goes to whoever sent that packet. It opens
    /// no connection and keeps none alive.
    fn forward_error<A: Address>(
        &self,
        mut header: A::Header<'_>,
        message: &mut [u8],
    ) -> Result<Decision, DropReason> {
        let (source, destination) = (header.source(), header.destination());
        let Ok(quoted) = quoted_tuple::<A>(message) else {
            return self.pass_unless_vip(destination, DropReason::IcmpQuote);
        };
        // The way of the error is that of an answer to the quoted packet.
        let tuple = quoted.inverted();
        let found = A::table(&self.connections).find(&tuple);
        let Some(connection) = found.filter(|_| quoted.source == destination) else {
            return self.pass_unless_vip(destination, DropReason::IcmpQuote);
        };
        if !icmp::sum(source, destination, message).is_intact() {
            return Err(DropReason::IcmpChecksum);
        }
        let direction = connection.direction(&tuple);
        translate_error::<A>(&mut header, message, &connection, direction)?;
        Ok(Decision::Forward)
    }

    /// ICMP that concerns no connection is somebody else's, unless it is for a virtual address.
    fn pass_unless_vip<A: Address>(
        &self,
        destination: A,
        reason: DropReason,
    ) -> Result<Decision, DropReason> {
        if self.services.is_vip(destination.into()) { Err(reason) } else { Ok(Decision::Pass) }
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

    /// Removes expired connections, visiting a bounded part of the table; the next call goes on
    /// where this one ended. To be called about every [`Self::SWEEP_INTERVAL_MILLIS`]. Returns how
    /// many connections expired. Packets do not wait for it.
    pub fn sweep(&self, now: Moment) -> usize {
        self.connections.sweep(now)
    }

    /// Connections at this moment.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.live()
    }

    /// The connection tables, for listings.
    #[must_use]
    pub fn tables(&self) -> &Tables {
        &self.connections
    }

    /// Its settings.
    #[must_use]
    pub fn config(&self) -> &DirectorConfig {
        &self.config
    }

    /// Its virtual services.
    #[must_use]
    pub fn services(&self) -> &Services {
        &self.services
    }

    /// What became of the packets.
    #[must_use]
    pub fn verdicts(&self) -> &VerdictCounters {
        &self.verdicts
    }

    /// How the connection table fared.
    #[must_use]
    pub fn table(&self) -> &TableCounters {
        self.connections.counters()
    }
}

/// What the scheduler is told of a first packet.
fn request<A: Address>(tuple: &Tuple<A>, now: Moment) -> Request {
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

fn refuse_for_lack_of_servers(
    service: &Service,
    transport: &Transport<'_>,
) -> Result<Decision, DropReason> {
    match (service.on_no_server(), transport) {
        (OnNoServer::Drop, _) => Err(DropReason::NoServer),
        (OnNoServer::Reset, Transport::Tcp(_)) => Ok(Decision::Answer(Answer::Reset)),
        (OnNoServer::Reset | OnNoServer::Icmp, _) => Ok(Decision::Answer(Answer::PortUnreachable)),
    }
}
