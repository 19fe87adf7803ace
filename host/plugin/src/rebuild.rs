//! New instances for failed ones, made where no packet waits for them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::{io, thread};

use crate::error::InstanceError;
use crate::instance::Instance;
use crate::module::Module;
use crate::plugin::Plugin;
use crate::table::ServerTable;

/// The way to the thread that makes instances. It ends with the last one that has it.
#[derive(Clone)]
pub(crate) struct Rebuilder {
    jobs: Sender<Job>,
}

/// What that thread has to do.
enum Job {
    Make(Order),
    Drop(Plugin),
}

/// What to make: an instance of a module with a configuration and a table of servers.
struct Order {
    module: Module,
    config: Option<Arc<str>>,
    table: Arc<ServerTable>,
    /// Dropped there, because unmapping its memory takes time.
    old: Option<Instance>,
    done: Sender<Result<Instance, InstanceError>>,
}

/// An instance that is being made.
pub(crate) struct Rebuild {
    done: Receiver<Result<Instance, InstanceError>>,
}

impl Rebuilder {
    /// Starts the thread.
    pub(crate) fn start() -> io::Result<Self> {
        let (jobs, waiting) = mpsc::channel::<Job>();
        thread::Builder::new().name("wvs-rebuild".to_owned()).spawn(move || {
            for job in waiting {
                // A bug in the engine must not take the other plugins' rebuilds with it. The
                // scheduler that waits sees its channel close.
                let _ = catch_unwind(AssertUnwindSafe(|| match job {
                    Job::Make(order) => order.run(),
                    Job::Drop(plugin) => drop(plugin),
                }));
            }
        })?;
        Ok(Self { jobs })
    }

    /// Orders an instance and hands in the `old` one. Does not wait.
    pub(crate) fn order(
        &self,
        module: &Module,
        config: Option<Arc<str>>,
        table: Arc<ServerTable>,
        old: Option<Instance>,
    ) -> Rebuild {
        let (done, receiver) = mpsc::channel();
        // If the thread is gone, dropping the job closes the channel that the caller waits on.
        let order = Order { module: module.clone(), config, table, old, done };
        let _ = self.jobs.send(Job::Make(order));
        Rebuild { done: receiver }
    }

    /// Drops a plugin there. Does not wait.
    pub(crate) fn dispose(&self, plugin: Plugin) {
        // If the thread is gone, sending drops it here.
        let _ = self.jobs.send(Job::Drop(plugin));
    }
}

impl Order {
    fn run(mut self) {
        drop(self.old.take());
        let made = Instance::new(&self.module, self.config.as_deref()).and_then(|mut instance| {
            instance.set_servers(&self.table).map_err(InstanceError::Servers)?;
            Ok(instance)
        });
        // Nobody wants it any more if the service is gone.
        let _ = self.done.send(made);
    }
}

impl Rebuild {
    /// The instance if it is there, or why there will be none; `None` while it is being made.
    pub(crate) fn poll(&self) -> Option<Result<Instance, InstanceError>> {
        match self.done.try_recv() {
            Ok(made) => Some(made),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Err(InstanceError::EngineFailed)),
        }
    }
}
