//! The rig that the tests share: packets built and checked by an implementation that is not ours,
//! a director in memory with a clock that the test moves, requests for schedulers, the program as
//! people call it, and the contract in other languages.

pub mod bindings;
pub mod fuzz;
pub mod onlooker;
pub mod packet;
pub mod program;
pub mod recorded;
pub mod requests;
pub mod world;
