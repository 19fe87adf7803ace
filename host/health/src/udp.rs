//! Whether a server answers a datagram, or at least does not refuse it.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::UdpSocket;
use tokio::time::timeout;

use crate::finding::Finding;

/// Octets of an answer that are looked at; more are cut off.
const ANSWER_OCTETS_MAX: usize = 8 << 10;

/// A datagram to send and, perhaps, what is to come back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Udp {
    /// The payload; may be empty.
    pub send: Vec<u8>,
    /// What must be in the first answer, anywhere in its first 8 KiB. `None`: silence is good as well, only an ICMP
    /// error within the time is bad.
    pub expect: Option<Vec<u8>>,
}

impl Udp {
    pub(crate) async fn ask(&self, target: SocketAddr, limit: Duration) -> Finding {
        match (timeout(limit, exchange(target, &self.send)).await, &self.expect) {
            (Ok(Ok(answer)), Some(expect)) if !contains(&answer, expect) => {
                Finding::bad(format!("another answer than expected, of {} octets", answer.len()))
            }
            (Ok(Ok(answer)), _) => Finding::good(format!("answered {} octets", answer.len())),
            (Ok(Err(error)), _) => Finding::failed("udp", &error),
            (Err(_), Some(_)) => Finding::late(limit),
            (Err(_), None) => Finding::good("no ICMP error"),
        }
    }
}

/// Sends a datagram from a port of its own, and waits for the first one from the target.
pub(crate) async fn exchange(target: SocketAddr, payload: &[u8]) -> io::Result<Vec<u8>> {
    // Without the option the kernel keeps to itself that a host or network is unreachable.
    let socket = match target {
        SocketAddr::V4(_) => {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
            setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?;
            socket
        }
        SocketAddr::V6(_) => {
            let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).await?;
            setsockopt(&socket, sockopt::Ipv6RecvErr, &true)?;
            socket
        }
    };
    socket.connect(target).await?;
    socket.send(payload).await?;
    let mut answer = vec![0; ANSWER_OCTETS_MAX];
    let length = socket.recv(&mut answer).await?;
    answer.truncate(length);
    Ok(answer)
}

/// Whether `part` is in `whole`; nothing is in everything.
pub(crate) fn contains(whole: &[u8], part: &[u8]) -> bool {
    part.is_empty() || whole.windows(part.len()).any(|window| window == part)
}
