//! From snapshots to samples, in the order of [`families`](super::families).

use wvs_core::roster::Stage;
use wvs_plugin::TIME_LIMITS_NS;

use super::families as family;
use super::families::Family;
use super::text::{Labels, Text, Value};
use super::{LineTotals, Process, ReloadTotals, Scrape, SweepTotals};
use crate::config::units::Percent;
use crate::control::snapshot::{
    ConnectionsSnapshot, DeviceSnapshot, FragmentsSnapshot, HealthSnapshot, PacketsSnapshot,
    PluginSnapshot, SeatSnapshot, ServerSnapshot, ServiceSnapshot, TimeSnapshot, TrialSnapshot,
};

/// Samples of the director itself, of each service and of each real server, roughly: room for the
/// text is made at once.
const SAMPLES: [usize; 3] = [100, 70, 9];

/// Nanoseconds in a second, and so on.
const NANO: f64 = 1e-9;
const MICRO: f64 = 1e-6;

impl Scrape {
    /// The text. Cost: about 0.1 ms for each 1,000 samples.
    #[must_use]
    pub fn render(&self) -> String {
        let [fixed, each_service, each_server] = SAMPLES;
        let servers: usize = self.services.iter().map(|service| service.servers.len()).sum();
        let servers = if self.with_servers { servers } else { 0 };
        let mut text =
            Text::with_room(fixed + self.services.len() * each_service + servers * each_server);
        self.put_director(&mut text);
        put_packets(&mut text, &self.stats.packets);
        put_table(&mut text, &self.stats.connections, self.sweeps);
        put_fragments(&mut text, &self.stats.fragments);
        put_device(&mut text, &self.stats.device);
        put_services(&mut text, &self.services);
        put_schedulers(&mut text, &self.plugins);
        put_trials(&mut text, &self.plugins);
        if self.with_servers {
            put_servers(&mut text, &self.services);
        }
        put_reloads(&mut text, self.reloads);
        put_one(&mut text, &family::LOG_LINES_LOST, self.stats.log_lines_lost);
        let mut samples = text.family(&family::REFUSED_TOKENS);
        samples.put(&["bad_token"], self.stats.admin.bad_tokens);
        samples.put(&["locked_out"], self.stats.admin.locked_out);
        put_connection_log(&mut text, self.connection_log);
        if let Some(process) = self.process {
            put_process(&mut text, process, self.start_time_seconds);
        }
        text.into_string()
    }

    fn put_director(&self, text: &mut Text) {
        text.family(&family::BUILD_INFO).put(&[&self.stats.version], 1_u8);
        put_one(text, &family::START_TIME, self.start_time_seconds);
    }
}

/// A family of one sample.
fn put_one(text: &mut Text, family: &'static Family, value: impl Value) {
    text.family(family).put(&[], value);
}

fn put_packets(text: &mut Text, packets: &PacketsSnapshot) {
    let mut samples = text.family(&family::PACKETS);
    for (verdict, count) in [
        ("forwarded", packets.forwarded),
        ("replied", packets.replied),
        ("passed", packets.passed),
        ("held", packets.held),
        ("dropped", packets.dropped.values().sum::<u64>()),
    ] {
        samples.put(&[verdict], count);
    }
    let mut samples = text.family(&family::DROPPED_PACKETS);
    for (reason, count) in &packets.dropped {
        samples.put(&[reason], *count);
    }
}

fn put_table(text: &mut Text, table: &ConnectionsSnapshot, sweeps: SweepTotals) {
    put_one(text, &family::CONNECTIONS, table.now);
    put_one(text, &family::CONNECTIONS_MAX, table.max);
    put_one(text, &family::HALF_OPEN, table.half_open);
    put_one(text, &family::HALF_OPEN_MAX, table.half_open_max);
    put_one(text, &family::OPENED, table.opened);
    put_one(text, &family::EXPIRED, table.expired);
    put_one(text, &family::REPLACED, table.replaced);
    put_one(text, &family::EVICTED, table.evicted);
    put_one(text, &family::SWEEPS, sweeps.sweeps);
    put_one(text, &family::SWEEP_SECONDS, to_f64(sweeps.micros) * MICRO);
    put_one(text, &family::SWEEP_SECONDS_MAX, to_f64(sweeps.longest_micros) * MICRO);
}

fn put_fragments(text: &mut Text, fragments: &FragmentsSnapshot) {
    put_one(text, &family::FRAGMENTED, fragments.now);
    put_one(text, &family::FRAGMENT_OCTETS, fragments.held_octets);
    put_one(text, &family::FRAGMENTS_EXPIRED, fragments.expired);
    put_one(text, &family::FRAGMENTS_EVICTED, fragments.evicted);
}

fn put_device(text: &mut Text, device: &DeviceSnapshot) {
    text.family(&family::DEVICE_INFO).put(&[&device.name, &device.offload], 1_u8);
    put_one(text, &family::DEVICE_MTU, device.mtu);
    put_one(text, &family::DEVICE_QUEUES, device.queues);
    put_one(text, &family::DEVICE_READ, device.read);
    put_one(text, &family::DEVICE_WRITTEN, device.written);
    put_one(text, &family::DEVICE_READ_ERRORS, device.read_errors);
    put_one(text, &family::DEVICE_WRITE_ERRORS, device.write_errors);
    put_one(text, &family::DEVICE_QUEUE_FULL, device.queue_full);
}

fn put_services(text: &mut Text, services: &[ServiceSnapshot]) {
    let each = |text: &mut Text, family, value: fn(&ServiceSnapshot) -> u64| {
        let mut samples = text.family(family);
        for service in services {
            samples.put(&[&service.name], value(service));
        }
    };
    each(text, &family::SERVICE_CONNECTIONS, |service| service.traffic.connections);
    each(text, &family::SERVICE_ACTIVE, |service| sum(all(service), |server| server.active));
    each(text, &family::SERVICE_INACTIVE, |service| sum(all(service), |server| server.inactive));
    each(text, &family::SERVICE_IN_PACKETS, |service| service.traffic.in_packets);
    each(text, &family::SERVICE_OUT_PACKETS, |service| service.traffic.out_packets);
    each(text, &family::SERVICE_IN_OCTETS, |service| service.traffic.in_octets);
    each(text, &family::SERVICE_OUT_OCTETS, |service| service.traffic.out_octets);
    let mut samples = text.family(&family::SERVICE_PLACED);
    for ServiceSnapshot { name, scheduling, .. } in services {
        samples.put(&[name, "scheduler"], scheduling.picked);
        samples.put(&[name, "director"], scheduling.fallback);
        samples.put(&[name, "slow_start"], scheduling.spared);
        samples.put(&[name, "persistence"], scheduling.persistent);
        samples.put(&[name, "sorry"], scheduling.sorry);
        samples.put(&[name, "nobody"], scheduling.no_server);
    }
    each(text, &family::SERVICE_SERVERS, |service| sum(&service.servers, |_| 1));
    each(text, &family::SERVICE_AVAILABLE, |service| {
        sum(&service.servers, |server| u32::from(server.weight > 0))
    });
    each(text, &family::SERVICE_DOWN, |service| {
        sum(&service.servers, |server| u32::from(server.is_down()))
    });
    let mut samples = text.family(&family::SERVICE_STAGE);
    for service in services {
        for stage in Stage::ALL.map(Stage::name) {
            samples.put(&[&service.name, stage], u8::from(service.stage == stage));
        }
    }
    each(text, &family::SERVICE_OVERLOADS, |service| {
        all(service).map(|server| server.overloads).sum()
    });
    let mut samples = text.family(&family::SERVICE_CHECKS);
    for service in services {
        let checks = |count: fn(&HealthSnapshot) -> u64| -> u64 {
            service.servers.iter().filter_map(|server| server.health.as_ref()).map(count).sum()
        };
        let (failed, unknown) = (checks(|health| health.failed), checks(|health| health.unknown));
        let good = checks(|health| health.checks).saturating_sub(failed).saturating_sub(unknown);
        samples.put(&[&service.name, "good"], good);
        samples.put(&[&service.name, "bad"], failed);
        samples.put(&[&service.name, "unknown"], unknown);
    }
    each(text, &family::SERVICE_HEALTH_CHANGES, |service| {
        let health = service.servers.iter().filter_map(|server| server.health.as_ref());
        health.map(|health| health.changes).sum()
    });
    let persistent = || {
        services.iter().filter_map(|service| Some((&service.name, service.persistence.as_ref()?)))
    };
    let mut samples = text.family(&family::SERVICE_TEMPLATES);
    persistent().for_each(|(service, clients)| samples.put(&[service], clients.templates));
    let mut samples = text.family(&family::SERVICE_TEMPLATES_REFUSED);
    persistent().for_each(|(service, clients)| samples.put(&[service], clients.refused));
    let pools =
        || services.iter().filter_map(|service| Some((&service.name, service.pool.as_ref()?)));
    let mut samples = text.family(&family::SERVICE_POOL);
    pools().for_each(|(service, pool)| samples.put(&[service], pool.places));
    let mut samples = text.family(&family::SERVICE_POOL_EXHAUSTED);
    pools().for_each(|(service, pool)| samples.put(&[service], pool.exhausted));
}

/// Every real server that has connections of a service.
fn all(service: &ServiceSnapshot) -> impl Iterator<Item = &ServerSnapshot> {
    service.servers.iter().chain(&service.sorry_server).chain(&service.leaving)
}

/// Something of real servers together.
fn sum<'s>(
    servers: impl IntoIterator<Item = &'s ServerSnapshot>,
    of: fn(&ServerSnapshot) -> u32,
) -> u64 {
    servers.into_iter().map(|server| u64::from(of(server))).sum()
}

fn put_schedulers(text: &mut Text, seats: &[SeatSnapshot]) {
    let each = |text: &mut Text, family, value: fn(&PluginSnapshot) -> u64| {
        let mut samples = text.family(family);
        for SeatSnapshot { service, plugin, .. } in seats {
            samples.put(&[service, &plugin.name], value(plugin));
        }
    };
    each(text, &family::SCHEDULER_GENERATION, |plugin| plugin.generation.into());
    let mut samples = text.family(&family::SCHEDULER_SWAPS);
    for SeatSnapshot { service, swaps, .. } in seats {
        samples.put(&[service], *swaps);
    }
    let mut samples = text.family(&family::SCHEDULER_DECISIONS);
    for SeatSnapshot { service, plugin, .. } in seats {
        samples.put(&[service, &plugin.name, "picked"], plugin.picks);
        samples.put(&[service, &plugin.name, "no_server"], plugin.no_server);
        samples.put(&[service, &plugin.name, "deferred"], plugin.defers);
        samples.put(&[service, &plugin.name, "unavailable"], plugin.unavailable);
    }
    let mut samples = text.family(&family::SCHEDULER_FAULTS);
    for SeatSnapshot { service, plugin, .. } in seats {
        for (kind, count) in &plugin.faults_by_kind {
            samples.put(&[service, &plugin.name, kind], *count);
        }
    }
    each(text, &family::SCHEDULER_QUARANTINED, |plugin| u64::from(plugin.quarantined_ms > 0));
    each(text, &family::SCHEDULER_QUARANTINES, |plugin| plugin.quarantines);
    each(text, &family::SCHEDULER_REBUILDS, |plugin| plugin.rebuilds);
    each(text, &family::SCHEDULER_EVENTS, |plugin| plugin.events);
    each(text, &family::SCHEDULER_TICKS, |plugin| plugin.ticks);
    let mut samples = text.family(&family::SCHEDULER_LINES);
    for SeatSnapshot { service, plugin, .. } in seats {
        samples.put(&[service, &plugin.name, "true"], plugin.log_lines);
        samples.put(&[service, &plugin.name, "false"], plugin.suppressed_lines);
    }
    each(text, &family::SCHEDULER_FUEL, |plugin| plugin.fuel.sum);
    each(text, &family::SCHEDULER_FUEL_MAX, |plugin| plugin.fuel.max);
    each(text, &family::SCHEDULER_MEMORY, |plugin| plugin.memory.try_into().unwrap_or(u64::MAX));
    let mut samples = text.family(&family::SCHEDULER_PICK_SECONDS);
    let limits: Vec<f64> = TIME_LIMITS_NS.iter().map(|ns| to_f64(*ns) * NANO).collect();
    for SeatSnapshot { service, plugin, .. } in seats {
        let TimeSnapshot { sum_ns, buckets, .. } = &plugin.time;
        samples.put_histogram(&[service, &plugin.name], &limits, buckets, to_f64(*sum_ns) * NANO);
    }
}

fn put_trials(text: &mut Text, seats: &[SeatSnapshot]) {
    let trials = || seats.iter().filter_map(|seat| Some((&seat.service, seat.trial.as_ref()?)));
    let each = |text: &mut Text, family, value: fn(&TrialSnapshot) -> f64| {
        let mut samples = text.family(family);
        for (service, trial) in trials() {
            samples.put(&[service, &trial.candidate.name], value(trial));
        }
    };
    each(text, &family::TRIAL_SHARE, |trial| ratio(trial.share));
    each(text, &family::TRIAL_DECISIONS, |trial| to_f64(trial.decisions));
    each(text, &family::TRIAL_AGREEMENTS, |trial| to_f64(trial.agreements));
    each(text, &family::TRIAL_OBEYED, |trial| to_f64(trial.obeyed));
    each(text, &family::TRIAL_SKEW, |trial| ratio(trial.skew));
    each(text, &family::TRIAL_FAULTS, |trial| to_f64(trial.candidate.faults));
    each(text, &family::TRIAL_STOPPED, |trial| f64::from(u8::from(trial.stopped.is_some())));
}

fn ratio(percent: Percent) -> f64 {
    f64::from(percent.hundredths()) / 10_000.0
}

fn put_servers(text: &mut Text, services: &[ServiceSnapshot]) {
    // Written once instead of in each family: there may be very many of them.
    let labels = |service: &ServiceSnapshot, server: &ServerSnapshot| {
        Labels::new(family::SERVER_WEIGHT.labels, &[&service.name, &server.address.to_string()])
    };
    let servers: Vec<(Labels, &ServerSnapshot)> = services
        .iter()
        .flat_map(|service| service.servers.iter().map(move |server| (service, server)))
        .map(|(service, server)| (labels(service, server), server))
        .collect();
    let each = |text: &mut Text, family: &'static Family, value: fn(&ServerSnapshot) -> u64| {
        debug_assert_eq!(family.labels, family::SERVER_WEIGHT.labels);
        let mut samples = text.family(family);
        for (labels, server) in &servers {
            samples.put_with(labels, value(server));
        }
    };
    each(text, &family::SERVER_WEIGHT, |server| server.weight.into());
    each(text, &family::SERVER_UP, |server| u64::from(!server.is_down()));
    each(text, &family::SERVER_CONNECTIONS, |server| server.traffic.connections);
    each(text, &family::SERVER_ACTIVE, |server| server.active.into());
    each(text, &family::SERVER_INACTIVE, |server| server.inactive.into());
    each(text, &family::SERVER_IN_PACKETS, |server| server.traffic.in_packets);
    each(text, &family::SERVER_OUT_PACKETS, |server| server.traffic.out_packets);
    each(text, &family::SERVER_IN_OCTETS, |server| server.traffic.in_octets);
    each(text, &family::SERVER_OUT_OCTETS, |server| server.traffic.out_octets);
}

fn put_reloads(text: &mut Text, reloads: ReloadTotals) {
    let mut samples = text.family(&family::RELOADS);
    samples.put(&["done"], reloads.done);
    samples.put(&["refused"], reloads.refused);
    put_one(text, &family::RELOAD_REFUSED, u8::from(reloads.is_latest_refused));
    put_one(text, &family::RELOAD_TIME, reloads.latest_seconds);
}

fn put_connection_log(text: &mut Text, lines: LineTotals) {
    put_one(text, &family::LOG_LINES, lines.written);
    let mut samples = text.family(&family::LOG_LEFT_OUT);
    samples.put(&["above_rate"], lines.above_rate);
    samples.put(&["queue_full"], lines.queue_full);
    samples.put(&["not_written"], lines.not_written);
}

fn put_process(text: &mut Text, process: Process, start_time_seconds: u64) {
    put_one(text, &family::PROCESS_CPU, process.processor_time.as_secs_f64());
    put_one(text, &family::PROCESS_MEMORY, process.resident_octets);
    put_one(text, &family::PROCESS_FILES, process.open_files);
    put_one(text, &family::PROCESS_THREADS, process.threads);
    put_one(text, &family::PROCESS_START, start_time_seconds);
}

/// As exactly as Prometheus has it: its values are of this type.
#[expect(clippy::cast_precision_loss, reason = "values of metrics are no more exact")]
const fn to_f64(count: u64) -> f64 {
    count as f64
}
