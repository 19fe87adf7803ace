//! What happens in each capture.

use std::net::SocketAddr;

use wvs::capture::LinkType;
use wvs_tests::packet::{ACK, FIN, PSH, RST, SYN, Tcp, at, cut, echo, icmp_error, tcp, udp};

/// A capture to be.
pub(crate) struct Story {
    pub(crate) name: &'static str,
    pub(crate) link: LinkType,
    /// Frames with the milliseconds at which they were seen.
    pub(crate) packets: fn() -> Vec<(u64, Vec<u8>)>,
    /// Packets that the director sends.
    pub(crate) sent: usize,
}

pub(crate) const STORIES: &[Story] = &[
    Story { name: "tcp4", link: LinkType::Raw, packets: || tcp_connection(&V4), sent: 9 },
    Story { name: "tcp6", link: LinkType::Raw, packets: || tcp_connection(&V6), sent: 9 },
    Story { name: "two-clients", link: LinkType::Raw, packets: two_clients, sent: 4 },
    Story { name: "udp", link: LinkType::Raw, packets: datagrams, sent: 6 },
    Story { name: "echo", link: LinkType::Raw, packets: echoes, sent: 3 },
    Story { name: "icmp-errors", link: LinkType::Raw, packets: errors, sent: 9 },
    Story { name: "refused", link: LinkType::Raw, packets: refused, sent: 4 },
    Story { name: "expired", link: LinkType::Raw, packets: expired, sent: 4 },
    Story { name: "fragments", link: LinkType::Raw, packets: fragments, sent: 12 },
    Story { name: "fullnat", link: LinkType::Raw, packets: full_nat, sent: 3 },
    Story { name: "malformed", link: LinkType::Raw, packets: malformed, sent: 0 },
    Story { name: "ethernet", link: LinkType::Ethernet, packets: ethernet, sent: 3 },
];

struct Family {
    client: &'static str,
    vip: &'static str,
    server: &'static str,
    router: &'static str,
}

const V4: Family = Family {
    client: "198.51.100.7:40000",
    vip: "203.0.113.10:80",
    server: "10.0.0.1:8080",
    router: "192.0.2.1:0",
};

const V6: Family = Family {
    client: "[2001:db8:1::7]:40000",
    vip: "[2001:db8:2::10]:80",
    server: "[fd00::1]:8080",
    router: "[2001:db8:3::1]:0",
};

fn with_port(text: &str, port: u16) -> SocketAddr {
    SocketAddr::new(at(text).ip(), port)
}

/// One packet every ten milliseconds.
fn in_turn(packets: Vec<Vec<u8>>) -> Vec<(u64, Vec<u8>)> {
    (0..).step_by(10).zip(packets).collect()
}

fn handshake(family: &Family) -> Vec<Vec<u8>> {
    let (client, vip, server) = (at(family.client), at(family.vip), at(family.server));
    vec![tcp(client, vip, SYN), tcp(server, client, SYN | ACK), tcp(client, vip, ACK)]
}

fn tcp_connection(family: &Family) -> Vec<(u64, Vec<u8>)> {
    let (client, vip, server) = (at(family.client), at(family.vip), at(family.server));
    let mut packets = handshake(family);
    packets.extend([
        Tcp::new(client, vip, PSH | ACK).payload(b"GET / HTTP/1.0\r\n\r\n").build(),
        Tcp::new(server, client, PSH | ACK).payload(b"HTTP/1.0 200 OK\r\n\r\nhello").build(),
        tcp(client, vip, FIN | ACK),
        tcp(server, client, FIN | ACK),
        tcp(client, vip, ACK),
        // A late one is still known.
        tcp(server, client, ACK),
    ]);
    in_turn(packets)
}

/// Round robin: the first client gets the first server, the second one the second.
fn two_clients() -> Vec<(u64, Vec<u8>)> {
    let vip = at(V4.vip);
    let clients = [40_001, 40_002].map(|port| with_port(V4.client, port));
    let servers = ["10.0.0.1:8080", "10.0.0.2:8080"].map(at);
    in_turn(vec![
        tcp(clients[0], vip, SYN),
        tcp(clients[1], vip, SYN),
        // Each server answers both; only its own client gets the answer.
        tcp(servers[0], clients[0], SYN | ACK),
        tcp(servers[0], clients[1], SYN | ACK),
        tcp(servers[1], clients[0], SYN | ACK),
        tcp(servers[1], clients[1], SYN | ACK),
    ])
}

fn datagrams() -> Vec<(u64, Vec<u8>)> {
    let mut packets = Vec::new();
    for family in [&V4, &V6] {
        let (client, vip) = (at(family.client), with_port(family.vip, 53));
        packets.push(udp(client, vip, b"a question"));
        packets.push(udp(with_port(family.server, 5300), client, b"an answer"));
    }
    let client = at(V4.client);
    let mut unsummed = udp(client, with_port(V4.vip, 53), b"without a checksum");
    unsummed[26..28].fill(0);
    packets.push(unsummed);
    packets.push(udp(client, with_port(V4.vip, 54), b"to a closed port"));
    in_turn(packets)
}

fn echoes() -> Vec<(u64, Vec<u8>)> {
    let six = |is_request| {
        let (client, vip, server) = (at(V6.client).ip(), at(V6.vip).ip(), at(V6.server).ip());
        if is_request { echo(client, vip, true, 7) } else { echo(server, client, false, 7) }
    };
    in_turn(vec![
        // Answered by the director, as no service has it.
        echo(at(V4.client).ip(), at(V4.vip).ip(), true, 7),
        six(true),
        six(false),
        // Late: of no connection.
        echo(at(V6.server).ip(), at(V6.client).ip(), false, 8),
    ])
}

fn errors() -> Vec<(u64, Vec<u8>)> {
    let mut packets = Vec::new();
    for family in [&V4, &V6] {
        let (client, vip, server) = (at(family.client), at(family.vip), at(family.server));
        let router = at(family.router).ip();
        let (too_big, unreachable) =
            if client.is_ipv4() { ([3, 4], [3, 1]) } else { ([2, 0], [1, 0]) };
        packets.push(tcp(client, vip, SYN));
        packets.push(tcp(server, client, SYN | ACK));
        // About the client's packet and about the server's; each is for who sent it.
        packets.push(icmp_error(router, client.ip(), too_big, &tcp(client, server, ACK)));
        packets.push(icmp_error(router, vip.ip(), unreachable, &tcp(vip, client, ACK)));
        // About a connection that nobody knows, and about nothing that can be read.
        let stranger = with_port(family.client, 9);
        packets.push(icmp_error(router, client.ip(), too_big, &tcp(stranger, server, ACK)));
        packets.push(icmp_error(server.ip(), client.ip(), too_big, &[0; 8]));
    }
    // Somebody else's.
    let router = at(V4.router).ip();
    let foreign = tcp(at(V4.client), at("192.0.2.99:80"), ACK);
    packets.push(icmp_error(router, at(V4.client).ip(), [3, 1], &foreign));
    in_turn(packets)
}

fn refused() -> Vec<(u64, Vec<u8>)> {
    let client = at(V4.client);
    in_turn(vec![
        // No server has a weight; a closed port; the middle of a connection.
        tcp(client, with_port(V4.vip, 81), SYN),
        tcp(client, with_port(V4.vip, 79), SYN),
        tcp(client, at(V4.vip), PSH | ACK),
        // Its time to live is used up.
        Tcp { hop_limit: 1, ..Tcp::new(client, at(V4.vip), SYN) }.build(),
        // Nobody answers these: resets, late replies, senders that nobody can be.
        tcp(client, at(V4.vip), RST),
        tcp(at(V4.server), client, ACK),
        tcp(at("127.0.0.1:9"), at(V4.vip), SYN),
    ])
}

/// Fifteen minutes of silence end an established connection.
fn expired() -> Vec<(u64, Vec<u8>)> {
    let mut packets = in_turn(handshake(&V6));
    packets.push((1_000_000, tcp(at(V6.client), at(V6.vip), PSH | ACK)));
    packets.push((1_000_010, tcp(at(V6.server), at(V6.client), PSH | ACK)));
    packets
}

fn fragments() -> Vec<(u64, Vec<u8>)> {
    let mut packets = Vec::new();
    for (family, identification) in [(&V4, 1), (&V6, 2)] {
        let question = udp(at(family.client), with_port(family.vip, 53), &[b'?'; 100]);
        let answer = udp(with_port(family.server, 5300), at(family.client), &[b'!'; 100]);
        // In order, and with the first one last.
        packets.extend(cut(&question, 40, identification));
        packets.extend(cut(&answer, 40, identification).into_iter().rev());
    }
    // Two that lie over each other: nothing of them gets through.
    let mut overlapping = cut(&udp(at(V4.client), with_port(V4.vip, 53), &[b'?'; 100]), 40, 3);
    let other = cut(&udp(at(V4.client), with_port(V4.vip, 53), &[b'?'; 100]), 48, 3);
    overlapping.remove(0);
    packets.push(overlapping.remove(0));
    packets.push(other[1].clone());
    packets.push(other[0].clone());
    in_turn(packets)
}

fn full_nat() -> Vec<(u64, Vec<u8>)> {
    let (client, vip) = (at(V4.client), with_port(V4.vip, 82));
    let (server, local) = (with_port(V4.server, 8082), at("10.0.0.250:9000"));
    in_turn(vec![
        tcp(client, vip, SYN),
        tcp(server, local, SYN | ACK),
        tcp(client, vip, ACK),
        // Past the pool: a late reply.
        tcp(server, at("10.0.0.250:9003"), ACK),
    ])
}

fn malformed() -> Vec<(u64, Vec<u8>)> {
    let good = [
        tcp(at(V4.client), at(V4.vip), SYN),
        tcp(at(V6.client), at(V6.vip), SYN),
        udp(at(V4.client), with_port(V4.vip, 53), b"data"),
        icmp_error(at(V4.router).ip(), at(V4.vip).ip(), [3, 4], &[0x45; 60]),
    ];
    let mut packets: Vec<_> =
        good.iter().map(|packet| packet[..packet.len() - 1].to_vec()).collect();
    let mut with = |at: usize, octet: u8, packet: usize| {
        let mut packet = good[packet].clone();
        packet[at] = octet;
        packets.push(packet);
    };
    // Version 5; headers that are too short and too long; lengths that lie.
    with(0, 0x55, 0);
    with(0, 0x44, 0);
    with(0, 0x4f, 0);
    with(3, 19, 0);
    with(32, 0x40, 0);
    with(32, 0xf0, 0);
    with(25, 7, 2);
    with(25, 200, 2);
    with(9, 132, 0);
    with(6, 132, 1);
    packets.push(vec![0x45]);
    packets.push(vec![0; 60]);
    in_turn(packets)
}

fn ethernet() -> Vec<(u64, Vec<u8>)> {
    let frame = |ethertype: &[u8], packet: &[u8], padding: usize| {
        [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2][..], ethertype, packet, &vec![0; padding]].concat()
    };
    let [syn, syn_ack, ack] = <[_; 3]>::try_from(handshake(&V6)).expect("three packets");
    in_turn(vec![
        frame(&[0x08, 0x06], &[0; 28], 18),
        frame(&[0x86, 0xdd], &syn, 0),
        frame(&[0x81, 0x00, 0, 5, 0x86, 0xdd], &syn_ack, 0),
        frame(&[0x86, 0xdd], &ack, 6),
    ])
}
