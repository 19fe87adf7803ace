//! Links that are narrower than what the ends send, wherever they are on the way.
//!
//! ```text
//! client ── router ══ router ── director ── router ══ router ── server
//! ```
//! The double lines can be narrow, and so can the director's own links. The ends offer 1500 octets.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use wvs::lab::{self, Host};

use crate::capture::{Capture, Captured, compute_checksums};
use crate::director::DirectorProcess;
use crate::server::{Server, serve_web};
use crate::stage::{PATIENCE, PORT, SERVER_PORT, Stage, run, run_well};

trials! {
    both upload_passes_a_narrow_link_before_the_server,
    both download_passes_a_narrow_link_before_the_client,
    both upload_passes_the_director_s_own_narrow_link,
    both download_passes_the_director_s_own_narrow_link,
    both ping_learns_of_a_narrow_link_before_the_server,
    both tracepath_finds_a_narrow_link_before_the_client,
    once datagrams_that_may_be_fragmented_arrive_whole,
}

/// The MTU of the narrow link.
const NARROW: &str = "1300";

/// Octets of uploads and downloads.
const OCTETS: usize = 2 << 20;

/// Which link is narrow.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Narrow {
    BeforeTheClient,
    BeforeTheServer,
    /// Between the director and the routers next to it.
    OfTheDirector,
}

struct Row {
    stage: Stage,
    is_ipv6: bool,
}

impl Row {
    fn build(is_ipv6: bool, narrow: Narrow) -> Self {
        // Servers of the lab are hosts like any others: one is next to the director's right, and
        // the other four lose their cables and get new ones.
        let stage = Stage::new(5);
        let lab = &stage.lab;
        let [right, left_far, client, right_far, server] =
            [0, 1, 2, 3, 4].map(|number| &lab.servers[number]);
        let left = &lab.client;
        for host in [left_far, client, right_far, server] {
            run_well(host, "ip", &["link", "del", "eth0"]);
        }
        let wide = "1500";
        let width = |of| if narrow == of { NARROW } else { wide };
        cable(left, left_far, 1, is_ipv6, width(Narrow::BeforeTheClient));
        cable(left_far, client, 2, is_ipv6, wide);
        cable(right, right_far, 3, is_ipv6, width(Narrow::BeforeTheServer));
        cable(right_far, server, 4, is_ipv6, wide);
        if narrow == Narrow::OfTheDirector {
            for (host, link) in [
                (&lab.director, "clients"),
                (&lab.director, "server1"),
                (left, "eth0"),
                (right, "eth0"),
            ] {
                run_well(host, "ip", &["link", "set", link, "mtu", NARROW]);
            }
        }
        for router in [left, left_far, right, right_far] {
            let settings = ["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"];
            run_well(router, "sysctl", &["-qw", settings[0], settings[1]]);
        }
        let gateway = |number, is_far: bool| address(number, is_far, is_ipv6).to_string();
        let (client_side, server_side) = (
            lab::client_address(1, is_ipv6).to_string(),
            lab::server_address(1, is_ipv6).to_string(),
        );
        let net = |number| {
            format!("{}{}", address(number, false, is_ipv6), if is_ipv6 { "/64" } else { "/24" })
        };
        for (host, to, via) in [
            (&lab.director, net(2), &client_side),
            (&lab.director, net(4), &server_side),
            (&lab.director, net(1), &client_side),
            (&lab.director, net(3), &server_side),
            (left, net(2), &gateway(1, true)),
            (right, net(4), &gateway(3, true)),
            (left_far, "default".to_owned(), &gateway(1, false)),
            (client, "default".to_owned(), &gateway(2, false)),
            (right_far, "default".to_owned(), &gateway(3, false)),
            (server, "default".to_owned(), &gateway(4, false)),
        ] {
            let family = if is_ipv6 { "-6" } else { "-4" };
            let to = if to == "default" { to } else { network(&to) };
            run_well(host, "ip", &[family, "route", "add", &to, "via", via]);
        }
        compute_checksums([client, server]);
        Self { stage, is_ipv6 }
    }

    fn client(&self) -> &Host {
        &self.stage.lab.servers[2]
    }

    fn server(&self) -> &Host {
        &self.stage.lab.servers[4]
    }

    fn client_address(&self) -> IpAddr {
        address(2, true, self.is_ipv6)
    }

    fn server_address(&self) -> IpAddr {
        address(4, true, self.is_ipv6)
    }

    /// A director with `head` in its configuration and a service of the server's.
    fn direct(&self, head: &str, protocol: &str, port: u16, server_port: u16) -> DirectorProcess {
        let ports = |port| if protocol == "icmp" { String::new() } else { format!("port: {port}") };
        let service = format!(
            "  - name: far\n    vip: \"{vip}\"\n    protocol: {protocol}\n    {port}\n    \
             scheduler: rr\n    servers: [{{ address: \"{server}\", {server_port} }}]\n",
            vip = lab::vip(self.is_ipv6),
            port = ports(port),
            server = self.server_address(),
            server_port = ports(server_port),
        );
        let config = self.stage.configure(head, &service);
        DirectorProcess::start(&self.stage.lab.director, &config)
    }

    fn web_server(&self) -> Server {
        let folder = self.stage.folder().to_owned();
        let address = SocketAddr::new(self.server_address(), SERVER_PORT);
        Server::start(self.server(), address, move |stream| serve_web(stream, "server", &folder))
    }

    /// Captures at both ends while `work` is done; the checksums must be right, and neither end
    /// may see the other's address for the VIP.
    fn watch(&self, work: impl FnOnce()) -> [Captured; 2] {
        let captures = [self.client(), self.server()].map(Capture::start);
        work();
        let [client, server] = captures.map(|capture| capture.stop(self.is_ipv6));
        for captured in [&client, &server] {
            captured.assert_intact();
        }
        assert!(!client.addresses.contains(&self.server_address()), "{:?}", client.addresses);
        assert!(!server.addresses.contains(&lab::vip(self.is_ipv6)), "{:?}", server.addresses);
        [client, server]
    }

    fn upload(&self) {
        let sent = self.file("sent");
        let path = sent.to_string_lossy();
        let url = self.stage.url(self.is_ipv6, "/received");
        let upload = ["-sSf", "--max-time", "20", "-H", "Expect:", "-T", &path, &url];
        run_well(self.client(), "curl", &upload);
        self.assert_same_as("received", &sent);
    }

    fn download(&self) {
        let sent = self.file("sent");
        let received = self.stage.folder().join("received");
        let path = received.to_string_lossy();
        let url = self.stage.url(self.is_ipv6, "/sent");
        run_well(self.client(), "curl", &["-sSf", "--max-time", "20", "-o", &path, &url]);
        self.assert_same_as("received", &sent);
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        let path = self.stage.folder().join(name);
        std::fs::write(&path, crate::connections::noise(OCTETS)).unwrap();
        path
    }

    fn assert_same_as(&self, name: &str, other: &std::path::Path) {
        let [received, sent] =
            [&self.stage.folder().join(name), other].map(|path| std::fs::read(path).unwrap());
        assert!(received == sent, "{} octets of {}, or others", received.len(), sent.len());
    }
}

/// The address at one end of cable `number`, counted from 1.
fn address(number: u16, is_far_end: bool, is_ipv6: bool) -> IpAddr {
    let host = if is_far_end { 2 } else { 1 };
    if is_ipv6 {
        format!("fd00:50:{number}::{host}").parse().unwrap()
    } else {
        format!("10.50.{number}.{host}").parse().unwrap()
    }
}

/// The network of `address/length`, whose last part is 1.
fn network(address: &str) -> String {
    address.replace(".1/", ".0/").replace("::1/", "::/")
}

/// Lays a cable between two hosts. Those further from the director have the far end.
fn cable(near: &Host, far: &Host, number: u16, is_ipv6: bool, mtu: &str) {
    let name = format!("cable{number}");
    let length = if is_ipv6 { "/64" } else { "/24" };
    let lay = ["link", "add", &name, "type", "veth", "peer", "name", "eth0", "netns", &far.path()];
    run_well(near, "ip", &lay);
    for (host, link, is_far_end) in [(near, name.as_str(), false), (far, "eth0", true)] {
        let address = format!("{}{length}", address(number, is_far_end, is_ipv6));
        run_well(host, "ip", &["link", "set", link, "mtu", mtu, "up"]);
        // Without a search for duplicates it works at once.
        let nodad: &[&str] = if is_ipv6 { &["nodad"] } else { &[] };
        run_well(host, "ip", &[&["address", "add", &address, "dev", link], nodad].concat());
    }
}

/// How many packets `source` sent that are too long for the narrow link.
fn long_packets_from(captured: &Captured, source: IpAddr) -> usize {
    captured.packets_from(source).filter(|packet| packet.len() > 1300).count()
}

fn upload_passes_a_narrow_link_before_the_server(is_ipv6: bool) {
    let row = Row::build(is_ipv6, Narrow::BeforeTheServer);
    let _server = row.web_server();
    let director = row.direct("", "tcp", PORT, SERVER_PORT);

    let [client, _] = row.watch(|| row.upload());

    // It tried, and was told by the VIP, as far as it can see.
    assert!(long_packets_from(&client, row.client_address()) > 0);
    assert_eq!(client.addresses, [row.client_address(), lab::vip(is_ipv6)].into());
    director.stop();
}

fn download_passes_a_narrow_link_before_the_client(is_ipv6: bool) {
    let row = Row::build(is_ipv6, Narrow::BeforeTheClient);
    let _server = row.web_server();
    let director = row.direct("", "tcp", PORT, SERVER_PORT);

    let [_, server] = row.watch(|| row.download());

    assert!(long_packets_from(&server, row.server_address()) > 0);
    director.stop();
}

/// The device is wider than the link: the kernel complains of translated packets.
fn upload_passes_the_director_s_own_narrow_link(is_ipv6: bool) {
    let row = Row::build(is_ipv6, Narrow::OfTheDirector);
    // Wide enough to let in what does not get out.
    run_well(&row.stage.lab.director, "ip", &["link", "set", "clients", "mtu", "1500"]);
    run_well(&row.stage.lab.client, "ip", &["link", "set", "eth0", "mtu", "1500"]);
    let _server = row.web_server();
    let director = row.direct("device: { mtu: 1500 }", "tcp", PORT, SERVER_PORT);

    let [client, _] = row.watch(|| row.upload());

    assert!(long_packets_from(&client, row.client_address()) > 0);
    assert_eq!(client.addresses, [row.client_address(), lab::vip(is_ipv6)].into());
    director.stop();
}

fn download_passes_the_director_s_own_narrow_link(is_ipv6: bool) {
    let row = Row::build(is_ipv6, Narrow::OfTheDirector);
    run_well(&row.stage.lab.director, "ip", &["link", "set", "server1", "mtu", "1500"]);
    run_well(&row.stage.lab.servers[0], "ip", &["link", "set", "eth0", "mtu", "1500"]);
    let _server = row.web_server();
    let director = row.direct("", "tcp", PORT, SERVER_PORT);
    assert!(director.log().contains("mtu=1500"), "{}", director.log());

    let [_, server] = row.watch(|| row.download());

    assert!(long_packets_from(&server, row.server_address()) > 0);
    director.stop();
}

fn ping_learns_of_a_narrow_link_before_the_server(is_ipv6: bool) {
    let row = Row::build(is_ipv6, Narrow::BeforeTheServer);
    let director = row.direct("", "icmp", 0, 0);
    let vip = lab::vip(is_ipv6).to_string();

    row.watch(|| {
        let ping = ["-c", "2", "-i", "0.2", "-W", "5", "-M", "do", "-s", "1400", &vip];
        let output = run(row.client(), "ping", &ping);
        let told =
            String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(told.contains(&format!("From {vip}")), "{told}");
        let mtu = if is_ipv6 { "mtu=1300" } else { "mtu = 1300" };
        assert!(told.contains(mtu), "{told}");
        // What fits arrives.
        let ping = ["-c", "1", "-W", "10", "-M", "do", "-s", "1200", &vip];
        assert!(run_well(row.client(), "ping", &ping).contains("1 received"));
    });
    director.stop();
}

fn tracepath_finds_a_narrow_link_before_the_client(is_ipv6: bool) {
    let row = Row::build(is_ipv6, Narrow::BeforeTheClient);
    let director = row.direct("", "tcp", PORT, SERVER_PORT);
    let vip = lab::vip(is_ipv6).to_string();

    let told = run_well(row.client(), "tracepath", &["-n", &vip]);

    assert!(told.contains("pmtu 1300"), "{told}");
    let reached = told.lines().any(|line| line.contains(&vip) && line.contains("reached"));
    assert!(reached, "{told}");
    assert!(!told.contains(&row.server_address().to_string()), "{told}");
    director.stop();
}

/// Translated first, fragmented by the director's own kernel or by a router after that.
fn datagrams_that_may_be_fragmented_arrive_whole() {
    const LENGTH: usize = 1400;
    for narrow in [Narrow::OfTheDirector, Narrow::BeforeTheClient] {
        let row = Row::build(false, narrow);
        if narrow == Narrow::OfTheDirector {
            run_well(&row.stage.lab.director, "ip", &["link", "set", "server1", "mtu", "1500"]);
            run_well(&row.stage.lab.servers[0], "ip", &["link", "set", "eth0", "mtu", "1500"]);
        }
        // The kernel then leaves the flag clear.
        run_well(row.server(), "sysctl", &["-qw", "net.ipv4.ip_no_pmtu_disc=1"]);
        let director = row.direct("", "udp", 53, 5353);
        let socket =
            row.server().run(|| UdpSocket::bind((row.server_address(), 5353))).expect("a socket");
        let [client, _] = row.watch(|| {
            let asking = row.client().run(|| UdpSocket::bind((row.client_address(), 0))).unwrap();
            asking.set_read_timeout(Some(PATIENCE)).unwrap();
            asking.connect((lab::VIP, 53)).unwrap();
            asking.send(b"?").unwrap();
            let mut question = [0; 16];
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            let (_, from) = socket.recv_from(&mut question).expect("a question");
            socket.send_to(&[7; LENGTH], from).unwrap();
            let mut answer = [0; 2 * LENGTH];
            let length = asking.recv(&mut answer).expect("an answer");
            assert_eq!(answer[..length], [7; LENGTH]);
        });
        assert_eq!(client.packets_from(lab::VIP).count(), 2, "fragments");
        director.stop();
    }
}
