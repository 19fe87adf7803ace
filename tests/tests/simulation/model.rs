//! The shadow model: what the documentation promises, restated as plainly as possible over
//! `HashMap`s, and held against every verdict of the director.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use wvs_core::connection::state::{State, Timeouts};
use wvs_core::connection::table::Table;
use wvs_core::connection::tuple::Tuple;
use wvs_core::director::{ClosedPort, Director, DirectorConfig};
use wvs_core::packet::address::Address;
use wvs_core::persistence::{Persistence, Quiesced};
use wvs_core::scheduler::Pick;
use wvs_core::service::{OnNoServer, OnStray, Protocol};
use wvs_core::stats::Counter;
use wvs_core::time::Moment;
use wvs_core::verdict::{DropReason, Verdict};
use wvs_tests::world::LATENESS;

use crate::checks;
use crate::wire::{ACK, Body, FIN, Quote, RST, SYN, Segment, Wire};

/// A virtual service as the model knows it.
#[derive(Debug)]
pub(crate) struct ShadowService {
    pub(crate) protocol: Protocol,
    pub(crate) address: SocketAddr,
    pub(crate) timeouts: Timeouts,
    pub(crate) on_stray: OnStray,
    pub(crate) on_no_server: OnNoServer,
    /// Every address and port that can stand in for a client, with full NAT.
    pub(crate) pool: Option<Vec<SocketAddr>>,
    pub(crate) persistence: Option<Persistence>,
    pub(crate) is_one_packet: bool,
    pub(crate) servers: Vec<ShadowServer>,
}

#[derive(Debug)]
pub(crate) struct ShadowServer {
    pub(crate) address: SocketAddr,
    pub(crate) weight: u32,
    traffic: [u64; 5],
}

impl ShadowServer {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address, weight: 1, traffic: [0; 5] }
    }
}

/// A connection as the model knows it. The server never changes: there is nothing that could.
#[derive(Debug)]
struct ShadowConnection {
    service: usize,
    server: usize,
    protocol: Protocol,
    client: SocketAddr,
    vip: SocketAddr,
    rip: SocketAddr,
    /// What the server sees in place of the client: the client, or with full NAT a place in the pool.
    seen_as: SocketAddr,
    state: State,
    /// When its last packet came, and the latest that the clock ever said at one: the director may
    /// go by either where the clock went back.
    last_seen_ms: u64,
    latest_ms: u64,
    /// Its client did not show yet that it exists.
    is_half_open: bool,
    /// Its server has sent something.
    is_answered: bool,
    /// The template that it began with.
    template: Option<(TemplateKey, u64)>,
}

/// The server that a client has, and those of its network.
#[derive(Debug)]
struct ShadowTemplate {
    /// No two have the same.
    number: u64,
    server: usize,
    expires_ms: u64,
    /// Those that began with it.
    connections: HashSet<u64>,
}

/// Of a template: its service, and the network of its clients.
type TemplateKey = (usize, IpAddr);

/// Protocol, source and destination.
type Ends = (Protocol, SocketAddr, SocketAddr);

/// What should become of a packet.
#[derive(Debug, PartialEq, Eq)]
enum Expected {
    /// Translated, with these ends.
    Translated(SocketAddr, SocketAddr),
    /// An ICMP error, translated outside to these addresses and inside to these ends.
    TranslatedError([IpAddr; 2], [SocketAddr; 2]),
    Answered(Answer),
    Passed,
    Dropped(DropReason),
    /// Dropped, or passed on untouched: a damaged ICMP error, of which nobody knows what it was about.
    NotTranslated,
}

/// An answer of the director's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Reset,
    PortUnreachable,
    TimeExceeded(IpAddr),
    Echo,
}

/// The model's state.
#[derive(Debug)]
pub(crate) struct Model {
    settings: DirectorConfig,
    pub(crate) services: Vec<ShadowService>,
    connections: HashMap<u64, ShadowConnection>,
    by_original: HashMap<Ends, u64>,
    by_reply: HashMap<Ends, u64>,
    templates: HashMap<TemplateKey, ShadowTemplate>,
    /// By service: connections and datagrams placed by a template, and clients that got none.
    persistent: Vec<u64>,
    refused: Vec<u64>,
    /// Datagrams of servers that belong to no connection.
    lone_answers: u64,
    /// What of the time is over is not certain any more: sweeps may have come at a later hour.
    has_clock_gone_back: bool,
    next: u64,
    opened: u64,
    expired: u64,
    replaced: u64,
    evicted: u64,
    verdicts: HashMap<String, u64>,
    /// A second, and the answers given in it.
    answers: (u64, u32),
}

/// Answers of schedulers that the model has not heard yet: service and pick.
pub(crate) type Picks = Vec<(usize, Pick)>;

/// What the director was free to choose, to be read off what it did.
struct Evidence<'e> {
    /// The packet that it sent, for the place in a pool.
    went: &'e [u8],
    picks: &'e mut Picks,
    /// For which half-open connections it evicted.
    director: &'e Director,
}

impl Model {
    pub(crate) fn new(settings: DirectorConfig, services: Vec<ShadowService>) -> Self {
        Self {
            persistent: vec![0; services.len()],
            refused: vec![0; services.len()],
            settings,
            services,
            connections: HashMap::new(),
            by_original: HashMap::new(),
            by_reply: HashMap::new(),
            templates: HashMap::new(),
            lone_answers: 0,
            has_clock_gone_back: false,
            next: 0,
            opened: 0,
            expired: 0,
            replaced: 0,
            evicted: 0,
            verdicts: HashMap::new(),
            answers: (0, 0),
        }
    }

    pub(crate) fn live(&self) -> usize {
        self.connections.len()
    }

    pub(crate) fn clock_went_back(&mut self) {
        self.has_clock_gone_back = true;
    }

    /// What happened that no verdict tells, and how often.
    pub(crate) fn happened(&self) -> [(&'static str, u64); 3] {
        [
            ("placed by a template", self.persistent.iter().sum()),
            ("template refused", self.refused.iter().sum()),
            ("answer of a one-packet service", self.lone_answers),
        ]
    }

    /// Holds the director's decision on a packet against what should have become of it.
    pub(crate) fn judge(
        &mut self,
        came: &[u8],
        is_partial: bool,
        (verdict, went): (Verdict, &[u8]),
        now_ms: u64,
        picks: &mut Picks,
        director: &Director,
    ) {
        *self.verdicts.entry(format!("{verdict:?}")).or_default() += 1;
        let mut evidence = Evidence { went, picks, director };
        let expected = self.expect(came, now_ms, &mut evidence);
        self.evict(evidence.director);
        assert!(picks.is_empty(), "a scheduler was asked, and none should have been: {picks:?}");
        match (&expected, verdict) {
            (Expected::Translated(source, destination), Verdict::Forward) => {
                checks::translated(came, went, *source, *destination, is_partial);
            }
            (Expected::TranslatedError(outside, inside), Verdict::Forward) => {
                checks::translated_error(came, went, *outside, *inside);
            }
            (Expected::Answered(answer), Verdict::Reply) => checks::answered(came, went, *answer),
            (Expected::Passed | Expected::NotTranslated, Verdict::Pass) => assert_eq!(came, went),
            (Expected::NotTranslated, Verdict::Drop(_)) => {}
            (Expected::Dropped(reason), Verdict::Drop(found)) if *reason == found => {}
            _ => panic!("{verdict:?}, and should have been {expected:?}"),
        }
    }

    fn expect(&mut self, came: &[u8], now_ms: u64, evidence: &mut Evidence<'_>) -> Expected {
        let wire = match Wire::of(came) {
            Ok(wire) => wire,
            Err(reason) => return Expected::Dropped(reason),
        };
        let is_to_vip = self.is_directors(wire.destination);
        let pass_unless_vip = |reason| {
            if is_to_vip { Expected::Dropped(reason) } else { Expected::Passed }
        };
        match &wire.body {
            Body::Redirect => Expected::Dropped(DropReason::IcmpType),
            Body::OtherIcmp => pass_unless_vip(DropReason::IcmpType),
            Body::Error { is_intact, quote } => self.expect_of_error(&wire, *is_intact, *quote),
            Body::Tcp(_) | Body::Udp { .. } | Body::Echo { .. } => {
                match self.expect_of_known(&wire, now_ms) {
                    Some(expected) => expected,
                    None => self.expect_of_first(&wire, now_ms, evidence),
                }
            }
        }
    }

    /// A packet of a connection; `None` if there is none, or it is over and this one begins anew.
    fn expect_of_known(&mut self, wire: &Wire, now_ms: u64) -> Option<Expected> {
        let ends = wire.ends().unwrap();
        let (id, is_original) = match (self.by_original.get(&ends), self.by_reply.get(&ends)) {
            (Some(id), _) => (*id, true),
            (None, Some(id)) => (*id, false),
            (None, None) => return None,
        };
        if let Body::Echo { is_request, .. } = wire.body
            && is_request != is_original
        {
            return None;
        }
        if let Body::Tcp(segment) = wire.body
            && is_opening(segment)
            && is_original
            && self.makes_way(id)
        {
            self.forget(id);
            self.replaced += 1;
            return None;
        }
        Some(self.carry(id, is_original, wire, now_ms))
    }

    /// Whether a new connection may have the ends of this one: it is over, or it is not established
    /// and its server is to get no new ones.
    fn makes_way(&self, id: u64) -> bool {
        let ShadowConnection { service, server, protocol, state, .. } = self.connections[&id];
        let is_quiesced = self.services[service].servers[server].weight == 0;
        let is_over = matches!(state, State::TimeWait | State::Close);
        is_over || is_quiesced && protocol == Protocol::Tcp && state != State::Established
    }

    /// A packet of a connection goes its way.
    fn carry(&mut self, id: u64, is_original: bool, wire: &Wire, now_ms: u64) -> Expected {
        let vip = self.connections[&id].vip;
        if wire.hop_limit <= 1 {
            return self.answer(wire, Answer::TimeExceeded(vip.ip()), now_ms);
        }
        let connection = self.connections.get_mut(&id).unwrap();
        if let Body::Tcp(segment) = wire.body {
            connection.state = next_state(connection.state, is_original, segment.flags);
            let has_gone_on = is_original && connection.state != State::SynRecv;
            connection.is_half_open &= !(has_gone_on && connection.is_answered);
            connection.is_answered |= !is_original;
        }
        connection.last_seen_ms = now_ms;
        connection.latest_ms = connection.latest_ms.max(now_ms);
        let (client, seen_as, rip) = (connection.client, connection.seen_as, connection.rip);
        let (service, server) = (connection.service, connection.server);
        self.count(service, server, is_original, wire.length);
        if is_original {
            Expected::Translated(seen_as, rip)
        } else {
            Expected::Translated(vip, client)
        }
    }

    /// A packet that belongs to no connection.
    fn expect_of_first(
        &mut self,
        wire: &Wire,
        now_ms: u64,
        evidence: &mut Evidence<'_>,
    ) -> Expected {
        let (protocol, client, vip) = wire.ends().unwrap();
        let is_reply = matches!(wire.body, Body::Echo { is_request: false, .. });
        if !self.is_vip(vip.ip()) || is_reply {
            return match protocol {
                Protocol::Icmp
                    if is_reply && self.real_servers().any(|s| s == (protocol, client)) =>
                {
                    Expected::Dropped(DropReason::NoConnection)
                }
                Protocol::Icmp if !self.is_directors(vip.ip()) => Expected::Passed,
                Protocol::Icmp => Expected::Dropped(DropReason::IcmpType),
                Protocol::Udp
                    if let Some((service, server)) = self.one_packet(client)
                        && !self.is_directors(vip.ip()) =>
                {
                    let seen_as = self.services[service].address;
                    if wire.hop_limit <= 1 {
                        return self.answer(wire, Answer::TimeExceeded(seen_as.ip()), now_ms);
                    }
                    self.lone_answers += 1;
                    self.count(service, server, false, wire.length);
                    Expected::Translated(seen_as, vip)
                }
                Protocol::Tcp | Protocol::Udp => {
                    let is_late = self.real_servers().any(|server| server == (protocol, client));
                    if is_late || self.is_directors(vip.ip()) {
                        Expected::Dropped(DropReason::NoConnection)
                    } else {
                        Expected::Passed
                    }
                }
            };
        }
        let found = self
            .services
            .iter()
            .position(|service| service.protocol == protocol && service.address == vip);
        let Some(service) = found else { return self.expect_of_closed_port(wire, now_ms) };
        if let Body::Tcp(segment) = wire.body
            && !is_opening(segment)
        {
            match self.services[service].on_stray {
                _ if segment.flags & RST != 0 => return Expected::Dropped(DropReason::Stray),
                OnStray::Drop => return Expected::Dropped(DropReason::Stray),
                OnStray::Reset => return self.answer(wire, Answer::Reset, now_ms),
                OnStray::Pickup => {}
            }
        }
        if !is_unicast(client.ip()) || self.is_directors(client.ip()) {
            return Expected::Dropped(DropReason::SourceAddress);
        }
        if wire.hop_limit <= 1 {
            return self.answer(wire, Answer::TimeExceeded(vip.ip()), now_ms);
        }
        let is_one_packet = self.services[service].is_one_packet;
        if !is_one_packet
            && self.live() >= self.settings.limits.connections
            && !self.evict_one(evidence.director)
        {
            let has_half_open = self.connections.values().any(|connection| connection.is_half_open);
            assert!(!has_half_open, "refused while a half-open connection could have made way");
            return Expected::Dropped(DropReason::TableFull);
        }
        let Some((server, template)) = self.server_for(service, client.ip(), now_ms, evidence)
        else {
            return self.refuse_for_lack(service, wire, DropReason::NoServer, now_ms);
        };
        if is_one_packet {
            self.services[service].servers[server].traffic[0] += 1;
            self.renew(service, template, now_ms);
            self.count(service, server, true, wire.length);
            let rip = self.services[service].servers[server].address;
            return Expected::Translated(client, rip);
        }
        let rip = self.services[service].servers[server].address;
        let mut seen_as = client;
        if let Some(pool) = self.services[service].pool.clone() {
            let has_place =
                pool.iter().any(|place| !self.by_reply.contains_key(&(protocol, rip, *place)));
            // A half-open connection may make way.
            if !has_place && !self.evict_one(evidence.director) {
                return self.refuse_for_lack(service, wire, DropReason::PoolExhausted, now_ms);
            }
            let is_taken =
                |place: &SocketAddr| self.by_reply.contains_key(&(protocol, rip, *place));
            let (_, found, _) = Wire::of(evidence.went).unwrap().ends().unwrap();
            assert!(pool.contains(&found), "{found} is no place of the pool");
            assert!(!is_taken(&found), "{found} is taken");
            seen_as = found;
        } else if let Some(holder) = self.by_reply.get(&(protocol, rip, client)).copied() {
            if !self.makes_way(holder) {
                // The client tried.
                self.renew(service, template, now_ms);
                return Expected::Dropped(DropReason::ReplyTupleTaken);
            }
            self.forget(holder);
            self.replaced += 1;
        }
        let state = match protocol {
            Protocol::Tcp => State::None,
            Protocol::Udp => State::Udp,
            Protocol::Icmp => State::Icmp,
        };
        let id = self.next;
        self.next += 1;
        self.opened += 1;
        self.services[service].servers[server].traffic[0] += 1;
        self.by_original.insert((protocol, client, vip), id);
        self.by_reply.insert((protocol, rip, seen_as), id);
        if let Some(template) = self.renew(service, template, now_ms) {
            template.connections.insert(id);
        }
        let connection = ShadowConnection {
            service,
            server,
            protocol,
            client,
            vip,
            rip,
            seen_as,
            state,
            last_seen_ms: now_ms,
            latest_ms: now_ms,
            is_half_open: protocol == Protocol::Tcp,
            is_answered: false,
            template,
        };
        self.connections.insert(id, connection);
        self.carry(id, true, wire, now_ms)
    }

    /// Where a new connection or a datagram of a client goes, and the template that it goes by from
    /// now on.
    fn server_for(
        &mut self,
        service: usize,
        client: IpAddr,
        now_ms: u64,
        evidence: &mut Evidence<'_>,
    ) -> Option<(usize, Option<(TemplateKey, u64)>)> {
        let persistence = self.services[service].persistence;
        let key = persistence.map(|held| (service, network(client, held.prefix)));
        let was_asked = !evidence.picks.is_empty();
        let present = key.and_then(|key| self.templates.get(&key));
        if !self.has_clock_gone_back {
            let holds = present.is_some_and(|template| self.holds(service, template, now_ms));
            assert_eq!(was_asked, !holds, "scheduler asked, by {present:?} at {now_ms}");
        }
        if !was_asked {
            let template = present.expect("a template, where no scheduler was asked");
            let (server, number) = (template.server, template.number);
            self.persistent[service] += 1;
            return Some((server, key.map(|key| (key, number))));
        }
        let (asked, pick) = evidence.picks.remove(0);
        assert_eq!(asked, service, "another service's scheduler was asked");
        let server = self.place(service, pick)?;
        let (Some(held), Some(key)) = (persistence, key) else { return Some((server, None)) };
        let list = evidence.director.services();
        let templates = &list.list()[service].terms().templates;
        assert!(templates.count() <= held.templates_max, "templates");
        if templates.refused() > self.refused[service] {
            assert_eq!(templates.count(), held.templates_max, "refused, and there was room");
            self.refused[service] += 1;
            return Some((server, None));
        }
        self.next += 1;
        let number = self.next;
        let expires_ms = now_ms + millis(held.timeout);
        let connections = HashSet::new();
        let template = ShadowTemplate { number, server, expires_ms, connections };
        self.templates.insert(key, template);
        Some((server, Some((key, number))))
    }

    /// Whether a template still stands for its clients' server.
    fn holds(&self, service: usize, template: &ShadowTemplate, now_ms: u64) -> bool {
        let ShadowService { persistence, servers, .. } = &self.services[service];
        let is_quiesced = servers[template.server].weight == 0;
        let is_broken = persistence.is_some_and(|held| held.quiesced == Quiesced::Break);
        let is_over = template.connections.is_empty() && template.expires_ms <= now_ms;
        !(is_over || is_quiesced && is_broken)
    }

    /// A connection or a datagram goes by a template, if it is still there.
    fn renew(
        &mut self,
        service: usize,
        template: Option<(TemplateKey, u64)>,
        now_ms: u64,
    ) -> Option<&mut ShadowTemplate> {
        let (key, number) = template?;
        let timeout = self.services[service].persistence?.timeout;
        let template = self.templates.get_mut(&key).filter(|held| held.number == number)?;
        template.expires_ms = now_ms + millis(timeout);
        Some(template)
    }

    /// The service without connections that has this real server, and which one it is.
    fn one_packet(&self, server: SocketAddr) -> Option<(usize, usize)> {
        self.services.iter().enumerate().filter(|(_, service)| service.is_one_packet).find_map(
            |(index, service)| {
                let is_it = |other: &ShadowServer| other.address == server;
                Some((index, service.servers.iter().position(is_it)?))
            },
        )
    }

    /// A connection that nobody can take.
    fn refuse_for_lack(
        &mut self,
        service: usize,
        wire: &Wire,
        reason: DropReason,
        now_ms: u64,
    ) -> Expected {
        match (self.services[service].on_no_server, &wire.body) {
            (OnNoServer::Drop, _) => Expected::Dropped(reason),
            (OnNoServer::Reset, Body::Tcp(_)) => self.answer(wire, Answer::Reset, now_ms),
            _ => self.answer(wire, Answer::PortUnreachable, now_ms),
        }
    }

    /// Half-open connections that the director no longer has, the oldest first.
    fn missing(&self, director: &Director) -> Vec<u64> {
        let mut missing: Vec<u64> = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.is_half_open && !is_in_table(director, connection))
            .map(|(id, _)| *id)
            .collect();
        missing.sort_unstable();
        missing
    }

    /// One half-open connection made way for another, if the director says so.
    fn evict_one(&mut self, director: &Director) -> bool {
        if director.table().evicted.get() == self.evicted {
            return false;
        }
        let missing = self.missing(director);
        let Some(id) = missing.first() else { panic!("evicted, and no half-open one is missing") };
        self.forget(*id);
        self.evicted += 1;
        true
    }

    /// Whatever the director evicted was half-open, and the oldest; then their limit is kept.
    fn evict(&mut self, director: &Director) {
        let families = [false, true];
        let mut newest = families.map(|_| None);
        while director.table().evicted.get() > self.evicted {
            let id = *self.missing(director).first().expect("a half-open connection is missing");
            let family = usize::from(self.connections[&id].client.is_ipv6());
            newest[family] = newest[family].max(Some(id));
            assert!(self.evict_one(director));
        }
        let half_open = self.connections.iter().filter(|(_, connection)| connection.is_half_open);
        for (id, connection) in half_open.clone() {
            let family = usize::from(connection.client.is_ipv6());
            assert!(Some(*id) > newest[family], "a younger half-open connection went first");
        }
        assert!(half_open.count() <= self.settings.limits.half_open, "half-open connections");
    }

    fn expect_of_closed_port(&mut self, wire: &Wire, now_ms: u64) -> Expected {
        match (&wire.body, self.settings.closed_port) {
            (Body::Echo { .. }, _) if self.settings.answer_echo => {
                self.answer(wire, Answer::Echo, now_ms)
            }
            (Body::Echo { .. }, _) => Expected::Dropped(DropReason::Echo),
            (Body::Tcp(segment), _) if segment.flags & RST != 0 => {
                Expected::Dropped(DropReason::ClosedPort)
            }
            (_, ClosedPort::Drop) => Expected::Dropped(DropReason::ClosedPort),
            (Body::Tcp(_), _) => self.answer(wire, Answer::Reset, now_ms),
            _ => self.answer(wire, Answer::PortUnreachable, now_ms),
        }
    }

    fn expect_of_error(&mut self, wire: &Wire, is_intact: bool, quote: Quote) -> Expected {
        if !is_intact {
            return Expected::NotTranslated;
        }
        if let Quote::Ends { protocol, source, destination } = quote
            && source.ip() == wire.destination
        {
            // About a server's packet, which went from the VIP to the client.
            if let Some(id) = self.by_original.get(&(protocol, destination, source)).copied() {
                let ShadowConnection { service, server, client, rip, seen_as, .. } =
                    self.connections[&id];
                self.count(service, server, true, wire.length);
                let from = if seen_as == client { wire.source } else { seen_as.ip() };
                return Expected::TranslatedError([from, rip.ip()], [rip, seen_as]);
            }
            // About a client's packet, which went from the client to the server.
            if let Some(id) = self.by_reply.get(&(protocol, destination, source)).copied() {
                let ShadowConnection { service, server, client, vip, .. } = self.connections[&id];
                self.count(service, server, false, wire.length);
                return Expected::TranslatedError([vip.ip(), client.ip()], [client, vip]);
            }
            // About a datagram of a client's that opened none.
            if protocol == Protocol::Udp
                && let Some((service, server)) = self.one_packet(destination)
                && !self.is_directors(source.ip())
            {
                let vip = self.services[service].address;
                self.count(service, server, false, wire.length);
                return Expected::TranslatedError([vip.ip(), source.ip()], [source, vip]);
            }
        }
        let is_rip = |ip: IpAddr| self.real_servers().any(|(_, server)| server.ip() == ip);
        let is_ours = match quote {
            Quote::Ends { protocol, destination, .. } => {
                self.real_servers().any(|server| server == (protocol, destination))
            }
            Quote::Destination(ip) => is_rip(ip),
            Quote::Nothing => is_rip(wire.source),
        };
        if is_ours || self.is_directors(wire.destination) {
            Expected::Dropped(DropReason::IcmpQuote)
        } else {
            Expected::Passed
        }
    }

    /// An answer, if there is somebody to answer and it is within the limit of the second.
    fn answer(&mut self, wire: &Wire, answer: Answer, now_ms: u64) -> Expected {
        if let (Answer::Echo, Body::Echo { is_intact: false, .. }) = (answer, &wire.body) {
            return Expected::Dropped(DropReason::IcmpChecksum);
        }
        if !is_unicast(wire.source) {
            return Expected::Dropped(DropReason::SourceAddress);
        }
        if self.answers.0 != now_ms / 1000 {
            self.answers = (now_ms / 1000, 0);
        }
        if self.answers.1 >= self.settings.replies_per_second {
            return Expected::Dropped(DropReason::ReplyLimit);
        }
        self.answers.1 += 1;
        Expected::Answered(answer)
    }

    /// The server for a scheduler's answer; weighted least connections where it is no use.
    fn place(&self, service: usize, pick: Pick) -> Option<usize> {
        let servers = &self.services[service].servers;
        match pick {
            Pick::NoServer => return None,
            Pick::Server(index) if servers.get(index).is_some_and(|s| s.weight > 0) => {
                return Some(index);
            }
            Pick::Server(_) | Pick::Defer => {}
        }
        let mut best: Option<(f64, usize)> = None;
        for (index, server) in servers.iter().enumerate().filter(|(_, s)| s.weight > 0) {
            let [active, inactive] = self.counts(service, index);
            let load = f64::from(active * 256 + inactive) / f64::from(server.weight);
            if best.is_none_or(|(least, _)| load < least) {
                best = Some((load, index));
            }
        }
        best.map(|(_, index)| index)
    }

    /// Active and inactive connections of a server, counted.
    fn counts(&self, service: usize, server: usize) -> [u32; 2] {
        let mut counts = [0, 0];
        for connection in self.connections.values() {
            if (connection.service, connection.server) == (service, server) {
                let is_inactive = !matches!(
                    connection.state,
                    State::Established | State::SynRecv | State::SynSent | State::SynAck
                );
                counts[usize::from(is_inactive)] += 1;
            }
        }
        counts
    }

    /// Holds a complete sweep against what should go and what must stay; how many should have gone.
    /// A connection may outlive its timeout by some time, and never goes before.
    pub(crate) fn sweep(&mut self, now_ms: u64, director: &Director) -> usize {
        let lateness_ms = u64::try_from(LATENESS.as_millis()).unwrap();
        let silent = |since_ms: u64| now_ms.saturating_sub(since_ms);
        let is_expired = |connection: &ShadowConnection| {
            let timeout = self.services[connection.service].timeouts.millis(connection.state);
            let may_go = silent(connection.last_seen_ms) >= timeout;
            let must_go = silent(connection.latest_ms) >= timeout + lateness_ms;
            must_go || may_go && !is_in_table(director, connection)
        };
        let expired: Vec<u64> = self
            .connections
            .iter()
            .filter_map(|(id, connection)| is_expired(connection).then_some(*id))
            .collect();
        for id in &expired {
            self.forget(*id);
        }
        self.expired += u64::try_from(expired.len()).unwrap();
        expired.len()
    }

    fn forget(&mut self, id: u64) {
        let ShadowConnection { protocol, client, vip, rip, seen_as, template, .. } =
            self.connections.remove(&id).unwrap();
        if let Some((key, number)) = template
            && let Some(template) = self.templates.get_mut(&key)
            && template.number == number
        {
            assert!(template.connections.remove(&id));
        }
        assert_eq!(self.by_original.remove(&(protocol, client, vip)), Some(id));
        assert_eq!(self.by_reply.remove(&(protocol, rip, seen_as)), Some(id));
    }

    /// Every count of the director's is the model's.
    pub(crate) fn compare(&self, director: &Director, now_ms: u64) {
        assert_eq!(director.connections(), self.live(), "live connections");
        assert!(self.live() <= self.settings.limits.connections);
        let table = director.table();
        let counted = [&table.opened, &table.expired, &table.replaced, &table.evicted];
        let expected = [self.opened, self.expired, self.replaced, self.evicted];
        assert_eq!(counted.map(Counter::get), expected, "opened, expired, replaced, evicted");
        let half_open = self.connections.values().filter(|c| c.is_half_open).count();
        assert_eq!(director.half_open(), half_open, "half-open connections");
        for connection in self.connections.values() {
            let found = state_in_table(director, connection);
            assert_eq!(found, Some(connection.state), "{connection:?}");
        }
        for (index, service) in director.services().list().iter().enumerate() {
            for (at, server) in service.servers().iter().enumerate() {
                let [active, inactive] = self.counts(index, at);
                let found = (server.active(), server.inactive());
                assert_eq!(found, (active, inactive), "counts of {}", server.address());
            }
        }
        if !self.has_clock_gone_back {
            self.compare_templates(director, now_ms);
        }
    }

    fn compare_templates(&self, director: &Director, now_ms: u64) {
        let list = director.services();
        for ((service, client), template) in &self.templates {
            let templates = &list.list()[*service].terms().templates;
            let found = templates.find(*client, Moment::from_millis(now_ms));
            let found = found.map(|found| (found.server.address(), found.connections));
            let expected = self.holds(*service, template, now_ms).then(|| {
                let server = self.services[*service].servers[template.server].address;
                (server, u32::try_from(template.connections.len()).unwrap())
            });
            assert_eq!(found, expected, "template of {client}");
        }
    }

    /// Every total of the director's is the model's.
    pub(crate) fn compare_totals(&self, director: &Director) {
        let verdicts = director.verdicts();
        let seen = |name: &str| self.verdicts.get(name).copied().unwrap_or(0);
        assert_eq!(verdicts.forwarded(), seen("Forward"));
        assert_eq!(verdicts.replied(), seen("Reply"));
        assert_eq!(verdicts.passed(), seen("Pass"));
        assert_eq!(verdicts.held(), seen("Hold"));
        for reason in DropReason::ALL {
            assert_eq!(verdicts.dropped(*reason), seen(&format!("Drop({reason:?})")), "{reason}");
        }
        for (index, service) in director.services().list().iter().enumerate() {
            let found = (service.counters().persistent.get(), service.terms().templates.refused());
            assert_eq!(found, (self.persistent[index], self.refused[index]), "by templates");
        }
        for (service, shadow) in director.services().list().iter().zip(&self.services) {
            for (server, shadow) in service.servers().iter().zip(&shadow.servers) {
                let t = server.traffic().totals();
                let found = [t.connections, t.in_packets, t.in_octets, t.out_packets, t.out_octets];
                assert_eq!(found, shadow.traffic, "traffic of {}", server.address());
            }
        }
    }

    fn count(&mut self, service: usize, server: usize, is_in: bool, octets: usize) {
        let traffic = &mut self.services[service].servers[server].traffic;
        let at = if is_in { 1 } else { 3 };
        traffic[at] += 1;
        traffic[at + 1] += u64::try_from(octets).unwrap();
    }

    pub(crate) fn is_vip(&self, ip: IpAddr) -> bool {
        self.services.iter().any(|service| service.address.ip() == ip)
    }

    /// Whether only the director has this address: a virtual one, or one of a pool.
    fn is_directors(&self, ip: IpAddr) -> bool {
        let pools = self.services.iter().filter_map(|service| service.pool.as_ref());
        self.is_vip(ip) || pools.flatten().any(|place| place.ip() == ip)
    }

    fn real_servers(&self) -> impl Iterator<Item = (Protocol, SocketAddr)> {
        self.services.iter().flat_map(|service| {
            service.servers.iter().map(|server| (service.protocol, server.address))
        })
    }
}

/// Whether the director's table has this connection.
fn is_in_table(director: &Director, connection: &ShadowConnection) -> bool {
    state_in_table(director, connection).is_some()
}

/// The state in which the director's table has this connection.
fn state_in_table(director: &Director, connection: &ShadowConnection) -> Option<State> {
    fn find<A: Address>(table: &Table<A>, connection: &ShadowConnection) -> Option<State> {
        let address = |end: SocketAddr| A::from_ip(end.ip()).unwrap();
        let tuple = Tuple {
            source: address(connection.client),
            destination: address(connection.vip),
            source_port: connection.client.port(),
            destination_port: connection.vip.port(),
            protocol: connection.protocol,
        };
        table.find(&tuple)?.state()
    }
    if connection.client.is_ipv4() {
        find(director.tables().v4(), connection)
    } else {
        find(director.tables().v6(), connection)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap()
}

/// The address without all but its first bits.
fn network(address: IpAddr, bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) if bits < 32 => {
            Ipv4Addr::from_bits(address.to_bits() >> (32 - bits) << (32 - bits)).into()
        }
        IpAddr::V6(address) if bits < 128 => {
            Ipv6Addr::from_bits(address.to_bits() >> (128 - bits) << (128 - bits)).into()
        }
        whole => whole,
    }
}

fn is_opening(segment: Segment) -> bool {
    segment.flags & (SYN | ACK | FIN | RST) == SYN
}

fn is_unicast(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let first = address.octets()[0];
            first != 0 && first != 127 && first < 224
        }
        IpAddr::V6(address) => {
            !address.is_unspecified() && !address.is_loopback() && address.octets()[0] != 0xff
        }
    }
}

/// LVS's state machine as its documentation has it: for each event the next state, by the present
/// one in the order NO ES SS SR FW TW CL CW LA LI SA.
const STATES: [(&str, u8, &str); 8] = [
    ("client", SYN, "SR ES ES SR SR SR SR SR SR SR SR"),
    ("client", FIN, "CL CW SS TW TW TW CL CW LA LI TW"),
    ("client", ACK, "ES ES SS ES FW TW CL CW CL LI ES"),
    ("client", RST, "CL CL CL SR CL CL CL CL LA LI SR"),
    ("server", SYN, "SS ES SS SR SS SS SS SS SS LI SR"),
    ("server", FIN, "TW FW SS TW FW TW CL TW LA LI TW"),
    ("server", ACK, "ES ES SS ES FW TW CL CW LA ES ES"),
    ("server", RST, "CL CL SS CL CL TW CL CL CL CL CL"),
];

const CODES: &str = "NO ES SS SR FW TW CL CW LA LI SA";

fn next_state(state: State, is_original: bool, flags: u8) -> State {
    let side = if is_original { "client" } else { "server" };
    let Some(event) = [RST, SYN, FIN, ACK].into_iter().find(|flag| flags & flag != 0) else {
        return State::Close;
    };
    let row = STATES.iter().find(|(who, flag, _)| (*who, *flag) == (side, event)).unwrap().2;
    let present = State::ALL.iter().position(|known| *known == state).unwrap();
    let code = row.split(' ').nth(present).unwrap();
    State::ALL[CODES.split(' ').position(|known| known == code).unwrap()]
}
