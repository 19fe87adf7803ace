//! Connections: what the director remembers of each, and where it keeps them.

pub mod state;
