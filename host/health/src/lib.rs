//! Health checks: whether real servers answer, asked from outside of the traffic, and when that
//! makes a server up or down.
//!
//! [`Checkers`] runs a [`Check`] for each server on tokio and tells the [`News`]; what a check is
//! says [`Kind`], with one module for each. [`Judge`] is the rule behind it, without clock and
//! network, and [`Passive`] the one for what traffic itself shows.
//!
//! Only addresses are checked: nothing here looks up a name, so a slow resolver delays nothing.

mod check;
mod checkers;
mod command;
mod dns;
mod finding;
mod grpc;
mod http;
mod judge;
mod passive;
mod tcp;
mod tls;
mod udp;

pub use check::{Check, Kind, ProbeError, ServerKey};
pub use checkers::{Checkers, Load, News, Report, Settings};
pub use command::Command;
pub use dns::{Dns, DnsName, DnsNameError, RecordType};
pub use finding::{Finding, Outcome};
pub use grpc::Grpc;
pub use http::{BODY_OCTETS_MAX, Http};
pub use judge::{Judge, Standing};
pub use passive::{Passive, Signs};
pub use tls::{CA_OCTETS_MAX, Tls};
pub use udp::Udp;

/// What fields of [`Http`] and [`Tls`] are made of.
pub mod types {
    pub use hyper::Method;
    pub use hyper::http::uri::{Authority, PathAndQuery};
    pub use rustls::pki_types::ServerName;
}
