//! The real servers of a service, and how they stand in for each other.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use wvs_core::real_server::WEIGHT_MAX;
use wvs_core::roster::{Parting, RosterRules};
use wvs_core::service::{Ports, Protocol, Reach};
use wvs_health::Kind;

use super::health::ServiceHealth;
use super::key_path::KeyPath;
use super::problem::Place;
use super::reader::{Field, Fields, Reader};
use super::schema::{number, set, why_not_a_host};
use super::{DrainConfig, ServerConfig, keys};

pub(super) const PORT: RangeInclusive<u64> = 1..=65_535;
const WEIGHT: RangeInclusive<u64> = 0..=WEIGHT_MAX as u64;
pub(crate) const THRESHOLD_MAX: u32 = 16_777_216;
const THRESHOLD: RangeInclusive<u64> = 1..=THRESHOLD_MAX as u64;
pub(crate) const SERVERS_MAX: usize = 4_096;
/// The sum of the weights of as many servers as there may be.
const QUORUM: RangeInclusive<u64> = 1..=(SERVERS_MAX as u64 * WEIGHT_MAX as u64);
const SLOW_START: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3_600);
const DEADLINE: RangeInclusive<Duration> =
    Duration::from_secs(0)..=Duration::from_secs(31 * 24 * 3_600);

const PARTINGS: [(&str, Parting); 2] = [("keep", Parting::Keep), ("reset", Parting::Reset)];

/// The real servers of all services read so far, by address: each with its path and place.
pub(super) type SeenServers = Vec<(IpAddr, KeyPath, Place)>;

/// What a server shares with its service.
#[derive(Clone, Copy)]
pub(super) struct Common {
    pub(super) protocol: Option<Protocol>,
    pub(super) vip: Option<IpAddr>,
    /// The port of servers that have none of their own; 0 for the one that the client connects to.
    port: Option<u16>,
}

impl Common {
    pub(super) fn new(protocol: Option<Protocol>, reach: Option<&Reach>) -> Self {
        let vip = reach.and_then(|reach| reach.vips.first().copied());
        let port = reach.map(|reach| match &reach.ports {
            Ports::These(ranges) => match ranges.as_slice() {
                [one] if one.start() == one.end() => *one.start(),
                _ => 0,
            },
            Ports::Others => 0,
        });
        Self { protocol, vip, port }
    }
}

/// How the servers stand in for each other.
pub(super) fn read_rules(reader: &mut Reader<'_>, service: &Fields<'_>) -> RosterRules {
    let mut rules = RosterRules::default();
    if let Some(field) = service.get("quorum") {
        set(&mut rules.quorum, number(reader, &field, QUORUM));
    }
    if let Some(field) = service.get("hysteresis") {
        let below_quorum = 0..=u64::from(rules.quorum).saturating_sub(1);
        set(&mut rules.hysteresis, number(reader, &field, below_quorum));
    }
    if let Some(field) = service.get("slow_start") {
        set(&mut rules.slow_start, reader.duration(&field, SLOW_START));
    }
    if let Some(field) = service.get("on_down") {
        set(&mut rules.on_down, reader.choice(&field, &PARTINGS));
    }
    rules
}

/// Says so when even all servers together are too few.
pub(super) fn warn_of_quorum(
    reader: &mut Reader<'_>,
    service: &Fields<'_>,
    quorum: u32,
    servers: &[ServerConfig],
) {
    let Some(field) = service.get("quorum") else { return };
    let all: u64 = servers.iter().map(|server| u64::from(server.weight)).sum();
    // A command may give a server more weight.
    let is_fixed = |server: &ServerConfig| {
        let kind = server.health.as_ref().and_then(|health| health.kind.as_ref());
        !matches!(kind, Some(Kind::Command(_)))
    };
    if all < quorum.into() && servers.iter().all(is_fixed) {
        let message = format!(
            "more than all real servers together weigh, {all}: they are always too few; lower it"
        );
        reader.warn(&field.path, field.node.place, message);
    }
}

/// What becomes of the connections of a server that is drained.
pub(super) fn read_drain(reader: &mut Reader<'_>, service: &Fields<'_>) -> DrainConfig {
    let mut drain = DrainConfig::default();
    let fields = service.get("drain").and_then(|field| reader.fields(&field, &keys::DRAIN));
    let Some(fields) = fields else { return drain };
    if let Some(field) = fields.get("deadline") {
        drain.deadline = reader.duration(&field, DEADLINE);
    }
    if let Some(field) = fields.get("then") {
        set(&mut drain.then, reader.choice(&field, &PARTINGS));
    }
    drain
}

/// The server that takes connections when the others are too few.
pub(super) fn read_sorry(
    reader: &mut Reader<'_>,
    service: &Fields<'_>,
    seen: &mut SeenServers,
    common: Common,
) -> Option<SocketAddr> {
    let field = service.get("sorry_server")?;
    let fields = reader.fields(&field, &keys::SORRY_SERVER)?;
    read_end(reader, &fields, seen, common)
}

pub(super) fn read_servers(
    reader: &mut Reader<'_>,
    service: &Fields<'_>,
    seen: &mut SeenServers,
    common: Common,
    health: &ServiceHealth<'_>,
) -> Option<Vec<ServerConfig>> {
    let field = service.required(reader, "servers")?;
    let list = reader.list(&field)?;
    if list.is_empty() {
        let message = "no real servers: every client gets what `on_no_server` says";
        reader.warn(&field.path, field.node.place, message);
    }
    if list.len() > SERVERS_MAX {
        let message = format!("{} real servers; use at most {SERVERS_MAX}", list.len());
        reader.error(&field.path, field.node.place, message);
        return None;
    }
    let mut servers: Vec<ServerConfig> = Vec::with_capacity(list.len());
    let mut paths: HashMap<SocketAddr, &KeyPath> = HashMap::new();
    for field in &list {
        let Some(fields) = reader.fields(field, &keys::SERVER) else { continue };
        let Some(server) = read_server(reader, &fields, seen, common, health) else { continue };
        if let Some(other) = paths.get(&server.address) {
            let message = format!("{} is already {other}; remove one", server.address);
            reader.error(&field.path, field.node.place, message);
            continue;
        }
        paths.insert(server.address, &field.path);
        servers.push(server);
    }
    Some(servers)
}

fn read_server(
    reader: &mut Reader<'_>,
    fields: &Fields<'_>,
    seen: &mut SeenServers,
    common: Common,
    health: &ServiceHealth<'_>,
) -> Option<ServerConfig> {
    let address = read_end(reader, fields, seen, common);
    let weight = match fields.get("weight") {
        Some(field) => number(reader, &field, WEIGHT),
        None => Some(1),
    };
    let upper_threshold = match fields.get("upper_threshold") {
        Some(field) => number(reader, &field, THRESHOLD)?,
        None => 0,
    };
    let lower_threshold = match fields.get("lower_threshold") {
        Some(field) if upper_threshold == 0 => {
            let message = "only together with `upper_threshold`; add that, or remove it";
            reader.error(&field.path, field.node.place, message);
            0
        }
        Some(field) => number(reader, &field, 1..=upper_threshold.into())?,
        None => 0,
    };
    let is_backup = match fields.get("backup") {
        Some(field) => reader.choice(&field, &[("true", true), ("false", false)])?,
        None => false,
    };
    let health = health.of_server(reader, fields, address);
    let (address, weight) = (address?, weight?);
    Some(ServerConfig { address, weight, upper_threshold, lower_threshold, is_backup, health })
}

/// Address and port of a server.
fn read_end(
    reader: &mut Reader<'_>,
    fields: &Fields<'_>,
    seen: &mut SeenServers,
    common: Common,
) -> Option<SocketAddr> {
    let address = fields.required(reader, "address").and_then(|field| {
        let remedy = "use the real server's own address";
        let address = read_address_beside(reader, &field, common.vip, remedy)?;
        seen.push((address, field.path.clone(), field.node.place));
        Some(address)
    });
    let port = match fields.get("port") {
        Some(field) if common.protocol == Some(Protocol::Icmp) => {
            let message = "a real server of an icmp service has no port; remove it";
            reader.error(&field.path, field.node.place, message);
            None
        }
        Some(field) => number(reader, &field, PORT),
        None => common.port,
    };
    Some(SocketAddr::new(address?, port?))
}

/// An address of a host in the VIP's family.
pub(super) fn read_address_beside(
    reader: &mut Reader<'_>,
    field: &Field<'_>,
    vip: Option<IpAddr>,
    remedy: &str,
) -> Option<IpAddr> {
    let address = reader.address(field)?;
    if let Some(reason) = why_not_a_host(address) {
        reader.refuse(field, reason, remedy);
        return None;
    }
    if let Some(vip) = vip.filter(|vip| vip.is_ipv4() != address.is_ipv4()) {
        let family = |address: IpAddr| if address.is_ipv4() { "IPv4" } else { "IPv6" };
        let message = format!(
            "{address} is {}, but the service's VIP {vip} is {}; use one family in a service",
            family(address),
            family(vip),
        );
        reader.error(&field.path, field.node.place, message);
        return None;
    }
    Some(address)
}
