//! A pcapng file as somebody else's parser reads it.

use pcap_parser::PcapBlockOwned;
use pcap_parser::pcapng::{Block, OptionCode, PcapNGSlice};

/// What a file has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    /// Name of the interface.
    pub interface: String,
    /// Its packets.
    pub packets: Vec<RecordedPacket>,
    /// Options of the last statistics by their numbers.
    pub statistics: Vec<(u16, u64)>,
}

/// A packet of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedPacket {
    /// Nanoseconds since 1970.
    pub nanos: u64,
    /// What there is of it.
    pub octets: Vec<u8>,
    /// Octets that it had.
    pub original_octets: u32,
    /// The comment.
    pub comment: String,
    /// The flags.
    pub flags: u32,
    /// The number that it shares with its translation.
    pub id: u64,
}

impl RecordedPacket {
    /// Whether it was sent.
    #[must_use]
    pub fn is_outbound(&self) -> bool {
        self.flags & 3 == 2
    }
}

/// The blocks that are whole: a file that is being written may end within one.
#[must_use]
pub fn whole_blocks(file: &[u8]) -> &[u8] {
    let mut end = 0;
    while let Some(length) = file.get(end + 4..end + 8) {
        let length = u32::from_le_bytes(length.try_into().expect("4 octets")) as usize;
        if length < 12 || file.len() - end < length {
            break;
        }
        end += length;
    }
    &file[..end]
}

impl Recorded {
    /// Reads a whole file.
    ///
    /// # Panics
    /// It is none, or has something that no capture of the director has.
    #[must_use]
    pub fn read(file: &[u8]) -> Self {
        let mut recorded = Self::default();
        let number = |value: &[u8]| u64::from_le_bytes(value.try_into().expect("8 octets"));
        for block in PcapNGSlice::from_slice(file).expect("a pcapng file") {
            let PcapBlockOwned::NG(block) = block.expect("a whole block") else {
                panic!("a block of another format");
            };
            match block {
                Block::SectionHeader(_) => {}
                Block::InterfaceDescription(interface) => {
                    assert_eq!((interface.linktype.0, interface.if_tsresol), (101, 9));
                    let name = interface.options.iter().find(|option| option.code.0 == 2);
                    let name = name.expect("a name").as_str().expect("text");
                    name.clone_into(&mut recorded.interface);
                }
                Block::EnhancedPacket(packet) => {
                    let option = |code| {
                        let mut options = packet.options.iter();
                        options.find(|option| option.code == OptionCode(code)).expect("an option")
                    };
                    recorded.packets.push(RecordedPacket {
                        nanos: u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low),
                        octets: packet.data[..packet.caplen as usize].to_vec(),
                        original_octets: packet.origlen,
                        comment: option(1).as_str().expect("text").to_owned(),
                        flags: option(2).as_u32_le().expect("flags"),
                        id: option(5).as_u64_le().expect("an id"),
                    });
                }
                Block::InterfaceStatistics(statistics) => {
                    let options = statistics.options.iter().filter(|option| option.code.0 != 0);
                    recorded.statistics = options
                        .map(|option| (option.code.0, number(option.as_bytes().expect("octets"))))
                        .collect();
                }
                other => panic!("{other:?}"),
            }
        }
        recorded
    }

    /// Packets missed, as the file says at its end.
    ///
    /// # Panics
    /// It does not say.
    #[must_use]
    pub fn missed(&self) -> u64 {
        let missed = self.statistics.iter().find(|(code, _)| *code == 5);
        missed.expect("statistics at the end").1
    }
}
