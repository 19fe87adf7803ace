//! The examples at work: each with a director, real servers and clients of its own.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use wvs::config::{Config, Reading};
use wvs::lab;
use wvs_core::service::{Ports, Protocol};

use crate::director::DirectorProcess;
use crate::server::{Server, serve_web, udp_echo};
use crate::stage::{Stage, ask, wait_until};

trials! {
    once every_example_serves_clients,
}

fn every_example_serves_clients() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            serve(&path);
            count += 1;
        }
    }
    assert!(count >= 8, "{count} examples");
}

/// Has the example serve clients in a network of its own, where its addresses are others.
fn serve(path: &std::path::Path) {
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    let text = fs::read_to_string(path).unwrap();
    let example = Reading::of_file(path).config().clone();
    let rips = addresses(&example, |service| {
        service
            .servers
            .iter()
            .map(|server| server.address)
            .chain(service.sorry)
            .map(|at| at.ip())
            .collect()
    });
    let vips = addresses(&example, |service| service.settings.reach.vips.clone());
    let stage = Stage::new(u8::try_from(rips.len()).unwrap());
    fs::write(stage.folder().join("healthz"), "well").unwrap();

    let mut replaced = text;
    let mut hosts = BTreeMap::new();
    for (number, rip) in (1..).zip(&rips) {
        let here = lab::server_address(number, rip.is_ipv6());
        replaced = replace(&replaced, *rip, here);
        hosts.insert(here, usize::from(number) - 1);
    }
    for (number, vip) in (1..).zip(&vips) {
        let here = match vip {
            IpAddr::V4(_) => format!("10.30.0.{number}"),
            IpAddr::V6(_) => format!("fd00:30::{number}"),
        };
        replaced = replace(&replaced, *vip, here.parse().unwrap());
    }
    let socket = stage.socket_of("wvs");
    let file = stage.folder().join("wvs.yaml");
    fs::write(&file, format!("admin: {{ socket: \"{}\" }}\n{replaced}", socket.display())).unwrap();
    let config = Reading::of_file(&file).config().clone();
    for plugin in &config.plugins {
        // Where an example names a plugin to be built, a built-in stands in for it.
        fs::create_dir_all(plugin.file.parent().unwrap()).unwrap();
        fs::write(&plugin.file, wvs_plugin::builtin::find("rr").unwrap()).unwrap();
    }
    let _servers = servers(&stage, &config, &hosts);
    let director = DirectorProcess::start(&stage.lab.director, &file);
    for service in &config.services {
        for vip in &service.settings.reach.vips {
            for port in first_ports(&service.settings.reach.ports) {
                let to = SocketAddr::new(*vip, port);
                match service.protocol {
                    Protocol::Tcp => wait_until(&format!("{name}: an answer of {to}"), || {
                        let connected = stage.connect_to(1, to);
                        connected.and_then(|mut stream| ask(&mut stream, "/name")).is_ok()
                    }),
                    Protocol::Udp => wait_until(&format!("{name}: an answer of {to}"), || {
                        answers(&stage, to).is_ok()
                    }),
                    Protocol::Icmp => {}
                }
            }
        }
    }
    director.stop();
}

/// Each once.
fn addresses(
    config: &Config,
    of: impl Fn(&wvs::config::ServiceConfig) -> Vec<IpAddr>,
) -> Vec<IpAddr> {
    let mut all: Vec<IpAddr> = config.services.iter().flat_map(of).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// The address where it stands for itself, and is not the beginning of another one.
fn replace(text: &str, from: IpAddr, to: IpAddr) -> String {
    let (from, to) = (from.to_string(), to.to_string());
    let mut parts = text.split(&from);
    let mut replaced = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let goes_on = part.starts_with(|next: char| next.is_ascii_hexdigit());
        replaced += if goes_on { &from } else { &to };
        replaced += part;
    }
    replaced
}

fn first_ports(ports: &Ports) -> Vec<u16> {
    match ports {
        Ports::These(ranges) => ranges.iter().map(|range| *range.start()).collect(),
        Ports::Others => vec![4_711],
    }
}

/// Whatever real servers there have to be, and a page for those who check them.
fn servers(stage: &Stage, config: &Config, hosts: &BTreeMap<IpAddr, usize>) -> Vec<Server> {
    let mut ends = BTreeMap::new();
    for service in &config.services {
        let own = service.servers.iter().map(|server| server.address).chain(service.sorry);
        for server in own {
            let ports = match server.port() {
                0 => first_ports(&service.settings.reach.ports),
                port => vec![port],
            };
            for port in ports {
                ends.insert((service.protocol.name(), SocketAddr::new(server.ip(), port)), ());
            }
        }
        for server in &service.servers {
            if let Some(check) =
                server.health.as_ref().and_then(|health| health.check(server.address))
            {
                ends.insert(("tcp", check.target), ());
            }
        }
    }
    let mut running = Vec::new();
    for (protocol, at) in ends.into_keys() {
        let host = &stage.lab.servers[hosts[&at.ip()]];
        match protocol {
            "tcp" => {
                let (name, folder) = (host.name().to_owned(), stage.folder().to_owned());
                running
                    .push(Server::start(host, at, move |stream| serve_web(stream, &name, &folder)));
            }
            "udp" => udp_echo(host, at.ip(), at.port()),
            _ => {}
        }
    }
    running
}

fn answers(stage: &Stage, to: SocketAddr) -> io::Result<()> {
    let from = SocketAddr::new(lab::client_address(1, to.is_ipv6()), 0);
    let socket = stage.lab.client.run(|| UdpSocket::bind(from))?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    socket.send(b"who?")?;
    socket.recv(&mut [0; 100]).map(drop)
}
