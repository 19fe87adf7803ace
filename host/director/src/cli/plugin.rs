//! `wvs plugin`: the plugins of a running director.

mod change;
mod list;

use clap::{Args, Subcommand};

/// Look at and change the scheduler plugins of a running director.
#[derive(Debug, Args)]
#[command(
    arg_required_else_help = true,
    after_help = "Examples:
  wvs plugin list                           what each service's plugin does
  wvs plugin swap web ./latency.wasm        give a service to another plugin
  wvs plugin rollback web                   and back
  wvs plugin shadow web ./latency.wasm      try one out without obeying it
  wvs plugin canary web 5%                  obey it for some of the clients
  wvs plugin promote web                    and for all

No connection is lost whatever is done here: only where new ones go changes. \
docs/OPERATIONS.md has more."
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
    }
}
