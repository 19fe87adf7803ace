//! `wvs explain`: what would become of a packet.

use std::net::{IpAddr, SocketAddr};

use clap::Args;

use super::socket::SocketArg;
use super::{print, print_json, refuse};
use crate::control::snapshot::ExplanationSnapshot;
use crate::control::{self, EXPLAIN};
use crate::output::explanation::explain as output;

/// Say what the running director would do with a packet, and why.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wvs explain 198.51.100.7:40000 203.0.113.10:80        TCP, unless it says otherwise
  wvs explain 198.51.100.7:40000 203.0.113.10:53/udp
  wvs explain 198.51.100.7 203.0.113.10/icmp            a ping
  wvs explain 10.0.0.11:8080 198.51.100.7:40000         a reply
  wvs explain '[2001:db8::7]:40000' '[2001:db8:1::10]:80' --json

It tells the connection that the packet belongs to, or how a new one would be placed: the real servers \
with their weights and counts, why one is out, and whom the scheduler would pick if this were the next \
connection. Nothing changes: a copy of the plugin is asked, with all that it remembers in its memory.

Exit status: 0 when it was told, 1 when the director cannot be asked, 2 for wrong usage.")]
pub(super) struct ExplainArgs {
    /// Whom the packet is from: address and port, or an address for ICMP.
    from: String,

    /// Whom it is to: address and port, with /tcp, /udp or /icmp behind; without, it is TCP.
    to: String,

    /// Write it as JSON.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    director: SocketArg,
}

pub(super) fn explain(args: &ExplainArgs) -> u8 {
    let (to, protocol) = args.to.rsplit_once('/').unwrap_or((&args.to, "tcp"));
    if !["tcp", "udp", "icmp"].contains(&protocol) {
        return refuse(format_args!("`{protocol}` is no protocol; use tcp, udp or icmp"));
    }
    let mut ends = Vec::new();
    for end in [&args.from, to] {
        match read_end(end, protocol == "icmp") {
            Some(end) => ends.push(end),
            None => {
                return refuse(format_args!(
                    "`{end}` is no address and port; write it as 198.51.100.7:40000 or \
                     [2001:db8::7]:40000, for ICMP without a port"
                ));
            }
        }
    }
    let query = [("from", &ends[0]), ("to", &ends[1])].map(|(key, end)| (key, end.to_string()));
    let [from, to] = query;
    let query = [from, to, ("protocol", protocol.to_owned())];
    let query = match serde_urlencoded::to_string(query) {
        Ok(query) => query,
        Err(error) => return super::fail(format_args!("cannot write the request: {error}")),
    };
    let path = format!("{EXPLAIN}?{query}");
    let answer = args
        .director
        .converse(async |socket| control::ask::<ExplanationSnapshot>(&socket, &path).await);
    match answer {
        Ok(snapshot) if args.json => print_json(&snapshot),
        Ok(snapshot) => print(output(&snapshot).as_bytes()),
        Err(status) => status,
    }
}

/// Address and port, or an address alone.
fn read_end(text: &str, may_lack_port: bool) -> Option<SocketAddr> {
    let with_port = text.parse().ok();
    let alone = || {
        let address = text.parse::<IpAddr>().ok().filter(|_| may_lack_port)?;
        Some(SocketAddr::new(address, 0))
    };
    with_port.or_else(alone)
}
