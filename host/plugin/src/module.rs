//! A module: read, checked against the contract and compiled.

use std::fmt;
use std::sync::Arc;

use wasmtime::{Engine, ExternType, FuncType, InstancePre, Linker};
use wvs_abi::export;
use wvs_core::real_server::RealServer;

use crate::error::{InstanceError, LoadError};
use crate::instance::{Bounds, Instance};
use crate::limits::Limits;
use crate::probe::{self, ProbeReport};
use crate::rebuild::Rebuilder;
use crate::scheduler::WasmScheduler;
use crate::shape::check_shape;
use crate::table::ServerTable;

/// A plugin ready to be used by any number of virtual services. Cheap to clone.
#[derive(Clone)]
pub struct Module {
    shared: Arc<Shared>,
}

struct Shared {
    name: String,
    linked: InstancePre<Bounds>,
    limits: Limits,
    rebuilder: Rebuilder,
}

impl fmt::Debug for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Module").field("name", &self.shared.name).finish_non_exhaustive()
    }
}

impl Module {
    /// Compiles `octets`, after everything about them was checked that can be before. Takes a
    /// while: call it on a thread of its own.
    pub(crate) fn compile(
        engine: &Engine,
        rebuilder: Rebuilder,
        name: &str,
        octets: &[u8],
        limits: Limits,
    ) -> Result<Self, LoadError> {
        check_header(octets)?;
        check_shape(octets, limits.function_body)?;
        let invalid = |error: wasmtime::Error| LoadError::Invalid(format!("{error:#}"));
        wasmtime::Module::validate(engine, octets).map_err(invalid)?;
        let module = wasmtime::Module::new(engine, octets)
            .map_err(|error| LoadError::Compile(format!("{error:#}")))?;
        check_exports(&module)?;
        check_memory(&module, limits.memory)?;
        let linked = Linker::new(engine).instantiate_pre(&module).map_err(invalid)?;
        let shared = Shared { name: name.to_owned(), linked, limits, rebuilder };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The name it was loaded under.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// What its instances may take.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.shared.limits
    }

    /// Tries the plugin in a throw-away instance: with the service's `config` (JSON text) and
    /// `servers` it must give valid answers to 64 synthetic requests, and the same ones twice if it
    /// says that it is pure. Takes milliseconds; run before a plugin gets a service.
    ///
    /// # Errors
    /// The first thing that the plugin did wrong.
    pub fn probe(
        &self,
        config: Option<&str>,
        servers: &[Arc<RealServer>],
    ) -> Result<ProbeReport, InstanceError> {
        probe::probe(Instance::new(self, config)?, &ServerTable::new(servers))
    }

    /// A scheduler for one virtual service with this `config` (JSON text) and these `servers`. It
    /// is not [probed](Self::probe) again.
    ///
    /// # Errors
    /// When the plugin does not start or refuses `config` or `servers`.
    pub fn scheduler(
        &self,
        config: Option<&str>,
        servers: &[Arc<RealServer>],
    ) -> Result<WasmScheduler, InstanceError> {
        WasmScheduler::new(self, config, ServerTable::new(servers))
    }

    pub(crate) fn linked(&self) -> &InstancePre<Bounds> {
        &self.shared.linked
    }

    pub(crate) fn rebuilder(&self) -> &Rebuilder {
        &self.shared.rebuilder
    }
}

/// Whether this is a core module in its binary form.
fn check_header(octets: &[u8]) -> Result<(), LoadError> {
    match octets.first_chunk::<8>() {
        // A component has version 13, and 1 where a core module has 0.
        Some([0, b'a', b's', b'm', 0x0D, 0, 1, 0]) => Err(LoadError::Component),
        Some([0, b'a', b's', b'm', ..]) => Ok(()),
        _ => Err(LoadError::NotWasm { is_text: octets.trim_ascii_start().starts_with(b"(module") }),
    }
}

/// A function of the contract: all parameters and results are `i32`.
struct Signature {
    export: &'static str,
    parameters: usize,
    results: usize,
    is_required: bool,
    text: &'static str,
}

const SIGNATURES: [Signature; 7] = {
    const fn required(export: &'static str, parameters: usize, text: &'static str) -> Signature {
        Signature { export, parameters, results: 1, is_required: true, text }
    }
    const fn optional(export: &'static str, parameters: usize, text: &'static str) -> Signature {
        Signature { export, parameters, results: 1, is_required: false, text }
    }
    [
        required(export::ABI, 0, "a function () -> (i32)"),
        required(export::REGION, 2, "a function (i32, i32) -> (i32)"),
        required(export::SCHEDULE, 1, "a function (i32) -> (i32)"),
        optional(export::CAPS, 0, "a function () -> (i32)"),
        optional(export::INIT, 1, "a function (i32) -> (i32)"),
        optional(export::SERVERS_CHANGED, 1, "a function (i32) -> (i32)"),
        Signature { results: 0, ..optional(export::INITIALIZE, 0, "a function () -> ()") },
    ]
};

fn check_exports(module: &wasmtime::Module) -> Result<(), LoadError> {
    if module.get_export(export::START).is_some() && module.get_export(export::INITIALIZE).is_none()
    {
        return Err(LoadError::Command);
    }
    for signature in &SIGNATURES {
        let (export, expected) = (signature.export, signature.text);
        let found = match module.get_export(export) {
            Some(ExternType::Func(found)) if signature.is(&found) => continue,
            Some(ExternType::Func(found)) => describe(&found),
            Some(other) => kind(&other).to_owned(),
            None if signature.is_required => {
                return Err(LoadError::MissingExport { export, expected });
            }
            None => continue,
        };
        return Err(LoadError::WrongExport { export, expected, found });
    }
    Ok(())
}

fn check_memory(module: &wasmtime::Module, limit: usize) -> Result<(), LoadError> {
    let (export, expected) = (export::MEMORY, "a memory");
    match module.get_export(export) {
        Some(ExternType::Memory(memory)) => {
            let octets = memory.minimum().saturating_mul(memory.page_size());
            let is_allowed = usize::try_from(octets).is_ok_and(|octets| octets <= limit);
            if is_allowed { Ok(()) } else { Err(LoadError::MemoryTooLarge { octets, limit }) }
        }
        Some(other) => {
            Err(LoadError::WrongExport { export, expected, found: kind(&other).to_owned() })
        }
        None => Err(LoadError::MissingExport { export, expected }),
    }
}

impl Signature {
    fn is(&self, found: &FuncType) -> bool {
        found.params().len() == self.parameters
            && found.results().len() == self.results
            && found.params().chain(found.results()).all(|value| value.is_i32())
    }
}

/// A signature as [`Signature::text`] writes it.
fn describe(function: &FuncType) -> String {
    let list = |values: &mut dyn Iterator<Item = wasmtime::ValType>| {
        values.map(|value| value.to_string()).collect::<Vec<_>>().join(", ")
    };
    let parameters = list(&mut function.params());
    let results = list(&mut function.results());
    format!("a function ({parameters}) -> ({results})")
}

fn kind(export: &ExternType) -> &'static str {
    match export {
        ExternType::Func(_) => "a function",
        ExternType::Global(_) => "a global",
        ExternType::Table(_) => "a table",
        ExternType::Memory(_) => "a memory",
        ExternType::Tag(_) => "a tag",
    }
}
