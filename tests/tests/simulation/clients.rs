//! Clients: programs that talk to virtual services and hold them to their word.

use std::net::SocketAddr;

use wvs_tests::packet::{ACK, FIN, PSH, RST, SYN, Seen, SeenTransport, Tcp, echo, udp};

use crate::faults::Dice;
use crate::stream::{FROM_CLIENT, FROM_SERVER, extra, octets, verify};

/// Attempts before a client gives up.
const ATTEMPTS_MAX: u32 = 7;

/// What a program wants: packets sent, and to be woken.
#[derive(Debug, Default)]
pub(crate) struct Wishes {
    pub(crate) packets: Vec<Vec<u8>>,
    pub(crate) wake_after_ms: Option<u64>,
}

/// A program on a client's host, with an address and port of its own.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) address: SocketAddr,
    /// The virtual services that it talks to, now to one, now to another.
    pub(crate) vips: Vec<SocketAddr>,
    pub(crate) talk: Talk,
    pub(crate) vanishing: u64,
    /// How often its timer was set.
    pub(crate) timer: u64,
    /// Connections, datagrams or pings that got what they were owed.
    pub(crate) completed: u32,
    /// Those that did not.
    pub(crate) failed: u32,
}

#[derive(Debug)]
pub(crate) enum Talk {
    Tcp(Option<Stream>),
    Udp { asked: Option<(SocketAddr, u32)> },
    Ping { is_waiting: bool },
}

/// The client's end of a TCP connection.
#[derive(Debug)]
pub(crate) struct Stream {
    vip: SocketAddr,
    isn: u32,
    /// Octets that it has to say, and how many at a time.
    total: u32,
    chunk: u32,
    /// What it does instead of a FIN when so much is said.
    leaves_at: Option<(u32, Leave)>,
    phase: Phase,
    /// Octets acknowledged, the FIN as one more.
    acknowledged: u32,
    received: u32,
    peer_isn: u32,
    attempts: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Opening,
    Open,
    /// Both sides are done; late segments are still acknowledged.
    Done,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leave {
    Reset,
    Silently,
}

impl Client {
    pub(crate) fn wake(&mut self, dice: &mut Dice, wishes: &mut Wishes) {
        let address = self.address;
        match &mut self.talk {
            Talk::Udp { asked } => {
                if asked.take().is_some() {
                    self.failed += 1;
                }
                let vip = dice.one_of(&self.vips);
                let question = dice.number();
                *asked = Some((vip, question));
                wishes.packets.push(udp(address, vip, &question.to_be_bytes()));
                wishes.wake_after_ms = Some(200 + dice.below(4000));
            }
            Talk::Ping { is_waiting } => {
                if std::mem::replace(is_waiting, true) {
                    self.failed += 1;
                }
                let vip = dice.one_of(&self.vips);
                wishes.packets.push(echo(address.ip(), vip.ip(), true, address.port()));
                wishes.wake_after_ms = Some(200 + dice.below(4000));
            }
            Talk::Tcp(stream) => match stream {
                Some(Stream { phase: Phase::Opening | Phase::Open, attempts, .. })
                    if *attempts >= ATTEMPTS_MAX =>
                {
                    self.failed += 1;
                    self.rest(dice, wishes);
                }
                Some(stream @ Stream { phase: Phase::Opening | Phase::Open, .. }) => {
                    stream.attempts += 1;
                    stream.speak(address, wishes);
                    wishes.wake_after_ms = Some(300 * u64::from(stream.attempts));
                }
                None | Some(Stream { phase: Phase::Done, .. }) => {
                    // The next connection from the same port.
                    let next = Stream::plan(dice.one_of(&self.vips), self.vanishing, dice);
                    next.speak(address, wishes);
                    *stream = Some(next);
                    wishes.wake_after_ms = Some(300);
                }
            },
        }
    }

    /// Whether nothing of its is under way.
    pub(crate) fn is_idle(&self) -> bool {
        match &self.talk {
            Talk::Tcp(stream) => stream.as_ref().is_none_or(|stream| stream.phase == Phase::Done),
            Talk::Udp { asked } => asked.is_none(),
            Talk::Ping { is_waiting } => !is_waiting,
        }
    }

    /// Takes an intact packet, checks that it is one that it may get, and answers.
    pub(crate) fn receive(&mut self, seen: &Seen, dice: &mut Dice, wishes: &mut Wishes) {
        let address = self.address;
        match (&mut self.talk, &seen.transport) {
            (Talk::Udp { asked }, SeenTransport::Udp) => {
                assert!(self.vips.contains(&seen.source), "a datagram from {}", seen.source);
                if let Some((vip, question)) = *asked
                    && vip == seen.source
                    && seen.payload == question.to_be_bytes().map(|octet| !octet)
                {
                    *asked = None;
                    self.completed += 1;
                }
            }
            (Talk::Ping { is_waiting }, SeenTransport::Icmp { kind: 0 | 129, .. }) => {
                let is_vip = self.vips.iter().any(|vip| vip.ip() == seen.source.ip());
                assert!(is_vip, "an echo reply from {}", seen.source.ip());
                assert_eq!(seen.payload, b"are you there?");
                if std::mem::take(is_waiting) {
                    self.completed += 1;
                }
            }
            (Talk::Tcp(stream), SeenTransport::Tcp { flags, sequence, acknowledgement }) => {
                // From any port of it: it may have refused a segment whose port was damaged.
                let is_vip = self.vips.iter().any(|vip| vip.ip() == seen.source.ip());
                assert!(is_vip, "a segment from {}", seen.source);
                let segment = (*flags, *sequence, *acknowledgement);
                let Some(stream) = stream.as_mut().filter(|stream| stream.vip == seen.source)
                else {
                    if flags & RST == 0 && dice.chance(500) {
                        let mut reset = Tcp::new(address, seen.source, RST);
                        reset.sequence = *acknowledgement;
                        wishes.packets.push(reset.build());
                    }
                    return;
                };
                match stream.hear(address, segment, &seen.payload, wishes) {
                    Heard::Nothing => {}
                    Heard::GoesOn => wishes.wake_after_ms = Some(300),
                    Heard::Completed => {
                        self.completed += 1;
                        self.rest(dice, wishes);
                    }
                    Heard::Left => self.leave(dice, wishes),
                    Heard::Refused => {
                        self.failed += 1;
                        self.leave(dice, wishes);
                    }
                }
            }
            // Errors are checked by the model; what a program does about them is its affair.
            _ => {}
        }
    }

    fn leave(&mut self, dice: &mut Dice, wishes: &mut Wishes) {
        self.talk = Talk::Tcp(None);
        self.rest(dice, wishes);
    }

    fn rest(&mut self, dice: &mut Dice, wishes: &mut Wishes) {
        if let Talk::Tcp(Some(stream)) = &mut self.talk {
            stream.phase = Phase::Done;
        }
        wishes.wake_after_ms = Some(100 + dice.below(6000));
    }
}

/// What came of a segment.
enum Heard {
    Nothing,
    GoesOn,
    Completed,
    Left,
    Refused,
}

impl Stream {
    fn plan(vip: SocketAddr, vanishing: u64, dice: &mut Dice) -> Self {
        let total = u32::try_from(dice.below(240)).unwrap();
        let said = u32::try_from(dice.below(u64::from(total) + 1)).unwrap();
        let leaves_at = if dice.chance(vanishing) {
            Some((said, dice.one_of(&[Leave::Reset, Leave::Silently])))
        } else if dice.chance(100) {
            Some((said, Leave::Reset))
        } else {
            None
        };
        Self {
            vip,
            isn: dice.number(),
            total,
            chunk: 1 + u32::try_from(dice.below(90)).unwrap(),
            leaves_at,
            phase: Phase::Opening,
            acknowledged: 0,
            received: 0,
            peer_isn: 0,
            attempts: 0,
        }
    }

    /// Says, again or for the first time, what is to be said next.
    fn speak(&self, address: SocketAddr, wishes: &mut Wishes) {
        let mut segment = Tcp::new(address, self.vip, ACK);
        let content;
        if self.phase == Phase::Opening {
            segment = Tcp::new(address, self.vip, SYN);
            segment.sequence = self.isn;
        } else {
            segment.sequence = self.isn.wrapping_add(1).wrapping_add(self.acknowledged);
            segment.acknowledgement = self.peer_isn.wrapping_add(1).wrapping_add(self.received);
            if self.acknowledged < self.total {
                let length = self.chunk.min(self.total - self.acknowledged);
                content = octets(self.isn ^ FROM_CLIENT, self.acknowledged, length);
                segment.flags |= PSH;
                segment.payload = &content;
            } else if self.acknowledged == self.total {
                segment.flags |= FIN;
            }
        }
        wishes.packets.push(segment.build());
    }

    fn hear(
        &mut self,
        address: SocketAddr,
        (flags, sequence, acknowledgement): (u8, u32, u32),
        payload: &[u8],
        wishes: &mut Wishes,
    ) -> Heard {
        let expected = self.peer_isn.wrapping_add(1).wrapping_add(self.received);
        if flags & RST != 0 {
            let is_ours = match self.phase {
                Phase::Opening => acknowledgement == self.isn.wrapping_add(1),
                Phase::Open => sequence == expected,
                Phase::Done => false,
            };
            return if is_ours { Heard::Refused } else { Heard::Nothing };
        }
        if self.phase == Phase::Opening {
            if flags & (SYN | ACK) != SYN | ACK || acknowledgement != self.isn.wrapping_add(1) {
                // Somebody remembers the port's last connection (RFC 9293 section 3.10.7.3).
                let mut reset = Tcp::new(address, self.vip, RST);
                reset.sequence = acknowledgement;
                wishes.packets.push(reset.build());
                return Heard::Nothing;
            }
            self.phase = Phase::Open;
            self.peer_isn = sequence;
            self.attempts = 0;
            return self.go_on(address, wishes);
        }
        let news = acknowledgement.wrapping_sub(self.isn.wrapping_add(1));
        let is_news = flags & ACK != 0 && news > self.acknowledged && news <= self.total + 1;
        let is_next = sequence == expected && (!payload.is_empty() || flags & FIN != 0);
        if is_news {
            self.acknowledged = news;
            self.attempts = 0;
        }
        if is_next {
            verify(self.isn ^ FROM_SERVER, self.received, payload);
            self.received += u32::try_from(payload.len()).unwrap();
            if flags & FIN != 0 {
                assert_eq!(self.received, self.total + extra(self.isn), "octets from the server");
                self.received += 1;
            }
        }
        let is_again = !is_next && (!payload.is_empty() || flags & (SYN | FIN) != 0);
        let is_finished = self.received > self.total + extra(self.isn);
        if self.phase == Phase::Done {
            if is_next || is_again {
                self.acknowledge(address, wishes);
            }
            return Heard::Nothing;
        }
        if is_finished && self.acknowledged > self.total {
            self.acknowledge(address, wishes);
            return Heard::Completed;
        }
        if is_news {
            return self.go_on(address, wishes);
        }
        if is_next || is_again {
            self.acknowledge(address, wishes);
            return Heard::GoesOn;
        }
        Heard::Nothing
    }

    fn go_on(&mut self, address: SocketAddr, wishes: &mut Wishes) -> Heard {
        match self.leaves_at {
            Some((at, leave)) if self.acknowledged >= at => {
                if leave == Leave::Reset {
                    let mut reset = Tcp::new(address, self.vip, RST | ACK);
                    reset.sequence = self.isn.wrapping_add(1).wrapping_add(self.acknowledged);
                    reset.acknowledgement =
                        self.peer_isn.wrapping_add(1).wrapping_add(self.received);
                    wishes.packets.push(reset.build());
                }
                Heard::Left
            }
            _ => {
                self.speak(address, wishes);
                Heard::GoesOn
            }
        }
    }

    fn acknowledge(&self, address: SocketAddr, wishes: &mut Wishes) {
        let mut segment = Tcp::new(address, self.vip, ACK);
        segment.sequence = self.isn.wrapping_add(1).wrapping_add(self.acknowledged);
        segment.acknowledgement = self.peer_isn.wrapping_add(1).wrapping_add(self.received);
        wishes.packets.push(segment.build());
    }
}
