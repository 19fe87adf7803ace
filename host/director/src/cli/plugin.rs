//! `wvs plugin`: the plugins of a running director, and tools for those who write them.

mod bench;
mod change;
mod check;
mod list;
mod new;
mod record;
mod simulate;
mod source;

use clap::{Args, Subcommand};

/// Look at and change the schedulers of a running director; make, try and measure new ones.
#[derive(Debug, Args)]
#[command(
    arg_required_else_help = true,
    after_help = "Examples, of a running director:
  wvs plugin list                           what each service's plugin does
  wvs plugin swap web ./latency.wasm        give a service to another plugin
  wvs plugin rollback web                   and back
  wvs plugin shadow web ./latency.wasm      try one out without obeying it
  wvs plugin canary web 5%                  obey it for some of the clients
  wvs plugin promote web                    and for all

Examples, without a director:
  wvs plugin new latency --lang c           a project that builds
  wvs plugin check latency.wasm             would a director take it?
  wvs plugin bench latency.wasm             how long does it take?
  wvs plugin simulate latency.wasm --servers 3,1,1 --against wlc

No connection is lost whatever is done here: only where new ones go changes. \
docs/OPERATIONS.md and docs/PLUGINS.md have more."
)]
pub(super) struct PluginArgs {
    #[command(subcommand)]
    command: PluginCommand,
}

#[derive(Debug, Subcommand)]
enum PluginCommand {
    List(list::ListArgs),
    Swap(change::SwapArgs),
    Rollback(change::RollbackArgs),
    Reset(change::ResetArgs),
    Shadow(change::ShadowArgs),
    Canary(change::CanaryArgs),
    Promote(change::PromoteArgs),
    Stop(change::StopArgs),
    Record(record::RecordArgs),
    New(new::NewArgs),
    Check(check::CheckArgs),
    Bench(bench::BenchArgs),
    Simulate(simulate::SimulateArgs),
}

pub(super) fn plugin(args: &PluginArgs) -> u8 {
    match &args.command {
        PluginCommand::List(args) => list::list(args),
        PluginCommand::Swap(args) => change::swap(args),
        PluginCommand::Rollback(args) => change::rollback(args),
        PluginCommand::Reset(args) => change::reset(args),
        PluginCommand::Shadow(args) => change::shadow(args),
        PluginCommand::Canary(args) => change::canary(args),
        PluginCommand::Promote(args) => change::promote(args),
        PluginCommand::Stop(args) => change::stop(args),
        PluginCommand::Record(args) => record::record(args),
        PluginCommand::New(args) => new::new(args),
        PluginCommand::Check(args) => check::check(args),
        PluginCommand::Bench(args) => bench::bench(args),
        PluginCommand::Simulate(args) => simulate::simulate(args),
    }
}
