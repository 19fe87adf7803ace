//! A module: read, checked against the contract and compiled.

use std::fmt;
use std::sync::{Arc, Weak};

use wasmtime::{Engine, ExternType, InstancePre};
use wvs_abi::description::EXPORTS;
use wvs_abi::export;
use wvs_core::real_server::RealServer;

use crate::error::{InstanceError, LoadError};
use crate::guest::Guest;
use crate::imports;
use crate::instance::Instance;
use crate::limits::Limits;
use crate::probe::{self, ProbeReport};
use crate::rebuild::Rebuilder;
use crate::scheduler::WasmScheduler;
use crate::shape::check_shape;
use crate::signature::{self, describe, kind};
use crate::table::ServerTable;

/// A plugin ready to be used by any number of virtual services. Cheap to clone.
#[derive(Clone)]
pub struct Module {
    shared: Arc<Shared>,
}

/// A module that goes when nobody uses it any more.
pub(crate) struct WeakModule(Weak<Shared>);

struct Shared {
    name: Arc<str>,
    sha256: [u8; 32],
    linked: InstancePre<Guest>,
    limits: Limits,
    rebuilder: Rebuilder,
}

impl fmt::Debug for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Module").field("name", &self.shared.name).finish_non_exhaustive()
    }
}

impl Module {
    /// Compiles `octets`, whose hash is `sha256`, after everything about them was checked that can be
    /// before. Takes a while: call it on a thread of its own.
    pub(crate) fn compile(
        engine: &Engine,
        rebuilder: Rebuilder,
        name: &str,
        octets: &[u8],
        sha256: [u8; 32],
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
        let linked = imports::link(engine, &module)?.instantiate_pre(&module).map_err(invalid)?;
        let shared = Shared { name: name.into(), sha256, linked, limits, rebuilder };
        Ok(Self { shared: Arc::new(shared) })
    }

    pub(crate) fn downgrade(&self) -> WeakModule {
        WeakModule(Arc::downgrade(&self.shared))
    }

    /// Whether it is what loading octets of this hash under this name would give.
    pub(crate) fn is(&self, name: &str, sha256: &[u8; 32], limits: &Limits) -> bool {
        let Shared { name: own, sha256: hash, limits: given, .. } = &*self.shared;
        (&**own, hash, given) == (name, sha256, limits)
    }

    /// The name it was loaded under.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    pub(crate) fn shared_name(&self) -> &Arc<str> {
        &self.shared.name
    }

    /// The SHA-256 hash of its octets.
    #[must_use]
    pub fn sha256(&self) -> &[u8; 32] {
        &self.shared.sha256
    }

    /// The name of everything that it exports, in the module's own order.
    pub fn exports(&self) -> impl Iterator<Item = &str> {
        self.linked().module().exports().map(|export| export.name())
    }

    pub(crate) fn has_export(&self, name: &str) -> bool {
        self.linked().module().get_export(name).is_some()
    }

    /// The module and name of everything that it imports.
    pub fn imports(&self) -> impl Iterator<Item = (&str, &str)> {
        self.linked().module().imports().map(|import| (import.module(), import.name()))
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
        self.probe_over(config, &ServerTable::new(servers))
    }

    /// [`probe`](Self::probe) over servers that need not exist.
    ///
    /// # Errors
    /// The first thing that the plugin did wrong.
    pub fn probe_over(
        &self,
        config: Option<&str>,
        servers: &ServerTable,
    ) -> Result<ProbeReport, InstanceError> {
        probe::probe(Instance::new(self, config)?, servers)
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

    pub(crate) fn linked(&self) -> &InstancePre<Guest> {
        &self.shared.linked
    }

    pub(crate) fn rebuilder(&self) -> &Rebuilder {
        &self.shared.rebuilder
    }
}

impl WeakModule {
    pub(crate) fn upgrade(&self) -> Option<Module> {
        Some(Module { shared: self.0.upgrade()? })
    }

    pub(crate) fn is_used(&self) -> bool {
        self.0.strong_count() > 0
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

fn check_exports(module: &wasmtime::Module) -> Result<(), LoadError> {
    if module.get_export(export::START).is_some() && module.get_export(export::INITIALIZE).is_none()
    {
        return Err(LoadError::Command);
    }
    for function in &EXPORTS {
        let export = function.name;
        let found = match module.get_export(export) {
            Some(ExternType::Func(found)) if signature::is(&found, function) => continue,
            Some(ExternType::Func(found)) => describe(&found),
            Some(other) => kind(&other).to_owned(),
            None if function.is_required => {
                let expected = signature::expected(function);
                return Err(LoadError::MissingExport { export, expected });
            }
            None => continue,
        };
        return Err(LoadError::WrongExport {
            export,
            expected: signature::expected(function),
            found,
        });
    }
    Ok(())
}

fn check_memory(module: &wasmtime::Module, limit: usize) -> Result<(), LoadError> {
    let (export, expected) = (export::MEMORY, "a memory".to_owned());
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
