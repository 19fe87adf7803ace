//! The clients: blocking threads, one for each of the lab's client addresses.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};
use wvs::lab::{self, Host};

use crate::servers::{DATAGRAM_PORT, REPLY_OCTETS, REQUEST_OCTETS, REQUEST_PORT};

/// After this a request has failed.
const PATIENCE: Duration = Duration::from_secs(3);

/// After this a datagram or its answer is lost.
const DATAGRAM_PATIENCE: Duration = Duration::from_millis(500);

/// What clients saw.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) answered: u64,
    pub(crate) failed: u64,
    pub(crate) first_failure: Option<String>,
    /// Seconds from before `connect` to the end of the reply, where they were asked for.
    pub(crate) latencies: Vec<f64>,
    pub(crate) elapsed_seconds: f64,
}

impl Tally {
    pub(crate) fn per_second(&self) -> f64 {
        self.answered as f64 / self.elapsed_seconds
    }

    /// Counts one attempt, and returns whether it went well.
    fn count(&mut self, result: io::Result<()>) -> bool {
        match result {
            Ok(()) => {
                self.answered += 1;
                true
            }
            Err(error) => {
                self.failed += 1;
                self.first_failure.get_or_insert_with(|| error.to_string());
                false
            }
        }
    }

    fn add(&mut self, other: Self) {
        self.answered += other.answered;
        self.failed += other.failed;
        self.latencies.extend(other.latencies);
        self.first_failure = self.first_failure.take().or(other.first_failure);
    }
}

/// Connect, request, reply, close, and again: each client as fast as it is answered.
pub(crate) fn connections(host: &Host, time: Duration) -> Tally {
    clients(host, |number, begin| {
        let mut tally = Tally::default();
        while begin.elapsed() < time {
            let result = request(number, tally.answered).and_then(|mut stream| {
                // The server closes first.
                match stream.read(&mut [0])? {
                    0 => Ok(()),
                    _ => Err(io::Error::other("more than the reply")),
                }
            });
            tally.count(result);
        }
        tally
    })
}

/// Connections at a steady rate, whatever becomes of earlier ones, with their latencies.
pub(crate) fn paced_connections(host: &Host, per_second: u32, time: Duration) -> Tally {
    clients(host, |number, begin| {
        let mut tally = Tally::default();
        let period = Duration::from_secs(1) * u32::from(lab::CLIENTS) / per_second;
        // Not all at once.
        let mut due = begin + period * u32::from(number) / u32::from(lab::CLIENTS);
        while due < begin + time {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let asked = Instant::now();
            let result = request(number, tally.answered);
            let took = asked.elapsed().as_secs_f64();
            if tally.count(result.map(drop)) {
                tally.latencies.push(took);
            }
            due += period;
        }
        tally
    })
}

/// Datagrams, each answered before the next: one socket for each client.
pub(crate) fn datagrams(host: &Host, time: Duration) -> Tally {
    clients(host, |number, begin| {
        let mut tally = Tally::default();
        let socket = match datagram_socket(number) {
            Ok(socket) => socket,
            Err(error) => {
                tally.count(Err(error));
                return tally;
            }
        };
        while begin.elapsed() < time {
            let result = exchange(&socket, tally.answered + tally.failed);
            tally.count(result);
        }
        tally
    })
}

/// One connection and one datagram, answered. Says what is wrong until both work.
pub(crate) fn probe(host: &Host, has_datagrams: bool) -> io::Result<()> {
    host.run(|| {
        request(1, 0)?;
        if has_datagrams {
            exchange(&datagram_socket(1)?, 0)?;
        }
        Ok(())
    })
}

fn clients(host: &Host, client: impl Fn(u8, Instant) -> Tally + Sync) -> Tally {
    let client = &client;
    host.run(|| {
        let begin = Instant::now();
        let mut total = Tally::default();
        thread::scope(|scope| {
            let threads: Vec<_> =
                (1..=lab::CLIENTS).map(|n| scope.spawn(move || client(n, begin))).collect();
            for thread in threads {
                total.add(thread.join().expect("a client that does not panic"));
            }
        });
        total.elapsed_seconds = begin.elapsed().as_secs_f64();
        total
    })
}

/// Connects from a client's address, asks and reads the reply, which must be the request's own.
fn request(client: u8, number: u64) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    // Bounds `connect` too.
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.bind(&SocketAddr::new(lab::client_address(client, false), 0).into())?;
    socket.connect(&SocketAddr::new(lab::VIP, REQUEST_PORT).into())?;
    let mut stream = TcpStream::from(socket);
    let request = octets(client, number);
    stream.write_all(&request)?;
    let mut reply = [0; REPLY_OCTETS];
    stream.read_exact(&mut reply)?;
    if reply.starts_with(&request) {
        Ok(stream)
    } else {
        Err(io::Error::other("the reply to another request"))
    }
}

fn datagram_socket(client: u8) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((lab::client_address(client, false), 0))?;
    socket.connect((lab::VIP, DATAGRAM_PORT))?;
    socket.set_read_timeout(Some(DATAGRAM_PATIENCE))?;
    Ok(socket)
}

fn exchange(socket: &UdpSocket, number: u64) -> io::Result<()> {
    let request = octets(0, number);
    socket.send(&request)?;
    let mut reply = [0; REPLY_OCTETS];
    // Answers that come after they were given up are not this one's.
    while socket.recv(&mut reply)? != REPLY_OCTETS || !reply.starts_with(&request) {}
    Ok(())
}

/// A request that no other client has, and this one only once.
fn octets(client: u8, number: u64) -> [u8; REQUEST_OCTETS] {
    let mut octets = [client; REQUEST_OCTETS];
    octets[..8].copy_from_slice(&number.to_be_bytes());
    octets
}
