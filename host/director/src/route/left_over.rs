//! What directors that were killed left in the kernel, found by what it says of itself.

use nix::net::if_::if_nametoindex;
use rtnetlink::packet_route::route::{RouteAttribute, RouteProtocol};
use rtnetlink::packet_route::rule::{RuleAttribute, RuleMessage};

use super::netlink::{Netlink, table_of_rule};
use super::plan::{GUARD_PRIORITY, Tables};
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
        .filter(|rule| is_guard_of_other_director(rule, device))
        .filter_map(|rule| Tables::with_guard(table_of_rule(rule)))
        .flat_map(Tables::numbers)
        .collect();
    let mut dead = TableNumbers::new();
    let mut count = 0;
    for rule in ours {
        let table = table_of_rule(&rule);
        if !alive.contains(&table) {
            dead.insert(table);
            netlink.remove_rule(rule).await.map_err(|source| RouteError::Netlink { source })?;
            count += 1;
        }
    }
    if dead.is_empty() {
        return Ok(0);
    }
    for route in netlink.routes().await? {
        let is_dead = route.attributes.iter().any(
            |attribute| matches!(attribute, RouteAttribute::Table(table) if dead.contains(table)),
        );
        if is_dead && route.header.protocol == RouteProtocol::Other(PROTOCOL) {
            netlink.remove(route).await.map_err(|source| RouteError::Netlink { source })?;
        }
    }
    Ok(count)
}

fn is_ours(rule: &RuleMessage) -> bool {
    rule.attributes.contains(&RuleAttribute::Protocol(RouteProtocol::Other(PROTOCOL)))
}

fn is_guard_of_other_director(rule: &RuleMessage, device: &str) -> bool {
    rule.attributes.contains(&RuleAttribute::Priority(GUARD_PRIORITY))
        && rule.attributes.iter().any(|attribute| {
            matches!(attribute, RuleAttribute::Iifname(name)
                if name != device && if_nametoindex(name.as_str()).is_ok())
        })
}
