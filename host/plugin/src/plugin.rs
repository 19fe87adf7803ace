//! One plugin at work for one virtual service: asked, watched, and made anew when it fails.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use wvs_abi::{Request, Signals, connect_failed, event};
use wvs_core::event::{Event, EventKind};
use wvs_core::real_server::RealServer;
use wvs_core::scheduler::Pick;

use crate::counters::PluginCounters;
use crate::error::InstanceError;
use crate::fault::Fault;
use crate::instance::Instance;
use crate::module::Module;
use crate::quarantine::{Conduct, Consequence};
use crate::rebuild::Rebuild;
use crate::recorder::Recorder;
use crate::recording::Subject;
use crate::rehearsal::Understudy;
use crate::table::ServerTable;

/// A plugin with its configuration at one virtual service.
///
/// An instance that failed is replaced on a thread of the [`Host`](crate::Host)'s; a request never
/// waits for one. Its clock is the requests' `now_ms`.
pub(crate) struct Plugin {
    module: Module,
    config: Option<Arc<str>>,
    generation: u16,
    seat: Seat,
    table: Arc<ServerTable>,
    conduct: Conduct,
    counters: Arc<PluginCounters>,
    recorder: Option<Arc<Recorder>>,
    /// What the latest decision was shown, while it is recorded.
    shown: Shown,
    /// When it is to tick next.
    tick_due_ms: Option<u64>,
    /// The latest request's time, for faults that happen without one.
    now_ms: u64,
    service_id: u32,
    /// Whether an instance of it ever did anything but learn of its first servers.
    has_worked: bool,
}

/// Milliseconds until a plugin without an instance, or one that failed at it, is to tick again.
const TICK_RETRY_MS: u64 = 100;

/// What a plugin is shown of its servers for one decision.
#[derive(Default)]
struct Shown {
    counts: Vec<(u32, u32)>,
    signals: Vec<Signals>,
    /// When signals were shown last: once a millisecond is enough for what changes slowly.
    signals_at_ms: Option<u64>,
}

/// Who answers.
#[expect(clippy::large_enum_variant, reason = "one a service, and on the way of each decision")]
enum Seat {
    Taken(Instance),
    /// An instance with this table is on its way.
    Promised(Rebuild, Arc<ServerTable>),
    Empty,
}

/// What came of asking a plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It answered.
    Pick(Pick),
    /// It failed.
    Fault,
    /// It could not be asked: it is quarantined or being made anew.
    Unavailable,
}

impl Answer {
    /// What the director makes of it: where there is none, it decides by itself.
    #[inline]
    pub(crate) fn pick(self) -> Pick {
        match self {
            Self::Pick(pick) => pick,
            Self::Fault | Self::Unavailable => Pick::Defer,
        }
    }
}

impl Shown {
    /// One decision that is recorded, with exactly what the plugin was shown for it.
    #[cold]
    fn schedule(
        &mut self,
        instance: &mut Instance,
        request: &Request,
        servers: &[Arc<RealServer>],
        recorder: &Recorder,
    ) -> Result<Pick, Fault> {
        self.take_signals(instance, servers);
        instance.set_signals(self.signals.iter().copied());
        self.counts.clear();
        if instance.reads_counters() {
            self.counts.extend(servers.iter().map(|server| (server.active(), server.inactive())));
        }
        let picked = instance.schedule(request, self.counts.iter().copied());
        recorder.decision(request, &self.counts, &self.signals, picked.as_ref().ok().copied());
        picked
    }

    /// The signals of the moment, if the plugin wants any.
    fn take_signals(&mut self, instance: &Instance, servers: &[Arc<RealServer>]) {
        self.signals.clear();
        if instance.wants_signals() {
            self.signals.extend(servers.iter().map(|server| server.signals()));
        }
    }
}

/// The first and the last argument of `wvs_event`.
pub(crate) fn event_numbers(kind: EventKind) -> (u32, u32) {
    match kind {
        EventKind::Bound => (event::BOUND, 0),
        EventKind::Unbound { lifetime_ms } => (event::UNBOUND, lifetime_ms),
        EventKind::Refused => (event::CONNECT_FAILED, connect_failed::REFUSED),
        EventKind::Unanswered => (event::CONNECT_FAILED, connect_failed::UNANSWERED),
    }
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plugin")
            .field("module", &self.module)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

impl Plugin {
    /// Starts an instance of `module` and shows it the servers.
    pub(crate) fn new(
        module: &Module,
        config: Option<&str>,
        table: ServerTable,
    ) -> Result<Self, InstanceError> {
        let mut instance = Instance::new(module, config)?;
        instance.set_servers(&table).map_err(InstanceError::Servers)?;
        let counters = Arc::default();
        instance.count_lines(&counters);
        Ok(Self {
            module: module.clone(),
            config: config.map(Arc::from),
            generation: 1,
            tick_due_ms: instance.has_tick().then_some(0),
            seat: Seat::Taken(instance),
            table: Arc::new(table),
            conduct: Conduct::default(),
            counters,
            recorder: None,
            shown: Shown::default(),
            now_ms: 0,
            service_id: 0,
            has_worked: false,
        })
    }

    pub(crate) fn module(&self) -> &Module {
        &self.module
    }

    pub(crate) fn config(&self) -> Option<&Arc<str>> {
        self.config.as_ref()
    }

    pub(crate) fn generation(&self) -> u16 {
        self.generation
    }

    pub(crate) fn set_generation(&mut self, generation: u16) {
        self.generation = generation;
    }

    pub(crate) fn counters(&self) -> &Arc<PluginCounters> {
        &self.counters
    }

    /// Milliseconds that it stays quarantined, as of its latest request.
    pub(crate) fn quarantined_ms(&self) -> u64 {
        self.conduct.quarantined_ms(self.now_ms)
    }

    /// Octets of memory that its instance has, if it has one.
    pub(crate) fn memory(&self) -> Option<usize> {
        match &self.seat {
            Seat::Taken(instance) => Some(instance.memory()),
            Seat::Promised(..) | Seat::Empty => None,
        }
    }

    /// One decision. Cost without faults: no allocation, no lock.
    #[inline]
    pub(crate) fn schedule(&mut self, request: &Request, servers: &[Arc<RealServer>]) -> Answer {
        self.now_ms = request.now_ms;
        self.service_id = request.service_id;
        self.has_worked = true;
        if servers.len() != self.table.servers.len() {
            self.replace_table(servers);
        }
        if !matches!(self.seat, Seat::Taken(_)) {
            self.fill_seat();
        }
        let Seat::Taken(instance) = &mut self.seat else {
            self.counters.count_unavailable();
            return Answer::Unavailable;
        };
        if let Some(recorder) = &self.recorder {
            let recorder = Arc::clone(recorder);
            let picked = self.shown.schedule(instance, request, servers, &recorder);
            let answer = self.conclude(picked, None);
            self.turn_recording();
            return answer;
        }
        if instance.wants_signals() && self.shown.signals_at_ms != Some(request.now_ms) {
            self.shown.signals_at_ms = Some(request.now_ms);
            instance.set_signals(servers.iter().map(|server| server.signals()));
        }
        let counts = servers.iter().map(|server| (server.active(), server.inactive()));
        // What the clock says is only counted: no answer depends on it.
        let start = self.counters.is_to_be_timed().then(Instant::now);
        let picked = instance.schedule(request, counts);
        self.conclude(picked, start)
    }

    /// Counts a decision, and draws the consequences if it is a fault.
    #[inline(always)]
    fn conclude(&mut self, picked: Result<Pick, Fault>, start: Option<Instant>) -> Answer {
        if let Seat::Taken(instance) = &self.seat {
            self.counters.count_fuel(instance.fuel_used());
        }
        if let Some(start) = start {
            self.counters.count_time(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX));
        }
        match picked {
            Ok(pick) => {
                match pick {
                    Pick::Server(_) => self.counters.count_pick(),
                    Pick::NoServer => self.counters.count_no_server(),
                    Pick::Defer => self.counters.count_defer(),
                }
                Answer::Pick(pick)
            }
            Err(fault) => {
                self.fail(&fault);
                Answer::Fault
            }
        }
    }

    /// A copy of it to be asked in its place.
    pub(crate) fn understudy(&self) -> Understudy {
        Understudy {
            module: self.module.clone(),
            config: self.config.clone(),
            generation: self.generation,
            snapshot: match &self.seat {
                Seat::Taken(instance) => Some(instance.snapshot()),
                Seat::Promised(..) | Seat::Empty => None,
            },
            table: Arc::clone(&self.table),
            quarantined_ms: self.quarantined_ms(),
        }
    }

    /// Tells of new members or weights.
    pub(crate) fn servers_changed(&mut self, servers: &[Arc<RealServer>]) {
        let table = Arc::new(ServerTable::new(servers));
        if table.has_same_servers(&self.table) {
            return;
        }
        self.table = table;
        self.shown.signals_at_ms = None;
        if let Seat::Taken(instance) = &mut self.seat {
            self.has_worked = true;
            if let Some(recorder) = &self.recorder {
                recorder.servers(&self.table);
            }
            if let Err(fault) = instance.set_servers(&self.table) {
                self.fail(&fault);
            }
        }
    }

    /// Has everything recorded from here on, or nothing. One that has not decided yet is recorded
    /// from its beginning.
    pub(crate) fn record(&mut self, recorder: Option<Arc<Recorder>>) {
        self.recorder = recorder;
        let (Some(recorder), Seat::Taken(instance)) = (&self.recorder, &self.seat) else { return };
        if self.has_worked {
            recorder.join(self.subject(), instance.snapshot(), &self.table);
        } else {
            recorder.begin(self.subject(), &self.table);
        }
    }

    /// Begins the recording's next piece if it is time for one.
    fn turn_recording(&self) {
        if let (Some(recorder), Seat::Taken(instance)) = (&self.recorder, &self.seat)
            && recorder.is_turn_due()
        {
            recorder.turn(self.subject(), instance.snapshot());
        }
    }

    /// What identifies it in a recording.
    fn subject(&self) -> Subject {
        let limits = self.module.limits();
        Subject {
            service_id: self.service_id,
            generation: self.generation,
            name: self.module.name().to_owned(),
            sha256: *self.module.sha256(),
            config: self.config.as_deref().map(str::to_owned),
            memory_max: u64::try_from(limits.memory).unwrap_or(u64::MAX),
            fuel: limits.fuel,
            setup_fuel: limits.setup_fuel,
        }
    }

    /// Whether it wants to be told of events; unknown, and so yes, without an instance.
    pub(crate) fn wants_events(&self) -> bool {
        match &self.seat {
            Seat::Taken(instance) => instance.has_event(),
            Seat::Promised(..) | Seat::Empty => true,
        }
    }

    /// Tells of an event. One at a server that is no longer there is passed over.
    pub(crate) fn event(&mut self, happened: &Event) {
        let Seat::Taken(instance) = &mut self.seat else { return };
        if !instance.has_event() {
            return;
        }
        let Some(index) = self.table.index_of(happened.server_id) else { return };
        let (kind, argument) = event_numbers(happened.kind);
        self.counters.count_event();
        self.has_worked = true;
        if let Some(recorder) = &self.recorder {
            recorder.event(kind, index, argument);
        }
        if let Err(fault) = instance.event(kind, index, argument) {
            self.fail(&fault);
        }
        self.turn_recording();
    }

    /// Lets it tick if that is due, and says when it is the next time.
    pub(crate) fn tick(&mut self, request: &Request, servers: &[Arc<RealServer>]) -> Option<u64> {
        let now_ms = request.now_ms;
        self.now_ms = now_ms;
        if self.tick_due_ms? > now_ms {
            return self.tick_due_ms;
        }
        let Seat::Taken(instance) = &mut self.seat else {
            // A new instance ticks first thing.
            self.tick_due_ms = Some(now_ms.saturating_add(TICK_RETRY_MS));
            return self.tick_due_ms;
        };
        self.shown.take_signals(instance, servers);
        instance.set_signals(self.shown.signals.iter().copied());
        self.counters.count_tick();
        self.has_worked = true;
        if let Some(recorder) = &self.recorder {
            recorder.tick(request, &self.shown.signals);
        }
        match instance.tick(request) {
            Ok(wish) => self.tick_due_ms = wish.map(|pause| now_ms.saturating_add(pause.into())),
            Err(fault) => {
                self.tick_due_ms = Some(now_ms.saturating_add(TICK_RETRY_MS));
                self.fail(&fault);
            }
        }
        self.turn_recording();
        self.tick_due_ms
    }

    /// What its successor should know.
    pub(crate) fn save_state(&mut self) -> Option<Vec<u8>> {
        let Seat::Taken(instance) = &mut self.seat else { return None };
        match instance.save_state() {
            Ok(state) => state,
            Err(fault) => {
                // What is in its memory now cannot be trusted; it may have to decide again.
                self.fail(&fault);
                None
            }
        }
    }

    /// Takes what its predecessor saved. Whether it means something to it.
    pub(crate) fn load_state(&mut self, state: &[u8]) -> Result<bool, Fault> {
        match &mut self.seat {
            Seat::Taken(instance) => {
                let is_taken = instance.load_state(state)?;
                if let Some(recorder) = &self.recorder {
                    recorder.state(state, is_taken);
                }
                self.has_worked = true;
                Ok(is_taken)
            }
            Seat::Promised(..) | Seat::Empty => Ok(false),
        }
    }

    /// Forgets all faults, and has a new instance made in place of the one that there is.
    pub(crate) fn reset(&mut self) {
        self.conduct = Conduct::default();
        match core::mem::replace(&mut self.seat, Seat::Empty) {
            Seat::Taken(instance) => self.order(Some(instance)),
            promised @ Seat::Promised(..) => self.seat = promised,
            Seat::Empty => self.order(None),
        }
    }

    /// Has it dropped on another thread: that unmaps memory, for which nobody should wait.
    pub(crate) fn dispose(self) {
        let rebuilder = self.module.rebuilder().clone();
        rebuilder.dispose(self);
    }

    /// Puts the instance that was ordered into the seat, or orders one, unless the plugin is
    /// quarantined. Whether the plugin can be asked now.
    #[cold]
    fn fill_seat(&mut self) -> bool {
        if self.conduct.is_quarantined(self.now_ms) {
            return false;
        }
        match core::mem::replace(&mut self.seat, Seat::Empty) {
            Seat::Taken(instance) => self.seat = Seat::Taken(instance),
            Seat::Empty => self.order(None),
            Seat::Promised(rebuild, table) => match rebuild.poll() {
                None => self.seat = Seat::Promised(rebuild, table),
                Some(Ok(instance)) => self.seat_instance(instance, &table),
                Some(Err(error)) => self.fail(&Fault::Rebuild(Box::new(error))),
            },
        }
        matches!(self.seat, Seat::Taken(_))
    }

    /// Seats a new instance that knows `table`, or has another one made if that is no longer ours:
    /// telling it takes setup fuel, for which no request waits.
    fn seat_instance(&mut self, mut instance: Instance, table: &ServerTable) {
        if self.table.has_same_servers(table) {
            self.counters.count_rebuild();
            instance.count_lines(&self.counters);
            self.shown.signals_at_ms = None;
            self.tick_due_ms = instance.has_tick().then_some(0);
            self.seat = Seat::Taken(instance);
            if let Some(recorder) = &self.recorder {
                recorder.begin(self.subject(), table);
            }
        } else {
            self.order(Some(instance));
        }
    }

    /// Takes over servers that only a request tells of: a new instance learns them elsewhere.
    #[cold]
    fn replace_table(&mut self, servers: &[Arc<RealServer>]) {
        self.table = Arc::new(ServerTable::new(servers));
        match core::mem::replace(&mut self.seat, Seat::Empty) {
            Seat::Taken(instance) => self.order(Some(instance)),
            seat => self.seat = seat,
        }
    }

    /// Has an instance made in place of the one in the seat.
    fn order(&mut self, old: Option<Instance>) {
        let rebuild = self.module.rebuilder().order(
            &self.module,
            self.config.clone(),
            Arc::clone(&self.table),
            old,
        );
        self.seat = Seat::Promised(rebuild, Arc::clone(&self.table));
    }

    /// Counts a fault and draws the consequences.
    #[cold]
    fn fail(&mut self, fault: &Fault) {
        self.counters.count_fault(fault);
        // An instance that could not be made will not be made a moment later either.
        let consequence = if let Fault::Rebuild(_) = fault {
            Consequence::Quarantined { length_ms: self.conduct.quarantine(self.now_ms) }
        } else {
            self.conduct.note_fault(self.now_ms)
        };
        let (plugin, generation) = (self.module.name(), self.generation);
        let service_id = self.service_id;
        match consequence {
            Consequence::Noted { is_first: false } => {}
            Consequence::Noted { is_first: true } => {
                tracing::warn!(plugin, generation, service_id, %fault, "plugin failed");
            }
            Consequence::Quarantined { length_ms } => {
                self.counters.count_quarantine();
                tracing::warn!(plugin, generation, service_id, %fault, length_ms, "plugin quarantined");
            }
        }
        let is_quarantined = matches!(consequence, Consequence::Quarantined { .. });
        match core::mem::replace(&mut self.seat, Seat::Empty) {
            Seat::Taken(instance) if fault.is_bad_answer() && !is_quarantined => {
                self.seat = Seat::Taken(instance);
            }
            Seat::Taken(instance) => self.order(Some(instance)),
            // The next attempt is made when the quarantine is over.
            Seat::Promised(..) | Seat::Empty => {}
        }
    }
}
