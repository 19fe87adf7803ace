//! Each kind of check against real servers on the loopback device: good ones, and ones that hang,
//! lie, trickle, flood or break off.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use wvs_health::{Check, Finding, Kind, Outcome, ServerKey, Standing};

mod checkers;
mod command;
mod grpc;
mod http;
mod tcp;
mod tls;
mod udp;

/// For checks that are to end by themselves.
const AMPLE: Duration = Duration::from_secs(30);
/// For checks that are to be ended.
const SHORT: Duration = Duration::from_millis(300);

const GOOD: Outcome = Outcome::Good { weight: None };

async fn ask_within(kind: Kind, target: SocketAddr, timeout: Duration) -> Finding {
    let check = Check {
        kind,
        target,
        interval: AMPLE,
        down_interval: AMPLE,
        timeout,
        rise: 1,
        fall: 1,
        start: Standing::Up,
    };
    check.ask(&ServerKey { service: "web".to_owned(), server: target }).await
}

async fn ask(kind: Kind, target: SocketAddr) -> Finding {
    ask_within(kind, target, AMPLE).await
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

async fn listen_ipv6() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A port that nobody listens on, and that nobody else gets while the socket is held.
fn closed() -> (Socket, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, address)
}

/// Serves one connection with these octets, after a request has come; then closes it. Returns what
/// was asked.
async fn serve_once(listener: TcpListener, response: Vec<u8>) -> String {
    let (mut stream, _) = listener.accept().await.unwrap();
    let request = read_head(&mut stream).await;
    // The client may have heard enough before the end.
    let _ = stream.write_all(&response).await;
    let _ = stream.shutdown().await;
    request
}

/// Reads to the empty line.
async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(octet) => head.push(octet),
            Err(_) => break,
        }
    }
    String::from_utf8(head).unwrap()
}

fn assert_bad(finding: &Finding, reason: &str) {
    assert_eq!(finding.outcome, Outcome::Bad, "{}", finding.reason);
    assert!(finding.reason.contains(reason), "{}", finding.reason);
}

fn assert_good(finding: &Finding, reason: &str) {
    assert_eq!(finding.outcome, GOOD, "{}", finding.reason);
    assert!(finding.reason.contains(reason), "{}", finding.reason);
}
