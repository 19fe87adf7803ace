//! Rules as `ipvsadm -S -n` writes them, or as scripts have them: lines of `-A` and `-a`.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use wvs_core::service::Protocol;

use super::lvs::{self, Timeouts};
use super::rules::{Entry, Persistence, Rules, Server, Service};
use super::{Note, line_number};
use crate::output::count;

/// Options that follow a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    Tcp,
    Udp,
    Sctp,
    Mark,
    Ipv6,
    Scheduler,
    SchedulerFlags,
    Persistent,
    Netmask,
    Engine,
    OnePacket,
    Server,
    Gatewaying,
    Ipip,
    Masquerading,
    Weight,
    Upper,
    Lower,
    Tunnel,
    TunnelValue,
}

/// Whether an option has a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Takes {
    Nothing,
    Value,
    /// The next word, if it is no option.
    Perhaps,
}

const OPTIONS: [(&str, &str, Name, Takes); 23] = [
    ("-t", "--tcp-service", Name::Tcp, Takes::Value),
    ("-u", "--udp-service", Name::Udp, Takes::Value),
    ("", "--sctp-service", Name::Sctp, Takes::Value),
    ("-f", "--fwmark-service", Name::Mark, Takes::Value),
    ("-6", "--ipv6", Name::Ipv6, Takes::Nothing),
    ("-s", "--scheduler", Name::Scheduler, Takes::Value),
    ("-b", "--sched-flags", Name::SchedulerFlags, Takes::Value),
    ("-p", "--persistent", Name::Persistent, Takes::Perhaps),
    ("-M", "--netmask", Name::Netmask, Takes::Value),
    ("", "--pe", Name::Engine, Takes::Value),
    ("-o", "--ops", Name::OnePacket, Takes::Nothing),
    ("-r", "--real-server", Name::Server, Takes::Value),
    ("-g", "--gatewaying", Name::Gatewaying, Takes::Nothing),
    ("-i", "--ipip", Name::Ipip, Takes::Nothing),
    ("-m", "--masquerading", Name::Masquerading, Takes::Nothing),
    ("-w", "--weight", Name::Weight, Takes::Value),
    ("-x", "--u-threshold", Name::Upper, Takes::Value),
    ("-y", "--l-threshold", Name::Lower, Takes::Value),
    ("", "--tun-type", Name::TunnelValue, Takes::Value),
    ("", "--tun-port", Name::TunnelValue, Takes::Value),
    ("", "--tun-csum", Name::Tunnel, Takes::Nothing),
    ("", "--tun-nocsum", Name::Tunnel, Takes::Nothing),
    ("", "--tun-remcsum", Name::Tunnel, Takes::Nothing),
];

/// The options of a line, each with its value.
struct Options<'t> {
    line: u32,
    given: Vec<(Name, &'t str, &'t str)>,
    notes: Vec<Note>,
}

/// What a line's service is: the option and its value.
#[derive(Clone, Copy)]
struct Target<'t> {
    name: Name,
    written: &'t str,
}

/// Reads all lines. What cannot be understood is left out with a note.
pub(super) fn read(text: &str) -> Rules {
    let mut reader = Reader::default();
    for (index, line) in text.lines().enumerate() {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let words = match &words[..] {
            [program, rest @ ..] if program.rsplit('/').next() == Some("ipvsadm") => rest,
            words => words,
        };
        match words {
            [] => {}
            [word, ..] if word.starts_with('#') => {}
            [command, rest @ ..] => reader.line(line_number(index), command, rest),
        }
    }
    reader.finish()
}

#[derive(Default)]
struct Reader {
    rules: Rules,
    /// The entry of each service by its address as written, and how many servers are left out with it.
    services: HashMap<String, (usize, usize)>,
    timeouts: Timeouts,
}

impl Reader {
    fn line(&mut self, line: u32, command: &str, words: &[&str]) {
        match command {
            "-A" | "--add-service" => self.add_service(Options::read(line, words)),
            "-a" | "--add-server" => self.add_server(Options::read(line, words)),
            "--set" => self.set_timeouts(line, words),
            "-C" | "--clear" => {}
            "--start-daemon" => {
                let what = "WVS shares no connections with other directors; left out";
                self.leave_out(Note::new(line, command, what));
            }
            _ => {
                let what = "neither -A nor -a, which add services and servers; line left out";
                self.leave_out(Note::new(line, command, what));
            }
        }
    }

    fn leave_out(&mut self, note: Note) {
        self.rules.push(Entry::left_out(note));
    }

    fn add_service(&mut self, mut options: Options<'_>) {
        let line = options.line;
        let target = match options.target() {
            Ok(target) => target,
            Err(note) => return self.leave_out(note),
        };
        let key = target.key();
        if self.services.contains_key(&key) {
            return self.leave_out(Note::new(line, &key, "added above already; line left out"));
        }
        self.services.insert(key.clone(), (self.rules.entries().len(), 0));
        let address = self.rules.fullness().map_or_else(|| target.address(), Err);
        self.rules.push(match address {
            Ok((protocol, address)) => {
                let service = options.service(protocol, address);
                Entry { notes: options.notes, kept: Some(service) }
            }
            Err(what) => {
                Entry::left_out(Note::new(line, &key, &format!("{what}; service left out")))
            }
        });
    }

    fn add_server(&mut self, mut options: Options<'_>) {
        let line = options.line;
        let key = match options.target() {
            Ok(target) => target.key(),
            Err(note) => return self.leave_out(note),
        };
        let Some((index, left_out)) = self.services.get_mut(&key) else {
            let what = "no line above adds this service; real server left out";
            return self.leave_out(Note::new(line, &key, what));
        };
        let Some(service) =
            self.rules.entries_mut().get_mut(*index).and_then(|entry| entry.kept.as_mut())
        else {
            *left_out += 1;
            return;
        };
        let entry = match options.server(service) {
            Ok(server) => Entry { notes: options.notes, kept: Some(server) },
            Err(note) => Entry::left_out(note),
        };
        service.servers.push(entry);
    }

    /// `--set tcp tcpfin udp`, each in seconds; 0 keeps what there is.
    fn set_timeouts(&mut self, line: u32, words: &[&str]) {
        let seconds: Option<Vec<u64>> = words.iter().map(|word| word.parse().ok()).collect();
        match seconds.as_deref() {
            Some(&[tcp, tcp_fin, udp]) => self.timeouts = lvs::timeouts(tcp, tcp_fin, udp),
            _ => {
                let what = "not followed by three numbers of seconds; left out";
                self.leave_out(Note::new(line, "--set", what));
            }
        }
    }

    fn finish(mut self) -> Rules {
        for (index, left_out) in self.services.into_values().filter(|(_, left_out)| *left_out > 0) {
            let servers = count(left_out, "real server", "real servers");
            if let Some(note) =
                self.rules.entries_mut().get_mut(index).and_then(|entry| entry.notes.last_mut())
            {
                note.what.push_str(&format!(", with {servers}"));
            }
        }
        self.rules.set_timeouts(&self.timeouts);
        self.rules
    }
}

impl Target<'_> {
    /// Its name among the lines, the same however the address is written.
    fn key(self) -> String {
        let written = self.written;
        let protocol = match self.name {
            Name::Tcp => "tcp",
            Name::Udp => "udp",
            Name::Sctp => "sctp",
            _ => return format!("firewall mark {written}"),
        };
        match parse_address(written, 0) {
            Ok(address) => format!("{protocol} {address}"),
            Err(_) => format!("{protocol} {written}"),
        }
    }

    /// What clients connect to, or why there is nothing such.
    fn address(self) -> Result<(Protocol, SocketAddr), &'static str> {
        let protocol = match self.name {
            Name::Tcp => Protocol::Tcp,
            Name::Udp => Protocol::Udp,
            Name::Sctp => return Err("WVS carries no SCTP"),
            _ => return Err("WVS knows no firewall marks, only addresses and ports"),
        };
        Ok((protocol, parse_address(self.written, 0)?))
    }
}

impl<'t> Options<'t> {
    fn read(line: u32, words: &[&'t str]) -> Self {
        let mut options = Self { line, given: Vec::new(), notes: Vec::new() };
        let mut words = words.iter().copied().peekable();
        while let Some(word) = words.next() {
            let (written, joined) = match word.split_once('=') {
                Some((name, value)) if name.starts_with("--") => (name, Some(value)),
                _ => (word, None),
            };
            let known = OPTIONS.iter().find(|(short, long, ..)| {
                written == *long || (!short.is_empty() && written == *short)
            });
            let Some((_, _, name, takes)) = known else {
                options.note(word, "not known here; left out");
                // Its value, if it has one.
                while words.next_if(|word| !word.starts_with('-')).is_some() {}
                continue;
            };
            let value = match takes {
                _ if joined.is_some() => joined,
                Takes::Nothing => None,
                Takes::Value => words.next(),
                Takes::Perhaps => words.next_if(|word| !word.starts_with('-')),
            };
            options.given.push((*name, written, value.unwrap_or_default()));
        }
        options
    }

    fn note(&mut self, written: &str, what: &str) {
        self.notes.push(Note::new(self.line, written, what));
    }

    /// The value of an option, the last one if it was given several times.
    fn value(&self, name: Name) -> Option<&'t str> {
        self.given.iter().rev().find(|(given, ..)| *given == name).map(|(.., value)| *value)
    }

    /// The first of these options that was given, as it was written.
    fn first(&self, names: &[Name]) -> Option<&'t str> {
        self.given.iter().find(|(given, ..)| names.contains(given)).map(|(_, written, _)| *written)
    }

    /// The service that the line is about.
    fn target(&self) -> Result<Target<'t>, Note> {
        let services = [Name::Tcp, Name::Udp, Name::Sctp, Name::Mark];
        let mut given = self.given.iter().filter(|(name, ..)| services.contains(name));
        let (Some((name, _, value)), None) = (given.next(), given.next()) else {
            let what = "the line needs one service; left out";
            return Err(Note::new(self.line, "-t, -u", what));
        };
        Ok(Target { name: *name, written: value })
    }

    fn service(&mut self, protocol: Protocol, address: SocketAddr) -> Service {
        let mut service = Service::new(self.line, protocol);
        service.vips.push(address.ip());
        service.ports.push(address.port()..=address.port());
        if let Some(name) = self.value(Name::Scheduler)
            && let Err(what) = lvs::set_scheduler(&mut service, name)
        {
            self.note(&format!("-s {name}"), what);
        }
        for flag in self.value(Name::SchedulerFlags).into_iter().flat_map(|flags| flags.split(','))
        {
            if let Err(what) = lvs::add_scheduler_flag(&mut service, flag) {
                self.note(&format!("-b {flag}"), what);
            }
        }
        if let Some(value) = self.value(Name::Persistent) {
            service.persistence = self.persistence(value, address.ip());
        } else if let Some(mask) = self.value(Name::Netmask) {
            self.note(&format!("-M {mask}"), "without -p it says nothing; left out");
        }
        if let Some(engine) = self.value(Name::Engine) {
            self.note(&format!("--pe {engine}"), "WVS has no persistence engines; left out");
        }
        if let Some(written) = self.first(&[Name::OnePacket]) {
            if protocol == Protocol::Udp {
                service.one_packet = true;
            } else {
                self.note(written, "only UDP has packets that stand alone; left out");
            }
        }
        self.note_misplaced(&[
            Name::Server,
            Name::Gatewaying,
            Name::Ipip,
            Name::Masquerading,
            Name::Weight,
            Name::Upper,
            Name::Lower,
        ]);
        service
    }

    fn persistence(&mut self, value: &str, vip: IpAddr) -> Option<Persistence> {
        let Some(timeout) = lvs::persistence(value) else {
            self.note(&format!("-p {value}"), "no number of seconds up to 31 days; left out");
            return None;
        };
        let mut prefix = None;
        if let Some(mask) = self.value(Name::Netmask) {
            match lvs::mask(mask, vip) {
                Some(length) => prefix = length,
                None => self.note(&format!("-M {mask}"), "no mask of a network; left out"),
            }
        }
        Some(Persistence { timeout, prefix })
    }

    fn server(&mut self, service: &Service) -> Result<Server, Note> {
        let written = self.value(Name::Server).unwrap_or_default();
        let port = service.single_port().unwrap_or_default();
        let address = parse_address(written, port).map_err(|what| {
            Note::new(self.line, &format!("-r {written}"), &format!("{what}; real server left out"))
        })?;
        let mut server = Server::new(self.line, address);
        if self.first(&[Name::Masquerading]).is_none() {
            let way = if self.first(&[Name::Ipip]).is_some() {
                "-i, a tunnel"
            } else {
                "-g, direct routing"
            };
            server.forwarding = Some((way, self.line));
            // Neither way translates ports.
            server.port = port;
        }
        if let Some(weight) = self.value(Name::Weight) {
            match lvs::weight(weight) {
                Ok((weight, None)) => server.weight = weight,
                Ok((most, Some(what))) => {
                    server.weight = most;
                    self.note(&format!("-w {weight}"), what);
                }
                Err(what) => self.note(&format!("-w {weight}"), what),
            }
        }
        let (upper, lower) = (self.number(Name::Upper, "-x"), self.number(Name::Lower, "-y"));
        if let Err(what) = lvs::set_thresholds(&mut server, upper, lower) {
            self.note("-x, -y", what);
        }
        self.note_misplaced(&[
            Name::Scheduler,
            Name::SchedulerFlags,
            Name::Persistent,
            Name::Netmask,
            Name::Engine,
            Name::OnePacket,
        ]);
        Ok(server)
    }

    fn number(&mut self, name: Name, written: &str) -> u32 {
        let Some(value) = self.value(name) else { return 0 };
        value.parse().unwrap_or_else(|_| {
            self.note(&format!("{written} {value}"), "no number; left out");
            0
        })
    }

    /// Says of options that belong to the other kind of line that they are left out.
    fn note_misplaced(&mut self, names: &[Name]) {
        if let Some(written) = self.first(names) {
            self.note(written, "does not belong into this line; left out");
        }
    }
}

/// `192.0.2.1:80`, `192.0.2.1`, `[2001:db8::1]:80` or `2001:db8::1`.
fn parse_address(written: &str, port: u16) -> Result<SocketAddr, &'static str> {
    let without_port = written.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    if let Ok(address) = written.parse() {
        Ok(address)
    } else if let Ok(address) = without_port.unwrap_or(written).parse() {
        Ok(SocketAddr::new(address, port))
    } else {
        Err("not an address with a port; save the rules as numbers, with `ipvsadm -S -n`")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_numbers_with_or_without_a_port() {
        for (written, address) in [
            ("192.0.2.1:80", "192.0.2.1:80"),
            ("192.0.2.1", "192.0.2.1:7"),
            ("[2001:db8::1]:80", "[2001:db8::1]:80"),
            ("[2001:db8::1]", "[2001:db8::1]:7"),
            ("2001:db8::1", "[2001:db8::1]:7"),
        ] {
            assert_eq!(parse_address(written, 7).unwrap().to_string(), address, "{written}");
        }
        for written in ["", "www.example.com:http", "192.0.2.1:http", "192.0.2.1:65536", "["] {
            assert!(parse_address(written, 7).is_err(), "{written}");
        }
    }
}
