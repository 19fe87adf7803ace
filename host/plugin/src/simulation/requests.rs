//! The requests of a simulation: which client opens a connection when, and for how long.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use thiserror::Error;
use wvs_abi::{Request, encode_address};
use wvs_core::random::Random;

use super::PROTOCOL;
use crate::text::{NAME_MAX, printable};

/// The most requests of one simulation.
pub const REQUESTS_MAX: usize = 1_000_000;

/// The latest moment of a simulation, and the longest life of a connection: some 115 days.
pub const TIME_MS_MAX: u64 = 10_000_000_000;

/// The first line of the text form.
const HEADER: &str = "at_ms,client,port,duration_ms";

/// Microseconds between two random requests, and milliseconds from a random connection's start to its
/// end, on average. Some 500 connections are open at a time.
const INTERVAL_US_MEAN: u64 = 2_000;
const DURATION_MS_MEAN: u64 = 1_000;

/// The virtual service's addresses, from the ranges for documentation, and its port.
const VIP_V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
const VIP_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10);
const PORT: u16 = 80;

/// The network that random clients come from: the one for benchmarks, 198.18.0.0/15.
const CLIENTS: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);

/// Random requests for each random client, on average.
const REQUESTS_PER_CLIENT: u64 = 10;

/// Requests in the order of their time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requests {
    list: Vec<Arrival>,
    seed: u64,
}

/// A client that opens a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// When it opens it.
    pub at_ms: u64,
    /// Its address.
    pub client: IpAddr,
    /// Its port.
    pub port: u16,
    /// How long it keeps it open.
    pub duration_ms: u64,
}

/// Why a text is no list of requests.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RequestsError {
    /// The first line is another one.
    #[error("line {line}: the first line must be {HEADER}")]
    Header {
        /// The line's number, from 1.
        line: usize,
    },
    /// A line has too few or too many fields.
    #[error("line {line}: {found} fields where there must be 4: {HEADER}")]
    Fields {
        /// The line's number, from 1.
        line: usize,
        /// How many it has.
        found: usize,
    },
    /// A field cannot be read.
    #[error("line {line}: {field} is \"{}\"; write {expected}", printable(text, NAME_MAX))]
    Field {
        /// The line's number, from 1.
        line: usize,
        /// The field's name.
        field: &'static str,
        /// What it has.
        text: String,
        /// What it must have.
        expected: &'static str,
    },
    /// A line is earlier than the one before.
    #[error(
        "line {line}: at_ms is {at_ms}, but an earlier line has {before}; sort the lines by time"
    )]
    Order {
        /// The line's number, from 1.
        line: usize,
        /// Its time.
        at_ms: u64,
        /// The time before.
        before: u64,
    },
    /// There are too many.
    #[error("line {line}: more than {REQUESTS_MAX} requests")]
    TooMany {
        /// The line's number, from 1.
        line: usize,
    },
    /// There is none.
    #[error("there are no requests")]
    Empty,
}

impl Requests {
    /// So many requests ([`REQUESTS_MAX`] at most) by chance: the same seed gives the same ones.
    ///
    /// Clients are a tenth as many as requests. The times between two requests, 2 ms on average, and
    /// the lives of connections, a second on average, are distributed almost exponentially.
    #[must_use]
    pub fn random(seed: u64, count: usize) -> Self {
        let count = count.min(REQUESTS_MAX);
        let clients = (count as u64 / REQUESTS_PER_CLIENT).max(1);
        let mut random = Random::new(seed);
        let mut at_us = 0;
        let list = (0..count).map(|_| {
            at_us += exponential(&mut random, INTERVAL_US_MEAN);
            let client = u32::try_from(random.next() % clients).unwrap_or(0);
            Arrival {
                at_ms: at_us / 1_000,
                client: IpAddr::V4(Ipv4Addr::from(u32::from(CLIENTS) + client)),
                port: 1_024 + u16::try_from(random.next() % 64_512).unwrap_or(0),
                duration_ms: exponential(&mut random, DURATION_MS_MEAN),
            }
        });
        Self { list: list.collect(), seed }
    }

    /// Reads lines of the form `at_ms,client,port,duration_ms` below a first line that says so.
    /// Empty lines and those that begin with `#` are passed over.
    ///
    /// # Errors
    /// The first line that cannot be read, and why.
    pub fn from_csv(text: &str) -> Result<Self, RequestsError> {
        let is_content = |(_, line): &(usize, &str)| !line.is_empty() && !line.starts_with('#');
        let mut lines = (1..).zip(text.lines().map(str::trim)).filter(is_content);
        match lines.next() {
            Some((_, HEADER)) => {}
            Some((line, _)) => return Err(RequestsError::Header { line }),
            None => return Err(RequestsError::Empty),
        }
        let mut list: Vec<Arrival> = Vec::new();
        for (line, text) in lines {
            let arrival = read_line(line, text)?;
            if let Some(last) = list.last()
                && arrival.at_ms < last.at_ms
            {
                let (at_ms, before) = (arrival.at_ms, last.at_ms);
                return Err(RequestsError::Order { line, at_ms, before });
            }
            if list.len() == REQUESTS_MAX {
                return Err(RequestsError::TooMany { line });
            }
            list.push(arrival);
        }
        if list.is_empty() { Err(RequestsError::Empty) } else { Ok(Self { list, seed: 0 }) }
    }

    /// The requests.
    #[must_use]
    pub fn list(&self) -> &[Arrival] {
        &self.list
    }

    /// What the random numbers in the requests begin with; 0 for requests that were read.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The time of the last one.
    #[must_use]
    pub fn milliseconds(&self) -> u64 {
        self.list.last().map_or(0, |last| last.at_ms)
    }
}

impl Arrival {
    /// What a plugin is shown of it: its first packet, to the simulation's virtual service.
    #[must_use]
    pub fn request(&self, random: u64) -> Request {
        let (family, vip) = match self.client {
            IpAddr::V4(_) => (4, IpAddr::V4(VIP_V4)),
            IpAddr::V6(_) => (6, IpAddr::V6(VIP_V6)),
        };
        Request {
            family,
            protocol: PROTOCOL,
            client_port: self.port,
            virtual_port: PORT,
            client_address: encode_address(self.client),
            virtual_address: encode_address(vip),
            now_ms: self.at_ms,
            random,
            ..Request::default()
        }
    }
}

fn read_line(line: usize, text: &str) -> Result<Arrival, RequestsError> {
    let fields: Vec<_> = text.split(',').map(str::trim).collect();
    let [at_ms, client, port, duration_ms] = fields[..] else {
        return Err(RequestsError::Fields { line, found: fields.len() });
    };
    let wrong = |field, text: &str, expected| RequestsError::Field {
        line,
        field,
        text: text.to_owned(),
        expected,
    };
    let time = |field, text: &str| {
        let time = text.parse().ok().filter(|time| *time <= TIME_MS_MAX);
        time.ok_or_else(|| wrong(field, text, "milliseconds, 0 to 10000000000"))
    };
    Ok(Arrival {
        at_ms: time("at_ms", at_ms)?,
        client: client.parse().map_err(|_| wrong("client", client, "an IPv4 or IPv6 address"))?,
        port: port.parse().map_err(|_| wrong("port", port, "a number from 0 to 65535"))?,
        duration_ms: time("duration_ms", duration_ms)?,
    })
}

/// A number distributed about exponentially: minus the logarithm to base 2 of a random part of 1,
/// linear between the powers. In whole numbers, because logarithms of floating-point numbers differ
/// from machine to machine.
fn exponential(random: &mut Random, mean: u64) -> u64 {
    const ONE: u64 = 1 << 16;
    let number = random.next();
    let power = u64::from(number.leading_zeros().min(47));
    let rest = (number << power) >> 47 & (ONE - 1);
    // On average 1 for the power and a half for the rest.
    ((power + 1) * ONE - rest) * mean / (ONE + ONE / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(lines: &str) -> String {
        Requests::from_csv(lines).unwrap_err().to_string()
    }

    #[test]
    fn random_requests_are_the_same_for_the_same_seed() {
        assert_eq!(Requests::random(7, 1_000), Requests::random(7, 1_000));
        assert_ne!(Requests::random(7, 1_000), Requests::random(8, 1_000));
        assert!(Requests::random(7, 1_000).list().is_sorted_by_key(|arrival| arrival.at_ms));
        assert_eq!(Requests::random(7, usize::MAX).list().len(), REQUESTS_MAX);
    }

    #[test]
    fn random_times_have_their_mean_and_a_long_tail() {
        let mut random = Random::new(1);
        let times: Vec<_> = (0..100_000).map(|_| exponential(&mut random, 1_000)).collect();
        let mean = times.iter().sum::<u64>() / 100_000;
        assert!((980..1_020).contains(&mean), "{mean}");
        let above = |ms: u64| times.iter().filter(|time| **time > ms).count();
        assert!((34_000..40_000).contains(&above(1_000)), "{}", above(1_000));
        assert!((1_000..2_000).contains(&above(4_000)), "{}", above(4_000));
    }

    #[test]
    fn lines_are_requests() {
        let text = "# from a log\n\nat_ms,client,port,duration_ms\r\n5, 192.0.2.1 ,4711,20\r\n\
                    5,2001:db8::1,0,0\n";
        let requests = Requests::from_csv(text).unwrap();
        let arrival = |client: &str, port, duration_ms| Arrival {
            at_ms: 5,
            client: client.parse().unwrap(),
            port,
            duration_ms,
        };
        let expected = [arrival("192.0.2.1", 4_711, 20), arrival("2001:db8::1", 0, 0)];
        assert_eq!(requests.list(), expected);
        assert_eq!(requests.milliseconds(), 5);
    }

    #[test]
    fn lines_that_are_none_are_named() {
        let header = HEADER;
        for (text, part) in [
            (String::new(), "no requests"),
            (header.to_owned(), "no requests"),
            ("1,192.0.2.1,1,1".to_owned(), "line 1: the first line must be at_ms,"),
            (format!("{header}\n1,192.0.2.1,1"), "line 2: 3 fields"),
            (format!("{header}\n1,192.0.2.1,1,1,1"), "line 2: 5 fields"),
            (format!("{header}\n\n#\nx,192.0.2.1,1,1"), "line 4: at_ms is \"x\""),
            (format!("{header}\n-1,192.0.2.1,1,1"), "at_ms is \"-1\""),
            (format!("{header}\n10000000001,192.0.2.1,1,1"), "at_ms is \"10000000001\""),
            (format!("{header}\n1,192.0.2.256,1,1"), "client is \"192.0.2.256\""),
            (format!("{header}\n1,192.0.2.1,65536,1"), "port is \"65536\""),
            (format!("{header}\n1,192.0.2.1,1,99999999999999999999"), "duration_ms is"),
            (format!("{header}\n2,::,1,1\n1,::,1,1"), "line 3: at_ms is 1, but an earlier line"),
        ] {
            assert!(refusal(&text).contains(part), "{text:?}: {}", refusal(&text));
        }
    }
}
