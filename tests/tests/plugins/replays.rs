//! Recordings in the cases that are easy to get wrong: joined late, cut short, lying.

use std::ops::Range;
use std::sync::Arc;

use wvs_abi::Request;
use wvs_core::event::{Event, EventKind};
use wvs_core::real_server::RealServer;
use wvs_core::scheduler::Scheduler;
use wvs_plugin::recording::Recording;
use wvs_plugin::{Module, Recorder, WasmScheduler};

use crate::{built_in, load_of, servers};

/// Room for everything that these tests record.
const ROOM: usize = 1 << 20;

/// What the scheduler does from now on.
fn record(scheduler: &mut WasmScheduler, octets: usize) -> Arc<Recorder> {
    let recorder = Arc::new(Recorder::new(octets));
    scheduler.record(Some(Arc::clone(&recorder)));
    recorder
}

fn at(now_ms: u64) -> Request {
    Request {
        family: 4,
        now_ms,
        random: now_ms.wrapping_mul(0x9E37_79B9_7F4A_7C15),
        ..Request::default()
    }
}

/// One decision a millisecond.
fn decide(scheduler: &mut WasmScheduler, times_ms: Range<u64>, servers: &[Arc<RealServer>]) {
    for now_ms in times_ms {
        scheduler.schedule(&at(now_ms), servers);
    }
}

/// The module decides everything as recorded, and from the same state.
#[track_caller]
fn assert_exact(recorder: &Recorder, module: &Module) {
    let report = Recording::read(&recorder.dump()).unwrap().replay(module).unwrap();
    let name = module.name();
    assert_ne!(report.decisions, 0, "{name}");
    assert_eq!((report.differences, report.inexact), (0, 0), "{name}, of {}", report.decisions);
}

/// Two tables before the recorder comes: only the latest is recorded, as if it had been the first.
#[test]
fn table_learnt_before_the_recording_counts() {
    let module = load_of(
        r#"(func (export "wvs_servers_changed") (param i32) (result i32)
        (i32.store (i32.const 64) (i32.add (i32.load (i32.const 64)) (i32.const 1))) (i32.const 0))"#,
        "(i32.and (i32.load (i32.const 64)) (i32.const 1))",
    );
    let all = servers(&[3, 2]);
    let mut scheduler = module.scheduler(None, &all).unwrap();
    all[0].set_weight(5);
    scheduler.servers_changed(&all);
    let recorder = record(&mut scheduler, ROOM);
    decide(&mut scheduler, 0..10, &all);
    assert_exact(&recorder, &module);
}

/// The same with a built-in: mh keeps the slots of a server's last weight above 0.
#[test]
fn built_in_whose_table_depends_on_the_one_before() {
    for name in wvs_plugin::builtin::NAMES {
        let module = built_in(name);
        let all = servers(&[3, 2, 9]);
        let mut scheduler = module.scheduler(None, &all).unwrap();
        for weight in [5, 0] {
            all[2].set_weight(weight);
            scheduler.servers_changed(&all);
        }
        let recorder = record(&mut scheduler, ROOM);
        for n in 0..200_u64 {
            let mut request = at(n);
            request.client_address[..8].copy_from_slice(&request.random.to_be_bytes());
            request.virtual_address[..4].copy_from_slice(&request.random.to_be_bytes()[..4]);
            scheduler.schedule(&request, &all);
        }
        assert_exact(&recorder, &module);
    }
}

/// Picks as the host's randomness falls.
fn by_chance() -> Module {
    load_of(
        r#"(import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))"#,
        "(drop (call $random (i32.const 64) (i32.const 4)))
        (i32.rem_u (i32.load (i32.const 64)) (local.get $n))",
    )
}

const CLOCK: &str = r#"(import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))"#;

/// Randomness of a runtime is part of what an instance remembers.
#[test]
fn randomness_of_runtimes_after_a_join() {
    let module = by_chance();
    let all = servers(&[1, 1, 1]);
    let mut scheduler = module.scheduler(None, &all).unwrap();
    decide(&mut scheduler, 0..5, &all);
    let recorder = record(&mut scheduler, ROOM);
    decide(&mut scheduler, 5..105, &all);
    assert_exact(&recorder, &module);
}

#[test]
fn randomness_of_runtimes_after_the_beginning_made_way() {
    let module = by_chance();
    let all = servers(&[1, 1, 1]);
    let mut scheduler = module.scheduler(None, &all).unwrap();
    let recorder = record(&mut scheduler, 64 << 10);
    decide(&mut scheduler, 0..5000, &all);
    assert!(recorder.dropped() > 0);
    assert_exact(&recorder, &module);
}

/// The clock between the joining and the first decision.
#[test]
fn clock_in_an_event_right_after_a_join() {
    let rest = format!(
        r#"{CLOCK} (func (export "wvs_event") (param i32 i32 i32)
        (drop (call $clock (i32.const 0) (i64.const 0) (i32.const 64))))"#
    );
    let module = load_of(
        &rest,
        "(i32.wrap_i64 (i64.rem_u (i64.div_u (i64.load (i32.const 64)) (i64.const 1000000)) (i64.extend_i32_u (local.get $n))))",
    );
    let all = servers(&[1, 1, 1]);
    let mut scheduler = module.scheduler(None, &all).unwrap();
    scheduler.schedule(&at(1001), &all);
    let recorder = record(&mut scheduler, ROOM);
    scheduler.event(&Event { kind: EventKind::Bound, server_id: 1 }, &all);
    decide(&mut scheduler, 1001..1005, &all);
    assert_exact(&recorder, &module);
}

/// Ticks and events alone must not make the recorder grow.
#[test]
fn recorder_stays_bounded_without_decisions() {
    let module =
        load_of(r#"(func (export "wvs_tick") (result i32) (i32.const 10))"#, "(i32.const 0)");
    let all = servers(&[1, 1, 1]);
    let mut scheduler = module.scheduler(None, &all).unwrap();
    let recorder = record(&mut scheduler, 64 << 10);
    for n in 0..100_000 {
        scheduler.tick(&at(n * 10), &all);
    }
    let octets = recorder.dump().len();
    assert!(octets <= 128 << 10, "{octets} octets in a recorder of 65,536 after 1,000 s of ticks");
}

/// A recording over a swap between plugins of different configurations.
#[test]
fn recording_over_a_swap_replays_with_either_module() {
    let all = servers(&[1, 1, 1]);
    let sh = built_in("sh");
    let mut scheduler = built_in("rr").scheduler(None, &all).unwrap();
    let recorder = record(&mut scheduler, ROOM);
    decide(&mut scheduler, 0..10, &all);
    let next = sh.scheduler(Some(r#"{"port":true}"#), &all).unwrap().numbered(2);
    scheduler.succeed(next, &all, 0).unwrap();
    decide(&mut scheduler, 0..10, &all);
    let recording = Recording::read(&recorder.dump()).unwrap();
    let report = recording.replay(&built_in("rr"));
    assert!(report.is_ok(), "{}", report.unwrap_err());
}

/// A recording that lies.
#[test]
fn hostile_recording_does_not_panic() {
    use wvs_plugin::recording::{Answer, Beginning, Entry, Heading, Segment, Snapshot, Subject};
    let module = built_in("lrt");
    let subject = |fuel| Subject {
        service_id: 0,
        generation: 0,
        name: "lrt".into(),
        sha256: *module.sha256(),
        config: None,
        memory_max: u64::MAX,
        fuel,
        setup_fuel: u64::MAX,
    };
    let at_ends = [0_u32, 1, 4, 8, 1 << 16, (1 << 20) - 8, 0xFFFF_FFF8, u32::MAX];
    for size in [0, 1, 1 << 16, 1 << 20, u32::MAX] {
        for at in at_ends {
            for capacity in [0_u32, 32, 64, 96, 1 << 16, u32::MAX] {
                let snapshot = Snapshot {
                    size,
                    random: 1,
                    now_ms: 1,
                    parts: vec![(at, vec![7; 100])],
                    regions: [(at, 64), (at, capacity), (at, capacity), (at, capacity)],
                };
                let snapshot2 = Snapshot {
                    size,
                    random: 1,
                    now_ms: 1,
                    parts: vec![],
                    regions: [(at, 64), (1024, 1 << 12), (at, capacity), (at, capacity)],
                };
                for snapshot in [snapshot, snapshot2] {
                    let beginning = Beginning::Resumed {
                        snapshot: Some(snapshot),
                        servers: vec![[1; 32]; 3],
                        info: vec![[9; 32]; 1],
                        signals: vec![[2; 32]; 9],
                    };
                    let entries = vec![
                        Entry::Decision {
                            request: [[9; 32]; 2],
                            counts: vec![(65535, 1, 1), (0, 1, 1)],
                            signals: vec![(65535, [1; 32]), (2, [1; 32])],
                            answer: Answer::Server(u32::MAX),
                        },
                        Entry::Event { kind: u32::MAX, index: u32::MAX, argument: 1 },
                        Entry::Tick { request: [[255; 32]; 2], signals: vec![(1, [1; 32])] },
                        Entry::State { state: vec![1; 70_000], is_taken: true },
                        Entry::Servers { servers: vec![[255; 32]; 5000], info: vec![] },
                        Entry::Decision {
                            request: [[9; 32]; 2],
                            counts: vec![],
                            signals: vec![],
                            answer: Answer::Fault,
                        },
                        Entry::Servers { servers: vec![], info: vec![[1; 32]; 10] },
                        Entry::Decision {
                            request: [[9; 32]; 2],
                            counts: vec![],
                            signals: vec![],
                            answer: Answer::Fault,
                        },
                    ];
                    let recording = Recording {
                        segments: vec![Segment {
                            heading: Heading { subject: subject(u64::MAX), instance: 1, beginning },
                            entries,
                        }],
                    };
                    let read = Recording::read(&recording.write()).unwrap();
                    let _ = read.replay(&module);
                }
            }
        }
    }
}
