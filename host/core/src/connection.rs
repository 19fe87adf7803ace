//! Connections: what the director remembers of each, and where it keeps them.

pub mod expiry;
pub mod state;
pub mod table;
pub mod tcp_state;
pub mod tuple;

use core::net::SocketAddr;
use core::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::Arc;

use crate::packet::address::Address;
use crate::packet::checksum::Difference;
use crate::protocol::Protocol;
use crate::real_server::RealServer;
use crate::service::Service;
use crate::time::Moment;
use state::State;
use tuple::{Direction, Tuple};

/// A decided connection: both tuples, what the rewrite between them does to checksums, and the real
/// server. Beside these, which never change, the state and when it was last seen.
///
/// Nothing but the first packet was needed to decide it, and any translator that is given these
/// values can carry it on.
#[derive(Debug)]
pub struct Connection<A> {
    /// CIP:port to VIP:port, as the client's packets come in.
    original: Tuple<A>,
    /// RIP:port to CIP:port, as the server's packets come in.
    reply: Tuple<A>,
    translation: Translation,
    /// A [`State`] as a number, or [`CLOSED`].
    state: AtomicU8,
    last_seen_ms: AtomicU64,
    service: Arc<Service>,
    server: Arc<RealServer>,
}

/// What replacing VIP:port by RIP:port changes in checksums. Replies need the inverse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// In a sum over the address alone, as the IPv4 header's.
    pub address: Difference,
    /// In a sum over address and port, as TCP's and UDP's.
    pub transport: Difference,
}

impl Translation {
    /// The change back.
    #[inline]
    #[must_use]
    pub const fn inverse(self) -> Self {
        Self { address: self.address.inverse(), transport: self.transport.inverse() }
    }
}

/// In place of a state: the connection was taken out of the table.
const CLOSED: u8 = u8::MAX;

impl<A: Address> Connection<A> {
    /// A connection of `original` to `server`, in no state yet. Its service and server are counted
    /// for it from here on. `None` when the server's address is of another family.
    pub(crate) fn open(
        original: Tuple<A>,
        service: Arc<Service>,
        server: Arc<RealServer>,
        now: Moment,
    ) -> Option<Self> {
        let (rip, port) = (A::from_ip(server.address().ip())?, server.address().port());
        let reply = Tuple {
            source: rip,
            destination: original.source,
            source_port: port,
            destination_port: original.source_port,
            protocol: original.protocol,
        };
        let vip = original.destination.sum();
        let translation = Translation {
            address: Difference::between(vip, rip.sum()),
            transport: Difference::between(
                vip.word(original.destination_port),
                rip.sum().word(reply.source_port),
            ),
        };
        let state = match original.protocol {
            Protocol::Tcp => State::None,
            Protocol::Udp => State::Udp,
            Protocol::Icmp => State::Icmp,
        };
        server.count_opened();
        Some(Self {
            original,
            reply,
            translation,
            state: AtomicU8::new(state.number()),
            last_seen_ms: AtomicU64::new(now.as_millis()),
            service,
            server,
        })
    }

    /// CIP:port to VIP:port.
    #[must_use]
    pub const fn original(&self) -> &Tuple<A> {
        &self.original
    }

    /// RIP:port to CIP:port.
    #[must_use]
    pub const fn reply(&self) -> &Tuple<A> {
        &self.reply
    }

    /// What the rewrite of a client's packet changes in checksums.
    #[inline]
    #[must_use]
    pub const fn translation(&self) -> Translation {
        self.translation
    }

    /// The real server that carries it.
    #[inline]
    #[must_use]
    pub fn server(&self) -> &Arc<RealServer> {
        &self.server
    }

    /// RIP and port.
    #[must_use]
    pub fn server_address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Which way a packet with this tuple, one of the connection's two, goes.
    #[inline]
    #[must_use]
    pub fn direction(&self, tuple: &Tuple<A>) -> Direction {
        if *tuple == self.original { Direction::Original } else { Direction::Reply }
    }

    /// Its state, `None` once it was taken out of the table.
    #[must_use]
    pub fn state(&self) -> Option<State> {
        State::from_number(self.state.load(Relaxed))
    }

    /// Notes a packet: the connection lives on from `now`.
    #[inline]
    pub(crate) fn touch(&self, now: Moment) {
        self.last_seen_ms.store(now.as_millis(), Relaxed);
    }

    /// Counts a packet of so many octets for the real server.
    #[inline]
    pub(crate) fn count(&self, direction: Direction, octets: usize) {
        let traffic = self.server.traffic();
        match direction {
            Direction::Original => traffic.count_in(octets),
            Direction::Reply => traffic.count_out(octets),
        }
    }

    /// Moves to the state that `next` gives for the present one, and its server's counts with it.
    /// This, [`open`](Self::open) and [`close`](Self::close) are all that ever moves those counts.
    #[inline]
    pub(crate) fn advance(&self, next: impl Fn(State) -> State) {
        let mut present = self.state.load(Relaxed);
        loop {
            let Some(from) = State::from_number(present) else { return };
            let to = next(from);
            if to == from {
                return;
            }
            match self.state.compare_exchange_weak(present, to.number(), Relaxed, Relaxed) {
                Ok(_) => {
                    if from.is_active() != to.is_active() {
                        self.server.count_moved(to.is_active());
                    }
                    return;
                }
                Err(changed) => present = changed,
            }
        }
    }

    /// Ends the connection for the counts. True for exactly one caller.
    pub(crate) fn close(&self) -> bool {
        match State::from_number(self.state.swap(CLOSED, Relaxed)) {
            Some(state) => {
                self.server.count_closed(state.is_active());
                true
            }
            None => false,
        }
    }

    /// Whether it was taken out of the table.
    pub(crate) fn is_closed(&self) -> bool {
        self.state().is_none()
    }

    /// Whether a new connection may have its tuples.
    #[inline]
    pub(crate) fn is_over(&self) -> bool {
        self.state().is_none_or(State::is_reusable)
    }

    /// Whether it was silent for longer than its state allows.
    pub(crate) fn is_expired(&self, now: Moment) -> bool {
        let last_seen = Moment::from_millis(self.last_seen_ms.load(Relaxed));
        self.state().is_some_and(|state| {
            now.millis_since(last_seen) >= self.service.timeouts().millis(state)
        })
    }
}
