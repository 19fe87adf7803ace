//! Write a scheduler plugin for the WebAssembly Virtual Server in Rust.
//!
//! A plugin is a crate with `crate-type = ["cdylib"]`, an implementation of [`Scheduler`]
//! and one line, [`export!`]:
//!
//! ```
//! use wvs_sdk::{Pick, Request, Scheduler, Server, caps};
//!
//! /// Every client's port decides.
//! pub struct ByPort;
//!
//! impl Scheduler for ByPort {
//!     const CAPS: u32 = caps::PURE;
//!
//!     fn new(_config: &str) -> Result<Self, String> {
//!         Ok(Self)
//!     }
//!
//!     fn schedule(&mut self, request: &Request, servers: &[Server]) -> Pick {
//!         let available = || servers.iter().enumerate().filter(|(_, server)| server.is_available());
//!         let wanted = usize::from(request.client_port) % available().count().max(1);
//!         available().nth(wanted).map_or(Pick::NoServer, |(index, _)| Pick::Server(index))
//!     }
//! }
//!
//! wvs_sdk::export!(ByPort);
//!
//! // A scheduler is an ordinary value: its tests are ordinary tests.
//! let servers = [Server { id: 1, weight: 0, ..Server::default() }, Server { id: 2, weight: 1, ..Server::default() }];
//! assert_eq!(ByPort.schedule(&Request::default(), &servers), Pick::Server(1));
//! ```
//!
//! `cargo build --release --target wasm32-unknown-unknown` turns it into the module that the
//! director loads. Clock and randomness stand in the [`Request`], so that the same requests always
//! lead to the same picks. A scheduler that wants more also implements [`State`], [`Ticks`] or
//! [`Events`].
//!
//! What the schedulers that come with the director have in common is here for others too: refusing
//! a configuration ([`no_config`]; the crate `wvs-config` reads one), weighing connections
//! ([`load`]), hashing addresses ([`hash`]), keeping a place in a list that changes ([`Turn`],
//! [`Roster`]), remembering addresses ([`Affinity`]) and writing down a [`mod@state`].

#![no_std]
#![deny(unsafe_code)]

extern crate alloc;

mod affinity;
mod config;
pub mod hash;
// Of use in a module only.
#[cfg(any(test, target_arch = "wasm32"))]
mod heap;
pub mod load;
#[doc(hidden)]
pub mod plugin;
mod roster;
pub mod state;
mod turn;
#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
#[expect(unsafe_code, reason = "statics and an allocator are what the compiler cannot check")]
pub mod wasm;

use alloc::string::String;
use alloc::vec::Vec;

pub use wvs_abi::{Request, Server, ServerInfo, Signals, caps, log_level, server_flags};

pub use affinity::Affinity;
pub use config::no_config;
pub use roster::Roster;
pub use turn::Turn;

/// The README's scheduler, compiled by `cargo test`.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;

/// Writes a line to the director's log, at a level of [`log_level`]: at most 1024 octets, and ten
/// lines a second. In a build for anything but wasm it does nothing.
pub fn log(level: u32, line: &str) {
    #[cfg(target_arch = "wasm32")]
    wasm::log(level, line);
    #[cfg(not(target_arch = "wasm32"))]
    let _ = (level, line);
}

/// A scheduler's answer to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pick {
    /// The server at this index of the list. It must be [available](Server::is_available).
    Server(usize),
    /// No server can take the connection: the client is refused as the virtual service says.
    NoServer,
    /// The director decides, by weighted least connections.
    Defer,
}

impl From<Option<usize>> for Pick {
    /// The server at the index that was found, [`Pick::NoServer`] where none was.
    #[inline]
    fn from(found: Option<usize>) -> Self {
        found.map_or(Self::NoServer, Self::Server)
    }
}

/// Chooses the real server for the first packet of a connection.
///
/// There is one value of the type for each virtual service that uses the plugin. The director asks
/// it one question at a time, so it may keep what it wants in `self`. It must answer within a
/// limit of executed instructions and memory; where it panics or does not return, the director
/// decides by itself and starts a new value.
pub trait Scheduler: Sized {
    /// What the scheduler needs and promises: bits of [`caps`].
    ///
    /// With [`caps::COUNTERS`] the director refreshes [`Server::active`] and [`Server::inactive`]
    /// before each decision; without, they are 0 or stale and a decision is cheaper. A scheduler
    /// with [`caps::PURE`] gives the same answer to the same request over the same servers.
    const CAPS: u32 = caps::COUNTERS;

    /// A scheduler as the service's `config` wants it: JSON text, empty when there is none.
    ///
    /// # Errors
    /// What is wrong with `config`, for the person who wrote it. The director then refuses the
    /// whole configuration. Up to about 250 octets of it are shown.
    fn new(config: &str) -> Result<Self, String>;

    /// Called after [`new`](Self::new) and whenever a server was added or removed or its weight
    /// changed: the place to build a table. Counters changing do not lead here.
    fn servers_changed(&mut self, servers: &[Server]) {
        let _ = servers;
    }

    /// Called before each [`servers_changed`](Self::servers_changed), in the same order, for
    /// schedulers with [`caps::SERVER_INFO`].
    fn server_info_changed(&mut self, info: &[ServerInfo]) {
        let _ = info;
    }

    /// Called before each [`schedule`](Self::schedule) and each tick, in the order of the servers,
    /// for schedulers with [`caps::SIGNALS`].
    fn signals_refreshed(&mut self, signals: &[Signals]) {
        let _ = signals;
    }

    /// Picks for `request` from `servers`, which stand in the order of the configuration.
    fn schedule(&mut self, request: &Request, servers: &[Server]) -> Pick;
}

/// A scheduler that hands what it knows to its successor when it is replaced, by a new version of
/// itself or by anything else that understands it. Named in [`export!`].
pub trait State: Scheduler {
    /// What the successor should know, at most 64 KiB; empty for nothing. It should begin with a
    /// mark of its form, by which [`load`](Self::load) knows it.
    fn save(&self) -> Vec<u8>;

    /// Takes what the predecessor saved, after [`Scheduler::servers_changed`]. `false` when it
    /// means nothing to this scheduler, which must then be as new.
    fn load(&mut self, state: &[u8]) -> bool;
}

/// A scheduler that is called from time to time. Named in [`export!`].
pub trait Ticks: Scheduler {
    /// Called once when the scheduler got its service, and then after as many milliseconds as it
    /// returns, at least 10; 0 for never again. Of `request`, only the time, the random number and
    /// the service's number are filled in.
    fn tick(&mut self, request: &Request, servers: &[Server]) -> u32;
}

/// A scheduler that follows connections. Named in [`export!`].
pub trait Events: Scheduler {
    /// Something happened to a connection of the server at this index. Called in the order of
    /// events before the next [`Scheduler::schedule`], at the latest after a tenth of a second.
    fn event(&mut self, event: Event, server: usize);
}

/// What [`Events`] are told of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// It was opened, whoever chose the server.
    Bound,
    /// It is over.
    Unbound {
        /// Milliseconds from its first packet to its last, to about a second.
        lifetime_ms: u32,
    },
    /// The server answered its first packet with a reset.
    Refused,
    /// The server did not answer before it expired.
    Unanswered,
}

/// Makes a crate a plugin: exports what the director calls, for the given [`Scheduler`] and those of
/// [`State`], [`Ticks`] and [`Events`] that are named behind it.
///
/// ```
/// # use wvs_sdk::{Pick, Request, Scheduler, Server, State};
/// # struct Counting(u64);
/// # impl Scheduler for Counting {
/// #     fn new(_: &str) -> Result<Self, String> { Ok(Self(0)) }
/// #     fn schedule(&mut self, _: &Request, _: &[Server]) -> Pick { Pick::Defer }
/// # }
/// # impl State for Counting {
/// #     fn save(&self) -> Vec<u8> { self.0.to_le_bytes().to_vec() }
/// #     fn load(&mut self, state: &[u8]) -> bool { false }
/// # }
/// wvs_sdk::export!(Counting, State);
/// ```
///
/// Once per crate. Builds for anything but wasm only check that the type is what it is said to be,
/// so the crate can be tested natively and linked together with other plugins.
#[macro_export]
macro_rules! export {
    ($scheduler:ty $(, $part:ident)* $(,)?) => {
        const _: () = {
            const fn is_scheduler<S: $crate::Scheduler>() {}
            is_scheduler::<$scheduler>();
            $(
                const _: () = {
                    const fn has_part<S: $crate::$part>() {}
                    has_part::<$scheduler>();
                };
            )*

            #[cfg(target_arch = "wasm32")]
            mod exports {
                use super::*;

                use $crate::plugin::Plugin;
                use $crate::wasm::Static;

                static PLUGIN: Static<Plugin<$scheduler>> = Static::new(Plugin::new());

                fn with<R>(call: impl FnOnce(&mut Plugin<$scheduler>) -> R) -> R {
                    PLUGIN.with(call)
                }

                #[unsafe(no_mangle)]
                extern "C" fn wvs_abi() -> u32 {
                    $crate::plugin::ABI_VERSION
                }

                #[unsafe(no_mangle)]
                extern "C" fn wvs_caps() -> u32 {
                    <$scheduler as $crate::Scheduler>::CAPS
                }

                #[unsafe(no_mangle)]
                extern "C" fn wvs_region(kind: u32, size: u32) -> usize {
                    with(|plugin| plugin.region(kind, size))
                }

                #[unsafe(no_mangle)]
                extern "C" fn wvs_init(len: u32) -> i32 {
                    with(|plugin| plugin.init(len))
                }

                #[unsafe(no_mangle)]
                extern "C" fn wvs_servers_changed(n: u32) -> i32 {
                    with(|plugin| plugin.servers_changed(n))
                }

                #[unsafe(no_mangle)]
                extern "C" fn wvs_schedule(n: u32) -> i32 {
                    with(|plugin| plugin.schedule(n))
                }

                $($crate::export_part!($part);)*
            }
        };
    };
}

/// Gives a crate that is `#![no_std]` what the standard library would: an allocator and an end for
/// panics, which stop the plugin. Such a module has a third of the size, and is loaded in a third of
/// the time.
///
/// ```
/// #![no_std]
///
/// extern crate alloc;
///
/// use alloc::string::String;
///
/// # use wvs_sdk::{Pick, Request, Scheduler, Server};
/// # struct Deferring;
/// # impl Scheduler for Deferring {
/// #     fn new(_: &str) -> Result<Self, String> { Ok(Self) }
/// #     fn schedule(&mut self, _: &Request, _: &[Server]) -> Pick { Pick::Defer }
/// # }
/// wvs_sdk::no_std!();
/// wvs_sdk::export!(Deferring);
/// # fn main() {}
/// ```
///
/// Once per crate, whose dependencies must do without the standard library too. Builds for anything
/// but wasm have it behind the scenes, so the crate can be tested natively.
#[macro_export]
macro_rules! no_std {
    () => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            use $crate::wasm::Allocator;

            #[global_allocator]
            static ALLOCATOR: Allocator = Allocator::new();

            #[panic_handler]
            fn panic(_: &::core::panic::PanicInfo<'_>) -> ! {
                ::core::arch::wasm32::unreachable()
            }
        };

        #[cfg(not(target_arch = "wasm32"))]
        extern crate std as _;
    };
}

/// The exports of a part that not every scheduler has. For [`export!`].
#[doc(hidden)]
#[macro_export]
macro_rules! export_part {
    (State) => {
        #[unsafe(no_mangle)]
        extern "C" fn wvs_state_save(capacity: u32) -> i32 {
            with(|plugin| plugin.state_save(capacity))
        }

        #[unsafe(no_mangle)]
        extern "C" fn wvs_state_load(len: u32) -> i32 {
            with(|plugin| plugin.state_load(len))
        }
    };
    (Ticks) => {
        #[unsafe(no_mangle)]
        extern "C" fn wvs_tick() -> u32 {
            with(|plugin| plugin.tick())
        }
    };
    (Events) => {
        #[unsafe(no_mangle)]
        extern "C" fn wvs_event(kind: u32, index: u32, argument: u32) {
            with(|plugin| plugin.event(kind, index, argument))
        }
    };
}
