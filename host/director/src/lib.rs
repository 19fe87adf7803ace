//! The WVS director in the world: command line, configuration, device, routes, control socket.

pub mod capture;
mod cli;
pub mod clock;
pub mod config;
pub mod connection_log;
pub mod control;
pub mod demo;
pub mod deployment;
pub mod device;
pub mod doctor;
pub mod explain;
pub mod import;
pub mod lab;
pub mod logging;
pub mod metrics;
pub mod operation;
pub mod output;
pub mod replay;
pub mod rights;
pub mod route;
pub mod run;
pub mod scaffold;
pub mod seat;
pub mod service_manager;
mod stop_signals;
pub mod sysctl;
pub mod tap;

use std::process::ExitCode;

/// What the program `wvs` does: reads the command line, acts, and says how it went.
#[must_use]
pub fn main() -> ExitCode {
    cli::main()
}
