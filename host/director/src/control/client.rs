//! The other end of the control socket: what `wvs list` and other commands ask with.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::body::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode, client, header};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::change::{JSON, WASM, YAML};
use super::snapshot::Refusal;

/// How long it may take to get an answer.
const ASK_TIME_MAX: Duration = Duration::from_secs(10);

/// How long it may take to have something changed: a little longer than the director itself allows.
const CHANGE_TIME_MAX: Duration = Duration::from_secs(65);

/// The longest answer in octets. A real server takes some 200, so this is room for 300,000.
const ANSWER_OCTETS_MAX: usize = 64 << 20;

/// Why there is no answer from a director.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens.
    #[error(
        "no director is running on the control socket {path}: start one with `wvs run -c FILE`, or \
         give its socket with --socket or its configuration with -c", path = path.display()
    )]
    NoDirector {
        /// The socket.
        path: PathBuf,
    },
    /// Not allowed.
    #[error(
        "no right to use the control socket {path}: run as root or as a member of its group",
        path = path.display()
    )]
    NoRights {
        /// The socket.
        path: PathBuf,
    },
    /// The conversation took too long.
    #[error(
        "the director on {path} did not answer within {} s: see its log, or whether the machine \
         is overloaded", time_max.as_secs(), path = path.display()
    )]
    Silent {
        /// The socket.
        path: PathBuf,
        /// How long was waited.
        time_max: Duration,
    },
    /// The director would not answer.
    #[error("the director on {path} refused: {reason}", path = path.display())]
    Refused {
        /// The socket.
        path: PathBuf,
        /// Why, as the director says.
        reason: String,
    },
    /// What came is no answer that this version understands.
    #[error(
        "the director on {path} answered what this version of wvs does not understand ({reason}): \
         use the version that runs there", path = path.display()
    )]
    Foreign {
        /// The socket.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The operating system broke the conversation off.
    #[error("the conversation over {path} broke off: {source}", path = path.display())]
    Broken {
        /// The socket.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
}

/// What a request that changes something brings along.
#[derive(Clone, Debug)]
pub enum Message {
    /// Nothing.
    Empty,
    /// JSON text.
    Json(String),
    /// A configuration.
    Text(String),
    /// A plugin's module.
    Module(Vec<u8>),
}

/// Asks the director on `socket` for what is at `path`, such as [`SERVICES`](super::SERVICES).
///
/// # Errors
/// See [`AskError`].
pub async fn ask<T: DeserializeOwned>(socket: &Path, path: &str) -> Result<T, AskError> {
    parse(socket, &converse(socket, Method::GET, path, Message::Empty, ASK_TIME_MAX).await?)
}

/// Asks for what is at `path` as it comes, octet for octet.
///
/// # Errors
/// See [`AskError`].
pub async fn fetch(socket: &Path, path: &str) -> Result<Vec<u8>, AskError> {
    let octets = converse(socket, Method::GET, path, Message::Empty, ASK_TIME_MAX).await?;
    Ok(octets.into())
}

/// Has the director on `socket` change what `path` stands for, such as
/// [`RELOAD`](super::RELOAD).
///
/// # Errors
/// See [`AskError`].
pub async fn tell<T: DeserializeOwned>(
    socket: &Path,
    path: &str,
    message: Message,
) -> Result<T, AskError> {
    parse(socket, &converse(socket, Method::POST, path, message, CHANGE_TIME_MAX).await?)
}

fn parse<T: DeserializeOwned>(socket: &Path, body: &[u8]) -> Result<T, AskError> {
    let foreign = |reason: String| AskError::Foreign { path: socket.to_owned(), reason };
    serde_json::from_slice(body).map_err(|error| foreign(error.to_string()))
}

async fn converse(
    socket: &Path,
    method: Method,
    path: &str,
    message: Message,
    time_max: Duration,
) -> Result<Bytes, AskError> {
    let whole = async { begin(socket, method, path, message).await?.whole().await };
    within(socket, time_max, whole).await
}

/// As `conversation`, which may take no longer than that.
async fn within<T>(
    socket: &Path,
    time_max: Duration,
    conversation: impl Future<Output = Result<T, AskError>>,
) -> Result<T, AskError> {
    let silent = |_| Err(AskError::Silent { path: socket.to_owned(), time_max });
    timeout(time_max, conversation).await.unwrap_or_else(silent)
}

async fn connect(socket: &Path) -> Result<UnixStream, AskError> {
    UnixStream::connect(socket).await.map_err(|source| {
        let path = socket.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                AskError::NoDirector { path }
            }
            io::ErrorKind::PermissionDenied => AskError::NoRights { path },
            _ => AskError::Broken { path, source },
        }
    })
}

/// Asks, and waits until the answer begins.
async fn begin(
    socket: &Path,
    method: Method,
    path: &str,
    message: Message,
) -> Result<Received, AskError> {
    let broken = |error| broken(socket, error);
    let (media, body) = match message {
        Message::Empty => (None, Bytes::new()),
        Message::Json(text) => (Some(JSON), text.into()),
        Message::Text(text) => (Some(YAML), text.into()),
        Message::Module(octets) => (Some(WASM), octets.into()),
    };
    let mut request = Request::builder().method(method).uri(path).header(header::HOST, "wvs");
    if let Some(media) = media {
        request = request.header(header::CONTENT_TYPE, media);
    }
    let foreign = |error: axum::http::Error| AskError::Foreign {
        path: socket.to_owned(),
        reason: error.to_string(),
    };
    let request = request.body(Full::new(body)).map_err(foreign)?;
    let stream = TokioIo::new(connect(socket).await?);
    let (mut sender, connection) = client::conn::http1::handshake(stream).await.map_err(broken)?;
    // It moves the octets; what goes wrong with it shows in the answer.
    let connection = tokio::spawn(async { _ = connection.await });
    let response = sender.send_request(request).await.map_err(broken)?;
    let status = response.status();
    let received = Received { socket: socket.to_owned(), body: response.into_body(), connection };
    if status == StatusCode::OK {
        return Ok(received);
    }
    Err(refused(socket, status, &received.whole().await?))
}

fn broken(socket: &Path, error: impl Into<Box<dyn Error + Send + Sync>>) -> AskError {
    AskError::Broken { path: socket.to_owned(), source: io::Error::other(error) }
}

fn refused(socket: &Path, status: StatusCode, body: &[u8]) -> AskError {
    let path = socket.to_owned();
    match serde_json::from_slice::<Refusal>(body) {
        Ok(Refusal { error }) => AskError::Refused { path, reason: error },
        Err(_) => AskError::Foreign { path, reason: format!("HTTP status {status}") },
    }
}

/// An answer that comes piece by piece. Dropped, it hangs up.
#[derive(Debug)]
pub struct Received {
    socket: PathBuf,
    body: Incoming,
    connection: JoinHandle<()>,
}

impl Received {
    /// The next piece; `None` at the end. May be dropped and called again.
    ///
    /// # Errors
    /// [`AskError::Broken`].
    pub async fn next(&mut self) -> Result<Option<Bytes>, AskError> {
        loop {
            match self.body.frame().await {
                // Anything else is a trailer.
                Some(Ok(frame)) => {
                    if let Ok(octets) = frame.into_data() {
                        return Ok(Some(octets));
                    }
                }
                Some(Err(error)) => return Err(broken(&self.socket, error)),
                None => return Ok(None),
            }
        }
    }

    /// All of it, which must not be endless.
    async fn whole(mut self) -> Result<Bytes, AskError> {
        let body = Limited::new(&mut self.body, ANSWER_OCTETS_MAX).collect().await;
        Ok(body.map_err(|error| broken(&self.socket, error))?.to_bytes())
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// Asks for something that comes piece by piece, for as long as it likes, once it has begun.
///
/// # Errors
/// See [`AskError`].
pub async fn receive(socket: &Path, path: &str, json: String) -> Result<Received, AskError> {
    let begun = begin(socket, Method::POST, path, Message::Json(json));
    within(socket, ASK_TIME_MAX, begun).await
}
