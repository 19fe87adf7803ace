//! Programs on hosts of the lab, each bounded in time.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use wvs::lab::Host;

use crate::Fallible;

/// How long a program may take to end after it was asked to.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// Ticks in a second in `/proc/PID/stat`: the same on every Linux, whatever its timer does.
const TICKS_PER_SECOND: f64 = 100.0;

/// A program that runs until it is stopped. Killed when dropped.
pub(crate) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` on `host`; what it prints goes to a file in `folder`.
    pub(crate) fn start(
        host: &Host,
        name: String,
        command: &mut Command,
        folder: &Path,
    ) -> Fallible<Self> {
        let log = folder.join(format!("{name}.log"));
        let output = File::create(&log)?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = host
            .run(|| command.spawn())
            .map_err(|error| format!("{name} cannot be started: {error}"))?;
        Ok(Self { name, child, log })
    }

    /// What it printed so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// An error when it has ended by itself.
    pub(crate) fn check_running(&mut self) -> Fallible<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => Err(format!("{} ended ({status}): {}", self.name, self.log()).into()),
        }
    }

    /// Seconds of processor time so far, all threads and child processes together.
    pub(crate) fn cpu_seconds(&self) -> Fallible<f64> {
        let family = self.child.id().to_string();
        let mut ticks = 0.0;
        for entry in fs::read_dir("/proc")? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(pid) = name.to_str().filter(|name| name.parse::<u32>().is_ok()) else {
                continue;
            };
            // A process that ends meanwhile is none of ours.
            let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
            // The name in brackets may contain anything; behind it: state, parent, ...
            let Some((_, fields)) = stat.rsplit_once(')') else { continue };
            let fields: Vec<&str> = fields.split_whitespace().collect();
            if let [_, parent, ..] = fields[..]
                && (pid == family || parent == family)
            {
                for field in fields.get(11..13).unwrap_or_default() {
                    ticks += field.parse::<f64>()?;
                }
            }
        }
        Ok(ticks / TICKS_PER_SECOND)
    }

    /// Asks it to end, waits, and returns what it printed.
    pub(crate) fn stop(mut self) -> Fallible<String> {
        self.check_running()?;
        let pid = Pid::from_raw(self.child.id().try_into()?);
        kill(pid, Signal::SIGTERM)?;
        if !ends_within(&mut self.child, STOP_PATIENCE)? {
            return Err(format!("{} does not end: {}", self.name, self.log()).into());
        }
        Ok(self.log())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a program on `host` to its end, which must be a good one, and returns what it printed to
/// its standard output.
pub(crate) fn run(host: &Host, command: &mut Command, patience: Duration) -> Fallible<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let (output, errors) = (tempfile::NamedTempFile::new()?, tempfile::NamedTempFile::new()?);
    command.stdin(Stdio::null()).stdout(output.reopen()?).stderr(errors.reopen()?);
    let mut child = host
        .run(|| command.spawn())
        .map_err(|error| format!("{name} cannot be started: {error}"))?;
    if !ends_within(&mut child, patience)? {
        let _ = child.kill();
        let _ = child.wait();
        return Err(format!("{name} does not end within {patience:?}").into());
    }
    let output = fs::read_to_string(output.path())?;
    if !child.wait()?.success() {
        let errors = fs::read_to_string(errors.path())?;
        return Err(format!("{name} failed: {output}{errors}").into());
    }
    Ok(output)
}

fn ends_within(child: &mut Child, patience: Duration) -> Fallible<bool> {
    let give_up = Instant::now() + patience;
    while child.try_wait()?.is_none() {
        if Instant::now() > give_up {
            return Ok(false);
        }
        thread::sleep(POLL_INTERVAL);
    }
    Ok(true)
}
