//! What clients and servers see of the director: nothing but each other.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::Duration;

use socket2::SockRef;
use wvs::lab;

use crate::capture::Capture;
use crate::director::{services, stats};
use crate::server::{servers, udp_echo, web_servers};
use crate::stage::{PATIENCE, PORT, SERVER_PORT, Stage, run, run_well};

trials! {
    both curl_reaches_a_real_server_through_the_vip,
    both download_of_50_megabytes_arrives_unharmed,
    both upload_through_a_narrow_link_arrives,
    both udp_datagrams_are_answered_from_the_vip,
    both server_sees_the_address_of_the_client,
    both client_sees_nothing_but_the_vip,
    both refusal_of_the_server_reaches_the_client,
    both half_closed_connection_goes_on_in_the_other_direction,
    both reset_of_the_client_reaches_the_server,
    both reset_of_the_server_reaches_the_client,
    both closed_port_of_the_vip_refuses_at_once,
    both ping_of_the_vip_is_answered,
    both icmp_service_sends_pings_to_real_servers,
    both traffic_that_is_none_of_the_director_s_passes,
}

fn curl_reaches_a_real_server_through_the_vip(is_ipv6: bool) {
    let stage = Stage::new(1);
    let _servers = web_servers(&stage, is_ipv6, SERVER_PORT);
    let director = stage.direct(&stage.service(is_ipv6, "rr"));

    let url = stage.url(is_ipv6, "/name");
    let answer = run_well(&stage.lab.client, "curl", &["-sS", "--max-time", "20", &url]);

    assert_eq!(answer, "server1");
    director.stop();
}

fn download_of_50_megabytes_arrives_unharmed(is_ipv6: bool) {
    let stage = Stage::new(1);
    let _servers = web_servers(&stage, is_ipv6, SERVER_PORT);
    let file = stage.folder().join("large");
    std::fs::write(&file, noise(50 << 20)).unwrap();
    let sent = run_well(&stage.lab.client, "sha256sum", &[&file.to_string_lossy()]);
    let director = stage.direct(&stage.service(is_ipv6, "rr"));

    let url = stage.url(is_ipv6, "/large");
    let pipe = format!("set -e; curl -sSf --max-time 60 '{url}' | sha256sum");
    let received = run_well(&stage.lab.client, "sh", &["-c", &pipe]);

    assert_eq!(received.split(' ').next(), sent.split(' ').next());
    // However many pieces it came in.
    let traffic = services(&stage.socket_of("wvs")).services[0].traffic;
    assert!(traffic.out_octets > 50 << 20, "{traffic:?}");
    director.stop();
}

fn upload_through_a_narrow_link_arrives(is_ipv6: bool) {
    let stage = Stage::new(1);
    let (report, received) = mpsc::channel();
    let _servers = servers(&stage.lab, is_ipv6, SERVER_PORT, |_| {
        let report = report.clone();
        move |mut stream| {
            let mut octets = Vec::new();
            stream.read_to_end(&mut octets)?;
            let _ = report.send(octets);
            Ok(())
        }
    });
    // The server's own end stays wide, so that it offers segments that do not fit the link.
    run_well(&stage.lab.director, "ip", &["link", "set", "server1", "mtu", "1400"]);
    let director = stage.direct(&stage.service(is_ipv6, "rr"));
    assert!(director.log().contains("mtu=1400"), "{}", director.log());

    let sent = noise(2 << 20);
    let mut stream = stage.connect(1, is_ipv6, PORT).unwrap();
    stream.write_all(&sent).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();

    assert!(received.recv_timeout(PATIENCE).unwrap() == sent, "other octets");
    director.stop();
}

fn udp_datagrams_are_answered_from_the_vip(is_ipv6: bool) {
    let stage = Stage::new(2);
    for (number, host) in (1..).zip(&stage.lab.servers) {
        udp_echo(host, lab::server_address(number, is_ipv6), 5353);
    }
    let service = stage.service_of(lab::vip(is_ipv6), 53, "udp", "rr", 5353);
    let director = stage.direct(&service);

    for expected in ["server1", "server2", "server1"] {
        // A connected socket takes answers from the VIP only.
        let socket = stage.udp(1, is_ipv6, 53).unwrap();
        for turn in 0..3 {
            socket.send(format!("hello {turn}").as_bytes()).unwrap();
            let mut answer = [0; 64];
            let length = socket.recv(&mut answer).expect("an answer");
            assert_eq!(
                String::from_utf8_lossy(&answer[..length]),
                format!("{expected} hello {turn}")
            );
        }
    }
    director.stop();
}

fn server_sees_the_address_of_the_client(is_ipv6: bool) {
    let stage = Stage::new(1);
    let _servers = web_servers(&stage, is_ipv6, SERVER_PORT);
    let director = stage.direct(&stage.service(is_ipv6, "rr"));

    for client in [1, 2, 16] {
        let mut stream = stage.connect(client, is_ipv6, PORT).unwrap();
        let own = stream.local_addr().unwrap();
        let seen = crate::stage::ask(&mut stream, "/peer").unwrap();
        assert_eq!(seen.parse(), Ok(own));
        assert_eq!(own.ip(), lab::client_address(client, is_ipv6));
    }
    director.stop();
}

fn client_sees_nothing_but_the_vip(is_ipv6: bool) {
    let stage = Stage::new(2);
    let _servers = web_servers(&stage, is_ipv6, SERVER_PORT);
    let mut services = stage.service(is_ipv6, "rr");
    // Nobody listens there: the servers' refusals have to be translated, TCP's and ICMP's.
    services += &stage.service_of(lab::vip(is_ipv6), 81, "tcp", "rr", 8181);
    services += &stage.service_of(lab::vip(is_ipv6), 53, "udp", "rr", 5353);
    let director = stage.direct(&services);

    let capture = Capture::start(&stage.lab.client);
    for client in 1..=4 {
        stage.who_answers(client, is_ipv6);
        refused(stage.connect(client, is_ipv6, 81).map(drop));
        refused(stage.connect(client, is_ipv6, 8080).map(drop));
        let socket = stage.udp(client, is_ipv6, 53).unwrap();
        socket.send(b"anybody?").unwrap();
        refused(socket.recv(&mut [0; 16]).map(drop));
    }
    let addresses = capture.stop(is_ipv6).addresses;

    let mut expected: Vec<_> = (1..=4).map(|client| lab::client_address(client, is_ipv6)).collect();
    expected.push(lab::vip(is_ipv6));
    expected.sort();
    assert_eq!(addresses.into_iter().collect::<Vec<_>>(), expected);
    director.stop();
}

fn refusal_of_the_server_reaches_the_client(is_ipv6: bool) {
    let stage = Stage::new(1);
    let director = stage.direct(&stage.service(is_ipv6, "rr"));

    refused(stage.connect(1, is_ipv6, PORT).map(drop));

    director.stop();
}

fn half_closed_connection_goes_on_in_the_other_direction(is_ipv6: bool) {
    const OCTETS: usize = 1 << 20;
    let stage = Stage::new(1);
    let _servers = servers(&stage.lab, is_ipv6, SERVER_PORT, |_| {
        |mut stream: TcpStream| {
            let mut question = Vec::new();
            stream.read_to_end(&mut question)?;
            // The client has closed its half; only now does the answer begin.
            stream.write_all(&question.repeat(OCTETS / question.len()))
        }
    });
    let director = stage.direct(&stage.service(is_ipv6, "rr"));

    let mut stream = stage.connect(1, is_ipv6, PORT).unwrap();
    stream.write_all(b"question").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();

    assert!(answer == b"question".repeat(OCTETS / 8), "{} octets", answer.len());
    director.stop();
}

fn reset_of_the_client_reaches_the_server(is_ipv6: bool) {
    let stage = Stage::new(1);
    let (report, read) = mpsc::channel();
    let _servers = servers(&stage.lab, is_ipv6, SERVER_PORT, |_| {
        let report = report.clone();
        move |mut stream| {
            stream.write_all(b"!")?;
            let _ = report.send(stream.read(&mut [0; 16]).map_err(|error| error.kind()));
            Ok(())
        }
    });
    let director = stage.direct(&stage.service(is_ipv6, "rr"));

    let mut stream = stage.connect(1, is_ipv6, PORT).unwrap();
    stream.read_exact(&mut [0]).unwrap();
    reset(stream);

    assert_eq!(read.recv_timeout(PATIENCE).unwrap(), Err(io::ErrorKind::ConnectionReset));
    director.stop();
}

fn reset_of_the_server_reaches_the_client(is_ipv6: bool) {
    let stage = Stage::new(1);
    let _servers = servers(&stage.lab, is_ipv6, SERVER_PORT, |_| {
        |mut stream: TcpStream| {
            stream.read_exact(&mut [0])?;
            reset(stream);
            Ok(())
        }
    });
    let director = stage.direct(&stage.service(is_ipv6, "rr"));

    let mut stream = stage.connect(1, is_ipv6, PORT).unwrap();
    stream.write_all(b"?").unwrap();
    let error = stream.read(&mut [0; 16]).unwrap_err();

    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    director.stop();
}

fn closed_port_of_the_vip_refuses_at_once(is_ipv6: bool) {
    let stage = Stage::new(1);
    let director = stage.direct(&stage.service(is_ipv6, "rr"));

    refused(stage.connect(1, is_ipv6, 81).map(drop));
    let socket = stage.udp(1, is_ipv6, 53).unwrap();
    socket.send(b"anybody?").unwrap();
    refused(socket.recv(&mut [0; 16]).map(drop));

    director.stop();
}

fn ping_of_the_vip_is_answered(is_ipv6: bool) {
    let stage = Stage::new(1);
    let director = stage.direct(&stage.service(is_ipv6, "rr"));

    let vip = lab::vip(is_ipv6).to_string();
    let answer = run_well(&stage.lab.client, "ping", &["-c", "3", "-i", "0.1", "-W", "10", &vip]);

    assert!(answer.contains("3 received"), "{answer}");
    director.stop();
}

fn icmp_service_sends_pings_to_real_servers(is_ipv6: bool) {
    let stage = Stage::new(1);
    let address = lab::server_address(1, is_ipv6);
    let director = stage.direct(&format!(
        "  - name: ping\n    vip: \"{}\"\n    protocol: icmp\n    scheduler: rr\n    servers:\n      \
         - {{ address: \"{address}\" }}\n",
        lab::vip(is_ipv6)
    ));
    let vip = lab::vip(is_ipv6).to_string();
    let ping = ["-c", "2", "-i", "0.1", "-W", "10", &vip];
    assert!(run_well(&stage.lab.client, "ping", &ping).contains("2 received"));

    // Only an answer of the server's own can fail to come.
    run_well(&stage.lab.servers[0], "ip", &["link", "set", "eth0", "down"]);
    let output = run(&stage.lab.client, "ping", &["-c", "1", "-W", "1", &vip]);
    assert!(!output.status.success(), "{output:?}");
    director.stop();
}

fn traffic_that_is_none_of_the_director_s_passes(is_ipv6: bool) {
    let stage = Stage::new(1);
    let director = stage.direct(&stage.service(is_ipv6, "rr"));
    let client = lab::client_address(1, is_ipv6).to_string();

    // A server's own pings, whose ICMP comes by the director's device.
    let ping = ["-c", "2", "-i", "0.1", "-W", "10", &client];
    let answer = run_well(&stage.lab.servers[0], "ping", &ping);
    assert!(answer.contains("2 received"), "{answer}");
    let passed = stats(&stage.socket_of("wvs")).packets.passed;
    // The requests, whose replies take the ordinary way; and what the kernel itself says over IPv6.
    assert!(passed >= 2, "{passed}");

    // Another port of a server, which the host forwards like any router.
    let listener = stage.lab.servers[0].run(|| {
        TcpListener::bind((lab::server_address(1, is_ipv6), SERVER_PORT + 1)).expect("a listener")
    });
    let address = listener.local_addr().unwrap();
    stage.lab.client.run(|| TcpStream::connect_timeout(&address, PATIENCE)).unwrap();

    director.stop();
}

/// Asserts that the other side said no, rather than nothing.
#[track_caller]
fn refused(result: io::Result<()>) {
    let kind = result.expect_err("refused").kind();
    assert_eq!(kind, io::ErrorKind::ConnectionRefused);
}

/// Ends a connection by a reset.
fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}

/// Octets that no compression and no shift of position would go unnoticed in.
pub(crate) fn noise(octets: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut noise = Vec::with_capacity(octets + 8);
    while noise.len() < octets {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        noise.extend_from_slice(&state.to_le_bytes());
    }
    noise.truncate(octets);
    noise
}
