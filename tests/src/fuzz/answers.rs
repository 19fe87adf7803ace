use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, LazyLock};

use wvs_abi::Request;
use wvs_core::real_server::RealServer;
use wvs_core::scheduler::{Pick, Scheduler};
use wvs_plugin::{Host, Limits, Module, Source};

use crate::world::terms;

/// A plugin without a will: its configuration is the list of its answers, eight hexadecimal
/// digits each, to everything that it is asked from then on. Its own memory and what the director
/// wrote there it overwrites where an answer says so.
const PUPPET: &str = r#"
(module
  (memory (export "memory") 1 4)
  (global $next (mut i32) (i32.const 4096))
  (global $end (mut i32) (i32.const 4096))

  (func $digit (param $at i32) (result i32)
    (local $c i32)
    (local.set $c (i32.load8_u (local.get $at)))
    (if (result i32) (i32.gt_u (local.get $c) (i32.const 57))
      (then (i32.sub (local.get $c) (i32.const 87)))
      (else (i32.sub (local.get $c) (i32.const 48)))))

  (func $word (result i32)
    (local $value i32) (local $digits i32)
    (if (i32.ge_u (global.get $next) (global.get $end)) (then (return (i32.const 0))))
    (loop $more
      (local.set $value (i32.or (i32.shl (local.get $value) (i32.const 4))
                                (call $digit (global.get $next))))
      (global.set $next (i32.add (global.get $next) (i32.const 1)))
      (local.set $digits (i32.add (local.get $digits) (i32.const 1)))
      (br_if $more (i32.lt_u (local.get $digits) (i32.const 8))))
    (local.get $value))

  ;; What an answer's low octet makes it do before it gives the next one.
  (func $answer (result i32)
    (local $deed i32)
    (local.set $deed (call $word))
    (if (i32.eq (i32.and (local.get $deed) (i32.const 0xff)) (i32.const 1)) (then (unreachable)))
    (if (i32.eq (i32.and (local.get $deed) (i32.const 0xff)) (i32.const 2))
      (then (loop $for_ever (br $for_ever))))
    (if (i32.eq (i32.and (local.get $deed) (i32.const 0xff)) (i32.const 3))
      (then (drop (memory.grow (i32.shr_u (local.get $deed) (i32.const 8))))))
    (if (i32.eq (i32.and (local.get $deed) (i32.const 0xff)) (i32.const 4))
      (then (i32.store (i32.shr_u (local.get $deed) (i32.const 8)) (call $word))))
    (call $word))

  (func (export "wvs_abi") (result i32) (i32.const 0x10000))
  (func (export "wvs_caps") (result i32) (i32.const 5))
  (func (export "wvs_region") (param $kind i32) (param $size i32) (result i32)
    (if (i32.eqz (local.get $kind)) (then (return (i32.const 4096))))
    (call $answer))
  (func (export "wvs_init") (param $len i32) (result i32)
    (global.set $end (i32.add (i32.const 4096) (i32.and (local.get $len) (i32.const -8))))
    (call $answer))
  (func (export "wvs_servers_changed") (param $n i32) (result i32) (call $answer))
  (func (export "wvs_schedule") (param $n i32) (result i32) (call $answer)))
"#;

static HOST: LazyLock<Host> = LazyLock::new(|| Host::new().expect("wasm works here"));

static MODULE: LazyLock<Module> = LazyLock::new(|| {
    let octets = wat::parse_str(PUPPET).expect("a module");
    let limits = Limits {
        memory: 256 << 10,
        fuel: 10_000,
        setup_fuel: 20_000,
        start_fuel: 20_000,
        ..Limits::default()
    };
    HOST.load(Source::Octets { name: "puppet", octets: &octets }, limits).expect("a plugin")
});

/// Any answers of a plugin, regions and indexes included: what comes of them is a server that may
/// be picked, or a refusal, or a request to the director to decide.
pub(super) fn answers(octets: &[u8]) {
    const SERVERS: u8 = 5;
    // As many answers as the configuration's region has room for.
    let octets = &octets[..octets.len().min(4096)];
    let mut script = String::with_capacity(octets.len() * 2);
    for octet in octets {
        write!(script, "{octet:02x}").expect("a String takes everything");
    }
    let servers: Vec<_> = (0..SERVERS)
        .map(|id| {
            let address = SocketAddr::from((Ipv4Addr::new(10, 0, 0, id), 80));
            Arc::new(RealServer::new(id.into(), address, u32::from(id % 3), terms()))
        })
        .collect();
    let _ = MODULE.probe(Some(&script), &servers);
    let Ok(mut scheduler) = MODULE.scheduler(Some(&script), &servers) else { return };
    for now_ms in 0..8 {
        let request = Request { family: 4, protocol: 6, now_ms, ..Request::default() };
        if let Pick::Server(index) = scheduler.schedule(&request, &servers) {
            assert!(servers[index].weight() > 0, "a server of weight 0 was picked");
        }
        servers[usize::from(SERVERS - 1)].set_weight(u32::try_from(now_ms).expect("small") % 2);
        scheduler.servers_changed(&servers);
    }
    let counters = scheduler.counters();
    let decided = counters.picks() + counters.no_server() + counters.defers();
    assert!(decided <= 8 && counters.faults() <= 16);
}

/// Any octets as a plugin's module: it is one, or is refused with a reason.
pub(super) fn module(octets: &[u8]) {
    let limits = Limits { module: 64 << 10, function_body: 8 << 10, ..Limits::default() };
    match HOST.load(Source::Octets { name: "any", octets }, limits) {
        Ok(module) => {
            let _ = module.probe(None, &[]);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
