//! Whether a director is alive: whether packets still get through it, and whether what it does besides is
//! still done.

use std::fmt;

use tokio::task::AbortHandle;

use crate::device::PacketPulse;

/// Tells whether a director is alive. To be felt from its runtime, whose turn that takes: while the runtime
/// is stuck nobody is told anything.
#[derive(Debug)]
pub struct Pulse {
    pub(super) packets: PacketPulse,
    /// Tasks that end only with the director.
    pub(super) tasks: Vec<AbortHandle>,
}

/// What does not move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stalled {
    /// The thread of this queue of the device.
    Packets(usize),
    /// A task of the director's has ended, which it should not; only a panic ends one.
    Task,
}

impl fmt::Display for Stalled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Packets(queue) => write!(f, "the packet thread of queue {queue} does not move"),
            Self::Task => f.write_str("a task of the director has ended"),
        }
    }
}

impl Pulse {
    /// Whether everything moved since this was true last. What did not is poked, so that another look, a
    /// moment later, sees it move. Costs a signal for each thread that has no packets.
    ///
    /// # Errors
    /// The first that did not move.
    pub fn feel(&mut self) -> Result<(), Stalled> {
        if self.tasks.iter().any(AbortHandle::is_finished) {
            return Err(Stalled::Task);
        }
        self.packets.feel().map_err(Stalled::Packets)
    }
}
