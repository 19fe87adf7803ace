use std::time::Duration;

use wvs::capture::{CaptureReader, CaptureWriter, RECORD_OCTETS_MAX};

/// Any file as a capture: whatever can be read of it can be written and read again.
pub(super) fn capture(octets: &[u8]) {
    let Ok(mut reader) = CaptureReader::new(octets) else { return };
    let link = reader.link();
    let (mut frame, mut packets) = (Vec::new(), Vec::<(Duration, Vec<u8>)>::new());
    while let Ok(Some(record)) = reader.read(&mut frame) {
        assert!(frame.len() <= RECORD_OCTETS_MAX);
        if let Some(packet) = link.ip_packet(&frame) {
            assert!(packet.len() <= frame.len());
            packets.push((record.time, packet.to_vec()));
        }
    }
    let mut file = Vec::new();
    let mut writer = CaptureWriter::new(&mut file).expect("a vector takes everything");
    for (time, packet) in &packets {
        writer.write(*time, packet).expect("a vector takes everything");
    }
    let mut reader = CaptureReader::new(&file[..]).expect("what was written here");
    for (time, packet) in &packets {
        let record = reader.read(&mut frame).expect("what was written here").expect("no end yet");
        assert_eq!(&frame, packet);
        assert_eq!(record.original_octets, packet.len());
        assert!(record.time == *time || time.as_secs() > u64::from(u32::MAX));
    }
    assert!(reader.read(&mut frame).expect("the end").is_none());
}
