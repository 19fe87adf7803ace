//! The director's process as the operating system sees it.
//!
//! Read first: proc_pid_status(5), getrusage(2).

use std::fs;
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;

/// What the process has taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    /// Processor time, its own and the kernel's for it.
    pub processor_time: Duration,
    /// Octets of memory that it has.
    pub resident_octets: u64,
    /// Threads.
    pub threads: u64,
    /// Open file descriptors.
    pub open_files: u64,
}

impl Process {
    /// The process now; `None` where the operating system does not tell.
    #[must_use]
    pub fn look() -> Option<Self> {
        let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
        let status = fs::read_to_string("/proc/self/status").ok()?;
        let open_files = fs::read_dir("/proc/self/fd").ok()?.count();
        Some(Self {
            processor_time: duration(usage.user_time()) + duration(usage.system_time()),
            resident_octets: field(&status, "VmRSS:")? * 1024,
            threads: field(&status, "Threads:")?,
            // Less the one that the list is read by.
            open_files: u64::try_from(open_files).ok()?.saturating_sub(1),
        })
    }
}

fn duration(time: TimeVal) -> Duration {
    let seconds = u64::try_from(time.tv_sec()).unwrap_or_default();
    let micros = u64::try_from(time.tv_usec()).unwrap_or_default();
    Duration::from_secs(seconds) + Duration::from_micros(micros)
}

/// The number behind `name` in `/proc/self/status`.
fn field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn process_has_memory_threads_and_files() {
        let process = Process::look().unwrap();
        assert!(process.resident_octets > 1 << 20, "{process:?}");
        assert!(process.threads >= 1 && process.open_files >= 3, "{process:?}");
    }

    #[test]
    fn numbers_are_found_by_their_names() {
        let status = "Name:\twvs\nVmRSS:\t   1234 kB\nThreads:\t7\n";
        assert_eq!(field(status, "VmRSS:"), Some(1_234));
        assert_eq!(field(status, "Threads:"), Some(7));
        assert_eq!(field(status, "VmSize:"), None);
    }
}
