//! A second plugin that is put to the questions of the first.

use std::net::SocketAddr;
use std::sync::Arc;

use serde::Serialize;

use super::candidate::{Candidate, Tally};
use super::{Question, Step};
use crate::error::InstanceError;
use crate::module::Module;
use crate::table::ServerTable;

/// A plugin that is asked what others were asked, to see where it answers otherwise.
///
/// Each step has the servers and counts that the other plugin was asked with, which also follow from
/// the other plugin's earlier answers.
#[derive(Debug)]
pub struct Comparison {
    candidate: Candidate,
    steps: u64,
    agreed: u64,
    first: Option<Difference>,
}

/// A step at which two plugins answered differently.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The step's number, from 0.
    pub number: u64,
    /// When it was.
    pub at_ms: u64,
    /// The client's address and port.
    pub client: SocketAddr,
    /// The servers that there were to choose from.
    pub servers: Vec<ServerThen>,
    /// The answer that was there already.
    pub expected: String,
    /// The answer of the plugin compared to it.
    pub found: String,
}

/// A server at the moment of a [`Difference`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ServerThen {
    /// Address and port; `None` in a table without addresses.
    pub address: Option<SocketAddr>,
    /// Effective weight.
    pub weight: u32,
    /// Active connections.
    pub active: u32,
    /// Inactive connections.
    pub inactive: u32,
}

impl Comparison {
    /// The plugin with this `config` (JSON text), which begins with these `servers`.
    ///
    /// # Errors
    /// When it does not start or refuses `config` or `servers`.
    pub fn new(
        module: &Module,
        config: Option<&str>,
        servers: Arc<ServerTable>,
    ) -> Result<Self, InstanceError> {
        let candidate = Candidate::new(module, config, servers)?;
        Ok(Self { candidate, steps: 0, agreed: 0, first: None })
    }

    /// Puts the step's question to the plugin and compares the answers.
    pub fn follow(&mut self, step: &Step<'_>) {
        let question = &step.question;
        let answer = self.candidate.ask(question);
        self.steps += 1;
        if answer == *step.answer {
            self.agreed += 1;
        } else if self.first.is_none() {
            self.first = Some(Difference {
                number: step.number,
                at_ms: question.request.now_ms,
                client: SocketAddr::new(question.request.client(), question.request.client_port),
                servers: servers_then(question),
                expected: step.answer.describe(question.servers),
                found: answer.describe(question.servers),
            });
        }
    }

    /// How many steps there were.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// At how many of them both answers were the same.
    #[must_use]
    pub fn agreed(&self) -> u64 {
        self.agreed
    }

    /// Where they first were not.
    #[must_use]
    pub fn first_difference(&self) -> Option<&Difference> {
        self.first.as_ref()
    }

    /// What the plugin did.
    #[must_use]
    pub fn into_tally(self) -> Tally {
        self.candidate.into_tally()
    }
}

fn servers_then(question: &Question<'_>) -> Vec<ServerThen> {
    let servers = question.servers.servers.iter().zip(question.counts).enumerate();
    let then = servers.map(|(index, (server, (active, inactive)))| ServerThen {
        address: question.servers.address(index),
        weight: server.weight,
        active: *active,
        inactive: *inactive,
    });
    then.collect()
}
