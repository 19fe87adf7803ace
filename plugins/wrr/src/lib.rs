//! `wrr`, weighted round robin: each server gets as many turns in a round as its weight says.
//!
//! **Rule.** The servers take turns in the order of the configuration, but only those whose weight
//! reaches a threshold. It starts at the highest weight; each time the end of the list is reached it
//! sinks by the greatest common divisor of the weights, and when nothing is left it starts again. So
//! weights 4, 3 and 2 give `A AB ABC ABC`, over and over: by weight, but a server of a high weight
//! gets several in a row (see `swrr`). Servers of weight 0 never get a turn; when there are no others
//! there is no server.
//!
//! **Changes of membership or weight** keep the place as `rr` does, and the threshold as far as the
//! new weights allow. (LVS starts again at the head of its list, which is in the reverse order of
//! ours; where servers come and go often, the first ones then get more than their share.) A
//! successor of the same kind goes on from there.
//!
//! **Cost.** As many steps as servers are passed over, at most two passes; reads no counters.
//!
//! **When.** Servers of different strength, connections alike.

#![no_std]

extern crate alloc;

use alloc::string::String;
use alloc::vec::Vec;

use wvs_sdk::{Pick, Request, Scheduler, Server, State, Turn, load, no_config, state};

/// The scheduler `wrr`. Takes no configuration.
#[derive(Debug, Default)]
pub struct WeightedRoundRobin {
    turn: Turn,
    /// The least weight that gets a turn now.
    threshold: u32,
    /// Where the threshold starts: in steps above 1, so that the last one ends there; 0 when no
    /// weight is above 0.
    top: u32,
    /// How far the threshold sinks at the end of the list.
    step: u32,
}

/// The form of the [`State`]: the threshold and the identities of [`Turn::last_turns`].
const MARK: [u8; 4] = *b"wrr1";

impl WeightedRoundRobin {
    /// The nearest threshold to `wanted` that the weights have: one that is at most the top, in
    /// steps above 1.
    fn set_threshold(&mut self, wanted: u32) {
        self.threshold = if wanted == 0 || wanted > self.top {
            self.top
        } else {
            (wanted - 1) / self.step * self.step + 1
        };
    }

    /// The threshold of the next pass.
    fn sink(&mut self) {
        self.threshold =
            if self.threshold > self.step { self.threshold - self.step } else { self.top };
    }
}

impl Scheduler for WeightedRoundRobin {
    const CAPS: u32 = 0;

    fn new(config: &str) -> Result<Self, String> {
        no_config("wrr", config)?;
        Ok(Self::default())
    }

    fn servers_changed(&mut self, servers: &[Server]) {
        self.turn.servers_changed(servers);
        let weights = servers.iter().map(|server| server.weight);
        self.step = load::weight_unit(weights.clone());
        self.top = weights.max().unwrap_or(0).saturating_sub(self.step - 1);
        self.set_threshold(self.threshold);
    }

    fn schedule(&mut self, _request: &Request, servers: &[Server]) -> Pick {
        if self.top == 0 {
            return Pick::NoServer;
        }
        let (before, after) = self.turn.split(servers);
        let reaches = |threshold| move |server: &Server| server.weight >= threshold;
        let index = match after.iter().position(reaches(self.threshold)) {
            Some(distance) => before.len() + distance,
            None => {
                self.sink();
                // The server of the highest weight reaches any threshold.
                match servers.iter().position(reaches(self.threshold)) {
                    Some(index) => index,
                    None => return Pick::NoServer,
                }
            }
        };
        self.turn.take(index);
        Pick::Server(index)
    }
}

impl State for WeightedRoundRobin {
    fn save(&self) -> Vec<u8> {
        let threshold = u64::from(self.threshold);
        state::to_octets(MARK, [threshold].into_iter().chain(self.turn.last_turns().map(u64::from)))
    }

    fn load(&mut self, state: &[u8]) -> bool {
        let Some(words) = state::from_octets(MARK, state) else { return false };
        let mut words = words.filter_map(|word| u32::try_from(word).ok());
        let Some(threshold) = words.next() else { return false };
        self.set_threshold(threshold);
        self.turn.resume(words);
        true
    }
}

wvs_sdk::no_std!();
wvs_sdk::export!(WeightedRoundRobin, State);

#[cfg(test)]
mod tests {
    use super::*;

    /// Servers by weight, with the identities 1, 2, 3 ..
    fn servers(weights: &[u32]) -> Vec<Server> {
        let server = |(id, &weight)| Server { id, weight, ..Server::default() };
        (1..).zip(weights).map(server).collect()
    }

    fn started(weights: &[u32]) -> (WeightedRoundRobin, Vec<Server>) {
        let mut wrr = WeightedRoundRobin::new("").unwrap();
        let servers = servers(weights);
        wrr.servers_changed(&servers);
        (wrr, servers)
    }

    /// The next picks, as letters: A for identity 1, and so on.
    fn picks(wrr: &mut WeightedRoundRobin, servers: &[Server], n: usize) -> String {
        let pick = |_| match wrr.schedule(&Request::default(), servers) {
            Pick::Server(index) => char::from(b'@' + u8::try_from(servers[index].id).unwrap()),
            other => panic!("{other:?}"),
        };
        (0..n).map(pick).collect()
    }

    #[test]
    fn servers_take_turns_by_weight_as_in_lvs() {
        let sequences: [(&[u32], &str); 5] = [
            (&[4, 3, 2], "AABABCABC"),
            // Named by their places in the list, where the fact is known for C2, B3, A4.
            (&[2, 3, 4], "CBCABCABC"),
            (&[5, 1, 1], "AAAAABC"),
            (&[10, 5], "AAB"),
            (&[3, 0, 1], "AAAC"),
        ];
        for (weights, sequence) in sequences {
            let (mut wrr, servers) = started(weights);
            assert_eq!(picks(&mut wrr, &servers, 2 * sequence.len()), sequence.repeat(2));
        }
    }

    #[test]
    fn without_weights_there_is_no_server() {
        for weights in [&[][..], &[0, 0]] {
            let (mut wrr, servers) = started(weights);
            assert_eq!(wrr.schedule(&Request::default(), &servers), Pick::NoServer);
        }
    }

    #[test]
    fn largest_weights_take_no_longer_than_two_passes() {
        let (mut wrr, servers) = started(&[65_535, 65_534]);
        assert_eq!(picks(&mut wrr, &servers, 5), "AABAB");
    }

    #[test]
    fn place_and_threshold_survive_a_change() {
        let (mut wrr, mut servers) = started(&[4, 3, 2]);
        assert_eq!(picks(&mut wrr, &servers, 2), "AA");
        servers.push(Server { id: 4, weight: 3, ..Server::default() });
        wrr.servers_changed(&servers);
        // The pass of threshold 3 goes on after A.
        assert_eq!(picks(&mut wrr, &servers, 6), "BDABCD");
    }

    #[test]
    fn threshold_follows_the_weights() {
        let (mut wrr, mut servers) = started(&[9, 6]);
        assert_eq!(picks(&mut wrr, &servers, 1), "A");
        // Steps of 2 from 1 now: 7 is one of them.
        (servers[0].weight, servers[1].weight) = (10, 4);
        wrr.servers_changed(&servers);
        assert_eq!((wrr.threshold, wrr.top, wrr.step), (7, 9, 2));
        // None of the weights reaches 7 any more.
        (servers[0].weight, servers[1].weight) = (2, 1);
        wrr.servers_changed(&servers);
        assert_eq!(wrr.threshold, 2);
    }

    #[test]
    fn successor_goes_on_where_its_predecessor_stopped() {
        let sequence = "AABABCABC".repeat(2);
        for stop in 0..9 {
            let (mut old, servers) = started(&[4, 3, 2]);
            let mut order = picks(&mut old, &servers, stop);
            let (mut new, servers) = started(&[4, 3, 2]);
            assert!(new.load(&old.save()));
            order += &picks(&mut new, &servers, 18 - stop);
            assert_eq!(order, sequence, "after {stop}");
        }
    }

    #[test]
    fn state_of_others_is_refused() {
        let (mut wrr, servers) = started(&[2, 1]);
        assert_eq!(picks(&mut wrr, &servers, 1), "A");
        for state in [&b""[..], b"wrr1", b"rr 1\x01\0\0\0\0\0\0\0"] {
            assert!(!wrr.load(state));
        }
        assert_eq!(picks(&mut wrr, &servers, 2), "AB");
    }

    #[test]
    fn config_is_refused() {
        assert_eq!(WeightedRoundRobin::new("{}").unwrap_err(), "wrr takes no configuration");
    }
}
