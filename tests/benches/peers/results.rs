//! What was measured, and what it is held against.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::peer::Peer;

/// A figure of the comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Metric {
    OneStream,
    FourStreamsUp,
    FourStreamsDown,
    Connections,
    Datagrams,
    LatencyMedian,
    LatencyP99,
    CpuPerGigabyte,
    CpuPerThousandConnections,
}

/// What is wanted of the director: its figure, divided by that of another.
struct Goal {
    peer: Peer,
    bound: f64,
}

impl Metric {
    pub(crate) const ALL: [Self; 9] = [
        Self::OneStream,
        Self::FourStreamsUp,
        Self::FourStreamsDown,
        Self::Connections,
        Self::Datagrams,
        Self::LatencyMedian,
        Self::LatencyP99,
        Self::CpuPerGigabyte,
        Self::CpuPerThousandConnections,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::OneStream => "one TCP stream",
            Self::FourStreamsUp => "four TCP streams to the server",
            Self::FourStreamsDown => "four TCP streams to the client",
            Self::Connections => "new connections with a request each",
            Self::Datagrams => "UDP requests and replies",
            Self::LatencyMedian => "connect and request when idle, median",
            Self::LatencyP99 => "connect and request when idle, p99",
            Self::CpuPerGigabyte => "processor time for bulk",
            Self::CpuPerThousandConnections => "processor time for connections",
        }
    }

    pub(crate) fn unit(self) -> &'static str {
        match self {
            Self::OneStream | Self::FourStreamsUp | Self::FourStreamsDown => "Gbit/s",
            Self::Connections | Self::Datagrams => "/s",
            Self::LatencyMedian | Self::LatencyP99 => "ms",
            Self::CpuPerGigabyte => "s/GB",
            Self::CpuPerThousandConnections => "s/1000",
        }
    }

    fn key(self) -> &'static str {
        match self {
            Self::OneStream => "tcp_1_stream_gbit_s",
            Self::FourStreamsUp => "tcp_4_streams_gbit_s",
            Self::FourStreamsDown => "tcp_4_streams_reverse_gbit_s",
            Self::Connections => "connections_s",
            Self::Datagrams => "udp_requests_s",
            Self::LatencyMedian => "idle_latency_median_ms",
            Self::LatencyP99 => "idle_latency_p99_ms",
            Self::CpuPerGigabyte => "cpu_seconds_per_gb",
            Self::CpuPerThousandConnections => "cpu_seconds_per_1000_connections",
        }
    }

    pub(crate) fn is_better_when_less(self) -> bool {
        match self {
            Self::OneStream
            | Self::FourStreamsUp
            | Self::FourStreamsDown
            | Self::Connections
            | Self::Datagrams => false,
            Self::LatencyMedian
            | Self::LatencyP99
            | Self::CpuPerGigabyte
            | Self::CpuPerThousandConnections => true,
        }
    }

    fn goals(self) -> Vec<Goal> {
        use Peer::{Haproxy, Nftables, Nginx, Reflector};
        let goals: &[(Peer, f64)] = match self {
            Self::OneStream => &[(Nftables, 0.95), (Haproxy, 1.2)],
            Self::FourStreamsUp | Self::FourStreamsDown => {
                &[(Reflector, 0.95), (Haproxy, 1.15), (Nginx, 1.15)]
            }
            Self::Connections => &[(Reflector, 0.95), (Haproxy, 1.0), (Nginx, 1.0)],
            Self::Datagrams => &[(Reflector, 0.95), (Nginx, 1.1)],
            Self::LatencyMedian => &[],
            Self::LatencyP99 => &[(Nftables, 1.2)],
            Self::CpuPerGigabyte | Self::CpuPerThousandConnections => &[(Haproxy, 1.0)],
        };
        goals.iter().map(|&(peer, bound)| Goal { peer, bound }).collect()
    }

    /// A value with as many digits as it is worth.
    pub(crate) fn format(self, value: f64) -> String {
        match self {
            Self::OneStream | Self::FourStreamsUp | Self::FourStreamsDown => format!("{value:.1}"),
            Self::Connections | Self::Datagrams => thousands(value),
            Self::LatencyMedian | Self::LatencyP99 => format!("{value:.2}"),
            Self::CpuPerGigabyte | Self::CpuPerThousandConnections => format!("{value:.3}"),
        }
    }
}

/// A rounded number with commas.
fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The figures of all rounds.
#[derive(Default)]
pub(crate) struct Results {
    samples: BTreeMap<(Metric, Peer), Vec<f64>>,
    notes: Vec<String>,
}

impl Results {
    pub(crate) fn add(&mut self, metric: Metric, peer: Peer, value: f64) {
        self.samples.entry((metric, peer)).or_default().push(value);
    }

    /// Something that went differently than it should.
    pub(crate) fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    pub(crate) fn has(&self, metric: Metric) -> bool {
        Peer::ALL.into_iter().any(|peer| self.median(metric, peer).is_some())
    }

    pub(crate) fn median(&self, metric: Metric, peer: Peer) -> Option<f64> {
        let mut samples = self.samples.get(&(metric, peer))?.clone();
        samples.sort_by(f64::total_cmp);
        let middle = samples.len() / 2;
        if samples.len() % 2 == 1 {
            Some(samples[middle])
        } else {
            Some(f64::midpoint(samples[middle - 1], samples[middle]))
        }
    }

    /// The director's median divided by that of `peer`, rounded as it is shown, so that goals are
    /// held against what can be read.
    pub(crate) fn ratio_to(&self, metric: Metric, peer: Peer) -> Option<f64> {
        let ratio = self.median(metric, Peer::Wvs)? / self.median(metric, peer)?;
        Some((ratio * 100.0).round() / 100.0)
    }

    /// Each goal with whether it is met; `None` where something was not measured.
    pub(crate) fn goals(&self, metric: Metric) -> Vec<(String, Option<bool>)> {
        let is_less = metric.is_better_when_less();
        let sign = if is_less { '≤' } else { '≥' };
        let goal = |Goal { peer, bound }| {
            let is_met = self
                .ratio_to(metric, peer)
                .map(|ratio| if is_less { ratio <= bound } else { ratio >= bound });
            (format!("{sign} {bound:.2} {peer}"), is_met)
        };
        metric.goals().into_iter().map(goal).collect()
    }

    pub(crate) fn to_json(&self, machine: &str, rounds: u32) -> Value {
        let mut metrics = BTreeMap::new();
        for metric in Metric::ALL {
            let mut of_peers = BTreeMap::new();
            for peer in Peer::ALL {
                if let Some(samples) = self.samples.get(&(metric, peer)) {
                    let value = json!({ "median": self.median(metric, peer), "samples": samples });
                    of_peers.insert(peer.to_string(), value);
                }
            }
            let goals: BTreeMap<_, _> = self.goals(metric).into_iter().collect();
            metrics.insert(metric.key(), json!({ "peers": of_peers, "goals_met": goals }));
        }
        json!({ "machine": machine, "rounds": rounds, "metrics": metrics, "notes": self.notes })
    }
}
