//! What the kernel does with the director's packets, for `wvs doctor`: looks, and changes nothing.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use futures_util::StreamExt;
use rtnetlink::packet_route::route::{RouteAttribute, RouteMessage, RouteProtocol, RouteType};
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};

use super::netlink::{HostAddress, Link, Netlink, Packet, Taken, Way, table_of_rule};
use super::plan::{LAST_PRIORITY, REPLY_PRIORITY, Tables, WHOLE_PRIORITY, plan};
use super::step::{Prefix, Rule, Step, full_length, ip};
use super::tree::Order;
use super::{
    Known, Links, PROTOCOL, RouteError, RouteNeeds, left_over, surroundings, tables_in_use,
    unfit_addresses,
};
use crate::sysctl;

/// A conversation with the kernel about what a director needs, in the network namespace of the thread
/// that began it.
#[derive(Debug)]
pub(crate) struct Inspector {
    netlink: Netlink,
    needs: RouteNeeds,
    /// This host's own addresses.
    addresses: Vec<HostAddress>,
    rules: Vec<RuleMessage>,
}

/// What has to be set, and how the kernel is set now.
#[derive(Debug, Default)]
pub(crate) struct Gaps {
    /// Settings with other values, in the order of the plan.
    pub(crate) settings: Vec<WrongSetting>,
    /// The commands for routes and rules that are missing, in the order of the plan.
    pub(crate) commands: Vec<String>,
}

/// A setting with another value than packets need.
#[derive(Clone, Debug)]
pub(crate) struct WrongSetting {
    /// As [`sysctl`] names it.
    pub(crate) name: String,
    pub(crate) is: String,
    pub(crate) wanted: String,
    /// Of the director's own device, so that a start makes it.
    pub(crate) is_of_device: bool,
}

/// A rule of somebody else's that is looked at before the director's.
#[derive(Clone, Debug)]
pub(crate) struct EarlierRule {
    /// The command that would make it.
    pub(crate) shown: String,
    /// The commands that put it behind the director's rules.
    pub(crate) moved: Vec<String>,
}

/// The way to a real server.
#[derive(Clone, Debug)]
pub(crate) struct ServerWay {
    pub(crate) server: SocketAddr,
    pub(crate) link: Link,
    pub(crate) gateway: Option<IpAddr>,
    /// The host's own address that it would use.
    pub(crate) source: Option<IpAddr>,
    /// The longest packet in octets.
    pub(crate) mtu: Option<u32>,
}

impl ServerWay {
    /// The way to `server` among `ways`, which are in the order of the servers.
    pub(crate) fn to(ways: &[Self], server: SocketAddr) -> Option<&Self> {
        let place = ways.binary_search_by_key(&server, |way| way.server).ok()?;
        ways.get(place)
    }
}

impl Inspector {
    /// Begins the conversation. Needs no rights; to be called within a tokio runtime.
    ///
    /// # Errors
    /// [`RouteError::Netlink`].
    pub(crate) async fn connect(needs: RouteNeeds) -> Result<Self, RouteError> {
        let netlink = Netlink::connect()?;
        let addresses = netlink.addresses().await?;
        let rules = netlink.rules().await?;
        Ok(Self { netlink, needs, addresses, rules })
    }

    pub(crate) fn needs(&self) -> &RouteNeeds {
        &self.needs
    }

    pub(crate) fn addresses(&self) -> &[HostAddress] {
        &self.addresses
    }

    /// The director's device, if there is one.
    pub(crate) async fn device(&self) -> Option<Link> {
        self.netlink.link(&self.needs.device).await.ok()
    }

    pub(crate) async fn link(&self, index: u32) -> Option<Link> {
        self.netlink.link_at(index).await.ok()
    }

    /// What a start would refuse about addresses and servers: all of it, where a start stops at the
    /// first. `is_running` leaves out what only concerns a start.
    pub(crate) async fn refusals(&self, is_running: bool) -> Result<Vec<RouteError>, RouteError> {
        let needs = &self.needs;
        let mut refusals = unfit_addresses(&self.netlink, needs, &Known::default()).await;
        let own = needs.own_addresses();
        let nat: HashSet<SocketAddr> = needs.servers.iter().map(|(_, server)| *server).collect();
        let servers: BTreeSet<SocketAddr> = needs.all_servers().collect();
        let (virtual_ones, servers): (Vec<_>, Vec<_>) =
            servers.into_iter().partition(|server| own.contains(&server.ip()));
        for server in virtual_ones {
            refusals.push(RouteError::ServerIsVip { server });
        }
        let mut ways = self
            .netlink
            .ways_to(servers.iter().map(SocketAddr::ip))
            .zip(futures_util::stream::iter(servers.iter().copied()));
        while let Some(((_, way), server)) = ways.next().await {
            match way {
                Ok(Way { is_local: true, .. }) if nat.contains(&server) => {
                    refusals.push(RouteError::ServerIsLocal { server });
                }
                Ok(Way { is_unicast: false, is_local: false, .. }) => {
                    let source = io::ErrorKind::HostUnreachable.into();
                    refusals.push(RouteError::NoRoute { server, source });
                }
                Ok(_) => {}
                Err(source) => refusals.push(RouteError::NoRoute { server, source }),
            }
        }
        if !is_running {
            let around = surroundings(needs, &self.links().await, &[]);
            refusals.extend(tables_in_use(&self.netlink, &needs.device, &around).await.err());
            // Where an address is this host's own a route to it comes along.
            let unfit: Vec<IpAddr> = refusals
                .iter()
                .filter_map(|refusal| match refusal {
                    RouteError::IsLocal { address, .. } => Some(*address),
                    _ => None,
                })
                .collect();
            for route in self.netlink.routes().await? {
                let mut routed = own.iter().filter(|address| !unfit.contains(address));
                let exact = routed.find(|address| is_exactly_to(&route, **address));
                refusals.extend(exact.map(|address| RouteError::IsRouted { address: *address }));
            }
        }
        Ok(refusals)
    }

    /// The ways to the servers that can be reached, in the order of the servers.
    pub(crate) async fn ways(&self) -> Vec<ServerWay> {
        let servers: BTreeSet<SocketAddr> = self.needs.all_servers().collect();
        let mut links: HashMap<u32, Link> = HashMap::new();
        let mut ways = Vec::new();
        let mut answers = self
            .netlink
            .ways_to(servers.iter().map(SocketAddr::ip))
            .zip(futures_util::stream::iter(servers.iter().copied()));
        while let Some(((_, way), server)) = answers.next().await {
            let Ok(way) = way else { continue };
            if way.is_local || !way.is_unicast {
                continue;
            }
            let link = match links.get(&way.link_index) {
                Some(link) => link.clone(),
                None => {
                    let Some(link) = self.link(way.link_index).await else { continue };
                    links.insert(way.link_index, link.clone());
                    link
                }
            };
            let mtu = [way.mtu, link.mtu].into_iter().flatten().min();
            ways.push(ServerWay { server, link, gateway: way.gateway, source: way.source, mtu });
        }
        ways
    }

    /// The link that leads to `address`.
    pub(crate) async fn link_to(&self, address: IpAddr) -> Option<Link> {
        let way = self.netlink.way_to(address).await.ok().filter(|way| way.is_unicast)?;
        self.link(way.link_index).await
    }

    /// The links that lead to servers with NAT.
    async fn links(&self) -> Links {
        let ways = self.ways().await;
        ways.into_iter().map(|way| (way.server.ip(), Arc::from(way.link.name))).collect()
    }

    /// What a start would do now.
    async fn plan(&self) -> Vec<Step> {
        let around = surroundings(&self.needs, &self.links().await, &[]);
        let device = &self.needs.device;
        let own = self.rules.iter().find_map(|rule| left_over::tables_of(rule, device));
        let in_use = self.rules.iter().map(table_of_rule).collect();
        let free = || Tables::all().find(|tables| tables.are_none_of(&in_use));
        own.or_else(free).map_or_else(Vec::new, |tables| {
            plan(&self.needs, &around, tables, &Order::default()).steps
        })
    }

    /// How far the kernel is from what routes packets to the director and back.
    ///
    /// # Errors
    /// [`RouteError::Netlink`].
    pub(crate) async fn gaps(&self) -> Result<Gaps, RouteError> {
        let routes = self.netlink.routes().await?;
        let device = self.device().await.map(|link| link.index);
        let ours = self.rules.iter().filter(|rule| left_over::is_ours(rule));
        let rules: HashSet<Rule> = ours.filter_map(Rule::read).map(without_place).collect();
        let mut gaps = Gaps::default();
        for step in self.plan().await {
            match &step {
                Step::Setting(setting) => {
                    if let Ok(is) = sysctl::read(&setting.name)
                        && is != setting.value
                    {
                        gaps.settings.push(WrongSetting {
                            name: setting.name.clone(),
                            is,
                            wanted: setting.value.clone(),
                            is_of_device: setting.is_of_device,
                        });
                    }
                }
                Step::Route(route) => {
                    let wanted = route.message(device.unwrap_or_default());
                    if !routes.iter().any(|route| is_same_route(route, &wanted)) {
                        gaps.commands.push(step.to_string());
                    }
                }
                Step::Rule(rule) => {
                    if !rules.contains(&without_place(rule.clone())) {
                        gaps.commands.push(step.to_string());
                    }
                }
            }
        }
        Ok(gaps)
    }

    /// The commands of the plan that lead requests to `vip`, or the replies of `server`, to the
    /// director.
    pub(crate) async fn commands_for(&self, leads: Lead) -> Vec<String> {
        let is_wanted = |step: &Step| match (step, leads) {
            (step, Lead::Requests(vip)) => step.own_address() == Some(vip),
            (Step::Rule(rule), Lead::Replies(server)) => {
                rule.source == Some(Prefix::of_one(server.ip()))
            }
            (Step::Route(route), Lead::Replies(server)) => {
                route.is_ipv6 == server.is_ipv6() && step.is_reply_route()
            }
            _ => false,
        };
        self.plan().await.iter().filter(|step| is_wanted(step)).map(Step::to_string).collect()
    }

    /// Where the kernel would send `packet`, which comes in by a link.
    ///
    /// # Errors
    /// It would drop it.
    pub(crate) async fn take(&self, packet: &Packet) -> io::Result<Taken> {
        self.netlink.take(packet).await
    }

    /// Rules of others that come before the director's and may have sent `packet` to `table`, or have
    /// dropped it.
    pub(crate) fn rules_before(&self, packet: &Packet, table: Option<u32>) -> Vec<EarlierRule> {
        let is_before = |rule: &&RuleMessage| {
            let priority = priority_of(rule);
            priority > 0 && priority <= LAST_PRIORITY && !left_over::is_ours(rule)
        };
        let before = self.rules.iter().filter(is_before);
        before
            .filter(|rule| match table {
                Some(table) => table_of_rule(rule) == table,
                None => true,
            } && rule.header.action == RuleAction::ToTable)
            .filter(|rule| may_match(rule, packet))
            .map(earlier_rule)
            .collect()
    }

    /// The smallest MTU on the ways to servers and clients.
    pub(crate) async fn smallest_mtu(&self) -> Result<u16, RouteError> {
        super::smallest_mtu(&self.netlink, &self.needs).await
    }

    /// Whether this host answers for `address` in the network of the link, as a neighbour would.
    ///
    /// # Errors
    /// [`RouteError::Netlink`].
    pub(crate) async fn is_proxied(&self, address: IpAddr, link: u32) -> Result<bool, RouteError> {
        self.netlink.is_proxied(address, link).await
    }

    /// The addresses that were asked for and that nobody in the networks around has.
    ///
    /// # Errors
    /// [`RouteError::Netlink`].
    pub(crate) async fn absent_neighbours(&self) -> Result<BTreeSet<IpAddr>, RouteError> {
        self.netlink.absent_neighbours().await
    }

    /// The commands that remove every route by which `address` is this host's own, or leads elsewhere.
    ///
    /// # Errors
    /// [`RouteError::Netlink`].
    pub(crate) async fn remove_routes_to(
        &self,
        address: IpAddr,
    ) -> Result<Vec<String>, RouteError> {
        let mut commands = Vec::new();
        for route in self.netlink.routes().await? {
            let is_local = route.header.kind == RouteType::Local
                && route.header.destination_prefix_length == full_length(address.is_ipv6())
                && route.attributes.contains(&RouteAttribute::Destination(address.into()));
            if !is_local && !is_exactly_to(&route, address) {
                continue;
            }
            let mut command = format!("{} route del ", ip(address.is_ipv6()));
            if is_local {
                command += "local ";
            }
            command += &address.to_string();
            for attribute in &route.attributes {
                match attribute {
                    RouteAttribute::Gateway(_) => {}
                    RouteAttribute::Oif(index) => {
                        if let Some(link) = self.link(*index).await {
                            command += &format!(" dev {}", link.name);
                        }
                    }
                    RouteAttribute::Table(table) if *table != MAIN => {
                        command += &format!(" table {table}");
                    }
                    _ => {}
                }
            }
            commands.push(command);
        }
        Ok(commands)
    }
}

/// Packets that have to be led to the director.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Lead {
    /// From clients to a VIP.
    Requests(IpAddr),
    /// From a real server to clients.
    Replies(SocketAddr),
}

/// The table of routes that people make.
const MAIN: u32 = 254;

fn table_of_route(route: &RouteMessage) -> u32 {
    let attribute = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    attribute.unwrap_or_else(|| u32::from(route.header.table))
}

/// Whether `route` is in the main table, leads to `address` alone, and is not a director's: such a
/// one keeps a start from adding its own.
fn is_exactly_to(route: &RouteMessage, address: IpAddr) -> bool {
    route.header.destination_prefix_length == full_length(address.is_ipv6())
        && route.attributes.contains(&RouteAttribute::Destination(address.into()))
        && table_of_route(route) == MAIN
        && route.header.protocol != RouteProtocol::Other(PROTOCOL)
}

fn is_same_route(route: &RouteMessage, wanted: &RouteMessage) -> bool {
    let (has, wants) = (&route.header, &wanted.header);
    let wanted_table = table_of_route(wanted);
    has.address_family == wants.address_family
        && has.destination_prefix_length == wants.destination_prefix_length
        && has.kind == wants.kind
        && table_of_route(route) == wanted_table
        && wanted.attributes.iter().all(|attribute| {
            matches!(attribute, RouteAttribute::Table(_)) || route.attributes.contains(attribute)
        })
}

/// The rule, but for where in the tree of rules it is: there a director that has had other servers
/// before may have put it elsewhere than one that starts now.
fn without_place(mut rule: Rule) -> Rule {
    let is_in_tree = |priority| (REPLY_PRIORITY..WHOLE_PRIORITY).contains(&priority);
    if is_in_tree(rule.priority) {
        rule.priority = REPLY_PRIORITY;
        rule.goto = rule.goto.map(|to| if is_in_tree(to) { REPLY_PRIORITY } else { to });
    }
    rule
}

fn priority_of(rule: &RuleMessage) -> u32 {
    let priority = rule.attributes.iter().find_map(|attribute| match attribute {
        RuleAttribute::Priority(priority) => Some(*priority),
        _ => None,
    });
    priority.unwrap_or_default()
}

/// Whether nothing that `rule` asks for speaks against `packet`.
fn may_match(rule: &RuleMessage, packet: &Packet) -> bool {
    let is_ipv6 = rule.header.family == rtnetlink::packet_route::AddressFamily::Inet6;
    is_ipv6 == packet.to.is_ipv6()
        && rule.attributes.iter().all(|attribute| match attribute {
            RuleAttribute::Iifname(name) => *name == packet.input.name,
            RuleAttribute::Source(address) => is_in(packet.from, *address, rule.header.src_len),
            RuleAttribute::Destination(address) => is_in(packet.to, *address, rule.header.dst_len),
            RuleAttribute::IpProtocol(protocol) => {
                i32::from(*protocol) == i32::from(packet.protocol.number(is_ipv6))
            }
            RuleAttribute::SourcePortRange(range) => {
                (range.start..=range.end).contains(&packet.source_port)
            }
            RuleAttribute::DestinationPortRange(range) => {
                (range.start..=range.end).contains(&packet.destination_port)
            }
            _ => true,
        })
}

/// Whether `address` begins with the first `length` bits of `network`.
pub(crate) fn is_in(address: IpAddr, network: IpAddr, length: u8) -> bool {
    match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) => {
            let differ = address.to_bits() ^ network.to_bits();
            differ.leading_zeros() >= u32::from(length)
        }
        (IpAddr::V6(address), IpAddr::V6(network)) => {
            let differ = address.to_bits() ^ network.to_bits();
            differ.leading_zeros() >= u32::from(length)
        }
        _ => false,
    }
}

/// `rule` as commands.
fn earlier_rule(rule: &RuleMessage) -> EarlierRule {
    let is_ipv6 = rule.header.family == rtnetlink::packet_route::AddressFamily::Inet6;
    let mut rest = String::new();
    for attribute in &rule.attributes {
        match attribute {
            RuleAttribute::Source(address) => {
                rest += &format!(" from {address}/{}", rule.header.src_len);
            }
            RuleAttribute::Destination(address) => {
                rest += &format!(" to {address}/{}", rule.header.dst_len);
            }
            RuleAttribute::Iifname(name) => rest += &format!(" iif {name}"),
            RuleAttribute::Oifname(name) => rest += &format!(" oif {name}"),
            RuleAttribute::FwMark(mark) if *mark != 0 => rest += &format!(" fwmark {mark:#x}"),
            RuleAttribute::IpProtocol(protocol) => {
                rest += &format!(" ipproto {}", i32::from(*protocol));
            }
            RuleAttribute::SourcePortRange(range) => {
                rest += &format!(" sport {}-{}", range.start, range.end);
            }
            RuleAttribute::DestinationPortRange(range) => {
                rest += &format!(" dport {}-{}", range.start, range.end);
            }
            _ => {}
        }
    }
    let rest = format!("{rest} lookup {}", table_of_rule(rule));
    let (ip, priority) = (ip(is_ipv6), priority_of(rule));
    EarlierRule {
        shown: format!("{ip} rule add pref {priority}{rest}"),
        moved: vec![
            format!("{ip} rule add pref {}{rest}", LAST_PRIORITY + 1),
            format!("{ip} rule del pref {priority}{rest}"),
        ],
    }
}
