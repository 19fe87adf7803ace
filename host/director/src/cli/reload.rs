//! `wvs reload`: the running director reads its configuration again.

use clap::Args;

use super::socket::SocketArg;
use super::{print, print_json};
use crate::control::snapshot::ReloadSnapshot;
use crate::control::{self, Message, RELOAD};
use crate::output::reload as output;

/// Have the running director read its configuration again.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wvs reload
  wvs reload -c wvs.yaml      the director that runs with this configuration

Puts plugins and schedulers to work as the file says now, all of them or none, as SIGHUP does; what was swapped \
in while the director ran goes. Anything else that differs is named and needs a restart. `wvs check` \
says beforehand whether the file is good.")]
pub(super) struct ReloadArgs {
    /// Write what changed as JSON.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    director: SocketArg,
}

pub(super) fn reload(args: &ReloadArgs) -> u8 {
    let answer = args.director.converse(async |socket| {
        control::tell::<ReloadSnapshot>(&socket, RELOAD, Message::Empty).await
    });
    match answer {
        Ok(reloaded) if args.json => print_json(&reloaded),
        Ok(reloaded) => print(output::list(&reloaded).as_bytes()),
        Err(status) => status,
    }
}
