//! A director in memory: no device, no wasm, and a clock that stands still until it is moved.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use wvs_abi::Request;
use wvs_core::connection::table::TableLimits;
use wvs_core::director::{ClosedPort, Director, DirectorConfig};
use wvs_core::packet::Packet;
use wvs_core::pool::Pool;
use wvs_core::real_server::RealServer;
use wvs_core::roster::{Member, Standing};
use wvs_core::scheduler::{Pick, Scheduler};
use wvs_core::service::{
    Forwarding, Protocol, Reach, Service, ServiceAddress, ServiceConfig, Settings, Terms,
};
use wvs_core::services::Services;
use wvs_core::time::Moment;
use wvs_core::verdict::{DropReason, Verdict};

/// Each server with a weight in its turn; the tests' own, so that they need no plugin.
#[derive(Debug, Default)]
pub struct InTurn(usize);

impl Scheduler for InTurn {
    fn schedule(&mut self, _: &Request, servers: &[Arc<RealServer>]) -> Pick {
        for _ in 0..servers.len() {
            let index = self.0 % servers.len();
            self.0 += 1;
            if servers[index].weight() > 0 {
                return Pick::Server(index);
            }
        }
        Pick::NoServer
    }

    fn servers_changed(&mut self, _: &[Arc<RealServer>]) {}
}

/// Always the same answer.
#[derive(Debug)]
pub struct Always(pub Pick);

impl Scheduler for Always {
    fn schedule(&mut self, _: &Request, _: &[Arc<RealServer>]) -> Pick {
        self.0
    }

    fn servers_changed(&mut self, _: &[Arc<RealServer>]) {}
}

/// A virtual service to be.
pub struct ServiceSpec {
    /// Protocol.
    pub protocol: Protocol,
    /// VIP and port.
    pub address: SocketAddr,
    /// RIPs and ports.
    pub servers: Vec<SocketAddr>,
    /// The scheduler; [`InTurn`] unless said otherwise.
    pub scheduler: Box<dyn Scheduler>,
    /// See [`Forwarding`].
    pub forwarding: Forwarding,
    /// Everything else, with `address` as its reach unless said otherwise.
    pub settings: Settings,
    /// How each server stands: up, with weight 1, unless said otherwise.
    pub standings: Vec<Standing>,
    /// The sorry server.
    pub sorry: Option<SocketAddr>,
}

impl ServiceSpec {
    /// A service at `address` for `servers`, all as text.
    #[must_use]
    pub fn new(protocol: Protocol, address: &str, servers: &[&str]) -> Self {
        let address = crate::packet::at(address);
        let (vip, port) = (address.ip(), address.port());
        Self {
            protocol,
            address,
            servers: servers.iter().map(|server| crate::packet::at(server)).collect(),
            scheduler: Box::new(InTurn::default()),
            forwarding: Forwarding::default(),
            settings: Settings::new(Reach::at(ServiceAddress { protocol, vip, port })),
            standings: vec![Standing::new(1); servers.len()],
            sorry: None,
        }
    }

    /// With full NAT from these addresses and ports.
    #[must_use]
    pub fn full_nat(mut self, addresses: &[&str], ports: RangeInclusive<u16>) -> Self {
        let addresses = addresses.iter().map(|address| address.parse().expect("an address"));
        self.forwarding = Forwarding::FullNat(Arc::new(Pool::new(addresses.collect(), ports)));
        self
    }

    /// With another scheduler.
    #[must_use]
    pub fn scheduler(mut self, scheduler: impl Scheduler + 'static) -> Self {
        self.scheduler = Box::new(scheduler);
        self
    }
}

/// The settings of [`World::new`].
#[must_use]
pub fn settings() -> DirectorConfig {
    DirectorConfig {
        limits: TableLimits { connections: 1000, half_open: 1000 },
        replies_per_second: 1000,
        answer_echo: true,
        closed_port: ClosedPort::Reject,
        hash_seed: 7,
    }
}

/// What the connections of a service live under that only its real servers are of interest of.
#[must_use]
pub fn terms() -> Arc<Terms> {
    let vip = Ipv4Addr::new(192, 0, 2, 1).into();
    Arc::new(Terms::new("service", ServiceAddress { protocol: Protocol::Tcp, vip, port: 80 }))
}

/// What the clock of a new world shows.
const START: Moment = Moment::from_millis(1_000_000);

/// So much later than its timeout may a connection expire.
pub const LATENESS: Duration = Duration::from_millis(1024);

/// A director and its clock.
pub struct World {
    /// The director.
    pub director: Director,
    now: Moment,
}

impl World {
    /// A director for these services with the settings that users get by default, but small.
    #[must_use]
    pub fn new(services: Vec<ServiceSpec>) -> Self {
        Self::with(settings(), services)
    }

    /// A director with other settings.
    #[must_use]
    pub fn with(settings: DirectorConfig, services: Vec<ServiceSpec>) -> Self {
        let mut server_id = 0;
        let mut service_id = 0;
        let services = services.into_iter().map(|spec| {
            service_id += 1;
            let address = ServiceAddress {
                protocol: spec.protocol,
                vip: spec.address.ip(),
                port: spec.address.port(),
            };
            let name = format!("service-{service_id}");
            let terms = Arc::new(Terms::forwarding(&name, address, spec.forwarding));
            let mut server = |address: SocketAddr, weight| {
                server_id += 1;
                Arc::new(RealServer::new(server_id, address, weight, Arc::clone(&terms)))
            };
            let members = spec.servers.iter().zip(&spec.standings).map(|(address, standing)| {
                let server = server(*address, standing.configured);
                Member { server, standing: *standing }
            });
            let config = ServiceConfig {
                id: service_id,
                members: members.collect(),
                sorry: spec.sorry.map(|address| server(address, 1)),
                terms: Arc::clone(&terms),
                settings: spec.settings,
                seed: 1,
            };
            Arc::new(Service::new(config, spec.scheduler, START))
        });
        let services = Services::new(services.collect(), Vec::new(), &[]);
        Self { director: Director::new(settings, services), now: START }
    }

    /// The time.
    #[must_use]
    pub const fn now(&self) -> Moment {
        self.now
    }

    /// Lets time pass.
    pub fn wait(&mut self, duration: Duration) {
        self.now = self.now.after(duration);
    }

    /// Lets time pass, then sweeps the whole table. Returns how many connections expired.
    pub fn wait_and_sweep(&mut self, duration: Duration) -> usize {
        self.wait(duration);
        // The fewest visits a call makes are more than the connections of any test but the large
        // ones, which sweep for themselves.
        self.director.sweep(self.now)
    }

    /// Lets so much time pass that whatever was silent for `timeout` has expired: connections
    /// remember only about when they were seen. Returns how many did.
    pub fn outlast(&mut self, timeout: Duration) -> usize {
        self.wait_and_sweep(timeout + LATENESS)
    }

    /// Hands one packet to the director: the verdict, and the packet as it is after it.
    pub fn process(&self, octets: &[u8]) -> (Verdict, Vec<u8>) {
        let mut buffer = octets.to_vec();
        buffer.resize(octets.len() + Packet::HEADROOM, 0xEE);
        let mut packet = Packet::new(&mut buffer, octets.len());
        let verdict = self.director.process(&mut packet, self.now);
        (verdict, packet.octets().to_vec())
    }

    /// The held fragments whose time has come.
    #[must_use]
    pub fn released(&self) -> Vec<Vec<u8>> {
        let mut released = Vec::new();
        let mut buffer = vec![0; 65_535];
        while let Some(length) = self.director.next_released(&mut buffer) {
            released.push(buffer[..length].to_vec());
        }
        released
    }

    /// The packet as it is sent on.
    ///
    /// # Panics
    /// When the director does anything else with it.
    #[track_caller]
    pub fn forward(&self, octets: &[u8]) -> Vec<u8> {
        let (verdict, sent) = self.process(octets);
        assert_eq!(verdict, Verdict::Forward);
        sent
    }

    /// The director's own answer to a packet.
    ///
    /// # Panics
    /// When the director does anything else with it.
    #[track_caller]
    pub fn reply(&self, octets: &[u8]) -> Vec<u8> {
        let (verdict, sent) = self.process(octets);
        assert_eq!(verdict, Verdict::Reply);
        sent
    }

    /// Checks that a packet is dropped for this reason.
    ///
    /// # Panics
    /// When it is not.
    #[track_caller]
    pub fn drop(&self, octets: &[u8], reason: DropReason) {
        assert_eq!(self.process(octets).0, Verdict::Drop(reason));
    }

    /// The servers of the n-th service.
    #[must_use]
    pub fn servers(&self, service: usize) -> Arc<[Arc<RealServer>]> {
        self.service(service).servers()
    }

    /// The n-th service.
    #[must_use]
    pub fn service(&self, service: usize) -> Arc<Service> {
        Arc::clone(&self.director.services().list()[service])
    }

    /// Gives a server of the n-th service a weight.
    pub fn set_weight(&self, service: usize, server: usize, weight: u32) {
        let service = self.service(service);
        let address = service.servers()[server].address();
        let _ = service.change_server(address, self.now, |standing| standing.set = Some(weight));
    }

    /// Every counter of the director by name.
    #[must_use]
    pub fn counters(&self) -> BTreeMap<String, u64> {
        let verdicts = self.director.verdicts();
        let table = self.director.table();
        let mut all = BTreeMap::from([
            ("forwarded".to_owned(), verdicts.forwarded()),
            ("replied".to_owned(), verdicts.replied()),
            ("passed".to_owned(), verdicts.passed()),
            ("held".to_owned(), verdicts.held()),
            ("fragments.expired".to_owned(), self.director.fragments().expired),
            ("fragments.evicted".to_owned(), self.director.fragments().evicted),
            ("opened".to_owned(), table.opened.get()),
            ("expired".to_owned(), table.expired.get()),
            ("replaced".to_owned(), table.replaced.get()),
            ("evicted".to_owned(), table.evicted.get()),
        ]);
        for reason in DropReason::ALL {
            all.insert(format!("drop.{reason}"), verdicts.dropped(*reason));
        }
        for service in self.director.services().list() {
            let name = service.name();
            let counters = service.counters();
            all.insert(format!("{name}.picked"), counters.picked.get());
            all.insert(format!("{name}.fallback"), counters.fallback.get());
            all.insert(format!("{name}.spared"), counters.spared.get());
            all.insert(format!("{name}.persistent"), counters.persistent.get());
            all.insert(format!("{name}.sorry"), counters.sorry.get());
            all.insert(format!("{name}.no_server"), counters.no_server.get());
        }
        all
    }

    /// Packets that the director has decided on, by its own counters.
    #[must_use]
    pub fn processed(&self) -> u64 {
        let verdicts = self.director.verdicts();
        let dropped: u64 = DropReason::ALL.iter().map(|reason| verdicts.dropped(*reason)).sum();
        verdicts.forwarded() + verdicts.replied() + verdicts.passed() + verdicts.held() + dropped
    }

    /// Checks that exactly these counters moved, by so much, while `action` ran, and no others.
    ///
    /// # Panics
    /// When others moved or these did not.
    #[track_caller]
    pub fn moves<R>(&mut self, expected: &[(&str, u64)], action: impl FnOnce(&mut Self) -> R) -> R {
        let before = self.counters();
        let result = action(self);
        let moved: Vec<(String, u64)> = self
            .counters()
            .into_iter()
            .filter_map(|(name, after)| {
                let by = after - before[&name];
                (by > 0).then_some((name, by))
            })
            .collect();
        let mut expected: Vec<(String, u64)> =
            expected.iter().map(|(name, by)| ((*name).to_owned(), *by)).collect();
        expected.sort();
        assert_eq!(moved, expected);
        result
    }

    /// Checks that every server's counts are what a recount of the table gives, and that what was
    /// opened and did not leave is there.
    ///
    /// # Panics
    /// When they are not.
    pub fn recount(&self) {
        let tables = self.director.tables();
        let mut counted: BTreeMap<u32, (u32, u32)> = BTreeMap::new();
        let v4 = tables.v4().snapshot();
        let v6 = tables.v6().snapshot();
        let half_open = v4.iter().filter(|connection| connection.is_half_open()).count()
            + v6.iter().filter(|connection| connection.is_half_open()).count();
        let of_v4 = v4.iter().map(|connection| (connection.server().id(), connection.state()));
        let of_v6 = v6.iter().map(|connection| (connection.server().id(), connection.state()));
        let states: Vec<_> =
            of_v4.chain(of_v6).filter_map(|(server, state)| Some((server, state?))).collect();
        let live = states.len();
        for (server, state) in states {
            let (active, inactive) = counted.entry(server).or_default();
            *(if state.is_active() { active } else { inactive }) += 1;
        }
        assert_eq!(self.director.connections(), live, "live connections");
        assert_eq!(self.director.half_open(), half_open, "half-open connections");
        let table = self.director.table();
        let left = table.expired.get() + table.replaced.get() + table.evicted.get();
        assert_eq!(u64::try_from(live).unwrap(), table.opened.get() - left, "opened minus left");
        for service in self.director.services().list() {
            let all = service.look_at_roster(|roster| {
                let members = roster.servers().iter().chain(roster.sorry());
                members.chain(roster.leaving()).cloned().collect::<Vec<_>>()
            });
            for server in all {
                let expected = counted.get(&server.id()).copied().unwrap_or_default();
                assert_eq!((server.active(), server.inactive()), expected, "{}", server.address());
            }
        }
    }
}
