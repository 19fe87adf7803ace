//! What directors that were killed left in the kernel, found by what it says of itself.

use nix::net::if_::if_nametoindex;
use rtnetlink::packet_route::route::{RouteAttribute, RouteProtocol};
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};

use super::netlink::{Netlink, Order, table_of_rule};
use super::plan::{FRAGMENT_PRIORITY, GUARD_PRIORITY, Tables, is_priority};
use super::{PROTOCOL, RouteError, TableNumbers};

/// Removes the rules and routes of directors whose devices are gone, and those of `device`, which
/// is the caller's new one. Returns how many rules they were.
pub(super) async fn remove(netlink: &Netlink, device: &str) -> Result<usize, RouteError> {
    let ours: Vec<_> = netlink.rules().await?.into_iter().filter(is_ours).collect();
    if ours.is_empty() {
        return Ok(0);
    }
    let alive: TableNumbers = ours
        .iter()
        .filter_map(|rule| {
            let owner = owner_of(rule).filter(|owner| *owner != device)?;
            if_nametoindex(owner).is_ok().then(|| Tables::with_guard(table_of_rule(rule)))?
        })
        .flat_map(Tables::numbers)
        .collect();
    let mut dead = TableNumbers::new();
    let mut ours: Vec<_> =
        ours.into_iter().filter(|rule| !alive.contains(&table_of_rule(rule))).collect();
    dead.extend(ours.iter().map(table_of_rule));
    // Fragments' rules first, which rely on others to send whole packets past them. Then what sends
    // packets on: for every other rule the kernel would look who sends packets to it. Then from the
    // front, where the kernel begins to look.
    ours.sort_by_key(|rule| {
        let is_fragments = rule.attributes.contains(&RuleAttribute::Priority(FRAGMENT_PRIORITY));
        (!is_fragments, rule.header.action != RuleAction::Goto)
    });
    let orders: Vec<_> = ours.into_iter().map(Order::RemoveRule).collect();
    let count = orders.len();
    for result in netlink.give(orders).await {
        result.map_err(|source| RouteError::Netlink { source })?;
    }
    if dead.is_empty() {
        return Ok(0);
    }
    let mut orders = Vec::new();
    for route in netlink.routes().await? {
        let is_dead = route.attributes.iter().any(
            |attribute| matches!(attribute, RouteAttribute::Table(table) if dead.contains(table)),
        );
        if is_dead && route.header.protocol == RouteProtocol::Other(PROTOCOL) {
            orders.push(Order::RemoveRoute(route));
        }
    }
    for result in netlink.give(orders).await {
        result.map_err(|source| RouteError::Netlink { source })?;
    }
    Ok(count)
}

/// Whether a director made `rule`: the protocol number alone may be somebody else's too.
pub(super) fn is_ours(rule: &RuleMessage) -> bool {
    let has = |attribute| rule.attributes.contains(&attribute);
    has(RuleAttribute::Protocol(RouteProtocol::Other(PROTOCOL)))
        && rule.attributes.iter().any(
            |attribute| matches!(attribute, RuleAttribute::Priority(number) if is_priority(*number)),
        )
        && (Tables::FIRST..=Tables::LAST).contains(&table_of_rule(rule))
}

/// The tables of the director with this device, if `rule` is the one that says whose they are.
pub(super) fn tables_of(rule: &RuleMessage, device: &str) -> Option<Tables> {
    let is_its = is_ours(rule) && owner_of(rule) == Some(device);
    is_its.then(|| Tables::with_guard(table_of_rule(rule)))?
}

/// The device of the director that `rule`, one of ours, guards from loops.
fn owner_of(rule: &RuleMessage) -> Option<&str> {
    if !rule.attributes.contains(&RuleAttribute::Priority(GUARD_PRIORITY)) {
        return None;
    }
    rule.attributes.iter().find_map(|attribute| match attribute {
        RuleAttribute::Iifname(name) => Some(name.as_str()),
        _ => None,
    })
}
