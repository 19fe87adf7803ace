//! `wvs drain`, `wvs enable` and `wvs weight`: real servers of the running director.

use std::path::Path;
use std::time::Duration;

use clap::Args;
use tokio::time::sleep;

use super::socket::SocketArg;
use super::{DONE, fail, print, print_json, refuse};
use crate::config::is_name;
use crate::config::units::parse_duration;
use crate::control::snapshot::{ServerStanding, ServicesSnapshot};
use crate::control::{self, AskError, DrainRequest, Message, SERVICES, Then, WeightRequest};
use crate::output::{self, count};

/// Between two looks at how many connections are left.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Which real server.
#[derive(Debug, Args)]
struct ServerArg {
    /// The service, by its name.
    service: String,

    /// The real server: RIP:PORT, or RIP alone where the service has it once.
    server: String,
}

/// Empty a real server: it gets no new connections.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wvs drain web 10.0.0.11:8080                    as the service's `drain` says
  wvs drain web 10.0.0.11 --deadline 5m           reset what is left after five minutes
  wvs drain web 10.0.0.11 --deadline 5m --wait    and come back when it is empty
  wvs enable web 10.0.0.11                        have it serve again

It stays drained until `wvs enable`, or until the configuration is read again.")]
pub(super) struct DrainArgs {
    #[command(flatten)]
    which: ServerArg,

    /// How long its connections may go on, such as 30s or 5m [default: the service's].
    #[arg(long, value_name = "TIME")]
    deadline: Option<String>,

    /// What becomes of TCP connections that are left then [default: the service's].
    #[arg(long, value_enum, value_name = "WHAT")]
    then: Option<Then>,

    /// Wait until it has no connections any more, and say how many are left meanwhile.
    #[arg(long)]
    wait: bool,

    /// Write how it stands as JSON.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    director: SocketArg,
}

/// Have a drained real server serve again.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wvs enable web 10.0.0.11:8080")]
pub(super) struct EnableArgs {
    #[command(flatten)]
    which: ServerArg,

    /// Write how it stands as JSON.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    director: SocketArg,
}

/// Give a real server another weight.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wvs weight web 10.0.0.11:8080 5      five times the share of one with weight 1
  wvs weight web 10.0.0.11:8080 0      no new connections; see also `wvs drain`
  wvs weight web 10.0.0.11:8080 file   what the configuration says again

It holds until the configuration is read again.")]
pub(super) struct WeightArgs {
    #[command(flatten)]
    which: ServerArg,

    /// 0 to 65535, or `file` for what the configuration says.
    #[arg(value_parser = parse_weight)]
    weight: Weight,

    /// Write how it stands as JSON.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    director: SocketArg,
}

/// A weight, `None` for the configuration's.
#[derive(Clone, Copy, Debug)]
struct Weight(Option<u32>);

fn parse_weight(text: &str) -> Result<Weight, String> {
    if text == "file" {
        return Ok(Weight(None));
    }
    let weight = text.parse::<u16>().map_err(|_| "use 0 to 65535, or file".to_owned())?;
    Ok(Weight(Some(weight.into())))
}

pub(super) fn drain(args: &DrainArgs) -> u8 {
    if let Some(Err(error)) = args.deadline.as_deref().map(parse_duration) {
        return refuse(format_args!("--deadline: {error}; write it as in 5m or 30s"));
    }
    let request = DrainRequest { deadline: args.deadline.clone(), then: args.then };
    let standing = match tell(&args.which, "drain", &request, &args.director) {
        Ok(standing) => standing,
        Err(status) => return status,
    };
    let status = if args.json { print_json(&standing) } else { say(&standing, "is drained") };
    if status != DONE || !args.wait {
        return status;
    }
    let (service, server) = (standing.service, standing.server);
    let waited = args
        .director
        .converse(async |socket| wait_until_empty(&socket, &service, server, !args.json).await);
    waited.unwrap_or_else(|status| status)
}

pub(super) fn enable(args: &EnableArgs) -> u8 {
    match tell(&args.which, "enable", &(), &args.director) {
        Ok(standing) if args.json => print_json(&standing),
        Ok(standing) => say(&standing, "serves again"),
        Err(status) => status,
    }
}

pub(super) fn weight(args: &WeightArgs) -> u8 {
    let Weight(weight) = args.weight;
    match tell(&args.which, "weight", &WeightRequest { weight }, &args.director) {
        Ok(standing) if args.json => print_json(&standing),
        Ok(standing) => say(&standing, "has another weight"),
        Err(status) => status,
    }
}

fn tell(
    which: &ServerArg,
    action: &str,
    request: &impl serde::Serialize,
    director: &SocketArg,
) -> Result<ServerStanding, u8> {
    let ServerArg { service, server } = which;
    // What is no name cannot be part of a path either.
    if !is_name(service) {
        return Err(fail(format_args!("there is no service {service}; `wvs list` shows all")));
    }
    let is_address = |octet: u8| octet.is_ascii_alphanumeric() || b".:[]".contains(&octet);
    if server.is_empty() || !server.bytes().all(is_address) {
        return Err(refuse(format_args!("{server} is no address; write RIP:PORT, or RIP alone")));
    }
    let text = serde_json::to_string(request).map_err(fail)?;
    // Brackets have no place in a path.
    let server = server.replace('[', "%5B").replace(']', "%5D");
    let path = control::server_path(service, &server, action);
    director.converse(async |socket| control::tell(&socket, &path, Message::Json(text)).await)
}

fn say(standing: &ServerStanding, what: &str) -> u8 {
    let ServerStanding { service, server, weight, connections, drain_ms } = standing;
    let server = output::address(server.ip(), server.port());
    let connections = count(*connections, "connection", "connections");
    let deadline = drain_ms.map_or_else(String::new, |left| {
        let left = crate::config::units::format_duration(Duration::from_millis(left));
        format!(", which may go on for {left}")
    });
    let text = format!("{service}: {server} {what}; weight {weight}, {connections}{deadline}\n");
    print(text.as_bytes())
}

/// Looks again and again until the server has no connections, or is gone.
async fn wait_until_empty(
    socket: &Path,
    service: &str,
    server: std::net::SocketAddr,
    is_told: bool,
) -> Result<u8, AskError> {
    let mut told = None;
    loop {
        let all = control::ask::<ServicesSnapshot>(socket, SERVICES).await?;
        let of_service = all.services.iter().filter(|other| other.name == service);
        let mut servers =
            of_service.flat_map(|service| service.servers.iter().chain(&service.leaving));
        let left = servers.find(|other| other.address == server);
        let left = left.map_or(0, |server| server.active.saturating_add(server.inactive));
        if is_told && told != Some(left) {
            let left = count(left, "connection", "connections");
            print(format!("{left} left\n").as_bytes());
        }
        told = Some(left);
        if left == 0 {
            return Ok(DONE);
        }
        sleep(LOOK_INTERVAL).await;
    }
}
