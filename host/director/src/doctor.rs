//! What is wrong around a director, and the commands that mend it: `wvs doctor`.
//!
//! Without a running director it finds what would keep one from starting, and where the administrator
//! sets routes and settings, what is missing of them. With one it compares the kernel with what
//! packets need, asks the kernel for the ways that they would take, and asks the director for what it
//! has seen. Nothing is changed, and nothing is sent but probes, if asked for.

mod addresses;
mod finding;
mod kernel;
mod packets;
mod probe;
mod rights;
mod settings;
mod traffic;
mod width;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use wvs_core::service::Protocol;

pub use finding::{Code, Finding, Severity};

use crate::config::{Config, RoutingMode};
use crate::control::snapshot::{ConnectionList, ServicesSnapshot, StatsSnapshot};
use crate::control::{self, AskError, CONNECTIONS, CONNECTIONS_LISTED_MAX, SERVICES, STATS};
use crate::output::count;
use crate::route::inspect::{Inspector, ServerWay};
use crate::route::{Link, RouteError};
use crate::run::route_needs;
use kernel::Beside;
use probe::{Outcome, Target};
use traffic::Seen;

/// Addresses for documentation, which nobody has (RFC 5737, RFC 3849): IPv4, IPv6.
const NOBODY: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
];

/// How long a server that seems to be silent, or a client that seems to wait, is given: longer than
/// any round trip.
const SECOND_LOOK: Duration = Duration::from_secs(1);

/// Whether and how servers are asked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Probing {
    /// Whether they are.
    pub is_wanted: bool,
    /// In the name of this client; `None` for an address that nobody has.
    pub client: Option<IpAddr>,
}

/// Whether there is a director for the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DirectorState {
    /// It answers on its control socket.
    Running,
    /// None is running.
    Stopped,
    /// There may be one that cannot be asked.
    Unknown,
}

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Whether a director was running.
    pub director: DirectorState,
    /// What is wrong, in the order in which to mend it.
    pub findings: Vec<Finding>,
    /// What could not be looked at, and why.
    pub unexamined: Vec<String>,
}

impl Report {
    /// Whether something of severity [`Severity::Error`] was found.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.findings.iter().any(Finding::is_error)
    }
}

/// Why nothing could be examined.
#[derive(Debug, thiserror::Error)]
pub enum ExamineError {
    /// The kernel does not say.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// Probes need raw sockets.
    #[error("cannot probe the servers: {0}; run as root, or without --probe")]
    Probe(io::Error),
}

/// Examines this host, the network around it and the director that runs with `config`, which was
/// read from `file`. To be called within a tokio runtime, in the director's network namespace.
///
/// # Errors
/// See [`ExamineError`].
pub async fn examine(
    config: &Config,
    file: &Path,
    probing: Probing,
) -> Result<Report, ExamineError> {
    let inspector = Inspector::connect(route_needs(config)).await?;
    let device = inspector.device().await;
    let (state, mut findings) = find_director(config, file, device.as_ref()).await;
    let mut unexamined = Vec::new();
    let is_running = state != DirectorState::Stopped;
    if !is_running {
        findings.extend(rights::look(file));
        findings.extend(device_in_use(config, device.as_ref()));
    }
    let is_routed = is_running || config.routing == RoutingMode::Off;
    findings.extend(addresses::refused(&inspector, is_routed).await?);
    findings.extend(addresses::unannounced(&inspector).await?);

    let ways = inspector.ways().await;
    let seen =
        if state == DirectorState::Running { look_twice(config).await } else { Seen::default() };
    let running_device = device.as_ref().filter(|_| is_running);
    findings.extend(match running_device {
        None => kernel::before_a_start(&inspector, config).await?,
        Some(device) => {
            let has_errors = findings.iter().any(Finding::is_error);
            let beside = Beside { inspector: &inspector, config, device, ways: &ways, seen: &seen };
            beside.look(has_errors, &mut unexamined).await?
        }
    });
    findings.extend(width::of_device(&inspector, config, running_device).await);

    let outcomes = if probing.is_wanted {
        probe_servers(config, &ways, probing.client)?
    } else {
        BTreeMap::new()
    };
    findings.extend(look_at_servers(&inspector, config, &ways, &seen, &outcomes).await?);
    if !probing.is_wanted {
        let answering = seen.answering();
        let untried = ways.iter().filter(|way| !answering.contains(&way.server)).count();
        if untried > 0 {
            unexamined.push(format!(
                "whether replies of {} come back by this host: nothing was seen of them yet; \
                 `--probe` asks them",
                count(untried, "real server", "real servers"),
            ));
        }
    }
    findings.sort_by_key(|finding| finding.code);
    Ok(Report { director: state, findings, unexamined })
}

/// Whether a director answers on the control socket, and what is wrong with that.
async fn find_director(
    config: &Config,
    file: &Path,
    device: Option<&Link>,
) -> (DirectorState, Vec<Finding>) {
    match control::ask::<StatsSnapshot>(&config.socket, STATS).await {
        Ok(_) => (DirectorState::Running, Vec::new()),
        Err(AskError::NoDirector { .. }) => (DirectorState::Stopped, Vec::new()),
        Err(error @ AskError::NoRights { .. }) => {
            let state =
                if device.is_some() { DirectorState::Unknown } else { DirectorState::Stopped };
            let finding = Finding::new(Code::SocketForbidden, error.to_string())
                .command(format!("sudo wvs doctor -c {}", file.display()));
            (state, vec![finding])
        }
        Err(error) => {
            let finding = Finding::new(Code::DirectorSilent, error.to_string())
                .advice("see the director's log; `systemctl restart wvs` where it is a service");
            (DirectorState::Unknown, vec![finding])
        }
    }
}

fn device_in_use(config: &Config, device: Option<&Link>) -> Option<Finding> {
    let name = &device?.name;
    let socket = config.socket.display();
    let what = format!("the network device {name} exists, and no director answers on {socket}");
    let finding = Finding::new(Code::DeviceInUse, what)
        .advice(
            "if a director has it whose socket is another one, stop that one, or choose another \
                 `device.name`; a device that was made to persist has to be deleted",
        )
        .command(format!("ip link delete {name}"));
    Some(finding)
}

/// What the director has seen, at two moments where one is not enough to tell.
async fn look_twice(config: &Config) -> Seen {
    let mut seen = Seen::default();
    look(config, &mut seen).await;
    if !seen.mute_servers(config).is_empty() || seen.has_unanswered() {
        tokio::time::sleep(SECOND_LOOK).await;
        look(config, &mut seen).await;
    }
    seen
}

async fn look(config: &Config, seen: &mut Seen) {
    let path = format!("{CONNECTIONS}?limit={CONNECTIONS_LISTED_MAX}");
    let services = control::ask::<ServicesSnapshot>(&config.socket, SERVICES).await;
    let connections = control::ask::<ConnectionList>(&config.socket, &path).await;
    // A director that ends meanwhile has seen nothing.
    if let (Ok(services), Ok(list)) = (services, connections) {
        seen.add(services, list.connections);
    }
}

/// Asks every server that can be reached.
fn probe_servers(
    config: &Config,
    ways: &[ServerWay],
    client: Option<IpAddr>,
) -> Result<BTreeMap<SocketAddr, Outcome>, ExamineError> {
    if !rights::may_probe() {
        return Err(ExamineError::Probe(io::ErrorKind::PermissionDenied.into()));
    }
    let mut protocols = HashMap::new();
    for service in &config.services {
        let servers = service.servers.iter().map(|server| server.address).chain(service.sorry);
        protocols.extend(servers.map(|server| (server, service.protocol)));
    }
    let targets: Vec<_> = ways
        .iter()
        .map(|way| {
            let nobody = NOBODY[usize::from(way.server.is_ipv6())];
            let client = client.filter(|client| client.is_ipv6() == nobody.is_ipv6());
            let client = client.unwrap_or(nobody);
            Target {
                way,
                protocol: protocols.get(&way.server).copied().unwrap_or(Protocol::Tcp),
                client,
            }
        })
        .collect();
    let outcomes = probe::ask(&targets).map_err(ExamineError::Probe)?;
    Ok(targets.iter().map(|target| target.way.server).zip(outcomes).collect())
}

/// Whether servers answer, and whether their answers come back by here.
async fn look_at_servers(
    inspector: &Inspector,
    config: &Config,
    ways: &[ServerWay],
    seen: &Seen,
    outcomes: &BTreeMap<SocketAddr, Outcome>,
) -> Result<Vec<Finding>, RouteError> {
    let beside = seen.beside_servers(config, inspector.addresses(), ways);
    let mut findings = traffic::clients_beside(&beside, ways);
    let absent = inspector.absent_neighbours().await?;
    let nat: HashSet<_> = inspector.needs().servers.iter().map(|(_, server)| *server).collect();
    let mute = seen.mute_servers(config);
    for way in ways {
        let server = way.server;
        let is_absent = way.gateway.is_none() && absent.contains(&server.ip());
        match (outcomes.get(&server), mute.get(&server)) {
            (Some(outcome), _) => {
                if !outcome.is_alive {
                    let how = if is_absent {
                        "nobody there has its address"
                    } else {
                        "neither a connection nor a ping"
                    };
                    findings.push(traffic::silent(server, how));
                } else if !outcome.is_back && nat.contains(&server) {
                    let how = "it answers this host, but not a client by way of it";
                    findings.push(traffic::no_route_back(server, way, how));
                }
                findings.extend(outcome.hole.map(|longest| width::hole(way, longest)));
            }
            (None, Some(_)) if beside.contains_key(&server) => {}
            (None, Some(_)) if is_absent => {
                findings.push(traffic::silent(server, "nobody there has its address"));
            }
            (None, Some(packets)) => {
                let packets = usize::try_from(*packets).unwrap_or(usize::MAX);
                let count = count(packets, "packet", "packets");
                let how = format!("it was sent {count}, and none came back");
                findings.push(traffic::no_route_back(server, way, &how));
            }
            (None, None) => {}
        }
    }
    Ok(findings)
}
