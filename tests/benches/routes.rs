//! How long routes take with many real servers: to be set, changed and taken back, and for each packet
//! that the kernel then routes.
//!
//! `cargo bench -p wvs-tests --bench routes`, with the rights that the tests in namespaces need.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use wvs::device::{Device, DeviceNeeds};
use wvs::lab::{self, Lab};
use wvs::route::{self, RouteNeeds};
use wvs_core::service::Protocol;

/// Routes that the kernel is asked for.
const QUESTIONS: u32 = 2_000;

fn main() {
    lab::isolate().expect("namespaces");
    println!(
        "{:>8} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "servers", "hosts", "mtu", "set up", "change", "same", "back", "clean up", "a packet"
    );
    for (servers, hosts) in
        [(16, 16), (1_000, 1_000), (4_000, 4_000), (16_000, 16_000), (16_000, 16)]
    {
        let lab = Lab::build(1).expect("a network");
        lab.director.run(|| {
            // As it will be, for the packets to compare with.
            wvs::sysctl::write("net/ipv4/ip_forward", "1").expect("forwarding");
            ip(&["address", "add", "10.99.0.1/16", "dev", "server1"], "");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(measure(servers, hosts));
        });
    }
}

/// Real servers in one network, as ports of so many hosts.
fn needs(servers: u32, hosts: u32) -> RouteNeeds {
    let server = |number: u32| {
        let host = Ipv4Addr::from_bits(u32::from(Ipv4Addr::new(10, 99, 1, 0)) + number % hosts);
        let port = 8080 + u16::try_from(number / hosts).expect("a port");
        (Protocol::Tcp, SocketAddr::new(IpAddr::V4(host), port))
    };
    RouteNeeds {
        device: "wvs0".to_owned(),
        vips: (1..=250).map(|number| Ipv4Addr::new(10, 30, 0, number).into()).collect(),
        servers: (0..servers).map(server).collect(),
        ..RouteNeeds::default()
    }
}

fn device() -> Device {
    Device::open(&DeviceNeeds {
        name: "wvs0".to_owned(),
        mtu: 1500,
        queues: None,
        offload: true,
        vips: Vec::new(),
    })
    .expect("a device")
}

/// Processor time of this thread, which does all but run the program `ip`: other programs do not count.
fn spent() -> Duration {
    let schedule = std::fs::read_to_string("/proc/thread-self/schedstat").expect("/proc");
    let nanoseconds = schedule.split(' ').next().and_then(|number| number.parse().ok());
    Duration::from_nanos(nanoseconds.expect("a number"))
}

async fn measure(servers: u32, hosts: u32) {
    let needs = needs(servers, hosts);
    let nothing = quickest(&needs);
    let start = spent();
    route::mtu(&needs).await.expect("an MTU");
    let mtu = spent() - start;

    let first = device();
    let start = spent();
    let mut routing = route::set_up(&needs).await.expect("routes");
    let set_up = spent() - start;
    let packet = quickest(&needs).saturating_sub(nothing);

    let mut changed = needs.clone();
    changed.servers[0].1 = "10.99.250.1:81".parse().expect("a server");
    let start = spent();
    routing.update(&changed).await.expect("other routes");
    let change = spent() - start;
    let start = spent();
    routing.update(&changed).await.expect("the same routes");
    let same = spent() - start;
    let start = spent();
    routing.take_back().await.expect("no routes");
    let back = spent() - start;

    drop(route::set_up(&needs).await.expect("routes"));
    drop(first);
    let _second = device();
    let start = spent();
    let few = RouteNeeds { servers: Vec::new(), ..needs };
    route::set_up(&few).await.expect("routes").take_back().await.expect("no routes");
    let clean_up = spent() - start;
    println!(
        "{servers:>8} {hosts:>9} {mtu:>9.1?} {set_up:>9.1?} {change:>9.1?} {same:>9.1?} {back:>9.1?} {clean_up:>9.1?} {packet:>9.1?}",
    );
}

fn quickest(needs: &RouteNeeds) -> Duration {
    (0..5).map(|_| packet(needs)).min().unwrap_or_default()
}

/// What it takes the kernel to route a reply, with what it takes to ask it.
fn packet(needs: &RouteNeeds) -> Duration {
    let servers = needs.servers.iter().map(|(_, server)| *server).cycle();
    // Far apart, as replies come.
    let servers = servers.step_by(needs.servers.len() / 3 + 7).take(QUESTIONS as usize);
    let question = |server: SocketAddr| {
        let (address, port) = (server.ip(), server.port());
        format!(
            "route get 10.10.0.11 from {address} iif server1 ipproto tcp sport {port} dport 4000\n"
        )
    };
    let questions: String = servers.map(question).collect();
    let begin = Instant::now();
    ip(&["-batch", "-"], &questions);
    begin.elapsed() / QUESTIONS
}

fn ip(arguments: &[&str], input: &str) {
    let mut ip = Command::new("ip");
    ip.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = ip.spawn().expect("the program ip");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(input.as_bytes()).expect("a pipe");
    drop(stdin);
    assert!(child.wait().expect("a child").success(), "{arguments:?}");
}
