//! The ways of packets, as the kernel itself says that they would go.
//!
//! ```text
//! client ─(1)─► host ─► device, director ─(2)─► host ─► real server
//! client ◄─ host ◄─(4)─ director, device ◄─ host ◄─(3)─ real server
//! ```

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use wvs_core::service::Protocol;

use super::NOBODY;
use super::addresses::neighbour;
use super::finding::{Code, Finding};
use super::kernel::Beside;
use crate::config::ForwardingConfig;
use crate::route::inspect::{Inspector, Lead, ServerWay};
use crate::route::{HostAddress, Link, Packet};

/// A port that clients connect from.
const CLIENT_PORT: u16 = 50_000;

/// A client, and where its packets come in.
#[derive(Clone, Debug)]
pub(super) struct Client {
    address: IpAddr,
    link: Link,
}

impl Client {
    pub(super) fn is_ipv4(&self) -> bool {
        self.address.is_ipv4()
    }

    /// Where its packets come in.
    pub(super) fn link(&self) -> &Link {
        &self.link
    }
}

/// Somebody of the family who might be a client: one of `seen`, else somebody far away, else in a
/// network of this host.
pub(super) async fn client(
    inspector: &Inspector,
    ways: &[ServerWay],
    seen: &[IpAddr],
    is_ipv6: bool,
) -> Option<Client> {
    let device = &inspector.needs().device;
    let nobody = NOBODY[usize::from(is_ipv6)];
    let known = seen.iter().copied().filter(|address| address.is_ipv6() == is_ipv6);
    // Of neighbours those that have no servers among them first.
    let mut neighbours: Vec<&HostAddress> = inspector
        .addresses()
        .iter()
        .filter(|own| own.address.is_ipv6() == is_ipv6 && !is_of_the_link(own.address))
        .collect();
    neighbours.sort_by_key(|own| ways.iter().any(|way| way.link.index == own.link_index));
    let neighbours = neighbours.into_iter().filter_map(beside);
    for address in known.take(1).chain([nobody]).chain(neighbours) {
        if let Some(link) = inspector.link_to(address).await.filter(|link| link.name != *device) {
            return Some(Client { address, link });
        }
    }
    None
}

/// Packets that do not go as they should, with the rules of others that lead them astray. Asked for
/// each service and each of its servers.
pub(super) async fn astray(beside: &Beside<'_>, client: &Client) -> Vec<Finding> {
    let &Beside { inspector, config, device, ways, .. } = beside;
    let mut findings: Vec<Finding> = Vec::new();
    for service in &config.services {
        let (protocol, port) = (service.protocol, service.address().port);
        let client_end = SocketAddr::new(client.address, CLIENT_PORT);
        let vips = &service.settings.reach.vips;
        let mut passages = Vec::new();
        for vip in vips.iter().filter(|vip| vip.is_ipv4() == client.is_ipv4()) {
            let vip = SocketAddr::new(*vip, port);
            passages.push(Passage {
                name: "requests",
                packet: packet(client_end, vip, protocol, &client.link),
                wanted: device,
                lead: Some(Lead::Requests(vip.ip())),
            });
            passages.push(Passage {
                name: "translated replies",
                packet: packet(vip, client_end, protocol, device),
                wanted: &client.link,
                lead: None,
            });
        }
        let servers = service.servers.iter().map(|server| server.address).chain(service.sorry);
        for server in servers.filter(|server| server.is_ipv4() == client.is_ipv4()) {
            let Some(way) = ServerWay::to(ways, server) else { continue };
            let peer = match &service.forwarding {
                ForwardingConfig::Nat => client_end,
                ForwardingConfig::FullNat(pool) => {
                    let Some(address) = pool.addresses.first() else { continue };
                    SocketAddr::new(*address, *pool.ports.start())
                }
            };
            // A server without a port of its own has the service's.
            let port = if server.port() == 0 { port } else { server.port() };
            let end = SocketAddr::new(server.ip(), port);
            passages.push(Passage {
                name: "translated requests",
                packet: packet(peer, end, protocol, device),
                wanted: &way.link,
                lead: None,
            });
            passages.push(Passage {
                name: "replies",
                packet: packet(end, peer, protocol, &way.link),
                wanted: device,
                lead: Some(match &service.forwarding {
                    ForwardingConfig::Nat => Lead::Replies(server),
                    ForwardingConfig::FullNat(_) => Lead::Requests(peer.ip()),
                }),
            });
        }
        for passage in passages {
            if let Some(finding) = passage.look(inspector).await
                // One rule takes the packets of many.
                && !findings.iter().any(|known| {
                    known.commands == finding.commands && !known.commands.is_empty()
                })
            {
                findings.push(finding);
            }
        }
    }
    findings
}

/// One of the four ways that packets come through the host.
struct Passage<'l> {
    name: &'static str,
    packet: Packet,
    /// The link that they should leave by.
    wanted: &'l Link,
    /// What leads them there.
    lead: Option<Lead>,
}

impl Passage<'_> {
    async fn look(&self, inspector: &Inspector) -> Option<Finding> {
        let wanted = &self.wanted.name;
        let (where_to, table) = match inspector.take(&self.packet).await {
            Ok(taken) => match taken.link {
                Some(link) if link.index == self.wanted.index => return None,
                Some(link) => (format!("leave by {}", link.name), Some(taken.table)),
                None => ("stay on this host".to_owned(), Some(taken.table)),
            },
            Err(error) => (format!("are dropped ({error})"), None),
        };
        let rules = inspector.rules_before(&self.packet, table);
        let by = match (table, &rules[..]) {
            (Some(table), []) => format!(", by table {table}"),
            (_, []) => String::new(),
            (_, rules) => {
                let shown: Vec<_> = rules.iter().map(|rule| format!("`{}`", rule.shown)).collect();
                format!(", by {} before the director's rules", shown.join(", "))
            }
        };
        let what = format!("{self} {where_to} instead of {wanted}{by}");
        let finding = Finding::new(Code::PacketsAstray, what);
        Some(match (&rules[..], self.lead) {
            ([rule], _) => finding
                .advice(
                    "what that rule is for may need it first: then exclude these packets from it",
                )
                .commands(rule.moved.clone()),
            ([], Some(lead)) => finding.commands(inspector.commands_for(lead).await),
            _ => finding,
        })
    }
}

impl fmt::Display for Passage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Packet { from, to, source_port, destination_port, input, .. } = &self.packet;
        let from = SocketAddr::new(*from, *source_port);
        let to = SocketAddr::new(*to, *destination_port);
        write!(f, "{} from {from} to {to} that come in by {}", self.name, input.name)
    }
}

fn packet(from: SocketAddr, to: SocketAddr, protocol: Protocol, input: &Link) -> Packet {
    Packet {
        from: from.ip(),
        to: to.ip(),
        protocol,
        source_port: from.port(),
        destination_port: to.port(),
        input: input.clone(),
    }
}

/// Another address in the same network.
fn beside(own: &HostAddress) -> Option<IpAddr> {
    let is_room = own.prefix_length <= if own.address.is_ipv6() { 126 } else { 30 };
    let beside: IpAddr = match own.address {
        IpAddr::V4(address) => std::net::Ipv4Addr::from_bits(address.to_bits() ^ 2).into(),
        IpAddr::V6(address) => std::net::Ipv6Addr::from_bits(address.to_bits() ^ 2).into(),
    };
    is_room.then_some(beside)
}

/// Whether an address means something on one link only.
fn is_of_the_link(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

/// Whether `client` is a neighbour of the server at the end of `way`, in the server's own network.
pub(super) fn is_beside(own: &[HostAddress], client: IpAddr, way: &ServerWay) -> bool {
    let network = neighbour(own, way.server.ip()).filter(|_| way.gateway.is_none());
    network.is_some_and(|network| {
        crate::route::inspect::is_in(client, network.address, network.prefix_length)
    })
}
