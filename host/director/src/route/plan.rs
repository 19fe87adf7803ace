//! Which steps route what is needed, given what is around.

use std::collections::{BTreeSet, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;

use wvs_core::service::Protocol;

use super::step::{Destination, Prefix, Route, Rule, Setting, Step, Via};
use super::tree::{Order, Tree};
use super::{RouteNeeds, TableNumbers};
use crate::sysctl;

/// Fast, since there may be as many as real servers, and the configuration is not an attacker's.
type Set<T> = HashSet<T, foldhash::fast::FixedState>;

/// Before all others: what the director sent must not come back to it.
pub(super) const GUARD_PRIORITY: u32 = 900;

/// Replies of real servers: from here to the next, see [`tree`](super::tree). Before the `main` table,
/// at 32766, as all that follow.
pub(super) const REPLY_PRIORITY: u32 = 1000;

/// Packets from the real servers' links that have ports, and are no replies, skip the next rules.
pub(super) const WHOLE_PRIORITY: u32 = 1991;

/// What is left of the protocols of real servers: fragments, which may be those of replies.
pub(super) const FRAGMENT_PRIORITY: u32 = 1992;

/// ICMP errors of the host itself. Where those go on that skip rules.
const ERROR_PRIORITY: u32 = 1993;

/// Connections of the host itself to VIPs.
const REFUSAL_PRIORITY: u32 = 1994;

/// Whether rules of ours have this priority.
pub(super) fn is_priority(priority: u32) -> bool {
    priority == GUARD_PRIORITY || (REPLY_PRIORITY..=REFUSAL_PRIORITY).contains(&priority)
}

/// The last of ours: what comes behind takes nothing from the director.
pub(super) const LAST_PRIORITY: u32 = REFUSAL_PRIORITY;

/// All ports that a rule can match: the kernel takes no others.
pub(super) const ANY_PORT: RangeInclusive<u16> = 1..=0xfffe;

/// The metric of the default route that remains when the device is gone: worse than that of the one
/// by the device, which is 0, or 1024 with IPv6.
const LAST_METRIC: u32 = 9999;

/// The routing tables of one director: N leads replies to it, N + 1 guards against loops, N + 2
/// leads the host's own ICMP errors to it, N + 3 refuses the host's own connections to VIPs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tables {
    reply: u32,
}

impl Tables {
    /// The first reply table tried. Up here people seldom have their own.
    pub(super) const FIRST: u32 = 11_900;
    /// The last table: for 25 directors on one host.
    pub(super) const LAST: u32 = 11_999;

    /// Every group, in the order of trying.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        (Self::FIRST..Self::LAST).step_by(4).map(|reply| Self { reply })
    }

    /// Those that `guard` is the guard table of.
    pub(super) fn with_guard(guard: u32) -> Option<Self> {
        guard.checked_sub(1).map(|reply| Self { reply })
    }

    /// Reply, guard, errors, refusals.
    pub(super) fn numbers(self) -> [u32; 4] {
        [0, 1, 2, 3].map(|place| self.reply + place)
    }

    pub(super) fn are_none_of(self, in_use: &TableNumbers) -> bool {
        self.numbers().iter().all(|table| !in_use.contains(table))
    }
}

/// What the plan depends on beside the needs.
#[derive(Clone, Debug, Default)]
pub(super) struct Surroundings {
    /// The servers, each with the link that leads to it.
    pub(super) servers: Vec<(Protocol, SocketAddr, Arc<str>)>,
    /// Settings that `net/ipv4/ip_forward` changes along with itself.
    pub(super) along_ipv4_forwarding: Vec<String>,
    /// Settings that `net/ipv6/conf/all/forwarding` changes along with itself.
    pub(super) along_ipv6_forwarding: Vec<String>,
    /// `accept_ra` of interfaces that learn routes from advertisements as long as they do not
    /// forward.
    pub(super) accept_ra: Vec<String>,
    /// `rp_filter` of interfaces that take only what comes from where it would be sent to.
    pub(super) strict_rp_filter: Vec<String>,
}

impl Surroundings {
    /// Reads the settings of this network namespace, where the steps `done` were taken.
    pub(super) fn around(
        needs: &RouteNeeds,
        servers: Vec<(Protocol, SocketAddr, Arc<str>)>,
        done: &[Step],
    ) -> Self {
        let mut along_ipv4_forwarding =
            sysctl::names_below("net/ipv4/conf", "forwarding").unwrap_or_default();
        along_ipv4_forwarding.push("net/ipv4/conf/all/accept_redirects".to_owned());
        let along_ipv6_forwarding =
            sysctl::names_below("net/ipv6/conf", "forwarding").unwrap_or_default();
        let forwards_ipv6 =
            sysctl::read("net/ipv6/conf/all/forwarding").is_ok_and(|value| value != "0");
        let mut accept_ra = if forwards_ipv6 {
            Vec::new()
        } else {
            of_interfaces_at_1("net/ipv6/conf", "accept_ra", &needs.device)
        };
        let mut strict_rp_filter = of_interfaces_at_1("net/ipv4/conf", "rp_filter", &needs.device);
        // What we changed does not look any more as if it had to be changed.
        for (names, leaf) in [(&mut accept_ra, "accept_ra"), (&mut strict_rp_filter, "rp_filter")] {
            let changed = done.iter().filter_map(|step| match step {
                Step::Setting(Setting { name, value, .. }) if value == "2" => Some(name),
                _ => None,
            });
            names.extend(changed.filter(|name| name.ends_with(&format!("/{leaf}"))).cloned());
            names.sort();
            names.dedup();
        }
        Self { servers, along_ipv4_forwarding, along_ipv6_forwarding, accept_ra, strict_rp_filter }
    }
}

/// The settings `folder/*/leaf` of interfaces other than `device` and loopback whose value is 1.
fn of_interfaces_at_1(folder: &str, leaf: &str, device: &str) -> Vec<String> {
    let others = [device, "lo", "all"].map(|interface| format!("{folder}/{interface}/{leaf}"));
    sysctl::names_below(folder, leaf)
        .unwrap_or_default()
        .into_iter()
        .filter(|name| !others.contains(name))
        .filter(|name| sysctl::read(name).is_ok_and(|value| value == "1"))
        .collect()
}

/// What routes what is needed.
#[derive(Clone, Debug, Default)]
pub(super) struct Plan {
    /// In the order in which to take them: packets come in only when all else stands.
    pub(super) steps: Vec<Step>,
    /// For the plan that follows this one.
    pub(super) order: Order,
}

/// The plan that follows the one with the order `before`.
pub(super) fn plan(
    needs: &RouteNeeds,
    around: &Surroundings,
    tables: Tables,
    before: &Order,
) -> Plan {
    let [reply_table, guard_table, error_table, refusal_table] = tables.numbers();
    let families: Vec<bool> =
        [false, true].into_iter().filter(|is_ipv6| needs.has_family(*is_ipv6)).collect();
    let to_device = Via::Device(needs.device.clone());
    let everything = |is_ipv6, table, via: &Via, metric| Route {
        destination: Destination::Everywhere,
        is_ipv6,
        table: Some(table),
        via: via.clone(),
        metric,
    };
    let to_own = |address: IpAddr, table, via: &Via| Route {
        destination: Destination::One(address),
        is_ipv6: address.is_ipv6(),
        table,
        via: via.clone(),
        metric: None,
    };
    let own = needs.own_addresses();
    // With full NAT the host's own connections work like any others.
    let mut refused: BTreeSet<IpAddr> = needs.vips.iter().copied().collect();
    refused.retain(|vip| !needs.full_nat_vips.contains(vip));

    let mut steps = Vec::new();
    for &is_ipv6 in &families {
        if needs.has_nat(is_ipv6) {
            steps.extend(
                [
                    everything(is_ipv6, reply_table, &to_device, None),
                    // When the director is killed, its device and the route above go. Replies must
                    // not fall through to the main table then, and leave with a real server's
                    // address.
                    everything(is_ipv6, reply_table, &Via::BlackHole, Some(LAST_METRIC)),
                    // Errors must: most are not about the director's packets.
                    everything(is_ipv6, error_table, &to_device, None),
                ]
                .map(Step::Route),
            );
        }
        steps.push(Step::Rule(rule(
            GUARD_PRIORITY,
            is_ipv6,
            &needs.device.as_str().into(),
            guard_table,
        )));
    }
    for &address in &own {
        steps.push(Step::Route(to_own(address, Some(guard_table), &Via::BlackHole)));
    }
    for &vip in &refused {
        steps.push(Step::Route(to_own(vip, Some(refusal_table), &Via::Prohibit)));
    }
    for &is_ipv6 in &families {
        // With full NAT errors about translated packets come to the director anyway: they go to
        // an address of a pool.
        if needs.has_nat(is_ipv6) {
            steps.push(Step::Rule(error_rule(is_ipv6, error_table)));
            steps.push(Step::Rule(rule(REFUSAL_PRIORITY, is_ipv6, &LOCAL.into(), refusal_table)));
        }
    }
    let mut order = Order::default();
    for &is_ipv6 in &families {
        let rules = reply_rules(&around.servers, is_ipv6, reply_table, before, &mut order);
        steps.extend(rules.into_iter().map(Step::Rule));
    }
    steps.extend(settings(needs, around, &families).into_iter().map(Step::Setting));
    steps.extend(own.into_iter().map(|address| Step::Route(to_own(address, None, &to_device))));
    Plan { steps, order }
}

/// Those of `steps` that are none of `others`, in their order.
pub(super) fn without<'a>(
    steps: &'a [Step],
    others: &[Step],
) -> impl DoubleEndedIterator<Item = &'a Step> {
    let others: Set<&Step> = others.iter().collect();
    steps.iter().filter(move |step| !others.contains(step)).collect::<Vec<_>>().into_iter()
}

/// The input of packets that the host itself sends.
const LOCAL: &str = "lo";

/// The rule for errors about what the director sent, say that a real server is unreachable: they
/// quote the translated packet, so they have to be translated. Ports stand for an ICMP message's
/// type and code: the kernel keeps them in the same place when it looks for a route.
fn error_rule(is_ipv6: bool, table: u32) -> Rule {
    let types = if is_ipv6 {
        // Destination unreachable, any code, to packet too big (RFC 4443 section 3).
        0x0100..=0x0200
    } else {
        // Destination unreachable, "fragmentation needed" among its codes (RFC 792, RFC 1812).
        0x0300..=0x030f
    };
    Rule {
        protocol: Some(icmp(is_ipv6)),
        destination_ports: Some(types),
        ..rule(ERROR_PRIORITY, is_ipv6, &LOCAL.into(), table)
    }
}

/// The rules that lead replies of the family to the director. One for each server; for each link that
/// has servers one for ICMP, since errors about translated packets come from any router behind it and
/// echo replies have no port; and for each link two that find the fragments, which have no port either.
fn reply_rules(
    servers: &[(Protocol, SocketAddr, Arc<str>)],
    is_ipv6: bool,
    table: u32,
    before: &Order,
    order: &mut Order,
) -> Vec<Rule> {
    let servers = || servers.iter().filter(|(_, server, _)| server.is_ipv6() == is_ipv6);
    let of_servers = rules_for_servers(servers(), table);
    let Tree { mut rules, branches } = Tree::new(of_servers, is_ipv6, table, before, order);
    // Servers share links.
    let mut seen = Set::default();
    for (_, _, link) in servers().filter(|(_, _, link)| seen.insert(link)) {
        rules.push(Rule {
            protocol: Some(icmp(is_ipv6)),
            ..rule(REPLY_PRIORITY, is_ipv6, link, table)
        });
    }
    let mut seen = Set::default();
    let with_ports = servers().filter(|server| has_ports(server.0));
    for (protocol, _, link) in
        with_ports.filter(|(protocol, _, link)| seen.insert((protocol.name(), link)))
    {
        let of_link = |priority| Rule {
            protocol: Some((protocol.number(is_ipv6), protocol.name())),
            ..rule(priority, is_ipv6, link, table)
        };
        rules.push(Rule {
            source_ports: Some(ANY_PORT),
            goto: Some(ERROR_PRIORITY),
            ..of_link(WHOLE_PRIORITY)
        });
        rules.push(of_link(FRAGMENT_PRIORITY));
    }
    rules.extend(branches);
    rules
}

/// The rule for the replies of each server that needs one: a server that has all ports needs none for
/// a single one, and what comes from port 65535 goes the way of fragments, since no rule can ask for
/// it.
pub(super) fn rules_for_servers<'a>(
    servers: impl Iterator<Item = &'a (Protocol, SocketAddr, Arc<str>)> + Clone,
    table: u32,
) -> Vec<(SocketAddr, Rule)> {
    let servers = servers.filter(|(protocol, ..)| has_ports(*protocol));
    let has_all_ports = |server: &SocketAddr| server.port() == 0;
    let with_all_ports: Set<_> = servers
        .clone()
        .filter(|(_, server, _)| has_all_ports(server))
        .map(|(protocol, server, _)| (protocol.name(), server.ip()))
        .collect();
    // Services share servers.
    let mut seen = Set::default();
    servers
        .filter(|(protocol, server, _)| {
            let is_covered = with_all_ports.contains(&(protocol.name(), server.ip()));
            let is_needed =
                has_all_ports(server) || !is_covered && ANY_PORT.contains(&server.port());
            is_needed && seen.insert((protocol.name(), *server))
        })
        .map(|(protocol, server, link)| {
            let rule = Rule {
                source: Some(Prefix::of_one(server.ip())),
                protocol: Some((protocol.number(server.is_ipv6()), protocol.name())),
                source_ports: (!has_all_ports(server)).then(|| server.port()..=server.port()),
                ..rule(REPLY_PRIORITY, server.is_ipv6(), link, table)
            };
            (*server, rule)
        })
        .collect()
}

fn has_ports(protocol: Protocol) -> bool {
    protocol != Protocol::Icmp
}

fn icmp(is_ipv6: bool) -> (u8, &'static str) {
    (Protocol::Icmp.number(is_ipv6), if is_ipv6 { "ipv6-icmp" } else { "icmp" })
}

/// A rule for all that comes in by `input`.
fn rule(priority: u32, is_ipv6: bool, input: &Arc<str>, table: u32) -> Rule {
    Rule {
        priority,
        is_ipv6,
        source: None,
        input: Some(Arc::clone(input)),
        protocol: None,
        source_ports: None,
        destination_ports: None,
        table,
        goto: None,
    }
}

fn settings(needs: &RouteNeeds, around: &Surroundings, families: &[bool]) -> Vec<Setting> {
    let device = &needs.device;
    let setting = |name: &str, value: &str| Setting {
        name: name.to_owned(),
        value: value.to_owned(),
        along: Vec::new(),
        is_of_device: false,
    };
    let of_device = |family: &str, leaf: &str, value: &str| Setting {
        is_of_device: true,
        ..setting(&format!("net/{family}/conf/{device}/{leaf}"), value)
    };
    // With a socket of the host's own in some state on a VIP's port, early demultiplexing would
    // bind forwarded packets to it, and forwarding would drop them. Serves both families.
    let mut settings = vec![setting("net/ipv4/ip_early_demux", "0")];
    if families.contains(&false) {
        // With NAT, sources of what the director writes are clients, whose way back is elsewhere.
        // The greater of the two values counts.
        if needs.has_nat(false) {
            settings.push(setting("net/ipv4/conf/all/rp_filter", "0"));
        }
        settings.push(of_device("ipv4", "rp_filter", "0"));
        // The strict check would look for the way back of a ping to a server, and find the rule for
        // the server's own ICMP; the loose one asks only whether there is some way back.
        if needs.has_nat(false) {
            settings.extend(around.strict_rp_filter.iter().map(|name| setting(name, "2")));
        }
        // The host's own ICMP errors come by the director and have addresses of the host.
        settings.push(of_device("ipv4", "accept_local", "1"));
        // Either value switches them on.
        settings.push(setting("net/ipv4/conf/all/send_redirects", "0"));
        settings.push(of_device("ipv4", "send_redirects", "0"));
        settings.push(Setting {
            along: around.along_ipv4_forwarding.clone(),
            ..setting("net/ipv4/ip_forward", "1")
        });
    }
    if families.contains(&true) {
        settings.push(of_device("ipv6", "disable_ipv6", "0"));
        settings.push(of_device("ipv6", "accept_ra", "0"));
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
        let Plan { steps, .. } = plan(needs, around, tables, &Order::default());
        let lines: Vec<_> = steps.iter().map(Step::to_string).collect();
        lines.join("\n")
    }

    fn needs(vips: &[&str]) -> RouteNeeds {
        RouteNeeds {
            device: "wvs0".to_owned(),
            vips: vips.iter().map(|vip| vip.parse().unwrap()).collect(),
            ..RouteNeeds::default()
        }
    }

    fn with_nat(vip: &str, around: &Surroundings) -> RouteNeeds {
        let servers = around.servers.iter().map(|(protocol, server, _)| (*protocol, *server));
        RouteNeeds { servers: servers.collect(), ..needs(&[vip]) }
    }

    fn around(servers: &[(Protocol, &str, &str)]) -> Surroundings {
        let servers = servers
            .iter()
            .map(|(protocol, server, link)| (*protocol, server.parse().unwrap(), (*link).into()))
            .collect();
        Surroundings { servers, ..Surroundings::default() }
    }

    #[test]
    fn ipv4_service_is_routed_by_these_commands() {
        let mut around = around(&[
            (Protocol::Tcp, "10.20.1.2:8080", "eth1"),
            (Protocol::Tcp, "10.20.2.2:8080", "eth2"),
            (Protocol::Udp, "10.20.2.2:53", "eth2"),
            (Protocol::Tcp, "10.20.2.2:8080", "eth2"),
        ]);
        around.strict_rp_filter.push("net/ipv4/conf/eth0/rp_filter".to_owned());
        let expected = "\
ip route add default dev wvs0 table 11900 proto 119
ip route add blackhole default table 11900 metric 9999 proto 119
ip route add default dev wvs0 table 11902 proto 119
ip rule add pref 900 iif wvs0 lookup 11901 protocol 119
ip route add blackhole 10.30.0.1/32 table 11901 proto 119
ip route add prohibit 10.30.0.1/32 table 11903 proto 119
ip rule add pref 1993 iif lo ipproto icmp dport 768-783 lookup 11902 protocol 119
ip rule add pref 1994 iif lo lookup 11903 protocol 119
ip rule add pref 1000 from 10.20.1.2 iif eth1 ipproto tcp sport 8080 lookup 11900 protocol 119
ip rule add pref 1000 from 10.20.2.2 iif eth2 ipproto tcp sport 8080 lookup 11900 protocol 119
ip rule add pref 1000 from 10.20.2.2 iif eth2 ipproto udp sport 53 lookup 11900 protocol 119
ip rule add pref 1000 iif eth1 ipproto icmp lookup 11900 protocol 119
ip rule add pref 1000 iif eth2 ipproto icmp lookup 11900 protocol 119
ip rule add pref 1991 iif eth1 ipproto tcp sport 1-65534 lookup 11900 goto 1993 protocol 119
ip rule add pref 1992 iif eth1 ipproto tcp lookup 11900 protocol 119
ip rule add pref 1991 iif eth2 ipproto tcp sport 1-65534 lookup 11900 goto 1993 protocol 119
ip rule add pref 1992 iif eth2 ipproto tcp lookup 11900 protocol 119
ip rule add pref 1991 iif eth2 ipproto udp sport 1-65534 lookup 11900 goto 1993 protocol 119
ip rule add pref 1992 iif eth2 ipproto udp lookup 11900 protocol 119
sysctl -w net.ipv4.ip_early_demux=0
sysctl -w net.ipv4.conf.all.rp_filter=0
sysctl -w net.ipv4.conf.wvs0.rp_filter=0
sysctl -w net.ipv4.conf.eth0.rp_filter=2
sysctl -w net.ipv4.conf.wvs0.accept_local=1
sysctl -w net.ipv4.conf.all.send_redirects=0
sysctl -w net.ipv4.conf.wvs0.send_redirects=0
sysctl -w net.ipv4.ip_forward=1
ip route add 10.30.0.1/32 dev wvs0 proto 119";
        assert_eq!(shown(&with_nat("10.30.0.1", &around), &around), expected);
    }

    #[test]
    fn documentation_shows_these_commands() {
        let around = around(&[
            (Protocol::Tcp, "10.0.0.11:8080", "eth1"),
            (Protocol::Tcp, "10.0.0.12:8080", "eth1"),
        ]);
        let commands = shown(&with_nat("203.0.113.10", &around), &around);
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
ip -6 route add default dev wvs0 table 11902 proto 119
ip -6 rule add pref 900 iif wvs0 lookup 11901 protocol 119
ip -6 route add blackhole fd00:30::1/128 table 11901 proto 119
ip -6 route add prohibit fd00:30::1/128 table 11903 proto 119
ip -6 rule add pref 1993 iif lo ipproto ipv6-icmp dport 256-512 lookup 11902 protocol 119
ip -6 rule add pref 1994 iif lo lookup 11903 protocol 119
ip -6 rule add pref 1000 iif eth1 ipproto ipv6-icmp lookup 11900 protocol 119
sysctl -w net.ipv4.ip_early_demux=0
sysctl -w net.ipv6.conf.wvs0.disable_ipv6=0
sysctl -w net.ipv6.conf.wvs0.accept_ra=0
sysctl -w net.ipv6.conf.eth1.accept_ra=2
sysctl -w net.ipv6.conf.all.forwarding=1
ip -6 route add fd00:30::1/128 dev wvs0 proto 119";
        assert_eq!(shown(&with_nat("fd00:30::1", &around), &around), expected);
    }

    #[test]
    fn full_nat_needs_no_rules_for_replies() {
        let needs = RouteNeeds {
            full_nat_vips: vec!["10.30.0.1".parse().unwrap()],
            pools: ["10.40.0.1", "10.30.0.1"].map(|pool| pool.parse().unwrap()).to_vec(),
            full_nat_servers: vec!["10.20.1.2:8080".parse().unwrap()],
            ..needs(&["10.30.0.1"])
        };
        let expected = "\
ip rule add pref 900 iif wvs0 lookup 11901 protocol 119
ip route add blackhole 10.30.0.1/32 table 11901 proto 119
ip route add blackhole 10.40.0.1/32 table 11901 proto 119
sysctl -w net.ipv4.ip_early_demux=0
sysctl -w net.ipv4.conf.wvs0.rp_filter=0
sysctl -w net.ipv4.conf.wvs0.accept_local=1
sysctl -w net.ipv4.conf.all.send_redirects=0
sysctl -w net.ipv4.conf.wvs0.send_redirects=0
sysctl -w net.ipv4.ip_forward=1
ip route add 10.30.0.1/32 dev wvs0 proto 119
ip route add 10.40.0.1/32 dev wvs0 proto 119";
        assert_eq!(shown(&needs, &around(&[])), expected);
    }

    /// What an update from the one to the other adds, and what it then takes back.
    fn update(
        (old_needs, old_around): (&RouteNeeds, &Surroundings),
        (new_needs, new_around): (&RouteNeeds, &Surroundings),
    ) -> String {
        let tables = Tables::all().next().unwrap();
        let old = plan(old_needs, old_around, tables, &Order::default());
        let new = plan(new_needs, new_around, tables, &old.order);
        let added = without(&new.steps, &old.steps).map(|step| format!("+ {step}"));
        let taken_back = without(&old.steps, &new.steps).rev().map(|step| format!("- {step}"));
        added.chain(taken_back).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn update_touches_only_what_differs() {
        let old = around(&[
            (Protocol::Tcp, "10.20.1.2:8080", "eth1"),
            (Protocol::Tcp, "10.20.1.3:8080", "eth1"),
        ]);
        let new = around(&[
            (Protocol::Tcp, "10.20.1.3:8080", "eth1"),
            (Protocol::Udp, "10.20.2.2:53", "eth2"),
        ]);
        let expected = "\
+ ip route add blackhole 10.30.0.2/32 table 11901 proto 119
+ ip route add prohibit 10.30.0.2/32 table 11903 proto 119
+ ip rule add pref 1000 from 10.20.2.2 iif eth2 ipproto udp sport 53 lookup 11900 protocol 119
+ ip rule add pref 1000 iif eth2 ipproto icmp lookup 11900 protocol 119
+ ip rule add pref 1991 iif eth2 ipproto udp sport 1-65534 lookup 11900 goto 1993 protocol 119
+ ip rule add pref 1992 iif eth2 ipproto udp lookup 11900 protocol 119
+ ip route add 10.30.0.2/32 dev wvs0 proto 119
- ip route add 10.30.0.1/32 dev wvs0 proto 119
- ip rule add pref 1000 from 10.20.1.2 iif eth1 ipproto tcp sport 8080 lookup 11900 protocol 119
- ip route add prohibit 10.30.0.1/32 table 11903 proto 119
- ip route add blackhole 10.30.0.1/32 table 11901 proto 119";
        let (from, to) = (with_nat("10.30.0.1", &old), with_nat("10.30.0.2", &new));
        assert_eq!(update((&from, &old), (&to, &new)), expected);
        assert_eq!(update((&from, &old), (&from, &old)), "");
    }

    #[test]
    fn first_service_of_a_family_brings_all_that_it_needs_and_the_last_takes_it_along() {
        let v4 = around(&[(Protocol::Tcp, "10.20.1.2:8080", "eth1")]);
        let v6 = around(&[(Protocol::Tcp, "[fd00:20:1::2]:8080", "eth1")]);
        let (from, to) = (with_nat("10.30.0.1", &v4), with_nat("fd00:30::1", &v6));
        let update = update((&from, &v4), (&to, &v6));
        let count = |start: &str| update.lines().filter(|line| line.starts_with(start)).count();
        // All but early demultiplexing, which serves both.
        let all = |needs, around| shown(needs, around).lines().count() - 1;
        assert_eq!((count("+"), count("-")), (all(&to, &v6), all(&from, &v4)), "{update}");
    }

    #[test]
    fn settings_that_were_changed_are_still_needed() {
        let done = [Step::Setting(Setting {
            name: "net/ipv6/conf/eth7/accept_ra".to_owned(),
            value: "2".to_owned(),
            along: Vec::new(),
            is_of_device: false,
        })];
        let around = Surroundings::around(&needs(&[]), Vec::new(), &done);
        assert!(around.accept_ra.contains(&"net/ipv6/conf/eth7/accept_ra".to_owned()));
        assert!(!around.strict_rp_filter.contains(&"net/ipv6/conf/eth7/accept_ra".to_owned()));
    }

    #[test]
    fn server_with_all_ports_needs_one_rule_without_a_port() {
        let around = around(&[
            (Protocol::Tcp, "10.20.1.2:8080", "eth1"),
            (Protocol::Tcp, "10.20.1.2:0", "eth1"),
            (Protocol::Udp, "10.20.1.2:53", "eth1"),
            (Protocol::Udp, "10.20.1.3:65535", "eth1"),
        ]);
        let rules = shown(&with_nat("10.30.0.1", &around), &around);
        let of_servers: Vec<_> = rules.lines().filter(|line| line.contains(" from ")).collect();
        let expected = [
            "ip rule add pref 1000 from 10.20.1.2 iif eth1 ipproto tcp lookup 11900 protocol 119",
            "ip rule add pref 1000 from 10.20.1.2 iif eth1 ipproto udp sport 53 lookup 11900 protocol 119",
        ];
        assert_eq!(of_servers, expected);
    }

    #[test]
    fn tables_in_use_by_somebody_are_passed_over() {
        let in_use = TableNumbers::from([254, 11_900, 11_903]);
        let tables = Tables::all().find(|tables| tables.are_none_of(&in_use)).unwrap();
        assert_eq!(tables.numbers(), [11_904, 11_905, 11_906, 11_907]);
    }
}
