//! The configuration read again while the director runs. Plugins and schedulers are put to work
//! as it says now; anything else that it says differently needs a restart.

use std::sync::{Arc, PoisonError};

use tokio::task::JoinError;
use wvs_plugin::Limits;

use super::step::{self, Done, Step, StepError, TrialStep};
use super::{Filed, Schedulers, tell_swap};
use crate::config::units::Percent;
use crate::config::{Config, ConfigError, Reading, SchedulerConfig, ServiceConfig};
use crate::control::snapshot::{GenerationSnapshot, ReloadSnapshot, ServiceReload, TrialReload};
use crate::deployment::{Misfit, Modules, add_misfits};
use crate::seat::{Generation, Seat, SeatError};

/// Why a configuration was not put to work. Everything is as it was.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The file, or a plugin that it names, is wrong.
    #[error("{0}")]
    Config(ConfigError),
    /// The file differs in what only a start can change.
    #[error(
        "differs from the running configuration in what this version cannot change while it runs: \
         {}; restart the director to use it", .0.join(", ")
    )]
    Restart(Vec<String>),
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

impl Schedulers {
    /// Reads the configuration again and puts its plugins and schedulers to work, all of them or
    /// none.
    ///
    /// # Errors
    /// See [`ReloadError`].
    pub fn reload(&self) -> Result<ReloadSnapshot, ReloadError> {
        let mut filed = self.filed();
        let mut reading = Reading::of_file(&self.file);
        if !reading.is_usable() {
            return Err(refusal(reading));
        }
        let (config, running) = (reading.config().clone(), self.config());
        let differences = differences(&running, &config);
        if !differences.is_empty() {
            return Err(ReloadError::Restart(differences));
        }

        let mut misfits = Vec::new();
        let modules = Modules::load(&config, &self.host, &mut misfits);
        let mut plans = Vec::with_capacity(self.seats.len());
        for ((seat, service), filed) in self.seats.iter().zip(&config.services).zip(&*filed) {
            plans.push(plan(seat, service, *filed, &modules, &mut misfits));
        }
        if !misfits.is_empty() {
            add_misfits(&mut reading, &misfits);
            return Err(refusal(reading));
        }
        let (steps, mut told): (Vec<_>, Vec<_>) = plans.into_iter().unzip();
        let done = step::take(steps)
            .map_err(|StepError { service, cause }| ReloadError::Seat { service, cause })?;

        for (told, Done { swapped, candidate }) in told.iter_mut().zip(done) {
            told.scheduler = swapped.map(Into::into);
            if let (Some(TrialReload::Begun { candidate: told, .. }), Some(number)) =
                (&mut told.trial, candidate)
            {
                told.generation = number;
            }
        }
        for ((seat, service), filed) in self.seats.iter().zip(&config.services).zip(&mut *filed) {
            seat.set_probation(service.scheduler.probation);
            *filed = Filed::of(seat);
        }
        *self.config.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
        told.retain(ServiceReload::is_change);
        for service in &told {
            if let Some(swap) = &service.scheduler {
                tell_swap(&service.service, swap);
            }
        }
        tracing::info!(changed = told.len(), "configuration reloaded");
        Ok(ReloadSnapshot { services: told })
    }
}

fn refusal(reading: Reading) -> ReloadError {
    match reading.into_config() {
        Err(error) => ReloadError::Config(error),
        Ok(_) => unreachable!("only what has errors is refused"),
    }
}

/// What is to be done at a seat, and what will have been done.
fn plan<'s>(
    seat: &'s Seat,
    service: &ServiceConfig,
    filed: Filed,
    modules: &Modules<'_>,
    misfits: &mut Vec<Misfit>,
) -> (Step<'s>, ServiceReload) {
    let mut step = Step::at(seat);
    let mut told = ServiceReload {
        service: service.name.clone(),
        scheduler: None,
        undone: None,
        trial: None,
        probation: None,
    };
    let SchedulerConfig { plugin, config, probation, shadow } = &service.scheduler;
    if *probation != seat.probation() {
        told.probation = Some(*probation);
    }

    // A plugin that could not be loaded was reported already.
    let Some(wanted) = modules.generation(plugin, config.as_deref()) else { return (step, told) };
    let (number, at_work) = seat.at_work();
    if !is_same(&wanted, &at_work) {
        if number != filed.at_work {
            let plugin = at_work.module.name().to_owned();
            told.undone = Some(GenerationSnapshot { generation: number, plugin });
        }
        match step.change().prepare(wanted) {
            Ok(next) => step.seat(next),
            Err(cause) => misfits.push(Misfit::of_service(service, cause)),
        }
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
            if report.share != shadow.share.hundredths() {
                let plugin = candidate.module.name().to_owned();
                let candidate = GenerationSnapshot { generation, plugin };
                let (from, to) = (Percent::of_hundredths(report.share), shadow.share);
                told.trial = Some(TrialReload::Share { candidate, from, to });
                step.set_trial(TrialStep::Share(shadow.share.hundredths()));
            }
        }
        _ => match step.change().prepare(wanted) {
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

/// What a configuration says differently that has nothing to do with schedulers, by key.
fn differences(old: &Config, new: &Config) -> Vec<String> {
    let mut differences: Vec<String> = [
        ("device", old.device == new.device),
        ("routing", old.routing == new.routing),
        ("admin.socket", old.socket == new.socket),
        ("limits", old.limits == new.limits && old.replies_per_second == new.replies_per_second),
        ("echo", old.answer_echo == new.answer_echo),
        ("closed_port", old.closed_port == new.closed_port),
    ]
    .into_iter()
    .filter(|(_, is_same)| !is_same)
    .map(|(key, _)| key.to_owned())
    .collect();
    let names = |config: &Config| -> Vec<String> {
        config.services.iter().map(|service| service.name.clone()).collect()
    };
    if names(old) != names(new) {
        differences.push("the names of services and their order".to_owned());
        return differences;
    }
    for (old, new) in old.services.iter().zip(&new.services) {
        let keys = [
            ("vip, port or protocol", old.address == new.address),
            ("forward or pool", old.forwarding == new.forwarding),
            ("timeouts", old.timeouts == new.timeouts),
            ("on_no_server", old.on_no_server == new.on_no_server),
            ("on_stray", old.on_stray == new.on_stray),
            ("servers", old.servers == new.servers),
        ];
        for (key, _) in keys.into_iter().filter(|(_, is_same)| !is_same) {
            differences.push(format!("{key} of service {}", old.name));
        }
    }
    differences
}
