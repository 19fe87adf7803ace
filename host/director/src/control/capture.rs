//! `POST /v1/captures`: packets of the running director as a pcapng file, for as long as the client
//! reads.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Extension, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::change::receive_json;
use super::refused::Refused;
use super::server::Shared;
use super::visit::STALL_TIME_MAX;
use crate::tap::{CaptureRefusal, CaptureRequest, RequestError, TICK};

/// The media type of pcapng files, which is not registered.
const PCAPNG: &str = "application/x-pcapng";

/// Until when a control connection may go on, as its request can put it off.
#[derive(Clone, Debug)]
pub(super) struct Allowance(watch::Sender<Instant>);

/// The other end of an [`Allowance`].
#[derive(Debug)]
pub(super) struct AllowedUntil(watch::Receiver<Instant>);

impl Allowance {
    /// So much time from now on.
    pub(super) fn of(time: Duration) -> (Self, AllowedUntil) {
        let (allowance, allowed_until) = watch::channel(Instant::now() + time);
        (Self(allowance), AllowedUntil(allowed_until))
    }

    fn put_off(&self, time: Duration) {
        self.0.send_replace(Instant::now() + time);
    }
}

impl AllowedUntil {
    /// Waits until the time is over, as it was put off.
    pub(super) async fn run_out(&mut self) {
        loop {
            let until = *self.0.borrow_and_update();
            tokio::select! {
                Ok(()) = self.0.changed() => {}
                () = sleep_until(until) => return,
            }
        }
    }
}

pub(super) async fn capture(
    State(shared): State<Shared>,
    Extension(allowance): Extension<Allowance>,
    request: Request,
) -> Result<Response, Refused> {
    let request: CaptureRequest = receive_json(request.into_body()).await?;
    let recording = shared.answers.capture(&request)?;
    let octets = stream::unfold(recording, move |mut recording| {
        let allowance = allowance.clone();
        async move {
            loop {
                // Only a client that reads has this polled.
                allowance.put_off(STALL_TIME_MAX);
                let octets = recording.next_octets()?;
                if !octets.is_empty() {
                    return Some((Ok::<_, Infallible>(Bytes::from(octets)), recording));
                }
                let tick = Instant::now() + TICK;
                let until = recording.deadline().map_or(tick, |end| tick.min(end.into()));
                sleep_until(until).await;
            }
        }
    });
    Ok(([(header::CONTENT_TYPE, PCAPNG)], Body::from_stream(octets)).into_response())
}

impl From<CaptureRefusal> for Refused {
    fn from(refusal: CaptureRefusal) -> Self {
        let status = match &refusal {
            CaptureRefusal::TooMany | CaptureRefusal::Stopping => StatusCode::SERVICE_UNAVAILABLE,
            CaptureRefusal::Request(RequestError::NoService(_)) => StatusCode::NOT_FOUND,
            CaptureRefusal::Request(_) => StatusCode::BAD_REQUEST,
        };
        Self(status, refusal.to_string())
    }
}
