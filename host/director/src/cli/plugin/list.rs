//! `wvs plugin list`: what the plugins of the running director do.

use clap::Args;

use super::super::socket::SocketArg;
use super::super::{fail, print, print_json};
use crate::control::snapshot::PluginsSnapshot;
use crate::control::{self, PLUGINS};
use crate::output::plugins;

/// Show what each service's plugin does, what it costs, and how a trial goes.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wvs plugin list              all services in a table
  wvs plugin list web          one service, with everything that is known
  wvs plugin list --json       everything there is to know, for programs

Counts begin when a plugin gets a service. FUEL and TIME are of one decision: mean/most; one decision \
in 64 is timed.")]
pub(super) struct ListArgs {
    /// Only this service, by its name.
    service: Option<String>,

    /// Write everything as JSON.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    director: SocketArg,
}

pub(super) fn list(args: &ListArgs) -> u8 {
    let answer = args
        .director
        .converse(async |socket| control::ask::<PluginsSnapshot>(&socket, PLUGINS).await);
    let mut snapshot = match answer {
        Ok(snapshot) => snapshot,
        Err(status) => return status,
    };
    if let Some(wanted) = &args.service {
        snapshot.services.retain(|seat| seat.service == *wanted);
        if snapshot.services.is_empty() {
            return fail(format_args!("there is no service {wanted}; `wvs plugin list` shows all"));
        }
    }
    if args.json {
        return print_json(&snapshot);
    }
    match (&args.service, &snapshot.services[..]) {
        (Some(_), [seat]) => print(plugins::describe(seat).as_bytes()),
        (_, seats) => print(plugins::table(seats).as_bytes()),
    }
}
