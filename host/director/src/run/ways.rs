//! The ways of packets to a running director, as they change with its services.

use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::runtime::Handle;
use tokio::sync::Mutex as AsyncMutex;

use crate::device::Steering;
use crate::operation::Ways;
use crate::route::{Follower, RouteError, RouteNeeds, Routing};

/// What leads packets to a director, shared by whoever changes its services and whoever stops it.
#[derive(Clone)]
pub(super) struct Roads(Arc<Shared>);

struct Shared {
    runtime: Handle,
    steering: Arc<Steering>,
    led: Mutex<RouteNeeds>,
    /// Nothing once the director stops.
    roads: AsyncMutex<Option<Kept>>,
}

/// What is kept up in the kernel.
struct Kept {
    /// Unless the administrator sets routes.
    routing: Option<Routing>,
    follower: Follower,
}

impl fmt::Debug for Roads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Roads").finish_non_exhaustive()
    }
}

impl Roads {
    /// The ways that were set up for `needs`. To be made within the director's runtime.
    pub(super) fn new(
        needs: RouteNeeds,
        routing: Option<Routing>,
        follower: Follower,
        steering: Arc<Steering>,
    ) -> Self {
        Self(Arc::new(Shared {
            runtime: Handle::current(),
            steering,
            led: Mutex::new(needs),
            roads: AsyncMutex::new(Some(Kept { routing, follower })),
        }))
    }

    /// Takes everything back, and leads nothing any more.
    ///
    /// # Errors
    /// Some route, rule or setting could not be taken back. Everything else was.
    pub(super) async fn take_back(&self) -> Result<(), RouteError> {
        let Some(Kept { routing, follower }) = self.0.roads.lock().await.take() else {
            return Ok(());
        };
        follower.stop().await;
        match routing {
            Some(routing) => routing.take_back().await,
            None => Ok(()),
        }
    }
}

impl Ways for Roads {
    fn lead(&self, needs: RouteNeeds) -> Result<(), RouteError> {
        let shared = &self.0;
        if *shared.led.lock().unwrap_or_else(PoisonError::into_inner) == needs {
            return Ok(());
        }
        shared.runtime.block_on(async {
            let mut roads = shared.roads.lock().await;
            let Some(Kept { routing, follower }) = &mut *roads else { return Ok(()) };
            if routing.is_none() {
                tracing::warn!("routes are set by hand: they may have to change with the services");
            }
            follower.update(&needs, routing.as_mut()).await
        })?;
        steer(&shared.steering, &needs.vips);
        *shared.led.lock().unwrap_or_else(PoisonError::into_inner) = needs;
        Ok(())
    }
}

/// Without this both directions of a connection may be read by two threads, which costs some time
/// and order, and nothing else.
fn steer(steering: &Steering, vips: &[IpAddr]) {
    match steering.set_vips(vips) {
        Ok(0) => {}
        Ok(left_out) => {
            tracing::warn!(
                left_out,
                "more virtual addresses than the device's queues can tell apart"
            );
        }
        Err(error) => tracing::warn!(%error, "the device's queues do not know the new addresses"),
    }
}
