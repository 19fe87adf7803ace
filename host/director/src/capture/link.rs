//! What stands in front of the IP packet in a capture.

use std::fmt;

/// The kind of link that packets were captured on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkType {
    /// Ethernet frames, with VLAN tags or without.
    Ethernet,
    /// IP packets of either version with nothing in front, as on a TUN device.
    Raw,
    /// All interfaces of a Linux host, as older versions of tcpdump write it.
    LinuxSll,
    /// All interfaces of a Linux host (`tcpdump -i any`).
    LinuxSll2,
    /// IPv4 packets with nothing in front.
    Ipv4,
    /// IPv6 packets with nothing in front.
    Ipv6,
}

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
/// IEEE 802.1Q and 802.1ad: a tag of four octets, the last two of which are the next type.
const ETHERTYPES_VLAN: [u16; 2] = [0x8100, 0x88a8];

/// VLAN tags in front of a packet that are looked behind.
const VLAN_TAGS_MAX: usize = 2;

impl LinkType {
    /// Every kind, for messages.
    pub(crate) const NAMES: &str =
        "EN10MB (1), RAW (101), LINUX_SLL (113), IPV4 (228), IPV6 (229) and LINUX_SLL2 (276)";

    /// The kind of a number in the registry of link types.
    #[must_use]
    pub const fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            1 => Self::Ethernet,
            101 => Self::Raw,
            113 => Self::LinuxSll,
            228 => Self::Ipv4,
            229 => Self::Ipv6,
            276 => Self::LinuxSll2,
            _ => return None,
        })
    }

    /// Its number in the registry of link types.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::Ethernet => 1,
            Self::Raw => 101,
            Self::LinuxSll => 113,
            Self::Ipv4 => 228,
            Self::Ipv6 => 229,
            Self::LinuxSll2 => 276,
        }
    }

    /// The name that tcpdump prints.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ethernet => "EN10MB",
            Self::Raw => "RAW",
            Self::LinuxSll => "LINUX_SLL",
            Self::Ipv4 => "IPV4",
            Self::Ipv6 => "IPV6",
            Self::LinuxSll2 => "LINUX_SLL2",
        }
    }

    /// The IP packet in a frame, without the link's header and padding; `None` for a frame with
    /// anything else in it, ARP for example.
    #[must_use]
    pub fn ip_packet(self, frame: &[u8]) -> Option<&[u8]> {
        let (mut ethertype, mut packet) = match self {
            Self::Raw | Self::Ipv4 | Self::Ipv6 => return Some(frame),
            Self::Ethernet => split(frame, 14, 12)?,
            Self::LinuxSll => split(frame, 16, 14)?,
            Self::LinuxSll2 => split(frame, 20, 0)?,
        };
        for _ in 0..VLAN_TAGS_MAX {
            if ETHERTYPES_VLAN.contains(&ethertype) {
                (ethertype, packet) = split(packet, 4, 2)?;
            }
        }
        matches!(ethertype, ETHERTYPE_IPV4 | ETHERTYPE_IPV6).then(|| without_padding(packet))
    }
}

impl fmt::Display for LinkType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The type at `type_at` of a header, and what is behind the header.
fn split(frame: &[u8], header: usize, type_at: usize) -> Option<(u16, &[u8])> {
    let (header, rest) = frame.split_at_checked(header)?;
    let ethertype = header.get(type_at..)?.first_chunk()?;
    Some((u16::from_be_bytes(*ethertype), rest))
}

/// A link with a shortest frame fills up short packets.
fn without_padding(packet: &[u8]) -> &[u8] {
    let stated = match *packet {
        [first, _, a, b, ..] if first >> 4 == 4 => usize::from(u16::from_be_bytes([a, b])),
        [first, _, _, _, a, b, ..] if first >> 4 == 6 => {
            usize::from(u16::from_be_bytes([a, b])) + 40
        }
        _ => return packet,
    };
    // A length of 0 is that of a packet that the capturing host had not yet cut into segments.
    if stated == 0 { packet } else { packet.get(..stated).unwrap_or(packet) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKET: [u8; 20] = [0x45, 0, 0, 20, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];

    fn frame(header: &[u8], padding: usize) -> Vec<u8> {
        [header, &PACKET, &vec![0; padding]].concat()
    }

    #[test]
    fn header_tags_and_padding_are_taken_off() {
        let macs = [0_u8; 12];
        let ethernet = [&macs[..], &[0x08, 0x00]].concat();
        let tagged = [&macs[..], &[0x88, 0xa8, 0, 1, 0x81, 0x00, 0, 2, 0x08, 0x00]].concat();
        let sll = [&[0; 14][..], &[0x08, 0x00]].concat();
        let sll2 = [&[0x08, 0x00][..], &[0; 18]].concat();
        for (link, header) in [
            (LinkType::Ethernet, &ethernet),
            (LinkType::Ethernet, &tagged),
            (LinkType::LinuxSll, &sll),
            (LinkType::LinuxSll2, &sll2),
        ] {
            assert_eq!(link.ip_packet(&frame(header, 0)), Some(&PACKET[..]), "{link}");
            assert_eq!(link.ip_packet(&frame(header, 26)), Some(&PACKET[..]), "{link}");
            assert_eq!(link.ip_packet(&header[..header.len() - 1]), None, "{link}");
        }
        assert_eq!(LinkType::Raw.ip_packet(&PACKET), Some(&PACKET[..]));
    }

    #[test]
    fn frames_of_other_protocols_have_no_packet() {
        let arp = [&[0; 12][..], &[0x08, 0x06], &[0; 28]].concat();
        assert_eq!(LinkType::Ethernet.ip_packet(&arp), None);
    }

    #[test]
    fn numbers_and_kinds_are_each_others() {
        for number in 0..300 {
            if let Some(link) = LinkType::from_number(number) {
                assert_eq!(link.number(), number);
                assert!(LinkType::NAMES.contains(&format!("{link} ({number})")), "{link}");
            }
        }
    }
}
