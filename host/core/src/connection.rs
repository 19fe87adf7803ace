//! Connections: what the director remembers of each, and where it keeps them.

pub mod expiry;
pub(crate) mod half_open;
pub mod log;
pub mod state;
pub mod table;
pub mod tcp_state;
pub mod tuple;

use core::net::SocketAddr;
use core::sync::atomic::{AtomicU8, AtomicU32, Ordering::Relaxed};
use std::sync::Arc;

use crate::packet::address::Address;
use crate::pool::Local;
use crate::protocol::Protocol;
use crate::real_server::{Dismissal, RealServer};
use crate::rewrite::Rewrite;
use crate::time::Moment;
use log::EndReason;
use state::State;
use tuple::{Direction, Endpoint, Tuple};

/// A decided connection: who talks to which real server, which never changes, and beside it the
/// state and when it was last seen.
///
/// Nothing but the first packet was needed to decide it, and any translator that is given both
/// tuples and [`rewrite`](Self::rewrite) can carry it on.
///
/// There may be millions: it holds nothing that can be derived.
#[derive(Debug)]
pub struct Connection<A> {
    /// CIP:port to VIP:port, as the client's packets come in.
    original: Tuple<A>,
    /// A [`State`] as a number, or [`CLOSED`]; with [`PROVEN`].
    state: AtomicU8,
    /// In full NAT, what stands in for CIP:port in front of the real server.
    local: Option<Local>,
    /// See [`Tick`].
    last_seen: AtomicU32,
    birth: Birth,
    server: Arc<RealServer>,
}

/// The time in which connections remember when they were seen: 1024 milliseconds each since the start
/// of the clock. Coarse, so that most packets of a busy connection have nothing to write down. So
/// much later than its timeout may a connection expire, never earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tick(u32);

impl Tick {
    const SHIFT: u32 = 10;

    /// The tick that `now` is in.
    #[inline]
    pub(crate) fn of(now: Moment) -> Self {
        Self(u32::try_from(now.as_millis() >> Self::SHIFT).unwrap_or(u32::MAX))
    }

    /// The first moment in it.
    fn start(self) -> Moment {
        Moment::from_millis(u64::from(self.0) << Self::SHIFT)
    }

    /// The first moment after it.
    fn end(self) -> Moment {
        Moment::from_millis(u64::from(self.0).saturating_add(1) << Self::SHIFT)
    }

    /// The number, from the start of the clock.
    #[inline]
    pub(crate) const fn number(self) -> u32 {
        self.0
    }
}

/// Which generation of the service's scheduler placed a connection, in the upper 16 bits, and when
/// its first packet came, in microseconds since the start of the clock.
#[derive(Clone, Copy, Debug)]
struct Birth(u64);

impl Birth {
    const TIME_BITS: u32 = 48;

    fn new(generation: u16, now: Moment) -> Self {
        // 48 bits of microseconds last for nine years.
        let time = now.as_micros() & ((1 << Self::TIME_BITS) - 1);
        Self(u64::from(generation) << Self::TIME_BITS | time)
    }

    fn generation(self) -> u16 {
        let [.., low, high] = self.0.to_le_bytes();
        u16::from_le_bytes([low, high])
    }

    fn moment(self) -> Moment {
        Moment::from_micros(self.0 & ((1 << Self::TIME_BITS) - 1))
    }
}

/// In place of a state: the connection was taken out of the table.
const CLOSED: u8 = u8::MAX;

/// Beside a TCP state: the real server has answered.
const ANSWERED: u8 = 0x20;

/// Beside a TCP state: the client has gone on after the server's answer. Whatever comes later, a
/// forged SYN for one, it has shown that it exists.
const PROVEN: u8 = 0x40;

/// The state that a number stands for, `None` for [`CLOSED`].
#[inline]
fn state_of(number: u8) -> Option<State> {
    State::from_number(number & !(ANSWERED | PROVEN))
}

/// Whether the client of a connection in this state still has to show that it exists.
#[inline]
fn is_half_open(number: u8) -> bool {
    number & PROVEN == 0 && state_of(number).is_some_and(State::is_of_tcp)
}

/// Whether it is a TCP connection whose real server has not answered yet.
fn is_unanswered(number: u8) -> bool {
    number & ANSWERED == 0 && state_of(number).is_some_and(State::is_of_tcp)
}

/// What a packet in `direction`, after which the state is `to`, proves about who sent it. A SYN
/// from the client, however often it comes, proves nothing.
#[inline]
fn proof(present: u8, direction: Direction, to: State) -> u8 {
    match direction {
        _ if !to.is_of_tcp() => 0,
        Direction::Reply => ANSWERED,
        Direction::Original if present & ANSWERED != 0 && to != State::SynRecv => PROVEN,
        Direction::Original => 0,
    }
}

/// What a packet changed in a connection's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Advance {
    pub(crate) has_changed: bool,
    pub(crate) was_half_open: bool,
    pub(crate) is_half_open: bool,
    /// The real server of a TCP connection answered for the first time.
    pub(crate) is_first_answer: bool,
}

/// What a connection was when it was taken out of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Closed {
    pub(crate) state: State,
    pub(crate) was_half_open: bool,
    pub(crate) was_unanswered: bool,
}

impl<A: Address> Connection<A> {
    /// A connection of `original` to `server`, which `generation` of the scheduler chose, in no
    /// state yet; `local` in place of the client with full NAT. The server is counted for it from
    /// here on. `None` when the server's address is of another family.
    pub(crate) fn open(
        original: Tuple<A>,
        server: Arc<RealServer>,
        generation: u16,
        local: Option<Local>,
        now: Moment,
    ) -> Option<Self> {
        server.real::<A>()?;
        let state = match original.protocol {
            Protocol::Tcp => State::None,
            Protocol::Udp => State::Udp,
            Protocol::Icmp => State::Icmp,
        };
        server.count_opened();
        Some(Self {
            original,
            state: AtomicU8::new(state.number()),
            local,
            last_seen: AtomicU32::new(Tick::of(now).number()),
            birth: Birth::new(generation, now),
            server,
        })
    }

    /// CIP:port to VIP:port.
    #[must_use]
    pub const fn original(&self) -> &Tuple<A> {
        &self.original
    }

    /// RIP:port to CIP:port, as the server's packets come in; with full NAT to the pool's address.
    #[must_use]
    pub fn reply(&self) -> Tuple<A> {
        // `open` refuses a server of the other family, so the VIP never stands in for one.
        let real = self.real().unwrap_or_else(|| self.original.destination());
        let Endpoint { address: source, port: source_port } = real;
        let Endpoint { address: destination, port: destination_port } =
            self.local().unwrap_or_else(|| self.original.source());
        let protocol = self.original.protocol;
        Tuple { source, destination, source_port, destination_port, protocol }
    }

    /// The tuple of its packets in one direction.
    pub(crate) fn tuple(&self, direction: Direction) -> Tuple<A> {
        match direction {
            Direction::Original => self.original,
            Direction::Reply => self.reply(),
        }
    }

    /// What the real server sees in place of the client, with full NAT.
    #[must_use]
    pub fn local(&self) -> Option<Endpoint<A>> {
        self.local.and_then(|local| self.server.terms().pool()?.endpoint(local))
    }

    /// Where the real server takes it.
    fn real(&self) -> Option<Endpoint<A>> {
        self.server.real_for(self.original.destination_port)
    }

    /// Whether what becomes of its packets cannot be told from its server alone.
    fn is_particular(&self) -> bool {
        self.local.is_some()
            || self.server.address().port() == 0
            || self.server.terms().virtual_end() != Some(self.original.destination())
    }

    /// What becomes of the ends of its packets.
    #[must_use]
    pub fn rewrite(&self, direction: Direction) -> Rewrite<A> {
        let local = self.local();
        match direction {
            Direction::Original => Rewrite { source: local, destination: self.real() },
            Direction::Reply => Rewrite {
                source: Some(self.original.destination()),
                destination: local.map(|_| self.original.source()),
            },
        }
    }

    /// The real server that carries it.
    #[inline]
    #[must_use]
    pub fn server(&self) -> &Arc<RealServer> {
        &self.server
    }

    /// The generation of the service's scheduler that placed it; 0 when the director did by itself.
    #[must_use]
    pub fn generation(&self) -> u16 {
        self.birth.generation()
    }

    /// When its first packet came.
    pub(crate) fn opened(&self) -> Moment {
        self.birth.moment()
    }

    /// Milliseconds from its first packet to its last, to about a second.
    pub(crate) fn lifetime_ms(&self) -> u32 {
        let seen = Tick(self.last_seen.load(Relaxed)).start();
        u32::try_from(seen.millis_since(self.opened())).unwrap_or(u32::MAX)
    }

    /// Milliseconds until it expires if no packet comes by.
    #[must_use]
    pub fn expires_in_ms(&self, now: Moment) -> u64 {
        let silent = now.millis_since(Tick(self.last_seen.load(Relaxed)).start());
        let timeout = self.state().map_or(0, |state| self.server.terms().timeouts.millis(state));
        timeout.saturating_sub(silent)
    }

    /// RIP and port.
    #[must_use]
    pub fn server_address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Which way a packet with this tuple, one of the connection's two, goes.
    #[must_use]
    pub fn direction(&self, tuple: &Tuple<A>) -> Direction {
        if *tuple == self.original { Direction::Original } else { Direction::Reply }
    }

    /// Its state, `None` once it was taken out of the table.
    #[must_use]
    pub fn state(&self) -> Option<State> {
        state_of(self.state.load(Relaxed))
    }

    /// Notes a packet: the connection lives on from `now`.
    #[inline]
    pub(crate) fn touch(&self, now: Tick) {
        self.last_seen.store(now.number(), Relaxed);
    }

    /// Moves to the state that `next` gives for the present one after a packet in `direction`, and
    /// its server's counts with it.
    /// This, [`open`](Self::open) and [`close`](Self::close) are all that ever moves those counts.
    /// `None` when it was taken out of the table.
    #[inline]
    pub(crate) fn advance(
        &self,
        direction: Direction,
        next: impl Fn(State) -> State,
    ) -> Option<Advance> {
        let mut present = self.state.load(Relaxed);
        loop {
            let from = state_of(present)?;
            let to = next(from);
            let changed =
                to.number() | present & (ANSWERED | PROVEN) | proof(present, direction, to);
            let advance = Advance {
                has_changed: changed != present,
                was_half_open: is_half_open(present),
                is_half_open: is_half_open(changed),
                is_first_answer: changed & !present & ANSWERED != 0,
            };
            if !advance.has_changed {
                return Some(advance);
            }
            match self.state.compare_exchange_weak(present, changed, Relaxed, Relaxed) {
                Ok(_) => {
                    if from.is_active() != to.is_active() {
                        self.server.count_moved(to.is_active());
                    }
                    return Some(advance);
                }
                Err(other) => present = other,
            }
        }
    }

    /// Ends the connection for the counts. What it was until then, for exactly one caller.
    pub(crate) fn close(&self) -> Option<Closed> {
        let number = self.state.swap(CLOSED, Relaxed);
        let state = state_of(number)?;
        self.server.count_closed(state.is_active());
        Some(Closed {
            state,
            was_half_open: is_half_open(number),
            was_unanswered: is_unanswered(number),
        })
    }

    /// Whether it was taken out of the table.
    pub(crate) fn is_closed(&self) -> bool {
        self.state().is_none()
    }

    /// Whether a new connection may have its tuples: it is over, or its server is taken away and
    /// nobody is talking to it any more.
    pub(crate) fn makes_way(&self) -> bool {
        self.is_forsaken()
            || self.state().is_none_or(|state| {
                state.is_reusable()
                    || !self.server.is_serving() && state != State::Established && state.is_of_tcp()
            })
    }

    /// Whether its server no longer carries it.
    #[inline]
    pub(crate) fn is_forsaken(&self) -> bool {
        match self.server.dismissal() {
            Dismissal::Nobody => false,
            Dismissal::Datagrams => self.original.protocol != Protocol::Tcp,
            Dismissal::All => true,
        }
    }

    /// Why it ends because its server no longer carries it.
    pub(crate) fn end_of_forsaken(&self) -> Option<EndReason> {
        let reason = if self.server.is_down() { EndReason::ServerDown } else { EndReason::Drained };
        self.is_forsaken().then_some(reason)
    }

    /// Whether its first handshake is under way: its client still has to show that it exists.
    #[must_use]
    pub fn is_half_open(&self) -> bool {
        is_half_open(self.state.load(Relaxed))
    }

    /// Whether it was silent for longer than its state allows.
    pub(crate) fn is_expired(&self, now: Moment) -> bool {
        let seen = Tick(self.last_seen.load(Relaxed));
        self.state().is_some_and(|state| {
            let timeouts = &self.server.terms().timeouts;
            let timeout = match (self.is_forsaken(), self.original.protocol) {
                (false, _) => timeouts.millis(state),
                // Long enough for both sides to hear of it if they have something to say.
                (true, Protocol::Tcp) => timeouts.millis(State::Close),
                (true, _) => 0,
            };
            now.millis_since(seen.end()) >= timeout
        })
    }
}
