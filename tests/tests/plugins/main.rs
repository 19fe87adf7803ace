//! Scheduler plugins in their host: what is refused, what a failing plugin costs, and that the
//! built-in ones decide in wasm as they do natively.

mod built_ins;
mod callbacks;
mod faults;
mod guide;
mod hostile;
mod imports;
mod promises;
mod recorder;
mod refused;
mod replays;
mod succession;
mod trial;

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

/// A module of the contract with `schedule` as the body of `wvs_schedule` (parameter `$n`) and
/// `rest` beside it. Regions are 8 KiB each from address 8192 on, that of a state at 131072.
fn module_of(rest: &str, schedule: &str) -> Vec<u8> {
    let text = format!(
        r#"(module
            {rest}
            (memory (export "memory") 4)
            (func (export "wvs_abi") (result i32) (i32.const 0x10000))
            (func (export "wvs_region") (param $kind i32) (param $size i32) (result i32)
                (if (i32.eq (local.get $kind) (i32.const 3))
                    (then (return (i32.const 131072))))
                (i32.mul (i32.add (local.get $kind) (i32.const 1)) (i32.const 8192)))
            (func (export "wvs_schedule") (param $n i32) (result i32) {schedule}))"#
    );
    wat::parse_str(text).unwrap()
}

fn load_of(rest: &str, schedule: &str) -> Module {
    let octets = module_of(rest, schedule);
    HOST.load(Source::Octets { name: "made", octets: &octets }, Limits::default()).unwrap()
}

/// Real servers by weight, with the identities 1, 2, 3 ..
fn servers(weights: &[u32]) -> Vec<Arc<RealServer>> {
    let server = |(id, weight): (u8, &u32)| {
        let address = SocketAddr::from((Ipv4Addr::new(10, 0, 0, id), 80));
        Arc::new(RealServer::new(id.into(), address, *weight, terms()))
    };
    (1..).zip(weights).map(server).collect()
}
