//! The running director: everything put together, and taken apart again in the reverse order.

mod health;
mod pulse;
mod reread;
mod watch;
mod ways;

use std::cell::Cell;
use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant, SystemTime};

use tokio::task::{JoinError, JoinHandle, spawn_blocking, yield_now};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use wvs_core::connection::Connection;
use wvs_core::connection::table::Table;
use wvs_core::director::{Director, DirectorConfig};
use wvs_core::explain::Question;
use wvs_core::packet::address::Address;
use wvs_core::real_server::RealServer;
use wvs_core::service::Terms;
use wvs_core::time::Moment;
use wvs_health::{Checkers, ServerKey};
use wvs_plugin::{Host, HostError, InstanceError};

pub use pulse::{Pulse, Stalled};
use ways::Roads;

use crate::clock::Clock;
use crate::config::{Config, ForwardingConfig, RoutingMode};
use crate::connection_log::{ConnectionLog, OpenError};
use crate::control::snapshot::{
    ChangeSnapshot, ConnectionFilter, ConnectionList, ConnectionSnapshot, DeviceSnapshot,
    ExplanationSnapshot, HealthSnapshot, PluginsSnapshot, ReloadSnapshot, ServerStanding,
    ServiceSnapshot, ServicesSnapshot, StatsSnapshot,
};
use crate::control::{
    AccessCounters, Answers, CONNECTIONS_LISTED, ClaimError, ControlServer, ControlSocket,
    TokenListener,
};
use crate::deployment::{Deployment, Misfit};
use crate::device::{Device, DeviceCounters, DeviceError, DeviceNeeds, Offload, PacketLoop};
use crate::explain::explain;
use crate::logging;
use crate::metrics::Scrape;
use crate::metrics::counters::{ReloadCounters, SweepCounters, seconds_since_1970};
use crate::metrics::process::Process;
use crate::operation::reload::ReloadError;
use crate::operation::servers::ServerAction;
use crate::operation::{self, Action, ChangeError, Operation};
use crate::route::{self, RouteError, RouteNeeds};
use crate::seat::Seat;
use crate::tap::{CaptureRefusal, CaptureRequest, Recording, Tap};

/// The version in listings and answers.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Why a director could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Plugins of the configuration do not work.
    #[error("{}", list(.0))]
    Misfits(Vec<Misfit>),
    /// No plugin works here.
    #[error(transparent)]
    Host(#[from] HostError),
    /// No device.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// No control socket.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// No routes.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// No connection log.
    #[error(transparent)]
    ConnectionLog(#[from] OpenError),
    /// The control socket cannot be watched.
    #[error("the control socket cannot be served: {0}")]
    Serve(io::Error),
    /// A bug of ours.
    #[error("loading the plugins panicked: this is a bug in wvs, please report the message above")]
    Panicked(#[from] JoinError),
}

/// A director at work. [`stop`](Self::stop) ends it; dropped without, it leaves its routes to the
/// next start to clean up.
#[derive(Debug)]
pub struct Running {
    state: Arc<State>,
    packets: PacketLoop,
    roads: Roads,
    routing_commands: Option<String>,
    control: ControlServer,
    timers: [Timer; 7],
}

/// What the director knows about itself, for whoever asks.
#[derive(Debug)]
struct State {
    director: Arc<Director>,
    operation: Arc<Operation>,
    checkers: Arc<Checkers>,
    clock: Clock,
    /// The time of day at the start.
    started: SystemTime,
    device_name: String,
    device_mtu: Arc<AtomicU16>,
    device_queues: usize,
    device_offload: Offload,
    device_counters: Arc<DeviceCounters>,
    access: Arc<AccessCounters>,
    tap: Arc<Tap>,
    sweeps: SweepCounters,
    reloads: ReloadCounters,
}

/// A task that ends with its owner.
#[derive(Debug)]
struct Timer(JoinHandle<()>);

impl Drop for Timer {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Running {
    /// Starts a director with what was read from `file`, in the network namespace of the current
    /// thread, which must be one of a tokio runtime. Everything that can fail without touching the host comes first: plugins,
    /// device and control socket before routes.
    ///
    /// # Errors
    /// See [`StartError`]. What was set already is taken back.
    pub async fn start(config: &Config, file: &Path) -> Result<Self, StartError> {
        let host = Host::new()?;
        let clock = Clock::start();
        let deployment = {
            let (config, host, now) = (config.clone(), host.clone(), clock.now());
            spawn_blocking(move || Deployment::new(&config, &host, random_seed, now)).await?
        };
        let Deployment { services, seats, numbers } = deployment.map_err(StartError::Misfits)?;
        let director = Arc::new(Director::new(director_config(config, random_seed()), services));
        let connection_log = ConnectionLog::new(Arc::clone(&director), clock);
        connection_log.apply(config.connection_log.as_ref())?;

        let needs = route_needs(config);
        let mtu = match config.device.mtu {
            Some(mtu) => mtu,
            None => route::mtu(&needs).await?,
        };
        let device = Device::open(&DeviceNeeds {
            name: config.device.name.clone(),
            mtu,
            queues: config.device.queues,
            offload: config.device.offload,
            vips: needs.vips.clone(),
        })?;
        let socket = ControlSocket::claim(&config.socket, &config.admin)?;
        let access = Arc::<AccessCounters>::default();
        let listener = match &config.admin.tcp {
            Some(tcp) => Some(TokenListener::claim(tcp, Arc::clone(&access))?),
            None => None,
        };
        let (routing, routing_commands) = match config.routing {
            RoutingMode::Managed => (Some(route::set_up(&needs).await?), None),
            RoutingMode::Print => (None, Some(route::print(&needs).await?)),
            RoutingMode::Off => (None, None),
        };
        let device_mtu = Arc::new(AtomicU16::new(mtu));
        let is_mtu_auto = config.device.mtu.is_none();
        let mtu = Arc::clone(&device_mtu);
        let following = route::follow(needs.clone(), is_mtu_auto, mtu, routing.as_ref()).await;
        let (device_name, device_queues) = (device.name().to_owned(), device.queues());
        let device_offload = device.offload();
        let tap = Arc::<Tap>::default();
        let started = following.map_err(StartError::Route).and_then(|follower| {
            Ok((follower, PacketLoop::start(device, &director, clock, &tap)?))
        });
        let (follower, packets) = match started {
            Ok(started) => started,
            Err(error) => {
                if let Some(routing) = routing {
                    // The reason for stopping matters more than what is left of the routes, which
                    // the next start takes back.
                    let _ = routing.take_back().await;
                }
                return Err(error);
            }
        };
        let roads = Roads::new(needs, routing, follower, Arc::clone(packets.steering()));
        let operation = Arc::new(Operation::new(operation::Parts {
            host,
            director: Arc::clone(&director),
            clock,
            ways: Box::new(roads.clone()),
            connection_log,
            seats,
            numbers,
            config: config.clone(),
            file: file.to_owned(),
        }));
        let (checkers, news) = health::start(config);
        let state = Arc::new(State {
            director: Arc::clone(&director),
            operation: Arc::clone(&operation),
            checkers: Arc::clone(&checkers),
            clock,
            started: SystemTime::now(),
            device_name,
            device_mtu,
            device_queues,
            device_offload,
            device_counters: Arc::clone(packets.counters()),
            access,
            tap,
            sweeps: SweepCounters::default(),
            reloads: ReloadCounters::default(),
        });
        let answers: Arc<dyn Answers> = Arc::clone(&state) as _;
        let serving = ControlServer::start(socket, answers).and_then(|mut control| {
            if let Some(listener) = listener {
                control.listen(listener)?;
            }
            Ok(control)
        });
        let control = match serving {
            Ok(control) => control,
            Err(error) => {
                let _ = roads.take_back().await;
                return Err(StartError::Serve(error));
            }
        };
        Ok(Self {
            timers: [
                Timer(tokio::spawn(sweep(Arc::clone(&state)))),
                Timer(tokio::spawn(attend(director, clock))),
                Timer(tokio::spawn(watch::watch(Arc::clone(&state)))),
                Timer(tokio::spawn(operation::watch::watch(Arc::clone(&operation)))),
                Timer(tokio::spawn(tidy(Arc::clone(&operation)))),
                Timer(tokio::spawn(reread::watch(Arc::clone(&state)))),
                Timer(tokio::spawn(health::watch(operation, checkers, news))),
            ],
            state,
            packets,
            roads,
            routing_commands,
            control,
        })
    }

    /// The director.
    #[must_use]
    pub fn director(&self) -> &Arc<Director> {
        &self.state.director
    }

    /// The services and who schedules for them, in the order of the configuration.
    #[must_use]
    pub fn seats(&self) -> Arc<Vec<Arc<Seat>>> {
        self.state.operation.seats()
    }

    /// What the configuration says that is at work.
    #[must_use]
    pub fn config(&self) -> Arc<Config> {
        self.state.operation.config()
    }

    /// Tells each time that the configuration was read again, whoever asked for it, and whether it
    /// was put to work.
    #[must_use]
    pub fn reloads(&self) -> tokio::sync::watch::Receiver<bool> {
        self.state.operation.reloads()
    }

    /// The control socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        self.control.socket().path()
    }

    /// The commands that set routes, rules and sysctls, where the configuration asks for them.
    #[must_use]
    pub fn routing_commands(&self) -> Option<&str> {
        self.routing_commands.as_deref()
    }

    /// What `GET /v1/services` answers now.
    #[must_use]
    pub fn services(&self) -> ServicesSnapshot {
        self.state.services()
    }

    /// What `GET /v1/stats` answers now.
    #[must_use]
    pub fn stats(&self) -> StatsSnapshot {
        self.state.stats()
    }

    /// Does something about the scheduler of a service. No connection notices.
    ///
    /// # Errors
    /// See [`ChangeError`]; the old scheduler stays.
    pub async fn change_scheduler(
        &self,
        service: &str,
        action: Action,
    ) -> Result<ChangeSnapshot, ChangeError> {
        let (operation, service) = (Arc::clone(&self.state.operation), service.to_owned());
        spawn_blocking(move || operation.change(&service, action)).await?
    }

    /// Reads the configuration again and puts it to work.
    ///
    /// # Errors
    /// See [`ReloadError`]; nothing has changed.
    pub async fn reload(&self) -> Result<ReloadSnapshot, ReloadError> {
        let state = Arc::clone(&self.state);
        spawn_blocking(move || state.reload()).await?
    }

    /// Waits until the device fails; for ever while it works. May be dropped and called again.
    pub async fn failed(&mut self) -> DeviceError {
        self.packets.failed().await
    }

    /// For whoever wants to know whether the director is alive.
    #[must_use]
    pub fn pulse(&self) -> Pulse {
        let tasks = self.timers.iter().map(|timer| timer.0.abort_handle());
        let tasks = tasks.chain(self.control.tasks()).collect();
        Pulse { packets: self.packets.pulse(), tasks }
    }

    /// Stops: the control socket is removed, routes are taken back, the device vanishes.
    ///
    /// # Errors
    /// Some route, rule or setting could not be taken back. Everything else was.
    pub async fn stop(self) -> Result<(), RouteError> {
        let Self { state, packets, roads, control, timers, .. } = self;
        end_captures(&state.tap).await;
        drop(control);
        drop(timers);
        let taken_back = roads.take_back().await;
        packets.stop();
        state.operation.connection_log().stop();
        taken_back
    }
}

impl Answers for State {
    fn services(&self) -> ServicesSnapshot {
        let (seats, now) = (self.operation.seats(), self.clock.now());
        let reports = self.checkers.reports().into_iter();
        let reports: HashMap<_, _> =
            reports.map(|report| (report.key.clone(), HealthSnapshot::from(report))).collect();
        let mut services: Vec<_> =
            seats.iter().map(|seat| ServiceSnapshot::of(seat, now)).collect();
        for service in &mut services {
            for server in &mut service.servers {
                let key = ServerKey { service: service.name.clone(), server: server.address };
                server.health = reports.get(&key).cloned();
            }
        }
        ServicesSnapshot {
            version: VERSION.to_owned(),
            connections_max: self.director.config().limits.connections,
            services,
        }
    }

    fn plugins(&self) -> PluginsSnapshot {
        PluginsSnapshot {
            version: VERSION.to_owned(),
            services: self.operation.seats().iter().map(|seat| seat.as_ref().into()).collect(),
        }
    }

    fn connections(&self, filter: &ConnectionFilter) -> Option<ConnectionList> {
        let limit = filter.limit.unwrap_or(CONNECTIONS_LISTED);
        let (terms, total) = match &filter.service {
            Some(name) => {
                let seats = self.operation.seats();
                let service = seats.iter().find(|seat| seat.service().name() == name)?.service();
                let connections = |server: &Arc<RealServer>| server.connections() as usize;
                let total = service.look_at_roster(|roster| {
                    let servers = roster.servers().iter().chain(roster.sorry());
                    servers.chain(roster.leaving()).map(connections).sum()
                });
                (Some(Arc::clone(service.terms())), total)
            }
            None => (None, self.director.connections()),
        };
        let (tables, now) = (self.director.tables(), self.clock.now());
        let mut list = ConnectionList::default();
        list_connections(tables.v4(), limit, filter, terms.as_ref(), now, &mut list);
        list_connections(tables.v6(), limit, filter, terms.as_ref(), now, &mut list);
        // How many of some kind there are is counted nowhere: they had to be found.
        if !filter.is_particular() {
            list.total = total;
        }
        Some(list)
    }

    fn explain(&self, question: &Question) -> Result<ExplanationSnapshot, InstanceError> {
        explain(&self.director, question, self.clock.now())
    }

    fn change(&self, service: &str, action: Action) -> Result<ChangeSnapshot, ChangeError> {
        self.operation.change(service, action)
    }

    fn change_server(
        &self,
        service: &str,
        server: &str,
        action: ServerAction,
    ) -> Result<ServerStanding, ChangeError> {
        self.operation.change_server(service, server, action)
    }

    fn preview(&self, text: &str) -> Result<ReloadSnapshot, ReloadError> {
        self.operation.preview(text)
    }

    fn recording(&self, service: &str) -> Result<Vec<u8>, ChangeError> {
        self.operation.recording(service)
    }

    fn reload(&self) -> Result<ReloadSnapshot, ReloadError> {
        let reloaded = self.operation.reload();
        self.reloads.count(reloaded.is_ok());
        if reloaded.is_err() {
            // Who moved its file away counts on a new one, whatever else is wrong.
            self.operation.connection_log().reopen();
        }
        reloaded
    }

    fn metrics(&self) -> String {
        Scrape {
            stats: self.stats(),
            services: self.services().services,
            plugins: self.plugins().services,
            sweeps: self.sweeps.totals(),
            reloads: self.reloads.totals(),
            connection_log: self.operation.connection_log().into(),
            process: Process::look(),
            start_time_seconds: seconds_since_1970(self.started),
            with_servers: self.operation.config().metrics.servers,
        }
        .render()
    }

    fn capture(&self, request: &CaptureRequest) -> Result<Recording, CaptureRefusal> {
        let (device, threads) = (&self.device_name, self.device_queues);
        self.tap.capture(request, &self.director, device, threads)
    }

    fn stats(&self) -> StatsSnapshot {
        let counters = &self.device_counters;
        StatsSnapshot {
            version: VERSION.to_owned(),
            uptime_seconds: self.clock.now().as_millis() / 1_000,
            log_lines_lost: logging::lost_lines(),
            connections: self.director.as_ref().into(),
            packets: self.director.as_ref().into(),
            fragments: self.director.fragments().into(),
            device: DeviceSnapshot {
                name: self.device_name.clone(),
                mtu: self.device_mtu.load(Ordering::Relaxed),
                queues: self.device_queues,
                offload: self.device_offload.name().to_owned(),
                read: counters.read(),
                written: counters.written(),
                read_errors: counters.read_errors(),
                write_errors: counters.write_errors(),
                queue_full: counters.queue_full(),
            },
            admin: self.access.as_ref().into(),
        }
    }
}

/// How long captures have to write their ends when the director stops.
const CAPTURES_END_WITHIN: Duration = Duration::from_millis(200);

/// Ends captures so that their files say how much was missed.
async fn end_captures(tap: &Tap) {
    tap.close();
    let all_ended = async {
        while tap.open() > 0 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    // Whoever does not read gets no end.
    let _ = timeout(CAPTURES_END_WITHIN, all_ended).await;
}

async fn sweep(state: Arc<State>) {
    let mut ticks = interval(Duration::from_millis(Director::SWEEP_INTERVAL_MILLIS));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let start = Instant::now();
        state.director.sweep(state.clock.now());
        state.sweeps.count(start.elapsed());
    }
}

/// The time that schedulers may tick one after the other before others have their turn.
const TURN: Duration = Duration::from_millis(1);

/// Lets every scheduler do what is due besides decisions: ten times a second, and when it is to tick.
async fn attend(director: Arc<Director>, clock: Clock) {
    let pause = Duration::from_millis(Director::SWEEP_INTERVAL_MILLIS);
    loop {
        let mut turn = clock.now();
        let mut due = turn.after(pause);
        let services = Arc::clone(&director.services());
        for service in services.list() {
            let now = clock.now();
            if now >= turn.after(TURN) {
                yield_now().await;
                turn = clock.now();
            }
            due = service.attend(now).map_or(due, |next| next.min(due));
        }
        drop(services);
        // Not at once, whatever a scheduler wishes for.
        let pause = Duration::from_micros(due.micros_since(clock.now()));
        sleep(pause.max(Duration::from_millis(1))).await;
    }
}

/// Between two looks for what nothing needs any more.
const TIDY_INTERVAL: Duration = Duration::from_secs(1);

/// Forgets what connections were the last to need.
async fn tidy(operation: Arc<Operation>) {
    let mut ticks = interval(TIDY_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let operation = Arc::clone(&operation);
        match spawn_blocking(move || operation.tidy()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!("what nothing needs any more cannot be taken back: {error}");
            }
            Err(error) => {
                tracing::error!(%error, "tidying up ends: this is a bug in wvs");
                return;
            }
        }
    }
}

/// Adds a family's connections to `list`, up to `limit`; its total grows by all that are wanted, if
/// the filter wants some in particular.
fn list_connections<A: Address>(
    table: &Table<A>,
    limit: usize,
    filter: &ConnectionFilter,
    of: Option<&Arc<Terms>>,
    now: Moment,
    list: &mut ConnectionList,
) {
    let rest = limit.saturating_sub(list.connections.len());
    let found = Cell::new(0_usize);
    let is_wanted = |connection: &Connection<A>| {
        let is_wanted = of.is_none_or(|terms| Arc::ptr_eq(connection.server().terms(), terms))
            && filter.wants(connection);
        if is_wanted {
            found.set(found.get().saturating_add(1));
        }
        is_wanted && found.get() <= rest
    };
    // With room for one more it looks at all of them, which only counting them needs.
    let most = if filter.is_particular() { rest.saturating_add(1) } else { rest };
    let connections = table.list(most, is_wanted);
    let shown = connections.iter().filter_map(|connection| ConnectionSnapshot::of(connection, now));
    list.connections.extend(shown);
    list.total = list.total.saturating_add(found.get());
}

/// The settings of a director for this configuration; `hash_seed` should be random where packets come
/// from strangers.
pub(crate) fn director_config(config: &Config, hash_seed: u64) -> DirectorConfig {
    DirectorConfig {
        limits: config.limits,
        replies_per_second: config.replies_per_second,
        answer_echo: config.answer_echo,
        closed_port: config.closed_port,
        hash_seed,
    }
}

/// What is to be routed through the director.
#[must_use]
pub fn route_needs(config: &Config) -> RouteNeeds {
    let mut needs = RouteNeeds { device: config.device.name.clone(), ..RouteNeeds::default() };
    for service in &config.services {
        let vips = &service.settings.reach.vips;
        needs.vips.extend(vips);
        let pool = match &service.forwarding {
            ForwardingConfig::Nat => None,
            ForwardingConfig::FullNat(pool) => {
                needs.full_nat_vips.extend(vips);
                Some(pool.addresses.as_slice())
            }
        };
        let servers = service.servers.iter().map(|server| server.address).chain(service.sorry);
        needs.add_servers(service.protocol, pool, servers);
    }
    needs.tidy();
    needs
}

/// A number that nobody outside can guess: the standard library keys its hashes from the
/// operating system's randomness.
pub(crate) fn random_seed() -> u64 {
    RandomState::new().hash_one(0)
}

fn list(misfits: &[Misfit]) -> String {
    misfits.iter().map(Misfit::to_string).collect::<Vec<_>>().join("\n")
}
