//! What the director tells the service manager that started it: systemd, or another one that speaks
//! its protocol, sd_notify(3). The protocol is a datagram of lines to a socket that the environment names.
//!
//! The crate for it, `sd-notify`, waits for a service manager that does not read, and knows no sockets in the
//! abstract name space.

use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram as StdUnixDatagram};
use std::time::Duration;
use std::{env, io, process};

use nix::time::{ClockId, clock_gettime};
use tokio::net::UnixDatagram;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use crate::run::Pulse;

/// How long a message waits for a service manager that is busy.
const PATIENCE: Duration = Duration::from_secs(5);

/// Between two looks at a director that has not moved yet. One that waits for packets needs some
/// microseconds to show that it does.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// What does not move for so long is worth a line in the log.
const SUSPICIOUS: Duration = Duration::from_secs(1);

/// The service manager, or nobody.
#[derive(Debug)]
pub struct ServiceManager {
    socket: Option<UnixDatagram>,
    watchdog: Option<Duration>,
}

impl ServiceManager {
    /// Finds the service manager by the variables `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`, in a
    /// tokio runtime. Without them, or without a socket where they say, there is none.
    #[must_use]
    pub fn of_environment() -> Self {
        let address = env::var_os("NOTIFY_SOCKET").filter(|address| !address.is_empty());
        let socket = address.and_then(|address| match connect(&address) {
            Ok(socket) => Some(socket),
            Err(error) => {
                tracing::warn!(?address, %error, "the service manager cannot be told anything");
                None
            }
        });
        let watchdog = watchdog(env::var("WATCHDOG_USEC").ok(), env::var("WATCHDOG_PID").ok());
        Self { socket, watchdog }
    }

    /// The director is ready, for the first time or again. `status` is a sentence for people.
    pub async fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\n{}", line_of(status))).await;
    }

    /// The director reads its configuration again, until it is [`ready`](Self::ready).
    pub async fn reloading(&self) {
        // From systemd 253 on, which else takes the next `READY` for an older one. A kernel without the
        // clock there is none.
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={}\n", now.as_micros())).await;
    }

    /// The director is about to end.
    pub async fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=Taking back routes and settings\n").await;
    }

    /// What the director cannot do, for people.
    pub async fn status(&self, status: &str) {
        self.tell(&line_of(status)).await;
    }

    /// Tells that the director is alive twice in the time in which the service manager wants to hear it, as
    /// long as `pulse` says so. Never ends where it wants to hear it, and at once where not.
    pub async fn keep_alive(&self, mut pulse: Pulse) {
        let Some(watchdog) = self.watchdog.filter(|_| self.socket.is_some()) else { return };
        let mut ticks = interval(watchdog / 2);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let begin = Instant::now();
            let mut is_told = false;
            while let Err(stalled) = pulse.feel() {
                if !is_told && begin.elapsed() >= SUSPICIOUS.min(watchdog / 2) {
                    tracing::error!(
                        "{stalled}: the service manager is told nothing more until it does"
                    );
                    is_told = true;
                }
                sleep(LOOK_INTERVAL).await;
            }
            if is_told {
                tracing::warn!("the director moves again");
            }
            self.tell("WATCHDOG=1\n").await;
        }
    }

    async fn tell(&self, message: &str) {
        let Some(socket) = &self.socket else { return };
        let sent = timeout(PATIENCE, socket.send(message.as_bytes())).await;
        let sent = sent.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        if let Err(error) = sent {
            let message = message.lines().next().unwrap_or_default();
            tracing::warn!(what = message, %error, "the service manager could not be told");
        }
    }
}

fn connect(address: &OsStr) -> io::Result<UnixDatagram> {
    let address = match address.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        path => SocketAddr::from_pathname(OsStr::from_bytes(path))?,
    };
    let socket = StdUnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    socket.set_nonblocking(true)?;
    UnixDatagram::from_std(socket)
}

/// The time in which the service manager wants to hear from this process, if it is meant.
fn watchdog(micros: Option<String>, pid: Option<String>) -> Option<Duration> {
    if pid.is_some_and(|pid| pid != process::id().to_string()) {
        return None;
    }
    let micros = micros?.parse().ok().filter(|micros| *micros > 0)?;
    Some(Duration::from_micros(micros))
}

fn line_of(status: &str) -> String {
    format!("STATUS={}\n", status.replace('\n', " "))
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn pair() -> (ServiceManager, StdUnixDatagram) {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("notify");
        let listener = StdUnixDatagram::bind(&path).unwrap();
        listener.set_nonblocking(true).unwrap();
        let socket = connect(path.as_os_str()).unwrap();
        (ServiceManager { socket: Some(socket), watchdog: None }, listener)
    }

    fn heard(listener: &StdUnixDatagram) -> String {
        let mut octets = [0; 4_096];
        let length = listener.recv(&mut octets).unwrap();
        String::from_utf8(octets[..length].to_vec()).unwrap()
    }

    #[tokio::test]
    async fn states_are_told_as_the_protocol_has_them() {
        let (manager, listener) = pair();
        manager.ready("2 services\nand more").await;
        assert_eq!(heard(&listener), "READY=1\nSTATUS=2 services and more\n");
        manager.reloading().await;
        let reloading = heard(&listener);
        let micros = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
        assert!(micros.trim_end().parse::<u64>().unwrap() > 0);
        manager.status("a").await;
        assert_eq!(heard(&listener), "STATUS=a\n");
        manager.stopping().await;
        assert!(heard(&listener).starts_with("STOPPING=1\n"));
    }

    #[tokio::test]
    async fn abstract_socket_is_told() {
        let name = format!("wvs-test-{}", process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let listener = StdUnixDatagram::bind_addr(&address).unwrap();
        let socket = connect(OsStr::new(&format!("@{name}"))).unwrap();
        ServiceManager { socket: Some(socket), watchdog: None }.status("a").await;
        assert_eq!(heard(&listener), "STATUS=a\n");
    }

    #[tokio::test(start_paused = true)]
    async fn service_manager_that_does_not_listen_is_given_up() {
        let (manager, listener) = pair();
        // Until its queue is full, and beyond.
        let begin = Instant::now();
        let mut told = 0;
        while begin.elapsed() < PATIENCE {
            manager.status("a").await;
            told += 1;
        }
        assert!(told > 1);
        drop(listener);
        manager.status("a").await;
        let nobody = ServiceManager { socket: None, watchdog: None };
        nobody.status("a").await;
    }

    #[test]
    fn watchdog_is_for_the_process_that_is_meant() {
        let wanted = |micros: &str, pid: Option<u32>| {
            watchdog(Some(micros.to_owned()), pid.map(|pid| pid.to_string()))
        };
        assert_eq!(wanted("1500000", None), Some(Duration::from_millis(1_500)));
        assert_eq!(wanted("1500000", Some(process::id())), Some(Duration::from_millis(1_500)));
        assert_eq!(wanted("1500000", Some(1)), None);
        assert_eq!(wanted("0", None), None);
        assert_eq!(wanted("soon", None), None);
        assert_eq!(watchdog(None, None), None);
    }
}
