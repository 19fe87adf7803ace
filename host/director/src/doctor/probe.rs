//! Packets to real servers in the name of a client, to see whether the answers come back by here.
//!
//! Nothing else tells for certain: which way a server sends what it has for clients is known to the
//! server alone. So it gets a SYN or a ping from an address outside its networks, of the range that is
//! for documentation and that nobody has; what comes of it is watched for where the server's replies
//! have to come in. A connection that the server opens upon the SYN is reset again.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::thread;
use std::time::{Duration, Instant};

use etherparse::{
    Icmpv4Type, Icmpv6Type, IpHeaders, NetSlice, PacketBuilder, PacketBuilderStep, SlicedPacket,
    TransportSlice, icmpv4,
};
use nix::errno::Errno;
use nix::sys::socket::{LinkAddr, recvfrom};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use wvs_core::service;

use crate::route::inspect::ServerWay;

/// How long answers are waited for after each try.
const WAIT: Duration = Duration::from_millis(400);

/// Tries: the first may be spent on finding the neighbour.
const TRIES: usize = 3;

/// Servers that are asked at once.
const AT_ONCE: usize = 64;

/// The packet was for this host, in the numbering of `PACKET_HOST`.
const TO_US: u8 = 0;

/// `ETH_P_IP` and `ETH_P_IPV6`.
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;

/// Where probes come from: ports from here on, one for each server that is asked at once.
const PORT: u16 = 61_000;

/// The identifier of our echo requests.
const ECHO: u16 = 0x7776;

/// The sequence numbers of pings that find out how long packets may be, from here on.
const SEQUENCE_OF_LENGTHS: u16 = 1_000;

/// Where the sequence numbers of a SYN begin.
const SYN_SEQUENCE: u32 = 0x7776_7300;

/// `IPPROTO_RAW`: the packets that are sent have their IP headers.
const RAW: i32 = 255;

/// A server to be asked.
#[derive(Clone, Debug)]
pub(super) struct Target<'w> {
    pub(super) way: &'w ServerWay,
    pub(super) protocol: service::Protocol,
    /// In whose name.
    pub(super) client: IpAddr,
}

impl Target<'_> {
    /// Whether there is a port to ask for a connection; else it is pinged only.
    fn has_port(&self) -> bool {
        self.protocol == service::Protocol::Tcp && self.way.server.port() != 0
    }
}

/// What came of asking a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    /// An answer to the client came in by the link where replies have to.
    pub(super) is_back: bool,
    /// It answers to an address of this host.
    pub(super) is_alive: bool,
    /// It answers this host's pings.
    pub(super) answers_ping: bool,
    /// The longest packet that gets there and back where a longer one vanished without a word.
    pub(super) hole: Option<u32>,
}

/// Asks each server. Takes some seconds for 64 of them, whether they answer or not; to be called
/// with the capability `CAP_NET_RAW`.
///
/// # Errors
/// No raw sockets.
pub(super) fn ask(targets: &[Target<'_>]) -> io::Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    for some in targets.chunks(AT_ONCE) {
        for is_ipv6 in [false, true] {
            let of_family: Vec<_> =
                some.iter().filter(|target| target.client.is_ipv6() == is_ipv6).collect();
            let Some(first) = of_family.first() else { continue };
            let wire = Wire::open(first.client)?;
            let mut found = vec![Outcome::default(); of_family.len()];
            wire.ask(&of_family, &mut found)?;
            thread::scope(|scope| {
                for (target, outcome) in of_family.iter().zip(&mut found) {
                    if outcome.is_back || outcome.is_alive || !target.has_port() {
                        continue;
                    }
                    // Who is silent takes the whole time. Where there is no thread left for it, it
                    // is taken for silent.
                    let ask = || outcome.is_alive = listens(target);
                    let _ = thread::Builder::new().spawn_scoped(scope, ask);
                }
            });
            for (target, outcome) in of_family.iter().zip(&mut found) {
                if outcome.answers_ping {
                    outcome.hole = wire.find_hole(target.way)?;
                }
            }
            outcomes.extend(of_family.iter().map(|target| target.way.server).zip(found));
        }
    }
    // In the order that they were asked for in.
    let outcome_of = |target: &Target<'_>| {
        let found = outcomes.iter().find(|(server, _)| *server == target.way.server);
        found.map(|(_, outcome)| *outcome).unwrap_or_default()
    };
    Ok(targets.iter().map(outcome_of).collect())
}

/// Whether something answers on the server's port.
fn listens(target: &Target<'_>) -> bool {
    match TcpStream::connect_timeout(&target.way.server, 2 * WAIT) {
        Ok(_) => true,
        Err(error) => error.kind() == io::ErrorKind::ConnectionRefused,
    }
}

/// Both ends of asking, for one family.
struct Wire {
    is_ipv6: bool,
    sender: Socket,
    receiver: Socket,
}

/// A packet that came in by a link.
#[derive(Clone, Copy, Debug)]
enum Heard {
    /// Of a TCP connection in a client's name; with the acknowledged octets where it is open now.
    Segment { from: SocketAddr, to: SocketAddr, link: usize, open: Option<u32> },
    /// An answer to a ping.
    Echo { from: IpAddr, to: IpAddr, sequence: u16, link: usize },
    /// That a packet to this address was too long.
    TooLong { to: IpAddr },
}

impl Wire {
    fn open(client: IpAddr) -> io::Result<Self> {
        let is_ipv6 = client.is_ipv6();
        let (domain, ethernet) = if is_ipv6 { (Domain::IPV6, IPV6) } else { (Domain::IPV4, IPV4) };
        let sender = Socket::new(domain, Type::RAW, Some(Protocol::from(RAW)))?;
        if is_ipv6 {
            sender.set_header_included_v6(true)?;
        } else {
            sender.set_header_included_v4(true)?;
        }
        let ethernet = Some(Protocol::from(i32::from(ethernet.to_be())));
        let receiver = Socket::new(Domain::PACKET, Type::DGRAM, ethernet)?;
        receiver.attach_filter(&what_can_be_an_answer(client))?;
        Ok(Self { is_ipv6, sender, receiver })
    }

    /// Sends to all until all have answered as they should, or time is over.
    fn ask(&self, targets: &[&Target<'_>], outcomes: &mut [Outcome]) -> io::Result<()> {
        for _ in 0..TRIES {
            for (place, (target, outcome)) in (0..).zip(targets.iter().zip(&*outcomes)) {
                let server = target.way.server;
                if !outcome.is_back {
                    if target.has_port() {
                        self.send(
                            &self.syn(SocketAddr::new(target.client, PORT + place), server),
                            server.ip(),
                        );
                    }
                    self.send(&self.echo(target.client, server.ip(), place, 0), server.ip());
                }
                if let Some(source) = target.way.source.filter(|_| !outcome.answers_ping) {
                    self.send(&self.echo(source, server.ip(), place, 0), server.ip());
                }
            }
            let until = Instant::now() + WAIT;
            while !outcomes.iter().all(|outcome| outcome.is_back && outcome.answers_ping) {
                let Some(heard) = self.hear(until)? else { break };
                self.note(heard, targets, outcomes);
            }
        }
        Ok(())
    }

    fn note(&self, heard: Heard, targets: &[&Target<'_>], outcomes: &mut [Outcome]) {
        for (place, (target, outcome)) in (0..).zip(targets.iter().zip(outcomes)) {
            let (way, client) = (target.way, target.client);
            let is_here = |link: usize| u32::try_from(link) == Ok(way.link.index);
            match heard {
                Heard::Segment { from, to, link, open }
                    if from == way.server && to == SocketAddr::new(client, PORT + place) =>
                {
                    outcome.is_back |= is_here(link);
                    outcome.is_alive = true;
                    if let Some(sequence) = open {
                        self.send(&self.reset(to, from, sequence), from.ip());
                    }
                }
                Heard::Echo { from, to, sequence, link }
                    if from == way.server.ip() && sequence == place =>
                {
                    outcome.is_alive = true;
                    if to == client {
                        outcome.is_back |= is_here(link);
                    } else {
                        outcome.answers_ping = true;
                    }
                }
                _ => {}
            }
        }
    }

    /// The longest packet that gets through where the longest of the way vanishes.
    fn find_hole(&self, way: &ServerWay) -> io::Result<Option<u32>> {
        let (Some(mtu), Some(source)) = (way.mtu, way.source) else { return Ok(None) };
        let server = way.server.ip();
        let mut sequence = SEQUENCE_OF_LENGTHS;
        let mut passes = |length: u32| -> io::Result<bool> {
            for _ in 0..TRIES {
                sequence += 1;
                self.send(&self.echo(source, server, sequence, length), server);
                let until = Instant::now() + WAIT;
                while let Some(heard) = self.hear(until)? {
                    match heard {
                        Heard::Echo { from, sequence: of, .. }
                            if from == server && of == sequence =>
                        {
                            return Ok(true);
                        }
                        // Somebody says so: no hole.
                        Heard::TooLong { to } if to == server => return Ok(true),
                        _ => {}
                    }
                }
            }
            Ok(false)
        };
        // What every link has to carry (RFC 8200), or every host to take (RFC 791).
        let (mut good, mut bad) = (if self.is_ipv6 { 1_280 } else { 576 }, mtu);
        if mtu <= good || passes(mtu)? {
            return Ok(None);
        }
        while bad - good > 1 {
            let middle = u32::midpoint(good, bad);
            *(if passes(middle)? { &mut good } else { &mut bad }) = middle;
        }
        Ok(Some(good))
    }

    /// What cannot be sent gets no answer, which shows soon enough.
    fn send(&self, packet: &[u8], to: IpAddr) {
        let _ = self.sender.send_to(packet, &SocketAddr::new(to, 0).into());
    }

    /// The next packet that says something; `None` when time is over.
    fn hear(&self, until: Instant) -> io::Result<Option<Heard>> {
        let mut buffer = vec![0; 65_536];
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.receiver.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
            match recvfrom::<LinkAddr>(self.receiver.as_raw_fd(), &mut buffer) {
                Ok((length, Some(from))) if from.pkttype() == TO_US => {
                    let heard =
                        understand(buffer.get(..length).unwrap_or_default(), from.ifindex());
                    if heard.is_some() {
                        return Ok(heard);
                    }
                }
                Ok(_) | Err(Errno::EINTR | Errno::EAGAIN) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    fn syn(&self, from: SocketAddr, to: SocketAddr) -> Vec<u8> {
        let segment = ip(from.ip(), to.ip()).tcp(from.port(), to.port(), SYN_SEQUENCE, 64_240);
        written(|packet| segment.syn().write(packet, &[]))
    }

    fn reset(&self, from: SocketAddr, to: SocketAddr, sequence: u32) -> Vec<u8> {
        let segment = ip(from.ip(), to.ip()).tcp(from.port(), to.port(), sequence, 0);
        written(|packet| segment.rst().write(packet, &[]))
    }

    /// A ping of `length` octets with all headers, or as short as can be.
    fn echo(&self, from: IpAddr, to: IpAddr, sequence: u16, length: u32) -> Vec<u8> {
        let headers = if self.is_ipv6 { 48 } else { 28 };
        let payload = vec![0; usize::try_from(length).unwrap_or_default().saturating_sub(headers)];
        if self.is_ipv6 {
            let ping = ip(from, to).icmpv6_echo_request(ECHO, sequence);
            written(|packet| ping.write(packet, &payload))
        } else {
            let ping = ip(from, to).icmpv4_echo_request(ECHO, sequence);
            written(|packet| ping.write(packet, &payload))
        }
    }
}

/// The beginning of a packet that must not be fragmented.
fn ip(from: IpAddr, to: IpAddr) -> PacketBuilderStep<IpHeaders> {
    let octets = |address: IpAddr| match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    };
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => PacketBuilder::ipv4(from.octets(), to.octets(), 64),
        (from, to) => PacketBuilder::ipv6(octets(from), octets(to), 64),
    }
}

/// The octets that `write` writes: none where what is to be written is too long for any packet.
fn written<E>(write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Vec<u8> {
    let mut packet = Vec::new();
    if write(&mut packet).is_err() {
        packet.clear();
    }
    packet
}

/// What a packet says that came in by a link.
fn understand(octets: &[u8], link: usize) -> Option<Heard> {
    let sliced = SlicedPacket::from_ip(octets).ok()?;
    let (from, to): (IpAddr, IpAddr) = match sliced.net.as_ref()? {
        NetSlice::Ipv4(ip) => {
            (ip.header().source_addr().into(), ip.header().destination_addr().into())
        }
        NetSlice::Ipv6(ip) => {
            (ip.header().source_addr().into(), ip.header().destination_addr().into())
        }
        NetSlice::Arp(_) => return None,
    };
    let quoted = |payload: &[u8]| {
        // The packet that an error is about: its destination.
        let address: IpAddr = if from.is_ipv6() {
            <[u8; 16]>::try_from(payload.get(24..40)?).ok()?.into()
        } else {
            <[u8; 4]>::try_from(payload.get(16..20)?).ok()?.into()
        };
        Some(Heard::TooLong { to: address })
    };
    match sliced.transport? {
        TransportSlice::Tcp(segment) => Some(Heard::Segment {
            from: SocketAddr::new(from, segment.source_port()),
            to: SocketAddr::new(to, segment.destination_port()),
            link,
            open: (segment.syn() && segment.ack()).then(|| segment.acknowledgment_number()),
        }),
        TransportSlice::Icmpv4(message) => match message.icmp_type() {
            Icmpv4Type::EchoReply(echo) if echo.id == ECHO => {
                Some(Heard::Echo { from, to, sequence: echo.seq, link })
            }
            Icmpv4Type::DestinationUnreachable(
                icmpv4::DestUnreachableHeader::FragmentationNeeded { .. },
            ) => quoted(message.payload()),
            _ => None,
        },
        TransportSlice::Icmpv6(message) => match message.icmp_type() {
            Icmpv6Type::EchoReply(echo) if echo.id == ECHO => {
                Some(Heard::Echo { from, to, sequence: echo.seq, link })
            }
            Icmpv6Type::PacketTooBig { .. } => quoted(message.payload()),
            _ => None,
        },
        _ => None,
    }
}

/// A filter in the kernel that lets through what is for `client`, and ICMP: of everything that passes
/// a director at work, the little that can be an answer.
fn what_can_be_an_answer(client: IpAddr) -> Vec<SockFilter> {
    // BPF_LD | BPF_ABS with BPF_W or BPF_B, BPF_JMP | BPF_JEQ | BPF_K, BPF_RET | BPF_K.
    const LOAD_WORD: u16 = 0x20;
    const LOAD_OCTET: u16 = 0x30;
    const IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    let (octets, at, protocol_at, icmp): (Vec<u8>, u32, u32, u32) = match client {
        IpAddr::V4(client) => (client.octets().to_vec(), 16, 9, 1),
        IpAddr::V6(client) => (client.octets().to_vec(), 24, 6, 58),
    };
    let mut filter = vec![
        SockFilter::new(LOAD_OCTET, 0, 0, protocol_at),
        SockFilter::new(IF_EQUAL, 0, 1, icmp),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ];
    for (word, at) in octets.chunks_exact(4).zip((at..).step_by(4)) {
        let word = word.iter().fold(0, |word, octet| word << 8 | u32::from(*octet));
        filter.extend([
            SockFilter::new(LOAD_WORD, 0, 0, at),
            SockFilter::new(IF_EQUAL, 1, 0, word),
            SockFilter::new(RETURN, 0, 0, 0),
        ]);
    }
    filter.push(SockFilter::new(RETURN, 0, 0, u32::MAX));
    filter
}
