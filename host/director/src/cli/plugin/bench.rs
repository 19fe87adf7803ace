//! `wvs plugin bench`: what a plugin's decisions cost beside those of the built-in schedulers.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use clap::Args;
use clap::builder::RangedU64ValueParser;
use serde::Serialize;
use wvs_abi::Request;
use wvs_core::random::Random;
use wvs_plugin::simulation::{Requests, SERVERS_MAX, Servers};
use wvs_plugin::{Host, Instance, Module, builtin};

use super::source::{PluginSource, Trouble, read_config};
use crate::cli::{print, print_json};
use crate::output::grouped;

/// Rounds that each contestant has, of about this length.
const ROUNDS: usize = 51;
const ROUND: Duration = Duration::from_micros(500);

/// Rounds end before their number is reached when a plugin is so slow.
const SIZE_TIME_MAX: Duration = Duration::from_secs(3);

/// Different requests that the decisions are about.
const REQUESTS: usize = 1_024;
const SEED: u64 = 1;

/// Connections that a server has, at most, while it is decided over.
const CONNECTIONS_MAX: u64 = 1_000;

/// Measure what a decision of a plugin costs, beside the built-in schedulers.
///
/// They take turns in short rounds, so that what the machine does besides hits all of them alike;
/// the medians are shown. Nanoseconds are this machine's; ratios and fuel mean something elsewhere.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wvs plugin bench my.wasm
  wvs plugin bench my.wasm --servers 3,1000
  wvs plugin bench my.wasm --config @my.json --json

Exit status: 0 when it was measured, 1 when the plugin was refused or failed, 2 when a file cannot be \
read or an argument is wrong.")]
pub(super) struct BenchArgs {
    /// The plugin: a .wasm file, a .wat file, or a built-in scheduler's name.
    #[arg(value_name = "FILE")]
    plugin: PluginSource,

    /// Its configuration, as JSON or as @FILE with JSON in it.
    #[arg(long, value_name = "JSON|@FILE")]
    config: Option<String>,

    /// How many servers there are to choose from; several numbers make several tables.
    #[arg(
        long,
        value_name = "N,N",
        value_delimiter = ',',
        default_values_t = [3, 16, 256],
        value_parser = RangedU64ValueParser::<usize>::new().range(1..=SERVERS_MAX as u64),
    )]
    servers: Vec<usize>,

    /// Write the figures as JSON.
    #[arg(long)]
    json: bool,
}

/// The answer of `wvs plugin bench --json`.
#[derive(Serialize)]
struct Report {
    plugin: String,
    figures: Vec<Figure>,
}

/// What decisions of one scheduler over so many servers cost.
#[derive(Serialize)]
struct Figure {
    servers: usize,
    scheduler: String,
    /// The median of the rounds.
    ns: f64,
    /// On average.
    fuel: f64,
    /// How many times as long as this one's the plugin's decisions take.
    ratio: f64,
}

pub(super) fn bench(args: &BenchArgs) -> u8 {
    match measure(args) {
        Ok(report) if args.json => print_json(&report),
        Ok(report) => print(tell(&report).as_bytes()),
        Err(trouble) => trouble.tell(),
    }
}

fn measure(args: &BenchArgs) -> Result<Report, Trouble> {
    let config = read_config(args.config.as_deref())?;
    let host = Host::new().map_err(Trouble::failed)?;
    let plugin = (args.plugin.to_string(), args.plugin.load(&host)?, config);
    // One that does not get this far need not wait for the others.
    for servers in &args.servers {
        Contestant::new(&plugin, &table(*servers)?)?;
    }
    let mut entries = vec![plugin];
    for name in builtin::NAMES {
        let source = PluginSource::BuiltIn(name);
        if source != args.plugin {
            entries.push((source.to_string(), source.load(&host)?, None));
        }
    }
    let is_shown = !args.json && io::stderr().is_terminal();
    let mut figures = Vec::new();
    for servers in &args.servers {
        figures.extend(measure_size(&entries, *servers, is_shown)?);
    }
    Ok(Report { plugin: args.plugin.to_string(), figures })
}

/// So many servers of one weight.
fn table(servers: usize) -> Result<Servers, Trouble> {
    format!("{servers}x1").parse().map_err(Trouble::refused)
}

/// All contestants over so many servers.
fn measure_size(entries: &[Entry], servers: usize, is_shown: bool) -> Result<Vec<Figure>, Trouble> {
    let table = table(servers)?;
    let contestants = entries.iter().map(|entry| Contestant::new(entry, &table));
    let mut contestants = contestants.collect::<Result<Vec<_>, _>>()?;
    let start = Instant::now();
    for round in 0..ROUNDS {
        if is_shown && round % 10 == 0 {
            progress(&format!("{servers} servers: round {round} of {ROUNDS}"));
        }
        for contestant in &mut contestants {
            contestant.play()?;
        }
        if start.elapsed() > SIZE_TIME_MAX {
            break;
        }
    }
    if is_shown {
        progress("");
    }
    let medians: Vec<_> = contestants.iter_mut().map(Contestant::median).collect();
    let plugin = medians.first().copied().unwrap_or_default();
    let figure = |(contestant, ns): (Contestant<'_>, f64)| Figure {
        servers,
        scheduler: contestant.name.to_owned(),
        ns,
        fuel: contestant.fuel,
        ratio: plugin / ns,
    };
    Ok(contestants.into_iter().zip(medians).map(figure).collect())
}

/// Replaces the line on the terminal.
fn progress(line: &str) {
    // Where standard error is closed nobody looks.
    let _ = write!(io::stderr(), "\r\x1b[2K{line}").and_then(|()| io::stderr().flush());
}

/// A scheduler's name, module and configuration.
type Entry = (String, Module, Option<String>);

/// A scheduler that takes its turns.
struct Contestant<'b> {
    name: &'b str,
    instance: Instance,
    requests: Vec<Request>,
    counts: Vec<(u32, u32)>,
    /// The next of the requests.
    next: usize,
    picks_per_round: usize,
    fuel: f64,
    /// Nanoseconds of a decision in each round.
    rounds: Vec<f64>,
}

impl<'b> Contestant<'b> {
    fn new((name, module, config): &'b Entry, servers: &Servers) -> Result<Self, Trouble> {
        let refused = |error: &dyn std::fmt::Display| {
            let servers = servers.list().len();
            Trouble::failed(format_args!("{name}: with {servers} servers: {error}"))
        };
        let mut instance =
            Instance::new(module, config.as_deref()).map_err(|error| refused(&error))?;
        instance.set_servers(&servers.table()).map_err(|fault| refused(&fault))?;
        let mut random = Random::new(SEED);
        let arrivals = Requests::random(SEED, REQUESTS);
        let requests = arrivals.list().iter().map(|arrival| arrival.request(random.next()));
        let requests = requests.collect();
        let mut connections = || u32::try_from(random.next() % CONNECTIONS_MAX).unwrap_or(0);
        let counts = servers.list().iter().map(|_| (connections(), connections())).collect();
        let mut this = Self {
            name,
            instance,
            requests,
            counts,
            next: 0,
            picks_per_round: 1,
            fuel: 0.0,
            rounds: Vec::with_capacity(ROUNDS),
        };
        this.warm_up()?;
        Ok(this)
    }

    /// Finds out the fuel of a decision, and how many make a round.
    fn warm_up(&mut self) -> Result<(), Trouble> {
        let start = Instant::now();
        let mut fuel = 0;
        let mut picks = 0_usize;
        while picks < REQUESTS && (picks == 0 || start.elapsed() < ROUND * 10) {
            self.pick()?;
            fuel += self.instance.fuel_used();
            picks += 1;
        }
        let pick = start.elapsed().as_secs_f64() / picks as f64;
        self.fuel = fuel as f64 / picks as f64;
        let is_whole = pick > 0.0;
        let picks = if is_whole { ROUND.as_secs_f64() / pick } else { REQUESTS as f64 };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a number between 1 and a million"
        )]
        let picks = picks.clamp(1.0, 1e6) as usize;
        self.picks_per_round = picks;
        Ok(())
    }

    /// One round.
    fn play(&mut self) -> Result<(), Trouble> {
        let start = Instant::now();
        for _ in 0..self.picks_per_round {
            self.pick()?;
        }
        self.rounds.push(start.elapsed().as_nanos() as f64 / self.picks_per_round as f64);
        Ok(())
    }

    fn pick(&mut self) -> Result<(), Trouble> {
        let request = self.requests.get(self.next).copied().unwrap_or_default();
        self.next = (self.next + 1) % REQUESTS;
        match self.instance.schedule(&request, self.counts.iter().copied()) {
            Ok(_) => Ok(()),
            Err(fault) => Err(Trouble::failed(format_args!(
                "{}: with {} servers: {fault}",
                self.name,
                self.counts.len()
            ))),
        }
    }

    fn median(&mut self) -> f64 {
        self.rounds.sort_unstable_by(f64::total_cmp);
        self.rounds.get(self.rounds.len() / 2).copied().unwrap_or_default()
    }
}

fn tell(report: &Report) -> String {
    let Report { plugin, figures } = report;
    let width =
        figures.iter().map(|figure| figure.scheduler.chars().count()).max().unwrap_or(0).max(10);
    let mut text = format!("one decision of {plugin} beside the built-in schedulers\n");
    let mut servers = 0;
    for figure in figures {
        // Writing to a String cannot fail.
        if figure.servers != servers {
            servers = figure.servers;
            let title = format!("{} servers", grouped(servers as u64));
            let width = width + 2;
            let _ = writeln!(text, "{title:<width$}         ns       fuel   {plugin} takes");
        }
        let _ =
            write!(text, "  {:<width$}{:>11.1}{:>11.0}", figure.scheduler, figure.ns, figure.fuel);
        let _ = if figure.scheduler == *plugin {
            writeln!(text)
        } else {
            writeln!(text, "   {:.2} × {}", figure.ratio, figure.scheduler)
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_size_has_a_table_with_ratios() {
        let figure = |servers, scheduler: &str, ns: f64, fuel| Figure {
            servers,
            scheduler: scheduler.to_owned(),
            ns,
            fuel,
            ratio: 30.0 / ns,
        };
        let figures = vec![
            figure(3, "my.wasm", 30.0, 80.4),
            figure(3, "rr", 20.0, 75.0),
            figure(1_000, "my.wasm", 30.0, 80.0),
        ];
        let text = tell(&Report { plugin: "my.wasm".to_owned(), figures });
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines,
            [
                "one decision of my.wasm beside the built-in schedulers",
                "3 servers            ns       fuel   my.wasm takes",
                "  my.wasm          30.0         80",
                "  rr               20.0         75   1.50 × rr",
                "1,000 servers         ns       fuel   my.wasm takes",
                "  my.wasm          30.0         80",
            ]
        );
    }
}
