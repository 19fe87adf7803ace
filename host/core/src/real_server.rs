//! A real server: where connections go, with its weight and its counts.

use core::net::SocketAddr;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::Arc;

use wvs_abi::{Server, ServerInfo, Signals, encode_address, server_flags, server_key};

use crate::connection::tuple::Endpoint;
use crate::packet::address::Address;
use crate::service::Terms;
use crate::signals::ServerSignals;
use crate::stats::Traffic;

/// The largest weight, as ipvsadm and keepalived document it.
pub const WEIGHT_MAX: u32 = 65_535;

/// One real server of one virtual service. Shared; everything that changes is atomic.
#[derive(Debug)]
pub struct RealServer {
    id: u32,
    address: SocketAddr,
    key: u64,
    terms: Arc<Terms>,
    configured_weight: u32,
    weight: AtomicU32,
    /// Whose turn it is in the pool, with full NAT.
    turn: AtomicU32,
    active: AtomicU32,
    inactive: AtomicU32,
    traffic: Traffic,
    signals: ServerSignals,
}

impl RealServer {
    /// A server at `address` (RIP and port), without connections yet. `weight` is
    /// cut to [`WEIGHT_MAX`]. `id` must be unique within the director, counted up from about 0, and
    /// never be reused. `terms` are its service's.
    #[must_use]
    pub fn new(id: u32, address: SocketAddr, weight: u32, terms: Arc<Terms>) -> Self {
        let weight = weight.min(WEIGHT_MAX);
        let number = terms.address.protocol.number(address.is_ipv6());
        Self {
            id,
            address,
            key: server_key(address.ip(), address.port(), number),
            terms,
            configured_weight: weight,
            turn: AtomicU32::new(0),
            weight: AtomicU32::new(weight),
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

    /// RIP and port, `None` in the other family.
    #[inline]
    pub(crate) fn real<A: Address>(&self) -> Option<Endpoint<A>> {
        Some(Endpoint { address: A::from_ip(self.address.ip())?, port: self.address.port() })
    }

    /// The effective weight; 0 means quiesced: no new connections, existing ones go on.
    #[inline]
    #[must_use]
    pub fn weight(&self) -> u32 {
        self.weight.load(Relaxed)
    }

    /// Sets the effective weight, cut to [`WEIGHT_MAX`]. The caller tells the service's scheduler
    /// with [`Service::servers_changed`](crate::service::Service::servers_changed).
    pub fn set_weight(&self, weight: u32) {
        self.weight.store(weight.min(WEIGHT_MAX), Relaxed);
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
            flags: server_flags::UP,
            configured_weight: self.configured_weight,
            key: self.key,
        }
    }

    /// What a plugin with [`wvs_abi::caps::SERVER_INFO`] sees besides.
    #[must_use]
    pub fn info(&self) -> ServerInfo {
        ServerInfo {
            address: encode_address(self.address.ip()),
            port: self.address.port(),
            family: if self.address.is_ipv4() { 4 } else { 6 },
            upper_threshold: 0,
            lower_threshold: 0,
            reserved: 0,
        }
    }

    /// What a plugin with [`wvs_abi::caps::SIGNALS`] sees besides.
    #[must_use]
    pub fn signals(&self) -> Signals {
        self.signals.record(self.traffic.totals())
    }

    /// Where to note how it does.
    pub(crate) fn observed(&self) -> &ServerSignals {
        &self.signals
    }

    /// A new connection, which counts as inactive until its state says otherwise.
    pub(crate) fn count_opened(&self) {
        self.inactive.fetch_add(1, Relaxed);
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
    }

    /// The count that a connection with this activity is in, and the other one.
    fn counts(&self, is_active: bool) -> (&AtomicU32, &AtomicU32) {
        if is_active { (&self.active, &self.inactive) } else { (&self.inactive, &self.active) }
    }
}
