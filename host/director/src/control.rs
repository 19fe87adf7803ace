//! The control socket: a small HTTP/JSON interface of the running director, on a Unix socket.
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /v1/services` | [`snapshot::ServicesSnapshot`] |
//! | `GET /v1/stats` | [`snapshot::StatsSnapshot`] |
//!
//! Whoever may open the socket, which its mode 0660 decides, may ask.

mod client;
mod server;
pub mod snapshot;
mod socket;

pub use client::{AskError, ask};
pub use server::{Answers, ControlServer};
pub use socket::{ClaimError, ControlSocket};

/// The path of [`snapshot::ServicesSnapshot`].
pub const SERVICES: &str = "/v1/services";

/// The path of [`snapshot::StatsSnapshot`].
pub const STATS: &str = "/v1/stats";
