//! The flight recorder: the latest of what a plugin was told and answered, within a bound.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use wvs_abi::{Request, Server, ServerInfo, Signals};
use wvs_core::scheduler::Pick;

use crate::recording::{self, Answer, Beginning, Entry, Heading, MAGIC, Snapshot, Subject};
use crate::table::ServerTable;

/// Pieces that a full recorder has: the oldest makes way for the next one.
const PIECES: usize = 8;

/// Records one service's plugin. What it holds is bounded; the oldest goes first.
#[derive(Debug)]
pub struct Recorder {
    octets_max: usize,
    tape: Mutex<Tape>,
}

#[derive(Debug, Default)]
struct Tape {
    /// Finished pieces, each as it is written, and how many octets they have together.
    pieces: VecDeque<Arc<[u8]>>,
    octets: usize,
    /// The piece under way, likewise.
    present: Option<Vec<u8>>,
    /// What the plugin was shown last.
    servers: Vec<Server>,
    info: Vec<ServerInfo>,
    signals: Vec<Signals>,
    instances: u32,
    dropped: u64,
}

impl Recorder {
    /// A recorder of about so many octets.
    #[must_use]
    pub fn new(octets_max: usize) -> Self {
        Self { octets_max, tape: Mutex::default() }
    }

    /// Octets that it holds at most, roughly.
    #[must_use]
    pub fn octets_max(&self) -> usize {
        self.octets_max
    }

    /// The recording so far, as a file.
    #[must_use]
    pub fn dump(&self) -> Vec<u8> {
        // Decisions wait only until the piece under way is copied.
        let (pieces, present) = {
            let tape = self.tape();
            (tape.pieces.clone(), tape.present.clone())
        };
        let mut file = MAGIC.to_vec();
        let pieces = pieces.iter().map(|piece| &**piece);
        for piece in pieces.chain(present.as_deref()) {
            recording::append_piece(&mut file, piece);
        }
        file
    }

    /// Pieces that made way for newer ones.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.tape().dropped
    }

    /// A new instance is recorded from here on, which has this table.
    pub(crate) fn begin(&self, subject: Subject, table: &ServerTable) {
        let mut tape = self.tape();
        tape.instances = tape.instances.wrapping_add(1);
        self.start(&mut tape, subject, Beginning::Fresh);
        tape.show(table);
    }

    /// An instance that was at work before is recorded from here on, which has this table.
    pub(crate) fn join(&self, subject: Subject, snapshot: Snapshot, table: &ServerTable) {
        let mut tape = self.tape();
        tape.instances = tape.instances.wrapping_add(1);
        tape.forget(table);
        self.resume(&mut tape, subject, snapshot);
    }

    /// Whether the piece under way is long enough, so that the next one should [begin](Self::turn).
    pub(crate) fn is_turn_due(&self) -> bool {
        self.tape().present.as_ref().is_some_and(|piece| piece.len() >= self.octets_max / PIECES)
    }

    /// Begins the next piece with the same instance, whose memory is in `snapshot`.
    pub(crate) fn turn(&self, subject: Subject, snapshot: Snapshot) {
        let mut tape = self.tape();
        self.resume(&mut tape, subject, snapshot);
    }

    fn resume(&self, tape: &mut Tape, subject: Subject, snapshot: Snapshot) {
        let size = snapshot.parts.iter().map(|(_, octets)| octets.len()).sum::<usize>();
        let snapshot = (size <= self.octets_max / PIECES).then_some(snapshot);
        let beginning = Beginning::Resumed {
            snapshot,
            servers: tape.servers.iter().map(Server::to_octets).collect(),
            info: tape.info.iter().map(ServerInfo::to_octets).collect(),
            signals: tape.signals.iter().map(Signals::to_octets).collect(),
        };
        self.start(tape, subject, beginning);
    }

    fn start(&self, tape: &mut Tape, subject: Subject, beginning: Beginning) {
        self.finish(tape);
        let instance = tape.instances;
        let mut piece = Vec::new();
        recording::append(&mut piece, &Heading { subject, instance, beginning });
        tape.present = Some(piece);
    }

    /// The plugin was shown another table.
    pub(crate) fn servers(&self, table: &ServerTable) {
        self.tape().show(table);
    }

    /// The plugin was offered its predecessor's state.
    pub(crate) fn state(&self, state: &[u8], is_taken: bool) {
        self.tape().add(&Entry::State { state: state.to_vec(), is_taken });
    }

    /// The plugin decided, having been shown these counts and signals.
    pub(crate) fn decision(
        &self,
        request: &Request,
        counts: &[(u32, u32)],
        signals: &[Signals],
        pick: Option<Pick>,
    ) {
        let mut tape = self.tape();
        let counts = tape.changed_counts(counts);
        let signals = tape.changed_signals(signals);
        let request = recording::halves(request);
        let answer = Answer::from(pick);
        tape.add(&Entry::Decision { request, counts, signals, answer });
    }

    /// The plugin was told of an event.
    pub(crate) fn event(&self, kind: u32, index: u32, argument: u32) {
        self.tape().add(&Entry::Event { kind, index, argument });
    }

    /// The plugin ticked, having been shown these signals.
    pub(crate) fn tick(&self, request: &Request, signals: &[Signals]) {
        let mut tape = self.tape();
        let signals = tape.changed_signals(signals);
        let request = recording::halves(request);
        tape.add(&Entry::Tick { request, signals });
    }

    /// Puts the piece under way to the others, the oldest of which may have to go.
    fn finish(&self, tape: &mut Tape) {
        let Some(piece) = tape.present.take() else { return };
        tape.octets += piece.len();
        tape.pieces.push_back(piece.into());
        while tape.octets > self.octets_max && tape.pieces.len() > 1 {
            if let Some(oldest) = tape.pieces.pop_front() {
                tape.octets -= oldest.len();
                tape.dropped += 1;
            }
        }
    }

    fn tape(&self) -> MutexGuard<'_, Tape> {
        self.tape.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tape {
    fn add(&mut self, entry: &Entry) {
        if let Some(piece) = &mut self.present {
            recording::append(piece, entry);
        }
    }

    fn show(&mut self, table: &ServerTable) {
        self.forget(table);
        self.add(&recording::servers(table));
    }

    /// From here on the plugin knows this table.
    fn forget(&mut self, table: &ServerTable) {
        self.servers.clone_from(&table.servers);
        self.info.clone_from(&table.info);
        self.signals.clear();
        self.signals.resize(table.servers.len(), Signals::default());
    }

    /// What of `counts` is other than what was shown before.
    fn changed_counts(&mut self, counts: &[(u32, u32)]) -> Vec<(u16, u32, u32)> {
        let mut changed = Vec::new();
        for ((index, shown), &(active, inactive)) in (0..).zip(&mut self.servers).zip(counts) {
            if (shown.active, shown.inactive) != (active, inactive) {
                (shown.active, shown.inactive) = (active, inactive);
                changed.push((index, active, inactive));
            }
        }
        changed
    }

    fn changed_signals(&mut self, signals: &[Signals]) -> Vec<(u16, [u8; Signals::SIZE])> {
        let mut changed = Vec::new();
        for ((index, shown), now) in (0..).zip(&mut self.signals).zip(signals) {
            if shown != now {
                *shown = *now;
                changed.push((index, now.to_octets()));
            }
        }
        changed
    }
}
