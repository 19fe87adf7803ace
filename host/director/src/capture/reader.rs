//! Reading captures.

use std::io::{ErrorKind, Read};
use std::time::Duration;

use super::{
    CaptureError, FILE_HEADER, LinkType, MAGIC_MICROS, MAGIC_NANOS, RECORD_HEADER,
    RECORD_OCTETS_MAX, Record,
};

/// The first four octets of a pcapng file, the same in both byte orders.
const MAGIC_PCAPNG: u32 = 0x0a0d_0d0a;

/// Reads a capture, one packet after the other.
#[derive(Debug)]
pub struct CaptureReader<R> {
    input: R,
    is_big_endian: bool,
    /// Nanoseconds in one unit of the part of a second.
    unit_nanos: u32,
    link: LinkType,
    /// Packets read so far.
    packets: u64,
    /// Octets of the file read so far.
    offset: u64,
}

impl<R: Read> CaptureReader<R> {
    /// Reads the file header. `input` should be buffered: it is read in small pieces.
    ///
    /// # Errors
    /// It is no capture, or one of a kind that is not known.
    pub fn new(mut input: R) -> Result<Self, CaptureError> {
        let mut header = [0; FILE_HEADER];
        let octets = fill(&mut input, &mut header)?;
        let magic = u32::from_be_bytes([header[0], header[1], header[2], header[3]]);
        let (is_big_endian, unit_nanos) = match (magic, magic.swap_bytes()) {
            (MAGIC_PCAPNG, _) => return Err(CaptureError::PcapNg),
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
        let offset = u64::try_from(FILE_HEADER).unwrap_or(u64::MAX);
        Ok(Self { input, is_big_endian, unit_nanos, link, packets: 0, offset })
    }

    /// What stands in front of each packet.
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
        let (packet, offset) = (self.packets + 1, self.offset);
        let cut_off = CaptureError::CutOff { packet, offset };
        let mut header = [0; RECORD_HEADER];
        match fill(&mut self.input, &mut header)? {
            0 => return Ok(None),
            RECORD_HEADER => {}
            _ => return Err(cut_off),
        }
        let number = |at| word(&header, at, self.is_big_endian);
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
        let octets = u64::try_from(RECORD_HEADER + captured).unwrap_or(u64::MAX);
        self.offset = offset.saturating_add(octets);
        let part = Duration::from_nanos(u64::from(number(4)) * u64::from(self.unit_nanos));
        Ok(Some(Record {
            time: Duration::from_secs(number(0).into()) + part,
            original_octets: usize::try_from(number(12)).unwrap_or(usize::MAX),
        }))
    }
}

/// The number at an offset of a header.
fn word(header: &[u8], at: usize, is_big_endian: bool) -> u32 {
    let octets = header.get(at..).and_then(<[u8]>::first_chunk).copied().unwrap_or_default();
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
