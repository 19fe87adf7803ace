//! A network for one test, with clients to connect from.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};
use tempfile::TempDir;
use wvs::lab::{self, Host, Lab};
use wvs::sysctl::STATE_FOLDER;

use crate::director::DirectorProcess;

/// How long anything may take that does not hang. Far above what it takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The port of the service that most tests have.
pub(crate) const PORT: u16 = 80;

/// The port that real servers listen on.
pub(crate) const SERVER_PORT: u16 = 8080;

pub(crate) struct Stage {
    pub(crate) lab: Lab,
    folder: TempDir,
}

/// The number of a namespace that is gone is given to a later one. What a crashed director left for
/// this one's must not be taken for that one's.
impl Drop for Stage {
    fn drop(&mut self) {
        let number = self.lab.director.run(|| fs::metadata("/proc/thread-self/ns/net"));
        let Ok(number) = number.map(|namespace| namespace.ino()) else { return };
        for file in fs::read_dir(STATE_FOLDER).into_iter().flatten().flatten() {
            if file.file_name().to_string_lossy().contains(&format!("-{number}.json")) {
                let _ = fs::remove_file(file.path());
            }
        }
    }
}

impl Stage {
    pub(crate) fn new(servers: u8) -> Self {
        let lab = Lab::build(servers).expect("a network of namespaces");
        // In the private /run, where nothing is left behind even when the test is killed.
        let folder = TempDir::new_in("/run").expect("a folder");
        Self { lab, folder }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A TCP service on [`PORT`] with every server of the lab, all of weight 1.
    pub(crate) fn service(&self, is_ipv6: bool, scheduler: &str) -> String {
        self.service_of(lab::vip(is_ipv6), PORT, "tcp", scheduler, SERVER_PORT)
    }

    pub(crate) fn service_of(
        &self,
        vip: IpAddr,
        port: u16,
        protocol: &str,
        scheduler: &str,
        server_port: u16,
    ) -> String {
        let mut text = format!(
            "  - name: {protocol}-{port}-v{family}\n    vip: \"{vip}\"\n    port: {port}\n    \
             protocol: {protocol}\n    scheduler: {scheduler}\n    servers:\n",
            family = if vip.is_ipv6() { 6 } else { 4 },
        );
        for (number, _) in (1..).zip(&self.lab.servers) {
            let address = lab::server_address(number, vip.is_ipv6());
            text += &format!("      - {{ address: \"{address}\", port: {server_port} }}\n");
        }
        text
    }

    /// Writes a configuration: `head` with any other keys, then `services`.
    pub(crate) fn configure(&self, head: &str, services: &str) -> PathBuf {
        self.configure_as("wvs", head, services)
    }

    /// The same for another director in the same network.
    pub(crate) fn configure_as(&self, name: &str, head: &str, services: &str) -> PathBuf {
        let path = self.folder().join(format!("{name}.yaml"));
        let socket = self.socket_of(name);
        let text =
            format!("admin: {{ socket: \"{}\" }}\n{head}\nservices:\n{services}", socket.display());
        fs::write(&path, text).expect("a configuration");
        path
    }

    pub(crate) fn socket_of(&self, name: &str) -> PathBuf {
        self.folder().join(format!("{name}.sock"))
    }

    /// Runs a director with these services until it is ready.
    pub(crate) fn direct(&self, services: &str) -> DirectorProcess {
        DirectorProcess::start(&self.lab.director, &self.configure("", services))
    }

    /// Connects from one of the client's addresses to the VIP.
    pub(crate) fn connect(&self, client: u8, is_ipv6: bool, port: u16) -> io::Result<TcpStream> {
        self.connect_to(client, SocketAddr::new(lab::vip(is_ipv6), port))
    }

    /// Connects from one of the client's addresses to any other.
    pub(crate) fn connect_to(&self, client: u8, to: SocketAddr) -> io::Result<TcpStream> {
        let from = SocketAddr::new(lab::client_address(client, to.is_ipv6()), 0);
        self.lab.client.run(|| {
            let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
            socket.bind(&from.into())?;
            socket.connect_timeout(&to.into(), PATIENCE)?;
            let stream = TcpStream::from(socket);
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            Ok(stream)
        })
    }

    /// Asks the service on [`PORT`] for `path` over a connection of its own.
    pub(crate) fn fetch(&self, client: u8, is_ipv6: bool, path: &str) -> io::Result<String> {
        ask(&mut self.connect(client, is_ipv6, PORT)?, path)
    }

    /// The name of the server that answers a new connection.
    pub(crate) fn who_answers(&self, client: u8, is_ipv6: bool) -> String {
        self.fetch(client, is_ipv6, "/name").expect("an answer")
    }

    /// A UDP socket of the client's, connected to the VIP.
    pub(crate) fn udp(&self, client: u8, is_ipv6: bool, port: u16) -> io::Result<UdpSocket> {
        let from = SocketAddr::new(lab::client_address(client, is_ipv6), 0);
        let to = SocketAddr::new(lab::vip(is_ipv6), port);
        self.lab.client.run(|| {
            let socket = UdpSocket::bind(from)?;
            socket.connect(to)?;
            socket.set_read_timeout(Some(PATIENCE))?;
            Ok(socket)
        })
    }

    /// The URL of `path` at the VIP.
    pub(crate) fn url(&self, is_ipv6: bool, path: &str) -> String {
        format!("http://{}{path}", SocketAddr::new(lab::vip(is_ipv6), PORT))
    }
}

/// Asks for `path` and reads the answer to its end.
pub(crate) fn ask(stream: &mut TcpStream, path: &str) -> io::Result<String> {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: vip\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200") => Ok(body.to_owned()),
        _ => Err(io::Error::other(format!("no proper answer: {answer:?}"))),
    }
}

/// Runs a program on `host` and waits for it.
pub(crate) fn run(host: &Host, program: &str, arguments: &[&str]) -> Output {
    host.run(|| Command::new(program).args(arguments).output())
        .unwrap_or_else(|error| panic!("{program} does not run: {error}"))
}

/// Runs a program on `host`, which must succeed, and returns what it prints.
#[track_caller]
pub(crate) fn run_well(host: &Host, program: &str, arguments: &[&str]) -> String {
    let output = run(host, program, arguments);
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Waits until `is_so`, which must come to be. `what` says what is awaited.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let give_up = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < give_up, "never came to be: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Whether there are users besides root. There are none in a namespace of users that one without
/// rights made.
pub(crate) fn has_other_users() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").expect("a map of users");
    let has_others = map.split_whitespace().nth(2) != Some("1");
    if !has_others {
        let reason = "there is only one user in this namespace of users";
        assert!(std::env::var_os("WVS_FORBID_SKIP").is_none(), "{reason}");
        eprintln!("skipped: {reason}");
    }
    has_others
}
