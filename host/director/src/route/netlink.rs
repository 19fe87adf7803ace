//! Questions to the kernel about links, ways and rules, and orders.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;

use futures_util::{Stream, StreamExt, TryStreamExt};
use nix::errno::Errno;
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteType,
};
use rtnetlink::packet_route::rule::{RuleAttribute, RuleMessage};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::sys::SocketAddr;
use rtnetlink::{Handle, IpVersion, LinkUnspec, MulticastGroup};
use tokio::task::JoinHandle;
use wvs_core::service::Protocol;

use super::RouteError;

/// A conversation with the kernel about the network namespace of the thread that began it.
#[derive(Debug)]
pub(super) struct Netlink {
    handle: Handle,
    connection: JoinHandle<()>,
}

/// What the kernel tells without being asked.
pub(super) type News =
    Pin<Box<dyn Stream<Item = (NetlinkMessage<RouteNetlinkMessage>, SocketAddr)> + Send>>;

/// A network interface.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) is_up: bool,
    pub(crate) mtu: Option<u32>,
}

/// An address of this host's, with the network that it makes a neighbour of.
#[derive(Clone, Debug)]
pub(crate) struct HostAddress {
    pub(crate) address: IpAddr,
    pub(crate) prefix_length: u8,
    pub(crate) link_index: u32,
}

/// A packet that comes in to be forwarded.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub(crate) from: IpAddr,
    pub(crate) to: IpAddr,
    pub(crate) protocol: Protocol,
    /// 0 where there is none.
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
    /// Where it comes in.
    pub(crate) input: Link,
}

/// Where the kernel sends a packet that comes in.
#[derive(Clone, Debug)]
pub(crate) struct Taken {
    /// The link that it leaves by; `None` for a packet for the host itself.
    pub(crate) link: Option<Link>,
    /// The routing table that says so.
    pub(crate) table: u32,
}

/// Something that the kernel is to change.
#[derive(Clone, Debug)]
pub(super) enum Order {
    AddRoute(RouteMessage),
    RemoveRoute(RouteMessage),
    /// One that is there already is there twice then.
    AddRule(RuleMessage),
    RemoveRule(RuleMessage),
}

/// Orders and questions that the kernel has at a time. Its answers, of up to some kilooctets with all
/// that goes with them, have to fit the socket's buffer of 200: those that do not are lost.
const AT_ONCE: usize = 32;

/// The kernel's answer to how it would send to an address.
#[derive(Clone, Debug)]
pub(super) struct Way {
    pub(super) is_local: bool,
    pub(super) is_unicast: bool,
    pub(super) link_index: u32,
    pub(super) gateway: Option<IpAddr>,
    /// The host's own address that it would use.
    pub(super) source: Option<IpAddr>,
    /// The route's own in octets, where it has one.
    pub(super) mtu: Option<u32>,
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Netlink {
    pub(super) fn connect() -> Result<Self, RouteError> {
        let (connection, handle, _) =
            rtnetlink::new_connection().map_err(|source| RouteError::Netlink { source })?;
        Ok(Self { handle, connection: tokio::spawn(connection) })
    }

    /// A conversation in which the kernel also tells of changes to links, routes and rules.
    pub(super) fn listen() -> Result<(Self, News), RouteError> {
        use MulticastGroup::{Ipv4Route, Ipv4Rule, Ipv6Route, Ipv6Rule, Link};
        let (connection, handle, news) =
            rtnetlink::new_multicast_connection(&[Link, Ipv4Route, Ipv6Route, Ipv4Rule, Ipv6Rule])
                .map_err(|source| RouteError::Netlink { source })?;
        Ok((Self { handle, connection: tokio::spawn(connection) }, Box::pin(news)))
    }

    pub(super) async fn link(&self, name: &str) -> io::Result<Link> {
        self.one_link(self.handle.link().get().match_name(name)).await
    }

    pub(super) async fn link_at(&self, index: u32) -> io::Result<Link> {
        self.one_link(self.handle.link().get().match_index(index)).await
    }

    async fn one_link(&self, request: rtnetlink::LinkGetRequest) -> io::Result<Link> {
        let mut links = std::pin::pin!(request.execute());
        let message = links.try_next().await.map_err(io_error)?;
        message.map(Link::from).ok_or_else(|| Errno::ENODEV.into())
    }

    /// How the kernel would send to `address` from here.
    pub(super) async fn way_to(&self, address: IpAddr) -> io::Result<Way> {
        let mut question = RouteMessage::default();
        let (family, length) = match address {
            IpAddr::V4(_) => (AddressFamily::Inet, 32),
            IpAddr::V6(_) => (AddressFamily::Inet6, 128),
        };
        question.header.address_family = family;
        question.header.destination_prefix_length = length;
        question.attributes.push(RouteAttribute::Destination(address.into()));
        let mut answers = std::pin::pin!(self.handle.route().get(question).execute());
        let answer = answers.try_next().await.map_err(io_error)?.ok_or(Errno::ENETUNREACH)?;
        let mut way = Way {
            is_local: answer.header.kind == RouteType::Local,
            is_unicast: answer.header.kind == RouteType::Unicast,
            link_index: 0,
            gateway: None,
            source: None,
            mtu: None,
        };
        for attribute in answer.attributes {
            match attribute {
                RouteAttribute::Oif(index) => way.link_index = index,
                RouteAttribute::Gateway(gateway) => way.gateway = ip_address(&gateway),
                RouteAttribute::PrefSource(source) => way.source = ip_address(&source),
                RouteAttribute::Metrics(metrics) => {
                    way.mtu = metrics.iter().find_map(|metric| match metric {
                        RouteMetric::Mtu(mtu) => Some(*mtu),
                        _ => None,
                    });
                }
                _ => {}
            }
        }
        Ok(way)
    }

    /// Where the kernel would send a packet that comes in.
    pub(super) async fn take(&self, packet: &Packet) -> io::Result<Taken> {
        let is_ipv6 = packet.to.is_ipv6();
        let mut question = RouteMessage::default();
        let header = &mut question.header;
        let (family, length) =
            if is_ipv6 { (AddressFamily::Inet6, 128) } else { (AddressFamily::Inet, 32) };
        header.address_family = family;
        header.destination_prefix_length = length;
        header.source_prefix_length = length;
        header.flags = RouteFlags::LookupTable;
        question.attributes = vec![
            RouteAttribute::Destination(packet.to.into()),
            RouteAttribute::Source(packet.from.into()),
            RouteAttribute::Iif(packet.input.index),
            RouteAttribute::IpProto(packet.protocol.number(is_ipv6)),
        ];
        if packet.protocol != Protocol::Icmp {
            // The kernel takes no question about port 0.
            question.attributes.extend([
                RouteAttribute::Sport(packet.source_port.max(1)),
                RouteAttribute::Dport(packet.destination_port.max(1)),
            ]);
        }
        let mut answers = std::pin::pin!(self.handle.route().get(question).execute());
        let answer = answers.try_next().await.map_err(io_error)?.ok_or(Errno::ENETUNREACH)?;
        let mut taken = Taken { link: None, table: u32::from(answer.header.table) };
        for attribute in answer.attributes {
            match attribute {
                RouteAttribute::Oif(index) if answer.header.kind == RouteType::Unicast => {
                    taken.link = Some(self.link_at(index).await?);
                }
                RouteAttribute::Table(table) => taken.table = table,
                _ => {}
            }
        }
        match answer.header.kind {
            RouteType::Unicast | RouteType::Local => Ok(taken),
            _ => Err(Errno::EHOSTUNREACH.into()),
        }
    }

    /// All addresses of this host, but for those of loopback.
    pub(super) async fn addresses(&self) -> Result<Vec<HostAddress>, RouteError> {
        let answer = self.handle.address().get().execute().try_collect::<Vec<_>>().await;
        let messages = answer.map_err(|error| RouteError::Netlink { source: io_error(error) })?;
        let addresses = messages.into_iter().filter_map(|message| {
            let (mut own, mut of_network) = (None, None);
            for attribute in &message.attributes {
                match attribute {
                    AddressAttribute::Local(address) => own = Some(*address),
                    AddressAttribute::Address(address) => of_network = Some(*address),
                    _ => {}
                }
            }
            let address = own.or(of_network)?;
            let (prefix_length, link_index) = (message.header.prefix_len, message.header.index);
            Some(HostAddress { address, prefix_length, link_index })
        });
        Ok(addresses.filter(|own| !own.address.is_loopback()).collect())
    }

    /// Whether this host answers for `address` in the network of the link.
    pub(super) async fn is_proxied(&self, address: IpAddr, link: u32) -> Result<bool, RouteError> {
        let proxies = self.neighbours(self.handle.neighbours().get().proxies()).await?;
        Ok(proxies.iter().any(|(message, of)| *of == address && message.header.ifindex == link))
    }

    /// Addresses that were asked for and that nobody has.
    pub(super) async fn absent_neighbours(&self) -> Result<BTreeSet<IpAddr>, RouteError> {
        let neighbours = self.neighbours(self.handle.neighbours().get()).await?;
        let is_absent = |message: &NeighbourMessage| {
            matches!(message.header.state, NeighbourState::Failed | NeighbourState::Incomplete)
        };
        let absent = neighbours.into_iter().filter(|(message, _)| is_absent(message));
        Ok(absent.map(|(_, address)| address).collect())
    }

    async fn neighbours(
        &self,
        request: rtnetlink::NeighbourGetRequest,
    ) -> Result<Vec<(NeighbourMessage, IpAddr)>, RouteError> {
        let answer = request.execute().try_collect::<Vec<_>>().await;
        let messages = answer.map_err(|error| RouteError::Netlink { source: io_error(error) })?;
        let with_address = |message: NeighbourMessage| {
            let address = message.attributes.iter().find_map(|attribute| match attribute {
                NeighbourAttribute::Destination(NeighbourAddress::Inet(of)) => Some((*of).into()),
                NeighbourAttribute::Destination(NeighbourAddress::Inet6(of)) => Some((*of).into()),
                _ => None,
            });
            Some((message, address?))
        };
        Ok(messages.into_iter().filter_map(with_address).collect())
    }

    /// How the kernel would send to each of `addresses`, in their order.
    pub(super) fn ways_to(
        &self,
        addresses: impl IntoIterator<Item = IpAddr>,
    ) -> impl Stream<Item = (IpAddr, io::Result<Way>)> {
        let ways = addresses.into_iter().map(async |address| (address, self.way_to(address).await));
        futures_util::stream::iter(ways).buffered(AT_ONCE)
    }

    /// The MTU in octets of the link that `way` leads by.
    pub(super) async fn link_mtu(&self, way: &Way) -> Result<Option<u32>, RouteError> {
        let link = self.link_at(way.link_index).await;
        link.map(|link| link.mtu).map_err(|source| RouteError::Netlink { source })
    }

    pub(super) async fn set_mtu(&self, link_index: u32, mtu: u16) -> io::Result<()> {
        let link = LinkUnspec::new_with_index(link_index).mtu(mtu.into()).build();
        self.handle.link().set(link).execute().await.map_err(io_error)
    }

    /// All rules of both families. The kernel begins to tell them at once, before anybody waits.
    pub(super) fn rules(
        &self,
    ) -> impl Future<Output = Result<Vec<RuleMessage>, RouteError>> + use<> {
        let handle = self.handle.clone();
        let mut first = Some(handle.rule().get(IpVersion::V4).execute());
        async move {
            let mut rules = Vec::new();
            for version in [IpVersion::V4, IpVersion::V6] {
                // It tells one after the other.
                let answer = first.take().unwrap_or_else(|| handle.rule().get(version).execute());
                match answer.try_collect::<Vec<_>>().await.map_err(io_error) {
                    Ok(some) => rules.extend(some),
                    // A kernel without IPv6 has no rules for it.
                    Err(error) if error.raw_os_error() == Some(Errno::EAFNOSUPPORT as i32) => {}
                    Err(source) => return Err(RouteError::Netlink { source }),
                }
            }
            Ok(rules)
        }
    }

    /// All routes of both families.
    pub(super) async fn routes(&self) -> Result<Vec<RouteMessage>, RouteError> {
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut question = RouteMessage::default();
            question.header.address_family = family;
            let mut request = NetlinkMessage::from(RouteNetlinkMessage::GetRoute(question));
            request.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
            let mut answers = self
                .handle
                .clone()
                .request(request)
                .map_err(|error| RouteError::Netlink { source: io_error(error) })?;
            while let Some(answer) = answers.next().await {
                if let NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(route)) =
                    answer.payload
                {
                    routes.push(route);
                }
            }
        }
        Ok(routes)
    }

    /// Gives `orders`, in this order, many before the first answer comes: what costs time is to wait
    /// for it. One answer for each.
    pub(super) async fn give(&self, orders: Vec<Order>) -> Vec<io::Result<()>> {
        let mut results = Vec::with_capacity(orders.len());
        let mut orders = orders.into_iter().peekable();
        while orders.peek().is_some() {
            let answers: Vec<_> = orders.by_ref().take(AT_ONCE).map(|o| self.ask(o)).collect();
            for answer in answers {
                results.push(match answer {
                    Ok(answers) => acknowledged(answers).await,
                    Err(error) => Err(error),
                });
            }
        }
        results
    }

    fn ask(
        &self,
        order: Order,
    ) -> io::Result<impl Stream<Item = NetlinkMessage<RouteNetlinkMessage>> + use<>> {
        let (message, flags) = match order {
            Order::AddRoute(route) => {
                (RouteNetlinkMessage::NewRoute(route), NLM_F_CREATE | NLM_F_EXCL)
            }
            Order::RemoveRoute(route) => (RouteNetlinkMessage::DelRoute(route), 0),
            // To be told of one that is there already would make the kernel compare all of them.
            Order::AddRule(rule) => (RouteNetlinkMessage::NewRule(rule), NLM_F_CREATE),
            Order::RemoveRule(rule) => (RouteNetlinkMessage::DelRule(rule), 0),
        };
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        self.handle.clone().request(request).map_err(io_error)
    }
}

/// The kernel's answer to one order.
async fn acknowledged(
    mut answers: impl Stream<Item = NetlinkMessage<RouteNetlinkMessage>> + Unpin,
) -> io::Result<()> {
    while let Some(answer) = answers.next().await {
        if let NetlinkPayload::Error(error) = answer.payload
            && error.code.is_some()
        {
            return Err(error.to_io());
        }
    }
    Ok(())
}

impl From<LinkMessage> for Link {
    fn from(message: LinkMessage) -> Self {
        let is_up = message.header.flags.contains(LinkFlags::Up);
        let mut link = Self { index: message.header.index, name: String::new(), is_up, mtu: None };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::Mtu(mtu) => link.mtu = Some(mtu),
                _ => {}
            }
        }
        link
    }
}

/// The table that `rule` looks up.
pub(super) fn table_of_rule(rule: &RuleMessage) -> u32 {
    let attribute = rule.attributes.iter().find_map(|attribute| match attribute {
        RuleAttribute::Table(table) => Some(*table),
        _ => None,
    });
    attribute.unwrap_or_else(|| u32::from(rule.header.table))
}

fn ip_address(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

fn io_error(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        error => io::Error::other(error.to_string()),
    }
}
