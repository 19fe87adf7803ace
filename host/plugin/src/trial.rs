//! A candidate asked beside a service's plugin, on the same requests over the same servers.
//!
//! Without a share of the clients it is only watched: a *shadow*. With one it decides for these
//! clients, always the same ones: a *canary*. Either way the plugin is asked too, so that both can
//! be compared, and what the candidate has no answer to is decided as if it were not there.

use std::sync::Arc;

use wvs_abi::Request;
use wvs_core::real_server::RealServer;
use wvs_core::scheduler::Pick;

use crate::plugin::{Answer, Plugin};
use crate::rehearsal::Understudy;
use crate::scheduler::PluginReport;

/// The whole, in the unit of shares: hundredths of a percent.
pub const SHARE_ALL: u16 = 10_000;

/// Decisions after which, and every so many of which, a canary's skew is looked at.
const SKEW_EVERY: u64 = 256;

/// When a trial ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrialLimits {
    /// Faults of the candidate's.
    pub faults: u64,
    /// The skew of a canary, in hundredths of a percent: the part of all connections that would go
    /// to other servers than with the plugin. Looked at every 256 decisions.
    pub skew: u16,
}

impl Default for TrialLimits {
    /// Three faults, a skew of 30 %.
    fn default() -> Self {
        Self { faults: 3, skew: 3_000 }
    }
}

/// A trial under way, or one that stopped itself.
pub(crate) struct Trial {
    candidate: Plugin,
    share: u16,
    limits: TrialLimits,
    stopped: Option<Stop>,
    decisions: u64,
    agreements: u64,
    /// By server: its number, the plugin's picks, the candidate's.
    picks: Vec<ServerPicks>,
    /// Answers that no server can take the connection.
    refusals: ServerPicks,
    /// Decisions that were the candidate's.
    obeyed: u64,
}

/// Why a trial stopped itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The candidate failed too often.
    Faults(u64),
    /// The candidate would spread connections too differently: the skew in hundredths of a percent.
    Skew(u16),
}

/// How often both picked a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerPicks {
    /// The server's number.
    pub server_id: u32,
    /// The plugin's picks.
    pub plugin: u64,
    /// The candidate's picks.
    pub candidate: u64,
}

/// How a trial goes.
#[derive(Clone, Debug)]
pub struct TrialReport {
    /// The candidate.
    pub candidate: PluginReport,
    /// For how many of the clients its answers count, in hundredths of a percent.
    pub share: u16,
    /// When it ends by itself.
    pub limits: TrialLimits,
    /// Why it did.
    pub stopped: Option<Stop>,
    /// Decisions at which both were asked.
    pub decisions: u64,
    /// Of these, those at which both said the same.
    pub agreements: u64,
    /// Decisions that were the candidate's.
    pub obeyed: u64,
    /// Who picked which server how often.
    pub picks: Vec<ServerPicks>,
    /// The part of all connections that would go to other servers, in hundredths of a percent.
    pub skew: u16,
}

impl Trial {
    pub(crate) fn new(candidate: Plugin, share: u16, limits: TrialLimits) -> Self {
        Self {
            candidate,
            share: share.min(SHARE_ALL),
            limits,
            stopped: None,
            decisions: 0,
            agreements: 0,
            picks: Vec::new(),
            refusals: ServerPicks::default(),
            obeyed: 0,
        }
    }

    /// The candidate, as long as the trial goes on.
    pub(crate) fn candidate(&mut self) -> Option<&mut Plugin> {
        if self.is_stopped() { None } else { Some(&mut self.candidate) }
    }

    /// A copy of the candidate, if it is obeyed for this request.
    pub(crate) fn understudy(&self, request: &Request) -> Option<Understudy> {
        let is_obeyed = !self.is_stopped() && is_chosen(request, self.share);
        is_obeyed.then(|| self.candidate.understudy())
    }

    /// Whether it stopped itself.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.is_some()
    }

    pub(crate) fn into_candidate(self) -> Plugin {
        self.candidate
    }

    pub(crate) fn wants_events(&self) -> bool {
        !self.is_stopped() && self.candidate.wants_events()
    }

    pub(crate) fn set_share(&mut self, share: u16) {
        self.share = share.min(SHARE_ALL);
    }

    /// Asks the candidate what the plugin answered with `answer`. Whose word counts, and the
    /// candidate's generation if it is its.
    pub(crate) fn compare(
        &mut self,
        answer: Answer,
        request: &Request,
        servers: &[Arc<RealServer>],
    ) -> (Pick, Option<u16>) {
        if self.stopped.is_some() {
            return (answer.pick(), None);
        }
        let other = self.candidate.schedule(request, servers);
        self.decisions += 1;
        // Only answers can be compared.
        if let (Answer::Pick(one), Answer::Pick(another)) = (answer, other) {
            self.agreements += u64::from(one == another);
            self.count(one, servers, |picks| &mut picks.plugin);
            self.count(another, servers, |picks| &mut picks.candidate);
        }
        self.stop_if_needed();
        match other {
            Answer::Pick(pick @ (Pick::Server(_) | Pick::NoServer))
                if self.stopped.is_none() && is_chosen(request, self.share) =>
            {
                self.obeyed += 1;
                (pick, Some(self.candidate.generation()))
            }
            _ => (answer.pick(), None),
        }
    }

    fn count(
        &mut self,
        pick: Pick,
        servers: &[Arc<RealServer>],
        whose: impl Fn(&mut ServerPicks) -> &mut u64,
    ) {
        let index = match pick {
            Pick::Server(index) => index,
            Pick::NoServer => {
                *whose(&mut self.refusals) += 1;
                return;
            }
            Pick::Defer => return,
        };
        let Some(server) = servers.get(index) else { return };
        // Mostly at the same place as in the list; found by its number after a change.
        let is_it = |picks: &ServerPicks| picks.server_id == server.id();
        let place = match self.picks.get(index) {
            Some(picks) if is_it(picks) => index,
            _ => self.picks.iter().position(is_it).unwrap_or_else(|| {
                self.picks.push(ServerPicks { server_id: server.id(), ..ServerPicks::default() });
                self.picks.len() - 1
            }),
        };
        *whose(&mut self.picks[place]) += 1;
    }

    fn stop_if_needed(&mut self) {
        let faults = self.candidate.counters().faults();
        let stop = if faults >= self.limits.faults {
            Some(Stop::Faults(faults))
        } else if self.share > 0 && self.decisions.is_multiple_of(SKEW_EVERY) {
            let skew = self.skew();
            (skew > self.limits.skew).then_some(Stop::Skew(skew))
        } else {
            None
        };
        let Some(stop) = stop else { return };
        self.stopped = Some(stop);
        let candidate = self.candidate.module().name();
        match stop {
            Stop::Faults(faults) => {
                let fault = self.candidate.counters().last_fault().map(|fault| fault.to_string());
                tracing::warn!(candidate, faults, fault, "the trial is over: too many faults");
            }
            Stop::Skew(skew) => {
                let percent = f64::from(skew) / 100.0;
                tracing::warn!(candidate, percent, "the trial is over: too much skew");
            }
        }
    }

    /// Half the sum of the differences of all shares: 0 when both spread alike, [`SHARE_ALL`] when
    /// they have no server in common.
    fn skew(&self) -> u16 {
        // To refuse a client is a place like a server's.
        let places = || self.picks.iter().chain([&self.refusals]);
        let total = |whose: fn(&ServerPicks) -> u64| places().map(whose).sum::<u64>();
        let (plugin, candidate) = (total(|picks| picks.plugin), total(|picks| picks.candidate));
        if plugin == 0 || candidate == 0 {
            return if plugin == candidate { 0 } else { SHARE_ALL };
        }
        // Shares scaled to 2^32, so that no division loses much.
        let share = |picks: u64, total: u64| (u128::from(picks) << 32) / u128::from(total);
        let difference: u128 = places()
            .map(|picks| share(picks.plugin, plugin).abs_diff(share(picks.candidate, candidate)))
            .sum();
        let skew = (difference * u128::from(SHARE_ALL)) >> 33;
        u16::try_from(skew).unwrap_or(SHARE_ALL)
    }

    pub(crate) fn report(&self) -> TrialReport {
        TrialReport {
            candidate: PluginReport::of(&self.candidate),
            share: self.share,
            limits: self.limits,
            stopped: self.stopped,
            decisions: self.decisions,
            agreements: self.agreements,
            obeyed: self.obeyed,
            picks: self.picks.clone(),
            skew: self.skew(),
        }
    }
}

/// Whether a client is among the `share` that the candidate decides for: always the same ones, and
/// with a larger share these and others.
fn is_chosen(request: &Request, share: u16) -> bool {
    if share == 0 {
        return false;
    }
    // FNV-1a, and a finalizer so that the upper bits depend on everything.
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for octet in request.client_address {
        hash = (hash ^ u64::from(octet)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let place = ((hash >> 32) * u64::from(SHARE_ALL)) >> 32;
    place < u64::from(share)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(share: u16) -> Vec<u16> {
        let request = |client: &u16| {
            let mut request = Request { family: 4, ..Request::default() };
            request.client_address[..2].copy_from_slice(&client.to_be_bytes());
            request
        };
        (0..10_000).filter(|client| is_chosen(&request(client), share)).collect()
    }

    #[test]
    fn share_of_the_clients_is_what_it_says() {
        assert_eq!(chosen(0).len(), 0);
        assert_eq!(chosen(SHARE_ALL).len(), 10_000);
        let tenth = chosen(1_000).len();
        assert!((900..1_100).contains(&tenth), "{tenth}");
    }

    #[test]
    fn larger_share_keeps_the_clients_of_the_smaller_one() {
        let (few, many) = (chosen(500), chosen(2_500));
        assert!(few.iter().all(|client| many.contains(client)));
    }
}
