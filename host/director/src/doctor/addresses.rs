//! Addresses: virtual ones that are not the director's alone, and servers that cannot be reached.

use std::net::IpAddr;

use super::finding::{Code, Finding};
use crate::route::inspect::{Inspector, is_in};
use crate::route::{HostAddress, RouteError};
use crate::sysctl;

/// What a start would refuse, as findings.
pub(super) async fn refused(
    inspector: &Inspector,
    is_running: bool,
) -> Result<Vec<Finding>, RouteError> {
    let mut findings = Vec::new();
    for refusal in inspector.refusals(is_running).await? {
        findings.push(match refusal {
            RouteError::IsLocal { address, role } => {
                let what = format!("the {role} {address} is also an address of this host");
                let finding = Finding::new(Code::VipLocal, what);
                finding.commands(remove(inspector, address).await?)
            }
            RouteError::IsRouted { address } => {
                let what = format!("this host has a route to exactly {address} already");
                let commands = inspector.remove_routes_to(address).await?;
                Finding::new(Code::VipRouted, what).commands(commands)
            }
            RouteError::ServerIsLocal { server } => {
                let what = format!("the real server {server} is an address of this host");
                Finding::new(Code::ServerLocal, what).advice(
                    "give its service `forward: fullnat`, or move the server to another host or \
                     network namespace",
                )
            }
            RouteError::NoRoute { server, source } => {
                let what = format!("no route leads to the real server {server}: {source}");
                Finding::new(Code::ServerUnreachable, what)
                    .advice("correct its address, or add a route to it")
            }
            RouteError::ServerIsTaken { server, rule } => {
                let what = format!(
                    "replies of the real server {server} go to another director on this host, by \
                     the rule `{rule}`"
                );
                Finding::new(Code::ServerTaken, what)
                    .advice("use another port or address of the server for one of the directors")
            }
            other => Finding::new(Code::AddressUnfit, other.to_string()),
        });
    }
    Ok(findings)
}

/// What takes `address` away from this host.
async fn remove(inspector: &Inspector, address: IpAddr) -> Result<Vec<String>, RouteError> {
    let mut commands = Vec::new();
    for own in inspector.addresses().iter().filter(|own| own.address == address) {
        if let Some(link) = inspector.link(own.link_index).await {
            commands
                .push(format!("ip address del {address}/{} dev {}", own.prefix_length, link.name));
        }
    }
    if commands.is_empty() { inspector.remove_routes_to(address).await } else { Ok(commands) }
}

/// Virtual addresses in a network of this host that it does not answer for.
pub(super) async fn unannounced(inspector: &Inspector) -> Result<Vec<Finding>, RouteError> {
    let mut findings = Vec::new();
    let needs = inspector.needs();
    for &address in needs.vips.iter().chain(&needs.pools) {
        let Some(own) = neighbour(inspector.addresses(), address) else { continue };
        let Some(link) = inspector.link(own.link_index).await else { continue };
        // The device itself may have an address; nobody asks there.
        if own.address == address || link.name == needs.device {
            continue;
        }
        let (family, leaf) =
            if address.is_ipv6() { ("ipv6", "proxy_ndp") } else { ("ipv4", "proxy_arp") };
        let setting = format!("net/{family}/conf/{}/{leaf}", link.name);
        // Either will do for the kernel.
        let everywhere = format!("net/{family}/conf/all/{leaf}");
        let is_set = [&setting, &everywhere]
            .iter()
            .any(|name| sysctl::read(name).is_ok_and(|value| value != "0"));
        let is_proxied = inspector.is_proxied(address, own.link_index).await?;
        // For IPv4 either will do; for IPv6 the setting only makes the entries count.
        if if address.is_ipv6() { is_set && is_proxied } else { is_set || is_proxied } {
            continue;
        }
        let what = format!(
            "{address} is in the network {}/{} of {}, where this host does not answer for it",
            own.address, own.prefix_length, link.name
        );
        let mut finding = Finding::new(Code::VipUnannounced, what)
            .advice("ignore this if the routers around have a route to it by this host");
        if !is_proxied {
            finding = finding.command(format!("ip neigh add proxy {address} dev {}", link.name));
        }
        if address.is_ipv6() && !is_set {
            let name = sysctl::Spelled(&setting);
            finding = finding.command(format!("sysctl -w {name}=1"));
        }
        findings.push(finding);
    }
    findings.dedup();
    Ok(findings)
}

/// The host's own address, if there is one, that makes `address` a neighbour.
pub(super) fn neighbour(own: &[HostAddress], address: IpAddr) -> Option<&HostAddress> {
    own.iter()
        .filter(|own| is_in(address, own.address, own.prefix_length))
        .max_by_key(|own| own.prefix_length)
}
