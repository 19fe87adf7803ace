//! The TCP state machine of LVS as the table that it is.
//!
//! The director sees both directions but checks no sequence numbers: states follow the flags alone.
//! A forged RST with the right addresses and ports is believed. The connection goes on while it
//! is used, but a silence of [`State::Close`]'s timeout ends it, and a SYN replaces it.

use super::state::State;
use super::tuple::Direction;
use crate::packet::tcp::{ACK, FIN, RST, SYN};

/// What a segment's flags amount to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// SYN, with ACK or without.
    Syn,
    /// FIN.
    Fin,
    /// ACK alone.
    Ack,
    /// RST, whatever else is set.
    Rst,
}

impl Event {
    /// The event of a segment with these flags; RST counts before SYN before FIN before ACK. `None`
    /// when none of the four is set.
    #[inline]
    #[must_use]
    pub const fn of(flags: u8) -> Option<Self> {
        if flags & RST != 0 {
            Some(Self::Rst)
        } else if flags & SYN != 0 {
            Some(Self::Syn)
        } else if flags & FIN != 0 {
            Some(Self::Fin)
        } else if flags & ACK != 0 {
            Some(Self::Ack)
        } else {
            None
        }
    }
}

/// The state after a segment with these flags. A segment with none of the four flags closes, and a
/// state that is none of TCP's stays.
#[inline]
#[must_use]
pub fn next(state: State, direction: Direction, flags: u8) -> State {
    let Some(event) = Event::of(flags) else { return State::Close };
    let table = match direction {
        Direction::Original => &ORIGINAL,
        Direction::Reply => &REPLY,
    };
    let [syn, fin, ack, rst] = table;
    let row = match event {
        Event::Syn => syn,
        Event::Fin => fin,
        Event::Ack => ack,
        Event::Rst => rst,
    };
    row.get(usize::from(state.number())).copied().unwrap_or(state)
}

use State::{
    Close as CL, CloseWait as CW, Established as ES, FinWait as FW, LastAck as LA, Listen as LI,
    SynRecv as SR, SynSent as SS, TimeWait as TW,
};

/// Segments from the client. Columns are the present state in the order of [`State::ALL`].
#[rustfmt::skip]
const ORIGINAL: [[State; 11]; 4] = [
    //       NO  ES  SS  SR  FW  TW  CL  CW  LA  LI  SA
    /*syn*/ [SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SR],
    /*fin*/ [CL, CW, SS, TW, TW, TW, CL, CW, LA, LI, TW],
    /*ack*/ [ES, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES],
    /*rst*/ [CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, SR],
];

/// Segments from the real server.
#[rustfmt::skip]
const REPLY: [[State; 11]; 4] = [
    //       NO  ES  SS  SR  FW  TW  CL  CW  LA  LI  SA
    /*syn*/ [SS, ES, SS, SR, SS, SS, SS, SS, SS, LI, SR],
    /*fin*/ [TW, FW, SS, TW, FW, TW, CL, TW, LA, LI, TW],
    /*ack*/ [ES, ES, SS, ES, FW, TW, CL, CW, LA, ES, ES],
    /*rst*/ [CL, CL, SS, CL, CL, TW, CL, CL, CL, CL, CL],
];

#[cfg(test)]
mod tests {
    use super::*;

    /// The matrix as a reader of the LVS sources knows it, in words of two letters; written down
    /// apart from the tables above so that a slip in either shows.
    const DOCUMENTED: &str = "
        INPUT  SYN  SR ES ES SR SR SR SR SR SR SR SR
        INPUT  FIN  CL CW SS TW TW TW CL CW LA LI TW
        INPUT  ACK  ES ES SS ES FW TW CL CW CL LI ES
        INPUT  RST  CL CL CL SR CL CL CL CL LA LI SR
        OUTPUT SYN  SS ES SS SR SS SS SS SS SS LI SR
        OUTPUT FIN  TW FW SS TW FW TW CL TW LA LI TW
        OUTPUT ACK  ES ES SS ES FW TW CL CW LA ES ES
        OUTPUT RST  CL CL SS CL CL TW CL CL CL CL CL
    ";

    const CODES: [&str; 11] = ["NO", "ES", "SS", "SR", "FW", "TW", "CL", "CW", "LA", "LI", "SA"];

    #[test]
    fn every_cell_is_the_documented_one() {
        let mut cells = 0;
        for line in DOCUMENTED.lines().filter(|line| !line.trim().is_empty()) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let direction =
                if words[0] == "INPUT" { Direction::Original } else { Direction::Reply };
            let flags = match words[1] {
                "SYN" => SYN,
                "FIN" => FIN,
                "ACK" => ACK,
                "RST" => RST,
                other => panic!("no such event: {other}"),
            };
            for (column, expected) in words[2..].iter().enumerate() {
                let next = next(State::ALL[column], direction, flags);
                let code = CODES[usize::from(next.number())];
                assert_eq!(code, *expected, "{} {} in {}", words[0], words[1], CODES[column]);
                cells += 1;
            }
        }
        assert_eq!(cells, 88);
    }

    #[test]
    fn rst_counts_before_syn_before_fin_before_ack() {
        assert_eq!(Event::of(RST | SYN | FIN | ACK), Some(Event::Rst));
        assert_eq!(Event::of(SYN | FIN | ACK), Some(Event::Syn));
        assert_eq!(Event::of(FIN | ACK), Some(Event::Fin));
        assert_eq!(Event::of(ACK), Some(Event::Ack));
        assert_eq!(Event::of(0x08 | 0x20), None);
    }

    #[test]
    fn segment_without_any_of_the_four_flags_closes() {
        for state in &State::ALL[..11] {
            assert_eq!(next(*state, Direction::Original, 0), State::Close);
        }
    }

    /// What lets most packets of a connection pass without a look at its state.
    #[test]
    fn second_acknowledgement_changes_nothing() {
        for state in State::ALL {
            for direction in [Direction::Original, Direction::Reply] {
                let once = next(state, direction, ACK);
                assert_eq!(next(once, direction, ACK), once, "{state}");
            }
        }
    }

    #[test]
    fn states_of_other_protocols_never_change() {
        assert_eq!(next(State::Udp, Direction::Original, SYN), State::Udp);
        assert_eq!(next(State::Icmp, Direction::Reply, RST), State::Icmp);
    }

    #[test]
    fn timeouts_and_counts_are_those_of_ipvs() {
        let documented = [
            (State::None, 2, false),
            (State::Established, 900, true),
            (State::SynSent, 120, true),
            (State::SynRecv, 60, true),
            (State::FinWait, 120, false),
            (State::TimeWait, 120, false),
            (State::Close, 10, false),
            (State::CloseWait, 60, false),
            (State::LastAck, 30, false),
            (State::Listen, 120, false),
            (State::SynAck, 120, true),
            (State::Udp, 300, false),
            (State::Icmp, 30, false),
        ];
        for (state, seconds, is_active) in documented {
            assert_eq!(state.default_timeout().as_secs(), seconds, "{state}");
            assert_eq!(state.is_active(), is_active, "{state}");
        }
    }
}
