//! The configuration read again by itself when its file changes, where it says so.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};

use super::State;
use crate::control::Answers as _;
use crate::operation::watch::Mark;

/// Between two looks. A file must be the same in two of them to count as written to its end.
const INTERVAL: Duration = Duration::from_millis(500);

/// Looks at the file for ever, as long as what is at work says `watch: true`.
pub(super) async fn watch(state: Arc<State>) {
    let look = || Mark::of_file(state.operation.file());
    let mut settled = look();
    let mut pending = None;
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let now = look();
        // Whoever replaces it may be about to put the new one there.
        if now.is_none() || now == settled {
            pending = None;
            continue;
        }
        if pending != now {
            pending = now;
            continue;
        }
        (settled, pending) = (now, None);
        if !state.operation.config().watch {
            continue;
        }
        let reloading = Arc::clone(&state);
        match spawn_blocking(move || reloading.reload()).await {
            // What changed is in the log already.
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                tracing::warn!(
                    "the configuration's file changed, but nothing was changed: {error}"
                );
            }
            Err(error) => {
                tracing::error!(%error, "watching the configuration ends: this is a bug in wvs");
                return;
            }
        }
    }
}
