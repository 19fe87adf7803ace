//! The requests that change something: what they may bring along, and how long that may take.
//!
//! | action | brings along |
//! | --- | --- |
//! | `swap`, `shadow` | a [`SwapRequest`] as JSON, or a module as `application/wasm` with a [`ModuleQuery`] |
//! | `canary` | a [`ShareRequest`] as JSON |
//! | `rollback`, `reset`, `promote`, `end-trial` | nothing |

use std::error::Error;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{FromRequestParts, Path, Query, Request, State};
use axum::http::{StatusCode, header};
use http_body_util::LengthLimitError;
use hyper::body::Body as _;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::timeout;
use wvs_plugin::{TrialLimits, builtin};

use super::refused::Refused;
use super::server::Shared;
use super::snapshot::{ChangeSnapshot, ReloadSnapshot};
use crate::config::units::Percent;
use crate::config::{FILE_OCTETS_MAX, MODULE_OCTETS_MAX, is_name};
use crate::operation::{Action, Proposal, ProposedPlugin};

/// What can be done about the scheduler of a service.
pub(super) const ACTIONS: [&str; 7] =
    ["swap", "rollback", "reset", "shadow", "canary", "promote", "end-trial"];

/// The longest body in octets: a little more than the largest module.
const MODULE_BODY_OCTETS_MAX: usize = MODULE_OCTETS_MAX + (64 << 10);

/// The longest JSON in octets: a little more than the largest configuration of a plugin.
const JSON_BODY_OCTETS_MAX: usize = 128 << 10;

/// How long a client may take to send a body.
pub(super) const BODY_TIME_MAX: Duration = Duration::from_secs(10);

/// The media type of modules.
pub(super) const WASM: &str = "application/wasm";

/// The media type of configurations (RFC 9512).
pub(super) const YAML: &str = "application/yaml";

/// The media type of everything else.
pub(super) const JSON: &str = "application/json";

/// What to swap in or to try out, by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SwapRequest {
    /// A built-in, or a plugin of the configuration, whose file is read again.
    pub plugin: String,
    /// Its configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Value>,
    /// In a trial: the faults after which it stops by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub faults: Option<u64>,
    /// In a trial: the percentage of skew above which it stops by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skew: Option<Percent>,
}

/// What there is to say about a module that is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModuleQuery {
    /// What to call it.
    pub name: String,
    /// Its configuration as JSON text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<String>,
    /// As in [`SwapRequest`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub faults: Option<u64>,
    /// As in [`SwapRequest`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skew: Option<Percent>,
}

/// For how many clients a candidate is obeyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShareRequest {
    /// The percentage of clients.
    pub share: Percent,
}

/// `POST /v1/services/NAME/scheduler/ACTION`.
pub(super) async fn change(
    State(shared): State<Shared>,
    path: Result<Path<(String, String)>, PathRejection>,
    request: Request,
) -> Result<Json<ChangeSnapshot>, Refused> {
    let place = shared.place()?;
    let Path((service, action)) = path.map_err(|error| Refused::bad(error.body_text()))?;
    let action = match &*action {
        "swap" => match receive_proposal(request).await? {
            (proposal, None, None) => Action::Swap(proposal),
            _ => {
                return Err(Refused::bad(
                    "`faults` and `skew` are limits of a trial, which a swap is not",
                ));
            }
        },
        "shadow" => {
            let (proposal, faults, skew) = receive_proposal(request).await?;
            let default = TrialLimits::default();
            let limits = TrialLimits {
                faults: faults.unwrap_or(default.faults).max(1),
                skew: skew.map_or(default.skew, Percent::hundredths),
            };
            Action::Shadow(proposal, limits)
        }
        "canary" => {
            let ShareRequest { share } = receive_json(request.into_body()).await?;
            Action::Canary(share)
        }
        "rollback" => Action::Rollback,
        "reset" => Action::Reset,
        "promote" => Action::Promote,
        "end-trial" => Action::EndTrial,
        _ => {
            let message = "nothing can be done under this name to a scheduler; use swap, rollback, \
                           reset, shadow, canary, promote or end-trial";
            return Err(Refused(StatusCode::NOT_FOUND, message.to_owned()));
        }
    };
    Ok(Json(shared.carry_out(place, move |answers| answers.change(&service, action)).await??))
}

/// `POST /v1/reload`.
pub(super) async fn reload(State(shared): State<Shared>) -> Result<Json<ReloadSnapshot>, Refused> {
    let place = shared.place()?;
    Ok(Json(shared.carry_out(place, |answers| answers.reload()).await??))
}

/// `POST /v1/preview`.
pub(super) async fn preview(
    State(shared): State<Shared>,
    request: Request,
) -> Result<Json<ReloadSnapshot>, Refused> {
    let place = shared.place()?;
    let octets = receive(request.into_body(), FILE_OCTETS_MAX).await?;
    let text = String::from_utf8(octets.into())
        .map_err(|_| Refused::bad("a configuration is UTF-8 text"))?;
    Ok(Json(shared.carry_out(place, move |answers| answers.preview(&text)).await??))
}

/// A plugin, and when its trial would end.
async fn receive_proposal(
    request: Request,
) -> Result<(Proposal, Option<u64>, Option<Percent>), Refused> {
    let (mut parts, body) = request.into_parts();
    let media = parts.headers.get(header::CONTENT_TYPE).and_then(|media| media.to_str().ok());
    // Without parameters such as a character set.
    match media.and_then(|media| media.split(';').next()).map(str::trim) {
        Some(JSON) => {
            let SwapRequest { plugin, config, faults, skew } = receive_json(body).await?;
            let config = config.map(|config| config.to_string());
            let plugin = ProposedPlugin::Named(plugin);
            Ok((Proposal { plugin, config }, faults, skew))
        }
        Some(WASM) => {
            let query = Query::<ModuleQuery>::from_request_parts(&mut parts, &()).await;
            let Query(ModuleQuery { name, config, faults, skew }) =
                query.map_err(|error: QueryRejection| Refused::bad(error.body_text()))?;
            check_name(&name)?;
            if let Some(Err(error)) = config.as_deref().map(serde_json::from_str::<Value>) {
                return Err(Refused::bad(format!("`config` is not JSON: {error}")));
            }
            let octets = receive(body, MODULE_BODY_OCTETS_MAX).await?.into();
            let plugin = ProposedPlugin::Module { name, octets };
            Ok((Proposal { plugin, config }, faults, skew))
        }
        _ => {
            let message = format!(
                "send a module as {WASM}, or as {JSON} what plugin to take, as {{\"plugin\": \"wlc\"}}"
            );
            Err(Refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, message))
        }
    }
}

fn check_name(name: &str) -> Result<(), Refused> {
    if !is_name(name) {
        return Err(Refused::bad(
            "`name` must be 1 to 63 letters, digits, `.`, `_` or `-`, the first a \
                        letter or digit",
        ));
    }
    if builtin::NAMES.contains(&name) {
        return Err(Refused::bad(format!(
            "{name} is the name of a built-in; give the module another"
        )));
    }
    Ok(())
}

pub(super) async fn receive_json<T: DeserializeOwned>(body: Body) -> Result<T, Refused> {
    let octets = receive(body, JSON_BODY_OCTETS_MAX).await?;
    serde_json::from_slice(&octets)
        .map_err(|error| Refused::bad(format!("not what is wanted: {error}")))
}

pub(super) async fn receive(body: Body, octets_max: usize) -> Result<Bytes, Refused> {
    let too_large = || {
        let message = format!("more than {octets_max} octets; no module or configuration may be");
        Refused(StatusCode::PAYLOAD_TOO_LARGE, message)
    };
    // Where the length is told beforehand nothing needs to come.
    if body.size_hint().lower() > octets_max as u64 {
        return Err(too_large());
    }
    match timeout(BODY_TIME_MAX, to_bytes(body, octets_max)).await {
        Ok(Ok(octets)) => Ok(octets),
        Ok(Err(error)) if error.source().is_some_and(|error| error.is::<LengthLimitError>()) => {
            Err(too_large())
        }
        Ok(Err(error)) => Err(Refused::bad(format!("the request broke off: {error}"))),
        Err(_) => {
            let seconds = BODY_TIME_MAX.as_secs();
            let message = format!("the request did not come to its end within {seconds} s");
            Err(Refused(StatusCode::REQUEST_TIMEOUT, message))
        }
    }
}
