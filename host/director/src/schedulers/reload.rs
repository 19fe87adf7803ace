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
            seat.set_record(service.scheduler.record);
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
        record: None,
    };
    let SchedulerConfig { plugin, config, probation, record, shadow } = &service.scheduler;
    if *record != seat.record() {
        told.record = Some(record.unwrap_or(0));
    }
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

#[cfg(test)]
mod tests {
    use super::super::fixture::{Fixture, WITH_STATE, at_work, module};
    use super::super::{Action, Proposal, ProposedPlugin};
    use super::*;

    const MINE: &str = "plugins: { mine: { file: mine.wasm } }";

    fn names(reload: &ReloadSnapshot) -> Vec<&str> {
        reload.services.iter().map(|service| service.service.as_str()).collect()
    }

    fn swap(schedulers: &Schedulers, service: &str, plugin: &str) {
        let plugin = ProposedPlugin::Named(plugin.to_owned());
        schedulers.change(service, Action::Swap(Proposal { plugin, config: None })).unwrap();
    }

    #[test]
    fn only_what_changed_is_put_to_work() {
        let fixture = Fixture::new();
        fixture.write("mine.wasm", &module(0, ""));
        fixture.configure(MINE, &["mine", "rr", "rr"]);
        let schedulers = fixture.start();
        assert_eq!(names(&schedulers.reload().unwrap()), Vec::<&str>::new());

        // A file, a configuration of another service, nothing of the third.
        fixture.write("mine.wasm", &module(1, ""));
        fixture.configure(MINE, &["mine", "{ plugin: mine, config: 1 }", "rr"]);
        let reload = schedulers.reload().unwrap();
        assert_eq!(names(&reload), ["a", "b"]);
        assert_eq!(at_work(&schedulers, 0), ("mine".to_owned(), 2));
        assert_eq!(at_work(&schedulers, 1), ("mine".to_owned(), 2));
        assert_eq!(at_work(&schedulers, 2), ("rr".to_owned(), 1));

        // Limits, too, belong to what a plugin is.
        let limited = "plugins: { mine: { file: mine.wasm, limits: { fuel: 2000 } } }";
        fixture.configure(limited, &["mine", "{ plugin: mine, config: 1 }", "rr"]);
        assert_eq!(names(&schedulers.reload().unwrap()), ["a", "b"]);
        let (_, generation) = schedulers.seats()[0].at_work();
        assert_eq!(generation.module.limits().fuel, 2_000);
    }

    #[test]
    fn trial_begins_changes_and_ends_as_the_file_says() {
        let fixture = Fixture::new();
        fixture.configure("", &["rr"]);
        let schedulers = fixture.start();
        let seat = &schedulers.seats()[0];
        let trial = || seat.report().trial.map(|trial| (trial.candidate.generation, trial.share));
        fixture.configure("", &["{ plugin: rr, shadow: wlc }"]);
        schedulers.reload().unwrap();
        assert_eq!(trial(), Some((2, 0)));
        fixture.configure("", &["{ plugin: rr, shadow: wlc, canary: 10% }"]);
        schedulers.reload().unwrap();
        assert_eq!(trial(), Some((2, 1_000)));
        // The plugin at work is another one from here on, so that the trial begins anew.
        fixture.configure("", &["{ plugin: sh, shadow: wlc, canary: 10% }"]);
        schedulers.reload().unwrap();
        assert_eq!(trial(), Some((4, 1_000)));
        fixture.configure("", &["{ plugin: sh, probation: 7 }"]);
        let reload = schedulers.reload().unwrap();
        assert_eq!(trial(), None);
        assert_eq!(reload.services[0].probation, Some(7));
        assert_eq!(seat.probation(), 7);
    }

    #[test]
    fn what_was_done_at_run_time_goes_and_is_named() {
        let fixture = Fixture::new();
        fixture.configure("", &["rr", "rr"]);
        let schedulers = fixture.start();
        swap(&schedulers, "b", "sh");
        let reload = schedulers.reload().unwrap();
        assert_eq!(names(&reload), ["b"]);
        let undone = reload.services[0].undone.as_ref().unwrap();
        assert_eq!((undone.plugin.as_str(), undone.generation), ("sh", 2));
        assert_eq!(at_work(&schedulers, 1), ("rr".to_owned(), 3));
        // What the file says is no contradiction.
        swap(&schedulers, "b", "sh");
        fixture.configure("", &["rr", "sh"]);
        assert_eq!(names(&schedulers.reload().unwrap()), Vec::<&str>::new());
    }

    #[test]
    fn file_that_is_wrong_changes_nothing_and_says_where() {
        let fixture = Fixture::new();
        fixture.configure("", &["rr", "rr"]);
        let schedulers = fixture.start();
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
            let error = schedulers.reload().unwrap_err();
            assert!(matches!(error, ReloadError::Config(_)), "{error}");
            assert!(error.to_string().contains(reason), "{error}");
            assert_eq!(at_work(&schedulers, 0), ("rr".to_owned(), 1));
        }
    }

    #[test]
    fn whatever_else_differs_is_named_and_changes_nothing() {
        let fixture = Fixture::new();
        fixture.configure("", &["rr", "rr"]);
        let schedulers = fixture.start();
        let path = fixture.path("wvs.yaml");
        fixture.configure("limits: { replies: 7 }\ndevice: { mtu: 1400 }", &["wlc", "rr"]);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("port: 2,", "port: 2, on_stray: drop,")).unwrap();
        let error = schedulers.reload().unwrap_err().to_string();
        assert!(error.contains(": device, limits, on_stray of service b; restart"), "{error}");
        fixture.configure("", &["wlc"]);
        let error = schedulers.reload().unwrap_err().to_string();
        assert!(error.contains("the names of services and their order"), "{error}");
        assert_eq!(at_work(&schedulers, 0), ("rr".to_owned(), 1));
    }

    #[test]
    fn plugin_that_fails_on_a_state_takes_back_what_was_changed_before_it() {
        let fixture = Fixture::new();
        fixture.write("mine.wasm", &module(0, WITH_STATE));
        fixture.write("next.wasm", &module(1, WITH_STATE));
        let plugins = "plugins: { mine: { file: mine.wasm }, next: { file: next.wasm } }";
        fixture.configure(plugins, &["rr", "mine", "mine"]);
        let schedulers = fixture.start();
        fixture.configure(plugins, &["wlc", "next", "mine"]);
        let error = schedulers.reload().unwrap_err();
        assert!(matches!(&error, ReloadError::Seat { service, .. } if service == "b"), "{error}");
        assert_eq!(at_work(&schedulers, 0), ("rr".to_owned(), 1));
        assert_eq!(at_work(&schedulers, 1), ("mine".to_owned(), 1));
        assert_eq!(schedulers.config().services[0].scheduler.plugin, "rr");
    }
}
