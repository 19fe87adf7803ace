//! What the real server runs: the same for every contestant.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use wvs::lab::{self, Host};

use crate::Fallible;

/// Port of the server that answers a request with [`REPLY_OCTETS`] and closes.
pub(crate) const REQUEST_PORT: u16 = 8080;

/// Port of the server that answers a datagram with one of [`REPLY_OCTETS`].
pub(crate) const DATAGRAM_PORT: u16 = 5300;

/// Port of iperf3.
pub(crate) const BULK_PORT: u16 = 5201;

pub(crate) const REQUEST_OCTETS: usize = 16;
pub(crate) const REPLY_OCTETS: usize = 64;

/// Threads that take connections, each one at a time: as many as clients ask at once.
const ACCEPTORS: u8 = lab::CLIENTS;

const BACKLOG: i32 = 4096;

/// A connection whose request does not come is given up after this.
const REQUEST_PATIENCE: Duration = Duration::from_secs(3);

/// Servers of requests and datagrams, which live as long as the process.
pub(crate) struct Servers {
    seen: Arc<Seen>,
}

/// Whom the servers saw at the other end.
#[derive(Default)]
struct Seen {
    clients: AtomicU64,
    others: AtomicU64,
}

impl Servers {
    pub(crate) fn start(host: &Host) -> Fallible<Self> {
        let seen = Arc::new(Seen::default());
        let address = lab::server_address(1, false);
        let listener = host.run(|| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
            socket.bind(&SocketAddr::new(address, REQUEST_PORT).into())?;
            socket.listen(BACKLOG)?;
            io::Result::Ok(Arc::new(std::net::TcpListener::from(socket)))
        })?;
        for _ in 0..ACCEPTORS {
            let (listener, seen) = (Arc::clone(&listener), Arc::clone(&seen));
            host.spawn(move || {
                loop {
                    // A connection reset before it was accepted is the next one's turn.
                    let Ok((stream, peer)) = listener.accept() else { continue };
                    seen.count(peer);
                    // What goes wrong with a connection is counted by its client.
                    let _ = answer(stream);
                }
            });
        }
        let socket = Arc::new(host.run(|| UdpSocket::bind((address, DATAGRAM_PORT)))?);
        for _ in 0..crate::processors() {
            let (socket, seen) = (Arc::clone(&socket), Arc::clone(&seen));
            host.spawn(move || {
                let mut datagram = [0; REPLY_OCTETS];
                loop {
                    let Ok((_, peer)) = socket.recv_from(&mut datagram) else { continue };
                    seen.count(peer);
                    let _ = socket.send_to(&datagram, peer);
                }
            });
        }
        Ok(Self { seen })
    }

    /// How many connections and datagrams came from client addresses and how many from others
    /// since the last call.
    pub(crate) fn take_seen(&self) -> (u64, u64) {
        let take = |count: &AtomicU64| count.swap(0, Ordering::Relaxed);
        (take(&self.seen.clients), take(&self.seen.others))
    }
}

impl Seen {
    fn count(&self, peer: SocketAddr) {
        let is_client = (1..=lab::CLIENTS).any(|n| peer.ip() == lab::client_address(n, false));
        let count = if is_client { &self.clients } else { &self.others };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// Answers one request and closes first, as servers of short connections do: what waits for the
/// last stray segments (TIME_WAIT) is the server, so that clients do not run out of ports.
fn answer(mut stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(REQUEST_PATIENCE))?;
    let mut reply = [0; REPLY_OCTETS];
    stream.read_exact(&mut reply[..REQUEST_OCTETS])?;
    stream.write_all(&reply)
}

/// The real server's address.
pub(crate) fn rip() -> IpAddr {
    lab::server_address(1, false)
}
