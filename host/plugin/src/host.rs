//! Where plugins are loaded and run.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use sha2::{Digest, Sha256};
use wasmtime::Engine;

use crate::builtin;
use crate::engine::new_engine;
use crate::error::{HostError, LoadError};
use crate::limits::Limits;
use crate::module::{Module, WeakModule};
use crate::rebuild::Rebuilder;

/// Everything that plugins share: the engine, the one place to compile, the thread that replaces
/// failed instances. One is enough for a director. Cheap to clone.
#[derive(Clone)]
pub struct Host {
    engine: Engine,
    rebuilder: Rebuilder,
    /// The modules that somebody may still use. Held while another one is compiled: hostile ones
    /// take seconds and much memory, so one at a time.
    loaded: Arc<Mutex<Vec<WeakModule>>>,
}

/// Where a plugin comes from.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// A scheduler that comes with the director, by its [name](builtin::NAMES).
    BuiltIn(&'a str),
    /// A file with a module.
    File(&'a Path),
    /// A module in memory.
    Octets {
        /// What to call it.
        name: &'a str,
        /// The module.
        octets: &'a [u8],
    },
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").finish_non_exhaustive()
    }
}

impl Host {
    /// An engine without plugins, and its thread.
    ///
    /// # Errors
    /// When the engine does not run on this machine or the thread cannot be started.
    pub fn new() -> Result<Self, HostError> {
        let engine = new_engine()?;
        Ok(Self { engine, rebuilder: Rebuilder::start()?, loaded: Arc::default() })
    }

    /// Reads, checks and compiles a plugin, without running any of it. One that is loaded already,
    /// with the same name, octets and limits, is not compiled again while anybody uses it.
    ///
    /// Waits until that is done: milliseconds for an ordinary plugin, seconds for a large or
    /// hostile one. Not to be called from a thread that others wait for, such as an asynchronous
    /// runtime's.
    ///
    /// # Errors
    /// Why it is no plugin, or not one within `limits`.
    pub fn load(&self, source: Source<'_>, limits: Limits) -> Result<Module, LoadError> {
        let read;
        let (name, octets) = match source {
            Source::BuiltIn(name) => {
                let unknown = || LoadError::UnknownBuiltIn { name: name.to_owned() };
                (name, builtin::find(name).ok_or_else(unknown)?)
            }
            Source::Octets { name, octets } => (name, octets),
            Source::File(path) => {
                read = read_file(path, limits.module)
                    .map_err(|source| LoadError::Read { path: path.to_owned(), source })?;
                (path.file_stem().and_then(|stem| stem.to_str()).unwrap_or("plugin"), &*read)
            }
        };
        if octets.len() > limits.module {
            return Err(LoadError::TooLarge { limit: limits.module });
        }
        let sha256 = Sha256::digest(octets).into();
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let mut used = loaded.iter().filter_map(WeakModule::upgrade);
        if let Some(module) = used.find(|module| module.is(name, &sha256, &limits)) {
            return Ok(module);
        }
        let module = self.compile(name, octets, sha256, limits)?;
        loaded.retain(WeakModule::is_used);
        loaded.push(module.downgrade());
        Ok(module)
    }

    fn compile(
        &self,
        name: &str,
        octets: &[u8],
        sha256: [u8; 32],
        limits: Limits,
    ) -> Result<Module, LoadError> {
        let rebuilder = self.rebuilder.clone();
        let compile = || Module::compile(&self.engine, rebuilder, name, octets, sha256, limits);
        // On a thread with a stack of its own, which also keeps a panic of the compiler's away
        // from the caller.
        thread::scope(|scope| {
            let thread = thread::Builder::new().name("wvs-compile".to_owned());
            let compiled = thread.spawn_scoped(scope, compile).map(|thread| thread.join());
            match compiled {
                Ok(Ok(compiled)) => compiled,
                Ok(Err(_panic)) => Err(LoadError::CompilerFailed),
                Err(error) => Err(LoadError::Compile(error.to_string())),
            }
        })
    }
}

/// At most one octet more than `limit`, which tells that there are more.
fn read_file(path: &Path, limit: usize) -> std::io::Result<Vec<u8>> {
    let limit = u64::try_from(limit).unwrap_or(u64::MAX);
    let mut octets = Vec::new();
    File::open(path)?.take(limit.saturating_add(1)).read_to_end(&mut octets)?;
    Ok(octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn module_that_somebody_uses_is_not_compiled_again() {
        let host = Host::new().unwrap();
        let loaded = || host.loaded.lock().unwrap().len();
        let load = |name, limits| host.load(Source::BuiltIn(name), limits).unwrap();
        let limits = Limits::default();
        let (first, second) = (load("rr", limits), load("rr", limits));
        assert_eq!((first.sha256(), loaded()), (second.sha256(), 1));
        let other = load("rr", Limits { fuel: limits.fuel + 1, ..limits });
        assert_eq!((other.limits().fuel, loaded()), (limits.fuel + 1, 2));
        let octets = builtin::find("rr").unwrap();
        let _named = host.load(Source::Octets { name: "mine", octets }, limits).unwrap();
        assert_eq!(loaded(), 3);
        // What nobody uses is forgotten.
        drop((first, second, other));
        let _wlc = load("wlc", limits);
        assert_eq!(loaded(), 2);
    }
}
