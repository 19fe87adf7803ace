//! Where lines go: a file that may be full or moved away, or standard error that may be closed.

use std::fs::{File, OpenOptions};
use std::io::{self, Stderr, Write};
use std::os::unix::fs::OpenOptionsExt;

use nix::fcntl::OFlag;

use crate::config::LogTarget;

/// Who may read a new file: it says who talks to whom.
const MODE: u32 = 0o640;

/// An end of lines.
const END: u8 = b'\n';

/// Lines to a file or to standard error.
#[derive(Debug)]
pub(crate) struct Sink {
    target: LogTarget,
    output: Output,
    /// Whether the last write broke off within a line.
    is_mid_line: bool,
}

#[derive(Debug)]
enum Output {
    Stderr(Stderr),
    File(File),
}

/// What became of some lines.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Lines written.
    pub(super) written: u64,
    /// Lines lost.
    pub(super) lost: u64,
    /// Why.
    pub(super) error: Option<io::Error>,
}

impl Sink {
    /// Opens the target.
    pub(super) fn open(target: &LogTarget) -> io::Result<Self> {
        Ok(Self { target: target.clone(), output: Output::open(target)?, is_mid_line: false })
    }

    /// Opens the target again; whatever was open stays so if that fails. It may be the same file, in
    /// which a line that was broken off is still to be ended.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        self.output = Output::open(&self.target)?;
        Ok(())
    }

    /// Writes whole lines as far as they can be written. A line that was broken off is lost, and
    /// ended before the next one.
    pub(super) fn write(&mut self, lines: &[u8]) -> Outcome {
        let mut outcome = Outcome::default();
        if lines.is_empty() {
            return outcome;
        }
        let mut rest = lines;
        if self.is_mid_line {
            match self.output.write(&[END]) {
                Ok(1..) => self.is_mid_line = false,
                Ok(0) => outcome.error = Some(io::ErrorKind::WriteZero.into()),
                Err(error) => outcome.error = Some(error),
            }
        }
        while !rest.is_empty() && outcome.error.is_none() {
            match self.output.write(rest) {
                Ok(0) => outcome.error = Some(io::ErrorKind::WriteZero.into()),
                Ok(length) => {
                    let (written, unwritten) = rest.split_at(length);
                    outcome.written += count_lines(written);
                    self.is_mid_line = written.last() != Some(&END);
                    rest = unwritten;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => outcome.error = Some(error),
            }
        }
        outcome.lost = count_lines(rest);
        outcome
    }
}

impl Output {
    fn open(target: &LogTarget) -> io::Result<Self> {
        Ok(match target {
            LogTarget::Stderr => Self::Stderr(io::stderr()),
            // A pipe by that name that nobody reads must not make anybody wait.
            LogTarget::File(path) => Self::File(
                OpenOptions::new()
                    .append(true)
                    .create(true)
                    .mode(MODE)
                    .custom_flags(OFlag::O_NONBLOCK.bits())
                    .open(path)?,
            ),
        })
    }

    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        match self {
            Self::Stderr(stderr) => stderr.write(octets),
            Self::File(file) => file.write(octets),
        }
    }
}

fn count_lines(octets: &[u8]) -> u64 {
    octets.iter().map(|octet| u64::from(*octet == END)).sum()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read;
    use std::path::Path;

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;
    use tempfile::TempDir;

    use super::*;

    fn sink(path: &Path) -> Sink {
        Sink::open(&LogTarget::File(path.to_owned())).unwrap()
    }

    #[test]
    fn file_that_was_moved_away_goes_on_under_its_name_once_it_is_opened_again() {
        let folder = TempDir::new().unwrap();
        let [path, moved] = ["log", "log.1"].map(|name| folder.path().join(name));
        fs::write(&path, "before\n").unwrap();
        let mut sink = sink(&path);
        sink.write(b"one\n");
        fs::rename(&path, &moved).unwrap();
        sink.write(b"two\n");
        sink.reopen().unwrap();
        sink.write(b"three\n");
        assert_eq!(fs::read_to_string(&moved).unwrap(), "before\none\ntwo\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "three\n");
    }

    #[test]
    fn file_that_cannot_be_opened_again_is_written_on() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("log");
        let mut sink = sink(&path);
        let moved = folder.path().join("log.1");
        fs::rename(&path, &moved).unwrap();
        fs::create_dir(&path).unwrap();
        sink.reopen().unwrap_err();
        assert_eq!(sink.write(b"one\n").written, 1);
        assert_eq!(fs::read_to_string(&moved).unwrap(), "one\n");
    }

    #[test]
    fn full_disk_loses_lines_and_counts_them() {
        let mut sink = sink(Path::new("/dev/full"));
        let outcome = sink.write(b"one\ntwo\n");
        assert_eq!((outcome.written, outcome.lost), (0, 2));
        assert_eq!(outcome.error.unwrap().kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn pipe_that_nobody_reads_is_refused_and_a_full_one_keeps_nobody_waiting() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("pipe");
        mkfifo(&path, Mode::S_IRWXU).unwrap();
        Sink::open(&LogTarget::File(path.clone())).unwrap_err();

        let mut reader = OpenOptions::new()
            .read(true)
            .custom_flags(OFlag::O_NONBLOCK.bits())
            .open(&path)
            .unwrap();
        let mut sink = sink(&path);
        let line = [[b'x'; 99].as_slice(), b"\n"].concat();
        let lines = line.repeat(1_000);
        let outcome = sink.write(&lines);
        assert!(outcome.written > 100 && outcome.lost > 100, "{outcome:?}");
        assert_eq!(outcome.written + outcome.lost, 1_000);

        // With room again, what was broken off is ended first.
        let mut octets = vec![0; 1 << 20];
        let read = reader.read(&mut octets).unwrap();
        assert_eq!(count_lines(&octets[..read]), outcome.written);
        assert_eq!(sink.write(&line).written, 1);
        let mut rest = vec![0; 1_000];
        let read_again = reader.read(&mut rest).unwrap();
        let is_broken_off = octets[read - 1] != END;
        assert_eq!(read_again, 100 + usize::from(is_broken_off));
        assert!(is_broken_off, "65,536 octets are no whole number of lines");
        assert_eq!(rest[0], END);

        drop(reader);
        assert_eq!(sink.write(&line).lost, 1);
    }
}
