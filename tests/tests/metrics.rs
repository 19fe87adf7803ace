//! The metrics against a parser of their format, and what is built on them against the metrics:
//! the documentation, the dashboard and the alerts.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use openmetrics_parser::prometheus::parse_prometheus;
use openmetrics_parser::{MetricsExposition, PrometheusType, PrometheusValue};
use serde_json::Value;
use wvs::config::Reading;
use wvs::control::snapshot::{AdminSnapshot, DeviceSnapshot, ServiceSnapshot, StatsSnapshot};
use wvs::deployment::Deployment;
use wvs::metrics::Scrape;
use wvs::metrics::counters::{LineTotals, ReloadTotals, SweepTotals};
use wvs::metrics::families::{FAMILIES, Kind, Table};
use wvs::metrics::process::Process;
use wvs::run::VERSION;
use wvs::seat::Seat;
use wvs_core::connection::log::EndReason;
use wvs_core::director::Director;
use wvs_core::packet::Packet;
use wvs_core::roster::Standing;
use wvs_core::time::Moment;
use wvs_core::verdict::DropReason;
use wvs_plugin::{FaultKind, Host};
use wvs_tests::packet::{ACK, SYN, at, receive, tcp};
use wvs_tests::world::settings;

const SERVICES: &str = "
services:
  - name: web
    vip: 203.0.113.10
    port: 80
    scheduler: { plugin: rr, shadow: wlc }
    persistence: 5m
    servers: [{ address: 10.0.0.11, port: 8080 }, { address: 10.0.0.12, port: 8080, weight: 0 }]
  - name: dns
    vip: 2001:db8::53
    port: 53
    protocol: udp
    forward: fullnat
    servers: [{ address: fd00::1 }]
";

/// When everything happens.
const NOW: Moment = Moment::from_millis(1_000);

/// A director for these services, and who schedules for them.
struct Directed {
    director: Director,
    seats: Vec<Arc<Seat>>,
}

impl Directed {
    fn new() -> Self {
        let reading = Reading::of_text(Path::new("/wvs.yaml"), SERVICES);
        assert!(reading.is_usable(), "{:?}", reading.problems());
        let deployment =
            Deployment::new(reading.config(), &Host::new().unwrap(), || 1, Moment::default());
        let Deployment { services, seats, .. } = deployment.unwrap();
        Self { director: Director::new(settings(), services), seats }
    }

    fn send(&self, packet: &[u8]) -> Vec<u8> {
        let mut buffer = packet.to_vec();
        buffer.resize(packet.len() + Packet::HEADROOM, 0);
        let mut packet = Packet::new(&mut buffer, packet.len());
        let _ = self.director.process(&mut packet, NOW);
        packet.octets().to_vec()
    }

    fn scrape(&self) -> Scrape {
        Scrape {
            stats: StatsSnapshot {
                version: VERSION.to_owned(),
                uptime_seconds: 7,
                log_lines_lost: 9,
                admin: AdminSnapshot { bad_tokens: 40, locked_out: 41 },
                connections: (&self.director).into(),
                packets: (&self.director).into(),
                fragments: self.director.fragments().into(),
                device: DeviceSnapshot {
                    name: "wvs0".to_owned(),
                    mtu: 1_500,
                    queues: 2,
                    offload: "tcp+udp".to_owned(),
                    read: 11,
                    written: 12,
                    read_errors: 13,
                    write_errors: 14,
                    queue_full: 15,
                },
            },
            services: self.seats.iter().map(|seat| ServiceSnapshot::of(seat, NOW)).collect(),
            plugins: self.seats.iter().map(|seat| seat.as_ref().into()).collect(),
            sweeps: SweepTotals { sweeps: 20, micros: 1_500_000, longest_micros: 500_000 },
            reloads: ReloadTotals {
                done: 3,
                refused: 1,
                is_latest_refused: true,
                latest_seconds: 1_700_000_000,
            },
            connection_log: LineTotals {
                written: 30,
                above_rate: 31,
                queue_full: 32,
                not_written: 33,
            },
            process: Process::look(),
            start_time_seconds: 1_600_000_000,
            with_servers: true,
        }
    }
}

/// A scrape as a parser understands it.
struct Parsed(MetricsExposition<PrometheusType, PrometheusValue>);

impl Parsed {
    #[track_caller]
    fn of(text: &str) -> Self {
        Self(parse_prometheus(text).unwrap_or_else(|error| panic!("{error}\n{text}")))
    }

    /// The samples of a family: labels and value.
    #[track_caller]
    fn samples(&self, name: &str) -> Vec<(BTreeMap<String, String>, PrometheusValue)> {
        let family = self.0.families.get(name).unwrap_or_else(|| panic!("no family {name}"));
        let samples = family.iter_samples().map(|sample| {
            let labels = sample.get_labelset().unwrap();
            let labels = labels.iter().map(|(name, value)| (name.clone(), value.clone()));
            (labels.collect(), sample.value.clone())
        });
        samples.collect()
    }

    /// The value of the one sample that has these labels.
    #[track_caller]
    fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let has = |sample: &(BTreeMap<String, String>, _)| {
            labels.iter().all(|(name, value)| sample.0.get(*name).is_some_and(|at| at == value))
        };
        let found: Vec<_> =
            self.samples(name).into_iter().filter(has).map(|(_, value)| number(&value)).collect();
        let [value] = found[..] else { panic!("{name} {labels:?}: {found:?}") };
        value
    }
}

fn number(value: &PrometheusValue) -> f64 {
    match value {
        PrometheusValue::Gauge(number) | PrometheusValue::Unknown(number) => number.as_f64(),
        PrometheusValue::Counter(counter) => counter.value.as_f64(),
        other => panic!("{other:?} is no number"),
    }
}

#[test]
fn scrape_has_every_family_as_it_is_listed() {
    let text = Directed::new().scrape().render();
    let parsed = Parsed::of(&text);
    let names: BTreeSet<_> = parsed.0.families.keys().map(String::as_str).collect();
    let listed: BTreeSet<_> = FAMILIES.iter().map(|family| family.name).collect();
    assert_eq!(names, listed);
    for family in FAMILIES {
        let told = &parsed.0.families[family.name];
        assert_eq!(told.help, family.help);
        let kind = match told.family_type {
            PrometheusType::Counter => Kind::Counter,
            PrometheusType::Gauge => Kind::Gauge,
            PrometheusType::Histogram => Kind::Histogram,
            ref other => panic!("{}: {other:?}", family.name),
        };
        assert_eq!(kind, family.kind, "{}", family.name);
        let samples = parsed.samples(family.name);
        assert!(!samples.is_empty(), "{} has no sample", family.name);
        let labels: BTreeSet<_> = family.labels.iter().copied().collect();
        for (told, _) in samples {
            assert_eq!(told.keys().map(String::as_str).collect::<BTreeSet<_>>(), labels);
        }
    }
}

#[test]
fn every_drop_reason_and_kind_of_fault_is_there_from_the_start() {
    let parsed = Parsed::of(&Directed::new().scrape().render());
    for reason in DropReason::ALL {
        assert!(parsed.value("wvs_dropped_packets_total", &[("reason", reason.name())]) == 0.0);
    }
    assert_eq!(parsed.samples("wvs_dropped_packets_total").len(), DropReason::ALL.len());
    let faults = parsed.samples("wvs_scheduler_faults_total");
    assert_eq!(faults.len(), 2 * FaultKind::ALL.len());
}

#[test]
#[expect(clippy::float_cmp, reason = "whole numbers")]
fn values_are_those_of_the_director() {
    let directed = Directed::new();
    let (client, vip) = (at("198.51.100.7:40000"), at("203.0.113.10:80"));
    let first = tcp(client, vip, SYN);
    let server = receive(&directed.send(&first)).destination;
    directed.send(&tcp(server, client, SYN | ACK));
    directed.send(&tcp(client, vip, ACK));
    directed.send(b"\xffno packet");
    let parsed = Parsed::of(&directed.scrape().render());
    let octets = |packets: u32| f64::from(packets) * f64::from(u32::try_from(first.len()).unwrap());
    let (web, dns) = (("service", "web"), ("service", "dns"));
    let (rr, wlc) = (("plugin", "rr"), ("plugin", "wlc"));
    let server = ("server", "10.0.0.11:8080");
    for (name, labels, expected) in [
        ("wvs_packets_total", &[("verdict", "forwarded")][..], 3.0),
        ("wvs_packets_total", &[("verdict", "dropped")], 1.0),
        ("wvs_dropped_packets_total", &[("reason", "not_ip")], 1.0),
        ("wvs_connections", &[], 1.0),
        ("wvs_connections_max", &[], 1_000.0),
        ("wvs_half_open_connections", &[], 0.0),
        ("wvs_connections_opened_total", &[], 1.0),
        ("wvs_sweeps_total", &[], 20.0),
        ("wvs_sweep_seconds_total", &[], 1.5),
        ("wvs_sweep_seconds_max", &[], 0.5),
        ("wvs_device_info", &[("device", "wvs0"), ("offload", "tcp+udp")], 1.0),
        ("wvs_device_read_packets_total", &[], 11.0),
        ("wvs_device_written_packets_total", &[], 12.0),
        ("wvs_device_read_errors_total", &[], 13.0),
        ("wvs_device_write_errors_total", &[], 14.0),
        ("wvs_device_queue_full_packets_total", &[], 15.0),
        ("wvs_service_connections_total", &[web], 1.0),
        ("wvs_service_active_connections", &[web], 1.0),
        ("wvs_service_inactive_connections", &[web], 0.0),
        ("wvs_service_in_packets_total", &[web], 2.0),
        ("wvs_service_out_packets_total", &[web], 1.0),
        ("wvs_service_in_octets_total", &[web], octets(2)),
        ("wvs_service_out_octets_total", &[web], octets(1)),
        ("wvs_service_placed_total", &[web, ("by", "scheduler")], 1.0),
        ("wvs_service_placed_total", &[dns, ("by", "scheduler")], 0.0),
        ("wvs_service_servers", &[web], 2.0),
        ("wvs_service_available_servers", &[web], 1.0),
        ("wvs_service_down_servers", &[web], 0.0),
        ("wvs_service_stage", &[web, ("stage", "regular")], 1.0),
        ("wvs_service_stage", &[web, ("stage", "sorry")], 0.0),
        ("wvs_service_templates", &[web], 1.0),
        ("wvs_service_pool_places", &[dns], 64_512.0),
        ("wvs_scheduler_generation", &[web, rr], 1.0),
        ("wvs_scheduler_decisions_total", &[web, rr, ("outcome", "picked")], 1.0),
        ("wvs_scheduler_quarantined", &[dns, wlc], 0.0),
        ("wvs_trial_decisions_total", &[web, wlc], 1.0),
        ("wvs_server_weight", &[web, ("server", "10.0.0.12:8080")], 0.0),
        ("wvs_server_up", &[web, server], 1.0),
        ("wvs_server_connections_total", &[web, server], 1.0),
        ("wvs_server_active_connections", &[web, server], 1.0),
        ("wvs_server_in_packets_total", &[web, server], 2.0),
        ("wvs_server_out_octets_total", &[web, server], octets(1)),
        ("wvs_server_in_packets_total", &[dns, ("server", "[fd00::1]:53")], 0.0),
        ("wvs_reloads_total", &[("result", "done")], 3.0),
        ("wvs_reloads_total", &[("result", "refused")], 1.0),
        ("wvs_latest_reload_refused", &[], 1.0),
        ("wvs_latest_reload_seconds", &[], 1_700_000_000.0),
        ("wvs_log_lines_lost_total", &[], 9.0),
        ("wvs_admin_refused_requests_total", &[("reason", "bad_token")], 40.0),
        ("wvs_admin_refused_requests_total", &[("reason", "locked_out")], 41.0),
        ("wvs_connection_log_lines_total", &[], 30.0),
        ("wvs_connection_log_left_out_total", &[("reason", "above_rate")], 31.0),
        ("wvs_connection_log_left_out_total", &[("reason", "queue_full")], 32.0),
        ("wvs_connection_log_left_out_total", &[("reason", "not_written")], 33.0),
        ("wvs_start_time_seconds", &[], 1_600_000_000.0),
    ] {
        assert_eq!(parsed.value(name, labels), expected, "{name} {labels:?}");
    }
    // Without a pool there is nothing to tell of one.
    assert_eq!(parsed.samples("wvs_service_pool_places").len(), 1);
}

#[test]
#[expect(clippy::float_cmp, reason = "whole numbers")]
fn server_that_is_down_is_told_apart_from_one_that_gets_no_connections() {
    let directed = Directed::new();
    let web = directed.seats[0].service();
    let change = |standing: &mut Standing| standing.is_down = true;
    web.change_server(at("10.0.0.11:8080"), NOW, change).unwrap();
    let parsed = Parsed::of(&directed.scrape().render());
    let of_service = |name| parsed.value(name, &[("service", "web")]);
    assert_eq!(of_service("wvs_service_down_servers"), 1.0);
    assert_eq!(of_service("wvs_service_available_servers"), 0.0);
    let is_up = |server| parsed.value("wvs_server_up", &[("service", "web"), ("server", server)]);
    assert_eq!([is_up("10.0.0.11:8080"), is_up("10.0.0.12:8080")], [0.0, 1.0]);
}

#[test]
fn times_of_decisions_are_a_histogram() {
    let directed = Directed::new();
    // One in 64 is timed, beginning with the first.
    for number in 1..=65 {
        // Clients that nobody knows yet, who else go where they were before.
        let client = format!("198.51.100.{number}:40000");
        directed.send(&tcp(at(&client), at("203.0.113.10:80"), SYN));
    }
    let parsed = Parsed::of(&directed.scrape().render());
    let samples = parsed.samples("wvs_scheduler_pick_seconds");
    let [(_, PrometheusValue::Histogram(web)), (_, PrometheusValue::Histogram(_))] = &samples[..]
    else {
        panic!("{samples:?}")
    };
    assert_eq!(web.count, Some(2));
    assert_eq!(web.buckets.len(), 16);
    assert_eq!(web.buckets.last().unwrap().count.as_f64().to_bits(), 2_f64.to_bits());
    let limits: Vec<_> = web.buckets.iter().map(|bucket| bucket.upper_bound).collect();
    assert!(limits.is_sorted() && limits[0] < 1e-7 && limits[14] > 1e-3, "{limits:?}");
    assert!(web.sum.unwrap().as_f64() > 0.0);
}

#[test]
fn real_servers_are_told_of_only_where_asked_for() {
    let text = Scrape { with_servers: false, ..Directed::new().scrape() }.render();
    assert!(!text.contains("wvs_server_") && text.contains("wvs_service_"));
    Parsed::of(&text);
}

#[test]
fn whatever_is_in_a_name_comes_back_from_the_parser() {
    let name = "a \"b\" \\ c\n{d=\"e\"} 1";
    let mut scrape = Directed::new().scrape();
    scrape.services[0].name = name.to_owned();
    let parsed = Parsed::of(&scrape.render());
    let samples = parsed.samples("wvs_service_servers");
    assert!(samples.iter().any(|(labels, _)| labels["service"] == name), "{samples:?}");
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn documentation_shows_every_metric_and_why_connections_end_and_packets_are_dropped() {
    let path = workspace().join("docs/OPERATIONS.md");
    let text = fs::read_to_string(&path).unwrap();
    let mut reasons = "| reason | |\n| --- | --- |\n".to_owned();
    for reason in EndReason::ALL {
        reasons += &format!("| `{reason}` | {} |\n", reason.description());
    }
    let mut drops = "| reason | |\n| --- | --- |\n".to_owned();
    for reason in DropReason::ALL {
        drops += &format!("| `{}` | {} |\n", reason.name(), reason.description());
    }
    let mut corrected = text.clone();
    for (name, table) in [("metrics", Table.to_string()), ("reasons", reasons), ("drops", drops)] {
        let (start, end) = (format!("<!-- {name} -->\n"), format!("<!-- end of {name} -->"));
        let (before, rest) = corrected.split_once(&start).expect("a place for the table");
        let (_, after) = rest.split_once(&end).expect("an end of the table");
        corrected = format!("{before}{start}{table}{end}{after}");
    }
    if std::env::var_os("WVS_UPDATE_DOCS").is_some() {
        fs::write(&path, &corrected).unwrap();
    } else {
        assert!(text == corrected, "docs/OPERATIONS.md is behind: run this with WVS_UPDATE_DOCS=1");
    }
}

/// The names of our metrics in an expression of PromQL.
fn metrics_in(expression: &str) -> BTreeSet<&str> {
    expression
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with("wvs_") || word.starts_with("process_"))
        .collect()
}

/// Asserts that an expression asks for something, and for nothing that there is not.
#[track_caller]
fn assert_exist(parsed: &Parsed, expression: &str) -> BTreeSet<String> {
    let names = metrics_in(expression);
    assert!(!names.is_empty(), "{expression} asks for nothing of ours");
    let mut families = BTreeSet::new();
    for name in names {
        let family = ["_bucket", "_sum", "_count"]
            .into_iter()
            .find_map(|suffix| {
                let family = name.strip_suffix(suffix)?;
                let is_histogram = FAMILIES
                    .iter()
                    .any(|known| known.name == family && known.kind == Kind::Histogram);
                is_histogram.then_some(family)
            })
            .unwrap_or(name);
        assert!(!parsed.samples(family).is_empty(), "{name} in {expression}");
        let labels = FAMILIES.iter().find(|known| known.name == family).unwrap().labels;
        families.insert(family.to_owned());
        // `{` right behind the name begins the labels that it is chosen by.
        let Some((_, rest)) = expression.split_once(&format!("{name}{{")) else { continue };
        let chosen = rest.split_once('}').unwrap().0;
        for part in chosen.split(',') {
            let label = part.split(['=', '!']).next().unwrap().trim();
            let is_known = label == "instance" || label == "le" || labels.contains(&label);
            assert!(is_known, "{name} has no label {label}: {expression}");
        }
    }
    families
}

#[test]
fn dashboard_asks_for_nothing_that_there_is_not() {
    let text = fs::read_to_string(workspace().join("examples/grafana/wvs-dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let parsed = Parsed::of(&Directed::new().scrape().render());
    assert!(dashboard["uid"].is_string() && dashboard["schemaVersion"].is_u64());
    let (mut ids, mut families) = (BTreeSet::new(), BTreeSet::new());
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{panel}");
        let place = &panel["gridPos"];
        assert!(place["x"].as_u64().unwrap() + place["w"].as_u64().unwrap() <= 24, "{panel}");
        if panel["type"] == "row" {
            continue;
        }
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{panel}");
        for target in targets {
            families.extend(assert_exist(&parsed, target["expr"].as_str().unwrap()));
        }
    }
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        if variable["type"] == "query" {
            assert_exist(&parsed, variable["query"]["query"].as_str().unwrap());
        }
    }
    for annotation in dashboard["annotations"]["list"].as_array().unwrap() {
        assert_exist(&parsed, annotation["expr"].as_str().unwrap());
    }
    assert!(families.len() > 40, "{}", families.len());
}

/// A file of alert rules as Prometheus reads it.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Alerts {
    groups: Vec<Group>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    name: String,
    rules: Vec<Rule>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    alert: String,
    expr: String,
    r#for: Option<String>,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
}

#[test]
fn alerts_ask_for_nothing_that_there_is_not() {
    let text = fs::read_to_string(workspace().join("examples/prometheus/alerts.yaml")).unwrap();
    let alerts: Alerts = serde_yaml::from_str(&text).unwrap();
    let parsed = Parsed::of(&Directed::new().scrape().render());
    let mut names = BTreeSet::new();
    for group in alerts.groups {
        assert!(!group.name.is_empty());
        for rule in group.rules {
            let Rule { alert, expr, r#for: pause, labels, annotations } = rule;
            assert!(names.insert(alert.clone()), "{alert} is there twice");
            assert_exist(&parsed, &expr);
            assert_eq!(expr.matches('(').count(), expr.matches(')').count(), "{expr}");
            let is_duration = |text: &String| {
                let (number, unit) = text.split_at(text.len() - 1);
                number.parse::<u32>().is_ok() && "smh".contains(unit)
            };
            assert!(pause.as_ref().is_none_or(is_duration), "{alert}: {pause:?}");
            assert!(["info", "warning", "critical"].contains(&labels["severity"].as_str()));
            assert!(annotations["summary"].len() > 20, "{alert}");
            for text in annotations.values() {
                assert_eq!(text.matches("{{").count(), text.matches("}}").count(), "{text}");
            }
        }
    }
    for name in [
        "DirectorRestarted",
        "DropsRising",
        "TableNearlyFull",
        "SchedulerFaults",
        "SchedulerQuarantined",
        "ServerDown",
        "NoServerAvailable",
        "ReloadRefused",
        "QueueFull",
    ] {
        assert!(names.contains(name), "{name}");
    }
}
