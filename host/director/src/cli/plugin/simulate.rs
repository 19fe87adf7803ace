//! `wvs plugin simulate`: a plugin at work, without a director.

mod chart;
mod golden;
mod replay;

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use serde::Serialize;
use wvs_plugin::simulation::{
    Comparison, Difference, Disruption, Outcome, REQUESTS_MAX, Requests, Servers, Simulation, Step,
    Tally,
};
use wvs_plugin::{Host, Limits};

use super::source::{PluginSource, Trouble, read_config, read_text};
use crate::cli::{FAILED, print, print_json};
use crate::output::{count, grouped};
use golden::{Deviation, Golden};

/// Octets of a file with requests: more than as many as are allowed need.
const REQUESTS_OCTETS_MAX: usize = 128 << 20;

/// What stands before the seed and the number of random requests.
const RANDOM: &str = "random:";

/// Servers shown of a list; JSON has all.
const SERVERS_SHOWN_MAX: usize = 64;

/// Put a plugin to simulated connections, and see what it makes of them.
///
/// The clock is a virtual one, connections open and close, servers come and go, and counters are what
/// follows from it. The same inputs give the same output, octet for octet, on every machine.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wvs plugin simulate my.wasm
  wvs plugin simulate my.wasm --servers 3,1,1 --requests random:7:100000 --chart shares.svg
  wvs plugin simulate my.wasm --servers 16x1,1@5000.. --against wlc
  wvs plugin simulate my.wasm --requests log.csv --golden log.golden --update
  wvs plugin simulate my.wasm --requests log.csv --golden log.golden
  wvs plugin simulate my.wasm --replay web.recording

Servers are separated by commas, each of them one of
  3                a server of weight 3
  16x1             sixteen servers of weight 1
  10.0.0.1:80=3    a server of weight 3 at this address; without =3, of weight 1
and with @FROM..TO behind it, in milliseconds, when it comes after the start (1@5000..), goes before \
the end (1@..5000), or both. One that goes and comes back is there twice:
  10.0.0.1:80@..5000,10.0.0.1:80@9000..

Requests are a file, sorted by time, with a first line that names the fields:
  at_ms,client,port,duration_ms
  0,198.51.100.7,40001,350
  12,198.51.100.9,40002,15000
or random:SEED:COUNT: a request each 2 ms from COUNT/10 clients, open for a second, on average.

A closed connection counts as inactive for 2 minutes, and then is over. A client's disruption is that it gets another \
server although its own stayed; for that, up to 1,000 clients are asked again with each of up to 8 \
servers gone and back. Plugins that want to are told of connections and tick; signals of servers are 0. What a plugin fails at, \
the director decides, as in `wvs run`.

Exit status: 0 when done, 1 when the plugin was refused, failed, or decided otherwise than recorded, \
2 when a file cannot be read or an argument is wrong.")]
pub(super) struct SimulateArgs {
    /// The plugin: a .wasm file, a .wat file, or a built-in scheduler's name.
    #[arg(value_name = "FILE")]
    plugin: PluginSource,

    /// Its configuration, as JSON or as @FILE with JSON in it.
    #[arg(long, value_name = "JSON|@FILE")]
    config: Option<String>,

    /// The servers, as said below.
    #[arg(long, value_name = "SPEC", default_value = "3,2,1")]
    servers: Servers,

    /// The requests, as said below.
    #[arg(long, value_name = "FILE|random:SEED:COUNT", default_value = "random:1:10000")]
    requests: RequestsSource,

    /// Another plugin, to be asked the same: says where it first answers otherwise.
    #[arg(long, value_name = "NAME|FILE")]
    against: Option<PluginSource>,

    /// The other plugin's configuration.
    #[arg(long, value_name = "JSON|@FILE", requires = "against")]
    against_config: Option<String>,

    /// A file with the decisions of an earlier run: says where this one first differs.
    #[arg(long, value_name = "FILE")]
    golden: Option<PathBuf>,

    /// Write this run's decisions to the golden file instead.
    #[arg(long, requires = "golden")]
    update: bool,

    /// Draw the servers' shares over time.
    #[arg(long, value_name = "FILE.svg")]
    chart: Option<PathBuf>,

    /// Put to it what a director recorded, see `wvs plugin record`, and say where it first answers
    /// otherwise.
    #[arg(long, value_name = "FILE", conflicts_with_all = [
        "config", "servers", "requests", "against", "golden", "chart",
    ])]
    replay: Option<PathBuf>,

    /// Write the answer as JSON.
    #[arg(long)]
    json: bool,
}

/// Where requests come from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum RequestsSource {
    Random { seed: u64, count: usize },
    File(PathBuf),
}

/// The answer of `wvs plugin simulate --json`.
#[derive(Serialize)]
struct Report {
    plugin: String,
    #[serde(flatten)]
    outcome: Outcome,
    disruption: Option<Disruption>,
    against: Option<AgainstReport>,
    golden: Option<GoldenReport>,
}

/// How another plugin answered.
#[derive(Serialize)]
struct AgainstReport {
    plugin: String,
    agreed: u64,
    first_difference: Option<Difference>,
    tally: Tally,
}

/// What the golden file has to say.
#[derive(Serialize)]
struct GoldenReport {
    file: PathBuf,
    is_updated: bool,
    first_deviation: Option<Deviation>,
}

impl FromStr for RequestsSource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some(numbers) = text.strip_prefix(RANDOM) else { return Ok(Self::File(text.into())) };
        let read = || {
            let (seed, count) = numbers.split_once(':')?;
            Some((seed.parse().ok()?, count.parse().ok()?))
        };
        match read() {
            Some((seed, count @ 1..=REQUESTS_MAX)) => Ok(Self::Random { seed, count }),
            _ => Err(format!(
                "write random:SEED:COUNT with two numbers, COUNT from 1 to {REQUESTS_MAX}"
            )),
        }
    }
}

impl RequestsSource {
    fn read(&self) -> Result<Requests, Trouble> {
        match self {
            Self::Random { seed, count } => Ok(Requests::random(*seed, *count)),
            Self::File(path) => Requests::from_csv(&read_text(path, REQUESTS_OCTETS_MAX)?)
                .map_err(|error| Trouble::refused(format_args!("{}: {error}", path.display()))),
        }
    }
}

impl Report {
    /// Whether a plugin's author has something to look after.
    fn is_good(&self) -> bool {
        let has_deviation = self.golden.as_ref().is_some_and(|g| g.first_deviation.is_some());
        self.outcome.tally.faults == 0 && !has_deviation
    }
}

pub(super) fn simulate(args: &SimulateArgs) -> u8 {
    if let Some(recording) = &args.replay {
        return replay::replay(&args.plugin, recording, args.json);
    }
    let report = match run(args) {
        Ok(report) => report,
        Err(trouble) => return trouble.tell(),
    };
    let told = if args.json { print_json(&report) } else { print(tell(&report).as_bytes()) };
    if report.is_good() { told } else { FAILED }
}

fn run(args: &SimulateArgs) -> Result<Report, Trouble> {
    let plugin = &args.plugin;
    let config = read_config(args.config.as_deref())?;
    let config = config.as_deref();
    let against_config = read_config(args.against_config.as_deref())?;
    let requests = args.requests.read()?;
    let mut golden =
        args.golden.as_deref().map(|path| Golden::open(path, args.update)).transpose()?;
    let host = Host::new().map_err(Trouble::failed)?;
    let module = plugin.load(&host)?;
    let mut comparison = args
        .against
        .as_ref()
        .map(|other| {
            Comparison::new(&other.load(&host)?, against_config.as_deref(), args.servers.table())
                .map_err(|error| Trouble::failed(format_args!("{other}: {error}")))
        })
        .transpose()?;

    let simulation = Simulation::new(args.servers.clone(), requests);
    let watch = |step: &Step<'_>| {
        if let Some(golden) = &mut golden {
            golden.follow(step);
        }
        if let Some(comparison) = &mut comparison {
            comparison.follow(step);
        }
    };
    let refused = |error| Trouble::failed(format_args!("{plugin}: {error}"));
    let outcome = simulation.watch(&module, config, watch).map_err(refused)?;
    let disruption = simulation.disruption(&module, config).map_err(refused)?;

    if let Some(path) = &args.chart {
        let svg = chart::draw(&plugin.to_string(), &outcome);
        fs::write(path, svg).map_err(|cause| {
            Trouble::failed(format_args!("{} cannot be written: {cause}", path.display()))
        })?;
    }
    let golden = golden.map(Golden::finish).transpose()?;
    let golden = golden.zip(args.golden.as_ref()).map(|(first_deviation, file)| GoldenReport {
        file: file.clone(),
        is_updated: args.update,
        first_deviation,
    });
    let against = comparison.zip(args.against.as_ref()).map(|(comparison, other)| AgainstReport {
        plugin: other.to_string(),
        agreed: comparison.agreed(),
        first_difference: comparison.first_difference().cloned(),
        tally: comparison.into_tally(),
    });
    Ok(Report { plugin: plugin.to_string(), outcome, disruption, against, golden })
}

fn tell(report: &Report) -> String {
    let Report { plugin, outcome, disruption, against, golden } = report;
    let mut text = String::new();
    tell_outcome(&mut text, plugin, outcome);
    if let Some(disruption) = disruption {
        tell_disruption(&mut text, disruption);
    }
    if let Some(against) = against {
        tell_against(&mut text, plugin, against, outcome.requests);
    }
    if let Some(GoldenReport { file, is_updated, first_deviation }) = golden {
        let file = file.display();
        // Writing to a String cannot fail.
        let _ = match first_deviation {
            _ if *is_updated => writeln!(text, "golden: {file} has this run's decisions now"),
            None => writeln!(text, "golden: every decision is as in {file}"),
            Some(deviation) => writeln!(text, "golden: {file}: {deviation}"),
        };
    }
    text
}

fn tell_outcome(text: &mut String, plugin: &str, outcome: &Outcome) {
    let Outcome { requests, placed, milliseconds, servers, tally, .. } = outcome;
    let _ = writeln!(
        text,
        "{plugin}: {} in {}.{:03} s over {}",
        many(*requests, "request", "requests"),
        milliseconds / 1_000,
        milliseconds % 1_000,
        count(servers.len() as u64, "server", "servers"),
    );
    let addresses = servers.iter().map(|server| server.address.to_string());
    let width = addresses.map(|address| address.len()).max().unwrap_or(0).max("server".len());
    let _ = writeln!(
        text,
        "  {:<width$} weight  connections    share  by weight  most active",
        "server"
    );
    for server in servers.iter().take(SERVERS_SHOWN_MAX) {
        let _ = writeln!(
            text,
            "  {:<width$} {:>6} {:>12} {:>6.1} % {:>8.1} % {:>12}",
            server.address.to_string(),
            server.weight,
            grouped(server.placed),
            server.share * 100.0,
            server.due * 100.0,
            grouped(u64::from(server.active_max)),
        );
    }
    if servers.len() > SERVERS_SHOWN_MAX {
        let _ = writeln!(text, "  and {} more; --json has all", servers.len() - SERVERS_SHOWN_MAX);
    }
    let Tally { picks, no_server, defers, faults, quarantines, unavailable, .. } = tally;
    let _ = writeln!(
        text,
        "placed: {}, {} of them by the plugin; no server: {}; left to the director: {}",
        grouped(*placed),
        grouped(*picks),
        grouped(*no_server),
        grouped(*defers),
    );
    let _ = writeln!(
        text,
        "fuel of a decision: {:.0} on average, {} at most, {:.2} % of the limit",
        tally.fuel_mean,
        grouped(tally.fuel_max),
        tally.fuel_max as f64 * 100.0 / Limits::default().fuel as f64,
    );
    if tally.events + tally.ticks > 0 {
        let _ = writeln!(
            text,
            "told of: {}; ticks: {}",
            many(tally.events, "event", "events"),
            grouped(tally.ticks)
        );
    }
    match &tally.first_fault {
        None => text.push_str("faults: none\n"),
        Some(first) => {
            let _ = writeln!(
                text,
                "faults: {}, {}, {} decided without it; the first at request {}: {}",
                grouped(*faults),
                many(*quarantines, "quarantine", "quarantines"),
                many(*unavailable, "request", "requests"),
                grouped(first.request),
                first.fault,
            );
        }
    }
}

fn tell_disruption(text: &mut String, disruption: &Disruption) {
    let Disruption { clients, removals, moved_unchanged, moved_on_removal, moved_on_return } =
        disruption;
    let _ = writeln!(
        text,
        "disruption: {}, {} removed and brought back, one at a time",
        many(*clients as u64, "client", "clients"),
        count(*removals as u64, "server", "servers"),
    );
    for (part, what) in [
        (moved_unchanged, "of the clients got another server when nothing had changed"),
        (moved_on_removal, "of those whose server stayed got another one when one was removed"),
        (moved_on_return, "of those that stayed with the others got another one when it came back"),
    ] {
        let _ = writeln!(text, "  {:>5.1} % {what}", part * 100.0);
    }
}

fn tell_against(text: &mut String, plugin: &str, against: &AgainstReport, requests: u64) {
    let AgainstReport { plugin: other, agreed, first_difference, tally } = against;
    let _ = writeln!(
        text,
        "against {other}: the same answer to {} of {}",
        grouped(*agreed),
        many(requests, "request", "requests"),
    );
    if let Some(first) = &tally.first_fault {
        let _ = writeln!(
            text,
            "  {other} failed, first at request {}: {}",
            grouped(first.request),
            first.fault
        );
    }
    let Some(Difference { number, at_ms, client, servers, expected, found }) = first_difference
    else {
        return;
    };
    let _ = writeln!(
        text,
        "  they first differ at request {}, which comes from {client} at {at_ms} ms:",
        grouped(*number)
    );
    let width = plugin.chars().count().max(other.chars().count());
    let _ = writeln!(text, "    {plugin:<width$}  {expected}");
    let _ = writeln!(text, "    {other:<width$}  {found}");
    let _ = writeln!(text, "  over these servers:");
    for server in servers.iter().take(SERVERS_SHOWN_MAX) {
        let address = server.address.map_or_else(|| "-".to_owned(), |a| a.to_string());
        let _ = writeln!(
            text,
            "    {address}  weight {}, {} active, {} inactive",
            server.weight, server.active, server.inactive
        );
    }
    if servers.len() > SERVERS_SHOWN_MAX {
        let _ =
            writeln!(text, "    and {} more; --json has all", servers.len() - SERVERS_SHOWN_MAX);
    }
}

/// [`count`] with grouped digits.
fn many(number: u64, one: &str, several: &str) -> String {
    format!("{} {}", grouped(number), if number == 1 { one } else { several })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_requests_are_named_by_two_numbers() {
        let read = |text: &str| text.parse::<RequestsSource>();
        assert_eq!(read("random:7:1"), Ok(RequestsSource::Random { seed: 7, count: 1 }));
        assert_eq!(read("log.csv"), Ok(RequestsSource::File("log.csv".into())));
        for text in [
            "random:",
            "random:1",
            "random:1:0",
            "random:1:1000001",
            "random:-1:1",
            "random:1:2:3",
            "random:18446744073709551616:1",
            "random:1:18446744073709551616",
        ] {
            assert!(read(text).unwrap_err().contains("COUNT from 1 to 1000000"), "{text}");
        }
    }
}
