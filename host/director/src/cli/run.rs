//! `wvs run`: the director in the foreground.

use std::future::pending;

use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch::Receiver;

use super::{ConfigArg, DONE, FAILED, fail, print, refuse, runtime};
use crate::config::{Config, Reading};
use crate::control::ClaimError;
use crate::control::group_of;
use crate::control::snapshot::DeviceSnapshot;
use crate::deployment::{add_bad_token, add_misfits};
use crate::logging::{self, LEVEL_DEFAULT, LEVEL_VARIABLE, LogFormat};
use crate::output::count;
use crate::rights;
use crate::run::{Running, StartError, VERSION};
use crate::service_manager::ServiceManager;
use crate::stop_signals::StopSignals;

/// Run the director in the foreground, until SIGTERM or SIGINT.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wvs run -c wvs.yaml
  wvs run -c wvs.yaml --log-format json --log-level warn

SIGHUP makes it read the configuration again, as `wvs reload` does.

Needs root, or the capability CAP_NET_ADMIN, and gives up what else it may do before it starts. On \
SIGTERM and SIGINT it takes back its routes, rules and settings and ends with status 0; after a crash \
the next start takes them back.

Tells systemd, and whoever speaks its protocol, when it is ready, reloads and stops, and that it is \
alive. In the journal log lines have priorities.")]
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
    let file = &args.config.config;
    let reading = Reading::of_file(file);
    // Whoever is no member cannot give the socket to the group later; then the socket says so.
    if let Some(Ok(group)) = reading.config().admin.group.as_deref().map(group_of) {
        let _ = rights::join(group);
    }
    // Before the log has its thread.
    let kept = match rights::give_up(file) {
        Ok(kept) => kept,
        Err(error) => return fail(format_args!("cannot give up rights: {error}")),
    };
    if let Err(error) = logging::start(args.log_format, &args.log_level) {
        let level = &args.log_level;
        return refuse(format_args!("{level} is no log level ({error}); use one such as info"));
    }
    tracing::debug!(%kept, "gave up all other capabilities");
    if kept.is_reading_anything() {
        tracing::warn!(
            "{}: only CAP_DAC_READ_SEARCH opens this file, so that is kept; where the director's own user \
             may read it, such as in /etc/wvs, the director needs no such right",
            file.display()
        );
    }
    for problem in reading.problems().iter().filter(|_| reading.is_usable()) {
        tracing::warn!("{}: {}", file.display(), problem);
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
    let manager = ServiceManager::of_environment();
    let mut running = match Running::start(reading.config(), reading.file()).await {
        Ok(running) => running,
        Err(StartError::Misfits(misfits)) => {
            add_misfits(&mut reading, &misfits);
            manager.status("The configuration does not work").await;
            return refuse(reading);
        }
        Err(StartError::Claim(ClaimError::Token(error))) => {
            add_bad_token(&mut reading, &error);
            manager.status("The configuration does not work").await;
            return refuse(reading);
        }
        Err(error) => {
            manager.status(&error.to_string()).await;
            return fail(error);
        }
    };
    if let Some(commands) = running.routing_commands() {
        print(commands.as_bytes());
    }
    announce(&running, reading.config());
    let mut reloads = running.reloads();
    manager.ready(&status(&running.config(), true)).await;
    let pulse = running.pulse();
    let code = tokio::select! {
        code = obey(&mut running, &manager, &mut reloads, &mut stop_signals, &mut hang_up) => code,
        // Without a watchdog it ends at once, which is no reason to stop.
        () = async { manager.keep_alive(pulse).await; pending().await } => FAILED,
    };
    manager.stopping().await;
    if let Err(error) = running.stop().await {
        return fail(error);
    }
    if code == DONE {
        tracing::info!("stopped");
    }
    code
}

/// Does what signals say, until it is time to stop.
async fn obey(
    running: &mut Running,
    manager: &ServiceManager,
    reloads: &mut Receiver<bool>,
    stop_signals: &mut StopSignals,
    hang_up: &mut Signal,
) -> u8 {
    loop {
        tokio::select! {
            name = stop_signals.recv() => {
                tracing::info!("{name}: stopping");
                return DONE;
            }
            error = running.failed() => return fail(error),
            _ = hang_up.recv() => {
                manager.reloading().await;
                // What changed is in the log already.
                let reloaded = running.reload().await;
                if let Err(error) = &reloaded {
                    tracing::warn!("SIGHUP: nothing was changed: {error}");
                }
                let is_good = *reloads.borrow_and_update();
                manager.ready(&status(&running.config(), is_good)).await;
            }
            Ok(()) = reloads.changed() => {
                let is_good = *reloads.borrow_and_update();
                manager.status(&status(&running.config(), is_good)).await;
            }
        }
    }
}

/// What `systemctl status` shows: what is at work, and whether the last reload changed it.
fn status(config: &Config, is_good: bool) -> String {
    let servers: usize = config.services.iter().map(|service| service.servers.len()).sum();
    let services = count(config.services.len(), "service", "services");
    let refused = if is_good { "" } else { "; the last reload was refused" };
    format!("{services}, {}{refused}", count(servers, "real server", "real servers"))
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
