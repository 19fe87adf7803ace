//! From a file's tree to a [`Config`]: what each key means, and what fits together.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use wvs_core::connection::state::{State, Timeouts};
use wvs_core::connection::table::TableLimits;
use wvs_core::director::ClosedPort;
use wvs_core::service::{OnNoServer, OnStray, Ports, Protocol, Reach, Settings};

use super::document::{Node, Value};
use super::health::ServiceHealth;
use super::key_path::KeyPath;
use super::plugins::{self, Plugins};
use super::reach::{self, Taken};
use super::reader::{Field, Fields, Reader};
use super::servers::{self, Common, SeenServers};
use super::{
    AdminConfig, Config, DeviceConfig, ForwardingConfig, MetricsConfig, RoutingMode,
    SchedulerConfig, ServerConfig, ServiceConfig, admin, connection_log, forwarding, keys,
    persistence,
};
use crate::device;

const MTU: RangeInclusive<u64> = 576..=65_535;
const QUEUES: RangeInclusive<u64> = 1..=device::QUEUES_MAX as u64;
const MTU_IPV6_MIN: u16 = 1_280;
const CONNECTIONS: RangeInclusive<u64> = 1..=16_777_216;
const CHECKS: RangeInclusive<u64> = 1..=65_536;
const REPLIES: RangeInclusive<u64> = 0..=1_000_000;
const TIMEOUT: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(31 * 24 * 3_600);
pub(crate) const SERVICES_MAX: usize = 4_096;
const NAME_OCTETS_MAX: usize = 63;

/// The loopback device, and the sysctls of every device and of those to come.
const DEVICES_OF_THE_KERNEL: [&str; 3] = ["lo", "all", "default"];

const DEFAULT_DEVICE: &str = "wvs0";
const DEFAULT_SOCKET: &str = "/run/wvs/wvs.sock";
const DEFAULT_CONNECTIONS: usize = 1_048_576;
const DEFAULT_HALF_OPEN: usize = 65_536;
const DEFAULT_TEMPLATES: usize = 262_144;
const DEFAULT_CHECKS: usize = 512;
const DEFAULT_REPLIES: u32 = 1_000;

const PROTOCOLS: [(&str, Protocol); 3] =
    [("tcp", Protocol::Tcp), ("udp", Protocol::Udp), ("icmp", Protocol::Icmp)];

/// The keys of `timeouts` and the states they are for.
const TIMEOUT_STATES: [(&str, State, Protocol); 10] = [
    ("established", State::Established, Protocol::Tcp),
    ("syn_sent", State::SynSent, Protocol::Tcp),
    ("syn_recv", State::SynRecv, Protocol::Tcp),
    ("fin_wait", State::FinWait, Protocol::Tcp),
    ("time_wait", State::TimeWait, Protocol::Tcp),
    ("close", State::Close, Protocol::Tcp),
    ("close_wait", State::CloseWait, Protocol::Tcp),
    ("last_ack", State::LastAck, Protocol::Tcp),
    ("udp", State::Udp, Protocol::Udp),
    ("icmp", State::Icmp, Protocol::Icmp),
];

impl Default for Config {
    /// Every default, and no service.
    fn default() -> Self {
        Self {
            device: DeviceConfig {
                name: DEFAULT_DEVICE.to_owned(),
                mtu: None,
                queues: None,
                offload: true,
            },
            routing: RoutingMode::Managed,
            watch: false,
            socket: DEFAULT_SOCKET.into(),
            admin: AdminConfig::default(),
            limits: TableLimits { connections: DEFAULT_CONNECTIONS, half_open: DEFAULT_HALF_OPEN },
            templates_max: DEFAULT_TEMPLATES,
            checks_max: DEFAULT_CHECKS,
            replies_per_second: DEFAULT_REPLIES,
            answer_echo: true,
            closed_port: ClosedPort::default(),
            metrics: MetricsConfig::default(),
            connection_log: None,
            plugins: Vec::new(),
            services: Vec::new(),
        }
    }
}

/// Reads a whole file. Paths in it start at `folder`. With an error among the reader's problems,
/// the configuration is what could be understood.
pub(super) fn read<'s>(source: &'s str, folder: &Path) -> (Config, Reader<'s>) {
    let mut reader = Reader::new(source);
    let mut config = Config::default();
    let root = match Node::parse(source) {
        Ok(root) => root,
        Err(error) => {
            match error.place {
                Some(place) => reader.error(&KeyPath::default(), place, error.message),
                None => reader.error_without_place(error.message),
            }
            return (config, reader);
        }
    };
    if matches!(root.value, Value::Null) {
        reader.error_without_place("the file is empty; describe at least one service");
        return (config, reader);
    }
    let root = Field { path: KeyPath::default(), node: &root };
    if let Some(file) = reader.fields(&root, &keys::FILE) {
        read_file(&mut reader, &file, folder, &mut config);
    }
    (config, reader)
}

fn read_file(reader: &mut Reader<'_>, file: &Fields<'_>, folder: &Path, config: &mut Config) {
    let device = file.get("device").and_then(|field| reader.fields(&field, &keys::DEVICE));
    if let Some(fields) = &device {
        read_device(reader, fields, &mut config.device);
    }
    if let Some(field) = file.get("watch") {
        set(&mut config.watch, reader.choice(&field, &[("true", true), ("false", false)]));
    }
    if let Some(field) = file.get("routing") {
        let modes = [
            ("managed", RoutingMode::Managed),
            ("print", RoutingMode::Print),
            ("off", RoutingMode::Off),
        ];
        set(&mut config.routing, reader.choice(&field, &modes));
    }
    if let Some(field) = file.get("admin") {
        admin::read(reader, &field, folder, config);
    }
    if let Some(limits) = file.get("limits").and_then(|field| reader.fields(&field, &keys::LIMITS))
    {
        if let Some(field) = limits.get("connections") {
            set(&mut config.limits.connections, number(reader, &field, CONNECTIONS));
        }
        if let Some(field) = limits.get("half_open") {
            set(&mut config.limits.half_open, number(reader, &field, CONNECTIONS));
        }
        if let Some(field) = limits.get("templates") {
            set(&mut config.templates_max, number(reader, &field, CONNECTIONS));
        }
        if let Some(field) = limits.get("checks") {
            set(&mut config.checks_max, number(reader, &field, CHECKS));
        }
        if let Some(field) = limits.get("replies") {
            set(&mut config.replies_per_second, number(reader, &field, REPLIES));
        }
    }
    if let Some(field) = file.get("echo") {
        let choices = [("reply", true), ("drop", false)];
        set(&mut config.answer_echo, reader.choice(&field, &choices));
    }
    if let Some(field) = file.get("closed_port") {
        let choices = [("reject", ClosedPort::Reject), ("drop", ClosedPort::Drop)];
        set(&mut config.closed_port, reader.choice(&field, &choices));
    }
    if let Some(metrics) =
        file.get("metrics").and_then(|field| reader.fields(&field, &keys::METRICS))
        && let Some(field) = metrics.get("servers")
    {
        let choices = [("true", true), ("false", false)];
        set(&mut config.metrics.servers, reader.choice(&field, &choices));
    }
    if let Some(field) = file.get("connection_log") {
        config.connection_log = connection_log::read(reader, &field, folder);
    }
    let mut plugins = Plugins::default();
    if let Some(field) = file.get("plugins") {
        plugins.read(reader, &field, folder);
    }
    if let Some(field) = file.required(reader, "services") {
        read_services(reader, &field, folder, &mut plugins, config);
    }
    if let Some(field) = device.and_then(|fields| fields.get("mtu"))
        && let Some(mtu) = config.device.mtu.filter(|mtu| *mtu < MTU_IPV6_MIN)
        && config.services.iter().any(|service| service.address().vip.is_ipv6())
    {
        let message = format!("{mtu} is too short for IPv6; use {MTU_IPV6_MIN} or more");
        reader.error(&field.path, field.node.place, message);
    }
    if !reader.has_errors() {
        // With errors, a service that could not be read may be the one that uses it.
        plugins.warn_of_unused(reader);
    }
    config.plugins = plugins.into_configs();
}

fn read_device(reader: &mut Reader<'_>, fields: &Fields<'_>, config: &mut DeviceConfig) {
    if let Some(field) = fields.get("name")
        && let Some(name) = reader.text(&field)
    {
        if DEVICES_OF_THE_KERNEL.contains(&name) {
            let wrong = "is a name that the kernel uses for something else";
            reader.refuse(&field, wrong, &format!("choose another, such as {DEFAULT_DEVICE}"));
        } else if device::is_name(name) {
            name.clone_into(&mut config.name);
        } else {
            let remedy = format!("use {}", keys::DEVICE.values("name"));
            reader.refuse(&field, "is no name for a device", &remedy);
        }
    }
    if let Some(field) = fields.get("mtu") {
        config.mtu = number_or_auto(reader, &field, MTU);
    }
    if let Some(field) = fields.get("queues") {
        let queues: Option<u16> = number_or_auto(reader, &field, QUEUES);
        config.queues = queues.and_then(NonZeroU16::new);
    }
    if let Some(field) = fields.get("offload") {
        set(&mut config.offload, reader.choice(&field, &[("true", true), ("false", false)]));
    }
}

/// What must be known of all services to say whether the next one fits beside them.
#[derive(Default)]
struct Seen {
    taken: Taken,
    servers: SeenServers,
    /// The same of each address of a pool.
    pools: SeenServers,
    /// Real servers whose datagrams belong to no connection.
    one_packet: HashMap<SocketAddr, String>,
}

fn read_services(
    reader: &mut Reader<'_>,
    field: &Field<'_>,
    folder: &Path,
    plugins: &mut Plugins,
    config: &mut Config,
) {
    let Some(list) = reader.list(field) else { return };
    if list.is_empty() {
        reader.error(&field.path, field.node.place, "empty; describe at least one service");
    }
    if list.len() > SERVICES_MAX {
        let message = format!("{} services; use at most {SERVICES_MAX}", list.len());
        reader.error(&field.path, field.node.place, message);
        return;
    }
    let mut seen = Seen::default();
    for field in &list {
        if let Some(fields) = reader.fields(field, &keys::SERVICE) {
            let templates_max = config.templates_max;
            let service = read_service(reader, &fields, folder, plugins, &mut seen, templates_max);
            config.services.extend(service);
        }
    }
    for (address, path, place) in &seen.servers {
        if let Some(service) = seen.taken.of_vip(*address) {
            let message = format!(
                "{address} is the VIP of {service}; give the real server an address of its own"
            );
            reader.error(path, *place, message);
        }
    }
    let servers: HashSet<IpAddr> = seen.servers.iter().map(|(address, ..)| *address).collect();
    for (address, path, place) in &seen.pools {
        if servers.contains(address) {
            let message = format!("{address} is a real server's; give the pool one of its own");
            reader.error(path, *place, message);
        }
    }
}

/// Reads everything there is to read of a service, and returns it if all that is needed is there.
fn read_service(
    reader: &mut Reader<'_>,
    fields: &Fields<'_>,
    folder: &Path,
    plugins: &mut Plugins,
    seen: &mut Seen,
    templates_max: usize,
) -> Option<ServiceConfig> {
    let name = read_name(reader, fields);
    let protocol = match fields.get("protocol") {
        Some(field) => reader.choice(&field, &PROTOCOLS),
        None => Some(Protocol::Tcp),
    };
    let reach = reach::read(reader, fields, protocol, &mut seen.taken);
    let common = Common::new(protocol, reach.as_ref());
    let vips = reach.as_ref().map(|reach| reach.vips.as_slice());
    let scheduler = match fields.get("scheduler") {
        Some(field) => plugins.read_scheduler(reader, &field),
        None => Some(SchedulerConfig::of(plugins::DEFAULT_SCHEDULER)),
    };
    let forwarding = forwarding::read(reader, fields, vips, |reader, field| {
        let remedy = "use an address of the director's";
        let address = servers::read_address_beside(reader, field, common.vip, remedy)?;
        seen.pools.push((address, field.path.clone(), field.node.place));
        Some(address)
    });
    let timeouts = read_timeouts(reader, fields, protocol);
    let mut on_no_server = OnNoServer::default();
    if let Some(field) = fields.get("on_no_server") {
        let choices =
            [("reset", OnNoServer::Reset), ("icmp", OnNoServer::Icmp), ("drop", OnNoServer::Drop)];
        set(&mut on_no_server, reader.choice(&field, &choices));
    }
    let mut on_stray = OnStray::default();
    if let Some(field) = fields.get("on_stray") {
        let choices =
            [("reset", OnStray::Reset), ("drop", OnStray::Drop), ("pickup", OnStray::Pickup)];
        set(&mut on_stray, reader.choice(&field, &choices));
        if protocol.is_some_and(|protocol| protocol != Protocol::Tcp) {
            reader.error(&field.path, field.node.place, "only tcp services have it; remove it");
        }
    }
    let persistence = persistence::read(reader, fields, common.vip, templates_max);
    let rules = servers::read_rules(reader, fields);
    let drain = servers::read_drain(reader, fields);
    let sorry = servers::read_sorry(reader, fields, &mut seen.servers, common);
    let health = ServiceHealth::read(reader, fields, folder, protocol);
    let servers = servers::read_servers(reader, fields, &mut seen.servers, common, &health);
    let (forwarding, servers) = (forwarding?, servers?);
    servers::warn_of_quorum(reader, fields, rules.quorum, &servers);
    let is_one_packet =
        read_one_packet(reader, fields, protocol, reach.as_ref(), &forwarding, &servers, seen);
    let settings = Settings {
        reach: reach?,
        is_one_packet,
        on_no_server,
        on_stray,
        rules,
        timeouts,
        persistence,
    };
    Some(ServiceConfig {
        name: name?,
        protocol: protocol?,
        scheduler: scheduler?,
        forwarding,
        settings,
        drain,
        sorry,
        servers,
    })
}

/// Whether datagrams open no connections. Then nothing but the server that one comes from tells
/// where it belongs.
fn read_one_packet(
    reader: &mut Reader<'_>,
    fields: &Fields<'_>,
    protocol: Option<Protocol>,
    reach: Option<&Reach>,
    forwarding: &ForwardingConfig,
    servers: &[ServerConfig],
    seen: &mut Seen,
) -> bool {
    let Some(field) = fields.get("one_packet") else { return false };
    if reader.choice(&field, &[("true", true), ("false", false)]) != Some(true) {
        return false;
    }
    let has_own_ports = servers.iter().any(|server| server.address.port() != 0);
    let one_port = |reach: &Reach| match &reach.ports {
        Ports::These(ranges) => {
            matches!(ranges.as_slice(), [range] if range.start() == range.end())
        }
        Ports::Others => false,
    };
    let obstacle = if protocol.is_some_and(|protocol| protocol != Protocol::Udp) {
        Some("only udp services have it; remove it".to_owned())
    } else if *forwarding != ForwardingConfig::Nat {
        Some("not together with `forward: fullnat`; remove one".to_owned())
    } else if reach.is_some_and(|reach| reach.vips.len() > 1) {
        Some("not with several addresses; use a service for each".to_owned())
    } else if reach.is_some_and(|reach| has_own_ports && !one_port(reach)) {
        Some("not with several ports, unless real servers have none of their own".to_owned())
    } else {
        let (path, _) = fields.place();
        let path = path.to_string();
        let same = |server: &ServerConfig| {
            let any_port = SocketAddr::new(server.address.ip(), 0);
            let other = seen.one_packet.insert(server.address, path.clone());
            other
                .or_else(|| seen.one_packet.get(&any_port).filter(|other| **other != path).cloned())
        };
        servers.iter().find_map(same).map(|other| {
            format!(
                "{other} has one of the real servers too, also with `one_packet`, and nothing would \
                 tell their answers apart; give one of them another port"
            )
        })
    };
    if let Some(message) = obstacle {
        reader.error(&field.path, field.node.place, message);
    }
    true
}

fn read_name(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Option<String> {
    let field = fields.required(reader, "name")?;
    let name = reader.text(&field)?;
    if !is_name(name) {
        let remedy = format!("use {}", keys::SERVICE.values("name"));
        reader.refuse(&field, "is no name for a service", &remedy);
        return None;
    }
    let (path, _) = fields.place();
    if let Some(other) = reader.services.get(name) {
        let remedy = format!("{other} has it already; choose another");
        reader.refuse(&field, "is taken", &remedy);
    } else {
        reader.services.insert(name.to_owned(), path.to_string());
    }
    Some(name.to_owned())
}

fn read_timeouts(
    reader: &mut Reader<'_>,
    service: &Fields<'_>,
    protocol: Option<Protocol>,
) -> Timeouts {
    let mut timeouts = Timeouts::default();
    let fields = service.get("timeouts").and_then(|field| reader.fields(&field, &keys::TIMEOUTS));
    let Some(fields) = fields else { return timeouts };
    for (name, state, of) in TIMEOUT_STATES {
        let Some(field) = fields.get(name) else { continue };
        if let Some(timeout) = reader.duration(&field, TIMEOUT) {
            timeouts.set(state, timeout);
        }
        if let Some(protocol) = protocol.filter(|protocol| *protocol != of) {
            let message = format!("only for {of} services, and this one is {protocol}; remove it");
            reader.error(&field.path, field.node.place, message);
        }
    }
    timeouts
}

/// What keeps an address from being that of one host in the network, if something does.
pub(crate) fn why_not_a_host(address: IpAddr) -> Option<&'static str> {
    if address.is_unspecified() {
        return Some("is the unspecified address");
    }
    if address.is_loopback() {
        return Some("is a loopback address, which never leaves its host");
    }
    if address.is_multicast() {
        return Some("is a multicast address");
    }
    match address {
        IpAddr::V4(address) if address.is_broadcast() => Some("is the broadcast address"),
        IpAddr::V4(_) => None,
        IpAddr::V6(address) if address.to_ipv4_mapped().is_some() => {
            Some("is an IPv4 address in IPv6 clothes")
        }
        IpAddr::V6(address) if address.is_unicast_link_local() => {
            Some("is a link-local address, which is not routed")
        }
        IpAddr::V6(_) => None,
    }
}

pub(super) fn number<T: TryFrom<u64>>(
    reader: &mut Reader<'_>,
    field: &Field<'_>,
    range: RangeInclusive<u64>,
) -> Option<T> {
    reader.integer(field, range)?.try_into().ok()
}

/// A number, or `None` for `auto`.
fn number_or_auto<T: TryFrom<u64> + Copy>(
    reader: &mut Reader<'_>,
    field: &Field<'_>,
    range: RangeInclusive<u64>,
) -> Option<T> {
    match &field.node.value {
        Value::Text(_) => reader.choice(field, &[("auto", None)]).flatten(),
        _ => number(reader, field, range),
    }
}

/// Replaces a default by what was read, if it could be read.
pub(super) fn set<T>(slot: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *slot = value;
    }
}

fn is_name_octet(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || matches!(octet, b'.' | b'_' | b'-')
}

/// Whether a service or a plugin may be called so.
pub(crate) fn is_name(name: &str) -> bool {
    name.len() <= NAME_OCTETS_MAX
        && name.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric)
        && name.bytes().all(is_name_octet)
}

#[cfg(test)]
mod tests {
    use super::super::units::parse_duration;
    use super::*;

    fn documented(table: &keys::Table, name: &str) -> &'static str {
        table.find(name).and_then(|key| key.default).unwrap().trim_matches('`')
    }

    #[test]
    fn keys_of_keepalived_are_understood_and_refused() {
        let text = "services: [{ name: a, vip: 192.0.2.1, port: 80, lb_algo: rr, real_server: [], \
                    retry: 3, servers: [] }]";
        let (_, reader) = read(text, Path::new(""));
        let told: Vec<_> = reader.problems.iter().map(|problem| problem.message.as_str()).collect();
        assert!(told.contains(&"unknown key; did you mean \"scheduler\"?"), "{told:?}");
        assert!(told.contains(&"unknown key; did you mean \"servers\"?"), "{told:?}");
        // A key of another table.
        assert!(told.iter().any(|told| told.starts_with("unknown key; use ")), "{told:?}");
    }

    #[test]
    fn documented_timeouts_are_the_ones_of_the_core() {
        assert_eq!(keys::TIMEOUTS.keys.len(), TIMEOUT_STATES.len());
        for (name, state, _) in TIMEOUT_STATES {
            let timeout = parse_duration(documented(&keys::TIMEOUTS, name));
            assert_eq!(timeout, Ok(state.default_timeout()), "{name}");
        }
    }

    #[test]
    fn documented_defaults_are_the_ones_used() {
        let config = Config::default();
        assert_eq!(documented(&keys::DEVICE, "name"), config.device.name);
        assert_eq!(documented(&keys::ADMIN, "socket"), config.socket.to_str().unwrap());
        let mode = format!("\"{:04o}\"", config.admin.mode);
        assert_eq!(documented(&keys::ADMIN, "mode"), mode);
        let connections = documented(&keys::LIMITS, "connections").parse();
        assert_eq!(connections, Ok(config.limits.connections));
        let half_open = documented(&keys::LIMITS, "half_open").parse();
        assert_eq!(half_open, Ok(config.limits.half_open));
        assert_eq!(documented(&keys::LIMITS, "templates").parse(), Ok(config.templates_max));
        assert_eq!(documented(&keys::LIMITS, "checks").parse(), Ok(config.checks_max));
        assert_eq!(documented(&keys::LIMITS, "replies").parse(), Ok(config.replies_per_second));
    }
}
