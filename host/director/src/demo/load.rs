//! The clients: one task for each client address, a TCP connection for each request.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpSocket;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::config::PORT;
use super::host_runtime::HostRuntime;
use super::{DemoError, WEIGHTS};
use crate::lab::{self, CLIENTS, Host};

/// Between two requests of one client.
const PAUSE: Duration = Duration::from_millis(10);

/// After this a request has failed.
const PATIENCE: Duration = Duration::from_secs(5);

/// Clients at work on the lab's client host.
#[derive(Debug)]
pub(super) struct Load {
    runtime: HostRuntime,
    clients: Mutex<Vec<JoinHandle<()>>>,
    held: Mutex<Vec<Connection>>,
    tally: Arc<Tally>,
}

/// Requests since the start.
#[derive(Clone, Debug, Default)]
pub(super) struct Total {
    pub(super) requests: u64,
    pub(super) failed: u64,
    pub(super) first_failure: Option<String>,
}

/// Requests that began and ended under one scheduler.
#[derive(Clone, Debug, Default)]
pub(super) struct Measured {
    /// For each client, requests answered by each server.
    pub(super) by_client: Vec<[u64; WEIGHTS.len()]>,
    pub(super) failed: u64,
}

#[derive(Debug, Default)]
struct Tally(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    is_over: bool,
    /// Changes with each scheduler, and once more before it is replaced.
    epoch: u64,
    is_measuring: bool,
    measured: Measured,
    total: Total,
}

impl Tally {
    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Load {
    /// Clients on `host`, silent until [`measure`](Self::measure).
    pub(super) fn start(host: &Host) -> Result<Self, DemoError> {
        Ok(Self {
            runtime: HostRuntime::start(host)?,
            clients: Mutex::default(),
            held: Mutex::default(),
            tally: Arc::default(),
        })
    }

    /// Starts the requests at the first call, and counts them by server from here on.
    pub(super) fn measure(&self) {
        {
            let counts = &mut *self.tally.lock();
            counts.epoch += 1;
            counts.is_measuring = true;
            let none = [0; WEIGHTS.len()];
            counts.measured = Measured { by_client: vec![none; usize::from(CLIENTS)], failed: 0 };
        }
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if clients.is_empty() {
            clients.extend((1..=CLIENTS).map(|number| {
                self.runtime.handle().spawn(ask_again_and_again(number, Arc::clone(&self.tally)))
            }));
        }
    }

    /// Returns what was counted; requests go on, but are counted only in total.
    pub(super) fn measure_nothing(&self) -> Measured {
        let counts = &mut *self.tally.lock();
        counts.epoch += 1;
        counts.is_measuring = false;
        std::mem::take(&mut counts.measured)
    }

    /// Opens `count` connections with a request each and leaves them open. Returns their servers.
    pub(super) async fn hold(&self, count: usize) -> io::Result<Vec<usize>> {
        let tally = Arc::clone(&self.tally);
        let hold = async move {
            let mut held = Vec::with_capacity(count);
            let mut servers = Vec::with_capacity(count);
            for number in (1..=CLIENTS).cycle().take(count) {
                let result = Connection::open_and_ask(number).await;
                count_in_total(&mut tally.lock(), result.as_ref().err());
                let (connection, server) = result?;
                held.push(connection);
                servers.push(server);
            }
            Ok::<_, io::Error>((held, servers))
        };
        let (held, servers) = self.runtime.handle().spawn(hold).await??;
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = held;
        Ok(servers)
    }

    /// Closes what [`hold`](Self::hold) opened.
    pub(super) fn release(&self) {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Every request so far.
    pub(super) fn total(&self) -> Total {
        self.tally.lock().total.clone()
    }

    /// Ends the requests, each after its answer.
    pub(super) async fn stop_requests(&self) {
        self.tally.lock().is_over = true;
        let clients =
            std::mem::take(&mut *self.clients.lock().unwrap_or_else(PoisonError::into_inner));
        for client in clients {
            let _ = client.await;
        }
    }

    pub(super) fn stop(self) {
        self.runtime.stop();
    }
}

async fn ask_again_and_again(number: u8, tally: Arc<Tally>) {
    loop {
        let epoch = {
            let counts = tally.lock();
            if counts.is_over {
                return;
            }
            counts.epoch
        };
        let result = Connection::open_and_ask(number).await.map(|(_, server)| server);
        {
            let counts = &mut *tally.lock();
            count_in_total(counts, result.as_ref().err());
            if counts.is_measuring && counts.epoch == epoch {
                let client = usize::from(number - 1);
                match result {
                    Ok(server) => counts.measured.by_client[client][server] += 1,
                    Err(_) => counts.measured.failed += 1,
                }
            }
        }
        sleep(PAUSE).await;
    }
}

fn count_in_total(counts: &mut Counts, error: Option<&io::Error>) {
    counts.total.requests += 1;
    if let Some(error) = error {
        counts.total.failed += 1;
        counts.total.first_failure.get_or_insert_with(|| error.to_string());
    }
}

/// An HTTP connection through the VIP, open until it is dropped.
#[derive(Debug)]
struct Connection {
    _sender: SendRequest<Empty<Bytes>>,
}

impl Connection {
    /// Connects from a client's address and asks who is there.
    async fn open_and_ask(number: u8) -> io::Result<(Self, usize)> {
        match timeout(PATIENCE, Self::ask(number)).await {
            Ok(result) => result,
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "no answer within 5 s")),
        }
    }

    async fn ask(number: u8) -> io::Result<(Self, usize)> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(lab::client_address(number, false), 0))?;
        let stream = socket.connect(SocketAddr::new(lab::VIP, PORT)).await?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        tokio::spawn(connection);
        let request = Request::get("/").header("host", "demo").body(Empty::new());
        let request = request.map_err(io::Error::other)?;
        let answer = sender.send_request(request).await.map_err(io::Error::other)?;
        let status = answer.status();
        let body = answer.into_body().collect().await.map_err(io::Error::other)?.to_bytes();
        let number = std::str::from_utf8(&body).ok().and_then(server_number);
        match number {
            Some(number) if status.is_success() => Ok((Self { _sender: sender }, number)),
            _ => Err(io::Error::other(format!("an answer of no server of ours, status {status}"))),
        }
    }
}

/// The place of the server of this name, from 0.
fn server_number(name: &str) -> Option<usize> {
    let number: usize = name.trim_end().strip_prefix("server")?.parse().ok()?;
    number.checked_sub(1).filter(|number| *number < WEIGHTS.len())
}
