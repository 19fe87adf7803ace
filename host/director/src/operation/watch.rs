//! Plugins' files that are put to work when they change.
//!
//! The files are looked at again and again instead of having the kernel tell of changes: a look
//! costs microseconds, and sees files that are renamed into place, folders made anew, links that
//! lead elsewhere, and file systems over which the kernel tells nothing.

use std::collections::HashMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};
use wvs_plugin::{LoadError, Source};

use super::step::{self, Step, StepError, TrialStep};
use super::{Filed, Operation, name, tell_swap};
use crate::config::{PluginConfig, read_at_most};
use crate::control::snapshot::SwapSnapshot;
use crate::deployment::MisfitCause;
use crate::seat::{Generation, SeatError};

/// Between two looks. A file must be the same in two of them to count as written to its end.
const INTERVAL: Duration = Duration::from_millis(250);

/// Looks at the files of plugins with `watch: true` for ever.
pub async fn watch(operation: Arc<Operation>) {
    let mut files = WatchedFiles::default();
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if !operation.config().plugins.iter().any(|plugin| plugin.watch) {
            continue;
        }
        let operation = Arc::clone(&operation);
        let look = spawn_blocking(move || {
            files.look(&operation);
            files
        });
        files = match look.await {
            Ok(files) => files,
            Err(error) => {
                tracing::error!(%error, "watching plugins' files ends: this is a bug in wvs");
                return;
            }
        };
    }
}

/// What was last seen of each plugin's file.
#[derive(Debug, Default)]
pub struct WatchedFiles(HashMap<String, Seen>);

#[derive(Debug, Default)]
struct Seen {
    /// The file as it was when everything was done about it that there was to do.
    settled: Option<Mark>,
    /// What it held at the last look, if it was another file then than the one settled.
    pending: Option<Hash>,
    /// What it held that could not be put to work.
    refused: Option<Hash>,
}

type Hash = [u8; 32];

/// What tells a file that was changed or replaced from the one before, without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Mark {
    /// That of a file that is there.
    pub(crate) fn of_file(path: &Path) -> Option<Self> {
        std::fs::metadata(path).as_ref().map(Self::of).ok()
    }

    fn of(file: &Metadata) -> Self {
        Self {
            device: file.dev(),
            inode: file.ino(),
            length: file.len(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        }
    }
}

/// Why a file was not put to work.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error(transparent)]
    Misfit(#[from] MisfitCause),
    #[error("service {service}: {cause}")]
    Seat { service: String, cause: SeatError },
}

impl WatchedFiles {
    /// Looks at each watched file once, and puts to work what changed and is the same as at the
    /// last look.
    pub fn look(&mut self, operation: &Operation) {
        let config = operation.config();
        let watched = || config.plugins.iter().filter(|plugin| plugin.watch);
        self.0.retain(|name, _| watched().any(|plugin| plugin.name == *name));
        for plugin in watched() {
            self.0.entry(plugin.name.clone()).or_default().look(plugin, operation);
        }
    }
}

impl Seen {
    fn look(&mut self, plugin: &PluginConfig, operation: &Operation) {
        let Some(mark) = Mark::of_file(&plugin.file) else {
            // Whoever replaces it may be about to put the new one there.
            self.pending = None;
            return;
        };
        if self.settled == Some(mark) {
            return;
        }
        let octets = match read_at_most(&plugin.file, plugin.limits.module) {
            Ok(octets) => octets,
            Err(source) => {
                let path = plugin.file.clone();
                let refusal = Refusal::Misfit(LoadError::Read { path, source }.into());
                self.settle(mark);
                warn(plugin, &refusal);
                return;
            }
        };
        let hash = Hash::from(Sha256::digest(&octets));
        if self.pending != Some(hash) {
            // Perhaps somebody is still writing it.
            self.pending = Some(hash);
            return;
        }
        self.settle(mark);
        if self.refused == Some(hash) {
            return;
        }
        match operation.put_file_to_work(plugin, &octets, &hash) {
            Ok(_) => self.refused = None,
            Err(refusal) => {
                self.refused = Some(hash);
                warn(plugin, &refusal);
            }
        }
    }

    fn settle(&mut self, mark: Mark) {
        self.settled = Some(mark);
        self.pending = None;
    }
}

fn warn(plugin: &PluginConfig, refusal: &Refusal) {
    let (plugin, file) = (&plugin.name, plugin.file.display());
    tracing::warn!(plugin, %file, "the plugin's file changed, but the old one stays: {refusal}");
}

impl Operation {
    /// Gives every service that has the plugin at work, or tries it out, what its file holds now.
    fn put_file_to_work(
        &self,
        plugin: &PluginConfig,
        octets: &[u8],
        hash: &Hash,
    ) -> Result<(), Refusal> {
        let is_older = |generation: &Generation| {
            generation.module.name() == plugin.name && generation.module.sha256() != hash
        };
        let works = &mut *self.works();
        let seats = self.seats();
        let concerned: Vec<_> = seats
            .iter()
            .filter(|seat| {
                is_older(&seat.at_work().1)
                    || seat.candidate().is_some_and(|(_, candidate)| is_older(&candidate))
            })
            .collect();
        if concerned.is_empty() {
            return Ok(());
        }
        let source = Source::Octets { name: &plugin.name, octets };
        let module = self.host.load(source, plugin.limits).map_err(MisfitCause::from)?;
        let mut steps = Vec::with_capacity(concerned.len());
        for seat in &concerned {
            let mut step = Step::at(seat);
            let service = || seat.service().name().to_owned();
            let refusal = |cause| Refusal::Seat { service: service(), cause };
            let next = |old: Generation| Generation { module: module.clone(), config: old.config };
            let (_, at_work) = seat.at_work();
            if is_older(&at_work) {
                step.seat(step.change().prepare(next(at_work)).map_err(refusal)?);
            }
            // A trial begins anew, since other plugins are compared from here on. One that stopped by
            // itself does so only for another candidate.
            if let Some((report, (_, candidate))) = seat.report().trial.zip(seat.candidate())
                && (report.stopped.is_none() || is_older(&candidate))
            {
                let candidate = if is_older(&candidate) { next(candidate) } else { candidate };
                let candidate = step.change().prepare(candidate).map_err(refusal)?;
                step.set_trial(TrialStep::Begin(Box::new(candidate), report.share, report.limits));
            }
            steps.push(step);
        }
        let done = step::take(steps)
            .map_err(|StepError { service, cause }| Refusal::Seat { service, cause })?;
        for (seat, done) in concerned.into_iter().zip(done) {
            let service = seat.service().name();
            let filed = works.filed.entry(name(seat)).or_insert_with(|| Filed::of(seat));
            if let Some(swap) = done.swapped.map(SwapSnapshot::from) {
                tell_swap(service, &swap);
                filed.at_work = swap.to.generation;
            }
            if let Some(generation) = done.candidate {
                tracing::info!(service, generation, "the trial of the candidate begins anew");
                // One that somebody began stays somebody's.
                filed.candidate = filed.candidate.map(|_| generation);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::fixture::{Fixture, at_work, module};
    use super::*;

    const WATCHED: &str = "plugins: { mine: { file: plugins/mine.wasm, watch: true } }";

    fn fixture() -> Fixture {
        let fixture = Fixture::new();
        fs::create_dir(fixture.path("plugins")).unwrap();
        fixture.write("plugins/mine.wasm", &module(0, ""));
        fixture
    }

    /// Looks as often as it takes to see that nothing changes any more.
    fn settle(files: &mut WatchedFiles, operation: &Operation) {
        for _ in 0..3 {
            files.look(operation);
        }
    }

    #[test]
    fn half_written_file_is_never_loaded() {
        let fixture = fixture();
        fixture.configure(WATCHED, &["mine"]);
        let (operation, mut files) = (fixture.start(), WatchedFiles::default());
        settle(&mut files, &operation);
        assert_eq!(at_work(&operation, 0), ("mine".to_owned(), 1));

        // Each look finds more of it, as when somebody is still writing.
        let next = module(1, "");
        for end in [next.len() / 3, next.len() / 2, next.len() - 1, next.len()] {
            fixture.write("plugins/mine.wasm", &next[..end]);
            files.look(&operation);
            assert_eq!(at_work(&operation, 0).1, 1, "{end}");
            let seen = &files.0["mine"];
            assert!(seen.refused.is_none(), "half a file was loaded");
        }
        files.look(&operation);
        assert_eq!(at_work(&operation, 0).1, 2);
        settle(&mut files, &operation);
        assert_eq!(at_work(&operation, 0).1, 2);
    }

    #[test]
    fn file_that_is_no_plugin_is_tried_once_and_the_next_one_again() {
        let fixture = fixture();
        fixture.configure(WATCHED, &["mine"]);
        let (operation, mut files) = (fixture.start(), WatchedFiles::default());
        settle(&mut files, &operation);
        fixture.write("plugins/mine.wasm", b"nonsense");
        settle(&mut files, &operation);
        assert_eq!(at_work(&operation, 0).1, 1);
        let seen = &files.0["mine"];
        assert!(seen.refused.is_some() && seen.settled.is_some() && seen.pending.is_none());
        fixture.write("plugins/mine.wasm", &module(1, ""));
        settle(&mut files, &operation);
        assert_eq!(at_work(&operation, 0).1, 2);
    }

    #[test]
    fn folder_that_is_made_anew_and_link_that_leads_elsewhere_are_followed() {
        let fixture = fixture();
        fixture.configure(WATCHED, &["mine"]);
        let (operation, mut files) = (fixture.start(), WatchedFiles::default());
        settle(&mut files, &operation);
        fs::remove_dir_all(fixture.path("plugins")).unwrap();
        settle(&mut files, &operation);
        assert_eq!(at_work(&operation, 0).1, 1);
        fs::create_dir(fixture.path("plugins")).unwrap();
        fixture.write("plugins/mine.wasm", &module(1, ""));
        settle(&mut files, &operation);
        assert_eq!(at_work(&operation, 0).1, 2);

        fs::create_dir(fixture.path("next")).unwrap();
        fixture.write("next/mine.wasm", &module(0, ""));
        fs::rename(fixture.path("plugins"), fixture.path("old")).unwrap();
        std::os::unix::fs::symlink(fixture.path("next"), fixture.path("plugins")).unwrap();
        settle(&mut files, &operation);
        assert_eq!(at_work(&operation, 0).1, 3);
    }

    #[test]
    fn every_service_that_uses_the_plugin_gets_it_with_its_own_configuration_and_no_other() {
        let fixture = fixture();
        let operation = [
            "{ plugin: mine, config: { x: 1 } }",
            "rr",
            "{ plugin: rr, shadow: mine, canary: 5% }",
        ];
        fixture.configure(WATCHED, &operation);
        let (operation, mut files) = (fixture.start(), WatchedFiles::default());
        settle(&mut files, &operation);
        fixture.write("plugins/mine.wasm", &module(1, ""));
        settle(&mut files, &operation);
        assert_eq!(at_work(&operation, 0), ("mine".to_owned(), 2));
        let (_, generation) = operation.seats()[0].at_work();
        assert_eq!(generation.config.as_deref(), Some(r#"{"x":1}"#));
        for place in [1, 2] {
            assert_eq!(at_work(&operation, place), ("rr".to_owned(), 1));
        }
        let trial = operation.seats()[2].report().trial.unwrap();
        assert_eq!((trial.candidate.generation, trial.share), (3, 500));
    }

    #[test]
    fn file_that_is_not_watched_is_left_alone() {
        let fixture = fixture();
        fixture.configure("plugins: { mine: { file: plugins/mine.wasm } }", &["mine"]);
        let (operation, mut files) = (fixture.start(), WatchedFiles::default());
        fixture.write("plugins/mine.wasm", &module(1, ""));
        settle(&mut files, &operation);
        assert_eq!(at_work(&operation, 0).1, 1);
    }
}
