//! `lrt`, least response time: each new connection goes where it is likely to be answered soonest,
//! judged by how soon servers answered before.
//!
//! **Rule.** The server with the least `time * (active + inactive / 256 + 1) / weight`, multiplied by
//! its standing, takes the connection; of equals the first in the order of the configuration. Servers
//! of weight 0 are passed over; when there are no others there is no server. LVS has no such
//! scheduler.
//!
//! - The time is that from a client's SYN to the server's SYN-ACK, which the director measures as a
//!   moving average.
//! - A server that was not measured yet counts as the fastest of those that were. So it gets its fair
//!   try at once, but not everything before it has answered.
//! - Each connection that the server resets or leaves unanswered doubles its standing, up to 1024
//!   times; each handshake that it answers halves it, down to 1 time. A server that refuses quickly
//!   is not a fast one.
//! - What was not confirmed counts less and less: every 5 seconds in which a server neither answered
//!   nor failed halve its standing, down to a 1024th. So after a while a server that was slow or
//!   failing is tried again, and one connection is enough to put it back.
//!
//! **Where nothing is measured** - services over UDP, or a director that shows no signals - it is
//! nearly `wlc`.
//!
//! **Cost.** Two passes over the servers, and the director refreshes their counters and signals before
//! each decision.
//!
//! **When.** TCP servers at different distances or of changing speed, where connecting soon counts.
//! The handshake is the kernel's on most servers: how long a program takes to reply it does not tell.

#![no_std]

extern crate alloc;

use alloc::string::String;
use alloc::vec::Vec;

use wvs_sdk::{Pick, Request, Roster, Scheduler, Server, Signals, caps, load, no_config};

/// How often failures can double a standing.
const DOUBLINGS_MAX: u32 = 10;

/// How often silence can halve a standing.
const HALVINGS_MAX: i32 = 10;

/// The time of silence for a halving.
const SILENCE_MS: u64 = 5_000;

/// The scheduler `lrt`. Takes no configuration.
#[derive(Debug, Default)]
pub struct LeastResponseTime {
    /// In the order of the list.
    records: Vec<Record>,
    /// The least time that was measured of any server; 0 where none was.
    least_us: u32,
    /// Until when silence has been counted, `None` before the first request.
    counted_ms: Option<u64>,
}

/// What is known of a server.
#[derive(Clone, Copy, Debug, Default)]
struct Record {
    id: u32,
    weight: u32,
    /// What was seen last, `None` before the first time.
    seen: Option<Seen>,
    /// How often the standing was doubled, or halved where it is below 0.
    doublings: i32,
    /// Whether the server answered or failed since silence was last counted.
    was_heard: bool,
    /// The standing for one unit of weight.
    factor: f64,
    /// The factor times the microseconds that count: what a connection costs here.
    cost: f64,
}

/// The signals that matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    connect_us: u32,
    connects: u32,
    resets: u32,
    timeouts: u32,
}

impl Record {
    /// Draws the conclusions of what changed since the last time.
    fn update(&mut self, seen: Seen) {
        // What was before the first time is no news.
        let Some(before) = self.seen.replace(seen) else { return };
        let resets = seen.resets.wrapping_sub(before.resets);
        let failures = resets.saturating_add(seen.timeouts.wrapping_sub(before.timeouts));
        let answers = seen.connects.wrapping_sub(before.connects);
        if failures > 0 || answers > 0 {
            let doublings = u32::try_from(self.doublings).unwrap_or(0);
            let doublings = doublings.saturating_add(failures).min(DOUBLINGS_MAX);
            self.stand(doublings.saturating_sub(answers).cast_signed());
            self.was_heard = true;
        }
    }

    /// Counts so many times of silence, the first of which may not have been silent.
    fn count_silence(&mut self, times: u64) {
        let silent = times - u64::from(core::mem::take(&mut self.was_heard));
        let halvings = i32::try_from(silent).unwrap_or(i32::MAX);
        self.stand(self.doublings.saturating_sub(halvings).max(-HALVINGS_MAX));
    }

    fn stand(&mut self, doublings: i32) {
        self.doublings = doublings;
        let power = f64::from(1 << doublings.unsigned_abs());
        let standing = if doublings < 0 { 1.0 / power } else { power };
        self.factor = standing / f64::from(self.weight);
    }

    /// Whether a time was measured.
    fn is_measured(&self) -> bool {
        self.seen.is_some_and(|seen| seen.connect_us > 0)
    }

    /// Works out the cost, when the fastest server's time is `least_us`.
    fn price(&mut self, least_us: u32) {
        let measured = self.seen.map(|seen| seen.connect_us).filter(|micros| *micros > 0);
        self.cost = f64::from(measured.unwrap_or(least_us).max(1)) * self.factor;
    }
}

impl Scheduler for LeastResponseTime {
    const CAPS: u32 = caps::COUNTERS | caps::SIGNALS;

    fn new(config: &str) -> Result<Self, String> {
        no_config("lrt", config)?;
        Ok(Self::default())
    }

    fn servers_changed(&mut self, servers: &[Server]) {
        let roster: Roster = self.records.iter().map(|record| record.id).collect();
        let record = |server: &Server| {
            let known = roster.index(server.id).map(|index| self.records[index]);
            let mut record = known.unwrap_or(Record { id: server.id, ..Record::default() });
            record.weight = server.weight;
            record.stand(record.doublings);
            record.price(self.least_us);
            record
        };
        self.records = servers.iter().map(record).collect();
    }

    fn signals_refreshed(&mut self, signals: &[Signals]) {
        // Less 1, so that 0, which is none, becomes the highest.
        let mut least_less_1 = u32::MAX;
        for (record, signals) in self.records.iter_mut().zip(signals) {
            let &Signals { connect_us, connects, resets, timeouts, .. } = signals;
            let seen = Seen { connect_us, connects, resets, timeouts };
            if record.seen != Some(seen) {
                record.update(seen);
                record.price(self.least_us);
            }
            least_less_1 = least_less_1.min(connect_us.wrapping_sub(1));
        }
        let least_us = least_less_1.wrapping_add(1);
        if least_us != self.least_us {
            self.least_us = least_us;
            for record in self.records.iter_mut().filter(|record| !record.is_measured()) {
                record.price(least_us);
            }
        }
    }

    fn schedule(&mut self, request: &Request, servers: &[Server]) -> Pick {
        let counted_ms = self.counted_ms.get_or_insert(request.now_ms);
        let times = request.now_ms.saturating_sub(*counted_ms) / SILENCE_MS;
        if times > 0 {
            *counted_ms += times * SILENCE_MS;
            for record in &mut self.records {
                record.count_silence(times);
                record.price(self.least_us);
            }
        }
        let mut best = None;
        let mut least = f64::INFINITY;
        for (index, (server, record)) in servers.iter().zip(&self.records).enumerate() {
            // In 256ths of a connection, with the one in hand.
            let delay = (load::overhead(server) + 256) as f64 * record.cost;
            if delay < least && server.is_available() {
                least = delay;
                best = Some(index);
            }
        }
        best.into()
    }
}

wvs_sdk::no_std!();
wvs_sdk::export!(LeastResponseTime);

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    /// Servers by weight and active connections, with the identities 1, 2, 3 ..
    fn servers(list: &[(u32, u32)]) -> Vec<Server> {
        let server = |(id, &(weight, active))| Server { id, weight, active, ..Server::default() };
        (1..).zip(list).map(server).collect()
    }

    /// A scheduler, the signals that it is shown, and the time.
    struct Bench {
        lrt: LeastResponseTime,
        signals: Vec<Signals>,
        now_ms: u64,
    }

    impl Bench {
        /// Servers that took so many microseconds, 0 for not measured.
        fn new(times: &[u32]) -> Self {
            let signal = |&connect_us| Signals { connect_us, resets: 7, ..Signals::default() };
            let mut lrt = LeastResponseTime::new("").unwrap();
            lrt.servers_changed(&servers(&vec![(1, 0); times.len()]));
            // A clock that does not begin at 0.
            Self { lrt, signals: times.iter().map(signal).collect(), now_ms: 1_000_000 }
        }

        /// The pick among servers of these weights and active connections.
        fn pick(&mut self, list: &[(u32, u32)]) -> Pick {
            self.lrt.signals_refreshed(&self.signals);
            let request = Request { now_ms: self.now_ms, ..Request::default() };
            self.lrt.schedule(&request, &servers(list))
        }

        /// The pick among idle servers of weight 1.
        fn pick_idle(&mut self) -> Pick {
            self.pick(&vec![(1, 0); self.signals.len()])
        }

        fn answers(&mut self, index: usize) {
            self.signals[index].connects += 1;
        }
    }

    #[test]
    fn least_time_for_connections_and_weight_wins() {
        let mut bench = Bench::new(&[300, 100, 200]);
        assert_eq!(bench.pick_idle(), Pick::Server(1));
        assert_eq!(bench.pick(&[(1, 0), (1, 1), (1, 0)]), Pick::Server(1), "of equals the first");
        assert_eq!(bench.pick(&[(1, 0), (1, 2), (1, 0)]), Pick::Server(2));
        assert_eq!(bench.pick(&[(1, 0), (1, 4), (1, 2)]), Pick::Server(0));
        bench.lrt.servers_changed(&servers(&[(4, 0), (1, 0), (1, 0)]));
        assert_eq!(bench.pick(&[(4, 0), (1, 0), (1, 0)]), Pick::Server(0));
    }

    #[test]
    fn inactive_connections_count_a_little() {
        let mut bench = Bench::new(&[100, 100]);
        let mut list = servers(&[(1, 1), (1, 0)]);
        for (inactive, expected) in [(255, 1), (256, 0), (257, 0)] {
            list[1].inactive = inactive;
            assert_eq!(bench.lrt.schedule(&Request::default(), &list), Pick::Server(expected));
        }
        assert_eq!(bench.pick_idle(), Pick::Server(0));
    }

    #[test]
    fn unmeasured_server_counts_as_the_fastest() {
        let mut bench = Bench::new(&[100, 0, 200]);
        assert_eq!(bench.pick(&[(1, 1), (1, 0), (1, 0)]), Pick::Server(1));
        assert_eq!(
            bench.pick(&[(1, 1), (1, 1), (1, 0)]),
            Pick::Server(0),
            "no more than its share"
        );
        bench.signals[1].connect_us = 500;
        assert_eq!(bench.pick(&[(1, 1), (1, 0), (1, 0)]), Pick::Server(0), "once it is measured");
    }

    #[test]
    fn failures_double_and_answers_halve() {
        let mut bench = Bench::new(&[100, 300]);
        assert_eq!(bench.pick_idle(), Pick::Server(0), "failures of before do not count");
        bench.signals[0].resets += 1;
        assert_eq!(bench.pick_idle(), Pick::Server(0), "200 against 300");
        bench.signals[0].timeouts += 1;
        assert_eq!(bench.pick_idle(), Pick::Server(1), "400 against 300");
        bench.answers(0);
        assert_eq!(bench.pick_idle(), Pick::Server(0));
        bench.signals[0].resets += 1_000_000;
        assert_eq!(bench.pick_idle(), Pick::Server(1));
        for _ in 0..9 {
            bench.answers(0);
        }
        assert_eq!(bench.pick_idle(), Pick::Server(0), "no more than ten times");
        // Being good for long is no merit to live on.
        bench.signals[0].connects += 1_000;
        bench.pick_idle();
        bench.signals[0].resets += 2;
        assert_eq!(bench.pick_idle(), Pick::Server(1));
    }

    #[test]
    fn counts_that_wrap_around_are_no_news() {
        let mut bench = Bench::new(&[100, 100]);
        bench.signals[0].resets = u32::MAX;
        bench.pick_idle();
        bench.signals[0].resets = 1;
        assert_eq!(bench.pick_idle(), Pick::Server(1));
        assert_eq!(bench.lrt.records[0].doublings, 2);
    }

    #[test]
    fn server_that_was_not_heard_of_is_tried_again() {
        let mut bench = Bench::new(&[100, 700]);
        let mut picks = Vec::new();
        for _ in 0..5 {
            picks.push(bench.pick_idle());
            bench.answers(0);
            bench.now_ms += 5_000;
        }
        // 700, 350, 175 and 87.5 against 100.
        assert_eq!(picks, [0, 0, 0, 1, 1].map(Pick::Server));
        bench.answers(1);
        assert_eq!(bench.pick_idle(), Pick::Server(0), "one answer puts it back");
    }

    #[test]
    fn failing_server_is_forgiven_with_time() {
        let mut bench = Bench::new(&[100, 100]);
        bench.pick_idle();
        bench.signals[0].timeouts += 3;
        let mut picks = Vec::new();
        for _ in 0..5 {
            picks.push(bench.pick_idle());
            bench.answers(1);
            bench.now_ms += 5_000;
        }
        // The first 5 seconds were not silent: its failures were in them.
        assert_eq!(picks, [1, 1, 1, 1, 0].map(Pick::Server));
    }

    #[test]
    fn idle_service_forgets_all_alike() {
        let mut bench = Bench::new(&[200, 100]);
        assert_eq!(bench.pick_idle(), Pick::Server(1));
        bench.now_ms += 1_000_000_000;
        assert_eq!(bench.pick_idle(), Pick::Server(1));
    }

    #[test]
    fn what_is_known_goes_with_the_server() {
        let mut bench = Bench::new(&[100, 200]);
        bench.pick_idle();
        bench.signals[0].resets += 2;
        bench.pick_idle();
        let [first, second] = [servers(&[(1, 0), (1, 0)])[0], servers(&[(1, 0), (1, 0)])[1]];
        bench.lrt.servers_changed(&[second, first]);
        bench.signals.reverse();
        assert_eq!(bench.pick_idle(), Pick::Server(0));
        assert_eq!(bench.lrt.records[1].doublings, 2);
    }

    #[test]
    fn without_signals_the_least_connected_wins() {
        let mut lrt = LeastResponseTime::new("").unwrap();
        let list = servers(&[(1, 3), (3, 5), (0, 0)]);
        lrt.servers_changed(&list);
        assert_eq!(lrt.schedule(&Request::default(), &list), Pick::Server(1));
    }

    #[test]
    fn weight_0_is_never_picked() {
        let mut lrt = LeastResponseTime::new("").unwrap();
        for list in [&[][..], &[(0, 0), (0, 0)]] {
            let list = servers(list);
            lrt.servers_changed(&list);
            assert_eq!(lrt.schedule(&Request::default(), &list), Pick::NoServer);
        }
    }

    #[test]
    fn config_is_refused() {
        assert_eq!(LeastResponseTime::new("{}").unwrap_err(), "lrt takes no configuration");
    }
}
