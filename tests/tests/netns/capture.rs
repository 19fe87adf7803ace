//! Every packet that a host sends or receives, as far as its addresses go.

use std::collections::BTreeSet;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use wvs::lab::Host;

/// `ETH_P_ALL` in network order, as packet sockets want their protocol.
const EVERYTHING: i32 = 0x0003_u16.to_be() as i32;

const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];

pub(crate) struct Capture {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<BTreeSet<IpAddr>>,
}

impl Capture {
    /// Listens on all interfaces of `host` from now on.
    pub(crate) fn start(host: &Host) -> Self {
        let socket = host.run(|| {
            Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(EVERYTHING)))
                .expect("a packet socket")
        });
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let is_over = Arc::new(AtomicBool::new(false));
        let thread = {
            let is_over = Arc::clone(&is_over);
            std::thread::spawn(move || {
                let mut addresses = BTreeSet::new();
                let mut frame = [0; 65_536];
                loop {
                    // Frames that are there already come before the end.
                    match (&socket).read(&mut frame) {
                        Ok(length) => addresses.extend(addresses_in(&frame[..length])),
                        Err(_) if is_over.load(Ordering::Relaxed) => return addresses,
                        Err(_) => {}
                    }
                }
            })
        };
        Self { is_over, thread }
    }

    /// The addresses of the family in all packets so far, but for those that hosts on one link use
    /// to find each other.
    pub(crate) fn stop(self, is_ipv6: bool) -> BTreeSet<IpAddr> {
        self.is_over.store(true, Ordering::Relaxed);
        let mut addresses = self.thread.join().expect("a capture");
        addresses.retain(|address| address.is_ipv6() == is_ipv6);
        addresses
    }
}

fn addresses_in(frame: &[u8]) -> Vec<IpAddr> {
    let Some((ethernet, packet)) = frame.split_at_checked(14) else { return Vec::new() };
    let v4 = |at: usize| {
        let octets: [u8; 4] = packet[at..at + 4].try_into().unwrap();
        IpAddr::V4(Ipv4Addr::from(octets))
    };
    let v6 = |at: usize| {
        let octets: [u8; 16] = packet[at..at + 16].try_into().unwrap();
        IpAddr::V6(Ipv6Addr::from(octets))
    };
    if ethernet[12..] == IPV4 && packet.len() >= 20 {
        vec![v4(12), v4(16)]
    } else if ethernet[12..] == IPV6 && packet.len() >= 40 && !is_neighbour_discovery(packet) {
        vec![v6(8), v6(24)]
    } else {
        Vec::new()
    }
}

/// ICMPv6 135 and 136, whose hop limit of 255 proves that they come from the link; and multicast
/// listener reports, which start with a hop-by-hop header.
fn is_neighbour_discovery(packet: &[u8]) -> bool {
    let is_solicitation_or_answer =
        packet[6] == 58 && packet[7] == 255 && matches!(packet.get(40), Some(133..=137));
    is_solicitation_or_answer || packet[6] == 0
}
