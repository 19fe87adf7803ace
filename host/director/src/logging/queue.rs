//! Log lines on their way to standard error, which may be a pipe that nobody reads or a file on a full
//! disk: whoever writes a line never waits for it and never fails.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;
use wvs_core::stats::Counter;

/// Lines that may wait. A line has some hundred octets, rarely more than a thousand.
const LINES_MAX: usize = 4_096;

/// Between two tries to get a place in a full queue, for who may wait.
const TRY_INTERVAL: Duration = Duration::from_millis(5);

/// The queue's end for writers, and what writes a line into it. Clones share the queue.
#[derive(Clone, Debug)]
pub(super) struct Queue {
    entries: SyncSender<Entry>,
    lost: Arc<Counter>,
}

enum Entry {
    Line(Vec<u8>),
    /// Answered when everything before it was written.
    Flush(SyncSender<()>),
}

impl Queue {
    /// Starts the thread that writes to `output`, each line by one call.
    ///
    /// # Errors
    /// The operating system has no thread left.
    pub(super) fn start(output: impl Write + Send + 'static) -> io::Result<Self> {
        let (entries, queued) = sync_channel(LINES_MAX);
        let lost = Arc::<Counter>::default();
        let writer = Writer { output, lost: Arc::clone(&lost), told: 0 };
        thread::Builder::new().name("log".to_owned()).spawn(move || writer.run(&queued))?;
        Ok(Self { entries, lost })
    }

    /// Lines that found the queue full or could not be written.
    pub(super) fn lost(&self) -> u64 {
        self.lost.get()
    }

    /// Queues a line, which ends with a line feed, or loses it.
    pub(super) fn put(&self, line: &[u8]) {
        if self.entries.try_send(Entry::Line(line.to_vec())).is_err() {
            self.lost.count();
        }
    }

    /// Waits until what was queued is written, but no longer than `patience`.
    pub(super) fn flush(&self, patience: Duration) {
        let give_up = Instant::now() + patience;
        let (tell, done) = sync_channel(1);
        let mut entry = Entry::Flush(tell);
        while let Err(TrySendError::Full(returned)) = self.entries.try_send(entry) {
            if Instant::now() >= give_up {
                return;
            }
            entry = returned;
            thread::sleep(TRY_INTERVAL);
        }
        let _ = done.recv_timeout(give_up.saturating_duration_since(Instant::now()));
    }
}

/// A line comes in one call of `write`, as the log's layer makes it.
impl Write for &Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.put(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Queue {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

struct Writer<W> {
    output: W,
    lost: Arc<Counter>,
    /// Lost lines that the log tells of.
    told: u64,
}

impl<W: Write> Writer<W> {
    fn run(mut self, queued: &Receiver<Entry>) {
        for entry in queued {
            match entry {
                Entry::Line(line) => self.write(&line),
                // Whoever waited may have given up.
                Entry::Flush(tell) => drop(tell.try_send(())),
            }
        }
    }

    fn write(&mut self, line: &[u8]) {
        if self.output.write_all(line).and_then(|()| self.output.flush()).is_err() {
            self.lost.count();
            return;
        }
        // Only once the log works again: what tells of lost lines would be lost as well.
        let lost = self.lost.get();
        if lost > self.told {
            tracing::warn!(
                lines = lost - self.told,
                "log lines were lost: nobody read them, or there was no room"
            );
            self.told = lost;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;

    use nix::fcntl::OFlag;
    use nix::unistd::pipe2;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    #[test]
    fn lines_arrive_in_order() {
        let (mut reader, writer) = io::pipe().unwrap();
        let queue = Queue::start(writer).unwrap();
        for number in 0..100 {
            queue.put(format!("{number}\n").as_bytes());
        }
        queue.flush(PATIENCE);
        drop(queue);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert!(text.lines().map(|line| line.parse::<u32>().unwrap()).eq(0..100), "{text}");
    }

    /// The pipe has room for 64 KiB.
    #[test]
    fn pipe_that_nobody_reads_makes_nobody_wait_and_costs_counted_lines() {
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC).unwrap();
        let queue = Queue::start(File::from(writer)).unwrap();
        let line = [b'x'; 1_024];
        let lines = 2 * LINES_MAX;
        for _ in 0..lines {
            queue.put(&line);
        }
        let lost = queue.lost();
        let lost_lines = usize::try_from(lost).unwrap();
        assert!(lost_lines >= lines - LINES_MAX - 128, "{lost}");
        queue.flush(Duration::ZERO);

        // Somebody reads at last.
        let reader = thread::spawn(move || {
            let mut octets = Vec::new();
            File::from(reader).read_to_end(&mut octets).unwrap();
            octets.len()
        });
        queue.flush(PATIENCE);
        assert_eq!(queue.lost(), lost);
        drop(queue);
        assert_eq!(reader.join().unwrap(), (lines - lost_lines) * line.len());
    }

    #[test]
    fn pipe_that_is_closed_costs_counted_lines() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let queue = Queue::start(writer).unwrap();
        queue.put(b"a\n");
        queue.put(b"b\n");
        queue.flush(PATIENCE);
        assert_eq!(queue.lost(), 2);
    }

    #[test]
    fn full_disk_costs_counted_lines() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let queue = Queue::start(full).unwrap();
        queue.put(b"a\n");
        queue.flush(PATIENCE);
        assert_eq!(queue.lost(), 1);
    }
}
