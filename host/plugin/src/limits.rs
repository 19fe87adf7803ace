//! What a plugin may take.

/// Limits of one plugin, each with a default that ordinary schedulers stay far below.
///
/// Fuel counts executed instructions: about one unit each, more for those that divide, copy, fill
/// or grow.
/// It measures the same on every machine, unlike time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Octets of memory that an instance may have, 64 KiB and more. Default 16 MiB.
    pub memory: usize,
    /// Fuel of one decision. Default 1,000,000: below a millisecond of ordinary instructions, about
    /// 4 ms of the slowest, and up to about 14 ms when all of 16 MiB of memory is touched for the
    /// first time. `wlc` uses some 7,400 for 256 servers.
    pub fuel: u64,
    /// Fuel of reading the configuration and of each new server table. Default 50,000,000.
    pub setup_fuel: u64,
    /// Fuel of starting the module's runtime, which some languages have. Default 200,000,000.
    pub start_fuel: u64,
    /// Octets of a module. Default 4 MiB.
    pub module: usize,
    /// Octets of one function: compiling takes more than linear time. Default 64 KiB.
    pub function_body: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory: 16 << 20,
            fuel: 1_000_000,
            setup_fuel: 50_000_000,
            start_fuel: 200_000_000,
            module: 4 << 20,
            function_body: 64 << 10,
        }
    }
}

/// So many events together have the fuel of one decision: as many as may be told before it.
pub(crate) const EVENTS_A_DECISION: u64 = 64;

/// Octets of a configuration that a plugin is given at most.
pub(crate) const CONFIG_MAX: usize = wvs_abi::CONFIG_OCTETS_MAX as usize;

/// Octets that the configuration's region has at least, so that a reason fits for refusing it.
pub(crate) const REASON_MAX: usize = 256;

/// Octets of stack for the calls within a plugin. The thread that asks it must have them to spare.
pub(crate) const STACK: usize = 128 << 10;

/// Entries of a table of functions.
pub(crate) const TABLE_ENTRIES_MAX: usize = 64 << 10;

/// Functions of a module: each costs the compiler something, even an empty one.
pub(crate) const FUNCTIONS_MAX: usize = 20_000;

/// Parameters and locals of one function. A few octets declare any number of them.
pub(crate) const LOCALS_MAX: usize = 4_096;

/// Blocks, loops and conditions within each other. Compiling takes the square of it; a `switch` of
/// many cases nests one for each.
pub(crate) const NESTING_MAX: usize = 1_024;

/// Results of one function: calls of one with thousands cost the compiler that many values each.
pub(crate) const RESULTS_MAX: usize = 16;

/// Locals times blocks, of all functions together: the compiler keeps track of each local in each
/// block. A Go module of 2 MB has a quarter of a million.
pub(crate) const LOCALS_IN_BLOCKS_MAX: usize = 1 << 19;

/// Calls through tables, of all functions together: two octets each, for which the compiler works
/// as long as for dozens of others.
pub(crate) const INDIRECT_CALLS_MAX: usize = 16 << 10;

/// Entries of the segments that fill tables, all together.
pub(crate) const ELEMENTS_MAX: usize = 64 << 10;

/// Variables of a module: each is set up in each instance.
pub(crate) const GLOBALS_MAX: usize = 1_024;

/// Values that the blocks of one function take and leave together, where there is more than one at
/// a block. Few compilers make any.
pub(crate) const BLOCK_VALUES_MAX: usize = 4_096;
