//! `wvs connections`: the running director's connections.

use clap::Args;

use super::socket::SocketArg;
use super::{fail, print, print_json};
use crate::config::is_name;
use crate::control::snapshot::ConnectionList;
use crate::control::{self, CONNECTIONS, CONNECTIONS_LISTED, CONNECTIONS_LISTED_MAX};
use crate::output::connections as output;

/// Show the running director's connections, as ipvsadm -Lnc does.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wvs connections                  at most 1000 of them
  wvs connections web --limit 20   of one service
  wvs connections --count          how many there are
  wvs connections --json           for programs

`gen` is the generation of the service's scheduler that placed the connection, as `wvs plugin list` \
shows it; `-` is the director itself. They are in no order.")]
pub(super) struct ConnectionsArgs {
    /// Only those of this service, by its name.
    service: Option<String>,

    /// The most to show.
    #[arg(long, value_name = "N", default_value_t = CONNECTIONS_LISTED, conflicts_with = "count")]
    limit: usize,

    /// Only say how many there are.
    #[arg(long)]
    count: bool,

    /// Write them as JSON.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    director: SocketArg,
}

pub(super) fn connections(args: &ConnectionsArgs) -> u8 {
    if args.limit > CONNECTIONS_LISTED_MAX {
        return super::refuse(format_args!(
            "at most {CONNECTIONS_LISTED_MAX} connections are shown at once"
        ));
    }
    let limit = if args.count { 0 } else { args.limit };
    let mut path = format!("{CONNECTIONS}?limit={limit}");
    if let Some(service) = &args.service {
        // What is no name cannot be part of a path either.
        if !is_name(service) {
            return fail(format_args!(
                "there is no service {service}; `wvs plugin list` shows all"
            ));
        }
        path += &format!("&service={service}");
    }
    let answer =
        args.director.converse(async |socket| control::ask::<ConnectionList>(&socket, &path).await);
    match answer {
        Ok(list) if args.json => print_json(&list),
        Ok(list) if args.count => print(format!("{}\n", list.total).as_bytes()),
        Ok(list) => print(output::list(&list).as_bytes()),
        Err(status) => status,
    }
}
