//! The work that contestants are measured at.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use clap::ValueEnum;
use serde_json::Value;
use wvs::lab::{self, Lab};

use crate::Fallible;
use crate::load::{self, Tally};
use crate::peer::Peer;
use crate::process::run;
use crate::servers::BULK_PORT;

/// How long each kind of work is done.
const BULK_SECONDS: u8 = 3;
const CONNECTIONS_TIME: Duration = Duration::from_millis(2500);
const DATAGRAMS_TIME: Duration = Duration::from_secs(2);
const LATENCY_TIME: Duration = Duration::from_secs(3);

/// Connections before the clock runs, for caches, tables and buffers.
const WARM_UP_TIME: Duration = Duration::from_millis(100);

/// Requests a second to an idle director.
const IDLE_PER_SECOND: u32 = 400;

/// More failures than one in so many are no result.
const FAILURES_PART_MAX: u64 = 100;

/// Beyond its time, for iperf3.
const BULK_PATIENCE: Duration = Duration::from_secs(15);

/// A kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Work {
    /// One TCP stream from a client to the server.
    Tcp1,
    /// Four TCP streams from a client to the server.
    Tcp4,
    /// Four TCP streams from the server to a client.
    Tcp4r,
    /// Connect, request, reply, close, as fast as it goes.
    Conn,
    /// UDP request and reply, as fast as it goes.
    Udp,
    /// Connect, request, reply, at a low rate.
    Latency,
}

/// What came of it.
pub(crate) struct Outcome {
    /// Gbit/s, connections a second or datagrams a second; for latencies their median in ms.
    pub(crate) figure: f64,
    /// The 99th percentile in ms, of latencies.
    pub(crate) p99: Option<f64>,
    /// How much was done: gigabytes of bulk, thousands of connections.
    pub(crate) amount: f64,
    /// Connections that the contestant must have had, at least.
    pub(crate) connections: u64,
    /// What else is worth knowing.
    pub(crate) notes: Vec<String>,
}

impl Work {
    pub(crate) const ALL: [Self; 6] =
        [Self::Tcp1, Self::Tcp4, Self::Tcp4r, Self::Conn, Self::Udp, Self::Latency];

    pub(crate) fn is_bulk(self) -> bool {
        matches!(self, Self::Tcp1 | Self::Tcp4 | Self::Tcp4r)
    }

    /// Whether the contestant can do it.
    pub(crate) fn is_for(self, peer: Peer) -> bool {
        self != Self::Udp || peer.has_datagrams()
    }

    pub(crate) fn unit(self) -> &'static str {
        match self {
            Self::Tcp1 | Self::Tcp4 | Self::Tcp4r => "Gbit/s",
            Self::Conn | Self::Udp => "/s",
            Self::Latency => "ms (median)",
        }
    }

    /// Warms the contestant up.
    pub(crate) fn warm_up(self, lab: &Lab) {
        if self == Self::Udp {
            load::datagrams(&lab.client, WARM_UP_TIME);
        } else {
            load::connections(&lab.client, WARM_UP_TIME);
        }
    }

    /// Does the work through whoever has the VIP now.
    pub(crate) fn measure(self, lab: &Lab) -> Fallible<Outcome> {
        match self {
            Self::Tcp1 => bulk(lab, 1, false),
            Self::Tcp4 => bulk(lab, 4, false),
            Self::Tcp4r => bulk(lab, 4, true),
            Self::Conn => counted(load::connections(&lab.client, CONNECTIONS_TIME)),
            Self::Udp => {
                let outcome = counted(load::datagrams(&lab.client, DATAGRAMS_TIME))?;
                Ok(Outcome { connections: u64::from(lab::CLIENTS), ..outcome })
            }
            Self::Latency => {
                let tally = load::paced_connections(&lab.client, IDLE_PER_SECOND, LATENCY_TIME);
                let mut latencies = tally.latencies.clone();
                let outcome = counted(tally)?;
                latencies.sort_by(f64::total_cmp);
                let percentile = |part: f64| quantile(&latencies, part) * 1e3;
                Ok(Outcome { figure: percentile(0.5), p99: Some(percentile(0.99)), ..outcome })
            }
        }
    }
}

fn counted(tally: Tally) -> Fallible<Outcome> {
    let failure = tally.first_failure.as_deref().unwrap_or("-");
    if tally.answered == 0 || tally.failed > tally.answered / FAILURES_PART_MAX {
        return Err(format!(
            "{} of {} requests failed: {failure}",
            tally.failed,
            tally.failed + tally.answered
        )
        .into());
    }
    let notes = match tally.failed {
        0 => Vec::new(),
        failed => vec![format!("{failed} of {} requests failed: {failure}", tally.answered)],
    };
    Ok(Outcome {
        figure: tally.per_second(),
        p99: None,
        amount: tally.answered as f64 / 1e3,
        connections: tally.answered,
        notes,
    })
}

/// The value that a part of `sorted` is not above.
fn quantile(sorted: &[f64], part: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and the number of values"
    )]
    let index = (last as f64 * part).round() as usize;
    sorted.get(index).copied().unwrap_or(f64::NAN)
}

/// Octets as fast as they go, by iperf3.
fn bulk(lab: &Lab, streams: u8, is_reverse: bool) -> Fallible<Outcome> {
    let _server = IperfServer::start(lab)?;
    let mut client = Command::new("iperf3");
    client.args(["-c", &lab::VIP.to_string(), "-p", &BULK_PORT.to_string(), "-J", "-i", "0"]);
    client.args(["-t", &BULK_SECONDS.to_string(), "-P", &streams.to_string()]);
    client.args(["--connect-timeout", "3000"]);
    if is_reverse {
        client.arg("-R");
    }
    let report =
        run(&lab.client, &mut client, Duration::from_secs(BULK_SECONDS.into()) + BULK_PATIENCE)?;
    let report: Value = serde_json::from_str(&report)?;
    let end = &report["end"];
    let number = |value: &Value| value.as_f64().ok_or("iperf3 reports no figures");
    let retransmitted = end["sum_sent"]["retransmits"].as_u64().unwrap_or(0);
    let notes = match retransmitted {
        0 => Vec::new(),
        _ => vec![format!("{retransmitted} segments retransmitted")],
    };
    Ok(Outcome {
        figure: number(&end["sum_received"]["bits_per_second"])? / 1e9,
        p99: None,
        amount: number(&end["sum_received"]["bytes"])? / 1e9,
        // And the one that it is controlled by.
        connections: u64::from(streams) + 1,
        notes,
    })
}

/// The server of one run, and the end of the pipe that it prints to. Killed when dropped.
struct IperfServer(Child, Option<BufReader<ChildStdout>>);

impl IperfServer {
    fn start(lab: &Lab) -> Fallible<Self> {
        let mut command = Command::new("iperf3");
        command.args(["-s", "-1", "--forceflush", "-p", &BULK_PORT.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut server = Self(lab.servers[0].run(|| command.spawn())?, None);
        let mut output = BufReader::new(server.0.stdout.take().ok_or("no pipe")?);
        let mut line = String::new();
        while output.read_line(&mut line)? > 0 {
            if line.contains("listening") {
                server.1 = Some(output);
                return Ok(server);
            }
        }
        Err("iperf3 does not listen".into())
    }
}

impl Drop for IperfServer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
