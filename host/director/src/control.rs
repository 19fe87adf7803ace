//! The control socket: a small HTTP/JSON interface of the running director, on a Unix socket.
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /v1/services` | [`snapshot::ServicesSnapshot`] |
//! | `GET /v1/stats` | [`snapshot::StatsSnapshot`] |
//! | `GET /v1/plugins` | [`snapshot::PluginsSnapshot`] |
//! | `GET /v1/connections?service=NAME&limit=N` | [`snapshot::ConnectionList`] |
//! | `GET /v1/explain?from=A:P&to=A:P&protocol=tcp` | [`snapshot::ExplanationSnapshot`] |
//! | `GET /metrics` | [`metrics`](crate::metrics) as text |
//! | `GET /v1/services/NAME/scheduler/recording` | a recording, as octets |
//! | `POST /v1/services/NAME/scheduler/ACTION` | [`snapshot::ChangeSnapshot`] |
//! | `POST /v1/services/NAME/servers/SERVER/ACTION` | [`snapshot::ServerStanding`] |
//! | `POST /v1/reload` | [`snapshot::ReloadSnapshot`] |
//! | `POST /v1/preview`, with a configuration | [`snapshot::ReloadSnapshot`], of what it would change |
//! | `POST /v1/captures` | a pcapng file, as it comes to be |
//!
//! What the actions are and what they are told is in `change` and `servers`. Whatever is refused is
//! answered with a [`snapshot::Refusal`]. Whoever may open the socket, which its mode and group decide,
//! may ask and may change; so may whoever knows the token, over TCP, where there is a
//! [`TokenListener`]. `docs/openapi.yaml` describes all of it for programs.

mod access;
mod capture;
mod change;
mod client;
mod listener;
mod look;
mod refused;
mod server;
mod servers;
pub mod snapshot;
mod socket;
mod visit;

pub use access::{AccessCounters, Token, TokenError};
pub use change::{ModuleQuery, ShareRequest, SwapRequest};
pub use client::{AskError, Message, Received, ask, fetch, receive, tell};
pub use listener::TokenListener;
pub use server::{Answers, ControlServer, routes};
pub use servers::{DrainRequest, Then, WeightRequest};
pub(crate) use socket::group_of;
pub use socket::{ClaimError, ControlSocket};

/// The path of [`snapshot::ServicesSnapshot`].
pub const SERVICES: &str = "/v1/services";

/// The path of [`snapshot::StatsSnapshot`].
pub const STATS: &str = "/v1/stats";

/// The path of [`snapshot::PluginsSnapshot`].
pub const PLUGINS: &str = "/v1/plugins";

/// The path of the metrics, which is the custom.
pub const METRICS: &str = "/metrics";

/// The path of [`snapshot::ConnectionList`].
pub const CONNECTIONS: &str = "/v1/connections";

/// The path of [`snapshot::ReloadSnapshot`].
pub const RELOAD: &str = "/v1/reload";

/// The path that says what a configuration would change.
pub const PREVIEW: &str = "/v1/preview";

/// The path of [`snapshot::ExplanationSnapshot`].
pub const EXPLAIN: &str = "/v1/explain";

/// The path that packets are recorded under.
pub const CAPTURES: &str = "/v1/captures";

/// The most connections that are listed at once.
pub const CONNECTIONS_LISTED_MAX: usize = 100_000;

/// The connections that are listed unless somebody asks for more or less.
pub const CONNECTIONS_LISTED: usize = 1_000;

/// What stands for an action in the path of a service's recording.
pub const RECORDING: &str = "recording";

/// The path that does something about a real server of a service.
#[must_use]
pub fn server_path(service: &str, server: &str, action: &str) -> String {
    format!("{SERVICES}/{service}/servers/{server}/{action}")
}

/// The path that does something about the scheduler of a service.
#[must_use]
pub fn scheduler_path(service: &str, action: &str) -> String {
    format!("{SERVICES}/{service}/scheduler/{action}")
}
