//! What became of a packet, in words: the comments in a capture.

use std::fmt::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use wvs_core::service::Protocol;
use wvs_core::services::Services;
use wvs_core::verdict::Verdict;

use super::{Kind, LOOKED_AT, Parties, first};
use crate::capture::{CapturedPacket, PcapngWriter};

/// A packet and what became of it.
#[derive(Debug)]
pub(crate) struct Outcome<'a> {
    pub(crate) kind: Kind,
    /// When it came, since 1970, and how long it took to be sent.
    pub(crate) time: Duration,
    pub(crate) took: Duration,
    /// Its first octets as it came, which are not changed, and octets that it had.
    pub(crate) before: &'a mut [u8],
    pub(crate) before_length: usize,
    /// The same as it was sent; 0 where it was not, or as it came.
    pub(crate) after: &'a mut [u8],
    pub(crate) after_length: usize,
    pub(crate) is_checksum_unfinished: bool,
    /// Whether the device took what was to be sent.
    pub(crate) is_written: bool,
    /// Its number, and that of the queue that it came by.
    pub(crate) id: u64,
    pub(crate) queue: u32,
}

impl Outcome<'_> {
    /// Puts the packet into a file as it came and, if it was sent otherwise, as it was sent, with
    /// what became of it as comments. `comment` is a place to write them.
    pub(crate) fn put(self, file: &mut PcapngWriter, comment: &mut String, services: &Services) {
        let decision = Decision {
            kind: self.kind,
            before: Parties::of(first(self.before, LOOKED_AT)),
            after: Parties::of(first(self.after, LOOKED_AT)),
            is_checksum_unfinished: self.is_checksum_unfinished,
            is_written: self.is_written,
        };
        let as_it_came = CapturedPacket {
            time: self.time,
            octets: self.before,
            original_octets: self.before_length,
            is_outbound: false,
            is_checksum_unfinished: self.is_checksum_unfinished,
            id: self.id,
            queue: self.queue,
            comment: "",
        };
        if self.kind != Kind::Released {
            decision.comment_in(comment, services);
            file.put(&CapturedPacket { comment, ..as_it_came });
        }
        if self.after_length > 0 {
            let is_answer = self.kind == Kind::Verdict(Verdict::Reply);
            decision.comment_out(comment, services);
            file.put(&CapturedPacket {
                time: self.time + self.took,
                octets: self.after,
                original_octets: self.after_length,
                is_outbound: true,
                is_checksum_unfinished: self.is_checksum_unfinished && !is_answer,
                comment,
                ..as_it_came
            });
        }
    }
}

/// What became of a packet, with whom it was from and to before and after.
#[derive(Clone, Copy, Debug)]
struct Decision {
    kind: Kind,
    before: [Option<Parties>; 2],
    after: [Option<Parties>; 2],
    is_checksum_unfinished: bool,
    is_written: bool,
}

impl Decision {
    /// Writes the comment of the packet as it came, in place of what is there.
    fn comment_in(&self, comment: &mut String, services: &Services) {
        comment.clear();
        // Writing to a String cannot fail, here and below.
        let _ = match self.kind {
            Kind::Verdict(Verdict::Forward) => self.write_forward(comment, "in: forward", services),
            Kind::Verdict(Verdict::Reply) => {
                let _ = write!(comment, "in: answer with {}", self.answer());
                self.write_service(comment, services)
            }
            Kind::Verdict(Verdict::Pass) => write!(comment, "passed: concerns no service"),
            Kind::Verdict(Verdict::Hold) => {
                write!(comment, "held: a part of a packet whose first part did not come yet")
            }
            Kind::Verdict(Verdict::Drop(reason)) => {
                let _ = write!(comment, "dropped: {reason}: {}", reason.description());
                self.write_service(comment, services)
            }
            Kind::Released => Ok(()),
        };
        if self.is_checksum_unfinished {
            comment.push_str(UNFINISHED);
        }
        if self.kind == Kind::Verdict(Verdict::Pass) && !self.is_written {
            comment.push_str(NOT_TAKEN);
        }
    }

    /// Writes the comment of the packet as it was sent, in place of what is there.
    fn comment_out(&self, comment: &mut String, services: &Services) {
        comment.clear();
        let is_answer = self.kind == Kind::Verdict(Verdict::Reply);
        let _ = match self.kind {
            Kind::Released => write!(comment, "out: a part of a packet that was held"),
            _ if is_answer => {
                let _ = write!(comment, "out: the director's own answer, {}", self.answer());
                self.write_service(comment, services)
            }
            _ => self.write_forward(comment, "out: forwarded", services),
        };
        if self.is_checksum_unfinished && !is_answer {
            comment.push_str(UNFINISHED);
        }
        if !self.is_written {
            comment.push_str(NOT_TAKEN);
        }
    }

    fn write_forward(&self, to: &mut String, how: &str, services: &Services) -> fmt::Result {
        let [Some(after), _] = self.after else {
            to.push_str(how);
            return Ok(());
        };
        let is_error = if after.is_error { " the ICMP error" } else { "" };
        let destination = Place::new(&after, after.to(), after.destination);
        write!(to, "{how}{is_error} to {destination}")?;
        // Towards the client the other end is what matters: the address that the client knows.
        let is_reply = self.before[0].is_some_and(|before| before.source != after.source);
        if is_reply {
            write!(to, " from {}", Place::new(&after, after.from(), after.source))?;
        }
        self.write_service(to, services)
    }

    /// The name of the service that it belongs to, if any.
    fn write_service(&self, to: &mut String, services: &Services) -> fmt::Result {
        let parties = self.before.iter().chain(&self.after).flatten();
        match parties.filter_map(|parties| parties.service(services)).next() {
            Some(service) => write!(to, " ({})", service.name()),
            None => Ok(()),
        }
    }

    /// What the director's own answer is.
    fn answer(&self) -> &'static str {
        match self.after[0] {
            Some(Parties { protocol: Some(Protocol::Tcp), .. }) => "a reset",
            Some(Parties { is_error: true, .. }) => "an ICMP error",
            Some(Parties { protocol: Some(Protocol::Icmp), .. }) => "an echo reply",
            _ => "an answer",
        }
    }
}

const UNFINISHED: &str = "; its checksum is left to the device to finish";
const NOT_TAKEN: &str = "; the device did not take it";

/// An address, with its port where there is one.
struct Place {
    with_port: Option<SocketAddr>,
    address: IpAddr,
}

impl Place {
    fn new(parties: &Parties, with_port: Option<SocketAddr>, address: IpAddr) -> Self {
        let has_ports = matches!(parties.protocol, Some(Protocol::Tcp | Protocol::Udp));
        Self { with_port: with_port.filter(|_| has_ports), address }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.with_port {
            Some(with_port) => with_port.fmt(f),
            None => self.address.fmt(f),
        }
    }
}
