//! A real server: where connections go, with its weight and its counts.

use core::net::SocketAddr;
use core::sync::atomic::{
    AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst, fence,
};
use core::time::Duration;
use std::sync::Arc;

use wvs_abi::{Server, ServerInfo, Signals, encode_address, server_flags, server_key};

use crate::connection::tuple::Endpoint;
use crate::packet::address::Address;
use crate::roster::Standing;
use crate::service::Terms;
use crate::signals::ServerSignals;
use crate::stats::{Counter, Traffic};
use crate::time::Moment;

/// The largest weight, as ipvsadm and keepalived document it.
pub const WEIGHT_MAX: u32 = 65_535;

/// Which of the connections that a server has are to leave it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dismissal {
    /// None.
    #[default]
    Nobody,
    /// UDP and ICMP: their next packet is scheduled anew.
    Datagrams,
    /// TCP too: its next segment in each direction is answered with a reset.
    All,
}

impl Dismissal {
    const fn number(self) -> u8 {
        match self {
            Self::Nobody => 0,
            Self::Datagrams => 1,
            Self::All => 2,
        }
    }

    const fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Nobody,
            1 => Self::Datagrams,
            _ => Self::All,
        }
    }
}

/// The server does not answer.
const DOWN: u8 = 1;
/// The server reached its upper threshold and did not fall below the lower one since.
const OVERLOADED: u8 = 1 << 1;
/// The server is being emptied.
const DRAINING: u8 = 1 << 2;

/// In place of a time: the server does not start slowly.
const AT_ONCE: u64 = u64::MAX;

/// One real server of one virtual service. Shared; everything that changes is atomic.
#[derive(Debug)]
pub struct RealServer {
    id: u32,
    address: SocketAddr,
    key: u64,
    terms: Arc<Terms>,
    configured_weight: AtomicU32,
    weight: AtomicU32,
    /// A [`Dismissal`] as a number. Beside the weight: packets look at it.
    dismissal: AtomicU8,
    flags: AtomicU8,
    /// When it began to start slowly, in milliseconds; or [`AT_ONCE`].
    started_ms: AtomicU64,
    upper_threshold: AtomicU32,
    lower_threshold: AtomicU32,
    overloads: Counter,
    /// Whose turn it is in the pool, with full NAT.
    turn: AtomicU32,
    active: AtomicU32,
    inactive: AtomicU32,
    traffic: Traffic,
    signals: ServerSignals,
}

impl RealServer {
    /// A server at `address` (RIP and port), without connections yet. Port 0 stands for the port
    /// that the client connects to. `weight` is cut to [`WEIGHT_MAX`]. `id` must be unique within
    /// the director, counted up from about 0, and never be reused. `terms` are its service's.
    #[must_use]
    pub fn new(id: u32, address: SocketAddr, weight: u32, terms: Arc<Terms>) -> Self {
        let weight = weight.min(WEIGHT_MAX);
        let number = terms.address.protocol.number(address.is_ipv6());
        Self {
            id,
            address,
            key: server_key(address.ip(), address.port(), number),
            terms,
            configured_weight: AtomicU32::new(weight),
            weight: AtomicU32::new(weight),
            dismissal: AtomicU8::default(),
            flags: AtomicU8::default(),
            started_ms: AtomicU64::new(AT_ONCE),
            upper_threshold: AtomicU32::default(),
            lower_threshold: AtomicU32::default(),
            overloads: Counter::default(),
            turn: AtomicU32::new(0),
            active: AtomicU32::new(0),
            inactive: AtomicU32::new(0),
            traffic: Traffic::default(),
            signals: ServerSignals::default(),
        }
    }

    /// The number that plugins know the server by.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// RIP and port.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What its service's connections live under.
    #[inline]
    #[must_use]
    pub fn terms(&self) -> &Arc<Terms> {
        &self.terms
    }

    /// Takes the next turn in the pool.
    pub(crate) fn take_turn(&self) -> usize {
        usize::try_from(self.turn.fetch_add(1, Relaxed)).unwrap_or(0)
    }

    /// RIP and port, `None` in the other family. Port 0 stands for the client's.
    #[inline]
    pub(crate) fn real<A: Address>(&self) -> Option<Endpoint<A>> {
        Some(Endpoint { address: A::from_ip(self.address.ip())?, port: self.address.port() })
    }

    /// RIP and port for who connected to `virtual_port`, `None` in the other family.
    #[inline]
    pub(crate) fn real_for<A: Address>(&self, virtual_port: u16) -> Option<Endpoint<A>> {
        let real = self.real()?;
        Some(if real.port == 0 { Endpoint { port: virtual_port, ..real } } else { real })
    }

    /// The weight by which connections go to it now; 0 means that it gets no new ones, whatever
    /// the reason.
    #[inline]
    #[must_use]
    pub fn weight(&self) -> u32 {
        if self.is_overloaded() { 0 } else { self.weight.load(Relaxed) }
    }

    /// Whether it gets new connections as far as its weight, health and whoever drains it say.
    #[inline]
    #[must_use]
    pub fn is_serving(&self) -> bool {
        self.weight.load(Relaxed) > 0
    }

    /// Whether its health check, or its traffic, says that it does not answer.
    #[must_use]
    pub fn is_down(&self) -> bool {
        self.has(DOWN)
    }

    /// Whether it reached its upper threshold and did not fall below the lower one since.
    #[inline]
    #[must_use]
    pub fn is_overloaded(&self) -> bool {
        self.has(OVERLOADED)
    }

    /// Whether it is being emptied.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.has(DRAINING)
    }

    /// How often it reached its upper threshold.
    #[must_use]
    pub fn overloads(&self) -> u64 {
        self.overloads.get()
    }

    /// Which of its connections are to leave it.
    #[inline]
    #[must_use]
    pub fn dismissal(&self) -> Dismissal {
        Dismissal::from_number(self.dismissal.load(Relaxed))
    }

    /// Whether some of its connections are to leave it: it is down, or was taken away.
    #[inline]
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.dismissal() != Dismissal::Nobody
    }

    fn set_thresholds(&self, upper: u32, lower: u32) {
        if (upper, lower) == self.thresholds() {
            return;
        }
        let before = self.upper_threshold.swap(upper, Relaxed);
        self.lower_threshold.store(lower, Relaxed);
        // As LVS does: room that was made by hand counts at once.
        if upper == 0 || upper > before {
            self.set_overloaded(false);
        }
        if upper != 0 && self.connections() >= upper {
            self.set_overloaded(true);
        }
    }

    /// With how many connections it gets no new ones, and below how many it gets some again. 0 for
    /// no limit; a lower threshold of 0 is three quarters of the upper one.
    #[must_use]
    pub fn thresholds(&self) -> (u32, u32) {
        (self.upper_threshold.load(Relaxed), self.lower_threshold.load(Relaxed))
    }

    /// How much of what the scheduler gives it it is to keep at `now`, of 1024, when it takes
    /// `slow_start` to get all.
    pub(crate) fn share(&self, now: Moment, slow_start: Duration) -> u32 {
        const WHOLE: u64 = 1_024;
        let started_ms = self.started_ms.load(Relaxed);
        let whole_ms = u64::try_from(slow_start.as_millis()).unwrap_or(u64::MAX);
        if started_ms == AT_ONCE || whole_ms == 0 {
            return 1_024;
        }
        let elapsed_ms = now.as_millis().saturating_sub(started_ms);
        let share = elapsed_ms.saturating_mul(WHOLE).checked_div(whole_ms).unwrap_or(WHOLE);
        if share >= WHOLE {
            self.start_at_once();
        }
        u32::try_from(share.min(WHOLE)).unwrap_or(1_024)
    }

    /// When it began to start slowly, if it still does.
    #[must_use]
    pub fn slow_since(&self) -> Option<Moment> {
        let started_ms = self.started_ms.load(Relaxed);
        (started_ms != AT_ONCE).then(|| Moment::from_millis(started_ms))
    }

    /// It gets its whole share from now on.
    pub(crate) fn start_at_once(&self) {
        self.started_ms.store(AT_ONCE, Relaxed);
    }

    /// Sets the weight, cut to [`WEIGHT_MAX`], until its roster finds out the next one: before it
    /// joins one.
    pub fn set_weight(&self, weight: u32) {
        self.weight.store(weight.min(WEIGHT_MAX), Relaxed);
    }

    /// Takes over what its roster found out. When its weight rises from 0 it starts slowly at
    /// `slow_from`, if there is one.
    pub(crate) fn settle(
        &self,
        weight: u32,
        standing: &Standing,
        dismissal: Dismissal,
        slow_from: Option<Moment>,
    ) {
        let weight = weight.min(WEIGHT_MAX);
        self.configured_weight.store(standing.configured.min(WEIGHT_MAX), Relaxed);
        if self.weight.swap(weight, Relaxed) == 0 && weight > 0 {
            let started_ms = slow_from.map_or(AT_ONCE, Moment::as_millis);
            self.started_ms.store(started_ms, Relaxed);
        }
        self.dismissal.store(dismissal.number(), Relaxed);
        self.set_thresholds(standing.upper_threshold, standing.lower_threshold);
        self.set(DOWN, standing.is_out_of_order());
        self.set(DRAINING, standing.drain.is_some());
    }

    #[inline]
    fn has(&self, flag: u8) -> bool {
        self.flags.load(Relaxed) & flag != 0
    }

    /// Whether it changed.
    fn set(&self, flag: u8, is_set: bool) -> bool {
        let before = if is_set {
            self.flags.fetch_or(flag, Relaxed)
        } else {
            self.flags.fetch_and(!flag, Relaxed)
        };
        (before & flag != 0) != is_set
    }

    fn set_overloaded(&self, is_overloaded: bool) {
        if self.set(OVERLOADED, is_overloaded) {
            if is_overloaded {
                self.overloads.count();
            }
            self.terms.note_change();
        }
    }

    /// Connections in an active state.
    #[inline]
    #[must_use]
    pub fn active(&self) -> u32 {
        self.active.load(Relaxed)
    }

    /// Connections in any other state, UDP's among them.
    #[inline]
    #[must_use]
    pub fn inactive(&self) -> u32 {
        self.inactive.load(Relaxed)
    }

    /// All its connections.
    #[must_use]
    pub fn connections(&self) -> u32 {
        self.active().saturating_add(self.inactive())
    }

    /// IPVS's measure of load: `active * 256 + inactive`.
    #[must_use]
    pub fn overhead(&self) -> u64 {
        u64::from(self.active()).saturating_mul(256).saturating_add(u64::from(self.inactive()))
    }

    /// Connections, packets and octets so far.
    #[must_use]
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// The server as a plugin sees it now.
    #[must_use]
    pub fn record(&self) -> Server {
        Server {
            id: self.id,
            weight: self.weight(),
            active: self.active(),
            inactive: self.inactive(),
            flags: self.flags(),
            configured_weight: self.configured_weight.load(Relaxed),
            key: self.key,
        }
    }

    /// What a plugin with [`wvs_abi::caps::SERVER_INFO`] sees besides.
    #[must_use]
    pub fn info(&self) -> ServerInfo {
        let (upper_threshold, lower_threshold) = self.thresholds();
        ServerInfo {
            address: encode_address(self.address.ip()),
            port: self.address.port(),
            family: if self.address.is_ipv4() { 4 } else { 6 },
            upper_threshold,
            lower_threshold,
            reserved: 0,
        }
    }

    /// Bits of [`server_flags`].
    fn flags(&self) -> u32 {
        let flags = [
            (!self.is_down(), server_flags::UP),
            (self.is_overloaded(), server_flags::OVERLOADED),
            (self.is_draining(), server_flags::DRAINING),
        ];
        flags.into_iter().filter(|(is_set, _)| *is_set).fold(0, |all, (_, flag)| all | flag)
    }

    /// What a plugin with [`wvs_abi::caps::SIGNALS`] sees besides.
    #[must_use]
    pub fn signals(&self) -> Signals {
        self.signals.record(self.traffic.totals())
    }

    /// How it does, as far as packets in passing tell.
    #[must_use]
    pub fn observed(&self) -> &ServerSignals {
        &self.signals
    }

    /// A new connection, which counts as inactive until its state says otherwise.
    pub(crate) fn count_opened(&self) {
        self.inactive.fetch_add(1, Relaxed);
        let upper = self.upper_threshold.load(Relaxed);
        if upper != 0 && self.connections() >= upper {
            self.set_overloaded(true);
            // The last of them may have been closed meanwhile.
            self.look_for_room();
        }
    }

    /// A connection moved between active and inactive.
    pub(crate) fn count_moved(&self, is_active: bool) {
        let (from, to) = self.counts(!is_active);
        from.fetch_sub(1, Relaxed);
        to.fetch_add(1, Relaxed);
    }

    /// A connection that was active or not is gone.
    pub(crate) fn count_closed(&self, was_active: bool) {
        let (from, _) = self.counts(was_active);
        from.fetch_sub(1, Relaxed);
        if self.upper_threshold.load(Relaxed) != 0 {
            self.look_for_room();
        }
    }

    /// Whoever has too many connections and has fewer now gets new ones again.
    fn look_for_room(&self) {
        // One thread counts and then looks at the flag, another one sets the flag and then looks at
        // the counts: with this one of the two sees what the other did.
        fence(SeqCst);
        if !self.is_overloaded() {
            return;
        }
        let connections = u64::from(self.connections());
        let has_room = match self.thresholds() {
            (upper, 0) => connections.saturating_mul(4) < u64::from(upper).saturating_mul(3),
            (_, lower) => connections < u64::from(lower),
        };
        if has_room {
            self.set_overloaded(false);
        }
    }

    /// The count that a connection with this activity is in, and the other one.
    fn counts(&self, is_active: bool) -> (&AtomicU32, &AtomicU32) {
        if is_active { (&self.active, &self.inactive) } else { (&self.inactive, &self.active) }
    }
}
