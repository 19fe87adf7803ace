//! The director's end of the control socket.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path as UrlPath, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use axum::{Json, Router};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper::{Method, Request};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinHandle, spawn_blocking};
use tokio::time::timeout;
use tokio_io_timeout::TimeoutStream;

use wvs_core::explain::Question;
use wvs_core::service::Protocol;
use wvs_plugin::InstanceError;

use super::access::Guard;
use super::capture::{Allowance, capture};
use super::change::{ACTIONS, CHANGES_MAX, bad, change, preview, reload};
use super::servers::{SERVER_ACTIONS, change_server};
use super::snapshot::{
    ChangeSnapshot, ConnectionFilter, ConnectionList, ExplanationSnapshot, PluginsSnapshot,
    Refusal, ReloadSnapshot, ServerStanding, ServicesSnapshot, StatsSnapshot,
};
use super::{
    CAPTURES, CONNECTIONS, CONNECTIONS_LISTED_MAX, ControlSocket, EXPLAIN, METRICS, PLUGINS,
    PREVIEW, RECORDING, RELOAD, SERVICES, STATS, TokenListener, scheduler_path, server_path,
};
use crate::metrics;
use crate::operation::reload::ReloadError;
use crate::operation::servers::ServerAction;
use crate::operation::{Action, ChangeError};
use crate::tap::{CaptureRefusal, CaptureRequest, Recording};

/// Connections at once by the socket, and as many over TCP; the next one waits. Listings take microseconds, so more would only be a
/// way to use memory.
const CONNECTIONS_MAX: usize = 16;

/// How long a connection may take from its first octet to its last, and so how long a sluggish
/// client may keep others waiting. Large plugins take seconds to compile.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(60);

/// How long a client may take to send its request.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(5);

/// How long a client may take none of an answer. What it does not take stays in memory.
pub(super) const STALL_TIME_MAX: Duration = Duration::from_secs(5);

/// The longest head of a request in octets. The configuration of a module that is sent is in it.
const REQUEST_OCTETS_MAX: usize = 64 << 10;

/// How long to wait after the operating system refused to accept, for want of file descriptors
/// say.
const PAUSE_AFTER_REFUSAL: Duration = Duration::from_secs(1);

/// Who knows what is asked and does what is wished.
pub trait Answers: Send + Sync + 'static {
    /// The services now.
    fn services(&self) -> ServicesSnapshot;

    /// The counters now.
    fn stats(&self) -> StatsSnapshot;

    /// The plugins now.
    fn plugins(&self) -> PluginsSnapshot;

    /// The metrics now, as [`metrics`] has them. May take tens of milliseconds.
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
    pub(super) changes: Arc<Semaphore>,
}

/// That a request gets no answer, and why, in a sentence.
pub(super) struct Refused(pub(super) StatusCode, pub(super) String);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.0, Json(Refusal { error: self.1 })).into_response()
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
    router: Router,
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
        let shared = Shared { answers, changes: Arc::new(Semaphore::new(CHANGES_MAX)) };
        let router = Routes::all().router.with_state(shared);
        let tasks = vec![tokio::spawn(accept(doorway, None, router.clone()))];
        Ok(Self { socket, router, tasks })
    }

    /// Serves those who come by `listener` with a token as well.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn listen(&mut self, listener: TokenListener) -> io::Result<()> {
        let (doorway, guard) = listener.into_parts()?;
        self.tasks.push(tokio::spawn(accept(doorway, Some(guard), self.router.clone())));
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

/// Where clients come in.
trait Doorway: Send + Sync + 'static {
    type Stream: AsyncRead + AsyncWrite + Send + 'static;

    /// The next client, and its address if it has one.
    fn next(&self) -> impl Future<Output = io::Result<(Self::Stream, Option<IpAddr>)>> + Send;
}

impl Doorway for UnixListener {
    type Stream = UnixStream;

    async fn next(&self) -> io::Result<(UnixStream, Option<IpAddr>)> {
        let (stream, _) = self.accept().await?;
        Ok((stream, None))
    }
}

impl Doorway for TcpListener {
    type Stream = TcpStream;

    async fn next(&self) -> io::Result<(TcpStream, Option<IpAddr>)> {
        let (stream, from) = self.accept().await?;
        Ok((stream, Some(from.ip())))
    }
}

/// Lets clients in, so many at once. Each doorway has places of its own, so that whoever crowds one
/// of them is not in the way of others.
async fn accept<D: Doorway>(doorway: D, guard: Option<Arc<Guard>>, router: Router) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match doorway.next().await {
            Ok((stream, from)) => {
                let visit = Visit { guard: guard.clone().zip(from), router: router.clone() };
                tokio::spawn(async move {
                    visit.serve(stream).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the control socket cannot accept connections");
                tokio::time::sleep(PAUSE_AFTER_REFUSAL).await;
            }
        }
    }
}

/// What one client is served with.
struct Visit {
    /// Who has to let it in, if anybody, and where it comes from.
    guard: Option<(Arc<Guard>, IpAddr)>,
    router: Router,
}

impl Visit {
    async fn serve(self, stream: impl AsyncRead + AsyncWrite + Send + 'static) {
        let mut stream = TimeoutStream::new(stream);
        // Reading has limits of its own, for heads and for bodies.
        stream.set_write_timeout(Some(STALL_TIME_MAX));
        let (allowance, mut allowed_until) = Allowance::of(CONNECTION_TIME_MAX);
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(allowance.clone());
            let admitted = match &self.guard {
                Some((guard, from)) => {
                    guard.admit(*from, request.headers().get(header::AUTHORIZATION))
                }
                None => Ok(()),
            };
            let router = TowerToHyperService::new(self.router.clone());
            async move {
                match admitted {
                    Ok(()) => router.call(request).await,
                    Err(denial) => Ok(denial.into_response()),
                }
            }
        });
        let mut connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(REQUEST_TIME_MAX)
            .max_buf_size(REQUEST_OCTETS_MAX)
            .keep_alive(false)
            .serve_connection(TokioIo::new(Box::pin(stream)), service);
        let outcome = tokio::select! {
            outcome = &mut connection => Some(outcome),
            () = allowed_until.run_out() => None,
        };
        match outcome {
            Some(Ok(())) => {}
            Some(Err(error)) => {
                tracing::debug!(%error, "a control connection ended early");
                if error.is_timeout() {
                    let mut stream = connection.into_parts().io.into_inner();
                    // Who is too slow to ask may be too slow to listen.
                    let _ = timeout(STALL_TIME_MAX, stream.write_all(&too_slow())).await;
                }
            }
            None => tracing::debug!("a control connection took too long"),
        }
    }
}

/// The answer to half a request.
fn too_slow() -> Vec<u8> {
    let seconds = REQUEST_TIME_MAX.as_secs();
    let error = format!("the request's head did not come to its end within {seconds} s");
    let body = serde_json::to_string(&Refusal { error }).unwrap_or_default();
    format!(
        "HTTP/1.1 408 Request Timeout\r\ncontent-type: application/json\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

async fn services(State(shared): State<Shared>) -> Json<ServicesSnapshot> {
    Json(shared.answers.services())
}

async fn stats(State(shared): State<Shared>) -> Json<StatsSnapshot> {
    Json(shared.answers.stats())
}

async fn plugins(State(shared): State<Shared>) -> Json<PluginsSnapshot> {
    Json(shared.answers.plugins())
}

async fn scrape(State(shared): State<Shared>) -> Result<impl IntoResponse, Refused> {
    let text = spawn_blocking(move || shared.answers.metrics()).await.map_err(ChangeError::from)?;
    Ok(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text))
}

async fn connections(
    State(shared): State<Shared>,
    query: Result<Query<ConnectionFilter>, QueryRejection>,
) -> Result<Json<ConnectionList>, Refused> {
    let Query(filter) = query.map_err(|error| bad(error.body_text()))?;
    if filter.limit.is_some_and(|limit| limit > CONNECTIONS_LISTED_MAX) {
        return Err(bad(format!(
            "at most {CONNECTIONS_LISTED_MAX} connections are listed at once"
        )));
    }
    let listed = spawn_blocking(move || {
        let list = shared.answers.connections(&filter);
        list.ok_or(ChangeError::NoService { service: filter.service.unwrap_or_default() })
    });
    Ok(Json(listed.await.unwrap_or_else(|error| Err(error.into()))?))
}

/// The packet in question.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExplainQuery {
    from: SocketAddr,
    to: SocketAddr,
    protocol: String,
}

async fn explain(
    State(shared): State<Shared>,
    query: Result<Query<ExplainQuery>, QueryRejection>,
) -> Result<Json<ExplanationSnapshot>, Refused> {
    let Query(ExplainQuery { from, to, protocol }) =
        query.map_err(|error| bad(error.body_text()))?;
    if from.is_ipv4() != to.is_ipv4() {
        return Err(bad("a packet's source and destination are of one family"));
    }
    let protocol = [Protocol::Tcp, Protocol::Udp, Protocol::Icmp]
        .into_iter()
        .find(|known| known.name() == protocol)
        .ok_or_else(|| bad(format!("`{protocol}` is no protocol; use tcp, udp or icmp")))?;
    let explained =
        spawn_blocking(move || shared.answers.explain(&Question { protocol, from, to }));
    match explained.await {
        Ok(Ok(explanation)) => Ok(Json(explanation)),
        Ok(Err(error)) => {
            let message = format!("no copy of the plugin can be made to be asked: {error}");
            Err(Refused(StatusCode::INTERNAL_SERVER_ERROR, message))
        }
        Err(error) => Err(ChangeError::from(error).into()),
    }
}

async fn recording(
    State(shared): State<Shared>,
    service: Result<UrlPath<String>, PathRejection>,
) -> Result<Vec<u8>, Refused> {
    let UrlPath(service) = service.map_err(|error| bad(error.body_text()))?;
    let dumped = spawn_blocking(move || shared.answers.recording(&service));
    Ok(dumped.await.unwrap_or_else(|error| Err(error.into()))?)
}

async fn unknown() -> Refused {
    let message = format!(
        "nothing is here; ask for {SERVICES}, {STATS}, {PLUGINS}, {METRICS} or {CONNECTIONS}"
    );
    Refused(StatusCode::NOT_FOUND, message)
}

async fn other_method() -> Refused {
    let message = "this method is not possible here; the answer's Allow header says which is";
    Refused(StatusCode::METHOD_NOT_ALLOWED, message.to_owned())
}

#[cfg(test)]
mod tests;
