//! Connections, as `ipvsadm -Lnc` lists them.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};
use wvs_core::connection::Connection;
use wvs_core::connection::state::State;
use wvs_core::packet::address::Address;
use wvs_core::time::Moment;

use crate::tap::Network;

/// Which connections to list, in the query of `GET /v1/connections`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConnectionFilter {
    /// Those of this service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Those of this client, or of clients in this network, as in `198.51.100.0/24`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<Network>,
    /// Those of the real server with this address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<IpAddr>,
    /// Those in this state, as listings name it.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "state_name")]
    pub state: Option<State>,
    /// The most to list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

impl ConnectionFilter {
    /// Whether it asks for more than a service's connections.
    pub(crate) fn is_particular(&self) -> bool {
        self.client.is_some() || self.server.is_some() || self.state.is_some()
    }

    /// Whether a connection is what it asks for, apart from the service.
    pub(crate) fn wants<A: Address>(&self, connection: &Connection<A>) -> bool {
        let client = connection.original().source.into();
        self.client.as_ref().is_none_or(|network| network.contains(client))
            && self.server.is_none_or(|server| server == connection.server_address().ip())
            && self.state.is_none_or(|state| connection.state() == Some(state))
    }
}

/// A state by the name that listings have for it.
mod state_name {
    use serde::de::{Deserialize, Deserializer, Error};
    use serde::ser::Serializer;
    use wvs_core::connection::state::State;

    #[expect(clippy::ref_option, reason = "serde's signature")]
    pub(super) fn serialize<S: Serializer>(
        state: &Option<State>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match state {
            Some(state) => serializer.serialize_str(state.name()),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<State>, D::Error> {
        String::deserialize(deserializer)?.parse().map(Some).map_err(D::Error::custom)
    }
}

/// Answer to `GET /v1/connections`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
