//! Real servers as somebody, or their health, wants them at run time.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use wvs_core::pool::Pool;
use wvs_core::real_server::RealServer;
use wvs_core::roster::{Parting, Stage, Standing};
use wvs_core::time::Moment;

use super::{ChangeError, Operation, Works};
use crate::config::{Config, DrainConfig};
use crate::control::snapshot::ServerStanding;
use crate::route::{RouteError, RouteNeeds};
use crate::run::route_needs;

/// What to do about a real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerAction {
    /// Give it another weight; `None` for the configuration's.
    Weight(Option<u32>),
    /// Empty it: it gets no new connections.
    Drain {
        /// How long its connections may go on; `None` for as the configuration says.
        deadline: Option<Duration>,
        /// What becomes of TCP connections that are left then; `None` as well.
        then: Option<Parting>,
    },
    /// Drain it no more.
    Enable,
}

/// What is known of a real server's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    /// Whether checks found that it is down.
    pub is_down: bool,
    /// The weight that a check measured.
    pub measured: Option<u32>,
    /// Whether its connections show that it does not serve.
    pub is_failing: bool,
}

impl Operation {
    /// Does something about a real server of a service, named by RIP and port, or by RIP alone where
    /// that is enough. It stays so until the configuration is read again.
    ///
    /// # Errors
    /// There is no such service or server.
    pub fn change_server(
        &self,
        service: &str,
        server: &str,
        action: ServerAction,
    ) -> Result<ServerStanding, ChangeError> {
        // Not while the configuration is put to work, which would undo half of it.
        let _works = self.works();
        let address = self.find_server(service, server)?;
        let now = self.clock.now();
        let drain = self.drain_of(service);
        let mut deadline = None;
        self.stand(service, address, now, |standing| match action {
            ServerAction::Weight(weight) => {
                standing.set = weight.filter(|weight| *weight != standing.configured);
            }
            ServerAction::Drain { deadline: within, then } => {
                let drain = DrainConfig {
                    deadline: within.or(drain.deadline),
                    then: then.unwrap_or(drain.then),
                };
                let drain = drain.from(now);
                deadline = drain.deadline;
                standing.drain = Some(drain);
            }
            ServerAction::Enable => standing.drain = None,
        })?;
        let seat = self.seat(service)?;
        let servers = seat.service().servers();
        let found = servers.iter().find(|other| other.address() == address);
        let (weight, connections) =
            found.map_or((0, 0), |server| (server.weight(), server.connections()));
        let server = address;
        match action {
            ServerAction::Weight(_) => {
                tracing::info!(service, %server, weight, "real server has another weight");
            }
            ServerAction::Drain { .. } => {
                tracing::info!(service, %server, connections, "real server is drained");
            }
            ServerAction::Enable => tracing::info!(service, %server, "real server serves again"),
        }
        let drain_ms = deadline.map(|deadline| deadline.millis_since(now));
        Ok(ServerStanding { service: service.to_owned(), server, weight, connections, drain_ms })
    }

    /// The address of the server that `text` names.
    fn find_server(&self, service: &str, text: &str) -> Result<SocketAddr, ChangeError> {
        let seat = self.seat(service)?;
        let servers = seat.service().servers();
        let is_named = |server: &&Arc<RealServer>| {
            text.parse().is_ok_and(|address: SocketAddr| address == server.address())
                || text.parse().is_ok_and(|address: IpAddr| address == server.address().ip())
        };
        let mut named = servers.iter().filter(is_named);
        match (named.next(), named.next()) {
            (Some(server), None) => Ok(server.address()),
            (Some(_), Some(_)) => Err(ChangeError::SeveralServers {
                service: service.to_owned(),
                server: text.to_owned(),
            }),
            (None, _) => {
                Err(ChangeError::NoServer { service: service.to_owned(), server: text.to_owned() })
            }
        }
    }

    /// Takes over all that is known of the health of the servers.
    pub fn note_health(&self, known: impl Fn(&str, &RealServer) -> Health) {
        for seat in &*self.seats() {
            let service = seat.service();
            // Packets may wait for what follows, and not for this.
            let servers = service.servers();
            let of = |server: &Arc<RealServer>| (server.address(), known(service.name(), server));
            let known: HashMap<SocketAddr, Health> = servers.iter().map(of).collect();
            let before = service.look_at_roster(|roster| roster.stage());
            let stage = service.change_servers(self.clock.now(), |server, standing| {
                let Some(health) = known.get(&server) else { return };
                (standing.is_down, standing.measured) = (health.is_down, health.measured);
                standing.is_failing = health.is_failing;
            });
            if stage != before {
                tell_stage(service.name(), stage);
            }
        }
    }

    /// Takes over what a health check says of a server, if there still is such a server.
    pub fn note_check(
        &self,
        service: &str,
        server: SocketAddr,
        is_down: bool,
        measured: Option<u32>,
    ) {
        self.note(service, server, |standing| {
            (standing.is_down, standing.measured) = (is_down, measured);
        });
    }

    /// Takes over what the connections of a server say of it, if there still is such a server.
    pub fn note_failing(&self, service: &str, server: SocketAddr, is_failing: bool) {
        self.note(service, server, |standing| standing.is_failing = is_failing);
    }

    fn note(&self, service: &str, server: SocketAddr, change: impl FnOnce(&mut Standing)) {
        if self.stand(service, server, self.clock.now(), change).is_err() {
            tracing::debug!(service, %server, "health of a server that is gone");
        }
    }

    /// Changes how a server stands.
    fn stand(
        &self,
        service: &str,
        server: SocketAddr,
        now: Moment,
        change: impl FnOnce(&mut Standing),
    ) -> Result<(), ChangeError> {
        let seat = self.seat(service)?;
        let before = seat.service().look_at_roster(|roster| roster.stage());
        let Some(stage) = seat.service().change_server(server, now, change) else {
            let server = server.to_string();
            return Err(ChangeError::NoServer { service: service.to_owned(), server });
        };
        if stage != before {
            tell_stage(service, stage);
        }
        Ok(())
    }

    fn drain_of(&self, service: &str) -> DrainConfig {
        let config = self.config();
        let found = config.services.iter().find(|other| other.name == service);
        found.map_or_else(DrainConfig::default, |service| service.drain)
    }

    /// Forgets servers, services and virtual addresses that nothing needs any more: to be called
    /// from time to time.
    ///
    /// # Errors
    /// What led packets there could not be taken back; it is tried again next time.
    pub fn tidy(&self) -> Result<(), RouteError> {
        self.tidy_up(&mut self.works())
    }

    pub(super) fn tidy_up(&self, works: &mut Works) -> Result<(), RouteError> {
        works.before.take_if(|before| Arc::strong_count(before) == 1);
        let Works { retired, old_vips, is_untidy, .. } = works;
        for seat in &*self.seats() {
            *is_untidy |= seat.service().dismiss_empty();
        }
        retired.retain(|service| {
            *is_untidy |= service.dismiss_empty();
            let is_empty = service.look_at_roster(|roster| roster.leaving().next().is_none());
            *is_untidy |= is_empty;
            !is_empty
        });
        let tables = self.director.tables();
        old_vips.retain(|vip| {
            let is_used =
                !tables.v4().list(1, |held| held.original().destination == *vip).is_empty()
                    || !tables.v6().list(1, |held| held.original().destination == *vip).is_empty();
            *is_untidy |= !is_used;
            is_used
        });
        if works.is_untidy {
            self.publish(works);
            self.ways.lead(self.needs(works, &self.config()))?;
            works.is_untidy = false;
        }
        Ok(())
    }

    /// What is to be led to the director when it runs with `config`: what that says, and what still
    /// has connections.
    pub(super) fn needs(&self, works: &Works, config: &Config) -> RouteNeeds {
        let mut needs = route_needs(config);
        let seats = self.seats();
        let services = seats.iter().map(|seat| seat.service()).chain(&works.retired);
        for service in services {
            service.look_at_roster(|roster| {
                let leaving = roster.leaving().map(|server| server.address());
                let pool = service.terms().pool().map(Pool::addresses);
                if roster.leaving().next().is_some() {
                    needs.add_servers(service.address().protocol, pool, leaving);
                }
            });
        }
        needs.vips.extend(&works.old_vips);
        needs.tidy();
        needs
    }
}

fn tell_stage(service: &str, stage: Stage) {
    match stage {
        Stage::Regular => tracing::info!(service, "enough real servers are up again"),
        Stage::Backup => tracing::warn!(service, "too few real servers are up: backups help out"),
        Stage::Sorry => {
            tracing::warn!(service, "too few real servers are up: the sorry server takes over");
        }
    }
}

/// What keeps a server that is down from getting connections, for people.
pub const WHY_DOWN: &str = "down";

/// Says what keeps a server from getting connections, for people; `None` when nothing does.
#[must_use]
pub fn why_out(server: &RealServer, standing: &Standing, stage: Stage) -> Option<&'static str> {
    if standing.is_out_of_order() {
        Some(WHY_DOWN)
    } else if standing.drain.is_some() {
        Some("drained")
    } else if standing.is_backup && stage != Stage::Backup {
        Some("backup, not needed")
    } else if standing.weight() == 0 {
        Some("weight 0")
    } else if server.is_overloaded() {
        Some("at its upper threshold")
    } else {
        None
    }
}
