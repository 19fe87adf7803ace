//! The packet path over a director in memory: what goes in, what comes out, and which counters move.

mod answers;
mod connection_log;
mod fragments;
mod full_nat;
mod half_open;
mod icmp_errors;
mod malformed;
mod memo;
mod nat;
mod observed;
mod partial_checksums;
mod persistence;
mod properties;
mod reach;
mod standing;
mod stories;
mod table;

use std::net::SocketAddr;

use wvs_core::service::Protocol;
use wvs_tests::packet::{ACK, SYN, at, tcp};
use wvs_tests::world::{ServiceSpec, World};

/// The addresses of one family, so that a test can be run for both.
struct Addresses {
    client: &'static str,
    vip: &'static str,
    servers: [&'static str; 2],
}

const V4: Addresses = Addresses {
    client: "198.51.100.7:40000",
    vip: "203.0.113.10:80",
    servers: ["10.0.0.1:8080", "10.0.0.2:8081"],
};

const V6: Addresses = Addresses {
    client: "[2001:db8:1::7]:40000",
    vip: "[2001:db8:2::10]:80",
    servers: ["[fd00::1]:8080", "[fd00::2]:8081"],
};

const FAMILIES: [&Addresses; 2] = [&V4, &V6];

impl Addresses {
    fn client(&self) -> SocketAddr {
        at(self.client)
    }

    /// The same client with another port.
    fn client_port(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.client().ip(), port)
    }

    fn vip(&self) -> SocketAddr {
        at(self.vip)
    }

    fn server(&self, index: usize) -> SocketAddr {
        at(self.servers[index])
    }

    fn service(&self, protocol: Protocol) -> ServiceSpec {
        ServiceSpec::new(protocol, self.vip, &self.servers)
    }

    fn world(&self, protocol: Protocol) -> World {
        World::new(vec![self.service(protocol)])
    }

    /// A world with one established TCP connection of [`Self::client`] to the first server.
    fn established(&self) -> World {
        let world = self.world(Protocol::Tcp);
        world.forward(&tcp(self.client(), self.vip(), SYN));
        world.forward(&tcp(self.server(0), self.client(), SYN | ACK));
        world.forward(&tcp(self.client(), self.vip(), ACK));
        world
    }
}
