//! Real servers, and which of them get connections.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use wvs_core::persistence::{Quiesced, Templates};
use wvs_core::real_server::RealServer;
use wvs_core::roster::{Member, Stage, Standing};
use wvs_core::service::Service;
use wvs_core::time::Moment;
use wvs_health::Report;

use super::TrafficSnapshot;
use crate::operation::servers::{WHY_DOWN, why_out};

/// A real server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerSnapshot {
    /// RIP and port; port 0 for ICMP, and for the port that the client connects to.
    pub address: SocketAddr,
    /// The weight by which connections go to it now; 0 when it gets none.
    pub weight: u32,
    /// The weight that the configuration gives it.
    pub configured_weight: u32,
    /// The weight that somebody gave it at run time.
    pub set_weight: Option<u32>,
    /// The weight that its health check gives it.
    pub measured_weight: Option<u32>,
    /// Why it gets no new connections: `down`, `drained`, `backup, not needed`, `weight 0` or
    /// `at its upper threshold`.
    pub out: Option<String>,
    /// What its health check says, if it has one.
    pub health: Option<HealthSnapshot>,
    /// Whether it is needed only when the others are too few.
    pub backup: bool,
    /// Milliseconds until the end of its drain, if that has a deadline.
    pub drain_ms: Option<u64>,
    /// Milliseconds since which it starts slowly, if it still does.
    pub slow_ms: Option<u64>,
    /// With so many connections it gets no new ones; 0 for no limit.
    pub upper_threshold: u32,
    /// With fewer it gets some again; 0 for three quarters of the upper one.
    pub lower_threshold: u32,
    /// How often it reached its upper threshold.
    pub overloads: u64,
    /// Active connections.
    pub active: u32,
    /// Inactive connections.
    pub inactive: u32,
    /// What it carried.
    pub traffic: TrafficSnapshot,
}

/// What a health check says of a real server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthSnapshot {
    /// What is asked, by its name in the configuration.
    pub kind: String,
    /// Whether the server is up for it.
    pub up: bool,
    /// Milliseconds for which it has been so.
    pub held_ms: u64,
    /// What the last check found, in a sentence; none before the first.
    pub last: Option<String>,
    /// Microseconds that the last check took.
    pub took_us: u64,
    /// Good checks since the last bad one.
    pub good: u32,
    /// Bad checks since the last good one.
    pub bad: u32,
    /// Checks so far.
    pub checks: u64,
    /// Bad ones among them.
    pub failed: u64,
    /// Those among them that could not be made, for want of something on the director's host.
    pub unknown: u64,
    /// How often it went up or down.
    pub changes: u64,
}

impl From<Report> for HealthSnapshot {
    fn from(report: Report) -> Self {
        let Report { kind, standing, held, last, took, good, bad, .. } = report;
        let number = |number: u128| u64::try_from(number).unwrap_or(u64::MAX);
        Self {
            kind: kind.to_owned(),
            up: standing == wvs_health::Standing::Up,
            held_ms: number(held.as_millis()),
            last: last.map(|finding| finding.reason),
            took_us: number(took.as_micros()),
            good,
            bad,
            checks: report.checks,
            failed: report.failed,
            unknown: report.unknown,
            changes: report.changes,
        }
    }
}

/// How the clients of a service come back to their servers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersistenceSnapshot {
    /// Seconds for which a client's server is remembered.
    pub timeout_seconds: u64,
    /// Leading bits of an address that make a client.
    pub prefix: u8,
    /// `honour` or `break`: what a server's weight 0 does to its clients.
    pub quiesced: String,
    /// Clients whose server is remembered now.
    pub templates: usize,
    /// Clients whose server could not be remembered, because there were too many.
    pub refused: u64,
}

/// All real servers of a service at one moment.
pub(super) struct ServersSnapshot {
    pub(super) stage: Stage,
    pub(super) servers: Vec<ServerSnapshot>,
    pub(super) sorry: Option<ServerSnapshot>,
    pub(super) leaving: Vec<ServerSnapshot>,
    /// What they carried together.
    pub(super) traffic: TrafficSnapshot,
}

impl ServersSnapshot {
    pub(super) fn of(service: &Service, now: Moment) -> Self {
        service.look_at_roster(|roster| {
            let stage = roster.stage();
            let mut totals = roster.departed();
            let mut snapshot = |server: &RealServer, standing: &Standing| {
                totals += server.traffic().totals();
                ServerSnapshot::of(server, standing, stage, now)
            };
            let mut servers = Vec::new();
            for Member { server, standing } in roster.members() {
                servers.push(snapshot(&server, &standing));
            }
            let sorry = roster.sorry().map(|server| snapshot(server, &Standing::new(1)));
            let mut leaving = Vec::new();
            for (server, drain) in roster.leaving_with_drains() {
                let standing = Standing { drain: Some(drain), ..Standing::default() };
                leaving.push(snapshot(server, &standing));
            }
            Self { stage, servers, sorry, leaving, traffic: totals.into() }
        })
    }
}

impl ServerSnapshot {
    /// Whether it gets no connections because it is down.
    #[must_use]
    pub fn is_down(&self) -> bool {
        self.out.as_deref() == Some(WHY_DOWN)
    }

    fn of(server: &RealServer, standing: &Standing, stage: Stage, now: Moment) -> Self {
        let deadline = standing.drain.and_then(|drain| drain.deadline);
        Self {
            address: server.address(),
            weight: server.weight(),
            configured_weight: standing.configured,
            set_weight: standing.set,
            measured_weight: standing.measured,
            out: why_out(server, standing, stage).map(str::to_owned),
            // Who lists servers knows, not they themselves.
            health: None,
            backup: standing.is_backup,
            drain_ms: deadline.map(|deadline| deadline.millis_since(now)),
            slow_ms: server.slow_since().map(|since| now.millis_since(since)),
            upper_threshold: standing.upper_threshold,
            lower_threshold: standing.lower_threshold,
            overloads: server.overloads(),
            active: server.active(),
            inactive: server.inactive(),
            traffic: server.traffic().totals().into(),
        }
    }
}

impl PersistenceSnapshot {
    fn quiesced(quiesced: Quiesced) -> &'static str {
        match quiesced {
            Quiesced::Honour => "honour",
            Quiesced::Break => "break",
        }
    }

    pub(super) fn of(templates: &Templates) -> Option<Self> {
        let persistence = templates.persistence()?;
        Some(Self {
            timeout_seconds: persistence.timeout.as_secs(),
            prefix: persistence.prefix,
            quiesced: Self::quiesced(persistence.quiesced).to_owned(),
            templates: templates.count(),
            refused: templates.refused(),
        })
    }
}
