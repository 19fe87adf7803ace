//! How a service's packets get to its real servers.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use wvs_core::pool::Pool;

use super::document::Value;
use super::reader::{Field, Fields, Reader};
use super::{ForwardingConfig, PoolConfig, keys};

/// Ports below are those of services.
const DEFAULT_PORTS: RangeInclusive<u16> = 1_024..=65_535;

/// `forward` and, with full NAT, `pool`: without it the VIPs themselves stand in for the clients.
/// `check` sees every address of the pool.
pub(super) fn read(
    reader: &mut Reader<'_>,
    service: &Fields<'_>,
    vips: Option<&[IpAddr]>,
    mut check: impl FnMut(&mut Reader<'_>, &Field<'_>) -> Option<IpAddr>,
) -> Option<ForwardingConfig> {
    let is_full_nat = match service.get("forward") {
        Some(field) => reader.choice(&field, &[("nat", false), ("fullnat", true)])?,
        None => false,
    };
    let Some(field) = service.get("pool") else {
        if !is_full_nat {
            return Some(ForwardingConfig::Nat);
        }
        let pool = PoolConfig { addresses: vips?.to_vec(), ports: DEFAULT_PORTS };
        return Some(ForwardingConfig::FullNat(pool));
    };
    if !is_full_nat {
        let message = "only services with `forward: fullnat` have a pool; add that, or remove it";
        reader.error(&field.path, field.node.place, message);
        return None;
    }
    let fields = reader.fields(&field, &keys::POOL)?;
    let addresses = match fields.get("addresses") {
        Some(field) => {
            let list = reader.list(&field)?;
            if list.is_empty() || list.len() > Pool::ADDRESSES_MAX {
                let message = format!("{} addresses; use 1 to {}", list.len(), Pool::ADDRESSES_MAX);
                reader.error(&field.path, field.node.place, message);
                return None;
            }
            list.iter().map(|field| check(reader, field)).collect::<Vec<_>>()
        }
        None => vips?.iter().copied().map(Some).collect(),
    };
    let ports = match fields.get("ports") {
        Some(field) => read_ports(reader, &field)?,
        None => DEFAULT_PORTS,
    };
    let addresses = addresses.into_iter().collect::<Option<_>>()?;
    Some(ForwardingConfig::FullNat(PoolConfig { addresses, ports }))
}

/// As in `1024-65535`.
fn read_ports(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<RangeInclusive<u16>> {
    let ports = match &field.node.value {
        Value::Text(text) => parse_ports(text),
        _ => None,
    };
    if ports.is_none() {
        let remedy = format!("use {}", keys::POOL.values("ports"));
        reader.refuse(field, "is no range of ports", &remedy);
    }
    ports
}

pub(super) fn parse_ports(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-')?;
    let port = |text: &str| text.trim().parse().ok().filter(|port: &u16| *port > 0);
    let (first, last) = (port(first)?, port(last)?);
    (first <= last).then_some(first..=last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn range_of_ports_is_two_ports_in_order() {
        assert_eq!(parse_ports("1024-65535"), Some(1024..=65535));
        assert_eq!(parse_ports("7 - 7"), Some(7..=7));
        for wrong in ["", "7", "0-9", "9-7", "1-65536", "1-2-3", "a-b", "-"] {
            assert_eq!(parse_ports(wrong), None, "{wrong}");
        }
    }
}
