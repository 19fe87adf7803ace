//! The requests that change how a real server stands.
//!
//! | action | brings along |
//! | --- | --- |
//! | `weight` | a [`WeightRequest`] as JSON |
//! | `drain` | a [`DrainRequest`] as JSON |
//! | `enable` | nothing |

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use wvs_core::real_server::WEIGHT_MAX;
use wvs_core::roster::Parting;

use super::change::receive_json;
use super::refused::Refused;
use super::server::{Answers, Shared};
use super::snapshot::ServerStanding;
use crate::config::units::parse_duration;
use crate::operation::servers::ServerAction;

/// What can be done about a real server.
pub(super) const SERVER_ACTIONS: [&str; 3] = ["weight", "drain", "enable"];

/// A weight for a real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightRequest {
    /// 0 to 65535; null for the configuration's.
    pub weight: Option<u32>,
}

/// How a real server is to be emptied. What is not said is as the configuration says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrainRequest {
    /// How long its connections may go on, such as `5m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<String>,
    /// What becomes of TCP connections that are left then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub then: Option<Then>,
}

/// See [`DrainRequest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Then {
    /// They go on.
    Keep,
    /// Both sides get a reset.
    Reset,
}

impl From<Then> for Parting {
    fn from(then: Then) -> Self {
        match then {
            Then::Keep => Self::Keep,
            Then::Reset => Self::Reset,
        }
    }
}

/// `POST /v1/services/NAME/servers/SERVER/ACTION`.
pub(super) async fn change_server(
    State(shared): State<Shared>,
    path: Result<Path<(String, String, String)>, PathRejection>,
    request: Request,
) -> Result<Json<ServerStanding>, Refused> {
    let place = shared.place()?;
    let Path((service, server, action)) = path.map_err(|error| Refused::bad(error.body_text()))?;
    let action = match &*action {
        "weight" => {
            let WeightRequest { weight } = receive_json(request.into_body()).await?;
            if weight.is_some_and(|weight| weight > WEIGHT_MAX) {
                return Err(Refused::bad(format!("`weight` must be 0 to {WEIGHT_MAX}")));
            }
            ServerAction::Weight(weight)
        }
        "drain" => {
            let DrainRequest { deadline, then } = receive_json(request.into_body()).await?;
            let deadline = deadline.map(|deadline| parse_duration(&deadline)).transpose().map_err(
                |error| Refused::bad(format!("`deadline`: {error}; write it as in 5m or 30s")),
            )?;
            ServerAction::Drain { deadline, then: then.map(Into::into) }
        }
        "enable" => ServerAction::Enable,
        _ => {
            let message = "nothing can be done under this name to a real server; use weight, drain \
                           or enable";
            return Err(Refused(StatusCode::NOT_FOUND, message.to_owned()));
        }
    };
    let change = move |answers: &dyn Answers| answers.change_server(&service, &server, action);
    Ok(Json(shared.carry_out(place, change).await??))
}
