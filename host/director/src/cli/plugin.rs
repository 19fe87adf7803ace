//! `wvs plugin`: what authors of schedulers need.

mod new;

use clap::{Args, Subcommand};

/// Make and try scheduler plugins.
#[derive(Debug, Args)]
pub(super) struct PluginArgs {
    #[command(subcommand)]
    command: PluginCommand,
}

#[derive(Debug, Subcommand)]
enum PluginCommand {
    New(new::NewArgs),
}

pub(super) fn plugin(args: &PluginArgs) -> u8 {
    match &args.command {
        PluginCommand::New(args) => new::new(args),
    }
}
