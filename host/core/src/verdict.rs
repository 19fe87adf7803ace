//! What becomes of a packet.

use core::fmt;

/// The director's decision on one packet. Whatever is to be sent stands in the packet's buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// Translated: send it on.
    Forward,
    /// Answered: the buffer now holds the director's own answer, send that.
    Reply,
    /// None of the director's business: send it on as it came.
    Pass,
    /// Kept: a part of a packet whose first part did not come yet. See
    /// [`Director::next_released`](crate::director::Director::next_released).
    Hold,
    /// Not sent, for a reason that is counted.
    Drop(DropReason),
}

macro_rules! drop_reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// Why a packet was dropped: one counter, one metric label and one line of the documentation
        /// each.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum DropReason {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl DropReason {
            /// Every reason, in the order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The name in metrics and listings.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// What happened, in a sentence for people.
            #[must_use]
            pub fn description(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+).trim_ascii(),)+ }
            }
        }
    };
}

drop_reasons! {
    /// Neither IPv4 nor IPv6.
    NotIp = "not_ip",
    /// An IPv4 header that is cut off or shorter than 20 octets.
    Ipv4Header = "ipv4_header",
    /// An IPv4 total length that is shorter than its header or longer than the packet.
    Ipv4Length = "ipv4_length",
    /// An IPv6 header that is cut off.
    Ipv6Header = "ipv6_header",
    /// An IPv6 payload length that is longer than the packet.
    Ipv6Length = "ipv6_length",
    /// IPv6 extension headers that are cut off or more than the limit.
    Ipv6Extensions = "ipv6_extensions",
    /// A part of a packet that cannot be right, came twice, or is of a packet whose first part was
    /// not sent on.
    Fragment = "fragment",
    /// A part of a packet that lies over another part, with which the rest is refused.
    FragmentOverlap = "fragment_overlap",
    /// A transport protocol that is not load balanced.
    Protocol = "protocol",
    /// A TCP header that is cut off or has an impossible data offset.
    TcpHeader = "tcp_header",
    /// A UDP header that is cut off or has an impossible length.
    UdpHeader = "udp_header",
    /// A UDP checksum of zero over IPv6, which RFC 8200 section 8.1 forbids.
    UdpChecksum = "udp_checksum",
    /// An ICMP header that is cut off.
    IcmpHeader = "icmp_header",
    /// An ICMP message whose checksum is wrong.
    IcmpChecksum = "icmp_checksum",
    /// An ICMP error to a virtual address, or about a packet to a real server, that quotes no packet
    /// of a connection.
    IcmpQuote = "icmp_quote",
    /// An ICMP message to a virtual address that is neither an error nor an echo request, or a
    /// redirect, which concerns one link only.
    IcmpType = "icmp_type",
    /// An echo request to a virtual address while answering is switched off.
    Echo = "echo",
    /// A first packet from an address that nobody can answer: unspecified, loopback, multicast,
    /// broadcast or a virtual address.
    SourceAddress = "source_address",
    /// From a real server's address and port to no connection: a late reply, most often.
    NoConnection = "no_connection",
    /// To a port of a virtual address that no service has, where the setting is to say nothing.
    ClosedPort = "closed_port",
    /// A TCP segment in the middle of a connection that the director does not know, where the
    /// setting is to say nothing or the segment is a reset.
    Stray = "stray",
    /// No real server may take the connection, where the setting is to say nothing.
    NoServer = "no_server",
    /// The connection table is full.
    TableFull = "table_full",
    /// The chosen server already talks to this client's address and port for another service.
    ReplyTupleTaken = "reply_tuple_taken",
    /// No place in the pool of a service with full NAT is free, where the setting is to say nothing.
    PoolExhausted = "pool_exhausted",
    /// An answer of the director's own beyond the limit for a second, or without room in the buffer.
    ReplyLimit = "reply_limit",
}

impl DropReason {
    /// Place in [`Self::ALL`].
    #[expect(clippy::as_conversions, reason = "a fieldless enum in the order of ALL")]
    pub(crate) const fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
