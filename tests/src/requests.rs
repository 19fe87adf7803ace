//! Requests for a scheduler: the same ones from the same seed, over servers that change meanwhile.

use wvs_abi::{Request, Server, server_flags};
use wvs_core::random::Random;

/// A seeded stream of requests over servers that come, go, change weight and fill up.
#[derive(Debug)]
pub struct Requests {
    random: Random,
    /// The servers as they are now, in the order of the configuration.
    pub servers: Vec<Server>,
    next_id: u32,
    now_ms: u64,
}

impl Requests {
    /// The stream of a seed, over eight servers at first.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut requests =
            Self { random: Random::new(seed), servers: Vec::new(), next_id: 1, now_ms: 0 };
        for _ in 0..8 {
            requests.add_server();
        }
        requests
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

    /// Lets time pass for the servers: now and then one comes, goes or changes its weight. Whether
    /// that happened, so that schedulers must be told.
    pub fn servers_change(&mut self) -> bool {
        let is_time = self.below(40) == 0;
        if is_time {
            self.change_servers();
        }
        is_time
    }

    /// The next request, after some connections came and went.
    pub fn next_request(&mut self) -> Request {
        self.change_counts();
        self.request()
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
