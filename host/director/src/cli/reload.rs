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

Puts to work what the file says now, all of it or nothing, as SIGHUP does. What did not change is not \
touched; a server that is no longer there keeps its connections as its service's `drain` says; what was \
changed at run time against the file goes, and is named. `device`, `routing`, `admin`, `limits`, `echo` and \
`closed_port` need a restart. `wvs check --diff` says beforehand what would change.")]
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
