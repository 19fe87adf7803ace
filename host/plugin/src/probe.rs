//! The trial of a plugin before it gets a virtual service.

use wvs_abi::{Request, caps, connect_failed, event};
use wvs_core::random::Random;
use wvs_core::scheduler::Pick;

use crate::error::InstanceError;
use crate::fault::Fault;
use crate::instance::Instance;
use crate::table::ServerTable;

/// How many synthetic requests a plugin is tried with.
const REQUESTS: usize = 64;

/// Fixed, so that a plugin that passed once passes again.
const SEED: u64 = 0x5756_5350_524F_4245;

/// What a plugin did in its trial.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProbeReport {
    /// Bits of [`wvs_abi::caps`].
    pub caps: u32,
    /// Requests that got a server.
    pub picks: usize,
    /// Requests that got none.
    pub no_server: usize,
    /// Requests left to the director.
    pub defers: usize,
    /// The most fuel that one decision took.
    pub fuel_max: u64,
    /// Octets of memory that the instance has after it.
    pub memory: usize,
}

/// Puts synthetic requests of both families to a throw-away `instance`. Without servers there is
/// nothing to pick and nothing is asked.
pub(crate) fn probe(
    mut instance: Instance,
    table: &ServerTable,
) -> Result<ProbeReport, InstanceError> {
    instance.set_servers(table).map_err(InstanceError::Servers)?;
    let mut report = ProbeReport { caps: instance.caps(), ..ProbeReport::default() };
    let is_pure = instance.caps() & caps::PURE != 0;
    let requests = if table.servers.is_empty() { 0 } else { REQUESTS };
    for (number, request) in synthetic_requests().take(requests).enumerate() {
        let failed = |fault| InstanceError::Probe { request: number, fault };
        let pick = ask(&mut instance, &request, table).map_err(failed)?;
        report.fuel_max = report.fuel_max.max(instance.fuel_used());
        if is_pure && ask(&mut instance, &request, table).map_err(failed)? != pick {
            return Err(InstanceError::NotPure { request: number });
        }
        match pick {
            Pick::Server(_) => report.picks += 1,
            Pick::NoServer => report.no_server += 1,
            Pick::Defer => report.defers += 1,
        }
    }
    try_callbacks(&mut instance, table).map_err(InstanceError::Callback)?;
    report.memory = instance.memory();
    Ok(report)
}

/// Lets the plugin tick once, and tells it of one connection of each server.
fn try_callbacks(instance: &mut Instance, table: &ServerTable) -> Result<(), Fault> {
    instance.tick(&Request { now_ms: 1_000, ..Request::default() })?;
    for (index, _) in (0..).zip(&table.servers) {
        instance.event(event::BOUND, index, 0)?;
        instance.event(event::UNBOUND, index, 1_000)?;
        instance.event(event::CONNECT_FAILED, index, connect_failed::REFUSED)?;
    }
    Ok(())
}

fn ask(instance: &mut Instance, request: &Request, table: &ServerTable) -> Result<Pick, Fault> {
    instance.schedule(request, table.servers.iter().map(|server| (server.active, server.inactive)))
}

/// Clients all over both families, some milliseconds apart.
fn synthetic_requests() -> impl Iterator<Item = Request> {
    let mut random = Random::new(SEED);
    let mut now_ms = 0;
    core::iter::from_fn(move || {
        let [low, high, rest] = [random.next(), random.next(), random.next()];
        now_ms += rest % 16;
        let is_ipv4 = rest & 1 << 8 != 0;
        let mut client_address = [0; 16];
        let length = if is_ipv4 { 4 } else { 16 };
        let octets = (u128::from(high) << 64 | u128::from(low)).to_be_bytes();
        client_address[..length].copy_from_slice(&octets[..length]);
        let [_, _, a, b, ..] = rest.to_be_bytes();
        let client_port = u16::from_be_bytes([a, b]);
        Some(Request {
            family: if is_ipv4 { 4 } else { 6 },
            protocol: 6,
            client_port,
            virtual_port: 80,
            client_address,
            now_ms,
            random: random.next(),
            ..Request::default()
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn synthetic_requests_are_of_both_families_and_go_forward_in_time() {
        let requests: Vec<_> = synthetic_requests().take(REQUESTS).collect();
        let ipv4 = requests.iter().filter(|request| request.family == 4).count();
        assert!((REQUESTS / 4..REQUESTS * 3 / 4).contains(&ipv4), "{ipv4}");
        assert!(requests.is_sorted_by_key(|request| request.now_ms));
        assert!(requests.iter().all(|request| request.client().is_ipv4() == (request.family == 4)));
    }
}
