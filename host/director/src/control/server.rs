//! The director's end of the control socket.

use std::sync::Arc;
use std::{fmt, io};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::{MethodRouter, get, post};
use hyper::Method;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{AbortHandle, JoinHandle, spawn_blocking};
use wvs_core::explain::Question;
use wvs_plugin::InstanceError;

use super::capture::capture;
use super::change::{ACTIONS, change, preview, reload};
use super::look::{connections, explain, plugins, recording, scrape, services, stats};
use super::refused::Refused;
use super::servers::{SERVER_ACTIONS, change_server};
use super::snapshot::{
    ChangeSnapshot, ConnectionFilter, ConnectionList, ExplanationSnapshot, PluginsSnapshot,
    ReloadSnapshot, ServerStanding, ServicesSnapshot, StatsSnapshot,
};
use super::visit::accept;
use super::{
    CAPTURES, CONNECTIONS, ControlSocket, EXPLAIN, METRICS, PLUGINS, PREVIEW, RECORDING, RELOAD,
    SERVICES, STATS, TokenListener, scheduler_path, server_path,
};
use crate::operation::reload::ReloadError;
use crate::operation::servers::ServerAction;
use crate::operation::{Action, ChangeError};
use crate::tap::{CaptureRefusal, CaptureRequest, Recording};

/// Changes under way at once: each may hold a module in memory, and compiling takes turns anyway.
pub(super) const CHANGES_MAX: usize = 4;

/// Looks under way at once at each doorway; the next one waits. A listing of the largest configuration takes
/// megabytes, and an explanation a copy of a plugin's memory.
const LOOKS_MAX: usize = 4;

/// Who knows what is asked and does what is wished.
pub trait Answers: Send + Sync + 'static {
    /// The services now.
    fn services(&self) -> ServicesSnapshot;

    /// The counters now.
    fn stats(&self) -> StatsSnapshot;

    /// The plugins now.
    fn plugins(&self) -> PluginsSnapshot;

    /// The metrics now, as [`metrics`](crate::metrics) has them. May take tens of milliseconds.
    fn metrics(&self) -> String;

    /// At most so many connections as `filter` says, and of those it asks for. `None` without such a
    /// service.
    fn connections(&self, filter: &ConnectionFilter) -> Option<ConnectionList>;

    /// What would become of a packet. May take as long as to start a plugin.
    ///
    /// # Errors
    /// No copy of the service's plugin can be made.
    fn explain(&self, question: &Question) -> Result<ExplanationSnapshot, InstanceError>;

    /// What was recorded at a service, as a file.
    ///
    /// # Errors
    /// No such service, or nothing is recorded there.
    fn recording(&self, service: &str) -> Result<Vec<u8>, ChangeError>;

    /// Does something about the scheduler of a service. May take seconds.
    ///
    /// # Errors
    /// See [`ChangeError`]; nothing has changed.
    fn change(&self, service: &str, action: Action) -> Result<ChangeSnapshot, ChangeError>;

    /// Does something about a real server of a service, which is named as an operator would.
    ///
    /// # Errors
    /// See [`ChangeError`]; nothing has changed.
    fn change_server(
        &self,
        service: &str,
        server: &str,
        action: ServerAction,
    ) -> Result<ServerStanding, ChangeError>;

    /// Says what a configuration of this text would change. May take seconds.
    ///
    /// # Errors
    /// See [`ReloadError`].
    fn preview(&self, text: &str) -> Result<ReloadSnapshot, ReloadError>;

    /// Begins to record packets, until the recording is dropped.
    ///
    /// # Errors
    /// See [`CaptureRefusal`].
    fn capture(&self, request: &CaptureRequest) -> Result<Recording, CaptureRefusal>;

    /// Reads the configuration again. May take seconds.
    ///
    /// # Errors
    /// See [`ReloadError`]; nothing has changed.
    fn reload(&self) -> Result<ReloadSnapshot, ReloadError>;
}

/// What requests share.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) answers: Arc<dyn Answers>,
    /// Places for those that change something.
    changes: Arc<Semaphore>,
    /// Places for those that only look.
    looks: Arc<Semaphore>,
}

impl Shared {
    fn new(answers: Arc<dyn Answers>) -> Self {
        let places = |count| Arc::new(Semaphore::new(count));
        Self { answers, changes: places(CHANGES_MAX), looks: places(LOOKS_MAX) }
    }

    /// For another doorway, whose crowd is not to be in the way of this one's.
    fn beside(&self) -> Self {
        Self { looks: Arc::new(Semaphore::new(LOOKS_MAX)), ..self.clone() }
    }

    fn router(self) -> Router {
        Routes::all().router.with_state(self)
    }

    /// The right to change something, before anything is received for it.
    pub(super) fn place(&self) -> Result<OwnedSemaphorePermit, Refused> {
        Arc::clone(&self.changes).try_acquire_owned().map_err(|_| {
            let message = format!("{CHANGES_MAX} changes are under way; try again in a moment");
            Refused(StatusCode::SERVICE_UNAVAILABLE, message)
        })
    }

    /// Does what may take a while, where nobody else waits for it, and keeps `place` until it is
    /// done: also when whoever asked has hung up.
    pub(super) async fn carry_out<T: Send + 'static>(
        &self,
        place: OwnedSemaphorePermit,
        work: impl FnOnce(&dyn Answers) -> T + Send + 'static,
    ) -> Result<T, Refused> {
        let answers = Arc::clone(&self.answers);
        let carried_out = spawn_blocking(move || {
            let _place = place;
            work(&*answers)
        });
        Ok(carried_out.await?)
    }

    /// The same for what changes nothing, when it has its turn.
    pub(super) async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&dyn Answers) -> T + Send + 'static,
    ) -> Result<T, Refused> {
        match Arc::clone(&self.looks).acquire_owned().await {
            Ok(place) => self.carry_out(place, look).await,
            Err(_closed) => unreachable!("nobody closes it"),
        }
    }
}

/// What can be asked for where, and by which method.
struct Routes {
    router: Router<Shared>,
    /// For whoever has to know them all.
    listed: Vec<(Method, String)>,
}

impl Routes {
    fn all() -> Self {
        Self { router: Router::new(), listed: Vec::new() }
            .get(SERVICES, get(services))
            .get(STATS, get(stats))
            .get(PLUGINS, get(plugins))
            .get(METRICS, get(scrape))
            .get(CONNECTIONS, get(connections))
            .get(&scheduler_path("{name}", RECORDING), get(recording))
            .change_schedulers()
            .change_servers()
            .post(RELOAD, post(reload))
            .post(PREVIEW, post(preview))
            .post(CAPTURES, post(capture))
            .get(EXPLAIN, get(explain))
            .refuse_the_rest()
    }

    fn get(self, path: &str, answer: MethodRouter<Shared>) -> Self {
        self.route(Method::GET, path, answer)
    }

    fn post(self, path: &str, answer: MethodRouter<Shared>) -> Self {
        self.route(Method::POST, path, answer)
    }

    fn route(mut self, method: Method, path: &str, answer: MethodRouter<Shared>) -> Self {
        self.listed.push((method, path.to_owned()));
        Self { router: self.router.route(path, answer), ..self }
    }

    /// One route, so that other names are refused with those that there are.
    fn change_schedulers(mut self) -> Self {
        let path = |action| scheduler_path("{name}", action);
        self.listed.extend(ACTIONS.map(|action| (Method::POST, path(action))));
        Self { router: self.router.route(&path("{action}"), post(change)), ..self }
    }

    /// The same for servers.
    fn change_servers(mut self) -> Self {
        let path = |action| server_path("{name}", "{server}", action);
        self.listed.extend(SERVER_ACTIONS.map(|action| (Method::POST, path(action))));
        Self { router: self.router.route(&path("{action}"), post(change_server)), ..self }
    }

    fn refuse_the_rest(self) -> Self {
        let router = self.router.fallback(unknown).method_not_allowed_fallback(other_method);
        Self { router, ..self }
    }
}

/// Every path with its method; `{name}` stands for a service.
#[must_use]
pub fn routes() -> Vec<(Method, String)> {
    Routes::all().listed
}

/// A control socket being served. Ends, and removes its file, when dropped.
pub struct ControlServer {
    socket: ControlSocket,
    shared: Shared,
    tasks: Vec<JoinHandle<()>>,
}

impl fmt::Debug for ControlServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ControlServer").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl ControlServer {
    /// Serves `socket` in a task of the current tokio runtime.
    ///
    /// # Errors
    /// The operating system does not let the runtime watch the socket.
    pub fn start(socket: ControlSocket, answers: Arc<dyn Answers>) -> io::Result<Self> {
        let doorway = socket.listener()?;
        let shared = Shared::new(answers);
        let tasks = vec![tokio::spawn(accept(doorway, None, shared.clone().router()))];
        Ok(Self { socket, shared, tasks })
    }

    /// Serves those who come by `listener` with a token as well.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn listen(&mut self, listener: TokenListener) -> io::Result<()> {
        let (doorway, guard) = listener.into_parts()?;
        let router = self.shared.beside().router();
        self.tasks.push(tokio::spawn(accept(doorway, Some(guard), router)));
        Ok(())
    }

    /// The socket.
    #[must_use]
    pub fn socket(&self) -> &ControlSocket {
        &self.socket
    }

    /// The tasks that take clients in.
    pub(crate) fn tasks(&self) -> impl Iterator<Item = AbortHandle> {
        self.tasks.iter().map(JoinHandle::abort_handle)
    }
}

impl Drop for ControlServer {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn unknown() -> Refused {
    let looks = [SERVICES, STATS, PLUGINS, METRICS, CONNECTIONS, EXPLAIN].join(", ");
    Refused(StatusCode::NOT_FOUND, format!("nothing is here; there are {looks} and others"))
}

async fn other_method() -> Refused {
    let message = "this method is not possible here; the answer's Allow header says which is";
    Refused(StatusCode::METHOD_NOT_ALLOWED, message.to_owned())
}

#[cfg(test)]
mod tests;
