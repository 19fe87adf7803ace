//! A capture under way, as the pcapng file that it makes.

use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rtrb::Consumer;
use tokio::runtime::Handle;
use wvs_core::director::Director;

use super::{CaptureRequest, Head, Outcome, Source, Tap, now};
use crate::capture::{CaptureStatistics, PcapngWriter};

/// How often the rings are emptied. Packets never wake whoever does: that would cost each a system
/// call.
pub const TICK: Duration = Duration::from_millis(20);

/// Octets of the file that are handed on at once, and one packet at most.
const CHUNK_OCTETS: usize = 64 << 10;

/// How often the file says how much was missed while there is nothing else to write.
const STATISTICS_INTERVAL: Duration = Duration::from_secs(1);

/// How often is looked whether the threads have let go of the rings of a capture that ended.
const LET_GO_INTERVAL: Duration = Duration::from_millis(500);

/// A capture under way. Dropped, it ends.
#[derive(Debug)]
pub struct Recording {
    tap: Arc<Tap>,
    id: u64,
    director: Arc<Director>,
    sources: Vec<Source>,
    file: PcapngWriter,
    /// Octets of the file that were handed on.
    octets: u64,
    written: u64,
    /// Missed packets that the tap's counter has.
    missed_told: u64,
    told: CaptureStatistics,
    told_at: Instant,
    deadline: Option<Instant>,
    count_max: Option<u64>,
    octets_max: Option<u64>,
    is_over: bool,
    before: Vec<u8>,
    after: Vec<u8>,
    comment: String,
}

impl Recording {
    pub(super) fn new(
        tap: Arc<Tap>,
        id: u64,
        sources: Vec<Source>,
        request: &CaptureRequest,
        snap: usize,
        director: Arc<Director>,
        device: &str,
    ) -> Self {
        let now = Instant::now();
        Self {
            tap,
            id,
            director,
            sources,
            file: PcapngWriter::new(device, snap),
            octets: 0,
            written: 0,
            missed_told: 0,
            told: CaptureStatistics::default(),
            told_at: now,
            deadline: request.time().and_then(|time| now.checked_add(time)),
            count_max: request.count,
            octets_max: request.octets,
            is_over: false,
            before: Vec::new(),
            after: Vec::new(),
            comment: String::new(),
        }
    }

    /// The next octets of the file, of which there may be none at the moment; `None` when it has come
    /// to its end.
    pub fn next_octets(&mut self) -> Option<Vec<u8>> {
        if self.is_over {
            return None;
        }
        let is_last_turn = self.tap.is_closed()
            || self.deadline.is_some_and(|deadline| Instant::now() >= deadline);
        let mut is_full = false;
        while !is_full && self.file.len() < CHUNK_OCTETS {
            if self.has_enough() {
                is_full = true;
            } else if !self.write_next() {
                break;
            }
        }
        let has_more = self.file.len() >= CHUNK_OCTETS;
        self.is_over = is_full || is_last_turn && !has_more;
        self.tell_statistics();
        let octets = self.file.take();
        self.octets += u64::try_from(octets.len()).unwrap_or(u64::MAX);
        Some(octets)
    }

    /// When there is nothing to do any more, whatever comes.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// What was counted until now.
    #[must_use]
    pub fn statistics(&self) -> CaptureStatistics {
        let mut statistics = CaptureStatistics { written: self.written, ..Default::default() };
        for Source { counters, .. } in &self.sources {
            statistics.seen += counters.seen.get();
            statistics.matched += counters.matched.get();
            statistics.missed += counters.missed.get();
        }
        statistics
    }

    fn has_enough(&self) -> bool {
        let waiting = u64::try_from(self.file.len()).unwrap_or(u64::MAX);
        self.count_max.is_some_and(|count_max| self.written >= count_max)
            || self.octets_max.is_some_and(|octets_max| self.octets + waiting >= octets_max)
    }

    fn tell_statistics(&mut self) {
        let statistics = self.statistics();
        let new = statistics.missed.saturating_sub(self.missed_told);
        self.tap.counters.missed.add(new);
        self.missed_told += new;
        // With every piece, so that a file that ends anywhere says it.
        let is_due = !self.file.is_empty() || self.told_at.elapsed() >= STATISTICS_INTERVAL;
        if is_due && statistics != self.told || self.is_over {
            self.file.put_statistics(now(), &statistics);
            self.told = statistics;
            self.told_at = Instant::now();
        }
    }

    /// Writes the earliest packet that waits in a ring; `false` if none does.
    fn write_next(&mut self) -> bool {
        let heads = self.sources.iter_mut().map(|source| peek(&mut source.ring)).enumerate();
        let heads = heads.filter_map(|(at, head)| Some((at, head?)));
        let Some((queue, head)) = heads.min_by_key(|(_, head)| head.time) else { return false };
        let Some(source) = self.sources.get_mut(queue) else { return false };
        take(&mut source.ring, &head, &mut self.before, &mut self.after);
        let outcome = Outcome {
            kind: head.kind,
            time: head.time,
            took: head.took,
            before: &mut self.before,
            before_length: head.before_length,
            after: &mut self.after,
            after_length: head.after_length,
            is_checksum_unfinished: head.is_checksum_unfinished,
            is_written: head.is_written,
            id: self.written,
            queue: u32::try_from(queue).unwrap_or(u32::MAX),
        };
        outcome.put(&mut self.file, &mut self.comment, &self.director.services());
        self.written += 1;
        self.tap.counters.written.count();
        true
    }
}

/// The head of the next packet in a ring, if all of the packet is there.
fn peek(ring: &mut Consumer<u8>) -> Option<Head> {
    let waiting = ring.slots();
    let chunk = ring.read_chunk(Head::OCTETS).ok()?;
    let (start, end) = chunk.as_slices();
    let mut octets = [0; Head::OCTETS];
    octets.get_mut(..start.len())?.copy_from_slice(start);
    octets.get_mut(start.len()..)?.copy_from_slice(end);
    Head::decode(&octets).filter(|head| head.octets <= waiting)
}

/// Takes the packet with this head out of the ring.
fn take(ring: &mut Consumer<u8>, head: &Head, before: &mut Vec<u8>, after: &mut Vec<u8>) {
    before.resize(head.before, 0);
    after.resize(head.after, 0);
    // All of it is there, as was seen.
    let _ = ring.pop_entire_slice(&mut [0; Head::OCTETS]);
    let _ = ring.pop_entire_slice(before);
    let _ = ring.pop_entire_slice(after);
}

impl Drop for Recording {
    fn drop(&mut self) {
        self.tap.end(self.id);
        // Whoever lets go of a ring last frees it, which no packet is to wait for.
        let mut sources = mem::take(&mut self.sources);
        sources.retain(|source| !source.ring.is_abandoned());
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                while !sources.is_empty() {
                    tokio::time::sleep(LET_GO_INTERVAL).await;
                    sources.retain(|source| !source.ring.is_abandoned());
                }
            });
        }
    }
}
