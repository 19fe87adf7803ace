//! Scheduler plugins in their host: what is refused, what a failing plugin costs, and that the
//! built-in ones decide in wasm as they do natively.

mod built_ins;
mod faults;
mod guide;
mod refused;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, LazyLock};

use wvs_core::real_server::RealServer;
use wvs_plugin::{Host, Limits, LoadError, Module, Source, builtin};
use wvs_tests::world::terms;

/// One host for all tests, as a director has one for all services.
static HOST: LazyLock<Host> = LazyLock::new(|| Host::new().unwrap());

/// A scheduler that comes with the director, compiled once.
fn built_in(name: &str) -> Module {
    static MODULES: LazyLock<Vec<Module>> = LazyLock::new(|| {
        let load = |name: &&str| HOST.load(Source::BuiltIn(name), Limits::default()).unwrap();
        builtin::NAMES.iter().map(load).collect()
    });
    MODULES.iter().find(|module| module.name() == name).unwrap().clone()
}

/// The module of a `.wat` beside this file.
fn octets(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plugins/wat");
    wat::parse_file(folder.join(name).with_extension("wat")).unwrap()
}

fn load(name: &str) -> Result<Module, LoadError> {
    HOST.load(Source::Octets { name, octets: &octets(name) }, Limits::default())
}

/// Real servers by weight, with the identities 1, 2, 3 ..
fn servers(weights: &[u32]) -> Vec<Arc<RealServer>> {
    let server = |(id, weight): (u8, &u32)| {
        let address = SocketAddr::from((Ipv4Addr::new(10, 0, 0, id), 80));
        Arc::new(RealServer::new(id.into(), address, *weight, terms()))
    };
    (1..).zip(weights).map(server).collect()
}
