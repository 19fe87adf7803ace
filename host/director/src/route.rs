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
//! Everything is set at the start, step by step, and taken back in the reverse order. When the needs
//! change, the steps for the new ones are compared with those taken: what is missing is added, then
//! what is too much taken back, and the rest is not touched.
//! Routes and rules carry the protocol number [`PROTOCOL`], and the rule `iif DEVICE lookup N + 1`
//! says whose the tables N to N + 3 are: when the device is gone, so is its director, and the next
//! start of any director in the network namespace removes what it left. Settings are put back
//! from a [`Ledger`].

mod error;
mod follow;
pub(crate) mod inspect;
mod left_over;
mod needs;
mod netlink;
mod plan;
mod step;
mod tree;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt::Write as _;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use nix::errno::Errno;
use rtnetlink::packet_route::rule::RuleMessage;

use crate::device;
use crate::sysctl::{Ledger, LedgerError, LedgerLock, STATE_FOLDER};
pub use error::{Role, RouteError};
pub use follow::{Follower, follow};
use futures_util::StreamExt;
pub use needs::RouteNeeds;
pub(crate) use netlink::{HostAddress, Link, Packet};
use netlink::{Netlink, Way};
use plan::{Plan, Surroundings, Tables};
use step::{Rule, Step};

/// The number that marks routes and rules as ours, as in `ip rule show protocol 119`.
pub const PROTOCOL: u8 = 119;

/// The MTU when nothing says otherwise: Ethernet's.
const MTU_DEFAULT: u32 = 1500;

/// The smallest MTU that IPv6 works with (RFC 8200 section 5).
const IPV6_MTU_MIN: u32 = 1280;

/// Routing as set up; [`take_back`](Self::take_back) undoes it. When it is dropped without, or the
/// process is killed, the next start of a director in the network namespace cleans up.
#[derive(Debug)]
pub struct Routing {
    netlink: Netlink,
    device_index: u32,
    ledger: Ledger,
    tables: Tables,
    needs: RouteNeeds,
    /// The link that leads to each server with NAT.
    links: Links,
    /// Where rules are.
    order: tree::Order,
    /// Every step that may have been taken and was not taken back.
    done: Vec<Step>,
}

/// The names of the links that lead to addresses.
type Links = HashMap<IpAddr, Arc<str>>;

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

    let links = explore(&netlink, needs, &Known::default()).await?;
    let surroundings = surroundings(needs, &links, &[]);
    let in_use = tables_in_use(&netlink, &needs.device, &surroundings).await?;
    let mut free = Tables::all().filter(|tables| tables.are_none_of(&in_use.all));
    let tables = free.next().ok_or(RouteError::NoTables)?;
    let mut routing = Routing {
        netlink,
        device_index,
        ledger: lock.open(&needs.device)?,
        tables,
        needs: needs.clone(),
        links,
        order: tree::Order::default(),
        done: Vec::new(),
    };
    for tables in [tables].into_iter().chain(free) {
        let Plan { steps, order } =
            plan::plan(needs, &surroundings, tables, &tree::Order::default());
        match routing.apply(steps).await {
            Ok(()) => return Ok(Routing { tables, order, ..routing }),
            Err(Refusal { step, source }) => {
                routing.undo(0).await;
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
    let links = explore(&netlink, needs, &Known::default()).await?;
    let surroundings = surroundings(needs, &links, &[]);
    let in_use = tables_in_use(&netlink, &needs.device, &surroundings).await?;
    let free = || Tables::all().find(|tables| tables.are_none_of(&in_use.all));
    let tables = in_use.own.or_else(free).ok_or(RouteError::NoTables)?;
    let Plan { steps, .. } = plan::plan(needs, &surroundings, tables, &tree::Order::default());
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
    let mut of_links = HashMap::new();
    let servers = distinct(needs.all_servers());
    let mut ways = netlink.ways_to(servers.keys().copied());
    while let Some((address, way)) = ways.next().await {
        let way =
            way.map_err(|source| RouteError::NoRoute { server: servers[&address], source })?;
        let of_link = match of_links.get(&way.link_index) {
            Some(mtu) => *mtu,
            None => {
                let mtu = netlink.link_mtu(&way).await?;
                of_links.insert(way.link_index, mtu);
                mtu
            }
        };
        if let Some(mtu) = [way.mtu, of_link].into_iter().flatten().min() {
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
            && let Some(mtu) = [way.mtu, netlink.link_mtu(&way).await?].into_iter().flatten().min()
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
    /// Routes `needs`, of the same device, instead of what was routed so far. What is missing is added,
    /// then what is needed no more is taken back; all the rest is not touched, and no packet on its
    /// way notices. Servers that were there already are not looked up again.
    ///
    /// While a [`Follower`] follows this routing, use [`Follower::update`], or it puts back what is
    /// taken back here. To be called on a thread in the director's network namespace.
    ///
    /// # Errors
    /// See [`RouteError`]. Everything is as it was: what cannot work is refused before anything is
    /// touched, and what was added before the kernel refused a step is taken back. What the kernel
    /// does not let go is no error: it is logged, and tried again with the next update.
    pub async fn update(&mut self, needs: &RouteNeeds) -> Result<(), RouteError> {
        if *needs == self.needs {
            return Ok(());
        }
        if needs.device != self.needs.device {
            return Err(RouteError::NoDevice { device: needs.device.clone() });
        }
        let known = Known { needs: Some(&self.needs), links: Some(&self.links) };
        let links = explore(&self.netlink, needs, &known).await?;
        // Those of other directors, which may have one of the servers. Told while the plan is made.
        let rules = (needs.servers != self.needs.servers).then(|| self.netlink.rules());
        let surroundings = surroundings(needs, &links, &self.done);
        let Plan { steps, order } = plan::plan(needs, &surroundings, self.tables, &self.order);
        let missing: Vec<Step> = plan::without(&steps, &self.done).cloned().collect();
        let surplus: Vec<Step> = plan::without(&self.done, &steps).cloned().collect();
        if let Some(rules) = rules {
            refuse_taken(&rules.await?, &surroundings, Some(self.tables))?;
        }
        let is_ledger_s = |step: &&Step| matches!(step, Step::Setting(s) if !s.is_of_device);
        let lock = if missing.iter().chain(&surplus).any(|step| is_ledger_s(&step)) {
            let lock = LedgerLock::take(Path::new(STATE_FOLDER)).await?;
            lock.refresh(&mut self.ledger);
            Some(lock)
        } else {
            None
        };

        let before = self.done.len();
        // Of the device's own settings the ledger knows nothing.
        let of_device: Vec<_> = missing
            .iter()
            .filter_map(|step| match step {
                Step::Setting(setting) if setting.is_of_device => setting.before(),
                _ => None,
            })
            .collect();
        if let Err(Refusal { step, source }) = self.apply(missing).await {
            let added: Vec<String> =
                self.done[before..].iter().chain([&step]).filter_map(setting_name).collect();
            self.undo(before).await;
            let put_back = lock.map_or(Ok(()), |lock| lock.put_back(&mut self.ledger, &added));
            if let Err(error) = put_back {
                tracing::warn!(%error, "could not put back what was set for nothing");
            }
            for setting in of_device {
                // It was so before.
                let _ = setting.establish();
            }
            return Err(explain(&step, source));
        }

        let taken_back: Vec<String> = surplus.iter().filter_map(setting_name).collect();
        let (left, refused) = self.remove(surplus).await;
        let given_back = lock.map_or(Ok(()), |lock| lock.give_back(&mut self.ledger, &taken_back));
        for error in refused.into_iter().chain(given_back.err().map(RouteError::from)) {
            tracing::warn!(%error, "could not take back what is needed no more");
        }
        self.done = left;
        self.done.extend(steps);
        (self.needs, self.links, self.order) = (needs.clone(), links, order);
        Ok(())
    }

    /// Takes everything back, in the reverse order, and puts the settings back as they were. To be
    /// called before the device is closed.
    ///
    /// # Errors
    /// See [`RouteError`]; everything that could be taken back was.
    pub async fn take_back(mut self) -> Result<(), RouteError> {
        let lock = LedgerLock::take(Path::new(STATE_FOLDER)).await?;
        let refused = self.undo(0).await;
        lock.close(self.ledger)?;
        refused.map_or(Ok(()), Err)
    }

    async fn apply(&mut self, steps: Vec<Step>) -> Result<(), Refusal> {
        let mut steps = steps.into_iter().peekable();
        while let Some(step) = steps.next() {
            if let Step::Setting(setting) = &step {
                let result = if setting.is_of_device {
                    setting.establish().map_err(RefusalSource::Kernel)
                } else {
                    let (name, value) = (&setting.name, &setting.value);
                    self.ledger.set(name, value, &setting.along).map_err(RefusalSource::Ledger)
                };
                match result {
                    Ok(()) => self.done.push(step),
                    Err(source) => return Err(Refusal { step, source }),
                }
                continue;
            }
            // Nothing looks up a table before it is known to be ours.
            let is_claim = step.is_claim();
            let is_alike =
                |step: &Step| !matches!(step, Step::Setting(_)) && step.is_claim() == is_claim;
            let mut orders = vec![step];
            while orders.len() < ORDERS
                && let Some(step) = steps.next_if(is_alike)
            {
                orders.push(step);
            }
            self.order_all(orders).await?;
        }
        Ok(())
    }

    /// Gives orders for routes and rules. After the first that is refused there may be others that
    /// are not.
    async fn order_all(&mut self, steps: Vec<Step>) -> Result<(), Refusal> {
        let orders = steps.iter().filter_map(|step| step.order(self.device_index)).collect();
        // Before they are: whoever gives up waiting can still take them back.
        let before = self.done.len();
        self.done.extend(steps.iter().cloned());
        let results = self.netlink.give(orders).await;
        self.done.truncate(before);
        let mut refused = None;
        for (step, result) in steps.into_iter().zip(results) {
            match result {
                Ok(()) => self.done.push(step),
                Err(error) => {
                    refused.get_or_insert(Refusal { step, source: error.into() });
                }
            }
        }
        refused.map_or(Ok(()), Err)
    }

    /// Undoes the routes and rules of all steps but the first so many. What cannot be undone stays
    /// among the steps; the first refusal is returned.
    async fn undo(&mut self, first: usize) -> Option<RouteError> {
        let undone = self.done.split_off(first);
        let (left, refused) = self.remove(undone).await;
        self.done.extend(left);
        refused
    }

    /// Removes the routes and rules of `steps`, the last first, going on after a refusal. What is
    /// gone already, as with a deleted device, is as good as removed. Returns what is left of them and
    /// the first refusal.
    async fn remove(&self, steps: Vec<Step>) -> (Vec<Step>, Option<RouteError>) {
        let is_order = |step: &Step| !matches!(step, Step::Setting(_));
        let steps: Vec<Step> = steps.into_iter().rev().filter(is_order).collect();
        let orders = steps.iter().filter_map(|step| step.undo_order(self.device_index)).collect();
        let results = self.netlink.give(orders).await;
        let (mut left, mut refused) = (Vec::new(), None);
        for (step, result) in steps.into_iter().zip(results) {
            if let Err(source) = result
                && ![Errno::ESRCH, Errno::ENOENT, Errno::ENODEV]
                    .iter()
                    .any(|errno| source.raw_os_error() == Some(*errno as i32))
            {
                refused.get_or_insert_with(|| explain(&step, source.into()));
                left.push(step);
            }
        }
        left.reverse();
        (left, refused)
    }
}

/// Orders given before it is looked whether all are obeyed.
const ORDERS: usize = 256;

/// The setting that `step` is, if the ledger has it.
fn setting_name(step: &Step) -> Option<String> {
    match step {
        Step::Setting(setting) if !setting.is_of_device => Some(setting.name.clone()),
        _ => None,
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

/// What was routed before, and need not be looked up again.
#[derive(Debug, Default)]
struct Known<'a> {
    needs: Option<&'a RouteNeeds>,
    links: Option<&'a Links>,
}

/// Looks at everything that the plan depends on, and refuses what cannot work. Returns the links to
/// the servers with NAT.
async fn explore(
    netlink: &Netlink,
    needs: &RouteNeeds,
    known: &Known<'_>,
) -> Result<Links, RouteError> {
    if let Some(unfit) = unfit_addresses(netlink, needs, known).await.into_iter().next() {
        return Err(unfit);
    }
    let own = needs.own_addresses();
    if let Some(server) = needs.all_servers().find(|server| own.contains(&server.ip())) {
        return Err(RouteError::ServerIsVip { server });
    }
    let known_servers: HashSet<IpAddr> = known
        .needs
        .map(|needs| needs.full_nat_servers.iter().map(SocketAddr::ip).collect())
        .unwrap_or_default();
    let mut servers = distinct(needs.full_nat_servers.iter().copied());
    servers.retain(|address, _| !known_servers.contains(address));
    let mut ways = netlink.ways_to(servers.keys().copied());
    while let Some((address, way)) = ways.next().await {
        way.map_err(|source| RouteError::NoRoute { server: servers[&address], source })?;
    }

    let mut links = Links::new();
    let mut names = HashMap::new();
    let mut servers = distinct(needs.servers.iter().map(|(_, server)| *server));
    servers.retain(|address, _| match known.links.and_then(|links| links.get(address)) {
        Some(link) => links.insert(*address, Arc::clone(link)).is_some(),
        None => true,
    });
    let mut ways = netlink.ways_to(servers.keys().copied());
    while let Some((address, way)) = ways.next().await {
        let server = servers[&address];
        let way = way.map_err(|source| RouteError::NoRoute { server, source })?;
        if way.is_local {
            return Err(RouteError::ServerIsLocal { server });
        }
        let link = match names.get(&way.link_index) {
            Some(link) => Arc::clone(link),
            None => {
                let link = netlink.link_at(way.link_index).await;
                let link = link.map_err(|source| RouteError::NoRoute { server, source })?;
                let name: Arc<str> = link.name.into();
                names.insert(way.link_index, Arc::clone(&name));
                name
            }
        };
        links.insert(address, link);
    }
    Ok(links)
}

/// The addresses of `servers`, each with one of those that have it.
fn distinct(servers: impl Iterator<Item = SocketAddr>) -> HashMap<IpAddr, SocketAddr> {
    servers.map(|server| (server.ip(), server)).collect()
}

/// What the plan depends on, with the `links` that lead to the servers, after the steps `done`.
fn surroundings(needs: &RouteNeeds, links: &Links, done: &[Step]) -> Surroundings {
    let servers = needs.servers.iter().filter_map(|(protocol, server)| {
        links.get(&server.ip()).map(|link| (*protocol, *server, Arc::clone(link)))
    });
    Surroundings::around(needs, servers.collect(), done)
}

/// Why VIPs and pools cannot be routed to the director: one error for each address that cannot.
async fn unfit_addresses(
    netlink: &Netlink,
    needs: &RouteNeeds,
    known: &Known<'_>,
) -> Vec<RouteError> {
    let mut own = needs.own_addresses();
    if let Some(known) = known.needs {
        let known = known.own_addresses();
        own.retain(|address| !known.contains(address));
    }
    let vips: HashSet<&IpAddr> = needs.vips.iter().collect();
    let mut unfit = Vec::new();
    let mut ways = netlink.ways_to(own);
    while let Some((address, way)) = ways.next().await {
        let role = if vips.contains(&address) { Role::Vip } else { Role::Pool };
        match way {
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
    Ok(unfit_addresses(&Netlink::connect()?, needs, &Known::default()).await)
}

/// The tables that rules look up, none of which may take the replies that we need.
async fn tables_in_use(
    netlink: &Netlink,
    device: &str,
    surroundings: &Surroundings,
) -> Result<InUse, RouteError> {
    let rules = netlink.rules().await?;
    let own = rules.iter().find_map(|rule| left_over::tables_of(rule, device));
    refuse_taken(&rules, surroundings, own)?;
    Ok(InUse { own, all: rules.iter().map(netlink::table_of_rule).collect() })
}

/// Refuses servers whose replies, or some of them, go to another director by one of `rules`; `own`
/// are our own tables.
fn refuse_taken(
    rules: &[RuleMessage],
    surroundings: &Surroundings,
    own: Option<Tables>,
) -> Result<(), RouteError> {
    let is_foreign = |rule: &Rule| own.is_none_or(|own| !own.numbers().contains(&rule.table));
    let mut foreign: HashMap<_, Vec<Rule>> = HashMap::new();
    let of_directors = rules.iter().filter(|rule| left_over::is_ours(rule)).filter_map(Rule::read);
    for rule in of_directors.filter(|rule| rule.goto.is_none()).filter(is_foreign) {
        if let (Some(source), Some(protocol)) = (rule.source, rule.protocol) {
            foreign.entry((source, protocol)).or_default().push(rule);
        }
    }
    if foreign.is_empty() {
        return Ok(());
    }
    for (server, wanted) in plan::rules_for_servers(surroundings.servers.iter(), 0) {
        let key = wanted.source.zip(wanted.protocol);
        let others = key.and_then(|key| foreign.get(&key)).into_iter().flatten();
        let taking = others.into_iter().find(|other| {
            let is_for_port = match (&wanted.source_ports, &other.source_ports) {
                (Some(wanted), Some(other)) => wanted == other,
                // All ports are the server's or the other's.
                _ => true,
            };
            wanted.input == other.input && is_for_port
        });
        if let Some(taking) = taking {
            return Err(RouteError::ServerIsTaken {
                server,
                rule: Step::Rule(taking.clone()).to_string(),
            });
        }
    }
    Ok(())
}

/// Tables that rules look up.
struct InUse {
    /// Those of our own device: after what was left over is gone, set by hand as printed.
    own: Option<Tables>,
    all: TableNumbers,
}

/// Table numbers that rules look up.
type TableNumbers = BTreeSet<u32>;
