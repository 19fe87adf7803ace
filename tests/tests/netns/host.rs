//! What the kernel of the director's host does of its own accord: it keeps to the VIP as well.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};

use wvs::lab;

use crate::capture::{Capture, compute_checksums};
use crate::director::stats;
use crate::server::udp_echo;
use crate::stage::{PATIENCE, PORT, SERVER_PORT, Stage, run_well};

trials! {
    both dead_server_is_reported_as_the_vip,
    both error_about_somebody_else_s_packet_passes,
    both program_on_the_director_is_refused_at_once,
    both host_s_own_pings_work,
    both large_datagrams_arrive_whole_both_ways,
    both large_pings_are_answered,
    both fragments_of_somebody_else_s_datagrams_pass,
}

/// A UDP payload that takes three packets.
const LARGE: usize = 4000;

/// An address in the first server's network that nobody has.
fn nobody(is_ipv6: bool) -> IpAddr {
    if is_ipv6 { "fd00:20:1::99" } else { "10.20.1.99" }.parse().unwrap()
}

fn addresses_of<const N: usize>(addresses: [IpAddr; N]) -> BTreeSet<IpAddr> {
    addresses.into()
}

fn dead_server_is_reported_as_the_vip(is_ipv6: bool) {
    let stage = Stage::new(1);
    let service = stage
        .service(is_ipv6, "rr")
        .replace(&lab::server_address(1, is_ipv6).to_string(), &nobody(is_ipv6).to_string());
    let director = stage.direct(&service);
    compute_checksums([&stage.lab.client]);
    let capture = Capture::start(&stage.lab.client);

    let error = stage.connect(1, is_ipv6, PORT).expect_err("nobody is there");

    assert_eq!(error.kind(), io::ErrorKind::HostUnreachable, "{error}");
    let captured = capture.stop(is_ipv6);
    captured.assert_intact();
    let expected = [lab::client_address(1, is_ipv6), lab::vip(is_ipv6)];
    assert_eq!(captured.addresses, addresses_of(expected));
    director.stop();
}

fn error_about_somebody_else_s_packet_passes(is_ipv6: bool) {
    let stage = Stage::new(1);
    let director = stage.direct(&stage.service(is_ipv6, "rr"));
    compute_checksums([&stage.lab.client]);
    let capture = Capture::start(&stage.lab.client);

    let address = SocketAddr::new(nobody(is_ipv6), 22);
    let error = stage
        .lab
        .client
        .run(|| TcpStream::connect_timeout(&address, PATIENCE))
        .expect_err("nobody is there");

    assert_eq!(error.kind(), io::ErrorKind::HostUnreachable, "{error}");
    capture.stop(is_ipv6).assert_intact();
    assert!(stats(&stage.socket_of("wvs")).packets.passed > 0, "by way of the director");
    director.stop();
}

fn program_on_the_director_is_refused_at_once(is_ipv6: bool) {
    let stage = Stage::new(1);
    let services =
        stage.service(is_ipv6, "rr") + &stage.service_of(lab::vip(is_ipv6), 53, "udp", "rr", 5353);
    let director = stage.direct(&services);

    stage.lab.director.run(|| {
        let error = TcpStream::connect((lab::vip(is_ipv6), PORT)).expect_err("refused");
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{error}");
        let own = if is_ipv6 { "[::]:0" } else { "0.0.0.0:0" };
        let socket = UdpSocket::bind(own).unwrap();
        let error = socket.send_to(b"?", (lab::vip(is_ipv6), 53)).expect_err("refused");
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{error}");
    });

    assert_eq!(stats(&stage.socket_of("wvs")).packets.forwarded, 0);
    director.stop();
}

fn host_s_own_pings_work(is_ipv6: bool) {
    let stage = Stage::new(1);
    let director = stage.direct(&stage.service(is_ipv6, "rr"));
    let gateway = if is_ipv6 { "fd00:10::1" } else { "10.10.0.1" };
    let (client, server) = (lab::client_address(1, is_ipv6), lab::server_address(1, is_ipv6));
    for (host, to) in [
        (&stage.lab.director, client.to_string()),
        (&stage.lab.director, server.to_string()),
        (&stage.lab.client, gateway.to_owned()),
        (&stage.lab.servers[0], gateway.to_owned()),
    ] {
        // Neighbours have to be found anew.
        run_well(host, "ip", &["neigh", "flush", "all"]);
        let answer = run_well(host, "ping", &["-c", "1", "-W", "10", &to]);
        assert!(answer.contains("1 received"), "{to} from {}: {answer}", host.name());
    }
    director.stop();
}

fn large_datagrams_arrive_whole_both_ways(is_ipv6: bool) {
    let stage = Stage::new(1);
    udp_echo(&stage.lab.servers[0], lab::server_address(1, is_ipv6), 5353);
    let director = stage.direct(&stage.service_of(lab::vip(is_ipv6), 53, "udp", "rr", 5353));
    compute_checksums([&stage.lab.client, &stage.lab.servers[0]]);
    let capture = Capture::start(&stage.lab.client);

    let socket = stage.udp(1, is_ipv6, 53).unwrap();
    for turn in 0..5 {
        let sent = [turn; LARGE];
        socket.send(&sent).unwrap();
        let mut answer = [0; 2 * LARGE];
        let length = socket.recv(&mut answer).expect("an answer");
        assert_eq!(answer[..length], [b"server1 ", &sent[..]].concat());
    }

    let captured = capture.stop(is_ipv6);
    captured.assert_intact();
    assert_eq!(captured.count, 5 * 6, "three packets for each datagram");
    let expected = [lab::client_address(1, is_ipv6), lab::vip(is_ipv6)];
    assert_eq!(captured.addresses, addresses_of(expected));
    director.stop();
}

fn large_pings_are_answered(is_ipv6: bool) {
    let stage = Stage::new(1);
    let (vip, server) = (lab::vip(is_ipv6), lab::server_address(1, is_ipv6));
    let director = stage.direct(&format!(
        "  - name: ping\n    vip: \"{vip}\"\n    protocol: icmp\n    scheduler: rr\n    servers:\n      \
         - {{ address: \"{server}\" }}\n"
    ));
    let capture = Capture::start(&stage.lab.client);
    let from = lab::client_address(1, is_ipv6).to_string();
    let vip_text = vip.to_string();
    let ping = ["-c", "2", "-i", "0.1", "-W", "10", "-s", "5000", "-I", &from, &vip_text];

    let answer = run_well(&stage.lab.client, "ping", &ping);

    assert!(answer.contains("2 received"), "{answer}");
    let captured = capture.stop(is_ipv6);
    captured.assert_intact();
    assert_eq!(captured.addresses, addresses_of([lab::client_address(1, is_ipv6), vip]));
    director.stop();
}

fn fragments_of_somebody_else_s_datagrams_pass(is_ipv6: bool) {
    let stage = Stage::new(1);
    // A service of the server's over UDP, and another one past the VIP.
    udp_echo(&stage.lab.servers[0], lab::server_address(1, is_ipv6), 9999);
    let director = stage.direct(&stage.service_of(lab::vip(is_ipv6), 53, "udp", "rr", SERVER_PORT));

    let socket = stage.lab.client.run(|| {
        let socket = UdpSocket::bind((lab::client_address(1, is_ipv6), 0)).unwrap();
        socket.connect((lab::server_address(1, is_ipv6), 9999)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    });
    socket.send(&[1; LARGE]).unwrap();
    let mut answer = [0; 2 * LARGE];
    let length = socket.recv(&mut answer).expect("an answer");
    assert_eq!(length, LARGE + b"server1 ".len());
    let passed = stats(&stage.socket_of("wvs")).packets.passed;
    assert!(passed >= 3, "{passed}");
    director.stop();
}
