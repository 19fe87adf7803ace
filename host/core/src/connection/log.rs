//! What is told of connections that open and end, queued for whoever writes it down.
//!
//! Connections open and end on threads that must not wait for a file. As long as somebody wants to
//! know, each beginning and each end is put into a queue without locks; what does not fit is lost and
//! counted. Packets of established connections never come by here.

use core::fmt;
use core::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use crossbeam_queue::ArrayQueue;

use super::Connection;
use super::state::State;
use crate::packet::address::Address;
use crate::protocol::Protocol;
use crate::real_server::RealServer;
use crate::stats::Counter;
use crate::time::Moment;

/// Records that wait at most, of 24 octets each. With somebody who looks ten times a second, those
/// of 300,000 connections a second.
const WAITING_MAX: usize = 65_536;

/// Why a connection left the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndReason {
    /// Both sides closed it, and the time for late segments is over.
    Closed,
    /// One side reset or refused it.
    Reset,
    /// Its real server never answered.
    Unanswered,
    /// It was silent for too long.
    Expired,
    /// Its client began the next one with the same addresses and ports.
    Replaced,
    /// It was half-open and made way for a newer one.
    Evicted,
    /// Its real server went down.
    ServerDown,
    /// Its real server is drained or was taken out, and does not keep it.
    Drained,
    /// The director stopped.
    Stopped,
}

impl EndReason {
    /// Every reason, in the order of declaration.
    pub const ALL: [Self; 9] = [
        Self::Closed,
        Self::Reset,
        Self::Unanswered,
        Self::Expired,
        Self::Replaced,
        Self::Evicted,
        Self::ServerDown,
        Self::Drained,
        Self::Stopped,
    ];

    /// The name in the connection log.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Reset => "reset",
            Self::Unanswered => "unanswered",
            Self::Expired => "expired",
            Self::Replaced => "replaced",
            Self::Evicted => "evicted",
            Self::ServerDown => "server_down",
            Self::Drained => "drained",
            Self::Stopped => "stopped",
        }
    }

    /// What happened, in a sentence for people.
    #[must_use]
    pub const fn description(self) -> &'static str {
        match self {
            Self::Closed => "Both sides closed it, and the time for late segments is over.",
            Self::Reset => "One side reset or refused it.",
            Self::Unanswered => "Its real server never answered.",
            Self::Expired => "It was silent for longer than its state allows.",
            Self::Replaced => "Its client began the next one with the same addresses and ports.",
            Self::Evicted => "It was half-open and made way for a newer one.",
            Self::ServerDown => "Its real server went down.",
            Self::Drained => {
                "Its real server is drained or was taken out of the service, and does not keep it."
            }
            Self::Stopped => "The director stopped.",
        }
    }

    /// What it means that a connection was silent in its last state for as long as that allows:
    /// a connection that was ended stays until then.
    pub(crate) const fn of_silence(state: State, is_unanswered: bool) -> Self {
        match state {
            State::TimeWait | State::LastAck => Self::Closed,
            State::Close => Self::Reset,
            _ if is_unanswered => Self::Unanswered,
            _ => Self::Expired,
        }
    }
}

impl fmt::Display for EndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A connection that opened or ended.
#[derive(Debug)]
pub struct Record {
    connection: Logged,
    end: Option<End>,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// Why.
    pub reason: EndReason,
    /// The state that it was in.
    pub state: State,
}

/// A connection of either family.
#[derive(Debug)]
enum Logged {
    V4(Arc<Connection<Ipv4Addr>>),
    V6(Arc<Connection<Ipv6Addr>>),
}

/// An address family whose connections can be logged.
pub(crate) trait Loggable: Address {
    /// Keeps the connection until it was written down.
    fn record(connection: Arc<Connection<Self>>, end: Option<End>) -> Record;
}

impl Loggable for Ipv4Addr {
    fn record(connection: Arc<Connection<Self>>, end: Option<End>) -> Record {
        Record { connection: Logged::V4(connection), end }
    }
}

impl Loggable for Ipv6Addr {
    fn record(connection: Arc<Connection<Self>>, end: Option<End>) -> Record {
        Record { connection: Logged::V6(connection), end }
    }
}

/// What both families' connections have.
macro_rules! with {
    ($record:expr, $connection:ident => $what:expr) => {
        match &$record.connection {
            Logged::V4($connection) => $what,
            Logged::V6($connection) => $what,
        }
    };
}

impl Record {
    /// How it ended; `None` when it opened.
    #[must_use]
    pub const fn end(&self) -> Option<End> {
        self.end
    }

    /// The protocol.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        with!(self, connection => connection.original().protocol)
    }

    /// CIP and port.
    #[must_use]
    pub fn client(&self) -> SocketAddr {
        with!(self, connection => {
            let original = connection.original();
            SocketAddr::new(original.source.into(), original.source_port)
        })
    }

    /// VIP and port.
    #[must_use]
    pub fn vip(&self) -> SocketAddr {
        with!(self, connection => {
            let original = connection.original();
            SocketAddr::new(original.destination.into(), original.destination_port)
        })
    }

    /// The real server.
    #[must_use]
    pub fn server(&self) -> &RealServer {
        with!(self, connection => connection.server())
    }

    /// What the real server sees in place of the client, with full NAT.
    #[must_use]
    pub fn local(&self) -> Option<SocketAddr> {
        with!(self, connection => {
            connection.local().map(|local| SocketAddr::new(local.address.into(), local.port))
        })
    }

    /// The generation of the service's scheduler that placed it; 0 when the director did by itself.
    #[must_use]
    pub fn generation(&self) -> u16 {
        with!(self, connection => connection.generation())
    }

    /// When its first packet came.
    #[must_use]
    pub fn opened(&self) -> Moment {
        with!(self, connection => connection.opened())
    }

    /// Milliseconds from its first packet to its last, to about a second.
    #[must_use]
    pub fn lifetime_ms(&self) -> u32 {
        with!(self, connection => connection.lifetime_ms())
    }
}

/// The queue of the records of all connections, as long as somebody wants any.
#[derive(Debug, Default)]
pub struct ConnectionLog {
    is_wanted: AtomicBool,
    /// Made when it is wanted for the first time, since it takes its memory at once.
    queue: OnceLock<ArrayQueue<Record>>,
    lost: Counter,
}

impl ConnectionLog {
    /// Says whether records are wanted from now on. Those that wait are dropped if not.
    pub fn want(&self, is_wanted: bool) {
        let queue = self.queue.get();
        if is_wanted {
            self.queue.get_or_init(|| ArrayQueue::new(WAITING_MAX));
        }
        self.is_wanted.store(is_wanted, Relaxed);
        if !is_wanted {
            while queue.and_then(ArrayQueue::pop).is_some() {}
        }
    }

    /// Whether records are wanted.
    #[inline]
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.is_wanted.load(Relaxed)
    }

    /// The oldest record.
    #[must_use]
    pub fn pop(&self) -> Option<Record> {
        self.queue.get()?.pop()
    }

    /// Records that were lost because too many waited.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.get()
    }

    /// Notes that a connection opened, or how it ended, if anybody wants to know. Cost when nobody
    /// does: one load.
    #[inline]
    pub(crate) fn note<A: Loggable>(&self, connection: &Arc<Connection<A>>, end: Option<End>) {
        if self.is_wanted() {
            self.push(A::record(Arc::clone(connection), end));
        }
    }

    #[cold]
    fn push(&self, record: Record) {
        if self.queue.get().is_none_or(|queue| queue.push(record).is_err()) {
            self.lost.count();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::tuple::Tuple;
    use crate::service::{ServiceAddress, Terms};

    fn connection() -> Arc<Connection<Ipv4Addr>> {
        let (source, destination) = (Ipv4Addr::new(198, 51, 100, 7), Ipv4Addr::new(192, 0, 2, 1));
        let protocol = Protocol::Tcp;
        let address = ServiceAddress { protocol, vip: destination.into(), port: 80 };
        let terms = Arc::new(Terms::new("web", address));
        let server = RealServer::new(0, "10.0.0.1:8080".parse().unwrap(), 1, terms);
        let original =
            Tuple { source, destination, source_port: 4000, destination_port: 80, protocol };
        let opened = Connection::open(original, Arc::new(server), 3, None, Moment::default());
        Arc::new(opened.unwrap())
    }

    #[test]
    fn records_come_in_order_and_only_when_wanted() {
        let (log, connection) = (ConnectionLog::default(), connection());
        log.note(&connection, None);
        assert!(log.pop().is_none());
        log.want(true);
        log.note(&connection, None);
        let end = End { reason: EndReason::Closed, state: State::TimeWait };
        log.note(&connection, Some(end));
        let record = log.pop().unwrap();
        assert_eq!(record.end(), None);
        assert_eq!(record.client(), "198.51.100.7:4000".parse().unwrap());
        assert_eq!(record.vip(), "192.0.2.1:80".parse().unwrap());
        assert_eq!(record.server().address(), "10.0.0.1:8080".parse().unwrap());
        assert_eq!((record.local(), record.generation()), (None, 3));
        drop(record);
        assert_eq!(log.pop().unwrap().end(), Some(end));
        assert!(log.pop().is_none());
        log.note(&connection, None);
        log.want(false);
        assert!(log.pop().is_none());
        assert_eq!(Arc::strong_count(&connection), 1, "nothing is kept");
    }

    #[test]
    fn records_beyond_the_limit_are_lost_and_counted() {
        let (log, connection) = (ConnectionLog::default(), connection());
        log.want(true);
        for _ in 0..WAITING_MAX + 3 {
            log.note(&connection, None);
        }
        assert_eq!(log.lost(), 3);
    }

    #[test]
    fn record_takes_little_memory() {
        assert_eq!(size_of::<Record>(), 24);
    }

    #[test]
    fn silence_after_the_end_of_a_connection_is_that_end() {
        for (state, is_unanswered, reason) in [
            (State::TimeWait, false, EndReason::Closed),
            (State::LastAck, false, EndReason::Closed),
            (State::Close, true, EndReason::Reset),
            (State::SynRecv, true, EndReason::Unanswered),
            (State::SynRecv, false, EndReason::Expired),
            (State::Established, false, EndReason::Expired),
            (State::Udp, false, EndReason::Expired),
        ] {
            assert_eq!(EndReason::of_silence(state, is_unanswered), reason, "{state}");
        }
    }
}
