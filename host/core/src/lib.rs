//! The director without the outside world.

pub mod connection;
pub mod director;
pub mod packet;
pub mod random;
pub mod real_server;
pub mod scheduler;
pub mod service;
pub mod stats;
pub mod time;
pub mod verdict;
