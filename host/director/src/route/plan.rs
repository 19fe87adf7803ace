//! Which steps route what is needed, given what is around.

use std::collections::{BTreeSet, HashSet};
use std::net::{IpAddr, SocketAddr};

use wvs_core::service::Protocol;

use super::step::{Destination, Route, Rule, Setting, Step};
use super::{RouteNeeds, TableNumbers};
use crate::sysctl;

/// Before the rules for replies: what the director sent must not come back to it.
pub(super) const GUARD_PRIORITY: u32 = 900;

/// Before the `main` table, at 32766.
pub(super) const REPLY_PRIORITY: u32 = 1000;

/// The metric of the default route that remains when the device is gone: worse than that of the one
/// by the device, which is 0, or 1024 with IPv6.
const LAST_METRIC: u32 = 9999;

/// Two routing tables of one director: N leads replies to it, N + 1 guards against loops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tables {
    reply: u32,
}

impl Tables {
    /// The first reply table tried. Up here people seldom have their own.
    pub(super) const FIRST: u32 = 11_900;
    /// The last guard table tried: for 50 directors on one host.
    pub(super) const LAST: u32 = 11_999;

    /// Every pair, in the order of trying.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        (Self::FIRST..Self::LAST).step_by(2).map(|reply| Self { reply })
    }

    /// The pair that `guard` is the guard table of.
    pub(super) fn with_guard(guard: u32) -> Option<Self> {
        guard.checked_sub(1).map(|reply| Self { reply })
    }

    pub(super) fn numbers(self) -> [u32; 2] {
        [self.reply, self.reply + 1]
    }

    pub(super) fn are_none_of(self, in_use: &TableNumbers) -> bool {
        self.numbers().iter().all(|table| !in_use.contains(table))
    }
}

/// What the plan depends on beside the needs.
#[derive(Clone, Debug, Default)]
pub(super) struct Surroundings {
    /// The servers, each with the link that leads to it.
    pub(super) servers: Vec<(Protocol, SocketAddr, String)>,
    /// Settings that `net/ipv4/ip_forward` changes along with itself.
    pub(super) along_ipv4_forwarding: Vec<String>,
    /// Settings that `net/ipv6/conf/all/forwarding` changes along with itself.
    pub(super) along_ipv6_forwarding: Vec<String>,
    /// `accept_ra` of interfaces that learn routes from advertisements as long as they do not
    /// forward.
    pub(super) accept_ra: Vec<String>,
}

impl Surroundings {
    /// Reads the settings of this network namespace.
    pub(super) fn around(needs: &RouteNeeds, servers: Vec<(Protocol, SocketAddr, String)>) -> Self {
        let mut along_ipv4_forwarding =
            sysctl::names_below("net/ipv4/conf", "forwarding").unwrap_or_default();
        along_ipv4_forwarding.push("net/ipv4/conf/all/accept_redirects".to_owned());
        let along_ipv6_forwarding =
            sysctl::names_below("net/ipv6/conf", "forwarding").unwrap_or_default();
        let forwards_ipv6 =
            sysctl::read("net/ipv6/conf/all/forwarding").is_ok_and(|value| value != "0");
        let accept_ra = if forwards_ipv6 {
            Vec::new()
        } else {
            let own = format!("net/ipv6/conf/{}/accept_ra", needs.device);
            sysctl::names_below("net/ipv6/conf", "accept_ra")
                .unwrap_or_default()
                .into_iter()
                .filter(|name| *name != own && !name.starts_with("net/ipv6/conf/lo/"))
                .filter(|name| !name.starts_with("net/ipv6/conf/all/"))
                .filter(|name| sysctl::read(name).is_ok_and(|value| value == "1"))
                .collect()
        };
        Self { servers, along_ipv4_forwarding, along_ipv6_forwarding, accept_ra }
    }
}

/// The steps, in the order in which to take them: packets come in only when all else stands.
pub(super) fn steps(needs: &RouteNeeds, around: &Surroundings, tables: Tables) -> Vec<Step> {
    let mut steps = Vec::new();
    let [reply_table, guard_table] = tables.numbers();
    let device = &needs.device;
    let families: Vec<bool> =
        [false, true].into_iter().filter(|is_ipv6| needs.has_family(*is_ipv6)).collect();
    let vips: BTreeSet<IpAddr> = needs.vips.iter().copied().collect();

    for &is_ipv6 in &families {
        steps.push(Step::Route(Route {
            destination: Destination::Everywhere,
            is_ipv6,
            table: Some(reply_table),
            device: Some(device.clone()),
            metric: None,
        }));
        // When the director is killed, its device and the route above go. Replies must not fall
        // through to the main table then, and leave with a real server's address.
        steps.push(Step::Route(Route {
            destination: Destination::Everywhere,
            is_ipv6,
            table: Some(reply_table),
            device: None,
            metric: Some(LAST_METRIC),
        }));
        steps.push(Step::Rule(Rule {
            priority: GUARD_PRIORITY,
            is_ipv6,
            source: None,
            input: device.clone(),
            protocol: None,
            source_port: None,
            table: guard_table,
        }));
    }
    for &vip in &vips {
        steps.push(Step::Route(Route {
            destination: Destination::Vip(vip),
            is_ipv6: vip.is_ipv6(),
            table: Some(guard_table),
            device: None,
            metric: None,
        }));
    }
    for rule in reply_rules(&around.servers, reply_table) {
        steps.push(Step::Rule(rule));
    }
    steps.extend(settings(device, around, &families).into_iter().map(Step::Setting));
    for &vip in &vips {
        steps.push(Step::Route(Route {
            destination: Destination::Vip(vip),
            is_ipv6: vip.is_ipv6(),
            table: None,
            device: Some(device.clone()),
            metric: None,
        }));
    }
    steps
}

/// One rule for the replies of each server, and one for the ICMP of each link that has servers:
/// errors about translated packets come from any router behind it, and echo replies have no port.
fn reply_rules(servers: &[(Protocol, SocketAddr, String)], table: u32) -> Vec<Rule> {
    let mut rules: Vec<Rule> = rules_for_servers(servers, table).map(|(_, rule)| rule).collect();
    for (_, server, link) in servers {
        let name = if server.is_ipv6() { "ipv6-icmp" } else { "icmp" };
        rules.push(Rule {
            protocol: Some((Protocol::Icmp.number(server.is_ipv6()), name)),
            ..rule_for_link(server, link, table)
        });
    }
    // Services share servers, and servers share links.
    let mut seen = HashSet::with_capacity(rules.len());
    rules.retain(|rule| seen.insert(rule.clone()));
    rules
}

/// The rule for the replies of each server that has a port.
pub(super) fn rules_for_servers(
    servers: &[(Protocol, SocketAddr, String)],
    table: u32,
) -> impl Iterator<Item = (SocketAddr, Rule)> {
    servers.iter().filter(|(protocol, ..)| *protocol != Protocol::Icmp).map(
        move |(protocol, server, link)| {
            let rule = Rule {
                source: Some(server.ip()),
                protocol: Some((protocol.number(server.is_ipv6()), protocol.name())),
                source_port: Some(server.port()),
                ..rule_for_link(server, link, table)
            };
            (*server, rule)
        },
    )
}

fn rule_for_link(server: &SocketAddr, link: &str, table: u32) -> Rule {
    Rule {
        priority: REPLY_PRIORITY,
        is_ipv6: server.is_ipv6(),
        source: None,
        input: link.to_owned(),
        protocol: None,
        source_port: None,
        table,
    }
}

fn settings(device: &str, around: &Surroundings, families: &[bool]) -> Vec<Setting> {
    let setting = |name: &str, value: &str| Setting {
        name: name.to_owned(),
        value: value.to_owned(),
        along: Vec::new(),
        is_of_device: false,
    };
    let of_device = |family: &str, leaf: &str| Setting {
        is_of_device: true,
        ..setting(&format!("net/{family}/conf/{device}/{leaf}"), "0")
    };
    // With a socket of the host's own in some state on a VIP's port, early demultiplexing would
    // bind forwarded packets to it, and forwarding would drop them. Serves both families.
    let mut settings = vec![setting("net/ipv4/ip_early_demux", "0")];
    if families.contains(&false) {
        // Sources of what the director writes are clients and VIPs, whose way back is elsewhere.
        // The greater of the two values counts.
        settings.push(setting("net/ipv4/conf/all/rp_filter", "0"));
        settings.push(of_device("ipv4", "rp_filter"));
        // Either value switches them on.
        settings.push(setting("net/ipv4/conf/all/send_redirects", "0"));
        settings.push(of_device("ipv4", "send_redirects"));
        settings.push(Setting {
            along: around.along_ipv4_forwarding.clone(),
            ..setting("net/ipv4/ip_forward", "1")
        });
    }
    if families.contains(&true) {
        settings.push(of_device("ipv6", "disable_ipv6"));
        settings.push(of_device("ipv6", "accept_ra"));
        // Else the host would drop its own default routes the moment it forwards.
        settings.extend(around.accept_ra.iter().map(|name| setting(name, "2")));
        settings.push(Setting {
            along: around.along_ipv6_forwarding.clone(),
            ..setting("net/ipv6/conf/all/forwarding", "1")
        });
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(needs: &RouteNeeds, around: &Surroundings) -> String {
        let tables = Tables::all().next().unwrap();
        let lines: Vec<_> = steps(needs, around, tables).iter().map(Step::to_string).collect();
        lines.join("\n")
    }

    fn needs(vips: &[&str]) -> RouteNeeds {
        RouteNeeds {
            device: "wvs0".to_owned(),
            vips: vips.iter().map(|vip| vip.parse().unwrap()).collect(),
            servers: Vec::new(),
        }
    }

    fn around(servers: &[(Protocol, &str, &str)]) -> Surroundings {
        let servers = servers
            .iter()
            .map(|(protocol, server, link)| {
                (*protocol, server.parse().unwrap(), (*link).to_owned())
            })
            .collect();
        Surroundings { servers, ..Surroundings::default() }
    }

    #[test]
    fn ipv4_service_is_routed_by_these_commands() {
        let around = around(&[
            (Protocol::Tcp, "10.20.1.2:8080", "eth1"),
            (Protocol::Tcp, "10.20.2.2:8080", "eth2"),
            (Protocol::Udp, "10.20.2.2:53", "eth2"),
            (Protocol::Tcp, "10.20.2.2:8080", "eth2"),
        ]);
        let expected = "\
ip route add default dev wvs0 table 11900 proto 119
ip route add blackhole default table 11900 metric 9999 proto 119
ip rule add pref 900 iif wvs0 lookup 11901 protocol 119
ip route add blackhole 10.30.0.1/32 table 11901 proto 119
ip rule add pref 1000 from 10.20.1.2 iif eth1 ipproto tcp sport 8080 lookup 11900 protocol 119
ip rule add pref 1000 from 10.20.2.2 iif eth2 ipproto tcp sport 8080 lookup 11900 protocol 119
ip rule add pref 1000 from 10.20.2.2 iif eth2 ipproto udp sport 53 lookup 11900 protocol 119
ip rule add pref 1000 iif eth1 ipproto icmp lookup 11900 protocol 119
ip rule add pref 1000 iif eth2 ipproto icmp lookup 11900 protocol 119
sysctl -w net.ipv4.ip_early_demux=0
sysctl -w net.ipv4.conf.all.rp_filter=0
sysctl -w net.ipv4.conf.wvs0.rp_filter=0
sysctl -w net.ipv4.conf.all.send_redirects=0
sysctl -w net.ipv4.conf.wvs0.send_redirects=0
sysctl -w net.ipv4.ip_forward=1
ip route add 10.30.0.1/32 dev wvs0 proto 119";
        assert_eq!(shown(&needs(&["10.30.0.1"]), &around), expected);
    }

    #[test]
    fn documentation_shows_these_commands() {
        let around = around(&[
            (Protocol::Tcp, "10.0.0.11:8080", "eth1"),
            (Protocol::Tcp, "10.0.0.12:8080", "eth1"),
        ]);
        let commands = shown(&needs(&["203.0.113.10"]), &around);
        let documentation = include_str!("../../../../docs/OPERATIONS.md");
        assert!(documentation.contains(&commands), "{commands}");
    }

    #[test]
    fn ipv6_service_leaves_ipv4_forwarding_alone() {
        let mut around = around(&[(Protocol::Icmp, "[fd00:20:1::2]:0", "eth1")]);
        around.accept_ra.push("net/ipv6/conf/eth1/accept_ra".to_owned());
        let expected = "\
ip -6 route add default dev wvs0 table 11900 proto 119
ip -6 route add blackhole default table 11900 metric 9999 proto 119
ip -6 rule add pref 900 iif wvs0 lookup 11901 protocol 119
ip -6 route add blackhole fd00:30::1/128 table 11901 proto 119
ip -6 rule add pref 1000 iif eth1 ipproto ipv6-icmp lookup 11900 protocol 119
sysctl -w net.ipv4.ip_early_demux=0
sysctl -w net.ipv6.conf.wvs0.disable_ipv6=0
sysctl -w net.ipv6.conf.wvs0.accept_ra=0
sysctl -w net.ipv6.conf.eth1.accept_ra=2
sysctl -w net.ipv6.conf.all.forwarding=1
ip -6 route add fd00:30::1/128 dev wvs0 proto 119";
        assert_eq!(shown(&needs(&["fd00:30::1"]), &around), expected);
    }

    #[test]
    fn tables_in_use_by_somebody_are_passed_over() {
        let in_use = TableNumbers::from([254, 11_900, 11_903]);
        let tables = Tables::all().find(|tables| tables.are_none_of(&in_use)).unwrap();
        assert_eq!(tables.numbers(), [11_904, 11_905]);
    }
}
