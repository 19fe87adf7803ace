//! A program of the operator's that says whether a server is well.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

use crate::check::{ProbeError, ServerKey};
use crate::finding::{Finding, Outcome};

/// What a program has to end after SIGTERM, before SIGKILL.
const GRACE: Duration = Duration::from_secs(1);

/// The exit code from which on a code is a weight: two more than that.
const WEIGHT_CODE_MIN: i32 = 2;

/// A program that is run for each check, without a shell and in a process group of its own. Its
/// input and output lead nowhere.
///
/// It finds in its environment `PATH` as the director has it, `WVS_SERVICE`, `WVS_SERVER` (address
/// and port of the server), `WVS_ADDRESS` and `WVS_PORT` (what is to be checked), and nothing else.
/// When its time is over, its process group has a second to end after SIGTERM, and then gets
/// SIGKILL; what it leaves running in that group is ended when it ends by itself, too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Its file; not looked up in `PATH`.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// What exit codes mean. `false`: 0 is good and anything else bad. `true`: 0 is good with the
    /// configured weight, 1 is bad, and 2 to 255 are good with a weight of 0 to 253.
    pub weight: bool,
}

impl Command {
    pub(crate) fn probe(&self) -> Result<(), ProbeError> {
        let reason = match self.program.metadata() {
            Err(error) => error.to_string(),
            Ok(meta) if !meta.is_file() => "not a file".to_owned(),
            Ok(meta) if meta.permissions().mode() & 0o111 == 0 => "not executable".to_owned(),
            Ok(_) => return Ok(()),
        };
        Err(ProbeError::Program { program: self.program.clone(), reason })
    }

    pub(crate) async fn ask(
        &self,
        key: &ServerKey,
        target: SocketAddr,
        limit: Duration,
    ) -> Finding {
        let mut process = match self.spawn(key, target) {
            Ok(process) => process,
            Err(error) => return Finding::failed("cannot be run", &error),
        };
        match timeout(limit, process.end()).await {
            Ok(Ok(status)) => self.judge(status),
            Ok(Err(error)) => Finding::unknown(format!("cannot be waited for: {error}")),
            Err(_) => {
                process.signal(Signal::SIGTERM);
                if timeout(GRACE, process.end()).await.is_err() {
                    process.signal(Signal::SIGKILL);
                }
                Finding::bad(format!("did not end within {limit:?}"))
            }
        }
    }

    fn spawn(&self, key: &ServerKey, target: SocketAddr) -> io::Result<Process> {
        // A name without a folder would be looked for in `PATH`.
        let program = Path::new(".").join(&self.program);
        let child = std::process::Command::new(program)
            .args(&self.arguments)
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .env("WVS_SERVICE", &key.service)
            .env("WVS_SERVER", key.server.to_string())
            .env("WVS_ADDRESS", target.ip().to_string())
            .env("WVS_PORT", target.port().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        Ok(Process { child: Some(child) })
    }

    fn judge(&self, status: ExitStatus) -> Finding {
        let Some(code) = status.code() else {
            let signal = status.signal().unwrap_or_default();
            return Finding::bad(format!("ended by signal {signal}"));
        };
        let reason = format!("exit code {code}");
        match code {
            0 => Finding::good(reason),
            WEIGHT_CODE_MIN.. if self.weight => {
                let weight = u32::try_from(code - WEIGHT_CODE_MIN).ok();
                Finding::new(Outcome::Good { weight }, reason)
            }
            _ => Finding::bad(reason),
        }
    }
}

/// A running program with all that it started. Dropped, it is killed.
struct Process {
    /// `None` once it has been waited for.
    child: Option<Child>,
}

impl Process {
    /// To every process of the group. The number of the group is ours as long as the program has
    /// not been waited for.
    fn signal(&self, signal: Signal) {
        if let Some(child) = &self.child {
            // A group without processes is not an error.
            let _ = killpg(pid(child), signal);
        }
    }

    /// Waits until the program has ended, and ends what it leaves behind.
    async fn end(&mut self) -> io::Result<ExitStatus> {
        let child = self.child.as_ref().ok_or(io::ErrorKind::NotFound)?;
        ended(child).await?;
        self.signal(Signal::SIGKILL);
        self.child.take().ok_or(io::ErrorKind::NotFound)?.wait()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
        // A killed process may still take its time, in which nobody is to wait for it.
        if let (Some(mut child), Ok(runtime)) = (self.child.take(), Handle::try_current()) {
            runtime.spawn(async move {
                ended(&child).await?;
                child.wait()
            });
        }
    }
}

/// Waits until a program has ended, and leaves it to be waited for: until then no other group can
/// get its number.
async fn ended(child: &Child) -> io::Result<()> {
    let mut ends = signal(SignalKind::child())?;
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    while waitid(Id::Pid(pid(child)), flags)? == WaitStatus::StillAlive {
        ends.recv().await;
    }
    Ok(())
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_mean_what_is_documented() {
        let good = |weight| Outcome::Good { weight };
        for (code, plain, weighing) in [
            (0, good(None), good(None)),
            (1, Outcome::Bad, Outcome::Bad),
            (2, Outcome::Bad, good(Some(0))),
            (3, Outcome::Bad, good(Some(1))),
            (255, Outcome::Bad, good(Some(253))),
        ] {
            for (weight, outcome) in [(false, plain), (true, weighing)] {
                let command = Command { program: PathBuf::new(), arguments: Vec::new(), weight };
                let status = ExitStatus::from_raw(code << 8);
                assert_eq!(command.judge(status).outcome, outcome, "{code}, {weight}");
                let killed = ExitStatus::from_raw(9);
                assert_eq!(command.judge(killed).outcome, Outcome::Bad);
            }
        }
    }
}
