//! Packets that are too long for the way.

use std::net::IpAddr;

use super::finding::{Code, Finding};
use crate::config::Config;
use crate::route::Link;
use crate::route::inspect::{Inspector, ServerWay};

/// Where the director's device takes longer packets than the ways behind it.
pub(super) async fn of_device(
    inspector: &Inspector,
    config: &Config,
    device: Option<&Link>,
) -> Option<Finding> {
    // What an automatic MTU is now is the director's own business.
    let configured = config.device.mtu?;
    let smallest = inspector.smallest_mtu().await.ok()?;
    let name = &config.device.name;
    let mtu = device.and_then(|link| link.mtu).unwrap_or_else(|| configured.into());
    if mtu <= u32::from(smallest) {
        return None;
    }
    let what = format!(
        "{name} takes packets of {mtu} octets, and the narrowest way to servers and clients {smallest}"
    );
    let finding = Finding::new(Code::MtuDevice, what)
        .advice("for good: `device.mtu: auto` in the configuration");
    Some(match device {
        Some(_) => finding.command(format!("ip link set {name} mtu {smallest}")),
        None => finding,
    })
}

/// That packets vanish that are longer than `longest`.
pub(super) fn hole(way: &ServerWay, longest: u32) -> Finding {
    let ServerWay { server, link, gateway, mtu, .. } = way;
    let mtu = mtu.unwrap_or_default();
    let what = format!(
        "of packets to the real server {server} those above {longest} octets vanish, though {} takes \
         {mtu}, and nobody says so",
        link.name
    );
    let (ip, length) = if server.is_ipv6() { ("ip -6", 128) } else { ("ip", 32) };
    let via = gateway.map(|gateway: IpAddr| format!("via {gateway} ")).unwrap_or_default();
    let command =
        format!("{ip} route replace {}/{length} {via}dev {} mtu {longest}", server.ip(), link.name);
    Finding::new(Code::MtuHole, what)
        .advice("better: have what is on the way send ICMP, or take packets of the same length")
        .command(command)
}
