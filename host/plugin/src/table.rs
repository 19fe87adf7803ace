//! The servers of a virtual service as a plugin is shown them.

use std::sync::Arc;

use wvs_abi::{Server, ServerInfo};
use wvs_core::real_server::RealServer;

/// The records of a virtual service's servers, in the order of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerTable {
    /// What every plugin sees.
    pub servers: Vec<Server>,
    /// What plugins with [`wvs_abi::caps::SERVER_INFO`] see besides: as long as `servers`.
    pub info: Vec<ServerInfo>,
}

impl ServerTable {
    /// The table of these servers as they are now.
    #[must_use]
    pub fn new(servers: &[Arc<RealServer>]) -> Self {
        Self {
            servers: servers.iter().map(|server| server.record()).collect(),
            info: servers.iter().map(|server| server.info()).collect(),
        }
    }

    /// Whether a plugin need not be told of `self` after `other`: nothing differs but counts.
    pub(crate) fn has_same_servers(&self, other: &Self) -> bool {
        let without_counts = |server: &Server| Server { active: 0, inactive: 0, ..*server };
        self.info == other.info
            && self.servers.iter().map(without_counts).eq(other.servers.iter().map(without_counts))
    }
}

impl From<Vec<Server>> for ServerTable {
    /// A table whose servers have no addresses.
    fn from(servers: Vec<Server>) -> Self {
        let info = vec![ServerInfo::default(); servers.len()];
        Self { servers, info }
    }
}
