//! The director beside its peers, in network namespaces on this machine: kernel nftables, HAProxy,
//! nginx, and a program on the same device that does nothing but rewrite addresses.
//!
//! `cargo bench -p wvs-tests --bench peers`, and `-- --help` for more.
//!
//! All share one client, one server and one network. They take turns at each kind of work, so that
//! what the machine does besides hits all of them alike; the table shows medians over the rounds.
//! A figure counts only when the contestant is seen to have done the work itself. It needs root;
//! programs that are missing are named, and the rest is measured.

mod documents;
mod load;
mod machine;
mod peer;
mod picture;
mod process;
mod reflector;
mod results;
mod servers;
mod table;
mod work;

use std::error::Error;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::thread;
use std::time::Duration;

use clap::Parser;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use wvs::lab::{self, Lab};

use peer::{Peer, Running};
use results::{Metric, Results};
use servers::Servers;
use work::{Outcome, Work};

type Fallible<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// How long a program such as `ethtool` may take.
const COMMAND_PATIENCE: Duration = Duration::from_secs(10);

/// Compares the director with its peers in network namespaces. Takes about a minute and a half a
/// round; needs root.
#[derive(Parser)]
#[command(name = "peers")]
struct Options {
    /// How often each contestant does each kind of work.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,

    /// Only these kinds of work.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Work::ALL)]
    only: Vec<Work>,

    /// Only these contestants.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Peer::ALL)]
    peers: Vec<Peer>,

    /// Write every figure to this file too; cargo starts this in the folder `tests`.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Put tables and picture into the README and docs.
    #[arg(long)]
    write_docs: bool,

    /// As which part of the comparison this process runs.
    #[arg(long, hide = true)]
    inside: bool,
    #[arg(long, hide = true)]
    reflect: bool,
    /// What `cargo bench` says, and `cargo test` does not.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let result = if options.reflect {
        reflector::run()
    } else if options.inside {
        compare(&options)
    } else if options.bench {
        match enclose() {
            // It has said why.
            Ok(false) => return ExitCode::FAILURE,
            result => result.map(drop),
        }
    } else {
        println!("nothing to test; `cargo bench -p wvs-tests --bench peers` measures");
        Ok(())
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("peers: {error}");
            ExitCode::FAILURE
        }
    }
}

/// How many processors there are, and so how many threads each contestant gets.
fn processors() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Runs this program again as the first process of a process namespace: whatever becomes of it,
/// the kernel ends all others in there with it. Returns whether that one went well.
fn enclose() -> Fallible<bool> {
    lab::isolate()?;
    unshare(CloneFlags::CLONE_NEWPID)?;
    let mut inside = Command::new(std::env::current_exe()?);
    inside.args(std::env::args_os().skip(1)).arg("--inside");
    Ok(inside.status()?.success())
}

fn compare(options: &Options) -> Fallible<()> {
    // Ctrl-C ends the process outside; this one and all others go with it.
    set_pdeathsig(Signal::SIGKILL)?;
    mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), None::<&str>)?;
    let (peers, works) = contestants(options)?;
    let lab = Lab::build(1)?;
    turn_on_aggregation(&lab)?;
    let servers = Servers::start(&lab.servers[0])?;
    let folder = tempfile::tempdir_in("/run")?;
    let (machine, versions) = (machine::describe(), machine::versions());
    eprintln!("{machine}; {versions}");

    let mut results = Results::default();
    for round in 0..options.rounds {
        let mut costs = vec![Costs::default(); peers.len()];
        for (turn, &work) in works.iter().enumerate() {
            for place in 0..peers.len() {
                // Everybody has every neighbour.
                let index = (place + turn + usize::try_from(round)?) % peers.len();
                let peer = peers[index];
                if !work.is_for(peer) {
                    continue;
                }
                let begin = format!("round {}/{}  {work:?}  {peer:9}", round + 1, options.rounds);
                match measure(peer, work, &lab, folder.path(), &servers) {
                    Ok((outcome, cpu_seconds)) => {
                        let Outcome { figure, p99, notes, .. } = &outcome;
                        let (unit, p99) = (
                            work.unit(),
                            p99.map_or(String::new(), |p99| format!(", p99 {p99:.2} ms")),
                        );
                        eprintln!("{begin} {figure:10.2} {unit}{p99}  {}", notes.join("; "));
                        notes.iter().for_each(|note| results.note(format!("{begin}: {note}")));
                        record(&mut results, work, peer, &outcome);
                        costs[index].add(work, &outcome, cpu_seconds);
                    }
                    Err(error) => {
                        eprintln!("{begin} failed: {error}");
                        results.note(format!("{begin}: failed: {error}"));
                    }
                }
            }
        }
        for (peer, costs) in peers.iter().zip(costs) {
            costs.record(&mut results, *peer);
        }
    }
    if results.is_empty() {
        return Err("nothing could be measured".into());
    }

    println!("{}", table::columns(&table::full(&results)));
    println!(
        "Medians over {} round(s); ratios are WVS's figure divided by the other's. Processor time is \
         what /proc says of the program, and has none for nftables, which runs in interrupts.",
        options.rounds
    );
    let written = documents::write(&results, &machine, &versions)?;
    eprintln!("tables and picture are in {}", written.display());
    if let Some(path) = &options.json {
        let json = results.to_json(&format!("{machine}; {versions}"), options.rounds);
        std::fs::write(path, format!("{json:#}\n"))
            .map_err(|error| format!("{}: {error}", path.display()))?;
    }
    if options.write_docs {
        documents::write_docs(&results, &machine, &versions)?;
    }
    Ok(())
}

/// What of the options can be had here. Names what is missing.
fn contestants(options: &Options) -> Fallible<(Vec<Peer>, Vec<Work>)> {
    let is_missing = |program: &str| Command::new(program).arg("--version").output().is_err();
    let mut missing = Vec::new();
    for program in ["ethtool", "ip"] {
        if is_missing(program) {
            let package = if program == "ip" { "iproute2" } else { program };
            return Err(format!("{program} is missing: apt-get install {package}").into());
        }
    }
    let (mut peers, mut works) = (options.peers.clone(), options.only.clone());
    peers.retain(|peer| match peer.program() {
        Some((program, package)) if is_missing(program) => {
            missing.push(package);
            false
        }
        _ => true,
    });
    if works.iter().any(|work| work.is_bulk()) && is_missing("iperf3") {
        missing.push("iperf3");
        works.retain(|work| !work.is_bulk());
    }
    if !missing.is_empty() {
        eprintln!(
            "not everything can be compared; for all of it: apt-get install {}",
            missing.join(" ")
        );
    }
    peers.sort_unstable();
    peers.dedup();
    works.sort_unstable();
    works.dedup();
    Ok((peers, works))
}

/// Real network cards put segments together before the kernel sees them; virtual ones only when
/// told so.
fn turn_on_aggregation(lab: &Lab) -> Fallible<()> {
    let ends = [
        (&lab.client, "eth0"),
        (&lab.servers[0], "eth0"),
        (&lab.director, "clients"),
        (&lab.director, "server1"),
    ];
    for (host, interface) in ends {
        let mut ethtool = Command::new("ethtool");
        process::run(host, ethtool.args(["-K", interface, "gro", "on"]), COMMAND_PATIENCE)?;
    }
    Ok(())
}

/// One contestant at one kind of work: the outcome, and its processor time where it has any.
fn measure(
    peer: Peer,
    work: Work,
    lab: &Lab,
    folder: &std::path::Path,
    servers: &Servers,
) -> Fallible<(Outcome, Option<f64>)> {
    servers.take_seen();
    let running = Running::start(peer, lab, folder)?;
    work.warm_up(lab);
    let before = running.cpu_seconds()?;
    let mut outcome = work.measure(lab)?;
    let after = running.cpu_seconds()?;
    outcome.notes.extend(running.finish(servers, outcome.connections)?);
    Ok((outcome, after.zip(before).map(|(after, before)| after - before)))
}

fn record(results: &mut Results, work: Work, peer: Peer, outcome: &Outcome) {
    let metric = match work {
        Work::Tcp1 => Metric::OneStream,
        Work::Tcp4 => Metric::FourStreamsUp,
        Work::Tcp4r => Metric::FourStreamsDown,
        Work::Conn => Metric::Connections,
        Work::Udp => Metric::Datagrams,
        Work::Latency => Metric::LatencyMedian,
    };
    results.add(metric, peer, outcome.figure);
    if let Some(p99) = outcome.p99 {
        results.add(Metric::LatencyP99, peer, p99);
    }
}

/// Processor time of one contestant in one round, and what it was spent on.
#[derive(Clone, Default)]
struct Costs {
    bulk_seconds: f64,
    gigabytes: f64,
    connections_seconds: f64,
    thousand_connections: f64,
}

impl Costs {
    fn add(&mut self, work: Work, outcome: &Outcome, cpu_seconds: Option<f64>) {
        let Some(cpu_seconds) = cpu_seconds else { return };
        if work.is_bulk() {
            self.bulk_seconds += cpu_seconds;
            self.gigabytes += outcome.amount;
        } else if work == Work::Conn {
            self.connections_seconds += cpu_seconds;
            self.thousand_connections += outcome.amount;
        }
    }

    fn record(&self, results: &mut Results, peer: Peer) {
        if self.gigabytes > 0.0 {
            results.add(Metric::CpuPerGigabyte, peer, self.bulk_seconds / self.gigabytes);
        }
        if self.thousand_connections > 0.0 {
            let cost = self.connections_seconds / self.thousand_connections;
            results.add(Metric::CpuPerThousandConnections, peer, cost);
        }
    }
}
