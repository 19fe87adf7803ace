//! Why a plugin was refused.

use std::io;
use std::path::PathBuf;

use thiserror::Error;
use wvs_abi::{ABI_MAJOR, ABI_MINOR, Region};

use crate::builtin;
use crate::fault::Fault;
use crate::imports;
use crate::limits::CONFIG_MAX;
use crate::text::{EXPLANATION_MAX, NAME_MAX, printable};

/// Why no plugin can be run at all.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HostError {
    /// The engine does not run on this machine.
    #[error("the WebAssembly engine cannot run here: {0}")]
    Engine(String),
    /// No thread for making instances.
    #[error("cannot start the thread that makes plugin instances: {0}")]
    Thread(#[from] io::Error),
}

/// Why a file is not accepted as a plugin, before any of it runs.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LoadError {
    /// No built-in scheduler of this name.
    #[error("there is no built-in scheduler {name:?}; there are {}", builtin::NAMES.join(", "))]
    UnknownBuiltIn {
        /// The name asked for.
        name: String,
    },
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The module is larger than allowed.
    #[error("the module has more than {limit} octets; strip it, or raise the limit")]
    TooLarge {
        /// Octets allowed.
        limit: usize,
    },
    /// A WebAssembly component, not a core module.
    #[error(
        "this is a WebAssembly component, but a plugin is a core module: build for \
         wasm32-unknown-unknown, or without the component step"
    )]
    Component,
    /// Not WebAssembly in its binary form.
    #[error("this is no WebAssembly module{}", if *.is_text {
        ": it is the text form, which wat2wasm or `wasm-tools parse` turns into one" } else { "" })]
    NotWasm {
        /// Whether it looks like the text form.
        is_text: bool,
    },
    /// The module breaks the rules of WebAssembly, or uses an extension that plugins do not have:
    /// memories of 64 bits, several or shared memories, threads, relaxed SIMD.
    #[error("the module is not valid: {}", printable(.0, EXPLANATION_MAX))]
    Invalid(String),
    /// One function is larger than allowed.
    #[error("function {function} has {octets} octets, more than the {limit} allowed")]
    FunctionTooLarge {
        /// Its number among the module's own functions.
        function: usize,
        /// Its octets.
        octets: usize,
        /// Octets allowed.
        limit: usize,
    },
    /// The module has more functions than allowed.
    #[error("the module has {functions} functions, more than the {limit} allowed")]
    TooManyFunctions {
        /// Its functions.
        functions: usize,
        /// Functions allowed.
        limit: usize,
    },
    /// The module has more of something than allowed.
    #[error("the module has {found} {what}, or more, and only {limit} are allowed")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// How many were counted when reading it ended.
        found: usize,
        /// How many are allowed.
        limit: usize,
    },
    /// One function has more parameters and locals than allowed.
    #[error(
        "function {function} has {locals} parameters and locals, more than the {limit} allowed"
    )]
    TooManyLocals {
        /// Its number among the module's own functions.
        function: usize,
        /// Its parameters and locals.
        locals: usize,
        /// Parameters and locals allowed.
        limit: usize,
    },
    /// One function has more blocks within each other than allowed.
    #[error("function {function} nests {depth} blocks or more, and only {limit} are allowed")]
    NestedTooDeep {
        /// Its number among the module's own functions.
        function: usize,
        /// The depth at which reading it ended.
        depth: usize,
        /// The depth allowed.
        limit: usize,
    },
    /// The blocks of one function take and leave more values than allowed.
    #[error(
        "the blocks of function {function} take and leave {values} values or more, and only \
         {limit} are allowed: build without the multi-value extension"
    )]
    TooManyBlockValues {
        /// Its number among the module's own functions.
        function: usize,
        /// The values counted when reading it ended.
        values: usize,
        /// Values allowed.
        limit: usize,
    },
    /// A valid module that could not be turned into machine code.
    #[error(
        "the module could not be compiled: {} (a service that may not map executable memory, \
         systemd's MemoryDenyWriteExecute=yes, cannot run plugins)", printable(.0, EXPLANATION_MAX)
    )]
    Compile(String),
    /// The compiler panicked. Only this module is affected.
    #[error("the compiler failed on this module")]
    CompilerFailed,
    /// The module wants something from the director that it does not offer.
    #[error(
        "the module imports {}.{}, but a plugin is offered only {}; in Rust, build for \
         wasm32-unknown-unknown",
        printable(module, NAME_MAX),
        printable(name, NAME_MAX),
        imports::list()
    )]
    Import {
        /// The import's module.
        module: String,
        /// The import's name.
        name: String,
    },
    /// An import is not what is offered under its name.
    #[error(
        "the module imports {}.{} as {found}, but it is {expected}",
        printable(module, NAME_MAX),
        printable(name, NAME_MAX)
    )]
    WrongImport {
        /// The import's module.
        module: String,
        /// The import's name.
        name: String,
        /// The signature of what is offered.
        expected: &'static str,
        /// What the module has.
        found: String,
    },
    /// A program with a `main`, not a library.
    #[error(
        "the module exports _start without _initialize: it is a command that runs once; build a \
         library (reactor) instead"
    )]
    Command,
    /// A required export is not there.
    #[error("the module does not export {export}, which must be {expected}")]
    MissingExport {
        /// The export.
        export: &'static str,
        /// Its kind or signature in the contract.
        expected: String,
    },
    /// An export is not what the contract says.
    #[error("the module exports {export} as {found}, but it must be {expected}")]
    WrongExport {
        /// The export.
        export: &'static str,
        /// Its kind or signature in the contract.
        expected: String,
        /// What the module has.
        found: String,
    },
    /// The module starts with more memory than it may have.
    #[error("the module starts with {octets} octets of memory, more than the {limit} allowed")]
    MemoryTooLarge {
        /// Octets that it starts with.
        octets: u64,
        /// Octets allowed.
        limit: usize,
    },
}

/// Why no scheduler could be made of a plugin for a virtual service.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum InstanceError {
    /// The engine could not make an instance: no address space for its memory, or a table that
    /// starts larger than allowed.
    #[error("no instance could be made: {}", printable(.0, EXPLANATION_MAX))]
    Instantiation(String),
    /// The engine panicked while making an instance. Only this instance is affected.
    #[error("the engine failed while making an instance")]
    EngineFailed,
    /// Starting it failed: the module's start function or `_initialize`.
    #[error("the plugin did not start: {0}")]
    Start(#[source] Fault),
    /// `wvs_abi` or `wvs_caps` failed.
    #[error("the plugin did not say what it is: {0}")]
    Introduction(#[source] Fault),
    /// Another major version of the contract.
    #[error(
        "the plugin speaks version {major}.{minor} of the plugin contract, this director \
         {ABI_MAJOR}.{ABI_MINOR}: build it against this director's SDK"
    )]
    AbiMajor {
        /// The plugin's major version.
        major: u16,
        /// The plugin's minor version.
        minor: u16,
    },
    /// A later minor version of the contract.
    #[error(
        "the plugin wants version {ABI_MAJOR}.{minor} of the plugin contract, this director has \
         {ABI_MAJOR}.{ABI_MINOR}: it needs a newer director"
    )]
    AbiMinor {
        /// The plugin's minor version.
        minor: u16,
    },
    /// `wvs_caps` has bits that this version does not define.
    #[error(
        "wvs_caps returned {0:#x}, with bits that version {ABI_MAJOR}.{ABI_MINOR} does not define"
    )]
    UnknownCaps(u32),
    /// A region could not be had.
    #[error(transparent)]
    Region(#[from] RegionError),
    /// The plugin takes no configuration but was given one.
    #[error("the plugin takes no configuration (it does not export wvs_init), but one is given")]
    ConfigNotTaken,
    /// The configuration is longer than allowed.
    #[error("the plugin's configuration has {0} octets, more than the {CONFIG_MAX} allowed")]
    ConfigTooLarge(usize),
    /// The plugin does not like its configuration.
    #[error("the plugin refused its configuration: {reason}")]
    ConfigRefused {
        /// Its reason, made printable.
        reason: String,
    },
    /// `wvs_init` failed.
    #[error("the plugin failed on its configuration: {0}")]
    Init(#[source] Fault),
    /// The plugin did not take the service's servers.
    #[error("the plugin failed on the service's servers: {0}")]
    Servers(#[source] Fault),
    /// The plugin failed on one of the synthetic requests that it is tried with.
    #[error("the plugin failed on synthetic request {request} of its trial: {fault}")]
    Probe {
        /// The request's number, from 0.
        request: usize,
        /// What went wrong.
        #[source]
        fault: Fault,
    },
    /// The plugin failed at a synthetic event or tick.
    #[error("the plugin failed at a synthetic event or tick of its trial: {0}")]
    Callback(#[source] Fault),
    /// A plugin that says that it is pure is not.
    #[error(
        "the plugin claims that the same request always gets the same answer (wvs_caps bit 1), \
         but synthetic request {request} got two"
    )]
    NotPure {
        /// The request's number, from 0.
        request: usize,
    },
}

/// Why a file cannot be read as a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RecordingError {
    /// It is something else.
    #[error("this is no recording; `wvs plugin record SERVICE -o FILE` makes one")]
    NoRecording,
    /// It is one of another version.
    #[error("this recording is of another version of wvs; use the one that made it")]
    Version,
    /// It ends too early.
    #[error("the recording ends within segment {segment}; it was not copied whole")]
    CutOff {
        /// The segment's number, from 0.
        segment: usize,
    },
    /// A segment cannot be understood.
    #[error("segment {segment} of the recording is damaged")]
    Broken {
        /// The segment's number, from 0.
        segment: usize,
    },
}

/// Why a region that the plugin named cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RegionError {
    /// The plugin has no such region, or no room.
    #[error("wvs_region has no {size} octets for region {} ({kind:?})", *kind as u32)]
    Refused {
        /// The kind asked for.
        kind: Region,
        /// The octets asked for.
        size: u32,
    },
    /// The region ends beyond the memory.
    #[error(
        "wvs_region gave {address:#x} for {size} octets of region {} ({kind:?}), which ends \
         beyond the plugin's memory", *kind as u32
    )]
    OutOfBounds {
        /// The kind asked for.
        kind: Region,
        /// The octets asked for.
        size: u32,
        /// The address returned.
        address: u32,
    },
    /// The address is not a multiple of 8.
    #[error(
        "wvs_region gave {address:#x} for region {} ({kind:?}), which is not a multiple of 8",
        *kind as u32
    )]
    Misaligned {
        /// The kind asked for.
        kind: Region,
        /// The address returned.
        address: u32,
    },
    /// More records than a memory of 32 bits can hold.
    #[error("region {} ({kind:?}) would have more than 4 GiB", *kind as u32)]
    TooLarge {
        /// The kind.
        kind: Region,
    },
}
