//! When a server counts as up or down: the rule, without clock and network.

use std::fmt;

use crate::finding::Outcome;

/// Whether a server is to get connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Standing {
    /// It is.
    #[default]
    Up,
    /// It is not.
    Down,
}

/// Counts good and bad checks of one server, in a row each, and decides.
///
/// A server that is up falls after `fall` bad checks in a row; one that is down rises after `rise`
/// good ones in a row. One of the other kind begins the count anew. Of a server that was never
/// judged, the first check decides alone: nothing is known that it could be weighed against, and
/// clients should not find out first. A check without a result changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judge {
    rise: u32,
    fall: u32,
    standing: Standing,
    weight: Option<u32>,
    good: u32,
    bad: u32,
    is_new: bool,
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Up => "up",
            Self::Down => "down",
        })
    }
}

impl Judge {
    /// Of a server that was never judged: it is `start` until the first check.
    #[must_use]
    pub fn new(start: Standing, rise: u32, fall: u32) -> Self {
        Self { rise, fall, standing: start, weight: None, good: 0, bad: 0, is_new: true }
    }

    /// Goes on with other numbers, or another kind of check: the server keeps its standing until
    /// the new check has been good or bad often enough.
    #[must_use]
    pub fn with(self, rise: u32, fall: u32) -> Self {
        Self { rise, fall, good: 0, bad: 0, ..self }
    }

    /// Hears of one check.
    pub fn hear(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Good { weight } => {
                self.good = self.good.saturating_add(1);
                self.bad = 0;
                if self.good >= if self.is_new { 1 } else { self.rise } {
                    self.standing = Standing::Up;
                }
                if self.standing == Standing::Up {
                    self.weight = weight;
                }
            }
            Outcome::Bad => {
                self.bad = self.bad.saturating_add(1);
                self.good = 0;
                if self.bad >= if self.is_new { 1 } else { self.fall } {
                    self.standing = Standing::Down;
                    self.weight = None;
                }
            }
            Outcome::Unknown => return,
        }
        self.is_new = false;
    }

    /// What holds now.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// The weight that the last good check gave a server that is up; `None` for the configured one.
    #[must_use]
    pub fn weight(&self) -> Option<u32> {
        self.weight
    }

    /// Good checks since the last bad one.
    #[must_use]
    pub fn good(&self) -> u32 {
        self.good
    }

    /// Bad checks since the last good one.
    #[must_use]
    pub fn bad(&self) -> u32 {
        self.bad
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn outcome(letter: char) -> Outcome {
        match letter {
            'g' => Outcome::Good { weight: None },
            'b' => Outcome::Bad,
            '?' => Outcome::Unknown,
            digit => Outcome::Good { weight: digit.to_digit(10) },
        }
    }

    /// The standing after each check: `u` or `d`.
    fn judged(mut judge: Judge, checks: &str) -> String {
        let mut standings = String::new();
        for letter in checks.chars() {
            judge.hear(outcome(letter));
            standings.push(if judge.standing() == Standing::Up { 'u' } else { 'd' });
        }
        standings
    }

    #[test]
    fn server_falls_and_rises_after_so_many_checks_in_a_row() {
        for (rise, fall, checks, standings) in [
            (2, 3, "gbbgbbbgbgg", "uuuuuudddduu".get(..11).unwrap()),
            (2, 3, "gbbb", "uuud"),
            (2, 3, "gbbgbbg", "uuuuuuu"),
            (2, 3, "gbbbgbgg", "uuuddddu"),
            (1, 1, "gbgbg", "ududu"),
            (3, 1, "gbggg", "udddu"),
        ] {
            let judge = Judge::new(Standing::Up, rise, fall);
            assert_eq!(judged(judge, checks), standings, "rise {rise}, fall {fall}: {checks}");
        }
    }

    #[test]
    fn first_check_of_a_new_server_decides_alone() {
        for start in [Standing::Up, Standing::Down] {
            assert_eq!(judged(Judge::new(start, 2, 3), "g"), "u");
            assert_eq!(judged(Judge::new(start, 2, 3), "b"), "d");
            assert_eq!(judged(Judge::new(start, 2, 3), "?g"), format!("{}u", letter(start)));
        }
    }

    fn letter(standing: Standing) -> char {
        if standing == Standing::Up { 'u' } else { 'd' }
    }

    #[test]
    fn check_without_a_result_neither_breaks_a_row_nor_adds_to_it() {
        assert_eq!(judged(Judge::new(Standing::Up, 2, 2), "gb?b"), "uuud");
        assert_eq!(judged(Judge::new(Standing::Up, 2, 2), "gb??????"), "uuuuuuuu");
    }

    #[test]
    fn changed_check_keeps_the_standing_until_it_was_heard_often_enough() {
        let mut judge = Judge::new(Standing::Up, 2, 3);
        judge.hear(Outcome::Bad);
        judge.hear(outcome('g'));
        let judge = judge.with(2, 2);
        assert_eq!(judge.standing(), Standing::Down);
        assert_eq!(judged(judge, "gg"), "du", "the good one before does not count");
    }

    #[test]
    fn weight_is_that_of_the_last_good_check_while_the_server_is_up() {
        let mut judge = Judge::new(Standing::Up, 2, 2);
        let mut weights = Vec::new();
        for letter in "7b5bb34g".chars() {
            judge.hear(outcome(letter));
            weights.push(judge.weight());
        }
        let expected = [Some(7), Some(7), Some(5), Some(5), None, None, Some(4), None];
        assert_eq!(weights, expected);
    }

    proptest! {
        #[test]
        fn standing_follows_from_the_results_alone(
            checks in "[gb?]{0,60}", rise in 1_u32..5, fall in 1_u32..5,
        ) {
            let standings = judged(Judge::new(Standing::Up, rise, fall), &checks);
            // As the manual says it: the last so many results, the ones without any left out.
            let results: String = checks.chars().filter(|letter| *letter != '?').collect();
            let mut expected = 'u';
            for end in 1..=results.len() {
                let heard = &results[..end];
                let ends_with = |letter: &str, times: u32| heard.ends_with(&letter.repeat(times as usize));
                expected = match end {
                    1 if heard == "g" => 'u',
                    1 => 'd',
                    _ if ends_with("g", rise) => 'u',
                    _ if ends_with("b", fall) => 'd',
                    _ => expected,
                };
            }
            prop_assert_eq!(standings.chars().last().unwrap_or('u'), expected);
        }
    }
}
