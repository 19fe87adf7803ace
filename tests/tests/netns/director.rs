//! The program `wvs` as a process of a test.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use wvs::control::snapshot::{ServicesSnapshot, StatsSnapshot};
use wvs::lab::Host;

use crate::stage::PATIENCE;

pub(crate) const WVS: &str = env!("CARGO_BIN_EXE_wvs-under-test");

/// A running director. Killed when dropped, so that a failing test leaves none.
pub(crate) struct DirectorProcess {
    child: Child,
    output: File,
    log: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

/// A director that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) log: String,
}

impl DirectorProcess {
    /// Starts a director and waits until it is ready.
    #[track_caller]
    pub(crate) fn start(host: &Host, config: &Path) -> Self {
        Self::start_command(host, &mut command(config))
    }

    /// As [`start`](Self::start), by a command that becomes the director.
    #[track_caller]
    pub(crate) fn start_command(host: &Host, command: &mut Command) -> Self {
        host.run(|| Self::start_here(command))
    }

    /// The same in the namespaces of the calling thread.
    #[track_caller]
    pub(crate) fn start_here(command: &mut Command) -> Self {
        let (mut director, ready) = Self::spawn(command);
        if ready.recv_timeout(PATIENCE).is_err() {
            let code = director.child.try_wait();
            panic!("the director does not get ready: {code:?}\n{}", director.log());
        }
        director
    }

    /// Starts a director that is expected to end by itself, and waits for that.
    pub(crate) fn try_start(host: &Host, config: &Path) -> Ended {
        Self::try_command(host, &mut command(config))
    }

    pub(crate) fn try_command(host: &Host, command: &mut Command) -> Ended {
        host.run(|| Self::spawn(command)).0.wait()
    }

    fn spawn(command: &mut Command) -> (Self, mpsc::Receiver<()>) {
        let output = tempfile::tempfile_in("/run").expect("a file");
        let stdout = output.try_clone().expect("a file");
        command.stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped());
        let mut child = command.spawn().expect("wvs runs");
        let stderr = child.stderr.take().expect("a pipe");
        let log = Arc::new(Mutex::new(String::new()));
        let (tell, ready) = mpsc::channel();
        let reader = {
            let log = Arc::clone(&log);
            thread::spawn(move || {
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    let is_ready = line.contains(" ready ");
                    let mut log = log.lock().unwrap();
                    log.push_str(&line);
                    log.push('\n');
                    drop(log);
                    if is_ready {
                        let _ = tell.send(());
                    }
                }
            })
        };
        (Self { child, output, log, reader: Some(reader) }, ready)
    }

    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().try_into().expect("a pid"))
    }

    /// Ends it with SIGTERM, upon which it must end well.
    #[track_caller]
    pub(crate) fn stop(self) -> Ended {
        self.signal(Signal::SIGTERM);
        let ended = self.wait();
        assert_eq!(ended.code, Some(0), "{}", ended.log);
        ended
    }

    /// Kills it, as a crash would.
    pub(crate) fn crash(self) {
        self.signal(Signal::SIGKILL);
        let ended = self.wait();
        assert_eq!(ended.code, None);
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("it runs");
    }

    /// Waits until it ends by itself.
    #[track_caller]
    pub(crate) fn wait(mut self) -> Ended {
        let give_up = Instant::now() + PATIENCE;
        let status = loop {
            match self.child.try_wait().expect("a child") {
                Some(status) => break status,
                None if Instant::now() > give_up => panic!("it does not end:\n{}", self.log()),
                None => thread::sleep(std::time::Duration::from_millis(5)),
            }
        };
        if let Some(reader) = self.reader.take() {
            reader.join().expect("the log is read");
        }
        Ended { code: status.code(), log: self.log() }
    }

    /// What it has printed so far.
    pub(crate) fn output(&mut self) -> String {
        let mut output = String::new();
        self.output.rewind().expect("a file");
        self.output.read_to_string(&mut output).expect("text");
        output
    }
}

impl Drop for DirectorProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("the director's log:\n{}", self.log());
        }
    }
}

/// `wvs run` with this configuration.
pub(crate) fn command(config: &Path) -> Command {
    let mut command = Command::new(WVS);
    command.arg("run").arg("-c").arg(config);
    command
}

/// What `wvs list --json` says about the services.
pub(crate) fn services(socket: &Path) -> ServicesSnapshot {
    let mut list = Command::new(WVS);
    list.args(["list", "--json", "--socket"]).arg(socket);
    let output = list.output().expect("wvs runs");
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// What the control socket says about packets and the device.
pub(crate) fn stats(socket: &Path) -> StatsSnapshot {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(wvs::control::ask(socket, wvs::control::STATS)).expect("an answer")
}
