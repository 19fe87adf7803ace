//! The servers of a virtual service as a plugin is shown them.

use std::net::SocketAddr;
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

    /// The index of the server with this number. Cost: one step where numbers count up, as they
    /// mostly do, else one for each server.
    pub(crate) fn index_of(&self, id: u32) -> Option<u32> {
        let is_at = |index: usize| self.servers.get(index).is_some_and(|server| server.id == id);
        let first = self.servers.first()?.id;
        let likely = usize::try_from(id.wrapping_sub(first)).ok().filter(|index| is_at(*index));
        let index = likely.or_else(|| (0..self.servers.len()).find(|index| is_at(*index)));
        index.and_then(|index| u32::try_from(index).ok())
    }

    /// Address and port of the server at `index`; `None` when there is none, or it has no address.
    #[must_use]
    pub fn address(&self, index: usize) -> Option<SocketAddr> {
        let info = self.info.get(index).filter(|info| info.family != 0)?;
        Some(SocketAddr::new(info.ip(), info.port))
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
