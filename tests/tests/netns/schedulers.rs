//! The built-in schedulers at work on real connections.

use std::collections::BTreeSet;
use std::io::Read;
use std::net::Shutdown;
use std::sync::mpsc;

use wvs::lab::CLIENTS;

use crate::director::services;
use crate::server::{servers, web_servers};
use crate::stage::{PATIENCE, PORT, SERVER_PORT, Stage};

trials! {
    both rr_takes_the_servers_in_their_exact_order,
    both sh_sends_a_client_to_the_same_server_every_time,
    both wlc_follows_held_connections,
}

fn rr_takes_the_servers_in_their_exact_order(is_ipv6: bool) {
    let stage = Stage::new(3);
    let _servers = web_servers(&stage, is_ipv6, SERVER_PORT);
    let director = stage.direct(&stage.service(is_ipv6, "rr"));

    let order: Vec<_> = (0..12).map(|_| stage.who_answers(1, is_ipv6)).collect();

    let expected: Vec<_> = (0..12).map(|turn| format!("server{}", turn % 3 + 1)).collect();
    assert_eq!(order, expected);
    let snapshot = services(&stage.socket_of("wvs"));
    let scheduling = snapshot.services[0].scheduling;
    assert_eq!((scheduling.picked, scheduling.fallback, scheduling.no_server), (12, 0, 0));
    director.stop();
}

fn sh_sends_a_client_to_the_same_server_every_time(is_ipv6: bool) {
    let stage = Stage::new(3);
    let _servers = web_servers(&stage, is_ipv6, SERVER_PORT);
    let director = stage.direct(&stage.service(is_ipv6, "sh"));

    let mut chosen = BTreeSet::new();
    for client in 1..=CLIENTS {
        let first = stage.who_answers(client, is_ipv6);
        for _ in 0..3 {
            assert_eq!(stage.who_answers(client, is_ipv6), first, "client {client}");
        }
        chosen.insert(first);
    }

    assert!(chosen.len() > 1, "all clients have the same server: {chosen:?}");
    director.stop();
}

fn wlc_follows_held_connections(is_ipv6: bool) {
    let stage = Stage::new(3);
    // Each server says its name at once, then waits for the client's end and reports it.
    let (report, ended) = mpsc::channel();
    let _servers = servers(&stage.lab, is_ipv6, SERVER_PORT, |name| {
        let report = report.clone();
        move |mut stream| {
            std::io::Write::write_all(&mut stream, name.as_bytes())?;
            stream.read_to_end(&mut Vec::new())?;
            drop(stream);
            let _ = report.send(name.clone());
            Ok(())
        }
    });
    let director = stage.direct(&stage.service(is_ipv6, "wlc"));
    let hold = || {
        let mut stream = stage.connect(1, is_ipv6, PORT).expect("a connection");
        let mut name = [0; 7];
        stream.read_exact(&mut name).expect("a name");
        (String::from_utf8_lossy(&name).into_owned(), stream)
    };

    let (names, mut held): (Vec<_>, Vec<_>) = (0..3).map(|_| hold()).unzip();
    assert_eq!(names, ["server1", "server2", "server3"]);

    // The second server loses its connection; the next one is for it, whatever came before.
    let second = held.remove(1);
    second.shutdown(Shutdown::Both).expect("an end");
    drop(second);
    assert_eq!(ended.recv_timeout(PATIENCE).expect("a report"), "server2");
    let (name, again) = hold();
    assert_eq!(name, "server2");

    drop((held, again));
    director.stop();
}
