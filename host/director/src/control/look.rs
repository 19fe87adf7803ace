//! The requests that only look. None is in the way of anything: they are answered, and the answers
//! written, where nobody waits for it.

use std::net::SocketAddr;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use wvs_core::explain::Question;
use wvs_core::service::Protocol;

use super::CONNECTIONS_LISTED_MAX;
use super::change::JSON;
use super::refused::Refused;
use super::server::{Answers, Shared};
use super::snapshot::ConnectionFilter;
use crate::metrics;
use crate::operation::ChangeError;

/// Answers with what `look` sees, as JSON.
async fn tell<T: Serialize>(
    shared: &Shared,
    look: impl FnOnce(&dyn Answers) -> Result<T, Refused> + Send + 'static,
) -> Result<Response, Refused> {
    let written = shared.look(|answers| {
        serde_json::to_vec(&look(answers)?)
            .map_err(|error| Refused(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
    });
    Ok(([(header::CONTENT_TYPE, JSON)], written.await??).into_response())
}

pub(super) async fn services(State(shared): State<Shared>) -> Result<Response, Refused> {
    tell(&shared, |answers| Ok(answers.services())).await
}

pub(super) async fn stats(State(shared): State<Shared>) -> Result<Response, Refused> {
    tell(&shared, |answers| Ok(answers.stats())).await
}

pub(super) async fn plugins(State(shared): State<Shared>) -> Result<Response, Refused> {
    tell(&shared, |answers| Ok(answers.plugins())).await
}

pub(super) async fn scrape(State(shared): State<Shared>) -> Result<Response, Refused> {
    let text = shared.look(|answers| answers.metrics()).await?;
    Ok(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response())
}

pub(super) async fn connections(
    State(shared): State<Shared>,
    query: Result<Query<ConnectionFilter>, QueryRejection>,
) -> Result<Response, Refused> {
    let Query(filter) = query.map_err(|error| Refused::bad(error.body_text()))?;
    if filter.limit.is_some_and(|limit| limit > CONNECTIONS_LISTED_MAX) {
        return Err(Refused::bad(format!(
            "at most {CONNECTIONS_LISTED_MAX} connections are listed at once"
        )));
    }
    tell(&shared, move |answers| {
        let list = answers.connections(&filter);
        Ok(list.ok_or(ChangeError::NoService { service: filter.service.unwrap_or_default() })?)
    })
    .await
}

/// The packet in question.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExplainQuery {
    from: SocketAddr,
    to: SocketAddr,
    protocol: String,
}

pub(super) async fn explain(
    State(shared): State<Shared>,
    query: Result<Query<ExplainQuery>, QueryRejection>,
) -> Result<Response, Refused> {
    let Query(ExplainQuery { from, to, protocol }) =
        query.map_err(|error| Refused::bad(error.body_text()))?;
    if from.is_ipv4() != to.is_ipv4() {
        return Err(Refused::bad("a packet's source and destination are of one family"));
    }
    let protocol = [Protocol::Tcp, Protocol::Udp, Protocol::Icmp]
        .into_iter()
        .find(|known| known.name() == protocol)
        .ok_or_else(|| {
            Refused::bad(format!("`{protocol}` is no protocol; use tcp, udp or icmp"))
        })?;
    let question = Question { protocol, from, to };
    tell(&shared, move |answers| {
        answers.explain(&question).map_err(|error| {
            let message = format!("no copy of the plugin can be made to be asked: {error}");
            Refused(StatusCode::INTERNAL_SERVER_ERROR, message)
        })
    })
    .await
}

pub(super) async fn recording(
    State(shared): State<Shared>,
    service: Result<Path<String>, PathRejection>,
) -> Result<Vec<u8>, Refused> {
    let Path(service) = service.map_err(|error| Refused::bad(error.body_text()))?;
    Ok(shared.look(move |answers| answers.recording(&service)).await??)
}
