//! What a running director has seen: servers that never answered, and clients beside them.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::{IpAddr, SocketAddr};

use super::finding::{Code, Finding};
use super::packets::is_beside;
use crate::config::{Config, ForwardingConfig};
use crate::control::snapshot::{ConnectionSnapshot, ServicesSnapshot};
use crate::route::HostAddress;
use crate::route::inspect::ServerWay;

/// How a TCP connection is called whose client has not gone on after a server's answer.
const UNANSWERED: &str = "SYN_RECV";

/// The protocol whose connections have states.
const TCP: &str = "tcp";

/// Clients that are named, of those beside a server.
const NAMED_MAX: usize = 4;

/// What a director said at two moments.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    pub(super) services: Vec<ServicesSnapshot>,
    pub(super) connections: Vec<ConnectionSnapshot>,
    /// Connections that were there at both moments, in the same state.
    pub(super) lasting: Vec<ConnectionSnapshot>,
}

impl Seen {
    /// Adds what it says now.
    pub(super) fn add(&mut self, services: ServicesSnapshot, connections: Vec<ConnectionSnapshot>) {
        let is_same = |a: &ConnectionSnapshot, b: &ConnectionSnapshot| {
            (a.client, a.vip, a.server, &a.state) == (b.client, b.vip, b.server, &b.state)
        };
        // Few wait for an answer, whatever the number of connections.
        let lasting =
            connections.iter().filter(|now| now.state == UNANSWERED || now.protocol != TCP);
        self.lasting = lasting
            .filter(|now| self.connections.iter().any(|before| is_same(before, now)))
            .cloned()
            .collect();
        self.services.push(services);
        self.connections = connections;
    }

    /// Whether a client may be waiting.
    pub(super) fn has_unanswered(&self) -> bool {
        self.connections.iter().any(|connection| connection.state == UNANSWERED)
    }

    /// Real servers that ever sent anything back.
    pub(super) fn answering(&self) -> HashSet<SocketAddr> {
        let services = self.services.last().into_iter().flat_map(|snapshot| &snapshot.services);
        services
            .flat_map(|service| service.servers.iter().chain(&service.sorry_server))
            .filter(|server| server.traffic.out_packets > 0)
            .map(|server| server.address)
            .collect()
    }

    /// The clients.
    pub(super) fn clients(&self) -> Vec<IpAddr> {
        let clients: BTreeSet<_> = self.connections.iter().map(|c| c.client.ip()).collect();
        clients.into_iter().collect()
    }

    /// Real servers with NAT that got packets at both moments and never sent any back, with their
    /// number of packets.
    pub(super) fn mute_servers(&self, config: &Config) -> BTreeMap<SocketAddr, u64> {
        let mut mute: Option<BTreeMap<SocketAddr, u64>> = None;
        for snapshot in &self.services {
            let mut now = BTreeMap::new();
            let mut heard = BTreeSet::new();
            for service in &snapshot.services {
                let is_nat = config
                    .services
                    .iter()
                    .any(|of| of.name == service.name && of.forwarding == ForwardingConfig::Nat);
                let servers = service.servers.iter().chain(&service.sorry_server);
                for server in servers.filter(|_| is_nat) {
                    if server.traffic.out_packets > 0 {
                        heard.insert(server.address);
                    } else if server.traffic.in_packets > 0 {
                        *now.entry(server.address).or_default() += server.traffic.in_packets;
                    }
                }
            }
            // A server that answers in one service answers.
            now.retain(|address, _| !heard.contains(address));
            mute = Some(match mute {
                None => now,
                Some(before) => {
                    now.into_iter().filter(|(address, _)| before.contains_key(address)).collect()
                }
            });
        }
        mute.unwrap_or_default()
    }

    /// Clients next to a real server that they get no answers from.
    pub(super) fn beside_servers(
        &self,
        config: &Config,
        own: &[HostAddress],
        ways: &[ServerWay],
    ) -> BTreeMap<SocketAddr, BTreeSet<IpAddr>> {
        let mute = self.mute_servers(config);
        let mut beside: BTreeMap<SocketAddr, BTreeSet<IpAddr>> = BTreeMap::new();
        for connection in &self.lasting {
            let (client, server) = (connection.client.ip(), connection.server.ip());
            // A server without a port of its own has whichever the client connects to.
            let Some(way) = ways.iter().find(|way| way.server.ip() == server) else { continue };
            let is_nat = config.services.iter().any(|service| {
                service.settings.reach.vips.contains(&connection.vip.ip())
                    && service.servers.iter().any(|of| of.address.ip() == server)
                    && service.forwarding == ForwardingConfig::Nat
            });
            let is_unanswered = connection.state == UNANSWERED || mute.contains_key(&way.server);
            if is_nat && is_unanswered && is_beside(own, client, way) {
                beside.entry(way.server).or_default().insert(client);
            }
        }
        beside
    }
}

/// A finding for each server with clients beside it.
pub(super) fn clients_beside(
    beside: &BTreeMap<SocketAddr, BTreeSet<IpAddr>>,
    ways: &[ServerWay],
) -> Vec<Finding> {
    let finding = |(server, clients): (&SocketAddr, &BTreeSet<IpAddr>)| {
        let gateway = ServerWay::to(ways, *server)?.source?;
        let named: Vec<_> = clients.iter().take(NAMED_MAX).map(IpAddr::to_string).collect();
        let more = match clients.len().saturating_sub(NAMED_MAX) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let what = format!(
            "in the network of the real server {server} there are clients that get no answer from \
             it: {}{more}",
            named.join(", ")
        );
        let (ip, length) = if server.is_ipv6() { ("ip -6", 128) } else { ("ip", 32) };
        let commands = clients
            .iter()
            .take(NAMED_MAX)
            .map(|client| format!("{ip} route replace {client}/{length} via {gateway}"));
        let finding = Finding::new(Code::ClientBesideServer, what)
            .advice(
                "for all clients there at once: `forward: fullnat` for the service; for single ones \
                 a route on the server",
            )
            .on(server.ip());
        Some(finding.commands(commands))
    };
    beside.iter().filter_map(finding).collect()
}

/// That a server's replies do not come back by this host.
pub(super) fn no_route_back(server: SocketAddr, way: &ServerWay, how: &str) -> Finding {
    let what = format!("replies of the real server {server} do not come back by this host: {how}");
    let finding = Finding::new(Code::NoRouteBack, what).on(server.ip());
    let ip = if server.is_ipv6() { "ip -6" } else { "ip" };
    match way {
        ServerWay { gateway: None, source: Some(source), .. } => finding
            .advice(
                "the server's default route has to be this host, and its firewall has to let clients \
                 in; or give the service `forward: fullnat`",
            )
            .command(format!("{ip} route replace default via {source}")),
        _ => finding.advice(
            "the server is behind a router: the way of its replies has to lead through this host; or \
             give the service `forward: fullnat`",
        ),
    }
}

/// That a server does not answer anybody.
pub(super) fn silent(server: SocketAddr, how: &str) -> Finding {
    let what = format!("the real server {server} does not answer: {how}");
    Finding::new(Code::ServerSilent, what).advice(
        "see whether it is up and listens there, and its firewall; else set its weight to 0",
    )
}
