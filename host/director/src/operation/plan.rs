//! What a configuration changes about what is at work, found out before anything is changed.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;

use wvs_core::real_server::RealServer;
use wvs_core::roster::Member;
use wvs_core::service::Settings;
use wvs_plugin::Limits;

use super::reload::ReloadError;
use super::step::{Step, TrialStep};
use super::{Filed, Operation, Works};
use crate::config::units::Percent;
use crate::config::{Config, Reading, SchedulerConfig, ServiceConfig};
use crate::control::snapshot::{
    GenerationSnapshot, SchedulerReload, ServerChange, ServerReload, ServiceFate, ServiceReload,
    TrialReload,
};
use crate::deployment::{self, Misfit, Modules, add_misfits};
use crate::run::random_seed;
use crate::seat::{Generation, Seat};

/// What is to be done, and what will have been done.
pub(super) struct Plan<'s> {
    pub(super) config: Config,
    /// The keys outside of services that say something else.
    pub(super) settings: Vec<String>,
    /// What is to be at work, in the order of the configuration.
    pub(super) services: Vec<ServicePlan<'s>>,
    /// What was at work, and is not described any more.
    pub(super) gone: Vec<&'s Arc<Seat>>,
    pub(super) told_of_gone: Vec<ServiceReload>,
}

pub(super) struct ServicePlan<'s> {
    pub(super) told: ServiceReload,
    pub(super) what: What<'s>,
}

pub(super) enum What<'s> {
    Open(Seat),
    Keep(Box<Kept<'s>>),
}

/// A service that goes on, as it is to be.
pub(super) struct Kept<'s> {
    pub(super) seat: &'s Arc<Seat>,
    pub(super) step: Step<'s>,
    pub(super) members: Vec<Member>,
    pub(super) sorry: Option<Arc<RealServer>>,
}

impl Operation {
    /// What is to be done so that what was read is at work.
    pub(super) fn plan<'s>(
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
        let numbers = works.numbers.clone();
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
            // Nobody has those that were given out.
            works.numbers = numbers;
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
            ("plugins", running.plugins == config.plugins),
            ("metrics", running.metrics == config.metrics),
            ("connection_log", running.connection_log == config.connection_log),
        ]);
        Ok(Plan { config, settings, services, gone, told_of_gone })
    }
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
        let from =
            GenerationSnapshot { generation: number, plugin: at_work.module.name().to_owned() };
        let to = GenerationSnapshot { generation: 0, plugin: plugin.clone() };
        told.scheduler = Some(SchedulerReload::Planned { from, to });
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
