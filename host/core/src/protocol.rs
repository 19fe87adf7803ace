//! What a virtual service carries. Public as [`service::Protocol`](crate::service::Protocol).

use core::fmt;

/// What a virtual service carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP or ICMPv6 echo requests and their replies; the identifier stands in for a port.
    Icmp,
}

impl Protocol {
    /// The IP protocol number; only ICMP's depends on the family.
    #[must_use]
    pub const fn number(self, is_ipv6: bool) -> u8 {
        match (self, is_ipv6) {
            (Self::Tcp, _) => 6,
            (Self::Udp, _) => 17,
            (Self::Icmp, false) => 1,
            (Self::Icmp, true) => 58,
        }
    }

    /// `tcp`, `udp` or `icmp`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Icmp => "icmp",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
