//! What goes wrong in a run, all of it chosen by the seed.

use std::sync::{Arc, Mutex};

use wvs_abi::Request;
use wvs_core::random::Random;
use wvs_core::real_server::RealServer;
use wvs_core::scheduler::{Pick, Scheduler};

use crate::model::Picks;

/// Choices from a seed.
#[derive(Clone, Debug)]
pub(crate) struct Dice(Random);

impl Dice {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(Random::new(seed))
    }

    /// A number below `end`, which is above 0.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0.next() % end
    }

    /// As [`below`](Self::below) for places in lists.
    pub(crate) fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(u64::try_from(length).unwrap())).unwrap()
    }

    /// True so many times of a thousand.
    pub(crate) fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }

    pub(crate) fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.index(choices.len())]
    }

    pub(crate) fn number(&mut self) -> u32 {
        u32::try_from(self.below(1 << 32)).unwrap()
    }
}

/// How often something goes wrong, in times of a thousand.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    pub(crate) loss: u64,
    pub(crate) duplication: u64,
    pub(crate) corruption: u64,
    /// A packet that takes ten times as long.
    pub(crate) delay: u64,
    /// A packet whose time to live is used up at the director.
    pub(crate) short_lived: u64,
    /// A router that reports an error about a packet.
    pub(crate) router_errors: u64,
    /// A packet that comes with a partial checksum.
    pub(crate) partial: u64,
    /// A datagram without a checksum.
    pub(crate) unsummed: u64,
    /// A scheduler's answer that is none.
    pub(crate) bad_picks: u64,
    /// A client that goes away without a word.
    pub(crate) vanishing: u64,
    /// A jump of the director's clock, at each of its chances.
    pub(crate) clock_jumps: u64,
    /// A change of a weight, likewise.
    pub(crate) weights: u64,
    /// Another scheduler, likewise.
    pub(crate) reloads: u64,
}

impl Faults {
    /// Nothing is lost or broken: then every transfer must come to its end.
    pub(crate) fn calm(dice: &mut Dice) -> Self {
        Self { partial: dice.one_of(&[0, 300]), ..Self::default() }
    }

    pub(crate) fn any(dice: &mut Dice) -> Self {
        let mut some = |most: u64| if dice.chance(600) { dice.below(most) } else { 0 };
        Self {
            loss: some(150),
            duplication: some(150),
            corruption: some(120),
            delay: some(200),
            short_lived: some(20),
            router_errors: some(60),
            partial: some(500),
            unsummed: some(500),
            bad_picks: some(700),
            vanishing: some(200),
            clock_jumps: some(600),
            weights: some(500),
            reloads: some(400),
        }
    }
}

/// A scheduler that takes turns, except where it does what no scheduler should.
pub(crate) struct Wayward {
    pub(crate) service: usize,
    pub(crate) dice: Dice,
    pub(crate) bad_picks: u64,
    pub(crate) turn: usize,
    /// Where it says aloud what it answered.
    pub(crate) picks: Arc<Mutex<Picks>>,
}

impl Scheduler for Wayward {
    fn schedule(&mut self, _: &Request, servers: &[Arc<RealServer>]) -> Pick {
        let pick = if self.dice.chance(self.bad_picks) {
            match self.dice.below(5) {
                0 => Pick::NoServer,
                1 => Pick::Server(usize::MAX),
                2 => Pick::Server(servers.len()),
                // Perhaps one of weight 0.
                3 => Pick::Server(self.dice.index(servers.len())),
                _ => Pick::Defer,
            }
        } else {
            self.turn += 1;
            Pick::Server(self.turn % servers.len())
        };
        self.picks.lock().unwrap().push((self.service, pick));
        pick
    }

    fn servers_changed(&mut self, _: &[Arc<RealServer>]) {}
}
