//! Which packets a capture wants, and how much of them.

use std::collections::HashSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use wvs_core::director::Director;
use wvs_core::service::Protocol;
use wvs_core::verdict::{DropReason, Verdict};

use super::{Kind, Parties};
use crate::capture::RECORD_OCTETS_MAX;

/// The fewest octets of a packet that can be asked for: its headers, as a rule.
const SNAP_MIN: usize = 64;

/// Alternatives that can be given for one criterion.
const ALTERNATIVES_MAX: usize = 64;

/// What to capture: the packets that meet every criterion given here, those with several alternatives
/// in any of them. The JSON that `POST /v1/captures` takes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CaptureRequest {
    /// Packets of this virtual service, by its name, on either side of the director; ICMP errors
    /// about them too.
    pub service: Option<String>,
    /// Packets from or to one of these, before or after the translation; ICMP errors about them too.
    pub hosts: Vec<Network>,
    /// Packets from or to one of these ports, likewise.
    pub ports: Vec<u16>,
    /// `tcp`, `udp` or `icmp`.
    pub protocol: Option<String>,
    /// What must have become of the packet.
    pub verdicts: Vec<VerdictKind>,
    /// Why it must have been dropped, by the names in listings.
    pub reasons: Vec<String>,
    /// Octets to keep of each packet; all of them unless it says otherwise.
    pub snap: Option<usize>,
    /// Packets after which it ends.
    pub count: Option<u64>,
    /// Milliseconds after which it ends.
    pub milliseconds: Option<u64>,
    /// Octets of the file after which it ends.
    pub octets: Option<u64>,
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum VerdictKind {
    /// Translated and sent on.
    Forwarded,
    /// Answered by the director itself.
    Answered,
    /// Sent on as it came, because it concerns no service.
    Passed,
    /// Kept until the first part of its packet comes.
    Held,
    /// Not sent.
    Dropped,
}

impl VerdictKind {
    fn of(kind: Kind) -> Self {
        match kind {
            Kind::Verdict(Verdict::Forward) | Kind::Released => Self::Forwarded,
            Kind::Verdict(Verdict::Reply) => Self::Answered,
            Kind::Verdict(Verdict::Pass) => Self::Passed,
            Kind::Verdict(Verdict::Hold) => Self::Held,
            Kind::Verdict(Verdict::Drop(_)) => Self::Dropped,
        }
    }
}

/// An address or a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network(IpNet);

/// A text is neither an address nor a network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is neither an address nor a network; write it as 10.0.0.11, 10.0.0.0/24 or 2001:db8::/64"
)]
pub struct NoNetwork(String);

impl Network {
    /// Whether the address is in it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address)
    }
}

impl FromStr for Network {
    type Err = NoNetwork;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        network.map(Self).map_err(|_| NoNetwork(text.to_owned()))
    }
}

impl TryFrom<String> for Network {
    type Error = NoNetwork;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Network> for String {
    fn from(network: Network) -> Self {
        network.to_string()
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.prefix_len() == self.0.max_prefix_len() {
            self.0.addr().fmt(f)
        } else {
            self.0.fmt(f)
        }
    }
}

/// Nothing can be captured like this.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// No service of this name.
    #[error("there is no service {0}; `wvs plugin list` shows all")]
    NoService(String),
    /// No such protocol.
    #[error("`{0}` is no protocol; use tcp, udp or icmp")]
    NoProtocol(String),
    /// No such reason.
    #[error("`{0}` is no reason to drop a packet; there are {reasons}", reasons = reasons())]
    NoReason(String),
    /// Not so few or so many octets.
    #[error(
        "a snapshot length of {0} is not possible; it is from {SNAP_MIN} to {RECORD_OCTETS_MAX} octets"
    )]
    Snap(usize),
    /// Too many alternatives.
    #[error("{0} {1} are too many; {ALTERNATIVES_MAX} are possible")]
    TooMany(usize, &'static str),
}

fn reasons() -> String {
    DropReason::ALL.iter().map(|reason| reason.name()).collect::<Vec<_>>().join(", ")
}

impl CaptureRequest {
    pub(super) fn snap(&self) -> Result<usize, RequestError> {
        let snap = self.snap.unwrap_or(RECORD_OCTETS_MAX);
        if !(SNAP_MIN..=RECORD_OCTETS_MAX).contains(&snap) {
            return Err(RequestError::Snap(snap));
        }
        Ok(snap)
    }

    pub(super) fn time(&self) -> Option<Duration> {
        self.milliseconds.map(Duration::from_millis)
    }
}

/// A [`CaptureRequest`] as packets are held against it.
#[derive(Debug)]
pub(super) struct Filter {
    service: Option<WantedService>,
    hosts: Vec<IpNet>,
    ports: Vec<u16>,
    protocol: Option<Protocol>,
    verdicts: Vec<VerdictKind>,
    reasons: Vec<DropReason>,
}

#[derive(Debug)]
struct WantedService {
    id: u32,
    protocol: Protocol,
    /// Those at the beginning. Only a late reply, which no connection has, is known by them.
    servers: HashSet<SocketAddr>,
}

impl Filter {
    pub(super) fn new(request: &CaptureRequest, director: &Director) -> Result<Self, RequestError> {
        for (alternatives, name) in [
            (request.hosts.len(), "hosts"),
            (request.ports.len(), "ports"),
            (request.verdicts.len(), "verdicts"),
            (request.reasons.len(), "reasons"),
        ] {
            if alternatives > ALTERNATIVES_MAX {
                return Err(RequestError::TooMany(alternatives, name));
            }
        }
        let find_service = |name: &String| {
            let services = director.services();
            let service = services.named(name);
            let service = service.ok_or_else(|| RequestError::NoService(name.clone()))?;
            Ok(WantedService {
                id: service.id(),
                protocol: service.address().protocol,
                servers: service.servers().iter().map(|server| server.address()).collect(),
            })
        };
        let find_protocol = |name: &String| {
            [Protocol::Tcp, Protocol::Udp, Protocol::Icmp]
                .into_iter()
                .find(|protocol| protocol.name() == name)
                .ok_or_else(|| RequestError::NoProtocol(name.clone()))
        };
        let find_reason = |name: &String| {
            let mut reasons = DropReason::ALL.iter().copied();
            let reason = reasons.find(|reason| reason.name() == name);
            reason.ok_or_else(|| RequestError::NoReason(name.clone()))
        };
        Ok(Self {
            service: request.service.as_ref().map(find_service).transpose()?,
            hosts: request.hosts.iter().map(|network| network.0).collect(),
            ports: request.ports.clone(),
            protocol: request.protocol.as_ref().map(find_protocol).transpose()?,
            verdicts: request.verdicts.clone(),
            reasons: request.reasons.iter().map(find_reason).collect::<Result<_, _>>()?,
        })
    }

    /// Whether a packet with these parties before and after is wanted.
    pub(super) fn wants(
        &self,
        kind: Kind,
        seen: &[[Option<Parties>; 2]; 2],
        director: &Director,
    ) -> bool {
        if !self.verdicts.is_empty() && !self.verdicts.contains(&VerdictKind::of(kind)) {
            return false;
        }
        if !self.reasons.is_empty() {
            let Kind::Verdict(Verdict::Drop(reason)) = kind else { return false };
            if !self.reasons.contains(&reason) {
                return false;
            }
        }
        let any =
            |is_so: &dyn Fn(&Parties) -> bool| seen.as_flattened().iter().flatten().any(is_so);
        if let Some(protocol) = self.protocol
            && !any(&|parties| parties.protocol == Some(protocol))
        {
            return false;
        }
        let has_host = |parties: &Parties| {
            let ends = [parties.source, parties.destination];
            self.hosts.iter().any(|network| ends.iter().any(|end| network.contains(end)))
        };
        if !self.hosts.is_empty() && !any(&has_host) {
            return false;
        }
        let has_port = |parties: &Parties| {
            parties
                .ports
                .is_some_and(|(from, to)| self.ports.contains(&from) || self.ports.contains(&to))
        };
        if !self.ports.is_empty() && !any(&has_port) {
            return false;
        }
        self.service.as_ref().is_none_or(|wanted| {
            let services = director.services();
            any(&|parties| {
                let service = parties.service(&services);
                service.is_some_and(|service| service.id() == wanted.id)
                    || parties.protocol == Some(wanted.protocol)
                        && parties.from().is_some_and(|from| wanted.servers.contains(&from))
            })
        })
    }
}
