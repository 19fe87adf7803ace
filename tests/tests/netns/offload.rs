//! Packets in pieces as large as the kernel has them, by several queues, and without any of that.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::mpsc;

use nix::sys::signal::Signal;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};
use wvs::lab;
use wvs_tests::packet;

use crate::capture::Capture;
use crate::connections::noise;
use crate::director::{DirectorProcess, WVS, stats};
use crate::server::{Server, servers, udp_echo, web_servers};
use crate::stage::{PATIENCE, PORT, SERVER_PORT, Stage, run_well};

trials! {
    both bulk_data_passes_in_large_pieces_or_packet_by_packet,
    both batch_of_datagrams_passes_in_one_piece_or_one_by_one,
    both every_packet_leaves_with_the_right_checksums,
    once datagram_without_checksum_stays_without_one,
    both echo_and_refusals_are_answered_whatever_the_device,
    both connections_at_once_share_the_queues,
    once without_the_right_to_steer_there_is_one_queue,
    once packets_lost_before_a_stopped_director_are_counted,
}

/// Octets in each direction: some 2,900 segments.
const OCTETS: usize = 4 << 20;

/// Data in a full segment over Ethernet, without TCP options.
const SEGMENT: u64 = 1_460;

/// `device` in every way that there is.
const DEVICES: [(u64, bool); 4] = [(1, true), (2, true), (1, false), (2, false)];

fn direct(stage: &Stage, (queues, offload): (u64, bool), services: &str) -> DirectorProcess {
    let head = format!("device: {{ queues: {queues}, offload: {offload} }}");
    let director = DirectorProcess::start(&stage.lab.director, &stage.configure(&head, services));
    let device = stats(&stage.socket_of("wvs")).device;
    assert_eq!(u64::try_from(device.queues).unwrap(), queues, "{}", director.log());
    assert_eq!(device.offload != "off", offload, "{}", director.log());
    director
}

/// Servers that send back all they get, once they have it.
fn mirrors(stage: &Stage, is_ipv6: bool) -> Vec<Server> {
    servers(&stage.lab, is_ipv6, SERVER_PORT, |_| {
        |mut stream: TcpStream| {
            let mut octets = Vec::new();
            stream.read_to_end(&mut octets)?;
            stream.write_all(&octets)
        }
    })
}

/// Sends all of `octets` to the VIP and returns what comes back.
fn exchange(stage: &Stage, client: u8, is_ipv6: bool, octets: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = stage.connect(client, is_ipv6, PORT)?;
    stream.write_all(octets)?;
    stream.shutdown(Shutdown::Write)?;
    let mut back = Vec::new();
    stream.read_to_end(&mut back)?;
    Ok(back)
}

fn bulk_data_passes_in_large_pieces_or_packet_by_packet(is_ipv6: bool) {
    let stage = Stage::new(1);
    let _servers = mirrors(&stage, is_ipv6);
    let octets = noise(OCTETS);
    let segments = 2 * OCTETS as u64 / SEGMENT;
    for device in DEVICES {
        let director = direct(&stage, device, &stage.service(is_ipv6, "rr"));

        let back = exchange(&stage, 1, is_ipv6, &octets).expect("an answer");

        assert!(back == octets, "{device:?}: {} octets came back", back.len());
        let counted = stats(&stage.socket_of("wvs")).device;
        assert_eq!(counted.write_errors, 0, "{device:?}");
        if device.1 {
            // Acknowledgements included.
            assert!(counted.read < segments / 2, "{device:?}: {counted:?}");
        } else {
            assert!(counted.read >= segments, "{device:?}: {counted:?}");
        }
        director.stop();
    }
}

fn batch_of_datagrams_passes_in_one_piece_or_one_by_one(is_ipv6: bool) {
    const DATAGRAM: usize = 1_000;
    const DATAGRAMS: usize = 20;
    let stage = Stage::new(1);
    let receiver = stage.lab.servers[0].run(|| {
        let socket = UdpSocket::bind((lab::server_address(1, is_ipv6), SERVER_PORT)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    });
    let service = stage.service_of(lab::vip(is_ipv6), PORT, "udp", "rr", SERVER_PORT);
    let batch = noise(DATAGRAM * DATAGRAMS);
    for device in DEVICES {
        let director = direct(&stage, device, &service);
        let sender = stage.udp(1, is_ipv6, PORT).unwrap();
        setsockopt(&sender, sockopt::UdpGsoSegment, &i32::try_from(DATAGRAM).unwrap()).unwrap();

        assert_eq!(sender.send(&batch).unwrap(), batch.len());

        // All of them, in order, from the client.
        for sent in batch.chunks(DATAGRAM) {
            let mut datagram = [0; 2 * DATAGRAM];
            let (length, from) = receiver.recv_from(&mut datagram).expect("a datagram");
            assert!(datagram[..length] == *sent, "{device:?}: {length} octets");
            assert_eq!(from.ip(), lab::client_address(1, is_ipv6));
        }
        let counted = stats(&stage.socket_of("wvs")).device;
        let is_whole = counted.offload == "tcp+udp";
        let datagrams = DATAGRAMS as u64;
        assert_eq!(counted.read < datagrams, is_whole, "{device:?}: {counted:?}");
        director.stop();
    }
}

fn every_packet_leaves_with_the_right_checksums(is_ipv6: bool) {
    let stage = Stage::new(1);
    let _servers = mirrors(&stage, is_ipv6);
    udp_echo(&stage.lab.servers[0], lab::server_address(1, is_ipv6), SERVER_PORT);
    // So that what is captured is what a wire would see.
    for interface in ["clients", "server1"] {
        run_well(&stage.lab.director, "ethtool", &["-K", interface, "tx", "off"]);
    }
    let services = stage.service(is_ipv6, "rr")
        + &stage.service_of(lab::vip(is_ipv6), PORT, "udp", "rr", SERVER_PORT);
    let octets = noise(OCTETS / 8);
    for device in DEVICES {
        let director = direct(&stage, device, &services);
        let [at_client, at_server] = [&stage.lab.client, &stage.lab.servers[0]].map(Capture::start);

        let back = exchange(&stage, 1, is_ipv6, &octets).expect("an answer");
        assert!(back == octets, "{device:?}");
        let socket = stage.udp(1, is_ipv6, PORT).unwrap();
        for length in [0, 1, 2, 999, 1_400] {
            socket.send(&octets[..length]).unwrap();
            let mut answer = [0; 2_000];
            let length_back = socket.recv(&mut answer).expect("an answer");
            assert!(answer[..length_back].ends_with(&octets[..length]), "{device:?}");
        }

        for (capture, from) in
            [(at_client, lab::vip(is_ipv6)), (at_server, lab::client_address(1, is_ipv6))]
        {
            let mut data = 0;
            for octets in capture.stop(is_ipv6).packets_from(from) {
                assert!(octets.len() <= 1_500, "{device:?}: {} octets", octets.len());
                // Panics when a checksum is wrong.
                data += packet::receive(octets).payload.len();
            }
            // A capture may miss packets when the machine is busy, but not most of them.
            assert!(data > octets.len() / 2, "{device:?}: {data} octets from {from}");
        }
        director.stop();
    }
}

fn datagram_without_checksum_stays_without_one() {
    let stage = Stage::new(1);
    let client = SocketAddr::new(lab::client_address(1, false), 40_000);
    let vip = SocketAddr::new(lab::VIP, PORT);
    let service = stage.service_of(lab::VIP, PORT, "udp", "rr", SERVER_PORT);
    let mut datagram = packet::udp(client, vip, b"no checksum");
    datagram[26..28].fill(0);
    for device in DEVICES {
        let director = direct(&stage, device, &service);
        let at_server = Capture::start(&stage.lab.servers[0]);
        let receiver = stage.lab.servers[0].run(|| {
            let socket = UdpSocket::bind((lab::server_address(1, false), SERVER_PORT)).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket
        });
        stage.lab.client.run(|| {
            let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255))).unwrap();
            socket.send_to(&datagram, &vip.into()).unwrap();
        });

        let mut received = [0; 64];
        let length = receiver.recv(&mut received).expect("the datagram");
        assert_eq!(&received[..length], b"no checksum");
        let captured = at_server.stop(false);
        let packets: Vec<_> = captured.packets_from(client.ip()).collect();
        let [packet] = packets[..] else { panic!("{device:?}: {} packets", packets.len()) };
        assert_eq!(packet[26..28], [0, 0], "{device:?}");
        director.stop();
    }
}

fn echo_and_refusals_are_answered_whatever_the_device(is_ipv6: bool) {
    let stage = Stage::new(1);
    let vip = lab::vip(is_ipv6).to_string();
    for device in DEVICES {
        let director = direct(&stage, device, &stage.service(is_ipv6, "rr"));
        let ping = ["-c", "1", "-s", "1000", "-W", "10", &vip];
        let answer = run_well(&stage.lab.client, "ping", &ping);
        assert!(answer.contains("1 received"), "{device:?}: {answer}");

        // The reset and the ICMP error stand where packets with unfinished checksums stood.
        let refusal = stage.connect(1, is_ipv6, 81).expect_err("nobody is there").kind();
        assert_eq!(refusal, io::ErrorKind::ConnectionRefused, "{device:?}");
        let socket = stage.udp(1, is_ipv6, 53).unwrap();
        socket.send(b"anybody?").unwrap();
        let refusal = socket.recv(&mut [0; 16]).expect_err("nobody is there").kind();
        assert_eq!(refusal, io::ErrorKind::ConnectionRefused, "{device:?}");
        director.stop();
    }
}

fn connections_at_once_share_the_queues(is_ipv6: bool) {
    let stage = Stage::new(2);
    let _servers = mirrors(&stage, is_ipv6);
    let octets = noise(OCTETS / 4);
    for device in [(2, true), (5, true), (5, false)] {
        let director = direct(&stage, device, &stage.service(is_ipv6, "rr"));
        std::thread::scope(|scope| {
            let exchanges: Vec<_> = (1..=lab::CLIENTS)
                .map(|client| {
                    let (stage, octets) = (&stage, &octets);
                    scope.spawn(move || exchange(stage, client, is_ipv6, octets))
                })
                .collect();
            for exchange in exchanges {
                let back = exchange.join().unwrap().expect("an answer");
                assert!(back == octets, "{device:?}: {} octets came back", back.len());
            }
        });
        let counted = stats(&stage.socket_of("wvs"));
        assert_eq!(counted.connections.opened, u64::from(lab::CLIENTS));
        assert_eq!(counted.device.write_errors, 0, "{device:?}");
        director.stop();
    }
}

fn without_the_right_to_steer_there_is_one_queue() {
    let stage = Stage::new(1);
    let _servers = web_servers(&stage, false, SERVER_PORT);
    let config = stage.configure("device: { queues: 2 }", &stage.service(false, "rr"));
    let mut without_bpf = Command::new("setpriv");
    without_bpf.args(["--bounding-set=-bpf,-sys_admin", WVS, "run", "-c"]).arg(config);

    let director = DirectorProcess::start_command(&stage.lab.director, &mut without_bpf);

    // Some kernels let everybody load such a program.
    let is_for_all = fs::read_to_string("/proc/sys/kernel/unprivileged_bpf_disabled")
        .is_ok_and(|value| value.trim() == "0");
    let device = stats(&stage.socket_of("wvs")).device;
    assert_eq!(device.queues, if is_for_all { 2 } else { 1 }, "{}", director.log());
    assert_eq!(director.log().contains("CAP_BPF: using one queue"), !is_for_all);
    assert_eq!(stage.who_answers(1, false), "server1");
    director.stop();
}

fn packets_lost_before_a_stopped_director_are_counted() {
    let stage = Stage::new(1);
    let (report, received) = mpsc::channel();
    let receiver = stage.lab.servers[0]
        .run(|| UdpSocket::bind((lab::server_address(1, false), SERVER_PORT)).expect("a socket"));
    receiver.set_read_timeout(Some(PATIENCE)).unwrap();
    // It stays open after the first datagram: of a closed one the client would be told while it
    // still sends, should the director not have stopped yet.
    let thread = std::thread::spawn(move || {
        let _ = report.send(receiver.recv(&mut [0; 64]).map_err(|error| error.kind()));
        receiver
    });
    let service = stage.service_of(lab::VIP, PORT, "udp", "rr", SERVER_PORT);
    let director = direct(&stage, (2, true), &service);
    let socket = stage.udp(1, false, PORT).unwrap();
    assert_eq!(stats(&stage.socket_of("wvs")).device.queue_full, 0);

    director.signal(Signal::SIGSTOP);
    for _ in 0..3_000 {
        socket.send(b"!").unwrap();
    }
    director.signal(Signal::SIGCONT);

    assert_eq!(received.recv().unwrap(), Ok(1));
    let _receiver = thread.join().unwrap();
    let lost = stats(&stage.socket_of("wvs")).device.queue_full;
    assert!((1..=3_000).contains(&lost), "{lost}");
    let mut list = Command::new(WVS);
    list.args(["list", "--stats", "--socket"]).arg(stage.socket_of("wvs"));
    let listing = String::from_utf8(list.output().unwrap().stdout).unwrap();
    assert!(
        listing.contains(&format!("Lost at wvs0: {lost} packets with the queue full")),
        "{listing}"
    );
    director.stop();
}
