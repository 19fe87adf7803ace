//! What a plugin can do wrong while it runs.

use thiserror::Error;
use wasmtime::Trap;

use crate::error::{InstanceError, RegionError};
use crate::text::{EXPLANATION_MAX, printable};

/// One failure of a running plugin. It costs the plugin the decision at hand.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Fault {
    /// The plugin stopped itself or did what no program may.
    #[error("{export} stopped: {trap}{}", if *.memory_was_refused {
        ", after more memory than its limit was refused" } else { "" })]
    Trap {
        /// What was called.
        export: &'static str,
        /// Why it stopped.
        trap: Trap,
        /// Whether this instance had asked for more memory than it may have: then the likely cause.
        memory_was_refused: bool,
    },
    /// A call took more instructions than allowed: an endless loop, or a limit too low.
    #[error("{export} had not finished after {fuel} units of fuel")]
    OutOfFuel {
        /// What was called.
        export: &'static str,
        /// What it had.
        fuel: u64,
    },
    /// `wvs_schedule` returned a number that means nothing.
    #[error("wvs_schedule answered {answer}, which is no index of {servers} servers, -1 or -2")]
    BadAnswer {
        /// The number.
        answer: i32,
        /// How many servers there were.
        servers: usize,
    },
    /// `wvs_schedule` picked a server that must not be picked.
    #[error("wvs_schedule picked server {index}, whose weight is 0")]
    Unavailable {
        /// The server's index.
        index: usize,
    },
    /// The plugin's memory could not be used as it said.
    #[error(transparent)]
    Region(#[from] RegionError),
    /// `wvs_servers_changed` did not take the table.
    #[error("wvs_servers_changed returned {0}, below 0")]
    ServersRefused(i32),
    /// The engine failed for a reason of its own.
    #[error("{export} could not be called: {}", printable(reason, EXPLANATION_MAX))]
    Engine {
        /// What was called.
        export: &'static str,
        /// The engine's words.
        reason: String,
    },
    /// The instance that failed could not be replaced.
    #[error("no new instance: {0}")]
    Rebuild(Box<InstanceError>),
}

impl Fault {
    /// Whether the answer alone was wrong, so that the instance can be asked again. After anything
    /// else its memory is in an unknown state.
    pub(crate) fn is_bad_answer(&self) -> bool {
        matches!(self, Self::BadAnswer { .. } | Self::Unavailable { .. })
    }

    /// What became of a call that returned `error`.
    #[cold]
    pub(crate) fn of_call(
        export: &'static str,
        error: &wasmtime::Error,
        fuel: u64,
        memory_was_refused: bool,
    ) -> Self {
        match error.downcast_ref::<Trap>() {
            Some(Trap::OutOfFuel) => Self::OutOfFuel { export, fuel },
            Some(&trap) => Self::Trap { export, trap, memory_was_refused },
            None => Self::Engine { export, reason: format!("{error:#}") },
        }
    }
}
