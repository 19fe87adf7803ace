//! What checking costs: so many servers on the loopback device, a TCP check each at every interval,
//! for a while.
//!
//! ```console
//! $ cargo run --release -p wvs-health --example load -- 1000 2 20     # servers, interval, seconds
//! ```

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use wvs_health::{Check, Checkers, Kind, ServerKey, Settings, Standing};

fn main() {
    let mut numbers = std::env::args().skip(1).map(|number| number.parse().expect("a number"));
    let mut number = |otherwise: u64| numbers.next().unwrap_or(otherwise);
    let (servers, interval, seconds) = (number(1_000), number(2), number(20));

    // One listener for all: 127.0.0.0/8 is one host. What it costs is measured apart.
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a free port");
    let port = listener.local_addr().expect("a bound socket").port();
    thread::spawn(move || listener.incoming().for_each(drop));

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let (checkers, _news) = Checkers::start(Settings { concurrent_max: 512, seed: 1 });
        let check = |number: u64| {
            let [.., high, low] = number.to_be_bytes();
            let target = SocketAddr::from(([127, 1, high, low], port));
            let interval = Duration::from_secs(interval);
            let check = Check {
                kind: Kind::Tcp,
                target,
                interval,
                down_interval: interval,
                timeout: Duration::from_secs(1),
                rise: 2,
                fall: 3,
                start: Standing::Up,
            };
            (ServerKey { service: "load".to_owned(), server: target }, check)
        };
        checkers.set((0..servers).map(check));
        tokio::time::sleep(Duration::from_secs(interval)).await;
        let (before, began) = (cpu(), Instant::now());
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        let (used, took) = (cpu() - before, began.elapsed());
        let reports = checkers.reports();
        let checks: u64 = reports.iter().map(|report| report.checks).sum();
        let failed: u64 = reports.iter().map(|report| report.failed).sum();
        let per_second = servers as f64 / interval as f64;
        println!(
            "{servers} servers every {interval} s: {checks} checks, {failed} failed, {:.2} % of a core, {:.0} µs a check, late {}",
            used.as_secs_f64() / took.as_secs_f64() * 100.0,
            used.as_secs_f64() / took.as_secs_f64() / per_second * 1e6,
            checkers.load().late,
        );
    });
}

/// What the thread of the checks has used of a processor.
fn cpu() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_THREAD).expect("usage of the own thread");
    [usage.user_time(), usage.system_time()]
        .iter()
        .map(|time| {
            let micros = time.tv_sec() * 1_000_000 + time.tv_usec();
            Duration::from_micros(u64::try_from(micros).unwrap_or_default())
        })
        .sum()
}
