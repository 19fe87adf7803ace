//! Namespaces that live no longer than this process.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::thread::{self, JoinHandle};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{getegid, geteuid};

use super::LabError;

/// Gives this process a mount namespace with an empty `/run` of its own and, unless it is root, a
/// user namespace in which it is. To be called first thing in `main`, while there is one thread
/// only; threads and children inherit both.
///
/// # Errors
/// [`LabError::Forbidden`].
pub fn isolate() -> Result<(), LabError> {
    let forbidden = |step| move |source: io::Error| LabError::Forbidden { step, source };
    let (user, group) = (geteuid(), getegid());
    if user.is_root() {
        unshare(CloneFlags::CLONE_NEWNS)
            .map_err(|errno| forbidden("making a mount namespace")(errno.into()))?;
    } else {
        unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)
            .map_err(|errno| forbidden("making a user namespace")(errno.into()))?;
        let map = forbidden("becoming root in the user namespace");
        fs::write("/proc/self/setgroups", "deny").map_err(map)?;
        fs::write("/proc/self/uid_map", format!("0 {user} 1")).map_err(map)?;
        fs::write("/proc/self/gid_map", format!("0 {group} 1")).map_err(map)?;
    }
    // What is mounted here stays here.
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .and_then(|()| mount(Some("wvs-lab"), "/run", Some("tmpfs"), MsFlags::empty(), none))
        .map_err(|errno| forbidden("mounting a private /run")(errno.into()))
}

/// A host of the lab: a network namespace without a name, held by this process.
#[derive(Debug)]
pub struct Host {
    name: String,
    namespace: File,
}

impl Host {
    pub(super) fn new(name: String) -> Result<Self, LabError> {
        let make = || {
            unshare(CloneFlags::CLONE_NEWNET)?;
            File::open("/proc/thread-self/ns/net")
        };
        let namespace = thread::scope(|scope| join(scope.spawn(make)))
            .map_err(|source| LabError::Forbidden { step: "making a network namespace", source })?;
        Ok(Self { name, namespace })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn namespace(&self) -> &File {
        &self.namespace
    }

    /// Where another process finds the network namespace while this one lives, for
    /// `nsenter --net=PATH`.
    #[must_use]
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.namespace.as_raw_fd())
    }

    /// Runs `work` on a thread of this host and waits for it. Sockets opened and programs started
    /// there are this host's.
    ///
    /// # Panics
    /// With the panic of `work`.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            join(scope.spawn(|| {
                self.enter();
                work()
            }))
        })
    }

    /// Starts `work` on a thread of this host.
    ///
    /// # Panics
    /// Without a thread left in the system, or when the namespace cannot be entered.
    pub fn spawn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        thread::scope(|scope| {
            join(scope.spawn(|| {
                self.enter();
                // A thread begins in the namespace of the one that started it.
                thread::spawn(work)
            }))
        })
    }

    /// Moves the calling thread to this host.
    ///
    /// # Panics
    /// When the rights to do so were given up since the lab was built.
    fn enter(&self) {
        if let Err(errno) = setns(self.namespace.as_fd(), CloneFlags::CLONE_NEWNET) {
            panic!("cannot enter the network namespace of {}: {errno}", self.name);
        }
    }
}

fn join<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
