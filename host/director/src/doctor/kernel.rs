//! How the kernel is set, and what it would do with packets.

use super::finding::{Code, Finding};
use super::traffic::Seen;
use super::{packets, settings};
use crate::config::{Config, RoutingMode};
use crate::output::count;
use crate::route::inspect::{Inspector, ServerWay};
use crate::route::{Link, RouteError};

/// What a start does not see to by itself.
pub(super) async fn before_a_start(
    inspector: &Inspector,
    config: &Config,
) -> Result<Vec<Finding>, RouteError> {
    let mut settings = inspector.gaps().await?.settings;
    Ok(if config.routing == RoutingMode::Managed {
        settings::read_only(&settings).into_iter().collect()
    } else {
        // There is no device yet.
        settings.retain(|setting| !setting.is_of_device);
        settings::wrong(&settings, &config.device.name)
    })
}

/// A running director, seen from beside it.
pub(super) struct Beside<'d> {
    pub(super) inspector: &'d Inspector,
    pub(super) config: &'d Config,
    pub(super) device: &'d Link,
    pub(super) ways: &'d [ServerWay],
    pub(super) seen: &'d Seen,
}

impl Beside<'_> {
    /// Looks at settings, routes and rules, and last at the ways of packets, unless something is
    /// found before, or `has_errors` says so, of which the ways would only say the same once more.
    pub(super) async fn look(
        &self,
        has_errors: bool,
        unexamined: &mut Vec<String>,
    ) -> Result<Vec<Finding>, RouteError> {
        let name = &self.device.name;
        let gaps = self.inspector.gaps().await?;
        let mut findings = settings::wrong(&gaps.settings, name);
        if !self.device.is_up {
            // Its routes go with it, and come back with it.
            let what = format!("the director's device {name} is down");
            let finding = Finding::new(Code::DeviceDown, what);
            findings.push(finding.command(format!("ip link set {name} up")));
            return Ok(findings);
        }
        let mut clients = Vec::new();
        for is_ipv6 in [false, true] {
            if !self.inspector.needs().vips.iter().any(|vip| vip.is_ipv6() == is_ipv6) {
                continue;
            }
            match packets::client(self.inspector, self.ways, &self.seen.clients(), is_ipv6).await {
                Some(client) => clients.push(client),
                None => unexamined.push(format!(
                    "the ways of packets of {}: this host knows no way to any client",
                    if is_ipv6 { "IPv6" } else { "IPv4" }
                )),
            }
        }
        findings.extend(settings::links_that_do_not_forward(&self.inputs_of_ipv4(&clients)));
        // With `off` nobody knows how packets are led here; only whether they are.
        if self.config.routing != RoutingMode::Off && !gaps.commands.is_empty() {
            let missing = count(gaps.commands.len(), "route or rule", "routes and rules");
            let what = format!("{missing} of the director's are missing");
            findings.push(Finding::new(Code::RoutesMissing, what).commands(gaps.commands));
        }
        if !has_errors && !findings.iter().any(Finding::is_error) {
            for client in &clients {
                findings.extend(packets::astray(self, client).await);
            }
        }
        Ok(findings)
    }

    /// The links that IPv4 packets of services come in by.
    fn inputs_of_ipv4(&self, clients: &[packets::Client]) -> Vec<Link> {
        let of_servers =
            self.ways.iter().filter(|way| way.server.is_ipv4()).map(|way| way.link.clone());
        let of_clients =
            clients.iter().filter(|client| client.is_ipv4()).map(|client| client.link().clone());
        let mut links: Vec<_> = of_servers.chain(of_clients).collect();
        if !links.is_empty() {
            links.push(self.device.clone());
        }
        links.sort_by_key(|link| link.index);
        links.dedup_by_key(|link| link.index);
        links
    }
}
