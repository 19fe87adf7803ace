//! What the kernel counts about the device by itself.
//!
//! Read first: proc_pid_net(5), `/proc/net/dev`.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Where the column of packets that were not sent is, counted from the first behind the name. To
/// the kernel everything that the director reads is sent.
const SEND_DROPS: usize = 11;

/// A network interface as its namespace sees it.
#[derive(Debug)]
pub(super) struct Interface {
    name: String,
    /// The table of all interfaces. Opened once, it stays that of the namespace it was opened in,
    /// whoever reads it. (`/sys/class/net` is that of whoever mounted it.)
    table: File,
}

impl Interface {
    /// The interface `name` in the calling thread's network namespace.
    pub(super) fn find(name: &str) -> io::Result<Self> {
        Ok(Self { name: name.to_owned(), table: File::open("/proc/thread-self/net/dev")? })
    }

    /// Packets that the kernel had for the device and no room for in its queue. `None` when the
    /// interface is gone. Costs a look at every interface.
    pub(super) fn dropped(&self) -> Option<u64> {
        let mut table = Vec::new();
        let mut part = [0; 4096];
        loop {
            let at = u64::try_from(table.len()).ok()?;
            match self.table.read_at(&mut part, at) {
                Ok(0) => break,
                Ok(length) => table.extend_from_slice(&part[..length]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return None,
            }
        }
        send_drops(&String::from_utf8_lossy(&table), &self.name)
    }
}

fn send_drops(table: &str, name: &str) -> Option<u64> {
    let numbers = |line: &'_ str| {
        let (interface, numbers) = line.split_once(':')?;
        (interface.trim() == name).then(|| numbers.to_owned())
    };
    table.lines().find_map(numbers)?.split_whitespace().nth(SEND_DROPS)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:       1       2    3    4    5     6          7         8        9      10   11   12   13    14      15         16
  wvs0:17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32
wvs01: 0 0 0 0 0 0 0 0 0 0 0 99 0 0 0 0
";

    #[test]
    fn drops_are_read_from_the_interfaces_own_line() {
        assert_eq!(send_drops(TABLE, "wvs0"), Some(28));
        assert_eq!(send_drops(TABLE, "lo"), Some(12));
        assert_eq!(send_drops(TABLE, "wvs"), None);
        assert_eq!(send_drops("", "wvs0"), None);
    }

    #[test]
    fn every_host_has_a_loopback_interface() {
        assert!(Interface::find("lo").unwrap().dropped().is_some());
        assert_eq!(Interface::find("wvs-none").unwrap().dropped(), None);
    }
}
