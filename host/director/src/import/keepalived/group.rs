//! Groups of virtual servers: the addresses and ports of one, as few services.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;

use super::syntax::Statement;
use crate::import::Note;
use crate::import::rules::Service;

/// Addresses of one group.
const VIPS_MAX: usize = 64;

/// Ports of one address.
const PORTS_MAX: usize = 256;

/// A group: each address with its ports, in the order of the input.
#[derive(Debug, Default)]
pub(super) struct Group {
    vips: Vec<(IpAddr, BTreeSet<u16>)>,
}

/// Addresses of one family that have the same ports.
#[derive(Clone, Debug)]
pub(super) struct Part {
    /// At least one.
    pub(super) vips: Vec<IpAddr>,
    ports: Vec<RangeInclusive<u16>>,
}

impl Part {
    /// One address with one port.
    pub(super) fn of(address: SocketAddr) -> Self {
        Self { vips: vec![address.ip()], ports: vec![address.port()..=address.port()] }
    }

    /// The part with named ports, and the one with all others, or the one of both that there is.
    fn without_others(mut self) -> impl Iterator<Item = Self> {
        let others = self.ports.extract_if(.., |range| *range.start() == 0).next();
        let others = others.map(|range| Self { vips: self.vips.clone(), ports: vec![range] });
        let named = Some(self).filter(|part| !part.ports.is_empty());
        named.into_iter().chain(others)
    }

    /// Makes them what clients of the service connect to.
    pub(super) fn put_into(&self, service: &mut Service) {
        service.vips.clone_from(&self.vips);
        service.ports.clone_from(&self.ports);
    }
}

impl Group {
    pub(super) fn read(block: &Statement) -> (Self, Vec<Note>) {
        let mut group = Self::default();
        let mut notes = Vec::new();
        for statement in block.statements() {
            if super::note_dependence(statement, &mut notes) {
                continue;
            }
            if let Err(what) = group.add(statement) {
                notes.push(statement.note(&format!("{what}; left out")));
            }
        }
        (group, notes)
    }

    fn add(&mut self, statement: &Statement) -> Result<(), &'static str> {
        let port = match statement.value() {
            "" => 0,
            port => port.parse().map_err(|_| "not the number of a port")?,
        };
        if statement.keyword() == "fwmark" {
            return Err("WVS knows no firewall marks, only addresses and ports");
        }
        for vip in addresses(statement.keyword())? {
            let is_full = self.vips.len() == VIPS_MAX;
            match self.vips.iter_mut().find(|(known, _)| *known == vip) {
                Some((_, ports)) if ports.len() == PORTS_MAX => {
                    return Err("an address has at most 256 ports in a group");
                }
                Some((_, ports)) => {
                    ports.insert(port);
                }
                None if is_full => {
                    return Err("a service has at most 64 addresses");
                }
                None => self.vips.push((vip, BTreeSet::from([port]))),
            }
        }
        Ok(())
    }

    /// The addresses, those with the same ports and of the same family together. Port 0, which is all
    /// others, cannot be beside ports that are named.
    pub(super) fn parts(&self) -> Vec<Part> {
        let mut parts: Vec<(&BTreeSet<u16>, Part)> = Vec::new();
        for (vip, ports) in &self.vips {
            let fits = |(known, part): &(&BTreeSet<u16>, Part)| {
                *known == ports && part.vips.iter().all(|other| other.is_ipv4() == vip.is_ipv4())
            };
            match parts.iter_mut().find(|part| fits(part)) {
                Some((_, part)) => part.vips.push(*vip),
                None => parts.push((ports, Part { vips: vec![*vip], ports: ranges(ports) })),
            }
        }
        parts.into_iter().flat_map(|(_, part)| part.without_others()).collect()
    }
}

/// Ports that follow each other as ranges. Port 0, which is all others, stays alone.
fn ranges(ports: &BTreeSet<u16>) -> Vec<RangeInclusive<u16>> {
    let mut ranges: Vec<RangeInclusive<u16>> = Vec::new();
    for port in ports {
        match ranges.last_mut() {
            Some(range) if *range.start() > 0 && range.end().checked_add(1) == Some(*port) => {
                *range = *range.start()..=*port;
            }
            _ => ranges.push(*port..=*port),
        }
    }
    ranges
}

/// `192.0.2.1`, `192.0.2.1-9`, `192.0.2.1-192.0.2.9` or `192.0.2.0/28`; likewise for IPv6.
fn addresses(written: &str) -> Result<Vec<IpAddr>, &'static str> {
    const WRONG: &str = "not an address or a range of them";
    if let Some((address, length)) = written.split_once('/') {
        let address: IpAddr = address.parse().map_err(|_| WRONG)?;
        let length: u32 = length.parse().map_err(|_| WRONG)?;
        let bits: u32 = if address.is_ipv4() { 32 } else { 128 };
        let host_bits = bits.checked_sub(length).ok_or(WRONG)?;
        let below = 1_u128.checked_shl(host_bits).map_or(u128::MAX, |size| size - 1);
        let first = number(address) & !below;
        return range(address, first, first | below);
    }
    let (first, last) = match written.split_once('-') {
        None => return Ok(vec![written.parse().map_err(|_| WRONG)?]),
        Some((first, last)) => (first.parse::<IpAddr>().map_err(|_| WRONG)?, last),
    };
    let last = match (last.parse::<IpAddr>(), first) {
        (Ok(last), _) if last.is_ipv4() == first.is_ipv4() => number(last),
        (Ok(_), _) => return Err(WRONG),
        // The last part of an address only.
        (Err(_), IpAddr::V4(_)) => {
            number(first) & !0xff | u128::from(last.parse::<u8>().map_err(|_| WRONG)?)
        }
        (Err(_), IpAddr::V6(_)) => {
            number(first) & !0xffff | u128::from(u16::from_str_radix(last, 16).map_err(|_| WRONG)?)
        }
    };
    range(first, number(first), last)
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn range(like: IpAddr, first: u128, last: u128) -> Result<Vec<IpAddr>, &'static str> {
    if last < first {
        return Err("the range ends before it begins");
    }
    let most = u128::try_from(VIPS_MAX).unwrap_or(u128::MAX);
    if last - first >= most {
        return Err("a service has at most 64 addresses");
    }
    let address = |number: u128| match like {
        IpAddr::V4(_) => Ipv4Addr::from_bits(u32::try_from(number).unwrap_or(u32::MAX)).into(),
        IpAddr::V6(_) => Ipv6Addr::from_bits(number).into(),
    };
    Ok((first..=last).map(address).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(written: &str) -> Result<String, &'static str> {
        let list = addresses(written)?;
        Ok(match &list[..] {
            [one] => one.to_string(),
            [first, .., last] => format!("{first} to {last}: {}", list.len()),
            [] => String::new(),
        })
    }

    #[test]
    fn ranges_of_addresses_are_written_in_three_ways() {
        for (written, wanted) in [
            ("192.0.2.1", "192.0.2.1"),
            ("192.0.2.1-9", "192.0.2.1 to 192.0.2.9: 9"),
            ("192.0.2.250-192.0.3.5", "192.0.2.250 to 192.0.3.5: 12"),
            ("192.0.2.9/30", "192.0.2.8 to 192.0.2.11: 4"),
            ("192.0.2.9/32", "192.0.2.9"),
            ("2001:db8::1-3f", "2001:db8::1 to 2001:db8::3f: 63"),
            ("2001:db8::/126", "2001:db8:: to 2001:db8::3: 4"),
        ] {
            assert_eq!(shown(written).as_deref(), Ok(wanted), "{written}");
        }
        for written in [
            "",
            "x",
            "192.0.2.9-1",
            "192.0.2.1-256",
            "192.0.2.1-2001:db8::1",
            "10.0.0.0/8",
            "::/0",
            "10.0.0.1/33",
        ] {
            assert!(shown(written).is_err(), "{written}");
        }
    }

    #[test]
    fn ports_that_follow_each_other_are_a_range() {
        let ports = BTreeSet::from([0, 1, 2, 80, 443, 444, 65_534, 65_535]);
        assert_eq!(ranges(&ports), [0..=0, 1..=2, 80..=80, 443..=444, 65_534..=65_535]);
    }
}
