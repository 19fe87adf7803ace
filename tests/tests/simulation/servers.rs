//! Real servers: they answer whoever comes, and know no virtual address.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use wvs_core::service::Protocol;
use wvs_tests::packet::{ACK, FIN, PSH, RST, SYN, Seen, SeenTransport, Tcp, echo, udp};

use crate::clients::Wishes;
use crate::faults::Dice;
use crate::stream::{FROM_CLIENT, FROM_SERVER, extra, octets, verify};

const ATTEMPTS_MAX: u32 = 6;

/// A real server at one address and port.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) protocol: Protocol,
    pub(crate) address: SocketAddr,
    pub(crate) ends: BTreeMap<SocketAddr, End>,
}

/// Which server took the octets of which connection: client and initial sequence number.
pub(crate) type Takers = BTreeMap<(SocketAddr, u32), SocketAddr>;

/// The server's end of a TCP connection.
#[derive(Debug)]
pub(crate) struct End {
    /// How often its timer was set.
    pub(crate) timer: u64,
    isn: u32,
    peer_isn: u32,
    is_open: bool,
    received: u32,
    /// The client said all that it has to say.
    is_told_all: bool,
    /// Octets acknowledged, the FIN as one more.
    acknowledged: u32,
    attempts: u32,
}

impl Server {
    /// Takes an intact packet and answers it.
    pub(crate) fn receive(
        &mut self,
        seen: &Seen,
        dice: &mut Dice,
        takers: &mut Takers,
        wishes: &mut Wishes,
    ) {
        match (self.protocol, &seen.transport) {
            (Protocol::Udp, SeenTransport::Udp) => {
                let answer: Vec<u8> = seen.payload.iter().map(|octet| !octet).collect();
                wishes.packets.push(udp(self.address, seen.source, &answer));
            }
            (Protocol::Icmp, SeenTransport::Icmp { kind: 8 | 128, rest, .. }) => {
                let identifier = u16::from_be_bytes([rest[0], rest[1]]);
                let (server, client) = (self.address.ip(), seen.source.ip());
                wishes.packets.push(echo(server, client, false, identifier));
            }
            (Protocol::Tcp, SeenTransport::Tcp { flags, sequence, acknowledgement }) => {
                let segment = (*flags, *sequence, *acknowledgement);
                self.hear(seen.source, segment, &seen.payload, dice, takers, wishes);
            }
            _ => {}
        }
    }

    /// A connection's timer.
    pub(crate) fn wake(&mut self, client: SocketAddr, wishes: &mut Wishes) {
        let Some(end) = self.ends.get_mut(&client) else { return };
        end.attempts += 1;
        if end.attempts > ATTEMPTS_MAX {
            self.ends.remove(&client);
            return;
        }
        end.speak(self.address, client, wishes);
        wishes.wake_after_ms = Some(300 * u64::from(end.attempts));
    }

    fn hear(
        &mut self,
        client: SocketAddr,
        (flags, sequence, acknowledgement): (u8, u32, u32),
        payload: &[u8],
        dice: &mut Dice,
        takers: &mut Takers,
        wishes: &mut Wishes,
    ) {
        let address = self.address;
        if flags & (SYN | RST | ACK) == SYN && !self.ends.contains_key(&client) {
            let end = End {
                timer: 0,
                isn: dice.number(),
                peer_isn: sequence,
                is_open: false,
                received: 0,
                is_told_all: false,
                acknowledged: 0,
                attempts: 0,
            };
            end.speak(address, client, wishes);
            wishes.wake_after_ms = Some(300);
            self.ends.insert(client, end);
            return;
        }
        let Some(end) = self.ends.get_mut(&client) else {
            if flags & RST == 0 {
                let mut reset = Tcp::new(address, client, RST);
                reset.sequence = acknowledgement;
                wishes.packets.push(reset.build());
            }
            return;
        };
        let expected = end.peer_isn.wrapping_add(1).wrapping_add(end.received);
        if flags & RST != 0 {
            if sequence == expected {
                self.ends.remove(&client);
            }
            return;
        }
        if flags & SYN != 0 {
            if end.is_open || sequence != end.peer_isn {
                end.acknowledge(address, client, wishes);
            } else {
                end.speak(address, client, wishes);
            }
            return;
        }
        let news = acknowledgement.wrapping_sub(end.isn.wrapping_add(1));
        if flags & ACK == 0 || news > end.said_at_most() {
            end.acknowledge(address, client, wishes);
            return;
        }
        end.is_open = true;
        let is_news = news > end.acknowledged;
        if is_news {
            end.acknowledged = news;
            end.attempts = 0;
        }
        let is_next = sequence == expected && (!payload.is_empty() || flags & FIN != 0);
        let is_again = !is_next && (!payload.is_empty() || flags & FIN != 0);
        if is_next {
            verify(end.peer_isn ^ FROM_CLIENT, end.received, payload);
            end.received += u32::try_from(payload.len()).unwrap();
            let taker = *takers.entry((client, end.peer_isn)).or_insert(address);
            assert_eq!(taker, address, "one connection's octets on two servers");
            if flags & FIN != 0 {
                end.is_told_all = true;
                end.received += 1;
            }
        }
        if end.is_told_all && end.acknowledged > end.to_say() {
            self.ends.remove(&client);
        } else if is_next || is_news {
            end.speak(address, client, wishes);
            wishes.wake_after_ms = Some(300);
        } else if is_again {
            end.acknowledge(address, client, wishes);
        }
    }
}

impl End {
    /// Octets that it has to say as far as it knows.
    fn to_say(&self) -> u32 {
        if self.is_told_all { self.received - 1 + extra(self.peer_isn) } else { self.received }
    }

    /// What can have been acknowledged.
    fn said_at_most(&self) -> u32 {
        self.to_say() + u32::from(self.is_told_all)
    }

    /// Says, again or for the first time, what is to be said next.
    fn speak(&self, address: SocketAddr, client: SocketAddr, wishes: &mut Wishes) {
        const CHUNK: u32 = 48;
        let mut segment = Tcp::new(address, client, ACK);
        segment.acknowledgement = self.peer_isn.wrapping_add(1).wrapping_add(self.received);
        let content;
        if self.is_open {
            segment.sequence = self.isn.wrapping_add(1).wrapping_add(self.acknowledged);
            let to_say = self.to_say();
            if self.acknowledged < to_say {
                let length = CHUNK.min(to_say - self.acknowledged);
                content = octets(self.peer_isn ^ FROM_SERVER, self.acknowledged, length);
                segment.flags |= PSH;
                segment.payload = &content;
            } else if self.is_told_all && self.acknowledged == to_say {
                segment.flags |= FIN;
            }
        } else {
            segment.flags |= SYN;
            segment.sequence = self.isn;
        }
        wishes.packets.push(segment.build());
    }

    fn acknowledge(&self, address: SocketAddr, client: SocketAddr, wishes: &mut Wishes) {
        let mut segment = Tcp::new(address, client, ACK);
        segment.sequence = self.isn.wrapping_add(1).wrapping_add(self.acknowledged);
        segment.acknowledgement = self.peer_isn.wrapping_add(1).wrapping_add(self.received);
        wishes.packets.push(segment.build());
    }
}
