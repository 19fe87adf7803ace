//! From a configuration to virtual services at work: plugins loaded, tried and seated.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use wvs_core::pool::Pool;
use wvs_core::real_server::RealServer;
use wvs_core::service::{Forwarding, Service, ServiceConfig as CoreServiceConfig, Services, Terms};
use wvs_plugin::{Host, HostError, InstanceError, Limits, LoadError, Module, Source};

use crate::config::{
    Config, ForwardingConfig, PluginConfig, PoolConfig, Reading, ServerConfig, ServiceConfig,
    read_at_most,
};
use crate::seat::{Generation, Seat};

/// The virtual services of a configuration, ready for packets.
#[derive(Debug)]
pub struct Deployment {
    /// The services, for the director.
    pub services: Services,
    /// Who schedules for each of them, in the same order.
    pub seats: Vec<Seat>,
}

/// Something in a configuration that showed itself only when the plugins were loaded.
#[derive(Debug, thiserror::Error)]
#[error("{subject}: {cause}")]
pub struct Misfit {
    /// What in the configuration is concerned.
    pub subject: Subject,
    /// What is wrong with it.
    pub cause: MisfitCause,
}

/// What a [`Misfit`] is about, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A plugin from a file.
    Plugin(String),
    /// A service's scheduler.
    Service(String),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plugin(name) => write!(f, "plugin {name}"),
            Self::Service(name) => write!(f, "service {name}"),
        }
    }
}

/// What is wrong with a plugin.
#[derive(Debug, thiserror::Error)]
pub enum MisfitCause {
    /// The file is no plugin.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The file is another one than the configuration wants.
    #[error(
        "the file's SHA-256 hash is {found}; if this is the file you want, put that under `sha256`"
    )]
    Hash {
        /// The file's hash in hexadecimal digits.
        found: String,
    },
    /// The plugin does not work for a service.
    #[error(transparent)]
    Instance(#[from] InstanceError),
}

/// Reads a configuration and tries its plugins with its services, as far as both could be read:
/// everything that is wrong with a file, without touching anything.
///
/// # Errors
/// No plugin works on this machine.
pub fn check(path: &Path) -> Result<Reading, HostError> {
    let mut reading = Reading::of_file(path);
    // The seed does not matter: nothing is scheduled but the trial, which has its own.
    if let Err(misfits) = Deployment::new(reading.config(), &Host::new()?, || 0) {
        add_misfits(&mut reading, &misfits);
    }
    Ok(reading)
}

/// Adds what showed itself only when the plugins were loaded, each where the file has it.
pub fn add_misfits(reading: &mut Reading, misfits: &[Misfit]) {
    for Misfit { subject, cause } in misfits {
        let path = match subject {
            Subject::Plugin(name) => format!("plugins.{name}.file"),
            Subject::Service(name) => match reading.service_path(name) {
                Some(path) => format!("{path}.scheduler"),
                None => String::new(),
            },
        };
        reading.add_error(path, cause.to_string());
    }
}

impl Misfit {
    fn of_service(service: &ServiceConfig, cause: impl Into<MisfitCause>) -> Self {
        Self { subject: Subject::Service(service.name.clone()), cause: cause.into() }
    }
}

impl Deployment {
    /// Loads every plugin of `config` and tries each with each service that uses it. `seed` gives
    /// the seeds of the random numbers that schedulers get.
    ///
    /// Waits for compilation, which takes milliseconds for an ordinary plugin and may take seconds
    /// for a large one.
    ///
    /// # Errors
    /// Everything that is wrong, not just the first.
    pub fn new(
        config: &Config,
        host: &Host,
        mut seed: impl FnMut() -> u64,
    ) -> Result<Self, Vec<Misfit>> {
        let mut misfits = Vec::new();
        let modules = load_modules(config, host, &mut misfits);
        let mut seats = Vec::with_capacity(config.services.len());
        let mut server_ids = 0..;
        for (id, service) in (0..).zip(&config.services) {
            let terms = Arc::new(terms(service));
            let servers = servers(service, &terms, &mut server_ids);
            // A plugin that could not be loaded was reported already.
            let Some(module) = modules.get(service.scheduler.plugin.as_str()) else { continue };
            match seat(id, service, terms, servers, module, seed()) {
                Ok(seat) => seats.push(seat),
                Err(error) => misfits.push(Misfit::of_service(service, error)),
            }
        }
        if !misfits.is_empty() {
            return Err(misfits);
        }
        let services = seats.iter().map(|seat| Arc::clone(seat.service())).collect();
        Ok(Self { services: Services::new(services), seats })
    }
}

/// Probes the plugin of a service and puts both to work.
fn seat(
    id: u32,
    config: &ServiceConfig,
    terms: Arc<Terms>,
    servers: Vec<Arc<RealServer>>,
    module: &Module,
    seed: u64,
) -> Result<Seat, InstanceError> {
    let plugin_config = config.scheduler.config.as_deref();
    module.probe(plugin_config, &servers)?;
    let scheduler = module.scheduler(plugin_config, &servers)?;
    let probation = config.scheduler.probation;
    let first = Generation { module: module.clone(), config: plugin_config.map(Arc::from) };
    let config = CoreServiceConfig {
        id,
        name: config.name.clone(),
        terms,
        on_no_server: config.on_no_server,
        on_stray: config.on_stray,
        servers,
        seed,
    };
    let service = Arc::new(Service::new(config, Box::new(scheduler)));
    Ok(Seat::new(service, first, probation))
}

fn terms(service: &ServiceConfig) -> Terms {
    let forwarding = match &service.forwarding {
        ForwardingConfig::Nat => Forwarding::Nat,
        ForwardingConfig::FullNat(PoolConfig { addresses, ports }) => {
            Forwarding::FullNat(Arc::new(Pool::new(addresses.clone(), ports.clone())))
        }
    };
    Terms { timeouts: service.timeouts.clone(), forwarding, ..Terms::new(service.address) }
}

/// The real servers of a service, each with the next number.
fn servers(
    service: &ServiceConfig,
    terms: &Arc<Terms>,
    ids: &mut impl Iterator<Item = u32>,
) -> Vec<Arc<RealServer>> {
    let server = |(config, id): (&ServerConfig, u32)| {
        Arc::new(RealServer::new(id, config.address, config.weight, Arc::clone(terms)))
    };
    service.servers.iter().zip(ids).map(server).collect()
}

/// Every plugin that the configuration describes, and every built-in that a service uses.
fn load_modules<'c>(
    config: &'c Config,
    host: &Host,
    misfits: &mut Vec<Misfit>,
) -> HashMap<&'c str, Module> {
    let mut modules = HashMap::new();
    for plugin in &config.plugins {
        match load_plugin(plugin, host) {
            Ok(module) => {
                modules.insert(plugin.name.as_str(), module);
            }
            Err(cause) => {
                misfits.push(Misfit { subject: Subject::Plugin(plugin.name.clone()), cause });
            }
        }
    }
    for service in &config.services {
        let name = service.scheduler.plugin.as_str();
        if modules.contains_key(name) || config.plugin(name).is_some() {
            continue;
        }
        match host.load(Source::BuiltIn(name), Limits::default()) {
            Ok(module) => {
                modules.insert(name, module);
            }
            Err(error) => misfits.push(Misfit::of_service(service, error)),
        }
    }
    modules
}

fn load_plugin(plugin: &PluginConfig, host: &Host) -> Result<Module, MisfitCause> {
    let limits = Limits { memory: plugin.memory_max, fuel: plugin.fuel, ..Limits::default() };
    // Read once: what was hashed is what runs.
    let octets = read_at_most(&plugin.file, limits.module)
        .map_err(|source| LoadError::Read { path: plugin.file.clone(), source })?;
    if let Some(wanted) = plugin.sha256 {
        let found: [u8; 32] = Sha256::digest(&octets).into();
        if found != wanted {
            return Err(MisfitCause::Hash { found: hex(&found) });
        }
    }
    Ok(host.load(Source::Octets { name: &plugin.name, octets: &octets }, limits)?)
}

/// A hash in hexadecimal digits.
pub(crate) fn hex(hash: &[u8]) -> String {
    hash.iter().map(|octet| format!("{octet:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn config(text: &str) -> Config {
        Reading::of_text(Path::new("wvs.yaml"), text).into_config().unwrap().0
    }

    const TWO_SERVICES: &str = "
services:
  - { name: a, vip: 192.0.2.1, port: 1, scheduler: rr, servers: [{ address: 10.0.0.1 }, { address: 10.0.0.2 }] }
  - { name: b, vip: 192.0.2.1, port: 2, scheduler: rr, servers: [{ address: 10.0.0.1 }] }
";

    #[test]
    fn numbers_of_services_and_servers_are_used_once_in_a_director() {
        let host = Host::new().unwrap();
        let deployment = Deployment::new(&config(TWO_SERVICES), &host, || 0).unwrap();
        let services = deployment.services.list();
        let ids: Vec<_> = services.iter().map(|service| service.id()).collect();
        assert_eq!(ids, [0, 1]);
        let servers: HashSet<_> = services
            .iter()
            .flat_map(|service| service.servers().iter().map(|server| server.id()))
            .collect();
        assert_eq!(servers.len(), 3);
    }

    #[test]
    fn every_misfit_of_a_configuration_is_found() {
        let text = "
plugins: { gone: { file: gone.wasm } }
services:
  - { name: a, vip: 192.0.2.1, port: 1, scheduler: { plugin: rr, config: 1 }, servers: [] }
  - { name: b, vip: 192.0.2.1, port: 2, scheduler: gone, servers: [] }
  - { name: c, vip: 192.0.2.1, port: 3, scheduler: { plugin: wlc, config: 1 }, servers: [] }
";
        let host = Host::new().unwrap();
        let misfits = Deployment::new(&config(text), &host, || 0).unwrap_err();
        let subjects: Vec<_> = misfits.iter().map(|misfit| misfit.subject.to_string()).collect();
        assert_eq!(subjects, ["plugin gone", "service a", "service c"]);
    }
}
