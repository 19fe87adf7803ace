//! Writing captures.

use std::io::{self, Write};
use std::time::Duration;

use super::{LinkType, MAGIC_NANOS, RECORD_OCTETS_MAX};

/// Writes a capture of IP packets with nothing in front of them, with times in nanoseconds.
#[derive(Debug)]
pub struct CaptureWriter<W> {
    output: W,
}

impl<W: Write> CaptureWriter<W> {
    /// Writes the file header. `output` should be buffered: it is written in small pieces.
    ///
    /// # Errors
    /// The operating system's.
    pub fn new(mut output: W) -> io::Result<Self> {
        let snapshot = u32::try_from(RECORD_OCTETS_MAX).unwrap_or(u32::MAX);
        let version = 2 | 4 << 16;
        for number in [MAGIC_NANOS, version, 0, 0, snapshot, LinkType::Raw.number()] {
            output.write_all(&number.to_le_bytes())?;
        }
        Ok(Self { output })
    }

    /// Writes a packet. Seconds beyond 2106, which the format cannot say, become the last ones that
    /// it can.
    ///
    /// # Errors
    /// The operating system's.
    pub fn write(&mut self, time: Duration, packet: &[u8]) -> io::Result<()> {
        let seconds = u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
        let octets = u32::try_from(packet.len()).map_err(io::Error::other)?;
        for number in [seconds, time.subsec_nanos(), octets, octets] {
            self.output.write_all(&number.to_le_bytes())?;
        }
        self.output.write_all(packet)
    }

    /// Writes what is still buffered.
    ///
    /// # Errors
    /// The operating system's.
    pub fn finish(mut self) -> io::Result<()> {
        self.output.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::super::reader::read_all;
    use super::super::{CaptureError, FILE_HEADER, Record};
    use super::*;

    fn two_packets() -> Vec<u8> {
        let mut file = Vec::new();
        let mut writer = CaptureWriter::new(&mut file).unwrap();
        writer.write(Duration::new(1, 2), b"first").unwrap();
        writer.write(Duration::new(3, 999_999_999), b"").unwrap();
        writer.finish().unwrap();
        file
    }

    #[test]
    fn what_was_written_is_read_again() {
        let (packets, end) = read_all(&two_packets());
        assert!(end.is_none(), "{end:?}");
        let record = |seconds, nanos, original_octets| Record {
            time: Duration::new(seconds, nanos),
            original_octets,
            ..Record::default()
        };
        let expected = [(record(1, 2, 5), b"first".to_vec()), (record(3, 999_999_999, 0), vec![])];
        assert_eq!(packets, expected);
    }

    #[test]
    fn file_that_is_cut_off_anywhere_gives_what_is_whole() {
        let file = two_packets();
        let first_ends = FILE_HEADER + 16 + 5;
        for length in 0..file.len() {
            let (packets, end) = read_all(&file[..length]);
            assert_eq!(packets.len(), usize::from(length >= first_ends), "{length}");
            match end {
                None => assert!(length == FILE_HEADER || length == first_ends, "{length}"),
                Some(CaptureError::TooShort { octets }) => assert_eq!(octets, length),
                Some(CaptureError::CutOff { .. }) => assert!(length > FILE_HEADER, "{length}"),
                Some(other) => panic!("{length}: {other}"),
            }
        }
    }

    #[test]
    fn either_byte_order_and_resolution_is_read() {
        for (is_big, magic, nanos) in
            [(false, 0xa1b2_c3d4_u32, 7000), (true, 0xa1b2_c3d4, 7000), (true, 0xa1b2_3c4d, 7)]
        {
            let mut file = Vec::new();
            let mut word = |number: u32| {
                let octets = if is_big { number.to_be_bytes() } else { number.to_le_bytes() };
                file.extend_from_slice(&octets);
            };
            word(magic);
            word(if is_big { 2 << 16 | 4 } else { 2 | 4 << 16 });
            for number in [0, 0, 65_535, 101, 9, 7, 2, 60] {
                word(number);
            }
            file.extend_from_slice(b"ab");
            let (packets, end) = read_all(&file);
            assert!(end.is_none(), "{end:?}");
            let record =
                Record { time: Duration::new(9, nanos), original_octets: 60, ..Record::default() };
            assert_eq!(packets, [(record, b"ab".to_vec())]);
        }
    }

    #[test]
    fn what_is_no_pcap_file_is_refused_with_what_to_do() {
        let mut strange_link = two_packets();
        strange_link[20] = 147;
        let mut strange_version = two_packets();
        strange_version[6] = 3;
        let mut strange_length = two_packets();
        strange_length[FILE_HEADER + 10] = 0xff;
        for (file, expected) in [
            (&b""[..], "too short for a capture: 0 octets, a pcap file has at least 24"),
            (
                b"services: []\n",
                "not a pcap or pcapng file: it begins with 73657276; give a capture as `tcpdump -w` \
                 writes it",
            ),
            (
                b"\x0a\x0d\x0d\x0a\x1c\0\0\0\0\0\0\0\0\0\0\0",
                "broken at packet 1, octet 0 of the file: a block of pcapng that cannot be right",
            ),
            (
                &strange_link,
                "link type 147 is not known; known are EN10MB (1), RAW (101), LINUX_SLL (113), \
                 IPV4 (228), IPV6 (229) and LINUX_SLL2 (276)",
            ),
            (
                &strange_version,
                "pcap version 2.3, and only 2.4 is known; write it anew with \
                 `tcpdump -r IN -w OUT`",
            ),
            (
                &strange_length,
                "broken at packet 1, octet 24 of the file: it says to be 16711685 octets long, and \
                 none is longer than 262144",
            ),
        ] {
            let (packets, end) = read_all(file);
            assert_eq!((packets, end.unwrap().to_string()), (vec![], expected.to_owned()));
        }
    }
}
