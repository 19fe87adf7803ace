//! The health of real servers: what checks and connections say of them, taken over by their services.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::Receiver;
use tokio::time::{Instant, MissedTickBehavior, interval};
use wvs_health::{Checkers, News, Passive, ServerKey, Settings, Signs, Standing};

use super::random_seed;
use crate::config::{Config, PassiveConfig};
use crate::operation::Operation;
use crate::operation::servers::Health;

/// Between two looks at what connections tell.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Starts checkers, which check nothing yet, within a tokio runtime.
pub(super) fn start(config: &Config) -> (Arc<Checkers>, Receiver<News>) {
    let settings = Settings { concurrent_max: config.checks_max, seed: random_seed() };
    let (checkers, news) = Checkers::start(settings);
    (Arc::new(checkers), news)
}

/// Has servers checked as the configuration says, also when it is read again, for ever.
pub(super) async fn watch(
    operation: Arc<Operation>,
    checkers: Arc<Checkers>,
    mut news: Receiver<News>,
) {
    let start = Instant::now();
    let mut passives = Passives::default();
    let mut looks = interval(LOOK_INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut reloads = operation.reloads();
    follow(&operation, &checkers, &mut passives);
    loop {
        tokio::select! {
            Ok(()) = reloads.changed() => follow(&operation, &checkers, &mut passives),
            Some(news) = news.recv() => take(&operation, &checkers, news),
            _ = looks.tick() => passives.look(&operation, start.elapsed()),
        }
    }
}

/// Checks from now on what the configuration says now.
fn follow(operation: &Operation, checkers: &Checkers, passives: &mut Passives) {
    let config = operation.config();
    checkers.set(config.health_checks());
    passives.set(&config);
    // There are no news of servers that are not checked any more, nor of new ones.
    operation.note_health(|service, server| {
        let key = ServerKey { service: service.to_owned(), server: server.address() };
        let (standing, measured) = checkers.standing(&key).unwrap_or((Standing::Up, None));
        let is_failing = passives.is_failing(&key, server.id());
        Health { is_down: standing == Standing::Down, measured, is_failing }
    });
}

fn take(operation: &Operation, checkers: &Checkers, news: News) {
    let News { key, standing, weight, reason } = news;
    // From before it was told not to check this one any more.
    if checkers.standing(&key).is_none() {
        return;
    }
    let ServerKey { service, server } = &key;
    match standing {
        Standing::Up => tracing::info!(service, %server, weight, reason, "real server is up"),
        Standing::Down => tracing::warn!(service, %server, reason, "real server is down"),
    }
    operation.note_check(service, *server, standing == Standing::Down, weight);
}

/// What the connections of servers tell, of those servers that are to be judged by it.
#[derive(Default)]
struct Passives(HashMap<ServerKey, Watched>);

struct Watched {
    config: PassiveConfig,
    passive: Passive,
    standing: Standing,
    /// Whose counters were looked at: another server at the same address begins anew.
    id: Option<u32>,
}

impl Watched {
    fn new(config: PassiveConfig) -> Self {
        let passive = Passive::new(config.failures, config.duration);
        Self { config, passive, standing: Standing::Up, id: None }
    }
}

impl Passives {
    /// Whether the connections of the server with this number say so.
    fn is_failing(&self, key: &ServerKey, id: u32) -> bool {
        let is_failing =
            |watched: &Watched| watched.standing == Standing::Down && watched.id == Some(id);
        self.0.get(key).is_some_and(is_failing)
    }

    fn set(&mut self, config: &Config) {
        let mut before = std::mem::take(&mut self.0);
        for service in &config.services {
            for server in &service.servers {
                let Some(wanted) = server.health.as_ref().and_then(|health| health.passive) else {
                    continue;
                };
                let key = ServerKey { service: service.name.clone(), server: server.address };
                let same = before.remove(&key).filter(|watched| watched.config == wanted);
                self.0.insert(key, same.unwrap_or_else(|| Watched::new(wanted)));
            }
        }
    }

    fn look(&mut self, operation: &Operation, now: Duration) {
        if self.0.is_empty() {
            return;
        }
        for seat in &*operation.seats() {
            let service = seat.service().name();
            for real in &*seat.service().servers() {
                let server = real.address();
                let key = ServerKey { service: service.to_owned(), server };
                let Some(watched) = self.0.get_mut(&key) else { continue };
                if watched.id.replace(real.id()).is_some_and(|id| id != real.id()) {
                    *watched = Watched { id: watched.id, ..Watched::new(watched.config) };
                    operation.note_failing(service, server, false);
                }
                let observed = real.observed();
                let signs = Signs {
                    accepted: observed.connects(),
                    refused: observed.refused(),
                    unanswered: observed.timeouts(),
                };
                let standing = watched.passive.look(now, signs);
                if standing == watched.standing {
                    continue;
                }
                watched.standing = standing;
                match standing {
                    Standing::Up => {
                        tracing::info!(service, %server, "real server is tried again");
                    }
                    Standing::Down => {
                        let in_row = watched.passive.in_row();
                        tracing::warn!(
                            service,
                            %server,
                            in_row,
                            "real server refuses connections or does not answer"
                        );
                    }
                }
                operation.note_failing(service, server, standing == Standing::Down);
            }
        }
    }
}
