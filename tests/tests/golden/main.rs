//! Golden captures: for each a file of packets and the file that `wvs replay` made of it, octet for
//! octet. The first of each pair is written here, packet by packet.
//!
//! `WVS_UPDATE_GOLDEN=1 cargo test -p wvs-tests --test golden` writes both anew; then look at the
//! difference with `tcpdump -nvr`.

mod stories;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use stories::{STORIES, Story};
use wvs::capture::{CaptureReader, CaptureWriter, LinkType};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// The story as a capture.
fn capture(story: &Story) -> Vec<u8> {
    let mut file = Vec::new();
    let mut writer = CaptureWriter::new(&mut file).unwrap();
    for (millis, packet) in (story.packets)() {
        // A day in 2026.
        let time = Duration::from_secs(1_790_000_000) + Duration::from_millis(millis);
        writer.write(time, &packet).unwrap();
    }
    writer.finish().unwrap();
    let link = u8::try_from(story.link.number()).unwrap();
    file[20] = link;
    file
}

fn replay(input: &Path, output: &Path) -> Vec<u8> {
    let wvs = Command::new(env!("CARGO_BIN_EXE_wvs-under-test"))
        .arg("replay")
        .arg(input)
        .arg("-c")
        .arg(folder().join("wvs.yaml"))
        .arg("-o")
        .arg(output)
        .output()
        .unwrap();
    assert!(wvs.status.success(), "{}", String::from_utf8_lossy(&wvs.stderr));
    fs::read(output).unwrap()
}

/// The packets of a capture in lines, to show what differs.
fn lines(file: &[u8]) -> Vec<String> {
    let mut reader = CaptureReader::new(file).unwrap();
    let (mut frame, mut lines) = (Vec::new(), Vec::new());
    while let Some(record) = reader.read(&mut frame).unwrap() {
        let octets: String = frame.iter().map(|octet| format!("{octet:02x}")).collect();
        lines.push(format!("{:?} {octets}", record.time));
    }
    lines
}

#[track_caller]
fn compare(path: &Path, found: &[u8]) {
    if env::var_os("WVS_UPDATE_GOLDEN").is_some() {
        fs::write(path, found).unwrap();
        return;
    }
    let expected = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(lines(found), lines(&expected), "{}", path.display());
    assert_eq!(found, expected, "{}", path.display());
}

#[test]
fn every_capture_gives_the_packets_that_it_gave_before() {
    let scratch = tempfile::tempdir().unwrap();
    for story in STORIES {
        let input = folder().join(story.name).with_extension("in.pcap");
        compare(&input, &capture(story));
        let output = replay(&input, &scratch.path().join("out.pcap"));
        compare(&folder().join(story.name).with_extension("out.pcap"), &output);
    }
}

#[test]
fn every_packet_of_a_story_that_is_told_to_arrive_is_sent_and_no_other() {
    for story in STORIES {
        let sent = lines(&fs::read(folder().join(story.name).with_extension("out.pcap")).unwrap());
        assert_eq!(sent.len(), story.sent, "{}", story.name);
    }
}

#[test]
fn golden_files_are_those_of_the_stories() {
    let mut files: Vec<_> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".pcap"))
        .collect();
    files.sort();
    let mut expected: Vec<_> = STORIES
        .iter()
        .flat_map(|story| ["in", "out"].map(|end| format!("{}.{end}.pcap", story.name)))
        .collect();
    expected.sort();
    assert_eq!(files, expected);
    assert!(STORIES.iter().any(|story| story.link != LinkType::Raw));
}
