//! The director without the outside world.

mod answer;
pub mod connection;
pub mod director;
pub mod packet;
pub mod random;
pub mod real_server;
mod rewrite;
pub mod scheduler;
pub mod service;
pub mod stats;
pub mod time;
pub mod verdict;
