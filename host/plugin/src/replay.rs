//! A recording put to a plugin again.

use wvs_abi::{Request, Server, ServerInfo, Signals};

use crate::error::InstanceError;
use crate::fault::Fault;
use crate::instance::Instance;
use crate::limits::Limits;
use crate::module::Module;
use crate::recording::{self, Answer, Beginning, Entry, Heading, Recording, Segment, Subject};
use crate::table::ServerTable;

/// How a plugin did on a recording.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplayReport {
    /// Decisions.
    pub decisions: u64,
    /// Of these, those that were answered otherwise than recorded.
    pub differences: u64,
    /// The first of them.
    pub first_difference: Option<Difference>,
    /// Decisions recorded of another module than the one that was asked.
    pub other_module: u64,
    /// Decisions that are not known to be put to the plugin in the state in which they were
    /// recorded: the recording does not reach back to its start, and what it remembered at that
    /// time was too large to be recorded.
    pub inexact: u64,
}

/// A decision that a plugin makes otherwise than it is recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The decision's number in the recording, from 0.
    pub decision: u64,
    /// The request.
    pub request: Request,
    /// The servers as the plugin saw them.
    pub servers: Vec<Server>,
    /// What was answered then.
    pub recorded: Answer,
    /// What was answered now.
    pub replayed: Answer,
}

impl Recording {
    /// The limits that the plugin had when it was recorded, for loading it again.
    #[must_use]
    pub fn limits(&self) -> Limits {
        let mut limits = Limits::default();
        if let Some(Segment { heading: Heading { subject, .. }, .. }) = self.segments.first() {
            limits.memory = usize::try_from(subject.memory_max).unwrap_or(usize::MAX);
            limits.fuel = subject.fuel;
            limits.setup_fuel = subject.setup_fuel;
        }
        limits
    }

    /// Puts everything that was recorded to `module`. The module that was recorded gives the same
    /// answers, bit for bit.
    ///
    /// # Errors
    /// No instance can be made of the module.
    pub fn replay(&self, module: &Module) -> Result<ReplayReport, InstanceError> {
        let mut report = ReplayReport::default();
        let mut player: Option<Player<'_>> = None;
        let mut before = None;
        for segment in &self.segments {
            let goes_on = before == Some(segment.heading.instance);
            let same = player.take().filter(|_| goes_on);
            let mut playing = match same {
                Some(playing) => playing,
                None => Player::new(module, &segment.heading)?,
            };
            for entry in &segment.entries {
                playing.play(entry, &mut report)?;
            }
            before = Some(segment.heading.instance);
            player = Some(playing);
        }
        Ok(report)
    }
}

/// An instance to which a recording is put.
struct Player<'m> {
    module: &'m Module,
    config: Option<&'m str>,
    instance: Instance,
    table: ServerTable,
    signals: Vec<Signals>,
    is_same_module: bool,
    is_exact: bool,
}

impl<'m> Player<'m> {
    fn new(module: &'m Module, heading: &'m Heading) -> Result<Self, InstanceError> {
        let Subject { sha256, config, .. } = &heading.subject;
        // Another module need not understand what was meant for the recorded one.
        let (config, instance) = match Instance::new(module, config.as_deref()) {
            Err(_) if sha256 != module.sha256() => (None, Instance::new(module, None)?),
            made => (config.as_deref(), made?),
        };
        let mut this = Self {
            module,
            config,
            instance,
            table: ServerTable::default(),
            signals: Vec::new(),
            is_same_module: sha256 == module.sha256(),
            is_exact: true,
        };
        if let Beginning::Resumed { snapshot, servers, info, signals } = &heading.beginning {
            this.learn(table(servers, info));
            let is_restored = this.is_same_module
                && snapshot
                    .as_ref()
                    .is_some_and(|snapshot| this.instance.restore(snapshot, &this.table));
            this.is_exact = is_restored;
            this.signals = signals.iter().map(Signals::from_octets).collect();
        }
        Ok(this)
    }

    fn play(&mut self, entry: &Entry, report: &mut ReplayReport) -> Result<(), InstanceError> {
        match entry {
            Entry::Servers { servers, info } => self.learn(table(servers, info)),
            Entry::State { state, .. } => {
                let loaded = self.instance.load_state(state);
                self.survive(loaded.map(|_| ()))?;
            }
            Entry::Decision { request, counts, signals, answer } => {
                for (index, active, inactive) in counts {
                    if let Some(server) = self.table.servers.get_mut(usize::from(*index)) {
                        (server.active, server.inactive) = (*active, *inactive);
                    }
                }
                self.take_signals(signals);
                self.decide(recording::request(request), *answer, report)?;
            }
            Entry::Event { kind, index, argument } => {
                let told = self.instance.event(*kind, *index, *argument);
                self.survive(told)?;
            }
            Entry::Tick { request, signals } => {
                self.take_signals(signals);
                let ticked = self.instance.tick(&recording::request(request));
                self.survive(ticked.map(|_| ()))?;
            }
        }
        Ok(())
    }

    fn decide(
        &mut self,
        request: Request,
        recorded: Answer,
        report: &mut ReplayReport,
    ) -> Result<(), InstanceError> {
        let counts = self.table.servers.iter().map(|server| (server.active, server.inactive));
        let picked = self.instance.schedule(&request, counts);
        let replayed = Answer::from(picked.as_ref().ok().copied());
        if replayed != recorded {
            report.differences += 1;
            let decision = report.decisions;
            report.first_difference.get_or_insert_with(|| Difference {
                decision,
                request,
                servers: self.table.servers.clone(),
                recorded,
                replayed,
            });
        }
        report.decisions += 1;
        report.other_module += u64::from(!self.is_same_module);
        report.inexact += u64::from(self.is_same_module && !self.is_exact);
        match picked {
            Err(fault) if !fault.is_bad_answer() => self.survive(Err(fault)),
            _ => Ok(()),
        }
    }

    fn learn(&mut self, table: ServerTable) {
        self.table = table;
        self.signals.clear();
        self.signals.resize(self.table.servers.len(), Signals::default());
        // One that does not take them fails at the next decision, as it did when recorded.
        let _ = self.instance.set_servers(&self.table);
    }

    fn take_signals(&mut self, changed: &[(u16, [u8; Signals::SIZE])]) {
        for (index, signals) in changed {
            if let Some(place) = self.signals.get_mut(usize::from(*index)) {
                *place = Signals::from_octets(signals);
            }
        }
        self.instance.set_signals(self.signals.iter().copied());
    }

    /// Makes a new instance in place of one that failed, as a director does.
    fn survive(&mut self, called: Result<(), Fault>) -> Result<(), InstanceError> {
        if called.is_err() {
            self.instance = Instance::new(self.module, self.config)?;
            let _ = self.instance.set_servers(&self.table);
        }
        Ok(())
    }
}

fn table(servers: &[[u8; Server::SIZE]], info: &[[u8; ServerInfo::SIZE]]) -> ServerTable {
    let mut info: Vec<_> = info.iter().map(ServerInfo::from_octets).collect();
    info.resize(servers.len(), ServerInfo::default());
    ServerTable { servers: servers.iter().map(Server::from_octets).collect(), info }
}
