//! A virtual service: an address of the director's, its real servers and its scheduler.

use core::fmt;
use core::net::{IpAddr, SocketAddr};
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use wvs_abi::Request;

use crate::connection::state::Timeouts;
use crate::connection::tuple::Endpoint;
use crate::event::EventQueue;
use crate::packet::address::Address;
use crate::pool::Pool;
pub use crate::protocol::Protocol;
use crate::random::Random;
use crate::real_server::RealServer;
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

/// What the connections of a virtual service live under.
#[derive(Debug)]
pub struct Terms {
    /// What clients connect to.
    pub address: ServiceAddress,
    /// How long silent ones live.
    pub timeouts: Timeouts,
    /// How they are translated.
    pub forwarding: Forwarding,
    /// What the scheduler is yet to be told of them.
    pub events: EventQueue,
}

impl Terms {
    /// NAT with the default timeouts.
    #[must_use]
    pub fn new(address: ServiceAddress) -> Self {
        Self {
            address,
            timeouts: Timeouts::default(),
            forwarding: Forwarding::default(),
            events: EventQueue::default(),
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
}

/// A virtual service as configured.
#[derive(Debug)]
pub struct ServiceConfig {
    /// Unique within the director.
    pub id: u32,
    /// Unique within the director, for people.
    pub name: String,
    /// Its address, and what its connections live under; its real servers have the same.
    pub terms: Arc<Terms>,
    /// See [`OnNoServer`].
    pub on_no_server: OnNoServer,
    /// See [`OnStray`].
    pub on_stray: OnStray,
    /// The real servers, in the order that schedulers see them in.
    pub servers: Vec<Arc<RealServer>>,
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
    /// Connections that no server could take.
    pub no_server: Counter,
}

/// A virtual service at work.
pub struct Service {
    config: ServiceConfig,
    seat: Mutex<Seat>,
    counters: SchedulingCounters,
    /// When the scheduler is to tick next; [`NEVER`] when it does not want to.
    next_tick_ms: AtomicU64,
}

/// In place of the time of a tick.
const NEVER: u64 = u64::MAX;

/// Events that a scheduler is told of before a decision at most, so that one connection does not
/// wait for what a flood of others left to tell.
const EVENTS_BEFORE_A_DECISION: usize = 64;

/// How often the lock is taken to tell of so many events when a service is attended to.
const SLICES_OF_EVENTS: usize = 16;

/// Where a new connection goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placement<'a> {
    pub(crate) server: &'a Arc<RealServer>,
    /// The generation of the scheduler that chose it; 0 when the director did by itself.
    pub(crate) generation: u16,
}

/// The scheduler and what belongs to it, behind the service's one lock.
struct Seat {
    scheduler: Box<dyn Scheduler>,
    random: Random,
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Service {
    /// Puts a service to work; `scheduler` is told of its servers here.
    #[must_use]
    pub fn new(config: ServiceConfig, mut scheduler: Box<dyn Scheduler>) -> Self {
        scheduler.servers_changed(&config.servers);
        let random = Random::new(config.seed);
        let this = Self {
            config,
            seat: Mutex::new(Seat { scheduler, random }),
            counters: SchedulingCounters::default(),
            next_tick_ms: AtomicU64::new(0),
        };
        this.scheduler_changed(&this.seat());
        this
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.config.id
    }

    /// Its name in the configuration.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// What clients connect to.
    #[must_use]
    pub fn address(&self) -> ServiceAddress {
        self.config.terms.address
    }

    /// What its connections live under.
    #[must_use]
    pub fn terms(&self) -> &Terms {
        &self.config.terms
    }

    /// Its real servers, in the order of the configuration.
    #[must_use]
    pub fn servers(&self) -> &[Arc<RealServer>] {
        &self.config.servers
    }

    /// How its connections were placed so far.
    #[must_use]
    pub fn counters(&self) -> &SchedulingCounters {
        &self.counters
    }

    pub(crate) fn on_no_server(&self) -> OnNoServer {
        self.config.on_no_server
    }

    pub(crate) fn on_stray(&self) -> OnStray {
        self.config.on_stray
    }

    /// Replaces the scheduler between two decisions. Established connections never notice: they
    /// do not meet it. The old one is returned, to be dropped where that costs nobody time.
    pub fn replace_scheduler(&self, mut scheduler: Box<dyn Scheduler>) -> Box<dyn Scheduler> {
        let mut seat = self.seat();
        scheduler.servers_changed(&self.config.servers);
        let old = core::mem::replace(&mut seat.scheduler, scheduler);
        self.scheduler_changed(&seat);
        old
    }

    /// Looks at the scheduler between two decisions.
    pub fn look_at_scheduler<R>(&self, look: impl FnOnce(&dyn Scheduler) -> R) -> R {
        look(&*self.seat().scheduler)
    }

    /// Changes the scheduler between two decisions. It ticks right after.
    pub fn change_scheduler<R>(&self, act: impl FnOnce(&mut dyn Scheduler) -> R) -> R {
        let mut seat = self.seat();
        let result = act(&mut *seat.scheduler);
        self.scheduler_changed(&seat);
        result
    }

    /// Tells the scheduler that a weight was changed.
    pub fn servers_changed(&self) {
        self.seat().scheduler.servers_changed(&self.config.servers);
    }

    /// Does what is due besides decisions: tells the scheduler of events that wait, 1,024 at most,
    /// and lets it tick. To be called about every 100 ms, and when a tick is due. Returns when the
    /// next one is. Cost when there is nothing to do: two loads.
    pub fn attend(&self, now: Moment) -> Option<Moment> {
        let now_ms = now.as_millis();
        let is_due = self.next_tick_ms.load(Relaxed) <= now_ms;
        if is_due || self.config.terms.events.has_any() {
            for _ in 1..SLICES_OF_EVENTS {
                if !self.config.terms.events.has_any() {
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
                    service_id: self.config.id,
                    now_ms,
                    random: seat.random.next(),
                    ..Request::default()
                };
                let next = seat.scheduler.tick(&request, &self.config.servers);
                let next_ms = next.map_or(NEVER, |pause_ms| now_ms.saturating_add(pause_ms));
                self.next_tick_ms.store(next_ms, Relaxed);
            }
        }
        match self.next_tick_ms.load(Relaxed) {
            NEVER => None,
            next_ms => Some(Moment::from_millis(next_ms)),
        }
    }

    /// The server for a new connection; `None` when no server may take it. `request` needs neither
    /// service nor random number filled in. Cost: the service's lock and the scheduler's time.
    pub(crate) fn pick(&self, mut request: Request) -> Option<Placement<'_>> {
        let servers = self.servers();
        request.service_id = self.config.id;
        let (pick, generation) = {
            let seat = &mut *self.seat();
            if self.config.terms.events.has_any() {
                self.tell(seat, EVENTS_BEFORE_A_DECISION);
            }
            request.random = seat.random.next();
            (seat.scheduler.schedule(&request, servers), seat.scheduler.generation())
        };
        let picked = match pick {
            Pick::Server(index) => servers.get(index).filter(|server| server.weight() > 0),
            Pick::NoServer => {
                self.counters.no_server.count();
                return None;
            }
            Pick::Defer => None,
        };
        if let Some(server) = picked {
            self.counters.picked.count();
            return Some(Placement { server, generation });
        }
        let fallback = weighted_least_connections(servers).and_then(|index| servers.get(index));
        match fallback {
            Some(_) => self.counters.fallback.count(),
            None => self.counters.no_server.count(),
        }
        Some(Placement { server: fallback?, generation: 0 })
    }

    /// Tells the scheduler of at most so many events.
    #[cold]
    fn tell(&self, seat: &mut Seat, events_max: usize) {
        let events = &self.config.terms.events;
        for event in core::iter::from_fn(|| events.pop()).take(events_max) {
            seat.scheduler.event(&event, &self.config.servers);
        }
    }

    /// What the scheduler in the seat wants, from now on.
    fn scheduler_changed(&self, seat: &Seat) {
        self.config.terms.events.want(seat.scheduler.wants_events());
        self.next_tick_ms.store(0, Relaxed);
    }

    /// A scheduler that panicked left its own state behind, nothing of ours: carry on with it.
    fn seat(&self) -> MutexGuard<'_, Seat> {
        self.seat.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All virtual services of a director.
#[derive(Debug, Default)]
pub struct Services {
    list: Vec<Arc<Service>>,
    /// Every real server at its number.
    servers: Vec<Option<Arc<RealServer>>>,
    by_address: HashMap<ServiceAddress, Arc<Service>, foldhash::fast::FixedState>,
    vips: HashSet<IpAddr, foldhash::fast::FixedState>,
    real_servers: HashSet<(Protocol, SocketAddr), foldhash::fast::FixedState>,
    rips: HashSet<IpAddr, foldhash::fast::FixedState>,
    locals: HashSet<IpAddr, foldhash::fast::FixedState>,
}

impl Services {
    /// Indexes `list`. Of two services with one address the later one is reached.
    #[must_use]
    pub fn new(list: Vec<Arc<Service>>) -> Self {
        let mut by_address = HashMap::default();
        let mut servers = Vec::new();
        let mut vips = HashSet::default();
        let mut real_servers = HashSet::default();
        let mut rips = HashSet::default();
        let mut locals = HashSet::default();
        for service in &list {
            by_address.insert(service.address(), Arc::clone(service));
            vips.insert(service.address().vip);
            let protocol = service.address().protocol;
            for server in service.servers() {
                real_servers.insert((protocol, server.address()));
                rips.insert(server.address().ip());
                place(&mut servers, server);
                locals.extend(server.terms().pool().into_iter().flat_map(Pool::addresses));
            }
        }
        Self { list, servers, by_address, vips, real_servers, rips, locals }
    }

    /// Every service, in the order of the configuration.
    #[must_use]
    pub fn list(&self) -> &[Arc<Service>] {
        &self.list
    }

    /// The real server with this number.
    #[inline]
    pub(crate) fn server(&self, id: u32) -> Option<&RealServer> {
        self.servers.get(usize::try_from(id).ok()?)?.as_deref()
    }

    /// The service at exactly this address.
    #[must_use]
    pub fn find(&self, address: &ServiceAddress) -> Option<&Arc<Service>> {
        self.by_address.get(address)
    }

    /// Whether some service has a real server at this address and port.
    #[must_use]
    pub fn is_real_server(&self, protocol: Protocol, address: SocketAddr) -> bool {
        self.real_servers.contains(&(protocol, address))
    }

    /// Whether some service has a real server at this address, whatever the port.
    #[must_use]
    pub fn is_rip(&self, address: IpAddr) -> bool {
        self.rips.contains(&address)
    }

    /// Whether some service has this address in its pool.
    #[must_use]
    pub fn is_local(&self, address: IpAddr) -> bool {
        self.locals.contains(&address)
    }

    /// Whether some service has this virtual address.
    #[must_use]
    pub fn is_vip(&self, address: IpAddr) -> bool {
        self.vips.contains(&address)
    }
}

/// Puts a server at its number, if that is no larger than numbers counted up ever are.
fn place(servers: &mut Vec<Option<Arc<RealServer>>>, server: &Arc<RealServer>) {
    const NUMBERS_MAX: usize = 1 << 24;
    let Some(id) = usize::try_from(server.id()).ok().filter(|id| *id < NUMBERS_MAX) else { return };
    if servers.len() <= id {
        servers.resize(id.saturating_add(1), None);
    }
    if let Some(place) = servers.get_mut(id) {
        *place = Some(Arc::clone(server));
    }
}
