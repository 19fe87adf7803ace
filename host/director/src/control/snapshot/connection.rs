//! Connections, as `ipvsadm -Lnc` lists them.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use wvs_core::connection::Connection;
use wvs_core::packet::address::Address;
use wvs_core::time::Moment;

/// Answer to `GET /v1/connections`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionList {
    /// Connections that there are, at the service asked for or altogether.
    pub total: usize,
    /// As many of them as were asked for, in no order.
    pub connections: Vec<ConnectionSnapshot>,
}

/// A connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionSnapshot {
    /// `tcp`, `udp` or `icmp`.
    pub protocol: String,
    /// Milliseconds until it expires if no packet comes by.
    pub expires_in_ms: u64,
    /// Its state, as `ipvsadm` names it.
    pub state: String,
    /// The client.
    pub client: SocketAddr,
    /// What it connected to.
    pub vip: SocketAddr,
    /// The real server.
    pub server: SocketAddr,
    /// The generation of the service's scheduler that placed it; 0 for the director itself.
    pub generation: u16,
}

impl ConnectionSnapshot {
    /// A connection as it is now; `None` when it is over.
    pub(crate) fn of<A: Address>(connection: &Connection<A>, now: Moment) -> Option<Self> {
        let original = connection.original();
        Some(Self {
            protocol: original.protocol.to_string(),
            expires_in_ms: connection.expires_in_ms(now),
            state: connection.state()?.name().to_owned(),
            client: SocketAddr::new(original.source.into(), original.source_port),
            vip: SocketAddr::new(original.destination.into(), original.destination_port),
            server: connection.server_address(),
            generation: connection.generation(),
        })
    }
}
