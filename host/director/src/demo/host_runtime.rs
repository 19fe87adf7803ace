//! Tasks on a host of the lab.

use std::io;
use std::sync::mpsc;
use std::thread::JoinHandle;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use super::{DemoError, failed};
use crate::lab::Host;

/// A runtime whose tasks open their sockets on one host: its only thread is a thread of that host.
#[derive(Debug)]
pub(super) struct HostRuntime {
    handle: Handle,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl HostRuntime {
    pub(super) fn start(host: &Host) -> Result<Self, DemoError> {
        let (tell, handle) = mpsc::channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = host.spawn(move || match Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => {
                let _ = tell.send(Ok(runtime.handle().clone()));
                // Ends when the sender is dropped.
                let _ = runtime.block_on(stopped);
            }
            Err(error) => {
                let _ = tell.send(Err(error));
            }
        });
        let gone = |_| Err(io::ErrorKind::BrokenPipe.into());
        let handle = handle.recv().unwrap_or_else(gone).map_err(failed("start a host"))?;
        Ok(Self { handle, stop, thread })
    }

    /// Where to spawn tasks.
    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Ends all its tasks.
    pub(super) fn stop(self) {
        drop(self.stop);
        let _ = self.thread.join();
    }
}
