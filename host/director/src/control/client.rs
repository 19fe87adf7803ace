//! The other end of the control socket: what `wvs list` and other commands ask with.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::body::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, StatusCode, client, header};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
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
    match timeout(time_max, exchange(socket, request)).await {
        Ok(result) => result,
        Err(_) => Err(AskError::Silent { path: socket.to_owned(), time_max }),
    }
}

async fn exchange(socket: &Path, request: Request<Full<Bytes>>) -> Result<Bytes, AskError> {
    let broken = |source| AskError::Broken { path: socket.to_owned(), source };
    let foreign = |reason: String| AskError::Foreign { path: socket.to_owned(), reason };
    let stream = UnixStream::connect(socket).await.map_err(|source| {
        let path = socket.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                AskError::NoDirector { path }
            }
            io::ErrorKind::PermissionDenied => AskError::NoRights { path },
            _ => AskError::Broken { path, source },
        }
    })?;
    let (mut sender, connection) = client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| broken(io::Error::other(error)))?;
    let conversation = async {
        let response =
            sender.send_request(request).await.map_err(|error| broken(io::Error::other(error)))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_OCTETS_MAX)
            .collect()
            .await
            .map_err(|error| broken(io::Error::other(error)))?
            .to_bytes();
        Ok((status, body))
    };
    // The connection is what moves octets while the conversation waits for them.
    let (status, body) = tokio::select! {
        outcome = conversation => outcome?,
        Err(error) = connection => return Err(broken(io::Error::other(error))),
    };
    if status == StatusCode::OK {
        return Ok(body);
    }
    match serde_json::from_slice::<Refusal>(&body) {
        Ok(Refusal { error }) => Err(AskError::Refused { path: socket.to_owned(), reason: error }),
        Err(_) => Err(foreign(format!("HTTP status {status}"))),
    }
}
