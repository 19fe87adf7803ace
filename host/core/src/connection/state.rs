//! The state a connection is in, what it counts as, and how long it may stay there in silence.

use core::fmt;
use core::str::FromStr;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use core::time::Duration;

/// Where a connection stands. The first eleven are the TCP states of IPVS under their `ipvsadm`
/// names; the others are for protocols without states of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum State {
    /// Nothing seen yet.
    None,
    /// Both sides talk.
    Established,
    /// A SYN from the real server.
    SynSent,
    /// A SYN from the client.
    SynRecv,
    /// The real server closed its side.
    FinWait,
    /// Both sides closed.
    TimeWait,
    /// Reset or refused.
    Close,
    /// The client closed its side.
    CloseWait,
    /// The last acknowledgement is awaited.
    LastAck,
    /// Awaiting a connection that another one announced.
    Listen,
    /// A handshake under attack defence.
    SynAck,
    /// UDP, which has no states.
    Udp,
    /// ICMP echo, which has no states.
    Icmp,
}

impl State {
    /// Every state, in the order of declaration.
    pub const ALL: [Self; 13] = [
        Self::None,
        Self::Established,
        Self::SynSent,
        Self::SynRecv,
        Self::FinWait,
        Self::TimeWait,
        Self::Close,
        Self::CloseWait,
        Self::LastAck,
        Self::Listen,
        Self::SynAck,
        Self::Udp,
        Self::Icmp,
    ];

    /// The name that `ipvsadm -Lnc` prints.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::Established => "ESTABLISHED",
            Self::SynSent => "SYN_SENT",
            Self::SynRecv => "SYN_RECV",
            Self::FinWait => "FIN_WAIT",
            Self::TimeWait => "TIME_WAIT",
            Self::Close => "CLOSE",
            Self::CloseWait => "CLOSE_WAIT",
            Self::LastAck => "LAST_ACK",
            Self::Listen => "LISTEN",
            Self::SynAck => "SYNACK",
            Self::Udp => "UDP",
            Self::Icmp => "ICMP",
        }
    }

    /// Whether a connection in this state counts as active for its real server.
    #[must_use]
    pub const fn is_active(self) -> bool {
        matches!(self, Self::Established | Self::SynSent | Self::SynRecv | Self::SynAck)
    }

    /// Whether TCP gets here, be it by one packet.
    pub(crate) const fn is_of_tcp(self) -> bool {
        !matches!(self, Self::None | Self::Udp | Self::Icmp)
    }

    /// Whether a SYN may start a new connection in place of one in this state.
    #[must_use]
    pub const fn is_reusable(self) -> bool {
        matches!(self, Self::TimeWait | Self::Close)
    }

    /// IPVS's timeout for this state; ICMP's, which IPVS does not track, is that of Linux
    /// conntrack.
    #[must_use]
    pub const fn default_timeout(self) -> Duration {
        Duration::from_secs(match self {
            Self::None => 2,
            Self::Established => 900,
            Self::SynSent | Self::FinWait | Self::TimeWait | Self::Listen | Self::SynAck => 120,
            Self::SynRecv | Self::CloseWait => 60,
            Self::Close => 10,
            Self::LastAck | Self::Icmp => 30,
            Self::Udp => 300,
        })
    }

    pub(crate) fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    #[expect(clippy::as_conversions, reason = "a fieldless enum with repr(u8)")]
    pub(crate) const fn number(self) -> u8 {
        self as u8
    }
}

/// That no state has a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateError(String);

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is no state; use one of", self.0)?;
        State::ALL.iter().try_for_each(|state| write!(f, " {state}"))
    }
}

impl core::error::Error for StateError {}

/// In capitals or not.
impl FromStr for State {
    type Err = StateError;

    fn from_str(name: &str) -> Result<Self, StateError> {
        let mut all = Self::ALL.into_iter();
        let found = all.find(|state| state.name().eq_ignore_ascii_case(name));
        found.ok_or_else(|| StateError(name.to_owned()))
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// How long a connection may be silent in each state before it expires.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts([u64; State::ALL.len()]);

impl Default for Timeouts {
    /// [`State::default_timeout`] for every state.
    fn default() -> Self {
        Self(State::ALL.map(|state| millis(state.default_timeout())))
    }
}

impl Timeouts {
    /// Changes one of them; parts of a millisecond are cut off.
    pub fn set(&mut self, state: State, timeout: Duration) {
        if let Some(slot) = self.0.get_mut(usize::from(state.number())) {
            *slot = millis(timeout);
        }
    }

    /// Milliseconds of silence after which a connection in `state` expires.
    #[inline]
    #[must_use]
    pub fn millis(&self, state: State) -> u64 {
        self.0.get(usize::from(state.number())).copied().unwrap_or(0)
    }
}

/// Timeouts that may change while connections live under them: each holds from the moment on.
#[derive(Debug, Default)]
pub struct LiveTimeouts([AtomicU64; State::ALL.len()]);

impl LiveTimeouts {
    /// Changes them all.
    pub fn set(&self, timeouts: &Timeouts) {
        for (slot, timeout) in self.0.iter().zip(timeouts.0) {
            slot.store(timeout, Relaxed);
        }
    }

    /// See [`Timeouts::millis`].
    #[inline]
    #[must_use]
    pub fn millis(&self, state: State) -> u64 {
        self.0.get(usize::from(state.number())).map_or(0, |slot| slot.load(Relaxed))
    }
}

impl From<&Timeouts> for LiveTimeouts {
    fn from(timeouts: &Timeouts) -> Self {
        let this = Self::default();
        this.set(timeouts);
        this
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
