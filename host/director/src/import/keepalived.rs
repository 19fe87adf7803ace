//! The virtual servers of a `keepalived.conf`. What else is in it, such as VRRP, is left to
//! keepalived.

mod checker;
mod group;
mod syntax;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use wvs_core::service::Protocol;

use super::Note;
use super::lvs::{self, Timeouts};
use super::rules::{Entry, Persistence, Rules, Server, Service};
use checker::Settings;
use group::{Group, Part};
use syntax::Statement;

/// Reads a whole text. What cannot be understood is left out with a note.
pub(super) fn read(text: &str) -> Rules {
    let (statements, notes) = syntax::parse(text);
    let mut reader = Reader::default();
    for note in notes {
        reader.rules.push(Entry::left_out(note));
    }
    for statement in &statements {
        if statement.keyword() == "virtual_server_group" && statement.dependence().is_none() {
            let (group, notes) = Group::read(statement);
            reader.leave_out_all(notes);
            reader.groups.insert(statement.value().to_owned(), group);
        }
    }
    for statement in &statements {
        reader.top(statement);
    }
    reader.rules.set_timeouts(&reader.timeouts);
    reader.rules
}

/// Notes that a statement depends on more than the text; `false` when it does not.
fn note_dependence(statement: &Statement, notes: &mut Vec<Note>) -> bool {
    let dependence = statement.dependence();
    notes.extend(dependence.map(|what| statement.note(what)));
    dependence.is_some()
}

/// Whether an optional truth value, for a keyword that stands alone as a rule, is true.
fn is_on(value: &str) -> bool {
    !matches!(value, "no" | "off" | "false")
}

#[derive(Default)]
struct Reader {
    rules: Rules,
    groups: HashMap<String, Group>,
    timeouts: Timeouts,
}

impl Reader {
    fn leave_out_all(&mut self, notes: Vec<Note>) {
        if !notes.is_empty() {
            self.rules.push(Entry { notes, kept: None });
        }
    }

    fn top(&mut self, statement: &Statement) {
        let mut notes = Vec::new();
        match statement.keyword() {
            _ if note_dependence(statement, &mut notes) => {}
            "virtual_server" => return self.virtual_server(statement),
            "virtual_server_group" => {}
            "global_defs" => self.global(statement, &mut notes),
            // Noted where it stands: a block without a beginning.
            "" => {}
            keyword if keyword.starts_with("vrrp") => {
                notes.push(
                    statement.note("WVS moves no addresses between hosts; left to keepalived"),
                );
            }
            _ => notes.push(statement.note("not about virtual servers; left to keepalived")),
        }
        self.leave_out_all(notes);
    }

    fn global(&mut self, block: &Statement, notes: &mut Vec<Note>) {
        let mut others = Vec::new();
        for statement in block.statements() {
            match statement.keyword() {
                _ if note_dependence(statement, notes) => {}
                "lvs_timeouts" => self.timeouts = lvs_timeouts(statement, notes),
                "lvs_sync_daemon" => {
                    let what = "WVS shares no connections with other directors; left out";
                    notes.push(statement.note(what));
                }
                keyword if keyword.starts_with("lvs_") || keyword == "net_namespace_ipvs" => {
                    notes.push(statement.note("no equivalent; left out"));
                }
                // Mail, SNMP, VRRP and keepalived's own processes.
                keyword if others.contains(&keyword) => {}
                keyword => others.push(keyword),
            }
        }
        if !others.is_empty() {
            let others = others.join(", ");
            notes.push(Note::new(block.line, &others, "of `global_defs`, left to keepalived"));
        }
    }

    fn virtual_server(&mut self, block: &Statement) {
        let mut notes = Vec::new();
        let parts = match self.parts(block) {
            Ok(parts) => parts,
            Err(what) => {
                let what = format!("{what}; left out");
                return self.leave_out_all(vec![block.note(&what)]);
            }
        };
        let Some(protocol) = protocol(block, &mut notes) else {
            return self.leave_out_all(vec![block.note("WVS carries no SCTP; left out")]);
        };
        let Some((first, others)) = parts.split_first() else {
            return self.leave_out_all(vec![block.note("no address in the group; left out")]);
        };
        let mut service = Service::new(block.line, protocol);
        first.put_into(&mut service);
        if let Some(name) = group_name(block) {
            name.clone_into(&mut service.name);
        }
        VirtualServer { service: &mut service, notes: &mut notes }.read(block);
        let copies: Vec<Service> = others
            .iter()
            .map(|part| {
                let mut copy = service.clone_without_notes();
                part.put_into(&mut copy);
                copy
            })
            .collect();
        self.rules.push(Entry { notes, kept: Some(service) });
        for copy in copies {
            if let Some(what) = self.rules.fullness() {
                return self.leave_out_all(vec![block.note(what)]);
            }
            self.rules.push(Entry { notes: Vec::new(), kept: Some(copy) });
        }
    }

    /// What clients connect to, in parts that are one service each.
    fn parts(&self, block: &Statement) -> Result<Vec<Part>, &'static str> {
        if let Some(what) = self.rules.fullness() {
            return Err(what);
        }
        match block.values().collect::<Vec<_>>()[..] {
            ["group", name] => {
                self.groups.get(name).map(Group::parts).ok_or("there is no such group")
            }
            ["fwmark", ..] => Err("WVS knows no firewall marks, only addresses and ports"),
            [address] => Ok(vec![Part::of(parse_address(address, "0")?)]),
            [address, port] => Ok(vec![Part::of(parse_address(address, port)?)]),
            _ => Err("not an address and a port, nor the name of a group"),
        }
    }
}

fn group_name(block: &Statement) -> Option<&str> {
    (block.value() == "group").then(|| block.values().nth(1))?
}

fn parse_address(address: &str, port: &str) -> Result<SocketAddr, &'static str> {
    let address: IpAddr = address.parse().map_err(|_| "not an address")?;
    let port: u16 = port.parse().map_err(|_| "not the number of a port")?;
    Ok(SocketAddr::new(address, port))
}

/// TCP or UDP; `None` for SCTP.
fn protocol(block: &Statement, notes: &mut Vec<Note>) -> Option<Protocol> {
    let given = block.statements().iter().rfind(|statement| statement.keyword() == "protocol");
    let Some(statement) = given else {
        notes.push(block.note("no `protocol` is UDP, as keepalived has it"));
        return Some(Protocol::Udp);
    };
    match statement.value().to_ascii_uppercase().as_str() {
        "TCP" => Some(Protocol::Tcp),
        "UDP" => Some(Protocol::Udp),
        "SCTP" => None,
        _ => {
            notes.push(statement.note("no protocol; taken for TCP"));
            Some(Protocol::Tcp)
        }
    }
}

/// `lvs_timeouts tcp 900 tcpfin 120 udp 300`, each perhaps missing.
fn lvs_timeouts(statement: &Statement, notes: &mut Vec<Note>) -> Timeouts {
    let words: Vec<&str> = statement.values().collect();
    let mut seconds = [("tcp", 0), ("tcpfin", 0), ("udp", 0)];
    for pair in words.chunks(2) {
        let known = seconds.iter_mut().find(|(name, _)| pair.first() == Some(name));
        match (known, pair.get(1).and_then(|value| value.parse().ok())) {
            (Some((_, slot)), Some(value)) => *slot = value,
            _ => notes
                .push(statement.note(&format!("`{}` not understood; left out", pair.join(" ")))),
        }
    }
    let [(_, tcp), (_, tcp_fin), (_, udp)] = seconds;
    lvs::timeouts(tcp, tcp_fin, udp)
}

/// A service that is being read from its block.
struct VirtualServer<'r> {
    service: &'r mut Service,
    notes: &'r mut Vec<Note>,
}

/// What holds for a real server unless it says otherwise.
#[derive(Clone)]
struct Defaults {
    weight: u32,
    forwarding: Option<(&'static str, u32)>,
    settings: Settings,
}

impl VirtualServer<'_> {
    fn read(&mut self, block: &Statement) {
        let mut defaults = Defaults { weight: 1, forwarding: None, settings: Settings::default() };
        // What others depend on, wherever it stands.
        for statement in block.statements() {
            if let "lvs_sched" | "lb_algo" = statement.keyword()
                && let Err(what) = lvs::set_scheduler(self.service, statement.value())
            {
                self.notes.push(statement.note(what));
            }
        }
        let mut servers = Vec::new();
        for statement in block.statements() {
            if statement.keyword() == "real_server" {
                servers.push(statement);
            } else {
                self.statement(statement, &mut defaults);
            }
        }
        self.settle();
        for statement in servers {
            let entry = self.real_server(statement, &defaults);
            self.service.servers.push(entry);
        }
    }

    fn statement(&mut self, statement: &Statement, defaults: &mut Defaults) {
        let value = statement.value();
        match statement.keyword() {
            _ if note_dependence(statement, self.notes) => {}
            "lvs_sched" | "lb_algo" | "protocol" | "ip_family" | "hashed" | "" => {}
            "flag-1" | "flag-2" | "flag-3" | "sh-port" | "sh-fallback" | "mh-port"
            | "mh-fallback" => {
                if let Err(what) = lvs::add_scheduler_flag(self.service, statement.keyword()) {
                    self.notes.push(statement.note(what));
                }
            }
            "ops" if self.service.protocol == Protocol::Udp => self.service.one_packet = true,
            "ops" => {
                self.notes.push(statement.note("only UDP has packets that stand alone; left out"));
            }
            "lvs_method" | "lb_kind" => defaults.forwarding = forwarding(statement, self.notes),
            "persistence_timeout" => match lvs::persistence(value) {
                Some(timeout) => self.persistence().timeout = timeout,
                None => {
                    self.notes.push(statement.note("no number of seconds up to 31 days; left out"));
                }
            },
            "persistence_granularity" => {
                let vip = self.service.vips.first().copied();
                match vip.and_then(|vip| lvs::mask(value, vip)) {
                    Some(prefix) => self.persistence().prefix = prefix,
                    None => self.notes.push(statement.note("no mask of a network; left out")),
                }
            }
            "persistence_engine" => {
                self.notes.push(statement.note("WVS has no persistence engines; left out"));
            }
            "quorum" => self.service.quorum = number(statement, self.notes),
            "hysteresis" => self.service.hysteresis = number(statement, self.notes),
            "sorry_server" => self.sorry_server(statement),
            "weight" => defaults.weight = weight(statement, self.notes),
            "snmp_name" => value.clone_into(&mut self.service.name),
            "quorum_up" | "quorum_down" | "notify_up" | "notify_down" => {
                self.notes.push(statement.note("WVS runs no scripts; left out"));
            }
            "smtp_alert" => self.notes.push(statement.note("WVS sends no mail; left out")),
            // What a server that is down keeps its connections by; WVS's own way.
            "inhibit_on_failure" => {}
            _ if defaults.settings.take(statement, self.notes) => {}
            _ => self.notes.push(statement.note("no equivalent; left out")),
        }
    }

    fn persistence(&mut self) -> &mut Persistence {
        let default = Persistence { timeout: Duration::ZERO, prefix: None };
        self.service.persistence.get_or_insert(default)
    }

    /// What keepalived changes of what was said.
    fn settle(&mut self) {
        let service = &mut *self.service;
        let has_all_ports = service.ports.iter().any(|range| range.contains(&0));
        match &mut service.persistence {
            // Only a granularity, of nothing.
            Some(Persistence { timeout, .. }) if timeout.is_zero() && !has_all_ports => {
                service.persistence = None;
            }
            Some(Persistence { timeout, .. }) if timeout.is_zero() => *timeout = lvs::PERSISTENCE,
            Some(_) => {}
            None if has_all_ports => {
                service.persistence = Some(Persistence { timeout: lvs::PERSISTENCE, prefix: None });
            }
            None => {}
        }
    }

    fn sorry_server(&mut self, statement: &Statement) {
        let port = statement.values().nth(1).unwrap_or("0");
        match parse_address(statement.value(), port) {
            Ok(address) => self.service.sorry_server = Some(address),
            Err(what) => self.notes.push(statement.note(&format!("{what}; left out"))),
        }
    }

    fn real_server(&mut self, block: &Statement, defaults: &Defaults) -> Entry<Server> {
        let mut notes = Vec::new();
        if note_dependence(block, &mut notes) {
            return Entry { notes, kept: None };
        }
        let port = block.values().nth(1).unwrap_or("0");
        let mut server = match parse_address(block.value(), port) {
            Ok(address) => Server::new(block.line, address),
            Err(what) => return Entry::left_out(block.note(&format!("{what}; left out"))),
        };
        let Defaults { weight: default_weight, forwarding: way, mut settings } = defaults.clone();
        server.weight = default_weight;
        server.forwarding = way;
        let (mut upper, mut lower) = (0, 0);
        let mut checkers = Vec::new();
        for statement in block.statements() {
            match statement.keyword() {
                _ if note_dependence(statement, &mut notes) => {}
                "weight" => server.weight = weight(statement, &mut notes),
                "lvs_method" | "lb_kind" => server.forwarding = forwarding(statement, &mut notes),
                "uthreshold" => upper = number(statement, &mut notes).unwrap_or_default(),
                "lthreshold" => lower = number(statement, &mut notes).unwrap_or_default(),
                "notify_up" | "notify_down" => {
                    notes.push(statement.note("WVS runs no scripts; left out"));
                }
                "smtp_alert" => notes.push(statement.note("WVS sends no mail; left out")),
                "inhibit_on_failure" | "snmp_name" | "" => {}
                _ if checker::is_checker(statement) => checkers.push(statement),
                _ if settings.take(statement, &mut notes) => {}
                _ => notes.push(statement.note("no equivalent; left out")),
            }
        }
        if let Err(what) = lvs::set_thresholds(&mut server, upper, lower) {
            notes.push(Note::new(block.line, "uthreshold, lthreshold", what));
        }
        for checker in checkers {
            if server.health.is_none() {
                server.health = checker::read(checker, &settings, &mut notes);
            } else {
                notes
                    .push(checker.note("a server has one check, and this is its second; left out"));
            }
        }
        Entry { notes, kept: Some(server) }
    }
}

/// How packets get to servers; `None` for NAT.
fn forwarding(statement: &Statement, notes: &mut Vec<Note>) -> Option<(&'static str, u32)> {
    match statement.value() {
        "NAT" => None,
        "DR" => Some(("DR, direct routing", statement.line)),
        "TUN" => Some(("TUN, a tunnel", statement.line)),
        _ => {
            notes.push(statement.note("no way of forwarding; it is NAT now"));
            None
        }
    }
}

fn weight(statement: &Statement, notes: &mut Vec<Note>) -> u32 {
    match lvs::weight(statement.value()) {
        Ok((weight, None)) => weight,
        Ok((weight, Some(what))) => {
            notes.push(statement.note(what));
            weight
        }
        Err(what) => {
            notes.push(statement.note(what));
            1
        }
    }
}

fn number(statement: &Statement, notes: &mut Vec<Note>) -> Option<u32> {
    let number = statement.value().parse().ok();
    if number.is_none() {
        notes.push(statement.note("no number; left out"));
    }
    number
}
