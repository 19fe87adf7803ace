//! The network: packets on their way, in virtual time, and what befalls them.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::SocketAddr;

use wvs_tests::onlooker::Outline;

use crate::faults::{Dice, Faults};
use crate::wire::{pseudo_header, residue};

/// A packet on its way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Frame {
    pub(crate) octets: Vec<u8>,
    /// An octet was changed on its way.
    pub(crate) is_damaged: bool,
}

/// What happens next.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Happening {
    /// A packet comes to the director.
    AtDirector(Frame),
    /// A packet that the director sent comes to where its destination is.
    AtEnd(Frame),
    /// A client's timer, by its place and the number of times that it was set.
    Client(usize, u64),
    /// The timer of a server's connection: the server's place, the client, the number of times.
    Server(usize, SocketAddr, u64),
    Sweep,
    /// A chance for the operator and the clock to do something.
    Chance,
}

/// Events in the order of their times.
#[derive(Debug)]
pub(crate) struct Network {
    queue: BinaryHeap<Reverse<(u64, u64, Happening)>>,
    numbered: u64,
    pub(crate) now_ms: u64,
    faults: Faults,
}

impl Network {
    pub(crate) fn new(faults: Faults) -> Self {
        Self { queue: BinaryHeap::new(), numbered: 0, now_ms: 0, faults }
    }

    /// Lets something happen after so many milliseconds.
    pub(crate) fn after(&mut self, millis: u64, happening: Happening) {
        self.numbered += 1;
        self.queue.push(Reverse((self.now_ms + millis, self.numbered, happening)));
    }

    /// The next thing that happens; the time is its time from here on.
    pub(crate) fn next(&mut self) -> Option<Happening> {
        let Reverse((now_ms, _, happening)) = self.queue.pop()?;
        self.now_ms = now_ms;
        Some(happening)
    }

    /// Sends a packet on one leg of its way; it may be lost, doubled, broken, late, overtaken.
    pub(crate) fn send(
        &mut self,
        dice: &mut Dice,
        mut frame: Frame,
        arrival: fn(Frame) -> Happening,
    ) {
        if dice.chance(self.faults.loss) {
            return;
        }
        if dice.chance(self.faults.duplication) {
            self.after(1 + dice.below(40), arrival(frame.clone()));
        }
        // Once only: what two changed octets do to a checksum may cancel out.
        if dice.chance(self.faults.corruption) && !frame.is_damaged {
            frame.is_damaged = corrupt(&mut frame.octets, dice);
        }
        let slow = if dice.chance(self.faults.delay) { 10 } else { 1 };
        self.after((1 + dice.below(20)) * slow, arrival(frame));
    }
}

/// Changes one octet, so that every checksum over it must fail. What the packet is to be taken for
/// stays readable: not the octets that make fragments, extension headers or the other family of it.
fn corrupt(octets: &mut [u8], dice: &mut Dice) -> bool {
    let at = dice.index(octets.len());
    let is_ipv6 = octets[0] >> 4 == 6;
    if checksum_at(octets).is_some_and(|at| octets[at..at + 2] == [0, 0]) {
        // Nobody could tell.
        return false;
    }
    let bits = match (at, is_ipv6) {
        (0, false) => 15,
        (0, true) | (6, _) | (7, false) => return false,
        _ => 255,
    };
    octets[at] ^= u8::try_from(1 + dice.below(bits)).unwrap();
    true
}

fn layout(octets: &[u8]) -> (usize, u8, usize) {
    if octets[0] >> 4 == 6 { (40, octets[6], octets.len()) } else { (20, octets[9], octets.len()) }
}

fn checksum_at(octets: &[u8]) -> Option<usize> {
    let (header, protocol, _) = layout(octets);
    match protocol {
        6 => Some(header + 16),
        17 => Some(header + 6),
        _ => None,
    }
}

fn pseudo(octets: &[u8]) -> Vec<u8> {
    let (header, protocol, end) = layout(octets);
    let outline = Outline::of(octets).expect("intact");
    pseudo_header(outline.source, outline.destination, protocol, end - header)
}

fn put_word(octets: &mut [u8], at: usize, word: u64) {
    octets[at..at + 2].copy_from_slice(&u16::try_from(word).unwrap().to_be_bytes());
}

/// Leaves the checksum of an intact packet to whoever sends it next. False where there is none.
pub(crate) fn make_partial(octets: &mut [u8]) -> bool {
    let Some(at) = checksum_at(octets).filter(|at| octets[*at..at + 2] != [0, 0]) else {
        return false;
    };
    let sum = residue(&[&pseudo(octets)]);
    put_word(octets, at, if sum == 0 { 0xffff } else { sum });
    true
}

/// Finishes a partial checksum, as hardware does.
pub(crate) fn complete(octets: &mut [u8]) {
    let at = checksum_at(octets).expect("only such packets are made partial");
    let (header, ..) = layout(octets);
    octets[at..at + 2].fill(0);
    // Complement and both zeros are one number here, and UDP's zero means something else.
    let checksum = (0xffff - residue(&[&pseudo(octets), &octets[header..]])) % 0xffff;
    let is_udp = layout(octets).1 == 17;
    let checksum = if checksum == 0 && is_udp { 0xffff } else { checksum };
    put_word(octets, at, checksum);
}

/// A datagram over IPv4 without a checksum.
pub(crate) fn make_unsummed(octets: &mut [u8]) {
    if octets[0] >> 4 == 4 && octets[9] == 17 {
        octets[26..28].fill(0);
    }
}

/// A packet that may travel no further than to the next router.
pub(crate) fn make_short_lived(octets: &mut [u8]) {
    if octets[0] >> 4 == 6 {
        octets[7] = 1;
    } else {
        octets[8] = 1;
        octets[10..12].fill(0);
        let sum = residue(&[&octets[..20]]);
        put_word(octets, 10, (0xffff - sum) % 0xffff);
    }
}
