//! How a real server does, as far as packets in passing tell: NAT sees both directions.

use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use wvs_abi::Signals;

use crate::stats::TrafficTotals;

/// A new sample counts so many times less than what came before it, as TCP smooths its round trips
/// (RFC 6298 section 2).
const SHARE: u32 = 8;

/// The longest time that is noted, in microseconds: four minutes, after which no handshake lives.
const CONNECT_US_MAX: u32 = 240_000_000;

/// What was seen of one real server. Written by several threads at once: of two that write the
/// average in the same moment one may be lost, which an average can bear.
#[derive(Debug, Default)]
pub struct ServerSignals {
    /// [`SHARE`] times the average, so that nothing is lost in rounding; 0 before the first sample.
    connect_us_times_share: AtomicU32,
    connects: AtomicU32,
    resets: AtomicU32,
    timeouts: AtomicU32,
    refused: AtomicU32,
}

impl ServerSignals {
    /// The server answered a SYN after so many microseconds.
    pub(crate) fn note_connect(&self, micros: u64) {
        let micros = u32::try_from(micros).unwrap_or(u32::MAX).clamp(1, CONNECT_US_MAX);
        let average = self.connect_us_times_share.load(Relaxed);
        let next = if average == 0 {
            micros.saturating_mul(SHARE)
        } else {
            average.saturating_sub(average / SHARE).saturating_add(micros)
        };
        self.connect_us_times_share.store(next, Relaxed);
        self.connects.fetch_add(1, Relaxed);
    }

    /// The server reset or refused a connection.
    pub(crate) fn note_reset(&self) {
        self.resets.fetch_add(1, Relaxed);
    }

    /// The server refused a connection.
    pub(crate) fn note_refused(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    /// The server never answered a connection's first packet.
    pub(crate) fn note_timeout(&self) {
        self.timeouts.fetch_add(1, Relaxed);
    }

    /// Connections that it accepted. The count wraps, as those below do.
    #[must_use]
    pub fn connects(&self) -> u32 {
        self.connects.load(Relaxed)
    }

    /// Connections whose first packet it answered with a reset.
    #[must_use]
    pub fn refused(&self) -> u32 {
        self.refused.load(Relaxed)
    }

    /// Connections that expired without any answer of it.
    #[must_use]
    pub fn timeouts(&self) -> u32 {
        self.timeouts.load(Relaxed)
    }

    /// What a plugin is shown of it beside the server's `traffic`.
    #[must_use]
    pub fn record(&self, traffic: TrafficTotals) -> Signals {
        Signals {
            connect_us: self.connect_us_times_share.load(Relaxed) / SHARE,
            connects: self.connects.load(Relaxed),
            resets: self.resets.load(Relaxed),
            timeouts: self.timeouts.load(Relaxed),
            in_octets: traffic.in_octets,
            out_octets: traffic.out_octets,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connect_us(samples: &[u64]) -> u32 {
        let signals = ServerSignals::default();
        samples.iter().for_each(|micros| signals.note_connect(*micros));
        signals.record(TrafficTotals::default()).connect_us
    }

    #[test]
    fn average_begins_with_the_first_sample_and_moves_an_eighth_of_the_way() {
        assert_eq!(connect_us(&[]), 0);
        assert_eq!(connect_us(&[800]), 800);
        assert_eq!(connect_us(&[800, 1_600]), 900);
        assert_eq!(connect_us(&[800, 0]), 700);
    }

    #[test]
    fn longest_sample_does_not_overflow() {
        assert_eq!(connect_us(&[u64::MAX; 3]), CONNECT_US_MAX);
    }
}
