//! `swrr`, smooth weighted round robin: by weight as `wrr`, but nobody gets many in a row.
//!
//! **Rule.** Each server has a credit. With each connection every server is credited its weight; the
//! one with the most, of equals the first in the order of the configuration, takes the connection
//! and pays the sum of all weights. So weights 5, 1 and 1 give `a a b a c a a`, over and over, as
//! nginx does. Servers of weight 0 take no part and lose their credit; when there are no others there
//! is no server. LVS has no such scheduler.
//!
//! **Changes of membership or weight** keep the credits by the servers' identities; a new server
//! begins in the middle. Nobody keeps credit or debt for more than one round of the new weights. A
//! successor of the same kind goes on with the same credits.
//!
//! **Cost.** One pass over the servers; reads no counters.
//!
//! **When.** Servers of different strength, connections alike, and bursts that `wrr` would give to
//! the strongest server alone.

#![no_std]

extern crate alloc;

use alloc::string::String;
use alloc::vec::Vec;

use wvs_sdk::{Pick, Request, Roster, Scheduler, Server, State, no_config, state};

/// The scheduler `swrr`. Takes no configuration.
#[derive(Debug, Default)]
pub struct SmoothWeightedRoundRobin {
    /// In the order of the list.
    accounts: Vec<Account>,
    /// The sum of all weights.
    total: i32,
}

/// What a server is owed.
#[derive(Clone, Copy, Debug)]
struct Account {
    id: u32,
    /// The weight of the server, which adds up without overflow: 4096 of the largest are 2^28.
    weight: i32,
    credit: i32,
}

/// The form of the [`State`]: a word for each account, its credit below its identity.
const MARK: [u8; 4] = *b"swr1";

impl SmoothWeightedRoundRobin {
    /// Gives the accounts the credits that their servers have in `old`, brought back to their
    /// middle, 0, and within one round. What was alike stays so: only differences between credits
    /// count.
    fn take_over(&mut self, old: &[Account]) {
        let roster: Roster = old.iter().map(|account| account.id).collect();
        let mut taking_part = 0;
        let mut sum = 0;
        for account in self.accounts.iter_mut().filter(|account| account.weight > 0) {
            account.credit = roster.index(account.id).map_or(0, |index| old[index].credit);
            sum += i64::from(account.credit);
            taking_part += 1;
        }
        let middle = sum.checked_div(taking_part).unwrap_or(0);
        let round = i64::from(self.total);
        for account in self.accounts.iter_mut().filter(|account| account.weight > 0) {
            let credit = (i64::from(account.credit) - middle).clamp(-round, round);
            account.credit = i32::try_from(credit).unwrap_or(0);
        }
    }
}

impl Scheduler for SmoothWeightedRoundRobin {
    const CAPS: u32 = 0;

    fn new(config: &str) -> Result<Self, String> {
        no_config("swrr", config)?;
        Ok(Self::default())
    }

    fn servers_changed(&mut self, servers: &[Server]) {
        let account = |server: &Server| Account {
            id: server.id,
            weight: server.weight.cast_signed(),
            credit: 0,
        };
        let old = core::mem::replace(&mut self.accounts, servers.iter().map(account).collect());
        self.total = self.accounts.iter().map(|account| account.weight).sum();
        self.take_over(&old);
    }

    fn schedule(&mut self, _request: &Request, _servers: &[Server]) -> Pick {
        let mut best = None;
        let mut most = i32::MIN;
        for (index, account) in self.accounts.iter_mut().enumerate() {
            account.credit += account.weight;
            if account.credit > most && account.weight > 0 {
                most = account.credit;
                best = Some(index);
            }
        }
        if let Some(index) = best {
            self.accounts[index].credit -= self.total;
        }
        best.into()
    }
}

impl State for SmoothWeightedRoundRobin {
    fn save(&self) -> Vec<u8> {
        let word = |account: &Account| {
            u64::from(account.id) << 32 | u64::from(account.credit.cast_unsigned())
        };
        state::to_octets(MARK, self.accounts.iter().map(word))
    }

    fn load(&mut self, state: &[u8]) -> bool {
        let Some(words) = state::from_octets(MARK, state) else { return false };
        let account = |word: u64| {
            #[expect(clippy::cast_possible_truncation, reason = "the halves are meant")]
            let [id, credit] = [(word >> 32) as u32, word as u32];
            Account { id, weight: 0, credit: credit.cast_signed() }
        };
        self.take_over(&words.map(account).collect::<Vec<_>>());
        true
    }
}

wvs_sdk::no_std!();
wvs_sdk::export!(SmoothWeightedRoundRobin, State);

#[cfg(test)]
mod tests {
    use super::*;

    /// Servers by identity and weight.
    fn servers(list: &[(u32, u32)]) -> Vec<Server> {
        let server = |&(id, weight)| Server { id, weight, ..Server::default() };
        list.iter().map(server).collect()
    }

    fn started(list: &[(u32, u32)]) -> SmoothWeightedRoundRobin {
        let mut swrr = SmoothWeightedRoundRobin::new("").unwrap();
        swrr.servers_changed(&servers(list));
        swrr
    }

    /// The next picks, as letters: a for identity 1, and so on.
    fn picks(swrr: &mut SmoothWeightedRoundRobin, n: usize) -> String {
        let pick = |_| match swrr.schedule(&Request::default(), &[]) {
            Pick::Server(index) => {
                char::from(b'`' + u8::try_from(swrr.accounts[index].id).unwrap())
            }
            other => panic!("{other:?}"),
        };
        (0..n).map(pick).collect()
    }

    #[test]
    fn servers_take_turns_as_in_nginx() {
        let mut swrr = started(&[(1, 5), (2, 1), (3, 1)]);
        assert_eq!(picks(&mut swrr, 14), "aabacaaaabacaa");
        let mut equal = started(&[(1, 7), (2, 7), (3, 7)]);
        assert_eq!(picks(&mut equal, 6), "abcabc");
        let mut largest = started(&[(1, 65_535), (2, 65_535), (3, 0)]);
        assert_eq!(picks(&mut largest, 4), "abab");
    }

    #[test]
    fn each_round_keeps_to_the_weights() {
        let mut swrr = started(&[(1, 7), (2, 0), (3, 4), (4, 2)]);
        for round in 0..3 {
            let round_of_picks = picks(&mut swrr, 13);
            let count = |letter| round_of_picks.matches(letter).count();
            assert_eq!(["a", "b", "c", "d"].map(count), [7, 0, 4, 2], "round {round}");
        }
    }

    #[test]
    fn without_weights_there_is_no_server() {
        for list in [&[][..], &[(1, 0), (2, 0)]] {
            let pick = started(list).schedule(&Request::default(), &servers(list));
            assert_eq!(pick, Pick::NoServer);
        }
    }

    #[test]
    fn credits_survive_a_change_of_membership() {
        let mut swrr = started(&[(1, 5), (2, 1), (3, 1)]);
        assert_eq!(picks(&mut swrr, 3), "aab");
        swrr.servers_changed(&servers(&[(3, 1), (1, 5), (2, 1)]));
        assert_eq!(picks(&mut swrr, 4), "acaa", "the order of the list alone changes nothing");
    }

    #[test]
    fn new_server_begins_in_the_middle() {
        let mut swrr = started(&[(1, 1), (2, 1)]);
        assert_eq!(picks(&mut swrr, 1), "a");
        swrr.servers_changed(&servers(&[(1, 1), (2, 1), (3, 1)]));
        assert_eq!(picks(&mut swrr, 6), "bcabca");
    }

    #[test]
    fn servers_that_come_and_go_leave_no_debt_behind() {
        let mut swrr = started(&[(1, 100), (2, 1)]);
        for _ in 0..10_000 {
            picks(&mut swrr, 1);
            swrr.servers_changed(&servers(&[(1, 100)]));
            swrr.servers_changed(&servers(&[(1, 100), (2, 1)]));
        }
        assert_eq!(picks(&mut swrr, 101).matches('b').count(), 1);
        // Weights a thousand times smaller: nobody waits for old debts to be paid.
        let mut swrr = started(&[(1, 60_000), (2, 50_000)]);
        picks(&mut swrr, 1);
        swrr.servers_changed(&servers(&[(1, 1), (2, 1)]));
        assert_eq!(picks(&mut swrr, 8).matches('a').count(), 3);
    }

    #[test]
    fn successor_goes_on_where_its_predecessor_stopped() {
        for stop in 0..7 {
            let mut old = started(&[(1, 5), (2, 1), (3, 1)]);
            let mut order = picks(&mut old, stop);
            let mut new = started(&[(1, 5), (2, 1), (3, 1)]);
            assert!(new.load(&old.save()));
            order += &picks(&mut new, 14 - stop);
            assert_eq!(order, "aabacaaaabacaa", "after {stop}");
        }
    }

    #[test]
    fn state_of_others_is_refused() {
        let mut swrr = started(&[(1, 1), (2, 1)]);
        assert_eq!(picks(&mut swrr, 1), "a");
        for state in [&b""[..], b"rr 1", b"swr1\x01"] {
            assert!(!swrr.load(state));
        }
        assert_eq!(picks(&mut swrr, 1), "b");
    }

    #[test]
    fn forged_credits_cannot_overflow() {
        let mut swrr = started(&[(1, 65_535), (2, 1)]);
        let forged = [1 << 32 | 0x7FFF_FFFF, 2 << 32 | 0x8000_0000];
        assert!(swrr.load(&state::to_octets(MARK, forged)));
        assert_eq!(picks(&mut swrr, 3), "aaa");
    }

    #[test]
    fn config_is_refused() {
        let refused = SmoothWeightedRoundRobin::new("{}").unwrap_err();
        assert_eq!(refused, "swrr takes no configuration");
    }
}
