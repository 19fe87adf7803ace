//! Passive health: what the connections of clients themselves tell of a server.

use std::time::Duration;

use crate::judge::Standing;

/// What was seen of a server's connections since some beginning. The numbers only grow, and wrap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Signs {
    /// Connections that it accepted.
    pub accepted: u32,
    /// Connections that it refused: its first answer was a reset.
    pub refused: u32,
    /// Connections that it never answered.
    pub unanswered: u32,
}

/// Takes a server out for a while when it refuses or ignores so many connections in a row.
///
/// It is fed with counters about once a second, which do not tell in what order things happened
/// between two looks. So one accepted connection breaks the row of everything seen in the same
/// look: a server that still works for somebody is not taken out. When its time is over the server
/// is up again, and its row begins anew.
#[derive(Clone, Debug)]
pub struct Passive {
    failures: u32,
    duration: Duration,
    in_row: u32,
    seen: Option<Signs>,
    /// The time at which it is up again.
    until: Option<Duration>,
    /// Until then connections from before end that were not answered.
    aftermath: Duration,
}

/// How long a connection waits for an answer until it counts as unanswered, and some more: LVS's
/// timeout for `SYN_RECV` is 60 s.
const UNANSWERED_AFTER: Duration = Duration::from_secs(75);

impl Passive {
    /// Down for `duration` after `failures` in a row, at least one.
    #[must_use]
    pub fn new(failures: u32, duration: Duration) -> Self {
        let (failures, aftermath) = (failures.max(1), Duration::ZERO);
        Self { failures, duration, in_row: 0, seen: None, until: None, aftermath }
    }

    /// Looks at the counters at `now`, a time since any fixed point, and says what holds. The first
    /// look only shows where the counters begin.
    pub fn look(&mut self, now: Duration, signs: Signs) -> Standing {
        let before = self.seen.replace(signs).unwrap_or(signs);
        if let Some(until) = self.until {
            if now < until {
                // What comes in now are connections of before.
                return Standing::Down;
            }
            self.until = None;
            self.in_row = 0;
        }
        let refused = signs.refused.wrapping_sub(before.refused);
        let mut unanswered = signs.unanswered.wrapping_sub(before.unanswered);
        if now < self.aftermath {
            unanswered = 0;
        }
        if signs.accepted == before.accepted {
            self.in_row = self.in_row.saturating_add(refused).saturating_add(unanswered);
        } else {
            self.in_row = 0;
        }
        if self.in_row < self.failures {
            return Standing::Up;
        }
        let until = now.saturating_add(self.duration);
        self.until = Some(until);
        self.aftermath = until.saturating_add(UNANSWERED_AFTER);
        Standing::Down
    }

    /// Failures in a row.
    #[must_use]
    pub fn in_row(&self) -> u32 {
        self.in_row
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signs(accepted: u32, refused: u32, unanswered: u32) -> Signs {
        Signs { accepted, refused, unanswered }
    }

    /// The standings of looks at one second each, as letters.
    fn looks(passive: &mut Passive, from: u64, signs: &[Signs]) -> String {
        let seconds = (from..).map(Duration::from_secs);
        let look = |(now, signs)| match passive.look(now, signs) {
            Standing::Up => 'u',
            Standing::Down => 'd',
        };
        seconds.zip(signs.iter().copied()).map(look).collect()
    }

    #[test]
    fn so_many_failures_in_a_row_take_a_server_out() {
        let mut passive = Passive::new(3, Duration::from_secs(60));
        let seen = [signs(9, 9, 9), signs(9, 10, 9), signs(9, 10, 10), signs(9, 11, 10)];
        assert_eq!(looks(&mut passive, 0, &seen), "uuud");
    }

    #[test]
    fn accepted_connection_breaks_the_row() {
        let mut passive = Passive::new(3, Duration::from_secs(60));
        let seen = [signs(0, 0, 0), signs(0, 2, 0), signs(1, 4, 0), signs(1, 6, 0), signs(1, 7, 0)];
        assert_eq!(looks(&mut passive, 0, &seen), "uuuud");
    }

    #[test]
    fn server_is_back_after_its_time_with_a_new_row() {
        let mut passive = Passive::new(2, Duration::from_secs(3));
        let seen = [signs(0, 0, 0), signs(0, 2, 0), signs(0, 9, 0), signs(0, 9, 5)];
        assert_eq!(looks(&mut passive, 0, &seen), "uddd");
        let seen = [signs(0, 9, 5), signs(0, 10, 5), signs(0, 10, 5), signs(0, 11, 5)];
        assert_eq!(looks(&mut passive, 4, &seen), "uuud");
    }

    #[test]
    fn connections_from_before_that_end_unanswered_are_not_held_against_it() {
        let mut passive = Passive::new(2, Duration::from_secs(3));
        assert_eq!(looks(&mut passive, 0, &[signs(0, 0, 0), signs(0, 0, 2)]), "ud");
        let seen = [signs(0, 0, 2), signs(0, 0, 9), signs(0, 0, 20)];
        assert_eq!(looks(&mut passive, 4, &seen), "uuu");
        let seen = [signs(0, 0, 20), signs(0, 0, 22)];
        assert_eq!(looks(&mut passive, 79, &seen), "ud");
    }

    #[test]
    fn what_was_counted_before_the_first_look_and_a_wrap_tell_nothing() {
        let mut passive = Passive::new(2, Duration::from_secs(60));
        let seen = [signs(7, u32::MAX, 500), signs(7, 0, 500), signs(7, 1, 500)];
        assert_eq!(looks(&mut passive, 0, &seen), "uud");
    }
}
