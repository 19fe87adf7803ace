//! The flight recorder: what it recorded, the same module answers again bit for bit.

use std::sync::Arc;

use wvs_abi::{Request, Signals};
use wvs_core::event::{Event, EventKind};
use wvs_core::random::Random;
use wvs_core::real_server::RealServer;
use wvs_core::scheduler::Scheduler;
use wvs_plugin::recording::{Answer, Recording};
use wvs_plugin::{Module, Recorder, ReplayReport, WasmScheduler};

use crate::{built_in, load_of, servers};

/// Answers by everything that it is told: requests, counts, weights, events, ticks and all that it
/// saw before, which it keeps in its memory.
fn sensitive() -> Module {
    load_of(
        r#"(func $stir (param $by i64)
               (i64.store (i32.const 64) (i64.add (i64.rotl (i64.load (i32.const 64)) (i64.const 7))
                   (i64.mul (local.get $by) (i64.const 0x9E3779B97F4A7C15)))))
           (func (export "wvs_event") (param i32 i32 i32)
               (call $stir (i64.extend_i32_u (i32.add (local.get 0) (i32.shl (local.get 1) (i32.const 4)))))
               (call $stir (i64.extend_i32_u (local.get 2))))
           (func (export "wvs_tick") (result i32)
               (call $stir (i64.load (i32.const 16432))) (i32.const 20))
           (func (export "wvs_caps") (result i32) (i32.const 9))
           (func (export "wvs_servers_changed") (param $n i32) (result i32)
               (call $stir (i64.extend_i32_u (local.get $n))) (i32.const 0))"#,
        "(call $stir (i64.load (i32.const 16440)))
         (call $stir (i64.load (i32.const 24584)))
         (call $stir (i64.load (i32.const 24616)))
         (call $stir (i64.load (i32.const 49152)))
         (if (i64.eqz (i64.and (i64.load (i32.const 64)) (i64.const 1023)))
             (then (return (i32.const 77))))
         (i32.wrap_i64 (i64.rem_u (i64.shr_u (i64.load (i32.const 64)) (i64.const 8))
             (i64.extend_i32_u (local.get $n))))",
    )
}

/// A scheduler with a life of decisions, events, ticks and changes.
struct Life {
    scheduler: WasmScheduler,
    servers: Vec<Arc<RealServer>>,
    random: Random,
    now_ms: u64,
}

impl Life {
    fn new(module: &Module, octets: usize) -> (Self, Arc<Recorder>) {
        let servers = servers(&[3, 2, 1]);
        let mut scheduler = module.scheduler(None, &servers).unwrap();
        let recorder = Arc::new(Recorder::new(octets));
        scheduler.record(Some(Arc::clone(&recorder)));
        (Self { scheduler, servers, random: Random::new(5), now_ms: 0 }, recorder)
    }

    fn go_on(&mut self, steps: usize) {
        for _ in 0..steps {
            self.now_ms += self.random.next() % 40;
            let request = Request {
                family: 4,
                now_ms: self.now_ms,
                random: self.random.next(),
                ..Request::default()
            };
            match self.random.next() % 16 {
                0 => {
                    let weight = u32::try_from(1 + self.random.next() % 9).unwrap();
                    self.servers[1].set_weight(weight);
                    self.scheduler.servers_changed(&self.servers);
                }
                1 => {
                    let _ = self.scheduler.tick(&request, &self.servers);
                }
                2 => {
                    let server_id = u32::try_from(1 + self.random.next() % 3).unwrap();
                    let kind = EventKind::Unbound { lifetime_ms: 9 };
                    self.scheduler.event(&Event { kind, server_id }, &self.servers);
                }
                _ => {
                    let _ = self.scheduler.schedule(&request, &self.servers);
                }
            }
        }
    }
}

fn replay(recorder: &Recorder, module: &Module) -> (Recording, ReplayReport) {
    let recording = Recording::read(&recorder.dump()).unwrap();
    let report = recording.replay(module).unwrap();
    (recording, report)
}

#[test]
fn same_module_answers_a_recording_bit_for_bit() {
    let module = sensitive();
    let (mut life, recorder) = Life::new(&module, 16 << 20);
    life.go_on(3_000);
    let (recording, report) = replay(&recorder, &module);
    assert!(report.decisions > 2_000, "{report:?}");
    assert_eq!((report.differences, report.inexact, report.other_module), (0, 0, 0), "{report:?}");
    let answers = life.scheduler.counters();
    assert_eq!(report.decisions, answers.picks() + answers.bad_answers());
    assert!(answers.bad_answers() > 0, "faults are recorded too");
    assert_eq!(u64::try_from(recording.decisions()).unwrap(), report.decisions);
    assert_eq!(recorder.dropped(), 0);
}

#[test]
fn other_module_differs_and_the_recording_says_where_first() {
    let (mut life, recorder) = Life::new(&built_in("rr"), 1 << 20);
    life.go_on(200);
    let (_, report) = replay(&recorder, &built_in("wlc"));
    assert_eq!(report.other_module, report.decisions);
    let first = report.first_difference.unwrap();
    assert_eq!((first.decision, first.recorded), (1, Answer::Server(1)));
    assert_eq!(first.replayed, Answer::Server(0));
    assert_eq!(first.servers.len(), 3);
}

#[test]
fn full_recorder_forgets_the_oldest_and_what_is_left_replays_all_the_same() {
    let module = sensitive();
    let (mut life, recorder) = Life::new(&module, 256 << 10);
    life.go_on(20_000);
    assert!(recorder.dropped() > 0);
    let file = recorder.dump();
    assert!(file.len() < 512 << 10, "{}", file.len());
    let (_, report) = replay(&recorder, &module);
    assert!(report.decisions > 1_000, "{report:?}");
    assert_eq!((report.differences, report.inexact), (0, 0), "{report:?}");
}

#[test]
fn recording_that_begins_in_the_middle_of_a_life_replays_too() {
    let module = sensitive();
    let (mut life, _) = Life::new(&module, 1 << 20);
    life.go_on(500);
    let recorder = Arc::new(Recorder::new(1 << 20));
    life.scheduler.record(Some(Arc::clone(&recorder)));
    life.go_on(500);
    let (_, report) = replay(&recorder, &module);
    assert!(report.decisions > 300);
    assert_eq!((report.differences, report.inexact), (0, 0), "{report:?}");
}

#[test]
fn recording_goes_on_over_a_swap_and_over_a_trap() {
    let traps_at_ten = load_of(
        "(global $left (mut i32) (i32.const 10))",
        "(if (i32.eqz (global.get $left)) (then (unreachable)))
         (global.set $left (i32.sub (global.get $left) (i32.const 1))) (i32.const 0)",
    );
    let (mut life, recorder) = Life::new(&traps_at_ten, 1 << 20);
    life.go_on(30);
    let next = built_in("rr").scheduler(None, &life.servers).unwrap().numbered(2);
    life.scheduler.succeed(next, &life.servers, 0).unwrap();
    life.go_on(30);
    let (recording, report) = replay(&recorder, &built_in("rr"));
    let generations: Vec<_> =
        recording.segments.iter().map(|segment| segment.heading.subject.generation).collect();
    assert_eq!((generations.first(), generations.last()), (Some(&1), Some(&2)));
    assert!(report.other_module >= 11, "{report:?}");
    assert!(report.decisions > report.other_module);
    let after_swap = recording.segments.last().unwrap().clone();
    let recording = Recording { segments: vec![after_swap] };
    let report = recording.replay(&built_in("rr")).unwrap();
    assert_eq!((report.differences, report.inexact), (0, 0), "{report:?}");
}

#[test]
fn signals_are_part_of_a_recording() {
    let module = sensitive();
    let (mut life, recorder) = Life::new(&module, 1 << 20);
    life.go_on(50);
    let (mut recording, report) = replay(&recorder, &module);
    assert_eq!(report.differences, 0);
    // With another signal than the recorded ones the answers differ.
    let changed = Signals { connect_us: 5, ..Signals::default() };
    for entry in recording.segments.iter_mut().flat_map(|segment| &mut segment.entries) {
        if let wvs_plugin::recording::Entry::Decision { signals, .. } = entry {
            *signals = vec![(0, changed.to_octets())];
        }
    }
    assert!(recording.replay(&module).unwrap().differences > 0);
}
