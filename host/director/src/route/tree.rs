//! The rules for replies as a tree, so that a packet meets few of them however many servers there are.
//!
//! The kernel looks at rules one after the other, for every packet: at 16,000 of them that takes longer
//! than all the rest of a packet's way. A rule may also send packets on to a later one (`goto`). So
//! the rules of servers that begin with the same bits are together in a *bucket*, the buckets in
//! *groups*, and what comes before only asks for the first bits:
//!
//! ```text
//! 1000  root     from 10.0.0.0/22 goto 1002       from 10.0.4.0/22 goto 1004 ..
//! 1001           goto 1991
//! 1002  group    from 10.0.0.0/25 goto 1130       from 10.0.0.128/25 goto 1132 ..
//! 1003           goto 1991
//! 1130  bucket   from 10.0.0.1 iif eth1 ipproto tcp sport 8080 lookup 11900 ..
//! 1131           goto 1991
//! ```
//!
//! The bits are those of RIP and port, one after the other, since many servers may be ports of one
//! host. As long as all fit into one bucket there is no tree: they are the root's.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;

use super::plan::{ANY_PORT, REPLY_PRIORITY, WHOLE_PRIORITY};
use super::step::{Prefix, Rule, full_length};

/// Rules in a bucket, unless that makes too many buckets: then twice as many, and so on.
const BUCKET_RULES: usize = 64;

/// The same for the rules that a root or a group has for what is below.
const BRANCHES: usize = 32;

/// Groups have these priorities, and the one behind each for its end.
const GROUPS: Places = Places { first: REPLY_PRIORITY + 2, count: 64 };

/// The same for buckets, behind all groups because packets are only sent on forwards.
const BUCKETS: Places = Places { first: GROUPS.first + 2 * GROUPS.count, count: 430 };

const _: () = assert!(BUCKETS.first + 2 * BUCKETS.count <= WHOLE_PRIORITY, "the tree has no room");

/// Priorities for parts of a kind.
#[derive(Clone, Copy, Debug)]
struct Places {
    first: u32,
    count: u32,
}

/// The first bits of RIP and port, one after the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Bits {
    /// From the greatest bit on, for IPv4 too.
    address: u128,
    port: u16,
    length: u8,
}

impl Bits {
    /// All bits of the server, or those of its address if it has all ports.
    fn of(server: SocketAddr) -> Self {
        let address = match server.ip() {
            IpAddr::V4(address) => u128::from(address.to_bits()) << 96,
            IpAddr::V6(address) => address.to_bits(),
        };
        let length = full_length(server.is_ipv6()) + if server.port() == 0 { 0 } else { 16 };
        Self { address, port: server.port(), length }
    }

    /// The bit at `place`, counted from 0, of an address of `full` bits and its port.
    fn has(&self, place: u8, full: u8) -> bool {
        let (address, port) = bit(place, full);
        self.address & address != 0 || self.port & port != 0
    }

    /// One bit more.
    fn with(mut self, is_set: bool, full: u8) -> Self {
        if is_set {
            let (address, port) = bit(self.length, full);
            self.address |= address;
            self.port |= port;
        }
        self.length += 1;
        self
    }

    /// What a rule asks for to find packets that begin with these bits.
    fn selectors(self, full: u8) -> (Option<Prefix>, Option<RangeInclusive<u16>>) {
        let address = if full == 32 {
            let bits = u32::try_from(self.address >> 96).unwrap_or_default();
            IpAddr::V4(Ipv4Addr::from_bits(bits))
        } else {
            IpAddr::V6(Ipv6Addr::from_bits(self.address))
        };
        let length = self.length.min(full);
        let source = (length > 0).then_some(Prefix { address, length });
        let ports = (self.length > full).then(|| {
            let last = self.port | u16::MAX.checked_shr(u32::from(self.length - full)).unwrap_or(0);
            self.port.max(*ANY_PORT.start())..=last.min(*ANY_PORT.end())
        });
        (source, ports)
    }
}

/// The bit at `place` of an address of `full` bits and its port: in the one or in the other.
fn bit(place: u8, full: u8) -> (u128, u16) {
    match place.checked_sub(full) {
        None => (1 << (127 - place), 0),
        Some(place) => (0, 1 << (15 - place)),
    }
}

/// Which part has which place, to be the same as long as the part is: a server more or less moves
/// the rules of its bucket at most.
#[derive(Clone, Debug, Default)]
pub(super) struct Order {
    places: BTreeMap<Part, u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Part {
    is_ipv6: bool,
    is_group: bool,
    bits: Bits,
}

impl Order {
    /// The priorities of `parts`, all of one kind and family: what they have in `before`, or else what
    /// no other of them has. Such a place may still have rules of a part that goes: packets find what
    /// they are sent to among both.
    fn place(&mut self, parts: &[Part], before: &Self) -> Vec<u32> {
        let kept = parts.iter().filter_map(|part| before.places.get(part).copied());
        let kept: BTreeSet<u32> = kept.collect();
        let is_group = parts.first().is_some_and(|part| part.is_group);
        let Places { first, count } = if is_group { GROUPS } else { BUCKETS };
        let mut free =
            (0..count).map(|number| first + 2 * number).filter(|place| !kept.contains(place));
        let place = |part: &Part| {
            let place = before.places.get(part).copied().or_else(|| free.next()).unwrap_or(first);
            self.places.insert(*part, place);
            place
        };
        parts.iter().map(place).collect()
    }
}

/// The rules of a tree.
#[derive(Debug, Default)]
pub(super) struct Tree {
    /// Those of servers, the last first: the kernel looks for a rule's place from the front.
    pub(super) rules: Vec<Rule>,
    /// Those that send packets on, the last first, so that a packet finds what it is sent to.
    pub(super) branches: Vec<Rule>,
}

impl Tree {
    /// Orders `rules`, each of a server, of one family, and of the director with this reply `table`.
    /// `before` is the order that there is; `order` gets the new one.
    pub(super) fn new(
        rules: Vec<(SocketAddr, Rule)>,
        is_ipv6: bool,
        table: u32,
        before: &Order,
        order: &mut Order,
    ) -> Self {
        let full = full_length(is_ipv6);
        let bits: Vec<Bits> = rules.iter().map(|(server, _)| Bits::of(*server)).collect();
        if rules.len() <= BUCKET_RULES {
            return Self {
                rules: rules.into_iter().map(|(_, rule)| rule).collect(),
                ..Self::default()
            };
        }
        let buckets = divide_into(BUCKETS.count, BUCKET_RULES, &bits, full);
        let bucket_bits: Vec<Bits> = buckets.iter().map(|bucket| bucket.bits).collect();
        let groups = if buckets.len() <= BRANCHES {
            Vec::new()
        } else {
            divide_into(GROUPS.count, BRANCHES, &bucket_bits, full)
        };

        let mut tree = Self::default();
        let branch = |priority, goto| Rule {
            priority,
            is_ipv6,
            source: None,
            input: None,
            protocol: None,
            source_ports: None,
            destination_ports: None,
            table,
            goto: Some(goto),
        };
        let branch_to = |priority, bits: Bits, goto| {
            let (source, source_ports) = bits.selectors(full);
            Rule { source, source_ports, ..branch(priority, goto) }
        };
        let mut place = |is_group, divisions: &[Division]| {
            let part = |division: &Division| Part { is_ipv6, is_group, bits: division.bits };
            let parts: Vec<Part> = divisions.iter().map(part).collect();
            order.place(&parts, before)
        };
        let (places, group_places) = (place(false, &buckets), place(true, &groups));
        for (bucket, priority) in buckets.iter().zip(&places) {
            let rules = bucket.members.iter().map(|member| rules[*member].1.clone());
            tree.rules.extend(rules.map(|rule| Rule { priority: *priority, ..rule }));
            tree.branches.push(branch(priority + 1, WHOLE_PRIORITY));
        }
        let mut of_root = vec![branch(REPLY_PRIORITY + 1, WHOLE_PRIORITY)];
        for (group, &priority) in groups.iter().zip(&group_places) {
            tree.branches.push(branch(priority + 1, WHOLE_PRIORITY));
            let to_buckets = group
                .members
                .iter()
                .map(|member| branch_to(priority, bucket_bits[*member], places[*member]));
            tree.branches.extend(to_buckets);
            of_root.push(branch_to(REPLY_PRIORITY, group.bits, priority));
        }
        if groups.is_empty() {
            let to_buckets = bucket_bits.iter().zip(&places);
            of_root
                .extend(to_buckets.map(|(bits, place)| branch_to(REPLY_PRIORITY, *bits, *place)));
        }
        tree.branches.extend(of_root);
        tree.rules.sort_by_key(|rule| std::cmp::Reverse(rule.priority));
        tree.branches.sort_by_key(|rule| std::cmp::Reverse(rule.priority));
        tree
    }
}

/// Some that begin with the same bits.
#[derive(Debug)]
struct Division {
    bits: Bits,
    members: Vec<usize>,
}

/// Divides those that have these `bits` by the first ones into at most `count` parts of at most
/// `limit` members each, or of twice as many, and so on.
fn divide_into(count: u32, mut limit: usize, bits: &[Bits], full: u8) -> Vec<Division> {
    let members: Vec<usize> = (0..bits.len()).collect();
    loop {
        let mut parts = Vec::new();
        divide(bits, &members, Bits::default(), limit, full, &mut parts);
        if u32::try_from(parts.len()).is_ok_and(|parts| parts <= count) {
            return parts;
        }
        limit = limit.saturating_mul(2);
    }
}

/// Divides `members`, which all begin with `start`.
fn divide(
    bits: &[Bits],
    members: &[usize],
    start: Bits,
    limit: usize,
    full: u8,
    parts: &mut Vec<Division>,
) {
    if members.is_empty() {
        return;
    }
    let place = start.length;
    if members.len() <= limit || place == full + 16 {
        parts.push(Division { bits: start, members: members.to_vec() });
        return;
    }
    for side in [false, true] {
        // What has all ports is on both sides where ports divide.
        let is_on = |member: &usize| {
            bits[*member].length <= place || bits[*member].has(place, full) == side
        };
        let on_side: Vec<usize> = members.iter().copied().filter(is_on).collect();
        divide(bits, &on_side, start.with(side, full), limit, full, parts);
    }
}

#[cfg(test)]
mod tests {
    use wvs_core::service::Protocol;

    use super::super::plan::rules_for_servers;
    use super::*;

    const TABLE: u32 = 11_900;

    type Server = (Protocol, SocketAddr, std::sync::Arc<str>);

    fn tree(servers: &[Server], before: &Order) -> (Vec<Rule>, Order) {
        let mut order = Order::default();
        let is_ipv6 = servers[0].1.is_ipv6();
        let rules = rules_for_servers(servers.iter(), TABLE);
        let Tree { rules, branches } = Tree::new(rules, is_ipv6, TABLE, before, &mut order);
        let whole = Rule {
            priority: WHOLE_PRIORITY,
            goto: None,
            table: 0,
            ..branches.first().unwrap_or(&rules[0]).clone()
        };
        let end = Rule { source: None, input: None, protocol: None, source_ports: None, ..whole };
        ([vec![end], rules, branches].concat(), order)
    }

    /// The rules of a kernel, as it keeps them.
    #[derive(Default)]
    struct Kernel(BTreeMap<u32, Vec<Rule>>);

    impl Kernel {
        fn add(&mut self, rule: &Rule) {
            self.0.entry(rule.priority).or_default().push(rule.clone());
        }

        fn remove(&mut self, rule: &Rule) {
            let rules = self.0.get_mut(&rule.priority).unwrap();
            rules.remove(rules.iter().position(|other| other == rule).unwrap());
        }

        /// Whether a packet from `server` looks up the table for replies, and how many rules it met.
        fn leads(&self, (protocol, server, link): &Server) -> (bool, usize) {
            let (mut priority, mut met) = (0, 0);
            'from: loop {
                for rule in self.0.range(priority..).flat_map(|(_, rules)| rules) {
                    met += 1;
                    let full = full_length(server.is_ipv6());
                    let is_from = |source: &Prefix| {
                        let first = |address| {
                            let bits = Bits::of(SocketAddr::new(address, 0)).address;
                            bits.checked_shr(128 - u32::from(source.length)).unwrap_or(0)
                        };
                        assert!(source.length <= full);
                        first(source.address) == first(server.ip())
                    };
                    let number = protocol.number(server.is_ipv6());
                    if rule.source.as_ref().is_none_or(is_from)
                        && rule.input.as_ref().is_none_or(|input| input == link)
                        && rule.protocol.is_none_or(|(other, _)| other == number)
                        && rule.source_ports.as_ref().is_none_or(|p| p.contains(&server.port()))
                    {
                        match rule.goto {
                            Some(target) => {
                                assert!(target > rule.priority, "backwards");
                                if self.0.get(&target).is_some_and(|rules| !rules.is_empty()) {
                                    priority = target;
                                    continue 'from;
                                }
                            }
                            None => return (rule.table == TABLE, met),
                        }
                    }
                }
                return (false, met);
            }
        }
    }

    /// Numbers that look random and are always the same.
    struct Numbers(u64);

    impl Numbers {
        fn below(&mut self, end: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (self.0 >> 33) % end
        }
    }

    fn server(text: &str) -> Server {
        (Protocol::Tcp, text.parse().unwrap(), "eth1".into())
    }

    /// So many servers of a few kinds of networks: dense and sparse ones, and hosts with many ports.
    fn servers(count: usize, is_ipv6: bool, numbers: &mut Numbers) -> Vec<Server> {
        let mut servers = BTreeMap::new();
        while servers.len() < count {
            let (host, port) = match numbers.below(4) {
                0 => (numbers.below(1 << 24), 8080),
                1 => (0x10_0000 + numbers.below(1 << 12), 8080),
                2 => (0x20_0000 + numbers.below(8), 1 + numbers.below(65_534)),
                _ => (0x20_0000 + numbers.below(64), numbers.below(2) * 443),
            };
            let host = u32::try_from(host).unwrap();
            let address = if is_ipv6 {
                IpAddr::V6(Ipv6Addr::from_bits(0xfd00 << 112 | u128::from(host) << 40 | 2))
            } else {
                IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + host))
            };
            let protocol = if numbers.below(2) == 0 { Protocol::Tcp } else { Protocol::Udp };
            let server = SocketAddr::new(address, u16::try_from(port).unwrap());
            servers.insert((protocol.name(), server), (protocol, server, "eth1".into()));
        }
        servers.into_values().collect()
    }

    #[test]
    fn few_servers_need_no_tree() {
        let servers: Vec<_> =
            (1..=64).map(|number| server(&format!("10.0.0.{number}:8080"))).collect();
        let (rules, _) = tree(&servers, &Order::default());
        assert_eq!(rules.len(), 1 + 64);
        assert!(rules[1..].iter().all(|rule| rule.priority == REPLY_PRIORITY));
    }

    #[test]
    fn tree_looks_like_this() {
        let servers: Vec<_> =
            (0..100).map(|number| server(&format!("10.0.{number}.1:8080"))).collect();
        let (rules, _) = tree(&servers, &Order::default());
        let branches: Vec<_> = rules
            .iter()
            .filter(|rule| rule.goto.is_some())
            .map(|rule| super::super::step::Step::Rule(rule.clone()).to_string())
            .collect();
        let expected = [
            "ip rule add pref 1133 lookup 11900 goto 1991 protocol 119",
            "ip rule add pref 1131 lookup 11900 goto 1991 protocol 119",
            "ip rule add pref 1001 lookup 11900 goto 1991 protocol 119",
            "ip rule add pref 1000 from 10.0.0.0/18 lookup 11900 goto 1130 protocol 119",
            "ip rule add pref 1000 from 10.0.64.0/18 lookup 11900 goto 1132 protocol 119",
        ];
        assert_eq!(branches, expected);
    }

    #[test]
    fn every_server_s_replies_are_found_after_few_rules_and_nobody_else_s_are() {
        let mut numbers = Numbers(1);
        for is_ipv6 in [false, true] {
            for (count, most) in [(65, 140), (1_000, 160), (16_000, 250)] {
                let servers = servers(count, is_ipv6, &mut numbers);
                let mut kernel = Kernel::default();
                let (rules, _) = tree(&servers, &Order::default());
                rules.iter().for_each(|rule| kernel.add(rule));
                let of_all_ports: BTreeSet<_> = servers
                    .iter()
                    .filter(|(_, server, _)| server.port() == 0)
                    .map(|(protocol, server, _)| (protocol.name(), server.ip()))
                    .collect();
                let known: BTreeSet<_> = servers
                    .iter()
                    .map(|(protocol, server, _)| (protocol.name(), *server))
                    .collect();
                for (protocol, server, link) in &servers {
                    for port in
                        [server.port().max(1), 1 + u16::try_from(numbers.below(65_534)).unwrap()]
                    {
                        let server = SocketAddr::new(server.ip(), port);
                        let expected = known.contains(&(protocol.name(), server))
                            || of_all_ports.contains(&(protocol.name(), server.ip()));
                        let (is_led, met) = kernel.leads(&(*protocol, server, link.clone()));
                        assert_eq!(is_led, expected, "{count} {server}");
                        assert!(met <= most, "{met} rules of {count} for {server}");
                    }
                }
            }
        }
    }

    #[test]
    fn replies_are_found_at_every_moment_of_an_update() {
        let mut numbers = Numbers(2);
        let mut old = servers(40, false, &mut numbers);
        let (rules, mut order) = tree(&old, &Order::default());
        let mut kernel = Kernel::default();
        rules.iter().for_each(|rule| kernel.add(rule));
        let mut taken = rules;
        for count in [50, 80, 600, 590, 2_500, 60, 1_000, 30] {
            // Some stay, whatever the count.
            let mut new = servers(count, false, &mut numbers);
            let staying: Vec<_> = old.iter().filter(|_| numbers.below(2) == 0).cloned().collect();
            new.extend(staying.clone());
            let (rules, new_order) = tree(&new, &order);
            let missing: Vec<_> = rules.iter().filter(|rule| !taken.contains(rule)).collect();
            let surplus: Vec<_> = taken.iter().filter(|rule| !rules.contains(rule)).rev().collect();
            let sample: Vec<_> = staying.iter().step_by(1 + staying.len() / 20).collect();
            let changes = missing
                .iter()
                .map(|rule| (true, *rule))
                .chain(surplus.iter().map(|rule| (false, *rule)));
            for (is_added, rule) in changes {
                if is_added {
                    kernel.add(rule);
                } else {
                    kernel.remove(rule);
                }
                for (protocol, server, link) in &sample {
                    let server = SocketAddr::new(server.ip(), server.port().max(1));
                    assert!(
                        kernel.leads(&(*protocol, server, link.clone())).0,
                        "{server} at {rule:?}"
                    );
                }
            }
            for (protocol, server, link) in &new {
                let server = SocketAddr::new(server.ip(), server.port().max(1));
                assert!(kernel.leads(&(*protocol, server, link.clone())).0, "{server}");
            }
            (old, taken, order) = (new, rules, new_order);
        }
    }

    #[test]
    fn one_server_more_moves_no_other() {
        let mut numbers = Numbers(3);
        let mut servers = servers(5_000, true, &mut numbers);
        let (before, order) = tree(&servers, &Order::default());
        let another = server("[fd00::1]:1");
        servers.push(another);
        let (after, _) = tree(&servers, &order);
        let before: BTreeSet<_> = before.iter().map(|rule| format!("{rule:?}")).collect();
        let after: BTreeSet<_> = after.iter().map(|rule| format!("{rule:?}")).collect();
        assert_eq!(after.difference(&before).count(), 1);
        assert_eq!(before.difference(&after).count(), 0);
    }
}
