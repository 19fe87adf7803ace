//! Directors that end without warning, and those that come after them.

use std::io::{self, Read, Write};

use wvs::lab::Lab;

use crate::host_state::{assert_same, assert_unchanged, files, host_state};
use crate::server::{servers, web_servers};
use crate::stage::{PORT, SERVER_PORT, Stage, run_well};

trials! {
    once next_start_cleans_up_after_a_crash,
    once next_director_of_another_device_cleans_up_after_a_crash,
    once next_start_cleans_up_without_the_state_files,
    both packet_of_a_forgotten_connection_is_reset,
}

fn next_start_cleans_up_after_a_crash() {
    let stage = Stage::new(2);
    let _servers = web_servers(&stage, false, SERVER_PORT);
    let before = host_state(&stage.lab.director);
    let services = stage.service(false, "rr") + &stage.service(true, "rr");
    stage.direct(&services).crash();
    assert!(rules(&stage.lab).contains("11900"), "a crash leaves rules");

    // With another configuration, so that a rule kept by mistake would show.
    let director = stage.direct(&stage.service(false, "rr"));
    assert!(director.log().contains("removed what a director"), "{}", director.log());
    assert_eq!(stage.who_answers(1, false), "server1");
    assert!(!run_well(&stage.lab.director, "ip", &["-6", "rule"]).contains("11900"));
    director.stop();

    assert_unchanged(&stage.lab.director, &before);
    assert_eq!(files(stage.folder()), ["routing.lock", "wvs.yaml"]);
}

fn next_director_of_another_device_cleans_up_after_a_crash() {
    let stage = Stage::new(1);
    let before = host_state(&stage.lab.director);
    stage.direct(&stage.service(true, "rr")).crash();

    let config = stage.configure("device: { name: other0 }", &stage.service(false, "rr"));
    let director = crate::director::DirectorProcess::start(&stage.lab.director, &config);
    assert!(!run_well(&stage.lab.director, "ip", &["-6", "rule"]).contains("wvs0"));
    director.stop();

    assert_unchanged(&stage.lab.director, &before);
}

fn next_start_cleans_up_without_the_state_files() {
    let stage = Stage::new(1);
    let before = host_state(&stage.lab.director);
    stage.direct(&stage.service(false, "rr")).crash();
    for name in files(stage.folder()).iter().filter(|name| name.starts_with("sysctl-")) {
        std::fs::remove_file(stage.folder().join(name)).unwrap();
    }

    stage.direct(&stage.service(false, "rr")).stop();

    // Nobody knows any more what the settings were; rules and routes speak for themselves.
    let routes_and_rules = |state: &str| {
        state.lines().filter(|line| !line.contains('=')).collect::<Vec<_>>().join("\n")
    };
    let after = host_state(&stage.lab.director);
    assert_same(&routes_and_rules(&before), &routes_and_rules(&after));
}

fn packet_of_a_forgotten_connection_is_reset(is_ipv6: bool) {
    let stage = Stage::new(1);
    let _servers = servers(&stage.lab, is_ipv6, SERVER_PORT, |_| {
        |mut stream: std::net::TcpStream| {
            let mut octet = [0];
            while stream.read(&mut octet)? > 0 {
                stream.write_all(&octet)?;
            }
            Ok(())
        }
    });
    let services = stage.service(is_ipv6, "rr");
    let director = stage.direct(&services);
    let mut stream = stage.connect(1, is_ipv6, PORT).unwrap();
    stream.write_all(b"a").unwrap();
    stream.read_exact(&mut [0]).unwrap();

    director.stop();
    let director = stage.direct(&services);
    stream.write_all(b"b").unwrap();
    let error = stream.read(&mut [0]).unwrap_err();

    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    director.stop();
}

fn rules(lab: &Lab) -> String {
    run_well(&lab.director, "ip", &["rule"])
}
