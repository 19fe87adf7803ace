//! What `GET /metrics` tells, in Prometheus' text format 0.0.4.
//!
//! Everything that is told is counted already, by whom it concerns and in numbers of its own. So there
//! is no registry of metrics beside them: a scrape takes snapshots, as every listing does, and
//! [`Scrape::render`] writes them down. What there is to tell is listed in [`families`].

pub mod counters;
pub mod families;
pub mod process;
mod render;
mod text;

use crate::control::snapshot::{SeatSnapshot, ServiceSnapshot, StatsSnapshot};
use counters::{LineTotals, ReloadTotals, SweepTotals};
use process::Process;

/// What the text is, for HTTP.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A director at one moment.
#[derive(Clone, Debug)]
pub struct Scrape {
    /// The director as a whole.
    pub stats: StatsSnapshot,
    /// The virtual services.
    pub services: Vec<ServiceSnapshot>,
    /// Their plugins.
    pub plugins: Vec<SeatSnapshot>,
    /// Sweeps of the connection table.
    pub sweeps: SweepTotals,
    /// Reloads of the configuration.
    pub reloads: ReloadTotals,
    /// The connection log.
    pub connection_log: LineTotals,
    /// The process, where the operating system tells.
    pub process: Option<Process>,
    /// Seconds since 1970 at which the director started.
    pub start_time_seconds: u64,
    /// Whether to tell of each real server.
    pub with_servers: bool,
}
