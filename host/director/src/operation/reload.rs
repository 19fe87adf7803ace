//! The configuration read again while the director runs, and put to work as it says now: what did
//! not change is not touched, and what is wrong changes nothing.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::task::JoinError;
use wvs_core::real_server::RealServer;
use wvs_core::roster::{Drain, Member};
use wvs_core::service::Settings;
use wvs_core::time::Moment;
use wvs_plugin::Limits;

use super::step::{self, Done, Step, StepError, TrialStep};
use super::{Filed, Operation, Works, name, tell_swap};
use crate::config::units::Percent;
use crate::config::{Config, ConfigError, Reading, SchedulerConfig, ServiceConfig};
use crate::connection_log::OpenError;
use crate::control::snapshot::{
    GenerationSnapshot, ReloadSnapshot, ServerChange, ServerReload, ServiceFate, ServiceReload,
    TrialReload,
};
use crate::deployment::{self, Misfit, Modules, add_misfits};
use crate::route::RouteError;
use crate::run::random_seed;
use crate::seat::{Generation, Seat, SeatError};

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
    #[error("{0}; the old one goes on")]
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

/// What is to be done, and what will have been done.
struct Plan<'s> {
    config: Config,
    /// The keys outside of services that say something else.
    settings: Vec<String>,
    /// What is to be at work, in the order of the configuration.
    services: Vec<ServicePlan<'s>>,
    /// What was at work, and is not described any more.
    gone: Vec<&'s Arc<Seat>>,
    told_of_gone: Vec<ServiceReload>,
}

struct ServicePlan<'s> {
    told: ServiceReload,
    what: What<'s>,
}

enum What<'s> {
    Open(Seat),
    Keep(Box<Kept<'s>>),
}

/// A service that goes on, as it is to be.
struct Kept<'s> {
    seat: &'s Arc<Seat>,
    step: Step<'s>,
    members: Vec<Member>,
    sorry: Option<Arc<RealServer>>,
}

impl Operation {
    /// Reads the configuration again and puts it to work, all of it or nothing.
    ///
    /// # Errors
    /// See [`ReloadError`].
    pub fn reload(&self) -> Result<ReloadSnapshot, ReloadError> {
        let works = &mut *self.works();
        let seats = self.seats();
        let plan = self.plan(works, &seats, Reading::of_file(&self.file))?;
        let log = self.connection_log.open(plan.config.connection_log.as_ref())?;
        let reloaded = self.put_to_work(works, plan)?;
        if let Err(error) = self.connection_log.put_to_work(log) {
            tracing::warn!("connections are not logged: {error}");
        }
        Ok(reloaded)
    }

    /// Says what a reload would change if the configuration's file had this text, and changes
    /// nothing.
    ///
    /// # Errors
    /// See [`ReloadError`].
    pub fn preview(&self, text: &str) -> Result<ReloadSnapshot, ReloadError> {
        let works = &mut *self.works();
        let seats = self.seats();
        let plan = self.plan(works, &seats, Reading::of_text(&self.file, text))?;
        let told = plan.services.into_iter().map(|service| service.told);
        Ok(ReloadSnapshot::of(plan.settings, told.chain(plan.told_of_gone)))
    }

    fn plan<'s>(
        &self,
        works: &mut Works,
        seats: &'s [Arc<Seat>],
        mut reading: Reading,
    ) -> Result<Plan<'s>, ReloadError> {
        if !reading.is_usable() {
            return Err(refusal(reading));
        }
        let (config, running) = (reading.config().clone(), self.config());
        let differences = differences(&running, &config);
        if !differences.is_empty() {
            return Err(ReloadError::Restart(differences));
        }
        let now = self.clock.now();
        let mut misfits = Vec::new();
        let modules = Modules::load(&config, &self.host, &mut misfits);
        let at_work: HashMap<&str, (&Arc<Seat>, &ServiceConfig)> = seats
            .iter()
            .zip(&running.services)
            .map(|(seat, config)| (seat.service().name(), (seat, config)))
            .collect();
        let mut kept = HashSet::new();
        let mut services = Vec::with_capacity(config.services.len());
        for service in &config.services {
            misfits.extend(deployment::probe_health(service));
            let name = service.name.as_str();
            let present = at_work.get(name).filter(|(_, old)| is_continued(old, service));
            services.extend(match present {
                Some((seat, old)) => {
                    kept.insert(name);
                    Some(plan_kept(works, seat, old, service, &modules, &mut misfits))
                }
                None => {
                    let numbers = &mut works.numbers;
                    let seed = random_seed();
                    let seat =
                        deployment::open(service, &modules, numbers, seed, now, &mut misfits);
                    let fate = if at_work.contains_key(name) {
                        ServiceFate::Replaced
                    } else {
                        ServiceFate::Added
                    };
                    let told = ServiceReload::new(name, fate);
                    seat.map(|seat| ServicePlan { told, what: What::Open(seat) })
                }
            });
        }
        if !misfits.is_empty() {
            add_misfits(&mut reading, &misfits);
            return Err(refusal(reading));
        }
        let gone = seats.iter().filter(|seat| !kept.contains(seat.service().name()));
        let is_described = |name: &str| config.services.iter().any(|other| other.name == name);
        let removed = gone.clone().filter(|seat| !is_described(seat.service().name()));
        let told_of_gone = removed
            .map(|seat| ServiceReload::new(seat.service().name(), ServiceFate::Removed))
            .collect();
        let gone = gone.collect();
        let settings = different([
            ("watch", running.watch == config.watch),
            ("metrics", running.metrics == config.metrics),
            ("connection_log", running.connection_log == config.connection_log),
        ]);
        Ok(Plan { config, settings, services, gone, told_of_gone })
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
        let done = match step::take(steps) {
            Ok(done) => done,
            Err(StepError { service, cause }) => {
                // They were there a moment ago.
                let _ = self.ways.lead(needs_before);
                return Err(ReloadError::Seat { service, cause });
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
            if let Some(swap) = &service.scheduler {
                tell_swap(&service.service, swap);
            }
        }
        let settings = snapshot.settings.join(", ");
        tracing::info!(changed = snapshot.services.len(), settings, "configuration reloaded");
        self.reloads.send_replace(());
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

fn refusal(reading: Reading) -> ReloadError {
    match reading.into_config() {
        Err(error) => ReloadError::Config(error),
        Ok(_) => unreachable!("only what has errors is refused"),
    }
}

/// Whether a service with its connections can go on as `new`. Otherwise another one takes its place.
fn is_continued(old: &ServiceConfig, new: &ServiceConfig) -> bool {
    let (before, now) = (old.address(), new.address());
    before.protocol == now.protocol
        && before.vip.is_ipv4() == now.vip.is_ipv4()
        && old.forwarding == new.forwarding
        && old.settings.is_one_packet == new.settings.is_one_packet
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

/// What is to be done at a service that goes on, and what will have been done.
fn plan_kept<'s>(
    works: &mut Works,
    seat: &'s Arc<Seat>,
    old: &ServiceConfig,
    service: &ServiceConfig,
    modules: &Modules<'_>,
    misfits: &mut Vec<Misfit>,
) -> ServicePlan<'s> {
    let terms = seat.service().terms();
    let (present, leaving, old_sorry) = seat.service().look_at_roster(|roster| {
        let leaving: Vec<_> = roster.leaving().cloned().collect();
        (roster.members().collect::<Vec<_>>(), leaving, roster.sorry().cloned())
    });
    let known = |address: SocketAddr| {
        let member = present.iter().find(|member| member.server.address() == address);
        let member = member.map(|member| (Arc::clone(&member.server), Some(member.standing)));
        // One that was taken out and comes back is the one that it was, but is checked anew.
        member.or_else(|| {
            let server = leaving.iter().find(|server| server.address() == address)?;
            Some((Arc::clone(server), None))
        })
    };
    let members = deployment::members(service, terms, &mut works.numbers, known);
    let sorry = service.sorry.map(|address| {
        let same = old_sorry.filter(|sorry| sorry.address() == address);
        same.unwrap_or_else(|| deployment::sorry(address, terms, &mut works.numbers))
    });
    let servers: Vec<_> = members.iter().map(|member| Arc::clone(&member.server)).collect();
    let filed = works.filed.get(&service.name).copied().unwrap_or_else(|| Filed::of(seat));
    let (step, mut told) = plan_scheduler(seat, service, filed, &servers, modules, misfits);
    told.servers = server_changes(&present, &members);
    told.settings = setting_changes(old, service);
    ServicePlan { told, what: What::Keep(Box::new(Kept { seat, step, members, sorry })) }
}

/// What becomes of the servers of a service that goes on.
fn server_changes(old: &[Member], new: &[Member]) -> Vec<ServerReload> {
    let find = |list: &[Member], wanted: &Member| {
        list.iter().find(|member| Arc::ptr_eq(&member.server, &wanted.server)).cloned()
    };
    let mut changes = Vec::new();
    for member in new {
        let server = member.server.address();
        let mut note = |change| changes.push(ServerReload { server, change });
        let Some(Member { standing: before, .. }) = find(old, member) else {
            note(ServerChange::Added { weight: member.standing.configured });
            continue;
        };
        let now = member.standing;
        if before.configured != now.configured {
            note(ServerChange::Weight { from: before.configured, to: now.configured });
        }
        let mut keys = Vec::new();
        if before.upper_threshold != now.upper_threshold {
            keys.push("upper_threshold".to_owned());
        }
        if before.lower_threshold != now.lower_threshold {
            keys.push("lower_threshold".to_owned());
        }
        if before.is_backup != now.is_backup {
            keys.push("backup".to_owned());
        }
        if !keys.is_empty() {
            note(ServerChange::Settings { keys });
        }
        if let Some(weight) = before.set.filter(|weight| *weight != now.configured) {
            note(ServerChange::WeightUndone { weight });
        }
        if before.drain.is_some() {
            note(ServerChange::DrainUndone);
        }
    }
    for member in old.iter().filter(|member| find(new, member).is_none()) {
        let (server, connections) = (member.server.address(), member.server.connections());
        changes.push(ServerReload { server, change: ServerChange::Removed { connections } });
    }
    changes
}

/// The keys of a service that say something else, apart from its scheduler and its servers.
fn setting_changes(old: &ServiceConfig, new: &ServiceConfig) -> Vec<String> {
    let (was, is): (&Settings, &Settings) = (&old.settings, &new.settings);
    // Of servers that go on; what is added or removed is told with the servers.
    let is_checked_alike = new.servers.iter().all(|server| {
        let before = old.servers.iter().find(|before| before.address == server.address);
        before.is_none_or(|before| before.health == server.health)
    });
    let keys = [
        ("vip", was.reach.vips == is.reach.vips),
        ("port", was.reach.ports == is.reach.ports),
        ("timeouts", was.timeouts == is.timeouts),
        ("persistence", was.persistence == is.persistence),
        ("on_no_server", was.on_no_server == is.on_no_server),
        ("on_stray", was.on_stray == is.on_stray),
        ("quorum", was.rules.quorum == is.rules.quorum),
        ("hysteresis", was.rules.hysteresis == is.rules.hysteresis),
        ("slow_start", was.rules.slow_start == is.rules.slow_start),
        ("on_down", was.rules.on_down == is.rules.on_down),
        ("sorry_server", old.sorry == new.sorry),
        ("drain", old.drain == new.drain),
        ("health", is_checked_alike),
    ];
    different(keys)
}

/// The keys that do not say the same.
fn different<const N: usize>(keys: [(&str, bool); N]) -> Vec<String> {
    keys.into_iter().filter(|(_, is_same)| !is_same).map(|(key, _)| key.to_owned()).collect()
}

/// What is to be done at a seat whose service is to have `servers`, and what will have been done.
fn plan_scheduler<'s>(
    seat: &'s Seat,
    service: &ServiceConfig,
    filed: Filed,
    servers: &[Arc<RealServer>],
    modules: &Modules<'_>,
    misfits: &mut Vec<Misfit>,
) -> (Step<'s>, ServiceReload) {
    let mut step = Step::at(seat);
    let mut told = ServiceReload::new(&service.name, ServiceFate::Changed);
    let SchedulerConfig { plugin, config, probation, record, shadow } = &service.scheduler;
    if *record != seat.record() {
        told.record = Some(record.unwrap_or(0));
    }
    if *probation != seat.probation() {
        told.probation = Some(*probation);
    }

    // A plugin that could not be loaded was reported already.
    let Some(wanted) = modules.generation(plugin, config.as_deref()) else { return (step, told) };
    let has_other_servers = !is_same_list(servers, &seat.service().servers());
    // What goes on goes on with these servers.
    let probe = |kept: &Generation| {
        if has_other_servers {
            kept.module.probe(kept.config.as_deref(), servers).map(drop)
        } else {
            Ok(())
        }
    };
    let (number, at_work) = seat.at_work();
    if !is_same(&wanted, &at_work) {
        if number != filed.at_work {
            let plugin = at_work.module.name().to_owned();
            told.undone = Some(GenerationSnapshot { generation: number, plugin });
        }
        match step.change().prepare_for(wanted, servers) {
            Ok(next) => step.seat(next),
            Err(cause) => misfits.push(Misfit::of_service(service, cause)),
        }
    } else if let Err(cause) = probe(&at_work) {
        misfits.push(Misfit::of_service(service, cause));
    }

    let present = seat.report().trial.zip(seat.candidate());
    let Some(shadow) = shadow else {
        if let Some((_, (generation, candidate))) = present {
            let plugin = candidate.module.name().to_owned();
            let is_undone = Some(generation) != filed.candidate;
            let candidate = GenerationSnapshot { generation, plugin };
            told.trial = Some(TrialReload::Ended { candidate, is_undone });
            step.set_trial(TrialStep::End);
        }
        return (step, told);
    };
    let Some(wanted) = modules.generation(&shadow.plugin, shadow.config.as_deref()) else {
        return (step, told);
    };
    match present {
        // A trial does not outlive the plugin that it is compared with.
        Some((report, (generation, candidate)))
            if !step.has_next()
                && is_same(&wanted, &candidate)
                && report.limits == shadow.limits =>
        {
            if let Err(cause) = probe(&candidate) {
                misfits.push(Misfit::of_shadow(service, cause));
            }
            if report.share != shadow.share.hundredths() {
                let plugin = candidate.module.name().to_owned();
                let candidate = GenerationSnapshot { generation, plugin };
                let (from, to) = (Percent::of_hundredths(report.share), shadow.share);
                told.trial = Some(TrialReload::Share { candidate, from, to });
                step.set_trial(TrialStep::Share(shadow.share.hundredths()));
            }
        }
        _ => match step.change().prepare_for(wanted, servers) {
            Ok(candidate) => {
                let share = shadow.share;
                let begun = GenerationSnapshot { generation: 0, plugin: shadow.plugin.clone() };
                told.trial = Some(TrialReload::Begun { candidate: begun, share });
                step.set_trial(TrialStep::Begin(
                    Box::new(candidate),
                    share.hundredths(),
                    shadow.limits,
                ));
            }
            Err(cause) => misfits.push(Misfit::of_shadow(service, cause)),
        },
    }
    (step, told)
}

/// Whether two plugins with their configurations do the same.
fn is_same(one: &Generation, other: &Generation) -> bool {
    let what = |generation: &Generation| {
        let module = &generation.module;
        let limits: Limits = *module.limits();
        (module.name().to_owned(), *module.sha256(), limits, generation.config.clone())
    };
    what(one) == what(other)
}

fn is_same_list(one: &[Arc<RealServer>], other: &[Arc<RealServer>]) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(one, other)| Arc::ptr_eq(one, other))
}

/// What a configuration says differently that only a start can change, by key.
fn differences(old: &Config, new: &Config) -> Vec<String> {
    different([
        ("device", old.device == new.device),
        ("routing", old.routing == new.routing),
        ("admin", old.socket == new.socket && old.admin == new.admin),
        (
            "limits",
            old.limits == new.limits
                && old.checks_max == new.checks_max
                && old.replies_per_second == new.replies_per_second,
        ),
        ("echo", old.answer_echo == new.answer_echo),
        ("closed_port", old.closed_port == new.closed_port),
    ])
}

impl ServiceReload {
    fn note(&mut self, Done { swapped, candidate }: Done) {
        self.scheduler = swapped.map(Into::into);
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
