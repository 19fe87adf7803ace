//! Rules as a configuration: the file that a person would have written, with a comment wherever
//! something has no equivalent.

use std::ops::RangeInclusive;
use std::time::Duration;

use wvs_core::service::Protocol;

use super::rules::{Check, Entry, Health, HttpCheck, Persistence, Rules, Server, Service, Start};
use super::yaml::{Value, comment, element, entry};
use super::{Note, Source, printable};
use crate::config::units::format_duration;
use crate::output::count;

/// Successes that it takes for a server to be up: neither program counts them.
const RISE: u32 = 1;

pub(super) fn write(source: Source, name: &str, rules: &Rules) -> String {
    let mut text = String::new();
    write_head(&mut text, source, name, rules);
    text.push_str("services:\n");
    let mut is_first = true;
    // Comments on what is left out stay together, and apart from those on a service.
    let mut follows_service = false;
    for Entry { notes, kept } in rules.entries() {
        if !is_first && (follows_service || kept.is_some()) {
            text.push('\n');
        }
        (is_first, follows_service) = (false, kept.is_some());
        write_notes(&mut text, 2, notes);
        if let Some(service) = kept {
            write_service(&mut text, service);
        }
    }
    text
}

/// What this is, and what no rule can say.
fn write_head(text: &mut String, source: Source, name: &str, rules: &Rules) {
    let program = match source {
        Source::Ipvsadm => "ipvsadm",
        Source::Keepalived => "keepalived",
    };
    let services = rules.services().count();
    let servers: Vec<&Server> = rules.services().flat_map(Service::servers).collect();
    let made = format!(
        "Made by `wvs import {program}` from {}: {}, {}.",
        printable(name),
        count(services, "service", "services"),
        count(servers.len(), "real server", "real servers"),
    );
    comment(text, 0, &made);
    comment(text, 0, "");
    let mut points = Vec::new();
    let notes = rules.notes().len();
    if notes > 0 {
        points.push(format!(
            "{} with a line's number: what stood there has no equivalent, or not the one you might \
             expect.",
            count(notes, "comment", "comments")
        ));
    }
    points.push(
        "The VIPs are routed to the director, and no interface of its host has them: take them off \
         (`ip address del`)."
            .to_owned(),
    );
    if servers.iter().any(|server| server.forwarding.is_some()) {
        points.push(
            "Some real servers were reached by direct routing or a tunnel, and answered clients by \
             themselves. Here their answers come back through the director: make it their default \
             route, or add `forward: fullnat` to the service; and take the VIPs off their \
             interfaces."
                .to_owned(),
        );
    }
    if matches!(source, Source::Ipvsadm)
        && servers.iter().all(|server| server.upper.is_none() && server.lower.is_none())
    {
        points.push(
            "`ipvsadm -S` does not write thresholds (-x, -y), timeouts (--set) and the sync \
             daemon's settings: where there are any, see `ipvsadm -Ln --thresholds` and `--timeout`."
                .to_owned(),
        );
    }
    if rules.services().any(checks_over_tls) {
        points.push(
            "`verify: false`, as SSL_GET looks at no certificate: remove it where they are good."
                .to_owned(),
        );
    }
    if servers.iter().any(|server| runs_a_program(server)) {
        points.push("The programs that check servers must be on the director's host.".to_owned());
    }
    points.push("Then: `wvs check -c` this file.".to_owned());
    for point in points {
        comment(text, 0, &format!("- {point}"));
    }
    text.push('\n');
}

fn checks_over_tls(service: &Service) -> bool {
    service
        .servers()
        .filter_map(|server| server.health.as_ref())
        .any(|health| matches!(&health.check, Check::Http(HttpCheck { is_tls: true, .. })))
}

fn runs_a_program(server: &Server) -> bool {
    server.health.as_ref().is_some_and(|health| matches!(health.check, Check::Command { .. }))
}

fn write_notes(text: &mut String, indent: usize, notes: &[Note]) {
    for note in notes {
        comment(text, indent, &note.to_string());
    }
}

fn write_service(text: &mut String, service: &Service) {
    // Each key in its line, however short: this is what people read.
    text.push_str("  - ");
    let mut lines = String::new();
    let health = common_health(service);
    for (key, value) in service_entries(service, health) {
        entry(&mut lines, 4, key, &value);
    }
    text.push_str(lines.trim_start());
    if service.servers().next().is_none() {
        for server in &service.servers {
            write_notes(text, 4, &server.notes);
        }
        text.push_str("    servers: []\n");
        return;
    }
    text.push_str("    servers:\n");
    for Entry { notes, kept } in &service.servers {
        write_notes(text, 6, notes);
        if let Some(server) = kept {
            element(text, 6, server_entries(service, health, server));
        }
    }
}

/// The check that most servers of the service have, the first of equals.
fn common_health(service: &Service) -> Option<&Health> {
    let mut counts: Vec<(&Health, usize)> = Vec::new();
    for health in service.servers().filter_map(|server| server.health.as_ref()) {
        match counts.iter_mut().find(|(known, _)| *known == health) {
            Some((_, count)) => *count += 1,
            None => counts.push((health, 1)),
        }
    }
    counts.iter().rev().max_by_key(|(_, count)| *count).map(|(health, _)| *health)
}

fn service_entries(service: &Service, health: Option<&Health>) -> Vec<(&'static str, Value)> {
    let mut entries = vec![
        ("name", Value::text(&service.name)),
        ("vip", one_or_list(service.vips.iter().map(Value::plain).collect())),
        ("port", one_or_list(service.ports.iter().map(range).collect())),
    ];
    if service.protocol != Protocol::Tcp {
        entries.push(("protocol", Value::plain(service.protocol)));
    }
    entries.push(("scheduler", scheduler(service)));
    if let Some(persistence) = &service.persistence {
        entries.push(("persistence", persistence_value(persistence)));
    }
    if service.one_packet {
        entries.push(("one_packet", Value::plain(true)));
    }
    if !service.timeouts.is_empty() {
        let timeouts = service.timeouts.iter().map(|(key, timeout)| (*key, duration(*timeout)));
        entries.push(("timeouts", Value::Mapping(timeouts.collect())));
    }
    for (key, number) in [("quorum", service.quorum), ("hysteresis", service.hysteresis)] {
        entries.extend(number.map(|number| (key, Value::plain(number))));
    }
    if let Some(sorry) = service.sorry_server {
        let mut server = vec![("address", Value::plain(sorry.ip()))];
        if sorry.port() != 0 {
            server.push(("port", Value::plain(sorry.port())));
        }
        entries.push(("sorry_server", Value::Mapping(server)));
    }
    entries.extend(health.map(|health| ("health", health_value(health))));
    entries
}

fn scheduler(service: &Service) -> Value {
    let name = Value::plain(service.scheduler);
    if service.scheduler_config.is_empty() {
        return name;
    }
    let config = service.scheduler_config.iter().map(|key| (*key, Value::plain(true)));
    Value::Mapping(vec![("plugin", name), ("config", Value::Mapping(config.collect()))])
}

fn persistence_value(persistence: &Persistence) -> Value {
    let timeout = duration(persistence.timeout);
    match persistence.prefix {
        None => timeout,
        Some(prefix) => {
            Value::Mapping(vec![("timeout", timeout), ("prefix", Value::plain(prefix))])
        }
    }
}

fn server_entries(
    service: &Service,
    common: Option<&Health>,
    server: &Server,
) -> Vec<(&'static str, Value)> {
    let mut entries = vec![("address", Value::plain(server.address))];
    if server.port != 0 && Some(server.port) != service.single_port() {
        entries.push(("port", Value::plain(server.port)));
    }
    if server.weight != 1 {
        entries.push(("weight", Value::plain(server.weight)));
    }
    for (key, number) in [("upper_threshold", server.upper), ("lower_threshold", server.lower)] {
        entries.extend(number.map(|number| (key, Value::plain(number))));
    }
    match &server.health {
        health if health.as_ref() == common => {}
        None => entries.push(("health", Value::plain("none"))),
        Some(health) => {
            let health = common.map_or(health.clone(), |common| instead(common, health, server));
            entries.push(("health", health_value(&health)));
        }
    }
    entries
}

/// A server's own check, where it would otherwise take something from the service's.
fn instead(common: &Health, own: &Health, server: &Server) -> Health {
    Health {
        address: own.address.or(common.address.and(Some(server.address))),
        port: own.port.or(common.port.and(Some(server.port))).filter(|port| *port != 0),
        start: own.start.or(common.start.and(Some(Start::Up))),
        ..own.clone()
    }
}

fn health_value(health: &Health) -> Value {
    let mut entries = vec![check(&health.check)];
    entries.extend(health.address.map(|address| ("address", Value::plain(address))));
    entries.extend(health.port.map(|port| ("port", Value::plain(port))));
    entries.extend([
        ("interval", duration(health.interval)),
        ("timeout", duration(health.timeout)),
        ("rise", Value::plain(RISE)),
        ("fall", Value::plain(health.fall)),
    ]);
    if let Some(start) = health.start {
        let word = match start {
            Start::Up => "up",
            Start::Down => "down",
        };
        entries.push(("start", Value::plain(word)));
    }
    Value::Mapping(entries)
}

fn check(check: &Check) -> (&'static str, Value) {
    let text = |key, text: &Option<String>| text.as_ref().map(|text| (key, Value::text(text)));
    match check {
        Check::Tcp => ("tcp", Value::Mapping(Vec::new())),
        Check::Http(http) => {
            let mut entries = Vec::new();
            entries.extend(text("path", &http.path));
            entries.extend(text("host", &http.host));
            if !http.expect.is_empty() {
                entries.push(("expect", one_or_list(http.expect.iter().map(range).collect())));
            }
            entries.extend(text("body", &http.body));
            if http.is_tls {
                entries.push(("verify", Value::plain(false)));
                entries.extend(text("server_name", &http.server_name));
            }
            (if http.is_tls { "https" } else { "http" }, Value::Mapping(entries))
        }
        Check::Dns { name, kind } => {
            ("dns", Value::Mapping(vec![("name", Value::text(name)), ("type", Value::text(kind))]))
        }
        Check::Udp { send_hex, expect_hex } => {
            let entries = [text("send_hex", send_hex), text("expect_hex", expect_hex)];
            ("udp", Value::Mapping(entries.into_iter().flatten().collect()))
        }
        Check::Command { run, sets_weight } => {
            let mut entries =
                vec![("run", Value::List(run.iter().map(|word| Value::text(word)).collect()))];
            if *sets_weight {
                entries.push(("weight", Value::plain(true)));
            }
            ("command", Value::Mapping(entries))
        }
    }
}

fn one_or_list(mut values: Vec<Value>) -> Value {
    if values.len() == 1 { values.remove(0) } else { Value::List(values) }
}

fn range(range: &RangeInclusive<u16>) -> Value {
    if range.start() == range.end() {
        Value::plain(range.start())
    } else {
        Value::plain(format_args!("{}-{}", range.start(), range.end()))
    }
}

fn duration(duration: Duration) -> Value {
    Value::plain(format_duration(duration))
}
