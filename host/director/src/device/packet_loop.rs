//! Packets on threads of their own, one for each queue: a packet never waits for a task.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use tokio::sync::mpsc;
use wvs_core::director::Director;
use wvs_core::stats::Counter;
use wvs_core::verdict::Verdict;

use super::frame::Frame;
use super::interface::Interface;
use super::{Device, DeviceError};
use crate::clock::Clock;

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
    stop: Arc<Stop>,
    counters: Arc<DeviceCounters>,
    threads: Vec<JoinHandle<()>>,
    failures: mpsc::Receiver<DeviceError>,
}

/// How to end the threads: the flag is seen between two packets, the event wakes those that are
/// idle and is never taken back.
#[derive(Debug)]
struct Stop {
    is_asked: AtomicBool,
    event: EventFd,
}

impl PacketLoop {
    /// Starts the threads. They own `device` from here on.
    ///
    /// # Errors
    /// The operating system has no thread or event left.
    pub fn start(
        device: Device,
        director: &Arc<Director>,
        clock: Clock,
    ) -> Result<Self, DeviceError> {
        let Device { name, queues, has_virtio_header, interface, .. } = device;
        let failed = |step| {
            let name = name.clone();
            move |source: io::Error| DeviceError::Failed { name, step, source }
        };
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .map_err(|errno| failed("given a way to stop")(errno.into()))?;
        let (report, failures) = mpsc::channel(queues.len());
        let mut packets = Self {
            stop: Arc::new(Stop { is_asked: AtomicBool::new(false), event }),
            counters: Arc::new(DeviceCounters::new(queues.len(), interface)),
            threads: Vec::with_capacity(queues.len()),
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
                stop: Arc::clone(&packets.stop),
                counters: Arc::clone(&packets.counters),
            };
            let report = report.clone();
            let thread = thread::Builder::new()
                .name(format!("packets-{index}-{name}"))
                .spawn(move || {
                    // A worker that panicked is not used again.
                    let result = catch_unwind(AssertUnwindSafe(|| worker.run()));
                    if let Err(error) = result.unwrap_or(Err(DeviceError::Panicked)) {
                        // Nobody listens any more when the loop is being stopped anyway.
                        let _ = report.try_send(error);
                    }
                })
                .map_err(failed("given its threads"))?;
            packets.threads.push(thread);
        }
        Ok(packets)
    }

    /// What the device did to packets so far.
    #[must_use]
    pub fn counters(&self) -> &Arc<DeviceCounters> {
        &self.counters
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

    /// Ends the threads at once and closes the device, which thereby vanishes.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.stop.is_asked.store(true, Ordering::Relaxed);
        // Fails only when the counter is full, and then the threads wake as well.
        let _ = self.stop.event.write(1);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

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
    stop: Arc<Stop>,
    counters: Arc<DeviceCounters>,
}

impl Worker {
    fn run(&self) -> Result<(), DeviceError> {
        let counters = &self.counters.queues[self.index];
        let mut frame = Frame::new(self.has_virtio_header);
        while !self.stop.is_asked.load(Ordering::Relaxed) {
            match (&self.queue).read(frame.room()) {
                Ok(read) => {
                    counters.read.count();
                    self.process(&mut frame, read, counters);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait()?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(Errno::EBADFD as i32) => {
                    return Err(self.gone());
                }
                Err(_) => {
                    counters.read_errors.count();
                    // Not to spin on an error that stays.
                    self.wait()?;
                }
            }
        }
        Ok(())
    }

    #[inline]
    fn process(&self, frame: &mut Frame, read: usize, counters: &QueueCounters) {
        let mut packet = frame.packet(read);
        // The clock is read for each packet: 25 ns beside two system calls of a microsecond each,
        // and no packet is ever judged by the time of an earlier one.
        let verdict = self.director.process(&mut packet, self.clock.now());
        let length = packet.octets().len();
        match verdict {
            Verdict::Forward | Verdict::Pass => self.write(frame.written(length), counters),
            Verdict::Reply => self.write(frame.written_as_complete(length), counters),
            Verdict::Hold | Verdict::Drop(_) => {}
        }
        while let Some(length) = self.director.next_released(frame.packet_room()) {
            self.write(frame.written_as_complete(length), counters);
        }
    }

    /// The kernel takes a packet whole or not at all.
    #[inline]
    fn write(&self, octets: &[u8], counters: &QueueCounters) {
        match (&self.queue).write_all(octets) {
            Ok(()) => counters.written.count(),
            Err(_) => counters.write_errors.count(),
        }
    }

    /// Sleeps until there is a packet or the end.
    fn wait(&self) -> Result<(), DeviceError> {
        let mut fds = [
            PollFd::new(self.queue.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.stop.event.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => {
                return Err(DeviceError::Failed {
                    name: self.name.clone(),
                    step: "waited for",
                    source: errno.into(),
                });
            }
        }
        // A deleted TUN device reports nothing but this.
        let [queue, _] = fds;
        if queue.revents().is_some_and(|events| events.contains(PollFlags::POLLERR)) {
            return Err(self.gone());
        }
        Ok(())
    }

    fn gone(&self) -> DeviceError {
        DeviceError::Gone { name: self.name.clone() }
    }
}
