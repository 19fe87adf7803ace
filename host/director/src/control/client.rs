//! The other end of the control socket: what `wvs list` asks with.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::body::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, StatusCode, client, header};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::snapshot::Refusal;

/// How long the whole conversation may take.
const TIME_MAX: Duration = Duration::from_secs(10);

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
         is overloaded", TIME_MAX.as_secs(), path = path.display()
    )]
    Silent {
        /// The socket.
        path: PathBuf,
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

/// Asks the director on `socket` for what is at `path`, such as [`SERVICES`](super::SERVICES).
///
/// # Errors
/// See [`AskError`].
pub async fn ask<T: DeserializeOwned>(socket: &Path, path: &str) -> Result<T, AskError> {
    match timeout(TIME_MAX, converse(socket, path)).await {
        Ok(result) => result,
        Err(_) => Err(AskError::Silent { path: socket.to_owned() }),
    }
}

async fn converse<T: DeserializeOwned>(socket: &Path, path: &str) -> Result<T, AskError> {
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
    let request = Request::get(path)
        .header(header::HOST, "wvs")
        .body(Empty::<Bytes>::new())
        .map_err(|error| foreign(error.to_string()))?;
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
        return serde_json::from_slice(&body).map_err(|error| foreign(error.to_string()));
    }
    match serde_json::from_slice::<Refusal>(&body) {
        Ok(Refusal { error }) => Err(AskError::Refused { path: socket.to_owned(), reason: error }),
        Err(_) => Err(foreign(format!("HTTP status {status}"))),
    }
}
