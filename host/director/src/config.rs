//! The configuration: plain data, read from YAML with every problem of a file found in one run.
//!
//! `keys` lists every key there is, `document` parses the text, `schema` walks the tree with
//! `reader`'s help and makes the [`Config`].

use std::collections::HashMap;
use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fmt, fs, io};

use wvs_core::connection::table::TableLimits;
use wvs_core::director::ClosedPort;
use wvs_core::roster::{Drain, Parting};
use wvs_core::service::{Protocol, ServiceAddress, Settings};
use wvs_core::time::Moment;

mod admin;
mod connection_log;
mod document;
mod forwarding;
pub(crate) mod health;
mod json_schema;
mod key_path;
pub mod keys;
mod kind;
mod persistence;
mod plugins;
mod problem;
mod reach;
mod reader;
mod schema;
mod servers;
pub mod units;

pub use connection_log::{ConnectionLogConfig, LogTarget};
pub use health::{HealthConfig, PassiveConfig};
pub use json_schema::json_schema;
pub use kind::Kind;
pub use problem::{Place, Problem, Severity};
pub(crate) use schema::{SERVICES_MAX, is_name, why_not_a_host};
pub(crate) use servers::{SERVERS_MAX, THRESHOLD_MAX};

pub(crate) use plugins::MODULE_OCTETS_MAX;

use wvs_health::{Check, ServerKey};
use wvs_plugin::{Limits, TrialLimits};

use crate::output::count;
pub(crate) use document::FILE_OCTETS_MAX;
use document::Node;
use units::Percent;

/// Everything a director is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The TUN device.
    pub device: DeviceConfig,
    /// Who sets routes, rules and sysctls.
    pub routing: RoutingMode,
    /// Whether the file is read again by itself when it changed.
    pub watch: bool,
    /// The control socket.
    pub socket: PathBuf,
    /// Who reaches the director, and how.
    pub admin: AdminConfig,
    /// How many connections there may be, 1 or more.
    pub limits: TableLimits,
    /// How many templates a service with persistence may have, 1 or more.
    pub templates_max: usize,
    /// How many health checks there may be at once, 1 or more.
    pub checks_max: usize,
    /// The director's own answers a second.
    pub replies_per_second: u32,
    /// Whether echo requests to a VIP without an ICMP service are answered.
    pub answer_echo: bool,
    /// What becomes of packets to ports of a VIP that no service has.
    pub closed_port: ClosedPort,
    /// What `GET /metrics` tells.
    pub metrics: MetricsConfig,
    /// The log of the connections, if there is to be one.
    pub connection_log: Option<ConnectionLogConfig>,
    /// Plugins from files, in the order of the file.
    pub plugins: Vec<PluginConfig>,
    /// The virtual services, in the order of the file.
    pub services: Vec<ServiceConfig>,
}

/// The TUN device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceConfig {
    /// Its name, 1 to 15 octets.
    pub name: String,
    /// Its MTU in octets; `None` for the smallest on the ways to the real servers.
    pub mtu: Option<u16>,
    /// How many queues it has; `None` for one for each processor, up to 8.
    pub queues: Option<NonZeroU16>,
    /// Whether the kernel may hand over packets of up to 64 KiB and unfinished checksums.
    pub offload: bool,
}

/// Who reaches the running director, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminConfig {
    /// The permissions of the control socket.
    pub mode: u32,
    /// The name or number of its group; `None` for that of the process.
    pub group: Option<String>,
    /// A TCP listener beside it.
    pub tcp: Option<TcpConfig>,
}

impl Default for AdminConfig {
    /// The owner and the process's group, by the socket only.
    fn default() -> Self {
        Self { mode: 0o660, group: None, tcp: None }
    }
}

/// Where programs reach the director that know a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpConfig {
    /// The address to listen on.
    pub listen: SocketAddr,
    /// The file with the secret.
    pub token_file: PathBuf,
}

/// Who sets routes, policy rules and sysctls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoutingMode {
    /// The director, which takes them back when it stops.
    Managed,
    /// The administrator, with the commands that the director prints.
    Print,
    /// The administrator.
    Off,
}

/// What `GET /metrics` tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MetricsConfig {
    /// Whether it tells of each real server, too.
    pub servers: bool,
}

/// A scheduler plugin from a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginConfig {
    /// The name that services know it by; never that of a built-in.
    pub name: String,
    /// The module.
    pub file: PathBuf,
    /// The only hash that the file may have.
    pub sha256: Option<[u8; 32]>,
    /// Whether a file that changed is put to work by itself.
    pub watch: bool,
    /// What it may take.
    pub limits: Limits,
}

/// A virtual service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceConfig {
    /// Its name, once in the configuration.
    pub name: String,
    /// What it carries.
    pub protocol: Protocol,
    /// What chooses the real server.
    pub scheduler: SchedulerConfig,
    /// How packets get to the real servers.
    pub forwarding: ForwardingConfig,
    /// What can be changed while it runs.
    pub settings: Settings,
    /// What becomes of the connections of a server that is drained or no longer described.
    pub drain: DrainConfig,
    /// RIP and port of the server that takes connections when the others are too few.
    pub sorry: Option<SocketAddr>,
    /// The real servers, in the order that the scheduler sees them in.
    pub servers: Vec<ServerConfig>,
}

/// How a server is emptied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainConfig {
    /// How long that may take; `None` for as long as it does.
    pub deadline: Option<Duration>,
    /// What becomes of TCP connections that are left then.
    pub then: Parting,
}

impl Default for DrainConfig {
    fn default() -> Self {
        Self { deadline: None, then: Parting::Reset }
    }
}

impl DrainConfig {
    /// Beginning at `now`.
    #[must_use]
    pub fn from(self, now: Moment) -> Drain {
        Drain { deadline: self.deadline.map(|deadline| now.after(deadline)), then: self.then }
    }
}

impl ServiceConfig {
    /// The first of its virtual addresses with the first of its ports; port 0 for all that no
    /// other service has, and for ICMP.
    #[must_use]
    pub fn address(&self) -> ServiceAddress {
        self.settings.reach.first(self.protocol)
    }
}

/// How packets get to the real servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForwardingConfig {
    /// Servers see the client, and answer through the director.
    Nat,
    /// Servers see an address of this pool, and answer that.
    FullNat(PoolConfig),
}

/// What stands in for clients with full NAT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolConfig {
    /// Addresses of the VIP's family, at least one.
    pub addresses: Vec<IpAddr>,
    /// The ports of each, above 0.
    pub ports: RangeInclusive<u16>,
}

/// The scheduler of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchedulerConfig {
    /// A built-in's name or that of one of [`Config::plugins`].
    pub plugin: String,
    /// What the plugin is configured with: JSON text.
    pub config: Option<String>,
    /// For how many decisions the predecessor of a new plugin is kept at hand, to take its place
    /// again at a fault.
    pub probation: u64,
    /// Octets of the latest of what the plugin is told and answers that are kept; `None` for none.
    pub record: Option<usize>,
    /// What is asked beside it.
    pub shadow: Option<ShadowConfig>,
}

/// A candidate for a scheduler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShadowConfig {
    /// A built-in's name or that of one of [`Config::plugins`].
    pub plugin: String,
    /// What the plugin is configured with: JSON text.
    pub config: Option<String>,
    /// For how many of the clients its word counts.
    pub share: Percent,
    /// When its trial ends by itself.
    pub limits: TrialLimits,
}

/// A real server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerConfig {
    /// RIP and port; port 0 for ICMP, and for the port that the client connects to.
    pub address: SocketAddr,
    /// Its weight, 0 to 65535; 0 is quiesced.
    pub weight: u32,
    /// With so many connections it gets no new ones; 0 for no limit.
    pub upper_threshold: u32,
    /// With fewer it gets some again; 0 for three quarters of the upper one.
    pub lower_threshold: u32,
    /// Whether it is needed only when the others are too few.
    pub is_backup: bool,
    /// How its health is watched: its own word on it, or else the service's. `None` for not at all.
    pub health: Option<HealthConfig>,
}

impl Config {
    /// What is to be asked of each server that is to be asked something.
    pub fn health_checks(&self) -> impl Iterator<Item = (ServerKey, Check)> {
        let of_service = |service: &'_ ServiceConfig| {
            let of_server = |server: &ServerConfig| {
                let check = server.health.as_ref()?.check(server.address)?;
                Some((ServerKey { service: service.name.clone(), server: server.address }, check))
            };
            service.servers.iter().filter_map(of_server).collect::<Vec<_>>()
        };
        self.services.iter().flat_map(of_service)
    }

    /// The plugin of this name among those from files.
    #[must_use]
    pub fn plugin(&self, name: &str) -> Option<&PluginConfig> {
        self.plugins.iter().find(|plugin| plugin.name == name)
    }
}

/// What was read from a file: a configuration, or what could be understood of one, and the
/// problems.
#[derive(Debug)]
pub struct Reading {
    file: PathBuf,
    config: Config,
    problems: Vec<Problem>,
    text: String,
    /// The path of each service by its name.
    services: HashMap<String, String>,
}

/// Everything that is wrong with a file. One of the problems at least is an error.
#[derive(Debug)]
pub struct ConfigError {
    /// The file.
    pub file: PathBuf,
    /// The problems in the order of the file, warnings among them.
    pub problems: Vec<Problem>,
}

impl Reading {
    /// Reads a file. What is wrong with it, even that it cannot be opened, is among the
    /// [`problems`](Self::problems).
    #[must_use]
    pub fn of_file(path: &Path) -> Self {
        match read_text(path) {
            Ok(text) => Self::of_text(path, &text),
            Err(problem) => Self {
                file: path.to_owned(),
                config: Config::default(),
                problems: vec![problem],
                text: String::new(),
                services: HashMap::new(),
            },
        }
    }

    /// Reads a text as if it were the content of `path`, which itself is not touched.
    #[must_use]
    pub fn of_text(path: &Path, text: &str) -> Self {
        let folder = path.parent().unwrap_or_else(|| Path::new(""));
        let (config, reader) = schema::read(text, folder);
        let mut reading = Self {
            file: path.to_owned(),
            config,
            problems: reader.problems,
            text: text.to_owned(),
            services: reader.services,
        };
        reading.sort();
        reading
    }

    /// The file.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// What was read; empty when it could not be.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What was understood; only with [`is_usable`](Self::is_usable) it is what the file means.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What is wrong, in the order of the file.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Whether nothing worse than warnings was found.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.problems.iter().all(|problem| problem.severity == Severity::Warning)
    }

    /// Where the service of this name stands, such as `services[0]`.
    #[must_use]
    pub fn service_path(&self, name: &str) -> Option<&str> {
        self.services.get(name).map(String::as_str)
    }

    /// Adds errors that showed only when the configuration was put to use: each with the path to
    /// what it is about, and what is wrong. Reads the text again.
    pub fn add_errors(&mut self, errors: impl IntoIterator<Item = (String, String)>) {
        // Whether it can be read at all is among the problems already.
        let root = Node::parse(&self.text).ok();
        self.problems.extend(errors.into_iter().map(|(path, message)| {
            let place = root.as_ref().and_then(|root| key_path::find(root, &path));
            Problem { severity: Severity::Error, path, message, place }
        }));
        self.sort();
    }

    fn sort(&mut self) {
        self.problems.sort_by_key(|problem| problem.place);
    }

    /// The configuration and its warnings.
    ///
    /// # Errors
    /// [`ConfigError`] when the file cannot be used.
    pub fn into_config(self) -> Result<(Config, Vec<Problem>), ConfigError> {
        if self.is_usable() {
            Ok((self.config, self.problems))
        } else {
            Err(ConfigError { file: self.file, problems: self.problems })
        }
    }
}

impl fmt::Display for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        list(f, &self.file, &self.problems)
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        list(f, &self.file, &self.problems)
    }
}

impl std::error::Error for ConfigError {}

fn list(f: &mut fmt::Formatter<'_>, file: &Path, problems: &[Problem]) -> fmt::Result {
    let warnings = problems.iter().filter(|problem| problem.severity == Severity::Warning).count();
    let errors = problems.len() - warnings;
    write!(f, "{}: ", file.display())?;
    if errors > 0 || warnings == 0 {
        f.write_str(&count(errors, "problem", "problems"))?;
    }
    if errors > 0 && warnings > 0 {
        f.write_str(", ")?;
    }
    if warnings > 0 {
        f.write_str(&count(warnings, "warning", "warnings"))?;
    }
    for problem in problems {
        write!(f, "\n  {problem}")?;
    }
    Ok(())
}

/// The file's text, or why there is none.
fn read_text(path: &Path) -> Result<String, Problem> {
    let error = |message: String, place| Problem {
        severity: Severity::Error,
        path: String::new(),
        message,
        place,
    };
    let octets = read_at_most(path, FILE_OCTETS_MAX).map_err(|cause| {
        let remedy = match cause.kind() {
            io::ErrorKind::NotFound => "give the path of the configuration with -c",
            io::ErrorKind::PermissionDenied => "make it readable for this user",
            io::ErrorKind::IsADirectory => "give the path of a file",
            _ => "see whether the file is whole",
        };
        error(format!("cannot be read: {cause}; {remedy}"), None)
    })?;
    if octets.len() > FILE_OCTETS_MAX {
        let most = units::format_size(u64::try_from(FILE_OCTETS_MAX).unwrap_or(u64::MAX));
        return Err(error(format!("larger than {most}; no configuration is"), None));
    }
    String::from_utf8(octets).map_err(|cause| {
        let good = cause.utf8_error().valid_up_to();
        let before = cause.as_bytes().get(..good).unwrap_or_default();
        let message = "not UTF-8 here; save the file as UTF-8".to_owned();
        error(message, Some(place_after(&String::from_utf8_lossy(before))))
    })
}

/// The file's octets, cut off one octet above `limit`, which tells that there are more.
pub(crate) fn read_at_most(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    let limit = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    let mut octets = Vec::new();
    fs::File::open(path)?.take(limit).read_to_end(&mut octets)?;
    Ok(octets)
}

/// The place right behind a text that begins a file.
fn place_after(text: &str) -> Place {
    let last_line = text.rsplit('\n').next().unwrap_or_default();
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX).saturating_add(1);
    Place { line: count(text.matches('\n').count()), column: count(last_line.chars().count()) }
}
