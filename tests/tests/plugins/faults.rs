//! What a plugin that fails at work costs: a decision, never a connection.

use std::sync::Arc;
use std::time::{Duration, Instant};

use wvs_abi::Request;
use wvs_core::real_server::RealServer;
use wvs_core::scheduler::{Pick, Scheduler};
use wvs_plugin::{
    CALM_MS, FAULTS_MAX, Fault, InstanceError, Limits, PluginCounters, QUARANTINE_MIN_MS, Source,
    WasmScheduler,
};

use crate::{HOST, load, octets, servers};

/// The client's port on which the fixtures misbehave, and one on which they do not.
const BAD: u16 = 666;
const GOOD: u16 = 4711;

/// A plugin at work, by default for three servers of which the first has weight 0.
struct Work {
    scheduler: WasmScheduler,
    counters: Arc<PluginCounters>,
    servers: Vec<Arc<RealServer>>,
    now_ms: u64,
}

impl Work {
    fn new(fixture: &str) -> Self {
        Self::new_for(fixture, &[0, 1, 1])
    }

    fn new_for(fixture: &str, weights: &[u32]) -> Self {
        let servers = servers(weights);
        let scheduler = load(fixture).unwrap().scheduler(None, &servers).unwrap();
        let counters = scheduler.counters();
        Self { scheduler, counters, servers, now_ms: 0 }
    }

    fn pick(&mut self, client_port: u16) -> Pick {
        let request = Request {
            family: 4,
            protocol: 6,
            client_port,
            now_ms: self.now_ms,
            ..Request::default()
        };
        self.scheduler.schedule(&request, &self.servers)
    }

    /// Asks until the plugin answers again, which takes until its new instance is there.
    #[track_caller]
    fn pick_from_new_instance(&mut self) -> Pick {
        let give_up = Instant::now() + Duration::from_secs(30);
        loop {
            match self.pick(GOOD) {
                Pick::Defer if Instant::now() < give_up => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                pick => return pick,
            }
        }
    }

    #[track_caller]
    fn last_fault(&self) -> Fault {
        self.counters.last_fault().expect("a fault")
    }
}

/// One misbehaviour that ends the instance: a fallback for that request, and the next is served by
/// a new instance.
#[track_caller]
fn costs_the_instance(fixture: &str, count: fn(&PluginCounters) -> u64) -> Fault {
    let mut work = Work::new(fixture);
    assert_eq!(work.pick(GOOD), Pick::Server(2));
    assert_eq!(work.pick(BAD), Pick::Defer);
    assert_eq!((count(&work.counters), work.counters.faults()), (1, 1));
    assert_eq!(work.pick_from_new_instance(), Pick::Server(2));
    assert_eq!(work.counters.rebuilds(), 1);
    assert_eq!(work.counters.picks(), 2);
    assert_eq!(work.counters.quarantines(), 0);
    assert_eq!((count(&work.counters), work.counters.faults()), (1, 1));
    work.last_fault()
}

/// One wrong answer: a fallback for that request, and the same instance serves the next at once.
#[track_caller]
fn costs_the_answer(fixture: &str) -> Fault {
    let mut work = Work::new(fixture);
    assert_eq!(work.pick(BAD), Pick::Defer);
    assert_eq!((work.counters.bad_answers(), work.counters.faults()), (1, 1));
    assert_eq!(work.pick(GOOD), Pick::Server(2));
    assert_eq!((work.counters.rebuilds(), work.counters.unavailable()), (0, 0));
    work.last_fault()
}

#[test]
fn endless_loop_runs_out_of_fuel() {
    let fault = costs_the_instance("endless_loop", PluginCounters::out_of_fuel);
    assert_eq!(fault, Fault::OutOfFuel { export: "wvs_schedule", fuel: 1_000_000 });
}

#[test]
fn plugin_that_gives_up_is_replaced() {
    let fault = costs_the_instance("trap", PluginCounters::traps);
    let expected = "wvs_schedule stopped: wasm trap: wasm `unreachable` instruction executed";
    assert_eq!(fault.to_string(), expected);
}

#[test]
fn write_beyond_the_memory_stops_the_plugin() {
    let fault = costs_the_instance("wild_write", PluginCounters::traps);
    let expected = "wvs_schedule stopped: wasm trap: out of bounds memory access";
    assert_eq!(fault.to_string(), expected);
}

#[test]
fn endless_recursion_ends_at_the_stack_limit() {
    let fault = costs_the_instance("deep_recursion", PluginCounters::traps);
    assert_eq!(fault.to_string(), "wvs_schedule stopped: wasm trap: call stack exhausted");
}

#[test]
fn memory_does_not_grow_beyond_its_limit() {
    let fault = costs_the_instance("memory_growth", PluginCounters::traps);
    assert!(matches!(fault, Fault::Trap { memory_was_refused: true, .. }), "{fault}");
    assert!(fault.to_string().ends_with("after more memory than its limit was refused"), "{fault}");
}

#[test]
fn index_beyond_the_servers_is_a_bad_answer() {
    let fault = costs_the_answer("index_out_of_range");
    assert_eq!(fault, Fault::BadAnswer { answer: 3, servers: 3 });
}

#[test]
fn undefined_result_is_a_bad_answer() {
    let fault = costs_the_answer("unknown_result");
    assert_eq!(fault, Fault::BadAnswer { answer: -3, servers: 3 });
}

#[test]
fn server_of_weight_0_is_a_bad_answer() {
    assert_eq!(costs_the_answer("weight_0"), Fault::Unavailable { index: 0 });
}

#[test]
fn scribbling_over_the_server_table_does_not_make_weight_0_available() {
    let mut work = Work::new("scribbler");
    assert_eq!(work.pick(GOOD), Pick::Server(1));
    // The table in the plugin's memory now says that the first server has a weight.
    assert_eq!(work.pick(BAD), Pick::Defer);
    assert_eq!(work.pick(GOOD), Pick::Defer);
    assert_eq!(work.last_fault(), Fault::Unavailable { index: 0 });
    // The third one gets it a new memory.
    assert_eq!(work.pick(GOOD), Pick::Defer);
    assert_eq!(work.counters.bad_answers(), 3);
    work.now_ms += QUARANTINE_MIN_MS;
    assert_eq!(work.pick_from_new_instance(), Pick::Server(1));
}

#[test]
fn having_no_server_is_an_answer() {
    let mut work = Work::new("no_server");
    assert_eq!(work.pick(BAD), Pick::NoServer);
    assert_eq!((work.counters.no_server(), work.counters.faults()), (1, 0));
}

#[test]
fn leaving_it_to_the_director_is_an_answer() {
    let mut work = Work::new("defer");
    assert_eq!(work.pick(BAD), Pick::Defer);
    assert_eq!((work.counters.defers(), work.counters.faults()), (1, 0));
    assert_eq!(work.pick(GOOD), Pick::Server(2));
}

#[test]
fn fuel_limit_is_the_configured_one() {
    let limits = Limits { fuel: 5, ..Limits::default() };
    let octets = octets("loops");
    let module = HOST.load(Source::Octets { name: "loops", octets: &octets }, limits).unwrap();
    let servers = servers(&[1]);
    let mut scheduler = module.scheduler(None, &servers).unwrap();
    assert_eq!(scheduler.schedule(&Request::default(), &servers), Pick::Defer);
    let expected = Fault::OutOfFuel { export: "wvs_schedule", fuel: 5 };
    assert_eq!(scheduler.counters().last_fault(), Some(expected));
}

#[test]
fn slow_instructions_cost_more_fuel() {
    let fuel = |instruction: &str| {
        let wat = format!(
            r#"(module
              (memory (export "memory") 2)
              (func $self (export "wvs_abi") (result i32) (i32.const 0x10000))
              (func (export "wvs_region") (param $kind i32) (param $size i32) (result i32)
                (i32.mul (i32.const 4096) (i32.add (i32.const 1) (local.get $kind))))
              (elem declare func $self)
              (func (export "wvs_schedule") (param $n i32) (result i32)
                {instruction} drop (i32.const 0)))"#
        );
        let octets = wat::parse_str(wat).unwrap();
        let source = Source::Octets { name: "slow", octets: &octets };
        let module = HOST.load(source, Limits::default()).unwrap();
        module.probe(None, &servers(&[1])).unwrap().fuel_max
    };
    let cheap = fuel("(f64.add (f64.const 1) (f64.const 2))");
    assert_eq!(fuel("(f64.div (f64.const 1) (f64.const 2))") - cheap, 15);
    assert_eq!(fuel("(i64.rem_s (i64.const 1) (i64.const 2))") - cheap, 15);
    assert_eq!(fuel("(f64.sqrt (f64.add (f64.const 1) (f64.const 2)))") - cheap, 16);
    assert_eq!(fuel("(i32.const 1) (ref.func $self) drop") - cheap, 126);
}

#[test]
fn servers_that_change_while_the_instance_is_replaced_are_the_ones_it_knows() {
    let mut work = Work::new("trap");
    assert_eq!(work.pick(BAD), Pick::Defer);
    work.servers = servers(&[1, 1, 1, 1, 1]);
    work.scheduler.servers_changed(&work.servers);
    assert_eq!(work.pick_from_new_instance(), Pick::Server(4));
    assert_eq!(work.counters.faults(), 1);
}

/// The fixture takes its first table and refuses each later one, so an instance that is told of
/// servers a second time fails.
#[test]
fn servers_that_change_meanwhile_are_told_to_no_instance_while_a_request_waits() {
    let mut work = Work::new_for("servers_once", &[1, 1]);
    assert_eq!(work.pick(BAD), Pick::Defer);
    // Long enough for the instance with the old table to be there.
    std::thread::sleep(Duration::from_millis(300));
    work.servers = servers(&[1, 1, 1]);
    work.scheduler.servers_changed(&work.servers);
    assert_eq!(work.pick_from_new_instance(), Pick::Server(2));
    assert_eq!((work.counters.faults(), work.counters.rebuilds()), (1, 1));
}

#[test]
fn servers_that_only_a_request_tells_of_are_learnt_by_a_new_instance() {
    let mut work = Work::new_for("servers_once", &[1, 1]);
    assert_eq!(work.pick(GOOD), Pick::Server(1));
    work.servers = servers(&[1, 1, 1]);
    // The director decides until it is there, which may be at once.
    assert_eq!(work.pick_from_new_instance(), Pick::Server(2));
    assert_eq!((work.counters.faults(), work.counters.rebuilds()), (0, 1));
}

#[test]
fn failing_plugin_leaves_another_service_alone() {
    let module = load("trap").unwrap();
    let servers = servers(&[1, 1]);
    let mut failing = module.scheduler(None, &servers).unwrap();
    let mut other = module.scheduler(None, &servers).unwrap();
    let bad = Request { client_port: BAD, ..Request::default() };
    let good = Request { client_port: GOOD, ..Request::default() };
    for _ in 0..10 {
        assert_eq!(failing.schedule(&bad, &servers), Pick::Defer);
        assert_eq!(other.schedule(&good, &servers), Pick::Server(1));
    }
    assert_eq!(other.counters().picks(), 10);
    assert_eq!((other.counters().faults(), other.counters().unavailable()), (0, 0));
}

#[test]
fn plugin_that_keeps_failing_is_quarantined_for_longer_each_time() {
    let mut work = Work::new("trap");
    for fault in 1..=FAULTS_MAX as u64 {
        assert_eq!(work.counters.quarantines(), 0);
        assert_eq!(work.pick(BAD), Pick::Defer);
        assert_eq!(work.counters.faults(), fault);
        if fault < FAULTS_MAX as u64 {
            work.pick_from_new_instance();
        }
    }
    assert_eq!(work.counters.quarantines(), 1);

    // Until the first second is over nobody asks it, however often.
    let (picks, until) = (work.counters.picks(), work.now_ms + QUARANTINE_MIN_MS);
    while work.now_ms < until {
        assert_eq!(work.pick(GOOD), Pick::Defer);
        work.now_ms += 100;
    }
    assert_eq!(work.counters.picks(), picks);
    assert_eq!(work.pick_from_new_instance(), Pick::Server(2));

    // It relapses: one fault is enough now, and the quarantine twice as long.
    assert_eq!(work.pick(BAD), Pick::Defer);
    assert_eq!((work.counters.faults(), work.counters.quarantines()), (4, 2));
    work.now_ms += 2 * QUARANTINE_MIN_MS - 1;
    assert_eq!(work.pick(GOOD), Pick::Defer);
    work.now_ms += 1;
    assert_eq!(work.pick_from_new_instance(), Pick::Server(2));

    // After a while without a fault all is forgotten.
    work.now_ms += CALM_MS;
    assert_eq!(work.pick(BAD), Pick::Defer);
    assert_eq!(work.pick_from_new_instance(), Pick::Server(2));
    assert_eq!((work.counters.faults(), work.counters.quarantines()), (5, 2));
}

#[test]
fn instance_that_cannot_be_replaced_is_tried_again_later() {
    // It takes two servers but not five, so after the change every new instance fails too.
    let mut work = Work::new_for("servers_refused", &[1, 1]);
    assert_eq!(work.pick(GOOD), Pick::Server(0));
    work.servers = servers(&[1; 5]);
    work.scheduler.servers_changed(&work.servers);
    assert_eq!(work.last_fault(), Fault::ServersRefused(-1));
    let give_up = Instant::now() + Duration::from_secs(30);
    while work.counters.quarantines() == 0 {
        assert!(Instant::now() < give_up, "the new instance never came");
        assert_eq!(work.pick(GOOD), Pick::Defer);
        std::thread::sleep(Duration::from_millis(1));
    }
    let refused = InstanceError::Servers(Fault::ServersRefused(-1));
    assert_eq!(work.last_fault(), Fault::Rebuild(Box::new(refused)));
    // With a table that it likes it comes back once the quarantine is over.
    work.servers = servers(&[1, 1]);
    work.scheduler.servers_changed(&work.servers);
    work.now_ms += QUARANTINE_MIN_MS;
    assert_eq!(work.pick_from_new_instance(), Pick::Server(0));
}
