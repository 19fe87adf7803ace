//! How a record reads, in text or in JSON.

use std::fmt::{Arguments, Display};
use std::io::Write;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use humantime::{Rfc3339Timestamp, format_rfc3339_millis};
use serde::{Serialize, Serializer};
use wvs_core::connection::log::{EndReason, Record};
use wvs_core::connection::state::State;
use wvs_core::service::Protocol;
use wvs_core::time::Moment;

use crate::logging::LogFormat;

/// Writes lines in one format.
#[derive(Debug)]
pub(super) struct Writing {
    format: LogFormat,
}

/// Lines that were not written, and why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct LeftOut {
    /// There were more than the rate.
    pub(super) above_rate: u64,
    /// Too many waited to be written.
    pub(super) queue_full: u64,
    /// The file did not take them.
    pub(super) not_written: u64,
}

impl LeftOut {
    pub(super) fn since(self, earlier: Self) -> Self {
        Self {
            above_rate: self.above_rate - earlier.above_rate,
            queue_full: self.queue_full - earlier.queue_full,
            not_written: self.not_written - earlier.not_written,
        }
    }
}

/// A line about a connection, as JSON has it.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(serialize_with = "as_text")]
    time: Rfc3339Timestamp,
    event: &'static str,
    service: &'a str,
    #[serde(serialize_with = "as_text")]
    protocol: Protocol,
    client: SocketAddr,
    vip: SocketAddr,
    server: SocketAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    local: Option<SocketAddr>,
    generation: u16,
    fallback: bool,
    #[serde(flatten)]
    end: Option<EndOfLine>,
}

/// What a line says of a connection's end.
#[derive(Serialize)]
struct EndOfLine {
    #[serde(serialize_with = "as_text")]
    reason: EndReason,
    #[serde(serialize_with = "as_text")]
    state: State,
    duration_ms: u32,
}

/// A line about lines that are not there, as JSON has it.
#[derive(Serialize)]
struct LeftOutLine {
    #[serde(serialize_with = "as_text")]
    time: Rfc3339Timestamp,
    event: &'static str,
    #[serde(flatten)]
    left_out: LeftOut,
}

fn as_text<S: Serializer>(value: &impl Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

impl Writing {
    pub(super) const fn new(format: LogFormat) -> Self {
        Self { format }
    }

    /// Adds a line about a connection. `wall` is the time of day at `now`.
    pub(super) fn record(
        &self,
        lines: &mut Vec<u8>,
        record: &Record,
        now: Moment,
        wall: SystemTime,
    ) {
        let end = record.end().map(|end| EndOfLine {
            reason: end.reason,
            state: end.state,
            duration_ms: record.lifetime_ms(),
        });
        // An end is a matter of seconds; a beginning is known to the microsecond.
        let age = match end {
            Some(_) => 0,
            None => now.micros_since(record.opened()),
        };
        let time = wall.checked_sub(Duration::from_micros(age)).unwrap_or(wall);
        let line = Line {
            time: format_rfc3339_millis(time),
            event: if end.is_some() { "end" } else { "open" },
            service: &record.server().terms().service,
            protocol: record.protocol(),
            client: record.client(),
            vip: record.vip(),
            server: record.server().address(),
            local: record.local(),
            generation: record.generation(),
            fallback: record.generation() == 0,
            end,
        };
        match self.format {
            LogFormat::Text => line.write_text(lines),
            LogFormat::Json => write_json(lines, &line),
        }
    }

    /// Adds a line about lines that are not there.
    pub(super) fn left_out(&self, lines: &mut Vec<u8>, left_out: LeftOut, wall: SystemTime) {
        let time = format_rfc3339_millis(wall);
        match self.format {
            LogFormat::Text => {
                let LeftOut { above_rate, queue_full, not_written } = left_out;
                put(
                    lines,
                    format_args!(
                        "{time} left_out above_rate={above_rate} queue_full={queue_full} \
                         not_written={not_written}\n"
                    ),
                );
            }
            LogFormat::Json => {
                write_json(lines, &LeftOutLine { time, event: "left_out", left_out });
            }
        }
    }
}

impl Line<'_> {
    fn write_text(&self, lines: &mut Vec<u8>) {
        let Self { time, event, service, protocol, client, vip, server, generation, .. } = self;
        put(
            lines,
            format_args!(
                "{time} {event} {service} {protocol} {client} -> {vip} -> {server} \
                 gen={generation}"
            ),
        );
        if let Some(local) = self.local {
            put(lines, format_args!(" local={local}"));
        }
        if self.fallback {
            put(lines, format_args!(" fallback"));
        }
        if let Some(EndOfLine { reason, state, duration_ms }) = &self.end {
            put(lines, format_args!(" reason={reason} state={state} duration_ms={duration_ms}"));
        }
        lines.push(b'\n');
    }
}

fn put(lines: &mut Vec<u8>, text: Arguments<'_>) {
    lines.write_fmt(text).expect("memory takes everything");
}

fn write_json(lines: &mut Vec<u8>, line: &impl Serialize) {
    serde_json::to_writer(&mut *lines, line).expect("plain data, in memory");
    lines.push(b'\n');
}
