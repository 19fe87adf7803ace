//! Blocks of the pcapng format: what Wireshark writes, and the only format in which a packet can
//! have a comment.
//!
//! Read first: draft-ietf-opsawg-pcapng. A file is a row of blocks, each with its kind and its
//! length in front and its length once more behind. A section begins with a header that says the
//! byte order; interfaces are described and from then on known by their number.

use std::time::Duration;

use super::{LinkType, RECORD_OCTETS_MAX};

/// The kind of a section header, the same in both byte orders.
pub(super) const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
/// What came before the enhanced packet; obsolete since 2004.
const OLD_PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const STATISTICS: u32 = 5;
const PACKET: u32 = 6;

/// In a section header, in the writer's byte order.
const BYTE_ORDER: u32 = 0x1a2b_3c4d;

/// Octets of a block around its body: kind, length, length.
const FRAME: usize = 12;

/// The longest block that is read: a packet with room for comments.
pub(super) const BLOCK_OCTETS_MAX: usize = RECORD_OCTETS_MAX + (256 << 10);

// Options, each with a number of its kind of block.
const END: u16 = 0;
const COMMENT: u16 = 1;
const SECTION_APPLICATION: u16 = 4;
const INTERFACE_NAME: u16 = 2;
const INTERFACE_RESOLUTION: u16 = 9;
const INTERFACE_OFFSET: u16 = 14;
const PACKET_FLAGS: u16 = 2;
const PACKET_ID: u16 = 5;
const PACKET_QUEUE: u16 = 6;
const STATISTICS_RECEIVED: u16 = 4;
const STATISTICS_DROPPED: u16 = 5;
const STATISTICS_ACCEPTED: u16 = 6;
const STATISTICS_DELIVERED: u16 = 8;

// Flags of a packet.
const INBOUND: u32 = 1;
const OUTBOUND: u32 = 2;
const DIRECTION: u32 = 3;
const CHECKSUM_NOT_READY: u32 = 1 << 9;

/// Times of ours are in units of 10⁻⁹ s.
const NANOSECONDS: u8 = 9;

/// A packet with what pcapng can say of it.
#[derive(Clone, Copy, Debug)]
pub struct CapturedPacket<'a> {
    /// When it was seen, since 1970.
    pub time: Duration,
    /// Its first octets, from the IP header on.
    pub octets: &'a [u8],
    /// Octets that it had.
    pub original_octets: usize,
    /// Whether it was sent, rather than received.
    pub is_outbound: bool,
    /// Whether its transport checksum is left to a device to finish.
    pub is_checksum_unfinished: bool,
    /// The same for a packet before and after its translation.
    pub id: u64,
    /// The queue of the device.
    pub queue: u32,
    /// What became of it.
    pub comment: &'a str,
}

/// What a capture counted until now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CaptureStatistics {
    /// Packets that came by.
    pub seen: u64,
    /// Those of them that were wanted.
    pub matched: u64,
    /// Those of the wanted that are not in the file, because they came faster than it was read.
    pub missed: u64,
    /// Those of the wanted that are in the file.
    pub written: u64,
}

/// Makes a capture of one interface's IP packets, with nothing in front of them, with comments. It is
/// made in memory, block by block; whoever has it made takes the octets away.
#[derive(Debug)]
pub struct PcapngWriter {
    octets: Vec<u8>,
}

impl PcapngWriter {
    /// Begins a file of what `interface` carries, of each packet `snap` octets at most.
    #[must_use]
    pub fn new(interface: &str, snap: usize) -> Self {
        let mut this = Self { octets: Vec::new() };
        this.put_block(SECTION, |section| {
            section.extend_from_slice(&BYTE_ORDER.to_le_bytes());
            section.extend_from_slice(&1_u16.to_le_bytes());
            section.extend_from_slice(&0_u16.to_le_bytes());
            // The length of the section is not known yet.
            section.extend_from_slice(&u64::MAX.to_le_bytes());
            let application = concat!("wvs ", env!("CARGO_PKG_VERSION"));
            put_option(section, SECTION_APPLICATION, application.as_bytes());
        });
        this.put_block(INTERFACE, |description| {
            let link = u16::try_from(LinkType::Raw.number()).unwrap_or(u16::MAX);
            description.extend_from_slice(&link.to_le_bytes());
            description.extend_from_slice(&0_u16.to_le_bytes());
            description.extend_from_slice(&u32::try_from(snap).unwrap_or(u32::MAX).to_le_bytes());
            put_option(description, INTERFACE_NAME, interface.as_bytes());
            put_option(description, INTERFACE_RESOLUTION, &[NANOSECONDS]);
        });
        this
    }

    /// Adds a packet. Times beyond 2554, which the format cannot say, become the last one that it
    /// can.
    pub fn put(&mut self, packet: &CapturedPacket<'_>) {
        let CapturedPacket { time, octets, original_octets, id, queue, comment, .. } = *packet;
        let mut flags = if packet.is_outbound { OUTBOUND } else { INBOUND };
        if packet.is_checksum_unfinished {
            flags |= CHECKSUM_NOT_READY;
        }
        self.put_block(PACKET, |block| {
            block.extend_from_slice(&0_u32.to_le_bytes());
            put_time(block, time);
            for length in [octets.len(), original_octets] {
                block.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
            }
            block.extend_from_slice(octets);
            pad(block);
            put_option(block, COMMENT, comment.as_bytes());
            put_option(block, PACKET_FLAGS, &flags.to_le_bytes());
            put_option(block, PACKET_ID, &id.to_le_bytes());
            put_option(block, PACKET_QUEUE, &queue.to_le_bytes());
        });
    }

    /// Adds what was counted so far; the last of these in a file is the one that counts.
    pub fn put_statistics(&mut self, time: Duration, statistics: &CaptureStatistics) {
        self.put_block(STATISTICS, |block| {
            block.extend_from_slice(&0_u32.to_le_bytes());
            put_time(block, time);
            for (code, count) in [
                (STATISTICS_RECEIVED, statistics.seen),
                (STATISTICS_DROPPED, statistics.missed),
                (STATISTICS_ACCEPTED, statistics.matched),
                (STATISTICS_DELIVERED, statistics.written),
            ] {
                put_option(block, code, &count.to_le_bytes());
            }
        });
    }

    /// Octets that are to be taken away.
    #[must_use]
    pub fn len(&self) -> usize {
        self.octets.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.octets.is_empty()
    }

    /// Takes away what there is: whole blocks.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.octets)
    }

    /// Puts a block around what `put_body` puts, with an end to its options.
    fn put_block(&mut self, kind: u32, put_body: impl FnOnce(&mut Vec<u8>)) {
        let start = self.octets.len();
        self.octets.extend_from_slice(&kind.to_le_bytes());
        self.octets.extend_from_slice(&[0; 4]);
        put_body(&mut self.octets);
        put_option(&mut self.octets, END, &[]);
        // A block is a packet and some options, far below what the number can say.
        let length = u32::try_from(self.octets.len() - start + 4).unwrap_or(u32::MAX).to_le_bytes();
        self.octets.extend_from_slice(&length);
        self.octets[start + 4..start + 8].copy_from_slice(&length);
    }
}

fn put_option(block: &mut Vec<u8>, code: u16, value: &[u8]) {
    // No option of ours is longer; one that were would make the rest unreadable.
    let value = &value[..value.len().min(usize::from(u16::MAX))];
    let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
    block.extend_from_slice(&code.to_le_bytes());
    block.extend_from_slice(&length.to_le_bytes());
    block.extend_from_slice(value);
    pad(block);
}

fn put_time(block: &mut Vec<u8>, time: Duration) {
    let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    let [.., a, b, c, d] = nanos.to_le_bytes();
    block.extend_from_slice(&[a, b, c, d]);
    block.extend_from_slice(&nanos.to_le_bytes()[..4]);
}

/// Everything begins at a multiple of four octets.
fn pad(block: &mut Vec<u8>) {
    block.resize(block.len().next_multiple_of(4), 0);
}

/// Octets of a block and how they are to be read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Order {
    pub(super) is_big_endian: bool,
}

impl Order {
    fn u16(self, octets: [u8; 2]) -> u16 {
        if self.is_big_endian { u16::from_be_bytes(octets) } else { u16::from_le_bytes(octets) }
    }

    pub(super) fn u32(self, octets: [u8; 4]) -> u32 {
        if self.is_big_endian { u32::from_be_bytes(octets) } else { u32::from_le_bytes(octets) }
    }

    fn u64(self, octets: [u8; 8]) -> u64 {
        if self.is_big_endian { u64::from_be_bytes(octets) } else { u64::from_le_bytes(octets) }
    }

    /// The byte order of a section, by the number behind the kind and length of its header.
    pub(super) fn of_section(number: [u8; 4]) -> Option<Self> {
        [true, false]
            .map(|is_big_endian| Self { is_big_endian })
            .into_iter()
            .find(|order| order.u32(number) == BYTE_ORDER)
    }
}

/// An interface of a section.
#[derive(Clone, Copy, Debug)]
pub(super) struct Interface {
    /// The number of its link type.
    pub(super) link: u32,
    resolution: u8,
    /// Seconds to add to its times.
    offset: i64,
    snap: u32,
}

/// What a block says.
#[derive(Debug)]
pub(super) enum Block<'a> {
    Interface(Interface),
    Packet(PacketBlock<'a>),
    Statistics(CaptureStatistics),
    /// Nothing of interest here.
    Other,
}

/// A packet as a block has it.
#[derive(Debug)]
pub(super) struct PacketBlock<'a> {
    pub(super) interface: u32,
    /// In the units of its interface; none in a simple packet.
    ticks: u64,
    pub(super) octets: &'a [u8],
    pub(super) original_octets: u32,
    flags: u32,
}

impl PacketBlock<'_> {
    pub(super) fn is_outbound(&self) -> bool {
        self.flags & DIRECTION == OUTBOUND
    }

    pub(super) fn is_checksum_unfinished(&self) -> bool {
        self.flags & CHECKSUM_NOT_READY != 0
    }

    /// When it was seen, since 1970.
    pub(super) fn time(&self, interface: &Interface) -> Duration {
        let ticks = u128::from(self.ticks);
        let exponent = u32::from(interface.resolution & 0x7f);
        // Finer times than there are atoms for have no meaning: then the time is 0.
        let nanos = if interface.resolution & 0x80 == 0 {
            10_u128.checked_pow(exponent).map_or(0, |units| ticks * 1_000_000_000 / units)
        } else {
            (ticks * 1_000_000_000).checked_shr(exponent).unwrap_or_default()
        };
        let time = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let offset = Duration::from_secs(interface.offset.unsigned_abs());
        if interface.offset < 0 { time.saturating_sub(offset) } else { time.saturating_add(offset) }
    }
}

impl<'a> Block<'a> {
    /// Reads the body of a block. `interfaces` are those of the section so far. `None` for a body
    /// that is too short for what it should be.
    pub(super) fn parse(
        kind: u32,
        body: &'a [u8],
        order: Order,
        interfaces: &[Interface],
    ) -> Option<Self> {
        Some(match kind {
            INTERFACE => {
                let (&[l0, l1, _, _, s0, s1, s2, s3], options) = body.split_first_chunk()?;
                let mut interface = Interface {
                    link: order.u16([l0, l1]).into(),
                    resolution: 6,
                    offset: 0,
                    snap: order.u32([s0, s1, s2, s3]),
                };
                for (code, value) in (Options { octets: options, order }) {
                    match (code, value) {
                        (INTERFACE_RESOLUTION, &[resolution]) => interface.resolution = resolution,
                        (INTERFACE_OFFSET, value) if let Ok(value) = value.try_into() => {
                            interface.offset = order.u64(value).cast_signed();
                        }
                        _ => {}
                    }
                }
                Self::Interface(interface)
            }
            PACKET | OLD_PACKET => {
                let (head, rest) = body.split_first_chunk::<20>()?;
                let [number, high, low, captured, original] = words(head, order);
                let interface = match kind {
                    // Its other half counted packets that were lost.
                    OLD_PACKET => order.u16([head[0], head[1]]).into(),
                    _ => number,
                };
                let (octets, options) = split_padded(rest, captured)?;
                let flags = (Options { octets: options, order })
                    .filter(|(code, _)| *code == PACKET_FLAGS)
                    .find_map(|(_, value)| Some(order.u32(value.try_into().ok()?)));
                Self::Packet(PacketBlock {
                    interface,
                    ticks: u64::from(high) << 32 | u64::from(low),
                    octets,
                    original_octets: original,
                    flags: flags.unwrap_or_default(),
                })
            }
            SIMPLE_PACKET => {
                let (original, rest) = body.split_first_chunk()?;
                let original = order.u32(*original);
                // It is all that the snapshot length leaves, if there is one.
                let snap = interfaces.first()?.snap;
                let captured = if snap == 0 { original } else { original.min(snap) };
                let (octets, _) = split_padded(rest, captured)?;
                Self::Packet(PacketBlock {
                    interface: 0,
                    ticks: 0,
                    octets,
                    original_octets: original,
                    flags: 0,
                })
            }
            STATISTICS => {
                let mut statistics = CaptureStatistics::default();
                for (code, value) in (Options { octets: body.get(12..)?, order }) {
                    let Ok(count) = value.try_into().map(|value| order.u64(value)) else {
                        continue;
                    };
                    match code {
                        STATISTICS_RECEIVED => statistics.seen = count,
                        STATISTICS_DROPPED => statistics.missed = count,
                        STATISTICS_ACCEPTED => statistics.matched = count,
                        STATISTICS_DELIVERED => statistics.written = count,
                        _ => {}
                    }
                }
                Self::Statistics(statistics)
            }
            _ => Self::Other,
        })
    }
}

fn words(octets: &[u8; 20], order: Order) -> [u32; 5] {
    let (words, _) = octets.as_chunks();
    std::array::from_fn(|at| words.get(at).map_or(0, |word| order.u32(*word)))
}

/// So many octets, and what is behind their padding.
fn split_padded(octets: &[u8], length: u32) -> Option<(&[u8], &[u8])> {
    let length = usize::try_from(length).ok()?;
    let (value, _) = octets.split_at_checked(length)?;
    let rest = octets.get(length.checked_next_multiple_of(4)?..);
    Some((value, rest.unwrap_or_default()))
}

/// The options at the end of a block, up to the first that is cut off.
struct Options<'a> {
    octets: &'a [u8],
    order: Order,
}

impl<'a> Iterator for Options<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (&[c0, c1, l0, l1], rest) = self.octets.split_first_chunk()?;
        let (code, length) = (self.order.u16([c0, c1]), self.order.u16([l0, l1]));
        if code == END {
            return None;
        }
        let (value, rest) = split_padded(rest, length.into())?;
        self.octets = rest;
        Some((code, value))
    }
}

/// Cuts a stream of pcapng that [`PcapngWriter`] wrote into whole blocks, so that what is kept of it
/// is a whole file wherever it ends.
#[derive(Debug, Default)]
pub struct BlockCutter {
    octets: Vec<u8>,
    /// Packets in the whole blocks so far, each once, if it was translated or not.
    packets: u64,
    statistics: CaptureStatistics,
}

/// A stream is not what [`PcapngWriter`] writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a pcapng stream of a director")]
pub struct NotBlocks;

impl BlockCutter {
    /// Takes more of the stream, and gives back the blocks that are whole now.
    ///
    /// # Errors
    /// It is not such a stream.
    pub fn cut(&mut self, octets: &[u8]) -> Result<Vec<u8>, NotBlocks> {
        const ORDER: Order = Order { is_big_endian: false };
        self.octets.extend_from_slice(octets);
        let mut end = 0;
        while let Some((head, _)) = self.octets.get(end..).and_then(<[u8]>::split_first_chunk::<8>)
        {
            let &[k0, k1, k2, k3, l0, l1, l2, l3] = head;
            let length = usize::try_from(ORDER.u32([l0, l1, l2, l3])).map_err(|_| NotBlocks)?;
            if !(FRAME..=BLOCK_OCTETS_MAX).contains(&length) {
                return Err(NotBlocks);
            }
            let Some(block) = self.octets.get(end..end + length) else { break };
            let body = block.get(8..length - 4).unwrap_or_default();
            match Block::parse(ORDER.u32([k0, k1, k2, k3]), body, ORDER, &[]) {
                // Of what was held until later there is only what was sent.
                Some(Block::Packet(packet)) if !packet.is_outbound() => self.packets += 1,
                Some(Block::Statistics(statistics)) => self.statistics = statistics,
                Some(_) => {}
                None => return Err(NotBlocks),
            }
            end += length;
        }
        let rest = self.octets.split_off(end);
        Ok(std::mem::replace(&mut self.octets, rest))
    }

    /// Packets received in the whole blocks so far.
    #[must_use]
    pub fn packets(&self) -> u64 {
        self.packets
    }

    /// The latest that the stream said about itself.
    #[must_use]
    pub fn statistics(&self) -> CaptureStatistics {
        self.statistics
    }
}

#[cfg(test)]
mod tests {
    use pcap_parser::pcapng::PcapNGSlice;
    use proptest::prelude::*;

    use super::super::reader::read_all;
    use super::super::{CaptureError, Record};
    use super::*;

    const SAMPLE: CapturedPacket<'_> = CapturedPacket {
        time: Duration::new(1, 2),
        octets: b"abcde",
        original_octets: 60,
        is_outbound: true,
        is_checksum_unfinished: true,
        id: 7,
        queue: 3,
        comment: "why",
    };

    const COUNTED: CaptureStatistics =
        CaptureStatistics { seen: 9, matched: 8, missed: 7, written: 1 };

    fn file() -> Vec<u8> {
        let mut writer = PcapngWriter::new("wvs0", 128);
        writer.put(&SAMPLE);
        writer.put_statistics(Duration::new(1, 2), &COUNTED);
        writer.take()
    }

    /// Octets as text, four to a word.
    fn hex(octets: &[u8]) -> Vec<String> {
        let word = |word: &[u8]| word.iter().map(|octet| format!("{octet:02x}")).collect();
        octets.chunks(4).map(word).collect()
    }

    #[test]
    fn packet_is_written_octet_for_octet_as_the_format_has_it() {
        let mut writer = PcapngWriter::new("wvs0", 128);
        let head = writer.take();
        writer.put(&SAMPLE);
        assert_eq!(
            hex(&writer.take()),
            [
                // Kind, length, interface; 1,000,000,002 ns in two halves; lengths; octets.
                "06000000", "50000000", "00000000", "00000000", "02ca9a3b", "05000000", "3c000000",
                "61626364", "65000000",
                // Comment, flags, id, queue, end of the options, length.
                "01000300", "77687900", "02000400", "02020000", "05000800", "07000000", "00000000",
                "06000400", "03000000", "00000000", "50000000",
            ]
            .map(str::to_owned)
        );
        let section =
            ["0a0d0d0a", "30000000", "4d3c2b1a", "01000000", "ffffffff", "ffffffff", "04000900"];
        assert_eq!(hex(&head)[..7], section);
    }

    #[test]
    fn what_was_written_is_read_again() {
        let (packets, end) = read_all(&file());
        assert!(end.is_none(), "{end:?}");
        let record = Record {
            time: SAMPLE.time,
            original_octets: 60,
            is_outbound: true,
            is_checksum_unfinished: true,
        };
        assert_eq!(packets, [(record, b"abcde".to_vec())]);
    }

    #[test]
    fn file_that_is_cut_off_anywhere_gives_what_is_whole_and_never_more() {
        let file = file();
        let mut cutter = BlockCutter::default();
        let mut whole = Vec::new();
        for length in 0..file.len() {
            let (packets, end) = read_all(&file[..length]);
            // Up to the last octet of the packet's block, the statistics follow.
            assert_eq!(packets.len(), usize::from(length >= file.len() - 76), "{length}");
            assert!(packets.len() == 1 || end.is_some() || length >= 48, "{length}");
            whole.extend(cutter.cut(&file[length..=length]).unwrap());
            // What the cutter gives is a whole file at any time.
            let (_, end) = read_all(&whole);
            assert!(whole.is_empty() || end.is_none(), "{length}: {end:?}");
        }
        assert_eq!(whole, file);
        // It was sent without having come.
        assert_eq!((cutter.packets(), cutter.statistics()), (0, COUNTED));
    }

    #[test]
    fn either_byte_order_all_kinds_of_packets_and_times_are_read() {
        let mut file = Vec::new();
        let mut block = |kind: u32, body: &[u8]| {
            let length = u32::try_from(body.len() + FRAME).unwrap();
            for part in
                [&kind.to_be_bytes()[..], &length.to_be_bytes(), body, &length.to_be_bytes()]
            {
                file.extend_from_slice(part);
            }
        };
        let words = |words: &[u32]| -> Vec<u8> {
            words.iter().flat_map(|word| word.to_be_bytes()).collect()
        };
        let section = words(&[BYTE_ORDER, 1 << 16, u32::MAX, u32::MAX]);
        block(SECTION, &section);
        // Ethernet of which 3 octets are kept, with times in microseconds; raw, in 2⁻¹⁰ s, from 100 s on.
        block(INTERFACE, &words(&[1 << 16, 3]));
        block(
            INTERFACE,
            &words(&[101 << 16, 0, 9 << 16 | 1, 0x8a00_0000, 14 << 16 | 8, 0, 100, 0]),
        );
        block(PACKET, &words(&[0, 0, 1_000_001, 2, 2, 0x6162_0000]));
        block(PACKET, &words(&[1, 0, 1_536, 1, 9, 0x6100_0000, 2 << 16 | 4, OUTBOUND, 0]));
        block(OLD_PACKET, &words(&[0, 0, 5, 1, 1, 0x6100_0000]));
        block(SIMPLE_PACKET, &words(&[100, 0x6162_6300]));
        block(0x0bad, b"whatever");
        // A second section has interfaces of its own.
        block(SECTION, &section);
        block(PACKET, &words(&[0, 0, 0, 0, 0]));
        let (packets, end) = read_all(&file);
        let record = |time, original_octets, is_outbound| Record {
            time,
            original_octets,
            is_outbound,
            is_checksum_unfinished: false,
        };
        assert_eq!(
            packets,
            [
                (record(Duration::from_micros(1_000_001), 2, false), b"ab".to_vec()),
                (record(Duration::from_millis(101_500), 9, true), b"a".to_vec()),
                (record(Duration::from_micros(5), 1, false), b"a".to_vec()),
                (record(Duration::ZERO, 100, false), b"abc".to_vec()),
            ]
        );
        assert!(matches!(end, Some(CaptureError::Block { packet: 5, .. })), "{end:?}");
    }

    proptest! {
        /// Whatever is written, somebody else's parser reads, and so do we.
        #[test]
        fn another_parser_reads_the_same(
            packets in prop::collection::vec(
                (any::<u64>(), prop::collection::vec(any::<u8>(), 0..100), any::<bool>(), ".{0,40}"),
                0..10,
            ),
        ) {
            let mut writer = PcapngWriter::new("wvs0", 128);
            for (nanos, octets, is_outbound, comment) in &packets {
                writer.put(&CapturedPacket {
                    time: Duration::from_nanos(*nanos),
                    octets,
                    original_octets: octets.len(),
                    is_outbound: *is_outbound,
                    comment,
                    ..SAMPLE
                });
            }
            let file = writer.take();
            let theirs: Vec<_> = PcapNGSlice::from_slice(&file)
                .unwrap()
                .filter_map(|block| match block.unwrap() {
                    pcap_parser::PcapBlockOwned::NG(pcap_parser::Block::EnhancedPacket(packet)) => {
                        let nanos = u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low);
                        let flags = packet.options[1].as_u32_le().unwrap();
                        let comment = packet.options[0].as_str().unwrap().to_owned();
                        let octets = packet.data[..packet.caplen as usize].to_vec();
                        Some((nanos, octets, flags & DIRECTION == OUTBOUND, comment))
                    }
                    _ => None,
                })
                .collect();
            prop_assert_eq!(&theirs, &packets);
            let (ours, end) = read_all(&file);
            prop_assert!(end.is_none());
            let ours: Vec<_> = ours
                .into_iter()
                .map(|(record, octets)| (record.time.as_nanos(), octets, record.is_outbound))
                .collect();
            let expected: Vec<_> = packets
                .into_iter()
                .map(|(nanos, octets, is_outbound, _)| (u128::from(nanos), octets, is_outbound))
                .collect();
            prop_assert_eq!(ours, expected);
        }

        /// No octets make reading panic, or take memory without end.
        #[test]
        fn no_octets_make_it_panic(octets in prop::collection::vec(any::<u8>(), 0..200), at in 0_usize..100) {
            let mut file = file();
            let at = at % file.len();
            file.truncate(at);
            file.extend(octets);
            let _ = read_all(&file);
            let _ = BlockCutter::default().cut(&file);
        }
    }
}
