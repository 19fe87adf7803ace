//! Real servers: small, and each with one way to behave.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use socket2::SockRef;
use wvs::lab::{self, Host, Lab};

use crate::stage::{PATIENCE, Stage};

/// Stops listening when dropped. Connections go on.
pub(crate) struct Server {
    listener: Arc<TcpListener>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens at `address` on `host` and has `serve` serve each connection on a thread.
    pub(crate) fn start(
        host: &Host,
        address: SocketAddr,
        serve: impl Fn(TcpStream) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let listener = Arc::new(host.run(|| TcpListener::bind(address)).expect("a listener"));
        let is_over = Arc::new(AtomicBool::new(false));
        let serve = Arc::new(serve);
        let thread = {
            let (listener, is_over) = (Arc::clone(&listener), Arc::clone(&is_over));
            host.spawn(move || {
                while let Ok((stream, _)) = listener.accept() {
                    if is_over.load(Ordering::Relaxed) {
                        break;
                    }
                    let serve = Arc::clone(&serve);
                    // A client that goes away is no failure of the server.
                    std::thread::spawn(move || {
                        let _ = stream.set_read_timeout(Some(PATIENCE));
                        let _ = stream.set_write_timeout(Some(PATIENCE));
                        let _ = serve(stream);
                    });
                }
            })
        };
        Self { listener, is_over, thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        // Wakes a thread in `accept`.
        let _ = SockRef::from(&*self.listener).shutdown(Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Web servers on every server of the lab, one family.
pub(crate) fn web_servers(stage: &Stage, is_ipv6: bool, port: u16) -> Vec<Server> {
    servers(&stage.lab, is_ipv6, port, |name| {
        let folder = stage.folder().to_owned();
        move |stream| serve_web(stream, &name, &folder)
    })
}

/// A server with the same behaviour on each of the lab.
pub(crate) fn servers<S>(
    lab: &Lab,
    is_ipv6: bool,
    port: u16,
    behaviour: impl Fn(String) -> S,
) -> Vec<Server>
where
    S: Fn(TcpStream) -> io::Result<()> + Send + Sync + 'static,
{
    (1..)
        .zip(&lab.servers)
        .map(|(number, host)| {
            let address = SocketAddr::new(lab::server_address(number, is_ipv6), port);
            Server::start(host, address, behaviour(host.name().to_owned()))
        })
        .collect()
}

/// Answers `/name` with its name, `/peer` with the client's address as it sees it, and anything
/// else with the file of that name, which a `PUT` writes.
pub(crate) fn serve_web(stream: TcpStream, name: &str, folder: &std::path::Path) -> io::Result<()> {
    let peer = stream.peer_addr()?;
    let mut request = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    request.read_line(&mut line)?;
    let is_put = line.starts_with("PUT ");
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut length = 0;
    while line != "\r\n" {
        line.clear();
        if request.read_line(&mut line)? == 0 {
            return Ok(());
        }
        if let Some((_, value)) = line.split_once(':').filter(|(key, _)| *key == "Content-Length") {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
    }
    if is_put {
        let mut file = File::create(folder.join(path.trim_start_matches('/')))?;
        io::copy(&mut request.take(length), &mut file)?;
        let mut stream = stream;
        return write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    }
    let mut stream = stream;
    let mut head = |octets| {
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {octets}\r\nConnection: close\r\n\r\n")
    };
    match path.as_str() {
        "/name" => {
            head(name.len())?;
            stream.write_all(name.as_bytes())
        }
        "/peer" => {
            let peer = peer.to_string();
            head(peer.len())?;
            stream.write_all(peer.as_bytes())
        }
        path => {
            let path: PathBuf = folder.join(path.trim_start_matches('/'));
            let mut file = File::open(path)?;
            head(usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX))?;
            io::copy(&mut file, &mut stream).map(drop)
        }
    }
}

/// Sends datagrams back to whoever sent them, with the server's name in front. Ends with the
/// process: a test has a handful.
pub(crate) fn udp_echo(host: &Host, address: IpAddr, port: u16) {
    let socket = host.run(|| UdpSocket::bind((address, port))).expect("a socket");
    let name = host.name().to_owned();
    host.spawn(move || {
        let mut datagram = [0; 65_536];
        while let Ok((length, from)) = socket.recv_from(&mut datagram) {
            let mut answer = format!("{name} ").into_bytes();
            answer.extend_from_slice(&datagram[..length]);
            let _ = socket.send_to(&answer, from);
        }
    });
}
