//! The built-in schedulers decide in wasm as they do natively, every time anew.

use wvs_abi::{Request, Server, ServerInfo, Signals, caps};
use wvs_core::random::Random;
use wvs_core::scheduler::Pick;
use wvs_plugin::{Instance, ServerTable, builtin};
use wvs_sdk::Scheduler;
use wvs_tests::requests::Requests;

use crate::built_in;

const REQUESTS: usize = 10_000;

/// Decisions after which an instance hands its state to a new one.
const TERM: usize = 500;

fn instance(name: &str, config: &str) -> Instance {
    let config = Some(config).filter(|config| !config.is_empty());
    Instance::new(&built_in(name), config).unwrap()
}

fn ask(instance: &mut Instance, request: &Request, servers: &[Server]) -> Pick {
    let counts = servers.iter().map(|server| (server.active, server.inactive));
    instance.schedule(request, counts).unwrap()
}

/// The servers with addresses, which follow from their keys.
fn table(servers: &[Server]) -> ServerTable {
    let info = servers.iter().map(|server| {
        let mut info = ServerInfo { port: 80, family: 4, ..ServerInfo::default() };
        info.address[..4].copy_from_slice(&server.key.to_le_bytes()[..4]);
        info
    });
    ServerTable { servers: servers.to_vec(), info: info.collect() }
}

/// What is seen of each server, seldom bad; some were not measured.
fn signals(servers: &[Server], random: &mut Random) -> Vec<Signals> {
    let signal = |server: &Server| {
        let [micros, connects, resets, timeouts, ..] = server.key.to_le_bytes();
        let [fails, answers, ..] = random.next().to_le_bytes();
        Signals {
            connect_us: u32::from(micros & 0x7F) * 10,
            connects: u32::from(connects) + u32::from(answers & 1),
            resets: u32::from(resets) + u32::from(fails < 8),
            timeouts: timeouts.into(),
            ..Signals::default()
        }
    };
    servers.iter().map(signal).collect()
}

/// Puts one stream to the native scheduler and to two wasm instances of it, one of which is replaced
/// by a successor now and then if it has a state to hand on.
fn decides_alike<S: Scheduler>(name: &str, config: &str) {
    let mut requests = Requests::new(0x0DDB_1A5E_5BAD_5EED);
    let mut random = Random::new(1);
    let mut native = S::new(config).unwrap();
    let mut instances = [instance(name, config), instance(name, config)];
    let tell = |requests: &Requests, native: &mut S, instances: &mut [Instance; 2]| {
        let table = table(&requests.servers);
        native.server_info_changed(&table.info);
        native.servers_changed(&table.servers);
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
        if number % TERM == 0
            && let Some(state) = instances[1].save_state().unwrap()
        {
            instances[1] = instance(name, config);
            instances[1].set_servers(&table(&requests.servers)).unwrap();
            assert!(instances[1].load_state(&state).unwrap(), "{name}, request {number}");
        }
        let mut request = requests.next_request();
        request.virtual_address[0] = request.random.to_le_bytes()[0] % 5;
        let signals = signals(&requests.servers, &mut random);
        native.signals_refreshed(&signals);
        let expected = match native.schedule(&request, &requests.servers) {
            wvs_sdk::Pick::Server(index) => Pick::Server(index),
            wvs_sdk::Pick::NoServer => Pick::NoServer,
            wvs_sdk::Pick::Defer => Pick::Defer,
        };
        for instance in &mut instances {
            if instance.wants_signals() {
                instance.set_signals(signals.iter().copied());
            }
            let picked = ask(instance, &request, &requests.servers);
            assert_eq!(picked, expected, "{name} {config}, request {number}");
        }
        answers[usize::from(expected == Pick::NoServer)] += 1;
    }
    // Both kinds of answer occurred, or the stream tests less than it seems to.
    assert!(answers[0] > REQUESTS / 2 && answers[1] > 10, "{name}: {answers:?}");
}

/// A test for each scheduler, and the list of those that have one.
macro_rules! decide_alike {
    ($($test:ident: $scheduler:ty, $name:literal, [$($config:literal),+];)+) => {
        $(
            #[test]
            fn $test() {
                for config in [$($config),+] {
                    decides_alike::<$scheduler>($name, config);
                }
            }
        )+

        const COMPARED: &[&str] = &[$($name),+];
    };
}

decide_alike! {
    dh_in_wasm_decides_as_natively: wvs_dh::DestinationHashing, "dh", [""];
    fo_in_wasm_decides_as_natively: wvs_fo::WeightedFailover, "fo", [""];
    hrw_in_wasm_decides_as_natively: wvs_hrw::RendezvousHashing, "hrw", [""];
    lblc_in_wasm_decides_as_natively: wvs_lblc::LocalityBased, "lblc", ["", r#"{"expiration":1}"#];
    lblcr_in_wasm_decides_as_natively:
        wvs_lblcr::LocalityBasedReplicated, "lblcr", ["", r#"{"expiration":1}"#];
    lc_in_wasm_decides_as_natively: wvs_lc::LeastConnections, "lc", [""];
    lrt_in_wasm_decides_as_natively: wvs_lrt::LeastResponseTime, "lrt", [""];
    mh_in_wasm_decides_as_natively:
        wvs_mh::MaglevHashing, "mh", ["", r#"{"fallback":true,"port":true}"#];
    nq_in_wasm_decides_as_natively: wvs_nq::NeverQueue, "nq", [""];
    ovf_in_wasm_decides_as_natively: wvs_ovf::WeightedOverflow, "ovf", [""];
    rr_in_wasm_decides_as_natively: wvs_rr::RoundRobin, "rr", [""];
    sed_in_wasm_decides_as_natively: wvs_sed::ShortestExpectedDelay, "sed", [""];
    sh_in_wasm_decides_as_natively:
        wvs_sh::SourceHashing, "sh", ["", r#"{"fallback":true,"port":true}"#];
    swrr_in_wasm_decides_as_natively: wvs_swrr::SmoothWeightedRoundRobin, "swrr", [""];
    twos_in_wasm_decides_as_natively: wvs_twos::TwoChoices, "twos", [""];
    wlc_in_wasm_decides_as_natively: wvs_wlc::WeightedLeastConnections, "wlc", [""];
    wrr_in_wasm_decides_as_natively: wvs_wrr::WeightedRoundRobin, "wrr", [""];
}

#[test]
fn every_built_in_is_compared() {
    assert_eq!(COMPARED, builtin::NAMES);
}

#[test]
fn built_ins_that_have_a_place_to_keep_hand_it_on() {
    let hands_on = |name: &&&str| {
        let mut instance = instance(name, "");
        instance.set_servers(&table(&[Server { weight: 1, ..Server::default() }])).unwrap();
        instance.save_state().unwrap().is_some()
    };
    let names: Vec<_> = builtin::NAMES.iter().filter(hands_on).copied().collect();
    assert_eq!(names, ["lblc", "lblcr", "rr", "swrr", "wrr"]);
}

#[test]
fn built_ins_say_what_they_read() {
    let with = |wanted: u32| {
        let has = |name: &&&str| instance(name, "").caps() & wanted != 0;
        builtin::NAMES.iter().filter(has).copied().collect::<Vec<_>>()
    };
    assert_eq!(
        with(caps::COUNTERS),
        ["lblc", "lblcr", "lc", "lrt", "nq", "ovf", "sed", "twos", "wlc"]
    );
    assert_eq!(with(caps::PURE), ["dh", "fo", "hrw", "mh", "sh"]);
    assert_eq!(with(caps::SERVER_INFO), ["mh"]);
    assert_eq!(with(caps::SIGNALS), ["lrt"]);
}

#[test]
fn every_built_in_is_found_by_its_name() {
    for name in builtin::NAMES {
        assert!(builtin::find(name).is_some_and(|module| module.starts_with(b"\0asm")));
    }
    assert_eq!(builtin::find("two-choices"), None);
}

/// The director compiles them when it starts: what they have in excess, everybody waits for.
#[test]
fn built_ins_are_small() {
    let sizes = builtin::NAMES.iter().map(|name| (name, builtin::find(name).unwrap().len()));
    let sizes: Vec<_> = sizes.collect();
    assert!(sizes.iter().all(|(_, octets)| *octets < 24 << 10), "{sizes:?}");
    let average = sizes.iter().map(|(_, octets)| octets).sum::<usize>() / sizes.len();
    assert!(average < 12 << 10, "{average} octets: {sizes:?}");
}
