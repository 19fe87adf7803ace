//! `wvs capture`: packets of the running director, before and after their translation.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;

use super::socket::SocketArg;
use super::{DONE, FAILED, complain};
use crate::capture::{BlockCutter, CaptureStatistics};
use crate::config::units::{format_size, parse_duration, parse_size};
use crate::control::{self, AskError, CAPTURES, Received};
use crate::output::count;
use crate::stop_signals::StopSignals;
use crate::tap::{CaptureRequest, Network, VerdictKind};

/// How often a terminal is told how far it is.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);

/// Record packets of the running director, before and after their translation.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wvs capture -o all.pcapng                        until Ctrl-C
  wvs capture web --for 30s -o web.pcapng          one service
  wvs capture web --host 198.51.100.7 --count 100 -o client.pcapng
  wvs capture --dropped -o dropped.pcapng          what is dropped, with the reason
  wvs capture --reason stray --reason no_server --snap 128 -o some.pcapng
  wvs capture --port 443 -o - | wireshark -k -i -
  tcpdump -nr web.pcapng

Packets that meet all criteria are recorded, in a pcapng file: each as it came and, if it was sent on, \
once more as it was sent. The comment of each says what the director did with it and why, as \
`in: forward to 10.0.0.11:8080 (web)` or `dropped: stray: ..`; Wireshark shows it, and \
`tshark -T fields -e frame.comment` prints it. A criterion that is given several times is met by any of \
them, on either side of the translation. A service's packets are also ICMP errors about them; later \
fragments, which have no ports, are found by --host only.

No packet waits to be recorded: what comes faster than it is taken away is missed, counted, and told \
at the end and in the file. --snap makes that less. 4 captures are possible at once.

Exit status: 0 when it ended as asked for or was interrupted, 1 when the director or the file failed, 2 \
for wrong usage.")]
pub(super) struct CaptureArgs {
    /// Only packets of this service, by its name.
    service: Option<String>,

    /// Where to write to, a pcapng file; `-` is standard output.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,

    /// Only packets from or to this address or network.
    #[arg(long = "host", value_name = "ADDRESS")]
    hosts: Vec<Network>,

    /// Only packets from or to this port.
    #[arg(long = "port", value_name = "PORT")]
    ports: Vec<u16>,

    /// Only packets of this protocol.
    #[arg(long, value_name = "PROTOCOL", value_parser = ["tcp", "udp", "icmp"])]
    protocol: Option<String>,

    /// Only packets that met this fate.
    #[arg(long = "verdict", value_enum, value_name = "VERDICT")]
    verdicts: Vec<VerdictKind>,

    /// Only dropped packets: short for --verdict dropped.
    #[arg(long, conflicts_with = "verdicts")]
    dropped: bool,

    /// Only packets that were dropped for this reason; docs/OPERATIONS.md lists all.
    #[arg(long = "reason", value_name = "REASON")]
    reasons: Vec<String>,

    /// Octets to keep of each packet, such as 128; at least 64. [default: all]
    #[arg(long, value_name = "OCTETS")]
    snap: Option<usize>,

    /// End after so many packets.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,

    /// End after this time, such as 30s.
    #[arg(long = "for", value_name = "TIME", value_parser = parse_duration)]
    time: Option<Duration>,

    /// End when the file is this large, such as 100MiB.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    size: Option<u64>,

    #[command(flatten)]
    director: SocketArg,
}

impl CaptureArgs {
    fn request(&self) -> CaptureRequest {
        let dropped = self.dropped.then_some(VerdictKind::Dropped);
        CaptureRequest {
            service: self.service.clone(),
            hosts: self.hosts.clone(),
            ports: self.ports.clone(),
            protocol: self.protocol.clone(),
            verdicts: self.verdicts.iter().copied().chain(dropped).collect(),
            reasons: self.reasons.clone(),
            snap: self.snap,
            count: self.count,
            milliseconds: self.time.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
            octets: self.size,
        }
    }
}

/// How a capture went.
struct Outcome {
    status: u8,
    packets: u64,
    statistics: CaptureStatistics,
    octets: u64,
    took: Duration,
}

pub(super) fn capture(args: &CaptureArgs) -> u8 {
    let json = match serde_json::to_string(&args.request()) {
        Ok(json) => json,
        Err(error) => return super::fail(format_args!("cannot write JSON: {error}")),
    };
    let outcome = args.director.converse(async |socket| {
        // Before the file is made: a refusal leaves an older file alone.
        let received = control::receive(&socket, CAPTURES, json).await?;
        Ok(record(received, &args.output).await)
    });
    match outcome {
        Ok(outcome) => {
            tell(&outcome, &args.output);
            outcome.status
        }
        Err(status) => status,
    }
}

/// Writes what comes until it ends or somebody interrupts.
async fn record(mut received: Received, path: &Path) -> Outcome {
    let start = Instant::now();
    let mut outcome = Outcome {
        status: DONE,
        packets: 0,
        statistics: CaptureStatistics::default(),
        octets: 0,
        took: Duration::ZERO,
    };
    let (mut output, mut signals) = match open(path).and_then(|to| Ok((to, StopSignals::new()?))) {
        Ok(opened) => opened,
        Err(error) => {
            complain(format_args!("{}: {error}", path.display()));
            return Outcome { status: FAILED, ..outcome };
        }
    };
    let mut cutter = BlockCutter::default();
    let mut progress = Progress::new();
    loop {
        let piece = tokio::select! {
            piece = received.next() => piece,
            _ = signals.recv() => break,
        };
        let octets = match piece {
            Ok(Some(octets)) => octets,
            Ok(None) => break,
            Err(error) => {
                outcome.status = ended_early(error);
                break;
            }
        };
        // What is written is whole blocks, so the file is whole whenever this ends.
        let Ok(blocks) = cutter.cut(&octets) else {
            complain("the director sends what is no capture; use the version that runs there");
            outcome.status = FAILED;
            break;
        };
        match output.write_all(&blocks).and_then(|()| output.flush()) {
            Ok(()) => outcome.octets += blocks.len() as u64,
            // Whoever reads has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
            Err(error) => {
                complain(format_args!("{}: {error}", path.display()));
                outcome.status = FAILED;
                break;
            }
        }
        progress.show(&cutter, outcome.octets);
    }
    progress.end();
    outcome.packets = cutter.packets();
    outcome.statistics = cutter.statistics();
    outcome.took = start.elapsed();
    outcome
}

/// Says why a director broke off.
fn ended_early(error: AskError) -> u8 {
    complain(format_args!("{error}; what came before is in the file"));
    FAILED
}

fn open(path: &Path) -> io::Result<Box<dyn Write>> {
    Ok(if path.as_os_str() == "-" {
        Box::new(io::stdout().lock())
    } else {
        Box::new(File::create(path)?)
    })
}

fn tell(outcome: &Outcome, path: &Path) {
    let Outcome { packets, statistics, octets, took, .. } = outcome;
    let place =
        if path.as_os_str() == "-" { "standard output".into() } else { path.display().to_string() };
    let packets = count(*packets, "packet", "packets");
    let (seconds, millis) = (took.as_secs(), took.subsec_millis());
    let mut text = format!("{place}: {packets}, {octets} octets in {seconds}.{millis:03} s");
    if statistics.missed > 0 {
        text += &format!(
            "; {} missed, because they came too fast: narrow it down, or keep less of each with --snap",
            statistics.missed
        );
    }
    // On standard error, since standard output may be the file.
    let _ = writeln!(io::stderr(), "{text}");
}

/// A line on a terminal that says how far it is.
struct Progress {
    is_shown: bool,
    last: Option<Instant>,
}

impl Progress {
    fn new() -> Self {
        Self { is_shown: io::stderr().is_terminal(), last: None }
    }

    fn show(&mut self, cutter: &BlockCutter, octets: u64) {
        if !self.is_shown || self.last.is_some_and(|last| last.elapsed() < PROGRESS_INTERVAL) {
            return;
        }
        self.last = Some(Instant::now());
        let (packets, missed) = (cutter.packets(), cutter.statistics().missed);
        let size = format_size(octets);
        let _ = write!(io::stderr(), "\r\x1b[K{packets} packets, {missed} missed, {size}");
    }

    fn end(&self) {
        if self.last.is_some() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
