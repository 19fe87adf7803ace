//! The real servers of a service, and which of them may take connections at the moment.
//!
//! A server's weight comes from the configuration, or from whoever set another one since, or from
//! its health check. It is worth nothing while the server is down or drained, while a backup is not
//! needed, and while enough connections are there already. Schedulers see the result and nothing
//! else, so all of this holds under every scheduler.

use core::net::SocketAddr;
use core::ops::AddAssign as _;
use core::time::Duration;
use std::sync::Arc;

use crate::real_server::{Dismissal, RealServer};
use crate::stats::TrafficTotals;
use crate::time::Moment;

/// How the servers of a service stand in for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RosterRules {
    /// The least sum of weights of the servers that are up with which they are enough.
    pub quorum: u32,
    /// They are too few again when the sum is so much less, and enough when it is so much more.
    pub hysteresis: u32,
    /// How long a server that came up, or was added, takes to get its whole share.
    pub slow_start: Duration,
    /// What becomes of the TCP connections of a server that is down.
    pub on_down: Parting,
}

impl Default for RosterRules {
    fn default() -> Self {
        let on_down = Parting::Keep;
        Self { quorum: 1, hysteresis: 0, slow_start: Duration::ZERO, on_down }
    }
}

/// What becomes of the TCP connections that a server has when it is taken away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Parting {
    /// They go on as long as packets come.
    #[default]
    Keep,
    /// Both sides get a reset as soon as they say something.
    Reset,
}

/// That a server gets no new connections and is to be empty some time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drain {
    /// When its time is over; `None` for never.
    pub deadline: Option<Moment>,
    /// What becomes of the connections that are left then. UDP's leave in any case.
    pub then: Parting,
}

impl Drain {
    fn is_over(self, now: Moment) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now)
    }
}

/// What is known of a server besides its traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The weight that the configuration gives it.
    pub configured: u32,
    /// The weight that somebody gave it since.
    pub set: Option<u32>,
    /// The weight that its health check gives it.
    pub measured: Option<u32>,
    /// Its health check says that it does not answer as it should.
    pub is_down: bool,
    /// Its connections say so.
    pub is_failing: bool,
    /// It is being emptied.
    pub drain: Option<Drain>,
    /// It is needed only when the others are too few.
    pub is_backup: bool,
    /// With so many connections, active or not, it gets no new ones; 0 for no limit.
    pub upper_threshold: u32,
    /// With fewer it gets some again; 0 for three quarters of the upper one.
    pub lower_threshold: u32,
}

impl Standing {
    /// A server that is up.
    #[must_use]
    pub fn new(configured: u32) -> Self {
        Self { configured, ..Self::default() }
    }

    /// The weight that it has when it is up and needed.
    #[must_use]
    pub fn weight(&self) -> u32 {
        self.set.or(self.measured).unwrap_or(self.configured)
    }

    /// Whether it is down, whoever says so.
    #[must_use]
    pub const fn is_out_of_order(&self) -> bool {
        self.is_down || self.is_failing
    }

    /// The same, but 0 while it is down or drained.
    fn worth(&self) -> u32 {
        if self.is_out_of_order() || self.drain.is_some() { 0 } else { self.weight() }
    }
}

/// Who serves at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    /// The servers that are no backups.
    #[default]
    Regular,
    /// The backups too, since the others are too few.
    Backup,
    /// The sorry server, since all together are too few.
    Sorry,
}

impl Stage {
    /// Every stage.
    pub const ALL: [Self; 3] = [Self::Regular, Self::Backup, Self::Sorry];

    /// The name in listings and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Regular => "regular",
            Self::Backup => "backup",
            Self::Sorry => "sorry",
        }
    }
}

/// A server as a configuration describes it.
#[derive(Clone, Debug)]
pub struct Member {
    /// The server.
    pub server: Arc<RealServer>,
    /// How it stands.
    pub standing: Standing,
}

/// The servers of one service.
#[derive(Debug)]
pub struct Roster {
    rules: RosterRules,
    servers: Arc<[Arc<RealServer>]>,
    /// In the order of `servers`.
    standings: Vec<Standing>,
    sorry: Option<Arc<RealServer>>,
    /// Servers that were taken out of the service and still have connections.
    leaving: Vec<(Arc<RealServer>, Drain)>,
    /// What servers carried that are forgotten: sums over the service must not shrink.
    departed: TrafficTotals,
    stage: Stage,
    is_quorate: bool,
}

impl Roster {
    /// A roster of servers that all are as their standing says from the start.
    pub(crate) fn new(
        rules: RosterRules,
        members: Vec<Member>,
        sorry: Option<Arc<RealServer>>,
        now: Moment,
    ) -> Self {
        let (servers, standings): (Vec<_>, Vec<_>) =
            members.into_iter().map(|member| (member.server, member.standing)).unzip();
        let mut this = Self {
            rules,
            servers: servers.into(),
            standings,
            sorry,
            leaving: Vec::new(),
            departed: TrafficTotals::default(),
            stage: Stage::Regular,
            is_quorate: true,
        };
        this.settle(now);
        // Nobody starts slowly beside nobody.
        for server in &*this.servers {
            server.start_at_once();
        }
        this
    }

    /// The servers, in the order of the configuration.
    #[must_use]
    pub fn servers(&self) -> &Arc<[Arc<RealServer>]> {
        &self.servers
    }

    /// The same, and how each stands.
    pub fn members(&self) -> impl Iterator<Item = Member> {
        let pairs = self.servers.iter().zip(&self.standings);
        pairs.map(|(server, standing)| Member { server: Arc::clone(server), standing: *standing })
    }

    /// The sorry server.
    #[must_use]
    pub fn sorry(&self) -> Option<&Arc<RealServer>> {
        self.sorry.as_ref()
    }

    /// The servers that were taken out and still have connections.
    pub fn leaving(&self) -> impl Iterator<Item = &Arc<RealServer>> {
        self.leaving.iter().map(|(server, _)| server)
    }

    /// What servers carried that were taken out and are forgotten.
    #[must_use]
    pub fn departed(&self) -> TrafficTotals {
        self.departed
    }

    /// The same as [`leaving`](Self::leaving), and how each of them is emptied.
    pub fn leaving_with_drains(&self) -> impl Iterator<Item = (&Arc<RealServer>, Drain)> {
        self.leaving.iter().map(|(server, drain)| (server, *drain))
    }

    /// Who serves.
    #[must_use]
    pub const fn stage(&self) -> Stage {
        self.stage
    }

    /// The rules.
    #[must_use]
    pub const fn rules(&self) -> &RosterRules {
        &self.rules
    }

    /// Changes how the server at `address` stands. Whether that made a difference, if there is one.
    pub(crate) fn change(
        &mut self,
        address: SocketAddr,
        now: Moment,
        change: impl FnOnce(&mut Standing),
    ) -> Option<bool> {
        let position = self.servers.iter().position(|server| server.address() == address)?;
        let standing = self.standings.get_mut(position)?;
        let before = *standing;
        change(standing);
        let has_changed = *standing != before;
        if has_changed {
            self.settle(now);
        }
        Some(has_changed)
    }

    /// Changes how the servers stand, each of which `change` gets by its address. Whether that made a
    /// difference.
    pub(crate) fn change_all(
        &mut self,
        now: Moment,
        mut change: impl FnMut(SocketAddr, &mut Standing),
    ) -> bool {
        let mut has_changed = false;
        for (server, standing) in self.servers.iter().zip(&mut self.standings) {
            let before = *standing;
            change(server.address(), standing);
            has_changed |= *standing != before;
        }
        if has_changed {
            self.settle(now);
        }
        has_changed
    }

    /// Puts other servers, sorry server and rules in place of the present ones. Who is not among
    /// `members` any more leaves as `drain` says, and keeps its connections until then.
    pub(crate) fn replace(
        &mut self,
        rules: RosterRules,
        members: Vec<Member>,
        sorry: Option<Arc<RealServer>>,
        drain: Drain,
        now: Moment,
    ) {
        let stays = |server: &Arc<RealServer>| {
            let mut stay = members.iter().map(|member| &member.server).chain(&sorry);
            stay.any(|other| Arc::ptr_eq(server, other))
        };
        self.leaving.retain(|(server, _)| !stays(server));
        let gone = self.servers.iter().chain(&self.sorry).filter(|server| !stays(server));
        self.leaving.extend(gone.map(|server| (Arc::clone(server), drain)));
        let was_there =
            |server: &Arc<RealServer>| self.servers.iter().any(|other| Arc::ptr_eq(server, other));
        for server in members.iter().map(|member| &member.server) {
            if !was_there(server) {
                // It may have to start slowly.
                server.set_weight(0);
            }
        }
        let (servers, standings): (Vec<_>, Vec<_>) =
            members.into_iter().map(|member| (member.server, member.standing)).unzip();
        (self.rules, self.servers, self.standings, self.sorry) =
            (rules, servers.into(), standings, sorry);
        self.settle(now);
    }

    /// Finds out who may take connections now, and tells the servers.
    pub(crate) fn settle(&mut self, now: Moment) {
        self.stage = self.next_stage();
        for (server, standing) in self.servers.iter().zip(&self.standings) {
            let is_needed = !standing.is_backup || self.stage == Stage::Backup;
            let weight = if is_needed { standing.worth() } else { 0 };
            let is_down = standing.is_out_of_order();
            let dismissal = match (is_down, self.rules.on_down, standing.drain) {
                (true, Parting::Reset, _) => Dismissal::All,
                (_, _, Some(drain)) if drain.is_over(now) => drain.dismissal(),
                (true, ..) => Dismissal::Datagrams,
                _ => Dismissal::Nobody,
            };
            let may_have_slow_start = !self.rules.slow_start.is_zero();
            server.settle(weight, standing, dismissal, may_have_slow_start.then_some(now));
        }
        if let Some(sorry) = &self.sorry {
            sorry.settle(1, &Standing::new(1), Dismissal::Nobody, None);
        }
        for (server, drain) in &self.leaving {
            let dismissal =
                if drain.is_over(now) { drain.dismissal() } else { Dismissal::Datagrams };
            let standing = Standing { drain: Some(*drain), ..Standing::default() };
            server.settle(0, &standing, dismissal, None);
        }
    }

    /// When [`settle`](Self::settle) will find something else although nothing is changed.
    pub(crate) fn next_deadline(&self, now: Moment) -> Option<Moment> {
        let drains = self.standings.iter().filter_map(|standing| standing.drain.as_ref());
        let all = drains.chain(self.leaving.iter().map(|(_, drain)| drain));
        all.filter_map(|drain| drain.deadline).filter(|deadline| *deadline > now).min()
    }

    /// Forgets servers that left and have no connections any more. Whether there were any.
    pub(crate) fn dismiss_empty(&mut self) -> bool {
        let before = self.leaving.len();
        self.leaving.retain(|(server, _)| {
            let stays = server.connections() > 0;
            if !stays {
                self.departed.add_assign(server.traffic().totals());
            }
            stays
        });
        self.leaving.len() < before
    }

    fn next_stage(&mut self) -> Stage {
        let sum = |is_backup: bool| -> u64 {
            let mine = self.standings.iter().filter(|standing| standing.is_backup == is_backup);
            mine.map(|standing| u64::from(standing.worth())).sum()
        };
        let (regular, backup) = (sum(false), sum(true));
        let RosterRules { quorum, hysteresis, .. } = self.rules;
        let (quorum, hysteresis) = (u64::from(quorum), u64::from(hysteresis));
        let enough = quorum.saturating_add(hysteresis);
        let too_few = quorum.saturating_sub(hysteresis);
        self.is_quorate = if self.is_quorate {
            regular > 0 && regular >= too_few
        } else {
            regular > 0 && regular >= enough
        };
        let all = regular.saturating_add(backup);
        match &self.sorry {
            _ if self.is_quorate => Stage::Regular,
            Some(_) if all < quorum.max(1) => Stage::Sorry,
            _ if backup > 0 => Stage::Backup,
            Some(_) => Stage::Sorry,
            None => Stage::Regular,
        }
    }
}

impl Drain {
    /// Once its time is over.
    const fn dismissal(self) -> Dismissal {
        match self.then {
            Parting::Keep => Dismissal::Datagrams,
            Parting::Reset => Dismissal::All,
        }
    }
}
