//! The tap: what `wvs capture` sees of the packets while they pass.
//!
//! A packet costs one relaxed load as long as nobody captures. Otherwise its first octets are kept
//! before the director translates it in place, and with what became of it they are put into a queue
//! for each capture that wants it: a ring of bounded size, one for each capture and each thread, so
//! that a packet waits for nobody. What finds no room there is counted as missed.
//!
//! The other end of the rings is a [`Recording`], which makes a pcapng file of them.

mod comment;
mod filter;
mod parties;
mod recording;

use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, SystemTime};

use rtrb::{Consumer, Producer, RingBuffer};
use wvs_core::director::Director;
use wvs_core::packet::{Packet, TransportChecksum};
use wvs_core::stats::Counter;
use wvs_core::verdict::{DropReason, Verdict};

use crate::device::PACKET_OCTETS_MAX;
pub(crate) use comment::Outcome;
use filter::Filter;
pub use filter::{CaptureRequest, Network, NoNetwork, RequestError, VerdictKind};
use parties::Parties;
pub use recording::{Recording, TICK};

/// Captures at once.
pub const CAPTURES_MAX: usize = 4;

/// Octets that wait in all rings of one capture together.
const RINGS_OCTETS: usize = 16 << 20;

/// Octets in one ring at least: room for any packet before and after its translation.
const RING_OCTETS_MIN: usize = 512 << 10;

/// Octets of each packet that are looked at, however few are wanted in the file: its headers.
const LOOKED_AT: usize = 256;

/// Where captures are begun and ended, and packets are shown to them.
#[derive(Debug)]
pub struct Tap {
    /// Moves whenever a capture begins or ends.
    generation: Generation,
    captures: Mutex<Captures>,
    is_closed: AtomicBool,
    counters: TapCounters,
}

/// In a cache line of its own: every packet reads it.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Generation(AtomicU64);

/// What became of captures and their packets since the start.
#[derive(Debug, Default)]
pub struct TapCounters {
    /// Captures begun.
    pub begun: Counter,
    /// Captures refused because there were [`CAPTURES_MAX`].
    pub refused: Counter,
    /// Packets written to a file.
    pub written: Counter,
    /// Packets that a capture missed.
    pub missed: Counter,
}

#[derive(Debug, Default)]
struct Captures {
    /// Captures begun so far, which gives each its number.
    begun: u64,
    open: Vec<OpenCapture>,
}

#[derive(Debug)]
struct OpenCapture {
    id: u64,
    /// For each thread what it takes at its next packet.
    recorders: Vec<Option<Recorder>>,
}

/// One thread's end of a capture.
#[derive(Debug)]
struct Recorder {
    id: u64,
    filter: Arc<Filter>,
    snap: usize,
    ring: Producer<u8>,
    counters: Arc<RecorderCounters>,
}

/// What one thread counts for one capture.
#[derive(Debug, Default)]
#[repr(align(128))]
struct RecorderCounters {
    seen: Counter,
    matched: Counter,
    missed: Counter,
}

/// The other end of a [`Recorder`].
#[derive(Debug)]
struct Source {
    ring: Consumer<u8>,
    counters: Arc<RecorderCounters>,
}

/// Why a capture cannot begin.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CaptureRefusal {
    /// As many as there may be are under way.
    #[error("{CAPTURES_MAX} captures are under way, and more are not possible; end one")]
    TooMany,
    /// Nothing of the kind can be captured.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The director is stopping.
    #[error("the director is stopping")]
    Stopping,
}

impl Tap {
    /// A tap without captures.
    #[must_use]
    pub fn new() -> Self {
        Self {
            generation: Generation::default(),
            captures: Mutex::default(),
            is_closed: AtomicBool::new(false),
            counters: TapCounters::default(),
        }
    }

    /// What became of captures so far.
    #[must_use]
    pub fn counters(&self) -> &TapCounters {
        &self.counters
    }

    /// Captures under way.
    #[must_use]
    pub fn open(&self) -> usize {
        self.captures().open.len()
    }

    /// Begins a capture of what `threads` threads on `device` see, until the recording is dropped.
    ///
    /// # Errors
    /// See [`CaptureRefusal`].
    pub fn capture(
        self: &Arc<Self>,
        request: &CaptureRequest,
        director: &Arc<Director>,
        device: &str,
        threads: usize,
    ) -> Result<Recording, CaptureRefusal> {
        let filter = Arc::new(Filter::new(request, director)?);
        let snap = request.snap()?;
        let octets = (RINGS_OCTETS / threads.max(1)).max(RING_OCTETS_MIN);
        let mut captures = self.captures();
        if self.is_closed() {
            return Err(CaptureRefusal::Stopping);
        }
        if captures.open.len() >= CAPTURES_MAX {
            self.counters.refused.count();
            return Err(CaptureRefusal::TooMany);
        }
        captures.begun += 1;
        let id = captures.begun;
        let (recorders, sources) = (0..threads)
            .map(|_| {
                let (ring, other_end) = RingBuffer::new(octets);
                let counters = Arc::<RecorderCounters>::default();
                let source = Source { ring: other_end, counters: Arc::clone(&counters) };
                let filter = Arc::clone(&filter);
                (Some(Recorder { id, filter, snap, ring, counters }), source)
            })
            .unzip();
        captures.open.push(OpenCapture { id, recorders });
        self.generation.0.fetch_add(1, Relaxed);
        drop(captures);
        self.counters.begun.count();
        Ok(Recording::new(
            Arc::clone(self),
            id,
            sources,
            request,
            snap,
            Arc::clone(director),
            device,
        ))
    }

    /// Ends what is under way, within [`TICK`]; nothing begins any more.
    pub fn close(&self) {
        self.is_closed.store(true, Relaxed);
    }

    fn is_closed(&self) -> bool {
        self.is_closed.load(Relaxed)
    }

    /// Ends a capture: at their next packet the threads have nothing to do with it any more.
    fn end(&self, id: u64) {
        let ended = {
            let mut captures = self.captures();
            let at = captures.open.iter().position(|capture| capture.id == id);
            let ended = at.map(|at| captures.open.swap_remove(at));
            self.generation.0.fetch_add(1, Relaxed);
            ended
        };
        // What no thread took is freed here, and not under the lock.
        drop(ended);
    }

    fn captures(&self) -> MutexGuard<'_, Captures> {
        self.captures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Tap {
    fn default() -> Self {
        Self::new()
    }
}

/// One thread's place at the tap.
#[derive(Debug)]
pub struct TapPlace {
    tap: Arc<Tap>,
    director: Arc<Director>,
    thread: usize,
    generation: u64,
    recorders: Vec<Recorder>,
    /// The first octets of the packet as it came.
    before: Box<[u8]>,
    /// How many of them there are.
    kept: usize,
    /// Octets that the packet had.
    length: usize,
    checksum: TransportChecksum,
    time: Duration,
}

impl TapPlace {
    /// The place of the thread with this number, from 0 on.
    #[must_use]
    pub fn new(tap: Arc<Tap>, director: Arc<Director>, thread: usize) -> Self {
        Self {
            tap,
            director,
            thread,
            generation: 0,
            recorders: Vec::with_capacity(CAPTURES_MAX),
            before: vec![0; PACKET_OCTETS_MAX].into_boxed_slice(),
            kept: 0,
            length: 0,
            checksum: TransportChecksum::Complete,
            time: Duration::ZERO,
        }
    }

    /// Looks at a packet before the director does, and says whether somebody wants to know what
    /// becomes of it. Cost when nobody captures: one relaxed load.
    #[inline]
    pub fn look(&mut self, packet: &Packet<'_>) -> bool {
        if self.tap.generation.0.load(Relaxed) != self.generation {
            self.take_recorders();
        }
        if self.recorders.is_empty() {
            return false;
        }
        self.keep(packet);
        true
    }

    /// Shows the packet that was looked at last, now as `after`, to those who capture.
    /// `is_written` is whether the device took what was to be sent.
    pub fn show(&mut self, verdict: Verdict, after: &mut [u8], is_written: bool) {
        let length = after.len();
        let is_sent = matches!(verdict, Verdict::Forward | Verdict::Reply);
        let looked_at = self.before.get_mut(..self.kept.min(LOOKED_AT)).unwrap_or_default();
        let before_parties = Parties::of(looked_at);
        let after_parties = if is_sent { Parties::of(first(after, LOOKED_AT)) } else { [None; 2] };
        let seen = [before_parties, after_parties];
        let mut head = Head {
            octets: 0,
            kind: Kind::Verdict(verdict),
            is_written,
            is_checksum_unfinished: self.checksum == TransportChecksum::Partial,
            time: self.time,
            took: now().saturating_sub(self.time),
            before: 0,
            before_length: self.length,
            after: 0,
            after_length: if is_sent { length } else { 0 },
        };
        for recorder in &mut self.recorders {
            recorder.counters.seen.count();
            if !recorder.filter.wants(head.kind, &seen, &self.director) {
                continue;
            }
            head.before = self.kept.min(recorder.snap);
            head.after = head.after_length.min(recorder.snap);
            let before = self.before.get(..head.before).unwrap_or_default();
            recorder.put(head, before, after.get(..head.after).unwrap_or_default());
        }
    }

    /// Shows a part of a packet that was held and is sent now.
    pub fn show_released(&mut self, after: &mut [u8], is_written: bool) {
        let length = after.len();
        let seen = [Parties::of(first(after, LOOKED_AT)), [None; 2]];
        let mut head = Head {
            octets: 0,
            kind: Kind::Released,
            is_written,
            is_checksum_unfinished: false,
            time: now(),
            took: Duration::ZERO,
            before: 0,
            before_length: 0,
            after: 0,
            after_length: length,
        };
        for recorder in &mut self.recorders {
            if recorder.filter.wants(head.kind, &seen, &self.director) {
                head.after = length.min(recorder.snap);
                recorder.put(head, &[], after.get(..head.after).unwrap_or_default());
            }
        }
    }

    #[inline(never)]
    fn keep(&mut self, packet: &Packet<'_>) {
        let octets = packet.octets();
        let snap = self.recorders.iter().map(|recorder| recorder.snap).max().unwrap_or_default();
        self.length = octets.len();
        self.kept = octets.len().min(snap.max(LOOKED_AT)).min(self.before.len());
        if let (Some(to), Some(from)) = (self.before.get_mut(..self.kept), octets.get(..self.kept))
        {
            to.copy_from_slice(from);
        }
        self.checksum = packet.checksum();
        self.time = now();
    }

    /// Takes part in what has begun and leaves what has ended. Where somebody begins or ends a capture
    /// right now, the next packet sees to it.
    #[cold]
    fn take_recorders(&mut self) {
        let mut captures = match self.tap.captures.try_lock() {
            Ok(captures) => captures,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        self.generation = self.tap.generation.0.load(Relaxed);
        // The ring itself is freed by whoever lets go last, which is the recording.
        self.recorders
            .retain(|recorder| captures.open.iter().any(|capture| capture.id == recorder.id));
        for capture in &mut captures.open {
            let place = capture.recorders.get_mut(self.thread);
            self.recorders.extend(place.and_then(Option::take));
        }
    }
}

impl Recorder {
    /// Puts a packet into the ring, or counts it as missed.
    fn put(&mut self, mut head: Head, before: &[u8], after: &[u8]) {
        self.counters.matched.count();
        head.octets = Head::OCTETS + before.len() + after.len();
        if self.ring.slots() < head.octets {
            self.counters.missed.count();
            return;
        }
        for part in [&head.encode()[..], before, after] {
            // There is room, as was seen.
            let _ = self.ring.write_all(part);
        }
    }
}

/// What became of a packet, as the rings say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// What the director decided.
    Verdict(Verdict),
    /// Sent now after it was held.
    Released,
}

impl Kind {
    fn encode(self) -> [u8; 2] {
        match self {
            Self::Verdict(Verdict::Forward) => [0, 0],
            Self::Verdict(Verdict::Reply) => [1, 0],
            Self::Verdict(Verdict::Pass) => [2, 0],
            Self::Verdict(Verdict::Hold) => [3, 0],
            Self::Verdict(Verdict::Drop(reason)) => {
                let at = DropReason::ALL.iter().position(|other| *other == reason);
                [4, at.and_then(|at| u8::try_from(at).ok()).unwrap_or(u8::MAX)]
            }
            Self::Released => [5, 0],
        }
    }

    fn decode([kind, reason]: [u8; 2]) -> Option<Self> {
        Some(match kind {
            0 => Self::Verdict(Verdict::Forward),
            1 => Self::Verdict(Verdict::Reply),
            2 => Self::Verdict(Verdict::Pass),
            3 => Self::Verdict(Verdict::Hold),
            4 => Self::Verdict(Verdict::Drop(*DropReason::ALL.get(usize::from(reason))?)),
            5 => Self::Released,
            _ => return None,
        })
    }
}

/// What stands in front of a packet in a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Head {
    /// Octets of the head and both parts.
    octets: usize,
    kind: Kind,
    is_written: bool,
    is_checksum_unfinished: bool,
    /// When it came, since 1970.
    time: Duration,
    /// From then until it was sent or dropped.
    took: Duration,
    /// Octets kept of it as it came, and octets that it had.
    before: usize,
    before_length: usize,
    /// The same as it was sent; 0 where it was not, or as it came.
    after: usize,
    after_length: usize,
}

impl Head {
    const OCTETS: usize = 40;

    fn encode(&self) -> [u8; Self::OCTETS] {
        let mut octets = [0; Self::OCTETS];
        let mut rest = &mut octets[..];
        let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX).to_ne_bytes();
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let took = u32::try_from(self.took.as_nanos()).unwrap_or(u32::MAX);
        let [kind, reason] = self.kind.encode();
        for part in [
            &number(self.octets)[..],
            &[kind, reason, u8::from(self.is_written), u8::from(self.is_checksum_unfinished)],
            &nanos(self.time).to_ne_bytes(),
            &took.to_ne_bytes(),
            &number(self.before),
            &number(self.before_length),
            &number(self.after),
            &number(self.after_length),
        ] {
            // Into an array of their length.
            let _ = rest.write_all(part);
        }
        octets
    }

    fn decode(octets: &[u8; Self::OCTETS]) -> Option<Self> {
        let (words, _) = octets.as_chunks::<4>();
        let &[total, [kind, reason, is_written, is_unfinished], a, b, took, c, d, e, f, _] = words
        else {
            return None;
        };
        let number = |word| usize::try_from(u32::from_ne_bytes(word)).ok();
        let nanos = [a, b].concat();
        Some(Self {
            octets: number(total)?,
            kind: Kind::decode([kind, reason])?,
            is_written: is_written != 0,
            is_checksum_unfinished: is_unfinished != 0,
            time: Duration::from_nanos(u64::from_ne_bytes(nanos.try_into().ok()?)),
            took: Duration::from_nanos(u32::from_ne_bytes(took).into()),
            before: number(c)?,
            before_length: number(d)?,
            after: number(e)?,
            after_length: number(f)?,
        })
    }
}

fn first(octets: &mut [u8], most: usize) -> &mut [u8] {
    let length = octets.len().min(most);
    octets.get_mut(..length).unwrap_or_default()
}

/// The time since 1970.
fn now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}
