#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| wvs_tests::fuzz::target("capture")(octets));
