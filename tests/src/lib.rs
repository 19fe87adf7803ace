//! The rig that the tests share: packets built and checked by an implementation that is not ours,
//! a director in memory with a clock that the test moves, and requests for schedulers.

pub mod fuzz;
pub mod onlooker;
pub mod packet;
pub mod requests;
pub mod world;
