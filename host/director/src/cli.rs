//! The command line.

mod capture;
mod check;
mod connections;
mod demo;
mod doctor;
mod explain;
mod import;
mod list;
mod manuals;
mod plugin;
mod reload;
mod replay;
mod run;
mod schema;
mod server;
mod socket;

use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use tokio::runtime::{Builder, Runtime};

use crate::logging;

/// Done.
const DONE: u8 = 0;
/// Tried and failed.
const FAILED: u8 = 1;
/// Not tried: wrong usage, or a bad file.
const REFUSED: u8 = 2;

/// The WebAssembly Virtual Server: an LVS-NAT director whose schedulers are WebAssembly plugins.
///
/// Clients connect to virtual services; the director sends each connection to one of a service's
/// real servers, which its scheduler, a sandboxed plugin, chooses.
#[derive(Debug, Parser)]
#[command(
    name = "wvs",
    version,
    max_term_width = 100,
    arg_required_else_help = true,
    after_help = "Examples:
  wvs demo                 show all of it at work, touching nothing
  wvs check -c wvs.yaml    say everything that is wrong with a configuration
  wvs run -c wvs.yaml      run the director
  wvs doctor -c wvs.yaml   find what keeps it from working, and what mends that
  wvs list                 show the running director's services and servers
  wvs connections          show its connections
  wvs drain web 10.0.0.11  empty a real server
  wvs explain 198.51.100.7:40000 203.0.113.10:80
                           say what it would do with a packet, and why
  wvs plugin swap web wlc  give a service to another scheduler while it runs
  wvs reload               have it read its configuration again
  wvs capture web --dropped -o web.pcapng
                           record its packets, and what became of each
  wvs replay in.pcap -c wvs.yaml -o out.pcap
                           see what a director would do with captured packets
  wvs import ipvsadm       make a configuration of the rules of ipvsadm, or of keepalived
  wvs schema               tell editors what a configuration may hold
  wvs plugin check my.wasm try a scheduler of your own

Exit status: 0 done, 1 failed, 2 wrong usage or a bad configuration."
)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::RunArgs),
    Check(check::CheckArgs),
    Doctor(doctor::DoctorArgs),
    List(list::ListArgs),
    Connections(connections::ConnectionsArgs),
    Drain(server::DrainArgs),
    Enable(server::EnableArgs),
    Weight(server::WeightArgs),
    Explain(explain::ExplainArgs),
    Plugin(plugin::PluginArgs),
    Reload(reload::ReloadArgs),
    Capture(capture::CaptureArgs),
    Replay(replay::ReplayArgs),
    Import(import::ImportArgs),
    Schema(schema::SchemaArgs),
    Demo(demo::DemoArgs),
    Completions(CompletionsArgs),
    Manuals(manuals::ManualsArgs),
}

/// Print a script that completes wvs commands in a shell.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wvs completions bash > /etc/bash_completion.d/wvs
  wvs completions fish > ~/.config/fish/completions/wvs.fish")]
struct CompletionsArgs {
    /// The shell.
    shell: Shell,
}

/// The configuration.
#[derive(Debug, Args)]
struct ConfigArg {
    /// The configuration, a YAML file.
    #[arg(short, long = "config", value_name = "FILE")]
    config: PathBuf,
}

/// Reads the command line, acts, and says how it went.
pub(crate) fn main() -> ExitCode {
    let code = match CommandLine::try_parse() {
        Ok(CommandLine { command }) => match command {
            Command::Run(args) => run::run(&args),
            Command::Check(args) => check::check(&args),
            Command::Doctor(args) => doctor::doctor(&args),
            Command::List(args) => list::list(&args),
            Command::Connections(args) => connections::connections(&args),
            Command::Drain(args) => server::drain(&args),
            Command::Enable(args) => server::enable(&args),
            Command::Weight(args) => server::weight(&args),
            Command::Explain(args) => explain::explain(&args),
            Command::Plugin(args) => plugin::plugin(&args),
            Command::Reload(args) => reload::reload(&args),
            Command::Capture(args) => capture::capture(&args),
            Command::Replay(args) => replay::replay(&args),
            Command::Import(args) => import::import(&args),
            Command::Schema(args) => schema::schema(&args),
            Command::Demo(args) => demo::demo(&args),
            Command::Manuals(args) => manuals::manuals(&args),
            Command::Completions(CompletionsArgs { shell }) => {
                let mut script = Vec::new();
                clap_complete::generate(shell, &mut CommandLine::command(), "wvs", &mut script);
                print(&script)
            }
        },
        Err(error) => {
            // To standard output for help, else to standard error. Where that is closed there is
            // nobody to tell.
            let _ = error.print();
            u8::try_from(error.exit_code()).unwrap_or(REFUSED)
        }
    };
    logging::flush();
    ExitCode::from(code)
}

/// Writes to standard output. A reader that has seen enough, such as `head`, is no failure.
fn print(octets: &[u8]) -> u8 {
    // What was said before also stands before it where both go to the same place.
    logging::flush();
    let mut output = io::stdout().lock();
    match output.write_all(octets).and_then(|()| output.flush()) {
        Ok(()) => DONE,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => DONE,
        Err(error) => fail(format_args!("cannot write to standard output: {error}")),
    }
}

/// Writes a value as JSON to standard output, for programs.
fn print_json(value: &impl serde::Serialize) -> u8 {
    match serde_json::to_vec_pretty(value) {
        Ok(mut text) => {
            text.push(b'\n');
            print(&text)
        }
        Err(error) => fail(format_args!("cannot write JSON: {error}")),
    }
}

/// Says what failed.
fn fail(what: impl fmt::Display) -> u8 {
    complain(what);
    FAILED
}

/// Says what is wrong with what was asked for.
fn refuse(what: impl fmt::Display) -> u8 {
    complain(what);
    REFUSED
}

fn complain(what: impl fmt::Display) {
    logging::complain(format_args!("wvs: {what}"));
}

/// The runtime for everything but packets, which have a thread of their own.
fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}
