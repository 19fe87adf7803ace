//! Where clients reach a service: `vip` and `port`, each one or several.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::ops::RangeInclusive;

use wvs_core::service::{Ports, Protocol, Reach};

use super::document::Value;
use super::reader::{Field, Fields, Reader};
use super::schema::{number, why_not_a_host};
use super::{forwarding, keys};

/// Addresses of one service at most.
const VIPS_MAX: usize = 64;

/// Entries of `port` at most.
const RANGES_MAX: usize = 256;

const PORT: RangeInclusive<u64> = 0..=65_535;

/// Which service has which port of which VIP.
#[derive(Default)]
pub(super) struct Taken {
    /// By the first port of a range: the last one, and the service's path.
    ranges: HashMap<(Protocol, IpAddr), BTreeMap<u16, (u16, String)>>,
    /// Who has the ports that no other service has.
    others: HashMap<(Protocol, IpAddr), String>,
    /// The first service of each VIP.
    vips: HashMap<IpAddr, String>,
}

impl Taken {
    /// The service, by its path, that has this address as a VIP.
    pub(super) fn of_vip(&self, address: IpAddr) -> Option<&str> {
        self.vips.get(&address).map(String::as_str)
    }

    /// Takes a service's ports. The first of those that another service has, with that one's path.
    fn take(&mut self, path: &str, protocol: Protocol, reach: &Reach) -> Option<(String, String)> {
        let mut conflict = None;
        for vip in &reach.vips {
            self.vips.entry(*vip).or_insert_with(|| path.to_owned());
            match &reach.ports {
                Ports::Others => {
                    let other = self.others.insert((protocol, *vip), path.to_owned());
                    let what = || format!("port 0 of {vip}/{protocol}");
                    conflict = conflict.or_else(|| other.map(|other| (what(), other)));
                }
                Ports::These(ranges) => {
                    let taken = self.ranges.entry((protocol, *vip)).or_default();
                    for range in ranges {
                        let (first, last) = (*range.start(), *range.end());
                        let other =
                            taken.range(..=last).next_back().filter(|(_, (end, _))| *end >= first);
                        if let Some((start, (_, other))) = other {
                            let what = name(*vip, first.max(*start), protocol);
                            conflict.get_or_insert((what, other.clone()));
                        } else {
                            taken.insert(first, (last, path.to_owned()));
                        }
                    }
                }
            }
        }
        conflict
    }
}

fn name(vip: IpAddr, port: u16, protocol: Protocol) -> String {
    wvs_core::service::ServiceAddress { protocol, vip, port }.to_string()
}

/// Reads where a service is reached, and takes it. `None` when nothing usable is said.
pub(super) fn read(
    reader: &mut Reader<'_>,
    service: &Fields<'_>,
    protocol: Option<Protocol>,
    taken: &mut Taken,
) -> Option<Reach> {
    let vips = service.required(reader, "vip").and_then(|field| read_vips(reader, &field));
    let ports = read_ports(reader, service, protocol);
    let reach = Reach { vips: vips?, ports: ports? };
    let (path, place) = service.place();
    if let Some((what, other)) = taken.take(&path.to_string(), protocol?, &reach) {
        let message = format!("{what} is already the address of {other}; change or remove one");
        reader.error(path, place, message);
    }
    Some(reach)
}

fn read_vips(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<Vec<IpAddr>> {
    let list = match field.node.value {
        Value::List(_) => reader.list(field)?,
        _ => return Some(vec![read_vip(reader, field)?]),
    };
    if list.is_empty() || list.len() > VIPS_MAX {
        let message = format!("{} addresses; use 1 to {VIPS_MAX}", list.len());
        reader.error(&field.path, field.node.place, message);
        return None;
    }
    let mut vips: Vec<IpAddr> = Vec::with_capacity(list.len());
    for field in &list {
        let vip = read_vip(reader, field)?;
        if vips.contains(&vip) {
            reader.refuse(field, "is there already", "remove one");
        } else if vips.first().is_some_and(|first| first.is_ipv4() != vip.is_ipv4()) {
            let remedy = "use one family in a service, and a second service for the other one";
            reader.refuse(field, "is of another family than the VIP before it", remedy);
        } else {
            vips.push(vip);
        }
    }
    Some(vips)
}

fn read_vip(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<IpAddr> {
    let vip = reader.address(field)?;
    if let Some(reason) = why_not_a_host(vip) {
        reader.refuse(field, reason, "use an address that clients can reach");
        return None;
    }
    Some(vip)
}

fn read_ports(
    reader: &mut Reader<'_>,
    service: &Fields<'_>,
    protocol: Option<Protocol>,
) -> Option<Ports> {
    if protocol == Some(Protocol::Icmp) {
        if let Some(field) = service.get("port") {
            reader.error(&field.path, field.node.place, "an icmp service has no port; remove it");
        }
        return Some(Ports::These(vec![0..=0]));
    }
    let field = service.required(reader, "port")?;
    let list = match field.node.value {
        Value::List(_) => reader.list(&field)?,
        _ => {
            let range = read_range(reader, &field)?;
            return Some(if range == (0..=0) { Ports::Others } else { Ports::These(vec![range]) });
        }
    };
    if list.is_empty() || list.len() > RANGES_MAX {
        let message = format!("{} entries; use 1 to {RANGES_MAX}", list.len());
        reader.error(&field.path, field.node.place, message);
        return None;
    }
    let mut ranges: Vec<RangeInclusive<u16>> = Vec::with_capacity(list.len());
    for field in &list {
        let range = read_range(reader, field)?;
        let meets = |other: &RangeInclusive<u16>| {
            range.start() <= other.end() && other.start() <= range.end()
        };
        if range == (0..=0) {
            reader.refuse(field, "stands for all other ports", "write `port: 0` and nothing else");
        } else if ranges.iter().any(meets) {
            reader.refuse(field, "has ports that are there already", "remove one");
        } else {
            ranges.push(range);
        }
    }
    Some(Ports::These(ranges))
}

/// One port, 0 among them, or a range of ports above 0.
fn read_range(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<RangeInclusive<u16>> {
    match &field.node.value {
        Value::Text(text) => {
            let range = forwarding::parse_ports(text);
            if range.is_none() {
                let remedy = format!("use {}", keys::SERVICE.values("port"));
                reader.refuse(field, "is no port", &remedy);
            }
            range
        }
        _ => number(reader, field, PORT).map(|port: u16| port..=port),
    }
}
