//! Every family of metrics that there is: `docs/OPERATIONS.md` has the same table.
//!
//! Names have the unit, and a counter ends in `_total`, as is the custom. Octets are those of IP
//! packets, as LVS counts them.

use std::fmt;

/// Metrics of one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    /// The name.
    pub name: &'static str,
    /// How its values behave.
    pub kind: Kind,
    /// The labels of its samples.
    pub labels: &'static [&'static str],
    /// What it tells, in a sentence.
    pub help: &'static str,
}

/// How values behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// They only grow, until the director starts anew.
    Counter,
    /// They go up and down.
    Gauge,
    /// Counts of observations by their size.
    Histogram,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        })
    }
}

macro_rules! families {
    ($($kind:ident $variable:ident $name:literal [$($label:literal),*] $help:literal;)+) => {
        $(
            #[doc = $help]
            pub static $variable: Family = Family {
                name: $name,
                kind: Kind::$kind,
                labels: &[$($label),*],
                help: $help,
            };
        )+

        /// Every family, in the order in which they are told.
        pub static FAMILIES: &[&Family] = &[$(&$variable),+];
    };
}

families! {
    Gauge BUILD_INFO "wvs_build_info" ["version"]
        "1, with the director's version.";
    Gauge START_TIME "wvs_start_time_seconds" []
        "When the director started, in seconds since 1970.";

    Counter PACKETS "wvs_packets_total" ["verdict"]
        "Packets by what became of them: forwarded (translated), replied (answered by the director), passed (sent on untouched), held (a part that waits for the first one) or dropped.";
    Counter DROPPED_PACKETS "wvs_dropped_packets_total" ["reason"]
        "Packets that were dropped, by the reason.";

    Gauge CONNECTIONS "wvs_connections" []
        "Connections in the table.";
    Gauge CONNECTIONS_MAX "wvs_connections_max" []
        "Connections that the table may hold: limits.connections.";
    Gauge HALF_OPEN "wvs_half_open_connections" []
        "TCP connections whose client has not answered the real server yet.";
    Gauge HALF_OPEN_MAX "wvs_half_open_connections_max" []
        "Half-open connections that there may be: limits.half_open.";
    Counter OPENED "wvs_connections_opened_total" []
        "Connections that were opened.";
    Counter EXPIRED "wvs_connections_expired_total" []
        "Connections that left the table because they were silent for as long as their state allows; that of one that was closed or reset is short.";
    Counter REPLACED "wvs_connections_replaced_total" []
        "Connections that a new one with the same addresses and ports replaced.";
    Counter EVICTED "wvs_connections_evicted_total" []
        "Half-open connections that made way for newer ones.";
    Counter SWEEPS "wvs_sweeps_total" []
        "Sweeps for expired connections; ten a second are due.";
    Counter SWEEP_SECONDS "wvs_sweep_seconds_total" []
        "Time that sweeps took.";
    Gauge SWEEP_SECONDS_MAX "wvs_sweep_seconds_max" []
        "Time that the longest sweep took since the start.";

    Gauge FRAGMENTED "wvs_fragmented_packets" []
        "Packets of which some parts came.";
    Gauge FRAGMENT_OCTETS "wvs_fragments_held_octets" []
        "Octets of parts that wait for the first one.";
    Counter FRAGMENTS_EXPIRED "wvs_fragmented_packets_expired_total" []
        "Packets not all of whose parts came in time.";
    Counter FRAGMENTS_EVICTED "wvs_fragmented_packets_evicted_total" []
        "Packets in parts that made way for newer ones.";

    Gauge DEVICE_INFO "wvs_device_info" ["device", "offload"]
        "1, with the device's name and the protocols of which it takes large pieces: off, tcp or tcp+udp.";
    Gauge DEVICE_MTU "wvs_device_mtu_octets" []
        "The device's MTU.";
    Gauge DEVICE_QUEUES "wvs_device_queues" []
        "The device's queues, each with a thread of its own.";
    Counter DEVICE_READ "wvs_device_read_packets_total" []
        "Packets read from the device. One that is to be cut up later counts once.";
    Counter DEVICE_WRITTEN "wvs_device_written_packets_total" []
        "Packets written to the device.";
    Counter DEVICE_READ_ERRORS "wvs_device_read_errors_total" []
        "Reads that failed.";
    Counter DEVICE_WRITE_ERRORS "wvs_device_write_errors_total" []
        "Packets that the kernel did not take.";
    Counter DEVICE_QUEUE_FULL "wvs_device_queue_full_packets_total" []
        "Packets that the kernel dropped because a queue was full.";

    Counter SERVICE_CONNECTIONS "wvs_service_connections_total" ["service"]
        "Connections scheduled.";
    Gauge SERVICE_ACTIVE "wvs_service_active_connections" ["service"]
        "Active connections, as ipvsadm counts them.";
    Gauge SERVICE_INACTIVE "wvs_service_inactive_connections" ["service"]
        "Inactive connections, UDP's among them.";
    Counter SERVICE_IN_PACKETS "wvs_service_in_packets_total" ["service"]
        "Packets from clients.";
    Counter SERVICE_OUT_PACKETS "wvs_service_out_packets_total" ["service"]
        "Packets to clients.";
    Counter SERVICE_IN_OCTETS "wvs_service_in_octets_total" ["service"]
        "Octets from clients, IP headers included.";
    Counter SERVICE_OUT_OCTETS "wvs_service_out_octets_total" ["service"]
        "Octets to clients, IP headers included.";
    Counter SERVICE_PLACED "wvs_service_placed_total" ["service", "by"]
        "New connections by what placed them: the scheduler; the director itself, because the scheduler had no answer; slow_start, as the scheduler's choice had had its share; persistence; the sorry server; or nobody, because no server could take them.";
    Gauge SERVICE_SERVERS "wvs_service_servers" ["service"]
        "Real servers.";
    Gauge SERVICE_AVAILABLE "wvs_service_available_servers" ["service"]
        "Real servers with a weight above 0: neither down, drained nor an unneeded backup.";
    Gauge SERVICE_DOWN "wvs_service_down_servers" ["service"]
        "Real servers that are down.";
    Gauge SERVICE_STAGE "wvs_service_stage" ["service", "stage"]
        "1 for who serves: the regular servers, the backup servers too, or the sorry server.";
    Counter SERVICE_OVERLOADS "wvs_service_overloads_total" ["service"]
        "How often its real servers reached their upper thresholds.";
    Counter SERVICE_CHECKS "wvs_service_health_checks_total" ["service", "result"]
        "Health checks of its real servers: good, bad, or unknown, which the director's host could not make.";
    Counter SERVICE_HEALTH_CHANGES "wvs_service_health_changes_total" ["service"]
        "How often health checks took its real servers up or down.";
    Gauge SERVICE_TEMPLATES "wvs_service_templates" ["service"]
        "Persistence only: clients whose server is remembered.";
    Counter SERVICE_TEMPLATES_REFUSED "wvs_service_templates_refused_total" ["service"]
        "Persistence only: clients whose server could not be remembered, because there were too many.";
    Gauge SERVICE_POOL "wvs_service_pool_places" ["service"]
        "Full NAT only: connections that each real server can have.";
    Counter SERVICE_POOL_EXHAUSTED "wvs_service_pool_exhausted_total" ["service"]
        "Full NAT only: connections for which the pool had no free place.";

    Gauge SCHEDULER_GENERATION "wvs_scheduler_generation" ["service", "plugin"]
        "The generation of the plugin at work.";
    Counter SCHEDULER_SWAPS "wvs_scheduler_swaps_total" ["service"]
        "How often a service's plugin was replaced, roll-backs included.";
    Counter SCHEDULER_DECISIONS "wvs_scheduler_decisions_total" ["service", "plugin", "outcome"]
        "Decisions: for a server (picked), that none can take the connection (no_server), left to the director (deferred), or made without the plugin because it is quarantined or being made anew (unavailable).";
    Counter SCHEDULER_FAULTS "wvs_scheduler_faults_total" ["service", "plugin", "kind"]
        "What the plugin did wrong, by kind.";
    Gauge SCHEDULER_QUARANTINED "wvs_scheduler_quarantined" ["service", "plugin"]
        "1 while the plugin is not asked because it keeps failing.";
    Counter SCHEDULER_QUARANTINES "wvs_scheduler_quarantines_total" ["service", "plugin"]
        "How often the plugin was quarantined.";
    Counter SCHEDULER_REBUILDS "wvs_scheduler_rebuilds_total" ["service", "plugin"]
        "Instances made to replace one that failed.";
    Counter SCHEDULER_EVENTS "wvs_scheduler_events_total" ["service", "plugin"]
        "Events of connections that the plugin was told of.";
    Counter SCHEDULER_TICKS "wvs_scheduler_ticks_total" ["service", "plugin"]
        "Ticks of the plugin.";
    Counter SCHEDULER_LINES "wvs_scheduler_log_lines_total" ["service", "plugin", "written"]
        "Lines that the plugin wrote to the log; not written are those that came too fast.";
    Counter SCHEDULER_FUEL "wvs_scheduler_fuel_total" ["service", "plugin"]
        "Fuel that decisions took, about one for each WebAssembly instruction.";
    Gauge SCHEDULER_FUEL_MAX "wvs_scheduler_fuel_max" ["service", "plugin"]
        "The most fuel that a decision took.";
    Gauge SCHEDULER_MEMORY "wvs_scheduler_memory_octets" ["service", "plugin"]
        "Memory of the plugin's instance.";
    Histogram SCHEDULER_PICK_SECONDS "wvs_scheduler_pick_seconds" ["service", "plugin"]
        "How long decisions took; one in 64 is timed.";

    Gauge TRIAL_SHARE "wvs_trial_share_ratio" ["service", "plugin"]
        "While a candidate is on trial: the share of the clients for which it is obeyed.";
    Counter TRIAL_DECISIONS "wvs_trial_decisions_total" ["service", "plugin"]
        "Decisions at which the candidate was asked, too.";
    Counter TRIAL_AGREEMENTS "wvs_trial_agreements_total" ["service", "plugin"]
        "Decisions at which the candidate said the same.";
    Counter TRIAL_OBEYED "wvs_trial_obeyed_total" ["service", "plugin"]
        "Decisions that were the candidate's.";
    Gauge TRIAL_SKEW "wvs_trial_skew_ratio" ["service", "plugin"]
        "The share of all connections that would go to other servers.";
    Counter TRIAL_FAULTS "wvs_trial_faults_total" ["service", "plugin"]
        "What the candidate did wrong.";
    Gauge TRIAL_STOPPED "wvs_trial_stopped" ["service", "plugin"]
        "1 when the trial stopped by itself.";

    Gauge SERVER_WEIGHT "wvs_server_weight" ["service", "server"]
        "The weight by which connections go to the real server; 0 when it gets none. These and those below only with metrics.servers.";
    Gauge SERVER_UP "wvs_server_up" ["service", "server"]
        "0 while it is down.";
    Counter SERVER_CONNECTIONS "wvs_server_connections_total" ["service", "server"]
        "Connections scheduled to the real server.";
    Gauge SERVER_ACTIVE "wvs_server_active_connections" ["service", "server"]
        "Its active connections.";
    Gauge SERVER_INACTIVE "wvs_server_inactive_connections" ["service", "server"]
        "Its inactive connections.";
    Counter SERVER_IN_PACKETS "wvs_server_in_packets_total" ["service", "server"]
        "Packets from clients to it.";
    Counter SERVER_OUT_PACKETS "wvs_server_out_packets_total" ["service", "server"]
        "Packets from it to clients.";
    Counter SERVER_IN_OCTETS "wvs_server_in_octets_total" ["service", "server"]
        "Octets from clients to it.";
    Counter SERVER_OUT_OCTETS "wvs_server_out_octets_total" ["service", "server"]
        "Octets from it to clients.";

    Counter RELOADS "wvs_reloads_total" ["result"]
        "Reloads of the configuration: done, or refused because something was wrong, which changed nothing.";
    Gauge RELOAD_REFUSED "wvs_latest_reload_refused" []
        "1 when the latest reload was refused.";
    Gauge RELOAD_TIME "wvs_latest_reload_seconds" []
        "When the latest reload ended, in seconds since 1970; 0 before the first.";

    Counter LOG_LINES_LOST "wvs_log_lines_lost_total" []
        "Lines of the director's own log that were lost, because nobody read them or there was no room for them.";
    Counter REFUSED_TOKENS "wvs_admin_refused_requests_total" ["reason"]
        "Requests over TCP that were refused: bad_token, or locked_out after too many of those from one address.";
    Counter LOG_LINES "wvs_connection_log_lines_total" []
        "Lines written to the connection log.";
    Counter LOG_LEFT_OUT "wvs_connection_log_left_out_total" ["reason"]
        "Lines that are not in the connection log: above_rate (of connection_log.rate), queue_full (too many waited to be written) or not_written (the file did not take them).";

    Counter PROCESS_CPU "process_cpu_seconds_total" []
        "Processor time of the process, user and system.";
    Gauge PROCESS_MEMORY "process_resident_memory_bytes" []
        "Memory of the process.";
    Gauge PROCESS_FILES "process_open_fds" []
        "Open file descriptors of the process.";
    Gauge PROCESS_THREADS "process_threads" []
        "Threads of the process.";
    Gauge PROCESS_START "process_start_time_seconds" []
        "As wvs_start_time_seconds, under the name that is the custom.";
}

/// The families as a Markdown table, as `docs/OPERATIONS.md` has it.
#[derive(Clone, Copy, Debug)]
pub struct Table;

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| Metric | Labels | Kind | Meaning |")?;
        writeln!(f, "| --- | --- | --- | --- |")?;
        for Family { name, kind, labels, help } in FAMILIES {
            let labels: Vec<_> = labels.iter().map(|label| format!("`{label}`")).collect();
            writeln!(f, "| `{name}` | {} | {kind} | {help} |", labels.join(", "))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_once_there_and_follow_the_custom() {
        let mut names = HashSet::new();
        for family in FAMILIES {
            let Family { name, kind, labels, help } = family;
            assert!(names.insert(name), "{name}");
            let is_name = |name: &str| name.bytes().all(|c| c.is_ascii_lowercase() || c == b'_');
            assert!(is_name(name) && labels.iter().all(|label| is_name(label)), "{name}");
            assert!(name.starts_with("wvs_") || name.starts_with("process_"), "{name}");
            assert_eq!(*kind == Kind::Counter, name.ends_with("_total"), "{name}");
            assert!(help.ends_with('.') && !help.contains(['|', '\n']), "{name}");
        }
    }
}
