//! What would become of a packet: the director's decision with the scheduler's answer, without
//! anything changing.
//!
//! A scheduler's state may change when it is asked, so a copy of it is asked.

use std::sync::Arc;
use std::time::Instant;

use wvs_core::connection::tuple::Direction;
use wvs_core::director::Director;
use wvs_core::explain::{
    Choice, ChosenBy, Explanation, Fate, KnownConnection, Question, Reply, Scheduling,
};
use wvs_core::real_server::RealServer;
use wvs_core::roster::{Member, Stage};
use wvs_core::scheduler::Pick;
use wvs_core::service::Service;
use wvs_core::time::Moment;
use wvs_core::verdict::DropReason;
use wvs_plugin::{InstanceError, Rehearsed, RehearsedAnswer, WasmScheduler};

use crate::control::snapshot::{
    AskedSnapshot, CandidateSnapshot, ExplanationSnapshot, FateSnapshot, KnownConnectionSnapshot,
    OpeningSnapshot,
};

/// Says what would become of a packet now. Takes as long as to make an instance of the service's
/// plugin, which should be where nobody waits: half a millisecond for the built-in ones.
///
/// # Errors
/// No copy of the plugin can be made.
pub fn explain(
    director: &Director,
    question: &Question,
    now: Moment,
) -> Result<ExplanationSnapshot, InstanceError> {
    let Explanation { connection, opening, stray } = director.explain(question, now);
    let tell = |fate: Option<Fate>| fate.map(|fate| tell(director, question, fate)).transpose();
    Ok(ExplanationSnapshot {
        protocol: question.protocol.to_string(),
        from: question.from,
        to: question.to,
        connection: connection.map(|connection| known(director, &connection)),
        opening: tell(opening)?,
        // What is picked up is scheduled as a first packet is, and told there.
        stray: match stray {
            Some(Fate::Scheduled(_)) => None,
            stray => tell(stray)?,
        },
    })
}

fn known(director: &Director, connection: &KnownConnection) -> KnownConnectionSnapshot {
    let services = director.services();
    let all = services.list().iter().chain(services.retired());
    let is_its = |service: &&Arc<Service>| Arc::ptr_eq(service.terms(), connection.server.terms());
    KnownConnectionSnapshot {
        service: all.into_iter().find(is_its).map(|service| service.name().to_owned()),
        client: connection.client,
        vip: connection.virtual_address,
        local: connection.local,
        server: connection.server.address(),
        is_reply: connection.direction == Direction::Reply,
        state: connection.state.map(|state| state.name().to_owned()),
        generation: connection.generation,
        age_ms: connection.age_ms,
        expires_in_ms: connection.expires_in_ms,
        is_forsaken: connection.is_forsaken,
    }
}

fn tell(
    director: &Director,
    question: &Question,
    fate: Fate,
) -> Result<FateSnapshot, InstanceError> {
    Ok(match fate {
        Fate::Passed => FateSnapshot::Passed,
        Fate::OnePacketReply => FateSnapshot::OnePacketReply,
        Fate::Dropped(reason) => dropped(reason),
        Fate::Answered(reply) => {
            let reply = match reply {
                Reply::Reset => "reset",
                Reply::PortUnreachable => "port_unreachable",
                Reply::Echo => "echo_reply",
            };
            FateSnapshot::Answered { reply: reply.to_owned() }
        }
        Fate::Scheduled(scheduling) => {
            FateSnapshot::Scheduled(Box::new(schedule(director, question, &scheduling)?))
        }
    })
}

fn dropped(reason: DropReason) -> FateSnapshot {
    FateSnapshot::Dropped {
        reason: reason.name().to_owned(),
        description: reason.description().to_owned(),
    }
}

/// How a new connection would be placed.
fn schedule(
    director: &Director,
    question: &Question,
    scheduling: &Scheduling,
) -> Result<OpeningSnapshot, InstanceError> {
    let Scheduling { service, request, members, .. } = scheduling;
    let servers: Vec<_> = members.iter().map(|member| Arc::clone(&member.server)).collect();
    let start = Instant::now();
    let is_asked = scheduling.template.is_none() && scheduling.stage != Stage::Sorry;
    let rehearsal = is_asked.then(|| {
        service.look_at_scheduler(|scheduler| {
            WasmScheduler::of(scheduler).map(|scheduler| scheduler.rehearsal(request))
        })
    });
    let rehearsed = rehearsal.flatten().map(|rehearsal| rehearsal.ask(request, &servers));
    let rehearsed = rehearsed.transpose()?;
    let took_us = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);

    let pick = match rehearsed.as_ref().map(|rehearsed| &rehearsed.answer) {
        Some(RehearsedAnswer::Pick(pick)) => *pick,
        // As the director has it for any answer that is none.
        Some(RehearsedAnswer::Fault(_) | RehearsedAnswer::Unavailable(_)) | None => Pick::Defer,
    };
    let Choice { server, by } = scheduling.choose(pick);
    let otherwise = match &server {
        Some(_) if scheduling.is_one_packet => None,
        Some(server) => director.obstacle(question, server).map(dropped),
        None => Some(tell(director, question, Fate::without_server(service, question))?),
    };
    Ok(OpeningSnapshot {
        service: service.name().to_owned(),
        is_one_packet: scheduling.is_one_packet,
        stage: scheduling.stage.name().to_owned(),
        asked: rehearsed.map(|rehearsed| asked(&rehearsed, &servers, took_us)),
        server: server.map(|server| server.address()),
        chosen_by: match by {
            ChosenBy::Template => "template",
            ChosenBy::Scheduler => "scheduler",
            ChosenBy::Director => "director",
            ChosenBy::SlowStart => "slow_start",
            ChosenBy::Sorry => "sorry",
        }
        .to_owned(),
        otherwise,
        servers: members.iter().map(|member| candidate(member, scheduling.stage)).collect(),
    })
}

fn asked(rehearsed: &Rehearsed, servers: &[Arc<RealServer>], took_us: u64) -> AskedSnapshot {
    let (answer, server, reason) = match &rehearsed.answer {
        RehearsedAnswer::Pick(Pick::Server(index)) => ("server", servers.get(*index), None),
        RehearsedAnswer::Pick(Pick::NoServer) => ("no_server", None, None),
        RehearsedAnswer::Pick(Pick::Defer) => ("defer", None, None),
        RehearsedAnswer::Fault(fault) => ("fault", None, Some(fault.to_string())),
        RehearsedAnswer::Unavailable(0) => {
            ("unavailable", None, Some("it is being made anew".to_owned()))
        }
        RehearsedAnswer::Unavailable(quarantined_ms) => {
            ("unavailable", None, Some(format!("it is quarantined for {quarantined_ms} ms more")))
        }
    };
    AskedSnapshot {
        plugin: rehearsed.plugin.to_string(),
        generation: rehearsed.generation,
        is_candidate: rehearsed.is_candidate,
        answer: answer.to_owned(),
        server: server.map(|server| server.address()),
        reason,
        is_exact: rehearsed.is_exact,
        took_us,
    }
}

fn candidate(member: &Member, stage: Stage) -> CandidateSnapshot {
    let server = &member.server;
    CandidateSnapshot {
        address: server.address(),
        weight: server.weight(),
        active: server.active(),
        inactive: server.inactive(),
        out: out(member, stage),
    }
}

/// Why a server gets no new connection.
fn out(Member { server, standing }: &Member, stage: Stage) -> Option<String> {
    if server.weight() > 0 {
        return None;
    }
    let mut reasons = Vec::new();
    if standing.is_out_of_order() {
        reasons.push("down".to_owned());
    }
    if standing.drain.is_some() {
        reasons.push("drained".to_owned());
    }
    if standing.is_backup && stage != Stage::Backup {
        reasons.push("backup, not needed".to_owned());
    }
    if server.is_overloaded() {
        let (upper, _) = server.thresholds();
        reasons.push(format!("overloaded, with {} of {upper} connections", server.connections()));
    }
    if standing.weight() == 0 {
        let by = match (standing.set, standing.measured) {
            (Some(_), _) => "set by hand",
            (None, Some(_)) => "given by its health check",
            (None, None) => "in the configuration",
        };
        reasons.push(format!("weight 0, {by}"));
    }
    if reasons.is_empty() {
        reasons.push("weight 0".to_owned());
    }
    Some(reasons.join("; "))
}
