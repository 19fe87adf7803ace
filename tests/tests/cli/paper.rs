//! A director that does nothing but answer.

use std::sync::Arc;

use wvs::config::units::Percent;
use wvs::control::Answers;
use wvs::control::snapshot::{
    AdminSnapshot, AskedSnapshot, CandidateSnapshot, ChangeSnapshot, ConnectionFilter,
    ConnectionList, ConnectionSnapshot, ConnectionsSnapshot, DeviceSnapshot, ExplanationSnapshot,
    FateSnapshot, FragmentsSnapshot, FuelSnapshot, GenerationSnapshot, HealthSnapshot,
    KnownConnectionSnapshot, OpeningSnapshot, PacketsSnapshot, PersistenceSnapshot, PicksSnapshot,
    PluginSnapshot, PluginsSnapshot, PoolSnapshot, ReloadSnapshot, RollbackSnapshot,
    SchedulerReload, SchedulerSnapshot, SchedulingSnapshot, SeatSnapshot, ServerChange,
    ServerReload, ServerSnapshot, ServerStanding, ServiceFate, ServiceReload, ServiceSnapshot,
    ServicesSnapshot, StatsSnapshot, SwapSnapshot, TimeSnapshot, TrafficSnapshot, TrialReload,
    TrialSnapshot,
};
use wvs::operation::reload::ReloadError;
use wvs::operation::servers::ServerAction;
use wvs::operation::{Action, ChangeError, Proposal, ProposedPlugin};
use wvs::seat::SeatError;
use wvs::tap::{CaptureRefusal, CaptureRequest, Recording, Tap};
use wvs_core::director::Director;
use wvs_core::explain::Question;
use wvs_core::services::Services;
use wvs_plugin::InstanceError;
use wvs_tests::world;

/// Answers with one of everything, and with the longest of what goes in a column.
pub(crate) struct Paper;

impl Answers for Paper {
    fn services(&self) -> ServicesSnapshot {
        let traffic = |connections, in_octets| TrafficSnapshot {
            connections,
            in_packets: 10 * connections,
            out_packets: 9 * connections,
            in_octets,
            out_octets: 1_000 * in_octets,
        };
        let server = |address: &str, weight, active, inactive, traffic| ServerSnapshot {
            address: address.parse().unwrap(),
            weight,
            configured_weight: weight,
            set_weight: None,
            measured_weight: None,
            out: None,
            health: None,
            backup: false,
            drain_ms: None,
            slow_ms: None,
            upper_threshold: 0,
            lower_threshold: 0,
            overloads: 0,
            active,
            inactive,
            traffic,
        };
        let service = |name: &str, protocol: &str, vip: &str, port, scheduler: &str, servers| {
            ServiceSnapshot {
                name: name.to_owned(),
                protocol: protocol.to_owned(),
                vip: vip.parse().unwrap(),
                port,
                vips: vec![vip.parse().unwrap()],
                ports: vec![(port, port)],
                one_packet: false,
                persistence: None,
                stage: "regular".to_owned(),
                scheduler: SchedulerSnapshot {
                    name: scheduler.to_owned(),
                    generation: 1,
                    picks: 3,
                    no_server: 0,
                    defers: 0,
                    unavailable: 0,
                    bad_answers: 0,
                    traps: 0,
                    out_of_fuel: 0,
                    faults: 0,
                    quarantines: 0,
                    rebuilds: 0,
                    last_fault: None,
                },
                scheduling: SchedulingSnapshot {
                    picked: 3,
                    fallback: 0,
                    spared: 0,
                    persistent: 0,
                    sorry: 0,
                    no_server: 0,
                },
                traffic: traffic(4, 123_456),
                pool: None,
                servers,
                sorry_server: None,
                leaving: Vec::new(),
            }
        };
        let mut services = ServicesSnapshot {
            version: "1.2.3".to_owned(),
            connections_max: 4_096,
            services: vec![
                service(
                    "web",
                    "tcp",
                    "203.0.113.10",
                    80,
                    "wlc",
                    vec![
                        server("10.0.0.11:8080", 1, 2, 10, traffic(3, 123_456)),
                        server("100.100.100.100:65535", 65_535, 4_294_967_295, 0, traffic(1, 0)),
                    ],
                ),
                service(
                    "web6",
                    "tcp",
                    "2001:db8:1:2:3:4:5:6",
                    80,
                    "two-choices",
                    vec![server(
                        "[2001:db8:1111:2222:3333:4444:5555:6666]:80",
                        0,
                        0,
                        0,
                        traffic(0, 0),
                    )],
                ),
                service(
                    "dns",
                    "udp",
                    "203.0.113.53",
                    53,
                    "rr",
                    vec![server("10.0.0.53:53", 1, 0, 7, traffic(90_000_000, 7_654_321_000))],
                ),
                service("ping", "icmp", "203.0.113.53", 0, "sh", vec![]),
            ],
        };
        let [web, ..] = &mut services.services[..] else { unreachable!("there are four") };
        web.vips.push("203.0.113.11".parse().unwrap());
        web.ports.push((8_000, 8_100));
        web.persistence = Some(PersistenceSnapshot {
            timeout_seconds: 300,
            prefix: 24,
            quiesced: "honour".to_owned(),
            templates: 12,
            refused: 1,
        });
        web.stage = "backup".to_owned();
        let out = |address: &str, weight, out: &str| ServerSnapshot {
            configured_weight: 1,
            out: Some(out.to_owned()),
            ..server(address, weight, 0, 4, traffic(4, 1))
        };
        web.servers.extend([
            ServerSnapshot {
                health: Some(HealthSnapshot {
                    kind: "http".to_owned(),
                    up: false,
                    held_ms: 12_345,
                    last: Some("status 503".to_owned()),
                    took_us: 1_234,
                    good: 0,
                    bad: 7,
                    checks: 70,
                    failed: 9,
                    unknown: 0,
                    changes: 1,
                }),
                ..out("10.0.0.13:8080", 0, "down")
            },
            ServerSnapshot { drain_ms: Some(299_500), ..out("10.0.0.14:8080", 0, "drained") },
            ServerSnapshot { set_weight: Some(7), out: None, ..out("10.0.0.15:8080", 7, "") },
            ServerSnapshot { measured_weight: Some(9), out: None, ..out("10.0.0.16:8080", 9, "") },
            ServerSnapshot { slow_ms: Some(1), out: None, ..out("10.0.0.17:8080", 1, "") },
        ]);
        web.sorry_server = Some(server("10.0.0.99:80", 1, 0, 0, traffic(0, 0)));
        web.leaving
            .push(ServerSnapshot { drain_ms: Some(60_000), ..out("10.0.0.18:80", 0, "drained") });
        let failing = &mut services.services[1];
        failing.scheduler.traps = 3;
        failing.scheduler.faults = 3;
        failing.scheduler.quarantines = 1;
        failing.scheduler.last_fault = Some("wvs_schedule stopped: \u{1b}[2J".to_owned());
        failing.scheduling.fallback = 2_675;
        services.services[2].scheduling.fallback = 1;
        services.services[2].pool = Some(PoolSnapshot {
            addresses: vec!["10.0.0.250".parse().unwrap()],
            places: 64_512,
            exhausted: 3,
        });
        services
    }

    fn stats(&self) -> StatsSnapshot {
        let dropped = [("no_connection", 7), ("stray", 0), ("table_full", 12)];
        StatsSnapshot {
            version: "1.2.3".to_owned(),
            uptime_seconds: 60,
            log_lines_lost: 0,
            connections: ConnectionsSnapshot {
                now: 19,
                max: 4_096,
                half_open: 2,
                half_open_max: 1_024,
                opened: 16,
                expired: 0,
                replaced: 0,
                evicted: 0,
            },
            packets: PacketsSnapshot {
                forwarded: 304,
                replied: 2,
                passed: 1,
                held: 0,
                dropped: dropped.map(|(reason, packets)| (reason.to_owned(), packets)).into(),
            },
            fragments: FragmentsSnapshot::default(),
            device: DeviceSnapshot {
                name: "wvs0".to_owned(),
                mtu: 1_500,
                queues: 2,
                offload: "tcp".to_owned(),
                read: 326,
                written: 307,
                read_errors: 0,
                write_errors: 0,
                queue_full: 5,
            },
            admin: AdminSnapshot::default(),
        }
    }

    fn plugins(&self) -> PluginsSnapshot {
        let plugin = |name: &str, generation, picks| PluginSnapshot {
            name: name.to_owned(),
            generation,
            sha256: "0a".repeat(32),
            config: None,
            memory: 131_072,
            quarantined_ms: 0,
            picks,
            no_server: 0,
            defers: 0,
            unavailable: 0,
            faults: 0,
            faults_by_kind: [("out_of_fuel".to_owned(), 0), ("unreachable".to_owned(), 0)].into(),
            last_fault: None,
            quarantines: 0,
            rebuilds: 0,
            events: 0,
            ticks: 0,
            log_lines: 0,
            suppressed_lines: 0,
            fuel: FuelSnapshot { sum: 210 * picks, mean: 210, max: 7_400 },
            time: TimeSnapshot {
                timed: picks / 64,
                sum_ns: picks / 64 * 412,
                mean_ns: 412,
                max_ns: 21_900,
                buckets: vec![0; 16],
            },
        };
        let seat = |service: &str, plugin| SeatSnapshot {
            service: service.to_owned(),
            plugin,
            probation: 1_000,
            record: Some(1 << 20),
            past: Vec::new(),
            swaps: 0,
            rollback: None,
            trial: None,
        };
        let mut web = seat("web", plugin("wlc", 1, 1_234_567));
        web.past = vec![generation("rr", 3), generation("sh", 2)];
        web.swaps = 5;
        web.rollback = Some(RollbackSnapshot { from: 4, fault: Some("it \u{1b}[2J".to_owned()) });
        web.trial = Some(TrialSnapshot {
            candidate: plugin("latency", 6, 0),
            share: Percent::of_hundredths(1_250),
            decisions: 1_000,
            agreements: 333,
            obeyed: 125,
            skew: Percent::of_hundredths(440),
            picks: vec![
                PicksSnapshot {
                    server: Some("10.0.0.11:8080".parse().unwrap()),
                    plugin: 600,
                    candidate: 500,
                },
                PicksSnapshot { server: None, plugin: 400, candidate: 500 },
            ],
            faults_max: 3,
            skew_max: Percent::of_hundredths(3_000),
            stopped: None,
        });
        let mut failing = plugin("two-choices", 2, 17);
        failing.config = Some(serde_json::json!({ "seed": 7 }));
        failing.faults = 4;
        failing.faults_by_kind.insert("unreachable".to_owned(), 4);
        failing.last_fault = Some("wvs_schedule stopped".to_owned());
        (failing.quarantines, failing.quarantined_ms, failing.rebuilds) = (1, 1_500, 3);
        (failing.events, failing.ticks, failing.log_lines) = (12, 1, 1);
        let mut dns = seat("dns", plugin("rr", 1, 0));
        let mut stopped = web.trial.clone().unwrap();
        stopped.stopped = Some("3 faults".to_owned());
        dns.trial = Some(stopped);
        PluginsSnapshot {
            version: "1.2.3".to_owned(),
            services: vec![web, seat("web6", failing), dns],
        }
    }

    fn metrics(&self) -> String {
        "# TYPE wvs_connections gauge\nwvs_connections 19\n".to_owned()
    }

    fn connections(&self, filter: &ConnectionFilter) -> Option<ConnectionList> {
        let connection =
            |protocol: &str, client: &str, vip: &str, server: &str| ConnectionSnapshot {
                protocol: protocol.to_owned(),
                expires_in_ms: 899_999,
                state: "ESTABLISHED".to_owned(),
                client: client.parse().unwrap(),
                vip: vip.parse().unwrap(),
                server: server.parse().unwrap(),
                generation: 2,
            };
        let mut dns = connection("udp", "[2001:db8::7]:4242", "[2001:db8::53]:53", "[fd00::1]:53");
        (dns.state, dns.generation) = ("UDP".to_owned(), 0);
        let mut connections =
            vec![connection("tcp", "198.51.100.7:40000", "203.0.113.10:80", "10.0.0.11:8080"), dns];
        match filter.service.as_deref() {
            Some("web") => connections.truncate(1),
            Some(_) => return None,
            None => {}
        }
        let total = connections.len();
        connections.truncate(filter.limit.unwrap_or(usize::MAX));
        Some(ConnectionList { total, connections })
    }

    fn change(&self, service: &str, action: Action) -> Result<ChangeSnapshot, ChangeError> {
        let service = service.to_owned();
        let swap = |to| SwapSnapshot {
            from: generation("rr", 1),
            to,
            is_state_carried: false,
            took_us: 21,
        };
        let plugin = |Proposal { plugin, config }| match plugin {
            ProposedPlugin::Named(name) => (name, config),
            ProposedPlugin::Module { name, octets } => {
                (format!("{name} of {} octets", octets.len()), config)
            }
        };
        Ok(match action {
            Action::Swap(proposal) => {
                let (plugin, config) = plugin(proposal);
                let plugin = match config {
                    Some(config) => format!("{plugin} with {config}"),
                    None => plugin,
                };
                ChangeSnapshot::Swap { service, swap: swap(generation(&plugin, 2)) }
            }
            Action::Shadow(proposal, limits) => {
                let name = format!("{} until {limits:?}", plugin(proposal).0);
                ChangeSnapshot::Shadow { service, candidate: generation(&name, 2) }
            }
            Action::Reset => ChangeSnapshot::Reset { service, plugin: generation("rr", 1) },
            Action::Canary(share) => {
                ChangeSnapshot::Canary { service, candidate: generation("wlc", 2), share }
            }
            Action::Promote => {
                let swap = SwapSnapshot { is_state_carried: true, ..swap(generation("wlc", 2)) };
                ChangeSnapshot::Swap { service, swap }
            }
            Action::EndTrial => {
                ChangeSnapshot::TrialEnded { service, candidate: generation("wlc", 2) }
            }
            Action::Rollback => return Err(SeatError::NoPast.into()),
        })
    }

    fn change_server(
        &self,
        service: &str,
        server: &str,
        action: ServerAction,
    ) -> Result<ServerStanding, ChangeError> {
        let Ok(address) = server.parse() else {
            let (service, server) = (service.to_owned(), server.to_owned());
            return Err(ChangeError::NoServer { service, server });
        };
        let (weight, drain_ms) = match action {
            ServerAction::Weight(weight) => (weight.unwrap_or(1), None),
            ServerAction::Drain { deadline, .. } => {
                (0, deadline.map(|deadline| u64::try_from(deadline.as_millis()).unwrap()))
            }
            ServerAction::Enable => (1, None),
        };
        let service = service.to_owned();
        Ok(ServerStanding { service, server: address, weight, connections: 12, drain_ms })
    }

    fn preview(&self, _: &str) -> Result<ReloadSnapshot, ReloadError> {
        self.reload()
    }

    fn recording(&self, _: &str) -> Result<Vec<u8>, ChangeError> {
        Err(SeatError::NotRecorded.into())
    }

    fn explain(&self, question: &Question) -> Result<ExplanationSnapshot, InstanceError> {
        Ok(explanation(question))
    }

    /// One without an end is one too many.
    fn capture(&self, request: &CaptureRequest) -> Result<Recording, CaptureRefusal> {
        if request.milliseconds.is_none() {
            return Err(CaptureRefusal::TooMany);
        }
        let director = Arc::new(Director::new(world::settings(), Services::default()));
        Arc::new(Tap::new()).capture(request, &director, "wvs0", 1)
    }

    fn reload(&self) -> Result<ReloadSnapshot, ReloadError> {
        let service = |name: &str| ServiceReload::new(name, ServiceFate::Changed);
        let server =
            |last: u8, change| ServerReload { server: ([10, 0, 0, last], 80).into(), change };
        let servers = ServiceReload {
            settings: vec!["port".to_owned(), "timeouts".to_owned()],
            servers: vec![
                server(1, ServerChange::Added { weight: 3 }),
                server(2, ServerChange::Weight { from: 1, to: 5 }),
                server(3, ServerChange::Settings { keys: vec!["backup".to_owned()] }),
                server(4, ServerChange::WeightUndone { weight: 7 }),
                server(5, ServerChange::DrainUndone),
                server(6, ServerChange::Removed { connections: 12 }),
                server(7, ServerChange::Removed { connections: 0 }),
            ],
            ..service("web")
        };
        let trial = |trial| ServiceReload { trial: Some(trial), ..service("dns") };
        let candidate = || generation("latency", 3);
        let [none, some] = [0, 1_000].map(Percent::of_hundredths);
        Ok(ReloadSnapshot {
            settings: vec!["metrics".into(), "connection_log".into()],
            services: vec![
                servers,
                ServiceReload::new("new", ServiceFate::Added),
                ServiceReload::new("old", ServiceFate::Removed),
                ServiceReload::new("other", ServiceFate::Replaced),
                ServiceReload {
                    scheduler: Some(SchedulerReload::Done(SwapSnapshot {
                        from: generation("sh", 4),
                        to: generation("wlc", 5),
                        is_state_carried: true,
                        took_us: 9,
                    })),
                    undone: Some(generation("sh", 4)),
                    probation: Some(50),
                    record: Some(65_536),
                    ..service("web")
                },
                ServiceReload {
                    scheduler: Some(SchedulerReload::Planned {
                        from: generation("sh", 4),
                        to: generation("wlc", 0),
                    }),
                    ..service("web")
                },
                trial(TrialReload::Begun { candidate: candidate(), share: none }),
                trial(TrialReload::Share { candidate: candidate(), from: none, to: some }),
                trial(TrialReload::Ended { candidate: candidate(), is_undone: true }),
            ],
        })
    }
}

fn generation(plugin: &str, generation: u16) -> GenerationSnapshot {
    GenerationSnapshot { generation, plugin: plugin.to_owned() }
}

/// From port 1 what there is to say of a connection, else what of a new one.
fn explanation(question: &Question) -> ExplanationSnapshot {
    let server = "10.0.0.12:8080".parse().unwrap();
    let candidate =
        |address: &str, weight, active, inactive, out: Option<&str>| CandidateSnapshot {
            address: address.parse().unwrap(),
            weight,
            active,
            inactive,
            out: out.map(str::to_owned),
        };
    let connection = KnownConnectionSnapshot {
        service: Some("web".to_owned()),
        client: question.from,
        vip: question.to,
        local: None,
        server,
        is_reply: false,
        state: Some("ESTABLISHED".to_owned()),
        generation: 6,
        age_ms: 12_345,
        expires_in_ms: 887_000,
        is_forsaken: false,
    };
    let opening = OpeningSnapshot {
        service: "web".to_owned(),
        is_one_packet: false,
        stage: "regular".to_owned(),
        asked: Some(AskedSnapshot {
            plugin: "wlc".to_owned(),
            generation: 6,
            is_candidate: false,
            answer: "server".to_owned(),
            server: Some(server),
            reason: None,
            is_exact: true,
            took_us: 431,
        }),
        server: Some(server),
        chosen_by: "scheduler".to_owned(),
        otherwise: None,
        servers: vec![
            candidate("10.0.0.11:8080", 3, 25, 12, None),
            candidate("10.0.0.12:8080", 1, 0, 3, None),
            candidate("10.0.0.113:8080", 0, 2, 0, Some("weight 0, set by hand")),
        ],
    };
    let is_known = question.from.port() == 1;
    ExplanationSnapshot {
        protocol: question.protocol.to_string(),
        from: question.from,
        to: question.to,
        connection: is_known.then_some(connection),
        opening: (!is_known).then(|| FateSnapshot::Scheduled(Box::new(opening))),
        stray: (!is_known).then(|| FateSnapshot::Answered { reply: "reset".to_owned() }),
    }
}
