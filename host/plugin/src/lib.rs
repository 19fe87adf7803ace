//! Runs scheduler plugins: WebAssembly modules that pick the real server for each new connection.
//!
//! A plugin is never trusted. It runs in a memory of its own with limits on memory, instructions
//! and stack; what it may import is nothing; each answer is checked. Whatever it does wrong costs
//! it the decision at hand, which the director then makes by itself, and never a connection:
//!
//! ```text
//!  Host ── load ──► Module ── scheduler ──► WasmScheduler ── schedule ──► Pick
//!  engine,          checked and             one Instance for one          the plugin's answer,
//!  compile,         compiled,               virtual service               or Defer after a fault
//!  rebuild          shared                  │        ▲
//!                                     fault ▼        │ made anew on the rebuild thread
//! ```
//!
//! The contract itself is the crate [`wvs_abi`]; `docs/PLUGINS.md` explains it to authors.

pub mod builtin;
mod counters;
mod engine;
mod error;
mod fault;
mod guest;
mod host;
mod imports;
mod instance;
mod limits;
mod module;
mod plugin;
mod probe;
mod quarantine;
mod rebuild;
mod recorder;
pub mod recording;
mod replay;
mod scheduler;
mod shape;
mod signature;
pub mod simulation;
mod table;
mod text;
mod trial;

pub use counters::{PluginCounters, TIME_BUCKETS};
pub use error::{HostError, InstanceError, LoadError, RecordingError, RegionError};
pub use fault::{Fault, FaultKind};
pub use host::{Host, Source};
pub use instance::Instance;
pub use limits::Limits;
pub use module::Module;
pub use probe::ProbeReport;
pub use quarantine::{CALM_MS, FAULTS_MAX, QUARANTINE_MAX_MS, QUARANTINE_MIN_MS};
pub use recorder::Recorder;
pub use replay::{Difference, ReplayReport};
pub use scheduler::{PluginReport, Rollback, Succession, WasmScheduler};
pub use table::ServerTable;
pub use trial::{SHARE_ALL, ServerPicks, Stop, TrialLimits, TrialReport};
