//! What a running director tells about itself: the types of its JSON, for both ends.

mod change;
mod connection;
mod explanation;
mod plugin;
mod server;

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use wvs_core::director::Director;
use wvs_core::fragment::FragmentTotals;
use wvs_core::pool::Pool;
use wvs_core::service::{Ports, SchedulingCounters};
use wvs_core::stats::TrafficTotals;
use wvs_core::time::Moment;
use wvs_core::verdict::DropReason;
use wvs_plugin::PluginReport;

use crate::seat::Seat;
pub use change::{
    ChangeSnapshot, ReloadSnapshot, SchedulerReload, ServerChange, ServerReload, ServerStanding,
    ServiceFate, ServiceReload, SwapSnapshot, TrialReload,
};
pub use connection::{ConnectionFilter, ConnectionList, ConnectionSnapshot};
pub use explanation::{
    AskedSnapshot, CandidateSnapshot, ExplanationSnapshot, FateSnapshot, KnownConnectionSnapshot,
    OpeningSnapshot,
};
pub use plugin::{
    FuelSnapshot, GenerationSnapshot, PicksSnapshot, PluginSnapshot, PluginsSnapshot,
    RollbackSnapshot, SeatSnapshot, TimeSnapshot, TrialSnapshot,
};
use server::ServersSnapshot;
pub use server::{HealthSnapshot, PersistenceSnapshot, ServerSnapshot};

/// Answer to `GET /v1/services`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServicesSnapshot {
    /// The director's version.
    pub version: String,
    /// Connections that its table may hold.
    pub connections_max: usize,
    /// The virtual services in the order of the configuration.
    pub services: Vec<ServiceSnapshot>,
}

/// A virtual service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSnapshot {
    /// Its name.
    pub name: String,
    /// `tcp`, `udp` or `icmp`.
    pub protocol: String,
    /// Its VIP, the first of several.
    pub vip: IpAddr,
    /// Its port, the first of several; 0 for ICMP, and for all that no other service has.
    pub port: u16,
    /// All its VIPs.
    pub vips: Vec<IpAddr>,
    /// All its ports, the first and the last of each range; none for all that no other service has.
    pub ports: Vec<(u16, u16)>,
    /// Whether every datagram is scheduled by itself.
    pub one_packet: bool,
    /// How clients come back to their servers.
    pub persistence: Option<PersistenceSnapshot>,
    /// Who serves: `regular`, `backup` for the backups too, or `sorry` for the sorry server.
    pub stage: String,
    /// What chooses its real servers.
    pub scheduler: SchedulerSnapshot,
    /// How its connections were placed.
    pub scheduling: SchedulingSnapshot,
    /// What all its real servers carried together.
    pub traffic: TrafficSnapshot,
    /// What stands in for clients, with full NAT.
    pub pool: Option<PoolSnapshot>,
    /// Its real servers in the order of the configuration.
    pub servers: Vec<ServerSnapshot>,
    /// The server that takes connections when the others are too few.
    pub sorry_server: Option<ServerSnapshot>,
    /// Servers that were taken out of the configuration and still have connections.
    pub leaving: Vec<ServerSnapshot>,
}

/// The pool of a service with full NAT.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolSnapshot {
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Connections that each real server can have through it.
    pub places: usize,
    /// Connections for which no free place was found.
    pub exhausted: u64,
}

/// A scheduler plugin at work for a service. Counts begin when it got the service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchedulerSnapshot {
    /// The plugin's name in the configuration.
    pub name: String,
    /// Its number, with its configuration, at the service. Connections remember it.
    pub generation: u16,
    /// Decisions for a server.
    pub picks: u64,
    /// Decisions that no server can take the connection.
    pub no_server: u64,
    /// Decisions that it left to the director.
    pub defers: u64,
    /// Decisions that the director made while the plugin was quarantined or being made anew.
    pub unavailable: u64,
    /// Answers that were no valid server.
    pub bad_answers: u64,
    /// Calls in which it stopped itself or did what no program may.
    pub traps: u64,
    /// Calls that took more fuel than allowed.
    pub out_of_fuel: u64,
    /// Everything that it did wrong, the three before included.
    pub faults: u64,
    /// How often it was quarantined.
    pub quarantines: u64,
    /// Instances made to replace one that failed.
    pub rebuilds: u64,
    /// The latest fault, in a sentence.
    pub last_fault: Option<String>,
}

/// How the connections of a service were placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchedulingSnapshot {
    /// By the plugin.
    pub picked: u64,
    /// By the director, because the plugin had no answer.
    pub fallback: u64,
    /// By the director, because the server that the plugin chose starts slowly.
    pub spared: u64,
    /// With the server that the client had before.
    pub persistent: u64,
    /// With the sorry server.
    pub sorry: u64,
    /// Not at all: no real server could take them.
    pub no_server: u64,
}

/// Connections, packets and octets since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrafficSnapshot {
    /// Connections scheduled.
    pub connections: u64,
    /// Packets from clients.
    pub in_packets: u64,
    /// Packets to clients.
    pub out_packets: u64,
    /// Octets from clients, IP headers included.
    pub in_octets: u64,
    /// Octets to clients, IP headers included.
    pub out_octets: u64,
}

/// Answer to `GET /v1/stats`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatsSnapshot {
    /// The director's version.
    pub version: String,
    /// Seconds since it started.
    pub uptime_seconds: u64,
    /// Log lines that were lost, because nobody read them or there was no room for them.
    pub log_lines_lost: u64,
    /// The connection table.
    pub connections: ConnectionsSnapshot,
    /// What became of packets.
    pub packets: PacketsSnapshot,
    /// Packets that come in pieces.
    pub fragments: FragmentsSnapshot,
    /// The TUN device.
    pub device: DeviceSnapshot,
    /// Who tried to get in over TCP.
    pub admin: AdminSnapshot,
}

/// Who tried to get in over TCP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdminSnapshot {
    /// Requests with a wrong token.
    pub bad_tokens: u64,
    /// Requests that were not listened to, after too many of those from the same address.
    pub locked_out: u64,
}

/// The connection table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionsSnapshot {
    /// Connections now.
    pub now: usize,
    /// Connections that there may be.
    pub max: usize,
    /// TCP connections now whose client has not answered the real server yet.
    pub half_open: usize,
    /// Half-open connections that there may be.
    pub half_open_max: usize,
    /// Connections opened since the start.
    pub opened: u64,
    /// Connections that expired.
    pub expired: u64,
    /// Connections that a new one with the same addresses and ports replaced.
    pub replaced: u64,
    /// Half-open connections that made way for newer ones.
    pub evicted: u64,
}

/// What became of packets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PacketsSnapshot {
    /// Translated and sent on.
    pub forwarded: u64,
    /// Answered by the director itself.
    pub replied: u64,
    /// Sent on untouched.
    pub passed: u64,
    /// Parts of packets kept until the first part comes.
    pub held: u64,
    /// Dropped, by reason.
    pub dropped: BTreeMap<String, u64>,
}

/// Packets that come in pieces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FragmentsSnapshot {
    /// Packets now of which some pieces came.
    pub now: usize,
    /// Octets now of pieces that wait for the first one.
    pub held_octets: usize,
    /// Packets not all of whose pieces came in time.
    pub expired: u64,
    /// Packets that made way for newer ones.
    pub evicted: u64,
}

/// The TUN device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceSnapshot {
    /// Its name.
    pub name: String,
    /// Its MTU in octets.
    pub mtu: u16,
    /// Queues that it has, each with a thread of its own.
    pub queues: usize,
    /// Which packets it takes to be finished later: `off`, `tcp` or `tcp+udp`.
    pub offload: String,
    /// Packets read; one that is to be cut up later counts once.
    pub read: u64,
    /// Packets written.
    pub written: u64,
    /// Reads that failed.
    pub read_errors: u64,
    /// Packets that the kernel did not take.
    pub write_errors: u64,
    /// Packets that the kernel dropped because a queue was full.
    pub queue_full: u64,
}

/// Both answers together, as `wvs list --json` writes them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The services, whose keys are on top.
    #[serde(flatten)]
    pub services: ServicesSnapshot,
    /// The counters.
    pub stats: StatsSnapshot,
}

/// What is said instead of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Why, in a sentence.
    pub error: String,
}

impl ServiceSnapshot {
    /// A service as it is at `now`. Waits for the decision at hand.
    #[must_use]
    pub fn of(seat: &Seat, now: Moment) -> Self {
        let service = seat.service();
        let (address, settings) = (service.address(), service.settings());
        let reach = &settings.reach;
        let ServersSnapshot { stage, servers, sorry, leaving, traffic } =
            ServersSnapshot::of(service, now);
        Self {
            name: service.name().to_owned(),
            protocol: address.protocol.to_string(),
            vip: reach.first(address.protocol).vip,
            port: reach.first(address.protocol).port,
            vips: reach.vips.clone(),
            ports: match &reach.ports {
                Ports::These(ranges) => {
                    ranges.iter().map(|range| (*range.start(), *range.end())).collect()
                }
                Ports::Others => Vec::new(),
            },
            one_packet: settings.is_one_packet,
            persistence: PersistenceSnapshot::of(&service.terms().templates),
            stage: stage.name().to_owned(),
            scheduler: (&seat.plugin()).into(),
            scheduling: service.counters().into(),
            traffic,
            pool: service.terms().pool().map(Into::into),
            servers,
            sorry_server: sorry,
            leaving,
        }
    }
}

impl From<&Pool> for PoolSnapshot {
    fn from(pool: &Pool) -> Self {
        Self {
            addresses: pool.addresses().to_vec(),
            places: pool.places(),
            exhausted: pool.exhausted(),
        }
    }
}

impl From<&PluginReport> for SchedulerSnapshot {
    fn from(PluginReport { name, generation, counters, .. }: &PluginReport) -> Self {
        Self {
            name: name.to_string(),
            generation: *generation,
            picks: counters.picks(),
            no_server: counters.no_server(),
            defers: counters.defers(),
            unavailable: counters.unavailable(),
            bad_answers: counters.bad_answers(),
            traps: counters.traps(),
            out_of_fuel: counters.out_of_fuel(),
            faults: counters.faults(),
            quarantines: counters.quarantines(),
            rebuilds: counters.rebuilds(),
            last_fault: counters.last_fault().map(|fault| fault.to_string()),
        }
    }
}

impl From<&SchedulingCounters> for SchedulingSnapshot {
    fn from(counters: &SchedulingCounters) -> Self {
        Self {
            picked: counters.picked.get(),
            fallback: counters.fallback.get(),
            spared: counters.spared.get(),
            persistent: counters.persistent.get(),
            sorry: counters.sorry.get(),
            no_server: counters.no_server.get(),
        }
    }
}

impl From<TrafficTotals> for TrafficSnapshot {
    fn from(totals: TrafficTotals) -> Self {
        let TrafficTotals { connections, in_packets, out_packets, in_octets, out_octets } = totals;
        Self { connections, in_packets, out_packets, in_octets, out_octets }
    }
}

impl From<&Director> for ConnectionsSnapshot {
    fn from(director: &Director) -> Self {
        Self {
            now: director.connections(),
            max: director.config().limits.connections,
            half_open: director.half_open(),
            half_open_max: director.config().limits.half_open,
            opened: director.table().opened.get(),
            expired: director.table().expired.get(),
            replaced: director.table().replaced.get(),
            evicted: director.table().evicted.get(),
        }
    }
}

impl From<FragmentTotals> for FragmentsSnapshot {
    fn from(totals: FragmentTotals) -> Self {
        let FragmentTotals { datagrams, held_octets, expired, evicted } = totals;
        Self { now: datagrams, held_octets, expired, evicted }
    }
}

impl From<&Director> for PacketsSnapshot {
    fn from(director: &Director) -> Self {
        let verdicts = director.verdicts();
        let dropped = |reason: &DropReason| (reason.name().to_owned(), verdicts.dropped(*reason));
        Self {
            forwarded: verdicts.forwarded(),
            replied: verdicts.replied(),
            passed: verdicts.passed(),
            held: verdicts.held(),
            dropped: DropReason::ALL.iter().map(dropped).collect(),
        }
    }
}
