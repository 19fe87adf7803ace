//! `wvs run`: the director in the foreground.

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::{ConfigArg, DONE, fail, print, refuse, runtime};
use crate::config::{Config, Reading};
use crate::control::snapshot::DeviceSnapshot;
use crate::deployment::add_misfits;
use crate::logging::{self, LEVEL_DEFAULT, LEVEL_VARIABLE, LogFormat};
use crate::run::{Running, StartError, VERSION};
use crate::stop_signals::StopSignals;

/// Run the director in the foreground, until SIGTERM or SIGINT.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wvs run -c wvs.yaml
  wvs run -c wvs.yaml --log-format json --log-level warn

SIGHUP makes it read the configuration again, as `wvs reload` does.

Needs root, or the capability CAP_NET_ADMIN. On SIGTERM and SIGINT it takes back its routes, rules \
and settings and ends with status 0; after a crash the next start takes them back.")]
pub(super) struct RunArgs {
    #[command(flatten)]
    config: ConfigArg,

    /// How log lines are written, to standard error.
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    log_format: LogFormat,

    /// The least severe level that is logged: off, error, warn, info, debug or trace, also by part
    /// of the program as in `info,wvs_plugin=error`, which leaves out the warnings about plugins.
    #[arg(long, value_name = "LEVEL", env = LEVEL_VARIABLE, default_value = LEVEL_DEFAULT)]
    log_level: String,
}

pub(super) fn run(args: &RunArgs) -> u8 {
    if let Err(error) = logging::start(args.log_format, &args.log_level) {
        let level = &args.log_level;
        return refuse(format_args!("{level} is no log level ({error}); use one such as info"));
    }
    let reading = Reading::of_file(&args.config.config);
    for problem in reading.problems().iter().filter(|_| reading.is_usable()) {
        tracing::warn!("{}: {}", args.config.config.display(), problem);
    }
    if !reading.is_usable() {
        return refuse(reading);
    }
    match runtime() {
        Ok(runtime) => {
            let code = runtime.block_on(direct(reading));
            // Whatever is still being compiled is of no use any more.
            runtime.shutdown_background();
            code
        }
        Err(error) => fail(format_args!("cannot start: {error}")),
    }
}

async fn direct(mut reading: Reading) -> u8 {
    // From here on a signal is not the end but a wish, heard when the start is complete.
    let signals = StopSignals::new().and_then(|stop| Ok((stop, signal(SignalKind::hangup())?)));
    let (mut stop_signals, mut hang_up) = match signals {
        Ok(signals) => signals,
        Err(error) => return fail(format_args!("cannot listen for signals: {error}")),
    };
    let mut running = match Running::start(reading.config(), reading.file()).await {
        Ok(running) => running,
        Err(StartError::Misfits(misfits)) => {
            add_misfits(&mut reading, &misfits);
            return refuse(reading);
        }
        Err(error) => return fail(error),
    };
    if let Some(commands) = running.routing_commands() {
        print(commands.as_bytes());
    }
    announce(&running, reading.config());
    let mut code = DONE;
    loop {
        tokio::select! {
            name = stop_signals.recv() => tracing::info!("{name}: stopping"),
            error = running.failed() => code = fail(error),
            _ = hang_up.recv() => {
                // What changed is in the log already.
                if let Err(error) = running.reload().await {
                    tracing::warn!("SIGHUP: nothing was changed: {error}");
                }
                continue;
            }
        }
        break;
    }
    if let Err(error) = running.stop().await {
        code = fail(error);
    }
    if code == DONE {
        tracing::info!("stopped");
    }
    code
}

fn announce(running: &Running, config: &Config) {
    let DeviceSnapshot { name: device, mtu, queues, offload, .. } = running.stats().device;
    let services = config.services.len();
    let servers: usize = config.services.iter().map(|service| service.servers.len()).sum();
    let socket = running.socket().display();
    tracing::info!(
        version = VERSION,
        services,
        servers,
        device,
        mtu,
        queues,
        offload,
        %socket,
        "ready"
    );
}
