//! What a running director says of a packet.

use std::net::SocketAddr;

use wvs::lab;

use crate::director::WVS;
use crate::server::web_servers;
use crate::stage::{PORT, SERVER_PORT, Stage, run_well};

trials! {
    both packets_of_a_connection_and_those_of_a_new_one_are_explained,
}

fn packets_of_a_connection_and_those_of_a_new_one_are_explained(is_ipv6: bool) {
    let stage = Stage::new(2);
    let _servers = web_servers(&stage, is_ipv6, SERVER_PORT);
    let director = stage.direct(&stage.service(is_ipv6, "rr"));
    let socket = stage.socket_of("wvs").to_string_lossy().into_owned();
    let explain = |from: SocketAddr, to: SocketAddr| {
        let (from, to) = (from.to_string(), to.to_string());
        run_well(&stage.lab.director, WVS, &["explain", &from, &to, "--socket", &socket])
    };
    let vip = SocketAddr::new(lab::vip(is_ipv6), PORT);
    let stream = stage.connect(1, is_ipv6, PORT).unwrap();
    let client = stream.local_addr().unwrap();

    let first = SocketAddr::new(lab::server_address(1, is_ipv6), SERVER_PORT);
    let told = explain(client, vip);
    assert!(told.contains("ESTABLISHED, opened "), "{told}");
    assert!(told.contains(&format!("it is forwarded to {first}\n")), "{told}");
    let told = explain(first, client);
    assert!(told.contains(&format!("forwarded to {client} from {vip}\n")), "{told}");

    // However often it is asked.
    let second = SocketAddr::new(lab::server_address(2, is_ipv6), SERVER_PORT);
    let other = SocketAddr::new(lab::client_address(2, is_ipv6), 1);
    for _ in 0..3 {
        let told = explain(other, vip);
        assert!(told.contains(&format!("rr (generation 1) picks {second}\n")), "{told}");
    }
    assert_eq!(stage.who_answers(2, is_ipv6), "server2");
    director.stop();
}
