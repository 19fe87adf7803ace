//! Runs scheduler plugins: WebAssembly modules that pick the real server for each new connection.
//!
//! A plugin is never trusted. It runs in a memory of its own with limits on memory, instructions
//! and stack; what it may import tells it nothing; each answer is checked. Whatever it does wrong costs
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
//! A [`WasmScheduler`] may have two more plugins for a while: its predecessor, which takes its
//! place again if it fails soon, and a candidate that is tried out beside it.
//!
//! A [simulation] puts a plugin to connections without a director, such as in its author's tests:
//!
//! ```
//! use wvs_plugin::simulation::{Requests, Simulation};
//! use wvs_plugin::{Host, Limits, Source};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let file = folder.path().join("mine.wasm");
//! # std::fs::write(&file, wvs_plugin::builtin::find("wlc").ok_or("no wlc")?)?;
//! // `file` is where cargo put the module: target/wasm32-unknown-unknown/release/mine.wasm
//! let plugin = Host::new()?.load(Source::File(&file), Limits::default())?;
//! let simulation = Simulation::new("3,1".parse()?, Requests::random(1, 10_000));
//! let outcome = simulation.run(&plugin, None)?;
//! assert_eq!(outcome.tally.faults, 0);
//! assert!((0.72..0.78).contains(&outcome.servers[0].share));
//! # Ok(())
//! # }
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
mod rehearsal;
mod replay;
mod scheduler;
mod shape;
mod signature;
pub mod simulation;
mod table;
mod text;
mod trial;

pub use counters::{PluginCounters, TIME_BUCKETS, TIME_LIMITS_NS};
pub use error::{HostError, InstanceError, LoadError, RecordingError, RegionError};
pub use fault::{Fault, FaultKind};
pub use host::{Host, Source};
pub use instance::Instance;
pub use limits::Limits;
pub use module::Module;
pub use probe::ProbeReport;
pub use quarantine::{CALM_MS, FAULTS_MAX, QUARANTINE_MAX_MS, QUARANTINE_MIN_MS};
pub use recorder::Recorder;
pub use rehearsal::{Rehearsal, Rehearsed, RehearsedAnswer};
pub use replay::{Difference, ReplayReport};
pub use scheduler::{LeftOver, PluginReport, Rollback, Succession, WasmScheduler};
pub use table::ServerTable;
pub use trial::{SHARE_ALL, ServerPicks, Stop, TrialLimits, TrialReport};
