//! From a configuration to virtual services at work: plugins loaded, tried and seated.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::{fmt, io};

use sha2::{Digest, Sha256};
use wvs_core::pool::Pool;
use wvs_core::real_server::RealServer;
use wvs_core::roster::{Member, Standing};
use wvs_core::service::{Forwarding, Service, ServiceConfig as CoreServiceConfig, Terms};
use wvs_core::services::Services;
use wvs_core::time::Moment;
use wvs_health::{self as health, Kind, ProbeError};
use wvs_plugin::{Host, HostError, InstanceError, Limits, LoadError, Module, Source};

use crate::config::{
    Config, ForwardingConfig, PluginConfig, PoolConfig, Reading, SchedulerConfig, ServerConfig,
    ServiceConfig, read_at_most,
};
use crate::control::{Token, TokenError};
use crate::seat::{Generation, Seat, SeatError};

/// The virtual services of a configuration, ready for packets.
#[derive(Debug)]
pub struct Deployment {
    /// The services, for the director.
    pub services: Services,
    /// Who schedules for each of them, in the same order.
    pub seats: Vec<Arc<Seat>>,
    /// The numbers that are still free.
    pub numbers: Numbers,
}

/// The next numbers of services and real servers. None is given out twice in a director, so that
/// nobody takes a new server for an old one.
#[derive(Clone, Debug, Default)]
pub struct Numbers {
    services: u32,
    servers: u32,
}

impl Numbers {
    fn service(&mut self) -> u32 {
        let number = self.services;
        self.services = number.wrapping_add(1);
        number
    }

    fn server(&mut self) -> u32 {
        let number = self.servers;
        self.servers = number.wrapping_add(1);
        number
    }
}

/// Something in a configuration that showed itself only when the plugins and other files were looked at.
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
    /// The candidate beside a service's scheduler.
    Shadow(String),
    /// The health checks of a service's servers.
    Health(String),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plugin(name) => write!(f, "plugin {name}"),
            Self::Service(name) => write!(f, "service {name}"),
            Self::Shadow(name) => write!(f, "shadow of service {name}"),
            Self::Health(name) => write!(f, "health of service {name}"),
        }
    }
}

/// What is wrong with a plugin, or with what health checks need.
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
    /// The plugin does not get a service.
    #[error(transparent)]
    Seat(#[from] SeatError),
    /// A file that a health check needs is missing, or another one than it needs.
    #[error(transparent)]
    Probe(#[from] ProbeError),
}

/// Reads a configuration and tries its plugins with its services, as far as both could be read:
/// everything that is wrong with a file, without touching anything.
///
/// # Errors
/// No plugin works on this machine.
pub fn check(path: &Path) -> Result<Reading, HostError> {
    let mut reading = Reading::of_file(path);
    // The seed does not matter: nothing is scheduled but the trial, which has its own.
    let deployment = Deployment::new(reading.config(), &Host::new()?, || 0, Moment::default());
    if let Err(misfits) = deployment {
        add_misfits(&mut reading, &misfits);
    }
    if let Some(tcp) = &reading.config().admin.tcp {
        match Token::read(&tcp.token_file) {
            // The director's user may read what whoever checks may not.
            Err(TokenError::File { source, .. })
                if source.kind() == io::ErrorKind::PermissionDenied => {}
            Err(error) => add_bad_token(&mut reading, &error),
            Ok(_) => {}
        }
    }
    Ok(reading)
}

/// Adds that the token file is of no use, where the file has it.
pub fn add_bad_token(reading: &mut Reading, error: &TokenError) {
    reading.add_errors([("admin.token_file".to_owned(), error.to_string())]);
}

/// Adds what showed itself only when the plugins were loaded, each where the file has it.
pub fn add_misfits(reading: &mut Reading, misfits: &[Misfit]) {
    let of_service = |name: &str, key: &str| {
        reading.service_path(name).map_or_else(String::new, |path| format!("{path}.{key}"))
    };
    let path = |subject: &Subject| match subject {
        Subject::Plugin(name) => format!("plugins.{name}.file"),
        Subject::Service(name) => of_service(name, "scheduler"),
        Subject::Shadow(name) => of_service(name, "scheduler.shadow"),
        Subject::Health(name) => of_service(name, "health"),
    };
    let of = |misfit: &Misfit| (path(&misfit.subject), misfit.cause.to_string());
    let errors: Vec<_> = misfits.iter().map(of).collect();
    reading.add_errors(errors);
}

impl Misfit {
    pub(crate) fn of_service(service: &ServiceConfig, cause: impl Into<MisfitCause>) -> Self {
        Self { subject: Subject::Service(service.name.clone()), cause: cause.into() }
    }

    pub(crate) fn of_shadow(service: &ServiceConfig, cause: impl Into<MisfitCause>) -> Self {
        Self { subject: Subject::Shadow(service.name.clone()), cause: cause.into() }
    }
}

impl Deployment {
    /// Loads every plugin of `config` and tries each with each service that uses it. `seed` gives
    /// the seeds of the random numbers that schedulers get, and `now` is when they begin.
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
        now: Moment,
    ) -> Result<Self, Vec<Misfit>> {
        let mut misfits = Vec::new();
        let modules = Modules::load(config, host, &mut misfits);
        let mut seats = Vec::with_capacity(config.services.len());
        let mut numbers = Numbers::default();
        for service in &config.services {
            misfits.extend(probe_health(service));
            seats.extend(open(service, &modules, &mut numbers, seed(), now, &mut misfits));
        }
        if !misfits.is_empty() {
            return Err(misfits);
        }
        let seats: Vec<_> = seats.into_iter().map(Arc::new).collect();
        let services = seats.iter().map(|seat| Arc::clone(seat.service())).collect();
        Ok(Self { services: Services::new(services, Vec::new(), &[]), seats, numbers })
    }
}

/// Looks at the files that the health checks of a service need, each once.
pub(crate) fn probe_health(service: &ServiceConfig) -> Vec<Misfit> {
    let mut kinds: Vec<&Kind> = Vec::new();
    for server in &service.servers {
        let kind = server.health.as_ref().and_then(|health| health.kind.as_ref());
        kinds.extend(kind.filter(|kind| !kinds.contains(kind)));
    }
    let misfit = |error| Misfit {
        subject: Subject::Health(service.name.clone()),
        cause: MisfitCause::Probe(error),
    };
    kinds.into_iter().filter_map(|kind| kind.probe().err()).map(misfit).collect()
}

/// Probes the plugin of a service, puts both to work, and begins the trial that the configuration
/// wants, if it wants one. `None` for a plugin that could not be loaded, which was reported already.
pub(crate) fn open(
    config: &ServiceConfig,
    modules: &Modules<'_>,
    numbers: &mut Numbers,
    seed: u64,
    now: Moment,
    misfits: &mut Vec<Misfit>,
) -> Option<Seat> {
    let SchedulerConfig { plugin, config: plugin_config, probation, record, shadow } =
        &config.scheduler;
    let first = modules.generation(plugin, plugin_config.as_deref())?;
    let terms = Arc::new(terms(config));
    let members = members(config, &terms, numbers, |_| None);
    let sorry = config.sorry.map(|address| sorry(address, &terms, numbers));
    let servers: Vec<_> = members.iter().map(|member| Arc::clone(&member.server)).collect();
    let started = first
        .module
        .probe(plugin_config.as_deref(), &servers)
        .and_then(|_| first.module.scheduler(plugin_config.as_deref(), &servers));
    let scheduler = match started {
        Ok(scheduler) => scheduler,
        Err(error) => {
            misfits.push(Misfit::of_service(config, error));
            return None;
        }
    };
    let core = CoreServiceConfig {
        id: numbers.service(),
        terms,
        settings: config.settings.clone(),
        members,
        sorry,
        seed,
    };
    let service = Arc::new(Service::new(core, Box::new(scheduler), now));
    let seat = Seat::new(service, first, *probation);
    seat.set_record(*record);
    if let Some(shadow) = shadow
        && let Some(candidate) = modules.generation(&shadow.plugin, shadow.config.as_deref())
    {
        let begun = seat.try_out(candidate, shadow.share.hundredths(), shadow.limits);
        misfits.extend(begun.err().map(|error| Misfit::of_shadow(config, error)));
    }
    Some(seat)
}

fn terms(service: &ServiceConfig) -> Terms {
    let forwarding = match &service.forwarding {
        ForwardingConfig::Nat => Forwarding::Nat,
        ForwardingConfig::FullNat(PoolConfig { addresses, ports }) => {
            Forwarding::FullNat(Arc::new(Pool::new(addresses.clone(), ports.clone())))
        }
    };
    Terms::forwarding(&service.name, service.address(), forwarding)
}

/// The real servers that a configuration describes, as they stand from its point of view. Those that
/// `present` knows by their address are the same as before, the others get the next numbers.
pub(crate) fn members(
    service: &ServiceConfig,
    terms: &Arc<Terms>,
    numbers: &mut Numbers,
    present: impl Fn(SocketAddr) -> Option<(Arc<RealServer>, Option<Standing>)>,
) -> Vec<Member> {
    let member = |config: &ServerConfig| {
        let (server, before) = present(config.address).unwrap_or_else(|| {
            let (address, weight) = (config.address, config.weight);
            let server = RealServer::new(numbers.server(), address, weight, Arc::clone(terms));
            (Arc::new(server), None)
        });
        let before = before.unwrap_or_else(|| {
            let check = config.health.as_ref().and_then(|health| health.check(config.address));
            let is_down = check.is_some_and(|check| check.start == health::Standing::Down);
            Standing { is_down, ..Standing::default() }
        });
        let standing = Standing {
            configured: config.weight,
            set: None,
            drain: None,
            is_backup: config.is_backup,
            upper_threshold: config.upper_threshold,
            lower_threshold: config.lower_threshold,
            // What its health check says is not the configuration's to say.
            measured: before.measured,
            is_down: before.is_down,
            is_failing: before.is_failing,
        };
        Member { server, standing }
    };
    service.servers.iter().map(member).collect()
}

/// A sorry server, with the next number.
pub(crate) fn sorry(
    address: SocketAddr,
    terms: &Arc<Terms>,
    numbers: &mut Numbers,
) -> Arc<RealServer> {
    Arc::new(RealServer::new(numbers.server(), address, 1, Arc::clone(terms)))
}

/// Every plugin that a configuration describes, and every built-in that a service uses.
#[derive(Debug)]
pub(crate) struct Modules<'c>(HashMap<&'c str, Module>);

impl<'c> Modules<'c> {
    /// Loads them all. One that cannot be loaded is among the misfits.
    pub(crate) fn load(config: &'c Config, host: &Host, misfits: &mut Vec<Misfit>) -> Self {
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
            let SchedulerConfig { plugin, shadow, .. } = &service.scheduler;
            let shadow = shadow.as_ref().map(|shadow| shadow.plugin.as_str());
            for name in [Some(plugin.as_str()), shadow].into_iter().flatten() {
                if modules.contains_key(name) || config.plugin(name).is_some() {
                    continue;
                }
                match load_built_in(name, host) {
                    Ok(module) => {
                        modules.insert(name, module);
                    }
                    Err(cause) => misfits.push(Misfit::of_service(service, cause)),
                }
            }
        }
        Self(modules)
    }

    /// The plugin of this name with a configuration, if it could be loaded.
    pub(crate) fn generation(&self, name: &str, config: Option<&str>) -> Option<Generation> {
        let module = self.0.get(name)?.clone();
        Some(Generation { module, config: config.map(Arc::from) })
    }
}

fn load_built_in(name: &str, host: &Host) -> Result<Module, MisfitCause> {
    Ok(host.load(Source::BuiltIn(name), Limits::default())?)
}

/// Loads a plugin by its name in the configuration, or a built-in. Waits for compilation.
///
/// # Errors
/// Why it cannot be loaded; without a plugin of this name what [`Host::load`] says.
pub(crate) fn load_named(name: &str, config: &Config, host: &Host) -> Result<Module, MisfitCause> {
    config
        .plugin(name)
        .map_or_else(|| load_built_in(name, host), |plugin| load_plugin(plugin, host))
}

fn load_plugin(plugin: &PluginConfig, host: &Host) -> Result<Module, MisfitCause> {
    // Read once: what was hashed is what runs.
    let octets = read_at_most(&plugin.file, plugin.limits.module)
        .map_err(|source| LoadError::Read { path: plugin.file.clone(), source })?;
    if let Some(wanted) = plugin.sha256 {
        let found: [u8; 32] = Sha256::digest(&octets).into();
        if found != wanted {
            return Err(MisfitCause::Hash { found: hex(&found) });
        }
    }
    Ok(host.load(Source::Octets { name: &plugin.name, octets: &octets }, plugin.limits)?)
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
        let deployment =
            Deployment::new(&config(TWO_SERVICES), &host, || 0, Moment::default()).unwrap();
        let services = deployment.services.list();
        let ids: Vec<_> = services.iter().map(|service| service.id()).collect();
        assert_eq!(ids, [0, 1]);
        let servers: HashSet<_> = services
            .iter()
            .flat_map(|service| {
                service.servers().iter().map(|server| server.id()).collect::<Vec<_>>()
            })
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
        let misfits = Deployment::new(&config(text), &host, || 0, Moment::default()).unwrap_err();
        let subjects: Vec<_> = misfits.iter().map(|misfit| misfit.subject.to_string()).collect();
        assert_eq!(subjects, ["plugin gone", "service a", "service c"]);
    }
}
