//! Captures: packets with the times at which they were seen, in the pcap format of tcpdump or the
//! pcapng format of Wireshark.
//!
//! Read first: draft-ietf-opsawg-pcap and draft-ietf-opsawg-pcapng (the file), and
//! draft-ietf-opsawg-pcaplinktype (what is in front of each packet). The crates for it give up at
//! the first record that is longer than the file's snapshot length, which old versions of tcpdump
//! wrote, and lose what they had read; the formats are a few fixed headers, so they are read here.

mod link;
mod pcapng;
mod reader;
mod writer;

use std::io;
use std::time::Duration;

pub use link::LinkType;
pub use pcapng::{BlockCutter, CaptureStatistics, CapturedPacket, NotBlocks, PcapngWriter};
pub use reader::CaptureReader;
pub use writer::CaptureWriter;

/// Octets of one packet with its link header at most: what tcpdump takes by itself. A file that
/// says more is broken.
pub const RECORD_OCTETS_MAX: usize = 262_144;

/// Octets at the start of a file.
const FILE_HEADER: usize = 24;

/// Octets in front of each packet.
const RECORD_HEADER: usize = 16;

/// The first four octets of a file with microseconds, read in the writer's byte order.
const MAGIC_MICROS: u32 = 0xa1b2_c3d4;

/// As [`MAGIC_MICROS`] with nanoseconds.
const MAGIC_NANOS: u32 = 0xa1b2_3c4d;

/// What a capture says of a packet besides its octets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// When it was seen, since 1970.
    pub time: Duration,
    /// Octets that it had on the link; more than were captured when it was cut short.
    pub original_octets: usize,
    /// Whether it was sent by where it was captured; only pcapng says so.
    pub is_outbound: bool,
    /// Whether its transport checksum was left to a device to finish; only pcapng says so.
    pub is_checksum_unfinished: bool,
}

/// Why a capture cannot be read, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The operating system says no.
    #[error("cannot be read: {0}")]
    Read(#[from] io::Error),
    /// Less than a file header.
    #[error("too short for a capture: {octets} octets, a pcap file has at least {FILE_HEADER}")]
    TooShort {
        /// What there is.
        octets: usize,
    },
    /// Something else.
    #[error(
        "not a pcap or pcapng file: it begins with {magic:08x}; give a capture as `tcpdump -w` writes it"
    )]
    NotPcap {
        /// The first four octets as a number.
        magic: u32,
    },
    /// A format of before 1998, or of the future.
    #[error(
        "pcap version {major}.{minor}, and only 2.4 is known; write it anew with `tcpdump -r IN -w OUT`"
    )]
    Version {
        /// Major version.
        major: u16,
        /// Minor version.
        minor: u16,
    },
    /// Packets with something unknown in front.
    #[error("link type {number} is not known; known are {}", LinkType::NAMES)]
    Link {
        /// Its number in the registry of link types.
        number: u32,
    },
    /// The file ends within a record.
    #[error("cut off in packet {packet}, at octet {offset} of the file")]
    CutOff {
        /// Number of the packet, from 1 on.
        packet: u64,
        /// Where its record begins in the file.
        offset: u64,
    },
    /// A block of a pcapng file that cannot be right.
    #[error(
        "broken at packet {packet}, octet {offset} of the file: a block of pcapng that cannot be right"
    )]
    Block {
        /// Number of the next packet, from 1 on.
        packet: u64,
        /// Where the block begins in the file.
        offset: u64,
    },
    /// A record that is longer than any packet.
    #[error(
        "broken at packet {packet}, octet {offset} of the file: it says to be {octets} octets long, \
         and none is longer than {RECORD_OCTETS_MAX}"
    )]
    TooLong {
        /// Number of the packet, from 1 on.
        packet: u64,
        /// Where its record begins in the file.
        offset: u64,
        /// The length that it states.
        octets: u32,
    },
}
