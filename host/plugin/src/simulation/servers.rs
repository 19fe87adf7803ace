//! The real servers of a simulation.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use thiserror::Error;
use wvs_core::real_server::WEIGHT_MAX;

use super::TIME_MS_MAX;
use super::world::World;
use crate::table::ServerTable;
use crate::text::{NAME_MAX, printable};

/// The most servers that a specification may have.
pub const SERVERS_MAX: usize = 4_096;

/// The port of servers that are given without an address.
const PORT: u16 = 80;

/// Real servers with their weights, and when each of them is there.
///
/// As text they are separated by commas, and each is one of
///
/// - `3`: a server of that weight, at an address that follows from its place in the list;
/// - `16x1`: sixteen servers of weight 1 each;
/// - `10.0.0.1:80=3`, or `10.0.0.1:80` for weight 1: a server at that address;
///
/// with `@FROM..TO` behind it, in milliseconds, when it comes after the start (`@5000..`), goes
/// before the end (`@..5000`) or both. One that goes and comes back stands in the list twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Servers {
    list: Vec<SimulatedServer>,
}

/// A real server and when it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SimulatedServer {
    /// Address and port.
    pub address: SocketAddr,
    /// Weight.
    pub weight: u32,
    /// From this moment on it is there.
    pub from_ms: u64,
    /// From this moment on it is not; `None` when it stays.
    pub to_ms: Option<u64>,
}

/// Why a text names no servers.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ServersError {
    /// There is nothing in it.
    #[error("there are no servers; write their weights, such as 3,1,1")]
    Empty,
    /// One of them cannot be read.
    #[error(
        "server {number}, \"{}\", is none; write a weight, COUNTxWEIGHT, or ADDRESS:PORT[=WEIGHT]",
        printable(text, NAME_MAX)
    )]
    Unreadable {
        /// Its number, from 1.
        number: usize,
        /// Its text.
        text: String,
    },
    /// A weight is too large.
    #[error("server {number} has a weight above {WEIGHT_MAX}")]
    Weight {
        /// Its number, from 1.
        number: usize,
    },
    /// The time cannot be read, or ends before it begins.
    #[error(
        "server {number} has the time \"{}\"; write @FROM..TO in milliseconds up to {TIME_MS_MAX}, \
         FROM below TO, either of which may be missing",
        printable(text, NAME_MAX)
    )]
    Time {
        /// Its number, from 1.
        number: usize,
        /// The text of its time.
        text: String,
    },
    /// Two servers have one address at one time.
    #[error("server {number} has the address {address}, which another one has at that time")]
    Twice {
        /// Its number, from 1.
        number: usize,
        /// The address.
        address: SocketAddr,
    },
    /// There are too many.
    #[error("there are more than {SERVERS_MAX} servers")]
    TooMany,
}

impl Servers {
    /// The servers, in their order.
    #[must_use]
    pub fn list(&self) -> &[SimulatedServer] {
        &self.list
    }

    /// What plugins are shown of those that are there at the start.
    #[must_use]
    pub fn table(&self) -> Arc<ServerTable> {
        Arc::clone(World::new(self).table())
    }
}

impl SimulatedServer {
    /// Whether it is there at that moment.
    #[must_use]
    pub fn is_there(&self, at_ms: u64) -> bool {
        self.from_ms <= at_ms && self.to_ms.is_none_or(|to_ms| at_ms < to_ms)
    }

    /// Whether both are at one address at some moment.
    fn clashes(&self, other: &Self) -> bool {
        self.address == other.address
            && self.to_ms.is_none_or(|to_ms| other.from_ms < to_ms)
            && other.to_ms.is_none_or(|to_ms| self.from_ms < to_ms)
    }
}

impl From<Vec<SimulatedServer>> for Servers {
    fn from(list: Vec<SimulatedServer>) -> Self {
        Self { list }
    }
}

impl FromStr for Servers {
    type Err = ServersError;

    fn from_str(text: &str) -> Result<Self, ServersError> {
        if text.trim().is_empty() {
            return Err(ServersError::Empty);
        }
        let mut list = Vec::new();
        for (number, item) in (1..).zip(text.split(',')) {
            let item = item.trim();
            let (what, time) = item.split_once('@').map_or((item, None), |(w, t)| (w, Some(t)));
            let unreadable = || ServersError::Unreadable { number, text: item.to_owned() };
            let (count, address, weight) = read_server(what).ok_or_else(unreadable)?;
            let weight = u32::try_from(weight).ok().filter(|weight| *weight <= WEIGHT_MAX);
            let weight = weight.ok_or(ServersError::Weight { number })?;
            let (from_ms, to_ms) = match time {
                None => (0, None),
                Some(text) => read_time(text)
                    .ok_or_else(|| ServersError::Time { number, text: text.to_owned() })?,
            };
            if count > (SERVERS_MAX - list.len()) as u64 {
                return Err(ServersError::TooMany);
            }
            for _ in 0..count {
                let address = address.unwrap_or_else(|| own_address(list.len()));
                let server = SimulatedServer { address, weight, from_ms, to_ms };
                if list.iter().any(|other| server.clashes(other)) {
                    return Err(ServersError::Twice { number, address });
                }
                list.push(server);
            }
        }
        Ok(Self { list })
    }
}

/// How many, at which address, of which weight.
fn read_server(text: &str) -> Option<(u64, Option<SocketAddr>, u64)> {
    let number = |text: &str| is_number(text).then(|| text.parse().unwrap_or(u64::MAX));
    if let Some(weight) = number(text) {
        return Some((1, None, weight));
    }
    if let Some((count, weight)) = text.split_once('x') {
        return Some((number(count).filter(|count| *count > 0)?, None, number(weight)?));
    }
    match text.split_once('=') {
        Some((address, weight)) => Some((1, Some(address.parse().ok()?), number(weight)?)),
        None => Some((1, Some(text.parse().ok()?), 1)),
    }
}

/// `FROM..TO`, either of which may be missing.
fn read_time(text: &str) -> Option<(u64, Option<u64>)> {
    let (from, to) = text.split_once("..")?;
    let number = |text: &str| {
        is_number(text).then(|| text.parse().ok()).flatten().filter(|ms| *ms <= TIME_MS_MAX)
    };
    let from_ms = if from.is_empty() { 0 } else { number(from)? };
    let to_ms = if to.is_empty() { None } else { Some(number(to)?) };
    to_ms.is_none_or(|to_ms| from_ms < to_ms).then_some((from_ms, to_ms))
}

/// Digits and nothing else: no sign, which the standard library would take.
fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_digit())
}

/// The address of a server that is given without one, by its place.
fn own_address(place: usize) -> SocketAddr {
    let first = u32::from(Ipv4Addr::new(10, 0, 0, 1));
    let address = first + u32::try_from(place.min(SERVERS_MAX)).unwrap_or(0);
    SocketAddr::new(IpAddr::V4(Ipv4Addr::from(address)), PORT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(String, u32, u64, Option<u64>)> {
        let servers = text.parse::<Servers>().unwrap_or_else(|error| panic!("{text}: {error}"));
        let list = servers.list().iter();
        list.map(|s| (s.address.to_string(), s.weight, s.from_ms, s.to_ms)).collect()
    }

    fn refusal(text: &str) -> String {
        text.parse::<Servers>().unwrap_err().to_string()
    }

    #[test]
    fn weights_counts_and_addresses_are_servers() {
        let server = |address: &str, weight| (address.to_owned(), weight, 0, None);
        assert_eq!(read("3, 0"), [server("10.0.0.1:80", 3), server("10.0.0.2:80", 0)]);
        assert_eq!(read("2x5,1").len(), 3);
        assert_eq!(read("2x5,1")[2], server("10.0.0.3:80", 1));
        assert_eq!(
            read("192.0.2.1:8080=7,[2001:db8::1]:80"),
            [server("192.0.2.1:8080", 7), server("[2001:db8::1]:80", 1)]
        );
        assert_eq!(read("300x1")[299], server("10.0.1.44:80", 1));
    }

    #[test]
    fn servers_come_and_go_and_come_back() {
        let times = |text: &str| (read(text)[0].2, read(text)[0].3);
        assert_eq!(times("1@..500"), (0, Some(500)));
        assert_eq!(times("1@500.."), (500, None));
        assert_eq!(times("1@5..6"), (5, Some(6)));
        assert_eq!(read("192.0.2.1:80@..5,192.0.2.1:80=2@5..").len(), 2);
    }

    #[test]
    fn what_is_no_server_is_refused_with_its_number() {
        for (text, part) in [
            ("", "no servers"),
            (" ", "no servers"),
            ("3,,1", "server 2, \"\", is none"),
            ("3,-1", "server 2, \"-1\", is none"),
            ("3,+1", "server 2"),
            ("0x3", "server 1"),
            ("10.0.0.1", "server 1"),
            ("10.0.0.1:80=", "server 1"),
            ("10.0.0.1:99999=1", "server 1"),
            ("65536", "server 1 has a weight above 65535"),
            ("99999999999999999999999", "weight above"),
            ("99999999999999999999999x1", "more than 4096"),
            ("4096x1,1", "more than 4096"),
            ("1@5..5", "server 1 has the time"),
            ("1@5", "server 1 has the time"),
            ("1@5..99999999999999999999", "server 1 has the time"),
            ("1,10.0.0.1:80", "server 2 has the address 10.0.0.1:80"),
            ("192.0.2.1:80@..5,192.0.2.1:80@4..", "server 2 has the address 192.0.2.1:80"),
            ("\u{1b}[2J", "server 1, \" [2J\", is none"),
        ] {
            assert!(refusal(text).contains(part), "{text:?}: {}", refusal(text));
        }
    }
}
