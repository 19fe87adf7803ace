//! One thing to be set: shown as the command that a person would give, sent as a message.

use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::{fmt, io};

use rtnetlink::packet_route::route::{
    RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleMessage, RulePortRange};
use rtnetlink::packet_route::{AddressFamily, IpProtocol};

use super::PROTOCOL;
use super::netlink::Order;
use crate::sysctl::{self, Spelled};

/// The protocols that our rules select, by number and by the name that the program `ip` takes.
pub(super) const PROTOCOLS: [(u8, &str); 4] =
    [(6, "tcp"), (17, "udp"), (1, "icmp"), (58, "ipv6-icmp")];

/// One thing to be set.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Step {
    Setting(Setting),
    Route(Route),
    Rule(Rule),
}

/// A kernel setting, named as [`sysctl`] names them.
#[derive(Clone, Debug)]
pub(super) struct Setting {
    pub(super) name: String,
    pub(super) value: String,
    /// Settings that the kernel changes along with it.
    pub(super) along: Vec<String>,
    /// Vanishes with the director's device: nothing to put back.
    pub(super) is_of_device: bool,
}

/// Settings are the same when they set the same. What the kernel changes along is another matter: it
/// comes and goes with interfaces.
impl PartialEq for Setting {
    fn eq(&self, other: &Self) -> bool {
        (&self.name, &self.value) == (&other.name, &other.value)
    }
}

impl Eq for Setting {}

impl Hash for Setting {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.name, &self.value).hash(state);
    }
}

impl Setting {
    /// Sees to it that the setting has its value; one that has it already may be read-only.
    pub(super) fn establish(&self) -> io::Result<()> {
        if sysctl::read(&self.name).is_ok_and(|value| value == self.value) {
            return Ok(());
        }
        sysctl::write(&self.name, &self.value)
    }

    /// The setting as it is now, if establishing it would change it.
    pub(super) fn before(&self) -> Option<Self> {
        let value = sysctl::read(&self.name).ok().filter(|value| *value != self.value)?;
        Some(Self { value, ..self.clone() })
    }
}

/// A route to one address, or the default route, in one table.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Route {
    pub(super) destination: Destination,
    pub(super) is_ipv6: bool,
    /// `None` for the main table.
    pub(super) table: Option<u32>,
    pub(super) via: Via,
    /// The greater, the later is the route taken; `None` for what the kernel gives it.
    pub(super) metric: Option<u32>,
}

/// Where a route leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Destination {
    Everywhere,
    One(IpAddr),
}

/// What becomes of packets that take a route.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Via {
    /// They go to the device of this name.
    Device(String),
    /// They vanish.
    BlackHole,
    /// They are refused.
    Prohibit,
}

/// All addresses whose first `length` bits are those of `address`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Prefix {
    pub(super) address: IpAddr,
    pub(super) length: u8,
}

impl Prefix {
    /// One address.
    pub(super) fn of_one(address: IpAddr) -> Self {
        Self { address, length: full_length(address.is_ipv6()) }
    }
}

/// As the program `ip` shows it: one address without its length.
impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, length } = self;
        if *length == full_length(address.is_ipv6()) {
            write!(f, "{address}")
        } else {
            write!(f, "{address}/{length}")
        }
    }
}

/// A policy rule: which packets look up which table.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Rule {
    pub(super) priority: u32,
    pub(super) is_ipv6: bool,
    pub(super) source: Option<Prefix>,
    /// The link that packets come in by; `None` for any.
    pub(super) input: Option<Arc<str>>,
    pub(super) protocol: Option<(u8, &'static str)>,
    pub(super) source_ports: Option<RangeInclusive<u16>>,
    pub(super) destination_ports: Option<RangeInclusive<u16>>,
    pub(super) table: u32,
    /// Where packets go on among the rules, instead of looking up `table`, which then only says
    /// whose rule it is.
    pub(super) goto: Option<u32>,
}

impl Step {
    /// Whether it is what claims a routing table for this director.
    pub(super) fn is_claim(&self) -> bool {
        matches!(self, Self::Route(Route { table: Some(_), .. }))
    }

    /// What the kernel is to do for it, if it is a route or a rule.
    pub(super) fn order(&self, device_index: u32) -> Option<Order> {
        match self {
            Self::Setting(_) => None,
            Self::Route(route) => Some(Order::AddRoute(route.message(device_index))),
            Self::Rule(rule) => Some(Order::AddRule(rule.message())),
        }
    }

    /// What takes it back.
    pub(super) fn undo_order(&self, device_index: u32) -> Option<Order> {
        match self {
            Self::Setting(_) => None,
            Self::Route(route) => Some(Order::RemoveRoute(route.message(device_index))),
            Self::Rule(rule) => Some(Order::RemoveRule(rule.message())),
        }
    }

    /// The VIP or pool address, if it is the route to one.
    pub(super) fn own_address(&self) -> Option<IpAddr> {
        match self {
            Self::Route(Route { destination: Destination::One(address), table: None, .. }) => {
                Some(*address)
            }
            _ => None,
        }
    }

    /// Whether it is the route that replies of real servers take to the director.
    pub(super) fn is_reply_route(&self) -> bool {
        matches!(
            self,
            Self::Route(Route { destination: Destination::Everywhere, via: Via::Device(_), .. })
        )
    }

    /// The command that takes it back, where one can be told in advance.
    pub(super) fn undo(&self) -> Option<String> {
        match self {
            // The device's own vanish with it.
            Self::Setting(setting) if setting.is_of_device => None,
            Self::Setting(setting) => {
                setting.before().map(|before| Self::Setting(before).to_string())
            }
            Self::Route(route) => Some(route.command("del")),
            Self::Rule(rule) => Some(rule.command("del")),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Setting(Setting { name, value, .. }) => {
                write!(f, "sysctl -w {}={value}", Spelled(name))
            }
            Self::Route(route) => f.write_str(&route.command("add")),
            Self::Rule(rule) => f.write_str(&rule.command("add")),
        }
    }
}

pub(super) fn ip(is_ipv6: bool) -> &'static str {
    if is_ipv6 { "ip -6" } else { "ip" }
}

fn family(is_ipv6: bool) -> AddressFamily {
    if is_ipv6 { AddressFamily::Inet6 } else { AddressFamily::Inet }
}

/// The length of a prefix that is one address.
pub(super) fn full_length(is_ipv6: bool) -> u8 {
    if is_ipv6 { 128 } else { 32 }
}

impl Route {
    fn command(&self, verb: &str) -> String {
        let kind = match self.via {
            Via::Device(_) => "",
            Via::BlackHole => "blackhole ",
            Via::Prohibit => "prohibit ",
        };
        let destination = match self.destination {
            Destination::Everywhere => "default".to_owned(),
            Destination::One(address) => format!("{address}/{}", full_length(self.is_ipv6)),
        };
        let mut command = format!("{} route {verb} {kind}{destination}", ip(self.is_ipv6));
        if let Via::Device(device) = &self.via {
            command += &format!(" dev {device}");
        }
        if let Some(table) = self.table {
            command += &format!(" table {table}");
        }
        if let Some(metric) = self.metric {
            command += &format!(" metric {metric}");
        }
        command + &format!(" proto {PROTOCOL}")
    }

    pub(super) fn message(&self, device_index: u32) -> RouteMessage {
        let mut message = RouteMessage::default();
        let header = &mut message.header;
        header.address_family = family(self.is_ipv6);
        header.table = header_table(self.table);
        header.protocol = RouteProtocol::Other(PROTOCOL);
        header.kind = match self.via {
            Via::Device(_) => RouteType::Unicast,
            Via::BlackHole => RouteType::BlackHole,
            Via::Prohibit => RouteType::Prohibit,
        };
        let attributes = &mut message.attributes;
        if let Destination::One(address) = self.destination {
            header.destination_prefix_length = full_length(self.is_ipv6);
            attributes.push(RouteAttribute::Destination(address.into()));
        }
        if let Via::Device(_) = self.via {
            // IPv4 takes a route without a gateway only as one to neighbours.
            if !self.is_ipv6 {
                header.scope = RouteScope::Link;
            }
            attributes.push(RouteAttribute::Oif(device_index));
        }
        if let Some(table) = self.table {
            attributes.push(RouteAttribute::Table(table));
        }
        attributes.extend(self.metric.map(RouteAttribute::Priority));
        message
    }
}

/// The header's table: 254 is `main`, and 0 leaves it to the attribute.
fn header_table(table: Option<u32>) -> u8 {
    if table.is_some() { 0 } else { 254 }
}

impl Rule {
    fn command(&self, verb: &str) -> String {
        let mut command = format!("{} rule {verb} pref {}", ip(self.is_ipv6), self.priority);
        if let Some(source) = self.source {
            command += &format!(" from {source}");
        }
        if let Some(input) = &self.input {
            command += &format!(" iif {input}");
        }
        if let Some((_, name)) = self.protocol {
            command += &format!(" ipproto {name}");
        }
        for (name, ports) in [("sport", &self.source_ports), ("dport", &self.destination_ports)] {
            match ports.as_ref().map(|ports| (ports.start(), ports.end())) {
                Some((first, last)) if first == last => command += &format!(" {name} {first}"),
                Some((first, last)) => command += &format!(" {name} {first}-{last}"),
                None => {}
            }
        }
        command += &format!(" lookup {}", self.table);
        if let Some(priority) = self.goto {
            command += &format!(" goto {priority}");
        }
        command + &format!(" protocol {PROTOCOL}")
    }

    /// What `message` says, if it says no more than our rules do.
    pub(super) fn read(message: &RuleMessage) -> Option<Self> {
        let is_ipv6 = message.header.family == AddressFamily::Inet6;
        let mut rule = Self {
            priority: 0,
            is_ipv6,
            source: None,
            input: None,
            protocol: None,
            source_ports: None,
            destination_ports: None,
            table: u32::from(message.header.table),
            goto: None,
        };
        let length = message.header.src_len;
        let ports = |range: &RulePortRange| Some(range.start..=range.end);
        for attribute in &message.attributes {
            match attribute {
                RuleAttribute::Priority(priority) => rule.priority = *priority,
                RuleAttribute::Source(address) => {
                    rule.source = Some(Prefix { address: *address, length });
                }
                RuleAttribute::Iifname(name) => rule.input = Some(name.as_str().into()),
                RuleAttribute::IpProtocol(protocol) => {
                    let number = i32::from(*protocol);
                    let known = PROTOCOLS.into_iter().find(|(own, _)| i32::from(*own) == number);
                    rule.protocol = Some(known?);
                }
                RuleAttribute::SourcePortRange(range) => rule.source_ports = ports(range),
                RuleAttribute::DestinationPortRange(range) => rule.destination_ports = ports(range),
                RuleAttribute::Table(table) => rule.table = *table,
                RuleAttribute::Goto(priority) => rule.goto = Some(*priority),
                RuleAttribute::Destination(_)
                | RuleAttribute::FwMark(_)
                | RuleAttribute::Oifname(_) => return None,
                _ => {}
            }
        }
        Some(rule)
    }

    pub(super) fn message(&self) -> RuleMessage {
        let mut message = RuleMessage::default();
        message.header.family = family(self.is_ipv6);
        message.header.action =
            if self.goto.is_some() { RuleAction::Goto } else { RuleAction::ToTable };
        if let Some(source) = self.source {
            message.header.src_len = source.length;
        }
        message.attributes = self.selectors();
        message.attributes.extend([
            RuleAttribute::Priority(self.priority),
            RuleAttribute::Table(self.table),
            RuleAttribute::Protocol(RouteProtocol::Other(PROTOCOL)),
        ]);
        message.attributes.extend(self.goto.map(RuleAttribute::Goto));
        message
    }

    fn selectors(&self) -> Vec<RuleAttribute> {
        let mut attributes = Vec::new();
        attributes
            .extend(self.input.as_deref().map(|name| RuleAttribute::Iifname(name.to_owned())));
        attributes.extend(self.source.map(|source| RuleAttribute::Source(source.address)));
        if let Some((number, _)) = self.protocol {
            attributes.push(RuleAttribute::IpProtocol(IpProtocol::from(i32::from(number))));
        }
        let range = |ports: &RangeInclusive<u16>| RulePortRange {
            start: *ports.start(),
            end: *ports.end(),
        };
        attributes
            .extend(self.source_ports.as_ref().map(range).map(RuleAttribute::SourcePortRange));
        attributes.extend(
            self.destination_ports.as_ref().map(range).map(RuleAttribute::DestinationPortRange),
        );
        attributes
    }
}
