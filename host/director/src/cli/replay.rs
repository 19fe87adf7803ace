//! `wvs replay`: captured packets through a director of their own.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufReader, BufWriter};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::{ConfigArg, FAILED, complain, fail, print, print_json, refuse};
use crate::capture::{CaptureReader, CaptureWriter};
use crate::config::Reading;
use crate::deployment::add_misfits;
use crate::output::{Columns, count, drops, list_services};
use crate::replay::{CommentedOutput, Replay, ReplayError, Report, StartError};

/// Show what a director would do with captured packets, touching nothing.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tcpdump -Q in -ni any -w in.pcap host 203.0.113.10 or net 10.0.0.0/24
  wvs replay in.pcap -c wvs.yaml -o out.pcap
  wvs replay in.pcap -c wvs.yaml -o out.pcapng
  wvs replay in.pcap -c wvs.yaml -o out.pcap --json | jq .packets.dropped
  tcpdump -nr out.pcap

The director is the real one, with the configuration's plugins; its clock is the capture's. Every \
packet of the capture is given to it, so capture what comes to it: requests to the virtual \
addresses and replies of the real servers. What it would send is written without link headers; into a file whose name ends in .pcapng, also \
what came and was dropped, and with each packet what became of it as its comment. Of what `wvs \
capture` recorded, what came is replayed and what was sent is left out. It \
needs no rights, and the same capture gives the same packets each time as long as no plugin fails.

Exit status: 0 when the capture was replayed to its end, 1 when it is broken or something cannot be \
read or written, 2 when the configuration is wrong.")]
pub(super) struct ReplayArgs {
    /// The capture, a pcap or pcapng file.
    input: PathBuf,

    #[command(flatten)]
    config: ConfigArg,

    /// Where to write what the director would send, as a pcap file, or as a pcapng file with comments
    /// where the name ends in .pcapng.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,

    /// Write the summary as JSON: the capture, verdicts and drops, connections, services.
    #[arg(long)]
    json: bool,
}

/// The answer of `wvs replay --json`.
#[derive(Serialize)]
struct JsonReport<'r> {
    input: &'r Path,
    output: &'r Path,
    link: &'static str,
    /// Why the replay ended before the capture should have.
    error: Option<String>,
    #[serde(flatten)]
    report: Report,
}

pub(super) fn replay(args: &ReplayArgs) -> u8 {
    let mut reading = Reading::of_file(&args.config.config);
    if !reading.is_usable() {
        return refuse(reading);
    }
    if !reading.problems().is_empty() {
        complain(&reading);
    }
    let mut replay = match Replay::new(reading.config()) {
        Ok(replay) => replay,
        Err(StartError::Misfits(misfits)) => {
            add_misfits(&mut reading, &misfits);
            return refuse(reading);
        }
        Err(error) => return fail(error),
    };
    let (input, output) = (args.input.display(), args.output.display());
    let file = match File::open(&args.input) {
        Ok(file) => file,
        Err(error) => return fail(format_args!("{input}: cannot be read: {error}")),
    };
    if is_same_file(&file, &args.output) {
        return refuse(format_args!("{output} is the capture itself; give another file with -o"));
    }
    let mut reader = match CaptureReader::new(BufReader::new(file)) {
        Ok(reader) => reader,
        Err(error) => return fail(format_args!("{input}: {error}")),
    };
    let written = File::create(&args.output).map_err(ReplayError::Write).and_then(|file| {
        let file = BufWriter::new(file);
        // What came before an error is kept.
        if args.output.extension().is_some_and(|extension| extension == "pcapng") {
            let mut output = CommentedOutput::new(file);
            let result = replay.run(&mut reader, &mut output);
            output.finish().map_err(ReplayError::Write).and(result)
        } else {
            let mut output = CaptureWriter::new(file).map_err(ReplayError::Write)?;
            let result = replay.run(&mut reader, &mut output);
            output.finish().map_err(ReplayError::Write).and(result)
        }
    });
    let error = written.as_ref().err().map(|error| match error {
        ReplayError::Capture(error) => format!("{input}: {error}; what came before was replayed"),
        ReplayError::Write(_) => format!("{output}: {error}"),
    });
    if let Some(error) = &error {
        complain(error);
    }
    let report = replay.report();
    let told = if args.json {
        let (input, output) = (args.input.as_path(), args.output.as_path());
        print_json(&JsonReport { input, output, link: reader.link().name(), error, report })
    } else {
        print(tell(args, reader.link().name(), &report).as_bytes())
    };
    if written.is_err() { FAILED } else { told }
}

/// Whether opening `path` to write would empty `file`.
fn is_same_file(file: &File, path: &Path) -> bool {
    let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    match (file.metadata(), fs::metadata(path)) {
        (Ok(file), Ok(path)) => identity(file) == identity(path),
        _ => false,
    }
}

fn tell(args: &ReplayArgs, link: &str, report: &Report) -> String {
    let Report { capture, packets, services, .. } = report;
    let frames = count(capture.frames, "frame", "frames");
    let seconds = capture.milliseconds / 1000;
    let millis = capture.milliseconds % 1000;
    let mut text =
        format!("{}: {frames} of {link} in {seconds}.{millis:03} s\n", args.input.display());
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "  forwarded {}, answered {}, passed {}, held {}, dropped {}",
        packets.forwarded,
        packets.replied,
        packets.passed,
        packets.held,
        packets.dropped.values().sum::<u64>(),
    );
    if capture.not_ip > 0 {
        let _ = writeln!(
            text,
            "  left out {} without IP in them",
            count(capture.not_ip, "frame", "frames")
        );
    }
    if capture.outbound > 0 {
        let _ = writeln!(
            text,
            "  left out {} that the capture says to have been sent",
            count(capture.outbound, "frame", "frames")
        );
    }
    if capture.cut_short > 0 {
        let _ = writeln!(
            text,
            "  {} captured only in part and may be dropped for that: capture with `tcpdump -s 0`",
            count(capture.cut_short, "frame was", "frames were"),
        );
    }
    let _ = writeln!(
        text,
        "{}: {}",
        args.output.display(),
        count(capture.written, "packet", "packets")
    );
    text.push_str(&list_services(services, Columns::Traffic { is_exact: false }));
    text.push_str(&drops(packets));
    text
}
