//! `health` of services and servers: what is asked of a server, how often, and what follows.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use wvs_core::service::Protocol;
use wvs_health::types::Method;
use wvs_health::{Check, Command, Dns, Grpc, Http, Kind, RecordType, Standing, Tls, Udp};

use super::document::Value;
use super::keys;
use super::reader::{Field, Fields, Reader};
use super::schema::{number, set};
use super::servers::PORT;

pub(crate) const INTERVAL: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(24 * 3_600);
pub(crate) const TIMEOUT: RangeInclusive<Duration> =
    Duration::from_millis(10)..=Duration::from_secs(300);
pub(crate) const IN_ROW: RangeInclusive<u64> = 1..=100;
const FAILURES: RangeInclusive<u64> = 1..=1_000;
const OUT_FOR: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(24 * 3_600);
const STATUS: RangeInclusive<u16> = 100..=599;
pub(crate) const TEXT_OCTETS_MAX: usize = 1_024;
pub(crate) const ARGUMENTS_MAX: usize = 64;
pub(crate) const ARGUMENT_OCTETS_MAX: usize = 4_096;
const GRPC_SERVICE_OCTETS_MAX: usize = 127;

const DEFAULT_INTERVAL: Duration = Duration::from_secs(2);
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1);
const DEFAULT_RISE: u32 = 2;
const DEFAULT_FALL: u32 = 3;
const DEFAULT_PASSIVE: PassiveConfig =
    PassiveConfig { failures: 5, duration: Duration::from_secs(30) };

const METHODS: [(&str, Method); 4] = [
    ("GET", Method::GET),
    ("HEAD", Method::HEAD),
    ("OPTIONS", Method::OPTIONS),
    ("POST", Method::POST),
];

/// The kinds of checks, by their keys.
const KINDS: [&str; 7] = ["tcp", "http", "https", "udp", "dns", "command", "grpc"];

/// How the health of a server is watched: by asking it, by its connections, or both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthConfig {
    /// What it is asked; `None` for nothing.
    pub kind: Option<Kind>,
    /// Where, if not at the server's own address.
    pub address: Option<IpAddr>,
    /// Where, if not at the server's own port.
    pub port: Option<u16>,
    /// From check to check while it is up.
    pub interval: Duration,
    /// From check to check while it is down; `None` for the same.
    pub down_interval: Option<Duration>,
    /// After which a check is bad.
    pub timeout: Duration,
    /// Good checks in a row that make it up, 1 to 100.
    pub rise: u32,
    /// Bad checks in a row that make it down, 1 to 100.
    pub fall: u32,
    /// What it is before the first check.
    pub start: Standing,
    /// What its connections tell; `None` when they are not listened to.
    pub passive: Option<PassiveConfig>,
}

/// When a server's own connections take it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PassiveConfig {
    /// Refused or unanswered connections in a row, 1 to 1000.
    pub failures: u32,
    /// For how long.
    pub duration: Duration,
}

impl Default for HealthConfig {
    fn default() -> Self {
        Self {
            kind: None,
            address: None,
            port: None,
            interval: DEFAULT_INTERVAL,
            down_interval: None,
            timeout: DEFAULT_TIMEOUT,
            rise: DEFAULT_RISE,
            fall: DEFAULT_FALL,
            start: Standing::Up,
            passive: None,
        }
    }
}

impl HealthConfig {
    /// The check of the server at this address, if it is to be asked anything.
    #[must_use]
    pub fn check(&self, server: SocketAddr) -> Option<Check> {
        let Self { address, port, interval, down_interval, timeout, rise, fall, start, .. } = *self;
        Some(Check {
            kind: self.kind.clone()?,
            target: SocketAddr::new(address.unwrap_or(server.ip()), port.unwrap_or(server.port())),
            interval,
            down_interval: down_interval.unwrap_or(interval),
            timeout,
            rise,
            fall,
            start,
        })
    }

    /// Whether the check needs a port that a server without one does not have.
    fn lacks_port(&self, server: SocketAddr) -> bool {
        let asks_a_port = !matches!(self.kind, None | Some(Kind::Command(_)));
        asks_a_port && self.port.is_none() && server.port() == 0
    }
}

/// What holds for the health of all servers of a service, unless one of them says otherwise.
pub(super) struct ServiceHealth<'f> {
    /// Where relative paths start.
    folder: &'f Path,
    protocol: Option<Protocol>,
    config: Option<HealthConfig>,
}

impl<'f> ServiceHealth<'f> {
    pub(super) fn read(
        reader: &mut Reader<'_>,
        service: &Fields<'_>,
        folder: &'f Path,
        protocol: Option<Protocol>,
    ) -> Self {
        let field = service.get("health");
        let config = field.and_then(|field| read(reader, &field, folder, protocol, None));
        Self { folder, protocol, config }
    }

    /// The health of a server, whose address may be known.
    pub(super) fn of_server(
        &self,
        reader: &mut Reader<'_>,
        server: &Fields<'_>,
        address: Option<SocketAddr>,
    ) -> Option<HealthConfig> {
        let health = match server.get("health") {
            Some(field) => read(reader, &field, self.folder, self.protocol, self.config.as_ref()),
            None => self.config.clone(),
        }?;
        if address.is_some_and(|address| health.lacks_port(address)) {
            let (path, place) = server.place();
            let message = "its health check needs a port; add `port:` to `health`";
            reader.error(path, place, message);
        }
        Some(health)
    }
}

/// The health of a service, or of one of its servers: there `service` is what holds for all of them,
/// and what the server does not say is taken from it. `None` for no health at all; what could not
/// be read leaves `service` as it was.
fn read(
    reader: &mut Reader<'_>,
    field: &Field<'_>,
    folder: &Path,
    protocol: Option<Protocol>,
    service: Option<&HealthConfig>,
) -> Option<HealthConfig> {
    let mut health = service.cloned().unwrap_or_default();
    if let Value::Text(_) = field.node.value {
        health.kind = Some(match reader.choice(field, &WORDS)? {
            Word::None => return None,
            Word::Kind(kind) => kind(),
        });
        return Some(health);
    }
    let fields = reader.fields(field, &keys::HEALTH)?;
    if let Some(kind) = read_kind(reader, &fields, folder) {
        health.kind = Some(kind);
    }
    if let Some(field) = fields.get("address") {
        health.address = read_address(reader, &field).or(health.address);
    }
    if let Some(field) = fields.get("port") {
        health.port = number(reader, &field, PORT).or(health.port);
    }
    if let Some(field) = fields.get("interval") {
        set(&mut health.interval, reader.duration(&field, INTERVAL));
    }
    if let Some(field) = fields.get("down_interval") {
        health.down_interval = reader.duration(&field, INTERVAL).or(health.down_interval);
    }
    if let Some(field) = fields.get("timeout") {
        set(&mut health.timeout, reader.duration(&field, TIMEOUT));
    }
    for (name, slot) in [("rise", &mut health.rise), ("fall", &mut health.fall)] {
        if let Some(field) = fields.get(name) {
            set(slot, number(reader, &field, IN_ROW));
        }
    }
    if let Some(field) = fields.get("start") {
        let choices = [("up", Standing::Up), ("down", Standing::Down)];
        set(&mut health.start, reader.choice(&field, &choices));
    }
    if let Some(field) = fields.get("passive") {
        health.passive = read_passive(reader, &field, protocol);
    }
    let is_told = fields.has_any(&KINDS) || fields.has_any(&["passive"]);
    if !is_told && health.kind.is_none() && health.passive.is_none() {
        let message = "asks nothing; add what to ask, such as `tcp: {}`, or `passive: {}`";
        reader.error(&field.path, field.node.place, message);
    }
    Some(health)
}

/// What `health` can be without a mapping.
#[derive(Clone, Copy)]
enum Word {
    None,
    Kind(fn() -> Kind),
}

const WORDS: [(&str, Word); 7] = [
    ("none", Word::None),
    ("tcp", Word::Kind(|| Kind::Tcp)),
    ("http", Word::Kind(|| Kind::Http(Http::default()))),
    ("https", Word::Kind(|| Kind::Http(Http { tls: Some(Tls::default()), ..Http::default() }))),
    ("udp", Word::Kind(|| Kind::Udp(Udp::default()))),
    ("dns", Word::Kind(|| Kind::Dns(Dns::default()))),
    ("grpc", Word::Kind(|| Kind::Grpc(Grpc::default()))),
];

/// The one kind of check that is given, if one is.
fn read_kind(reader: &mut Reader<'_>, fields: &Fields<'_>, folder: &Path) -> Option<Kind> {
    let mut first: Option<(&str, Option<Kind>)> = None;
    for name in KINDS {
        let Some(field) = fields.get(name) else { continue };
        if let Some((other, _)) = first {
            let message = format!("`{other}` is asked already; remove one");
            reader.error(&field.path, field.node.place, message);
            continue;
        }
        let kind = match name {
            "tcp" => options(reader, &field, &keys::HEALTH_TCP).map(|_| Kind::Tcp),
            "http" => read_http(reader, &field, &keys::HEALTH_HTTP, None),
            "https" => read_http(reader, &field, &keys::HEALTH_HTTPS, Some(folder)),
            "udp" => read_udp(reader, &field),
            "dns" => read_dns(reader, &field),
            "command" => read_command(reader, &field, folder),
            _ => read_grpc(reader, &field),
        };
        first = Some((name, kind));
    }
    first?.1
}

/// The options of a kind, of which there may be none: `tcp:` is as good as `tcp: {}`.
fn options<'n>(
    reader: &mut Reader<'_>,
    field: &Field<'n>,
    table: &'static keys::Table,
) -> Option<Option<Fields<'n>>> {
    match field.node.value {
        Value::Null => Some(None),
        _ => reader.fields(field, table).map(Some),
    }
}

/// `http`, or with a folder that relative paths start at `https`.
fn read_http(
    reader: &mut Reader<'_>,
    field: &Field<'_>,
    table: &'static keys::Table,
    https: Option<&Path>,
) -> Option<Kind> {
    let mut http = Http { tls: https.map(|_| Tls::default()), ..Http::default() };
    let Some(fields) = options(reader, field, table)? else { return Some(Kind::Http(http)) };
    if let Some(field) = fields.get("path") {
        let parse = |text: &str| text.parse().ok().filter(|_| text.starts_with('/'));
        set(&mut http.path, parsed(reader, &field, "is no path", &table.values("path"), parse));
    }
    if let Some(field) = fields.get("host") {
        let parse = |text: &str| text.parse().ok().filter(|_| !text.contains('@'));
        http.host = parsed(reader, &field, "is no host", &table.values("host"), parse);
    }
    if let Some(field) = fields.get("method") {
        let methods = [0, 1, 2, 3].map(|index| (METHODS[index].0, index));
        let chosen = reader.choice(&field, &methods);
        set(&mut http.method, chosen.map(|index| METHODS[index].1.clone()));
    }
    if let Some(field) = fields.get("expect") {
        set(&mut http.expect, read_statuses(reader, &field));
    }
    if let Some(field) = fields.get("body") {
        http.body = text_of(reader, &field, 1..=TEXT_OCTETS_MAX).map(str::to_owned);
        if http.method == Method::HEAD {
            let message = "a response to HEAD has no body; remove one";
            reader.error(&field.path, field.node.place, message);
        }
    }
    if let (Some(tls), Some(folder)) = (&mut http.tls, https) {
        read_tls(reader, &fields, tls, folder);
    }
    Some(Kind::Http(http))
}

fn read_tls(reader: &mut Reader<'_>, fields: &Fields<'_>, tls: &mut Tls, folder: &Path) {
    if let Some(field) = fields.get("verify") {
        set(&mut tls.verify, reader.choice(&field, &[("true", true), ("false", false)]));
    }
    if let Some(field) = fields.get("ca") {
        tls.ca = text_of(reader, &field, 1..=ARGUMENT_OCTETS_MAX).map(|text| folder.join(text));
        if !tls.verify {
            let message = "nothing is verified with `verify: false`; remove one";
            reader.error(&field.path, field.node.place, message);
        }
    }
    if let Some(field) = fields.get("server_name") {
        let values = keys::HEALTH_HTTPS.values("server_name");
        let parse = |text: &str| text.to_owned().try_into().ok();
        tls.server_name = parsed(reader, &field, "is no name of a server", &values, parse);
    }
}

/// A status, a range of them, or a list of both.
fn read_statuses(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<Vec<RangeInclusive<u16>>> {
    let parse = |text: &str| {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let status = |text: &str| text.parse().ok().filter(|status| STATUS.contains(status));
        let (first, last) = (status(first)?, status(last)?);
        (first <= last).then_some(first..=last)
    };
    let one = |reader: &mut Reader<'_>, field: &Field<'_>| {
        let remedy = "200, 200-299 or a list of such";
        parsed(reader, field, "is no status from 100 to 599", remedy, parse)
    };
    if !matches!(field.node.value, Value::List(_)) {
        return Some(vec![one(reader, field)?]);
    }
    let list = reader.list(field)?;
    if list.is_empty() {
        reader.error(&field.path, field.node.place, "empty: no response would be good; add one");
    }
    list.iter().map(|field| one(reader, field)).collect()
}

fn read_udp(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<Kind> {
    let Some(fields) = options(reader, field, &keys::HEALTH_UDP)? else {
        return Some(Kind::Udp(Udp::default()));
    };
    let send = read_payload(reader, &fields, "send", "send_hex").unwrap_or_default();
    let expect = read_payload(reader, &fields, "expect", "expect_hex");
    Some(Kind::Udp(Udp { send, expect }))
}

/// Octets, as a text or in hexadecimal digits.
fn read_payload(
    reader: &mut Reader<'_>,
    fields: &Fields<'_>,
    as_text: &'static str,
    as_digits: &'static str,
) -> Option<Vec<u8>> {
    let text = fields.get(as_text);
    let digits = fields.get(as_digits);
    match (text, digits) {
        (None, None) => None,
        (Some(field), None) => {
            text_of(reader, &field, 1..=TEXT_OCTETS_MAX).map(|text| text.as_bytes().to_vec())
        }
        (None, Some(field)) => {
            let values = keys::HEALTH_UDP.values(as_digits);
            parsed(reader, &field, "is no octets", &values, parse_hex)
        }
        (Some(_), Some(field)) => {
            let message = format!("`{as_text}` says it already; remove one");
            reader.error(&field.path, field.node.place, message);
            None
        }
    }
}

fn parse_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text
        .chars()
        .map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect();
    let digits = digits?;
    let octets = digits.len() / 2;
    let is_whole = digits.len().is_multiple_of(2) && (1..=TEXT_OCTETS_MAX).contains(&octets);
    is_whole.then(|| digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

fn read_dns(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<Kind> {
    let mut dns = Dns::default();
    if let Some(fields) = options(reader, field, &keys::HEALTH_DNS)? {
        if let Some(field) = fields.get("name")
            && let Some(text) = reader.text(&field)
        {
            match text.parse() {
                Ok(name) => dns.name = name,
                Err(error) => {
                    let wrong = format!("{error}");
                    reader.refuse(&field, &wrong, "write it as example.org, or . for the root");
                }
            }
        }
        if let Some(field) = fields.get("type") {
            set(&mut dns.record, reader.choice(&field, &RecordType::ALL));
        }
    }
    Some(Kind::Dns(dns))
}

fn read_command(reader: &mut Reader<'_>, field: &Field<'_>, folder: &Path) -> Option<Kind> {
    let fields = reader.fields(field, &keys::HEALTH_COMMAND)?;
    let mut weight = false;
    if let Some(field) = fields.get("weight") {
        set(&mut weight, reader.choice(&field, &[("true", true), ("false", false)]));
    }
    let field = fields.required(reader, "run")?;
    let list = reader.list(&field)?;
    if list.is_empty() || list.len() > ARGUMENTS_MAX {
        let values = keys::HEALTH_COMMAND.values("run");
        let message = format!("{} texts; use {values}", list.len());
        reader.error(&field.path, field.node.place, message);
        return None;
    }
    let words: Vec<_> = list
        .iter()
        .enumerate()
        .map(|(place, field)| {
            let octets = usize::from(place == 0)..=ARGUMENT_OCTETS_MAX;
            text_of(reader, field, octets).map(str::to_owned)
        })
        .collect();
    let mut words = words.into_iter().collect::<Option<Vec<_>>>()?.into_iter();
    let program = folder.join(words.next()?);
    Some(Kind::Command(Command { program, arguments: words.collect(), weight }))
}

fn read_grpc(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<Kind> {
    let mut grpc = Grpc::default();
    if let Some(fields) = options(reader, field, &keys::HEALTH_GRPC)?
        && let Some(field) = fields.get("service")
    {
        let text = text_of(reader, &field, 0..=GRPC_SERVICE_OCTETS_MAX);
        set(&mut grpc.service, text.map(str::to_owned));
    }
    Some(Kind::Grpc(grpc))
}

fn read_passive(
    reader: &mut Reader<'_>,
    field: &Field<'_>,
    protocol: Option<Protocol>,
) -> Option<PassiveConfig> {
    if let Value::Text(_) = field.node.value {
        reader.choice(field, &[("none", ())])?;
        return None;
    }
    let fields = reader.fields(field, &keys::HEALTH_PASSIVE)?;
    if let Some(protocol) = protocol.filter(|protocol| *protocol != Protocol::Tcp) {
        let message = format!("only tcp tells who was refused, and this is {protocol}; remove it");
        reader.error(&field.path, field.node.place, message);
    }
    let mut passive = DEFAULT_PASSIVE;
    if let Some(field) = fields.get("failures") {
        set(&mut passive.failures, number(reader, &field, FAILURES));
    }
    if let Some(field) = fields.get("for") {
        set(&mut passive.duration, reader.duration(&field, OUT_FOR));
    }
    Some(passive)
}

/// Any address that one host can have; checks may go to the director's own, too.
fn read_address(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<IpAddr> {
    let address = reader.address(field)?;
    if address.is_unspecified() || address.is_multicast() {
        reader.refuse(field, "is no host's address", "use one that the director can reach");
        return None;
    }
    Some(address)
}

/// A text of so many octets.
fn text_of<'n, 's: 'n>(
    reader: &mut Reader<'s>,
    field: &Field<'n>,
    octets: RangeInclusive<usize>,
) -> Option<&'n str> {
    let text = reader.text(field)?;
    if octets.contains(&text.len()) {
        return Some(text);
    }
    let remedy = format!("use {} to {} octets", octets.start(), octets.end());
    reader.refuse(field, "does not fit", &remedy);
    None
}

/// A text that means something.
fn parsed<T>(
    reader: &mut Reader<'_>,
    field: &Field<'_>,
    wrong: &str,
    values: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> Option<T> {
    let parsed = parse(reader.text(field)?);
    if parsed.is_none() {
        reader.refuse(field, wrong, &format!("use {values}"));
    }
    parsed
}

#[cfg(test)]
mod tests {
    use super::super::units::{format_duration, parse_duration};
    use super::*;

    fn documented(table: &keys::Table, name: &str) -> &'static str {
        table.find(name).and_then(|key| key.default).unwrap().trim_matches('`')
    }

    #[test]
    fn documented_defaults_are_the_ones_used() {
        let HealthConfig { interval, timeout, rise, fall, start, .. } = HealthConfig::default();
        assert_eq!(parse_duration(documented(&keys::HEALTH, "interval")), Ok(interval));
        assert_eq!(parse_duration(documented(&keys::HEALTH, "timeout")), Ok(timeout));
        assert_eq!(documented(&keys::HEALTH, "rise").parse(), Ok(rise));
        assert_eq!(documented(&keys::HEALTH, "fall").parse(), Ok(fall));
        assert_eq!(documented(&keys::HEALTH, "start"), start.to_string());
        let PassiveConfig { failures, duration } = DEFAULT_PASSIVE;
        assert_eq!(documented(&keys::HEALTH_PASSIVE, "failures").parse(), Ok(failures));
        assert_eq!(documented(&keys::HEALTH_PASSIVE, "for"), format_duration(duration));
        for table in [&keys::HEALTH_HTTP, &keys::HEALTH_HTTPS] {
            let Http { method, path, expect, .. } = Http::default();
            assert_eq!(documented(table, "method"), method.as_str());
            assert_eq!(documented(table, "path"), path.as_str());
            assert_eq!(documented(table, "expect"), "200-299");
            assert_eq!(expect, [200..=299]);
        }
    }

    #[test]
    fn check_is_of_the_server_unless_told_otherwise() {
        let server = "10.0.0.1:80".parse().unwrap();
        let health = HealthConfig { kind: Some(Kind::Tcp), ..HealthConfig::default() };
        let check = health.check(server).unwrap();
        assert_eq!(check.target, server);
        assert_eq!(check.down_interval, check.interval);
        let elsewhere = HealthConfig { port: Some(81), ..health };
        assert_eq!(elsewhere.check(server).unwrap().target, "10.0.0.1:81".parse().unwrap());
        let address = Some("10.9.0.1".parse().unwrap());
        let down_interval = Some(Duration::from_secs(9));
        let elsewhere = HealthConfig { address, down_interval, ..elsewhere };
        let check = elsewhere.check(server).unwrap();
        assert_eq!(check.target, "10.9.0.1:81".parse().unwrap());
        assert_eq!(check.down_interval, Duration::from_secs(9));
        assert_eq!(HealthConfig { kind: None, ..elsewhere }.check(server), None);
    }

    #[test]
    fn octets_are_pairs_of_hexadecimal_digits() {
        assert_eq!(parse_hex("00fFa1"), Some(vec![0, 0xFF, 0xA1]));
        assert_eq!(parse_hex(&"00".repeat(1_024)).map(|octets| octets.len()), Some(1_024));
        for wrong in ["", "0", "000", "0x00", "zz", "00 00", &"00".repeat(1_025)] {
            assert_eq!(parse_hex(wrong), None, "{wrong}");
        }
    }
}
