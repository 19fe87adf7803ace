//! `wvs connections`: the running director's connections.

use std::net::IpAddr;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use wvs_core::connection::state::State;

use super::socket::SocketArg;
use super::{fail, print, print_json};
use crate::config::is_name;
use crate::control::snapshot::{ConnectionFilter, ConnectionList};
use crate::control::{self, CONNECTIONS, CONNECTIONS_LISTED, CONNECTIONS_LISTED_MAX};
use crate::output::connections as output;
use crate::tap::Network;

/// Show the running director's connections, as ipvsadm -Lnc does.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wvs connections                  at most 1000 of them
  wvs connections web --limit 20   of one service
  wvs connections --count          how many there are
  wvs connections web --client 198.51.100.0/24 --state ESTABLISHED
  wvs connections --server 10.0.0.11 --count
  wvs connections --json           for programs

`gen` is the generation of the service's scheduler that placed the connection, as `wvs plugin list` \
shows it; `-` is the director itself. They are in no order.")]
pub(super) struct ConnectionsArgs {
    /// Only those of this service, by its name.
    service: Option<String>,

    /// Only those of this client, or of clients in this network.
    #[arg(long, value_name = "ADDRESS[/BITS]")]
    client: Option<Network>,

    /// Only those of the real server with this address.
    #[arg(long, value_name = "RIP")]
    server: Option<IpAddr>,

    /// Only those in this state, as listings name it.
    #[arg(long, value_name = "STATE", value_parser = PossibleValuesParser::new(State::ALL.map(State::name)).try_map(|name| name.parse::<State>()), ignore_case = true)]
    state: Option<State>,

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
    if let Some(service) = args.service.as_ref().filter(|service| !is_name(service)) {
        return fail(format_args!("there is no service {service}; `wvs list` shows all"));
    }
    let filter = ConnectionFilter {
        service: args.service.clone(),
        client: args.client,
        server: args.server,
        state: args.state,
        limit: Some(if args.count { 0 } else { args.limit }),
    };
    let query = match serde_urlencoded::to_string(&filter) {
        Ok(query) => query,
        Err(error) => return fail(error),
    };
    let path = format!("{CONNECTIONS}?{query}");
    let answer =
        args.director.converse(async |socket| control::ask::<ConnectionList>(&socket, &path).await);
    match answer {
        Ok(list) if args.json => print_json(&list),
        Ok(list) if args.count => print(format!("{}\n", list.total).as_bytes()),
        Ok(list) => print(output::list(&list).as_bytes()),
        Err(status) => status,
    }
}
