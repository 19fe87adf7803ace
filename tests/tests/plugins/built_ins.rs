//! The built-in schedulers decide in wasm as they do natively, every time anew.

use wvs_abi::{Request, Server, server_flags};
use wvs_core::random::Random;
use wvs_core::scheduler::Pick;
use wvs_plugin::{Instance, ServerTable, builtin};
use wvs_sdk::Scheduler;

use crate::built_in;

const REQUESTS: usize = 10_000;

/// A seeded stream of requests over servers that come, go, change weight and fill up.
struct World {
    random: Random,
    servers: Vec<Server>,
    next_id: u32,
    now_ms: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut world =
            Self { random: Random::new(seed), servers: Vec::new(), next_id: 1, now_ms: 0 };
        for _ in 0..8 {
            world.add_server();
        }
        world
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.random.next() % u64::try_from(n).unwrap()).unwrap()
    }

    /// Often small, now and then 0 or the largest.
    fn weight(&mut self) -> u32 {
        match self.below(8) {
            0 => 0,
            1 => 65_535,
            _ => u32::try_from(self.below(20)).unwrap(),
        }
    }

    fn count(&mut self) -> u32 {
        match self.below(20) {
            0 => u32::MAX,
            _ => u32::try_from(self.below(50)).unwrap(),
        }
    }

    fn add_server(&mut self) {
        let weight = self.weight();
        let server = Server {
            id: self.next_id,
            weight,
            flags: server_flags::UP,
            configured_weight: weight,
            key: self.random.next(),
            ..Server::default()
        };
        self.next_id += 1;
        let place = self.below(self.servers.len() + 1);
        self.servers.insert(place, server);
    }

    /// Changes membership or a weight; also down to no servers at all and up to many.
    fn change_servers(&mut self) {
        match self.below(4) {
            0 if self.servers.len() < 300 => {
                for _ in 0..=self.below(12) {
                    self.add_server();
                }
            }
            1 => {
                for _ in 0..=self.below(10).min(self.servers.len().saturating_sub(1)) {
                    let gone = self.below(self.servers.len().max(1));
                    if gone < self.servers.len() {
                        self.servers.remove(gone);
                    }
                }
            }
            2 if self.below(20) == 0 => self.servers.clear(),
            _ => {
                let weight = self.weight();
                let changed = self.below(self.servers.len().max(1));
                if let Some(server) = self.servers.get_mut(changed) {
                    server.weight = weight;
                }
            }
        }
    }

    fn change_counts(&mut self) {
        for _ in 0..3 {
            let (active, inactive) = (self.count(), self.count());
            let changed = self.below(self.servers.len().max(1));
            if let Some(server) = self.servers.get_mut(changed) {
                (server.active, server.inactive) = (active, inactive);
            }
        }
    }

    fn request(&mut self) -> Request {
        self.now_ms += self.random.next() % 10;
        let is_ipv4 = self.random.next() & 1 == 0;
        let mut client_address = [0; 16];
        let length = if is_ipv4 { 4 } else { 16 };
        client_address[..length].fill_with(|| self.random.next().to_le_bytes()[0]);
        let [a, b, ..] = self.random.next().to_le_bytes();
        Request {
            family: if is_ipv4 { 4 } else { 6 },
            protocol: 6,
            client_port: u16::from_le_bytes([a, b]),
            virtual_port: 80,
            service_id: 1,
            client_address,
            now_ms: self.now_ms,
            random: self.random.next(),
            ..Request::default()
        }
    }
}

fn instance(name: &str) -> Instance {
    Instance::new(&built_in(name), None).unwrap()
}

fn ask(instance: &mut Instance, request: &Request, servers: &[Server]) -> Pick {
    let counts = servers.iter().map(|server| (server.active, server.inactive));
    instance.schedule(request, counts).unwrap()
}

/// Puts one stream to the native scheduler and to two wasm instances of it.
fn decides_alike<S: Scheduler>(name: &str) {
    let mut world = World::new(0x0DDB_1A5E_5BAD_5EED);
    let mut native = S::new("").unwrap();
    let mut instances = [instance(name), instance(name)];
    let tell = |world: &World, native: &mut S, instances: &mut [Instance; 2]| {
        native.servers_changed(&world.servers);
        let table = ServerTable::from(world.servers.clone());
        for instance in instances {
            instance.set_servers(&table).unwrap();
        }
    };
    tell(&world, &mut native, &mut instances);
    let mut answers = [0; 2];
    for number in 0..REQUESTS {
        if world.below(40) == 0 {
            world.change_servers();
            tell(&world, &mut native, &mut instances);
        }
        world.change_counts();
        let request = world.request();
        let expected = match native.schedule(&request, &world.servers) {
            wvs_sdk::Pick::Server(index) => Pick::Server(index),
            wvs_sdk::Pick::NoServer => Pick::NoServer,
            wvs_sdk::Pick::Defer => Pick::Defer,
        };
        for instance in &mut instances {
            let picked = ask(instance, &request, &world.servers);
            assert_eq!(picked, expected, "{name}, request {number}");
        }
        answers[usize::from(expected == Pick::NoServer)] += 1;
    }
    // Both kinds of answer occurred, or the stream tests less than it seems to.
    assert!(answers[0] > REQUESTS / 2 && answers[1] > 10, "{name}: {answers:?}");
}

#[test]
fn rr_in_wasm_decides_as_natively() {
    decides_alike::<wvs_rr::RoundRobin>("rr");
}

#[test]
fn wlc_in_wasm_decides_as_natively() {
    decides_alike::<wvs_wlc::WeightedLeastConnections>("wlc");
}

#[test]
fn sh_in_wasm_decides_as_natively() {
    decides_alike::<wvs_sh::SourceHashing>("sh");
}

#[test]
fn built_ins_say_what_they_read() {
    use wvs_abi::caps;
    let caps: Vec<_> = ["rr", "wlc", "sh"].map(|name| instance(name).caps()).into();
    assert_eq!(caps, [0, caps::COUNTERS, caps::PURE]);
}

#[test]
fn every_built_in_is_found_by_its_name() {
    for name in builtin::NAMES {
        assert!(builtin::find(name).is_some_and(|module| module.starts_with(b"\0asm")));
    }
    assert_eq!(builtin::find("wrr"), None);
}
