//! A virtual service: an address of the director's, its real servers and its scheduler.

use core::fmt;
use core::net::{IpAddr, Ipv6Addr, SocketAddr};
use core::ops::RangeInclusive;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::{ArcSwap, Guard};
use wvs_abi::Request;

use crate::connection::state::{LiveTimeouts, Timeouts};
use crate::connection::tuple::Endpoint;
use crate::event::EventQueue;
use crate::explain::Scheduling;
use crate::packet::address::Address;
use crate::persistence::{Persistence, Templates};
use crate::pool::Pool;
pub use crate::protocol::Protocol;
use crate::random::Random;
use crate::real_server::RealServer;
use crate::roster::{Drain, Member, Roster, RosterRules, Stage, Standing};
use crate::scheduler::{Pick, Scheduler, weighted_least_connections};
use crate::stats::Counter;
use crate::time::Moment;

/// What a virtual service is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceAddress {
    /// The protocol it carries.
    pub protocol: Protocol,
    /// The virtual address.
    pub vip: IpAddr,
    /// The virtual port, above 0; 0 for ICMP.
    pub port: u16,
}

impl fmt::Display for ServiceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.protocol, self.vip) {
            (Protocol::Icmp, vip) => write!(f, "{vip}/icmp"),
            (protocol, IpAddr::V4(vip)) => write!(f, "{vip}:{}/{protocol}", self.port),
            (protocol, IpAddr::V6(vip)) => write!(f, "[{vip}]:{}/{protocol}", self.port),
        }
    }
}

/// What a client gets when no real server may take its connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnNoServer {
    /// TCP: a reset; anything else: ICMP port unreachable.
    #[default]
    Reset,
    /// ICMP port unreachable, as IPVS does.
    Icmp,
    /// Nothing.
    Drop,
}

/// What happens to a TCP segment in the middle of a connection that the director does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnStray {
    /// The sender gets a reset, so that it need not wait for a timeout.
    #[default]
    Reset,
    /// Nothing.
    Drop,
    /// It is scheduled like a first packet. For schedulers that give the same client the same
    /// server: connections then survive a restart of the director.
    Pickup,
}

/// How packets of a service's connections get to the real servers.
#[derive(Clone, Debug, Default)]
pub enum Forwarding {
    /// The destination is replaced: servers see the client's address, and their replies must come
    /// back through the director. LVS calls it masquerading.
    #[default]
    Nat,
    /// The source too, by one of this pool: servers answer the director and need no route back.
    FullNat(Arc<Pool>),
}

/// What never changes about a virtual service, and what its connections share.
#[derive(Debug)]
pub struct Terms {
    /// The service's name, unique within the director, for people.
    pub service: Arc<str>,
    /// What clients connect to; the first of several addresses.
    pub address: ServiceAddress,
    /// How packets are translated.
    pub forwarding: Forwarding,
    /// How long silent connections live.
    pub timeouts: LiveTimeouts,
    /// Which client has which server.
    pub templates: Templates,
    /// What the scheduler is yet to be told of connections.
    pub events: EventQueue,
    /// A server reached a threshold or left it, which the scheduler is yet to be told.
    has_changed: AtomicBool,
}

impl Terms {
    /// NAT with the default timeouts.
    #[must_use]
    pub fn new(service: &str, address: ServiceAddress) -> Self {
        Self::forwarding(service, address, Forwarding::default())
    }

    /// Another way of forwarding, with the default timeouts.
    #[must_use]
    pub fn forwarding(service: &str, address: ServiceAddress, forwarding: Forwarding) -> Self {
        Self {
            service: Arc::from(service),
            address,
            forwarding,
            timeouts: LiveTimeouts::from(&Timeouts::default()),
            templates: Templates::default(),
            events: EventQueue::default(),
            has_changed: AtomicBool::default(),
        }
    }

    /// VIP and port, `None` in the other family.
    #[inline]
    pub(crate) fn virtual_end<A: Address>(&self) -> Option<Endpoint<A>> {
        Some(Endpoint { address: A::from_ip(self.address.vip)?, port: self.address.port })
    }

    /// The pool of full NAT.
    #[inline]
    #[must_use]
    pub fn pool(&self) -> Option<&Pool> {
        match &self.forwarding {
            Forwarding::Nat => None,
            Forwarding::FullNat(pool) => Some(pool),
        }
    }

    pub(crate) fn note_change(&self) {
        self.has_changed.store(true, Relaxed);
    }
}

/// Where clients reach a service: every port of `ports` at every address of `vips`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reach {
    /// The virtual addresses, all of one family.
    pub vips: Vec<IpAddr>,
    /// The virtual ports; 0 alone for ICMP.
    pub ports: Ports,
}

/// The ports of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ports {
    /// These, of which no two overlap.
    These(Vec<RangeInclusive<u16>>),
    /// All that no other service has.
    Others,
}

impl Reach {
    /// One address and port.
    #[must_use]
    pub fn at(address: ServiceAddress) -> Self {
        let ports = Ports::These(vec![address.port..=address.port]);
        Self { vips: vec![address.vip], ports }
    }

    /// The first address and port; port 0 for [`Ports::Others`], and the unspecified address where
    /// there is none.
    #[must_use]
    pub fn first(&self, protocol: Protocol) -> ServiceAddress {
        let vip = self.vips.first().copied().unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
        let port = match &self.ports {
            Ports::These(ranges) => ranges.first().map_or(0, |range| *range.start()),
            Ports::Others => 0,
        };
        ServiceAddress { protocol, vip, port }
    }
}

/// What may be changed about a service while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where clients reach it.
    pub reach: Reach,
    /// UDP: every datagram is scheduled by itself, and none opens a connection.
    pub is_one_packet: bool,
    /// See [`OnNoServer`].
    pub on_no_server: OnNoServer,
    /// See [`OnStray`].
    pub on_stray: OnStray,
    /// How servers stand in for each other.
    pub rules: RosterRules,
    /// How long silent connections live.
    pub timeouts: Timeouts,
    /// Whether clients come back to their servers.
    pub persistence: Option<Persistence>,
}

impl Settings {
    /// A service at `reach` with every default.
    #[must_use]
    pub fn new(reach: Reach) -> Self {
        Self {
            reach,
            is_one_packet: false,
            on_no_server: OnNoServer::default(),
            on_stray: OnStray::default(),
            rules: RosterRules::default(),
            timeouts: Timeouts::default(),
            persistence: None,
        }
    }

    /// Where datagrams of `server` come from for clients, when no connection tells. Port 0 stands
    /// for the server's.
    pub(crate) fn one_packet_source(&self, server: &RealServer) -> Option<SocketAddr> {
        let vip = self.reach.vips.first().filter(|_| self.is_one_packet)?;
        let port = match &self.reach.ports {
            Ports::These(ranges) if server.address().port() != 0 => *ranges.first()?.start(),
            _ => 0,
        };
        Some(SocketAddr::new(*vip, port))
    }
}

/// A virtual service as configured.
#[derive(Debug)]
pub struct ServiceConfig {
    /// Unique within the director.
    pub id: u32,
    /// What its connections live under; its real servers have the same.
    pub terms: Arc<Terms>,
    /// What may be changed later.
    pub settings: Settings,
    /// The real servers, in the order that schedulers see them in.
    pub members: Vec<Member>,
    /// Who takes connections when the others are too few.
    pub sorry: Option<Arc<RealServer>>,
    /// Seed of the numbers that the scheduler gets with each request.
    pub seed: u64,
}

/// How the connections of a service were placed.
#[derive(Debug, Default)]
pub struct SchedulingCounters {
    /// Answers of the scheduler that were followed.
    pub picked: Counter,
    /// Connections placed by [`weighted_least_connections`] because the scheduler had no answer.
    pub fallback: Counter,
    /// The same, because the scheduler's choice had had its share for its slow start.
    pub spared: Counter,
    /// Connections that went to the server that their client had before.
    pub persistent: Counter,
    /// Connections that the sorry server got.
    pub sorry: Counter,
    /// Connections that no server could take.
    pub no_server: Counter,
}

/// A virtual service at work.
pub struct Service {
    id: u32,
    terms: Arc<Terms>,
    settings: ArcSwap<Settings>,
    seat: Mutex<Seat>,
    counters: SchedulingCounters,
    /// When the scheduler is to tick next; [`NEVER`] when it does not want to.
    next_tick_ms: AtomicU64,
    /// When the roster is to be settled next although nobody changes it; or [`NEVER`].
    next_deadline_ms: AtomicU64,
}

/// In place of the time of a tick.
const NEVER: u64 = u64::MAX;

/// Events that a scheduler is told of before a decision at most, so that one connection does not
/// wait for what a flood of others left to tell.
const EVENTS_BEFORE_A_DECISION: usize = 64;

/// How often the lock is taken to tell of so many events when a service is attended to.
const SLICES_OF_EVENTS: usize = 16;

/// Where a new connection goes.
#[derive(Clone, Debug)]
pub(crate) struct Placement {
    pub(crate) server: Arc<RealServer>,
    /// The generation of the scheduler that chose it; 0 when the director did by itself.
    pub(crate) generation: u16,
    pub(crate) is_sorry: bool,
}

impl Placement {
    fn by_director(server: &Arc<RealServer>) -> Self {
        Self { server: Arc::clone(server), generation: 0, is_sorry: false }
    }
}

/// The scheduler, the servers and what belongs to them, behind the service's one lock.
struct Seat {
    scheduler: Box<dyn Scheduler>,
    roster: Roster,
    random: Random,
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").field("id", &self.id).field("name", &self.terms.service).finish()
    }
}

impl Service {
    /// Puts a service to work; `scheduler` is told of its servers here.
    #[must_use]
    pub fn new(config: ServiceConfig, mut scheduler: Box<dyn Scheduler>, now: Moment) -> Self {
        let ServiceConfig { id, terms, settings, members, sorry, seed } = config;
        let roster = Roster::new(settings.rules, members, sorry, now);
        scheduler.servers_changed(roster.servers());
        terms.timeouts.set(&settings.timeouts);
        terms.templates.set(settings.persistence);
        let this = Self {
            id,
            terms,
            settings: ArcSwap::from_pointee(settings),
            seat: Mutex::new(Seat { scheduler, roster, random: Random::new(seed) }),
            counters: SchedulingCounters::default(),
            next_tick_ms: AtomicU64::new(0),
            next_deadline_ms: AtomicU64::new(NEVER),
        };
        {
            let seat = this.seat();
            this.scheduler_changed(&seat);
            this.plan_deadline(&seat, now);
        }
        this
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Its name in the configuration.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.terms.service
    }

    /// What clients connect to; the first of several addresses that it had from the start.
    #[must_use]
    pub fn address(&self) -> ServiceAddress {
        self.terms.address
    }

    /// What its connections live under.
    #[must_use]
    pub fn terms(&self) -> &Arc<Terms> {
        &self.terms
    }

    /// What may be changed about it.
    #[must_use]
    pub fn settings(&self) -> Guard<Arc<Settings>> {
        self.settings.load()
    }

    /// Its real servers, in the order of the configuration, without the sorry server. Waits for the
    /// decision at hand.
    #[must_use]
    pub fn servers(&self) -> Arc<[Arc<RealServer>]> {
        Arc::clone(self.seat().roster.servers())
    }

    /// Looks at its servers between two decisions.
    pub fn look_at_roster<R>(&self, look: impl FnOnce(&Roster) -> R) -> R {
        look(&self.seat().roster)
    }

    /// How its connections were placed so far.
    #[must_use]
    pub fn counters(&self) -> &SchedulingCounters {
        &self.counters
    }

    /// Replaces the scheduler between two decisions. Established connections never notice: they
    /// do not meet it. The old one is returned, to be dropped where that costs nobody time.
    pub fn replace_scheduler(&self, mut scheduler: Box<dyn Scheduler>) -> Box<dyn Scheduler> {
        let mut seat = self.seat();
        scheduler.servers_changed(seat.roster.servers());
        let old = core::mem::replace(&mut seat.scheduler, scheduler);
        self.scheduler_changed(&seat);
        old
    }

    /// Looks at the scheduler between two decisions.
    pub fn look_at_scheduler<R>(&self, look: impl FnOnce(&dyn Scheduler) -> R) -> R {
        look(&*self.seat().scheduler)
    }

    /// Changes the scheduler between two decisions. It ticks right after.
    pub fn change_scheduler<R>(
        &self,
        act: impl FnOnce(&mut dyn Scheduler, &[Arc<RealServer>]) -> R,
    ) -> R {
        let seat = &mut *self.seat();
        let result = act(&mut *seat.scheduler, seat.roster.servers());
        self.scheduler_changed(seat);
        result
    }

    /// Changes how the server at `address` stands. Who serves from now on, if there is such a
    /// server. Waits for the decision at hand.
    pub fn change_server(
        &self,
        address: SocketAddr,
        now: Moment,
        change: impl FnOnce(&mut Standing),
    ) -> Option<Stage> {
        let seat = &mut *self.seat();
        if seat.roster.change(address, now, change)? {
            self.roster_changed(seat, now);
        }
        Some(seat.roster.stage())
    }

    /// Changes how all servers stand, each of which `change` gets by its address, and returns who
    /// serves now. Nothing happens where that makes no difference.
    pub fn change_servers(
        &self,
        now: Moment,
        change: impl FnMut(SocketAddr, &mut Standing),
    ) -> Stage {
        let seat = &mut *self.seat();
        if seat.roster.change_all(now, change) {
            self.roster_changed(seat, now);
        }
        seat.roster.stage()
    }

    /// Puts other settings, servers and sorry server in place of the present ones. Who is not among
    /// `members` any more leaves as `drain` says, and keeps its connections until then.
    pub fn reconfigure(
        &self,
        settings: Settings,
        members: Vec<Member>,
        sorry: Option<Arc<RealServer>>,
        drain: Drain,
        now: Moment,
    ) {
        self.terms.timeouts.set(&settings.timeouts);
        self.terms.templates.set(settings.persistence);
        let seat = &mut *self.seat();
        seat.roster.replace(settings.rules, members, sorry, drain, now);
        self.settings.store(Arc::new(settings));
        self.roster_changed(seat, now);
    }

    /// Has all servers leave, since the service was taken away. Their connections go on as `drain`
    /// says.
    pub fn retire(&self, drain: Drain, now: Moment) {
        let seat = &mut *self.seat();
        let rules = *seat.roster.rules();
        seat.roster.replace(rules, Vec::new(), None, drain, now);
        self.roster_changed(seat, now);
    }

    /// Forgets servers that were taken away and have no connections any more. Whether there were
    /// any.
    pub fn dismiss_empty(&self) -> bool {
        self.seat().roster.dismiss_empty()
    }

    /// Does what is due besides decisions: ends drains, forgets templates, tells the scheduler of
    /// events that wait, 1,024 at most, and lets it tick. To be called about every 100 ms, and when
    /// a tick is due. Returns when the next one is. Cost when there is nothing to do: four loads.
    pub fn attend(&self, now: Moment) -> Option<Moment> {
        let now_ms = now.as_millis();
        if self.next_deadline_ms.load(Relaxed) <= now_ms {
            let seat = &mut *self.seat();
            seat.roster.settle(now);
            self.roster_changed(seat, now);
        }
        self.terms.templates.sweep(now);
        let is_due = self.next_tick_ms.load(Relaxed) <= now_ms;
        if is_due || self.terms.events.has_any() {
            for _ in 1..SLICES_OF_EVENTS {
                if !self.terms.events.has_any() {
                    break;
                }
                // Connections may come in between.
                self.tell(&mut self.seat(), EVENTS_BEFORE_A_DECISION);
            }
            let seat = &mut *self.seat();
            self.tell(seat, EVENTS_BEFORE_A_DECISION);
            // Looked at again: another thread may have been faster.
            if self.next_tick_ms.load(Relaxed) <= now_ms {
                let request = Request {
                    service_id: self.id,
                    now_ms,
                    random: seat.random.next(),
                    ..Request::default()
                };
                let next = seat.scheduler.tick(&request, seat.roster.servers());
                let next_ms = next.map_or(NEVER, |pause_ms| now_ms.saturating_add(pause_ms));
                self.next_tick_ms.store(next_ms, Relaxed);
            }
        }
        match self.next_tick_ms.load(Relaxed) {
            NEVER => None,
            next_ms => Some(Moment::from_millis(next_ms)),
        }
    }

    /// The server for a new connection of `client`; `None` when no server may take it. `request`
    /// needs neither service nor random number filled in. Cost: the service's lock and the
    /// scheduler's time.
    pub(crate) fn place(&self, client: IpAddr, request: Request, now: Moment) -> Option<Placement> {
        let templates = &self.terms.templates;
        if !templates.are_on() {
            return self.pick(request, now);
        }
        let mut book = templates.lock();
        if let Some(template) = book.follow(client, now) {
            self.counters.persistent.count();
            let server = Arc::clone(&template.server);
            return Some(Placement { server, generation: template.generation, is_sorry: false });
        }
        let placement = self.pick(request, now)?;
        // Who got no more than an excuse is scheduled again next time.
        if !placement.is_sorry {
            templates.note(&mut book, client, &placement.server, placement.generation, now);
        }
        Some(placement)
    }

    /// The same for a client that is in no template.
    fn pick(&self, mut request: Request, now: Moment) -> Option<Placement> {
        request.service_id = self.id;
        let seat = &mut *self.seat();
        if self.terms.has_changed.load(Relaxed) && self.terms.has_changed.swap(false, Relaxed) {
            seat.scheduler.servers_changed(seat.roster.servers());
        }
        if self.terms.events.has_any() {
            self.tell(seat, EVENTS_BEFORE_A_DECISION);
        }
        request.random = seat.random.next();
        let Seat { scheduler, roster, random } = seat;
        if roster.stage() == Stage::Sorry {
            return self.sorry(roster);
        }
        let servers = roster.servers();
        let picked = match scheduler.schedule(&request, servers) {
            Pick::Server(index) => servers.get(index).filter(|server| server.weight() > 0),
            Pick::NoServer => return self.sorry(roster),
            Pick::Defer => None,
        };
        let Some(picked) = picked else {
            let Some(server) = least_loaded(servers, None) else { return self.sorry(roster) };
            self.counters.fallback.count();
            return Some(Placement::by_director(server));
        };
        let slow_start = roster.rules().slow_start;
        if !slow_start.is_zero()
            && u64::from(picked.share(now, slow_start)) <= random.next() & 1_023
            && let Some(server) = least_loaded(servers, Some(picked.id()))
        {
            self.counters.spared.count();
            return Some(Placement::by_director(server));
        }
        self.counters.picked.count();
        let (server, generation) = (Arc::clone(picked), scheduler.generation());
        Some(Placement { server, generation, is_sorry: false })
    }

    /// The sorry server, since nobody else takes a connection.
    #[cold]
    fn sorry(&self, roster: &Roster) -> Option<Placement> {
        let Some(server) = roster.sorry() else {
            self.counters.no_server.count();
            return None;
        };
        self.counters.sorry.count();
        Some(Placement { is_sorry: true, ..Placement::by_director(server) })
    }

    /// What [`place`](Self::place) would go by. Nothing changes.
    pub(crate) fn prospect(
        self: &Arc<Self>,
        client: IpAddr,
        request: Request,
        now: Moment,
    ) -> Scheduling {
        let template = self.terms.templates.find(client, now);
        let seat = self.seat();
        let mut random = seat.random.clone();
        let request = Request { service_id: self.id, random: random.next(), ..request };
        let slow_start = seat.roster.rules().slow_start;
        let spared_up_to = u32::try_from(random.next() & 1_023).unwrap_or(0);
        let share = |server: &Arc<RealServer>| {
            if slow_start.is_zero() { u32::MAX } else { server.share(now, slow_start) }
        };
        Scheduling {
            service: Arc::clone(self),
            is_one_packet: self.settings().is_one_packet,
            template,
            stage: seat.roster.stage(),
            members: seat.roster.members().collect(),
            sorry: seat.roster.sorry().cloned(),
            request,
            spared_up_to,
            shares: seat.roster.servers().iter().map(share).collect(),
        }
    }

    /// Tells the scheduler of at most so many events.
    #[cold]
    fn tell(&self, seat: &mut Seat, events_max: usize) {
        let events = &self.terms.events;
        for event in core::iter::from_fn(|| events.pop()).take(events_max) {
            seat.scheduler.event(&event, seat.roster.servers());
        }
    }

    /// What the scheduler in the seat wants, from now on.
    fn scheduler_changed(&self, seat: &Seat) {
        self.terms.events.want(seat.scheduler.wants_events());
        self.next_tick_ms.store(0, Relaxed);
    }

    /// Tells the scheduler of other servers or weights.
    fn roster_changed(&self, seat: &mut Seat, now: Moment) {
        self.terms.has_changed.store(false, Relaxed);
        seat.scheduler.servers_changed(seat.roster.servers());
        self.plan_deadline(seat, now);
    }

    fn plan_deadline(&self, seat: &Seat, now: Moment) {
        let next = seat.roster.next_deadline(now);
        self.next_deadline_ms.store(next.map_or(NEVER, Moment::as_millis), Relaxed);
    }

    /// A scheduler that panicked left its own state behind, nothing of ours: carry on with it.
    fn seat(&self) -> MutexGuard<'_, Seat> {
        self.seat.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The server that the director would choose by itself, but not the one with the number `other`.
fn least_loaded(servers: &[Arc<RealServer>], other: Option<u32>) -> Option<&Arc<RealServer>> {
    let may = |server: &RealServer| other != Some(server.id());
    weighted_least_connections(servers, may).and_then(|index| servers.get(index))
}
