//! Operation in memory, with a folder of their own, for tests.

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use tempfile::TempDir;
use wvs_core::director::Director;
use wvs_plugin::Host;

use super::{Operation, Parts, Ways};
use crate::clock::Clock;
use crate::config::Reading;
use crate::connection_log::ConnectionLog;
use crate::deployment::Deployment;
use crate::route::{RouteError, RouteNeeds};
use crate::run::director_config;

static HOST: LazyLock<Host> = LazyLock::new(|| Host::new().unwrap());

/// Saves a state, and traps when it is handed one.
pub(super) const WITH_STATE: &str = "
    (func (export \"wvs_state_save\") (param i32) (result i32) (i32.const 1))
    (func (export \"wvs_state_load\") (param i32) (result i32) (unreachable))";

/// Leads nothing anywhere.
struct NoWays;

impl Ways for NoWays {
    fn lead(&self, _: RouteNeeds) -> Result<(), RouteError> {
        Ok(())
    }
}

pub(super) struct Fixture {
    folder: TempDir,
}

impl Fixture {
    pub(super) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(super) fn write(&self, name: &str, octets: &[u8]) {
        fs::write(self.path(name), octets).unwrap();
    }

    /// Writes a configuration of services with the schedulers given, named `a`, `b` and so on.
    pub(super) fn configure(&self, head: &str, schedulers: &[&str]) {
        let mut text = format!("{head}\nservices:\n");
        for ((name, port), scheduler) in ('a'..).zip(1..).zip(schedulers) {
            text += &format!(
                "  - {{ name: {name}, vip: 192.0.2.1, port: {port}, scheduler: {scheduler}, \
                 servers: [{{ address: 10.0.0.1 }}, {{ address: 10.0.0.2 }}] }}\n"
            );
        }
        self.write("wvs.yaml", text.as_bytes());
    }

    /// Writes a configuration of one service `a` with these keys and servers.
    pub(super) fn describe(&self, keys: &str, servers: &[&str]) {
        let servers = servers.join(" }, { ");
        self.write(
            "wvs.yaml",
            format!(
                "services: [{{ name: a, vip: 192.0.2.1, port: 80, scheduler: rr, {keys} \
                 servers: [{{ {servers} }}] }}]"
            )
            .as_bytes(),
        );
    }

    /// Puts the configuration to work.
    pub(super) fn start(&self) -> Operation {
        let file = self.path("wvs.yaml");
        let (config, _) = Reading::of_file(&file).into_config().unwrap();
        let clock = Clock::start();
        let deployment = Deployment::new(&config, &HOST, || 0, clock.now()).unwrap();
        let Deployment { services, seats, numbers } = deployment;
        let director = Arc::new(Director::new(director_config(&config, 0), services));
        let connection_log = ConnectionLog::new(Arc::clone(&director), clock);
        connection_log.apply(config.connection_log.as_ref()).unwrap();
        Operation::new(Parts {
            host: HOST.clone(),
            director,
            clock,
            ways: Box::new(NoWays),
            connection_log,
            seats,
            numbers,
            config,
            file,
        })
    }
}

/// A plugin that always picks the server of this index, and has these other exports.
pub(super) fn module(index: u8, exports: &str) -> Vec<u8> {
    let text = format!(
        r#"(module
            (memory (export "memory") 1)
            (func (export "wvs_abi") (result i32) (i32.const 0x10000))
            (func (export "wvs_init") (param i32) (result i32) (i32.const 0))
            (func (export "wvs_region") (param $kind i32) (param $size i32) (result i32)
                (if (i32.gt_u (local.get $size) (i32.const 4096)) (then (return (i32.const 0))))
                (i32.mul (i32.add (local.get $kind) (i32.const 1)) (i32.const 4096)))
            (func (export "wvs_schedule") (param i32) (result i32) (i32.const {index}))
            {exports})"#
    );
    wat::parse_str(text).unwrap()
}

/// What is at work at the service in this place: the plugin and its generation.
pub(super) fn at_work(operation: &Operation, place: usize) -> (String, u16) {
    let plugin = operation.seats()[place].plugin();
    (plugin.name.to_string(), plugin.generation)
}
