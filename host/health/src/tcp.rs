//! Whether a server accepts TCP connections.

use std::net::SocketAddr;

use tokio::net::TcpStream;

use crate::finding::Finding;

/// The connection is closed in an orderly way: a reset would be an error in the log of some servers.
pub(crate) async fn ask(target: SocketAddr) -> Finding {
    match TcpStream::connect(target).await {
        Ok(_) => Finding::good("accepted the connection"),
        Err(error) => Finding::failed("connect", &error),
    }
}
