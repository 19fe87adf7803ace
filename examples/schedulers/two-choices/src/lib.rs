//! Draws two servers by weight and takes the less loaded one.
//!
//! Nearly as even as looking at all of them, at a cost that hardly grows with their number, and
//! without the herd that runs to the one best server when many directors see the same counters.

use wvs_sdk::{Pick, Request, Scheduler, Server};

#[derive(Default)]
pub struct TwoChoices {
    /// Where each server's share of the weights ends: 0..ends[0] is the first's, and so on.
    ends: Vec<u64>,
}

impl Scheduler for TwoChoices {
    fn new(config: &str) -> Result<Self, String> {
        if config.is_empty() {
            Ok(Self::default())
        } else {
            Err("two-choices takes no configuration".to_owned())
        }
    }

    fn servers_changed(&mut self, servers: &[Server]) {
        self.ends.clear();
        let mut end = 0;
        for server in servers {
            end += u64::from(server.weight);
            self.ends.push(end);
        }
    }

    fn schedule(&mut self, request: &Request, servers: &[Server]) -> Pick {
        let Some(total @ 1..) = self.ends.last().copied() else { return Pick::NoServer };
        // Each half of the random number scaled to 0..total; a weight of 0 has an empty share.
        let draw = |half: u64| {
            let point = (half * total) >> 32;
            self.ends.partition_point(|end| *end <= point)
        };
        let first = draw(request.random >> 32);
        let second = draw(request.random & 0xFFFF_FFFF);
        if load(&servers[second]) < load(&servers[first]) {
            Pick::Server(second)
        } else {
            Pick::Server(first)
        }
    }
}

/// Connections for each unit of weight, active ones counting 256 times, as LVS has it.
fn load(server: &Server) -> u64 {
    let connections = u64::from(server.active) * 256 + u64::from(server.inactive);
    (connections << 16) / u64::from(server.weight)
}

wvs_sdk::export!(TwoChoices);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn less_loaded_of_the_two_drawn_is_taken() {
        let server = |active| Server { weight: 1, active, ..Server::default() };
        let servers = [server(9), server(5), server(7)];
        let mut scheduler = TwoChoices::new("").unwrap();
        scheduler.servers_changed(&servers);
        let mut pick = |first: u64, second: u64| {
            // A third of the range of 32 bits for each server.
            let half = |server: u64| server * 0x5555_5556;
            let random = half(first) << 32 | half(second);
            scheduler.schedule(&Request { random, ..Request::default() }, &servers)
        };
        assert_eq!(pick(0, 2), Pick::Server(2));
        assert_eq!(pick(2, 0), Pick::Server(2));
        assert_eq!(pick(1, 2), Pick::Server(1));
        assert_eq!(pick(0, 0), Pick::Server(0));
    }

    #[test]
    fn weight_0_is_never_drawn() {
        let servers = [0, 3, 0].map(|weight| Server { weight, ..Server::default() });
        let mut scheduler = TwoChoices::new("").unwrap();
        scheduler.servers_changed(&servers);
        for random in [0, u64::MAX, 1 << 31, 1 << 63] {
            let request = Request { random, ..Request::default() };
            assert_eq!(scheduler.schedule(&request, &servers), Pick::Server(1));
        }
        scheduler.servers_changed(&[]);
        assert_eq!(scheduler.schedule(&Request::default(), &[]), Pick::NoServer);
    }
}
