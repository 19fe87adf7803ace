//! What a plugin can do wrong while it runs.

use thiserror::Error;
use wasmtime::Trap;

use crate::error::{InstanceError, RegionError};
use crate::imports::Abort;
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
    /// The plugin asked to be stopped.
    #[error("{export} stopped: {}", printable(reason, EXPLANATION_MAX))]
    Aborted {
        /// What was called.
        export: &'static str,
        /// What the plugin gave as the reason.
        reason: String,
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
    /// `wvs_state_save` claims to have written more than it had room for.
    #[error("wvs_state_save returned {length}, but there was room for {capacity} octets")]
    StateTooLong {
        /// What it returned.
        length: i32,
        /// The octets that it was allowed.
        capacity: usize,
    },
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
            None => match error.downcast_ref::<Abort>() {
                Some(Abort(reason)) => Self::Aborted { export, reason: reason.clone() },
                None => Self::Engine { export, reason: format!("{error:#}") },
            },
        }
    }

    /// What kind of fault it is, for counting.
    #[must_use]
    pub fn kind(&self) -> FaultKind {
        match self {
            Self::BadAnswer { .. } | Self::Unavailable { .. } => FaultKind::BadAnswer,
            Self::OutOfFuel { .. } => FaultKind::OutOfFuel,
            Self::Aborted { .. } => FaultKind::Aborted,
            Self::Trap { trap, .. } => match trap {
                Trap::UnreachableCodeReached => FaultKind::Unreachable,
                Trap::MemoryOutOfBounds | Trap::TableOutOfBounds => FaultKind::OutOfBounds,
                Trap::StackOverflow => FaultKind::StackOverflow,
                Trap::IntegerOverflow
                | Trap::IntegerDivisionByZero
                | Trap::BadConversionToInteger => FaultKind::Arithmetic,
                Trap::IndirectCallToNull | Trap::BadSignature | Trap::NullReference => {
                    FaultKind::IndirectCall
                }
                _ => FaultKind::OtherTrap,
            },
            Self::Region(_) | Self::ServersRefused(_) | Self::StateTooLong { .. } => {
                FaultKind::Contract
            }
            Self::Engine { .. } => FaultKind::Engine,
            Self::Rebuild(_) => FaultKind::Rebuild,
        }
    }
}

/// The kinds of [`Fault`]s, each of which has a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// The answer was no valid server.
    BadAnswer,
    /// A call took more fuel than it had.
    OutOfFuel,
    /// Trap: the plugin reached code that says so, which is a panic in most languages.
    Unreachable,
    /// Trap: memory or a table was accessed out of bounds.
    OutOfBounds,
    /// Trap: calls were nested too deep.
    StackOverflow,
    /// Trap: division by zero, or a number that does not fit.
    Arithmetic,
    /// Trap: a function pointer led to no function of that kind.
    IndirectCall,
    /// Any other trap.
    OtherTrap,
    /// The plugin called `env.abort` or ended its own process.
    Aborted,
    /// A region, a table of servers or a saved state was not as the contract says.
    Contract,
    /// The engine failed.
    Engine,
    /// No new instance could be made.
    Rebuild,
}

impl FaultKind {
    /// Every kind.
    pub const ALL: [Self; 12] = [
        Self::BadAnswer,
        Self::OutOfFuel,
        Self::Unreachable,
        Self::OutOfBounds,
        Self::StackOverflow,
        Self::Arithmetic,
        Self::IndirectCall,
        Self::OtherTrap,
        Self::Aborted,
        Self::Contract,
        Self::Engine,
        Self::Rebuild,
    ];

    /// Its name in listings and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::BadAnswer => "bad_answer",
            Self::OutOfFuel => "out_of_fuel",
            Self::Unreachable => "unreachable",
            Self::OutOfBounds => "out_of_bounds",
            Self::StackOverflow => "stack_overflow",
            Self::Arithmetic => "arithmetic",
            Self::IndirectCall => "indirect_call",
            Self::OtherTrap => "other_trap",
            Self::Aborted => "aborted",
            Self::Contract => "contract",
            Self::Engine => "engine",
            Self::Rebuild => "rebuild",
        }
    }

    /// Whether the plugin stopped in the middle of a call, other than for lack of fuel.
    #[must_use]
    pub const fn is_trap(self) -> bool {
        matches!(
            self,
            Self::Unreachable
                | Self::OutOfBounds
                | Self::StackOverflow
                | Self::Arithmetic
                | Self::IndirectCall
                | Self::OtherTrap
                | Self::Aborted
        )
    }
}
