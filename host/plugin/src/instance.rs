//! One plugin at work: a module with a memory of its own.

use std::fmt;
use std::sync::Arc;

use wasmtime::{Memory, Store, TypedFunc, WasmParams, WasmResults};
use wvs_abi::{
    ABI_MAJOR, ABI_MINOR, CAPS_ALL, Region, Request, STATE_OCTETS_MAX, Server, ServerInfo, Signals,
    TICK_MS_MIN, caps, export, result,
};
use wvs_core::random::Random;
use wvs_core::scheduler::Pick;

use crate::counters::PluginCounters;
use crate::error::{InstanceError, RegionError};
use crate::fault::Fault;
use crate::guest::Guest;
use crate::limits::{CONFIG_MAX, EVENTS_A_DECISION, Limits, REASON_MAX};
use crate::module::Module;
use crate::recording::Snapshot;
use crate::table::ServerTable;
use crate::text::{EXPLANATION_MAX, printable};

/// One instance of a plugin with the server table in its memory.
///
/// It answers; it keeps no count of its faults and is never replaced: that is
/// [`WasmScheduler`](crate::WasmScheduler)'s work. After a [`Fault`] other than a bad answer it is
/// only good for dropping.
pub struct Instance {
    store: Store<Guest>,
    memory: Memory,
    region: TypedFunc<(u32, u32), u32>,
    schedule: TypedFunc<u32, i32>,
    servers_changed: Option<TypedFunc<u32, i32>>,
    event: Option<TypedFunc<(u32, u32, u32), ()>>,
    tick: Option<TypedFunc<(), i32>>,
    state_save: Option<TypedFunc<u32, i32>>,
    state_load: Option<TypedFunc<u32, i32>>,
    caps: u32,
    limits: Limits,
    request_at: usize,
    servers: Resident,
    info: Resident,
    signals: Resident,
    /// Fuel that the latest call was given.
    fuel_given: u64,
    /// Fuel that starting it and its configuration took.
    start_fuel_used: u64,
    /// The weights in the table, to judge answers by: the table itself is the plugin's to scribble
    /// on.
    weights: Vec<u32>,
}

/// Octets that a plugin is first asked for to save its state in, until it has them. Most states are
/// small, and connections wait meanwhile.
const STATE_CAPACITIES: [usize; 2] = [4_096, 512];

/// Octets of a memory that are looked at together for being 0.
const PART: usize = 1 << 10;

/// Octets by which a memory grows.
const PAGE: usize = 64 << 10;

/// An array of records in the plugin's memory.
#[derive(Clone, Copy, Default)]
struct Resident {
    at: usize,
    /// Octets from `at` on that are ours to write, checked to be within the memory.
    capacity: usize,
}

impl fmt::Debug for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Instance").field("servers", &self.weights.len()).finish_non_exhaustive()
    }
}

impl Instance {
    /// Makes and starts an instance and gives it `config` (JSON text).
    ///
    /// # Errors
    /// What the plugin did wrong or why it refused `config`.
    pub fn new(module: &Module, config: Option<&str>) -> Result<Self, InstanceError> {
        let limits = *module.limits();
        let (mut store, instance) = instantiate(module)?;
        let memory = instance
            .get_memory(&mut store, export::MEMORY)
            .ok_or_else(|| InstanceError::Instantiation("no memory".to_owned()))?;
        let abi = required::<(), u32>(&mut store, &instance, export::ABI)?;
        let region = required(&mut store, &instance, export::REGION)?;
        let schedule = required(&mut store, &instance, export::SCHEDULE)?;
        let initialize = optional::<(), ()>(&mut store, &instance, export::INITIALIZE);
        let says_caps = optional::<(), u32>(&mut store, &instance, export::CAPS);
        let init = optional::<u32, i32>(&mut store, &instance, export::INIT);
        let servers_changed = optional(&mut store, &instance, export::SERVERS_CHANGED);
        let event = optional(&mut store, &instance, export::EVENT);
        let tick = optional(&mut store, &instance, export::TICK);
        let state_save = optional(&mut store, &instance, export::STATE_SAVE);
        let state_load = optional(&mut store, &instance, export::STATE_LOAD);
        let start_fuel_used = limits.start_fuel.saturating_sub(store.get_fuel().unwrap_or(0));

        let mut this = Self {
            store,
            memory,
            region,
            schedule,
            servers_changed,
            event,
            tick,
            state_save,
            state_load,
            caps: caps::COUNTERS,
            limits,
            request_at: 0,
            servers: Resident::default(),
            info: Resident::default(),
            signals: Resident::default(),
            start_fuel_used,
            fuel_given: limits.fuel,
            weights: Vec::new(),
        };
        if let Some(initialize) = initialize {
            this.call(export::INITIALIZE, &initialize, (), limits.start_fuel)
                .map_err(InstanceError::Start)?;
            this.start_fuel_used += this.fuel_used();
        }
        let version = this
            .call(export::ABI, &abi, (), limits.setup_fuel)
            .map_err(InstanceError::Introduction)?;
        check_version(version)?;
        if let Some(says_caps) = says_caps {
            this.caps = this
                .call(export::CAPS, &says_caps, (), limits.setup_fuel)
                .map_err(InstanceError::Introduction)?;
            if this.caps & !CAPS_ALL != 0 {
                return Err(InstanceError::UnknownCaps(this.caps));
            }
        }
        match (init, config) {
            (Some(init), config) => {
                this.init(&init, config.unwrap_or_default())?;
                this.start_fuel_used += this.fuel_used();
            }
            (None, Some(_)) => return Err(InstanceError::ConfigNotTaken),
            (None, None) => {}
        }
        this.request_at = match this.region(Region::Request, Request::SIZE) {
            Ok(resident) => resident.at,
            Err(Fault::Region(error)) => return Err(error.into()),
            Err(fault) => return Err(InstanceError::Introduction(fault)),
        };
        if this.state_save.is_some() || this.state_load.is_some() {
            // Memory that is asked for now need not be found while connections wait.
            let [most, ..] = STATE_CAPACITIES;
            this.state_region(most).map_err(InstanceError::Introduction)?;
        }
        Ok(this)
    }

    /// The bits of [`wvs_abi::caps`] that the plugin has.
    #[must_use]
    pub fn caps(&self) -> u32 {
        self.caps
    }

    /// Octets of memory that the instance has now.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.memory.data_size(&self.store)
    }

    /// Fuel that the latest call used.
    #[inline]
    #[must_use]
    pub fn fuel_used(&self) -> u64 {
        self.fuel_given.saturating_sub(self.store.get_fuel().unwrap_or(0))
    }

    /// Fuel that its start and its configuration took.
    #[must_use]
    pub fn start_fuel_used(&self) -> u64 {
        self.start_fuel_used
    }

    /// The latest lines that the plugin wrote to the log, oldest first; 16 at most.
    pub fn log(&self) -> impl Iterator<Item = &str> {
        self.store.data().lines()
    }

    /// Whether it wants to be told of [events](Self::event).
    #[must_use]
    pub fn has_event(&self) -> bool {
        self.event.is_some()
    }

    /// Whether it wants to [tick](Self::tick).
    #[must_use]
    pub fn has_tick(&self) -> bool {
        self.tick.is_some()
    }

    /// Whether it reads the counts of the servers.
    #[must_use]
    pub fn reads_counters(&self) -> bool {
        self.caps & caps::COUNTERS != 0
    }

    /// Whether it wants [signals](Self::set_signals) before each decision and each tick.
    #[inline]
    #[must_use]
    pub fn wants_signals(&self) -> bool {
        self.caps & caps::SIGNALS != 0
    }

    /// Has the plugin's lines counted there.
    pub(crate) fn count_lines(&mut self, counters: &Arc<PluginCounters>) {
        self.store.data_mut().counters = Some(Arc::clone(counters));
    }

    /// Shows the plugin the servers that the next requests choose from. Replaces the table, also
    /// the counts in it.
    ///
    /// # Errors
    /// When the plugin has no room for them or does not take them.
    pub fn set_servers(&mut self, table: &ServerTable) -> Result<(), Fault> {
        self.weights.clear();
        self.weights.extend(table.servers.iter().map(|server| server.weight));
        let n = table.servers.len();
        self.servers = self.reserve(Region::Servers, self.servers, n, Server::SIZE)?;
        if self.caps & caps::SERVER_INFO != 0 {
            self.info = self.reserve(Region::ServerInfo, self.info, n, ServerInfo::SIZE)?;
        }
        if self.wants_signals() {
            self.signals = self.reserve(Region::Signals, self.signals, n, Signals::SIZE)?;
            self.records::<{ Signals::SIZE }>(self.signals, n).for_each(|record| record.fill(0));
        }
        for (record, server) in self.records(self.servers, n).zip(&table.servers) {
            *record = server.to_octets();
        }
        if self.caps & caps::SERVER_INFO != 0 {
            for (record, info) in self.records(self.info, n).zip(&table.info) {
                *record = info.to_octets();
            }
        }
        let Some(servers_changed) = self.servers_changed.clone() else { return Ok(()) };
        let n = u32::try_from(n).unwrap_or(u32::MAX);
        let fuel = self.limits.setup_fuel;
        match self.call(export::SERVERS_CHANGED, &servers_changed, n, fuel)? {
            0.. => Ok(()),
            refused => Err(Fault::ServersRefused(refused)),
        }
    }

    /// Shows the plugin how the servers do, if it wants to know: what the next decision and the next
    /// tick go by.
    pub fn set_signals(&mut self, signals: impl IntoIterator<Item = Signals>) {
        let n = self.weights.len();
        for (record, signals) in self.records(self.signals, n).zip(signals) {
            *record = signals.to_octets();
        }
    }

    /// Tells the plugin of an event of a kind of [`wvs_abi::event`] at the server with this index,
    /// if it wants to know.
    ///
    /// # Errors
    /// What the plugin did wrong.
    pub fn event(&mut self, kind: u32, index: u32, argument: u32) -> Result<(), Fault> {
        let Some(event) = self.event.clone() else { return Ok(()) };
        let fuel = self.limits.fuel / EVENTS_A_DECISION;
        self.call(export::EVENT, &event, (kind, index, argument), fuel)
    }

    /// Lets the plugin tick, if it wants to. `request` has the time and a random number. Returns
    /// after how many milliseconds it wants to tick again, 10 at least; `None` for never.
    ///
    /// # Errors
    /// What the plugin did wrong.
    pub fn tick(&mut self, request: &Request) -> Result<Option<u32>, Fault> {
        let Some(tick) = self.tick.clone() else { return Ok(None) };
        self.write_request(request);
        match self.call(export::TICK, &tick, (), self.limits.fuel)? {
            ..=0 => Ok(None),
            wish => Ok(Some(wish.unsigned_abs().max(TICK_MS_MIN))),
        }
    }

    /// What the plugin wants its successor to know, `None` if that is nothing.
    ///
    /// # Errors
    /// What the plugin did wrong.
    pub fn save_state(&mut self) -> Result<Option<Vec<u8>>, Fault> {
        let Some(save) = self.state_save.clone() else { return Ok(None) };
        let mut room = None;
        for capacity in STATE_CAPACITIES {
            if room.is_none() {
                room = self.state_region(capacity)?;
            }
        }
        let Some(mut region) = room else { return Ok(None) };
        let mut length = self.call_save(&save, region)?;
        let needed = usize::try_from(length).unwrap_or(0);
        if needed > region.capacity && needed <= STATE_OCTETS_MAX as usize {
            let Some(larger) = self.state_region(needed)? else { return Ok(None) };
            region = larger;
            length = self.call_save(&save, region)?;
        }
        match usize::try_from(length) {
            Err(_) => Ok(None),
            Ok(len) if len > region.capacity => {
                Err(Fault::StateTooLong { length, capacity: region.capacity })
            }
            Ok(len) => Ok(self.octets(region).get(..len).map(<[u8]>::to_vec)),
        }
    }

    fn call_save(&mut self, save: &TypedFunc<u32, i32>, region: Resident) -> Result<i32, Fault> {
        let capacity = u32::try_from(region.capacity).unwrap_or(u32::MAX);
        self.call(export::STATE_SAVE, save, capacity, self.limits.fuel)
    }

    /// Hands the plugin what its predecessor saved, after [`set_servers`](Self::set_servers).
    /// Whether it means something to it.
    ///
    /// # Errors
    /// What the plugin did wrong.
    pub fn load_state(&mut self, state: &[u8]) -> Result<bool, Fault> {
        let Some(load) = self.state_load.clone() else { return Ok(false) };
        let Some(region) = self.state_region(state.len())? else { return Ok(false) };
        let Some(octets) = self.octets(region).get_mut(..state.len()) else { return Ok(false) };
        octets.copy_from_slice(state);
        let len = u32::try_from(state.len()).unwrap_or(u32::MAX);
        Ok(self.call(export::STATE_LOAD, &load, len, self.limits.fuel)? == 0)
    }

    /// All that the plugin remembers in its memory.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let memory = self.memory.data(&self.store);
        let is_empty = |part: &&[u8]| part.iter().all(|octet| *octet == 0);
        let mut parts: Vec<(u32, Vec<u8>)> = Vec::new();
        for (number, part) in (0..).zip(memory.chunks(PART)) {
            if !is_empty(&part) {
                parts.push((number * u32::try_from(PART).unwrap_or(0), part.to_vec()));
            }
        }
        let request = Resident { at: self.request_at, capacity: Request::SIZE };
        let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let place = |region: Resident| (number(region.at), number(region.capacity));
        Snapshot {
            size: number(memory.len()),
            parts,
            random: self.store.data().random.state(),
            now_ms: self.store.data().now_ms,
            regions: [request, self.servers, self.info, self.signals].map(place),
        }
    }

    /// Puts the plugin where another instance was when `snapshot` was taken of it, with the table
    /// that it had. Whether that could be done.
    pub(crate) fn restore(&mut self, snapshot: &Snapshot, table: &ServerTable) -> bool {
        let size = snapshot.size as usize;
        let missing = size.saturating_sub(self.memory()).div_ceil(PAGE);
        if missing > 0 && self.memory.grow(&mut self.store, missing as u64).is_err() {
            return false;
        }
        let memory = self.memory.data_mut(&mut self.store);
        let is_within = |at: u32, len: usize| (at as usize).saturating_add(len) <= memory.len();
        if !snapshot.regions.iter().all(|(at, capacity)| is_within(*at, *capacity as usize))
            || !snapshot.parts.iter().all(|(at, octets)| is_within(*at, octets.len()))
            || snapshot.regions[0].1 as usize != Request::SIZE
            || table.servers.len().saturating_mul(Server::SIZE) > snapshot.regions[1].1 as usize
        {
            return false;
        }
        memory.fill(0);
        for (at, octets) in &snapshot.parts {
            memory[*at as usize..][..octets.len()].copy_from_slice(octets);
        }
        let guest = self.store.data_mut();
        guest.random = Random::new(snapshot.random);
        guest.now_ms = snapshot.now_ms;
        let resident =
            |(at, capacity): (u32, u32)| Resident { at: at as usize, capacity: capacity as usize };
        let [request, servers, info, signals] = snapshot.regions.map(resident);
        self.request_at = request.at;
        (self.servers, self.info, self.signals) = (servers, info, signals);
        self.weights.clear();
        self.weights.extend(table.servers.iter().map(|server| server.weight));
        true
    }

    /// A region of so many octets for a state, `None` when the plugin has none.
    fn state_region(&mut self, octets: usize) -> Result<Option<Resident>, Fault> {
        match self.region(Region::State, octets) {
            Ok(region) => Ok(Some(region)),
            Err(Fault::Region(RegionError::Refused { .. })) => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    #[inline]
    fn write_request(&mut self, request: &Request) {
        self.store.data_mut().now_ms = request.now_ms;
        let memory = self.memory.data_mut(&mut self.store);
        let region = memory.get_mut(self.request_at..).and_then(|octets| octets.first_chunk_mut());
        if let Some(region) = region {
            *region = request.to_octets();
        }
    }

    /// Asks the plugin for one decision over the servers of [`set_servers`](Self::set_servers).
    /// `counts` are the servers' active and inactive connections now; they are taken only if the
    /// plugin reads them. The answer is valid. Cost without faults: no allocation, no lock.
    ///
    /// # Errors
    /// What the plugin did wrong.
    #[inline]
    pub fn schedule(
        &mut self,
        request: &Request,
        counts: impl IntoIterator<Item = (u32, u32)>,
    ) -> Result<Pick, Fault> {
        let n = self.weights.len();
        self.write_request(request);
        if self.caps & caps::COUNTERS != 0 {
            let memory = self.memory.data_mut(&mut self.store);
            let table = memory.get_mut(self.servers.at..).unwrap_or_default();
            let (records, _) = table.as_chunks_mut::<{ Server::SIZE }>();
            for (record, (active, inactive)) in records.iter_mut().take(n).zip(counts) {
                let counts = u64::from(active) | u64::from(inactive) << 32;
                record[8..16].copy_from_slice(&counts.to_le_bytes());
            }
        }
        let fuel = self.limits.fuel;
        self.fuel_given = fuel;
        refuel(&mut self.store, fuel, export::SCHEDULE)?;
        let n = u32::try_from(n).unwrap_or(u32::MAX);
        match self.schedule.call(&mut self.store, n) {
            Ok(answer) => self.judge(answer),
            Err(error) => Err(self.fault(export::SCHEDULE, &error, fuel)),
        }
    }

    #[inline]
    fn judge(&self, answer: i32) -> Result<Pick, Fault> {
        let index = usize::try_from(answer);
        match index.map(|index| (index, self.weights.get(index))) {
            Ok((index, Some(1..))) => Ok(Pick::Server(index)),
            Ok((index, Some(0))) => Err(Fault::Unavailable { index }),
            Err(_) if answer == result::NO_SERVER => Ok(Pick::NoServer),
            Err(_) if answer == result::DEFER => Ok(Pick::Defer),
            _ => Err(Fault::BadAnswer { answer, servers: self.weights.len() }),
        }
    }

    fn init(&mut self, init: &TypedFunc<u32, i32>, config: &str) -> Result<(), InstanceError> {
        let too_large = || InstanceError::ConfigTooLarge(config.len());
        if config.len() > CONFIG_MAX {
            return Err(too_large());
        }
        let len = u32::try_from(config.len()).map_err(|_| too_large())?;
        let size = config.len().max(REASON_MAX);
        let region = match self.region(Region::Config, size) {
            Ok(region) => region,
            Err(Fault::Region(error)) => return Err(error.into()),
            Err(fault) => return Err(InstanceError::Init(fault)),
        };
        let octets = self.octets(region);
        octets.fill(0);
        octets[..config.len()].copy_from_slice(config.as_bytes());
        let taken = self
            .call(export::INIT, init, len, self.limits.setup_fuel)
            .map_err(InstanceError::Init)?;
        if taken == 0 {
            return Ok(());
        }
        let reason = reason(self.octets(region));
        Err(InstanceError::ConfigRefused { reason })
    }

    /// A region with room for `n` records: the one there is if it is large enough.
    fn reserve(
        &mut self,
        kind: Region,
        resident: Resident,
        n: usize,
        record: usize,
    ) -> Result<Resident, Fault> {
        match n.checked_mul(record) {
            Some(size) if size <= resident.capacity => Ok(resident),
            Some(size) => self.region(kind, size),
            None => Err(RegionError::TooLarge { kind }.into()),
        }
    }

    /// Asks the plugin for a region and checks what it says.
    fn region(&mut self, kind: Region, size: usize) -> Result<Resident, Fault> {
        let Ok(asked) = u32::try_from(size) else {
            return Err(RegionError::TooLarge { kind }.into());
        };
        let region = self.region.clone();
        // Connections wait while a state is handed over.
        let fuel = match kind {
            Region::State => self.limits.fuel,
            _ => self.limits.setup_fuel,
        };
        let address = self.call(export::REGION, &region, (kind as u32, asked), fuel)?;
        if address == 0 {
            return Err(RegionError::Refused { kind, size: asked }.into());
        }
        let at = address as usize;
        // A memory never shrinks: what is in bounds now stays so.
        if at.checked_add(size).is_none_or(|end| end > self.memory()) {
            return Err(RegionError::OutOfBounds { kind, size: asked, address }.into());
        }
        if !address.is_multiple_of(8) {
            return Err(RegionError::Misaligned { kind, address }.into());
        }
        Ok(Resident { at, capacity: size })
    }

    fn octets(&mut self, region: Resident) -> &mut [u8] {
        let memory = self.memory.data_mut(&mut self.store);
        memory.get_mut(region.at..region.at + region.capacity).unwrap_or_default()
    }

    /// The first `n` records of a region.
    fn records<const SIZE: usize>(
        &mut self,
        region: Resident,
        n: usize,
    ) -> impl Iterator<Item = &mut [u8; SIZE]> {
        let (records, _) = self.octets(region).as_chunks_mut::<SIZE>();
        records.iter_mut().take(n)
    }

    fn call<P: WasmParams, R: WasmResults>(
        &mut self,
        export: &'static str,
        function: &TypedFunc<P, R>,
        parameters: P,
        fuel: u64,
    ) -> Result<R, Fault> {
        refuel(&mut self.store, fuel, export)?;
        let called = function.call(&mut self.store, parameters);
        self.fuel_given = fuel;
        called.map_err(|error| self.fault(export, &error, fuel))
    }

    #[cold]
    fn fault(&self, export: &'static str, error: &wasmtime::Error, fuel: u64) -> Fault {
        Fault::of_call(export, error, fuel, self.store.data().was_refused)
    }
}

/// An instance of a module in a store of its own, its start function run.
fn instantiate(module: &Module) -> Result<(Store<Guest>, wasmtime::Instance), InstanceError> {
    const START: &str = "the start function";

    let Limits { memory, start_fuel, .. } = *module.limits();
    let linked = module.linked();
    let guest = Guest::new(module.shared_name(), memory);
    let mut store = Store::new(linked.module().engine(), guest);
    store.limiter(|guest| guest);
    refuel(&mut store, start_fuel, START).map_err(InstanceError::Start)?;
    match linked.instantiate(&mut store) {
        Ok(instance) => Ok((store, instance)),
        Err(error) => {
            Err(match Fault::of_call(START, &error, start_fuel, store.data().was_refused) {
                Fault::Engine { reason, .. } => InstanceError::Instantiation(reason),
                fault => InstanceError::Start(fault),
            })
        }
    }
}

/// An export that every plugin has: the module was checked for it.
fn required<P: WasmParams, R: WasmResults>(
    store: &mut Store<Guest>,
    instance: &wasmtime::Instance,
    export: &'static str,
) -> Result<TypedFunc<P, R>, InstanceError> {
    optional(store, instance, export)
        .ok_or_else(|| InstanceError::Instantiation(format!("no {export}")))
}

/// An export that a plugin may have; the module was checked to have none with another signature.
fn optional<P: WasmParams, R: WasmResults>(
    store: &mut Store<Guest>,
    instance: &wasmtime::Instance,
    export: &'static str,
) -> Option<TypedFunc<P, R>> {
    instance.get_typed_func(store, export).ok()
}

/// Gives the next call its fuel.
#[inline]
fn refuel(store: &mut Store<Guest>, fuel: u64, export: &'static str) -> Result<(), Fault> {
    store.set_fuel(fuel).map_err(|error| Fault::of_call(export, &error, fuel, false))
}

fn check_version(version: u32) -> Result<(), InstanceError> {
    let [major, minor] =
        [version >> 16, version & 0xFFFF].map(|half| u16::try_from(half).unwrap_or(u16::MAX));
    if major != ABI_MAJOR {
        Err(InstanceError::AbiMajor { major, minor })
    } else if minor > ABI_MINOR {
        Err(InstanceError::AbiMinor { minor })
    } else {
        Ok(())
    }
}

/// A plugin's text up to its NUL, made printable.
fn reason(octets: &[u8]) -> String {
    let text = octets.split(|octet| *octet == 0).next().unwrap_or_default();
    let text = printable(&String::from_utf8_lossy(text), EXPLANATION_MAX);
    if text.is_empty() { "it gave no reason".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_made_printable() {
        assert_eq!(reason(b"no such \x1b[31mkey\n\0rest"), "no such  [31mkey");
        assert_eq!(reason(b"\xff"), "\u{fffd}");
        assert_eq!(reason(b"\0"), "it gave no reason");
        assert_eq!(reason(b"never ending"), "never ending");
    }
}
