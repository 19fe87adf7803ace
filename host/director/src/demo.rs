//! `wvs demo`: the whole thing at work, on this machine, touching nothing outside its own network
//! namespaces.
//!
//! ```text
//!  16 client addresses ── director (the code of `wvs run`, a real TUN device) ── 3 HTTP servers
//! ```
//!
//! Every number shown is counted: requests by the clients, who learn the server's name from its
//! answer; placements and faults by the director.

mod act;
mod config;
mod host_runtime;
mod load;
mod report;
mod servers;
mod show;

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::config::ConfigError;
use crate::deployment::{Misfit, MisfitCause};
use crate::lab::{self, Lab, LabError};
use crate::operation::{Action, ChangeError, Proposal, ProposedPlugin};
use crate::run::{Running, StartError};
use crate::stop_signals::StopSignals;
use act::{Act, Goal};
use load::Load;
pub use report::Report;
use report::{ActReport, ServerReport};
use servers::Servers;
use show::Show;

/// Real servers, and their weights in the order of the configuration.
const WEIGHTS: [u32; 3] = [3, 2, 1];

/// Connections held open where a scheduler is to follow them: a multiple of the sum of weights.
const HELD: usize = 60;

/// How long requests run for one scheduler.
const ACT_TIME: Duration = Duration::from_millis(2_500);

/// How long requests run at most while a plugin has not failed yet that is to fail.
const ACT_TIME_MAX: Duration = Duration::from_secs(10);

/// Between two steps of the progress on a terminal.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// What to show.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// A plugin to show in place of the built-in ones.
    pub scheduler: Option<PathBuf>,
    /// Keep the director running until a signal.
    pub keep: bool,
    /// Show nothing but what was found out, as JSON.
    pub json: bool,
}

/// Why the demo could not be given.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// No network to show it in.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// The director does not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The user's plugin does not work.
    #[error("{path}: {cause}", path = .file.display())]
    Unfit {
        /// Its file.
        file: PathBuf,
        /// What is wrong with it.
        cause: MisfitCause,
    },
    /// A scheduler does not take its place.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// The configuration made for it is wrong: a bug of ours, or an unfit file name.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A file or socket.
    #[error("cannot {step}: {source}")]
    Failed {
        /// What was tried.
        step: &'static str,
        /// What happened.
        source: io::Error,
    },
    /// A signal came.
    #[error("interrupted; everything was taken down")]
    Interrupted,
}

/// Gives the demo, showing it on `out`. To be called first thing in the process, while there is
/// one thread. Returns what was found out; whether that is as expected is for [`Report::is_good`].
///
/// # Errors
/// See [`DemoError`]. Nothing is left behind.
pub fn run(
    options: &Options,
    out: &mut (dyn Write + Send),
    is_terminal: bool,
) -> Result<Report, DemoError> {
    // Found while its path still means what the user meant.
    let scheduler = match &options.scheduler {
        Some(path) => Some(std::path::absolute(path).map_err(failed("find the plugin"))?),
        None => None,
    };
    lab::isolate()?;
    let lab = Lab::build(u8::try_from(WEIGHTS.len()).unwrap_or(u8::MAX))?;
    let servers = Servers::start(&lab)?;
    let load = Load::start(&lab.client)?;
    let mut show = Show::new(out, is_terminal, options.json);
    let stage = Stage { lab: &lab, load: &load, keep: options.keep, scheduler };
    let report = lab.director.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(failed("start"))?.block_on(stage.play(&mut show))
    });
    load.stop();
    servers.stop();
    report
}

fn failed(step: &'static str) -> impl Fn(io::Error) -> DemoError {
    move |source| DemoError::Failed { step, source }
}

struct Stage<'a> {
    lab: &'a Lab,
    load: &'a Load,
    keep: bool,
    scheduler: Option<PathBuf>,
}

impl Stage<'_> {
    /// Runs the director in the namespace of this thread and gives one act after another.
    async fn play(&self, show: &mut Show<'_>) -> Result<Report, DemoError> {
        let mut signals = StopSignals::new().map_err(failed("listen for signals"))?;
        let acts = self.scheduler.as_deref().map_or_else(act::all, act::of_user);
        let config = config::write(self.scheduler.as_deref())?;
        let began = Instant::now();
        let running = Running::start(&config, config::file())
            .await
            .map_err(|error| self.describe_start(error))?;
        show.overture();

        let mut performance = Performance { stage: self, running: &running, acts: Vec::new() };
        let result = tokio::select! {
            result = performance.give(acts, show) => result,
            _ = signals.recv() => Err(DemoError::Interrupted),
        };
        let acts = performance.acts;
        let report = match result {
            Ok(()) => {
                self.load.stop_requests().await;
                let report = self.report(&running, acts, began.elapsed());
                show.finale(&report);
                if self.keep {
                    self.seat_healthy_scheduler(&running).await?;
                    show.instructions(&self.lab.client, running.socket());
                    signals.recv().await;
                } else if self.scheduler.is_none() {
                    show.hints();
                }
                Ok(report)
            }
            Err(error) => {
                show.clear_progress();
                Err(error)
            }
        };
        // The namespace goes away with all that is in it; taken back all the same, as `wvs run`
        // would.
        if let Err(error) = running.stop().await {
            return Err(StartError::from(error).into());
        }
        report
    }

    /// Speaks of the user's file, where the director speaks of what we made of it.
    fn describe_start(&self, error: StartError) -> DemoError {
        match (error, &self.scheduler) {
            (StartError::Misfits(mut misfits), Some(file)) if misfits.len() == 1 => {
                let Misfit { cause, .. } = misfits.remove(0);
                DemoError::Unfit { file: file.clone(), cause }
            }
            (error, _) => error.into(),
        }
    }

    /// The last act leaves a plugin behind that nobody wants to look around with.
    async fn seat_healthy_scheduler(&self, running: &Running) -> Result<(), ChangeError> {
        if self.scheduler.is_some() {
            return Ok(());
        }
        let healthy = ProposedPlugin::Named("wlc".to_owned());
        running.change_scheduler(config::SERVICE, swap(healthy)).await?;
        Ok(())
    }

    fn report(&self, running: &Running, acts: Vec<ActReport>, took: Duration) -> Report {
        let total = self.load.total();
        let seats = running.seats();
        let counters = seats.first().map(|seat| seat.service().counters());
        let (picked, fallback) =
            counters.map_or((0, 0), |counters| (counters.picked.get(), counters.fallback.get()));
        Report {
            requests: total.requests,
            failed: total.failed,
            first_failure: total.first_failure,
            connections_placed_by_plugins: picked,
            connections_placed_by_fallback: fallback,
            replacements: acts.len().saturating_sub(1),
            seconds: took.as_secs_f64(),
            acts,
        }
    }
}

struct Performance<'a> {
    stage: &'a Stage<'a>,
    running: &'a Running,
    acts: Vec<ActReport>,
}

impl Performance<'_> {
    async fn give(&mut self, acts: Vec<Act>, show: &mut Show<'_>) -> Result<(), DemoError> {
        for (number, act) in acts.into_iter().enumerate() {
            show.begin(&act);
            // The load never stops: schedulers change under it.
            if let Some(plugin) = act.plugin.clone().filter(|_| number > 0) {
                self.stage.load.measure_nothing();
                for seat in &*self.running.seats() {
                    seat.set_probation(act.probation);
                }
                self.running.change_scheduler(config::SERVICE, swap(plugin)).await?;
            }
            let report = self.measure(act, show).await?;
            show.end(&report);
            self.acts.push(report);
        }
        Ok(())
    }

    async fn measure(&self, act: Act, show: &mut Show<'_>) -> Result<ActReport, DemoError> {
        let load = self.stage.load;
        let before = self.placements();
        load.measure();
        self.wait(show, act.goal).await;
        let held = if act.goal == Goal::HeldByWeight {
            // What earlier schedulers did is forgotten by now: closed connections last a second.
            load.hold(HELD).await.map_err(failed("hold connections"))?
        } else {
            Vec::new()
        };
        let measured = load.measure_nothing();
        let after = self.placements();
        load.release();

        let servers = WEIGHTS
            .iter()
            .enumerate()
            .map(|(index, &weight)| ServerReport {
                name: self.stage.lab.servers[index].name().to_owned(),
                weight,
                requests: measured.by_client.iter().map(|servers| servers[index]).sum(),
                clients: count(measured.by_client.iter().filter(|servers| servers[index] > 0)),
                held: count(held.iter().filter(|server| **server == index)),
            })
            .collect();
        Ok(ActReport {
            scheduler: act.name,
            goal: act.goal,
            servers,
            faithful_clients: measured
                .by_client
                .iter()
                .filter(|servers| servers.iter().filter(|requests| **requests > 0).count() == 1)
                .count(),
            failed: measured.failed,
            placed_by_plugin: after.plugin - before.plugin,
            placed_by_fallback: after.fallback - before.fallback,
            faults: after.faults,
            cut_off: after.cut_off,
            quarantines: after.quarantines,
            last_fault: after.last_fault,
            gave_way: after.gave_way,
        })
    }

    /// Waits for an act's time, and for a plugin that is to fail on a slow machine a little more.
    async fn wait(&self, show: &mut Show<'_>, goal: Goal) {
        let begin = Instant::now();
        loop {
            let took = begin.elapsed();
            let has_failed = match goal {
                Goal::GaveWay => self.placements().gave_way.is_some(),
                Goal::Survived => self.placements().quarantines > 0,
                _ => true,
            };
            if took >= ACT_TIME && has_failed || took >= ACT_TIME_MAX {
                return;
            }
            tokio::time::sleep(PROGRESS_INTERVAL).await;
            let part = took.as_secs_f64() / ACT_TIME.as_secs_f64();
            show.progress(part.min(1.0), self.stage.load.total().requests);
        }
    }

    fn placements(&self) -> Placements {
        let seats = self.running.seats();
        let Some(seat) = seats.first() else { return Placements::default() };
        let service = seat.service().counters();
        let report = seat.report();
        let plugin = report.plugin.counters;
        Placements {
            plugin: service.picked.get(),
            fallback: service.fallback.get(),
            faults: plugin.faults(),
            cut_off: plugin.out_of_fuel(),
            quarantines: plugin.quarantines(),
            last_fault: plugin.last_fault().map(|fault| fault.to_string()),
            gave_way: report
                .rollback
                .and_then(|rollback| rollback.fault)
                .map(|fault| fault.to_string()),
        }
    }
}

fn swap(plugin: ProposedPlugin) -> Action {
    Action::Swap(Proposal { plugin, config: None })
}

fn count(items: impl Iterator) -> u64 {
    items.fold(0, |count, _| count + 1)
}

/// The director's counts at one moment; those of faults began with the plugin at work.
#[derive(Clone, Debug, Default)]
struct Placements {
    plugin: u64,
    fallback: u64,
    faults: u64,
    cut_off: u64,
    quarantines: u64,
    last_fault: Option<String>,
    /// Why a plugin on probation gave way to the one before.
    gave_way: Option<String>,
}
