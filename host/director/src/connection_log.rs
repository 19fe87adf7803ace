//! The connection log: a line when a connection opens and one when it ends, for as long as the
//! configuration asks for it.
//!
//! The packet path puts records into a queue, see [`wvs_core::connection::log`]; a thread looks at the
//! queue ten times a second and writes. Whatever happens to the file, packets do not wait: what cannot
//! be written, comes too fast or finds the queue full is left out and counted.

mod line;
mod sink;

use std::io;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, SystemTime};

use wvs_core::director::Director;
use wvs_core::stats::Counter;

use crate::clock::Clock;
use crate::config::{ConnectionLogConfig, LogTarget};
use line::{LeftOut, Writing};
use sink::{Outcome, Sink};

/// Between two looks at the queue.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Octets that are written at once.
const BATCH_OCTETS: usize = 64 << 10;

/// The time in which lines are counted against the rate.
const RATE_INTERVAL_MS: u64 = 1_000;

/// How long to wait for the last lines when the director stops: whoever reads them may not.
const STOP_TIME_MAX: Duration = Duration::from_secs(1);

/// Why there is no connection log.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file cannot be written to.
    #[error("cannot write to the connection log {target}: {source}")]
    Target {
        /// Where it should go.
        target: LogTarget,
        /// Why.
        source: io::Error,
    },
    /// The operating system has no thread left.
    #[error("cannot start the thread of the connection log: {0}")]
    Thread(io::Error),
}

/// What became of the lines, since the director started.
#[derive(Debug, Default)]
pub struct LineCounters {
    /// Written.
    pub written: Counter,
    /// Left out because there were more than the rate.
    pub above_rate: Counter,
    /// Lost because the file did not take them.
    pub not_written: Counter,
}

/// The connection log of a running director. Nothing is written until [`apply`](Self::apply).
#[derive(Debug)]
pub struct ConnectionLog {
    director: Arc<Director>,
    clock: Clock,
    counters: Arc<LineCounters>,
    latest_error: Arc<Mutex<Option<String>>>,
    writer: Mutex<Option<Writer>>,
}

/// What [`ConnectionLog::put_to_work`] puts to work.
#[derive(Debug)]
pub(crate) enum Next {
    /// What is at work already.
    Same,
    /// No log.
    Off,
    /// Another one, which is open.
    Other(ConnectionLogConfig, Sink),
}

/// The thread that writes, and what it was told.
#[derive(Debug)]
struct Writer {
    config: ConnectionLogConfig,
    orders: Arc<Orders>,
    thread: Thread,
    /// Without a message: it ends with the thread.
    end: Receiver<()>,
}

/// What the thread is to do besides.
#[derive(Debug, Default)]
struct Orders {
    reopen: AtomicBool,
    stop: AtomicBool,
}

impl ConnectionLog {
    /// A log that is off.
    #[must_use]
    pub fn new(director: Arc<Director>, clock: Clock) -> Self {
        Self {
            director,
            clock,
            counters: Arc::default(),
            latest_error: Arc::default(),
            writer: Mutex::default(),
        }
    }

    /// Has the log written as `config` says from now on, or no more.
    ///
    /// # Errors
    /// See [`OpenError`]. When the target cannot be opened, everything is as it was.
    pub fn apply(&self, config: Option<&ConnectionLogConfig>) -> Result<(), OpenError> {
        self.put_to_work(self.open(config)?)
    }

    /// Opens what `config` asks for, and changes nothing yet.
    ///
    /// # Errors
    /// [`OpenError::Target`].
    pub(crate) fn open(&self, config: Option<&ConnectionLogConfig>) -> Result<Next, OpenError> {
        let Some(config) = config else { return Ok(Next::Off) };
        if self.writer().as_ref().is_some_and(|writer| writer.config == *config) {
            return Ok(Next::Same);
        }
        let target = &config.target;
        let sink = Sink::open(target)
            .map_err(|source| OpenError::Target { target: target.clone(), source })?;
        Ok(Next::Other(config.clone(), sink))
    }

    /// Has the log written so from now on. What is as it was goes on, in a file that is opened again.
    ///
    /// # Errors
    /// [`OpenError::Thread`]; then there is no log any more.
    pub(crate) fn put_to_work(&self, next: Next) -> Result<(), OpenError> {
        let mut writer = self.writer();
        let next = match next {
            Next::Same => {
                writer.iter().for_each(Writer::reopen);
                return Ok(());
            }
            Next::Off => None,
            Next::Other(config, sink) => Some((config, sink)),
        };
        // What waits is the old one's: the next one looks when that has written it.
        if let Some(old) = writer.take() {
            old.stop();
            if next.is_none() {
                tracing::info!("connections are no longer logged");
            }
        }
        let started = next.map(|(config, sink)| self.start(config, sink)).transpose();
        self.director.tables().log().want(matches!(started, Ok(Some(_))));
        *writer = started?;
        Ok(())
    }

    /// Opens the file anew, if there is one: it may have been moved away.
    pub fn reopen(&self) {
        self.writer().iter().for_each(Writer::reopen);
    }

    /// Writes down that every connection ends, when no packet comes any more, and ends the log.
    pub fn stop(&self) {
        if let Some(writer) = self.writer().take() {
            self.director.end_all();
            writer.stop();
            self.director.tables().log().want(false);
        }
    }

    /// The director whose connections these are.
    #[must_use]
    pub fn director(&self) -> &Arc<Director> {
        &self.director
    }

    /// Whether it is on.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.writer().is_some()
    }

    /// What became of the lines.
    #[must_use]
    pub fn counters(&self) -> &LineCounters {
        &self.counters
    }

    /// Lines that were lost because too many waited to be written.
    #[must_use]
    pub fn queue_full(&self) -> u64 {
        self.director.tables().log().lost()
    }

    /// Why lines could not be written, the latest time that they could not.
    #[must_use]
    pub fn latest_error(&self) -> Option<String> {
        self.latest_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn start(&self, config: ConnectionLogConfig, sink: Sink) -> Result<Writer, OpenError> {
        let orders = Arc::<Orders>::default();
        let (tell_end, end) = mpsc::channel();
        let scribe = Scribe {
            director: Arc::clone(&self.director),
            clock: self.clock,
            orders: Arc::clone(&orders),
            counters: Arc::clone(&self.counters),
            latest_error: Arc::clone(&self.latest_error),
            writing: Writing::new(config.format),
            sink,
            rate: config.rate,
            second: None,
            left_this_second: config.rate,
            told: LeftOut::default(),
            lines: Vec::with_capacity(BATCH_OCTETS + 1_024),
        };
        let thread = thread::Builder::new()
            .name("wvs-log".to_owned())
            .spawn(move || {
                scribe.run();
                drop(tell_end);
            })
            .map_err(OpenError::Thread)?;
        let ConnectionLogConfig { target, format, rate } = &config;
        tracing::info!(%target, ?format, rate, "connections are logged");
        Ok(Writer { config, orders, thread: thread.thread().clone(), end })
    }

    fn writer(&self) -> MutexGuard<'_, Option<Writer>> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whoever does not wait for the last lines leaves them to the thread.
impl Drop for Writer {
    fn drop(&mut self) {
        self.orders.stop.store(true, Relaxed);
        self.thread.unpark();
    }
}

impl Writer {
    fn reopen(&self) {
        self.orders.reopen.store(true, Relaxed);
        self.thread.unpark();
    }

    /// Ends the thread when it has written what waits. One that hangs in a write is left behind.
    fn stop(self) {
        self.orders.stop.store(true, Relaxed);
        self.thread.unpark();
        if self.end.recv_timeout(STOP_TIME_MAX) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("the last lines of the connection log could not be written in time");
        }
    }
}

/// Whoever writes the lines, on a thread of its own.
struct Scribe {
    director: Arc<Director>,
    clock: Clock,
    orders: Arc<Orders>,
    counters: Arc<LineCounters>,
    latest_error: Arc<Mutex<Option<String>>>,
    writing: Writing,
    sink: Sink,
    rate: u32,
    /// The second in which lines are counted at present.
    second: Option<u64>,
    left_this_second: u32,
    /// What was left out and has been said.
    told: LeftOut,
    lines: Vec<u8>,
}

impl Scribe {
    fn run(mut self) {
        self.told = self.left_out();
        loop {
            // Looked at before the queue, so that nothing is left in it at the end.
            let is_over = self.orders.stop.load(Relaxed);
            if self.orders.reopen.swap(false, Relaxed)
                && let Err(error) = self.sink.reopen()
            {
                tracing::warn!(
                    %error,
                    "the connection log cannot be opened again and goes on in the old file"
                );
            }
            self.write_down();
            if is_over {
                self.tell_left_out();
                self.flush();
                return;
            }
            thread::park_timeout(LOOK_INTERVAL);
        }
    }

    /// Writes everything that waits.
    fn write_down(&mut self) {
        let director = Arc::clone(&self.director);
        let queue = director.tables().log();
        self.begin_second();
        let (mut now, mut wall) = (self.clock.now(), SystemTime::now());
        while let Some(record) = queue.pop() {
            if self.left_this_second == 0 {
                self.counters.above_rate.count();
                // The rest of the second would pass unnoticed in a queue that never ends.
                self.begin_second();
                continue;
            }
            self.left_this_second -= 1;
            self.writing.record(&mut self.lines, &record, now, wall);
            if self.lines.len() >= BATCH_OCTETS {
                self.flush();
                self.begin_second();
                (now, wall) = (self.clock.now(), SystemTime::now());
            }
        }
        self.flush();
    }

    /// In a new second, says what the last one left out, and lets through as many lines again.
    fn begin_second(&mut self) {
        let second = self.clock.now().as_millis() / RATE_INTERVAL_MS;
        if self.second == Some(second) {
            return;
        }
        self.second = Some(second);
        self.left_this_second = self.rate;
        self.tell_left_out();
    }

    fn tell_left_out(&mut self) {
        self.flush();
        let left_out = self.left_out();
        if left_out == self.told {
            return;
        }
        // By itself and uncounted: it is about no connection, and the next one says it again if this
        // one is lost.
        let since = left_out.since(self.told);
        self.writing.left_out(&mut self.lines, since, SystemTime::now());
        if self.write().lost == 0 {
            self.told = left_out;
        }
    }

    fn left_out(&self) -> LeftOut {
        LeftOut {
            above_rate: self.counters.above_rate.get(),
            queue_full: self.director.tables().log().lost(),
            not_written: self.counters.not_written.get(),
        }
    }

    fn flush(&mut self) {
        let outcome = self.write();
        self.counters.written.add(outcome.written);
        self.counters.not_written.add(outcome.lost);
    }

    fn write(&mut self) -> Outcome {
        let outcome = self.sink.write(&self.lines);
        if let Some(error) = &outcome.error {
            let mut latest = self.latest_error.lock().unwrap_or_else(PoisonError::into_inner);
            *latest = Some(error.to_string());
        }
        self.lines.clear();
        outcome
    }
}
