//! `wvs list`: the running director's services and real servers.

use std::io::{self, IsTerminal};
use std::path::Path;
use std::time::Duration;

use clap::Args;
use tokio::time::{Instant, sleep};

use super::socket::SocketArg;
use super::{DONE, fail, print, print_json};
use crate::control::snapshot::{ServiceSnapshot, Snapshot};
use crate::control::{self, AskError, SERVICES, STATS};
use crate::output::{self, Columns};

/// Between two listings, and what a rate is measured over.
const INTERVAL: Duration = Duration::from_secs(1);

/// Show the running director's services and real servers, as ipvsadm does.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wvs list                     as ipvsadm -Ln
  wvs list --stats             as ipvsadm -Ln --stats
  wvs list --rate              as ipvsadm -Ln --rate, over a second from now
  wvs list web --rate --watch  again and again, until Ctrl-C
  wvs list web                 one service, by name
  wvs list 203.0.113.10:80     those at an address
  wvs list --json              everything there is to know, for programs
  wvs list -c wvs.yaml         of the director that runs with this configuration

A line `scheduler: ...` below a service says that its scheduler failed, or that the director placed \
connections in its stead; with --stats the last lines say what was dropped and what was lost at the device. None is there when \
there is nothing to say.")]
pub(super) struct ListArgs {
    /// Only this service: its name, VIP:PORT, or VIP:PORT/PROTOCOL.
    service: Option<String>,

    /// Connections, packets and octets since the start, and what was dropped.
    #[arg(long)]
    stats: bool,

    /// Connections, packets and octets a second, measured over a second from now.
    #[arg(long, conflicts_with_all = ["stats", "json"])]
    rate: bool,

    /// Again and again, a second apart, until Ctrl-C.
    #[arg(long, conflicts_with = "json")]
    watch: bool,

    /// Every digit of large numbers.
    #[arg(long, requires = "stats")]
    exact: bool,

    /// Write everything as JSON: services, faults, drops, the connection table, the device.
    #[arg(long, conflicts_with_all = ["stats", "exact"])]
    json: bool,

    #[command(flatten)]
    director: SocketArg,
}

pub(super) fn list(args: &ListArgs) -> u8 {
    if args.json {
        return match args.director.converse(async |socket| ask(&socket).await) {
            Ok(mut snapshot) => match select(args, &mut snapshot) {
                Ok(()) => print_json(&snapshot),
                Err(status) => status,
            },
            Err(status) => status,
        };
    }
    let listed = args.director.converse(async |socket| {
        let mut before = None;
        if args.rate {
            before = Some((Instant::now(), ask(&socket).await?));
            sleep(INTERVAL).await;
        }
        loop {
            let (now, snapshot) = (Instant::now(), ask(&socket).await?);
            let mut shown = snapshot.clone();
            if let Some((earlier, before)) = &before {
                let (before, after) = (&before.services.services, &snapshot.services.services);
                shown.services.services = output::rates(before, after, now - *earlier);
            }
            let status = show(args, shown);
            if status != DONE || !args.watch {
                return Ok(status);
            }
            before = args.rate.then_some((now, snapshot));
            sleep(INTERVAL).await;
        }
    });
    listed.unwrap_or_else(|status| status)
}

/// Leaves what was asked for.
fn select(args: &ListArgs, snapshot: &mut Snapshot) -> Result<(), u8> {
    let services = &mut snapshot.services.services;
    if let Some(wanted) = &args.service {
        services.retain(|service| is(service, wanted));
        if services.is_empty() {
            return Err(fail(format_args!("there is no service {wanted}; `wvs list` shows all")));
        }
    }
    Ok(())
}

fn show(args: &ListArgs, mut snapshot: Snapshot) -> u8 {
    if let Err(status) = select(args, &mut snapshot) {
        return status;
    }
    let columns = if args.rate {
        Columns::Rates
    } else if args.stats {
        Columns::Traffic { is_exact: args.exact }
    } else {
        Columns::Connections
    };
    // What is dropped is dropped for the whole director, not for one of its services.
    let is_whole = args.service.is_none();
    let mut text = output::list(&snapshot.services, columns, is_whole);
    if args.stats && is_whole {
        text.push_str(&output::drops(&snapshot.stats.packets));
        text.push_str(&output::losses(&snapshot.stats.device));
    }
    if args.watch && io::stdout().is_terminal() {
        // Home, and clear what was there.
        text.insert_str(0, "\x1b[H\x1b[2J");
    }
    print(text.as_bytes())
}

async fn ask(socket: &Path) -> Result<Snapshot, AskError> {
    Ok(Snapshot {
        services: control::ask(socket, SERVICES).await?,
        stats: control::ask(socket, STATS).await?,
    })
}

/// Whether a service is what `wanted` names.
fn is(service: &ServiceSnapshot, wanted: &str) -> bool {
    let address = output::address(service.vip, service.port);
    service.name == wanted
        || address == wanted
        || wanted
            .strip_suffix(service.protocol.as_str())
            .is_some_and(|before| before.strip_suffix('/') == Some(address.as_str()))
}
