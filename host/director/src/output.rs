//! Tables for people, laid out as `ipvsadm` lays out its own, so that eyes and scripts that know
//! those find their way.

pub mod connections;
pub mod explanation;
pub mod plugins;
pub mod reload;

use std::fmt::{Display, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::config::units::format_duration;
use crate::control::snapshot::{
    DeviceSnapshot, HealthSnapshot, PacketsSnapshot, PersistenceSnapshot, SchedulerSnapshot,
    ServerSnapshot, ServiceSnapshot, ServicesSnapshot, TrafficSnapshot,
};

/// Which columns a listing has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Columns {
    /// Weight, active and inactive connections, as `ipvsadm -Ln`.
    Connections,
    /// Connections, packets and octets since the start, as `ipvsadm -Ln --stats`.
    Traffic {
        /// Every digit of large numbers, as `--exact`.
        is_exact: bool,
    },
    /// The same a second, as `ipvsadm -Ln --rate`. What is listed is what [`rates`] gives.
    Rates,
}

/// The listing of services and their real servers. `has_title` puts the line with the version on
/// top, which a listing of a single service does not have.
#[must_use]
pub fn list(snapshot: &ServicesSnapshot, columns: Columns, has_title: bool) -> String {
    let mut text = String::new();
    if has_title {
        let ServicesSnapshot { version, connections_max, .. } = snapshot;
        text = format!("WebAssembly Virtual Server version {version} (size={connections_max})\n");
    }
    text.push_str(&list_services(&snapshot.services, columns));
    text
}

/// The same without a title.
#[must_use]
pub fn list_services(services: &[ServiceSnapshot], columns: Columns) -> String {
    let mut text = String::from(match columns {
        Columns::Connections => {
            "Prot LocalAddress:Port Scheduler Flags\n  \
             -> RemoteAddress:Port           Forward Weight ActiveConn InActConn\n"
        }
        Columns::Traffic { .. } => {
            "Prot LocalAddress:Port               Conns   InPkts  OutPkts  InBytes OutBytes\n  \
             -> RemoteAddress:Port\n"
        }
        Columns::Rates => {
            "Prot LocalAddress:Port                 CPS    InPPS   OutPPS    InBPS   OutBPS\n  \
             -> RemoteAddress:Port\n"
        }
    });
    for service in services {
        list_service(&mut text, service, columns);
    }
    text
}

fn list_service(text: &mut String, service: &ServiceSnapshot, columns: Columns) {
    let protocol = service.protocol.to_ascii_uppercase();
    let head = format!("{protocol:<4} {}", address(service.vip, service.port));
    // Writing to a String cannot fail.
    let _ = match columns {
        Columns::Connections => {
            writeln!(text, "{head} {}{}", service.scheduler.name, flags(service))
        }
        Columns::Traffic { is_exact } => {
            writeln!(text, "{head:<33}{}", numbers(&service.traffic, is_exact))
        }
        Columns::Rates => writeln!(text, "{head:<33}{}", numbers(&service.traffic, false)),
    };
    list_troubles(text, service);
    list_stage(text, service);
    // ipvsadm's word, and one beside it for what LVS does not have.
    let forward = if service.pool.is_some() { "Full" } else { "Masq" };
    let mut list = |server: &ServerSnapshot, note: &str| {
        let address = address(server.address.ip(), server.address.port());
        let _ = match columns {
            Columns::Connections => writeln!(
                text,
                "  -> {address:<28} {:<7} {:<6} {:<10} {:<10}{note}",
                forward, server.weight, server.active, server.inactive
            ),
            Columns::Traffic { is_exact } => {
                writeln!(text, "  -> {address:<28}{}", numbers(&server.traffic, is_exact))
            }
            Columns::Rates => {
                writeln!(text, "  -> {address:<28}{}", numbers(&server.traffic, false))
            }
        };
    };
    for server in &service.servers {
        list(server, &standing(server));
    }
    if let Some(sorry) = &service.sorry_server {
        list(sorry, " sorry server");
    }
    for server in &service.leaving {
        list(server, &format!(" no longer in the file{}", time_left(server)));
    }
}

/// The services of `after`, with what they and their servers carried a second since `before`, which
/// was so much earlier. Of those that were not there before it is nothing.
#[must_use]
pub fn rates(
    before: &[ServiceSnapshot],
    after: &[ServiceSnapshot],
    elapsed: Duration,
) -> Vec<ServiceSnapshot> {
    let per_second = |before: &TrafficSnapshot, after: &TrafficSnapshot| {
        let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).max(1);
        // Rounded to the nearest.
        let rate = |of: fn(&TrafficSnapshot) -> u64| {
            let gone_by = of(after).saturating_sub(of(before)).saturating_mul(1_000);
            (gone_by.saturating_add(millis / 2)) / millis
        };
        TrafficSnapshot {
            connections: rate(|traffic| traffic.connections),
            in_packets: rate(|traffic| traffic.in_packets),
            out_packets: rate(|traffic| traffic.out_packets),
            in_octets: rate(|traffic| traffic.in_octets),
            out_octets: rate(|traffic| traffic.out_octets),
        }
    };
    let rate_of = |service: &ServiceSnapshot| {
        let mut rates = service.clone();
        let earlier = before.iter().find(|other| other.name == service.name);
        let of_service = earlier.map_or(service.traffic, |earlier| earlier.traffic);
        rates.traffic = per_second(&of_service, &service.traffic);
        let all = |service: &ServiceSnapshot| -> Vec<ServerSnapshot> {
            let servers = service.servers.iter().chain(&service.sorry_server);
            servers.chain(&service.leaving).cloned().collect()
        };
        let earlier = earlier.map(all).unwrap_or_default();
        let servers = rates.servers.iter_mut().chain(&mut rates.sorry_server);
        for server in servers.chain(&mut rates.leaving) {
            let before = earlier.iter().find(|other| other.address == server.address);
            let before = before.map_or(server.traffic, |before| before.traffic);
            server.traffic = per_second(&before, &server.traffic);
        }
        rates
    };
    after.iter().map(rate_of).collect()
}

/// What `ipvsadm` prints behind the scheduler of a service, and where else it is reached.
fn flags(service: &ServiceSnapshot) -> String {
    let mut text = String::new();
    if let Some(PersistenceSnapshot { timeout_seconds, prefix, .. }) = &service.persistence {
        let _ = write!(text, " persistent {timeout_seconds}");
        if *prefix < if service.vip.is_ipv4() { 32 } else { 128 } {
            let _ = write!(text, " mask /{prefix}");
        }
    }
    if service.one_packet {
        text.push_str(" ops");
    }
    let others = service.vips.iter().skip(1).map(|vip| address(*vip, 0));
    let ports = service
        .ports
        .iter()
        .skip(usize::from(service.ports.first().is_some_and(|(first, last)| first == last)));
    let ports = ports.map(|(first, last)| match first == last {
        true => format!(":{first}"),
        false => format!(":{first}-{last}"),
    });
    for other in others.chain(ports) {
        let _ = write!(text, " +{other}");
    }
    text
}

/// A line that `ipvsadm` does not have, for a service whose servers are too few.
fn list_stage(text: &mut String, service: &ServiceSnapshot) {
    let what = match service.stage.as_str() {
        "backup" => "too few are up: backups help out",
        "sorry" => "too few are up: the sorry server takes over",
        _ => return,
    };
    let _ = writeln!(text, "     servers: {what}");
}

/// What there is to say about a server that does not just serve as the file says.
fn standing(server: &ServerSnapshot) -> String {
    let mut text = String::new();
    if let Some(out) = &server.out {
        let _ = write!(text, " {}{}", printable(out), time_left(server));
    }
    if let Some(HealthSnapshot { up: false, held_ms, last: Some(last), .. }) = &server.health {
        let held = Duration::from_secs(held_ms / 1_000);
        let _ = write!(text, " for {}: {}", format_duration(held), printable(last));
    }
    if server.slow_ms.is_some() {
        text.push_str(" starts slowly");
    }
    if let Some(weight) = server.set_weight {
        let _ =
            write!(text, " set to {weight} at run time, {} in the file", server.configured_weight);
    } else if let Some(weight) = server.measured_weight {
        let _ = write!(text, " {weight} by its health, {} in the file", server.configured_weight);
    }
    text
}

fn time_left(server: &ServerSnapshot) -> String {
    server.drain_ms.map_or_else(String::new, |left| {
        // To the second: nobody wants to know more.
        let left = Duration::from_secs(left.div_ceil(1_000));
        format!(", {} left", format_duration(left))
    })
}

/// A line that `ipvsadm` does not have, for a scheduler that failed or was stood in for.
fn list_troubles(text: &mut String, service: &ServiceSnapshot) {
    let SchedulerSnapshot { faults, quarantines, last_fault, .. } = &service.scheduler;
    let mut troubles = Vec::new();
    if *faults > 0 {
        let mut trouble = count(*faults, "fault", "faults");
        if *quarantines > 0 {
            let _ = write!(trouble, ", {}", count(*quarantines, "quarantine", "quarantines"));
        }
        if let Some(fault) = last_fault {
            // A plugin's own words may be in it.
            let _ = write!(trouble, ", last: {}", printable(fault));
        }
        troubles.push(trouble);
    }
    let fallback = service.scheduling.fallback;
    if fallback > 0 {
        let connections = count(fallback, "connection", "connections");
        troubles.push(format!("{connections} placed by the fallback"));
    }
    if !troubles.is_empty() {
        let _ = writeln!(text, "     scheduler: {}", troubles.join("; "));
    }
}

/// A line of what was dropped, by reason; empty when nothing was.
#[must_use]
pub fn drops(packets: &PacketsSnapshot) -> String {
    let reasons: Vec<_> = packets
        .dropped
        .iter()
        .filter(|(_, packets)| **packets > 0)
        .map(|(reason, packets)| format!("{reason} {packets}"))
        .collect();
    if reasons.is_empty() {
        String::new()
    } else {
        format!("Dropped packets: {}\n", reasons.join(", "))
    }
}

/// A line of what was lost between the kernel and the director; empty when nothing was.
#[must_use]
pub fn losses(device: &DeviceSnapshot) -> String {
    let DeviceSnapshot { name, read_errors, write_errors, queue_full, .. } = device;
    let losses: Vec<_> = [
        (queue_full, "with the queue full"),
        (read_errors, "in reading"),
        (write_errors, "in writing"),
    ]
    .into_iter()
    .filter(|(packets, _)| **packets > 0)
    .map(|(packets, how)| format!("{} {how}", count(*packets, "packet", "packets")))
    .collect();
    if losses.is_empty() {
        String::new()
    } else {
        format!("Lost at {name}: {}\n", losses.join(", "))
    }
}

/// Rows of cells, each column as wide as its widest cell.
fn columns<const N: usize>(rows: impl Iterator<Item = [String; N]>) -> String {
    let rows: Vec<_> = rows.collect();
    let widths: [usize; N] = std::array::from_fn(|column| {
        rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0)
    });
    let mut text = String::new();
    for row in &rows {
        let cells: Vec<_> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text += cells.join("  ").trim_end();
        text.push('\n');
    }
    text
}

/// Without what could move a terminal's cursor.
fn printable(text: &str) -> String {
    text.replace(char::is_control, "\u{fffd}")
}

/// `1 fault` or `2 faults`.
pub(crate) fn count(
    number: impl Display + From<u8> + PartialEq,
    one: &str,
    several: &str,
) -> String {
    let noun = if number == 1.into() { one } else { several };
    format!("{number} {noun}")
}

/// With a comma between groups of three digits.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Address and port as `ipvsadm` writes them; the address alone where there is no port.
#[must_use]
pub fn address(ip: IpAddr, port: u16) -> String {
    match (ip, port) {
        (IpAddr::V4(ip), 0) => ip.to_string(),
        (IpAddr::V6(ip), 0) => format!("[{ip}]"),
        (ip, port) => SocketAddr::new(ip, port).to_string(),
    }
}

fn numbers(traffic: &TrafficSnapshot, is_exact: bool) -> String {
    let TrafficSnapshot { connections, in_packets, out_packets, in_octets, out_octets } = *traffic;
    [connections, in_packets, out_packets, in_octets, out_octets]
        .into_iter()
        .map(|number| if is_exact { exact(number) } else { short(number) })
        .collect()
}

/// A number in at least nine columns, the first of which is a space.
fn exact(number: u64) -> String {
    format!(" {number:>8}")
}

/// A number in nine columns: from a hundred million on in thousands, and so on.
fn short(number: u64) -> String {
    const K: u64 = 1_000;
    const M: u64 = 1_000_000;
    const G: u64 = 1_000_000_000;
    const T: u64 = 1_000_000_000_000;
    match number {
        0..100_000_000 => format!("{number:>9}"),
        100_000_000..1_000_000_000 => format!("{:>8}K", number / K),
        1_000_000_000..100_000_000_000 => format!("{:>8}M", number / M),
        100_000_000_000..100_000_000_000_000 => format!("{:>8}G", number / G),
        _ => format!("{:>8}T", number / T),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_take_nine_columns_until_they_must_take_more() {
        for (number, is_short, is_exact) in [
            (0, "        0", "        0"),
            (99_999_999, " 99999999", " 99999999"),
            (100_000_000, "  100000K", " 100000000"),
            (999_999_999, "  999999K", " 999999999"),
            (1_000_000_000, "    1000M", " 1000000000"),
            (99_999_999_999, "   99999M", " 99999999999"),
            (100_000_000_000, "     100G", " 100000000000"),
            (99_999_999_999_999, "   99999G", " 99999999999999"),
            (100_000_000_000_000, "     100T", " 100000000000000"),
            (u64::MAX, "18446744T", " 18446744073709551615"),
        ] {
            assert_eq!(short(number), is_short);
            assert_eq!(exact(number), is_exact);
        }
    }

    #[test]
    fn rates_are_what_went_by_in_a_second() {
        let traffic = |connections, in_octets| TrafficSnapshot {
            connections,
            in_octets,
            ..TrafficSnapshot::default()
        };
        let service = |name: &str, traffic| ServiceSnapshot {
            traffic,
            ..serde_json::from_str(&SERVICE.replace("NAME", name)).unwrap()
        };
        let before = [service("a", traffic(10, 1_000))];
        let after = [service("a", traffic(25, 4_000)), service("b", traffic(7, 7))];
        let rates = rates(&before, &after, Duration::from_millis(2_000));
        assert_eq!(rates[0].traffic, traffic(8, 1_500));
        // Nobody knows since when it is there.
        assert_eq!(rates[1].traffic, traffic(0, 0));
    }

    const SERVICE: &str = r#"{
        "name": "NAME", "protocol": "tcp", "vip": "192.0.2.1", "port": 80, "vips": [], "ports": [],
        "one_packet": false, "persistence": null, "stage": "regular", "pool": null, "servers": [],
        "sorry_server": null, "leaving": [],
        "scheduler": { "name": "rr", "generation": 1, "picks": 0, "no_server": 0, "defers": 0,
            "unavailable": 0, "bad_answers": 0, "traps": 0, "out_of_fuel": 0, "faults": 0,
            "quarantines": 0, "rebuilds": 0, "last_fault": null },
        "scheduling": { "picked": 0, "fallback": 0, "spared": 0, "persistent": 0, "sorry": 0,
            "no_server": 0 },
        "traffic": { "connections": 0, "in_packets": 0, "out_packets": 0, "in_octets": 0,
            "out_octets": 0 }
    }"#;

    #[test]
    fn digits_are_grouped_by_three() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn addresses_are_bracketed_as_ipvsadm_does() {
        let four = "192.0.2.1".parse().unwrap();
        let six = "2001:db8::1".parse().unwrap();
        assert_eq!(address(four, 80), "192.0.2.1:80");
        assert_eq!(address(four, 0), "192.0.2.1");
        assert_eq!(address(six, 80), "[2001:db8::1]:80");
        assert_eq!(address(six, 0), "[2001:db8::1]");
    }
}
