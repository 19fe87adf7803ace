//! What would become of a packet, as `wvs explain` tells it.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// Answer to `GET /v1/explain`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplanationSnapshot {
    /// `tcp`, `udp` or `icmp`.
    pub protocol: String,
    /// Whom the packet is from.
    pub from: SocketAddr,
    /// Whom it is to.
    pub to: SocketAddr,
    /// The connection that it belongs to.
    pub connection: Option<KnownConnectionSnapshot>,
    /// What becomes of a packet that opens a connection, where the one that is known does not take
    /// that, too.
    pub opening: Option<FateSnapshot>,
    /// What becomes of a TCP segment in the middle of a connection, where none is known.
    pub stray: Option<FateSnapshot>,
}

/// A connection of the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownConnectionSnapshot {
    /// The name of its service, if that is still there.
    pub service: Option<String>,
    /// The client.
    pub client: SocketAddr,
    /// What it connected to.
    pub vip: SocketAddr,
    /// What stands in for the client, with full NAT.
    pub local: Option<SocketAddr>,
    /// The real server.
    pub server: SocketAddr,
    /// Whether the packet in question is the server's.
    pub is_reply: bool,
    /// Its state, as `ipvsadm` names it; `None` for one that is leaving the table.
    pub state: Option<String>,
    /// The generation of the service's scheduler that placed it; 0 for the director itself.
    pub generation: u16,
    /// Milliseconds since it was opened.
    pub age_ms: u64,
    /// Milliseconds until it expires if no packet comes by.
    pub expires_in_ms: u64,
    /// Whether its server was taken away from it.
    pub is_forsaken: bool,
}

/// What becomes of a packet that belongs to no connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fate", rename_all = "snake_case")]
pub enum FateSnapshot {
    /// It is sent on as it came: it concerns no service.
    Passed,
    /// It is not sent.
    Dropped {
        /// The reason's name in listings.
        reason: String,
        /// The reason in a sentence.
        description: String,
    },
    /// The director answers.
    Answered {
        /// `reset`, `port_unreachable` or `echo_reply`.
        reply: String,
    },
    /// A client gets it from the virtual address: it is a datagram of a server whose service opens no
    /// connections.
    OnePacketReply,
    /// It opens a connection of a service, or would if a server could take it.
    Scheduled(Box<OpeningSnapshot>),
}

/// How a new connection would be placed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpeningSnapshot {
    /// The service.
    pub service: String,
    /// Whether nothing but this one datagram goes to the server that is chosen.
    pub is_one_packet: bool,
    /// Who serves: `regular`, `backup` or `sorry`.
    pub stage: String,
    /// What its plugin would answer; `None` where it is not asked.
    pub asked: Option<AskedSnapshot>,
    /// The server that it would go to.
    pub server: Option<SocketAddr>,
    /// Who chooses that: `template`, `scheduler`, `director` for want of an answer, `slow_start` to
    /// spare the scheduler's choice, or `sorry`.
    pub chosen_by: String,
    /// What becomes of the packet otherwise.
    pub otherwise: Option<FateSnapshot>,
    /// All real servers, in the order of the configuration.
    pub servers: Vec<CandidateSnapshot>,
}

/// What a plugin would answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskedSnapshot {
    /// The plugin.
    pub plugin: String,
    /// Its generation at the service.
    pub generation: u16,
    /// Whether it is the candidate of a trial that is obeyed for this client.
    pub is_candidate: bool,
    /// `server`, `no_server`, `defer`, `fault` or `unavailable`.
    pub answer: String,
    /// The server that it would answer.
    pub server: Option<SocketAddr>,
    /// How it would fail, or why it cannot be asked.
    pub reason: Option<String>,
    /// Whether the copy that was asked remembers what the plugin does; otherwise it answered like one
    /// that was just started.
    pub is_exact: bool,
    /// Microseconds that the copy and its answer took.
    pub took_us: u64,
}

/// A real server as the scheduler sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CandidateSnapshot {
    /// Its address and port.
    pub address: SocketAddr,
    /// Its weight.
    pub weight: u32,
    /// Active connections.
    pub active: u32,
    /// Inactive ones.
    pub inactive: u32,
    /// Why it gets no new connection.
    pub out: Option<String>,
}
