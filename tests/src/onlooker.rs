//! Who watches the director's wires and knows what must never be seen there, whatever came in.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use wvs_core::services::Services;
use wvs_core::verdict::Verdict;

/// What the director may show to whom, by the addresses of its services.
#[derive(Debug)]
pub struct Onlooker {
    vips: HashSet<IpAddr>,
    rips: HashSet<IpAddr>,
    /// The addresses in the pools of full NAT.
    locals: HashSet<IpAddr>,
    real_servers: HashSet<(u8, SocketAddr)>,
}

/// The protocol of what has no header to tell.
pub const UNKNOWN: u8 = 255;

/// The parts of a packet that matter here, read without any of the director's code and without
/// minding what is wrong with the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outline<'p> {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Time to live or hop limit.
    pub hop_limit: u8,
    /// Protocol number behind IPv6 destination options, of which there may be some; [`UNKNOWN`] for
    /// a fragment that is not the first one.
    pub protocol: u8,
    /// Everything behind the IP headers that is there and belongs to the packet.
    pub payload: &'p [u8],
}

impl<'p> Outline<'p> {
    /// The outline of octets that begin like a packet.
    #[must_use]
    pub fn of(octets: &'p [u8]) -> Option<Self> {
        match octets.first()? >> 4 {
            4 => {
                let address = |at: usize| {
                    let octets: [u8; 4] = octets.get(at..at + 4)?.try_into().ok()?;
                    Some(IpAddr::V4(Ipv4Addr::from(octets)))
                };
                let header = usize::from(octets[0] & 0x0f) * 4;
                let is_later = octets.get(6)? & 0x1f != 0 || *octets.get(7)? != 0;
                let length = usize::from(u16::from_be_bytes([*octets.get(2)?, *octets.get(3)?]));
                Some(Self {
                    source: address(12)?,
                    destination: address(16)?,
                    hop_limit: *octets.get(8)?,
                    protocol: if is_later { UNKNOWN } else { *octets.get(9)? },
                    payload: stated(octets, header, length),
                })
            }
            6 => {
                let address = |at: usize| {
                    let octets: [u8; 16] = octets.get(at..at + 16)?.try_into().ok()?;
                    Some(IpAddr::V6(Ipv6Addr::from(octets)))
                };
                let length =
                    40 + usize::from(u16::from_be_bytes([*octets.get(4)?, *octets.get(5)?]));
                let (mut protocol, mut payload) = (*octets.get(6)?, stated(octets, 40, length));
                // Destination options and nothing else: what is missed here is not looked into.
                while let (60, Some((next, length))) =
                    (protocol, payload.first().zip(payload.get(1)))
                {
                    protocol = *next;
                    payload = payload.get((usize::from(*length) + 1) * 8..).unwrap_or_default();
                }
                Some(Self {
                    source: address(8)?,
                    destination: address(24)?,
                    hop_limit: *octets.get(7)?,
                    protocol,
                    payload,
                })
            }
            _ => None,
        }
    }

    /// Of a packet that an ICMP error quotes.
    #[must_use]
    pub fn quoted(&self) -> Option<Self> {
        let kind = *self.payload.first()?;
        let is_error = match self.source {
            IpAddr::V4(_) => self.protocol == 1 && matches!(kind, 3 | 4 | 11 | 12),
            IpAddr::V6(_) => self.protocol == 58 && kind < 128,
        };
        let quoted = is_error.then(|| self.payload.get(8..)).flatten().and_then(Outline::of)?;
        (quoted.source.is_ipv4() == self.source.is_ipv4()).then_some(quoted)
    }

    /// Destination address and port; `None` where there is too little for a port.
    #[must_use]
    pub fn target(&self) -> Option<SocketAddr> {
        let port = match self.protocol {
            6 | 17 => u16::from_be_bytes(self.payload.get(2..4)?.try_into().ok()?),
            _ => 0,
        };
        Some(SocketAddr::new(self.destination, port))
    }
}

/// What is behind the header, without octets beyond the length that the packet states.
fn stated(octets: &[u8], header: usize, length: usize) -> &[u8] {
    octets.get(header..length.min(octets.len())).unwrap_or_default()
}

impl Onlooker {
    /// One who knows these services.
    #[must_use]
    pub fn new(services: &Services) -> Self {
        let mut this = Self {
            vips: HashSet::new(),
            rips: HashSet::new(),
            locals: HashSet::new(),
            real_servers: HashSet::new(),
        };
        for service in services.list() {
            let address = service.address();
            this.vips.insert(address.vip);
            for server in &*service.servers() {
                this.rips.insert(server.address().ip());
                if let Some(pool) = server.terms().pool() {
                    this.locals.extend(pool.addresses());
                }
                let protocol = address.protocol.number(server.address().is_ipv6());
                this.real_servers.insert((protocol, server.address()));
            }
        }
        this
    }

    /// Checks what became of a packet.
    ///
    /// # Panics
    /// When it shows what must not be seen: a real server to a client, a virtual address to a
    /// server, a packet that grew, lives longer, or was changed where it should not have been.
    pub fn watch(&self, verdict: Verdict, came: &[u8], went: &[u8]) {
        match verdict {
            Verdict::Drop(_) | Verdict::Hold => {}
            Verdict::Pass => {
                assert_eq!(came, went, "passed, so not a bit may change");
                let Some(outline) = Outline::of(went) else { panic!("passed, and no packet") };
                assert!(!self.is_ours(outline.destination), "passed to {}", outline.destination);
                if let Some(quoted) = outline.quoted()
                    && matches!(quoted.protocol, 6 | 17)
                    && let Some(target) = quoted.target()
                {
                    let server = (quoted.protocol, target);
                    assert!(
                        !self.real_servers.contains(&server) || quoted.payload.len() < 8,
                        "passed, and shows the real server {target} in its quote"
                    );
                }
            }
            Verdict::Forward => self.watch_forwarded(came, went),
            Verdict::Reply => {
                let (came, went) = (Outline::of(came).unwrap(), Outline::of(went).unwrap());
                assert!(self.vips.contains(&went.source), "answered from {}", went.source);
                assert_eq!(went.destination, came.source, "answered to somebody else");
            }
        }
    }

    /// Checks a part of a packet that was held for some time.
    ///
    /// # Panics
    /// When it goes to an address that only the director has.
    pub fn watch_released(&self, went: &[u8]) {
        let Some(outline) = Outline::of(went) else { panic!("released, and no packet") };
        assert!(!self.is_ours(outline.destination), "released to {}", outline.destination);
    }

    fn watch_forwarded(&self, came: &[u8], went: &[u8]) {
        assert_eq!(came.len(), went.len(), "translation keeps the length");
        let (before, after) = (Outline::of(came).unwrap(), Outline::of(went).unwrap());
        assert!(after.hop_limit <= before.hop_limit, "it lives longer than before");
        if self.rips.contains(&after.destination) && self.vips.contains(&before.destination) {
            let is_seen = before.source == after.source || self.locals.contains(&after.source);
            assert!(is_seen, "a server sees {} in place of the client", after.source);
            if let Some(quoted) = after.quoted() {
                assert!(!self.vips.contains(&quoted.source), "a server is quoted a VIP");
            }
            return;
        }
        assert!(self.vips.contains(&after.source), "a client sees {}", after.source);
        let is_same = before.destination == after.destination;
        assert!(is_same || self.locals.contains(&before.destination), "it goes to another client");
        assert!(!self.is_ours(after.destination), "it goes to {}", after.destination);
        if let Some(quoted) = after.quoted() {
            let target = quoted.destination;
            assert!(self.vips.contains(&target), "a client is quoted {target}");
        }
    }

    /// Whether only the director has this address: whoever sends to it must not get past.
    fn is_ours(&self, address: IpAddr) -> bool {
        self.vips.contains(&address) || self.locals.contains(&address)
    }
}
