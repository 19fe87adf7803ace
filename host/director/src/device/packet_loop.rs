//! Packets on a thread of their own: a packet never waits for a task.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use tokio::sync::oneshot;
use wvs_core::director::Director;
use wvs_core::packet::Packet;
use wvs_core::stats::Counter;
use wvs_core::verdict::Verdict;

use super::{Device, DeviceError};
use crate::clock::Clock;

/// The longest IP packet without jumbo payloads.
const PACKET_OCTETS_MAX: usize = 65_535;

/// What the device itself did to packets, beside the director's verdicts.
#[derive(Debug, Default)]
pub struct DeviceCounters {
    read: Counter,
    written: Counter,
    read_errors: Counter,
    write_errors: Counter,
}

impl DeviceCounters {
    /// Packets read.
    #[must_use]
    pub fn read(&self) -> u64 {
        self.read.get()
    }

    /// Packets written.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written.get()
    }

    /// Reads that failed.
    #[must_use]
    pub fn read_errors(&self) -> u64 {
        self.read_errors.get()
    }

    /// Packets that the kernel did not take: malformed in its eyes, no memory, device down.
    #[must_use]
    pub fn write_errors(&self) -> u64 {
        self.write_errors.get()
    }
}

/// A thread that takes packets from a device, asks the director and sends what it says.
#[derive(Debug)]
pub struct PacketLoop {
    stop: Arc<Stop>,
    counters: Arc<DeviceCounters>,
    thread: Option<JoinHandle<()>>,
    /// `None` once it was told.
    failure: Option<oneshot::Receiver<DeviceError>>,
}

/// How to end the thread: the flag is seen between two packets, the event wakes it when idle.
#[derive(Debug)]
struct Stop {
    is_asked: AtomicBool,
    event: EventFd,
}

impl PacketLoop {
    /// Starts the thread. It owns `device` from here on.
    ///
    /// # Errors
    /// The operating system has no thread or event left.
    pub fn start(
        device: Device,
        director: Arc<Director>,
        clock: Clock,
    ) -> Result<Self, DeviceError> {
        let name = device.name().to_owned();
        let failed = |step| {
            let name = name.clone();
            move |source: io::Error| DeviceError::Failed { name, step, source }
        };
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .map_err(|errno| failed("given a way to stop")(errno.into()))?;
        let stop = Arc::new(Stop { is_asked: AtomicBool::new(false), event });
        let counters = Arc::new(DeviceCounters::default());
        let (report, failure) = oneshot::channel();
        let worker = Worker {
            device,
            director,
            clock,
            stop: Arc::clone(&stop),
            counters: Arc::clone(&counters),
        };
        let thread = thread::Builder::new()
            .name(format!("packets-{name}"))
            .spawn(move || {
                if let Err(error) = worker.run() {
                    // Nobody listens any more when the loop is being stopped anyway.
                    let _ = report.send(error);
                }
            })
            .map_err(failed("given its thread"))?;
        Ok(Self { stop, counters, thread: Some(thread), failure: Some(failure) })
    }

    /// What the device did to packets so far.
    #[must_use]
    pub fn counters(&self) -> &Arc<DeviceCounters> {
        &self.counters
    }

    /// Waits until the device fails; for ever while it works. Tells a failure once. May be dropped
    /// and called again.
    pub async fn failed(&mut self) -> DeviceError {
        let Some(failure) = &mut self.failure else {
            return std::future::pending().await;
        };
        let error = failure.await.unwrap_or(DeviceError::Panicked);
        self.failure = None;
        error
    }

    /// Ends the thread at once and closes the device, which thereby vanishes.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.stop.is_asked.store(true, Ordering::Relaxed);
        // Fails only when the counter is full, and then the thread wakes as well.
        let _ = self.stop.event.write(1);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for PacketLoop {
    fn drop(&mut self) {
        self.end();
    }
}

struct Worker {
    device: Device,
    director: Arc<Director>,
    clock: Clock,
    stop: Arc<Stop>,
    counters: Arc<DeviceCounters>,
}

impl Worker {
    fn run(&self) -> Result<(), DeviceError> {
        // The MTU can be raised under us, so there is room for any packet.
        let mut buffer = vec![0; PACKET_OCTETS_MAX + Packet::HEADROOM];
        while !self.stop.is_asked.load(Ordering::Relaxed) {
            let room = buffer.get_mut(..PACKET_OCTETS_MAX).unwrap_or_default();
            match (&self.device.file).read(room) {
                Ok(length) => {
                    self.counters.read.count();
                    self.process(&mut buffer, length);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait()?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(Errno::EBADFD as i32) => {
                    return Err(self.gone());
                }
                Err(_) => {
                    self.counters.read_errors.count();
                    // Not to spin on an error that stays.
                    self.wait()?;
                }
            }
        }
        Ok(())
    }

    #[inline]
    fn process(&self, buffer: &mut [u8], length: usize) {
        let mut packet = Packet::new(buffer, length);
        // The clock is read for each packet: 25 ns beside two system calls of a microsecond each,
        // and no packet is ever judged by the time of an earlier one.
        match self.director.process(&mut packet, self.clock.now()) {
            Verdict::Forward | Verdict::Reply | Verdict::Pass => {
                // The kernel takes a packet whole or not at all.
                match (&self.device.file).write_all(packet.octets()) {
                    Ok(()) => self.counters.written.count(),
                    Err(_) => self.counters.write_errors.count(),
                }
            }
            Verdict::Hold | Verdict::Drop(_) => {}
        }
    }

    /// Sleeps until there is a packet or the end.
    fn wait(&self) -> Result<(), DeviceError> {
        let mut fds = [
            PollFd::new(self.device.file.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.stop.event.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => {
                return Err(DeviceError::Failed {
                    name: self.device.name().to_owned(),
                    step: "waited for",
                    source: errno.into(),
                });
            }
        }
        // A deleted TUN device reports nothing but this.
        let [device, _] = fds;
        if device.revents().is_some_and(|events| events.contains(PollFlags::POLLERR)) {
            return Err(self.gone());
        }
        Ok(())
    }

    fn gone(&self) -> DeviceError {
        DeviceError::Gone { name: self.device.name().to_owned() }
    }
}
