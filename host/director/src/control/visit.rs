//! The visit of one client: let in, heard to the end, and shown out when it takes too long.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::header;
use axum::response::IntoResponse;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_io_timeout::TimeoutStream;

use super::access::Guard;
use super::capture::Allowance;
use super::snapshot::Refusal;

/// Connections at once by the socket, and as many over TCP; the next one waits. Answers take
/// milliseconds, so more would only be a way to use memory.
pub(super) const CONNECTIONS_MAX: usize = 16;

/// How long a connection may take from its first octet to its last, and so how long a sluggish
/// client may keep others waiting. Large plugins take seconds to compile.
pub(super) const CONNECTION_TIME_MAX: Duration = Duration::from_secs(60);

/// How long a client may take to send its request.
pub(super) const REQUEST_TIME_MAX: Duration = Duration::from_secs(5);

/// How long a client may take none of an answer. What it does not take stays in memory.
pub(super) const STALL_TIME_MAX: Duration = Duration::from_secs(5);

/// The longest head of a request in octets. The configuration of a module that is sent is in it.
pub(super) const REQUEST_OCTETS_MAX: usize = 64 << 10;

/// How long to wait after the operating system refused to accept, for want of file descriptors
/// say.
const PAUSE_AFTER_REFUSAL: Duration = Duration::from_secs(1);

/// Where clients come in.
pub(super) trait Doorway: Send + Sync + 'static {
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
pub(super) async fn accept<D: Doorway>(doorway: D, guard: Option<Arc<Guard>>, router: Router) {
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
