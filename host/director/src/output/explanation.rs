//! What would become of a packet, as a story.

use std::fmt::Write as _;
use std::time::Duration;

use crate::control::snapshot::{
    AskedSnapshot, ExplanationSnapshot, FateSnapshot, KnownConnectionSnapshot, OpeningSnapshot,
};

/// The story.
#[must_use]
pub fn explain(snapshot: &ExplanationSnapshot) -> String {
    let ExplanationSnapshot { protocol, from, to, connection, opening, stray } = snapshot;
    let is_icmp = protocol == "icmp";
    let place = |place: &std::net::SocketAddr| {
        if is_icmp { place.ip().to_string() } else { place.to_string() }
    };
    let mut text = format!("{} {} -> {}\n", protocol.to_uppercase(), place(from), place(to));
    match connection {
        Some(connection) => tell_connection(&mut text, connection),
        None => text.push_str("no connection of the table has these addresses\n"),
    }
    if let Some(opening) = opening {
        let what = match (protocol.as_str(), connection) {
            ("tcp", Some(_)) => "a SYN begins the next one: it",
            ("tcp", None) => "a first packet (SYN)",
            ("icmp", _) => "an echo request",
            _ => "a first packet",
        };
        tell_fate(&mut text, what, opening);
    }
    if let Some(stray) = stray {
        tell_fate(&mut text, "any other TCP segment", stray);
    }
    text
}

fn tell_connection(text: &mut String, connection: &KnownConnectionSnapshot) {
    let KnownConnectionSnapshot { service, client, vip, local, server, .. } = connection;
    let service = service.as_deref().unwrap_or("a service that is no longer there");
    let state = connection.state.as_deref().unwrap_or("leaving the table");
    let time = |millis| Duration::from_millis(millis).as_secs_f64();
    let (age, expires) = (time(connection.age_ms), time(connection.expires_in_ms));
    // Writing to a String cannot fail, here and below.
    let _ = writeln!(
        text,
        "it belongs to a connection of {service}, from {client} to {vip}: {state}, opened {age:.1} s \
         ago, expires in {expires:.1} s if no packet comes by"
    );
    if connection.is_forsaken {
        let _ = writeln!(text, "its server {server} was taken away from it");
        return;
    }
    let _ = match (connection.is_reply, local) {
        (true, _) => writeln!(text, "it is the server's, and forwarded to {client} from {vip}"),
        (false, Some(local)) => writeln!(text, "it is forwarded to {server}, from {local}"),
        (false, None) => writeln!(text, "it is forwarded to {server}"),
    };
    let _ = match connection.generation {
        0 => writeln!(text, "the director itself chose {server}"),
        generation => {
            writeln!(text, "generation {generation} of the service's scheduler chose {server}")
        }
    };
}

fn tell_fate(text: &mut String, what: &str, fate: &FateSnapshot) {
    let _ = match fate {
        FateSnapshot::Passed => {
            writeln!(text, "{what} is sent on as it came: it concerns no service")
        }
        FateSnapshot::OnePacketReply => {
            writeln!(
                text,
                "{what} is forwarded from the virtual address: its service opens no connections"
            )
        }
        FateSnapshot::Dropped { reason, description } => {
            writeln!(text, "{what} is dropped: {reason}: {description}")
        }
        FateSnapshot::Answered { reply } => {
            writeln!(text, "{what} is answered with {}", reply_of(reply))
        }
        FateSnapshot::Scheduled(opening) => {
            let opens = if opening.is_one_packet { "goes to" } else { "opens a connection of" };
            let _ = writeln!(text, "{what} {opens} {}", opening.service);
            tell_opening(text, opening);
            Ok(())
        }
    };
}

fn reply_of(reply: &str) -> &str {
    match reply {
        "reset" => "a reset",
        "port_unreachable" => "ICMP port unreachable",
        "echo_reply" => "an echo reply",
        other => other,
    }
}

fn tell_opening(text: &mut String, opening: &OpeningSnapshot) {
    let width = opening.servers.iter().map(|server| server.address.to_string().len()).max();
    let width = width.unwrap_or(0).max("server".len());
    let _ = writeln!(text, "    {:width$}  weight  active  inactive", "server");
    for server in &opening.servers {
        let is_chosen = opening.server == Some(server.address) && opening.otherwise.is_none();
        let mark = if is_chosen { "->" } else { "  " };
        let _ = write!(
            text,
            " {mark} {:width$}  {:>6}  {:>6}  {:>8}",
            server.address.to_string(),
            server.weight,
            server.active,
            server.inactive
        );
        let _ = match &server.out {
            Some(out) => writeln!(text, "  out: {out}"),
            None => writeln!(text),
        };
    }
    if let Some(asked) = &opening.asked {
        tell_asked(text, asked);
    }
    if let Some(server) = opening.server {
        let _ = match opening.chosen_by.as_str() {
            "template" => {
                writeln!(text, "the client was with {server} before, and stays (persistence)")
            }
            "director" => {
                writeln!(
                    text,
                    "the director itself chooses {server}, by weighted least connections"
                )
            }
            "slow_start" => writeln!(
                text,
                "the scheduler's choice starts slowly and is spared: the director chooses {server}"
            ),
            "sorry" => writeln!(text, "the sorry server {server} stands in"),
            _ => Ok(()),
        };
    }
    if opening.stage != "regular" {
        let _ = writeln!(text, "the servers of the service are too few: stage {}", opening.stage);
    }
    match (&opening.otherwise, opening.server) {
        (None, Some(server)) => {
            let _ = writeln!(text, "it is forwarded to {server}");
        }
        (Some(fate), Some(server)) => {
            tell_fate(text, &format!("{server} cannot take it: it"), fate);
        }
        (Some(fate), None) => tell_fate(text, "no server takes it: it", fate),
        (None, None) => {}
    }
}

fn tell_asked(text: &mut String, asked: &AskedSnapshot) {
    let AskedSnapshot { plugin, generation, answer, server, reason, .. } = asked;
    let role = if asked.is_candidate { ", the candidate that this client is given to" } else { "" };
    let _ = write!(text, "{plugin} (generation {generation}{role}) ");
    let _ = match (answer.as_str(), server, reason) {
        (_, Some(server), _) => write!(text, "picks {server}"),
        ("no_server", ..) => write!(text, "says that no server can take it"),
        ("defer", ..) => write!(text, "leaves it to the director"),
        ("fault", _, Some(reason)) => write!(text, "would fail: {reason}"),
        (_, _, Some(reason)) => write!(text, "cannot be asked: {reason}"),
        _ => write!(text, "has no answer"),
    };
    if !asked.is_exact {
        text.push_str(
            ", as one that was just started would: what it remembers could not be copied",
        );
    }
    text.push('\n');
}
