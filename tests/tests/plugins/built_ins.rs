//! The built-in schedulers decide in wasm as they do natively, every time anew.

use wvs_abi::{Request, Server};
use wvs_core::scheduler::Pick;
use wvs_plugin::{Instance, ServerTable, builtin};
use wvs_sdk::Scheduler;
use wvs_tests::requests::Requests;

use crate::built_in;

const REQUESTS: usize = 10_000;

fn instance(name: &str) -> Instance {
    Instance::new(&built_in(name), None).unwrap()
}

fn ask(instance: &mut Instance, request: &Request, servers: &[Server]) -> Pick {
    let counts = servers.iter().map(|server| (server.active, server.inactive));
    instance.schedule(request, counts).unwrap()
}

/// Puts one stream to the native scheduler and to two wasm instances of it.
fn decides_alike<S: Scheduler>(name: &str) {
    let mut requests = Requests::new(0x0DDB_1A5E_5BAD_5EED);
    let mut native = S::new("").unwrap();
    let mut instances = [instance(name), instance(name)];
    let tell = |requests: &Requests, native: &mut S, instances: &mut [Instance; 2]| {
        native.servers_changed(&requests.servers);
        let table = ServerTable::from(requests.servers.clone());
        for instance in instances {
            instance.set_servers(&table).unwrap();
        }
    };
    tell(&requests, &mut native, &mut instances);
    let mut answers = [0; 2];
    for number in 0..REQUESTS {
        if requests.servers_change() {
            tell(&requests, &mut native, &mut instances);
        }
        let request = requests.next_request();
        let expected = match native.schedule(&request, &requests.servers) {
            wvs_sdk::Pick::Server(index) => Pick::Server(index),
            wvs_sdk::Pick::NoServer => Pick::NoServer,
            wvs_sdk::Pick::Defer => Pick::Defer,
        };
        for instance in &mut instances {
            let picked = ask(instance, &request, &requests.servers);
            assert_eq!(picked, expected, "{name}, request {number}");
        }
        answers[usize::from(expected == Pick::NoServer)] += 1;
    }
    // Both kinds of answer occurred, or the stream tests less than it seems to.
    assert!(answers[0] > REQUESTS / 2 && answers[1] > 10, "{name}: {answers:?}");
}

#[test]
fn rr_in_wasm_decides_as_natively() {
    decides_alike::<wvs_rr::RoundRobin>("rr");
}

#[test]
fn wlc_in_wasm_decides_as_natively() {
    decides_alike::<wvs_wlc::WeightedLeastConnections>("wlc");
}

#[test]
fn sh_in_wasm_decides_as_natively() {
    decides_alike::<wvs_sh::SourceHashing>("sh");
}

#[test]
fn built_ins_say_what_they_read() {
    use wvs_abi::caps;
    let caps: Vec<_> = ["rr", "wlc", "sh"].map(|name| instance(name).caps()).into();
    assert_eq!(caps, [0, caps::COUNTERS, caps::PURE]);
}

#[test]
fn every_built_in_is_found_by_its_name() {
    for name in builtin::NAMES {
        assert!(builtin::find(name).is_some_and(|module| module.starts_with(b"\0asm")));
    }
    assert_eq!(builtin::find("wrr"), None);
}
