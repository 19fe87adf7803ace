//! Captured packets through a director: what it would have sent, with the capture's times as its
//! clock and fixed seeds, so that the same capture always gives the same packets.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use wvs_core::director::Director;
use wvs_core::packet::{Packet, TransportChecksum};
use wvs_core::random::Random;
use wvs_core::services::Services;
use wvs_core::time::Moment;
use wvs_core::verdict::Verdict;
use wvs_plugin::{Host, HostError};

use crate::capture::{
    CaptureError, CaptureReader, CaptureWriter, PcapngWriter, RECORD_OCTETS_MAX, Record,
};
use crate::config::Config;
use crate::control::snapshot::{ConnectionsSnapshot, PacketsSnapshot, ServiceSnapshot};
use crate::deployment::{Deployment, Misfit};
use crate::run::director_config;
use crate::seat::Seat;
use crate::tap::{Kind, Outcome};

/// Seed of everything that is random in a running director.
const SEED: u64 = 1;

/// Where the director's clock stands at the first packet: there is room for one whose time is
/// earlier.
const START: Duration = Duration::from_hours(24);

/// Sweeps made up for at once after a pause. Each visits at least a twentieth of the connections, or
/// 16,384, so these reach all of four million.
const SWEEPS_MAX: u64 = 256;

/// Where a replay writes to.
pub trait ReplayOutput {
    /// Takes a packet and what became of it; how many packets were sent with that.
    ///
    /// # Errors
    /// The operating system's.
    fn write(&mut self, replayed: Replayed<'_>) -> io::Result<u64>;
}

/// A packet of a capture and what became of it.
#[derive(Debug)]
pub struct Replayed<'a> {
    time: Duration,
    /// As it came; empty for a part of a packet that was held until now.
    before: &'a mut [u8],
    /// As it is sent, if it is.
    after: Option<&'a mut [u8]>,
    kind: Kind,
    is_checksum_unfinished: bool,
    number: u64,
    services: &'a Services,
}

/// What is sent, and nothing else.
impl<W: Write> ReplayOutput for CaptureWriter<W> {
    fn write(&mut self, replayed: Replayed<'_>) -> io::Result<u64> {
        let Some(after) = replayed.after else { return Ok(0) };
        Self::write(self, replayed.time, after)?;
        Ok(1)
    }
}

/// A pcapng file of what came and what is sent, with what became of each packet as its comment, as
/// `wvs capture` writes it.
#[derive(Debug)]
pub struct CommentedOutput<W> {
    output: W,
    file: PcapngWriter,
    comment: String,
}

impl<W: Write> CommentedOutput<W> {
    /// Begins a file. `output` should be buffered.
    #[must_use]
    pub fn new(output: W) -> Self {
        let file = PcapngWriter::new("replay", RECORD_OCTETS_MAX);
        Self { output, file, comment: String::new() }
    }

    /// Writes what is still buffered.
    ///
    /// # Errors
    /// The operating system's.
    pub fn finish(mut self) -> io::Result<()> {
        // Only what comes before the first packet may be waiting.
        self.output.write_all(&self.file.take())?;
        self.output.flush()
    }
}

impl<W: Write> ReplayOutput for CommentedOutput<W> {
    fn write(&mut self, replayed: Replayed<'_>) -> io::Result<u64> {
        let Replayed { time, before, after, kind, is_checksum_unfinished, number, services } =
            replayed;
        let is_sent = after.is_some();
        // One that is sent on as it came is in the file once.
        let is_passed = kind == Kind::Verdict(Verdict::Pass);
        let after = after.filter(|_| !is_passed).unwrap_or_default();
        let outcome = Outcome {
            kind,
            time,
            took: Duration::ZERO,
            before_length: before.len(),
            before,
            after_length: after.len(),
            after,
            is_checksum_unfinished,
            is_written: true,
            id: number,
            queue: 0,
        };
        outcome.put(&mut self.file, &mut self.comment, services);
        self.output.write_all(&self.file.take())?;
        Ok(is_sent.into())
    }
}

/// A director that is given captured packets.
#[derive(Debug)]
pub struct Replay {
    director: Director,
    seats: Vec<Arc<Seat>>,
    /// The time of the first packet.
    began: Option<Duration>,
    /// When the table was last swept, by the director's clock.
    swept: Moment,
    /// The packet as it came, and the director's place to work in.
    before: Vec<u8>,
    buffer: Vec<u8>,
    summary: Summary,
}

/// What was in a capture, and what came out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Frames read.
    pub frames: u64,
    /// Frames without an IP packet, such as ARP.
    pub not_ip: u64,
    /// Frames that were sent where they were captured, which only pcapng says, and so are not given to
    /// the director.
    pub outbound: u64,
    /// Frames that the capture has only the beginning of.
    pub cut_short: u64,
    /// Packets written.
    pub written: u64,
    /// Milliseconds from the first to the latest packet.
    pub milliseconds: u64,
}

/// A summary with everything that the director counted.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The capture.
    pub capture: Summary,
    /// What became of the packets.
    pub packets: PacketsSnapshot,
    /// The connection table at the end.
    pub connections: ConnectionsSnapshot,
    /// The services at the end.
    pub services: Vec<ServiceSnapshot>,
}

/// Why a configuration cannot be replayed with.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No plugin works here.
    #[error(transparent)]
    Host(#[from] HostError),
    /// Plugins of the configuration do not work.
    #[error("plugins of the configuration do not work")]
    Misfits(Vec<Misfit>),
}

/// Why a replay ended before the capture did. What came before was replayed and written.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// No more of the capture can be read.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// No more can be written.
    #[error("cannot be written: {0}")]
    Write(#[source] io::Error),
}

impl Replay {
    /// A director for this configuration, whose plugins are loaded as if it were to run.
    ///
    /// # Errors
    /// Plugins do not work.
    pub fn new(config: &Config) -> Result<Self, StartError> {
        let mut random = Random::new(SEED);
        let deployment =
            Deployment::new(config, &Host::new()?, || random.next(), Moment::default());
        let Deployment { services, seats, .. } = deployment.map_err(StartError::Misfits)?;
        Ok(Self {
            director: Director::new(director_config(config, SEED), services),
            seats,
            began: None,
            swept: Moment::default(),
            before: Vec::new(),
            buffer: Vec::new(),
            summary: Summary::default(),
        })
    }

    /// Gives the director the packets of a capture, and writes what it would send.
    ///
    /// # Errors
    /// The capture ends before its end, or the output cannot be written.
    pub fn run(
        &mut self,
        input: &mut CaptureReader<impl Read>,
        output: &mut impl ReplayOutput,
    ) -> Result<(), ReplayError> {
        let mut frame = Vec::new();
        while let Some(record) = input.read(&mut frame)? {
            self.summary.frames += 1;
            if record.is_outbound {
                self.summary.outbound += 1;
                continue;
            }
            if record.original_octets > frame.len() {
                self.summary.cut_short += 1;
            }
            let Some(packet) = input.link().ip_packet(&frame) else {
                self.summary.not_ip += 1;
                continue;
            };
            self.process(packet, record, output).map_err(ReplayError::Write)?;
        }
        Ok(())
    }

    fn process(
        &mut self,
        octets: &[u8],
        record: Record,
        output: &mut impl ReplayOutput,
    ) -> io::Result<()> {
        let Record { time, is_checksum_unfinished, .. } = record;
        let now = self.moment(time);
        self.sweep(now);
        self.before.clear();
        self.before.extend_from_slice(octets);
        self.buffer.clear();
        self.buffer.extend_from_slice(octets);
        self.buffer.resize(octets.len() + Packet::HEADROOM, 0);
        let checksum = if is_checksum_unfinished {
            TransportChecksum::Partial
        } else {
            TransportChecksum::Complete
        };
        let mut packet = Packet::new(&mut self.buffer, octets.len()).with_checksum(checksum);
        let verdict = self.director.process(&mut packet, now);
        let after = match verdict {
            Verdict::Forward | Verdict::Reply | Verdict::Pass => Some(packet.octets_mut()),
            Verdict::Hold | Verdict::Drop(_) => None,
        };
        let number = self.summary.frames;
        let services = &*self.director.services();
        self.summary.written += output.write(Replayed {
            time,
            before: &mut self.before,
            after,
            kind: Kind::Verdict(verdict),
            is_checksum_unfinished,
            number,
            services,
        })?;
        // Parts of a packet whose first part this one was.
        self.buffer.resize(RECORD_OCTETS_MAX, 0);
        while let Some(length) = self.director.next_released(&mut self.buffer) {
            self.summary.written += output.write(Replayed {
                time,
                before: &mut [],
                after: self.buffer.get_mut(..length),
                kind: Kind::Released,
                is_checksum_unfinished: false,
                number,
                services,
            })?;
        }
        Ok(())
    }

    /// The director's time of a packet.
    fn moment(&mut self, time: Duration) -> Moment {
        let began = *self.began.get_or_insert(time);
        let since = (time + START).saturating_sub(began);
        let millis = u64::try_from(time.saturating_sub(began).as_millis()).unwrap_or(u64::MAX);
        self.summary.milliseconds = self.summary.milliseconds.max(millis);
        Moment::default().after(since)
    }

    /// Sweeps as often as a running director would have until now, as far as it makes a difference.
    fn sweep(&mut self, now: Moment) {
        let due = now.millis_since(self.swept) / Director::SWEEP_INTERVAL_MILLIS;
        for _ in 0..due.min(SWEEPS_MAX) {
            self.director.sweep(now);
        }
        if due > 0 {
            self.swept = now;
        }
    }

    /// What came of it.
    #[must_use]
    pub fn report(&self) -> Report {
        Report {
            capture: self.summary,
            packets: (&self.director).into(),
            connections: (&self.director).into(),
            services: self.seats.iter().map(|seat| ServiceSnapshot::of(seat, self.swept)).collect(),
        }
    }
}
