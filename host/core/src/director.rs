//! The packet's way through the director.

use core::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};

use crate::admission::{Opened, answer_of_one_packet};
use crate::answer::{Answer, AnswerFamily, RateLimit};
use crate::connection::state::State;
use crate::connection::table::{Entry, TableCounters, TableLimits, Tabled, Tables};
use crate::connection::tcp_state::{self, Event};
use crate::connection::tuple::{Direction, Tuple};
use crate::connection::{Advance, Connection, Tick};
use crate::event::EventKind;
use crate::packet::address::{Address, IpHeader};
use crate::packet::{Extent, Ip, Packet, Transport, TransportChecksum, icmp, tcp};
use crate::real_server::RealServer;
use crate::rewrite::{Quote, Rewrite, quote, translate, translate_error};
use crate::services::Services;
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
    /// How many connections there may be.
    pub limits: TableLimits,
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
    pub(crate) config: DirectorConfig,
    services: ArcSwap<Services>,
    pub(crate) connections: Tables,
    replies: RateLimit,
    verdicts: VerdictCounters,
}

/// A packet taken apart.
pub(crate) struct Incoming<'a, A: Address> {
    pub(crate) tuple: Tuple<A>,
    header: A::Header<'a>,
    pub(crate) transport: Transport<'a>,
    checksum: TransportChecksum,
    /// Octets of the whole packet.
    length: usize,
}

/// What comes of a packet whose tuple a connection has.
enum Followed<A> {
    Decided(Decision),
    /// The same, and this tuple of the connection must forget that its packets have nothing to tell.
    Changed(Decision, Tuple<A>),
    /// The connection is over and the packet begins a new one.
    Over,
    /// An echo message that goes the wrong way: with an identifier of 0 both tuples look alike.
    Foreign,
}

/// What is decided while the packet is taken apart.
pub(crate) enum Decision {
    Forward,
    Pass,
    Hold,
    Answer(Answer),
}

impl Director {
    /// Milliseconds between two calls of [`Self::sweep`].
    pub const SWEEP_INTERVAL_MILLIS: u64 = 100;

    /// A director without connections.
    #[must_use]
    pub fn new(config: DirectorConfig, services: Services) -> Self {
        let connections = Tables::new(config.limits, config.hash_seed);
        let replies = RateLimit::new(config.replies_per_second);
        let services = ArcSwap::from_pointee(services);
        Self { config, services, connections, replies, verdicts: VerdictCounters::default() }
    }

    /// Decides on one packet and rewrites it in place; then it is sent, or not, as the verdict says.
    /// The way itself is in `decide`, below.
    ///
    /// Never fails and never waits, whatever the octets. A packet of an established connection
    /// costs one look into the table and meets no scheduler, no allocation and no lock that is held
    /// across calls.
    #[inline]
    pub fn process(&self, packet: &mut Packet<'_>, now: Moment) -> Verdict {
        let verdict = match packet.version() {
            Some(4) => self.process_family::<Ipv4Addr>(packet, now),
            Some(6) => self.process_family::<Ipv6Addr>(packet, now),
            _ => Verdict::Drop(DropReason::NotIp),
        };
        self.verdicts.count(verdict);
        verdict
    }

    #[inline]
    fn process_family<A: AnswerFamily + Tabled>(
        &self,
        packet: &mut Packet<'_>,
        now: Moment,
    ) -> Verdict {
        let checksum = packet.checksum();
        let services = self.services.load();
        match self.decide::<A>(&services, packet.octets_mut(), checksum, now) {
            Ok(Decision::Forward) => Verdict::Forward,
            Ok(Decision::Pass) => Verdict::Pass,
            Ok(Decision::Hold) => Verdict::Hold,
            Ok(Decision::Answer(answer)) => match answer.put::<A>(packet) {
                Ok(()) if self.replies.allows(now) => Verdict::Reply,
                Ok(()) => Verdict::Drop(DropReason::ReplyLimit),
                Err(reason) => Verdict::Drop(reason),
            },
            Err(reason) => Verdict::Drop(reason),
        }
    }

    /// The packet's way: parse, connection look-up, and on a hit TCP state and rewrite. On a miss a
    /// scheduler may be asked for a new connection, with which the packet then goes the same way.
    #[inline]
    fn decide<A: Tabled>(
        &self,
        services: &Services,
        octets: &mut [u8],
        checksum: TransportChecksum,
        now: Moment,
    ) -> Result<Decision, DropReason> {
        let fragment = match A::parse(octets)? {
            Ip { fragment: Some(fragment), .. } => fragment,
            whole => {
                return self.decide_whole::<A>(services, whole, Extent::Whole, checksum, now);
            }
        };
        self.decide_fragment::<A>(services, octets, fragment, now)
    }

    /// The same from the IP header on.
    #[inline]
    pub(crate) fn decide_whole<A: Tabled>(
        &self,
        services: &Services,
        ip: Ip<'_, A>,
        extent: Extent,
        checksum: TransportChecksum,
        now: Moment,
    ) -> Result<Decision, DropReason> {
        let Ip { header, protocol, payload, length, .. } = ip;
        let transport = match Transport::parse::<A>(protocol, payload, extent)? {
            Transport::IcmpError(message) => {
                return self.forward_error::<A>(services, header, message, length);
            }
            transport => transport,
        };
        let (source, destination) = (header.source(), header.destination());
        let Some((protocol, source_port, destination_port)) = transport.ports() else {
            return pass_unless_vip(services, destination, DropReason::IcmpType);
        };
        let tuple = Tuple { source, destination, source_port, destination_port, protocol };
        let mut incoming = Incoming { tuple, header, transport, checksum, length };

        let table = A::table(&self.connections);
        match table.look(&tuple, |entry| incoming.follow(services, entry, self, now)) {
            Some(Followed::Decided(decision)) => return Ok(decision),
            Some(Followed::Changed(decision, other)) => {
                _ = table.look(&other, Entry::forget);
                return Ok(decision);
            }
            Some(Followed::Over) => self.connections.replace(&tuple),
            Some(Followed::Foreign) | None => {}
        }
        match self.open(services, &incoming, now)? {
            Opened::Connection(connection) => {
                let direction = Direction::Original;
                incoming.advance(&connection, direction, self, now);
                if connection.is_half_open() {
                    self.connections.limit_half_open(&connection);
                }
                Ok(incoming.forward(connection.server(), direction, &connection.rewrite(direction)))
            }
            Opened::Datagram(server, direction, rewrite) => {
                Ok(incoming.forward(&server, direction, &rewrite))
            }
            Opened::Decision(decision) => Ok(decision),
        }
    }

    /// An ICMP error about a packet that was translated goes to whoever sent that packet. It opens
    /// no connection and keeps none alive.
    fn forward_error<A: Tabled>(
        &self,
        services: &Services,
        mut header: A::Header<'_>,
        message: &mut [u8],
        length: usize,
    ) -> Result<Decision, DropReason> {
        let (source, destination) = (header.source(), header.destination());
        let quote = quote::<A>(message);
        let Quote::Packet(quoted) = quote else {
            return pass_unless_ours(services, source, destination, quote);
        };
        // The way of the error is that of an answer to the quoted packet.
        let tuple = quoted.inverted();
        let of_connection = |connection: Arc<Connection<A>>| {
            let direction = connection.direction(&tuple);
            (Arc::clone(connection.server()), direction, connection.rewrite(direction))
        };
        let of_datagram = || {
            let (server, rewrite) = answer_of_one_packet(services, &tuple)?;
            Some((server, Direction::Reply, rewrite))
        };
        let found = A::table(&self.connections).find(&tuple).map(of_connection);
        let found = found.or_else(of_datagram).filter(|_| quoted.source == destination);
        let Some((server, direction, rewrite)) = found else {
            return pass_unless_ours(services, source, destination, quote);
        };
        if !icmp::sum(source, destination, message).is_intact() {
            return Err(DropReason::IcmpChecksum);
        }
        server.traffic().count(direction, length);
        translate_error::<A>(&mut header, message, &rewrite)?;
        Ok(Decision::Forward)
    }

    /// Removes expired connections, visiting a bounded part of the table; the next call goes on
    /// where this one ended. To be called about every [`Self::SWEEP_INTERVAL_MILLIS`]. Returns how
    /// many connections expired. Packets do not wait for it.
    pub fn sweep(&self, now: Moment) -> usize {
        self.connections.sweep(now)
    }

    /// Forgets every connection, when no packet comes any more. Each end is told to the log of the
    /// connections.
    pub fn end_all(&self) {
        self.connections.remove_all();
    }

    /// Connections at this moment.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.live()
    }

    /// Half-open TCP connections at this moment.
    #[must_use]
    pub fn half_open(&self) -> usize {
        self.connections.half_open()
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

    /// Its virtual services at this moment.
    #[must_use]
    pub fn services(&self) -> Guard<Arc<Services>> {
        self.services.load()
    }

    /// Puts other services in place of the present ones, between two packets of each thread.
    /// Connections stay with the servers that they have, whether those are among `services` or not.
    ///
    /// The answer is what was in place before, which a packet under way may still use: whoever drops
    /// the last of it does all the freeing, so keep it until it is the only one.
    pub fn set_services(&self, services: Services) -> Arc<Services> {
        self.services.swap(Arc::new(services))
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

/// An ICMP error that is about no connection is somebody else's, unless a client would see a real
/// server in it.
fn pass_unless_ours<A: Address>(
    services: &Services,
    source: A,
    destination: A,
    quote: Quote<A>,
) -> Result<Decision, DropReason> {
    let is_ours = match quote {
        Quote::Packet(quoted) => {
            let to = (quoted.destination.into(), quoted.destination_port);
            services.is_real_server(quoted.protocol, to.into())
        }
        Quote::To(quoted) => services.is_rip(quoted.into()),
        Quote::Nothing => services.is_rip(source.into()),
    };
    if is_ours {
        return Err(DropReason::IcmpQuote);
    }
    pass_unless_vip(services, destination, DropReason::IcmpQuote)
}

/// ICMP that concerns no connection is somebody else's, unless it is for a virtual address or a
/// pool's.
pub(crate) fn pass_unless_vip<A: Address>(
    services: &Services,
    destination: A,
    reason: DropReason,
) -> Result<Decision, DropReason> {
    let destination = destination.into();
    if services.is_vip(destination) || services.is_local(destination) {
        return Err(reason);
    }
    Ok(Decision::Pass)
}

/// Notes what a real server's segment with these `flags` tells of how the server does.
fn observe<A: Address>(connection: &Connection<A>, flags: u8, is_first_answer: bool, now: Moment) {
    let server = connection.server();
    if flags & tcp::RST != 0 {
        server.observed().note_reset();
        if is_first_answer {
            server.observed().note_refused();
            server.terms().events.push(EventKind::Refused, server.id());
        }
    } else if is_first_answer && flags & tcp::SYN != 0 {
        server.observed().note_connect(now.micros_since(connection.opened()));
    }
}

impl<A: Address> Incoming<'_, A> {
    /// Goes the way of a connection found, unless that is over and a client opens the next one with
    /// the same tuple.
    #[inline]
    fn follow(
        &mut self,
        services: &Services,
        entry: &Entry<A>,
        director: &Director,
        now: Moment,
    ) -> Followed<A>
    where
        A: Tabled,
    {
        let (connection, direction) = (entry.connection(), entry.direction());
        if let Transport::Tcp(segment) = &self.transport
            && segment.is_opening()
            && direction == Direction::Original
            && connection.makes_way()
        {
            return Followed::Over;
        }
        if let Transport::Echo(echo) = &self.transport
            && echo.is_request() != (direction == Direction::Original)
        {
            return Followed::Foreign;
        }
        if self.may_travel_no_further() {
            return Followed::Decided(self.time_exceeded(connection));
        }
        let server = entry.server(services);
        if server.is_gone()
            && let Some(followed) = self.forsake(connection, direction, director)
        {
            return followed;
        }
        let tick = Tick::of(now);
        let mut advance = None;
        if !self.is_ordinary() {
            entry.forget();
            advance = self.advance(connection, direction, director, now);
        } else if !entry.is_noted(tick) {
            // Whatever one acknowledgement changes, another one in the same direction does not.
            advance = self.advance(connection, direction, director, now);
            entry.note(tick);
        }
        let decision = self.forward(server, direction, &entry.rewrite(server));
        if advance.is_some_and(|advance| advance.has_changed) {
            return Followed::Changed(decision, connection.tuple(direction.opposite()));
        }
        Followed::Decided(decision)
    }

    /// What becomes of it when its server no longer carries the connection, if it does not.
    #[cold]
    fn forsake(
        &self,
        connection: &Connection<A>,
        direction: Direction,
        director: &Director,
    ) -> Option<Followed<A>>
    where
        A: Tabled,
    {
        if !connection.is_forsaken() {
            return None;
        }
        match &self.transport {
            Transport::Tcp(segment) if segment.flags() & tcp::RST == 0 => {
                if let Some(advance) = connection.advance(direction, |_| State::Close) {
                    A::table(&director.connections).half_open().follow(advance);
                }
                Some(Followed::Decided(Decision::Answer(Answer::Reset)))
            }
            // What either side still has to say to the other does no harm.
            Transport::Tcp(_) => None,
            _ if direction == Direction::Reply => None,
            _ => Some(Followed::Over),
        }
    }

    /// Whether it is like most packets of a connection: a TCP segment that only acknowledges, with
    /// data or without, or anything of a protocol without states.
    #[inline]
    fn is_ordinary(&self) -> bool {
        match &self.transport {
            Transport::Tcp(segment) => Event::of(segment.flags()) == Some(Event::Ack),
            _ => true,
        }
    }

    /// Whether its time to live is used up.
    #[inline]
    pub(crate) fn may_travel_no_further(&self) -> bool {
        self.header.hop_limit() <= 1
    }

    /// The kernel would say so about the translated packet, which its sender does not know.
    fn time_exceeded(&self, connection: &Connection<A>) -> Decision {
        Decision::Answer(Answer::TimeExceeded(connection.original().destination.into()))
    }

    /// Tells the connection of the packet: its state moves, and its time.
    #[inline]
    fn advance(
        &self,
        connection: &Connection<A>,
        direction: Direction,
        director: &Director,
        now: Moment,
    ) -> Option<Advance>
    where
        A: Tabled,
    {
        connection.touch(Tick::of(now));
        let advance = match &self.transport {
            Transport::Tcp(segment) => {
                let flags = segment.flags();
                let advance = connection
                    .advance(direction, |state| tcp_state::next(state, direction, flags))?;
                if direction == Direction::Reply {
                    observe(connection, flags, advance.is_first_answer, now);
                }
                advance
            }
            _ => connection.advance(direction, |state| state)?,
        };
        A::table(&director.connections).half_open().follow(advance);
        Some(advance)
    }

    /// Counts and rewrites the packet.
    #[inline]
    fn forward(
        &mut self,
        server: &RealServer,
        direction: Direction,
        rewrite: &Rewrite<A>,
    ) -> Decision {
        server.traffic().count(direction, self.length);
        translate(&mut self.header, &mut self.transport, self.checksum, rewrite);
        Decision::Forward
    }
}
