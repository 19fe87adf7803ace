//! A flight recorder's file: everything that a plugin was told and what it answered, so that the
//! same module can be asked the same again.
//!
//! A file is [`MAGIC`], then one [`Segment`] after the other, each with its length in front as four
//! octets, little endian. A segment is a [`Heading`] and then its entries, all in the form of
//! `postcard` 1.

use serde::{Deserialize, Serialize};
use wvs_abi::{Request, Server, ServerInfo, Signals};
use wvs_core::scheduler::Pick;

use crate::error::RecordingError;
use crate::table::ServerTable;

/// What a recording begins with; the last octet is the version of the form.
pub const MAGIC: [u8; 8] = *b"WVSREC\0\x01";

/// The longest segment that is read, in octets.
const SEGMENT_OCTETS_MAX: usize = 256 << 20;

/// A recording, read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recording {
    /// Its pieces in order.
    pub segments: Vec<Segment>,
}

/// A piece of a recording: one instance of a plugin over some time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// What was recorded, and from where on.
    pub heading: Heading,
    /// What happened.
    pub entries: Vec<Entry>,
}

/// What a [`Segment`] begins with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heading {
    /// Who was recorded.
    pub subject: Subject,
    /// Counts the instances that were recorded: two segments in a row with the same number go on
    /// with the same one.
    pub instance: u32,
    /// How the segment begins.
    pub beginning: Beginning,
}

/// A plugin that is recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// The service's number.
    pub service_id: u32,
    /// The generation of the service's plugins.
    pub generation: u16,
    /// The plugin's name.
    pub name: String,
    /// The SHA-256 hash of the module.
    pub sha256: [u8; 32],
    /// Its configuration as JSON text.
    pub config: Option<String>,
    /// Octets of memory that it may have.
    pub memory_max: u64,
    /// Fuel of one decision.
    pub fuel: u64,
    /// Fuel of its configuration and of each table.
    pub setup_fuel: u64,
}

/// Where an instance was when a segment begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Beginning {
    /// It was just made: what follows is all that it ever saw.
    Fresh,
    /// It had been at work before.
    Resumed {
        /// Its memory, unless that is too large to be recorded.
        snapshot: Option<Snapshot>,
        /// The table that it had, with the counts that it was shown last.
        servers: Vec<[u8; Server::SIZE]>,
        /// The servers' info records.
        info: Vec<[u8; ServerInfo::SIZE]>,
        /// The signals that it was shown last.
        signals: Vec<[u8; Signals::SIZE]>,
    },
}

/// All that an instance remembers, if it keeps that in its memory and not in variables of the
/// module's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Octets of the memory.
    pub size: u32,
    /// Its parts that are not all 0: where each begins, and its octets.
    pub parts: Vec<(u32, Vec<u8>)>,
    /// What its runtime's random numbers go on from.
    pub random: u64,
    /// Its runtime's clock.
    pub now_ms: u64,
    /// Where the regions for requests, servers, info and signals are, and how large.
    pub regions: [(u32, u32); 4],
}

/// Something that a plugin was told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry {
    /// A table of servers, with its counts.
    Servers {
        /// The records of all servers.
        servers: Vec<[u8; Server::SIZE]>,
        /// Their info records.
        info: Vec<[u8; ServerInfo::SIZE]>,
    },
    /// What its predecessor handed over, and whether it took it.
    State {
        /// The octets.
        state: Vec<u8>,
        /// Whether they meant something to it.
        is_taken: bool,
    },
    /// A decision.
    Decision {
        /// The request record in two halves.
        request: [[u8; 32]; 2],
        /// Of each server whose counts were others than before: its index, active and inactive.
        counts: Vec<(u16, u32, u32)>,
        /// Of each server whose signals were others than before: its index and the record.
        signals: Vec<(u16, [u8; Signals::SIZE])>,
        /// What the plugin said.
        answer: Answer,
    },
    /// An event.
    Event {
        /// A number of [`wvs_abi::event`].
        kind: u32,
        /// The server's index.
        index: u32,
        /// The event's argument.
        argument: u32,
    },
    /// A tick.
    Tick {
        /// The request record in two halves.
        request: [[u8; 32]; 2],
        /// As for a decision.
        signals: Vec<(u16, [u8; Signals::SIZE])>,
    },
}

/// What a plugin said when it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// The server at this index.
    Server(u32),
    /// That there is none.
    NoServer,
    /// That the director shall decide.
    Defer,
    /// It failed.
    Fault,
}

impl From<Option<Pick>> for Answer {
    fn from(pick: Option<Pick>) -> Self {
        match pick {
            Some(Pick::Server(index)) => Self::Server(u32::try_from(index).unwrap_or(u32::MAX)),
            Some(Pick::NoServer) => Self::NoServer,
            Some(Pick::Defer) => Self::Defer,
            None => Self::Fault,
        }
    }
}

impl Recording {
    /// Reads a file.
    ///
    /// # Errors
    /// Why it is no recording, or not one of this version.
    pub fn read(octets: &[u8]) -> Result<Self, RecordingError> {
        let mut rest = octets.strip_prefix(&MAGIC).ok_or_else(|| {
            let is_other_version = octets.starts_with(&MAGIC[..MAGIC.len() - 1]);
            if is_other_version { RecordingError::Version } else { RecordingError::NoRecording }
        })?;
        let mut segments = Vec::new();
        while !rest.is_empty() {
            let number = segments.len();
            let cut_off = || RecordingError::CutOff { segment: number };
            let (length, behind) = rest.split_first_chunk().ok_or_else(cut_off)?;
            let length = u32::from_le_bytes(*length) as usize;
            if length > SEGMENT_OCTETS_MAX {
                return Err(RecordingError::Broken { segment: number });
            }
            let (segment, behind) = behind.split_at_checked(length).ok_or_else(cut_off)?;
            let segment = Segment::read(segment);
            segments.push(segment.map_err(|_| RecordingError::Broken { segment: number })?);
            rest = behind;
        }
        Ok(Self { segments })
    }

    /// The file.
    #[must_use]
    pub fn write(&self) -> Vec<u8> {
        let mut octets = MAGIC.to_vec();
        for segment in &self.segments {
            let mut piece = Vec::new();
            append(&mut piece, &segment.heading);
            segment.entries.iter().for_each(|entry| append(&mut piece, entry));
            append_piece(&mut octets, &piece);
        }
        octets
    }

    /// Decisions in it.
    #[must_use]
    pub fn decisions(&self) -> usize {
        let entries = self.segments.iter().flat_map(|segment| &segment.entries);
        entries.filter(|entry| matches!(entry, Entry::Decision { .. })).count()
    }
}

impl Segment {
    fn read(octets: &[u8]) -> postcard::Result<Self> {
        let (heading, mut rest) = postcard::take_from_bytes(octets)?;
        let mut entries = Vec::new();
        while !rest.is_empty() {
            let (entry, behind) = postcard::take_from_bytes(rest)?;
            entries.push(entry);
            rest = behind;
        }
        Ok(Self { heading, entries })
    }
}

/// Appends a segment's heading or one of its entries.
pub(crate) fn append(piece: &mut Vec<u8>, value: &impl Serialize) {
    // Fails only for types that do not say their length; these do.
    if let Ok(whole) = postcard::to_extend(value, core::mem::take(piece)) {
        *piece = whole;
    }
}

/// Appends a segment to a file.
pub(crate) fn append_piece(file: &mut Vec<u8>, piece: &[u8]) {
    file.extend(u32::try_from(piece.len()).unwrap_or(u32::MAX).to_le_bytes());
    file.extend(piece);
}

/// A request record in two halves, which is how arrays of more than 32 octets are written.
pub(crate) fn halves(request: &Request) -> [[u8; 32]; 2] {
    let octets = request.to_octets();
    let (halves, _) = octets.as_chunks();
    [halves[0], halves[1]]
}

/// The request record of two halves.
pub(crate) fn request(halves: &[[u8; 32]; 2]) -> Request {
    let mut octets = [0; Request::SIZE];
    octets[..32].copy_from_slice(&halves[0]);
    octets[32..].copy_from_slice(&halves[1]);
    Request::from_octets(&octets)
}

/// A table as it is recorded.
pub(crate) fn servers(table: &ServerTable) -> Entry {
    Entry::Servers {
        servers: table.servers.iter().map(Server::to_octets).collect(),
        info: table.info.iter().map(ServerInfo::to_octets).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recording() -> Recording {
        let subject = Subject {
            service_id: 1,
            generation: 2,
            name: "wlc".to_owned(),
            sha256: [3; 32],
            config: None,
            memory_max: 4,
            fuel: 5,
            setup_fuel: 6,
        };
        let request = Request { now_ms: 7, random: 8, ..Request::default() };
        let entries = vec![
            Entry::Servers { servers: vec![[1; 32]], info: vec![[2; 32]] },
            Entry::Decision {
                request: halves(&request),
                counts: vec![(0, 1, 2)],
                signals: Vec::new(),
                answer: Answer::Server(0),
            },
        ];
        let heading = Heading { subject, instance: 1, beginning: Beginning::Fresh };
        Recording { segments: vec![Segment { heading, entries }] }
    }

    #[test]
    fn what_is_written_is_read() {
        let recording = recording();
        assert_eq!(Recording::read(&recording.write()).unwrap(), recording);
        assert_eq!(recording.decisions(), 1);
    }

    #[test]
    fn request_survives_being_halved() {
        let original = Request { family: 4, client_port: 9, random: 1 << 60, ..Request::default() };
        assert_eq!(request(&halves(&original)), original);
    }

    #[test]
    fn other_octets_are_refused_and_never_panic() {
        let octets = recording().write();
        assert_eq!(Recording::read(b"PK"), Err(RecordingError::NoRecording));
        assert_eq!(Recording::read(b"WVSREC\0\x02"), Err(RecordingError::Version));
        for end in MAGIC.len() + 1..octets.len() {
            let error = Recording::read(&octets[..end]).unwrap_err();
            assert_eq!(error, RecordingError::CutOff { segment: 0 }, "{end}");
        }
        for place in MAGIC.len()..octets.len() {
            for value in [0, 1, 0x7F, 0x80, 0xFF] {
                let mut changed = octets.clone();
                changed[place] = value;
                let _ = Recording::read(&changed);
            }
        }
    }
}
