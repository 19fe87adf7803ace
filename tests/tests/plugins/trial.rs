//! A candidate beside a plugin: watched, obeyed for some clients, and stopped by itself.

use std::sync::Arc;

use wvs_abi::{Request, encode_address};
use wvs_core::real_server::RealServer;
use wvs_core::scheduler::{Pick, Scheduler};
use wvs_plugin::{Module, SHARE_ALL, Stop, TrialLimits, TrialReport, WasmScheduler};

use crate::{built_in, load_of, servers};

/// The first server is the plugin's, the last one the candidate's.
struct Work {
    scheduler: WasmScheduler,
    servers: Vec<Arc<RealServer>>,
    client: u32,
}

impl Work {
    fn new(candidate: &Module, share: u16, limits: TrialLimits) -> Self {
        let servers = servers(&[1, 1, 1]);
        let new = |module: &Module| module.scheduler(None, &servers).unwrap();
        let mut scheduler = new(&load_of("", "(i32.const 0)"));
        drop(scheduler.try_out(new(candidate).numbered(2), share, limits));
        Self { scheduler, servers, client: 0 }
    }

    fn ask(&mut self) -> (Pick, u16) {
        self.client += 1;
        let client = std::net::Ipv4Addr::from_bits(self.client);
        let request = Request {
            family: 4,
            client_address: encode_address(client.into()),
            ..Request::default()
        };
        let pick = self.scheduler.schedule(&request, &self.servers);
        (pick, self.scheduler.generation())
    }

    fn ask_often(&mut self, times: usize) -> Vec<(Pick, u16)> {
        (0..times).map(|_| self.ask()).collect()
    }

    fn report(&self) -> TrialReport {
        self.scheduler.trial().unwrap()
    }
}

fn always_last() -> Module {
    load_of("", "(i32.const 2)")
}

/// Never stops.
const PATIENT: TrialLimits = TrialLimits { faults: u64::MAX, skew: SHARE_ALL };

#[test]
fn shadow_is_asked_and_not_obeyed() {
    let mut work = Work::new(&always_last(), 0, TrialLimits::default());
    assert!(work.ask_often(300).iter().all(|answer| *answer == (Pick::Server(0), 1)));
    let report = work.report();
    assert_eq!((report.decisions, report.agreements, report.obeyed), (300, 0, 0));
    let picks: Vec<_> = report.picks.iter().map(|p| (p.server_id, p.plugin, p.candidate)).collect();
    assert_eq!(picks, [(1, 300, 0), (3, 0, 300)]);
    assert_eq!(report.skew, SHARE_ALL);
    assert_eq!(report.stopped, None, "a shadow may differ as it likes");
    assert_eq!(report.candidate.counters.picks(), 300);
    assert!(report.candidate.counters.fuel() > 0);
}

#[test]
fn candidate_that_decides_alike_agrees() {
    let mut work = Work::new(&load_of("", "(i32.const 0)"), 0, TrialLimits::default());
    work.ask_often(10);
    let report = work.report();
    assert_eq!((report.decisions, report.agreements, report.skew), (10, 10, 0));
}

#[test]
fn canary_decides_for_its_share_and_its_connections_say_so() {
    let mut work = Work::new(&always_last(), 1_000, PATIENT);
    let answers = work.ask_often(5_000);
    let canary = answers.iter().filter(|answer| **answer == (Pick::Server(2), 2)).count();
    assert!((350..650).contains(&canary), "{canary} of 5,000 for a share of 10 %");
    assert_eq!(
        answers.iter().filter(|answer| **answer == (Pick::Server(0), 1)).count(),
        5_000 - canary
    );
    assert_eq!(work.report().obeyed, u64::try_from(canary).unwrap());
    assert!(work.scheduler.set_trial_share(SHARE_ALL));
    assert!(work.ask_often(100).iter().all(|answer| *answer == (Pick::Server(2), 2)));
}

#[test]
fn canary_has_the_same_clients_every_time() {
    let mut work = Work::new(&always_last(), 2_500, PATIENT);
    let first = work.ask_often(500);
    work.client = 0;
    assert_eq!(work.ask_often(500), first);
}

#[test]
fn what_a_canary_cannot_answer_is_decided_as_if_it_were_not_there() {
    let mut work = Work::new(&load_of("", "(unreachable)"), SHARE_ALL, PATIENT);
    assert!(work.ask_often(10).iter().all(|answer| *answer == (Pick::Server(0), 1)));
    let mut work = Work::new(&load_of("", "(i32.const -2)"), SHARE_ALL, PATIENT);
    assert!(work.ask_often(10).iter().all(|answer| *answer == (Pick::Server(0), 1)));
}

#[test]
fn trial_stops_at_its_limit_of_faults() {
    let limits = TrialLimits { faults: 3, skew: SHARE_ALL };
    let mut work = Work::new(&load_of("", "(i32.const 99)"), SHARE_ALL, limits);
    assert!(work.ask_often(20).iter().all(|answer| *answer == (Pick::Server(0), 1)));
    let report = work.report();
    assert_eq!(report.stopped, Some(Stop::Faults(3)));
    assert_eq!(report.decisions, 3, "it is not asked any more");
}

#[test]
fn canary_stops_at_its_limit_of_skew() {
    let limits = TrialLimits { faults: 3, skew: 2_000 };
    let mut work = Work::new(&always_last(), 1_000, limits);
    work.ask_often(2_000);
    let report = work.report();
    assert_eq!(report.stopped, Some(Stop::Skew(SHARE_ALL)));
    assert_eq!(report.decisions, 256, "the first time that it is looked at");
    assert!(work.ask_often(100).iter().all(|answer| *answer == (Pick::Server(0), 1)));
}

#[test]
fn promoted_candidate_decides_and_its_predecessor_stays_at_hand() {
    let candidate = load_of(
        "(global $left (mut i32) (i32.const 13))",
        "(if (i32.eqz (global.get $left)) (then (unreachable)))
         (global.set $left (i32.sub (global.get $left) (i32.const 1))) (i32.const 2)",
    );
    let mut work = Work::new(&candidate, 0, PATIENT);
    work.ask_often(10);
    assert!(work.scheduler.promote(5).is_some());
    assert_eq!(work.ask_often(3), [(Pick::Server(2), 2); 3]);
    assert_eq!(work.ask(), (Pick::Server(0), 1));
    assert!(work.scheduler.trial().is_none());
    assert!(work.scheduler.promote(5).is_none(), "there is no candidate any more");
}

#[test]
fn candidate_learns_of_servers_too() {
    let mut work = Work::new(&built_in("rr"), 0, PATIENT);
    work.servers.truncate(2);
    let fewer = work.servers.clone();
    work.scheduler.servers_changed(&fewer);
    work.ask_often(10);
    let report = work.report();
    assert_eq!(report.candidate.counters.faults(), 0);
    assert_eq!(report.picks.len(), 2);
}
