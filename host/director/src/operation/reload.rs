//! The configuration read again while the director runs, and put to work as it says now: what did
//! not change is not touched, and what is wrong changes nothing.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use tokio::task::JoinError;
use wvs_core::real_server::RealServer;
use wvs_core::roster::{Drain, Member};
use wvs_core::time::Moment;

use super::plan::{Kept, Plan, ServicePlan, What};
use super::step::{self, Done, StepError};
use super::{Filed, Operation, Works, name, tell_swap};
use crate::config::{Config, ConfigError, Reading};
use crate::connection_log::OpenError;
use crate::control::snapshot::{ReloadSnapshot, SchedulerReload, ServiceReload, TrialReload};
use crate::route::RouteError;
use crate::seat::{Seat, SeatError};

/// Why a configuration was not put to work. Everything is as it was, save trials that ended when a
/// plugin of another service failed on a state; see the refusals of a step.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The file, or a plugin that it names, is wrong.
    #[error("{0}")]
    Config(ConfigError),
    /// The file differs in what only a start can change.
    #[error(
        "differs from the running configuration in what cannot be changed while the director runs: \
         {}; restart the director to use it", .0.join(", ")
    )]
    Restart(Vec<String>),
    /// The connection log that the file wants cannot be written.
    #[error("{0}; make its folder and let the director's user write there; nothing was changed")]
    ConnectionLog(#[from] OpenError),
    /// Packets cannot be led to the director as the file wants it.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// A plugin failed when it was put to work.
    #[error("service {service}: {cause}")]
    Seat {
        /// The service.
        service: String,
        /// What happened.
        cause: SeatError,
    },
    /// A bug of ours.
    #[error("reloading panicked: this is a bug in wvs, please report what its log says")]
    Panicked(#[from] JoinError),
}

impl Operation {
    /// Reads the configuration again and puts it to work, all of it or nothing.
    ///
    /// # Errors
    /// See [`ReloadError`].
    pub fn reload(&self) -> Result<ReloadSnapshot, ReloadError> {
        let works = &mut *self.works();
        let seats = self.seats();
        let plan = self.plan(works, &seats, Reading::of_file(&self.file));
        let reloaded = plan.and_then(|plan| self.put_to_work(works, plan));
        self.reloads.send_replace(reloaded.is_ok());
        reloaded
    }

    /// Says what a reload would change if the configuration's file had this text, and changes
    /// nothing.
    ///
    /// # Errors
    /// See [`ReloadError`].
    pub fn preview(&self, text: &str) -> Result<ReloadSnapshot, ReloadError> {
        let works = &mut *self.works();
        let seats = self.seats();
        let numbers = works.numbers.clone();
        let plan = self.plan(works, &seats, Reading::of_text(&self.file, text))?;
        works.numbers = numbers;
        let told = plan.services.into_iter().map(|service| service.told);
        Ok(ReloadSnapshot::of(plan.settings, told.chain(plan.told_of_gone)))
    }

    fn put_to_work(
        &self,
        works: &mut Works,
        plan: Plan<'_>,
    ) -> Result<ReloadSnapshot, ReloadError> {
        let Plan { config, settings, services, gone, told_of_gone } = plan;
        let running = self.config();
        // What is led to the director too early is refused there; what is led there too late would
        // go astray.
        let needs_before = self.needs(works, &running);
        let mut needs = self.needs(works, &config);
        needs.add(&needs_before);
        self.ways.lead(needs)?;

        let mut steps = Vec::new();
        let mut parts = Vec::with_capacity(services.len());
        let mut told = Vec::with_capacity(services.len());
        for ServicePlan { told: this, what } in services {
            told.push(this);
            parts.push(match what {
                What::Open(seat) => Part::Opened(Arc::new(seat)),
                What::Keep(kept) => {
                    let Kept { seat, step, members, sorry } = *kept;
                    steps.push(step);
                    Part::Kept { seat, members, sorry }
                }
            });
        }
        let log = self.connection_log.open(config.connection_log.as_ref());
        let ready = log.map_err(ReloadError::from).and_then(|log| {
            let seat = |StepError { service, cause }| ReloadError::Seat { service, cause };
            Ok((log, step::take(steps).map_err(seat)?))
        });
        let (log, done) = match ready {
            Ok(ready) => ready,
            Err(error) => {
                // They were there a moment ago.
                let _ = self.ways.lead(needs_before);
                return Err(error);
            }
        };
        let now = self.clock.now();
        let mut done = done.into_iter();
        let mut seats = Vec::with_capacity(parts.len());
        for ((part, told), service) in parts.into_iter().zip(&mut told).zip(&config.services) {
            seats.push(match part {
                Part::Opened(seat) => seat,
                Part::Kept { seat, members, sorry } => {
                    if let Some(done) = done.next() {
                        told.note(done);
                    }
                    seat.set_probation(service.scheduler.probation);
                    seat.set_record(service.scheduler.record);
                    let (settings, drain) = (service.settings.clone(), service.drain.from(now));
                    seat.service().reconfigure(settings, members, sorry, drain, now);
                    Arc::clone(seat)
                }
            });
        }
        self.retire(works, &gone, &running, now);
        works.filed = seats.iter().map(|seat| (name(seat), Filed::of(seat))).collect();
        note_old_vips(&mut works.old_vips, &running, &config);
        self.seats.store(Arc::new(seats));
        self.config.store(Arc::new(config));
        works.is_untidy = true;
        if let Err(error) = self.tidy_up(works) {
            tracing::warn!("what nothing needs any more cannot be taken back yet: {error}");
        }

        let snapshot = ReloadSnapshot::of(settings, told.into_iter().chain(told_of_gone));
        for service in &snapshot.services {
            if let Some(SchedulerReload::Done(swap)) = &service.scheduler {
                tell_swap(&service.service, swap);
            }
        }
        let settings = snapshot.settings.join(", ");
        tracing::info!(changed = snapshot.services.len(), settings, "configuration reloaded");
        if let Err(error) = self.connection_log.put_to_work(log) {
            tracing::warn!("connections are not logged: {error}");
        }
        Ok(snapshot)
    }

    /// Has services end whose connections go on.
    fn retire(&self, works: &mut Works, gone: &[&Arc<Seat>], running: &Config, now: Moment) {
        for seat in gone {
            let service = seat.service();
            let described =
                running.services.iter().find(|described| described.name == service.name());
            let drain = described.map_or_else(Drain::default, |service| service.drain.from(now));
            service.retire(drain, now);
            works.retired.push(Arc::clone(service));
        }
    }
}

/// A service that is put to work.
enum Part<'s> {
    Opened(Arc<Seat>),
    Kept { seat: &'s Arc<Seat>, members: Vec<Member>, sorry: Option<Arc<RealServer>> },
}

/// Virtual addresses that are not described any more, in addition to those from before.
fn note_old_vips(old_vips: &mut Vec<IpAddr>, old: &Config, new: &Config) {
    let vips = |config: &Config| -> HashSet<IpAddr> {
        config.services.iter().flat_map(|service| service.settings.reach.vips.clone()).collect()
    };
    let described = vips(new);
    old_vips.extend(vips(old));
    old_vips.retain(|vip| !described.contains(vip));
    old_vips.sort_unstable();
    old_vips.dedup();
}

impl ServiceReload {
    fn note(&mut self, Done { swapped, candidate }: Done) {
        self.scheduler = swapped.map(|swapped| SchedulerReload::Done(swapped.into()));
        if let (Some(TrialReload::Begun { candidate: told, .. }), Some(number)) =
            (&mut self.trial, candidate)
        {
            told.generation = number;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{Fixture, WITH_STATE, at_work, module};
    use super::super::servers::ServerAction;
    use super::super::{Action, Proposal, ProposedPlugin};
    use super::*;
    use crate::control::snapshot::{ServerChange, ServiceFate};

    const MINE: &str = "plugins: { mine: { file: mine.wasm } }";

    fn names(reload: &ReloadSnapshot) -> Vec<&str> {
        reload.services.iter().map(|service| service.service.as_str()).collect()
    }

    fn swap(operation: &Operation, service: &str, plugin: &str) {
        let plugin = ProposedPlugin::Named(plugin.to_owned());
        operation.change(service, Action::Swap(Proposal { plugin, config: None })).unwrap();
    }

    #[test]
    fn only_what_changed_is_put_to_work() {
        let fixture = Fixture::new();
        fixture.write("mine.wasm", &module(0, ""));
        fixture.configure(MINE, &["mine", "rr", "rr"]);
        let operation = fixture.start();
        assert_eq!(names(&operation.reload().unwrap()), Vec::<&str>::new());

        // A file, a configuration of another service, nothing of the third.
        fixture.write("mine.wasm", &module(1, ""));
        fixture.configure(MINE, &["mine", "{ plugin: mine, config: 1 }", "rr"]);
        let reload = operation.reload().unwrap();
        assert_eq!(names(&reload), ["a", "b"]);
        assert_eq!(at_work(&operation, 0), ("mine".to_owned(), 2));
        assert_eq!(at_work(&operation, 1), ("mine".to_owned(), 2));
        assert_eq!(at_work(&operation, 2), ("rr".to_owned(), 1));

        // Limits, too, belong to what a plugin is.
        let limited = "plugins: { mine: { file: mine.wasm, limits: { fuel: 2000 } } }";
        fixture.configure(limited, &["mine", "{ plugin: mine, config: 1 }", "rr"]);
        assert_eq!(names(&operation.reload().unwrap()), ["a", "b"]);
        let (_, generation) = operation.seats()[0].at_work();
        assert_eq!(generation.module.limits().fuel, 2_000);

        let elsewhere = format!("metrics: {{ servers: true }}\n{limited}");
        fixture.configure(&elsewhere, &["mine", "{ plugin: mine, config: 1 }", "rr"]);
        let reload = operation.reload().unwrap();
        assert_eq!((reload.settings, reload.services.len()), (vec!["metrics".to_owned()], 0));
    }

    #[test]
    fn connection_log_that_cannot_be_written_changes_nothing() {
        let fixture = Fixture::new();
        fixture.configure("", &["rr"]);
        let operation = fixture.start();
        fixture.configure("connection_log: { file: nowhere/connections.log }", &["wlc"]);
        let error = operation.reload().unwrap_err().to_string();
        assert!(error.contains("nowhere/connections.log: No such file"), "{error}");
        assert_eq!(at_work(&operation, 0), ("rr".to_owned(), 1));
        assert!(!operation.connection_log().is_on());

        fixture.configure("connection_log: { file: connections.log }", &["wlc"]);
        operation.reload().unwrap();
        assert_eq!(at_work(&operation, 0).0, "wlc");
        assert!(operation.connection_log().is_on());
    }

    #[test]
    fn trial_begins_changes_and_ends_as_the_file_says() {
        let fixture = Fixture::new();
        fixture.configure("", &["rr"]);
        let operation = fixture.start();
        let seat = &operation.seats()[0];
        let trial = || seat.report().trial.map(|trial| (trial.candidate.generation, trial.share));
        fixture.configure("", &["{ plugin: rr, shadow: wlc }"]);
        operation.reload().unwrap();
        assert_eq!(trial(), Some((2, 0)));
        fixture.configure("", &["{ plugin: rr, shadow: wlc, canary: 10% }"]);
        operation.reload().unwrap();
        assert_eq!(trial(), Some((2, 1_000)));
        // The plugin at work is another one from here on, so that the trial begins anew.
        fixture.configure("", &["{ plugin: sh, shadow: wlc, canary: 10% }"]);
        operation.reload().unwrap();
        assert_eq!(trial(), Some((4, 1_000)));
        fixture.configure("", &["{ plugin: sh, probation: 7 }"]);
        let reload = operation.reload().unwrap();
        assert_eq!(trial(), None);
        assert_eq!(reload.services[0].probation, Some(7));
        assert_eq!(seat.probation(), 7);
    }

    #[test]
    fn what_was_done_at_run_time_goes_and_is_named() {
        let fixture = Fixture::new();
        fixture.configure("", &["rr", "rr"]);
        let operation = fixture.start();
        swap(&operation, "b", "sh");
        let reload = operation.reload().unwrap();
        assert_eq!(names(&reload), ["b"]);
        let undone = reload.services[0].undone.as_ref().unwrap();
        assert_eq!((undone.plugin.as_str(), undone.generation), ("sh", 2));
        assert_eq!(at_work(&operation, 1), ("rr".to_owned(), 3));
        // What the file says is no contradiction.
        swap(&operation, "b", "sh");
        fixture.configure("", &["rr", "sh"]);
        assert_eq!(names(&operation.reload().unwrap()), Vec::<&str>::new());
    }

    #[test]
    fn file_that_is_wrong_changes_nothing_and_says_where() {
        let fixture = Fixture::new();
        fixture.configure("", &["rr", "rr"]);
        let operation = fixture.start();
        for (head, second, reason) in [
            ("", "wcl", "services[1].scheduler: wcl is no scheduler"),
            (MINE, "mine", "plugins.mine.file: cannot read"),
            ("", "{ plugin: wlc, config: 1 }", "services[1].scheduler: the plugin refused its"),
            (
                "",
                "{ plugin: rr, shadow: { plugin: rr, config: 1 } }",
                "services[1].scheduler.shadow",
            ),
        ] {
            fixture.configure(head, &["wlc", second]);
            let error = operation.reload().unwrap_err();
            assert!(matches!(error, ReloadError::Config(_)), "{error}");
            assert!(error.to_string().contains(reason), "{error}");
            assert_eq!(at_work(&operation, 0), ("rr".to_owned(), 1));
        }
    }

    #[test]
    fn what_only_a_start_can_change_is_named_and_changes_nothing() {
        let fixture = Fixture::new();
        fixture.configure("", &["rr", "rr"]);
        let operation = fixture.start();
        fixture.configure("limits: { replies: 7 }\ndevice: { mtu: 1400 }", &["wlc", "rr"]);
        let error = operation.reload().unwrap_err().to_string();
        assert!(error.contains(": device, limits; restart"), "{error}");
        assert_eq!(at_work(&operation, 0), ("rr".to_owned(), 1));
    }

    /// Every server of a service: its address and number.
    fn servers(operation: &Operation) -> Vec<(String, u32)> {
        let seats = operation.seats();
        let servers = seats[0].service().servers();
        servers.iter().map(|server| (server.address().to_string(), server.id())).collect()
    }

    #[test]
    fn servers_that_stay_are_the_same() {
        let fixture = Fixture::new();
        fixture.describe("", &["address: 10.0.0.1", "address: 10.0.0.2"]);
        let operation = fixture.start();
        let before = servers(&operation);
        let next = ["address: 10.0.0.3, weight: 5", "address: 10.0.0.2, weight: 4"];
        fixture.describe("quorum: 2,", &next);
        let reload = operation.reload().unwrap();
        let [told] = &reload.services[..] else { panic!("{reload:?}") };
        assert_eq!(told.settings, ["quorum"]);
        let changes: Vec<_> = told
            .servers
            .iter()
            .map(|told| (told.server.to_string(), told.change.clone()))
            .collect();
        assert_eq!(
            changes,
            [
                ("10.0.0.3:80".to_owned(), ServerChange::Added { weight: 5 }),
                ("10.0.0.2:80".to_owned(), ServerChange::Weight { from: 1, to: 4 }),
                ("10.0.0.1:80".to_owned(), ServerChange::Removed { connections: 0 }),
            ]
        );
        let after = servers(&operation);
        assert_eq!(after[1], before[1]);
        assert!(before.iter().all(|(_, id)| *id != after[0].1), "a number was used again");
        assert_eq!(operation.seats()[0].service().servers()[1].weight(), 4);
        // The scheduler is the one that it was.
        assert_eq!(at_work(&operation, 0), ("rr".to_owned(), 1));
        fixture.describe("quorum: 2,", &next);
        assert_eq!(names(&operation.reload().unwrap()), Vec::<&str>::new());
    }

    #[test]
    fn services_come_and_go_and_the_others_are_not_touched() {
        let fixture = Fixture::new();
        fixture.configure("", &["rr", "wlc"]);
        let operation = fixture.start();
        let first = Arc::clone(operation.seats()[0].service());
        fixture.configure("", &["rr", "wlc", "sh"]);
        let reload = operation.reload().unwrap();
        assert_eq!(names(&reload), ["c"]);
        assert_eq!(reload.services[0].fate, ServiceFate::Added);
        assert!(Arc::ptr_eq(&first, operation.seats()[0].service()));
        assert_eq!(operation.director.services().list().len(), 3);

        fixture.configure("", &["rr"]);
        let reload = operation.reload().unwrap();
        assert_eq!(names(&reload), ["b", "c"]);
        assert!(reload.services.iter().all(|told| told.fate == ServiceFate::Removed));
        assert_eq!(operation.director.services().list().len(), 1);
        // Nobody had a connection.
        assert!(operation.director.services().retired().is_empty());

        // What cannot go on as it is makes room for another one.
        let text = std::fs::read_to_string(fixture.path("wvs.yaml")).unwrap();
        let text = text.replace("port: 1,", "port: 1, protocol: udp,");
        std::fs::write(fixture.path("wvs.yaml"), text).unwrap();
        assert_eq!(operation.reload().unwrap().services[0].fate, ServiceFate::Replaced);
        assert!(!Arc::ptr_eq(&first, operation.seats()[0].service()));
    }

    #[test]
    fn what_was_done_to_servers_at_run_time_is_undone_and_named() {
        let fixture = Fixture::new();
        fixture.describe("", &["address: 10.0.0.1", "address: 10.0.0.2"]);
        let operation = fixture.start();
        let weight = |at: usize| operation.seats()[0].service().servers()[at].weight();
        let drain = ServerAction::Drain { deadline: None, then: None };
        operation.change_server("a", "10.0.0.1", ServerAction::Weight(Some(9))).unwrap();
        operation.change_server("a", "10.0.0.2:80", drain).unwrap();
        operation.note_check("a", "10.0.0.1:80".parse().unwrap(), false, Some(6));
        assert_eq!((weight(0), weight(1)), (9, 0));
        let reload = operation.reload().unwrap();
        let changes: Vec<_> =
            reload.services[0].servers.iter().map(|told| told.change.clone()).collect();
        assert_eq!(changes, [ServerChange::WeightUndone { weight: 9 }, ServerChange::DrainUndone]);
        // What health checks say is not the file's to undo.
        assert_eq!((weight(0), weight(1)), (6, 1));
        for (service, server) in [("b", "10.0.0.1"), ("a", "10.0.0.3"), ("a", "nonsense")] {
            let refusal = operation.change_server(service, server, ServerAction::Enable);
            assert!(refusal.is_err(), "{service} {server}");
        }
    }

    #[test]
    fn preview_says_what_a_reload_would_change_and_changes_nothing() {
        let fixture = Fixture::new();
        fixture.describe("", &["address: 10.0.0.1"]);
        let operation = fixture.start();
        fixture.describe("", &["address: 10.0.0.2, upper_threshold: 3"]);
        let text = std::fs::read_to_string(fixture.path("wvs.yaml")).unwrap();
        let preview = operation.preview(&text).unwrap();
        assert_eq!(preview.services[0].servers.len(), 2);
        assert_eq!(servers(&operation)[0].0, "10.0.0.1:80");
        assert_eq!(operation.reload().unwrap(), preview);
        assert_eq!(servers(&operation)[0].0, "10.0.0.2:80");
        assert!(operation.preview("services: 1").is_err());

        fixture.configure("", &["sh"]);
        let text = std::fs::read_to_string(fixture.path("wvs.yaml")).unwrap();
        swap(&operation, "a", "lc");
        let preview = &operation.preview(&text).unwrap().services[0];
        let Some(SchedulerReload::Planned { from, to }) = &preview.scheduler else {
            panic!("{preview:?}")
        };
        assert_eq!((from.plugin.as_str(), to.plugin.as_str()), ("lc", "sh"));
        assert_eq!(preview.undone.as_ref(), Some(from));
        assert_eq!(at_work(&operation, 0).0, "lc");
    }

    #[test]
    fn plugin_that_fails_on_a_state_takes_back_what_was_changed_before_it() {
        let fixture = Fixture::new();
        fixture.write("mine.wasm", &module(0, WITH_STATE));
        fixture.write("next.wasm", &module(1, WITH_STATE));
        let plugins = "plugins: { mine: { file: mine.wasm }, next: { file: next.wasm } }";
        fixture.configure(plugins, &["rr", "mine", "mine"]);
        let operation = fixture.start();
        fixture.configure(plugins, &["wlc", "next", "mine"]);
        let error = operation.reload().unwrap_err();
        assert!(matches!(&error, ReloadError::Seat { service, .. } if service == "b"), "{error}");
        assert_eq!(at_work(&operation, 0), ("rr".to_owned(), 1));
        assert_eq!(at_work(&operation, 1), ("mine".to_owned(), 1));
        assert_eq!(operation.config().services[0].scheduler.plugin, "rr");
    }
}
