//! Reading captures.

use std::io::{ErrorKind, Read};
use std::time::Duration;

use super::pcapng::{BLOCK_OCTETS_MAX, Block, Interface, Order, SECTION};
use super::{
    CaptureError, FILE_HEADER, LinkType, MAGIC_MICROS, MAGIC_NANOS, RECORD_HEADER,
    RECORD_OCTETS_MAX, Record,
};

/// Octets of a pcapng block in front of its body.
const BLOCK_HEAD: usize = 8;

/// Octets of a pcapng section header that are looked at, with the head.
const SECTION_HEAD: usize = 16;

/// Interfaces of a section at most, each of which is kept.
const INTERFACES_MAX: usize = 4096;

/// Reads a capture, one packet after the other.
#[derive(Debug)]
pub struct CaptureReader<R> {
    input: R,
    format: Format,
    link: LinkType,
    /// Packets read so far.
    packets: u64,
    /// Octets of the file read so far.
    offset: u64,
}

#[derive(Debug)]
enum Format {
    Pcap {
        is_big_endian: bool,
        /// Nanoseconds in one unit of the part of a second.
        unit_nanos: u32,
    },
    Pcapng {
        order: Order,
        /// Those of the section.
        interfaces: Vec<Interface>,
        /// The last block's body.
        body: Vec<u8>,
    },
}

impl<R: Read> CaptureReader<R> {
    /// Reads the file header. `input` should be buffered: it is read in small pieces.
    ///
    /// # Errors
    /// It is no capture, or one of a kind that is not known.
    pub fn new(mut input: R) -> Result<Self, CaptureError> {
        let mut header = [0; FILE_HEADER];
        let (start, rest) = header.split_at_mut(SECTION_HEAD);
        let mut octets = fill(&mut input, start)?;
        let magic = word(start, 0, true);
        if magic == SECTION {
            return Self::new_pcapng(input, start, octets);
        }
        if octets == SECTION_HEAD {
            octets += fill(&mut input, rest)?;
        }
        let (is_big_endian, unit_nanos) = match (magic, magic.swap_bytes()) {
            (MAGIC_MICROS, _) => (true, 1000),
            (MAGIC_NANOS, _) => (true, 1),
            (_, MAGIC_MICROS) => (false, 1000),
            (_, MAGIC_NANOS) => (false, 1),
            _ if octets < 4 => return Err(CaptureError::TooShort { octets }),
            _ => return Err(CaptureError::NotPcap { magic }),
        };
        if octets < FILE_HEADER {
            return Err(CaptureError::TooShort { octets });
        }
        let number = |at| word(&header, at, is_big_endian);
        let version = number(4);
        let (major, minor) = if is_big_endian {
            (version >> 16, version & 0xffff)
        } else {
            (version & 0xffff, version >> 16)
        };
        if (major, minor) != (2, 4) {
            let half = |word| u16::try_from(word).unwrap_or(u16::MAX);
            return Err(CaptureError::Version { major: half(major), minor: half(minor) });
        }
        // The high half says whether frames end with a checksum, which raw packets never do.
        let link = number(20) & 0xffff;
        let link = LinkType::from_number(link).ok_or(CaptureError::Link { number: link })?;
        let format = Format::Pcap { is_big_endian, unit_nanos };
        Ok(Self { input, format, link, packets: 0, offset: length(FILE_HEADER) })
    }

    /// After `octets` of what should be the first [`SECTION_HEAD`] ones.
    fn new_pcapng(mut input: R, start: &[u8], octets: usize) -> Result<Self, CaptureError> {
        if octets < SECTION_HEAD {
            return Err(CaptureError::TooShort { octets });
        }
        let broken = || CaptureError::Block { packet: 1, offset: 0 };
        let order = Order::of_section(number_at(start, 8)).ok_or_else(broken)?;
        let total = usize::try_from(order.u32(number_at(start, 4))).map_err(|_| broken())?;
        if !(SECTION_HEAD + 12..=BLOCK_OCTETS_MAX).contains(&total) || total % 4 != 0 {
            return Err(broken());
        }
        let mut body = vec![0; total - SECTION_HEAD];
        if fill(&mut input, &mut body)? < body.len() {
            return Err(CaptureError::CutOff { packet: 1, offset: 0 });
        }
        let format = Format::Pcapng { order, interfaces: Vec::new(), body };
        Ok(Self { input, format, link: LinkType::Raw, packets: 0, offset: length(total) })
    }

    /// What stands in front of the packet that was read last. In a pcap file it is the same for all.
    #[must_use]
    pub const fn link(&self) -> LinkType {
        self.link
    }

    /// Packets read so far.
    #[must_use]
    pub const fn packets(&self) -> u64 {
        self.packets
    }

    /// Reads the next packet with its link header into `frame`, in place of what is there; `None`
    /// at the end of the file.
    ///
    /// # Errors
    /// The file is cut off or broken here. What was read before is as good as if it ended there.
    pub fn read(&mut self, frame: &mut Vec<u8>) -> Result<Option<Record>, CaptureError> {
        frame.clear();
        match self.format {
            Format::Pcap { is_big_endian, unit_nanos } => {
                self.read_record(frame, is_big_endian, unit_nanos)
            }
            Format::Pcapng { .. } => loop {
                match self.read_block(frame)? {
                    Step::Packet(record) => return Ok(Some(record)),
                    Step::Other => {}
                    Step::End => return Ok(None),
                }
            },
        }
    }

    fn read_record(
        &mut self,
        frame: &mut Vec<u8>,
        is_big_endian: bool,
        unit_nanos: u32,
    ) -> Result<Option<Record>, CaptureError> {
        let (packet, offset) = (self.packets + 1, self.offset);
        let cut_off = CaptureError::CutOff { packet, offset };
        let mut header = [0; RECORD_HEADER];
        match fill(&mut self.input, &mut header)? {
            0 => return Ok(None),
            RECORD_HEADER => {}
            _ => return Err(cut_off),
        }
        let number = |at| word(&header, at, is_big_endian);
        let octets = number(8);
        let captured = usize::try_from(octets).unwrap_or(usize::MAX);
        if captured > RECORD_OCTETS_MAX {
            return Err(CaptureError::TooLong { packet, offset, octets });
        }
        frame.resize(captured, 0);
        if fill(&mut self.input, frame)? < captured {
            frame.clear();
            return Err(cut_off);
        }
        self.packets = packet;
        self.offset = offset.saturating_add(length(RECORD_HEADER + captured));
        let part = Duration::from_nanos(u64::from(number(4)) * u64::from(unit_nanos));
        Ok(Some(Record {
            time: Duration::from_secs(number(0).into()) + part,
            original_octets: usize::try_from(number(12)).unwrap_or(usize::MAX),
            ..Record::default()
        }))
    }

    /// Reads a block, and its packet into `frame` if it has one.
    fn read_block(&mut self, frame: &mut Vec<u8>) -> Result<Step, CaptureError> {
        let Self { input, format: Format::Pcapng { order, interfaces, body }, .. } = self else {
            return Ok(Step::End);
        };
        let (packet, offset) = (self.packets + 1, self.offset);
        let cut_off = || CaptureError::CutOff { packet, offset };
        let broken = || CaptureError::Block { packet, offset };
        let mut head = [0; SECTION_HEAD];
        let (start, more) = head.split_at_mut(BLOCK_HEAD);
        match fill(input, start)? {
            0 => return Ok(Step::End),
            BLOCK_HEAD => {}
            _ => return Err(cut_off()),
        }
        let is_section = word(start, 0, true) == SECTION;
        let mut known = BLOCK_HEAD;
        if is_section {
            if fill(input, more)? < more.len() {
                return Err(cut_off());
            }
            *order = Order::of_section(number_at(more, 0)).ok_or_else(broken)?;
            interfaces.clear();
            known = SECTION_HEAD;
        }
        let octets = order.u32(number_at(&head, 4));
        let total = usize::try_from(octets).unwrap_or(usize::MAX);
        if total > BLOCK_OCTETS_MAX {
            return Err(CaptureError::TooLong { packet, offset, octets });
        }
        if total < known + 4 || total % 4 != 0 {
            return Err(broken());
        }
        body.resize(total - known, 0);
        if fill(input, body)? < body.len() {
            return Err(cut_off());
        }
        self.offset = offset.saturating_add(length(total));
        if is_section {
            return Ok(Step::Other);
        }
        let kind = order.u32(number_at(&head, 0));
        let (body, _) = body.split_at(body.len() - 4);
        match Block::parse(kind, body, *order, interfaces).ok_or_else(broken)? {
            Block::Interface(interface) if interfaces.len() < INTERFACES_MAX => {
                interfaces.push(interface);
            }
            Block::Interface(_) => return Err(broken()),
            Block::Packet(block) => {
                let number = usize::try_from(block.interface).unwrap_or(usize::MAX);
                let interface = interfaces.get(number).ok_or_else(broken)?;
                let link = interface.link;
                self.link =
                    LinkType::from_number(link).ok_or(CaptureError::Link { number: link })?;
                self.packets = packet;
                frame.extend_from_slice(block.octets);
                return Ok(Step::Packet(Record {
                    time: block.time(interface),
                    original_octets: usize::try_from(block.original_octets).unwrap_or(usize::MAX),
                    is_outbound: block.is_outbound(),
                    is_checksum_unfinished: block.is_checksum_unfinished(),
                }));
            }
            Block::Statistics(_) | Block::Other => {}
        }
        Ok(Step::Other)
    }
}

/// What came of reading a block.
enum Step {
    Packet(Record),
    Other,
    End,
}

fn length(octets: usize) -> u64 {
    u64::try_from(octets).unwrap_or(u64::MAX)
}

/// Four octets at an offset of a header.
fn number_at(header: &[u8], at: usize) -> [u8; 4] {
    header.get(at..).and_then(<[u8]>::first_chunk).copied().unwrap_or_default()
}

/// The number at an offset of a header.
fn word(header: &[u8], at: usize, is_big_endian: bool) -> u32 {
    let octets = number_at(header, at);
    if is_big_endian { u32::from_be_bytes(octets) } else { u32::from_le_bytes(octets) }
}

/// Reads until `buffer` is full or the input ends; how far it got.
fn fill(input: &mut impl Read, buffer: &mut [u8]) -> Result<usize, CaptureError> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match input.read(rest) {
            Ok(0) => break,
            Ok(octets) => filled += octets,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(filled)
}

/// What can be read, and how it ended.
#[cfg(test)]
pub(super) fn read_all(file: &[u8]) -> (Vec<(Record, Vec<u8>)>, Option<CaptureError>) {
    let mut packets = Vec::new();
    let mut reader = match CaptureReader::new(file) {
        Ok(reader) => reader,
        Err(error) => return (packets, Some(error)),
    };
    let mut frame = Vec::new();
    loop {
        match reader.read(&mut frame) {
            Ok(Some(record)) => packets.push((record, frame.clone())),
            Ok(None) => return (packets, None),
            Err(error) => return (packets, Some(error)),
        }
    }
}
