//! Nanoseconds of the director for the first packet of a connection, from parsing over the scheduler
//! to both entries in the table, without any device.
//!
//! `cargo bench -p wvs-tests --bench first_packets`

use divan::{Bencher, black_box};
use wvs_core::connection::table::TableLimits;
use wvs_core::director::DirectorConfig;
use wvs_core::packet::Packet;
use wvs_core::scheduler::Pick;
use wvs_core::service::Protocol;
use wvs_plugin::{Host, Limits, Source};
use wvs_tests::packet::{SYN, at, tcp};
use wvs_tests::world::{Always, ServiceSpec, World, settings};

const VIP: &str = "203.0.113.10:80";

/// Packets timed together; the clock is too coarse for one.
const SAMPLE: u32 = 256;

fn main() {
    divan::main();
}

/// Who places a new connection.
#[derive(Clone, Copy, Debug)]
enum By {
    Fallback,
    Rr,
    Sh,
    Wlc,
}

/// The table's growth is included.
#[divan::bench(args = [By::Fallback, By::Rr, By::Sh, By::Wlc], consts = [3, 16, 256], sample_size = SAMPLE)]
fn new_connection<const SERVERS: u16>(bencher: Bencher<'_, '_>, by: By) {
    let servers: Vec<String> =
        (1..=SERVERS).map(|n| format!("10.0.{}.{}:80", n / 200, 1 + n % 200)).collect();
    let servers: Vec<&str> = servers.iter().map(String::as_str).collect();
    let service = ServiceSpec::new(Protocol::Tcp, VIP, &servers).scheduler(Always(Pick::Defer));
    let limits = TableLimits { connections: 5_000_000, half_open: 5_000_000 };
    let world = World::with(DirectorConfig { limits, ..settings() }, vec![service]);
    let plugin = match by {
        By::Fallback => None,
        By::Rr => Some("rr"),
        By::Sh => Some("sh"),
        By::Wlc => Some("wlc"),
    };
    if let Some(name) = plugin {
        let module = Host::new().unwrap().load(Source::BuiltIn(name), Limits::default()).unwrap();
        let service = world.service(0);
        let scheduler = module.scheduler(None, &service.servers()).unwrap();
        drop(service.replace_scheduler(Box::new(scheduler)));
    }
    let template = tcp(at("198.51.100.7:1"), at(VIP), SYN);
    let mut clients = 0_u32..;
    bencher
        .with_inputs(|| {
            let mut buffer = template.clone();
            // Addresses and ports that nobody else has; checksums do not matter here.
            let [a, b, c, d] = clients.next().unwrap_or_default().to_be_bytes();
            buffer[12..16].copy_from_slice(&[32 + a, b, c, d]);
            buffer
        })
        .bench_local_refs(|buffer| {
            let length = buffer.len();
            world.director.process(black_box(&mut Packet::new(buffer, length)), world.now())
        });
}
