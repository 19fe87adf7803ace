//! Captured packets through a director: what it would have sent, with the capture's times as its
//! clock and fixed seeds, so that the same capture always gives the same packets.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use wvs_core::director::Director;
use wvs_core::packet::Packet;
use wvs_core::random::Random;
use wvs_core::time::Moment;
use wvs_core::verdict::Verdict;
use wvs_plugin::{Host, HostError};

use crate::capture::{CaptureError, CaptureReader, CaptureWriter, RECORD_OCTETS_MAX};
use crate::config::Config;
use crate::control::snapshot::{ConnectionsSnapshot, PacketsSnapshot, ServiceSnapshot};
use crate::deployment::{Deployment, Misfit};
use crate::run::director_config;
use crate::seat::Seat;

/// Seed of everything that is random in a running director.
const SEED: u64 = 1;

/// Where the director's clock stands at the first packet: there is room for one whose time is
/// earlier.
const START: Duration = Duration::from_hours(24);

/// Sweeps made up for at once after a pause. Each visits at least a twentieth of the connections, or
/// 16,384, so these reach all of four million.
const SWEEPS_MAX: u64 = 256;

/// A director that is given captured packets.
#[derive(Debug)]
pub struct Replay {
    director: Director,
    seats: Vec<Arc<Seat>>,
    /// The time of the first packet.
    began: Option<Duration>,
    /// When the table was last swept, by the director's clock.
    swept: Moment,
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
        output: &mut CaptureWriter<impl Write>,
    ) -> Result<(), ReplayError> {
        let mut frame = Vec::new();
        while let Some(record) = input.read(&mut frame)? {
            self.summary.frames += 1;
            if record.original_octets > frame.len() {
                self.summary.cut_short += 1;
            }
            let Some(packet) = input.link().ip_packet(&frame) else {
                self.summary.not_ip += 1;
                continue;
            };
            self.process(packet, record.time, output).map_err(ReplayError::Write)?;
        }
        Ok(())
    }

    fn process(
        &mut self,
        octets: &[u8],
        time: Duration,
        output: &mut CaptureWriter<impl Write>,
    ) -> io::Result<()> {
        let now = self.moment(time);
        self.sweep(now);
        self.buffer.clear();
        self.buffer.extend_from_slice(octets);
        self.buffer.resize(octets.len() + Packet::HEADROOM, 0);
        let mut packet = Packet::new(&mut self.buffer, octets.len());
        match self.director.process(&mut packet, now) {
            Verdict::Forward | Verdict::Reply | Verdict::Pass => {
                output.write(time, packet.octets())?;
                self.summary.written += 1;
            }
            Verdict::Hold | Verdict::Drop(_) => {}
        }
        // Parts of a packet whose first part this one was.
        self.buffer.resize(RECORD_OCTETS_MAX, 0);
        while let Some(length) = self.director.next_released(&mut self.buffer) {
            output.write(time, self.buffer.get(..length).unwrap_or_default())?;
            self.summary.written += 1;
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
