//! The WVS director in the world: command line, configuration, device, routes, control socket.

use std::process::ExitCode;

/// What the program `wvs` does: reads the command line, acts, and says how it went.
#[must_use]
pub fn main() -> ExitCode {
    ExitCode::SUCCESS
}
