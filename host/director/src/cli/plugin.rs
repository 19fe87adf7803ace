//! `wvs plugin`: tools for authors of schedulers.

mod bench;
mod check;
mod new;
mod simulate;
mod source;

use clap::{Args, Subcommand};

/// Make, try, measure and simulate schedulers, without a director.
#[derive(Debug, Args)]
#[command(
    arg_required_else_help = true,
    after_help = "Examples:
  wvs plugin new my --lang c
  wvs plugin check my.wasm
  wvs plugin bench my.wasm
  wvs plugin simulate my.wasm --servers 3,1,1 --against wlc"
)]
pub(super) struct PluginArgs {
    #[command(subcommand)]
    command: PluginCommand,
}

#[derive(Debug, Subcommand)]
enum PluginCommand {
    New(new::NewArgs),
    Check(check::CheckArgs),
    Bench(bench::BenchArgs),
    Simulate(simulate::SimulateArgs),
}

pub(super) fn plugin(args: &PluginArgs) -> u8 {
    match &args.command {
        PluginCommand::New(args) => new::new(args),
        PluginCommand::Check(args) => check::check(args),
        PluginCommand::Bench(args) => bench::bench(args),
        PluginCommand::Simulate(args) => simulate::simulate(args),
    }
}
