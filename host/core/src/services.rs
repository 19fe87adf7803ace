//! All virtual services of a director, found by what packets have in them.

use core::net::{IpAddr, SocketAddr};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use crate::pool::Pool;
use crate::protocol::Protocol;
use crate::real_server::RealServer;
use crate::roster::Roster;
use crate::service::{Ports, Service, ServiceAddress, Settings};

type ByHash = foldhash::fast::FixedState;

/// All virtual services of a director at one moment. It never changes: others take its place.
#[derive(Debug, Default)]
pub struct Services {
    list: Vec<Arc<Service>>,
    /// Services that were taken away and whose connections go on.
    retired: Vec<Arc<Service>>,
    /// Every real server at its number.
    servers: Vec<Option<Arc<RealServer>>>,
    by_vip: HashMap<(Protocol, IpAddr), ServicesOfVip, ByHash>,
    vips: HashSet<IpAddr, ByHash>,
    real_servers: HashSet<(Protocol, SocketAddr), ByHash>,
    rips: HashSet<IpAddr, ByHash>,
    locals: HashSet<IpAddr, ByHash>,
    /// The real servers whose datagrams belong to no connection, with the VIP and port that they
    /// come from for clients; port 0 stands for the server's.
    one_packet: HashMap<SocketAddr, (Arc<RealServer>, SocketAddr), ByHash>,
}

/// The services of one protocol at one address.
#[derive(Debug, Default)]
struct ServicesOfVip {
    /// By the first port of a range, with the last one.
    by_port: BTreeMap<u16, (u16, Arc<Service>)>,
    others: Option<Arc<Service>>,
}

impl Services {
    /// Indexes `list` as the services are now. Of two services with one address and port the later
    /// one is reached. `retired` are those whose connections go on, and no more, and `old_vips`
    /// addresses that services had: packets to them that belong to no connection are refused, not
    /// sent round in circles.
    #[must_use]
    pub fn new(list: Vec<Arc<Service>>, retired: Vec<Arc<Service>>, old_vips: &[IpAddr]) -> Self {
        let mut this = Self::default();
        this.vips.extend(old_vips);
        for service in &list {
            let settings = service.settings();
            this.reach(service, &settings);
            service.look_at_roster(|roster| this.index_servers(service, &settings, roster));
        }
        for service in &retired {
            let settings = service.settings();
            service.look_at_roster(|roster| this.index_servers(service, &settings, roster));
        }
        (this.list, this.retired) = (list, retired);
        this
    }

    /// Indexes where clients reach a service.
    fn reach(&mut self, service: &Arc<Service>, settings: &Settings) {
        for vip in &settings.reach.vips {
            self.vips.insert(*vip);
            let of_vip = self.by_vip.entry((service.address().protocol, *vip)).or_default();
            match &settings.reach.ports {
                Ports::Others => of_vip.others = Some(Arc::clone(service)),
                Ports::These(ranges) => {
                    for range in ranges {
                        let to = (*range.end(), Arc::clone(service));
                        of_vip.by_port.insert(*range.start(), to);
                    }
                }
            }
        }
    }

    fn index_servers(&mut self, service: &Service, settings: &Settings, roster: &Roster) {
        let protocol = service.address().protocol;
        let all = roster.servers().iter().chain(roster.sorry()).chain(roster.leaving());
        for server in all {
            self.real_servers.insert((protocol, server.address()));
            self.rips.insert(server.address().ip());
            place(&mut self.servers, server);
            self.locals.extend(server.terms().pool().into_iter().flat_map(Pool::addresses));
            if let Some(seen_as) = settings.one_packet_source(server) {
                self.one_packet.insert(server.address(), (Arc::clone(server), seen_as));
            }
        }
    }

    /// Every service, in the order of the configuration.
    #[must_use]
    pub fn list(&self) -> &[Arc<Service>] {
        &self.list
    }

    /// The services that were taken away and whose connections go on.
    #[must_use]
    pub fn retired(&self) -> &[Arc<Service>] {
        &self.retired
    }

    /// The service of this name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&Arc<Service>> {
        self.list.iter().find(|service| service.name() == name)
    }

    /// The real server with this number.
    #[inline]
    pub(crate) fn server(&self, id: u32) -> Option<&RealServer> {
        self.servers.get(usize::try_from(id).ok()?)?.as_deref()
    }

    /// The service at exactly this port of a VIP, or else the one that has the VIP's other ports.
    #[must_use]
    pub fn find(&self, address: &ServiceAddress) -> Option<&Arc<Service>> {
        let of_vip = self.by_vip.get(&(address.protocol, address.vip))?;
        let nearest = of_vip.by_port.range(..=address.port).next_back();
        let exact = nearest.filter(|(_, (last, _))| address.port <= *last);
        exact.map(|(_, (_, service))| service).or(of_vip.others.as_ref())
    }

    /// Whether some service has a real server at this address and port.
    #[must_use]
    pub fn is_real_server(&self, protocol: Protocol, address: SocketAddr) -> bool {
        let any_port = SocketAddr::new(address.ip(), 0);
        self.real_servers.contains(&(protocol, address))
            || self.real_servers.contains(&(protocol, any_port))
    }

    /// The real server at this address and port, if it is of a service that opens no connections,
    /// and where its datagrams come from for clients; port 0 stands for the server's.
    pub(crate) fn one_packet(&self, address: SocketAddr) -> Option<&(Arc<RealServer>, SocketAddr)> {
        let any_port = || SocketAddr::new(address.ip(), 0);
        self.one_packet.get(&address).or_else(|| self.one_packet.get(&any_port()))
    }

    /// Whether some service has a real server at this address, whatever the port.
    #[must_use]
    pub fn is_rip(&self, address: IpAddr) -> bool {
        self.rips.contains(&address)
    }

    /// Whether some service has this address in its pool.
    #[must_use]
    pub fn is_local(&self, address: IpAddr) -> bool {
        self.locals.contains(&address)
    }

    /// Whether some service has this virtual address.
    #[must_use]
    pub fn is_vip(&self, address: IpAddr) -> bool {
        self.vips.contains(&address)
    }
}

/// Puts a server at its number, if that is no larger than numbers counted up ever are.
fn place(servers: &mut Vec<Option<Arc<RealServer>>>, server: &Arc<RealServer>) {
    const NUMBERS_MAX: usize = 1 << 24;
    let Some(id) = usize::try_from(server.id()).ok().filter(|id| *id < NUMBERS_MAX) else { return };
    if servers.len() <= id {
        servers.resize(id.saturating_add(1), None);
    }
    if let Some(place) = servers.get_mut(id) {
        *place = Some(Arc::clone(server));
    }
}
