//! One run: everything that a seed stands for, from the first packet to the last count.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::mem::take;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use wvs_core::connection::state::{State, Timeouts};
use wvs_core::connection::table::TableLimits;
use wvs_core::director::{ClosedPort, DirectorConfig};
use wvs_core::packet::{Packet, TransportChecksum};
use wvs_core::persistence::{Persistence, Quiesced};
use wvs_core::pool::Pool;
use wvs_core::roster::Standing;
use wvs_core::service::{
    Forwarding, OnNoServer, OnStray, Protocol, Reach, ServiceAddress, Settings,
};
use wvs_core::time::Moment;
use wvs_core::verdict::Verdict;
use wvs_tests::onlooker::Onlooker;
use wvs_tests::packet::{ACK, FIN, RST, SYN, SeenTransport, icmp_error, tcp, try_receive};
use wvs_tests::world::{ServiceSpec, World};

use crate::clients::{Client, Talk, Wishes};
use crate::faults::{Dice, Faults, Wayward};
use crate::model::{Model, Picks, ShadowServer, ShadowService};
use crate::network::{
    Frame, Happening, Network, complete, make_partial, make_short_lived, make_unsummed,
};
use crate::servers::{Server, Takers};
use crate::wire::{Body, Wire};

/// Things that happen before a run ends.
const HAPPENINGS_MAX: usize = 1500;

/// Virtual time before a run ends.
const RUN_MS: u64 = 240_000;

/// Where the director's clock stands at the start: there is room to go back.
const CLOCK_START_MS: u64 = 10_000_000;

/// What came of a run.
pub(crate) struct Outcome {
    pub(crate) happened: BTreeMap<String, u64>,
    /// Of every packet that the director sent, in order.
    pub(crate) digest: u64,
}

/// A run under way.
pub(crate) struct Run {
    is_told: bool,
    is_calm: bool,
    faults: Faults,
    dice: Dice,
    network: Network,
    world: World,
    model: Model,
    onlooker: Onlooker,
    picks: Arc<Mutex<Picks>>,
    clients: Vec<Client>,
    servers: Vec<Server>,
    takers: Takers,
    /// Of the director: the virtual time and what jumps made of it.
    clock_offset_ms: u64,
    happened: BTreeMap<String, u64>,
    digest: DefaultHasher,
    processed: u64,
    /// No new packets: the run is coming to its end.
    is_ending: bool,
}

/// The addresses of one family: VIP, servers, a router on either side, and clients.
struct Family {
    vip: IpAddr,
    servers: [IpAddr; 3],
    router: IpAddr,
    /// The pool's address, for full NAT.
    local: IpAddr,
    clients: [IpAddr; 2],
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn families() -> [Family; 2] {
    [
        Family {
            vip: ip("203.0.113.10"),
            servers: ["10.0.0.1", "10.0.0.2", "10.0.0.3"].map(ip),
            router: ip("192.0.2.254"),
            local: ip("10.0.0.250"),
            clients: ["198.51.100.7", "198.51.100.8"].map(ip),
        },
        Family {
            vip: ip("2001:db8:2::10"),
            servers: ["fd00::1", "fd00::2", "fd00::3"].map(ip),
            router: ip("2001:db8:ffff::1"),
            local: ip("fd00::250"),
            clients: ["2001:db8:1::7", "2001:db8:1::8"].map(ip),
        },
    ]
}

const TCP_PORTS: [u16; 2] = [80, 443];
const UDP_PORT: u16 = 53;
/// A port of the VIP that no service has.
const CLOSED_PORT: u16 = 9;

fn timeouts(dice: &mut Dice, is_calm: bool) -> Timeouts {
    let mut timeouts = Timeouts::default();
    let divisor = if is_calm { 1 } else { dice.one_of(&[1, 1, 10, 60]) };
    for state in State::ALL {
        timeouts.set(state, state.default_timeout() / divisor);
    }
    timeouts
}

impl Run {
    pub(crate) fn new(seed: u64, is_told: bool) -> Self {
        let mut dice = Dice::new(seed.wrapping_mul(0x2545_f491_4f6c_dd1d));
        let is_calm = seed.is_multiple_of(8);
        let faults = if is_calm { Faults::calm(&mut dice) } else { Faults::any(&mut dice) };
        if is_told {
            println!("seed {seed}: {faults:?}");
        }
        let settings = DirectorConfig {
            limits: TableLimits {
                connections: if is_calm { 1000 } else { dice.one_of(&[4, 12, 40, 1000]) },
                half_open: if is_calm { 1000 } else { dice.one_of(&[1, 3, 1000]) },
            },
            replies_per_second: if is_calm { 1000 } else { dice.one_of(&[1, 5, 1000]) },
            answer_echo: dice.chance(700),
            closed_port: dice.one_of(&[ClosedPort::Reject, ClosedPort::Reject, ClosedPort::Drop]),
            hash_seed: dice.below(u64::MAX),
        };
        let picks = Arc::new(Mutex::new(Picks::new()));
        let (mut specs, mut shadows, mut servers, mut clients) =
            (Vec::new(), Vec::new(), Vec::<Server>::new(), Vec::new());
        let has_echo_service = dice.chance(500);
        for family in families() {
            let mut offered = vec![(Protocol::Udp, UDP_PORT, 5300)];
            offered.extend(TCP_PORTS.map(|port| (Protocol::Tcp, port, 8080)));
            if has_echo_service {
                offered.push((Protocol::Icmp, 0, 0));
            }
            for (protocol, port, server_port) in offered {
                let count = 1 + dice.index(3);
                let addresses: Vec<_> = family.servers[..count]
                    .iter()
                    .map(|ip| SocketAddr::new(*ip, server_port))
                    .collect();
                let pool = (!is_calm && dice.chance(400)).then(|| {
                    // Few places, and as a rule some of another service's too.
                    let first = 9000 + u16::try_from(dice.below(3)).unwrap();
                    Arc::new(Pool::new(vec![family.local], first..=first + 2))
                });
                let persistence = dice.chance(350).then(|| Persistence {
                    timeout: Duration::from_secs(dice.one_of(&[1, 10, 300])),
                    prefix: dice.one_of(&[8, 32, 128]),
                    quiesced: dice.one_of(&[Quiesced::Honour, Quiesced::Break]),
                    templates_max: dice.one_of(&[1, 1000]),
                });
                let is_one_packet = protocol == Protocol::Udp && pool.is_none() && dice.chance(400);
                let places = |pool: &Arc<Pool>| {
                    pool.ports().map(|port| SocketAddr::new(family.local, port)).collect()
                };
                let shadow = ShadowService {
                    pool: pool.as_ref().map(places),
                    persistence,
                    is_one_packet,
                    protocol,
                    address: SocketAddr::new(family.vip, port),
                    timeouts: timeouts(&mut dice, is_calm),
                    on_stray: dice.one_of(&[OnStray::Reset, OnStray::Drop, OnStray::Pickup]),
                    on_no_server: dice.one_of(&[
                        OnNoServer::Reset,
                        OnNoServer::Icmp,
                        OnNoServer::Drop,
                    ]),
                    servers: addresses.iter().map(|address| ShadowServer::new(*address)).collect(),
                };
                let service = shadows.len();
                let scheduler = wayward(service, &mut dice, faults, &picks);
                let reach = Reach::at(ServiceAddress {
                    protocol,
                    vip: shadow.address.ip(),
                    port: shadow.address.port(),
                });
                specs.push(ServiceSpec {
                    protocol,
                    address: shadow.address,
                    servers: addresses.clone(),
                    scheduler: Box::new(scheduler),
                    forwarding: pool.map_or(Forwarding::Nat, Forwarding::FullNat),
                    settings: Settings {
                        on_no_server: shadow.on_no_server,
                        on_stray: shadow.on_stray,
                        timeouts: shadow.timeouts.clone(),
                        persistence,
                        is_one_packet,
                        ..Settings::new(reach)
                    },
                    standings: vec![Standing::new(1); addresses.len()],
                    sorry: None,
                });
                shadows.push(shadow);
                for address in addresses {
                    let is_known =
                        |server: &Server| (server.protocol, server.address) == (protocol, address);
                    if !servers.iter().any(is_known) {
                        servers.push(Server { protocol, address, ends: BTreeMap::new() });
                    }
                }
            }
            add_clients(&mut clients, &family, &mut dice, is_calm, faults);
        }
        let world = World::with(settings.clone(), specs);
        let onlooker = Onlooker::new(&world.director.services());
        let mut network = Network::new(faults);
        for client in 0..clients.len() {
            network.after(dice.below(2000), Happening::Client(client, 0));
        }
        network.after(100, Happening::Sweep);
        network.after(dice.below(3000), Happening::Chance);
        Self {
            is_told,
            is_calm,
            faults,
            dice,
            network,
            world,
            model: Model::new(settings, shadows),
            onlooker,
            picks,
            clients,
            servers,
            takers: Takers::new(),
            clock_offset_ms: CLOCK_START_MS,
            happened: BTreeMap::new(),
            digest: DefaultHasher::new(),
            processed: 0,
            is_ending: false,
        }
    }

    /// The director's time.
    fn clock_ms(&self) -> u64 {
        self.clock_offset_ms + self.network.now_ms
    }

    fn note(&mut self, what: &str) {
        *self.happened.entry(what.to_owned()).or_default() += 1;
    }

    fn tell(&self, what: impl FnOnce() -> String) {
        if self.is_told {
            println!("{:>7} {}", self.network.now_ms, what());
        }
    }

    /// Lets everything happen that happens, then checks every total.
    pub(crate) fn finish(mut self) -> Outcome {
        for _ in 0..HAPPENINGS_MAX {
            if self.network.now_ms > RUN_MS {
                break;
            }
            match self.network.next() {
                Some(happening) => self.happen(happening),
                None => break,
            }
        }
        if self.is_calm {
            // Whatever is under way comes to its end.
            self.is_ending = true;
            while let Some(happening) = self.network.next() {
                self.happen(happening);
            }
            let failed: u32 = self.clients.iter().map(|client| client.failed).sum();
            assert_eq!(failed, 0, "nothing was lost or broken, and transfers failed");
        }
        self.model.compare_totals(&self.world.director);
        assert_eq!(self.world.processed(), self.processed, "packets with a verdict");
        self.world.recount();
        self.sweep();
        // In time everything goes.
        self.clock_offset_ms += 2 * CLOCK_START_MS;
        self.sweep();
        assert_eq!(self.world.director.connections(), 0);
        self.world.recount();
        for (what, times) in [
            ("transfer completed", self.clients.iter().map(|client| client.completed).sum::<u32>()),
            ("transfer failed", self.clients.iter().map(|client| client.failed).sum()),
        ] {
            if times > 0 {
                *self.happened.entry(what.to_owned()).or_default() += u64::from(times);
            }
        }
        let table = self.world.director.table();
        for (what, times) in [
            ("expired", &table.expired),
            ("replaced", &table.replaced),
            ("evicted", &table.evicted),
        ] {
            if times.get() > 0 {
                *self.happened.entry(what.to_owned()).or_default() += times.get();
            }
        }
        for (what, times) in self.model.happened() {
            if times > 0 {
                *self.happened.entry(what.to_owned()).or_default() += times;
            }
        }
        Outcome { happened: self.happened, digest: self.digest.finish() }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::AtDirector(frame) => self.direct(frame),
            Happening::AtEnd(frame) => self.arrive(&frame),
            Happening::Client(index, timer) => {
                if self.clients[index].timer == timer && !self.is_ending_for(index) {
                    let mut wishes = Wishes::default();
                    self.clients[index].wake(&mut self.dice, &mut wishes);
                    self.grant_client(index, wishes);
                }
            }
            Happening::Server(index, client, timer) => {
                let server = &mut self.servers[index];
                if server.ends.get(&client).is_some_and(|end| end.timer == timer) {
                    let mut wishes = Wishes::default();
                    server.wake(client, &mut wishes);
                    self.grant_server(index, client, wishes);
                }
            }
            Happening::Sweep => {
                self.sweep();
                if !self.is_ending {
                    let after = if self.dice.chance(900) { 100 } else { self.dice.below(5000) };
                    self.network.after(after, Happening::Sweep);
                }
            }
            Happening::Chance => {
                self.take_chance();
                if !self.is_ending {
                    self.network.after(self.dice.below(4000), Happening::Chance);
                }
            }
        }
    }

    /// Whether a client is not to begin anything new.
    fn is_ending_for(&self, index: usize) -> bool {
        self.is_ending && self.clients[index].is_idle()
    }

    fn sweep(&mut self) {
        let clock_ms = self.clock_ms();
        let swept = self.world.director.sweep(Moment::from_millis(clock_ms));
        let expected = self.model.sweep(clock_ms, &self.world.director);
        for service in self.world.director.services().list() {
            service.attend(Moment::from_millis(clock_ms));
        }
        if swept > 0 {
            self.tell(|| format!("sweep: {swept} expired"));
        }
        assert_eq!(swept, expected, "expired connections");
        self.model.compare(&self.world.director, clock_ms);
    }

    /// The clock, the operator: whatever the seed wants.
    fn take_chance(&mut self) {
        if self.dice.chance(self.faults.clock_jumps) {
            let jump = self.dice.one_of(&[1, 500, 9000, 61_000, 1_000_000]);
            let jump = self.dice.below(jump + 1);
            if self.dice.chance(300) {
                self.clock_offset_ms = self.clock_offset_ms.saturating_sub(jump);
                self.model.clock_went_back();
                self.note("clock went back");
            } else {
                self.clock_offset_ms += jump;
                self.note("clock went on");
            }
            self.tell(|| format!("the clock says {}", self.clock_ms()));
        }
        let service = self.dice.index(self.model.services.len());
        if self.dice.chance(self.faults.weights) {
            let servers = &mut self.model.services[service].servers;
            let index = self.dice.index(servers.len());
            let weight = u32::try_from(self.dice.below(4)).unwrap();
            servers[index].weight = weight;
            self.world.set_weight(service, index, weight);
            self.note("weight changed");
            self.tell(|| format!("server {index} of service {service} has weight {weight}"));
        }
        if self.dice.chance(self.faults.reloads) {
            let scheduler = wayward(service, &mut self.dice, self.faults, &self.picks);
            let real = self.world.service(service);
            drop(real.replace_scheduler(Box::new(scheduler)));
            self.note("scheduler replaced");
            self.tell(|| format!("service {service} has another scheduler"));
        }
        if !self.is_calm && self.dice.chance(300) {
            self.send_odd_packet();
        }
        if !self.is_calm && self.dice.chance(500) {
            self.send_forged_segments();
        }
    }

    /// Segments with the addresses and ports of a connection, perhaps, and any flags, in one moment:
    /// states move as no pair of hosts would move them.
    fn send_forged_segments(&mut self) {
        let family = &families()[self.dice.index(2)];
        let port = 40_000 + u16::try_from(self.dice.below(4)).unwrap();
        let client = SocketAddr::new(family.clients[self.dice.index(2)], port);
        let vip = SocketAddr::new(family.vip, self.dice.one_of(&TCP_PORTS));
        let is_one = |server: &&Server| {
            server.protocol == Protocol::Tcp && server.address.is_ipv6() == vip.is_ipv6()
        };
        let servers: Vec<_> = self.servers.iter().filter(is_one).map(|one| one.address).collect();
        let server = self.dice.one_of(&servers);
        for _ in 0..1 + self.dice.below(24) {
            let flags =
                self.dice.one_of(&[SYN, SYN | ACK, ACK, ACK, ACK, FIN | ACK, FIN | ACK, RST, 0]);
            let (from, to) = self.dice.one_of(&[(client, vip), (server, client)]);
            let octets = tcp(from, to, flags);
            self.network.after(0, Happening::AtDirector(Frame { octets, is_damaged: false }));
        }
    }

    /// A packet that no program here would send.
    fn send_odd_packet(&mut self) {
        let family = &families()[self.dice.index(2)];
        let client = family.clients[0];
        let is_ipv6 = client.is_ipv6();
        let [kind, code] = match (self.dice.below(3), is_ipv6) {
            (0, false) => [5, 1],
            (0, true) => [137, 0],
            (1, false) => [42, 0],
            (1, true) => [150, 0],
            (_, false) => [3, 1],
            (_, true) => [1, 0],
        };
        let server = family.servers[0];
        let (from, to) = self.dice.one_of(&[
            (client, family.vip),
            (server, client),
            (family.router, client),
            (client, server),
        ]);
        // Of a quote that is too short, or about nobody's packet.
        let length = self.dice.index(48);
        let octets = icmp_error(from, to, [kind, code], &vec![0x45; length]);
        self.network.send(
            &mut self.dice,
            Frame { octets, is_damaged: false },
            Happening::AtDirector,
        );
    }

    fn grant_client(&mut self, index: usize, wishes: Wishes) {
        self.send_all(wishes.packets);
        if let Some(after) = wishes.wake_after_ms {
            self.clients[index].timer += 1;
            self.network.after(after, Happening::Client(index, self.clients[index].timer));
        }
    }

    fn grant_server(&mut self, index: usize, client: SocketAddr, wishes: Wishes) {
        self.send_all(wishes.packets);
        if let Some(after) = wishes.wake_after_ms
            && let Some(end) = self.servers[index].ends.get_mut(&client)
        {
            end.timer += 1;
            self.network.after(after, Happening::Server(index, client, end.timer));
        }
    }

    fn send_all(&mut self, packets: Vec<Vec<u8>>) {
        for mut octets in packets {
            if self.dice.chance(self.faults.unsummed) {
                make_unsummed(&mut octets);
            }
            if self.dice.chance(self.faults.short_lived) {
                make_short_lived(&mut octets);
            }
            let frame = Frame { octets, is_damaged: false };
            self.network.send(&mut self.dice, frame, Happening::AtDirector);
        }
    }

    /// The director and everybody who looks over its shoulder.
    fn direct(&mut self, frame: Frame) {
        let Frame { mut octets, is_damaged } = frame;
        let is_partial =
            !is_damaged && self.dice.chance(self.faults.partial) && make_partial(&mut octets);
        let checksum =
            if is_partial { TransportChecksum::Partial } else { TransportChecksum::Complete };
        let clock_ms = self.clock_ms();
        let mut buffer = octets.clone();
        buffer.resize(octets.len() + Packet::HEADROOM, 0xEE);
        let mut packet = Packet::new(&mut buffer, octets.len()).with_checksum(checksum);
        let now = Moment::from_millis(clock_ms);
        let verdict = self.world.director.process(&mut packet, now);
        let mut went = packet.octets().to_vec();
        self.processed += 1;
        self.tell(|| {
            let more = if is_damaged { " (damaged)" } else { "" };
            let sent = if let Verdict::Drop(_) = verdict { String::new() } else { show(&went) };
            format!("{}{more} => {verdict:?} {sent}", show(&octets))
        });
        self.note(&format!("{verdict:?}"));
        (format!("{verdict:?}"), &went).hash(&mut self.digest);

        let mut picks = take(&mut *self.picks.lock().unwrap());
        let decided = (verdict, &went[..]);
        let director = &self.world.director;
        self.model.judge(&octets, is_partial, decided, clock_ms, &mut picks, director);
        self.model.compare(&self.world.director, clock_ms);
        self.onlooker.watch(verdict, &octets, &went);

        if let Verdict::Drop(_) = verdict {
            return;
        }
        if verdict == Verdict::Forward {
            self.note_forwarded(&went, is_damaged, is_partial);
        }
        if is_partial && verdict != Verdict::Reply {
            complete(&mut went);
        }
        // What the director says itself is whole whatever it answers.
        let is_damaged = is_damaged && verdict != Verdict::Reply;
        if !is_damaged && self.dice.chance(self.faults.router_errors) {
            self.report_error(&went);
        }
        self.network.send(&mut self.dice, Frame { octets: went, is_damaged }, Happening::AtEnd);
    }

    fn note_forwarded(&mut self, went: &[u8], is_damaged: bool, is_partial: bool) {
        let wire = Wire::of(went).unwrap();
        if is_damaged {
            self.note("damaged packet forwarded");
        }
        if is_partial {
            self.note("partial checksum forwarded");
        }
        if let Body::Error { .. } = wire.body {
            let is_to_client = self.model.is_vip(wire.source);
            self.note(if is_to_client { "error to a client" } else { "error to a server" });
        }
    }

    /// A router, or whoever a packet is for, has something to say about it.
    fn report_error(&mut self, about: &[u8]) {
        let wire = Wire::of(about).unwrap();
        if matches!(wire.body, Body::Error { .. } | Body::OtherIcmp | Body::Redirect) {
            return;
        }
        let is_ipv6 = wire.source.is_ipv6();
        let router = families()[usize::from(is_ipv6)].router;
        let from = self.dice.one_of(&[router, wire.destination]);
        let kind = if is_ipv6 {
            self.dice.one_of(&[[1, 4], [2, 0], [3, 0]])
        } else {
            self.dice.one_of(&[[3, 3], [3, 4], [11, 0]])
        };
        let least = (wire.header + 8).min(about.len());
        let quoted = self.dice.one_of(&[least, least + (about.len() - least) / 2, about.len()]);
        let octets = icmp_error(from, wire.source, kind, &about[..quoted]);
        let frame = Frame { octets, is_damaged: false };
        self.network.send(&mut self.dice, frame, Happening::AtDirector);
    }

    /// A packet is where its destination is. Whoever that is throws away what is damaged.
    fn arrive(&mut self, frame: &Frame) {
        let seen = match try_receive(&frame.octets) {
            Ok(seen) => seen,
            Err(damage) => {
                assert!(frame.is_damaged, "{damage}: {}", show(&frame.octets));
                return;
            }
        };
        let to = seen.destination;
        // An echo message's identifier stands where its program's port would.
        let port = match seen.transport {
            SeenTransport::Icmp { rest, .. } => u16::from_be_bytes([rest[0], rest[1]]),
            _ => to.port(),
        };
        let is_tcp = matches!(seen.transport, SeenTransport::Tcp { .. });
        let is_udp = seen.transport == SeenTransport::Udp;
        let client = self.clients.iter().position(|client| {
            client.address == SocketAddr::new(to.ip(), port)
                && match client.talk {
                    Talk::Tcp(_) => is_tcp,
                    Talk::Udp { .. } => is_udp,
                    Talk::Ping { .. } => !is_tcp && !is_udp,
                }
        });
        let mut wishes = Wishes::default();
        if let Some(index) = client {
            self.clients[index].receive(&seen, &mut self.dice, &mut wishes);
            self.grant_client(index, wishes);
            return;
        }
        let server = self.servers.iter().position(|server| {
            let is_protocol = match server.protocol {
                Protocol::Tcp => is_tcp,
                Protocol::Udp => is_udp,
                Protocol::Icmp => !is_tcp && !is_udp,
            };
            server.address == to && is_protocol
        });
        if let Some(index) = server {
            // But where the director says as a router that the server's packet travelled too far.
            let is_from_vip = self.model.is_vip(seen.source.ip());
            let is_time_exceeded = matches!(
                (seen.source.is_ipv6(), &seen.transport),
                (false, SeenTransport::Icmp { kind: 11, .. })
                    | (true, SeenTransport::Icmp { kind: 3, .. })
            );
            assert!(!is_from_vip || is_time_exceeded, "a server sees a virtual address");
            let takers = &mut self.takers;
            self.servers[index].receive(&seen, &mut self.dice, takers, &mut wishes);
            self.grant_server(index, seen.source, wishes);
        }
    }
}

fn wayward(service: usize, dice: &mut Dice, faults: Faults, picks: &Arc<Mutex<Picks>>) -> Wayward {
    Wayward {
        service,
        dice: Dice::new(dice.below(u64::MAX)),
        bad_picks: faults.bad_picks,
        turn: dice.index(3),
        picks: Arc::clone(picks),
    }
}

fn add_clients(
    clients: &mut Vec<Client>,
    family: &Family,
    dice: &mut Dice,
    is_calm: bool,
    faults: Faults,
) {
    let vips = |ports: &[u16]| -> Vec<_> {
        ports.iter().map(|port| SocketAddr::new(family.vip, *port)).collect()
    };
    let mut add = |ip, port, vips, talk| {
        let address = SocketAddr::new(ip, port);
        let vanishing = faults.vanishing;
        clients.push(Client { address, vips, talk, vanishing, timer: 0, completed: 0, failed: 0 });
    };
    for ip in family.clients {
        for port in 40_000..40_002 + u16::try_from(dice.below(3)).unwrap() {
            // One port for two services on one server is refused while the first lives.
            let ports: &[u16] = match (is_calm, dice.below(10)) {
                (true, _) => &TCP_PORTS[..1],
                (false, 0) => &[CLOSED_PORT],
                (false, _) => &TCP_PORTS,
            };
            add(ip, port, vips(ports), Talk::Tcp(None));
        }
        let ports: &[u16] = if is_calm { &[UDP_PORT] } else { &[UDP_PORT, UDP_PORT, CLOSED_PORT] };
        add(ip, 50_000, vips(ports), Talk::Udp { asked: None });
        if !is_calm {
            add(ip, 60_000, vips(&[0]), Talk::Ping { is_waiting: false });
        }
    }
}

/// A packet in a line.
fn show(octets: &[u8]) -> String {
    let wire = match Wire::of(octets) {
        Ok(wire) => wire,
        Err(reason) => return format!("[{reason}]"),
    };
    let Wire { source, destination, hop_limit, length, body, .. } = &wire;
    match wire.ends() {
        Some((protocol, source, destination)) => {
            format!(
                "[{protocol} {source} > {destination} ttl {hop_limit} length {length} {body:?}]"
            )
        }
        None => format!("[{source} > {destination} ttl {hop_limit} length {length} {body:?}]"),
    }
}
