//! The director without the outside world.
//!
//! ```text
//!  packet in ─► parse ─► connection look-up ──hit──► TCP state ─► rewrite ─► packet out
//!    (TUN)     packet      connection::table        tcp_state     rewrite     (TUN)
//!                │             │ miss                   ▲
//!                │             ▼                        │
//!               drop       admission ─► scheduler ─► new connection
//!             verdict       service    (wasm plugin)  connection::table
//! ```
//!
//! [`director::Director::process`] is that way, from one packet to one [`verdict::Verdict`]. The
//! crate reads no clock, opens no file or socket, starts no thread and knows no WebAssembly: time,
//! seeds and schedulers are arguments, so the same packets at the same moments give the same
//! verdicts. A packet of an established connection meets no scheduler and no allocation.
//!
//! No octets make it panic. Header views are arrays of exactly their length, split off once; the
//! lints that this crate denies keep it that way.

#![cfg_attr(
    test,
    allow(
        clippy::arithmetic_side_effects,
        reason = "a test that overflows has failed, as it should"
    )
)]

mod admission;
mod answer;
pub mod connection;
pub mod director;
pub mod event;
pub mod explain;
pub mod fragment;
pub mod packet;
pub mod persistence;
pub mod pool;
mod protocol;
pub mod random;
pub mod real_server;
pub mod rewrite;
pub mod roster;
pub mod scheduler;
pub mod service;
pub mod services;
pub mod signals;
pub mod stats;
pub mod time;
pub mod verdict;
