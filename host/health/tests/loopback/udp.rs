//! UDP and DNS.

use tokio::net::UdpSocket;
use wvs_health::{Dns, Kind, RecordType, Udp};

use super::*;

async fn bind() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// Answers one datagram with what `answer` makes of it.
async fn answered(kind: Kind, answer: impl Fn(&[u8]) -> Vec<u8>) -> Finding {
    let (socket, address) = bind().await;
    let server = async {
        let mut octets = [0; 1_000];
        let (length, client) = socket.recv_from(&mut octets).await.unwrap();
        socket.send_to(&answer(&octets[..length]), client).await.unwrap();
    };
    tokio::join!(ask(kind, address), server).0
}

fn udp(send: &[u8], expect: Option<&[u8]>) -> Kind {
    Kind::Udp(Udp { send: send.to_owned(), expect: expect.map(<[u8]>::to_owned) })
}

fn dns() -> Kind {
    Kind::Dns(Dns { name: "example.org".parse().unwrap(), record: RecordType::A })
}

#[tokio::test]
async fn answer_must_have_the_expected_octets_in_it() {
    let echo = |sent: &[u8]| [b"you said ", sent, b"."].concat();
    assert_good(&answered(udp(b"ping\0", Some(b"ping\0.")), echo).await, "answered 15 octets");
    assert_bad(&answered(udp(b"ping", Some(b"pong")), echo).await, "another answer than expected");
    assert_bad(&answered(udp(b"", Some(b"x")), |_| Vec::new()).await, "of 0 octets");
    assert_good(&answered(udp(b"", Some(b"")), |_| Vec::new()).await, "answered 0 octets");
    assert_good(&answered(udp(b"ping", None), echo).await, "answered");
}

#[tokio::test]
async fn silence_is_good_only_where_nothing_is_expected() {
    let (_socket, address) = bind().await;
    assert_good(&ask_within(udp(b"ping", None), address, SHORT).await, "no ICMP error");
    let finding = ask_within(udp(b"ping", Some(b"pong")), address, SHORT).await;
    assert_bad(&finding, "no answer within 300ms");
}

#[tokio::test]
async fn closed_port_is_bad_in_both_families() {
    // A connected socket takes datagrams of its peer alone.
    let (socket, address) = bind().await;
    socket.connect(address).await.unwrap();
    assert_bad(&ask(udp(b"ping", None), address).await, "udp: Connection refused");
    assert_bad(&ask(dns(), address).await, "dns: Connection refused");
    let socket = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).await.unwrap();
    let address = socket.local_addr().unwrap();
    socket.connect(address).await.unwrap();
    assert_bad(&ask(udp(b"ping", None), address).await, "udp: Connection refused");
}

#[tokio::test]
async fn name_server_that_answers_the_question_is_good() {
    let answer = |code: u8| {
        move |query: &[u8]| {
            let mut answer = query.to_vec();
            answer[2] |= 0x80;
            answer[3] = code;
            answer
        }
    };
    assert_good(&answered(dns(), answer(0)).await, "NOERROR");
    assert_good(&answered(dns(), answer(3)).await, "NXDOMAIN");
    assert_bad(&answered(dns(), answer(2)).await, "SERVFAIL");
    assert_bad(&answered(dns(), answer(5)).await, "REFUSED");
    assert_bad(&answered(dns(), <[u8]>::to_vec).await, "no DNS answer to the question asked");
    assert_bad(&answered(dns(), |_| vec![0xFF; 600]).await, "no DNS answer");
    assert_bad(&answered(dns(), |_| Vec::new()).await, "no DNS answer");
}

#[tokio::test]
async fn name_server_that_is_silent_is_bad_at_the_timeout() {
    let (_socket, address) = bind().await;
    assert_bad(&ask_within(dns(), address, SHORT).await, "no answer within 300ms");
}
