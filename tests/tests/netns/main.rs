//! The whole director in a network of its own: real kernel, real programs, real wasm.
//!
//! Each test builds its network of namespaces, runs the program `wvs` in it and takes everything
//! down again. It needs root, or a kernel that lets users make user namespaces, and the programs
//! `curl`, `ethtool`, `ip` and `ping`; without them the tests are skipped, or fail when
//! `WVS_FORBID_SKIP=1`.

/// Lists tests by their names: `both` runs over IPv4 and over IPv6, `once` once.
macro_rules! trials {
    ($($how:ident $test:ident,)+) => {
        /// The tests of this module.
        pub(crate) fn trials() -> Vec<libtest_mimic::Trial> {
            let trials: Vec<Vec<libtest_mimic::Trial>> = vec![$(trials!(@$how $test)),+];
            trials.into_iter().flatten().collect()
        }
    };
    (@both $test:ident) => {
        $crate::trials_of_both_families(concat!(module_path!(), "::", stringify!($test)), $test)
    };
    (@once $test:ident) => {
        vec![$crate::trial(concat!(module_path!(), "::", stringify!($test)), $test)]
    };
}

mod capture;
mod connections;
mod demo;
mod director;
mod doctor;
mod examples;
mod explaining;
mod full_nat;
mod host;
mod host_state;
mod hot_swap;
mod log;
mod offload;
mod operation;
mod path_mtu;
mod plugins;
mod programs;
mod recorder;
mod refusals;
mod restart;
mod rights;
mod route_updates;
mod routing;
mod schedulers;
mod seeing;
mod server;
mod service_manager;
mod stage;

use std::process::{Command, ExitCode, Stdio};
use std::thread;

use libtest_mimic::{Arguments, Trial};
use nix::sys::signal::{SigSet, Signal};
use wvs::device::{Device, DeviceNeeds};
use wvs::lab::{self, Lab};

/// Programs that the tests run.
const PROGRAMS: [&str; 15] = [
    "curl",
    "ethtool",
    "hping3",
    "ip",
    "iperf3",
    "nginx",
    "nmap",
    "ping",
    "redis-benchmark",
    "redis-server",
    "setpriv",
    "sha256sum",
    "ss",
    "sysctl",
    "tracepath",
];

/// Tests at once, unless the command line says otherwise.
const TEST_THREADS: usize = 6;

fn main() -> ExitCode {
    // Before there is a second thread.
    let isolated = lab::isolate();
    let mut arguments = Arguments::from_args();
    // They wait for the kernel most of the time: for namespaces to come and go, above all.
    arguments.test_threads.get_or_insert(TEST_THREADS);
    let missing = isolated
        .and_then(|()| Lab::build(1))
        .map_err(|error| error.to_string())
        .and_then(|lab| find_device(&lab))
        .and_then(|()| find_programs());
    if let Err(reason) = &missing {
        if std::env::var("WVS_FORBID_SKIP").is_ok_and(|value| value == "1") {
            panic!("tests in network namespaces would be skipped: {reason}");
        }
        eprintln!("skipping the tests in network namespaces: {reason}");
    }
    let trials = [
        connections::trials(),
        schedulers::trials(),
        plugins::trials(),
        hot_swap::trials(),
        operation::trials(),
        examples::trials(),
        offload::trials(),
        routing::trials(),
        route_updates::trials(),
        explaining::trials(),
        full_nat::trials(),
        host::trials(),
        path_mtu::trials(),
        programs::trials(),
        restart::trials(),
        recorder::trials(),
        refusals::trials(),
        rights::trials(),
        log::trials(),
        service_manager::trials(),
        doctor::trials(),
        seeing::trials(),
        demo::trials(),
    ];
    leave_children_to_one_thread();
    let trials =
        trials.into_iter().flatten().map(|trial| trial.with_ignored_flag(missing.is_err()));
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

/// Has one thread interrupted by what a checker is told of its commands' ends, and none that waits
/// for a packet with a limit: such waits are not taken up again.
fn leave_children_to_one_thread() {
    thread::spawn(|| {
        loop {
            thread::park();
        }
    });
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGCHLD);
    // All threads of the tests inherit this; programs that they start do not.
    signals.thread_block().expect("a mask of signals");
}

fn find_device(lab: &Lab) -> Result<(), String> {
    let needs = DeviceNeeds {
        name: "wvs0".to_owned(),
        mtu: 1500,
        queues: None,
        offload: true,
        vips: Vec::new(),
    };
    lab.director.run(|| Device::open(&needs)).map(drop).map_err(|error| error.to_string())
}

fn find_programs() -> Result<(), String> {
    let is_missing = |program: &&&str| {
        let run = Command::new(program)
            .arg("--version")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        run.is_err()
    };
    let missing: Vec<_> = PROGRAMS.iter().filter(is_missing).copied().collect();
    if missing.is_empty() { Ok(()) } else { Err(format!("not installed: {}", missing.join(", "))) }
}

/// A test that runs once.
fn trial(name: &'static str, test: fn()) -> Trial {
    Trial::test(name, move || {
        test();
        Ok(())
    })
}

/// A test that runs once over IPv4 and once over IPv6.
fn trials_of_both_families(name: &'static str, test: fn(bool)) -> Vec<Trial> {
    let families = [(false, "ipv4"), (true, "ipv6")];
    let trial = |(is_ipv6, family)| {
        Trial::test(format!("{name}::{family}"), move || {
            test(is_ipv6);
            Ok(())
        })
    };
    families.into_iter().map(trial).collect()
}
