//! `wvs plugin record`: what a director recorded.

use std::fs;
use std::path::PathBuf;

use clap::Args;

use super::super::socket::SocketArg;
use super::super::{fail, print};
use crate::control::{self, RECORDING, scheduler_path};
use crate::output::count;

/// Write what a service's plugin was told and answered lately to a file.
#[derive(Debug, Args)]
#[command(
    mut_arg("config", |arg| arg.help("The director's configuration, which names its control socket")),
    after_help = "Examples:
  wvs plugin record web -o web.recording
  wvs plugin simulate wlc --replay web.recording     what would wlc have done?

The service's `scheduler` must have a `record`, such as 16MiB: so much of the latest is kept. The module \
that was recorded gives the same answers again, bit for bit."
)]
pub(super) struct RecordArgs {
    /// The service's name.
    service: String,

    /// The file to write.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,

    #[command(flatten)]
    director: SocketArg,
}

pub(super) fn record(args: &RecordArgs) -> u8 {
    let path = scheduler_path(&args.service, RECORDING);
    let answer = args.director.converse(async |socket| control::fetch(&socket, &path).await);
    let octets = match answer {
        Ok(octets) => octets,
        Err(status) => return status,
    };
    let output = args.output.display();
    if let Err(error) = fs::write(&args.output, &octets) {
        return fail(format_args!("{output} cannot be written: {error}"));
    }
    let size = count(octets.len() as u64, "octet", "octets");
    print(format!("{output}: {size} of {}\n", args.service).as_bytes())
}
