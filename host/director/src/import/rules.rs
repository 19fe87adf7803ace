//! What was read of another program's rules: plain data in WVS's words.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use wvs_core::connection::state::State;
use wvs_core::service::Protocol;

use super::Note;
use super::lvs::Timeouts;
use crate::config::{SERVERS_MAX, SERVICES_MAX, is_name, why_not_a_host};
use crate::output::count;

/// Ports of addresses of all services together, from which on there are no further services.
const ADDRESSES_MAX: usize = 1_000_000;

/// Everything that was read.
#[derive(Debug, Default)]
pub(super) struct Rules {
    entries: Vec<Entry<Service>>,
    /// How many entries came with a service.
    services: usize,
    /// How many ports of addresses these have.
    addresses: usize,
}

/// Something in the input, whatever became of it.
#[derive(Clone, Debug)]
pub(super) struct Entry<T> {
    /// What is to be said about it.
    pub(super) notes: Vec<Note>,
    /// What it became; `None` when it is left out.
    pub(super) kept: Option<T>,
}

/// A virtual service.
#[derive(Clone, Debug)]
pub(super) struct Service {
    /// Where it stands in the input.
    pub(super) line: u32,
    /// The name that the input has for it, if any; once settled, the one that it gets.
    pub(super) name: String,
    /// At least one, all of one family.
    pub(super) vips: Vec<IpAddr>,
    /// At least one range. Port 0 is every port that no other service has.
    pub(super) ports: Vec<RangeInclusive<u16>>,
    /// TCP or UDP.
    pub(super) protocol: Protocol,
    /// The scheduler's name.
    pub(super) scheduler: &'static str,
    /// What of the scheduler's `config` is true.
    pub(super) scheduler_config: Vec<&'static str>,
    /// How clients are kept at their servers.
    pub(super) persistence: Option<Persistence>,
    /// Whether every datagram is scheduled by itself.
    pub(super) one_packet: bool,
    /// Timeouts other than the default ones, by their keys.
    pub(super) timeouts: Vec<(&'static str, Duration)>,
    /// The sum of weights below which the service is given up.
    pub(super) quorum: Option<u32>,
    /// How far beyond the quorum it takes to come back, and below to give up.
    pub(super) hysteresis: Option<u32>,
    /// What serves while the quorum is lost.
    pub(super) sorry_server: Option<SocketAddr>,
    /// The real servers.
    pub(super) servers: Vec<Entry<Server>>,
}

/// How clients are kept at their servers.
#[derive(Clone, Debug)]
pub(super) struct Persistence {
    /// For how long after a client's last connection.
    pub(super) timeout: Duration,
    /// The length of the prefix that makes one client; `None` for a whole address.
    pub(super) prefix: Option<u8>,
}

/// A real server.
#[derive(Clone, Debug)]
pub(super) struct Server {
    /// Where it stands in the input.
    pub(super) line: u32,
    /// Its address.
    pub(super) address: IpAddr,
    /// Its port; 0 for the one that the client used.
    pub(super) port: u16,
    /// Its weight, from 0 up.
    pub(super) weight: u32,
    /// The number of connections from which on it gets no new ones.
    pub(super) upper: Option<u32>,
    /// The number below which it gets them again.
    pub(super) lower: Option<u32>,
    /// How packets got to it, where that was not by NAT: as written, and its line.
    pub(super) forwarding: Option<(&'static str, u32)>,
    /// How it is checked.
    pub(super) health: Option<Health>,
}

/// How a real server is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Health {
    /// What is done.
    pub(super) check: Check,
    /// What is checked in the server's stead.
    pub(super) address: Option<IpAddr>,
    /// Which port is checked in the stead of the server's.
    pub(super) port: Option<u16>,
    /// From one check to the next.
    pub(super) interval: Duration,
    /// How long a check may take.
    pub(super) timeout: Duration,
    /// How many checks in a row must fail for the server to be down.
    pub(super) fall: u32,
    /// What the server is until the first check, if anything is said of it.
    pub(super) start: Option<Start>,
}

/// What a server is until it was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// It gets connections, which is the default.
    Up,
    /// It gets none.
    Down,
}

impl Health {
    /// Whether only the server itself could have the port that is checked.
    fn needs_port(&self) -> bool {
        self.port.is_none() && !matches!(self.check, Check::Command { .. })
    }
}

/// What is done to check a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Check {
    /// A connection is opened.
    Tcp,
    /// A page is asked for.
    Http(HttpCheck),
    /// A name is asked for.
    Dns { name: String, kind: String },
    /// A datagram is sent.
    Udp { send_hex: Option<String>, expect_hex: Option<String> },
    /// A program is run.
    Command { run: Vec<String>, sets_weight: bool },
}

/// A page that is asked for, and what must come back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct HttpCheck {
    /// Whether over TLS.
    pub(super) is_tls: bool,
    /// The page.
    pub(super) path: Option<String>,
    /// The name of the site.
    pub(super) host: Option<String>,
    /// Status codes that are good.
    pub(super) expect: Vec<RangeInclusive<u16>>,
    /// A text that must be in the page.
    pub(super) body: Option<String>,
    /// The name for TLS.
    pub(super) server_name: Option<String>,
}

impl<T> Entry<T> {
    /// Something that is left out, with the reason.
    pub(super) fn left_out(note: Note) -> Self {
        Self { notes: vec![note], kept: None }
    }
}

impl Service {
    /// A service that still needs addresses and ports, with the default of both programs for its
    /// scheduler.
    pub(super) fn new(line: u32, protocol: Protocol) -> Self {
        Self {
            line,
            name: String::new(),
            vips: Vec::new(),
            ports: Vec::new(),
            protocol,
            scheduler: "wlc",
            scheduler_config: Vec::new(),
            persistence: None,
            one_packet: false,
            timeouts: Vec::new(),
            quorum: None,
            hysteresis: None,
            sorry_server: None,
            servers: Vec::new(),
        }
    }

    /// The servers that came over.
    pub(super) fn servers(&self) -> impl Iterator<Item = &Server> {
        self.servers.iter().filter_map(|entry| entry.kept.as_ref())
    }

    /// The same service with what is to be said about its servers said elsewhere.
    pub(super) fn clone_without_notes(&self) -> Self {
        let mut copy = self.clone();
        for server in &mut copy.servers {
            server.notes.clear();
        }
        copy.servers.retain(|server| server.kept.is_some());
        copy
    }

    /// The port, if there is but one.
    pub(super) fn single_port(&self) -> Option<u16> {
        match &self.ports[..] {
            [range] if range.start() == range.end() => Some(*range.start()),
            _ => None,
        }
    }

    /// A name made of what clients connect to, such as `tcp-203.0.113.10-80`.
    fn name_of_address(&self) -> String {
        let vip = self.vips.first().map(IpAddr::to_string).unwrap_or_default();
        let vip = vip.replace("::", "--").replace(':', "-");
        let port = match (self.single_port(), self.ports.first()) {
            (Some(0), _) => "all".to_owned(),
            (_, Some(range)) => range.start().to_string(),
            (_, None) => String::new(),
        };
        format!("{}-{}-{port}", self.protocol, vip.trim_matches('-'))
    }

    fn addresses(&self) -> impl Iterator<Item = (Protocol, IpAddr, u16)> {
        let ports = self.ports.iter().cloned().flatten();
        ports.flat_map(move |port| self.vips.iter().map(move |vip| (self.protocol, *vip, port)))
    }
}

impl Server {
    /// A server with nothing but an address.
    pub(super) fn new(line: u32, address: SocketAddr) -> Self {
        Self {
            line,
            address: address.ip(),
            port: address.port(),
            weight: 1,
            upper: None,
            lower: None,
            forwarding: None,
            health: None,
        }
    }
}

impl Rules {
    /// Why no further service fits in, if that is so.
    pub(super) fn fullness(&self) -> Option<&'static str> {
        if self.services >= SERVICES_MAX {
            Some("a configuration has at most 4096 services")
        } else if self.addresses >= ADDRESSES_MAX {
            Some("too many addresses and ports together")
        } else {
            None
        }
    }

    /// Adds what comes next in the input.
    pub(super) fn push(&mut self, entry: Entry<Service>) {
        if let Some(service) = &entry.kept {
            self.services += 1;
            self.addresses += service.addresses().count();
        }
        self.entries.push(entry);
    }

    /// What was read, in the order of the input.
    pub(super) fn entries(&self) -> &[Entry<Service>] {
        &self.entries
    }

    /// The same, to be changed.
    pub(super) fn entries_mut(&mut self) -> &mut [Entry<Service>] {
        &mut self.entries
    }

    /// Timeouts for all services, each for those of its state's protocol.
    pub(super) fn set_timeouts(&mut self, timeouts: &Timeouts) {
        for service in self.entries.iter_mut().filter_map(|entry| entry.kept.as_mut()) {
            let fitting = timeouts.iter().filter(|(_, state, _)| {
                (*state == State::Udp) == (service.protocol == Protocol::Udp)
            });
            service.timeouts = fitting.map(|(key, _, timeout)| (*key, *timeout)).collect();
        }
    }

    /// The services that came over.
    pub(super) fn services(&self) -> impl Iterator<Item = &Service> {
        self.entries.iter().filter_map(|entry| entry.kept.as_ref())
    }

    /// Everything that is to be said, in the order of the input.
    pub(super) fn notes(&self) -> Vec<Note> {
        let mut notes = Vec::new();
        for entry in &self.entries {
            notes.extend(entry.notes.iter().cloned());
            let servers = entry.kept.iter().flat_map(|service| &service.servers);
            notes.extend(servers.flat_map(|server| server.notes.iter().cloned()));
        }
        notes.sort_by_key(|note| note.line);
        notes
    }

    /// Leaves out what cannot be beside something else or be at all, and gives every service a name.
    pub(super) fn settle(&mut self) {
        self.settle_services();
        let vips: HashSet<IpAddr> =
            self.services().flat_map(|service| service.vips.iter().copied()).collect();
        for entry in &mut self.entries {
            if let Some(service) = &mut entry.kept {
                settle_servers(service, &vips);
                settle_sorry_server(service, &vips, &mut entry.notes);
                settle_quorum(service);
                entry.notes.extend(notes_of_forwarding(service));
            }
        }
        self.settle_one_packet();
        self.name_services();
        self.sort_notes();
    }

    /// Puts what is to be said about each thing into the order of the input.
    fn sort_notes(&mut self) {
        for Entry { notes, kept } in &mut self.entries {
            notes.sort_by_key(|note| note.line);
            for server in kept.iter_mut().flat_map(|service| &mut service.servers) {
                server.notes.sort_by_key(|note| note.line);
            }
        }
    }

    /// Lets datagrams open connections where it could not be told otherwise whose their answers are.
    fn settle_one_packet(&mut self) {
        let mut lines: HashMap<SocketAddr, u32> = HashMap::new();
        for Entry { notes, kept } in &mut self.entries {
            let Some(service) = kept.as_mut().filter(|service| service.one_packet) else {
                continue;
            };
            let single = service.single_port().filter(|port| *port != 0);
            let has_own_ports = service.servers().any(|server| server.port != 0);
            let shared = service.servers().find_map(|server| {
                let any = SocketAddr::new(server.address, 0);
                lines.get(&SocketAddr::new(server.address, server.port)).or(lines.get(&any))
            });
            let reason = if service.vips.len() > 1 || (has_own_ports && single.is_none()) {
                "not with several addresses or ports".to_owned()
            } else if let Some(other) = shared {
                format!("line {other} has a real server of these already")
            } else {
                for server in service.servers.iter().filter_map(|entry| entry.kept.as_ref()) {
                    lines.insert(SocketAddr::new(server.address, server.port), service.line);
                    lines.insert(SocketAddr::new(server.address, 0), service.line);
                }
                continue;
            };
            let what = format!("{reason}; left out, so that datagrams open connections");
            service.one_packet = false;
            notes.push(Note::new(service.line, "one packet scheduling", &what));
        }
    }

    fn settle_services(&mut self) {
        let mut lines: HashMap<(Protocol, IpAddr, u16), u32> = HashMap::new();
        for Entry { notes, kept: service } in &mut self.entries {
            let Some(Service { line, vips, .. }) = &*service else { continue };
            let line = *line;
            let unfit =
                vips.iter().find_map(|vip| why_not_a_host(*vip).map(|reason| (vip, reason)));
            let taken = service
                .iter()
                .flat_map(Service::addresses)
                .find_map(|address| lines.get(&address).map(|line| (address.1, address.2, *line)));
            let note = if let Some((vip, reason)) = unfit {
                Note::new(line, &vip.to_string(), &format!("{reason}; service left out"))
            } else if let Some((vip, port, other)) = taken {
                let address = SocketAddr::new(vip, port).to_string();
                Note::new(line, &address, &format!("line {other} has it; service left out"))
            } else {
                lines.extend(service.iter().flat_map(Service::addresses).map(|key| (key, line)));
                continue;
            };
            notes.push(note);
            *service = None;
        }
    }

    fn name_services(&mut self) {
        let mut taken: HashSet<String> = HashSet::new();
        for service in self.entries.iter_mut().filter_map(|entry| entry.kept.as_mut()) {
            let mut base = std::mem::take(&mut service.name);
            if !is_name(&base) {
                base = service.name_of_address();
            }
            let mut name = base.clone();
            let mut number = 2;
            while !is_name(&name) || taken.contains(&name) {
                // Room for the number is made where there is none.
                base.truncate(56);
                name = format!("{base}-{number}");
                number += 1;
            }
            taken.insert(name.clone());
            service.name = name;
        }
    }
}

/// Leaves out servers that cannot be servers of this service, and checks of a port that they do not
/// have.
fn settle_servers(service: &mut Service, vips: &HashSet<IpAddr>) {
    let family = service.vips.first().is_some_and(IpAddr::is_ipv4);
    let mut lines: HashMap<SocketAddr, u32> = HashMap::new();
    for Entry { notes, kept } in &mut service.servers {
        let Some(server) = kept else { continue };
        let address = SocketAddr::new(server.address, server.port);
        if address.port() == 0 && server.health.as_ref().is_some_and(Health::needs_port) {
            let what = "no port of its own that could be checked; check left out";
            notes.push(Note::new(server.line, &server.address.to_string(), what));
            server.health = None;
        }
        let note = |what: &str| Note::new(server.line, &address.to_string(), what);
        let note = if let Some(reason) = why_not_a_server(server.address, family, vips) {
            note(&format!("{reason}; real server left out"))
        } else if let Some(other) = lines.get(&address) {
            note(&format!("line {other} has it already; left out"))
        } else if lines.len() == SERVERS_MAX {
            note(&format!("a service has at most {SERVERS_MAX} real servers; left out"))
        } else {
            lines.insert(address, server.line);
            continue;
        };
        notes.push(note);
        *kept = None;
    }
}

fn settle_sorry_server(service: &mut Service, vips: &HashSet<IpAddr>, notes: &mut Vec<Note>) {
    let family = service.vips.first().is_some_and(IpAddr::is_ipv4);
    let Some(address) = service.sorry_server else { return };
    if let Some(reason) = why_not_a_server(address.ip(), family, vips) {
        let what = format!("{reason}; sorry server left out");
        notes.push(Note::new(service.line, &address.to_string(), &what));
        service.sorry_server = None;
    }
}

/// Makes a quorum one that can be reached, as keepalived does.
fn settle_quorum(service: &mut Service) {
    let weights = service.servers().map(|server| server.weight).fold(0, u32::saturating_add);
    let quorum = service.quorum.unwrap_or(1).clamp(1, weights.max(1));
    let hysteresis = service.hysteresis.unwrap_or(0).min(quorum - 1);
    service.quorum = Some(quorum).filter(|quorum| *quorum > 1);
    service.hysteresis = Some(hysteresis).filter(|hysteresis| *hysteresis > 0);
}

/// What keeps an address from being a real server's.
fn why_not_a_server(address: IpAddr, is_ipv4: bool, vips: &HashSet<IpAddr>) -> Option<String> {
    if let Some(reason) = why_not_a_host(address) {
        Some(reason.to_owned())
    } else if address.is_ipv4() != is_ipv4 {
        Some("is not of the VIP's family".to_owned())
    } else if vips.contains(&address) {
        Some("is a VIP too".to_owned())
    } else {
        None
    }
}

/// A note for each way of forwarding that is not NAT.
fn notes_of_forwarding(service: &Service) -> Vec<Note> {
    let mut ways: BTreeMap<&str, (u32, usize)> = BTreeMap::new();
    for (written, line) in service.servers().filter_map(|server| server.forwarding) {
        let (first, servers) = ways.entry(written).or_insert((line, 0));
        *first = line.min(*first);
        *servers += 1;
    }
    let note = |(written, (line, servers)): (&str, (u32, usize))| {
        let servers = count(servers, "real server", "real servers");
        Note::new(line, written, &format!("{servers} of the service; forwarded by NAT instead"))
    };
    ways.into_iter().map(note).collect()
}
