//! Packets on threads of their own, one for each queue: a packet never waits for a task.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::thread::JoinHandleExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::pthread::pthread_kill;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use tokio::sync::mpsc;
use wvs_core::director::Director;
use wvs_core::stats::Counter;
use wvs_core::verdict::Verdict;

use super::frame::Frame;
use super::interface::Interface;
use super::{Device, DeviceError, Steering};
use crate::clock::Clock;
use crate::tap::{Tap, TapPlace};

/// What the device itself did to packets, beside the director's verdicts. A packet that is to be
/// cut up later counts as the one that it still is.
#[derive(Debug)]
pub struct DeviceCounters {
    queues: Box<[QueueCounters]>,
    interface: Interface,
}

/// What one thread counts: in cache lines of its own, so that threads do not wait for each other.
#[derive(Debug, Default)]
#[repr(align(128))]
struct QueueCounters {
    read: Counter,
    written: Counter,
    read_errors: Counter,
    write_errors: Counter,
    /// Reads that were interrupted, as by a [`PacketPulse`].
    wakes: Counter,
}

impl QueueCounters {
    /// Grows whenever the thread comes by its read.
    fn turns(&self) -> u64 {
        self.read.get() + self.read_errors.get() + self.wakes.get()
    }
}

impl DeviceCounters {
    fn new(queues: usize, interface: Interface) -> Self {
        Self { queues: (0..queues).map(|_| QueueCounters::default()).collect(), interface }
    }

    /// Packets read.
    #[must_use]
    pub fn read(&self) -> u64 {
        self.sum(|queue| &queue.read)
    }

    /// Packets written.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.sum(|queue| &queue.written)
    }

    /// Reads that failed.
    #[must_use]
    pub fn read_errors(&self) -> u64 {
        self.sum(|queue| &queue.read_errors)
    }

    /// Packets that the kernel did not take: malformed in its eyes, no memory, device down.
    #[must_use]
    pub fn write_errors(&self) -> u64 {
        self.sum(|queue| &queue.write_errors)
    }

    /// Packets that the kernel dropped because a queue was full; 0 once the device is gone. Asks
    /// the kernel.
    #[must_use]
    pub fn queue_full(&self) -> u64 {
        self.interface.dropped().unwrap_or_default()
    }

    fn sum(&self, counter: impl Fn(&QueueCounters) -> &Counter) -> u64 {
        self.queues.iter().map(|queue| counter(queue).get()).sum()
    }
}

/// Threads that take packets from a device, ask the director and send what it says.
#[derive(Debug)]
pub struct PacketLoop {
    is_over: Arc<AtomicBool>,
    counters: Arc<DeviceCounters>,
    steering: Arc<Steering>,
    threads: Arc<Threads>,
    failures: mpsc::Receiver<DeviceError>,
}

/// The threads by the numbers of their queues; none once they were ended. Locked only by what looks
/// after them, never by themselves.
type Threads = Mutex<Vec<JoinHandle<()>>>;

/// Wakes a thread from its read. Nobody minds it who does not know it: by default it is ignored.
const WAKE: Signal = Signal::SIGURG;

/// After a read that failed.
const ERROR_INTERVAL: Duration = Duration::from_millis(10);

/// Between two attempts to wake a thread, which may be just about to read.
const WAKE_INTERVAL: Duration = Duration::from_millis(1);

impl PacketLoop {
    /// Starts the threads, which own `device` from here on and show their packets to `tap`.
    ///
    /// # Errors
    /// The operating system has no thread or event left.
    pub fn start(
        device: Device,
        director: &Arc<Director>,
        clock: Clock,
        tap: &Arc<Tap>,
    ) -> Result<Self, DeviceError> {
        let Device { name, queues, has_virtio_header, interface, steering, .. } = device;
        let failed = |step| {
            let name = name.clone();
            move |source: io::Error| DeviceError::Failed { name, step, source }
        };
        let action = SigAction::new(SigHandler::Handler(wake), SaFlags::empty(), SigSet::empty());
        // SAFETY: the handler does nothing, so it may run at any point of any thread.
        unsafe { sigaction(WAKE, &action) }
            .map_err(|errno| failed("given a way to stop")(errno.into()))?;
        let (report, failures) = mpsc::channel(queues.len());
        let packets = Self {
            is_over: Arc::default(),
            counters: Arc::new(DeviceCounters::new(queues.len(), interface)),
            steering,
            threads: Arc::default(),
            failures,
        };
        for (index, queue) in queues.into_iter().enumerate() {
            let worker = Worker {
                name: name.clone(),
                queue,
                index,
                has_virtio_header,
                director: Arc::clone(director),
                clock,
                is_over: Arc::clone(&packets.is_over),
                counters: Arc::clone(&packets.counters),
            };
            let tap = TapPlace::new(Arc::clone(tap), Arc::clone(director), index);
            let report = report.clone();
            let thread = thread::Builder::new()
                .name(format!("packets-{index}-{name}"))
                .spawn(move || {
                    // A worker that panicked is not used again.
                    let result = catch_unwind(AssertUnwindSafe(|| worker.run(tap)));
                    if let Err(error) = result.unwrap_or(Err(DeviceError::Panicked)) {
                        // Nobody listens any more when the loop is being stopped anyway.
                        let _ = report.try_send(error);
                    }
                })
                .map_err(failed("given its threads"))?;
            lock(&packets.threads).push(thread);
        }
        Ok(packets)
    }

    /// What the device did to packets so far.
    #[must_use]
    pub fn counters(&self) -> &Arc<DeviceCounters> {
        &self.counters
    }

    /// By which virtual addresses connections are led to queues, for whoever changes these.
    #[must_use]
    pub fn steering(&self) -> &Arc<Steering> {
        &self.steering
    }

    /// Waits until the device fails; for ever while it works. Tells each thread's failure once. May
    /// be dropped and called again.
    pub async fn failed(&mut self) -> DeviceError {
        match self.failures.recv().await {
            Some(error) => error,
            // Every thread has ended and was told of.
            None => std::future::pending().await,
        }
    }

    /// For whoever wants to know whether the threads are alive.
    #[must_use]
    pub fn pulse(&self) -> PacketPulse {
        let turns = self.counters.queues.iter().map(QueueCounters::turns).collect();
        let (threads, counters) = (Arc::clone(&self.threads), Arc::clone(&self.counters));
        PacketPulse { threads, counters, turns }
    }

    /// Ends the threads at once and closes the device, which thereby vanishes.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        for thread in lock(&self.threads).drain(..) {
            while !thread.is_finished() {
                interrupt(&thread);
                thread::sleep(WAKE_INTERVAL);
            }
            let _ = thread.join();
        }
    }
}

/// Whether the packet threads are alive, at no cost to packets. A thread that waits for a packet in its
/// read is woken to show that it does; one that is busy shows it by itself.
#[derive(Debug)]
pub struct PacketPulse {
    threads: Arc<Threads>,
    counters: Arc<DeviceCounters>,
    /// What each thread had done when all were last alive.
    turns: Vec<u64>,
}

impl PacketPulse {
    /// Whether every thread came by its read since this was true last. The threads that did not are woken,
    /// so that another look, a moment later, finds them.
    ///
    /// # Errors
    /// The number of the first queue whose thread did not.
    pub fn feel(&mut self) -> Result<(), usize> {
        let turns: Vec<_> = self.counters.queues.iter().map(QueueCounters::turns).collect();
        let is_still = |queue: &usize| turns[*queue] == self.turns[*queue];
        let still: Vec<_> = (0..turns.len()).filter(is_still).collect();
        let Some(&first) = still.first() else {
            self.turns = turns;
            return Ok(());
        };
        let threads = lock(&self.threads);
        still.iter().filter_map(|queue| threads.get(*queue)).for_each(interrupt);
        Err(first)
    }
}

/// Nothing that is done under the lock leaves it half done.
fn lock(threads: &Threads) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
    threads.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes a thread's read return, if it is in it.
fn interrupt(thread: &JoinHandle<()>) {
    // Fails for a thread that ended just now.
    let _ = pthread_kill(thread.as_pthread_t(), WAKE);
}

/// Interrupts a read by being called.
extern "C" fn wake(_: nix::libc::c_int) {}

impl Drop for PacketLoop {
    fn drop(&mut self) {
        self.end();
    }
}

/// What one thread works with.
struct Worker {
    name: String,
    queue: File,
    index: usize,
    has_virtio_header: bool,
    director: Arc<Director>,
    clock: Clock,
    is_over: Arc<AtomicBool>,
    counters: Arc<DeviceCounters>,
}

impl Worker {
    fn run(&self, mut tap: TapPlace) -> Result<(), DeviceError> {
        let counters = &self.counters.queues[self.index];
        let mut frame = Frame::new(self.has_virtio_header);
        // The read waits by itself: a look whether there is a packet, as `poll` gives, would be a
        // second system call for each packet that comes alone.
        while !self.is_over.load(Ordering::Relaxed) {
            match (&self.queue).read(frame.room()) {
                Ok(read) => {
                    counters.read.count();
                    self.process(&mut frame, read, counters, &mut tap);
                }
                Err(error) => match error.raw_os_error().map(Errno::from_raw) {
                    Some(Errno::EINTR) => counters.wakes.count(),
                    // Deleted before the read, or under it.
                    Some(Errno::EBADFD | Errno::EFAULT) => {
                        return Err(DeviceError::Gone { name: self.name.clone() });
                    }
                    _ => {
                        counters.read_errors.count();
                        // Not to spin on an error that stays.
                        thread::sleep(ERROR_INTERVAL);
                    }
                },
            }
        }
        Ok(())
    }

    #[inline]
    fn process(
        &self,
        frame: &mut Frame,
        read: usize,
        counters: &QueueCounters,
        tap: &mut TapPlace,
    ) {
        let mut packet = frame.packet(read);
        let is_shown = tap.look(&packet);
        // The clock is read for each packet: 25 ns beside two system calls of a microsecond each,
        // and no packet is ever judged by the time of an earlier one.
        let verdict = self.director.process(&mut packet, self.clock.now());
        let length = packet.octets().len();
        let is_written = match verdict {
            Verdict::Forward | Verdict::Pass => self.write(frame.written(length), counters),
            Verdict::Reply => self.write(frame.written_as_complete(length), counters),
            Verdict::Hold | Verdict::Drop(_) => true,
        };
        if is_shown {
            tap.show(verdict, frame.written_packet(length), is_written);
        }
        while let Some(length) = self.director.next_released(frame.packet_room()) {
            let is_written = self.write(frame.written_as_complete(length), counters);
            if is_shown {
                tap.show_released(frame.written_packet(length), is_written);
            }
        }
    }

    /// The kernel takes a packet whole or not at all: whether it did.
    #[inline]
    fn write(&self, octets: &[u8], counters: &QueueCounters) -> bool {
        let is_written = (&self.queue).write_all(octets).is_ok();
        if is_written {
            counters.written.count();
        } else {
            counters.write_errors.count();
        }
        is_written
    }
}
