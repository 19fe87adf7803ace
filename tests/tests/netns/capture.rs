//! Every packet that a host sends or receives: whose it is, and whether its checksums are right.

use std::collections::BTreeSet;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use wvs::lab::Host;

use crate::stage::run_well;

/// `ETH_P_ALL` in network order, as packet sockets want their protocol.
const EVERYTHING: i32 = 0x0003_u16.to_be() as i32;

const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];

/// Packets kept whole; of later ones only addresses and checksums are looked at.
const KEPT_MAX: usize = 5_000;

/// Octets of frames that wait to be looked at.
const BUFFER_OCTETS: usize = 32 << 20;

pub(crate) struct Capture {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<Captured>,
}

/// What was captured, but for what hosts on one link say to find each other.
#[derive(Default)]
pub(crate) struct Captured {
    /// Every source and destination.
    pub(crate) addresses: BTreeSet<IpAddr>,
    /// The first packets, from the IP header on.
    pub(crate) packets: Vec<Vec<u8>>,
    pub(crate) count: usize,
    /// Packets with a wrong checksum.
    wrong: Vec<String>,
}

impl Capture {
    /// Listens on all interfaces of `host` from now on.
    pub(crate) fn start(host: &Host) -> Self {
        let socket = host.run(|| {
            Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(EVERYTHING)))
                .expect("a packet socket")
        });
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let _ = SockRef::from(&socket).set_recv_buffer_size(BUFFER_OCTETS);
        let is_over = Arc::new(AtomicBool::new(false));
        let thread = {
            let is_over = Arc::clone(&is_over);
            std::thread::spawn(move || {
                let mut captured = Captured::default();
                let mut frame = [0; 65_536 + 14];
                loop {
                    // Frames that are there already come before the end.
                    match (&socket).read(&mut frame) {
                        Ok(length) => captured.add(&frame[..length]),
                        Err(_) if is_over.load(Ordering::Relaxed) => return captured,
                        Err(_) => {}
                    }
                }
            })
        };
        Self { is_over, thread }
    }

    /// What there was of the family so far.
    pub(crate) fn stop(self, is_ipv6: bool) -> Captured {
        self.is_over.store(true, Ordering::Relaxed);
        let mut captured = self.thread.join().expect("a capture");
        captured.addresses.retain(|address| address.is_ipv6() == is_ipv6);
        captured.packets.retain(|packet| packet[0] >> 4 == if is_ipv6 { 6 } else { 4 });
        captured
    }
}

impl Captured {
    fn add(&mut self, frame: &[u8]) {
        let Some((ethernet, packet)) = frame.split_at_checked(14) else { return };
        let (source, destination): (IpAddr, IpAddr) = if ethernet[12..] == IPV4 {
            (v4(&packet[12..16]), v4(&packet[16..20]))
        } else if ethernet[12..] == IPV6 && !is_of_the_link(packet) {
            (v6(&packet[8..24]), v6(&packet[24..40]))
        } else {
            return;
        };
        self.count += 1;
        self.addresses.extend([source, destination]);
        if let Some(what) = wrong_checksum(packet) {
            self.wrong.push(format!("{what} from {source} to {destination}: {packet:02x?}"));
        }
        if self.packets.len() < KEPT_MAX {
            self.packets.push(packet.to_vec());
        }
    }

    /// Asserts that there were packets and that all their checksums are right. The hosts must
    /// compute them: see [`compute_checksums`].
    #[track_caller]
    pub(crate) fn assert_intact(&self) {
        assert!(self.count > 0, "nothing was captured");
        assert!(self.wrong.is_empty(), "{} of {}: {}", self.wrong.len(), self.count, self.wrong[0]);
    }

    /// Those kept that `source` sent.
    pub(crate) fn packets_from(&self, source: IpAddr) -> impl Iterator<Item = &[u8]> {
        let is_from = move |packet: &&[u8]| match source {
            IpAddr::V4(source) => packet[0] >> 4 == 4 && packet[12..16] == source.octets(),
            IpAddr::V6(source) => packet[0] >> 4 == 6 && packet[8..24] == source.octets(),
        };
        self.packets.iter().map(Vec::as_slice).filter(is_from)
    }
}

/// Has `hosts` compute the checksums of what they send, which on a virtual wire nobody else does.
/// Segments are then also as long as on the wire.
pub(crate) fn compute_checksums<'h>(hosts: impl IntoIterator<Item = &'h Host>) {
    for host in hosts {
        run_well(host, "ethtool", &["-K", "eth0", "tx", "off"]);
    }
}

fn v4(octets: &[u8]) -> IpAddr {
    Ipv4Addr::from(<[u8; 4]>::try_from(octets).unwrap()).into()
}

fn v6(octets: &[u8]) -> IpAddr {
    Ipv6Addr::from(<[u8; 16]>::try_from(octets).unwrap()).into()
}

/// ICMPv6 133 to 137, whose hop limit of 255 proves that they come from the link; and multicast
/// listener reports, which start with a hop-by-hop header.
fn is_of_the_link(packet: &[u8]) -> bool {
    let is_solicitation_or_answer =
        packet[6] == 58 && packet[7] == 255 && matches!(packet.get(40), Some(133..=137));
    is_solicitation_or_answer || packet[6] == 0
}

/// Which checksum of `packet` is wrong. Those of fragments cover more than is there.
fn wrong_checksum(packet: &[u8]) -> Option<&'static str> {
    let (protocol, addresses, payload) = if packet[0] >> 4 == 4 {
        let (header, rest) = packet.split_at(usize::from(packet[0] & 15) * 4);
        if sum(0, header) != 0xffff {
            return Some("IPv4");
        }
        let length = usize::from(u16::from_be_bytes([packet[2], packet[3]])) - header.len();
        // More fragments, or an offset.
        if header[6] & 0x3f != 0 || header[7] != 0 {
            return None;
        }
        (header[9], &header[12..20], &rest[..length])
    } else {
        let length = usize::from(u16::from_be_bytes([packet[4], packet[5]]));
        (packet[6], &packet[8..40], &packet[40..40 + length])
    };
    let pseudo_header = sum(u32::from(protocol) + u32::try_from(payload.len()).unwrap(), addresses);
    let (name, start) = match protocol {
        6 => ("TCP", pseudo_header),
        17 if payload[6..8] == [0, 0] => {
            return (packet[0] >> 4 == 6).then_some("UDP, none over IPv6");
        }
        17 => ("UDP", pseudo_header),
        1 => ("ICMP", 0),
        58 => ("ICMPv6", pseudo_header),
        _ => return None,
    };
    (sum(start, payload) != 0xffff).then_some(name)
}

/// The ones' complement sum (RFC 1071), written here once more: not that of the program under test.
fn sum(start: u32, octets: &[u8]) -> u32 {
    let mut sum = octets.chunks(2).fold(u64::from(start), |sum, pair| {
        let low = pair.get(1).copied().unwrap_or(0);
        sum + u64::from(u16::from_be_bytes([pair[0], low]))
    });
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u32::try_from(sum).unwrap()
}
