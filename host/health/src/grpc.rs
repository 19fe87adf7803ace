//! Whether a server says by `grpc.health.v1` that it serves.
//!
//! Two messages of one field each, so written here instead of by a code generator: the request
//! carries the service's name in field 1, the response its status in field 1, 1 for serving.

use std::net::SocketAddr;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http2;
use hyper::header::{CONTENT_TYPE, HeaderMap, TE, USER_AGENT};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::finding::Finding;
use crate::http::{AGENT, drive};

/// Octets of a response's body. A good one has seven.
const BODY_OCTETS_MAX: usize = 4 << 10;

/// What a message begins with: whether it is compressed, and its length.
const PREFIX_OCTETS: usize = 5;

/// Field 1 with a length, and field 1 with a number (protobuf's wire types 2 and 0).
const NAME_TAG: u8 = 1 << 3 | 2;
const STATUS_TAG: u8 = 1 << 3;

const STATUSES: [&str; 4] = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];
const SERVING: usize = 1;

/// A question to a gRPC server about its health.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grpc {
    /// The gRPC service that is asked about; empty for the server as a whole. At most 127 octets
    /// are asked for.
    pub service: String,
}

impl Grpc {
    pub(crate) async fn ask(&self, target: SocketAddr) -> Finding {
        let request = Request::post(format!("http://{target}/grpc.health.v1.Health/Check"))
            .header(CONTENT_TYPE, "application/grpc")
            .header(TE, "trailers")
            .header(USER_AGENT, AGENT)
            .body(Full::new(self.message()));
        let request = match request {
            Ok(request) => request,
            Err(error) => return Finding::failed("request", &error),
        };
        let stream = match TcpStream::connect(target).await {
            Ok(stream) => TokioIo::new(stream),
            Err(error) => return Finding::failed("connect", &error),
        };
        let (mut sender, connection) = match http2::handshake(TokioExecutor::new(), stream).await {
            Ok(both) => both,
            Err(error) => return Finding::failed("http/2", &error),
        };
        drive(connection, async {
            match sender.send_request(request).await {
                Ok(response) => judge(response).await,
                Err(error) => Finding::failed("http/2", &error),
            }
        })
        .await
    }

    fn message(&self) -> Bytes {
        let name = self.service.as_bytes();
        // A length of one octet ends at 127.
        let name = &name[..name.len().min(127)];
        let field = match u8::try_from(name.len()) {
            Ok(length @ 1..) => [&[NAME_TAG, length], name].concat(),
            _ => Vec::new(),
        };
        let length = u32::try_from(field.len()).unwrap_or_default();
        [&[0], &length.to_be_bytes()[..], &field].concat().into()
    }
}

async fn judge(response: Response<Incoming>) -> Finding {
    let (head, body) = response.into_parts();
    if head.status != StatusCode::OK {
        return Finding::bad(format!("status {}", head.status.as_u16()));
    }
    // A server that only refuses says so in the headers.
    if let Some(finding) = refusal(&head.headers) {
        return finding;
    }
    let body = match Limited::new(body, BODY_OCTETS_MAX).collect().await {
        Ok(body) => body,
        Err(error) => return Finding::failed("body", error.as_ref()),
    };
    match body.trailers() {
        Some(trailers) => {
            if let Some(finding) = refusal(trailers) {
                return finding;
            }
        }
        None => return Finding::bad("no grpc-status"),
    }
    match status(&body.to_bytes()) {
        Some(SERVING) => Finding::good("SERVING"),
        Some(status) => Finding::bad(STATUSES.get(status).copied().unwrap_or("another status")),
        None => Finding::bad("no answer of grpc.health.v1"),
    }
}

fn refusal(headers: &HeaderMap) -> Option<Finding> {
    let code = headers.get("grpc-status")?.as_bytes();
    (code != b"0").then(|| Finding::bad(format!("grpc-status {}", String::from_utf8_lossy(code))))
}

/// The status in a message, 0 where it is left out.
fn status(message: &[u8]) -> Option<usize> {
    let (prefix, field) = message.split_at_checked(PREFIX_OCTETS)?;
    let length = u32::try_from(field.len()).ok()?.to_be_bytes();
    if prefix[0] != 0 || prefix[1..] != length {
        return None;
    }
    match field {
        [] => Some(0),
        [STATUS_TAG, status @ ..0x80] => Some(usize::from(*status)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_is_the_octets_that_protobuf_and_grpc_say() {
        let message = |service: &str| Grpc { service: service.to_owned() }.message();
        assert_eq!(message(""), &b"\0\0\0\0\0"[..]);
        assert_eq!(message("a.B"), &b"\0\0\0\0\x05\x0a\x03a.B"[..]);
    }

    #[test]
    fn response_is_a_whole_message_with_a_status_or_none() {
        for (message, expected) in [
            (&b"\0\0\0\0\x02\x08\x01"[..], Some(1)),
            (b"\0\0\0\0\x02\x08\x02", Some(2)),
            (b"\0\0\0\0\0", Some(0)),
            (b"", None),
            (b"\0\0\0\0", None),
            (b"\x01\0\0\0\x02\x08\x01", None),
            (b"\0\0\0\0\x03\x08\x01", None),
            (b"\0\0\0\0\x02\x10\x01", None),
            (b"\0\0\0\0\x02\x08\x81", None),
        ] {
            assert_eq!(status(message), expected, "{message:?}");
        }
    }
}
