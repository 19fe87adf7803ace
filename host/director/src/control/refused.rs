//! The answer to a request that gets none.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use tokio::task::JoinError;

use super::snapshot::Refusal;
use crate::operation::ChangeError;
use crate::operation::reload::ReloadError;
use crate::seat::SeatError;

/// That a request gets no answer, and why, in a sentence.
pub(super) struct Refused(pub(super) StatusCode, pub(super) String);

impl Refused {
    /// Of a request that is wrong.
    pub(super) fn bad(message: impl Into<String>) -> Self {
        Self(StatusCode::BAD_REQUEST, message.into())
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.0, Json(Refusal { error: self.1 })).into_response()
    }
}

impl From<ChangeError> for Refused {
    fn from(error: ChangeError) -> Self {
        let status = match &error {
            ChangeError::NoService { .. } | ChangeError::NoServer { .. } => StatusCode::NOT_FOUND,
            ChangeError::SeveralServers { .. } => StatusCode::BAD_REQUEST,
            ChangeError::Seat(SeatError::NoPast | SeatError::NoTrial | SeatError::NotRecorded) => {
                StatusCode::CONFLICT
            }
            ChangeError::NoPlugin { .. } | ChangeError::Unfit { .. } | ChangeError::Seat(_) => {
                StatusCode::UNPROCESSABLE_ENTITY
            }
            ChangeError::Panicked(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self(status, error.to_string())
    }
}

impl From<ReloadError> for Refused {
    fn from(error: ReloadError) -> Self {
        let status = match &error {
            ReloadError::Config(_) | ReloadError::Seat { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            ReloadError::Restart(_) | ReloadError::ConnectionLog(_) | ReloadError::Route(_) => {
                StatusCode::CONFLICT
            }
            ReloadError::Panicked(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self(status, error.to_string())
    }
}

impl From<JoinError> for Refused {
    fn from(_: JoinError) -> Self {
        let message = "answering panicked: this is a bug in wvs, please report what its log says";
        Self(StatusCode::INTERNAL_SERVER_ERROR, message.to_owned())
    }
}
