//! A plugin as the scheduler of one virtual service.

use std::fmt;
use std::sync::Arc;

use wvs_abi::Request;
use wvs_core::real_server::RealServer;
use wvs_core::scheduler::{Pick, Scheduler};

use crate::counters::PluginCounters;
use crate::error::InstanceError;
use crate::fault::Fault;
use crate::instance::Instance;
use crate::module::Module;
use crate::quarantine::{Conduct, Consequence};
use crate::rebuild::Rebuild;
use crate::table::ServerTable;

/// A plugin that schedules for one virtual service.
///
/// Its answers are those of the plugin, or [`Pick::Defer`] when the plugin failed at this request,
/// is being replaced after having failed, or is quarantined for having failed too often. An
/// instance is replaced on a thread of the [`Host`](crate::Host)'s; a request never waits for one.
///
/// Its clock is the requests' `now_ms`: the same requests over the same servers give the same
/// picks, up to how soon a failed instance is replaced.
pub struct WasmScheduler {
    module: Module,
    config: Option<Arc<str>>,
    seat: Seat,
    table: Arc<ServerTable>,
    conduct: Conduct,
    counters: Arc<PluginCounters>,
    /// The latest request's time, for faults that happen without one.
    now_ms: u64,
    service_id: u32,
}

/// Who answers.
#[expect(clippy::large_enum_variant, reason = "one a service, and on the way of each decision")]
enum Seat {
    Taken(Instance),
    /// An instance with this table is on its way.
    Promised(Rebuild, Arc<ServerTable>),
    Empty,
}

impl fmt::Debug for WasmScheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WasmScheduler").field("module", &self.module).finish_non_exhaustive()
    }
}

impl WasmScheduler {
    pub(crate) fn new(
        module: &Module,
        config: Option<&str>,
        table: ServerTable,
    ) -> Result<Self, InstanceError> {
        let mut instance = Instance::new(module, config)?;
        instance.set_servers(&table).map_err(InstanceError::Servers)?;
        Ok(Self {
            module: module.clone(),
            config: config.map(Arc::from),
            seat: Seat::Taken(instance),
            table: Arc::new(table),
            conduct: Conduct::default(),
            counters: Arc::default(),
            now_ms: 0,
            service_id: 0,
        })
    }

    /// What the plugin did so far, also for later: the counters live on with whoever has them.
    #[must_use]
    pub fn counters(&self) -> Arc<PluginCounters> {
        Arc::clone(&self.counters)
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
    fn seat_instance(&mut self, instance: Instance, table: &ServerTable) {
        if self.table.has_same_servers(table) {
            self.counters.count_rebuild();
            self.seat = Seat::Taken(instance);
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
        let (plugin, service) = (self.module.name(), self.service_id);
        match consequence {
            Consequence::Noted { is_first: false } => {}
            Consequence::Noted { is_first: true } => {
                tracing::warn!(plugin, service, %fault, "plugin failed, the director decides");
            }
            Consequence::Quarantined { length_ms } => {
                self.counters.count_quarantine();
                tracing::warn!(plugin, service, %fault, length_ms, "plugin quarantined");
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

impl Scheduler for WasmScheduler {
    #[inline]
    fn schedule(&mut self, request: &Request, servers: &[Arc<RealServer>]) -> Pick {
        self.now_ms = request.now_ms;
        self.service_id = request.service_id;
        if servers.len() != self.table.servers.len() {
            self.replace_table(servers);
        }
        if !matches!(self.seat, Seat::Taken(_)) {
            self.fill_seat();
        }
        let Seat::Taken(instance) = &mut self.seat else {
            self.counters.count_unavailable();
            return Pick::Defer;
        };
        let counts = servers.iter().map(|server| (server.active(), server.inactive()));
        match instance.schedule(request, counts) {
            Ok(Pick::Server(index)) => {
                self.counters.count_pick();
                Pick::Server(index)
            }
            Ok(Pick::NoServer) => {
                self.counters.count_no_server();
                Pick::NoServer
            }
            Ok(Pick::Defer) => {
                self.counters.count_defer();
                Pick::Defer
            }
            Err(fault) => {
                self.fail(&fault);
                Pick::Defer
            }
        }
    }

    fn servers_changed(&mut self, servers: &[Arc<RealServer>]) {
        let table = Arc::new(ServerTable::new(servers));
        if table.has_same_servers(&self.table) {
            return;
        }
        self.table = table;
        if let Seat::Taken(instance) = &mut self.seat
            && let Err(fault) = instance.set_servers(&self.table)
        {
            self.fail(&fault);
        }
    }
}
