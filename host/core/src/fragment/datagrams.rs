//! The datagrams of which some pieces came and others did not yet.

use core::ops::Range;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use core::time::Duration;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::connection::Connection;
use crate::connection::tuple::Direction;
use crate::packet::address::Address;
use crate::stats::Counter;
use crate::time::Moment;
use crate::verdict::DropReason;

/// How long pieces are waited for, as Linux does it for IPv4. RFC 8200 allows a minute.
pub const LIFETIME: Duration = Duration::from_secs(30);

/// Datagrams of one family that wait for their first piece at once. The oldest makes way for the
/// next one: in a flood they wait shorter, but pieces of one datagram come in close company.
pub const WAITING_MAX: usize = 4_096;

/// Octets of one family held at once, with the same consequence.
pub const HELD_OCTETS_MAX: usize = 4 << 20;

/// Datagrams of one family that are known by their first piece at once. The oldest is forgotten.
pub const KNOWN_MAX: usize = 16_384;

/// Pieces of one datagram: enough for 64 KiB by the shortest MTU that RFC 791 wants everybody to take.
const PIECES_MAX: usize = 128;

/// What tells the pieces of one datagram from those of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Datagram<A> {
    pub(crate) source: A,
    pub(crate) destination: A,
    pub(crate) identification: u32,
    /// 0 for IPv6, where it is no part of it (RFC 8200 section 4.5).
    pub(crate) protocol: u8,
}

/// What becomes of a datagram, decided by its first piece.
#[derive(Debug)]
pub(crate) enum Fate<A: Address> {
    /// It is a connection's, in this direction.
    Connection(Arc<Connection<A>>, Direction),
    /// It is no connection's, and goes between these addresses.
    Datagram { source: A, destination: A },
    /// It is none of the director's business.
    Passed,
    /// Its other pieces are dropped.
    Refused,
}

impl<A: Address> Clone for Fate<A> {
    fn clone(&self) -> Self {
        match self {
            Self::Connection(connection, direction) => {
                Self::Connection(Arc::clone(connection), *direction)
            }
            Self::Datagram { source, destination } => {
                Self::Datagram { source: *source, destination: *destination }
            }
            Self::Passed => Self::Passed,
            Self::Refused => Self::Refused,
        }
    }
}

/// How fragments fared, both families together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FragmentTotals {
    /// Datagrams of which some pieces came, and others not yet.
    pub datagrams: usize,
    /// Octets of pieces that wait for the first one.
    pub held_octets: usize,
    /// Datagrams not all of whose pieces came in time.
    pub expired: u64,
    /// Datagrams that made way for newer ones.
    pub evicted: u64,
}

impl FragmentTotals {
    pub(super) const fn and(self, other: Self) -> Self {
        Self {
            datagrams: self.datagrams.saturating_add(other.datagrams),
            held_octets: self.held_octets.saturating_add(other.held_octets),
            expired: self.expired.saturating_add(other.expired),
            evicted: self.evicted.saturating_add(other.evicted),
        }
    }
}

/// The datagrams of one family of which some pieces came.
#[derive(Debug)]
pub(crate) struct Fragments<A: Address> {
    pieces: Mutex<Pieces<A>>,
    /// Held pieces whose time has come, so that whoever has none to send need not lock.
    released: AtomicUsize,
    expired: Counter,
    evicted: Counter,
}

#[derive(Debug)]
struct Pieces<A: Address> {
    progress: HashMap<Datagram<A>, Progress<A>, Hasher>,
    /// In the order in which they began, those among them that are no longer waiting too.
    waiting: VecDeque<(Datagram<A>, Moment)>,
    /// In the order in which their first piece came.
    known: VecDeque<(Datagram<A>, Moment)>,
    released: VecDeque<Box<[u8]>>,
    held_octets: usize,
}

type Hasher = foldhash::quality::FixedState;

/// What is known of one datagram.
#[derive(Debug)]
struct Progress<A: Address> {
    began: Moment,
    /// Where the pieces lie in the datagram.
    places: Vec<Range<u32>>,
    /// The whole, once the last piece told.
    length: Option<u32>,
    /// `None` before the first piece.
    fate: Option<Fate<A>>,
    held: Vec<Box<[u8]>>,
}

/// What is to be done with a piece that fits.
#[derive(Debug)]
pub(crate) enum Place<A: Address> {
    /// It is the first one: its way decides.
    First,
    /// The way of its datagram is known.
    Known(Fate<A>),
    /// It was kept until the first one comes.
    Held,
}

impl<A: Address> Fragments<A> {
    pub(crate) fn new(hasher: Hasher) -> Self {
        Self {
            pieces: Mutex::new(Pieces {
                progress: HashMap::with_hasher(hasher),
                waiting: VecDeque::new(),
                known: VecDeque::new(),
                released: VecDeque::new(),
                held_octets: 0,
            }),
            released: AtomicUsize::new(0),
            expired: Counter::default(),
            evicted: Counter::default(),
        }
    }

    /// Finds the place of a piece in its datagram. `octets` are the whole packet, kept if it
    /// has to wait for the first piece.
    ///
    /// # Errors
    /// [`DropReason::Fragment`] for a piece that came before, [`DropReason::FragmentOverlap`] for one
    /// that lies over another; then the rest of the datagram is refused.
    pub(super) fn place(
        &self,
        datagram: Datagram<A>,
        place: Range<u32>,
        is_last: bool,
        octets: &[u8],
        now: Moment,
    ) -> Result<Place<A>, DropReason> {
        let is_first = place.start == 0;
        let mut pieces = self.lock();
        if !pieces.progress.contains_key(&datagram) {
            pieces.begin(datagram, now);
        }
        let Some(progress) = pieces.progress.get_mut(&datagram) else {
            return Err(DropReason::Fragment);
        };
        if matches!(progress.fate, Some(Fate::Refused)) {
            return Err(DropReason::Fragment);
        }
        match progress.add(place, is_last) {
            Ok(()) => {}
            Err(Misfit::Repeated) => return Err(DropReason::Fragment),
            Err(Misfit::Impossible) => {
                pieces.settle(datagram, Fate::Refused, now);
                return Err(DropReason::FragmentOverlap);
            }
        }
        if is_first {
            return Ok(Place::First);
        }
        if let Some(fate) = progress.fate.clone() {
            if progress.is_complete() {
                pieces.progress.remove(&datagram);
            }
            return Ok(Place::Known(fate));
        }
        progress.held.push(octets.into());
        pieces.held_octets = pieces.held_octets.saturating_add(octets.len());
        self.evicted.add(pieces.keep_limits());
        Ok(Place::Held)
    }

    /// Notes what became of the first piece of `datagram`. `release` makes each held one what is to
    /// be sent, or says that it is not.
    pub(super) fn settle(
        &self,
        datagram: Datagram<A>,
        fate: Fate<A>,
        now: Moment,
        release: impl Fn(&mut [u8]) -> bool,
    ) {
        let mut pieces = self.lock();
        for mut octets in pieces.settle(datagram, fate, now) {
            if release(&mut octets) {
                pieces.held_octets = pieces.held_octets.saturating_add(octets.len());
                pieces.released.push_back(octets);
            }
        }
        self.evicted.add(pieces.keep_limits());
        self.released.store(pieces.released.len(), Relaxed);
    }

    /// Copies the next released piece into `buffer`; its length. One that does not fit is lost.
    #[inline]
    pub(crate) fn next_released(&self, buffer: &mut [u8]) -> Option<usize> {
        if self.released.load(Relaxed) == 0 {
            return None;
        }
        let octets = {
            let mut pieces = self.lock();
            let octets = pieces.released.pop_front();
            self.released.store(pieces.released.len(), Relaxed);
            pieces.held_octets =
                pieces.held_octets.saturating_sub(octets.as_ref().map_or(0, |octets| octets.len()));
            octets?
        };
        buffer.get_mut(..octets.len())?.copy_from_slice(&octets);
        Some(octets.len())
    }

    /// Forgets what waited too long.
    pub(crate) fn sweep(&self, now: Moment) {
        let mut pieces = self.lock();
        let lifetime = u64::try_from(LIFETIME.as_millis()).unwrap_or(u64::MAX);
        let is_over = |began: &Moment| now.millis_since(*began) >= lifetime;
        while let Some((datagram, began)) = pieces.waiting.pop_front_if(|(_, began)| is_over(began))
        {
            if pieces.forget(&datagram, began, true) {
                self.expired.count();
            }
        }
        while let Some((datagram, began)) = pieces.known.pop_front_if(|(_, began)| is_over(began)) {
            if pieces.forget(&datagram, began, false) {
                self.expired.count();
            }
        }
    }

    pub(crate) fn totals(&self) -> FragmentTotals {
        let pieces = self.lock();
        FragmentTotals {
            datagrams: pieces.progress.len(),
            held_octets: pieces.held_octets,
            expired: self.expired.get(),
            evicted: self.evicted.get(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Pieces<A>> {
        self.pieces.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<A: Address> Pieces<A> {
    fn begin(&mut self, datagram: Datagram<A>, now: Moment) {
        let progress =
            Progress { began: now, places: Vec::new(), length: None, fate: None, held: Vec::new() };
        self.progress.insert(datagram, progress);
        self.waiting.push_back((datagram, now));
    }

    /// Decides the fate of a datagram and takes out what was held of it.
    fn settle(&mut self, datagram: Datagram<A>, fate: Fate<A>, now: Moment) -> Vec<Box<[u8]>> {
        let Some(progress) = self.progress.get_mut(&datagram) else { return Vec::new() };
        let held = core::mem::take(&mut progress.held);
        let octets: usize = held.iter().map(|octets| octets.len()).sum();
        self.held_octets = self.held_octets.saturating_sub(octets);
        // Refused datagrams are remembered to their end, so that no late piece is taken for a new one.
        if progress.is_complete() && !matches!(fate, Fate::Refused) {
            self.progress.remove(&datagram);
            return held;
        }
        progress.fate = Some(fate);
        progress.began = now;
        self.known.push_back((datagram, now));
        held
    }

    /// Forgets a datagram that began then, if it still waits, or no longer does.
    fn forget(&mut self, datagram: &Datagram<A>, began: Moment, is_waiting: bool) -> bool {
        let is_it = self.progress.get(datagram).is_some_and(|progress| {
            progress.began == began && progress.fate.is_none() == is_waiting
        });
        if is_it && let Some(progress) = self.progress.remove(datagram) {
            let octets: usize = progress.held.iter().map(|octets| octets.len()).sum();
            self.held_octets = self.held_octets.saturating_sub(octets);
        }
        is_it
    }

    /// Forgets the oldest until all limits are kept; how many that were.
    fn keep_limits(&mut self) -> u64 {
        let mut evicted = 0_u64;
        while self.waiting.len() > WAITING_MAX || self.held_octets > HELD_OCTETS_MAX {
            let Some((datagram, began)) = self.waiting.pop_front() else { break };
            if self.forget(&datagram, began, true) {
                evicted = evicted.saturating_add(1);
            }
        }
        while self.known.len() > KNOWN_MAX {
            let Some((datagram, began)) = self.known.pop_front() else { break };
            if self.forget(&datagram, began, false) {
                evicted = evicted.saturating_add(1);
            }
        }
        // Released faster than they are sent: nobody takes them.
        while self.held_octets > HELD_OCTETS_MAX {
            let Some(octets) = self.released.pop_front() else { break };
            self.held_octets = self.held_octets.saturating_sub(octets.len());
        }
        evicted
    }
}

/// Why a piece does not fit into its datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Misfit {
    /// It came before: the network doubled it.
    Repeated,
    /// It lies over another one, or beyond the end, or there are too many.
    Impossible,
}

impl<A: Address> Progress<A> {
    fn add(&mut self, place: Range<u32>, is_last: bool) -> Result<(), Misfit> {
        if self.places.contains(&place) {
            return Err(Misfit::Repeated);
        }
        let is_over_another =
            self.places.iter().any(|other| place.start < other.end && other.start < place.end);
        let is_beyond_end = match (self.length, is_last) {
            (Some(length), _) => place.end > length || is_last,
            (None, true) => self.places.iter().any(|other| other.end > place.end),
            (None, false) => false,
        };
        if is_over_another || is_beyond_end || self.places.len() >= PIECES_MAX {
            return Err(Misfit::Impossible);
        }
        if is_last {
            self.length = Some(place.end);
        }
        self.places.push(place);
        Ok(())
    }

    /// Whether every piece came.
    fn is_complete(&self) -> bool {
        let octets: u32 =
            self.places.iter().map(|place| place.end.saturating_sub(place.start)).sum();
        self.length == Some(octets)
    }
}
