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
    follow(&operation, &checkers, &mut passives);
    loop {
        tokio::select! {
            () = operation.reloaded() => follow(&operation, &checkers, &mut passives),
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
    for service in &config.services {
        for server in &service.servers {
            let key = ServerKey { service: service.name.clone(), server: server.address };
            let (standing, weight) = checkers.standing(&key).unwrap_or((Standing::Up, None));
            operation.note_check(&key.service, key.server, standing == Standing::Down, weight);
            if !passives.have(&key) {
                operation.note_failing(&key.service, key.server, false);
            }
        }
    }
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
struct Passives(HashMap<ServerKey, (PassiveConfig, Passive, Standing)>);

impl Passives {
    fn have(&self, key: &ServerKey) -> bool {
        self.0.contains_key(key)
    }

    fn set(&mut self, config: &Config) {
        let mut before = std::mem::take(&mut self.0);
        for service in &config.services {
            for server in &service.servers {
                let Some(wanted) = server.health.as_ref().and_then(|health| health.passive) else {
                    continue;
                };
                let key = ServerKey { service: service.name.clone(), server: server.address };
                let same = before.remove(&key).filter(|(config, ..)| *config == wanted);
                let PassiveConfig { failures, duration } = wanted;
                let fresh = || (wanted, Passive::new(failures, duration), Standing::Up);
                self.0.insert(key, same.unwrap_or_else(fresh));
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
                let Some((_, passive, before)) = self.0.get_mut(&key) else { continue };
                let observed = real.observed();
                let signs = Signs {
                    accepted: observed.connects(),
                    refused: observed.refused(),
                    unanswered: observed.unanswered(),
                };
                let standing = passive.look(now, signs);
                if standing == *before {
                    continue;
                }
                *before = standing;
                match standing {
                    Standing::Up => {
                        tracing::info!(service, %server, "real server is tried again");
                    }
                    Standing::Down => {
                        let in_row = passive.in_row();
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
