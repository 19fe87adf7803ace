//! Whether a server answers an HTTP request as it should.

use std::error::Error;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::pin::pin;

use futures_util::future::{Either, select};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Body, Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST, USER_AGENT};
use hyper::http::uri::{Authority, PathAndQuery};
use hyper::rt::{Read, Write};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::finding::Finding;
use crate::tls::Tls;
use crate::udp::contains;

/// Octets of a body in which a text is looked for. What comes behind is not read.
pub const BODY_OCTETS_MAX: usize = 64 << 10;

/// Octets of a response before its body.
const HEAD_OCTETS_MAX: usize = 64 << 10;

pub(crate) const AGENT: &str = concat!("wvs/", env!("CARGO_PKG_VERSION"));

/// A request, and what its response must be. Redirections are not followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    /// How the connection is secured; `None` for plain HTTP.
    pub tls: Option<Tls>,
    /// The request's method.
    pub method: Method,
    /// The path and query that are asked for.
    pub path: PathAndQuery,
    /// The `Host` header; `None` for the address that is checked.
    pub host: Option<Authority>,
    /// The good status codes.
    pub expect: Vec<RangeInclusive<u16>>,
    /// A text that must be in the first [`BODY_OCTETS_MAX`] octets of the body.
    pub body: Option<String>,
}

impl Default for Http {
    /// `GET /`, and any status from 200 to 299.
    fn default() -> Self {
        Self {
            tls: None,
            method: Method::GET,
            path: PathAndQuery::from_static("/"),
            host: None,
            expect: vec![200..=299],
            body: None,
        }
    }
}

impl Http {
    pub(crate) async fn ask(&self, target: SocketAddr) -> Finding {
        let stream = match TcpStream::connect(target).await {
            Ok(stream) => stream,
            Err(error) => return Finding::failed("connect", &error),
        };
        match &self.tls {
            None => self.talk(target, TokioIo::new(stream)).await,
            Some(tls) => match tls.connect(stream, target, self.host.as_ref()).await {
                Ok(stream) => self.talk(target, TokioIo::new(stream)).await,
                Err(finding) => finding,
            },
        }
    }

    async fn talk<S>(&self, target: SocketAddr, stream: S) -> Finding
    where
        S: Read + Write + Unpin,
    {
        let request = match self.request(target) {
            Ok(request) => request,
            Err(error) => return Finding::failed("request", &error),
        };
        let mut builder = http1::Builder::new();
        let handshake = builder.max_buf_size(HEAD_OCTETS_MAX).handshake(stream).await;
        let (mut sender, connection) = match handshake {
            Ok(both) => both,
            Err(error) => return Finding::failed("http", &error),
        };
        drive(connection, async {
            match sender.send_request(request).await {
                Ok(response) => self.judge(response).await,
                Err(error) => Finding::failed("http", &error),
            }
        })
        .await
    }

    fn request(&self, target: SocketAddr) -> hyper::http::Result<Request<Empty<Bytes>>> {
        let default_port = if self.tls.is_some() { 443 } else { 80 };
        let host = match &self.host {
            Some(host) => host.to_string(),
            None if target.port() == default_port => match target {
                SocketAddr::V4(target) => target.ip().to_string(),
                SocketAddr::V6(target) => format!("[{}]", target.ip()),
            },
            None => target.to_string(),
        };
        Request::builder()
            .method(&self.method)
            .uri(self.path.as_str())
            .header(HOST, host)
            .header(USER_AGENT, AGENT)
            .header(CONNECTION, "close")
            .body(Empty::new())
    }

    async fn judge(&self, response: Response<Incoming>) -> Finding {
        let status = response.status().as_u16();
        let finding = format!("status {status}");
        if !self.expect.iter().any(|range| range.contains(&status)) {
            return Finding::bad(finding);
        }
        let Some(text) = &self.body else { return Finding::good(finding) };
        match find(response.into_body(), text.as_bytes()).await {
            Ok(true) => Finding::good(format!("{finding}, with the text expected")),
            Ok(false) => Finding::bad(format!("{finding}, without the text expected")),
            Err(error) => Finding::failed(&format!("{finding}, but its body"), &error),
        }
    }
}

/// Whether `text` is among the first octets of a body, of which no more are read than needed.
async fn find<B>(mut body: B, text: &[u8]) -> Result<bool, B::Error>
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut read = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        // The text may have begun in what came before.
        let from = read.len().saturating_sub(text.len());
        read.extend_from_slice(&data[..data.len().min(BODY_OCTETS_MAX - read.len())]);
        if contains(&read[from..], text) {
            return Ok(true);
        }
        if read.len() == BODY_OCTETS_MAX {
            return Ok(false);
        }
    }
    Ok(contains(&read, text))
}

/// Waits for an exchange while its connection moves the octets.
pub(crate) async fn drive<T, E: Error>(
    connection: impl Future<Output = Result<(), E>>,
    exchange: impl Future<Output = T>,
) -> T {
    match select(pin!(exchange), pin!(connection)).await {
        Either::Left((result, _)) => result,
        // What the connection has read by its end, or why it ended, the exchange is still told.
        Either::Right((_, exchange)) => exchange.await,
    }
}
