//! The director's end of the control socket.

use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::snapshot::{Refusal, ServicesSnapshot, StatsSnapshot};
use super::{ControlSocket, SERVICES, STATS};

/// Connections at once; the next one waits. Listings take microseconds, so more would only be a
/// way to use memory.
const CONNECTIONS_MAX: usize = 16;

/// How long a connection may take from its first octet to its last, and so how long a sluggish
/// client may keep others waiting.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(10);

/// How long a client may take to send its request.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(5);

/// The longest request in octets, headers and all. No request has a body.
const REQUEST_OCTETS_MAX: usize = 8 << 10;

/// How long to wait after the operating system refused to accept, for want of file descriptors
/// say.
const PAUSE_AFTER_REFUSAL: Duration = Duration::from_secs(1);

/// Who knows what is asked.
pub trait Answers: Send + Sync + 'static {
    /// The services now.
    fn services(&self) -> ServicesSnapshot;

    /// The counters now.
    fn stats(&self) -> StatsSnapshot;
}

/// A control socket being served. Ends, and removes its file, when dropped.
pub struct ControlServer {
    socket: ControlSocket,
    task: JoinHandle<()>,
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
        let listener = socket.listener()?;
        let router = Router::new()
            .route(SERVICES, get(services))
            .route(STATS, get(stats))
            .fallback(unknown)
            .method_not_allowed_fallback(only_get)
            .with_state(answers);
        let task = tokio::spawn(accept(listener, router));
        Ok(Self { socket, task })
    }

    /// The socket.
    #[must_use]
    pub fn socket(&self) -> &ControlSocket {
        &self.socket
    }
}

impl Drop for ControlServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: UnixListener, router: Router) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let router = router.clone();
                tokio::spawn(async move {
                    serve(stream, router).await;
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

async fn serve(stream: UnixStream, router: Router) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_TIME_MAX)
        .max_buf_size(REQUEST_OCTETS_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    match timeout(CONNECTION_TIME_MAX, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a control connection ended early"),
        Err(_) => tracing::debug!("a control connection took too long"),
    }
}

async fn services(State(answers): State<Arc<dyn Answers>>) -> Json<ServicesSnapshot> {
    Json(answers.services())
}

async fn stats(State(answers): State<Arc<dyn Answers>>) -> Json<StatsSnapshot> {
    Json(answers.stats())
}

async fn unknown() -> impl IntoResponse {
    let error = format!("nothing is here; ask for {SERVICES} or {STATS}");
    (StatusCode::NOT_FOUND, Json(Refusal { error }))
}

async fn only_get() -> impl IntoResponse {
    let error = "only GET is possible here".to_owned();
    (StatusCode::METHOD_NOT_ALLOWED, Json(Refusal { error }))
}
