//! How packets get into the director and back out: routes, policy rules and kernel settings.
//!
//! ```text
//!            VIP/32 dev wvs0                          rule: from RIP, sport RPORT: lookup 11900
//! client ──────────────────► wvs0 ── director ──► real server ──────────────────► wvs0 ── director ──► client
//! ```
//!
//! Fragments and ICMP errors, the host's own among them, come to the director as well: docs/OPERATIONS.md
//! lists every step with its reason.
//!
//! Everything is set at the start, step by step, and taken back in the reverse order.
//! Routes and rules carry the protocol number [`PROTOCOL`], and the rule `iif DEVICE lookup N + 1`
//! says whose the tables N to N + 3 are: when the device is gone, so is its director, and the next
//! start of any director in the network namespace removes what it left. Settings are put back
//! from a [`Ledger`].

mod follow;
pub(crate) mod inspect;
mod left_over;
mod netlink;
mod plan;
mod step;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::{fmt, fmt::Write as _, io};

use nix::errno::Errno;
use wvs_core::service::Protocol;

use crate::device;
use crate::sysctl::{Ledger, LedgerError, LedgerLock, STATE_FOLDER};
pub use follow::{Follower, follow};
pub(crate) use netlink::{HostAddress, Link, Packet};
use netlink::{Netlink, Way};
use plan::{Surroundings, Tables};
use step::Step;

/// The number that marks routes and rules as ours, as in `ip rule show protocol 119`.
pub const PROTOCOL: u8 = 119;

/// The MTU when nothing says otherwise: Ethernet's.
const MTU_DEFAULT: u32 = 1500;

/// The smallest MTU that IPv6 works with (RFC 8200 section 5).
const IPV6_MTU_MIN: u32 = 1280;

/// What is to be routed through the director.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteNeeds {
    /// The name of the director's TUN device.
    pub device: String,
    /// Addresses whose packets go to the director.
    pub vips: Vec<IpAddr>,
    /// Those among [`vips`](Self::vips) that have a service with full NAT, so that programs on this
    /// host can connect to them.
    pub full_nat_vips: Vec<IpAddr>,
    /// Addresses that stand in for clients with full NAT: packets to them go to the director, too.
    pub pools: Vec<IpAddr>,
    /// Real servers with NAT, whose replies have to be led to the director: protocol, RIP and port.
    pub servers: Vec<(Protocol, SocketAddr)>,
    /// Real servers with full NAT, which reply to an address of [`pools`](Self::pools).
    pub full_nat_servers: Vec<SocketAddr>,
}

impl RouteNeeds {
    /// Adds real servers that are reached by NAT, or by full NAT from the addresses of `pool`.
    pub fn add_servers(
        &mut self,
        protocol: Protocol,
        pool: Option<&[IpAddr]>,
        servers: impl Iterator<Item = SocketAddr>,
    ) {
        match pool {
            None => self.servers.extend(servers.map(|server| (protocol, server))),
            Some(pool) => {
                self.pools.extend(pool);
                self.full_nat_servers.extend(servers);
            }
        }
    }

    /// Adds all that `other` needs.
    pub fn add(&mut self, other: &Self) {
        self.vips.extend(&other.vips);
        self.full_nat_vips.extend(&other.full_nat_vips);
        self.pools.extend(&other.pools);
        self.servers.extend(&other.servers);
        self.full_nat_servers.extend(&other.full_nat_servers);
        self.tidy();
    }

    /// Has everything once, however many services need it.
    pub fn tidy(&mut self) {
        fn without_doubles<T: Ord>(list: &mut Vec<T>) {
            list.sort_unstable();
            list.dedup();
        }
        without_doubles(&mut self.vips);
        without_doubles(&mut self.full_nat_vips);
        without_doubles(&mut self.pools);
        without_doubles(&mut self.servers);
        without_doubles(&mut self.full_nat_servers);
    }

    /// Every address that is routed to the director.
    fn own_addresses(&self) -> BTreeSet<IpAddr> {
        self.vips.iter().chain(&self.pools).copied().collect()
    }

    /// Every real server.
    pub(crate) fn all_servers(&self) -> impl Iterator<Item = SocketAddr> {
        let servers = self.servers.iter().map(|(_, server)| *server);
        servers.chain(self.full_nat_servers.iter().copied())
    }

    /// Whether anything of the family is to be routed.
    fn has_family(&self, is_ipv6: bool) -> bool {
        let servers = self.all_servers().map(|server| server.ip());
        self.own_addresses().into_iter().chain(servers).any(|address| address.is_ipv6() == is_ipv6)
    }

    /// Whether there is a server of the family whose replies have to be led to the director.
    fn has_nat(&self, is_ipv6: bool) -> bool {
        self.servers.iter().any(|(_, server)| server.is_ipv6() == is_ipv6)
    }
}

/// What an address of the director's is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// What clients connect to.
    Vip,
    /// What stands in for clients in front of real servers.
    Pool,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vip => "virtual address",
            Self::Pool => "pool address",
        })
    }
}

/// Why routing could not be set up or taken back.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// A VIP or an address of a pool is one of this host.
    #[error(
        "the {role} {address} is also an address of this host, which would answer in the \
         director's place: remove it there (`ip address show to {address}` says where it is)"
    )]
    IsLocal {
        /// The address.
        address: IpAddr,
        /// What it is to be.
        role: Role,
    },
    /// A VIP or an address of a pool is multicast, broadcast or the like.
    #[error("the {role} {address} is no address of a single host: use a unicast address")]
    IsNotUnicast {
        /// The address.
        address: IpAddr,
        /// What it is to be.
        role: Role,
    },
    /// Somebody else routes exactly a VIP or an address of a pool.
    #[error(
        "this host has a route to exactly {address} already (`ip route show {address}`): remove it, \
         or set `routing: off` and route to the director yourself"
    )]
    IsRouted {
        /// The address.
        address: IpAddr,
    },
    /// A real server is an address of this host.
    #[error(
        "the real server {server} is an address of this host: replies of the host itself do not \
         pass the director; use `forward: fullnat`, or a server on another host"
    )]
    ServerIsLocal {
        /// RIP and port.
        server: SocketAddr,
    },
    /// A real server has the address of a VIP or of a pool.
    #[error("the real server {server} has a virtual address: packets would go round in circles")]
    ServerIsVip {
        /// RIP and port.
        server: SocketAddr,
    },
    /// No way to a real server.
    #[error(
        "no route to the real server {server} ({source}): correct its address or add a route to it"
    )]
    NoRoute {
        /// RIP and port.
        server: SocketAddr,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Another director on this host has the server's replies.
    #[error(
        "replies of the real server {server} go to another director on this host already, by the \
         rule `{rule}`: use another port or address of the server for this director"
    )]
    ServerIsTaken {
        /// RIP and port.
        server: SocketAddr,
        /// The other director's rule.
        rule: String,
    },
    /// Not allowed to change routes.
    #[error(
        "no right to change routes (tried `{step}`): run as root or with the capability \
         CAP_NET_ADMIN, or set `routing: print` and set them yourself"
    )]
    NoRights {
        /// The command that would do the same.
        step: String,
    },
    /// The kernel refused a step.
    #[error("the kernel refused `{step}`: {source}")]
    Refused {
        /// The command that would do the same.
        step: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The device to route to does not exist.
    #[error("there is no network device {device} to route to")]
    NoDevice {
        /// Its name.
        device: String,
    },
    /// Somebody uses all table numbers that could be ours.
    #[error(
        "the routing tables {first} to {last} are all in use: remove what `ip rule show protocol \
         119` lists of directors that are no more",
        first = Tables::FIRST, last = Tables::LAST
    )]
    NoTables,
    /// No conversation with the kernel.
    #[error("cannot talk to the kernel about routes: {source}")]
    Netlink {
        /// What happened.
        source: io::Error,
    },
    /// A setting could not be changed or put back.
    #[error(transparent)]
    Setting(#[from] LedgerError),
}

/// Routing as set up; [`take_back`](Self::take_back) undoes it. When it is dropped without, or the
/// process is killed, the next start of a director in the network namespace cleans up.
#[derive(Debug)]
pub struct Routing {
    netlink: Netlink,
    device_index: u32,
    ledger: Ledger,
    done: Vec<Step>,
}

/// Removes what directors that are no more left behind, then routes `needs` to the director.
/// The folder [`STATE_FOLDER`] keeps the settings to be put back; it is made if it is missing.
///
/// To be called while the director's device is open, within a tokio runtime, on a thread in the
/// director's network namespace.
///
/// # Errors
/// See [`RouteError`]. What was set already is taken back.
pub async fn set_up(needs: &RouteNeeds) -> Result<Routing, RouteError> {
    let netlink = Netlink::connect()?;
    let device_index = netlink
        .link(&needs.device)
        .await
        .map_err(|_| RouteError::NoDevice { device: needs.device.clone() })?
        .index;
    let lock = LedgerLock::take(Path::new(STATE_FOLDER)).await?;
    let rules = left_over::remove(&netlink, &needs.device).await?;
    let ledgers = lock.put_back_left_over(&needs.device)?;
    if rules > 0 || ledgers > 0 {
        tracing::warn!(rules, ledgers, "removed what a director that ended without warning left");
    }

    let surroundings = explore(&netlink, needs).await?;
    let in_use = tables_in_use(&netlink, &needs.device, &surroundings).await?;
    let mut routing =
        Routing { netlink, device_index, ledger: lock.open(&needs.device)?, done: Vec::new() };
    for tables in Tables::all().filter(|tables| tables.are_none_of(&in_use.all)) {
        match routing.apply(plan::steps(needs, &surroundings, tables)).await {
            Ok(()) => return Ok(routing),
            Err(Refusal { step, source }) => {
                routing.undo().await;
                // Somebody's table without a rule to it: leave it alone and try the next.
                if step.is_claim() && is(&source, Errno::EEXIST) {
                    continue;
                }
                lock.close(routing.ledger)?;
                return Err(explain(&step, source));
            }
        }
    }
    lock.close(routing.ledger)?;
    Err(RouteError::NoTables)
}

/// The commands that [`set_up`] stands for, for somebody who wants to give them by hand, and those
/// that take them back. Needs no rights.
///
/// # Errors
/// As [`set_up`], as far as it can be said without changing anything.
pub async fn print(needs: &RouteNeeds) -> Result<String, RouteError> {
    let netlink = Netlink::connect()?;
    let surroundings = explore(&netlink, needs).await?;
    let in_use = tables_in_use(&netlink, &needs.device, &surroundings).await?;
    let free = || Tables::all().find(|tables| tables.are_none_of(&in_use.all));
    let tables = in_use.own.or_else(free).ok_or(RouteError::NoTables)?;
    let steps = plan::steps(needs, &surroundings, tables);
    let mut text = format!("# Route to the director, once the device {} is there:\n", needs.device);
    for step in &steps {
        let _ = writeln!(text, "{step}");
    }
    // Comments, so that the whole can be given to a shell.
    text.push_str("\n# To take it back:\n");
    for step in steps.iter().rev() {
        if let Some(undo) = step.undo() {
            let _ = writeln!(text, "# {undo}");
        }
    }
    Ok(text)
}

/// The MTU for the director's device, in octets: the smallest of the ways to the real servers and
/// of the default routes. With a larger one a client would be told about packets that it never
/// sent, because the kernel would measure them after translation.
///
/// # Errors
/// As [`set_up`], as far as it concerns the real servers.
pub async fn mtu(needs: &RouteNeeds) -> Result<u16, RouteError> {
    smallest_mtu(&Netlink::connect()?, needs).await
}

async fn smallest_mtu(netlink: &Netlink, needs: &RouteNeeds) -> Result<u16, RouteError> {
    let mut smallest = u32::from(u16::MAX);
    let mut is_known = false;
    for server in needs.all_servers() {
        let way = way_to(netlink, server).await?;
        if let Some(mtu) = netlink.mtu(&way).await? {
            smallest = smallest.min(mtu);
            is_known = true;
        }
    }
    // Nobody has these addresses (RFC 5737, RFC 3849): what leads there is the default route.
    let nobody = [
        IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
    ];
    for address in nobody.into_iter().filter(|address| needs.has_family(address.is_ipv6())) {
        if let Ok(way) = netlink.way_to(address).await
            && let Some(mtu) = netlink.mtu(&way).await?
        {
            smallest = smallest.min(mtu);
            is_known = true;
        }
    }
    let floor = if needs.has_family(true) { IPV6_MTU_MIN } else { u32::from(device::MTU_MIN) };
    let mtu = if is_known { smallest.max(floor) } else { MTU_DEFAULT };
    Ok(u16::try_from(mtu).unwrap_or(u16::MAX))
}

impl Routing {
    /// Takes everything back, in the reverse order, and puts the settings back as they were. To be
    /// called before the device is closed.
    ///
    /// # Errors
    /// See [`RouteError`]; everything that could be taken back was.
    pub async fn take_back(mut self) -> Result<(), RouteError> {
        let lock = LedgerLock::take(Path::new(STATE_FOLDER)).await?;
        let refused = self.undo().await;
        lock.close(self.ledger)?;
        refused.map_or(Ok(()), Err)
    }

    async fn apply(&mut self, steps: Vec<Step>) -> Result<(), Refusal> {
        for step in steps {
            let result = match &step {
                Step::Setting(setting) if setting.is_of_device => {
                    setting.establish().map_err(RefusalSource::Kernel)
                }
                Step::Setting(setting) => self
                    .ledger
                    .set(&setting.name, &setting.value, &setting.along)
                    .map_err(RefusalSource::Ledger),
                Step::Route(route) => {
                    self.netlink.add(route.message(self.device_index)).await.map_err(Into::into)
                }
                Step::Rule(rule) => self.netlink.add_rule(rule.message()).await.map_err(Into::into),
            };
            match result {
                Ok(()) => self.done.push(step),
                Err(source) => return Err(Refusal { step, source }),
            }
        }
        Ok(())
    }

    /// Undoes all routes and rules, going on after a refusal, the first of which is returned. What
    /// is gone already, as with a deleted device, is as good as undone.
    async fn undo(&mut self) -> Option<RouteError> {
        let mut refused = None;
        while let Some(step) = self.done.pop() {
            let result = match &step {
                Step::Setting(_) => continue,
                Step::Route(route) => self.netlink.remove(route.message(self.device_index)).await,
                Step::Rule(rule) => self.netlink.remove_rule(rule.message()).await,
            };
            if let Err(source) = result
                && ![Errno::ESRCH, Errno::ENOENT, Errno::ENODEV]
                    .iter()
                    .any(|errno| source.raw_os_error() == Some(*errno as i32))
            {
                refused.get_or_insert_with(|| explain(&step, source.into()));
            }
        }
        refused
    }
}

/// A step that failed.
struct Refusal {
    step: Step,
    source: RefusalSource,
}

enum RefusalSource {
    Kernel(io::Error),
    Ledger(LedgerError),
}

impl From<io::Error> for RefusalSource {
    fn from(error: io::Error) -> Self {
        Self::Kernel(error)
    }
}

fn is(source: &RefusalSource, errno: Errno) -> bool {
    matches!(source, RefusalSource::Kernel(error) if error.raw_os_error() == Some(errno as i32))
}

fn explain(step: &Step, source: RefusalSource) -> RouteError {
    let is_denied = is(&source, Errno::EPERM) || is(&source, Errno::EACCES);
    let exists = is(&source, Errno::EEXIST);
    match source {
        RefusalSource::Ledger(error) => RouteError::Setting(error),
        RefusalSource::Kernel(_) if is_denied => RouteError::NoRights { step: step.to_string() },
        RefusalSource::Kernel(source) => match step.own_address() {
            Some(address) if exists => RouteError::IsRouted { address },
            _ => RouteError::Refused { step: step.to_string(), source },
        },
    }
}

/// Looks at everything that the plan depends on, and refuses what cannot work.
async fn explore(netlink: &Netlink, needs: &RouteNeeds) -> Result<Surroundings, RouteError> {
    if let Some(unfit) = unfit_addresses(netlink, needs).await.into_iter().next() {
        return Err(unfit);
    }
    let own = needs.own_addresses();
    if let Some(server) = needs.all_servers().find(|server| own.contains(&server.ip())) {
        return Err(RouteError::ServerIsVip { server });
    }
    for server in &needs.full_nat_servers {
        way_to(netlink, *server).await?;
    }
    let mut links = Vec::new();
    for (protocol, server) in &needs.servers {
        let way = way_to(netlink, *server).await?;
        if way.is_local {
            return Err(RouteError::ServerIsLocal { server: *server });
        }
        let link = netlink
            .link_at(way.link_index)
            .await
            .map_err(|source| RouteError::NoRoute { server: *server, source })?;
        links.push((*protocol, *server, link.name));
    }
    Ok(Surroundings::around(needs, links))
}

/// Why VIPs and pools cannot be routed to the director: one error for each address that cannot.
async fn unfit_addresses(netlink: &Netlink, needs: &RouteNeeds) -> Vec<RouteError> {
    let mut unfit = Vec::new();
    for address in needs.own_addresses() {
        let role = if needs.vips.contains(&address) { Role::Vip } else { Role::Pool };
        match netlink.way_to(address).await {
            Ok(Way { is_local: true, .. }) => unfit.push(RouteError::IsLocal { address, role }),
            Ok(Way { is_unicast: false, .. }) => {
                unfit.push(RouteError::IsNotUnicast { address, role });
            }
            // Having no route yet is what a VIP is like.
            Ok(_) | Err(_) => {}
        }
    }
    unfit
}

/// What [`set_up`] would refuse about VIPs and pools on this host as it is now: an error for each
/// that is an address of this host, or of no single one. Needs no rights and changes nothing; to be
/// called within a tokio runtime.
///
/// # Errors
/// [`RouteError::Netlink`].
pub async fn check(needs: &RouteNeeds) -> Result<Vec<RouteError>, RouteError> {
    Ok(unfit_addresses(&Netlink::connect()?, needs).await)
}

/// The tables that rules look up, none of which may take the replies that we need.
async fn tables_in_use(
    netlink: &Netlink,
    device: &str,
    surroundings: &Surroundings,
) -> Result<InUse, RouteError> {
    let rules = netlink.rules().await?;
    let own = rules.iter().find_map(|rule| left_over::tables_of(rule, device));
    for (server, wanted) in plan::rules_for_servers(&surroundings.servers, Tables::FIRST) {
        let taking = rules.iter().find(|rule| left_over::is_ours(rule) && wanted.selects_as(rule));
        let table = taking.map(netlink::table_of_rule);
        if let Some(table) = table
            && own.is_none_or(|own| !own.numbers().contains(&table))
        {
            let rule = Step::Rule(step::Rule { table, ..wanted }).to_string();
            return Err(RouteError::ServerIsTaken { server, rule });
        }
    }
    Ok(InUse { own, all: rules.iter().map(netlink::table_of_rule).collect() })
}

/// Tables that rules look up.
struct InUse {
    /// Those of our own device: after what was left over is gone, set by hand as printed.
    own: Option<Tables>,
    all: TableNumbers,
}

async fn way_to(netlink: &Netlink, server: SocketAddr) -> Result<Way, RouteError> {
    let way = netlink.way_to(server.ip()).await;
    way.map_err(|source| RouteError::NoRoute { server, source })
}

/// Table numbers that rules look up.
type TableNumbers = BTreeSet<u32>;
