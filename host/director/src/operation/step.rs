//! A change of many seats as one step: first everything is loaded and tried, which is where plugins
//! show that they are unfit; then it is put to work.

use wvs_plugin::TrialLimits;

use crate::seat::{Change, Prepared, Seat, SeatError, Swapped};

/// What becomes of one seat. Nobody else changes it meanwhile.
pub(super) struct Step<'s> {
    change: Change<'s>,
    next: Option<Prepared>,
    trial: TrialStep,
}

/// What becomes of the trial at a seat.
pub(super) enum TrialStep {
    /// It goes on, or there is still none.
    Keep,
    /// A candidate is tried out: its share of the clients in hundredths of a percent, and when its
    /// trial ends.
    Begin(Box<Prepared>, u16, TrialLimits),
    /// The candidate is obeyed for another share.
    Share(u16),
    /// It ends.
    End,
}

/// What became of a seat.
pub(super) struct Done {
    pub(super) swapped: Option<Swapped>,
    /// The number of a candidate whose trial began.
    pub(super) candidate: Option<u16>,
}

/// That a plugin failed when it was put to work, and at which service. Plugins that were replaced
/// before are back; trials that ended with that are not.
#[derive(Debug)]
pub(super) struct StepError {
    pub(super) service: String,
    pub(super) cause: SeatError,
}

impl<'s> Step<'s> {
    /// Begins with nothing to be done.
    pub(super) fn at(seat: &'s Seat) -> Self {
        Self { change: seat.change(), next: None, trial: TrialStep::Keep }
    }

    pub(super) fn change(&self) -> &Change<'s> {
        &self.change
    }

    /// Another plugin is to have the service.
    pub(super) fn seat(&mut self, next: Prepared) {
        self.next = Some(next);
    }

    pub(super) fn has_next(&self) -> bool {
        self.next.is_some()
    }

    pub(super) fn set_trial(&mut self, trial: TrialStep) {
        self.trial = trial;
    }

    /// The trial, which ends when another plugin gets the service.
    fn take_trial(&self, trial: TrialStep) -> Option<u16> {
        match trial {
            TrialStep::Keep => None,
            TrialStep::Begin(candidate, share, limits) => {
                Some(self.change.try_out(*candidate, share, limits))
            }
            // It may have ended by somebody's wish since; then there is nothing left to do.
            TrialStep::Share(share) => {
                let _ = self.change.of().set_share(share);
                None
            }
            TrialStep::End => {
                let _ = self.change.end_trial();
                None
            }
        }
    }
}

/// Takes all steps, or none: when a plugin fails on its predecessor's state, those that were put to
/// work before it go back, though not the trials that ended with them.
pub(super) fn take(mut steps: Vec<Step<'_>>) -> Result<Vec<Done>, StepError> {
    let mut swaps: Vec<Option<Swapped>> = Vec::with_capacity(steps.len());
    for index in 0..steps.len() {
        let step = &mut steps[index];
        let swapped = step.next.take().map(|next| step.change.seat(next)).transpose();
        match swapped {
            Ok(swapped) => swaps.push(swapped),
            Err(cause) => {
                let service = step.change.of().service().name().to_owned();
                for (step, swapped) in steps.iter().zip(swaps) {
                    if swapped.is_some() {
                        // It worked there a moment ago; if it does not any more, the new one stays.
                        if let Err(error) = step.change.rollback() {
                            let service = step.change.of().service().name();
                            tracing::warn!(service, %error, "the former plugin could not be put back");
                        }
                    }
                }
                return Err(StepError { service, cause });
            }
        }
    }
    let done = |(mut step, swapped): (Step<'_>, Option<Swapped>)| {
        let trial = std::mem::replace(&mut step.trial, TrialStep::Keep);
        Done { swapped, candidate: step.take_trial(trial) }
    };
    Ok(steps.into_iter().zip(swaps).map(done).collect())
}
